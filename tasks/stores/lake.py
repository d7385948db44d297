"""The lake: a project's rows as Delta tables, appended exactly once a batch, read back verified."""

import datetime as dt
import functools
import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from tasks.config.errors import ArtifactError, suggestion
from tasks.config.project import Project
from tasks.ml.contract import OWN, Contract
from tasks.ml.identity import as_column, as_text, from_binary, key_hashes, row_ids, set_digest
from tasks.ml.lean import give_back
from tasks.ml.outcomes import AT, Joins, Labels, having
from tasks.ml.profile import Profile, Profiler
from tasks.ml.sealed import Lazy, Sealed, SealedParts
from tasks.ml.trusted import apart
from tasks.stores.gathered import NULLABLE, Gathered
from tasks.stores.keys import Keys
from tasks.stores.references import Snapshot
from tasks.stores.tables import DataFile, Table, span

ROWS, OUTCOMES = "rows", "outcomes"  # the tables that batches land in
TRUSTED = "trusted"  # the table of what was set apart to judge by
# of a row its 128-bit name, the batch that it came in, and where it stands while it is told which part it belongs to
ROW, BATCH, PLACE = OWN
REASONS = ("_rule", "_column", "_value")
QUARANTINE = pa.schema([(name, pa.string()) for name in (BATCH, *REASONS, "_raw")])  # `_raw`: the row as it came, JSON


def rows_schema(contract: Contract) -> pa.Schema:
    """The columns of the table `rows`: the contract's, the row's name, the batch."""
    return pa.schema([*contract.schema, (ROW, pa.binary()), (BATCH, pa.string())])


def filled(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with an empty column behind theirs for each one of the schema that they are older than.

    >>> filled(pa.table({"a": [1]}), pa.schema({"a": pa.int64(), "b": pa.string()})).to_pydict()
    {'a': [1], 'b': [None]}
    """
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows


@dataclass(frozen=True)
class Version:
    """One version of a table."""

    number: int
    at: str
    why: dict[str, str]


@dataclass(frozen=True)
class Outline:
    """Which rows a snapshot has and where they stand, before they are read; arrays are in the order of the data files.

    Attributes:
        files: the data files, with the number of rows that the snapshot has of each.
        ids: (n, 16) the names of the rows.
        order: (n,) where the rows stand by time, and by name where that is the same.
    """

    snapshot: Snapshot
    files: tuple[tuple[DataFile, int], ...]
    ids: np.ndarray
    order: np.ndarray

    def only(self, places: np.ndarray) -> "Selection":
        """The rows at these places, (m,), in this order."""
        return Selection(self.snapshot, self.files, places, self.ids[places])


@dataclass(frozen=True)
class Selection:
    """Some rows of a snapshot, in the order that is wanted, before they are read.

    Attributes:
        files: the data files, with the number of rows that the snapshot has of each.
        places: (m,) where they stand in these files.
        ids: (m, 16) their names.
    """

    snapshot: Snapshot
    files: tuple[tuple[DataFile, int], ...]
    places: np.ndarray
    ids: np.ndarray


class Lake:
    """The tables of one project under one folder or object-store URL: `rows`, `quarantine`, `outcomes` and `trusted`, `predictions` and `told`.

    Args:
        contract: names the key, the time and the target; without it there are no outcomes and no windows of time.
    """

    def __init__(self, project: str, root: str, contract: Contract | None = None) -> None:
        self.project, self.root, self.contract = project, root, contract
        self.landed = Table(f"{root}/{ROWS}", contract.time if contract else "")
        self.quarantine = Table(f"{root}/quarantine")
        self.outcomes = Table(f"{root}/{OUTCOMES}", AT)
        self.trusted = Table(f"{root}/{TRUSTED}", contract.time if contract else "")
        self.predictions = Table(f"{root}/predictions", "at")
        self.told = Table(f"{root}/told", "came")

    @contextmanager
    def held(self) -> Generator[None]:
        """Nobody else changes the tables meanwhile."""
        tables = (self.landed, self.quarantine, self.outcomes, self.trusted, self.predictions, self.told)
        with ExitStack() as held:
            for table in tables:
                held.enter_context(table.held())
            yield

    def table(self, kind: str) -> Table:
        """One of the tables by its name."""
        return {
            ROWS: self.landed, OUTCOMES: self.outcomes, "quarantine": self.quarantine, TRUSTED: self.trusted,
            "predictions": self.predictions, "told": self.told,
        }[kind]  # fmt: skip

    def rows(self, columns: list[str] | None = None) -> pd.DataFrame:
        """The newest landed rows, not verified; for looking things up."""
        return frame(self._all(self.landed, columns), columns)

    def quarantined(self, batch: str | None = None) -> pd.DataFrame:
        """Every quarantined row, or those of one batch: batch, rule, column, value and raw content."""
        found = frame(self._all(self.quarantine, None), QUARANTINE.names)
        return found[found[BATCH] == batch].reset_index(drop=True) if batch else found

    def _all(self, table: Table, columns: list[str] | None) -> list[pa.Table]:
        return [table.peek(file, columns) if columns else table.read(file) for file in table.files(table.open())]

    # -- snapshots ----------------------------------------------------------------------------------------------------
    def snapshot(
        self, version: int | None = None, outcomes: int | None = None, window: tuple[str, str] = ("", "")
    ) -> Snapshot | None:
        """The rows of one version of the table, or None when nothing landed.

        Args:
            version: of the table `rows`; by default the newest, with the newest outcomes, if any can be joined under today's contract.
            outcomes: version of the table `outcomes` that labels them; None: the rows as they landed.
            window: (since, until), ISO 8601: only rows from `since` on and before `until`.
        """
        table = self.landed.open(version)
        if table is None or not self.landed.files(table):
            return None
        if version is None:
            outcomes = self._joined
        wanted = Snapshot(
            project=self.project, version=table.version(), outcomes=outcomes, window=window, rows=0, digest="", since="", until="",
            trusted=self.trusted.newest,
        )  # fmt: skip
        tables = list(self.content(wanted, verify=False))
        ids = _names(tables)
        spans = [span(rows, self.landed.time) for rows in tables if len(rows)]
        return wanted.model_copy(
            update={
                "rows": len(ids), "digest": set_digest(ids),
                "since": min((since for since, _ in spans), default=""), "until": max((until for _, until in spans), default=""),
            }
        )  # fmt: skip

    def recent(self, back: dt.timedelta | None) -> Snapshot | None:
        """The newest rows, so far back from the newest one's time, to be read with `content`; None when none has a time. No row is read for it.

        Args:
            back: None: all rows.

        Returns:
            A snapshot without digest and number of rows, which only whoever reads them all knows.
        """
        table = self.landed.open()
        until = max((file.until for file in self.landed.files(table)), default="")
        if table is None or not until:
            return None
        since = "" if back is None else (dt.datetime.fromisoformat(until) - back).isoformat()
        return Snapshot(
            project=self.project, version=table.version(), outcomes=self._joined, window=(since, ""), rows=0, digest="", since="", until=until,
            trusted=self.trusted.newest,
        )  # fmt: skip

    def content(
        self, snapshot: Snapshot, *, verify: bool = True, paths: frozenset[str] | None = None, also: tuple[str, ...] = ()
    ) -> Iterator[pa.Table]:  # fmt: skip
        """The rows of a snapshot, a table for each data file, with the labels of its outcomes; columns younger than a file are empty there.

        Args:
            snapshot: which rows.
            verify: read every column, verified; else only names, keys, time and target, and trust them.
            paths: only these data files.
            also: more columns, where not every one is read.
        """
        labels, time = self._labels(snapshot.outcomes), self.landed.time
        needs = [ROW, *([time] if time else []), *([*labels.key, labels.target] if labels else []), *also]
        schema = pa.schema([field for field in self._schema(snapshot.version, labels) if verify or field.name in needs])
        for file in self._files(snapshot):
            if paths is not None and file.path not in paths:
                continue
            rows = self.landed.read(file) if verify else self.landed.peek(file, list(dict.fromkeys(needs)))
            rows = filled(rows, schema)
            rows = rows.filter(self._inside(snapshot, rows))
            yield labels.onto(rows, ROW) if labels else rows

    @property
    def columns(self) -> list[str]:
        """Every column that a landed row may have: the table's, and behind them those of the contract that are younger."""
        return self._schema(None).names

    def _schema(self, version: int | None, labels: Labels | None = None) -> pa.Schema:
        """The columns of the table at a version, behind them those of the contract that are younger, and those by which labels are joined."""
        table = self.landed.open(version)
        known = pa.schema(table.schema()) if table else pa.schema([])
        for younger in (self.contract.schema if self.contract else [], labels.schema if labels else []):
            known = filled(known.empty_table(), pa.schema(younger)).schema
        return known

    def _files(self, snapshot: Snapshot) -> list[DataFile]:
        """The data files that may hold rows of a snapshot."""
        since, until = (pd.Timestamp(text) if text else None for text in snapshot.window)
        return [
            file
            for file in self.landed.files(self.landed.open(snapshot.version))
            if not ((since and pd.Timestamp(file.until) < since) or (until and pd.Timestamp(file.since) >= until))
        ]

    def _inside(self, snapshot: Snapshot, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        """Which rows of a data file are in the snapshot's window of time: (n,) bool."""
        inside, time = pa.array(np.ones(len(rows), dtype=bool)), self.landed.time
        for text, within in zip(snapshot.window, (pc.greater_equal, pc.less), strict=True):  # ty: ignore[missing-attribute]
            if text:
                end = pa.scalar(pd.Timestamp(text).to_pydatetime(), rows[time].type)
                inside = pc.and_(inside, within(rows[time], end))  # ty: ignore[missing-attribute]
        return inside

    def _labels(self, outcomes: int | None) -> Labels | None:
        """What came true, of one version of the table `outcomes`, by the key and the target under which it landed.

        So they label the same rows whatever becomes of the contract. Where they landed under several, only those count that today's contract can join.

        Raises:
            ArtifactError: they landed under several keys or targets, and today's contract has others.
        """
        joins = self._joins
        if outcomes is None or joins is None:
            return None
        table = self.outcomes.open(outcomes)
        told = [self.outcomes.read(file) for file in self.outcomes.files(table)]
        if not told:
            return None
        met = {Joins.of(rows.drop_columns([ROW, BATCH])) for rows in told}
        own = met.pop() if len(met) == 1 else None
        if own is None and not self._can_join(table):
            raise ArtifactError(
                f"{self.root}/{OUTCOMES}: the outcomes of version {outcomes} landed under several keys or targets, and none of them with the "
                f"columns {', '.join(joins.columns)}, the contract's key and target of today. Put back those of that time, or use a snapshot "
                "with other outcomes."
            )
        return _told(told, own or joins)

    @property
    def _joins(self) -> Joins | None:
        """By which columns outcomes are joined under today's contract; None without a target."""
        return Joins(self.contract.key, self.contract.target) if self.contract and self.contract.target else None

    def _can_join(self, outcomes: DeltaTable | None) -> bool:
        """Whether outcomes have landed with every column of today's key and target."""
        names = pa.schema(outcomes.schema()).names if outcomes else []
        return self._joins is None or set(self._joins.columns) <= set(names)

    @property
    def _joined(self) -> int | None:
        """The newest version of the table `outcomes`; None where none of them can be joined under today's contract. No row is read for it."""
        table = self.outcomes.open()
        return table.version() if table and self._can_join(table) else None

    def labels(self) -> Labels | None:
        """The newest outcomes that can be joined under today's contract."""
        table, joins = self.outcomes.open(), self._joins
        told = [self.outcomes.read(file) for file in self.outcomes.files(table)]
        return _told(told, joins) if told and joins and self._can_join(table) else None

    def unjoined(self, snapshot: Snapshot) -> str:
        """How many outcomes do not tell the target of a snapshot's rows because of the key or target under which they landed, and what to do; else empty."""
        joins, table = self._joins, self.outcomes.open(snapshot.outcomes)
        if joins is None or table is None or (snapshot.outcomes is None and self._can_join(table)):
            return ""
        labels = self._labels(snapshot.outcomes)
        tell = len(labels.outcomes) if labels and labels.target == joins.target else 0
        count = sum(file.rows for file in self.outcomes.files(table)) - tell
        if not count:
            return ""
        return (
            f"{count:,} outcomes are left out: they landed without all of the columns {', '.join(joins.columns)}, the contract's key and "
            "target of today; where it was not done yet, land the same files again with these columns"
        )

    def read(self, snapshot: Snapshot) -> pd.DataFrame:
        """The rows of a snapshot by time and name, which is no file's order; without the batches that they came in.

        Raises:
            ArtifactError: the bytes on disk are not the rows that landed, or were erased since.
        """
        outline, _ = self.outline(snapshot)
        return self.named(outline.only(outline.order))

    def outline(self, snapshot: Snapshot, by: tuple[str, ...] = ()) -> tuple[Outline, pd.DataFrame]:
        """Which rows a snapshot has, and these columns of theirs in the same order, not verified: `selected` does that.

        Raises:
            ArtifactError: the table does not hold the rows of the snapshot.
        """
        tables = list(self.content(snapshot, verify=False, also=by))
        ids = _names(tables)
        if set_digest(ids) != snapshot.digest:
            raise ArtifactError(
                f"{self.root}/rows: version {snapshot.version} does not read as snapshot {snapshot.name}: its log was altered or "
                "damaged, or its outcomes landed under several keys or targets and the contract has others now than then. Restore the "
                "table from a back-up, or put the contract's key and target back; nothing is trained on it."
            )
        files = tuple(zip(self._files(snapshot), map(len, tables), strict=True))
        rows = pa.concat_tables([table.drop_columns([ROW]) for table in tables], promote_options="permissive")
        known = rows.select(list(dict.fromkeys(by))).to_pandas(types_mapper=NULLABLE.get)
        return Outline(snapshot, files, ids, self._order(rows, ids)), known

    def named(self, wanted: Selection) -> pd.DataFrame:
        """The verified rows of a selection with their names.

        Raises:
            ArtifactError: the bytes on disk are not the rows that landed, or were erased since.
        """
        return _with_names(self.selected(wanted), wanted.ids)

    def selected(self, wanted: Selection) -> pd.DataFrame:
        """The same without their names; beside them only one data file is in memory at a time."""
        give_back()
        labels = self._labels(wanted.snapshot.outcomes)
        fields = [field for field in self._schema(wanted.snapshot.version, labels) if field.name not in {ROW, BATCH}]
        contract = self.contract
        apart = {contract.time, *contract.key, contract.target} if contract else set()
        apart |= {*labels.key, labels.target} if labels else set()
        needs = pa.schema([field for field in fields if field.name in apart])
        count, begun = sum(rows for _, rows in wanted.files), 0
        gathered = Gathered(pa.schema(fields), needs.names, count, wanted.places)
        for file, rows in wanted.files:
            goes = gathered.goes(begun, rows)
            if (goes >= 0).any():
                self._gather(gathered, file, wanted, goes, labels, needs)
                pa.default_memory_pool().release_unused()
            begun += rows
        return gathered.frame()

    def _gather(
        self, gathered: Gathered, file: DataFile, wanted: Selection, goes: np.ndarray, labels: Labels | None, needs: pa.Schema
    ) -> None:  # fmt: skip
        """The rows of one data file, and where they go; columns by which rows are chosen and labelled are empty in a file that is older."""
        reader = self.landed.opened(file)
        there = reader.schema_arrow.names
        rows = reader.read([name for name in there if name not in {*gathered.floats, BATCH}], use_threads=False)
        rows = filled(rows, needs)
        inside = self._inside(wanted.snapshot, rows)
        rows = labels.onto(rows.filter(inside), ROW) if labels else rows.filter(inside)
        if not np.array_equal(from_binary(rows[ROW])[goes >= 0], wanted.ids[goes[goes >= 0]]):
            raise ArtifactError(
                f"{self.root}/rows/{file.path}: has other rows now than a moment ago. Nothing is learned from them; train again."
            )
        gathered.add(rows.drop_columns([ROW]), goes)
        for name in gathered.floats:
            if name in there:
                gathered.put(name, reader.read([name], use_threads=False)[name].filter(inside).to_numpy(), goes)
                pa.default_memory_pool().release_unused()  # else Arrow keeps what each column took

    def _order(self, rows: pa.Table, ids: np.ndarray) -> np.ndarray:
        """Positions of rows by time, and by name where that is the same."""
        words, time = ids.view(">u8"), self.landed.time
        instants = rows[time].cast(pa.int64()).fill_null(0).to_numpy() if time else np.zeros(len(ids))
        return np.lexsort((words[:, 1], words[:, 0], instants))

    def apart(self, version: int | None) -> pd.DataFrame:
        """The verified rows of a version of the table `trusted`, in the order of their names; without one, none."""
        wanted = list(rows_schema(self.contract).names) if self.contract else None
        files = [] if version is None else self.trusted.files(self.trusted.open(version))
        if not files:
            return pd.DataFrame(columns=wanted or [])
        rows = frame([self.trusted.read(file) for file in files]).sort_values(ROW, ignore_index=True)
        columns = dict.fromkeys([*(wanted or ()), *rows.columns])  # those that are younger than the set are empty
        return rows.reindex(columns=list(columns))

    def names(self, snapshot: Snapshot) -> np.ndarray:
        """The names of the rows of a snapshot: (n, 16) bytes. Nothing is verified."""
        return _names(list(self.content(snapshot, verify=False)))

    def keys(self, snapshot: Snapshot, names: np.ndarray) -> dict[str, str]:
        """The key of each of these rows by its name, as `id=7`; of one that stands in no data file of whatever version, nothing."""
        key = self.contract.key if self.contract else ()
        known = dict.fromkeys(as_text(names), "")
        stored = [DataFile(path=path, size=0, rows=0) for path in self.landed.stored()]
        schema = pa.schema([field for field in self._schema(snapshot.version) if field.name in key])
        for rows in (
            *self.content(snapshot, verify=False, also=key),
            *(filled(self.landed.peek(file, [*key, ROW]), schema) for file in stored),
        ):
            at = [number for number, name in enumerate(as_text(from_binary(rows[ROW]))) if known.get(name) == ""]
            known |= {as_text(from_binary(rows[ROW].take([one])))[0]: _said(rows, one, key) for one in at}
        return known

    def altered(self, snapshot: Snapshot) -> Iterator[tuple[str, str, str]]:
        """Rows whose content is not what their name says: (name, the name that the content has, key).

        In a data file where most rows are so (it was compacted, and older rows have fewer columns) nothing can be told.
        """
        key, columns = (self.contract.key, list(self.contract.columns)) if self.contract else ((), [])
        for file in self.landed.files(self.landed.open(snapshot.version)):
            rows = self.landed.peek(file, [*columns, ROW])
            names, own = from_binary(rows[ROW]), row_ids(rows.drop_columns([ROW]))
            odd = np.flatnonzero((names != own).any(axis=1))
            if 2 * len(odd) <= len(rows):
                for one in odd:
                    name, other = as_text(np.stack([names[one], own[one]]))
                    yield name, other, _said(filled(rows, self._schema(None)), int(one), key)

    def count(self, kind: str, version: int) -> int:
        """Rows of one version of the table `rows` or `outcomes`."""
        table = self.table(kind)
        return sum(file.rows for file in table.files(table.open(version)))

    def versions(self, kind: str = ROWS) -> Iterator[Version]:
        """Every version of a table, newest first."""
        table = self.table(kind).open()
        for row in table.history() if table else ():
            at = pd.Timestamp(row["timestamp"], unit="ms", tz="UTC").isoformat()
            why = {name: str(value) for name, value in row.items() if name.startswith("keepfit.")}
            yield Version(int(row["version"]), at, why)

    def changes(self, a: Snapshot, b: Snapshot, key: tuple[str, ...]) -> dict[str, int]:
        """How many rows were added, removed, and changed (another content under the same key) from one snapshot to another.

        Data files that both have are not opened: their names say that they are the same, if outcomes and window are.
        """
        old, new = (
            frozenset(file.path for file in self.landed.files(self.landed.open(snapshot.version)))
            for snapshot in (a, b)
        )
        same = old & new if (a.outcomes, a.window) == (b.outcomes, b.window) else frozenset()
        gone, came = (list(self.content(snapshot, paths=files - same)) for snapshot, files in ((a, old), (b, new)))
        before, after = _named_keys(gone, key), _named_keys(came, key)
        left, entered = before.keys() - after.keys(), after.keys() - before.keys()
        changed = {before[name] for name in left} & {after[name] for name in entered}
        return {
            "added": len(entered) - len(changed), "removed": len(left) - len(changed), "changed": len(changed),
        }  # fmt: skip

    def profile(self, snapshot: Snapshot, contract: Contract, positive: str | bool | int | None) -> Profile:
        """What the rows of a snapshot look like as a whole."""
        profiler = Profiler(contract, positive)
        for rows in self.content(snapshot):
            profiler.add(filled(rows, contract.schema).select(contract.schema.names).cast(contract.schema))
        return profiler.result()

    @staticmethod
    def frame(rows: pa.Table) -> pd.DataFrame:
        """Rows as they are learned from: integers with gaps stay integers, names are 32 hex digits."""
        return frame([rows])

    # -- keys ---------------------------------------------------------------------------------------------------------
    def follow(self, keys: Keys, table: Table, key: tuple[str, ...]) -> None:
        """Brings the index of keys to the newest data files of a table. A row that is older than a column of the key has no such key."""
        by_path = {file.path: file for file in table.files(table.open())}

        def read(path: str) -> tuple[np.ndarray, np.ndarray]:
            rows = having(table.peek(by_path[path], [*key, ROW]), key)
            hashes = key_hashes(rows, key) if len(rows) else np.empty(0, dtype=np.uint64)
            return hashes, from_binary(rows[ROW])

        keys.follow(set(by_path), read)


def _told(outcomes: list[pa.Table], joins: Joins) -> Labels | None:
    """Those outcomes as labels that can be joined so; None where there is none."""
    table = having(pa.concat_tables(outcomes, promote_options="permissive"), joins.columns)
    return Labels(table, from_binary(table[ROW]), joins.key, joins.target) if len(table) else None


def _names(tables: list[pa.Table]) -> np.ndarray:
    """The names of all rows: (n, 16) bytes."""
    parts = [from_binary(table[ROW]) for table in tables]
    return np.concatenate(parts) if parts else np.empty((0, 16), dtype=np.uint8)


def _with_names(rows: pd.DataFrame, ids: np.ndarray) -> pd.DataFrame:
    """The rows with their names, (n, 16) bytes, as 32 hex digits in the last column."""
    return rows.assign(**{ROW: as_column(ids).to_pandas()})


def _said(rows: pa.Table, at: int, key: tuple[str, ...]) -> str:
    """The key of one row, as a person writes it."""
    return ", ".join(f"{name}={rows[name][at].as_py()}" for name in key)


def _named_keys(tables: list[pa.Table], key: tuple[str, ...]) -> dict[bytes, int]:
    """The hash of each row's key by the row's name."""
    names: dict[bytes, int] = {}
    for rows in tables:
        names.update(zip(rows[ROW].to_pylist(), key_hashes(rows, key).tolist(), strict=True))
    return names


def frame(tables: list[pa.Table], columns: list[str] | None = None) -> pd.DataFrame:
    """Tables below each other as a frame whose integers with gaps stay integers."""
    if not tables:
        return pd.DataFrame(columns=columns or [])
    table = pa.concat_tables(tables, promote_options="permissive")
    if ROW in table.column_names:
        at = table.column_names.index(ROW)
        table = table.set_column(at, ROW, as_column(from_binary(table[ROW])))
    return table.to_pandas(types_mapper=NULLABLE.get)


NAME = re.compile(r"v?(\d{1,18})(?:\.(\d{1,18}))?(?:-([0-9a-f]{1,64}))?(?:@(.*)\.\.(.*))?")


def named(name: str) -> tuple[int, int | None, str, str]:
    """Versions of rows and outcomes, and the window, that a snapshot's full name says.

    >>> named("v12.4-3f9c2a7b@2026-01-01..")
    (12, 4, '2026-01-01', '')
    """
    met = NAME.fullmatch(name)
    if met is None:
        raise ArtifactError(f"'{name}' is no snapshot's name. Wanted: like v12.4-3f9c2a7b.")
    return int(met[1]), int(met[2]) if met[2] else None, met[4] or "", met[5] or ""


def snapshot_named(lake: Lake, name: str | None) -> Snapshot | None:
    """The snapshot called `v12.4-3f9c2a7b`, version 12 of the rows with version 4 of the outcomes; the newest one without a name.

    Outcomes and digest may be left out, and a window of time, `@2026-01-01..2026-02-01`, may follow; `@2026-01-01..` is
    the newest rows since that day.

    Raises:
        ArtifactError: there is no such snapshot, or its digest is not the table's.
    """
    if not name:
        return lake.snapshot()
    newest = lake.snapshot()
    met = NAME.fullmatch(f"{_plain(newest)}{name}" if newest and name.startswith("@") else name)
    if met is None or newest is None or int(met[1]) > newest.version or int(met[2] or 0) > (lake.outcomes.newest or 0):
        known = [] if newest is None else [f"v{version}" for version in range(newest.version + 1)]
        raise ArtifactError(
            f"There is no snapshot '{name}' of {lake.project}; the newest is {newest.name if newest else 'none'}.{suggestion(name, known)}"
        )
    window = (_moment(met[4], lake), _moment(met[5], lake))
    found = lake.snapshot(int(met[1]), int(met[2]) if met[2] else None, window)
    if found is None or not found.digest.startswith(met[3] or ""):
        raise ArtifactError(
            f"Snapshot '{name}' of {lake.project} is not what the table holds at that version ({found.name if found else 'nothing'})."
        )
    return found


def _plain(snapshot: Snapshot) -> str:
    return snapshot.name.partition("-")[0]


def _moment(text: str | None, lake: Lake) -> str:
    """The end of a window in UTC; a day without an offset is taken as UTC."""
    if not text:
        return ""
    try:
        at = pd.Timestamp(text)
    except ValueError as error:
        raise ArtifactError(
            f"'{text}' is no moment. Write a window of {lake.project} like v12@2026-01-01..2026-02-01T12:00Z."
        ) from error
    return (at.tz_localize("UTC") if at.tzinfo is None else at.tz_convert("UTC")).isoformat()


@functools.lru_cache(maxsize=2)
def parts(use: Project, snapshot: Snapshot, root: str, seen_until: str | None = None) -> SealedParts:
    """The verified rows of a snapshot, split as the project says; what judges is sealed. What teaches is read once a process.

    Rows without a label wait. What was set apart is in no other part, under whatever content it came again. Computed columns stand
    behind the landed ones, as the project's folder makes them now. Train and validation stand one behind the other in one array, so
    that what learns from both needs no copy of them. The holdout is read when it is asked for, and let go when nobody holds it.

    Args:
        use: the project.
        snapshot: which rows.
        root: where its tables are.
        seen_until: of a model that exists, as its manifest says it: rows are what they were to it, also where others are not there any more.
    """
    lake = Lake(use.project, root, use.contract)
    chosen = _chosen(use, snapshot, lake)
    outline = chosen.outline
    known = _with_names(chosen.known, outline.ids[chosen.places]).assign(**{PLACE: chosen.places})
    newest = chosen.newest
    made = use.split.apply(known, newest) if seen_until is None else use.split.again(known, seen_until, newest)
    both, holdout, gap = (
        outline.only(pd.concat([part[PLACE] for part in some]).to_numpy())
        for some in (
            [made.train, made.validation],
            [made.holdout],
            [made.gap if made.purged else made.train.head(0)],
        )
    )
    immature, trusted, cut = made.immature + chosen.waiting, chosen.trusted, len(made.train)
    late, purged, unripe = made.late, made.purged, made.unripe
    del chosen, known, made, outline  # while rows are read they need not be in memory
    learned = lake.selected(both)
    kind, target = use.task, use.contract.target

    def rows(some: slice) -> Lazy:
        return Lazy(lambda: use.completed(_with_names(learned.iloc[some].reset_index(drop=True), both.ids[some])))

    return SealedParts(
        rows(slice(cut)),
        rows(slice(cut, None)),
        rows(slice(len(both.places) - late)),
        Sealed("holdout", Lazy(lambda: use.completed(lake.named(holdout))), kind, target),
        Sealed("trusted", use.completed(trusted), kind, target),
        immature,
        late,
        Lazy(lambda: use.completed(lake.named(gap))) if purged else None,
        unripe,
    )


def teachable(use: Project, snapshot: Snapshot, root: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.Timestamp | None]:
    """The verified rows of a snapshot with a label, without what was set apart; what was; and the newest instant, as `Chosen` has it."""
    lake = Lake(use.project, root, use.contract)
    chosen = _chosen(use, snapshot, lake)
    return use.completed(lake.named(chosen.outline.only(chosen.places))), use.completed(chosen.trusted), chosen.newest


@dataclass(frozen=True)
class Chosen:
    """The rows of a snapshot that may teach or judge: those with a label, without what was set apart.

    Attributes:
        outline: of the whole snapshot.
        places: (m,) where they stand, by time and name.
        known: the columns by which they are split, of these rows in this order.
        trusted: what was set apart.
        waiting: how many more wait for their label.
        newest: the newest instant of the whole snapshot, by the column that the split counts back from; None without one.
    """

    outline: Outline
    places: np.ndarray
    known: pd.DataFrame
    trusted: pd.DataFrame
    waiting: int
    newest: pd.Timestamp | None


def _chosen(use: Project, snapshot: Snapshot, lake: Lake) -> Chosen:
    trusted, unit, target = lake.apart(snapshot.trusted), use.split.unit(use.contract.key), use.contract.target
    by = tuple(use.split.columns_needed())
    outline, known = lake.outline(snapshot, (*unit, *([target] if target else []), *by))
    common, labelled = ~apart(known, trusted, unit), use.labelled(known).to_numpy()
    places, newest = outline.order[(common & labelled)[outline.order]], use.split.newest(known)
    known = known[list(by)].iloc[places].reset_index(drop=True)
    return Chosen(outline, places, known, trusted, int((common & ~labelled).sum()), newest)
