"""SQLite files: whether one is whole. Nothing heavy is imported here, because the stack asks before it starts."""

import contextlib
import sqlite3
from pathlib import Path

from tasks.config.errors import ArtifactError


def damage(path: Path) -> str:
    """What is wrong with a database, or nothing; every page and index of it is read."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=15)) as database:
            found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else " ".join(str(found).split())


def refuse_damaged(path: Path) -> None:
    """Refuses to go on with a database that is damaged; one that is not there yet is whole.

    Raises:
        ArtifactError: it is damaged; the message says how to restore it.
    """
    if path.is_file() and path.stat().st_size and (found := damage(path)):
        raise ArtifactError(
            f"{path} is damaged: {found}. Nothing was started or changed. Restore it from a copy: "
            f"`keepfit down; rm -f {path}-wal {path}-shm; cp COPY {path}; keepfit up`. "
            f"Without a copy, `sqlite3 {path} .recover | sqlite3 {path}.mended` saves what can be read."
        )
