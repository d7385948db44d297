"""Locks that PostgreSQL keeps: one at a time over all machines, and whoever has lost one writes nothing more under it."""

import contextlib
import hashlib
import os
import socket
import threading
import uuid
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from tasks.config.errors import ConflictError
from tasks.stores.journal.tables import METADATA

LOCKS = sa.Table(
    "locks",
    METADATA,
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("token", sa.Text, nullable=False, comment="of whoever entered last; every entry has another one"),
    sa.Column("holder", sa.Text, nullable=False, comment="its process, for a reader"),
)
LOST = (DBAPIError, ResourceClosedError)  # what a connection says that is gone
# A peer that is silent for a minute is gone, for either end: firewalls forget connections that are idle, and by default Linux asks after two hours.
KEPT_ALIVE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_AT_THE_SERVER = {
    "idle_session_timeout": "0", "tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3",
}  # fmt: skip


class ServerLock:
    """One lock, while it is held.

    An advisory lock lets the next one in as soon as a process is killed; but it ends with its connection, too, which a process that lives on does
    not notice. So whoever enters leaves a token, and every transaction of the journal that is written under the lock looks first whether the token
    is still its own, and keeps it from changing until its end. After a loss either nobody has entered, and the lock is taken again, or somebody
    has, and the write is refused. Of the two the later one always counts: nothing of the earlier one is written once the later one is in.
    """

    def __init__(self, engine: sa.Engine, what: str) -> None:
        self.engine, self.what, self.token = engine, what, uuid.uuid4().hex
        self._mine, self._asks = LOCKS.c.what == what, sa.select(sa.func.pg_try_advisory_lock(number(what)))
        self._connection: sa.Connection | None = None
        self._one_asks = threading.Lock()  # threads of one training share it

    def __enter__(self) -> Self:
        self._connection = self._connected()
        return self

    def __exit__(self, *_: object) -> None:
        with self._one_asks:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*LOST):  # it is free already
                connection.execute(sa.select(sa.func.pg_advisory_unlock_all()))
            _close(connection)

    def enters(self) -> bool:
        """Takes the lock if it is free, and if nobody who lost it is in the middle of a write."""
        connection = self._connection
        if connection is None:
            raise ValueError(f"nobody waits for '{self.what}'")
        if not connection.scalar(self._asks):
            return False
        said = {"token": self.token, "holder": f"process {os.getpid()} on {socket.gethostname()}"}
        if connection.scalar(sa.select(LOCKS.c.what).where(self._mine)) is None:
            connection.execute(LOCKS.insert().values(what=self.what, token="", holder=""))
        unwritten = sa.select(LOCKS.c.what).where(self._mine).with_for_update(skip_locked=True)
        if connection.execute(LOCKS.update().where(LOCKS.c.what.in_(unwritten)).values(**said)).rowcount == 1:
            return True
        connection.execute(sa.select(sa.func.pg_advisory_unlock_all()))
        return False

    def assure(self, connection: sa.Connection) -> None:
        """Lets a transaction go on if nobody else has entered, and lets nobody enter until its end.

        Raises:
            ConflictError: somebody has.
        """
        entered = sa.select(LOCKS.c.token, LOCKS.c.holder).where(self._mine).with_for_update(read=True)
        token, holder = connection.execute(entered).one_or_none() or ("", "nobody known")
        if token != self.token:
            raise ConflictError(
                f"'{self.what}' is no longer this process's: its connection to the database was lost, and {holder or 'another one'} has begun since. "
                "Nothing was written: what that one does counts. Say it again when it has ended; see what cuts connections to PostgreSQL."
            )
        self._keep()

    def _keep(self) -> None:
        """Takes the lock again after a loss; while it is held, asking once more gives it once more."""
        with self._one_asks:
            if self._connection is None:
                return
            try:
                self._connection.scalar(self._asks)
            except LOST:
                _close(self._connection)
                self._connection = self._connected()
                self._connection.scalar(self._asks)  # if the server has not noticed yet, the lost one keeps others out

    def _connected(self) -> sa.Connection:
        connection = self.engine.connect()
        connection.execution_options(isolation_level="AUTOCOMMIT")  # servers end transactions that stay idle
        settings = sa.table("pg_settings", sa.column("name", sa.Text))
        wanted = sa.case(_AT_THE_SERVER, value=settings.c.name)
        known = settings.c.name.in_(_AT_THE_SERVER)  # PostgreSQL 13 has no idle_session_timeout
        connection.execute(sa.select(sa.func.set_config(settings.c.name, wanted, False)).where(known))
        return connection


_HELD: ContextVar[tuple[ServerLock, ...]] = ContextVar("held", default=())


@contextlib.contextmanager
def under(lock: ServerLock) -> Generator[None]:
    """Whatever this flow or thread writes meanwhile is written under the lock, whichever journal object writes it."""
    _HELD.set((*_HELD.get(), lock))
    try:
        yield
    finally:
        _HELD.set(tuple(each for each in _HELD.get() if each is not lock))


def assure(connection: sa.Connection) -> None:
    """Refuses a transaction of whoever has lost a lock of this database to somebody else.

    Raises:
        ConflictError: as `ServerLock.assure`.
    """
    for lock in _HELD.get():
        if lock.engine.url == connection.engine.url:
            lock.assure(connection)


def kept_alive(url: sa.URL) -> dict[str, Any]:
    """What a driver of PostgreSQL is to be told, where the URL does not say otherwise."""
    if url.get_backend_name() != "postgresql" or not url.get_driver_name().startswith("psycopg"):
        return {}
    return {name: value for name, value in KEPT_ALIVE.items() if name not in url.query}


def number(what: str) -> int:
    """What PostgreSQL locks in the place of a name."""
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)


def _close(connection: sa.Connection) -> None:
    """Ends a connection that may be lost; nothing is asked of the server."""
    if not connection.closed:
        connection.invalidate()
        connection.close()
