"""The comparison of outputs: what must be rejected, and what may vary."""

import pytest
from expected_output import (
    PLACEHOLDERS,
    UNITS,
    Output,
    disagreement,
    read_output,
    record,
)
from hypothesis import given
from hypothesis import strategies as st

PROMISED = Output(
    (
        "waits             10",
        "one by one    1.00 s",
        "overlapped    0.11 s   9.1x as fast",
        "process <pid> on <cores> cores",
    )
)
PRINTED = (
    "waits             10",
    "one by one    1.02 s",
    "overlapped    0.21 s   4.8x as fast",
    "process 4711 on 64 cores",
)


def agrees(promised: Output | str, *printed: str) -> bool:
    if isinstance(promised, str):
        promised = Output((promised,))
    return disagreement(promised, printed) is None


def changed(line: int, new: str) -> list[str]:
    return [new if n == line else old for n, old in enumerate(PRINTED)]


def test_another_measurement_and_any_process_id_will_do() -> None:
    assert agrees(PROMISED, *PRINTED)


@pytest.mark.parametrize(
    ("line", "new"),
    [
        pytest.param(1, "one for one   1.02 s", id="a changed word"),
        pytest.param(0, "waits             11", id="a changed number without a unit"),
        pytest.param(0, "waits            10", id="padding away from what varies"),
        pytest.param(1, "one by one    1.02", id="a missing unit"),
        pytest.param(1, "one by one    1.02 ms", id="another unit"),
        pytest.param(1, "one by one    1.02 seconds", id="a word for a unit"),
        pytest.param(1, "one by one    1.02 s/s", id="a longer unit"),
        pytest.param(1, "one by one    - s", id="no number"),
        pytest.param(1, "one by one1.02 s", id="no padding at all"),
        pytest.param(2, "overlapped    0.21 s   4.8x", id="words missing at the end"),
        pytest.param(3, "process 4711 on all cores", id="no number for <cores>"),
        pytest.param(3, "process  on 64 cores", id="nothing for <pid>"),
    ],
)
def test_a_changed_line_is_rejected(line: int, new: str) -> None:
    assert not agrees(PROMISED, *changed(line, new))


def test_a_missing_line_is_rejected_wherever_it_is_missing() -> None:
    for n in range(len(PRINTED)):
        assert not agrees(PROMISED, *PRINTED[:n], *PRINTED[n + 1 :])


def test_an_extra_line_is_rejected_wherever_it_stands() -> None:
    for n in range(len(PRINTED) + 1):
        assert not agrees(PROMISED, *PRINTED[:n], "surprise", *PRINTED[n:])


def test_lines_out_of_order_are_rejected() -> None:
    assert not agrees(PROMISED, *reversed(PRINTED))
    assert not agrees(PROMISED, PRINTED[1], PRINTED[0], *PRINTED[2:])


def test_no_output_at_all_is_rejected() -> None:
    assert not agrees(PROMISED)


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_makes_a_measurement(unit: str) -> None:
    space = "" if unit == "x" else " "
    assert agrees(f"took 1{space}{unit}, really", f"took 1,234.5{space}{unit}, really")
    assert not agrees(f"took 1{space}{unit}, really", f"took 1{space}{unit}o, really")
    assert not agrees(f"took 1{space}{unit}, really", "took 1, really")


@pytest.mark.parametrize(
    ("promised", "printed"),
    [
        ("3 x 4", "5 x 4"),  # a product, not a ratio
        ("640x480", "320x480"),
        ("step 1 starts", "step 2 starts"),
        ("example01 s", "example02 s"),
        ("1.5 ns", "1.5 µs"),
    ],
)
def test_what_only_looks_like_a_measurement_must_match(
    promised: str, printed: str
) -> None:
    assert not agrees(promised, printed)


def test_padding_next_to_a_measurement_or_placeholder_may_vary() -> None:
    assert agrees("time   9.9 s   9x", "time 100.9 s 10x")
    assert agrees("  9.9 s", "100.9 s")
    assert agrees("cores      <cores>  used", "cores 128 used")
    assert not agrees("  waits 9.9 s", "waits 9.9 s")


@pytest.mark.parametrize(
    ("placeholder", "value"),
    [
        ("<pid>", "12345"),
        ("<port>", "54321"),
        ("<cores>", "1"),
        ("<version>", "3.14.0rc1"),
        ("<path>", "/tmp/a folder/file.txt"),
        ("<address>", "127.0.0.1:8080"),
        ("<address>", "[::1]:8080"),
        ("<address>", "0x7f00deadbeef"),
        ("<gil>", "off"),
        ("<model>", "processes"),
        ("<model>", "threads and processes"),
    ],
)
def test_every_placeholder_takes_its_kind_only(placeholder: str, value: str) -> None:
    assert agrees(f"it is {placeholder} here", f"it is {value} here")
    assert not agrees(f"it is {placeholder} here", f"it is {value} there")
    assert not agrees(f"it is {placeholder} here", "it is here")
    if placeholder != "<path>":
        assert not agrees(f"it is {placeholder} here", "it is nonsense here")


def test_all_placeholders_are_tested_above() -> None:
    marks = test_every_placeholder_takes_its_kind_only.pytestmark  # type: ignore[attr-defined]
    assert {value for value, _ in marks[0].args[1]} == set(PLACEHOLDERS)


def test_an_unknown_placeholder_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown placeholder <pidd>"):
        agrees("process <pidd>", "process 1")


def test_dots_stand_for_any_lines() -> None:
    promised = Output(("first", "...", "last"))
    assert agrees(promised, "first", "last")
    assert agrees(promised, "first", "a", "last", "b", "last")
    assert not agrees(promised, "first", "a")
    assert not agrees(promised, "a", "last")
    assert not agrees(promised, "first", "last", "b")


def test_order_is_free_only_where_the_heading_says_so() -> None:
    promised = Output(("worker 1 done", "worker 2 done", "in 1 s"), any_order=True)
    assert agrees(promised, "in 2 s", "worker 2 done", "worker 1 done")
    assert not agrees(promised, "in 2 s", "worker 2 done", "worker 2 done")
    assert not agrees(promised, "in 2 s", "worker 2 done")
    assert not agrees(promised, "in 2 s", "worker 2 done", "worker 1 done", "more")


def test_free_order_gives_every_line_a_partner_if_there_is_a_way() -> None:
    promised = Output(("took <path>", "took 1 s", "took 1 s"), any_order=True)
    assert agrees(promised, "took 2 s", "took 3 s", "took 4 s")
    assert agrees(promised, "took 2 s", "took a while", "took 4 s")
    assert not agrees(promised, "took 2 s", "took a while", "took a nap")


DOCSTRING = """\
One line.

Output (lines in any order):
    first

    second
"""


def test_the_output_is_read_from_the_docstring() -> None:
    assert read_output(DOCSTRING) == Output(("first", "", "second"), any_order=True)
    with pytest.raises(ValueError, match="no output"):
        read_output("One line.\n\nOutput:\n")
    with pytest.raises(ValueError, match="no output"):
        read_output("One line.\n\nOutput of something else:\n    first\n")


SOURCE = '''"""One line.

Output:
    process   <pid> waits
    took 1.0 s on <cores> cores
    goodbye
"""

print("Output:")
'''


def test_recording_keeps_placeholders_and_everything_else() -> None:
    new = record(SOURCE, ["process   12345 waits", "took 2.5 s on 2 cores", "hello"])
    assert new == SOURCE.replace("1.0 s", "2.5 s").replace("goodbye", "hello")


def test_recording_keeps_placeholders_in_a_line_whose_words_have_changed() -> None:
    new = record(SOURCE, ["finished after 2.5 s on 2 cores", "process 12 waits"])
    assert read_output(new).lines == (
        "finished after 2.5 s on <cores> cores",
        "process <pid> waits",
    )


def test_recording_keeps_columns_aligned() -> None:
    source = SOURCE.replace("goodbye", "<cores> cores     1.0 s")
    printed = [
        "process       99 waits",
        "took 2.5 s on 2 cores",
        "2 cores         3.0 s",
    ]
    assert read_output(record(source, printed)).lines == (
        "process    <pid> waits",
        "took 2.5 s on <cores> cores",
        "<cores> cores   3.0 s",
    )


def test_recording_refuses_what_it_cannot_know() -> None:
    dots = SOURCE.replace("goodbye", "...")
    agreeing = ["process   12345 waits", "took 2.5 s on 2 cores", "a", "b"]
    assert record(dots, agreeing) == dots.replace("1.0 s", "2.5 s")
    twice = dots.replace("    took", "    ...\n    took")
    assert record(twice, agreeing) == twice
    with pytest.raises(ValueError, match="by hand"):
        record(dots, ["hello"])
    with pytest.raises(ValueError, match="backslash"):
        record(SOURCE, ["C:\\temp"])


@given(
    st.lists(
        st.text(
            st.characters(codec="utf-8", exclude_characters='<>\\"'),
            min_size=1,
        ).filter(lambda line: line.strip() and not line.startswith("...")),
        min_size=1,
    )
)
def test_what_was_recorded_agrees_with_itself(printed: list[str]) -> None:
    lines = [line.rstrip() for line in printed if len(line.splitlines()) == 1]
    if lines:
        promised = read_output(record(SOURCE, lines))
        assert disagreement(promised, lines) is None
