"""Erase: the rows of somebody leave every place where keepfit has them, for good; what had learned from them is named."""

import datetime as dt
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from tasks.config.errors import BatchError, ConflictError, suggestion
from tasks.config.names import KEPT
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.identity import digest, key_hashes
from tasks.ml.outcomes import are_whole
from tasks.stores import candidates, files, marks, minutes, remembered
from tasks.stores.changes import Change, Edit, Kind, Workplace, utc
from tasks.stores.compaction import KINDS, without_rows
from tasks.stores.journal import made_nothing
from tasks.stores.lake import BATCH, ROW, named
from tasks.stores.marks import MARK, Marks
from tasks.stores.served import SCHEMAS, Serving
from tasks.stores.tables import DataFile


class Erased(BaseModel, frozen=True):
    """What an erasure did, or would do.

    Attributes:
        rows, outcomes, quarantined: distinct rows by table, in whatever version they stood.
        predictions, told: what was answered about the rows, and what was told of that by prediction id, in logs and tables.
        unattributed: predictions that were asked for without the key, so that nobody can say whose they are; they stay.
        kept: kept files that are deleted, by the beginning of their digest.
        snapshots: how many older versions cannot be read any more.
        models: versions and trainings whose snapshot held one of the rows.
        waiting: files that have not landed yet and were not looked into; unread: kept files that cannot be read.
    """

    project: str
    state: str
    reason: str
    rows: int = 0
    outcomes: int = 0
    quarantined: int = 0
    predictions: int = 0
    told: int = 0
    unattributed: int = 0
    kept: tuple[str, ...] = ()
    snapshots: int = 0
    models: tuple[dict[str, Any], ...] = ()
    waiting: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


class Meant:
    """The keys of the rows that are meant, and their marks in the log of predictions."""

    def __init__(self, keys: list[pa.Table], marks: frozenset[str]) -> None:
        self._keys, self.marks = keys, marks
        self._hashes: dict[tuple[str, ...], np.ndarray] = {}

    def hashes(self, columns: tuple[str, ...]) -> np.ndarray:
        """The hashes of their keys, or of these columns of them: (n,) uint64, each once."""
        if columns not in self._hashes:
            found = [np.empty(0, dtype=np.uint64), *(key_hashes(keys, columns) for keys in self._keys)]
            self._hashes[columns] = np.unique(np.concatenate(found))
        return self._hashes[columns]


class Request:
    """Whose rows: those of some keys, those with some values, or both at once.

    Raises:
        BatchError: it names no row, or a column that is not there, or a value that the column cannot hold.
    """

    def __init__(self, use: Project, keys: tuple[str, ...], where: dict[str, str]) -> None:
        self.use, self.contract = use, use.contract
        if not keys and not where:
            raise BatchError("An erasure needs a --key or a --where. Nothing was changed.")
        if keys and len(self.contract.key) > 1:
            raise BatchError(
                f"{use.project} names a row by {len(self.contract.key)} columns: {', '.join(self.contract.key)}. Say --where for each of them."
            )
        if keys and self.contract.key[0] in where:
            raise BatchError(
                f"'{self.contract.key[0]}' is named by --key and by --where. Say it once. Nothing was changed."
            )
        named = {name: (value,) for name, value in where.items()} | ({self.contract.key[0]: keys} if keys else {})
        self.wanted = {name: self._values(name, texts) for name, texts in named.items()}
        self.texts = tuple(text.encode() for texts in named.values() for text in texts)
        self.digest = digest({name: sorted(texts) for name, texts in named.items()})

    def matches(self, rows: pa.Table) -> np.ndarray:
        """Which rows are meant, (n,) bool; none where a column is missing."""
        if any(name not in rows.column_names for name in self.wanted):
            return np.zeros(len(rows), dtype=bool)
        masks = [pc.is_in(rows[name], values.cast(rows[name].type)).to_numpy() for name, values in self.wanted.items()]  # ty: ignore[missing-attribute]
        return np.logical_and.reduce(masks)

    @property
    def keys(self) -> Iterator[pa.Table]:
        """The keys that are named outright, if they are."""
        if set(self.wanted) == set(self.contract.key):
            longest = max(len(values) for values in self.wanted.values())
            yield pa.table({
                name: pa.concat_arrays([self.wanted[name]] * (longest // len(self.wanted[name]))) for name in self.contract.key
            })  # fmt: skip

    def _values(self, name: str, texts: tuple[str, ...]) -> pa.Array:
        column = self.contract.columns.get(name)
        if column is None:
            raise BatchError(
                f"{self.use.project} has no column '{name}'.{suggestion(name, self.contract.columns)} Nothing was changed."
            )
        values, _ = column.check(pa.array(texts), self.use.reads.decimal)
        if values.null_count:
            raise BatchError(f"'{texts[values.is_null().to_pylist().index(True)]}' is no {column.type}, as {name} is.")
        return values.unique()


class Erasing(Workplace):
    """Erases from one project: tables, quarantine, outcomes, kept files, prediction log."""

    def __init__(self, use: Project, settings: Settings, clock: Callable[[], dt.datetime] = utc) -> None:
        super().__init__(use, settings)
        self.use, self._settings, self._clock = use, settings, clock

    @cached_property
    def _derive(self) -> Callable[..., Any] | None:
        return self.use.hook("derive", self._settings)

    def erase(
        self, keys: tuple[str, ...], where: dict[str, str], *, actor: str, reason: str, dry_run: bool = False
    ) -> Erased:
        """Erases every row that is meant, and every other row under the same keys.

        Raises:
            BatchError: the request names no row.
        """
        request = Request(self.use, keys, where)
        with self.alone():
            meant = self._meant(request)
            texts = (*request.texts, *(mark.encode() for mark in meant.marks))
            logged = Logged(self.project, self._settings, lambda rows: self._served(rows, meant, request), texts)
            goes = {kind: self._in_table(kind, meant, request) for kind in KINDS if kind not in SCHEMAS} | logged.stored
            kept, waiting, unread = self._kept(meant, request)
            names = {path for found in goes.values() for path in found}
            counts = {
                "rows": self._distinct("rows", goes["rows"]), "outcomes": self._distinct("outcomes", goes["outcomes"]),
                "quarantined": self._distinct("quarantine", goes["quarantine"]), "predictions": logged.predictions, "told": logged.told,
                "unattributed": logged.unattributed(self.contract.key),
                "kept": tuple(path.name[:16] for path in kept),
            }  # fmt: skip
            blanks, found = logged.blanks, bool(names or logged.blanks or kept)
            erased = Erased(
                project=self.project, state="planned" if dry_run else "erased" if found else "nothing", reason=_said(counts, found, dry_run),
                **counts, snapshots=self._unreadable(goes), models=tuple(self._models(goes)), waiting=waiting, unread=unread,
            )  # fmt: skip
            if found and not dry_run:
                self._carry_out(
                    request,
                    erased,
                    goes,
                    [*kept, *self._made_of_rows()],
                    blanks,
                    actor,
                    reason,
                )
                self._void(erased, actor)
            return erased

    def _made_of_rows(self) -> list[Path]:
        """Files with rows in them that are made anew without."""
        waiting = [row["detail"]["run"] for row in self.journal.kept(self.project)]
        return [
            *remembered.kept(self._settings, self.project), *candidates.files(self._settings, self.project, waiting),
            *minutes.with_rows(self._settings, self.project),
        ]  # fmt: skip

    # -- finding ------------------------------------------------------------------------------------------------------
    def _meant(self, request: Request) -> Meant:
        """The keys of all rows that are meant, whatever version they stand in."""
        keys, marked = [some for some in self._keys(request) if len(some)], set[str | None]()
        if self._marks:
            for some in keys:
                marked.update(map(self._marks.of, some.to_pylist()))
        return Meant(keys, frozenset(mark for mark in marked if mark))

    def _had(self, names: Collection[str]) -> tuple[str, ...]:
        """The columns of the key that are among these: a data file is older than one that came into the key since."""
        return tuple(name for name in self.contract.key if name in names)

    def _keys(self, request: Request) -> Iterator[pa.Table]:
        """The key columns of the rows that are meant, a part at a time."""
        key, columns = list(self.contract.key), list(dict.fromkeys([*self.contract.key, *request.wanted]))
        yield from request.keys
        for file in self._stored("rows"):
            rows = self.lake.landed.peek(file, columns)
            if self._had(rows.column_names) != self.contract.key:
                continue
            yield rows.filter(pa.array(request.matches(rows))).select(key)
        for _, rows in self._quarantined():
            yield rows.filter(pa.array(request.matches(rows) & are_whole(rows, self.contract.key))).select(key)

    @cached_property
    def _marks(self) -> Marks | None:
        """By which predictions are found; None where no server has marked any here."""
        secret = marks.secret(self._settings.home)
        types = {name: self.contract.columns[name].type for name in self.contract.key}
        return Marks(secret, self.project, types) if secret else None

    def _stored(self, kind: Kind) -> list[DataFile]:
        """Every data file on the disk, in the newest version or not."""
        table = self.lake.table(kind)
        return [DataFile(path=name, size=0, rows=0) for name in table.stored()]

    def _in_table(self, kind: Kind, meant: Meant, request: Request) -> dict[str, np.ndarray]:
        """For each stored data file with rows that go, which ones: (n,) bool."""
        found = {}
        table = self.lake.table(kind)
        if kind == "quarantine":
            found = {file.path: self._in(rows, meant, request) for file, rows in self._quarantined()}
        else:
            for file in self._stored(kind):
                rows = table.peek(file, list(dict.fromkeys([*self.contract.key, *request.wanted])))
                had = self._had(rows.column_names)
                found[file.path] = (
                    np.isin(key_hashes(rows, had), meant.hashes(had)) if had else np.zeros(len(rows), bool)
                )
                if had != self.contract.key:  # no key there says which row it is
                    found[file.path] |= request.matches(rows)
        return {path: goes for path, goes in found.items() if goes.any()}

    def _quarantined(self) -> Iterator[tuple[DataFile, pa.Table]]:
        """The rows of each stored data file of the quarantine under the contract, one for one."""
        table = self.lake.quarantine
        for file in self._stored("quarantine"):
            kept = table.peek(file, [BATCH, "_raw"])
            lines, batches = np.array(kept["_raw"].to_pylist(), dtype=object), np.array(kept[BATCH].to_pylist())
            places = [np.flatnonzero(batches == batch) for batch in np.unique(batches)]
            parts = [self._typed(files.lines(lines[at].tolist())) for at in places]
            yield file, pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))

    def _in(self, rows: pa.Table, meant: Meant, request: Request) -> np.ndarray:
        """Which rows are meant: by their key, or where that cannot be read by the values that were asked for."""
        return request.matches(rows) | np.isin(
            key_hashes(rows, self.contract.key), meant.hashes(self.contract.key)
        ) & are_whole(rows, self.contract.key)

    def _served(self, rows: list[Any], meant: Meant, request: Request) -> list[bool]:
        """Which rows are meant of those that a prediction answered: by their mark, or as far as they say it by their values."""
        found = [row if isinstance(row, dict) else {} for row in rows]
        marked = np.array([row.get(MARK) in meant.marks for row in found], dtype=bool)
        return (marked | self._in(self._typed(files.as_texts(found), came=False), meant, request)).tolist()

    def _typed(self, raw: pa.Table, *, came: bool = True) -> pa.Table:
        """All columns of the contract, null where they are missing or cannot be read.

        Args:
            raw: texts, or of any other type.
            came: as rows come, so that the project derives its columns; else they are the contract's already.
        """
        shaped = raw
        if self._derive and came:
            try:
                derived = pa.Table.from_pandas(self._derive(raw.to_pandas()), preserve_index=False)
                shaped = derived if len(derived) == len(raw) else raw
            except Exception:  # noqa: BLE001 – the project's own code; what it cannot shape is looked at as it came
                shaped = raw
        columns = {}
        for name, column in self.contract.columns.items():
            there = next((table[name] for table in (shaped, raw) if name in table.column_names), None)
            values = pa.nulls(len(raw)) if there is None else there.combine_chunks()
            columns[name] = column.check(values, self.use.reads.decimal)[0]
        return pa.table(columns)

    def _kept(self, meant: Meant, request: Request) -> tuple[list[Path], tuple[str, ...], tuple[str, ...]]:
        """Kept files with rows that are meant; those that have not landed yet; those that cannot be read."""
        found, waiting, unread = [], [], []
        for folder in (self._settings.inbox(self.project, kind) for kind in ("rows", "outcomes")):
            waiting += [path.name for path in folder.glob("[!.]*") if path.is_file()]
            for place in KEPT:
                for path in sorted(path for path in (folder / place).rglob("*") if path.is_file()):
                    if self.journal.batch(self.project, files.fingerprint(path)) is None:
                        waiting.append(path.name)
                        continue
                    try:
                        chunks = files.chunks(path, self.use.reads)
                        if any(self._in(self._typed(chunk), meant, request).any() for chunk in chunks):
                            found.append(path)
                    except BatchError:
                        unread.append(path.name)
        return found, tuple(waiting), tuple(unread)

    # -- telling ------------------------------------------------------------------------------------------------------
    def _distinct(self, kind: Kind, goes: dict[str, np.ndarray]) -> int:
        """Rows that go, each once, though older versions hold it in other files, too."""
        table, names = self.lake.table(kind), set[Any]()
        column = "_raw" if kind == "quarantine" else ROW
        for path, which in goes.items():
            rows = table.peek(DataFile(path=path, size=0, rows=0), [column])[column].to_pylist()
            names.update(row for row, gone in zip(rows, which, strict=True) if gone)
        return len(names)

    def _files(self, kind: Kind, version: int) -> set[str]:
        table = self.lake.table(kind)
        return {file.path for file in table.files(table.open(version))}

    def _unreadable(self, goes: dict[Kind, dict[str, np.ndarray]]) -> int:
        return sum(
            bool(self._files(kind, version.number) & goes[kind].keys())
            for kind in ("rows", "outcomes")
            if goes[kind]
            for version in self.lake.versions(kind)
        )

    def _models(self, goes: dict[Kind, dict[str, np.ndarray]]) -> Iterator[dict[str, Any]]:
        """The trainings whose snapshot held a row that goes."""
        champion = self.journal.champion(self.project)
        for row in self.journal.trainings(self.project):
            if made_nothing(row):
                continue
            rows, outcomes, _, _ = named(row["rows"]) if row["rows"] else (None, None, "", "")
            held = rows is None or bool(self._files("rows", rows) & goes["rows"].keys())
            if held or (outcomes is not None and self._files("outcomes", outcomes) & goes["outcomes"].keys()):
                yield {
                    "version": row["version"], "training": row["id"], "snapshot": row["rows"] or "unknown",
                    "champion": champion is not None and champion.version == row["version"],
                }  # fmt: skip

    # -- doing --------------------------------------------------------------------------------------------------------
    def _carry_out(
        self, request: Request, erased: Erased, goes: dict[Kind, dict[str, np.ndarray]], kept: list[Path],
        blanks: list[tuple[str, int, int]], actor: str, reason: str,
    ) -> None:  # fmt: skip
        at, edits, gone = self._clock(), [], dict[str, int]()
        for kind, found in goes.items():
            table = self.lake.table(kind)
            current = [file for file in table.files(table.open()) if file.path in found]
            removed, stays = without_rows(table, current, lambda file, found=found: found[file.path], self.staging)
            gone[kind] = sum(self._counted(kind, file, found[file.path]) for file in removed)
            edits.append(Edit(table=kind, add=stays, remove=removed, delete=tuple(found)))
        detail = erased.model_dump(mode="json", exclude={"project", "state", "reason", "waiting", "unread"})
        name = f"erase {request.digest[:16]} {at.isoformat()}"
        self.do(Change(
            project=self.project, id=name, at=at, contract=self.contract, edits=tuple(edits), staging=str(self.staging),
            why={"keepfit.why": "erase", "keepfit.name": reason, "keepfit.reason": f"rows were erased: {reason}"},
            kept=tuple(str(path) for path in kept), blanks=tuple(blanks),
            erasure={
                "project": self.project, "at": at.isoformat(), "actor": actor, "reason": reason, "request": request.digest,
                "rows": gone["rows"], "quarantined": gone["quarantine"], "detail": json.dumps(detail),
            },
        ))  # fmt: skip
        for kind in ("rows", "outcomes"):  # the index forgets the keys, too
            keys = self.index(kind)
            self.lake.follow(keys, self.lake.table(kind), self.key(kind))

    def _void(self, erased: Erased, actor: str) -> None:
        """Nobody decides any more about a version that learned from what is gone; where a kill comes first, the approval says so."""
        learned = {model["training"] for model in erased.models}
        for waits in self.journal.proposals(self.project, state="open"):
            if waits.training in learned:
                with suppress(ConflictError):  # a person was quicker
                    said = "rows that it was made from were erased"
                    self.journal.decide(waits.id, "void", actor=actor, at=self._clock(), reason=said)

    def _counted(self, kind: Kind, file: DataFile, goes: np.ndarray) -> int:
        """How many of the rows that go from a data file are in the project's account, which has no outcomes."""
        if kind != "quarantine":
            return int(goes.sum())
        late = [row["batch"] for row in self.journal.batches(self.project) if row["kind"] == "outcomes"]
        batches = self.lake.quarantine.peek(file, [BATCH])[BATCH]
        return int((goes & ~pc.is_in(batches, pa.array(late, pa.string())).to_numpy()).sum())  # ty: ignore[missing-attribute]


def _said(counts: dict[str, Any], found: bool, dry_run: bool) -> str:
    unknown = counts["unattributed"]
    stays = (
        f"; {unknown:,} predictions were asked for without the key, so nobody can say whose they are" if unknown else ""
    )
    if not found:
        return f"nothing of it is here{stays}"
    verb = "would be erased" if dry_run else "erased"
    return (
        f"{counts['rows']:,} rows, {counts['outcomes']:,} outcomes, {counts['quarantined']:,} quarantined rows, "
        f"{counts['predictions']:,} predictions, {len(counts['kept']):,} kept files {verb}{stays}"
    )


def _silent(rows: pa.ChunkedArray, names: list[str]) -> int:
    """How many logged rows, JSON texts, have neither the first of these members nor all of the others; quotes inside a value are escaped."""
    mark, *key = (pc.match_substring(rows, f"{name}:").to_numpy() for name in names)  # ty: ignore[missing-attribute]
    return int((~(mark | np.logical_and.reduce(key))).sum())


class Logged:
    """What the door has logged about rows that go, and what was told of that by prediction id; in logs and in tables.

    Args:
        project, settings: whose logs.
        meant: which of some rows go.
        texts: the values that name them; a torn line that has one goes, too.

    Attributes:
        blanks: where it stands in the logs.
        stored: for each stored data file with such records, which ones: (n,) bool.
        predictions, told: how many predictions, and how many of them have outcomes.
    """

    def __init__(
        self, project: str, settings: Settings, meant: Callable[[list[Any]], list[bool]], texts: tuple[bytes, ...]
    ) -> None:
        self._serving, self._meant, self._ids, self._told = Serving(project, settings), meant, set[str](), set[str]()
        logs = self._serving.logs
        lines = logs["predictions"].find(project, self._answered, lambda line: any(text in line for text in texts))
        logged = len(self._ids)
        predictions = self._in_table("predictions", self._answered)
        self.predictions = len(lines) + len(self._ids) - logged
        names = tuple(name.encode() for name in self._ids)
        told = logs["told"].find(project, self._named, lambda line: any(name in line for name in names))
        self.stored: dict[Kind, dict[str, np.ndarray]] = {
            "predictions": predictions, "told": self._in_table("told", self._named),
        }  # fmt: skip
        self.blanks, self.told = [*lines, *told], len(self._told)

    def unattributed(self, key: tuple[str, ...]) -> int:
        """How many predictions say by neither a mark nor the columns of this key whose they are."""
        names = [json.dumps(name) for name in (MARK, *key)]
        return sum(_silent(rows["row"], names) for rows in self._serving.tables("predictions"))

    def _in_table(self, kind: Kind, goes: Callable[[list[dict[str, Any]]], list[bool]]) -> dict[str, np.ndarray]:
        table = self._serving.lake.table(kind)
        columns = [name for name in ("id", "row") if name in SCHEMAS[kind].names]
        found = {}
        for path in table.stored():
            rows = table.peek(DataFile(path=path, size=0, rows=0), columns).to_pylist()
            found[path] = np.array(goes(rows), dtype=bool)
        return {path: which for path, which in found.items() if which.any()}

    def _answered(self, records: list[dict[str, Any]]) -> list[bool]:
        """Which predictions are about a row that goes; their ids are remembered."""
        rows = (record.get("row") for record in records)
        hits = self._meant([json.loads(row) if isinstance(row, str) else row for row in rows])
        self._ids |= {str(record.get("id")) for record, hit in zip(records, hits, strict=True) if hit}
        return hits

    def _named(self, records: list[dict[str, Any]]) -> list[bool]:
        """Which outcomes were told of such a prediction."""
        hits = [record.get("id") in self._ids for record in records]
        self._told |= {record["id"] for record, hit in zip(records, hits, strict=True) if hit}
        return hits
