"""Tidings: whether a journal may say something new, asked twenty times a second by every serving process, so it must cost next to nothing."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tasks.stores.journal.tables import RELEASES, ROLLOUTS

LATEST = 1.0  # seconds after which there are tidings in any case


class Tidings:
    """What one follower of a journal has heard of; not for several threads at once.

    SQLite counts the changes that others make to a database (https://sqlite.org/pragma.html#pragma_data_version); of a server's tables
    the releases and the moves of rollouts are counted, over a connection that stays open.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        parsed = sa.make_url(url)
        is_file = parsed.get_backend_name() == "sqlite" and bool(parsed.database)
        self._mark: Callable[[], object] = _File(Path(parsed.database or "")).mark if is_file else _Table(url).mark
        self._clock = clock
        self._heard: object = None
        self._due = float("-inf")

    def have_come(self) -> bool:
        """Whether something may have changed since the last call; true when that cannot be found out."""
        try:
            mark = self._mark()
        except (OSError, sqlite3.Error, SQLAlchemyError):
            mark = None
        if mark is not None and mark == self._heard and self._clock() < self._due:
            return False
        self._heard, self._due = mark, self._clock() + LATEST
        return True


class _File:
    """A SQLite database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._connection: sqlite3.Connection | None = None

    def mark(self) -> object:
        """Another value after each change that others made, and after another file took the place of this one."""
        inode = self._path.stat().st_ino
        if self._connection is None or inode != self._inode:
            if self._connection is not None:
                self._connection.close()
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._inode = inode
        return inode, self._connection.execute("PRAGMA data_version").fetchone()


class _Table:
    """The releases and rollouts in a database server."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, pool_size=1, isolation_level="AUTOCOMMIT")
        released = sa.select(sa.func.count()).select_from(RELEASES).scalar_subquery()
        moved = sa.select(sa.func.sum(ROLLOUTS.c.revision + 1)).scalar_subquery()  # a new one is a move, too
        self._ask = sa.select(released, moved)

    def mark(self) -> object:
        """Another value after each release, and after each move of a rollout."""
        try:
            with self._engine.connect() as connection:
                return tuple(connection.execute(self._ask).one())
        except SQLAlchemyError:
            with contextlib.suppress(SQLAlchemyError):
                self._engine.dispose()
            raise
