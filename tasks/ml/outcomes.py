"""Outcomes: what came true later, apart from the rows that it belongs to; the newest one of a key is its label."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.ml.contract import Column, Contract
from tasks.ml.identity import SIZE, as_binary, from_binary, key_hashes, row_ids

AT = "outcome_at"  # the column that says when an outcome became known


def outcome_contract(contract: Contract) -> Contract:
    """What an outcome of these rows may be: the columns of the key, the target if there is one, and when it became known.

    >>> columns = {"id": Column(type="int"), "day": Column(type="datetime"), "y": Column(type="bool", nullable=True)}
    >>> found = outcome_contract(Contract(columns=columns, key=("id",), time="day", target="y"))
    >>> list(found.columns), found.key, found.columns["y"].nullable
    (['id', 'y', 'outcome_at'], ('id', 'outcome_at'), False)
    """
    target = {
        name: contract.columns[name].model_copy(update={"nullable": False})
        for name, role in contract.roles.items()
        if role == "target"
    }
    named = {name: contract.columns[name] for name in contract.key}
    return Contract(
        columns={**named, **target, AT: Column(type="datetime", about="when the outcome became known")},
        key=(*contract.key, AT), time=AT, target=contract.target, ahead=contract.ahead,
        hold_above=contract.hold_above, hold_bad_target=contract.hold_bad_target,
    )  # fmt: skip


class Joins(NamedTuple):
    """By which columns outcomes find their rows, and which column they tell."""

    key: tuple[str, ...]
    target: str

    @classmethod
    def of(cls, outcomes: pa.Table) -> Self | None:
        """How the outcomes of a data file are joined, as the order of its columns says; None where they landed under several keys or targets.

        >>> Joins.of(pa.table({"id": [1], "day": [2], "y": [True], "outcome_at": [3]}))
        Joins(key=('id', 'day'), target='y')
        >>> Joins.of(pa.table({"id": [1, 1], "y": [True, None], "outcome_at": [3, 4], "z": [None, True]}))
        """
        *told, last = outcomes.column_names
        if last != AT or any(outcomes[name].null_count for name in told):  # files with other columns were made one
            return None
        return cls(tuple(told[:-1]), told[-1])

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.key, self.target)


@dataclass(frozen=True)
class Labels:
    """The newest outcome of every key; of two with one time the one that came later, then the greater by content, so that no order of files matters.

    Attributes:
        outcomes: rows of the table `outcomes`: key, target, `outcome_at`.
        ids: (n, 16) their names.
        key, target: columns.
        came: the column that says when it was told; None where nobody wrote that down.
    """

    outcomes: pa.Table
    ids: np.ndarray
    key: tuple[str, ...]
    target: str
    came: str | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns of the key and the target, as the outcomes have them."""
        return pa.schema([self.outcomes.schema.field(name) for name in (*self.key, self.target)])

    @cached_property
    def _newest(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the keys in order, and where the newest outcome of each stands."""
        hashes = key_hashes(self.outcomes, self.key)
        words = np.ascontiguousarray(self.ids).view(">u8").reshape(-1, 2)
        times = [self.outcomes[name].cast(pa.int64()).to_numpy() for name in (self.came, AT) if name]
        order = np.lexsort((words[:, 1], words[:, 0], *times, hashes))
        last = np.append(hashes[order][1:] != hashes[order][:-1], True)[: len(order)]
        return hashes[order][last], order[last]

    def of(self, rows: pa.Table) -> np.ndarray:
        """Where the outcome of each row stands, -1 where it has none: (n,) int64. A row that is older than a column of the key has none."""
        known, places = self._newest
        if not len(known):
            return np.full(len(rows), -1, dtype=np.int64)
        hashes = key_hashes(rows, self.key)
        at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        return np.where((known[at] == hashes) & are_whole(rows, self.key), places[at], -1)

    def onto(self, rows: pa.Table, name: str) -> pa.Table:
        """The rows with their outcomes as targets; one that has another target than it landed with gets another name.

        Args:
            rows: with the columns of the key, the target and `name`, the rows' names.
            name: the column of names, (16 bytes each); from BLAKE2b over the row's old name and the outcome.
        """
        found = self.of(rows)
        if not (found >= 0).any():
            return rows
        place = pa.array(found, mask=found < 0)
        came = self.outcomes[self.target].combine_chunks().take(place).cast(rows[self.target].type)
        own = rows[self.target].combine_chunks()
        same = pc.fill_null(pc.equal(own, came), False)  # ty: ignore[missing-attribute]
        moved = np.flatnonzero((found >= 0) & ~same.to_numpy(zero_copy_only=False))
        ids = from_binary(rows[name]).copy()
        values = row_ids(pa.table({self.target: came.take(pa.array(moved))}))
        pairs = np.concatenate([ids[moved], values], axis=1)
        ids[moved] = np.frombuffer(
            b"".join(hashlib.blake2b(pair.tobytes(), digest_size=SIZE).digest() for pair in pairs), dtype=np.uint8
        ).reshape(-1, SIZE)
        target = pc.coalesce(came, own)  # ty: ignore[missing-attribute]
        rows = rows.set_column(rows.column_names.index(self.target), self.target, target)
        return rows.set_column(rows.column_names.index(name), name, as_binary(ids))


def having(rows: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    """Those of the rows that have a value in each of these columns; none where one of the columns is not there.

    >>> having(pa.table({"id": [1, 2], "day": [None, 3]}), ("id", "day")).to_pydict()
    {'id': [2], 'day': [3]}
    """
    if not set(columns) <= set(rows.column_names):
        return rows.slice(0, 0)
    whole = are_whole(rows, columns)
    return rows if whole.all() else rows.filter(pa.array(whole))


def are_whole(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    """Which rows have a value in each of these columns: (n,) bool. To a hash a gap is a value like another."""
    whole = np.ones(len(rows), dtype=bool)
    for name in columns:
        if rows[name].null_count:
            whole &= rows[name].is_valid().to_numpy()
    return whole
