"""The logs of the door: one JSON line a prediction, or an outcome, in the file before the answer is out; a killed server loses none.

Many predictions at once may stand packed in one line.
"""

import datetime as dt
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from tasks.stores import durable, packed

LOG = logging.getLogger("keepfit.predictions")
ENCODER = msgspec.json.Encoder()
END = 1 << 16  # bytes, in which the last record of a file stands


@dataclass
class _Day:
    """An open file of one project and one UTC day."""

    date: dt.date
    handle: int


class Days:
    """Append-only files `<folder>/<project>/<UTC date>.jsonl`; many threads and processes may append.

    Args:
        folder: where they are.
        synced: what was written is on the disk when `write` returns, under its file's name, so that it survives a loss of power, too.
    """

    def __init__(self, folder: Path, *, synced: bool = False) -> None:
        self.folder = folder
        self._synced = synced
        self._lock = threading.Lock()
        self._open: dict[str, _Day] = {}

    def write(self, project: str, at: dt.datetime, lines: bytes | memoryview) -> None:
        """Writes encoded records, in lines with a break behind each, with one system call.

        A break goes before them, too: whatever another process has torn, even now, stays on a line of its own. Readers skip empty lines.

        Raises:
            OSError: the disk did not take them; a torn line, if one is left, is skipped by every reader.
        """
        with self._lock:
            self._append(project, at.astimezone(dt.UTC).date(), lines)

    def files(self, project: str) -> list[Path]:
        """The files of a project, oldest first."""
        return sorted((self.folder / project).glob("????-??-??.jsonl"))

    def read(
        self, project: str, since: dt.date | None = None, until: dt.date | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every record of a project in order of writing, from the UTC day `since` to `until`, both included.

        Lines that a crash has torn are skipped.
        """
        for path in self.files(project):
            day = dt.date.fromisoformat(path.stem)
            if (since is None or day >= since) and (until is None or day <= until):
                yield from _records(path)

    def newest(self, project: str, count: int) -> list[dict[str, Any]]:
        """The last records of a project, in order of writing; only the ends of the files are read."""
        found: list[dict[str, Any]] = []
        for path in reversed(self.files(project)):
            found = [*_last(path, count - len(found)), *found]
            if len(found) >= count:
                break
        return found

    def find(
        self, project: str, has: Callable[[list[dict[str, Any]]], list[bool]], torn: Callable[[bytes], bool]
    ) -> list[tuple[str, int, int]]:
        """Where some records stand: file, first byte, number of bytes.

        Args:
            project: whose log.
            has: asked about 1,000 records at a time.
            torn: asked about each line that a crash has torn; a packed one, whose values nobody reads, is always among them.
        """
        found = []
        for path in self.files(project):
            with path.open("rb") as lines:
                for some in _batched(_placed(lines), 1000):
                    whole = [line for line in some if isinstance(line[2], dict)]
                    hits = has([record for _, _, record in whole if isinstance(record, dict)])
                    found += [(str(path), at, size) for (at, size, _), hit in zip(whole, hits, strict=True) if hit]
                    found += [
                        (str(path), at, size)
                        for at, size, line in some
                        if isinstance(line, bytes) and (packed.PACKED in line or torn(line))
                    ]
        return found

    @staticmethod
    def blank(places: Iterable[tuple[str, int, int]]) -> None:
        """Overwrites records with blanks where they stand, so that servers may go on appending. May be repeated."""
        by_file: dict[str, list[tuple[int, int]]] = {}
        for path, at, size in places:
            by_file.setdefault(path, []).append((at, size))
        for path, spans in by_file.items():
            durable.step(f"blank {Path(path).name}")
            if not Path(path).exists():  # whoever removed the log has removed the record with it
                continue
            with Path(path).open("r+b") as file:
                for at, size in spans:
                    file.seek(at)
                    file.write(b" " * size)
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        """Closes the files; a later append opens them again."""
        with self._lock:
            for day in self._open.values():
                os.close(day.handle)
            self._open.clear()

    def _append(self, project: str, date: dt.date, lines: bytes | memoryview) -> None:
        day = self._day(project, date)
        try:
            if os.writev(day.handle, [b"\n", lines]) != 1 + len(lines):
                raise OSError("the disk took only a part of it")
            if self._synced:
                os.fsync(day.handle)
        except OSError:
            # An error is told once for a descriptor; the next fsync on it would vouch for what is lost.
            os.close(self._open.pop(project).handle)
            raise

    def _day(self, project: str, date: dt.date) -> _Day:
        """The open file of that day; opened anew when the day has changed or somebody removed the file."""
        day = self._open.get(project)
        if day and day.date == date and os.fstat(day.handle).st_nlink:
            return day
        if day:
            os.close(self._open.pop(project).handle)
        path = self.folder / project / f"{date}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            for folder in (path.parent, self.folder, self.folder.parent) if self._synced else ():
                durable.sync(folder)  # whoever made the file or a folder may not have come so far
        except OSError:
            os.close(handle)
            raise
        self._open[project] = day = _Day(date, handle)
        return day


class Predictions(Days):
    """What was answered, under `<home>/predictions`."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(home / "predictions")
        self._clock = clock
        self._quiet_until = float("-inf")

    def append(self, project: str, at: dt.datetime, records: list[dict[str, Any]]) -> int:
        """Writes the records; gives the number that did not reach the file, 0 on a healthy disk."""
        return self.append_lines(project, at, ENCODER.encode_lines(records), len(records))

    def append_lines(self, project: str, at: dt.datetime, lines: bytes | memoryview, count: int) -> int:
        """As `append`, for so many records that are encoded already, in lines with a break behind each.

        Disk trouble is logged once a minute and never raised: what to do without a log line is the caller's to say, and
        the count says what is missing.
        """
        try:
            self.write(project, at, lines)
        except OSError as error:
            self._complain(project, error)
            return count
        return 0

    def _complain(self, project: str, error: OSError) -> None:
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + 60
            LOG.error("%s: predictions do not reach the log: %s", project, error.strerror or error)


class Told(Days):
    """The outcomes that were told by prediction id, under `<home>/told`: id, value as JSON text, `at`, and when they came."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / "told", synced=True)

    def tell(self, project: str, came: dt.datetime, outcomes: Iterable[tuple[str, Any, dt.datetime | None]]) -> None:
        """Writes outcomes: id, value, and when it became known, which without a word is now. They are on the disk when this returns.

        Raises:
            OSError: the disk did not take them; telling them again does no harm.
        """
        now = came.astimezone(dt.UTC)
        records = [
            {
                "id": name,
                "value": ENCODER.encode(value).decode(),
                "at": _utc(at or now).isoformat(),
                "came": now.isoformat(),
            }
            for name, value, at in outcomes
        ]
        durable.step("tell outcomes")
        self.write(project, now, ENCODER.encode_lines(records))

    def came(self, project: str, days: int) -> list[dt.datetime]:
        """When the last outcomes came of each of the newest UTC days on which some did, oldest first; only the ends of the files are read."""
        ends = (record for path in reversed(self.files(project)) for record in _last(path, 1, END))
        return [dt.datetime.fromisoformat(record["came"]) for record in itertools.islice(ends, days)][::-1]


def _utc(moment: dt.datetime) -> dt.datetime:
    """A moment in UTC; one without an offset is so already."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)


def _placed(lines: IO[bytes]) -> Iterator[tuple[int, int, dict[str, Any] | bytes]]:
    """First byte, number of bytes without the line break, and content of each record, or of a torn line.

    A torn line that is not ended yet may be one that a server is writing.
    """
    at = 0
    for line in lines:
        try:
            found = packed.placed(line)
        except ValueError:
            if line.endswith(b"\n") and line.strip():
                yield at, len(line.rstrip(b"\n")), line
            found = []
        for begin, size, record in found:
            if isinstance(record, dict):
                yield at + begin, size, record
        at += len(line)


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while some := list(itertools.islice(items, size)):
        yield some


def _last(path: Path, count: int, block: int = 1 << 20) -> list[dict[str, Any]]:
    """At most so many records from the end of a file, read a block at a time."""
    found: list[list[dict[str, Any]]] = []
    with path.open("rb") as file:
        for line in _backward(file, block):
            found.append(_read(line))
            count -= len(found[-1])
            if count <= 0:
                break
    return [record for some in reversed(found) for record in some][max(-count, 0) :]


def _backward(file: IO[bytes], block: int) -> Iterator[bytes]:
    """The lines of a file without their breaks, the last one first."""
    begin, rest = file.seek(0, os.SEEK_END), b""
    while begin:
        begin, before = max(begin - block, 0), begin
        file.seek(begin)
        rest, *whole = (file.read(before - begin) + rest).split(b"\n")
        yield from reversed(whole)
    yield rest


def _read(line: bytes) -> list[dict[str, Any]]:
    """The records that a line holds; none where a crash has torn it."""
    try:
        return [record for record in packed.records(line) if isinstance(record, dict)]
    except ValueError:
        return []


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            yield from _read(line)
