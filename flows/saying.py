"""Saying: how progress reaches whoever waits for it, a line at a time."""

from collections.abc import Callable

Say = Callable[[str], None]


def quiet(_line: str) -> None:
    """Takes a line of progress and shows it to nobody."""
