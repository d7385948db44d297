"""The lake: a project's rows as Delta tables, appended exactly once a batch, read back verified."""

import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from tasks.config.errors import ArtifactError, suggestion
from tasks.config.project import Project
from tasks.ml.identity import row_ids, set_digest
from tasks.ml.split import Parts
from tasks.stores.references import Snapshot

ROW, BATCH = "_row", "_batch"  # the 128-bit name of a row, and the batch that it came in
NULLABLE = {  # integers with gaps stay integers, so that a row reads back as the row that landed
    pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(), pa.large_string(): pd.StringDtype(), pa.string_view(): pd.StringDtype(),
}  # fmt: skip


class Lake:
    """The tables `rows` and `quarantine` of one project under one folder or object-store URL."""

    def __init__(self, project: str, root: str) -> None:
        self.project, self.root = project, root

    def holds(self, batch: str) -> bool:
        """Whether this batch was committed, asked of the table itself."""
        return self._committed("rows", batch)

    def land(self, batch: str, rows: pd.DataFrame) -> int:
        """Appends a batch's rows in one commit that carries the batch's name; gives the table's version. Repeating changes nothing."""
        named = rows.assign(**{ROW: row_ids(rows), BATCH: batch})
        return self._append("rows", batch, named)

    def quarantine(self, batch: str, rows: pd.DataFrame) -> int:
        """Keeps rows that may not land, as text, with `_rule`, `_column`, `_value`. Repeating changes nothing.

        The raw columns are kept in one JSON column: what breaks a contract has any shape.
        """
        reasons = ["_rule", "_column", "_value"]
        kept = (
            rows[reasons]
            .astype("string")
            .assign(
                **{BATCH: batch, "_raw": [json.dumps(row, default=str) for row in _records(rows.drop(columns=reasons))]}
            )
        )
        return self._append("quarantine", batch, kept)

    def rows(self, columns: list[str] | None = None) -> pd.DataFrame:
        """The newest landed rows, not verified; for looking things up."""
        return self._frame("rows", None, columns)

    def quarantined(self) -> pd.DataFrame:
        """Every quarantined row with its rule, column, value, batch and raw content."""
        return self._frame("quarantine", None, None)

    def snapshot(self, time: str, version: int | None = None) -> Snapshot | None:
        """The rows of one version of the table (default: the newest), or None when nothing landed."""
        table = self._table("rows", version)
        if table is None:
            return None
        rows = self._frame("rows", table.version(), [ROW, time])
        return Snapshot(
            project=self.project, version=table.version(), rows=len(rows), digest=set_digest(rows[ROW]),
            since=_instant(rows[time].min()), until=_instant(rows[time].max()),
        )  # fmt: skip

    def read(self, snapshot: Snapshot) -> pd.DataFrame:
        """The rows of a snapshot in the order of their ids, which is no file's order.

        Raises:
            ArtifactError: the bytes on disk are not the rows that landed.
        """
        damaged = ArtifactError(
            f"{self.root}/rows: version {snapshot.version} does not read as snapshot {snapshot.name}: a file was altered or damaged. "
            "Restore the table from a back-up; nothing is trained on it."
        )
        try:
            rows = self._frame("rows", snapshot.version, None)
        except (pa.ArrowException, DeltaError, OSError) as error:
            raise damaged from error
        ids = row_ids(rows.drop(columns=[ROW, BATCH]))
        if set_digest(ids) != snapshot.digest or not (ids == rows[ROW].to_numpy()).all():
            raise damaged
        return rows.sort_values(ROW, kind="stable").reset_index(drop=True)

    # -- the engine ---------------------------------------------------------------------------------------------------
    def _append(self, table: str, batch: str, rows: pd.DataFrame) -> int:
        if not self._committed(table, batch):
            write_deltalake(
                self._path(table), pa.Table.from_pandas(rows, preserve_index=False), mode="append",
                commit_properties=CommitProperties(app_transactions=[Transaction(batch, 1)]),
            )  # fmt: skip
        written = self._table(table, None)
        if written is None:
            raise ArtifactError(
                f"{self._path(table)}: the table is gone right after a write. Look at the disk, then land the batch again."
            )
        return written.version()

    def _committed(self, table: str, batch: str) -> bool:
        found = self._table(table, None)
        return found is not None and found.transaction_version(batch) is not None

    def _table(self, name: str, version: int | None) -> DeltaTable | None:
        return DeltaTable(self._path(name), version=version) if DeltaTable.is_deltatable(self._path(name)) else None

    def _frame(self, name: str, version: int | None, columns: list[str] | None) -> pd.DataFrame:
        table = self._table(name, version)
        if table is None:
            return pd.DataFrame(columns=columns or [])
        return table.to_pyarrow_table(columns=columns).to_pandas(types_mapper=NULLABLE.get)

    def _path(self, table: str) -> str:
        path = f"{self.root}/{table}"
        if "://" not in path:
            Path(path).mkdir(parents=True, exist_ok=True)
        return path


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def _instant(value: Any) -> str:
    return pd.Timestamp(value).isoformat() if pd.notna(value) else ""


def snapshot_named(lake: Lake, time: str, name: str | None) -> Snapshot | None:
    """The snapshot called `v12-3f9c2a7b` (or `v12`, or `12`); the newest one without a name.

    Raises:
        ArtifactError: the name is none, or its digest is not the table's.
    """
    if not name:
        return lake.snapshot(time)
    number, _, digest = name.removeprefix("v").partition("-")
    newest = lake.snapshot(time)
    if not number.isdigit() or newest is None or int(number) > newest.version:
        known = [] if newest is None else [f"v{version}" for version in range(newest.version + 1)]
        raise ArtifactError(
            f"There is no snapshot '{name}' of {lake.project}; the newest is {newest.name if newest else 'none'}.{suggestion(name, known)}"
        )
    found = lake.snapshot(time, int(number))
    if found is None or not found.digest.startswith(digest):
        raise ArtifactError(
            f"Snapshot '{name}' of {lake.project} is not what the table holds at that version ({found.name if found else 'nothing'})."
        )
    return found


@functools.lru_cache(maxsize=2)
def parts(use: Project, snapshot: Snapshot, root: str) -> Parts:
    """The verified rows of a snapshot, split as the project says; read once a process."""
    return use.split.apply(Lake(use.project, root).read(snapshot))
