"""Intake: one pass over the rows of one batch or many, which leaves staged data files and an account of every row."""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa

from tasks.config.errors import BatchError, suggestion
from tasks.config.project import Project
from tasks.ml.identity import SIZE, as_binary
from tasks.ml.personal import personal
from tasks.ml.profile import Profile, Profiler
from tasks.ml.sieve import BROKEN, CORRECTED, FINE, KNOWN, Named, sift
from tasks.stores.keys import Keys
from tasks.stores.lake import QUARANTINE, rows_schema
from tasks.stores.staging import Stage
from tasks.stores.tables import DataFile

# rows or bytes that are worth a pass of their own; smaller pieces of equal columns are checked together
ENOUGH, HEAVY = 65_536, 64 << 20
CUT = "is in a last line without a line break, which may be cut"
Item = TypeVar("Item")


@dataclass
class Account:
    """What became of the rows of one batch.

    Attributes:
        rules: quarantined rows by rule; bad_target: those among them without a usable target.
        problem: why the batch as a whole may not land; empty when it may.
        readable: its rows can be told apart, so that they can be kept in quarantine.
    """

    arrived: int = 0
    landed: int = 0
    known: int = 0
    broken: int = 0
    replaced: int = 0
    bad_target: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    problem: str = ""
    readable: bool = True


@dataclass(frozen=True)
class _Examined:
    """Rows of one or several batches after the contract.

    Attributes:
        raw, shaped: as they came, and with the columns that the project derives.
        named: after the contract; None when something is wrong with all of them.
        origin: (n,) whose batch each row is of.
        cut: rows that may be incomplete.
        problem: what is wrong with all of them.
    """

    raw: pa.Table
    shaped: pa.Table
    named: Named | None
    origin: np.ndarray
    cut: np.ndarray
    problem: str


class Intake:
    """One pass. While one chunk is sifted and kept, the next is held against the contract in another thread.

    Args:
        use: the project.
        batches: the names of the batches that come, each with its own account.
        landed: the index of keys of the table.
        folder: where data files are staged.
        now: the time of arrival.
        replaceable: which row names belong to batches that are corrected, (n, 16) bytes → (n,) bool.
        derive: the project's hook that adds columns to the raw ones.
    """

    def __init__(
        self, use: Project, batches: list[str], landed: Keys, folder: Path, now: dt.datetime,
        replaceable: Callable[[np.ndarray], np.ndarray], derive: Callable[[pd.DataFrame], pd.DataFrame] | None,
    ) -> None:  # fmt: skip
        self.use, self.contract, self.batches = use, use.contract, batches
        self.accounts = [Account() for _ in batches]
        self.extra: set[str] = set()
        self.private: dict[str, str] = {}
        self.older: list[np.ndarray] = []
        self.seen = Keys(folder / "keys")
        self._landed, self._now, self._replaceable, self._derive = landed, now, replaceable, derive
        self._rows, self._broken = Stage(folder, use.contract.time), Stage(folder)
        self._profiler = Profiler(use.contract, use.judged_positive)
        self._waiting: list[tuple[pa.Table, int, bool]] = []
        self._waits = self._weighs = 0  # rows in it, and bytes
        self._examiner = ThreadPoolExecutor(1, thread_name_prefix="examine")
        self._coming: Future[_Examined] | None = None

    def take(self, batch: int, chunks: Iterator[pa.Table], *, cut: bool = False) -> None:
        """Takes the raw rows of a batch; what is wrong with the batch as a whole goes into its account.

        Args:
            batch: index of the batch.
            chunks: its raw rows.
            cut: the last row may be incomplete.
        """
        account = self.accounts[batch]
        try:
            for chunk, is_last in _with_last(chunks):
                account.arrived += len(chunk)
                self._collect(chunk, batch, cut and is_last)
        except BatchError as error:
            account.problem, account.readable = str(error), False
        else:
            if not account.arrived:
                account.readable = False
                account.problem = "has a header but no row. Wanted: rows. Nothing was changed"

    def hold(self, batch: int, chunks: Iterator[pa.Table], reason: str) -> None:
        """Puts every row of a batch into quarantine: each under the rule that it breaks, the others under the batch's reason."""
        for chunk, _ in _with_last(chunks):
            shaped, problem = self._shaped(chunk)
            told = [("", reason)] * len(chunk)
            if not problem:
                checked = self.contract.check(shaped, self._now, self.use.reads.decimal)
                for row in np.flatnonzero(checked.broken):
                    told[row] = tuple(checked.rules[checked.broken[row] - 1])
            self._quarantine(chunk, shaped, np.arange(len(chunk)), told, np.full(len(chunk), batch))

    def profile(self) -> Profile:
        """What the rows that would land look like as a whole."""
        self._finish()
        return self._profiler.result()

    def close(self) -> tuple[list[DataFile], list[DataFile]]:
        """Ends the pass; gives the staged files of rows and of quarantine."""
        self._finish()
        self._examiner.shutdown()
        return self._rows.close(), self._broken.close()

    @property
    def replaced(self) -> np.ndarray:
        """The names of the rows that corrected ones stand in for: (n, 16) bytes."""
        return np.concatenate([np.empty((0, SIZE), np.uint8), *self.older])

    def abandon(self) -> None:
        """Ends the pass without a result."""
        self._examiner.shutdown(cancel_futures=True)
        self._rows.abandon()
        self._broken.abandon()

    # -- the pass -----------------------------------------------------------------------------------------------------
    def _collect(self, raw: pa.Table, batch: int, cut: bool) -> None:
        if self._waiting and self._waiting[0][0].schema != raw.schema:
            self._flush()
        self._waiting.append((raw, batch, cut))
        self._waits += len(raw)
        self._weighs += raw.nbytes
        if self._waits >= ENOUGH or self._weighs >= HEAVY:
            self._flush()

    def _flush(self) -> None:
        """Has what waits examined, and settles what was examined before."""
        waiting, self._waiting, self._waits, self._weighs = self._waiting, [], 0, 0
        coming = self._examiner.submit(self._examine, waiting) if waiting else None
        examined, self._coming = self._coming, coming
        if examined is not None:
            self._settle(examined.result())

    def _finish(self) -> None:
        """Settles everything that was taken."""
        self._flush()
        self._flush()

    def _examine(self, waiting: list[tuple[pa.Table, int, bool]]) -> _Examined:
        """Holds rows against the contract and names them; touches nothing of the pass."""
        raw = pa.concat_tables([rows for rows, _, _ in waiting]) if len(waiting) > 1 else waiting[0][0]
        sizes = [len(rows) for rows, _, _ in waiting]
        origin = np.repeat([batch for _, batch, _ in waiting], sizes)
        cut = np.cumsum(sizes)[[is_cut for _, _, is_cut in waiting]] - 1
        shaped, problem = self._shaped(raw)
        checked = None if problem else self.contract.check(shaped, self._now, self.use.reads.decimal)
        named = None if checked is None else Named.of(self.contract, checked)
        return _Examined(raw, shaped, named, origin, cut, problem)

    def _settle(self, examined: _Examined) -> None:
        """Decides what becomes of each row, keeps it, and counts it."""
        raw, shaped, named, origin = examined.raw, examined.shaped, examined.named, examined.origin
        if named is None:
            for batch in np.unique(origin):
                self.accounts[batch].problem = examined.problem
            return
        self.extra.update(named.checked.extra)
        sifted = sift(self.contract, named, self._landed.find, self.seen.find, self._replaceable)
        rules = [*sifted.rules, (self.contract.key[0], CUT)]
        fate, reasons = sifted.fate, sifted.reasons
        fate[examined.cut], reasons[examined.cut] = BROKEN, len(rules)
        self._count(fate, reasons, rules, origin)
        good = (fate == FINE) | (fate == CORRECTED)
        if good.any():
            rows, mask = named.checked.rows, None if good.all() else pa.array(good)
            rows = rows if mask is None else rows.filter(mask)
            self._profiler.add(rows)
            names = pa.DictionaryArray.from_arrays(pa.array(origin[good], pa.int32()), pa.array(self.batches))
            self._rows.add(
                pa.table(
                    [*rows.columns, as_binary(named.ids[good]), names.cast(pa.string())],
                    schema=rows_schema(self.contract),
                )
            )
            self.seen.add(named.hashes[good], named.ids[good], order=named.order if mask is None else None)
            self.older.append(sifted.older[fate == CORRECTED])
        bad = np.flatnonzero(fate == BROKEN)
        self._quarantine(raw, shaped, bad, [rules[reason - 1] for reason in reasons[bad]], origin)

    def _shaped(self, raw: pa.Table) -> tuple[pa.Table, str]:
        """The rows with the columns that the project derives, or what is wrong with all of them."""
        shaped = raw
        if self._derive:
            try:
                shaped = pa.Table.from_pandas(self._derive(raw.to_pandas()), preserve_index=False)
            except KeyError as error:
                return (
                    raw,
                    f"column {error} is missing, which hooks.py derives from. Columns that came: {', '.join(raw.column_names)}",
                )
            except Exception as error:  # noqa: BLE001 – the project's own code; what it met is told, the batch is held
                return (
                    raw,
                    f"hooks.py cannot derive its columns from these rows: {type(error).__name__}: {str(error)[:200]}",
                )
        missing = self.contract.missing(shaped.column_names)
        if missing:
            more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
            return (
                raw,
                f"column '{missing[0]}' is missing{more}.{suggestion(missing[0], raw.column_names)} Nothing landed",
            )
        return shaped, ""

    def _count(self, fate: np.ndarray, reasons: np.ndarray, rules: list[tuple[str, str]], origin: np.ndarray) -> None:
        size = len(self.accounts)
        by_fate = {kind: np.bincount(origin[fate == kind], minlength=size) for kind in (FINE, KNOWN, BROKEN, CORRECTED)}
        for batch in np.unique(origin):
            account = self.accounts[batch]
            account.landed += int(by_fate[FINE][batch] + by_fate[CORRECTED][batch])
            account.known += int(by_fate[KNOWN][batch])
            account.broken += int(by_fate[BROKEN][batch])
            account.replaced += int(by_fate[CORRECTED][batch])
        bad = np.flatnonzero(fate == BROKEN)
        pairs, counts = np.unique(np.stack([origin[bad], reasons[bad]]), axis=1, return_counts=True)
        for (batch, reason), count in zip(pairs.T, counts, strict=True):
            column, text = rules[reason - 1]
            self.accounts[batch].rules[f"{column} {text}"] += int(count)
            if column == self.contract.target:
                self.accounts[batch].bad_target += int(count)

    def _quarantine(
        self, raw: pa.Table, shaped: pa.Table, bad: np.ndarray, told: list[tuple[str, str]], origin: np.ndarray
    ) -> None:
        """Keeps the rows at `bad`, each with its (column, rule)."""
        if not len(bad):
            return
        at = pa.array(bad)
        taken, values = shaped.take(at), [""] * len(bad)
        for column in {column for column, _ in told if column in shaped.column_names}:
            texts = ["" if row[column] is None else str(row[column]) for row in _values(taken.select([column]))]
            for n, (name, _) in enumerate(told):
                values[n] = texts[n] if name == column else values[n]
        rules, columns = [f"{column} {text}".strip() for column, text in told], [column for column, _ in told]
        self._broken.add(self._kept(raw.take(at), origin[bad], rules, columns, values))

    def _kept(
        self, raw: pa.Table, origin: np.ndarray, rules: list[str], columns: list[str], values: list[str]
    ) -> pa.Table:
        """Rows as the quarantine holds them: as they came, but for columns outside of the contract with personal data."""
        for name in raw.column_names:
            if name not in self.contract.columns and name not in self.private:
                self.private[name] = personal(name, raw[name]) or ""
        raw = raw.select([name for name in raw.column_names if not self.private.get(name)])
        content = [orjson.dumps(row, default=str).decode() for row in _values(raw)]
        batches = [self.batches[batch] for batch in origin]
        return pa.table([batches, rules, columns, values, content], schema=QUARANTINE)


def _values(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as Python has them, but for times outside of its years 1 to 9999: where there are some, times are as Arrow writes them."""
    try:
        return rows.to_pylist()
    except OverflowError:
        columns = [each.cast(pa.string()) if pa.types.is_temporal(each.type) else each for each in rows.columns]
        return pa.table(columns, names=rows.column_names).to_pylist()


def _with_last(items: Iterator[Item]) -> Iterator[tuple[Item, bool]]:
    """Each item with whether it is the last one."""
    none: Any = object()
    item: Any = next(items, none)
    while item is not none:
        following = next(items, none)
        yield cast("Item", item), following is none
        item = following
