# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""A lock between processes is one number in shared memory, and the patience to wait.

Whoever finds the number 0 and exchanges it for 1 has the lock (test-and-test-and-set,
example10). Who does not get it must not spin for long in Python: the holder may need
the GIL, or the processor. So `SpinLock` gives way after each look, sleeps longer and
longer, and has a time limit.

The number knows no holder. If a process is killed that has the lock, nobody gives it
back, and all others wait in vain: that is what the time limit is for.

It works in any memory that is shared, and costs more than multiprocessing.Lock, which
is what to take. Where holders may be killed, take the lock of a file (package
filelock), which the system gives back, or in C a robust mutex
(`pthread_mutexattr_setrobust`), which tells the next one that its holder has died.

Output:
    two processes make 2000 additions with a SpinLock
      acquire and release     5163 ns, if nobody has it
      multiprocessing.Lock     562 ns
      its holder is killed: given up after 50 ms, awake for 1.8 ms
    one number is a lock, but it does not know whose
"""

import ctypes
import multiprocessing
import os
import signal
import time
import timeit
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import Self

from cores import need_two_cores, on_core
from example10_spin_locks import LOCK, PAIR, SIZE, STOP, meet
from native_atomics import AtomicInt64
from shared_block import attached, ctrl_c_later, process_pool, shared_block

ADDITIONS = 1000  # of each of two processes
LIMIT = 10.0  # seconds for what is bound to come
SHORT_LIMIT = 0.05  # seconds for what cannot come
SHORTEST, LONGEST = 2e-5, 1e-3  # seconds that who waits sleeps between two looks


class SpinLock:
    """A lock for threads or processes that share memory: one number, 0 if it is free.

    A thread that took it and is interrupted, as by Ctrl-C, before acquire has returned
    leaves it locked. So does a process that is killed.

    Args:
        address: where the number stands, a multiple of 8. The caller keeps that memory
            alive; all zeros is a free lock.
    """

    def __init__(self, address: int) -> None:
        self._held = AtomicInt64(address=address)

    def acquire(self, timeout: float) -> bool:
        """Take the lock; return False if it was not free within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        pause = 0.0
        while self._held.load("relaxed") or self._held.exchange(1, "acquire"):
            if not time.monotonic() < deadline:
                return False
            time.sleep(pause)  # the holder may need this processor, or the GIL
            pause = min(2 * pause, LONGEST) or SHORTEST
        return True

    def release(self) -> None:
        """Give the lock back; nobody knows whether it is the holder who does so.

        Raises:
            RuntimeError: it is not held.
        """
        if not self._held.exchange(0, "release"):
            raise RuntimeError("the lock is not held")

    def __enter__(self) -> Self:
        if not self.acquire(LIMIT):
            raise TimeoutError(f"the lock was not free within {LIMIT:g} s")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def add_in_python(block: str, party: int) -> None:
    """Add 1 to the number ADDITIONS times, with a SpinLock."""
    with attached(block) as start, on_core(party):
        lock, number = SpinLock(start + LOCK), AtomicInt64(address=start + PAIR)
        meet(start, 2)
        for _ in range(ADDITIONS):
            with lock:
                number.store(number.load("relaxed") + 1, "relaxed")


def be_killed_with_the_lock(block: str) -> None:
    """Take the lock, and have this process killed."""
    with attached(block) as start:
        SpinLock(start + LOCK).acquire(LIMIT)
        os.kill(os.getpid(), signal.SIGTERM)


def nanoseconds(lock: AbstractContextManager[object]) -> float:
    """Return what it takes to acquire and release a lock that nobody else wants."""

    def once() -> None:
        with lock:
            pass

    return 1e9 / 100 * min(timeit.repeat(once, number=100, repeat=20))


def demonstrate(block: str, processes: Executor) -> None:
    """Let two processes use a SpinLock, and kill one that holds it."""
    with attached(block) as start:
        ctypes.memset(start, 0, SIZE)
        lock = SpinLock(start + LOCK)
        try:
            with ctrl_c_later():  # amid submit it could leave a lock locked
                future = processes.submit(add_in_python, block, 1)
            add_in_python(block, 0)
            with ctrl_c_later():  # amid result, too
                future.result(LIMIT)
        finally:  # after Ctrl-C the other is not to wait for us, or for our lock
            for place, number in ((STOP, 1), (LOCK, 0)):
                AtomicInt64(address=start + place).store(number)
        total = AtomicInt64(address=start + PAIR).load()
        print(f"two processes make {total} additions with a SpinLock")
        if total != 2 * ADDITIONS:
            raise SystemExit(f"they were to make {2 * ADDITIONS}")
        with ctrl_c_later():
            usual = multiprocessing.Lock()
        print(f"  acquire and release   {nanoseconds(lock):6.0f} ns, if nobody has it")
        print(f"  multiprocessing.Lock  {nanoseconds(usual):6.0f} ns")

        with ctrl_c_later():
            death = processes.submit(be_killed_with_the_lock, block).exception(LIMIT)
        if not isinstance(death, BrokenProcessPool):
            raise SystemExit("a process was to be killed")
        began = time.thread_time()
        if lock.acquire(SHORT_LIMIT):
            raise SystemExit("the lock of a process that was killed was to be held")
        awake = time.thread_time() - began
        print(
            f"  its holder is killed: given up after {1000 * SHORT_LIMIT:.0f} ms, "
            f"awake for {1000 * awake:.1f} ms"
        )


def main() -> None:
    need_two_cores()
    try:
        with shared_block(SIZE) as block, process_pool(1) as processes:
            demonstrate(block, processes)
    except (TimeoutError, BrokenProcessPool) as error:
        raise SystemExit(f"a wait did not end: {error}") from None
    print("one number is a lock, but it does not know whose")


if __name__ == "__main__":
    main()
