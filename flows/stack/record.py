"""What is kept of the running stack: its record, and a folder for its socket and the lock of `up` and `down`."""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tasks.config.errors import StackError
from tasks.config.settings import Settings

Record = dict[str, Any]


def recorded(settings: Settings) -> Record:
    """What the last `up` wrote down, or an empty record."""
    try:
        return json.loads(settings.stack_file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def save(settings: Settings, record: Record) -> None:
    """Replaces stack.json in one step, so that no reader meets half of it."""
    draft = settings.stack_file.with_suffix(".part")
    draft.write_text(json.dumps(record, indent=2))
    draft.replace(settings.stack_file)


def control_folder(settings: Settings) -> Path:
    """A folder of the current user alone, with a path short enough for a Unix socket (108 bytes)."""
    digest = hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"keepfit-{os.getuid()}-{digest}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise StackError(
            f"{folder} is not a folder of the current user alone"
            f" (owner {facts.st_uid}, mode {stat.S_IMODE(facts.st_mode):04o}).\n"
            "Somebody else may have made it; remove it, or set TMPDIR to a folder of your own."
        )
    return folder


@contextlib.contextmanager
def lock(settings: Settings) -> Generator[None]:
    """Holds back a second `up` or `down` until the first has ended; a killed holder lets go by itself."""
    while True:
        path = control_folder(settings) / "lock"
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The `down` that was waited for has removed this lock and its folder; then the next one counts.
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield
                return
