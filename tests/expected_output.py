"""What a script's docstring says it prints, compared with what it printed.

The last part of a script's docstring is its recorded output:

    Output:
        ten waits of 0.1 s
        overlapped in 0.11 s: 9.1x as fast
        process <pid> on <cores> cores

Every word and every number must be printed again, but for

* measurements, numbers followed by their unit (see UNITS): another number of that unit
  will do;
* placeholders (see PLACEHOLDERS), for the few things that vary and have no unit;
* the padding next to either, because columns move with the width of a number;
* a line `...`, which stands for any number of lines;
* the order of the lines, if the heading says `Output (lines in any order):`.

Everything here is a pure function of its arguments: no file, no process.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

UNITS = ("KiB", "MiB", "MB/s", "GB/s", "/s", "ms", "µs", "ns", "s", "%", "x")

_MODEL = r"(?:none|sequential|asyncio|threads|processes|subinterpreters)"

PLACEHOLDERS = {
    "<pid>": r"\d+",
    "<port>": r"\d+",
    "<cores>": r"\d+",
    "<version>": r"\d+\.\d+\.\d+\S*",
    "<path>": r"\S(?:.*\S)?",
    "<address>": r"0x[0-9a-fA-F]+|(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\])(?::\d+)?",
    "<gil>": r"on|off",
    "<model>": rf"{_MODEL}(?: and {_MODEL})*",  # what a measurement comes out for
}

ANY_LINES = "..."

_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_SPACED_UNITS = "|".join(re.escape(unit) for unit in UNITS if unit != "x")
# "1.5x" is a ratio; "3 x 4" and "640x480" are not.
_MEASUREMENT = rf"(?<![\w.,]){_NUMBER}(?: ?(?:{_SPACED_UNITS})|x)(?![\w/])"
_VARIABLE = re.compile(rf"({_MEASUREMENT}|<[a-z]+>)")
_HEADING = re.compile(r"Output(?P<any> \(lines in any order\))?:")


@dataclass(frozen=True, slots=True)
class Output:
    """The lines that a docstring promises."""

    lines: tuple[str, ...]
    any_order: bool = False


def read_output(docstring: str) -> Output:
    """Return the `Output:` part of a docstring.

    Raises:
        ValueError: there is none, or it is empty.
    """
    lines = docstring.splitlines()
    first, end, any_order = _find(lines)
    return Output(tuple(line[4:] for line in lines[first:end]), any_order)


def _find(lines: Sequence[str]) -> tuple[int, int, bool]:
    """Return where the output's lines begin and end, and whether order is free."""
    for number, line in enumerate(lines):
        if heading := _HEADING.fullmatch(line):
            first = end = number + 1
            for index in range(first, len(lines)):
                if lines[index].startswith("    "):
                    end = index + 1
                elif lines[index].strip():
                    break
            if first < end:
                return first, end, heading["any"] is not None
    raise ValueError("the docstring has no output below a line 'Output:'")


def line_pattern(line: str) -> re.Pattern[str]:
    """Compile a promised line; each of its variable parts becomes a group.

    Raises:
        ValueError: the line holds a placeholder that is not in PLACEHOLDERS.
    """
    parts = _VARIABLE.split(line.rstrip())  # text, variable, text, … , text
    regex = ""
    for index, part in enumerate(parts):
        if index % 2:
            regex += f"({_variable_pattern(part)})"
        else:
            regex += _text_pattern(part, index > 0, index < len(parts) - 1)
    return re.compile(regex)


def _variable_pattern(part: str) -> str:
    if part.startswith("<"):
        if part not in PLACEHOLDERS:
            known = " ".join(PLACEHOLDERS)
            raise ValueError(f"unknown placeholder {part}; there are {known}")
        return PLACEHOLDERS[part]
    unit = re.sub(rf"^{_NUMBER}", "", part)
    return rf"{_NUMBER}{re.escape(unit)}(?![\w/])"


def _text_pattern(text: str, variable_before: bool, variable_after: bool) -> str:
    """Match `text`; where it touches a variable part, its padding may vary."""
    words = text.strip(" ")
    if not words:
        at_least = "*" if not variable_before else "+"
        return f" {at_least}" if text else ""
    before = text[: len(text) - len(text.lstrip(" "))]
    after = text[len(text.rstrip(" ")) :]
    if variable_before and before:
        before = " +"
    if variable_after and after:
        after = " +"
    return before + re.escape(words) + after


def disagreement(promised: Output, printed: Sequence[str]) -> str | None:
    """Return None if `printed` keeps the promise, else the first place where not.

    Raises:
        ValueError: `promised` holds an unknown placeholder.
    """
    printed = [line.rstrip() for line in printed]
    patterns = [
        None if line == ANY_LINES else line_pattern(line) for line in promised.lines
    ]
    compare = _compare_any_order if promised.any_order else _compare_in_order
    return compare(promised.lines, patterns, printed)


def _compare_in_order(
    promised: Sequence[str],
    patterns: Sequence[re.Pattern[str] | None],
    printed: Sequence[str],
) -> str | None:
    # After each promised line: the numbers of printed lines that may be used up by now.
    used = {0}
    for line, pattern in zip(promised, patterns, strict=True):
        if pattern is None:
            used = set(range(min(used), len(printed) + 1))
            continue
        after = {
            n + 1 for n in used if n < len(printed) and pattern.fullmatch(printed[n])
        }
        if not after:
            at = min(used)
            got = f"line {at + 1}: {printed[at]!r}" if at < len(printed) else "the end"
            return f"promised {line!r}, but there came {got}"
        used = after
    if len(printed) not in used:
        return f"one line more than promised: {printed[max(used)]!r}"
    return None


def _compare_any_order(
    promised: Sequence[str],
    patterns: Sequence[re.Pattern[str] | None],
    printed: Sequence[str],
) -> str | None:
    # Give each promised line a printed line of its own (augmenting paths: an earlier
    # promise moves to another line if that makes room).
    owner: dict[int, int] = {}

    def place(promise: int, tried: set[int]) -> bool:
        pattern = patterns[promise]
        assert pattern is not None
        for n, line in enumerate(printed):
            if n not in tried and pattern.fullmatch(line):
                tried.add(n)
                if n not in owner or place(owner[n], tried):
                    owner[n] = promise
                    return True
        return False

    for promise, pattern in enumerate(patterns):
        if pattern is not None and not place(promise, set()):
            return f"promised {promised[promise]!r}, but no line is left that says so"
    for n, line in enumerate(printed):
        if n not in owner and None not in patterns:
            return f"one line more than promised: {line!r}"
    return None


def record(source: str, printed: Sequence[str]) -> str:
    """Return a script's source with `printed` as its docstring's output.

    Headings stay, and so do placeholders, where the old line is still printed or the
    words around the placeholder are.

    Raises:
        ValueError: the output cannot stand in a docstring, or the old one holds `...`
            and disagrees, so that only its author knows what `...` stands for.
    """
    lines = source.splitlines()
    first, end, _ = _find(lines)
    old = read_output(source)
    if any("\\" in line or '"""' in line for line in printed):
        raise ValueError("a backslash or three quotes cannot stand in the docstring")
    if ANY_LINES in old.lines:
        if complaint := disagreement(old, printed):
            raise ValueError(f"mend the output by hand, it holds '...': {complaint}")
        head = old.lines.index(ANY_LINES)
        tail = len(old.lines) - head - 1
        if old.any_order or ANY_LINES in old.lines[head + 1 :]:
            return source  # which lines the dots stood for is anybody's guess
        printed = [*printed[:head], ANY_LINES, *printed[len(printed) - tail :]]
    new = [f"    {line}".rstrip() for line in _keep_placeholders(old.lines, printed)]
    return "\n".join([*lines[:first], *new, *lines[end:]]) + "\n"


def _keep_placeholders(old: Sequence[str], printed: Sequence[str]) -> list[str]:
    unused = list(old)
    # Each placeholder of the old lines with the words next to it.
    fragments = [
        fragment
        for line in old
        for fragment in re.findall(r"(?:\S+ +)?\S*<[a-z]+>\S*(?: +\S+)?", line)
        if not re.fullmatch(r"<[a-z]+>", fragment)
    ]
    kept = []
    for printed_line in printed:
        line = printed_line.rstrip()
        same = next((o for o in unused if line_pattern(o).fullmatch(line)), None)
        if same is not None:
            unused.remove(same)
        for fragment in fragments if same is None else [same]:
            if match := line_pattern(fragment).search(line):
                line = _put_back(line, fragment, match)
        kept.append(line)
    return kept


def _put_back(line: str, fragment: str, match: re.Match[str]) -> str:
    """Replace what `match` found for each placeholder of `fragment` by its name."""
    variables = _VARIABLE.findall(fragment)
    for group in range(len(variables), 0, -1):  # from the right: places stay valid
        name = variables[group - 1]
        if name in PLACEHOLDERS:
            before, after = line[: match.start(group)], line[match.end(group) :]
            wider = len(name) - len(match[group])
            if before.endswith(" " * (wider + 1)):  # a right-aligned column stays so
                before = before[: len(before) - max(0, wider)]
            else:  # and so do the columns after
                after = re.sub(rf" {{{max(0, wider)}}}(?= )", "", after, count=1)
            line = before + name + after
    return line
