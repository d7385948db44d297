"""Judging: the one place where the seal of the holdout is broken. Who may import this is held by `make check`."""

from collections.abc import Generator
from contextlib import contextmanager

from tasks.ml.sealed import JUDGING


@contextmanager
def judging() -> Generator[None]:
    """Sealed rows can be read inside; afterwards, and in other threads, they cannot."""
    token = JUDGING.set(True)
    try:
        yield
    finally:
        JUDGING.reset(token)
