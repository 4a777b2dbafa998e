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
* A time-out ends a wait at any time; it counts as a preemption if others can run. So a
  `time.sleep` lets others run, and promises nothing. No real time passes.
* Each step sees what all before it have done. What a weak memory model allows besides
  is not explored (Chapter 17).

Explore one program at a time in a process. A loop that spins has to call wait_until.

Source: M. Musuvathi, S. Qadeer, "Iterative context bounding for systematic testing of
multithreaded programs", PLDI 2007 (CHESS). The means are `sys.monitoring` (PEP 669),
and in Python 3.11 `sys.settrace`.

Output:
    two threads add 1 without a lock: a schedule fails
      A  self.value += 1 ...
      B  self.value += 1
      A  ... self.value += 1
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from types import CodeType, FrameType
from typing import Any, NamedTuple

MOST_INSTRUCTIONS = 10_000  # in one schedule that comes to an end

# Instructions that touch nothing but variables and stack of their own frame. (Dropping
# a value there may run a finalizer. One that is written in Python has its own steps.)
PRIVATE = (
    *("CACHE", "NOP", "RESUME", "PRECALL", "KW_NAMES", "PUSH_NULL", "COPY", "SWAP"),
    *("LOAD_FAST", "STORE_FAST", "LOAD_CONST", "LOAD_SMALL_INT", "LOAD_COMMON_CONST"),
    *("POP_TOP", "IS_OP", "RETURN_VALUE", "RETURN_CONST", "JUMP_FORWARD", "NOT_TAKEN"),
)
BACK = "JUMP_BACKWARD"  # private, too, but an endless loop is known by it

PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
LIBRARIES = tuple(os.path.normcase(sysconfig.get_path(name)) for name in PATHS)

Job = Callable[[], object]
Choice = tuple[int, str]  # the number of a step, and the thread that comes in before it
Row = tuple[str, str, int, int]  # thread, file, line, and an id of the frame


class DeadlockError(Exception):
    """All threads that have not ended wait."""


class EndlessError(Exception):
    """The threads go on and on: MOST_INSTRUCTIONS were executed."""


class HangError(Exception):
    """A thread does not come to its next step, or cannot be ended."""


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
        trace: what was done, in this order; empty for a HangError.
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
        most_schedules: the end comes after as many ...
        seconds: ... or after this time, even if there are more.
        patience: seconds that a thread may take for one step.

    Raises:
        ScheduleError: the program does not do the same each time.
        ValueError: an argument is out of range, or the program has no threads.
        Exception: what make_program raises.
    """
    if bound < 0 or most_schedules < 1 or not seconds > 0 or not patience > 0:
        raise ValueError("bound must be at least 0, all other limits more")
    ends, played = time.monotonic() + seconds, 0
    with _stage(make_program, patience) as (names, play):
        later = deque[tuple[Choice, ...]](((0, name),) for name in names)
        for n_preemptions in range(bound + 1):
            now, later = later, deque()
            while now:
                if played == most_schedules or time.monotonic() > ends:
                    return Outcome(None, played, n_preemptions - 1, complete=False)
                schedule = play(now.popleft())
                played += 1
                if schedule.error:
                    failure = _explain(play, schedule)
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
    choices = tuple((int(step), name) for step, _, name in words)
    if not choices or choices[0][0] != 0:
        raise ValueError(f"names no thread to begin: {schedule!r}")
    with _stage(make_program, patience) as (_, play):
        played = play(choices)
        return _explain(play, played) if played.error else None


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
    hold, it is evaluated again after somebody has done something.

    Args:
        condition: changes nothing.
    """
    me = _player()
    while not _holds(condition, me):
        pass


def _holds(condition: Callable[[], object], me: "_Player | None") -> bool:
    """Evaluate a condition; if it does not hold, wait until it is worth a new try."""
    if me is None:
        return bool(condition()) or _wait(lambda: False)
    before, me.looks = me.schedule.progress, True
    try:
        return bool(condition()) or not _wait(lambda: me.schedule.progress != before)
    finally:
        me.looks = False


def _sleep(seconds: float) -> None:
    if me := _player():
        me.schedule.clock += seconds
        me.schedule.switch(me, yields=True)


def _wait(ready: Callable[[], bool], timeout: float = -1) -> bool:
    """Let others run until ready(), or until the time-out comes; tell which it was."""
    me = _player()
    if me is None:
        raise RuntimeError("this would wait for ever: no thread is left")
    me.ready, me.may_time_out = ready, timeout >= 0
    me.schedule.switch(me)
    in_time, me.ready, me.may_time_out = ready(), _always, False
    me.schedule.clock += 0 if in_time else timeout
    return in_time


def _always() -> bool:
    return True


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


class _Worker(threading.Thread):
    """A thread that is one thread of many schedules, one after the other."""

    def __init__(self, name: str) -> None:
        # A daemon, for one that hangs must not keep the interpreter from ending.
        super().__init__(name=name, daemon=True)
        self.inbox: queue.SimpleQueue[_Player | None] = queue.SimpleQueue()
        self.is_stuck = False

    def run(self) -> None:
        while player := self.inbox.get():
            player.schedule.work(player)
            player.left.put(None)


class _Player:
    """A thread of a schedule. Only who has the turn uses what is in here."""

    def __init__(self, worker: _Worker, job: Job, schedule: "_Schedule") -> None:
        self.name, self.worker, self.job = worker.name, worker, job
        self.schedule = schedule
        self.gate: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False: stop
        self.left: queue.SimpleQueue[None] = queue.SimpleQueue()  # the job is left
        self.has_begun = self.has_ended = self.is_stopped = False
        self.is_fresh = True  # before its first boundary
        self.looks = False  # evaluates the condition of wait_until
        self.ready: Callable[[], bool] = _always
        self.may_time_out = False

    def wake(self) -> None:
        if self.has_begun:
            self.gate.put(True)
        else:
            self.has_begun = True
            self.worker.inbox.put(self)

    def await_turn(self) -> None:
        if not self.gate.get():
            self.gate.put(False)  # for the next time, perhaps in a `finally`
            self.is_stopped = True
            raise Stop


_here = threading.local()  # its `player`, in the threads of a schedule


def _player() -> _Player | None:
    return getattr(_here, "player", None)


class _Schedule:
    """Threads that run one at a time, and hand the turn over at boundaries.

    Attributes:
        branches: other schedules, which differ after the last choice of this one, and
            whether they differ there by a preemption.
        error: how it has failed.
        progress: grows with each step that is more than a look at a condition.
        clock: seconds; grows by time-outs and sleep only.
        rows: what was done, if that is recorded.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        workers: Sequence[_Worker],
        choices: tuple[Choice, ...],
        recorded: bool,
    ) -> None:
        if list(jobs) != [one.name for one in workers]:
            raise ScheduleError(f"other threads than before: {', '.join(jobs)}")
        self.choices = choices
        self.branches: list[tuple[tuple[Choice, ...], bool]] = []
        self.error: BaseException | None = None
        self.progress, self.clock = 0, 0.0
        self.rows: list[Row] = []
        self._recorded = recorded
        self._planned = dict(choices)
        self._step = self._instructions = 0
        self._is_over = False
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._players = [
            _Player(worker, job, self)
            for worker, job in zip(workers, jobs.values(), strict=True)
        ]

    def play(self, patience: float) -> None:
        """Do the jobs. It has failed afterwards if `error` is not None."""
        try:
            with cooperative():
                self._hand_over(None)
                before = -1
                while not self._is_over and before != self._instructions:
                    before = self._instructions
                    with suppress(queue.Empty):
                        self._over.get(timeout=patience)
            if not self._is_over:
                self._end(HangError(f"no step within {patience:g} s: {self._places()}"))
        finally:  # also after Ctrl-C
            self._is_over = True
            begun = [one for one in self._players if one.has_begun]
            for one in begun:
                one.gate.put(False)
            for one in begun:
                try:
                    one.left.get(timeout=patience)
                except queue.Empty:
                    one.worker.is_stuck = True
        if stuck := [one.name for one in begun if one.worker.is_stuck]:
            self.error = HangError(f"{', '.join(stuck)} cannot be ended: {self.error}")
        if self.error is None and max(self._planned) >= self._step:
            self.error = ScheduleError(f"ends before step {max(self._planned)}")

    def work(self, me: _Player) -> None:
        """Be one of the threads."""
        _here.player = me
        sys.settrace(threading.gettrace())  # 3.11: a Stop has ended it
        try:
            me.job()
            me.has_ended = True
            self._hand_over(me)
        except BaseException as error:
            if not self._is_over:
                self._end(error)
        finally:
            _here.player = None

    def _end(self, error: BaseException | None) -> None:
        self.error, self._is_over = error, True
        self._over.put(None)

    def at_instruction(self, me: _Player, frame: FrameType, is_boundary: bool) -> None:
        """Let others run before an instruction, and record it."""
        if me.is_stopped:
            return
        self._instructions += 1
        if self._instructions == MOST_INSTRUCTIONS:
            self._end(EndlessError(f"no end after {MOST_INSTRUCTIONS:,} instructions"))
        if self._is_over or (is_boundary and not me.is_fresh):
            self.switch(me)
        me.is_fresh = False
        if is_boundary and self._recorded and frame.f_lineno:
            row = me.name, frame.f_code.co_filename, frame.f_lineno, id(frame)
            if self.rows[-1:] != [row]:
                self.rows.append(row)

    def switch(self, me: _Player, yields: bool = False) -> None:
        """End a step of a thread; return when it is its turn again.

        Args:
            yields: it would rather let others run.
        """
        if self._hand_over(me, yields) is not me:
            me.await_turn()

    def _hand_over(self, me: _Player | None, yields: bool = False) -> _Player | None:
        """Choose who runs now, and wake that thread, unless it is this one."""
        if self._is_over:
            return None
        self.progress += bool(me and not me.looks)
        at = self._players.index(me) + 1 if me else 0
        order = [*self._players[at:], *self._players[:at]]  # the next one first
        order = [one for one in order if not one.has_ended]
        ready = [one for one in order if one.ready()]
        stays = me in ready and not yields
        if stays:
            ready = ready[-1:] + ready[:-1]
        late = [one for one in order if one not in ready and one.may_time_out]
        able = ready + late
        if not order:
            self._end(None)
        elif not able:
            self._end(DeadlockError(f"all wait: {self._places()}"))
        else:
            name = self._planned.get(self._step, able[0].name)
            if self._step > self.choices[-1][0]:
                for other in able[1:]:
                    counts = stays or other is me or (other in late and bool(ready))
                    choices = (*self.choices, (self._step, other.name))
                    self.branches.append((choices, counts))
            for chosen in able:
                if chosen.name == name:
                    self._step += 1
                    if chosen is not me:
                        chosen.wake()
                    return chosen
            self._end(ScheduleError(f"{name} cannot run at step {self._step}"))
        return None

    def _places(self) -> str:
        """Return the lines at which the threads are that have not ended."""
        frames, places = sys._current_frames(), []
        for one in self._players:
            frame = frames.get(one.worker.ident or 0)
            while frame and not _is_program(frame.f_code):
                frame = frame.f_back
            if frame and not one.has_ended:
                source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
                places.append(f"{one.name} at {source.strip()!r}")
        return ", ".join(places)


def _play(
    make_program: Callable[[], Program],
    workers: Sequence[_Worker],
    patience: float,
    choices: tuple[Choice, ...],
    recorded: bool = False,
) -> _Schedule:
    with cooperative():
        program = make_program()
    schedule = _Schedule(program.jobs, workers, choices, recorded)
    collecting = gc.isenabled()
    gc.disable()  # it may call finalizers, in any thread, at any time
    try:
        schedule.play(patience)
        with cooperative():
            if schedule.error is None and program.check() is False:
                schedule.error = AssertionError("the check says no")
    except Exception as error:  # of the check
        schedule.error = error
    finally:
        if collecting:
            gc.enable()
    return schedule


@contextmanager
def _stage(
    make_program: Callable[[], Program], patience: float
) -> Iterator[tuple[list[str], Callable[..., _Schedule]]]:
    """Give the names of a program's threads, and a function that plays a schedule."""
    with cooperative():
        names = list(make_program().jobs)
    if not names or any(len(name.split()) != 1 for name in names):
        raise ValueError(f"threads need names without spaces: {names}")
    workers = [_Worker(name) for name in names]
    with _told_of_instructions():
        try:
            for worker in workers:
                worker.start()
            yield names, partial(_play, make_program, workers, patience)
        finally:  # also after Ctrl-C, perhaps before all have started
            for worker in workers:
                worker.inbox.put(None)
            for worker in workers:
                if worker.is_alive() and not worker.is_stuck:
                    worker.join()


def _explain(play: Callable[..., _Schedule], failed: _Schedule) -> Failure:
    """Play a schedule that has failed once more, and record it."""
    name = " ".join(f"{step}:{thread}" for step, thread in failed.choices)
    error = failed.error
    assert error is not None
    if isinstance(error, ScheduleError):
        raise error
    if isinstance(error, HangError):
        return Failure(name, error, ())
    again = play(failed.choices, recorded=True)
    if again.error is None or type(again.error) is not type(error):
        raise ScheduleError(f"{name} has failed, but not again") from error
    steps: list[Step] = []
    latest: dict[str, int] = {}  # by thread
    for number, row in enumerate(again.rows):
        thread, file, line, _ = row
        before = latest.get(thread, number)
        source = linecache.getline(file, line).strip()
        if before < number and again.rows[before] == row:
            source = f"... {source}"
            steps[before] = steps[before]._replace(source=steps[before].source + " ...")
        steps.append(Step(thread, file, line, source))
        latest[thread] = number
    return Failure(name, again.error, tuple(steps))


# -- instructions


@cache
def _is_program_file(filename: str) -> bool:
    return not os.path.normcase(filename).startswith(("<", *LIBRARIES))


def _is_program(code: CodeType) -> bool:
    if code.co_filename == _is_program.__code__.co_filename:
        return code.co_qualname.startswith("main.")  # the demonstration below
    return _is_program_file(code.co_filename)


_known: dict[int, tuple[CodeType, dict[int, bool]]] = {}  # by the id of the code


def _boundaries(code: CodeType) -> dict[int, bool]:
    """Return the offsets of instructions that matter; True if one is a step."""
    if id(code) not in _known:
        names = [dis.opname[byte] for byte in code.co_code[::2] if _is_program(code)]
        offsets = {
            2 * n: not name.startswith(BACK)
            for n, name in enumerate(names)
            if not name.startswith(PRIVATE)
        }
        _known[id(code)] = code, offsets  # with the code, or another has its id
    return _known[id(code)][1]


@contextmanager
def _told_of_instructions() -> Iterator[None]:
    """Have the schedules told of each instruction in the block."""

    def matters(frame: FrameType, offset: int) -> bool:
        is_boundary = _boundaries(frame.f_code).get(offset)
        if is_boundary is not None and (me := _player()):
            me.schedule.at_instruction(me, frame, is_boundary)
        return is_boundary is not None

    if sys.version_info >= (3, 12):
        monitoring, event = sys.monitoring, sys.monitoring.events.INSTRUCTION

        def at_instruction(code: CodeType, offset: int) -> object:
            return None if matters(sys._getframe(1), offset) else monitoring.DISABLE

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
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "opcode":
                matters(frame, frame.f_lasti)
            return trace if _boundaries(frame.f_code) else None

        usual = threading.gettrace()
        threading.settrace(trace)
        try:
            yield
        finally:
            threading.settrace(usual)


def main() -> None:
    class Counter:
        def __init__(self) -> None:
            self.value = 0
            self.lock = threading.Lock()

        def add_broken(self) -> None:
            self.value += 1

        def add_fixed(self) -> None:
            with self.lock:
                self.value += 1

    def broken() -> Program:
        counter = Counter()
        add = counter.add_broken
        return Program({"A": add, "B": add}, lambda: counter.value == 2)

    def fixed() -> Program:
        counter = Counter()
        add = counter.add_fixed
        return Program({"A": add, "B": add}, lambda: counter.value == 2)

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
