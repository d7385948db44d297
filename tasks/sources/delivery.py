"""What every source has in common: its schedule, what it yields, and how a file gets into an inbox whole or not at all.

The promise of a source is *at least once*: it may deliver a file again (landing knows a content that it has seen), and must never
leave one out. So a mark is yielded only after everything before it stands in the inbox, complete and on disk.
"""

import datetime as dt
import hashlib
import os
import re
import secrets
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, Field

from tasks.config.errors import KeepfitError, suggestion
from tasks.ml.policy import OnSchedule
from tasks.ml.reading import KINDS

SUFFIXES = tuple(KINDS)  # what an inbox takes
PIECE = 1 << 20  # bytes that are copied at a time
STEM = 80  # characters of a name that are kept: what is put before and behind it still fits in 255 bytes
FORGOTTEN = dt.timedelta(days=1)  # nothing was written to a draft for so long: its process is gone


class SourceError(KeepfitError):
    """A source cannot be fetched from, until somebody changes something."""


class UnreachableError(SourceError):
    """A source does not answer now; trying again may help."""


@dataclass(frozen=True)
class Delivered:
    """A file that stands in the inbox, complete and on disk."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Left:
    """Something that was not delivered, and is tried again at the next fetch."""

    what: str
    reason: str
    fault: bool = True  # False when it needs nobody: it is gone, or of another kind


@dataclass(frozen=True)
class Mark:
    """How far the source has been read: everything yielded before is in the inbox."""

    text: str


class Scheduled(BaseModel, frozen=True, extra="forbid"):
    """What every source says about itself."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="stands in its files' names; its mark is kept under it"
    )
    schedule: OnSchedule | None = Field(
        default=None, description="when to fetch: {cron, timezone}; by hand only when left out"
    )
    brings: Literal["rows", "outcomes"] = Field(default="rows", description="rows, or what came true of rows later")
    at_most: int = Field(default=1000, ge=1, description="files that one fetch delivers; the next one goes on")

    @abstractmethod
    def fetch(self, mark: str | None, into: Path, now: dt.datetime) -> Iterator[Delivered | Left | Mark]:
        """Delivers what is new since a mark into an inbox; lazily, so that a mark is kept before the next file is read.

        Args:
            mark: the text of the last `Mark` that was kept; None at the first time.
            into: the inbox folder.
            now: the time, with a zone.

        Raises:
            UnreachableError: it does not answer now.
            SourceError: somebody must change something.
            OSError: the inbox cannot be written to.
        """


class Draft:
    """A file in an inbox under a name that nobody looks at; gone again, unless it is published."""

    def __init__(self, inbox: Path) -> None:
        inbox.mkdir(parents=True, exist_ok=True)
        self.path = inbox / f".{secrets.token_hex(16)}.part"
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._file = self.path.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        """SHA-256 of what was written so far."""
        return self._hash.hexdigest()

    def write(self, piece: bytes | memoryview) -> None:
        """Adds bytes at the end."""
        self._file.write(piece)
        self._hash.update(piece)
        self.bytes += len(piece)

    def publish(self, name: str) -> Delivered:
        """Makes it a file of the inbox, all of it at once, and returns when that would survive a power cut.

        A waiting file of the same name is replaced: names are made by `inbox_name`, so it has the same origin.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self.path.rename(self.path.with_name(name))
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return Delivered(name, self.bytes)


def inbox_name(origin: str, identity: str) -> str:
    """A file name for the inbox, whatever somebody else has called the thing: of its last part what is harmless, and what it is.

    Args:
        origin: the name there; anything.
        identity: hexadecimal digits that are the same for the same thing only.

    Raises:
        SourceError: the name does not end like a file that can be landed.

    >>> inbox_name("2026/06/Sales März $(reboot).CSV", "3f9c2a7b01d4e5")
    'Sales_M_rz_reboot-3f9c2a7b01d4.csv'
    """
    suffix = suffix_of(origin)
    if suffix not in SUFFIXES:
        raise SourceError(f"The name ends in none of {', '.join(SUFFIXES)}.{suggestion(suffix, SUFFIXES)}")
    stem = re.split(r"[/\\]", origin)[-1][: -len(suffix)]
    clean = re.sub(r"[^A-Za-z0-9.-]+", "_", stem).strip("._-")[:STEM]
    return f"{clean or 'file'}-{identity[:12]}{suffix}"


def suffix_of(origin: str) -> str:
    """How the last part of a name ends, in lower case and with its dot, or an empty text.

    >>> suffix_of("drop.d/rows.CSV"), suffix_of("drop.csv/rows")
    ('.csv', '')
    """
    _, dot, suffix = re.split(r"[/\\]", origin)[-1].rpartition(".")
    return dot and f".{suffix.lower()}"


def sweep(folder: Path, now: dt.datetime, drafts: str = ".*.part") -> None:
    """Removes drafts that killed processes have left in an inbox, or under names of this pattern in some folder."""
    for path in folder.glob(drafts):
        try:
            if now - dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC) > FORGOTTEN:
                path.unlink()
        except FileNotFoundError:
            continue  # published or swept in between
