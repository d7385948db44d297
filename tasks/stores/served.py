"""What was served, and what came true of it: predictions and outcomes by id, in the lake's tables and, until they are there, in the logs of the door."""

import datetime as dt
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from tasks.config.settings import Settings
from tasks.ml.identity import row_ids
from tasks.ml.outcomes import AT, Labels
from tasks.stores.lake import Lake
from tasks.stores.packed import plain
from tasks.stores.predictions import Days, Predictions, Told

Served = Literal["predictions", "told"]
BLOCK = 4 << 20  # bytes of a log that are taken apart at a time
MOMENT = pa.timestamp("us", "UTC")
SCHEMAS: dict[str, pa.Schema] = {  # `prediction`, `row` and `value` are JSON texts: a contract may change, what was said may not
    "predictions": pa.schema([
        ("id", pa.string()), ("at", MOMENT), ("version", pa.int64()), ("ms", pa.float64()), ("prediction", pa.string()),
        ("probability", pa.float64()), ("row", pa.string()),
    ]),
    "told": pa.schema([("id", pa.string()), ("value", pa.string()), (AT, MOMENT), ("came", MOMENT)]),
}  # fmt: skip


class _Prediction(msgspec.Struct):
    """A line of the prediction log."""

    id: str
    at: dt.datetime
    version: int
    prediction: msgspec.Raw
    row: msgspec.Raw
    ms: float | None = None
    probability: float | None = None


class _Told(msgspec.Struct, rename={"outcome_at": "at"}):
    """A line of the log of outcomes."""

    id: str
    value: str
    outcome_at: dt.datetime
    came: dt.datetime


_LINES: dict[str, msgspec.json.Decoder[Any]] = {
    "predictions": msgspec.json.Decoder(_Prediction),
    "told": msgspec.json.Decoder(_Told),
}


# -- from lines to rows -----------------------------------------------------------------------------------------------
def parsed(kind: Served, lines: bytes) -> pa.Table:
    """Lines of a log as rows of its table; empty, torn and blanked ones are left out."""
    records = [record for line in lines.split(b"\n") if line for record in _records(kind, line)]
    schema = SCHEMAS[kind]
    columns = ([_plain(getattr(record, name)) for record in records] for name in schema.names)
    return pa.table([pa.array(some, field.type) for some, field in zip(columns, schema, strict=True)], schema=schema)


def _records(kind: Served, line: bytes) -> list[Any]:
    try:
        return [_LINES[kind].decode(each) for each in plain(line)]
    except ValueError:
        return []


def _plain(value: Any) -> Any:
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else value


def blocks(path: Path, begin: int, size: int = BLOCK) -> Iterator[tuple[bytes, int]]:
    """Whole lines of a log from a place on, and where each block of them ends.

    A last line that is not ended is left: somebody may be writing it.
    """
    with path.open("rb") as file:
        end = file.seek(begin)
        rest = b""
        while piece := file.read(size):
            whole, line_break, rest = (rest + piece).rpartition(b"\n")
            if line_break:
                end += len(whole) + 1
                yield whole, end


def mark(kind: Served, path: Path, table: DeltaTable | None) -> int:
    """How many bytes of a log file stand in an opened table; the commit that brought them says so.

    A file that is shorter was removed by hand and begun anew on the same day: nothing of it is there.
    """
    reached = table.transaction_version(name_of(kind, path)) if table else None
    return reached if reached and reached <= path.stat().st_size else 0


def name_of(kind: Served, path: Path) -> str:
    """Under which name a table knows a log file."""
    return f"{kind} {path.stem}"


# -- what is known ----------------------------------------------------------------------------------------------------
class Outcome(NamedTuple):
    """What came true of a prediction: the value, when it became known, and when it was told."""

    value: Any
    at: dt.datetime
    came: dt.datetime


class Serving:
    """The predictions of one project and what was told of them."""

    def __init__(self, project: str, settings: Settings) -> None:
        self.project = project
        self.lake = Lake(project, settings.lake(project))
        self._told = Told(settings.home)
        self.logs: dict[Served, Days] = {"predictions": Predictions(settings.home), "told": self._told}

    def tables(self, kind: Served) -> Iterator[pa.Table]:
        """Every record once, a part at a time; what is written meanwhile may be among them."""
        table = self.lake.table(kind)
        opened = table.open()
        for file in table.files(opened):
            yield table.read(file)
        for path in self.logs[kind].files(self.project):
            for lines, _ in blocks(path, mark(kind, path, opened)):
                yield parsed(kind, lines)

    def known(self, at: dt.datetime | None = None) -> "Known":
        """What was known at a moment, by default by now: the predictions until then, with the outcomes that had come by then."""
        return Known(self, at)

    def told(self, ids: Iterable[str]) -> list[tuple[str, Outcome]]:
        """Everything that was told of some predictions, in the order in which it came; one that is repeated or corrected comes again."""
        wanted = pa.array(list(ids), pa.string())
        parts = (
            rows.filter(pc.is_in(rows["id"], wanted)).to_pylist()  # ty: ignore[missing-attribute]
            for rows in self.tables("told")
        )
        found = [(row["id"], Outcome(json.loads(row["value"]), row[AT], row["came"])) for rows in parts for row in rows]
        return sorted(found, key=lambda one: one[1].came)

    def came(self, days: int) -> list[dt.datetime]:
        """When outcomes came, UTC, in no order: the last of each of the newest days of which there are logs, and the last of what was gathered."""
        return [*self._told.came(self.project, days), *self.gathered()]

    def gathered(self) -> list[dt.datetime]:
        """When the last outcome came of each data file of the table; no file is read."""
        table = self.lake.table("told")
        return [dt.datetime.fromisoformat(file.until) for file in table.files(table.open()) if file.until]

    def history(self, name: str) -> list[Outcome]:
        """Everything that was told of one prediction, in the order in which it came."""
        return [outcome for _, outcome in self.told([name])]


@dataclass(frozen=True)
class Known:
    """The predictions of a project as known at a moment; None: now."""

    serving: Serving
    at: dt.datetime | None

    def tables(self) -> Iterator[pa.Table]:
        """The predictions, a part at a time, each with `outcome`, JSON text, and `outcome_at`; null where none has come."""
        for rows in self.serving.tables("predictions"):
            predictions = _until(rows, "at", self.at)
            found = self._places(predictions)
            place = pa.array(found, mask=found < 0)
            for name, column in (("outcome", "value"), (AT, AT)):
                values = (
                    self.labels.outcomes[column].take(place) if self.labels else pa.nulls(len(predictions), SCHEMAS["told"].field(column).type)
                )  # fmt: skip
                predictions = predictions.append_column(name, values)
            yield predictions

    @cached_property
    def labels(self) -> Labels | None:
        """The outcomes that had come: the one that became known last counts, of two with one such time the one that was told later."""
        parts = [_until(rows, "came", self.at) for rows in self.serving.tables("told")]
        told = pa.concat_tables(parts).combine_chunks() if parts else None
        if told is None or not len(told):
            return None
        return Labels(told, row_ids(told.select(["id", "value", AT])), ("id",), "value", "came")

    def counts(self) -> dict[str, Any]:
        """How many predictions there are, how many wait for their outcome, and how many outcomes have a prediction that is not here.

        Returns:
            {"predictions", "waiting", "share_waiting": of the predictions, "unknown": ids}.
        """
        predictions = waiting = 0
        met = np.zeros(0 if self.labels is None else len(self.labels.outcomes), dtype=bool)
        for rows in self.serving.tables("predictions"):
            found = self._places(_until(rows, "at", self.at))
            predictions, waiting = predictions + len(found), waiting + int((found < 0).sum())
            met[found[found >= 0]] = True
        unknown = 0 if self.labels is None else len(np.unique(self._newest())) - int(met.sum())
        share = waiting / predictions if predictions else 0.0
        return {"predictions": predictions, "waiting": waiting, "share_waiting": share, "unknown": unknown}

    def _places(self, rows: pa.Table) -> np.ndarray:
        return self.labels.of(rows) if self.labels else np.full(len(rows), -1, dtype=np.int64)

    def _newest(self) -> np.ndarray:
        """Where the counting outcome of each id stands."""
        return self.labels.of(self.labels.outcomes) if self.labels else np.empty(0, dtype=np.int64)


def _until(rows: pa.Table, column: str, at: dt.datetime | None) -> pa.Table:
    return rows if at is None else rows.filter(pc.less_equal(rows[column], pa.scalar(at, MOMENT)))  # ty: ignore[missing-attribute]
