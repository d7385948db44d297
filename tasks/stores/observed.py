"""Observed: the rows that a project's champions answered, and what came true of them: asked for over HTTP, or landed while a version was champion."""

import datetime as dt
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.stores.journal import Journal, Release, reigns
from tasks.stores.lake import BATCH, ROW, Lake, frame
from tasks.stores.served import MOMENT, Serving

Source = Literal["served", "landed"]


@dataclass(frozen=True)
class Observed:
    """Rows by time, each answered by one version.

    Attributes:
        source: `served` over HTTP, or `landed` while the version was champion, which then is taken as asked about them.
        rows: (n,) the columns that a server is asked with, as they were sent or landed, under whatever contract (`older.read` reads them);
            the target, missing where it is not known; of landed rows every column of times, too. Behind them what else the rows have.
        at: (n,) datetime64[us], UTC: when they were asked for; of landed rows their own time.
        version: (n,) int64; 0: nobody was champion.
        milliseconds: (n,) float64, how long the answer took; NaN of landed rows.
        until: up to when these are all rows.
    """

    source: Source
    rows: pd.DataFrame
    at: np.ndarray
    version: np.ndarray
    milliseconds: np.ndarray
    until: dt.datetime

    def __len__(self) -> int:
        """How many rows."""
        return len(self.rows)

    def where(self, chosen: np.ndarray) -> "Observed":
        """Some of them: (n,) bool."""
        rows = self.rows[chosen].reset_index(drop=True)
        return Observed(self.source, rows, self.at[chosen], self.version[chosen], self.milliseconds[chosen], self.until)


def observed(
    use: Project, settings: Settings, since: dt.datetime | None, now: dt.datetime, *, window: dt.timedelta, fewest: int
) -> Observed:
    """What was asked for over HTTP since, where the newest window has enough of it; else what landed, if anything did.

    Args:
        use: the project.
        settings: where things are.
        since: the oldest time; None: from the beginning. Of landed rows it is counted back from the newest one.
        now: predictions after it, and what came true after it, do not count.
        window: how long one is.
        fewest: rows that are enough.
    """
    found = served(use, settings, since, now)
    if (found.at > instant(now - window)).sum() >= fewest:
        return found
    rows = landed(use, settings, None if since is None else now - since, now)
    return rows if len(rows) else found


def served(use: Project, settings: Settings, since: dt.datetime | None, now: dt.datetime) -> Observed:
    """The predictions of a time, each with the newest outcome that had come by then."""
    parts = []
    for table in Serving(use.project, settings).known(now).tables():
        recent = table if since is None else table.filter(pc.greater_equal(table["at"], pa.scalar(since, MOMENT)))  # ty: ignore[missing-attribute]
        parts += [recent] if len(recent) else []
    if not parts:
        return _nothing(use, "served", now)
    table = pa.concat_tables(parts).sort_by([("at", "ascending"), ("id", "ascending")])
    rows = _first(list(use.sent), pd.DataFrame([json.loads(text) for text in table["row"].to_pylist()]))
    if target := use.contract.target:
        told = table["outcome"].to_pylist()
        rows[target] = use.task.meant([None if text is None else json.loads(text) for text in told])
    at = table["at"].cast(pa.timestamp("us")).to_numpy()
    slow = table["ms"].to_numpy(zero_copy_only=False).astype("float64")
    return Observed("served", rows, at, table["version"].to_numpy().astype("int64"), slow, now)


def landed(use: Project, settings: Settings, back: dt.timedelta | None, now: dt.datetime) -> Observed:
    """The rows that landed, each with the version that was champion when its batch did.

    Args:
        use: the project.
        settings: where things are.
        back: how far from the newest row's time; None: all.
        now: batches that landed after it do not count.
    """
    journal, time = Journal(settings.journal()), use.contract.time
    lake = Lake(use.project, settings.lake(use.project), use.contract)
    wanted = lake.recent(back)
    if wanted is None:
        return _nothing(use, "landed", now)
    tables = [table.drop_columns([ROW]) for table in lake.content(wanted) if len(table)]
    rows = frame(sorted(tables, key=lambda table: pc.min(table[time]).as_py()))  # ty: ignore[missing-attribute]
    if not rows[time].is_monotonic_increasing:  # files that overlap
        rows = rows.sort_values([time], kind="stable", ignore_index=True)
    version = _versions(rows[BATCH], journal.batches(use.project), journal.releases(use.project), now)
    until = dt.datetime.fromisoformat(wanted.until)
    return Observed(
        "landed",
        _first(_columns(use), rows.drop(columns=BATCH)),
        instants(rows[time]),
        version,
        np.full(len(rows), np.nan),
        until,
    )


def _versions(batch: pd.Series, batches: Sequence[dict], releases: Sequence[Release], now: dt.datetime) -> np.ndarray:
    """Who was champion when each row's batch landed: (n,), 0 where nobody was, or the batch is younger than now."""
    reign = reigns(releases)
    begins = [each.since for each in reign]
    known = {}
    for each in batches:
        at = dt.datetime.fromisoformat(each["at"])
        place = bisect_right(begins, at) - 1
        known[each["batch"]] = reign[place].release.version if place >= 0 and at <= now else 0
    return batch.astype("string").map(known).fillna(0).to_numpy(dtype="int64")


def _first(names: list[str], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with these columns first, empty where there are none; a version may read others, which the contract has no more."""
    return rows.reindex(columns=list(dict.fromkeys([*names, *rows.columns])))


def _columns(use: Project) -> list[str]:
    """What is kept of landed rows: what a server is asked with, the target, and the times by which splits are made."""
    times = (name for name, column in use.contract.columns.items() if column.type == "datetime")
    return list(dict.fromkeys([*use.sent, *([use.contract.target] if use.contract.target else []), *times]))


def _nothing(use: Project, source: Source, until: dt.datetime) -> Observed:
    none = np.empty(0)
    return Observed(source, pd.DataFrame(columns=_columns(use)), none.astype("datetime64[us]"), none.astype("int64"), none, until)  # fmt: skip


def instants(times: pd.Series) -> np.ndarray:
    """Times with a zone as datetime64[us], UTC."""
    return times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def instant(at: dt.datetime | str) -> np.datetime64:
    """A moment, or its ISO 8601 text, as datetime64[us], UTC."""
    moment = dt.datetime.fromisoformat(at) if isinstance(at, str) else at
    return np.datetime64(moment.astimezone(dt.UTC).replace(tzinfo=None), "us")
