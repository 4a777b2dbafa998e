"""Runs a script's `main` in the process of the tests."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def run_main(
    module: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str | int
) -> None:
    """Call the `main` of a script, with arguments as if from the command line."""
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    module.main()


@contextmanager
def no_thread_is_left() -> Iterator[None]:
    """Check after the block that all threads have ended which were started in it."""
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not left, f"left: {left}"
