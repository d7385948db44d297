"""Private files and folders: what only the current user may read, or write, and what is wrong with a file that others may."""

import contextlib
import os
import stat
from pathlib import Path


def make(path: Path, content: bytes) -> None:
    """Writes a file that only the current user may read; one that is there stays as it is."""
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)


def fault(path: Path, *, public: bool = False) -> str:
    """What is wrong with a file of secrets, a sentence, or nothing.

    Args:
        path: the file.
        public: others may read it; they may not write it.
    """
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid():
        return f"{path} is not a file of the current user (owner {facts.st_uid}, user {os.getuid()})."
    mode = stat.S_IMODE(facts.st_mode)
    if public and mode & 0o022:
        return f"{path} has mode {mode:04o}; only its owner may write it (0644), so others may have put it there."
    if not public and mode & 0o077:
        return f"{path} has mode {mode:04o}; only its owner may read it (0600), so others may know it."
    return "" if path.read_bytes().strip() else f"{path} is empty."


def folder_fault(path: Path) -> str:
    """What is wrong with a folder of state, a sentence, or nothing; one that is not there yet is well."""
    if not path.exists():
        return ""
    facts = path.stat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        return f"{path} is not a folder of the current user (owner {facts.st_uid}, user {os.getuid()}). Give it another owner, or set KEEPFIT_HOME."
    mode = stat.S_IMODE(facts.st_mode)
    open_to_all = (
        f"{path} has mode {mode:04o}: everybody may write into it, and so exchange models. Say chmod o-w '{path}'."
    )
    return open_to_all if mode & stat.S_IWOTH else ""
