"""The engine under the journal: one SQL database, written by one at a time, and locks that a kill frees."""

import fcntl
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from tasks.config.errors import ConflictError, KeepfitError
from tasks.stores.journal import locks
from tasks.stores.journal.tables import METADATA, OLDER

PREPARED: set[str] = set()  # servers whose tables are as they must be; a file may be removed while this process lives
BUSY = 15.0  # seconds that a locked SQLite file is waited for


class Database:
    """One SQL database with every table: SQLite in WAL mode, or any SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=locks.kept_alive(parsed))
        if parsed.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _careful)
        if url not in PREPARED:
            self._prepare()
        if parsed.get_backend_name() != "sqlite":
            PREPARED.add(url)

    @contextmanager
    def _write(self) -> Generator[sa.Connection]:
        try:
            with self.engine.begin() as connection:
                if self.engine.dialect.name == "sqlite":
                    connection.exec_driver_sql(
                        "BEGIN IMMEDIATE"
                    )  # waits for the write lock, and does not fail at commit
                locks.assure(connection)
                yield connection
        except OperationalError as error:
            if "database is locked" not in str(error):
                raise
            raise KeepfitError(
                f"{self.engine.url.database} has been locked by another process for {BUSY:g} s. Nothing was changed: say it again, or "
                "end what holds it (`fuser` names it)."
            ) from error

    def _prepare(self) -> None:
        """Makes the tables, and gives those of an older home the columns that came since; one process does so, the others wait for it."""
        with self.engine.connect() as connection:
            if _lacks(connection) == {}:
                return
        with self._write() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(locks.number("tables of the journal"))))
            METADATA.create_all(connection)
            for table, columns in _lacks(connection).items():
                for column in columns:
                    kind = column.type.compile(self.engine.dialect)
                    connection.execute(sa.DDL(f"ALTER TABLE {table} ADD COLUMN {column.name} {kind}"))
                    if column in OLDER:
                        connection.execute(OLDER[column])

    def assure(self) -> None:
        """Refuses to go on for whoever has lost a lock to somebody else; asked before a durable act that is no write of the journal.

        Raises:
            ConflictError: somebody else has entered.
        """
        with self._write():
            pass

    @contextmanager
    def alone(self, what: str, patience: float = 600) -> Generator[None]:
        """One at a time, over all processes and machines that share this database; a kill lets the next one in.

        A server frees the lock when the connection that holds it is lost, too. Whoever lost it that way is refused its next write once somebody
        else has entered, and nothing of it is written; where nobody has, it goes on and holds the lock again (`locks.py`).

        Raises:
            ConflictError: somebody else has held it for longer than `patience` seconds; or, at a write inside, has entered since it was lost.
        """
        with (
            self._server_lock(what, patience)
            if self.engine.dialect.name == "postgresql"
            else self._file_lock(what, patience)
        ):
            yield

    @contextmanager
    def _file_lock(self, what: str, patience: float) -> Generator[None]:
        name = "".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in what)
        folder = Path(self.engine.url.database or "keepfit.db").parent / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.lock").open("w") as file:
            _patiently(lambda: _flock(file), what, patience)
            yield

    @contextmanager
    def _server_lock(self, what: str, patience: float) -> Generator[None]:
        with locks.ServerLock(self.engine, what) as lock:
            _patiently(lock.enters, what, patience)
            with locks.under(lock):
                yield


def _lacks(connection: sa.Connection) -> dict[str, list[sa.Column[Any]]]:
    """The columns that each table lacks, by its name; of a complete database nothing."""
    found = sa.inspect(connection).get_multi_columns(filter_names=list(METADATA.tables))
    there = {table: {column["name"] for column in columns} for (_, table), columns in found.items()}
    lacking = {
        table.name: [column for column in table.columns if column.name not in there.get(table.name, ())]
        for table in METADATA.sorted_tables
    }
    return {table: columns for table, columns in lacking.items() if columns}


def _flock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _patiently(ask: Callable[[], bool], what: str, patience: float) -> None:
    """Asks until it is true."""
    end = time.monotonic() + patience
    while not ask():
        if time.monotonic() > end:
            raise ConflictError(
                f"'{what}' has been under way elsewhere for more than {patience:g} s. Nothing was changed; it is tried again."
            )
        time.sleep(0.02)


def _careful(connection: Any, _record: object) -> None:
    """SQLite: readers do not block the writer, a busy writer is waited for, a commit is on disk when it returns."""
    connection.isolation_level = None  # SQLAlchemy's own BEGIN counts, not the driver's late one
    for pragma in (f"busy_timeout={BUSY * 1000:.0f}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    _log_ahead(connection)


def _log_ahead(connection: Any) -> None:
    """Turns WAL mode on. SQLite does not wait here for another process that opens a new file, so that this does."""
    end = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "database is locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return
