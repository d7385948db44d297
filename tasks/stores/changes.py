"""A change of the lake is written down before it begins, so that whoever comes next can finish it after a kill."""

import datetime as dt
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from tasks.ml.contract import Contract
from tasks.stores import durable
from tasks.stores.journal import Journal
from tasks.stores.keys import Keys
from tasks.stores.lake import QUARANTINE, Lake, rows_schema
from tasks.stores.tables import DataFile, Table


class Change(BaseModel, frozen=True):
    """Everything that one landing, replay, compaction or erasure does to the lake and to the journal.

    Attributes:
        id: names it in the tables' logs; a table that knows the name has the change already.
        kind: which table it changes, `rows` or `outcomes`.
        names: further names under which that table shall know it: the batches that land together.
        staging: folder with the staged data files.
        add, remove: data files of that table; quarantine_add, quarantine_remove: those of `quarantine`.
        batches: rows of the journal that are true when it is done.
        contract_digest: of `contract`, by which the rows were checked.
        delete: data files that are removed for good afterwards, by table, with the reason that is left in their place.
    """

    project: str
    id: str
    at: dt.datetime
    why: dict[str, str]
    contract: Contract
    contract_digest: str
    kind: Literal["rows", "outcomes"] = "rows"
    names: tuple[str, ...] = ()
    staging: str = ""
    add: tuple[DataFile, ...] = ()
    remove: tuple[DataFile, ...] = ()
    quarantine_add: tuple[DataFile, ...] = ()
    quarantine_remove: tuple[DataFile, ...] = ()
    batches: tuple[dict[str, Any], ...] = ()


def carry_out(change: Change, lake: Lake, journal: Journal, index: Path, staged: Keys | None = None) -> None:
    """Does a change from wherever it stands.

    The caller holds the project's lock. May be repeated after a kill at any step: each step looks whether it is done.
    """
    folder = Path(change.staging)
    target = lake.table(change.kind)
    for table, files in ((target, change.add), (lake.quarantine, change.quarantine_add)):
        for file in files:
            table.publish(file, folder / file.path)
    if change.add or change.remove:
        target.commit(
            change.add, change.remove, (change.id, *change.names), rows_schema(change.contract), change.at, change.why
        )
    if change.quarantine_add or change.quarantine_remove:
        lake.quarantine.commit(
            change.quarantine_add, change.quarantine_remove, (change.id,), QUARANTINE, change.at, change.why
        )
    versions = {"version": _version(lake.landed), "outcomes": _version(lake.outcomes)}
    if staged is not None:
        keys = Keys(index)
        keys.adopt(staged, [file.path for file in change.add])
    contract = {
        "project": change.project, "digest": change.contract_digest, "at": change.at.isoformat(),
        "contract": change.contract.model_dump_json(exclude_defaults=True),
    }  # fmt: skip
    journal.finish(change.project, [{**batch, **versions} for batch in change.batches], contract)
    if change.staging and folder.exists():
        durable.remove(folder)


def _version(table: Table) -> int | None:
    """The newest version of a table, or None before the first."""
    opened = table.open()
    return opened.version() if opened else None


def settle(project: str, lake: Lake, journal: Journal, index: Path, staging: Path) -> bool:
    """Finishes what a killed landing had begun and sweeps what it had only prepared; whether there was anything.

    The caller holds the project's lock.
    """
    begun = journal.intent(project)
    if begun:
        change = Change.model_validate_json(begun)
        if _can_go_on(change, lake):
            carry_out(change, lake, journal, index)
        else:  # prepared on a disk that is gone, and nothing of it is in a table: the batch lands again from its file
            journal.finish(project, [], None)
    left = staging.is_dir() and any(staging.iterdir())
    if left:
        durable.remove(staging)
    return bool(begun or left)


def _can_go_on(change: Change, lake: Lake) -> bool:
    table = lake.table(change.kind)
    if table.holds(table.open(), change.id) or lake.quarantine.holds(lake.quarantine.open(), change.id):
        return True
    published = {*table.stored(), *lake.quarantine.stored()}
    staged = Path(change.staging)
    return all(
        file.path in published or (staged / file.path).is_file() for file in (*change.add, *change.quarantine_add)
    )
