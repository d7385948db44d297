"""The lake: a project's rows as Delta tables, appended exactly once a batch, read back verified."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.config.errors import ArtifactError, suggestion
from tasks.config.project import Project
from tasks.ml.contract import Contract
from tasks.ml.identity import as_text, from_binary, key_hashes, set_digest
from tasks.ml.profile import Profile, Profiler
from tasks.ml.split import Parts
from tasks.stores.keys import Keys
from tasks.stores.references import Snapshot
from tasks.stores.tables import DataFile, Table

ROW, BATCH = "_row", "_batch"  # the 128-bit name of a row, and the batch that it came in
NULLABLE = {  # integers with gaps stay integers, so that a row reads back as the row that landed
    pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(), pa.large_string(): pd.StringDtype(), pa.string_view(): pd.StringDtype(),
}  # fmt: skip
REASONS = ("_rule", "_column", "_value")
QUARANTINE = pa.schema([(name, pa.string()) for name in (BATCH, *REASONS, "_raw")])  # `_raw`: the row as it came, JSON


def rows_schema(contract: Contract) -> pa.Schema:
    """The columns of the table `rows`: the contract's, the row's name, the batch."""
    return pa.schema([*contract.schema, (ROW, pa.binary()), (BATCH, pa.string())])


@dataclass(frozen=True)
class Version:
    """One version of the table `rows`."""

    number: int
    at: str
    why: dict[str, str]


class Lake:
    """The tables `rows`, `quarantine` and `outcomes` of one project under one folder or object-store URL.

    Args:
        time: the contract's time column.
    """

    def __init__(self, project: str, root: str, time: str = "") -> None:
        self.project, self.root = project, root
        self.landed = Table(f"{root}/rows", time)
        self.quarantine = Table(f"{root}/quarantine")
        self.outcomes = Table(f"{root}/outcomes")

    def rows(self, columns: list[str] | None = None) -> pd.DataFrame:
        """The newest landed rows, not verified; for looking things up."""
        return _frame(self._all(self.landed, columns), columns)

    def quarantined(self, batch: str | None = None) -> pd.DataFrame:
        """Every quarantined row, or those of one batch: batch, rule, column, value and raw content."""
        found = _frame(self._all(self.quarantine, None), QUARANTINE.names)
        return found[found[BATCH] == batch].reset_index(drop=True) if batch else found

    def _all(self, table: Table, columns: list[str] | None) -> list[pa.Table]:
        return [table.peek(file, columns) if columns else table.read(file) for file in table.files(table.open())]

    # -- snapshots ----------------------------------------------------------------------------------------------------
    def snapshot(self, version: int | None = None) -> Snapshot | None:
        """The rows of one version of the table (default: the newest), or None when nothing landed."""
        table = self.landed.open(version)
        files = self.landed.files(table)
        if table is None or not files:
            return None
        ids = self.ids(files)
        return Snapshot(
            project=self.project, version=table.version(), rows=len(ids), digest=set_digest(ids),
            since=min(file.since for file in files), until=max(file.until for file in files),
        )  # fmt: skip

    def ids(self, files: Sequence[DataFile]) -> np.ndarray:
        """The names of all rows in these data files: (n, 16) bytes."""
        parts = [from_binary(self.landed.peek(file, [ROW])[ROW]) for file in files]
        return np.concatenate(parts) if parts else np.empty((0, 16), dtype=np.uint8)

    def read(self, snapshot: Snapshot) -> pd.DataFrame:
        """The rows of a snapshot in the order of their names, which is no file's order.

        Raises:
            ArtifactError: the bytes on disk are not the rows that landed, or were erased since.
        """
        files = self.landed.files(self.landed.open(snapshot.version))
        tables = [self.landed.read(file) for file in files]
        ids = np.concatenate([from_binary(table[ROW]) for table in tables])
        if set_digest(ids) != snapshot.digest:
            raise ArtifactError(
                f"{self.root}/rows: version {snapshot.version} does not read as snapshot {snapshot.name}: its log was altered or "
                "damaged. Restore the table from a back-up; nothing is trained on it."
            )
        order = np.lexsort((ids.view(">u8")[:, 1], ids.view(">u8")[:, 0]))
        rows = pa.concat_tables([table.drop_columns([ROW]) for table in tables], promote_options="permissive").take(
            pa.array(order)
        )
        return _frame([rows]).assign(**{ROW: pd.array(as_text(ids[order]), dtype="str")})

    def versions(self) -> Iterator[Version]:
        """Every version of the table `rows`, newest first."""
        table = self.landed.open()
        for row in table.history() if table else ():
            at = pd.Timestamp(row["timestamp"], unit="ms", tz="UTC").isoformat()
            why = {name: str(value) for name, value in row.items() if name.startswith("keepfit.")}
            yield Version(int(row["version"]), at, why)

    def changes(self, a: Snapshot, b: Snapshot, key: tuple[str, ...]) -> dict[str, int]:
        """How many rows were added, removed, and changed (another content under the same key) from one snapshot to another.

        Data files that both have are not opened: their names say that they are the same.
        """
        old, new = (
            {file.path: file for file in self.landed.files(self.landed.open(snapshot.version))} for snapshot in (a, b)
        )
        gone, came = (
            [self.landed.read(file, [*key, ROW]) for path, file in mine.items() if path not in theirs]
            for mine, theirs in ((old, new), (new, old))
        )
        before, after = _named_keys(gone, key), _named_keys(came, key)
        left, entered = before.keys() - after.keys(), after.keys() - before.keys()
        changed = {before[name] for name in left} & {after[name] for name in entered}
        return {
            "added": len(entered) - len(changed), "removed": len(left) - len(changed), "changed": len(changed),
        }  # fmt: skip

    def profile(self, snapshot: Snapshot, contract: Contract, positive: str | bool | int) -> Profile:
        """What the rows of a snapshot look like as a whole."""
        profiler = Profiler(contract, positive)
        for file in self.landed.files(self.landed.open(snapshot.version)):
            rows = self.landed.read(file)
            there = [
                rows[field.name].cast(field.type)
                if field.name in rows.column_names
                else pa.nulls(len(rows), field.type)
                for field in contract.schema
            ]
            profiler.add(pa.table(there, schema=contract.schema))
        return profiler.result()

    # -- keys ---------------------------------------------------------------------------------------------------------
    def follow(self, keys: Keys, files: Sequence[DataFile], key: tuple[str, ...]) -> None:
        """Brings the index of keys to these data files."""
        by_path = {file.path: file for file in files}

        def read(path: str) -> tuple[np.ndarray, np.ndarray]:
            rows = self.landed.peek(by_path[path], [*key, ROW])
            return key_hashes(rows, key), from_binary(rows[ROW])

        keys.follow(set(by_path), read)


def _named_keys(tables: list[pa.Table], key: tuple[str, ...]) -> dict[bytes, int]:
    """The hash of each row's key by the row's name."""
    names: dict[bytes, int] = {}
    for rows in tables:
        names.update(zip(rows[ROW].to_pylist(), key_hashes(rows, key).tolist(), strict=True))
    return names


def _frame(tables: list[pa.Table], columns: list[str] | None = None) -> pd.DataFrame:
    if not tables:
        return pd.DataFrame(columns=columns or [])
    table = pa.concat_tables(tables, promote_options="permissive")
    if ROW in table.column_names:
        at = table.column_names.index(ROW)
        table = table.set_column(at, ROW, pa.array(as_text(from_binary(table[ROW])), pa.string()))
    return table.to_pandas(types_mapper=NULLABLE.get)


def snapshot_named(lake: Lake, name: str | None) -> Snapshot | None:
    """The snapshot called `v12-3f9c2a7b` (or `v12`, or `12`); the newest one without a name.

    Raises:
        ArtifactError: the name is none, or its digest is not the table's.
    """
    if not name:
        return lake.snapshot()
    number, _, digest = name.removeprefix("v").partition("-")
    newest = lake.snapshot()
    if not number.isdigit() or newest is None or int(number) > newest.version:
        known = [] if newest is None else [f"v{version}" for version in range(newest.version + 1)]
        raise ArtifactError(
            f"There is no snapshot '{name}' of {lake.project}; the newest is {newest.name if newest else 'none'}.{suggestion(name, known)}"
        )
    found = lake.snapshot(int(number))
    if found is None or not found.digest.startswith(digest):
        raise ArtifactError(
            f"Snapshot '{name}' of {lake.project} is not what the table holds at that version ({found.name if found else 'nothing'})."
        )
    return found


@functools.lru_cache(maxsize=2)
def parts(use: Project, snapshot: Snapshot, root: str) -> Parts:
    """The verified rows of a snapshot, split as the project says; read once a process."""
    return use.split.apply(Lake(use.project, root, use.contract.time).read(snapshot))
