"""A change of the lake is written down before it begins, so that whoever comes next can finish it after a kill."""

import datetime as dt
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel

from tasks.config.errors import ArtifactError
from tasks.config.names import KEPT
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.contract import Contract
from tasks.ml.identity import digest
from tasks.ml.outcomes import outcome_contract
from tasks.stores import durable
from tasks.stores.journal import Journal
from tasks.stores.keys import Keys
from tasks.stores.lake import QUARANTINE, Lake, rows_schema
from tasks.stores.predictions import Days
from tasks.stores.served import SCHEMAS
from tasks.stores.tables import DataFile

Kind = Literal["rows", "quarantine", "outcomes", "trusted", "predictions", "told"]


class Edit(BaseModel, frozen=True):
    """What a change does to one table.

    Attributes:
        add, remove: data files that a commit brings in and takes out of the newest version.
        names: further names under which the table shall know the change: the batches that land together.
        delete: data files that are removed from the disk afterwards, for good.
        marks: how many bytes of which log the table has with this change; may be all that it does.
    """

    table: Kind
    add: tuple[DataFile, ...] = ()
    remove: tuple[DataFile, ...] = ()
    names: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    marks: dict[str, int] = {}


class Change(BaseModel, frozen=True):
    """Everything that one landing, replay, compaction, removal or erasure does to the lake and to the journal.

    Attributes:
        id: names it in the tables' logs; a table that knows the name has the change already.
        why: stands in the tables' logs; `keepfit.reason` is left in the place of a data file that is deleted.
        contract: of the project, by which the rows were checked.
        edits: one for each table that changes.
        staging: folder with the staged data files.
        batches: rows of the journal that are true when it is done.
        kept: kept files of the inbox that are deleted.
        blanks: parts of the prediction log that are blanked.
        erasure: the journal's record of an erasure.
    """

    project: str
    id: str
    at: dt.datetime
    why: dict[str, str]
    contract: Contract
    edits: tuple[Edit, ...] = ()
    staging: str = ""
    batches: tuple[dict[str, Any], ...] = ()
    kept: tuple[str, ...] = ()
    blanks: tuple[tuple[str, int, int], ...] = ()
    erasure: dict[str, Any] | None = None

    def columns(self, table: Kind) -> pa.Schema:
        """The columns that a table has under the contract."""
        if table == "quarantine":
            return QUARANTINE
        if table in SCHEMAS:
            return SCHEMAS[table]
        return rows_schema(outcome_contract(self.contract) if table == "outcomes" else self.contract)


def carry_out(change: Change, lake: Lake, journal: Journal, adopt: tuple[Keys, Keys] | None = None) -> None:
    """Does a change from wherever it stands.

    The caller holds the project's lock. May be repeated after a kill at any step: each step looks whether it is done.

    Args:
        change: what to do.
        lake: the tables.
        journal: knows of the change already, as an intent.
        adopt: the index of keys of the table that the first edit adds to, and the keys that it adds.
    """
    folder = Path(change.staging)
    for edit in change.edits:
        for file in edit.add:
            lake.table(edit.table).publish(file, folder / file.path)
    for edit in change.edits:
        if edit.add or edit.remove or edit.marks:
            transactions = (change.id, *edit.names)
            lake.table(edit.table).commit(
                edit.add, edit.remove, transactions, change.columns(edit.table), change.at, change.why, edit.marks
            )
    for edit in change.edits:
        lake.table(edit.table).delete(edit.delete, change.at, change.why.get("keepfit.reason", "nothing needs it"))
    for path in change.kept:
        for place in places(Path(path)):
            if place.exists():
                durable.remove(place)
    Days.blank(change.blanks)
    if adopt is not None:
        index, staged = adopt
        index.adopt(staged, [file.path for file in change.edits[0].add])
    versions = {"version": lake.landed.newest, "outcomes": lake.outcomes.newest}
    contract = {
        "project": change.project, "digest": change.contract.digest, "at": change.at.isoformat(),
        "contract": change.contract.model_dump_json(exclude_defaults=True),
    }  # fmt: skip
    batches = [{**batch, **versions} for batch in change.batches]
    journal.finish(change.project, batches, contract if batches else None, change.erasure)
    if change.staging and folder.exists():
        durable.remove(folder)


def places(path: Path) -> list[Path]:
    """Where a kept file may be by now: a landing that has just ended moves it without the project's lock."""
    at = max((n for n, part in enumerate(path.parts) if part in KEPT), default=0)
    return [Path(*path.parts[:at], place, *path.parts[at + 1 :]) for place in KEPT] if at else [path]


def utc() -> dt.datetime:
    """The clock."""
    return dt.datetime.now(dt.UTC)


class Workplace:
    """Where the rows of a project change: one change at a time, and what a killed one had begun is finished first."""

    def __init__(self, use: Project, settings: Settings) -> None:
        self.project, self.contract = use.project, use.contract
        self.lake = Lake(use.project, settings.lake(use.project), use.contract)
        self.journal = Journal(settings.journal())
        self.staging = settings.staging(use.project)
        self.indexes = settings.index(use.project)

    @contextmanager
    def alone(self) -> Generator[None]:
        """Nobody else changes the rows of this project meanwhile."""
        with self.journal.alone(f"land {self.project}"), self.lake.held():
            settle(self.project, self.lake, self.journal, self.staging)
            yield

    def do(self, change: Change, adopt: tuple[Keys, Keys] | None = None) -> None:
        """Writes a change down and carries it out; the caller is alone.

        Raises:
            ArtifactError: a table cannot have the columns of the contract; nothing was written down.
        """
        _check(change, self.lake)
        self.journal.intend(self.project, change.model_dump_json(), change.at.isoformat())
        carry_out(change, self.lake, self.journal, adopt)

    def index(self, kind: Kind) -> Keys:
        """The keys of the table `rows` or `outcomes`; another key has another index."""
        return Keys(self.indexes / digest(self.key(kind))[:12])

    def key(self, kind: Kind) -> tuple[str, ...]:
        """The columns that name a row of the table `rows` or `outcomes`."""
        return outcome_contract(self.contract).key if kind == "outcomes" else self.contract.key


def settle(project: str, lake: Lake, journal: Journal, staging: Path) -> bool:
    """Finishes what a killed change had begun and sweeps what it had only prepared; whether there was anything.

    The caller holds the project's lock.
    """
    begun = journal.intent(project)
    if begun:
        change = Change.model_validate_json(begun)
        if _can_go_on(change, lake):
            carry_out(change, lake, journal)
        else:  # prepared on a disk that is gone, or for other columns, and nothing of it is in a table: the batch lands again from its file
            journal.finish(project, [], None)
    left = staging.is_dir()
    if left:
        durable.remove(staging)
    return bool(begun or left)


def _check(change: Change, lake: Lake) -> None:
    for edit in change.edits:
        if edit.add or edit.remove or edit.marks:
            lake.table(edit.table).check(change.columns(edit.table))


def _can_go_on(change: Change, lake: Lake) -> bool:
    """Whether a table has the change already, or every table can have it and every data file that it brings is still there."""
    staged, tables = Path(change.staging), {edit.table: lake.table(edit.table) for edit in change.edits}
    if any(table.holds(table.open(), change.id) for table in tables.values()):
        return True
    try:
        _check(change, lake)
    except ArtifactError:
        return False
    published = {kind: set(table.stored()) for kind, table in tables.items()}
    return all(
        file.path in published[edit.table] or (staged / file.path).is_file()
        for edit in change.edits
        for file in edit.add
    )
