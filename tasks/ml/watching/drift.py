"""Drift: how far rows have moved, column by column: distances, two-sample tests, missing values, new categories.

Two columns are compared by their counts over the same bins, so that it costs nothing to compare again, and thousands of times.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from pydantic import BaseModel
from scipy import special

from tasks.ml.profile import stability
from tasks.ml.watching.reference import Column, Ruler, Sketch

NEWEST = 0.2  # share of the rows that count as the newest
DECILES = np.linspace(0.1, 0.9, 9)


class Move(BaseModel, frozen=True, extra="forbid"):
    """How far a column has moved.

    Attributes:
        distance: from 0, alike, to 1, nothing in common: Kolmogorov–Smirnov of numbers, Jensen–Shannon (base 2, the root) of categories.
        p: chance of such a distance between rows that are independent draws from one world: Kolmogorov–Smirnov, chi-squared. Rows of one
            day rarely are independent, so no alarm rests on it.
        psi: population stability index over deciles or categories, with what is missing.
        size: of numbers: Wasserstein distance in standard deviations of the reference; of categories: share of the values that would have
            to change (total variation).
        missing: share of values that are missing, before and now.
        new: share of values that are categories never seen before.
    """

    distance: float
    p: float
    psi: float
    size: float
    missing: tuple[float, float]
    new: float = 0.0

    @property
    def gap(self) -> float:
        """By how much the share of missing values changed, either way."""
        return abs(self.missing[1] - self.missing[0])


class Drift(BaseModel, frozen=True, extra="forbid"):
    """A column against the rows that its version was trained on, and against the newest windows.

    Attributes:
        fixed: against the training's rows, which stay the same however slowly the world goes on.
        rolling: against the windows just before; None where there are none.
        bar, rolling_bar: what the distance has to pass to be called moved; None where there are too few values to say so.
        gap_bar, rolling_gap_bar: what the share of missing values has to change by.
        moved: whether any of them was passed.
    """

    fixed: Move
    rolling: Move | None = None
    bar: float | None = None
    gap_bar: float | None = None
    rolling_bar: float | None = None
    rolling_gap_bar: float | None = None
    moved: bool = False

    @property
    def strongest(self) -> tuple[float, float]:
        """The statistic that is most above its bar, and that bar; (0, 1) where nothing can be said."""
        pairs = [(self.fixed.distance, self.bar), (self.fixed.gap, self.gap_bar)]
        if self.rolling is not None:
            pairs += [(self.rolling.distance, self.rolling_bar), (self.rolling.gap, self.rolling_gap_bar)]
        known = [(level, bar) for level, bar in pairs if bar is not None]
        return max(known, key=lambda pair: pair[0] / max(pair[1], 1e-9), default=(0.0, 1.0))


def compared(before: Column, now: Column) -> Move:
    """How far a column has moved between two counts over the same bins."""
    numeric = isinstance(before.bins, Ruler)
    p, q = before.held, now.held
    distance = float(distances(p, q, numeric=numeric))
    return Move(
        distance=distance, p=_kolmogorov(distance, before.there, now.there) if numeric else _chi_squared(p, q),
        psi=index(before, now), size=_wasserstein(before, now) if numeric else float(np.abs(_shares(p) - _shares(q)).sum() / 2),
        missing=(before.gaps, now.gaps), new=now.new,
    )  # fmt: skip


def distances(p: np.ndarray, q: np.ndarray, *, numeric: bool) -> np.ndarray:
    """Distance of counts over the same bins, (…, bins) each: (…,). Nothing is no distance away.

    Over bins the Kolmogorov–Smirnov distance is the largest gap at an end of a bin: never more than over the values themselves, and less by
    at most what one bin holds.

    >>> distances(np.array([5, 5, 0]), np.array([5, 0, 5]), numeric=True).item()
    0.5
    >>> distances(np.array([1, 0]), np.array([0, 1]), numeric=False).item()
    1.0
    """
    p, q = _shares(p), _shares(q)
    if numeric:
        found = np.abs(np.cumsum(p, axis=-1) - np.cumsum(q, axis=-1)).max(axis=-1)
    else:
        middle = (p + q) / 2
        bits = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum(axis=-1) / 2 / np.log(2)
        found = np.sqrt(np.maximum(bits, 0))
    return np.where((p.sum(axis=-1) > 0) & (q.sum(axis=-1) > 0), found, 0.0)


def index(before: Column, now: Column) -> float:
    """Population stability index: over deciles of the numbers before, or over categories; what is missing is a bin, too."""
    p, q = before.held, now.held
    if isinstance(before.bins, Ruler) and before.there:
        starts = _tenths(p)
        p, q = np.add.reduceat(p, starts), np.add.reduceat(q, starts)
    old, new = (np.r_[counts, column.missing] / max(column.rows, 1) for counts, column in ((p, before), (q, now)))
    return stability(old, new)


def moved(rows: pd.DataFrame, types: Mapping[str, str], time: str) -> tuple[str, float]:
    """The column that moved most between the newest fifth of the rows and those before, and its population stability index.

    Above 0.25 it is commonly called a shift (Siddiqi, Credit Risk Scorecards, 2006). Columns of times always move, and do not count.

    Args:
        rows: in any order.
        types: of the columns that count.
        time: the column that says when a row happened.
    """
    ordered = rows.sort_values(time, kind="stable")
    cut = round(len(ordered) * (1 - NEWEST))
    before = Sketch.of(ordered[:cut], types=types)
    now = before.like(ordered[cut:])
    sizes = {name: index(column, now.features[name]) for name, column in before.features.items()}
    name = max(sizes, key=lambda column: sizes[column], default="")
    return str(name), sizes.get(name, 0.0)


def _tenths(counts: np.ndarray) -> np.ndarray:
    """The first bin of each of ten groups as equal as the bins allow."""
    reached = np.cumsum(counts) / counts.sum()
    nearest = np.abs(reached[:, None] - DECILES).argmin(axis=0) + 1
    return np.unique(np.r_[0, nearest[nearest < len(counts)]])


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


def _kolmogorov(distance: float, n: int, m: int) -> float:
    """Chance of such a Kolmogorov–Smirnov distance, by its limit; conservative where values are tied (Conover, Practical Nonparametric Statistics, ch. 6)."""
    return float(special.kolmogorov(distance * np.sqrt(n * m / max(n + m, 1))))


def _chi_squared(p: np.ndarray, q: np.ndarray) -> float:
    """Chance of such counts by a chi-squared test of homogeneity, over the bins in which anything is."""
    table = np.stack([p, q])[:, p + q > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return float(special.chdtrc(table.shape[1] - 1, ((table - expected) ** 2 / expected).sum()))


def _wasserstein(before: Column, now: Column) -> float:
    """The area between both distribution functions, in standard deviations of the reference.

    What lies between two ends of bins counts as if it were at its mean in the reference; beyond the outermost ends the difference of how
    far it lies counts.
    """
    ruler = before.bins
    if not isinstance(ruler, Ruler) or not before.there or not now.there or not ruler.cuts:
        return 0.0
    gaps = np.abs(np.cumsum(before.shares - now.shares))[:-1]
    lower, upper = ruler.halves
    outer = sum(abs(a / before.there - b / now.there) for a, b in zip(before.beyond, now.beyond, strict=True))
    return float(gaps[:-1] @ lower + gaps[1:] @ upper + outer * ruler.unit / ruler.spread)
