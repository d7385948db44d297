"""Durable writes: what must survive a kill is written here and nowhere else; a test makes the n-th write fail."""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".part"


def _undisturbed(_what: str) -> None:
    """In production nothing stands between two steps."""


seam: Callable[[str], None] = _undisturbed  # fault tests put a kill or an I/O error here


def step(what: str) -> None:
    """Stands right before every durable effect, the engines' own (a Delta commit, a database transaction) too."""
    seam(what)


def write(path: Path, data: bytes | memoryview) -> None:
    """A whole file, on disk when this returns, or no file of that name at all."""
    step(f"write {path.name}")
    with _whole(path) as file:
        file.write(data)


def copy(source: BinaryIO, target: Path) -> None:
    """As `write`, of everything that a file still gives, a piece at a time."""
    step(f"write {target.name}")
    with _whole(target) as file:
        shutil.copyfileobj(source, file, 1 << 20)


@contextmanager
def _whole(path: Path) -> Generator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def move(source: Path, target: Path) -> None:
    """A file under another name, on disk when this returns; across file systems it is copied first. May be repeated."""
    step(f"move {target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.exists() and target.exists():
        return
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != 18:  # EXDEV: another file system
            raise
        with source.open("rb") as file:
            copy(file, target)
        source.unlink()
    sync(target.parent)


def remove(path: Path) -> None:
    """No file of that name, or no folder with anything in it. May be repeated."""
    step(f"remove {path.name}")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Makes the folder's list of names durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
