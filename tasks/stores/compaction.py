"""Compaction: many small data files become few; rows, digest and everything that reads older versions stay as they are."""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.ml.identity import digest
from tasks.stores.changes import Change, Edit, Kind, Workplace
from tasks.stores.lake import Lake
from tasks.stores.staging import Stage
from tasks.stores.tables import ROWS_OF_A_FILE, DataFile, Table

KINDS: tuple[Kind, ...] = ("rows", "outcomes", "quarantine", "trusted", "predictions", "told")


def small(files: Sequence[DataFile]) -> list[DataFile]:
    """The data files that are less than half full."""
    return [file for file in files if file.rows < ROWS_OF_A_FILE // 2]


def crowded(lake: Lake, at_least: int) -> dict[Kind, list[DataFile]]:
    """The small data files of each table that has so many of them."""
    found = {kind: small(lake.table(kind).files(lake.table(kind).open())) for kind in KINDS}
    return {kind: files for kind, files in found.items() if len(files) >= max(2, at_least)}


def compact(place: Workplace, at: dt.datetime, at_least: int = 2) -> dict[str, int]:
    """Compacts every table that has at least so many small data files; gives how many each had. The caller is alone."""
    found = crowded(place.lake, at_least)
    if not found:
        return {}
    edits = []
    for kind, files in found.items():
        table, stays = place.lake.table(kind), lambda file: np.zeros(file.rows, dtype=bool)
        _, merged = without_rows(table, files, stays, place.staging, every=True)
        edits.append(Edit(table=kind, add=merged, remove=tuple(files)))
    counts = {str(kind): len(files) for kind, files in found.items()}
    name = digest(sorted(file.path for files in found.values() for file in files))
    why = {"keepfit.why": "compact", "keepfit.name": f"{sum(counts.values())} small files"}
    place.do(Change(
        project=place.project, id=f"compact {name}", at=at, why=why, contract=place.contract, edits=tuple(edits), staging=str(place.staging),
    ))  # fmt: skip
    for edit in edits:
        if edit.table in {"rows", "outcomes"}:  # the tables that batches land in have an index of keys
            place.index(edit.table).rename([file.path for file in edit.remove], [file.path for file in edit.add])
    return counts


def without_rows(
    table: Table, files: Iterable[DataFile], goes: Callable[[DataFile], np.ndarray], staging: Path, *, every: bool = False
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:  # fmt: skip
    """The data files that hold rows which go, and new ones with what stays of them, in the staging folder.

    Args:
        table: where they are; what is rewritten is verified first.
        files: of that table.
        goes: which rows of a data file go, (n,) bool.
        staging: folder for the new data files.
        every: rewrite files from which nothing goes, too.
    """
    removed, stage = [], Stage(staging, table.time)
    try:
        for file in files:
            gone = goes(file)
            if every or gone.any():
                removed.append(file)
                stage.add(table.read(file).filter(pa.array(~gone)))
        return tuple(removed), tuple(stage.close())
    except BaseException:
        stage.abandon()
        raise
