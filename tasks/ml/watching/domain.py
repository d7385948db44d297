"""Domain classifier: can rows of a window be told from rows of the reference? What several columns do together shows here, even where none moved alone.

Friedman (2003), On multivariate goodness-of-fit and two-sample testing; Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import pandas as pd
from pydantic import BaseModel

from tasks.ml.threads import limited
from tasks.ml.watching.folds import Fold, learned
from tasks.ml.watching.reference import floats

FEWEST = 100  # rows of either side, below which nothing is learned
GIVING = 5  # features named at most
SEEN = 20  # values of a category that are told apart; segments of a number
SEGMENTS = 3  # segments named at most
AT_ONCE = 100  # conditions that are looked at together: a wide table has thousands, and each takes some bytes a row
HELD = 40  # rows of either side in a segment, below which nothing is said of it
SURE = 3.0  # standard errors by which a segment's AUC must be above the rest's


class Domain(BaseModel, frozen=True, extra="forbid"):
    """Whether two sets of rows can be told apart.

    Attributes:
        auc: how well, cross-validated: ½ not at all, 1 always.
        error: standard error of the AUC if they could not, and rows were independent (Mann and Whitney, 1947).
        rows: of the reference and of the window that were looked at.
        features: that give it away, the greatest part first: name and how much the AUC falls when its values are shuffled.
        segments: where it is, as conditions on features.
    """

    auc: float
    error: float
    rows: tuple[int, int]
    features: tuple[tuple[str, float], ...] = ()
    segments: tuple[str, ...] = ()


def sampled(rows: pd.DataFrame, most: int, seed: int = 0) -> pd.DataFrame:
    """At most so many of the rows, drawn without order, but in order."""
    if len(rows) <= most:
        return rows
    return rows.iloc[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]


def told_apart(reference: pd.DataFrame, window: pd.DataFrame, *, seed: int = 0, threads: int = 1) -> "Apart | None":
    """How well rows of a window can be told from rows of the reference; None where either has fewer than 100, or no column has a value.

    Args:
        reference: some rows of it, raw, a few thousand; times do not count.
        window: some of its rows, with the same columns.
        seed: of the folds, and of what is shuffled.
        threads: that learning may use.
    """
    if min(len(reference), len(window)) < FEWEST:
        return None
    sides = np.repeat([0, 1], [len(reference), len(window)])
    coded = Coded.of(pd.concat([reference, window], ignore_index=True))
    if not coded.names:
        return None
    with limited(threads):
        return Apart(coded, sides, tuple(learned(coded.values, sides, seed)), seed)


@dataclass(frozen=True)
class Coded:
    """Rows as numbers.

    Attributes:
        names: of the columns; times are left out, and what nobody has a value of.
        values: (n, columns): a category is its rank by frequency, NaN where missing.
        categories: for each column what its smallest numbers stand for; None of numbers.
    """

    names: tuple[str, ...]
    values: np.ndarray
    categories: tuple[tuple[str, ...] | None, ...]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Coded":
        """Of rows, raw."""
        kept = [name for name in rows.columns if not pd.api.types.is_datetime64_any_dtype(rows[name]) and rows[name].notna().any()]  # fmt: skip
        codes = [_coded(rows[name]) for name in kept]
        values = np.column_stack([values for values, _ in codes]) if codes else np.empty((len(rows), 0))
        return cls(tuple(map(str, kept)), values, tuple(named for _, named in codes))


def _coded(column: pd.Series) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if pd.api.types.is_bool_dtype(column):
        return floats(column), ("false", "true")
    if pd.api.types.is_numeric_dtype(column):
        values = floats(column)
        return np.where(np.isinf(values), np.sign(values) * 1e300, values), None
    counts = column.value_counts()
    ranks = pd.Series(np.minimum(np.arange(len(counts)), 10 * SEEN).astype("float64"), index=counts.index)
    seen = (str(value).lower() if isinstance(value, bool) else str(value) for value in counts.index[:SEEN])
    return column.map(ranks).astype("float64").to_numpy(), tuple(seen)


@dataclass(frozen=True)
class Apart:
    """A domain classifier that has learned.

    Attributes:
        coded: rows of the reference, then of the window.
        sides: (n,) 0 of the reference, 1 of the window.
        folds: forests, and the rows that each speaks of.
        seed: of what is shuffled.
    """

    coded: Coded
    sides: np.ndarray
    folds: tuple[Fold, ...]
    seed: int

    @property
    def domain(self) -> Domain:
        """How well; not which features and segments give it away."""
        m = int(self.sides.sum())
        n = len(self.sides) - m
        return Domain(auc=self.auc, error=float(np.sqrt((n + m + 1) / (12 * n * m))), rows=(n, m))

    def explained(self) -> Domain:
        """The same with the features and segments that give it away."""
        features = self._giving()
        return self.domain.model_copy(update={"features": features, "segments": self._segments(features[:1])})

    @cached_property
    def said(self) -> np.ndarray:
        """What each row's forest, which did not learn from it, says: (n,)."""
        said = np.empty(len(self.sides))
        for fold in self.folds:
            said[fold.places] = fold.said
        return said

    @cached_property
    def auc(self) -> float:
        """How well the sides are told apart."""
        return _auc(self.sides, self.said)

    def _giving(self) -> tuple[tuple[str, float], ...]:
        """Features without whose values the AUC falls by a tenth of what the greatest fall is, the greatest first."""
        random, falls = np.random.default_rng(self.seed), {}
        for at, name in enumerate(self.coded.names):
            shuffled = random.permutation(self.coded.values[:, at])
            falls[name] = self.auc - _auc(self.sides, self._without(at, shuffled))
        most = max(falls.values(), default=0.0)
        kept = [(name, fall) for name, fall in falls.items() if fall > 0.1 * most and fall > 0]
        return tuple(sorted(kept, key=lambda each: -each[1])[:GIVING])

    def _without(self, column: int, shuffled: np.ndarray) -> np.ndarray:
        said = np.empty(len(self.sides))
        for fold in self.folds:
            said[fold.places] = fold.without(column, shuffled[fold.places])
        return said

    def _segments(self, most: Sequence[tuple[str, float]]) -> tuple[str, ...]:
        """Conditions under which the sides can be told apart while elsewhere they hardly can, the clearest first.

        Conditions on the feature that gives it away most would only say again that it moved.
        """
        moved, found = {name for name, _ in most}, list[tuple[float, str, str]]()
        conditions = (each for each in self._conditions() if each[0] not in moved)
        while some := list(islice(conditions, AT_ONCE)):
            sure = _concentrated(self.sides, self.said, np.stack([inside for _, _, inside in some]))
            found += [
                (each, condition, name) for each, (name, condition, _) in zip(sure, some, strict=True) if each >= SURE
            ]
        best: dict[str, str] = {}
        for _, condition, name in sorted(found, reverse=True):
            best.setdefault(name, condition)
        return tuple(best.values())[:SEGMENTS]

    def _conditions(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """Conditions on each column: its name, how they read, and the rows that meet them, (n,) bool."""
        for at, (name, named) in enumerate(zip(self.coded.names, self.coded.categories, strict=True)):
            values = self.coded.values[:, at]
            if named is not None:
                yield from ((name, f"{name} = {said}", values == code) for code, said in enumerate(named))
                continue
            low, high = np.quantile(values[~np.isnan(values)], [0.25, 0.75])
            if low < high:
                yield name, f"{name} <= {low:.4g}", values <= low
                yield name, f"{name} > {high:.4g}", values > high


def _auc(y: np.ndarray, said: np.ndarray) -> float:
    """ROC AUC, ties count half (Mann and Whitney 1947); scikit-learn's takes ten times as long, most of it to look its arguments over."""
    low, high = np.sort(said[y == 0]), np.sort(said[y == 1])
    below = np.searchsorted(low, high) + np.searchsorted(low, high, side="right")
    return float(below.sum() / (2 * len(low) * len(high)))


def _concentrated(y: np.ndarray, said: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """By how many standard errors the AUC inside is above the one outside, (conditions,); 0 where it is not twice as far from chance, or rows are few.

    Args:
        y: (n,) the sides.
        said: (n,) what is said of the rows.
        inside: (conditions, n) bool.
    """
    (here, *held), (there, *rest) = _aucs(y, said, inside), _aucs(y, said, ~inside)
    enough = np.minimum(np.minimum(*held), np.minimum(*rest)) >= HELD
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(sum((n + m + 1) / (12 * n * m) for n, m in (held, rest)))
        return np.where(enough & (here - 0.5 >= 2 * (there - 0.5)), (here - there) / error, 0.0)


def _aucs(y: np.ndarray, said: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ROC AUC among the rows of each choice, and how many they are of either side: (choices,) each; among: (choices, n) bool."""
    order = np.argsort(said, kind="stable")
    ordered, chosen = said[order], among[:, order]
    lower = np.cumsum(chosen & (y[order] == 0), axis=1, dtype=np.int32)
    lower = np.concatenate(
        [np.zeros((len(among), 1), dtype=np.int32), lower], axis=1
    )  # so many rows of side 0 among the first i
    above = y[order] == 1
    first, last = (np.searchsorted(ordered, ordered[above], side=side) for side in ("left", "right"))
    n, m = lower[:, -1], (chosen & above).sum(axis=1)
    wins = ((lower[:, first] + lower[:, last]) * chosen[:, above]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return wins / (2.0 * n * m), n, m
