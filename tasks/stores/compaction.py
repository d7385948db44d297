"""Compaction: many small data files become few; rows, digest and everything that reads older versions stay as they are."""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.ml.contract import Contract
from tasks.ml.identity import digest
from tasks.ml.outcomes import outcome_contract
from tasks.stores.changes import Change, Edit, Kind, carry_out
from tasks.stores.journal import Journal
from tasks.stores.keys import Keys
from tasks.stores.lake import Lake
from tasks.stores.staging import Stage
from tasks.stores.tables import ROWS_OF_A_FILE, DataFile, Table

KINDS: tuple[Kind, ...] = ("rows", "outcomes", "quarantine")


def small(files: Sequence[DataFile]) -> list[DataFile]:
    """The data files that are less than half full."""
    return [file for file in files if file.rows < ROWS_OF_A_FILE // 2]


def crowded(lake: Lake, at_least: int) -> dict[Kind, list[DataFile]]:
    """The small data files of each table that has so many of them."""
    found = {kind: small(lake.table(kind).files(lake.table(kind).open())) for kind in KINDS}
    return {kind: files for kind, files in found.items() if len(files) >= max(2, at_least)}


def compact(
    lake: Lake, journal: Journal, contract: Contract, staging: Path, index: Path, at: dt.datetime, at_least: int = 2
) -> dict[str, int]:
    """Compacts every table that has at least so many small data files; gives how many each had.

    The caller holds the project's lock.

    Args:
        lake: the tables.
        journal: where the change is written down first.
        contract: of the project.
        staging: folder for the new data files.
        index: folder of the indexes of keys.
        at: the time.
        at_least: fewer small files than this are left alone.
    """
    found = crowded(lake, at_least)
    if not found:
        return {}
    edits = []
    for kind, files in found.items():
        _, merged = without_rows(
            lake.table(kind), files, lambda file: np.zeros(file.rows, dtype=bool), staging, every=True
        )
        edits.append(Edit(table=kind, add=merged, remove=tuple(files)))
    name = digest(sorted(file.path for files in found.values() for file in files))
    why = {"keepfit.why": "compact", "keepfit.name": f"{sum(len(files) for files in found.values())} small files"}
    change = Change(
        project=lake.project, id=f"compact {name}", at=at, why=why, contract=contract, edits=tuple(edits), staging=str(staging)
    )  # fmt: skip
    journal.intend(lake.project, change.model_dump_json(), at.isoformat())
    carry_out(change, lake, journal)
    for edit in edits:
        if edit.table != "quarantine":
            keys = contract.key if edit.table == "rows" else outcome_contract(contract).key
            Keys(index_of(index, keys)).rename([file.path for file in edit.remove], [file.path for file in edit.add])
    return {kind: len(files) for kind, files in found.items()}


def index_of(folder: Path, key: tuple[str, ...]) -> Path:
    """The folder of the index of a key; another key has another one."""
    return folder / digest(key)[:12]


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
    for file in files:
        gone = goes(file)
        if every or gone.any():
            removed.append(file)
            stage.add(table.read(file).filter(pa.array(~gone)))
    return tuple(removed), tuple(stage.close())
