"""Waiting: looking again and again until something is true, but not for ever."""

import time
from collections.abc import Callable

from tasks.config.errors import StackError

PATIENCE = 120.0
"""Seconds that a service may take until it answers for the first time."""


def within(seconds: float, is_true: Callable[[], bool]) -> bool:
    """Whether something comes true within some seconds."""
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def until(is_true: Callable[[], bool], seconds: float, complaint: str) -> None:
    """Waits until something is true, or raises a complaint."""
    if not within(seconds, is_true):
        raise StackError(complaint)
