"""Plays a small program of threads in one schedule after the other until one fails.

A schedule says before which step which thread comes in. Threads run one at a time and
change places only between steps, so a schedule comes out the same each time. First come
the schedules without a preemption, in which a thread gives way only where it waits or
ends; then those with one, with two, up to a bound. Most bugs need one or two. What
fails is shown as a list of source lines as they were executed, and can be played again
by its id. If nothing fails, the outcome says how much of all that was.

The programs are ordinary code. While they are explored, `threading.Lock` is a lock that
the explorer knows, and RLock, Condition, Event, Semaphore, Barrier and `queue.Queue`,
which are Python code, stand on it. Import a module in a `with cooperative()` block if
it has locks of its own, or `from threading import Lock`. A program makes all it shares
anew for each schedule, has no chance in it, and starts no threads but its jobs.

What is a step, and what is not:

* Each bytecode instruction is one, but for those that no other thread can notice, as
  they only move values between the variables and the stack of a frame. Without a GIL,
  threads do change places anywhere. With one, CPython looks for a request to switch
  only at calls and backward jumps (since 3.10): not all schedules happen there today.
* A function written in C is one step. So is one of the standard library, or of a
  package that is installed, up to where it waits.
* A time-out ends a wait at any time. It counts as a preemption, unless all threads wait
  and this one has done so longest. A `time.sleep` is such a wait: it lets others run,
  and promises nothing. No real time passes.
* Each step sees what all before it have done. What a weak memory model allows besides
  is not explored (Chapter 17).

Explore one program at a time, and let no other threads run beside it: they would get
its locks. A loop that spins has to call wait_until.

Source: M. Musuvathi, S. Qadeer, "Iterative context bounding for systematic testing of
multithreaded programs", PLDI 2007 (CHESS). The means are `sys.monitoring` (PEP 669),
and in Python 3.11 `sys.settrace`.

Output:
    two threads add 1 without a lock: a schedule fails
      A  value += 1 ...
      B  value += 1
      A  ... value += 1
      AssertionError: the check says no
    played again: the same
    with a lock: all schedules covered, none fails
"""

import dis
import gc
import linecache
import os.path
import queue
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from types import CodeType, FrameType
from typing import Any, NamedTuple

MOST_STEPS = 10_000  # in one schedule that comes to an end

# Instructions that touch nothing but variables and stack of their own frame. (Dropping
# a value there may run a finalizer. One that is written in Python has its own steps.)
# JUMP_BACKWARD would be one of them, but an endless loop may have no other step.
PRIVATE = (
    *("CACHE", "NOP", "RESUME", "PRECALL", "KW_NAMES", "PUSH_NULL", "COPY", "SWAP"),
    *("LOAD_FAST", "STORE_FAST", "LOAD_CONST", "LOAD_SMALL_INT", "LOAD_COMMON_CONST"),
    *("POP_TOP", "IS_OP", "RETURN_VALUE", "RETURN_CONST", "JUMP_FORWARD", "NOT_TAKEN"),
)

PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
LIBRARIES = tuple(os.path.normcase(sysconfig.get_path(name)) for name in PATHS)

Job = Callable[[], object]
Choices = dict[int, str]  # by the number of a step: which thread comes in before it


class DeadlockError(Exception):
    """All threads that have not ended wait."""


class EndlessError(Exception):
    """The threads go on and on: they have made MOST_STEPS."""


class HangError(Exception):
    """A schedule has no end: a thread waits for something else, or cannot be ended."""


class ScheduleError(Exception):
    """The program cannot be played so, perhaps because it differs from time to time."""


class Stop(BaseException):
    """Raised in threads whose schedule is over. Let it pass, as with GeneratorExit."""


class Program(NamedTuple):
    """What threads do.

    Attributes:
        jobs: by the name of the thread. Names have no spaces.
        check: called when all have ended; it raises an exception, or returns False, if
            something is wrong.
    """

    jobs: Mapping[str, Job]
    check: Job = lambda: True


class Step(NamedTuple):
    """What a thread does of a line before it is the turn of another line or thread.

    Attributes:
        source: the line, with "..." where an earlier or a later step has a part of it.
    """

    thread: str
    file: str
    line: int
    source: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule that fails.

    Attributes:
        schedule: its id: before which step who comes in, as in "0:A 7:B". Steps are
            those of this interpreter: another version has other instructions.
        error: what a thread or the check has raised, or one of the errors above.
        trace: what was done, in this order.
    """

    schedule: str
    error: BaseException
    trace: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"{step.thread}  {step.source}" for step in self.trace]
        return "\n".join([*lines, f"{type(self.error).__name__}: {self.error}"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What exploring has shown.

    Attributes:
        failure: the first schedule that fails; it has as few preemptions as possible.
        schedules: how many were played.
        bound: all schedules with at most as many preemptions were played, as far as
            there are any; -1 if not even those without.
        complete: there is no other schedule.
    """

    failure: Failure | None
    schedules: int
    bound: int
    complete: bool

    def __str__(self) -> str:
        if self.failure:
            return f"schedule {self.schedules} fails: {self.failure.error!r}"
        if self.complete:
            return f"all {self.schedules} schedules covered, none fails"
        bound = f"all with at most {self.bound} preemptions" if self.bound >= 0 else ""
        return f"none of {self.schedules} schedules fails, {bound or 'not all played'}"


def explore(
    make_program: Callable[[], Program],
    *,
    bound: int = 2,
    most_schedules: int = 10_000,
    seconds: float = float("inf"),
    patience: float = 10.0,
) -> Outcome:
    """Play a program in all schedules with at most `bound` preemptions until one fails.

    Args:
        make_program: called for each schedule; makes all that the threads share anew.
        most_schedules: after as many, the search ends incomplete.
        seconds: after this time, the search ends incomplete.
        patience: seconds that a schedule may take before it fails with a HangError.

    Raises:
        ScheduleError: the program does not do the same each time, and that was noticed.
        ValueError: an argument is out of range, or a thread has no proper name.
        Exception: what make_program raises.
    """
    if bound < 0 or most_schedules < 1 or not seconds > 0 or not patience > 0:
        raise ValueError("bound must be at least 0, all other limits more")
    ends, played = time.monotonic() + seconds, 0
    with _threads_for(make_program, patience) as players:
        later = deque[Choices]({0: one.name} for one in players)
        for n_preemptions in range(bound + 1):
            now, later = later, deque()
            while now:
                if played == most_schedules or time.monotonic() > ends:
                    return Outcome(None, played, n_preemptions - 1, complete=False)
                schedule = _Schedule(make_program(), players, now.popleft())
                played += 1
                if failure := schedule.play(patience):
                    return Outcome(failure, played, n_preemptions - 1, complete=False)
                for choices, is_preemption in schedule.branches:
                    (later if is_preemption else now).append(choices)
    return Outcome(None, played, bound, complete=not later)


def replay(
    make_program: Callable[[], Program], schedule: str, *, patience: float = 10.0
) -> Failure | None:
    """Play a program once more; return how it fails, if it does.

    Args:
        schedule: the id of a Failure, of the same program on the same interpreter.

    Raises:
        ScheduleError: the program has no such schedule.
        ValueError: that is no id.
    """
    words = [word.partition(":") for word in schedule.split()]
    choices = {int(step): name for step, _, name in words}
    if 0 not in choices:
        raise ValueError(f"names no thread to begin: {schedule!r}")
    with _threads_for(make_program, patience) as players:
        return _Schedule(make_program(), players, choices).play(patience)


# -- what threads wait for


class Lock:
    """Stands for `threading.Lock`, and knows who waits for it."""

    def __init__(self) -> None:
        self._is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Wait until the lock is free, and take it; tell whether that was done."""
        if self._is_held and not (blocking and _wait(self._is_free, timeout)):
            return False
        self._is_held = True
        return True

    def release(self) -> None:
        """Let go of the lock.

        Raises:
            RuntimeError: nobody holds it.
        """
        if not self._is_held:
            raise RuntimeError("release of a lock that is not held")
        self._is_held = False

    def locked(self) -> bool:
        """Tell whether somebody holds it."""
        return self._is_held

    def _is_free(self) -> bool:
        return not self._is_held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until condition() is true. A loop that spins has to call this, or sleep.

    The condition is evaluated step by step, and others may come in. If it does not
    hold, the thread waits until it does, and evaluates it again.

    Args:
        condition: changes nothing.
    """
    while not condition():
        _wait(partial(_holds, condition))


def _holds(condition: Callable[[], object]) -> bool:
    """Evaluate the condition of a thread that waits; others do not come in."""
    player, _here.player = _player(), None  # so it has no steps
    try:
        return bool(condition())
    except Exception:
        return True  # let that thread meet the error, or wait for a lock in there
    finally:
        _here.player = player


def _wait(ready: Callable[[], bool], timeout: float = -1) -> bool:
    """Let others run until ready(), or until the time-out comes; tell which it was."""
    me = _player()
    if me is None:
        raise RuntimeError("this would wait for ever: no thread is left")
    me.ready, me.may_time_out = ready, timeout >= 0
    me.pause()
    in_time, me.ready = ready(), _always
    me.schedule.clock += 0 if in_time else timeout
    return in_time


def _always() -> bool:
    return True


def _sleep(seconds: float) -> None:
    if _player():
        _wait(lambda: False, seconds)


def _clock() -> float:
    me = _player()
    return me.schedule.clock if me else 0.0


def _start(thread: threading.Thread) -> None:
    raise RuntimeError(f"{thread.name}: the threads of a program are its jobs")


@contextmanager
def cooperative() -> Iterator[None]:
    """Let what stands on `threading.Lock` stand on Lock of this module, in the block.

    That is all of `threading` and `queue` but what is written in C.
    """
    stand_ins: list[tuple[Any, str, Any]] = [
        (threading, "Lock", Lock),
        (threading, "_allocate_lock", Lock),
        (threading, "RLock", threading._PyRLock),  # type: ignore[attr-defined]
        (threading, "_time", _clock),
        (queue, "time", _clock),
        (time, "sleep", _sleep),
        (threading.Thread, "start", _start),
    ]
    usual = [(owner, name, getattr(owner, name)) for owner, name, _ in stand_ins]
    try:
        for stand_in in stand_ins:
            setattr(*stand_in)
        yield
    finally:
        for one in usual:
            setattr(*one)


# -- one schedule


class _Player(threading.Thread):
    """A thread that does a job in each schedule.

    The schedules share their threads, for to start one may take longer than to play it.
    """

    def __init__(self, name: str) -> None:
        # A daemon, or one that hangs would keep the interpreter from ending.
        super().__init__(name=name, daemon=True)
        self.turn = queue.SimpleQueue[bool]()  # False: there is no schedule any more

    def take_part(self, schedule: "_Schedule", job: Job) -> None:
        """Get ready for a schedule. Then only who has the turn uses what is in here."""
        self.schedule, self.job = schedule, job
        self.is_fresh = True  # before its first step
        self.ready: Callable[[], bool] = _always
        self.may_time_out = False  # while it is not ready

    def run(self) -> None:
        """Do the jobs."""
        while self.turn.get():
            _here.player = self
            try:
                if self.schedule.error is None:
                    self.job()
            except BaseException as error:
                if self.schedule.error is None:
                    self.schedule.error = error
            _here.player = None  # a finalizer that runs from now on has no steps
            self.schedule.leave(self)

    def pause(self) -> None:
        """End a step; return when it is this thread's turn again."""
        (self.schedule.choose(self) or self).turn.put(True)
        if not self.turn.get():
            self.turn.put(False)  # after Ctrl-C: for `run`
        if self.schedule.error is not None:
            _here.player = None  # what it does in a `finally` has no steps
            raise Stop

    def at_instruction(self, frame: FrameType) -> None:
        """Let others run before an instruction that is a step, and record it."""
        if not self.is_fresh:
            self.pause()
        self.is_fresh = False
        if frame.f_lineno:
            row = self.name, frame.f_code.co_filename, frame.f_lineno
            self.schedule.rows.append(row)


_here = threading.local()  # its `player`, in the threads of a schedule


def _player() -> _Player | None:
    return getattr(_here, "player", None)


class _Schedule:
    """Threads that run one at a time, and hand the turn over between their steps.

    After an error, the thread that has the turn is stopped, leaves its job and hands
    the turn to the next one, which is stopped, too, until all have left.

    Attributes:
        branches: other schedules, which differ after the last choice of this one, and
            whether they differ there by a preemption.
        error: how it has failed.
        clock: seconds; grows by time-outs and sleep only.
        rows: what was done: thread, file, line.
    """

    def __init__(
        self, program: Program, players: list[_Player], choices: Choices
    ) -> None:
        if list(program.jobs) != [one.name for one in players]:
            raise ScheduleError(f"other threads than before: {', '.join(program.jobs)}")
        for one in players:
            one.take_part(self, program.jobs[one.name])
        self._check, self.choices = program.check, choices
        self.branches: list[tuple[Choices, bool]] = []
        self.error: BaseException | None = None
        self.clock = 0.0
        self.rows: list[tuple[str, str, int]] = []
        self.n_steps = 0
        self._players = list(players)  # who have not left; the last one has run last
        self._all_have_left = queue.SimpleQueue[None]()

    def play(self, patience: float) -> Failure | None:
        """Do the jobs and the check; return how they have failed, if they have.

        Raises:
            ScheduleError: the program has no such schedule.
        """
        collects = gc.isenabled()
        try:
            gc.disable()  # it may call finalizers, in any thread, at any time
            (self.choose(None) or self._players[0]).turn.put(True)
            self._all_have_left.get(timeout=patience)
        except queue.Empty:
            after = f" after {self.error!r}" if self.error else ""
            text = f"no end within {patience:g} s{after}: {self._places()}"
            self.error = HangError(text)
        except BaseException as error:  # Ctrl-C
            self.error = error
            raise
        finally:
            for one in tuple(self._players):  # are left only in these two cases
                one.turn.put(True)
            if collects:
                gc.enable()
        if self.error is None and max(self.choices) >= self.n_steps:
            self.error = ScheduleError(f"ends before step {max(self.choices)}")
        if isinstance(self.error, ScheduleError):
            raise self.error
        try:
            if self.error is None and self._check() is False:
                self.error = AssertionError("the check says no")
        except Exception as error:
            self.error = error
        if self.error is None:
            return None
        name = " ".join(f"{step}:{thread}" for step, thread in self.choices.items())
        return Failure(name, self.error, _trace(self.rows))

    def leave(self, me: _Player) -> None:
        """Hand the turn over for the last time."""
        with suppress(ValueError):  # it left before, and had the turn once more
            self._players.remove(me)
        if others := tuple(self._players):
            (self.choose(None) or others[0]).turn.put(True)
        else:
            self._all_have_left.put(None)

    def choose(self, me: _Player | None) -> _Player | None:
        """Return who makes the next step, after one of `me`, or None after an error."""
        if self.error is not None:
            return None
        ready = [one for one in self._players if one.ready()]
        late = [one for one in self._players if one.may_time_out and one not in ready]
        if stays := me in ready:
            ready.insert(0, ready.pop())
        able = ready + late
        if self.n_steps > max(self.choices):
            for one in able[1:]:
                choices = {**self.choices, self.n_steps: one.name}
                self.branches.append((choices, stays or one in late))
        name = self.choices.get(self.n_steps)
        chosen = next((one for one in able if name in {None, one.name}), None)
        if not able:
            self.error = DeadlockError(f"all wait: {self._places()}")
        elif chosen is None:
            self.error = ScheduleError(f"{name} cannot run at step {self.n_steps}")
        elif self.n_steps == MOST_STEPS:
            self.error = EndlessError(f"no end after {MOST_STEPS:,} steps")
        else:
            self.n_steps += 1
            self._players.remove(chosen)
            self._players.append(chosen)
            return chosen
        return None

    def _places(self) -> str:
        """Return the lines at which the threads are that have not left."""
        last = {name: _source(file, line) for name, file, line in self.rows}
        names = [one.name for one in self._players if one.name in last]
        return ", ".join(f"{name} at {last[name]!r}" for name in names)


def _trace(rows: list[tuple[str, str, int]]) -> tuple[Step, ...]:
    """Return what was done line by line."""
    steps: list[Step] = []
    latest: dict[str, int] = {}  # by thread
    for (thread, file, line), _ in groupby(rows):
        source, before = _source(file, line), latest.get(thread)
        if before is not None and steps[before][:3] == (thread, file, line):
            part = steps[before]
            steps[before] = part._replace(source=f"{part.source} ...")
            source = f"... {source}"
        latest[thread] = len(steps)
        steps.append(Step(thread, file, line, source))
    return tuple(steps)


def _source(file: str, line: int) -> str:
    return linecache.getline(file, line).strip()


@contextmanager
def _threads_for(
    make_program: Callable[[], Program], patience: float
) -> Iterator[list[_Player]]:
    """Give the threads of a program, which is played in the block."""
    with cooperative():
        names = list(make_program().jobs)
    if not names or any(len(name.split()) != 1 for name in names):
        raise ValueError(f"threads need names without spaces: {names}")
    players = [_Player(name) for name in names]
    with _told_of_steps():
        try:
            for one in players:
                one.start()  # needs real locks
            with cooperative():
                yield players
        finally:  # also after Ctrl-C, perhaps before all have started
            with cooperative():
                for one in players:
                    one.turn.put(False)
                for one in players:
                    if one.is_alive():
                        one.join(patience)


# -- instructions


_known: dict[int, tuple[CodeType, set[int]]] = {}  # by the id of the code


def _steps(code: CodeType) -> set[int]:
    """Return the offsets of instructions that are steps of a program."""
    if id(code) not in _known:
        names = [dis.opname[byte] for byte in code.co_code[::2] if _is_program(code)]
        steps = {2 * n for n, name in enumerate(names) if not name.startswith(PRIVATE)}
        _known[id(code)] = code, steps  # with the code, or another has its id
    return _known[id(code)][1]


def _is_program(code: CodeType) -> bool:
    if code.co_filename == _is_program.__code__.co_filename:
        return code.co_qualname.startswith("main.")  # the demonstration below
    return not os.path.normcase(code.co_filename).startswith(("<", *LIBRARIES))


@contextmanager
def _told_of_steps() -> Iterator[None]:
    """Have the players told before each step, in the block."""
    if sys.version_info >= (3, 12):
        monitoring, event = sys.monitoring, sys.monitoring.events.INSTRUCTION

        def at_instruction(code: CodeType, offset: int) -> object:
            if offset not in _steps(code):
                return monitoring.DISABLE
            if me := _player():
                me.at_instruction(sys._getframe(1))
            return None

        tool = next(n for n in (3, 4, 2, 1, 0) if monitoring.get_tool(n) is None)
        monitoring.use_tool_id(tool, "interleaving explorer")
        try:
            monitoring.register_callback(tool, event, at_instruction)
            monitoring.set_events(tool, event)
            yield
        finally:
            monitoring.set_events(tool, 0)
            monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)
    else:  # with sys.settrace, 3.12 crashes

        def trace(frame: FrameType, event: str, _: object) -> Any:
            steps = _steps(frame.f_code)
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "opcode" and frame.f_lasti in steps and (me := _player()):
                me.at_instruction(frame)
            return trace if steps else None

        usual = threading.gettrace()
        threading.settrace(trace)
        try:
            yield
        finally:
            threading.settrace(usual)


def main() -> None:
    def program(mended: bool) -> Program:
        value, lock = 0, threading.Lock()

        def add_broken() -> None:
            nonlocal value
            value += 1

        def add_fixed() -> None:
            with lock:
                add_broken()

        add = add_fixed if mended else add_broken
        return Program({"A": add, "B": add}, lambda: value == 2)

    broken, fixed = partial(program, False), partial(program, True)
    failure = explore(broken).failure
    if failure is None:
        raise SystemExit("an update was to be lost")
    print("two threads add 1 without a lock: a schedule fails")
    for line in str(failure).splitlines():
        print(f"  {line}")
    again = replay(broken, failure.schedule)
    if again is None or again.trace != failure.trace:
        raise SystemExit("the schedule was to fail again, and in the same way")
    print("played again: the same")
    outcome = explore(fixed, bound=100)
    if outcome.failure or not outcome.complete:
        raise SystemExit(f"with a lock, all was to be well: {outcome}")
    print("with a lock: all schedules covered, none fails")


if __name__ == "__main__":
    main()
