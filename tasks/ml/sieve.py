"""The sieve: a stream of typed rows parts into new ones, known ones, and ones that may not land; none is lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from tasks.ml.contract import Checked, Contract
from tasks.ml.identity import SIZE, key_hashes, row_ids

# key hashes and, where it is known, their stable order -> which are there, and their rows' names
Find = Callable[[np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]
TWICE = "names a row twice in one batch"
CLASH = "names a row that landed before with other values"
FINE, KNOWN, BROKEN, CORRECTED = 0, 1, 2, 3


@dataclass(frozen=True)
class Named:
    """Rows after the contract with what names them.

    Attributes:
        checked: n rows after the contract.
        ids: (n, 16) names of the rows; zero where a row is broken by the contract.
        hashes: (n,) hashes of the keys; likewise.
        order: (n,) positions by hash, equal ones as they came.
    """

    checked: Checked
    ids: np.ndarray
    hashes: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, contract: Contract, checked: Checked) -> Self:
        """The names of what the contract lets pass; they depend on nothing but the rows themselves."""
        count, good = len(checked.broken), np.flatnonzero(checked.broken == 0)
        ids, hashes = np.zeros((count, SIZE), dtype=np.uint8), np.zeros(count, dtype=np.uint64)
        if len(good):
            rows = checked.rows if len(good) == count else checked.rows.take(pa.array(good))
            ids[good], hashes[good] = row_ids(rows), key_hashes(rows, contract.key)
        return cls(checked, ids, hashes, np.argsort(hashes, kind="stable"))


@dataclass(frozen=True)
class Sifted:
    """What became of each row of one chunk.

    Attributes:
        fate: (n,) FINE (lands), KNOWN, BROKEN (quarantine), or CORRECTED (lands in the place of an older row).
        older: (n, 16) the name of the row that a corrected one replaces.
        reasons: (n,) int32, 0 or 1 + index into `rules`.
        rules: (column, text) of every rule that was broken.
    """

    fate: np.ndarray
    older: np.ndarray
    reasons: np.ndarray
    rules: tuple[tuple[str, str], ...]


def sift(
    contract: Contract, named: Named, landed: Find, earlier: Find, replaceable: Callable[[np.ndarray], np.ndarray]
) -> Sifted:
    """Parts one chunk.

    Args:
        contract: names the key.
        named: the chunk after the contract, with what names its rows.
        landed: the keys of the table.
        earlier: the keys of this batch's earlier chunks.
        replaceable: which of these row names, (n, 16), belong to a batch that this one corrects: (n,) bool.
    """
    checked, ids, hashes = named.checked, named.ids, named.hashes
    rules = (*(tuple(rule) for rule in checked.rules), (contract.key[0], TWICE), (contract.key[0], CLASH))
    reasons = checked.broken.copy()
    fate = np.where(reasons > 0, BROKEN, FINE).astype(np.int8)
    older = np.zeros((len(fate), SIZE), dtype=np.uint8)
    good = np.flatnonzero(fate == FINE)
    if len(good):
        order = named.order if len(good) == len(fate) else np.argsort(hashes[good], kind="stable")
        first = _first_of_its_key(hashes[good], order)
        _meet(good[first >= 0], ids, ids[good[first[first >= 0]]], fate, reasons, len(rules) - 1)
        for find in (earlier, landed):
            left = good[fate[good] == FINE]
            there, names = find(hashes[left], order if len(left) == len(good) else None)
            met = left[there]
            if find is landed and len(met):
                same = (ids[met] == names[there]).all(axis=1)
                may = ~same
                may[may] = replaceable(names[there][may])
                fate[met[may]], older[met[may]] = CORRECTED, names[there][may]
                met, names, there = met[~may], names[there][~may], slice(None)
            _meet(met, ids, names[there], fate, reasons, len(rules) - (1 if find is earlier else 0))
    return Sifted(fate, older, reasons, rules)


def _first_of_its_key(hashes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each row the position of the first row with its key; -1 for the first one itself. `order` is stable."""
    ordered = hashes[order]
    if not (ordered[1:] == ordered[:-1]).any():  # as nearly always
        return np.full(len(hashes), -1)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    head = np.repeat(order[starts], np.diff(np.append(starts, len(hashes))))
    first = np.empty(len(hashes), dtype=np.int64)
    first[order] = head
    first[first == np.arange(len(hashes))] = -1
    return first


def _meet(
    at: np.ndarray, ids: np.ndarray, others: np.ndarray, fate: np.ndarray, reasons: np.ndarray, rule: int
) -> None:
    """Rows whose key was met before: the same content is known, another one breaks the rule."""
    same = (ids[at] == others).all(axis=1)
    fate[at] = np.where(same, KNOWN, BROKEN)
    reasons[at[~same]] = rule
