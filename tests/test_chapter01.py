"""Chapter 1: the parts a reader would copy."""

import argparse
import asyncio
import math
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from Chapter01 import example01_primes_sequential_threads_processes as primes
from Chapter01 import example02_inherently_sequential as chains
from Chapter01 import example03_overlapped_waits as waits
from Chapter01 import example04_which_model_for_which_work as models
from Chapter01 import example05_concurrency_is_not_parallelism as traces
from Chapter01 import example06_chain_that_can_be_cut as pieces
from Chapter01.example05_concurrency_is_not_parallelism import Trace

MODULES = [primes, chains, waits, models, traces, pieces]

# -- example01


def test_small_primes() -> None:
    assert [n for n in range(-10, 50) if primes.is_prime(n)] == [
        2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("n", "prime"),
    [
        (-(10**12), False),
        (25, False),  # squares of primes: the last divisor tried
        (49, False),
        (999_983**2, False),
        (999_983, True),  # the largest prime below a million
        (10**12 + 39, True),  # the smallest prime above 10**12
        (10**12 + 37, False),
        (561, False),  # a Carmichael number
    ],
)
def test_larger_primes(n: int, prime: bool) -> None:
    assert primes.is_prime(n) is prime


def test_the_number_of_primes_below_10_000() -> None:
    assert sum(map(primes.is_prime, range(10_000))) == 1229  # π(10⁴)


@given(
    st.integers(-1000, 1000),
    st.integers(0, 1000),
    st.integers(1, 100),
)
def test_chunks_are_the_numbers_cut_into_nearly_equal_parts(
    first: int, length: int, n_chunks: int
) -> None:
    numbers = range(first, first + length)
    chunks = primes.split(numbers, n_chunks)
    assert [n for chunk in chunks for n in chunk] == list(numbers)
    assert len(chunks) == min(n_chunks, length)
    sizes = [len(chunk) for chunk in chunks]
    assert not sizes or 1 <= min(sizes) >= max(sizes) - 1


@pytest.mark.parametrize("n_chunks", [0, -1])
def test_there_must_be_a_chunk(n_chunks: int) -> None:
    with pytest.raises(ValueError, match=f"not {n_chunks}"):
        primes.split(range(10), n_chunks)


@pytest.mark.parametrize("n_chunks", [1, 7, 1000])
@pytest.mark.parametrize("n_workers", [1, 3])
def test_any_workers_find_the_same_primes(n_workers: int, n_chunks: int) -> None:
    numbers = range(100, 500)
    with ThreadPoolExecutor(n_workers) as pool:
        found = primes.primes_with(pool, numbers, n_chunks)
    assert found == primes.primes_in(numbers)


def test_processes_find_the_same_primes() -> None:
    numbers = range(100, 500)
    with primes.process_pool(3) as pool:
        assert primes.primes_with(pool, numbers, 7) == primes.primes_in(numbers)


def test_jobs_run_in_turns_and_the_fastest_run_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    log = []

    def job(name: str, durations: Iterator[float]) -> Callable[[], str]:
        def run() -> str:
            nonlocal now
            now += next(durations)
            log.append(name)
            return name

        return run

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    seconds, results = primes.side_by_side(
        {"a": job("a", iter([5.0, 3.0])), "b": job("b", iter([2.0, 4.0]))}, rounds=2
    )
    assert seconds == {"a": 3.0, "b": 2.0}
    assert results == {"a": "a", "b": "b"}
    assert log == ["a", "b", "a", "b"]


def test_a_wrong_result_in_any_round_is_noticed() -> None:
    results = iter(["right", "wrong", "right"])
    with pytest.raises(ValueError, match="a: not the same result"):
        primes.side_by_side({"a": lambda: next(results)}, rounds=3)


def test_the_work_is_left_to_the_executor() -> None:
    class Spy(Executor):
        submitted = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
            self.submitted += 1
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    spy = Spy()
    assert primes.primes_with(spy, range(100), 7) == primes.primes_in(range(100))
    assert spy.submitted == 7


# -- example02


def test_a_chain_is_f_applied_again_and_again() -> None:
    f = chains.step
    assert chains.chain(b"x", 0) == b"x"
    assert chains.chain(b"x", 3) == f(f(f(b"x")))
    assert (
        chains.chain(b"", 1).hex().startswith("e3b0c44298fc1c14")
    )  # SHA-256 of nothing


def test_a_chain_has_no_negative_length() -> None:
    with pytest.raises(ValueError, match="-1"):
        chains.chain(b"x", -1)
    with pytest.raises(ValueError, match="-1"):
        chains.chain_with_threads(b"x", -1, 2, chains.Gauge())


@given(st.binary(), st.integers(0, 20), st.integers(0, 20))
def test_a_chain_can_be_continued(seed: bytes, first: int, more: int) -> None:
    assert chains.chain(chains.chain(seed, first), more) == chains.chain(
        seed, first + more
    )


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_threads_that_all_read_first_make_one_step(n_threads: int) -> None:
    all_have_read = threading.Barrier(n_threads)
    shared = chains.SharedValue(b"x", between=all_have_read.wait)
    chains.run_together(shared.advance, n_threads, all_have_read)
    assert shared.value == chains.chain(b"x", 1)


def test_a_thread_that_fails_does_not_keep_the_others_at_the_barrier() -> None:
    barrier = threading.Barrier(3)
    names = iter(["first", "second", "third"])

    def target() -> None:
        if next(names) == "third":
            raise KeyError("cannot begin")
        barrier.wait()

    with pytest.raises((KeyError, threading.BrokenBarrierError)):
        chains.run_together(target, 3, barrier)
    assert barrier.broken


def test_steps_one_after_the_other_are_all_made() -> None:
    shared = chains.SharedValue(b"x")
    for _ in range(8):
        shared.advance()
    assert shared.value == chains.chain(b"x", 8)


@pytest.mark.parametrize("n_threads", [1, 2, 8])
@pytest.mark.parametrize("steps", [0, 1, 50])
def test_threads_in_turn_make_every_step(n_threads: int, steps: int) -> None:
    gauge = chains.Gauge()
    last = chains.chain_with_threads(b"x", steps, n_threads, gauge)
    assert last == chains.chain(b"x", steps)
    assert gauge.most == min(1, steps)


def test_the_gauge_sees_threads_that_are_inside_together() -> None:
    gauge = chains.Gauge()
    together = threading.Barrier(3)

    def enter() -> None:
        with gauge:
            together.wait()

    chains.run_together(enter, 3, together)
    assert gauge.most == 3
    with gauge:
        assert gauge.most == 3


# -- example03


QUESTIONS = ["", "one", "two", "µ and ß"]
ASK_ALL: dict[str, Callable[[waits.Address, list[str]], list[str]]] = {
    "one by one": waits.ask_one_by_one,
    "threads": waits.ask_with_threads,
    "asyncio": lambda *args: asyncio.run(waits.ask_with_tasks(*args)),
}
every_client = pytest.mark.parametrize("ask_all", ASK_ALL.values(), ids=ASK_ALL)


@every_client
def test_every_question_gets_its_own_answer(
    ask_all: Callable[[waits.Address, list[str]], list[str]],
) -> None:
    threads = threading.active_count()
    with waits.slow_server(0.001) as address:
        answers = ask_all(address, QUESTIONS)
    assert [answer.encode() for answer in answers] == [
        question.encode().upper() for question in QUESTIONS
    ]
    assert threading.active_count() == threads


@every_client
def test_no_questions_get_no_answers(
    ask_all: Callable[[waits.Address, list[str]], list[str]],
) -> None:
    assert ask_all(("127.0.0.1", 1), []) == []


def test_a_question_is_one_line() -> None:
    with pytest.raises(ValueError, match="more than one line"):
        waits.ask(("127.0.0.1", 1), "two\nlines")
    with pytest.raises(ValueError, match="more than one line"):
        asyncio.run(waits.ask_async(("127.0.0.1", 1), "two\nlines"))


@every_client
def test_the_servers_port_is_closed_afterwards(
    ask_all: Callable[[waits.Address, list[str]], list[str]],
) -> None:
    with waits.slow_server(0.001) as address:
        pass
    with pytest.raises((OSError, ExceptionGroup)):
        ask_all(address, ["anybody there?"])


@contextmanager
def server_that_says(answer: bytes) -> Iterator[waits.Address]:
    """Accept one connection, read its question, say `answer`, and hang up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield "127.0.0.1", listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("answer", [b"", b"only hal"])
def test_half_an_answer_is_an_error(answer: bytes) -> None:
    with (
        server_that_says(answer) as address,
        pytest.raises(ConnectionError, match=repr(answer.decode())),
    ):
        waits.ask(address, "question")
    with (
        server_that_says(answer) as address,
        pytest.raises(ConnectionError, match=repr(answer.decode())),
    ):
        asyncio.run(waits.ask_async(address, "question"))


def test_a_server_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waits, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "127.0.0.1", listener.getsockname()[1]
        with pytest.raises(TimeoutError):
            waits.ask(address, "question")
        for question in ("question", "x" * 50_000_000):  # the second is never read
            with pytest.raises(TimeoutError):
                asyncio.run(waits.ask_async(address, question))


@pytest.mark.parametrize("module", [waits, models])
def test_a_client_that_says_nothing_does_not_keep_the_server(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    server = (
        waits.slow_server(0.01)
        if module is waits
        else models.slow_server(tmp_path, 0.01)
    )
    with server as address:
        silent = socket.create_connection(address)
    silent.close()


# -- example04


def test_the_names_in_a_module(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("a = b\nprint(a.attribute)\n")
    assert models.parse(module) == 3  # a, b, print
    module.write_text("")
    assert models.parse(module) == 0
    assert models.compress(module) == 8  # what zlib makes of nothing


def test_a_file_is_fetched_whole(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_bytes(b"x" * 300_000)
    with models.slow_server(tmp_path, 0.001) as address:
        crc = zlib.crc32(module.read_bytes())
        assert models.fetch(address, module) == crc
        assert asyncio.run(models.fetch_async(address, module)) == crc


@pytest.mark.parametrize(
    "request_line", [b"../secret", b"", b".", b"nothing.py", b"\xff\xfe", b"a\0b"]
)
def test_the_server_serves_only_its_folder(
    tmp_path: Path, request_line: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    with (
        models.slow_server(folder, 0.001) as address,
        socket.create_connection(address) as connection,
    ):
        connection.sendall(request_line + b"\n")
        assert connection.recv(100) == b""
    assert capfd.readouterr() == ("", "")


def test_clients_that_hang_up_do_not_disturb_the_servers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "large").write_bytes(b"x" * 10_000_000)
    reset = struct.pack("ii", 1, 0)  # linger for no time: the peer sees a reset
    for server in (waits.slow_server(0.05), models.slow_server(tmp_path, 0.05)):
        with server as address:
            for _ in range(3):
                with socket.create_connection(address) as connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    connection.sendall(b"large\n")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "model"),
    [
        ((1.0, 1.0, 1.0, 1.0), "sequential"),
        ((1.0, 1.0, 1.0, 0.5), "processes"),
        ((1.0, 1.0, 0.55, 0.5), "threads"),
        ((1.0, 0.1, 0.1, 0.2), "asyncio"),
        ((1.24, 1.0, 1.0, 1.0), "sequential"),
        ((1.26, 1.0, 1.0, 1.0), "asyncio"),
    ],
)
def test_the_lightest_model_that_is_fast_enough_is_recommended(
    seconds: tuple[float, ...], model: str
) -> None:
    taken = dict(zip(models.MODELS, seconds, strict=True))
    assert models.recommend(taken, awaits=True) == model


def test_asyncio_is_not_recommended_for_computations() -> None:
    taken = {"sequential": 1.0, "asyncio": 0.1, "threads": 1.0, "processes": 0.5}
    assert models.recommend(taken, awaits=False) == "processes"


def test_all_models_do_the_same_work(tmp_path: Path) -> None:
    modules = [tmp_path / f"{n}.py" for n in range(3)]
    for n, module in enumerate(modules):
        module.write_text(f"x{n} = {n}\n" * n)
    with ThreadPoolExecutor(3) as threads, ThreadPoolExecutor(3) as processes:
        seconds, answers = models.measure(
            models.parse, models.in_coroutine(models.parse), modules, threads, processes
        )
        assert answers == [0, 1, 1]
        assert list(seconds) == list(models.MODELS)
        assert all(0 < value < math.inf for value in seconds.values())
        with pytest.raises(ValueError, match="asyncio: "):
            models.measure(
                models.parse,
                models.in_coroutine(models.compress),
                modules,
                threads,
                processes,
            )


def test_the_largest_modules_come_largest_first() -> None:
    sizes = [module.stat().st_size for module in models.largest_modules(5)]
    assert len(sizes) == 5
    assert sizes == sorted(sizes, reverse=True)
    with pytest.raises(LookupError, match="not 1000000"):
        models.largest_modules(1_000_000)


# -- example05


def test_overlap_is_counted() -> None:
    def most(*intervals: tuple[float, float]) -> int:
        return traces.most_at_once([Trace(a, b, 0) for a, b in intervals])

    assert most() == 0
    assert most((0, 1)) == 1
    assert most((0, 1), (1, 2)) == 1  # the one ends as the other begins
    assert most((0, 2), (1, 3)) == 2
    assert most((0, 9), (1, 2), (3, 4), (5, 6)) == 2
    assert most((0, 9), (1, 8), (2, 3)) == 3


def test_busy_cores_are_cpu_time_by_wall_time() -> None:
    assert traces.cores_busy([Trace(0, 2, 2), Trace(0, 2, 2)]) == 2
    assert traces.cores_busy([Trace(0, 2, 2), Trace(2, 4, 2)]) == 1
    assert traces.cores_busy([Trace(1, 5, 0), Trace(1, 5, 0)]) == 0


def test_a_slice_that_took_long_was_not_running() -> None:
    slices = ((0.0, 1.0), (1.0, 2.0), (2.0, 8.0), (8.0, 9.0))
    assert Trace(0, 9, 4, slices).running() == [(0, 2), (8, 9)]
    assert Trace(0, 9, 4).running() == []


def test_no_task_ends_before_all_have_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    a_task_has_ended = threading.Event()
    held: list[int] = []

    class Barrier(threading.Barrier):
        """Holds a thread that has passed, until another one's task has ended."""

        def wait(self, timeout: float | None = None) -> int:
            index = super().wait(timeout)
            if index == 0 and not held:
                held.append(index)
                a_task_has_ended.wait(0.2)  # in vain, if none can
            return index

    def task() -> Trace:
        began = time.perf_counter()
        a_task_has_ended.set()
        return Trace(began, time.perf_counter(), 0)

    monkeypatch.setattr(threading, "Barrier", Barrier)
    assert traces.most_at_once(traces.trace_threads(task, 2)) == 2


def test_tasks_begin_together_in_threads_and_processes() -> None:
    for trace in (traces.trace_threads, traces.trace_processes):
        waiting = trace(traces.wait, 3)
        assert traces.most_at_once(waiting) == 3
        assert traces.cores_busy(waiting) < 0.5


def test_what_is_concurrent_and_what_is_parallel() -> None:
    runs = {
        "one by one": [Trace(0, 1, 1), Trace(1, 2, 1)],
        "turns": [Trace(0, 2, 1), Trace(0, 2, 1)],
        "both": [Trace(0, 1, 1), Trace(0, 1, 1)],
    }
    assert traces.concurrent(runs) == "turns and both"
    assert traces.parallel(runs) == "both"
    assert traces.parallel({"turns": runs["turns"]}) == "none"


def test_two_computing_threads_share_the_gil() -> None:
    if traces.gil_state() == "off":
        pytest.skip("needs a GIL")
    assert traces.cores_busy(traces.trace_threads(traces.compute, 2)) < 1.5


# -- example06


numbers_64 = st.integers(0, 2**64 - 1)
maps = st.builds(pieces.Affine, numbers_64, numbers_64)


@given(maps, maps, maps, numbers_64)
def test_composing_affine_maps_is_associative(
    f: pieces.Affine, g: pieces.Affine, h: pieces.Affine, x: int
) -> None:
    assert f.then(g)(x) == g(f(x))
    assert f.then(g).then(h) == f.then(g.then(h))


@given(maps, st.integers(0, 200), numbers_64)
def test_many_steps_in_one(f: pieces.Affine, times: int, x: int) -> None:
    walked = x
    for _ in range(times):
        walked = f(walked)
    assert f.repeated(times)(x) == walked


@given(maps, st.integers(0, 10**30), st.integers(0, 10**30))
def test_jumps_add_up(f: pieces.Affine, first: int, more: int) -> None:
    assert f.repeated(first).then(f.repeated(more)) == f.repeated(first + more)


def test_the_generator_has_its_full_period() -> None:
    assert pieces.GENERATOR.repeated(2**64) == pieces.Affine(1, 0)
    assert pieces.GENERATOR.repeated(2**63) != pieces.Affine(1, 0)
    with pytest.raises(ValueError, match="-1 times"):
        pieces.GENERATOR.repeated(-1)


@given(st.integers(0, 2000), st.integers(0, 300), st.integers(0, 300))
def test_darts_thrown_in_pieces_are_the_same_darts(
    first: int, n: int, more: int
) -> None:
    together = pieces.hits(first, n + more)
    assert pieces.hits(first, n) + pieces.hits(first + n, more) == together


def test_the_darts_find_pi() -> None:
    assert 4 * pieces.hits(0, 100_000) / 100_000 == pytest.approx(math.pi, abs=0.02)


# -- what all of them have


@pytest.mark.parametrize(
    "module", [module for module in MODULES if hasattr(module, "usable_cores")]
)
def test_usable_cores_respect_affinity(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    usable_cores = module.usable_cores  # type: ignore[attr-defined]
    assert usable_cores() >= 1
    monkeypatch.delattr("os.process_cpu_count", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (primes, ["--workers", "0"], "must be at least 1, not 0"),
        (primes, ["--numbers", "many"], "invalid positive value: 'many'"),
        (chains, ["--threads", "1"], "must be at least 2, not 1"),
        (waits, ["--delay", "0"], "must be at least 0.05 and less than 10, not 0"),
        (waits, ["--delay", "nan"], "must be at least 0.05 and less than 10, not nan"),
        (waits, ["--requests", "0"], "must be at least 1, not 0"),
        (models, ["--modules", "0"], "must be at least 1, not 0"),
        (models, ["--modules", "1000000"], "modules, not 1000000"),
        (models, ["--plot", "x.txt"], "must end in .png, .svg or .pdf: x.txt"),
        (pieces, ["--darts", "0"], "must be at least 1, not 0"),
        (traces, ["--plot", "nowhere/x.png"], "no such folder: nowhere"),
    ],
)
def test_bad_arguments_get_one_clear_line(
    module: ModuleType,
    arguments: list[str],
    culprit: str,
    complaint: Callable[..., str],
) -> None:
    assert culprit in complaint(module, *arguments)


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder.png"
    folder.mkdir()
    with pytest.raises(argparse.ArgumentTypeError, match="cannot be written"):
        models.picture(str(folder))
