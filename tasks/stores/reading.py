"""What the logs have of a rollout: what two models said of the same requests, and what was told of them; read once, and then read on."""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NotRequired, TypedDict

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.settings import Settings
from tasks.ml.rollout import Outcome
from tasks.stores.predictions import Days
from tasks.stores.served import MOMENT, Serving, blocks, mark, parsed
from tasks.stores.shadows import Shadows

PART = 1 << 19  # bytes of a log that are taken in at a time
TOLD = ("id", "value", "came")  # columns that are read of what was told


class Record(TypedDict):
    """A line of the shadow log."""

    at: dt.datetime
    answered: int
    beside: int
    ids: list[str]
    said: list[dict[str, object]] | None
    thought: list[dict[str, object]] | None
    ms: tuple[float, float] | None
    asked: NotRequired[str]  # older logs do not say which records are of one request


_RECORD = msgspec.json.Decoder(Record)


class Following:
    """A log that is read on from where the last reading ended; the places are in the memory alone.

    Args:
        days: the log.
        project: whose.
        since: the first UTC day that is read.
        begin: where a file that was not read yet begins, in bytes.
    """

    def __init__(self, days: Days, project: str, since: dt.date, begin: Callable[[Path], int] = lambda _: 0) -> None:
        self._days, self._project, self._since, self._begin = days, project, since, begin
        self._reached: dict[str, int] = {}

    def blocks(self) -> Iterator[bytes]:
        """Whole lines that have come since, a block at a time; whoever leaves in between goes on behind the last block.

        A file that is shorter than it was has been begun anew, and is read from its beginning.
        """
        for path in self._days.files(self._project):
            if dt.date.fromisoformat(path.stem) < self._since:
                continue
            begin = self._reached.get(path.stem, self._begin(path))
            for lines, end in blocks(path, begin if begin <= path.stat().st_size else 0, PART):
                self._reached[path.stem] = end
                yield lines


class Reading:
    """What the logs have of one project since a rollout began; each record comes once, in parts, while somebody goes on writing."""

    def __init__(self, project: str, began: dt.datetime, settings: Settings) -> None:
        self._began = began
        serving = Serving(project, settings)
        table = serving.lake.table("told")
        opened = table.open()
        self._landed = (table.read(file, TOLD) for file in table.files(opened))
        self._told = Following(serving.logs["told"], project, began.date(), lambda path: mark("told", path, opened))
        self._compared = Following(Shadows(settings.home), project, began.date())

    def compared(self) -> Iterator[list[Record]]:
        """What two models did with the requests that came since the last time, in order of writing."""
        for lines in self._compared.blocks():
            yield [record for line in lines.split(b"\n") for record in _records(line) if record["at"] >= self._began]

    def told(self) -> Iterator[list[Outcome]]:
        """The outcomes that were told since the last time: first those that stand in the lake already, in any order, then those in the logs."""
        for rows in self._landed:
            yield self._outcomes(rows)
        for lines in self._told.blocks():
            yield self._outcomes(parsed("told", lines))

    def _outcomes(self, rows: pa.Table) -> list[Outcome]:
        """What was told since the rollout began; whoever says that nothing came true has said nothing."""
        rows = rows.filter(pc.greater_equal(rows["came"], pa.scalar(self._began, MOMENT)))  # ty: ignore[missing-attribute]
        each = zip(*(rows[name].to_pylist() for name in TOLD), strict=True)
        return [Outcome(name, value, came) for name, text, came in each if (value := json.loads(text)) is not None]


def _records(line: bytes) -> list[Record]:
    """The record of a line; none where it is empty, or a crash has torn it."""
    try:
        return [_RECORD.decode(line)] if line else []
    except ValueError:
        return []
