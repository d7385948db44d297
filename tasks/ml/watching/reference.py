"""Sketches: what rows look like, column by column, as counts over frozen bins; made in one pass, added up, never a row.

A reference is the sketch of the rows that a version was trained on. A window is sketched with the reference's bins, so that the two are
compared, and windows added to a rolling reference, without looking at a row again.

Numbers are first counted in 65,536 cells of which each is at most 0.8 % of its distance from the column's centre wide (the upper half of
a 32-bit float: sign, exponent, 7 bits of mantissa), as DDSketch does (Masson, Rim, Lee, VLDB 2019); quantiles cut these cells into bins.
Counts are therefore exact, wherever a bin ends.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self
from zlib import crc32

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

CELLS = 1 << 16
CHUNK = 1 << 16  # values counted at once: 0.5 MB, which stay in the cache
SAMPLED = 20_000  # values that tell a column's centre and unit
LISTED = 100  # categories that have a bin of their own
BUCKETS = 16  # bins of the categories beyond, by hash
PROBABILITIES = np.r_[0.005, np.linspace(0.01, 0.99, 99), 0.995]
UNJUDGED = frozenset({"datetime"})  # times move by nature


def _order() -> np.ndarray:
    """The cells by value: negative ones backwards, then positive ones."""
    half = CELLS // 2
    return np.r_[np.arange(CELLS - 1, half - 1, -1), np.arange(half)]


RANK = np.argsort(_order())
WIDEST = 0x7F80  # the cell of infinity; those above are no numbers


def _starts() -> np.ndarray:
    """Where each cell starts, in units from the centre, (CELLS + 1,); infinite at both ends."""
    upper = (np.arange(WIDEST + 1, dtype=np.uint32) << 16).view(np.float32).astype("float64")
    gap = np.full(CELLS // 2 - WIDEST - 1, np.inf)
    positive = np.r_[upper, gap]
    return np.r_[-np.inf, -positive[:0:-1], positive, np.inf]


STARTS = _starts()


class Ruler(BaseModel, frozen=True, extra="forbid"):
    """How numbers are counted.

    Attributes:
        centre, unit: what a value is measured from, and in.
        cuts: cells at which a bin ends and the next one starts.
        means: of the values between two cuts, in units from the centre: (cuts − 1,).
        spread: standard deviation of the rows that the bins were made from, in the column's own unit.
    """

    kind: Literal["number"] = "number"
    centre: float
    unit: float
    cuts: tuple[int, ...]
    means: tuple[float, ...]
    spread: float

    @cached_property
    def ends(self) -> np.ndarray:
        """Where the bins part, in the column's own unit: (bins − 1,)."""
        return self.centre + self.unit * BOUNDED[list(self.cuts)]

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """From each cut but the last to the mean of the values above it, and from there to the next cut, in spreads: (cuts − 1,) each."""
        ends, means = BOUNDED[list(self.cuts)], np.array(self.means)
        return (means - ends[:-1]) * self.unit / self.spread, (ends[1:] - means) * self.unit / self.spread

    def column(self, values: np.ndarray) -> "Column":
        """Numbers (n,), NaN where missing, in these bins."""
        cells, counts = occupied(values, self.centre, self.unit)
        places = np.searchsorted(self.cuts, cells, side="right")
        held = np.bincount(places, weights=counts, minlength=len(self.cuts) + 1).astype(int)
        missing = len(values) - int(counts.sum())
        return Column(bins=self, counts=tuple(held.tolist()), missing=missing, beyond=self._beyond(cells, counts))

    def _beyond(self, cells: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
        """How far the values below the first and above the last cut lie from it, added up, in units."""
        if not self.cuts:
            return 0.0, 0.0
        finite = (cells >= HUGE) & (cells < CELLS - HUGE)
        away = [BOUNDED[self.cuts[0]] - MIDDLES[cells], MIDDLES[cells] - BOUNDED[self.cuts[-1]]]
        outside = [cells < self.cuts[0], cells >= self.cuts[-1]]
        below, above = (float((side * counts)[far & finite].sum()) for side, far in zip(away, outside, strict=True))
        return below, above


BOUNDED = np.clip(STARTS, -3e38, 3e38)
MIDDLES = (BOUNDED[:-1] + BOUNDED[1:]) / 2
HUGE = int(
    np.searchsorted(MIDDLES, -1e30)
)  # so many cells at either end are as good as infinite, and belong to no mean
UPPER = slice(int(np.array([1], dtype=np.uint16).view(np.uint8)[0]), None, 2)  # the upper half of a float in memory


def occupied(values: np.ndarray, centre: float, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """The cells in which values lie, in order, and how many lie there: (cells,) each. What is missing lies in none."""
    found = np.zeros(CELLS, dtype=np.int64) if len(values) > CHUNK else None
    if found is None:
        raw, counts = np.unique(_raw(values, centre, unit), return_counts=True)
    else:
        for at in range(0, len(values), CHUNK):
            found += np.bincount(_raw(values[at : at + CHUNK], centre, unit), minlength=CELLS)
        raw = np.flatnonzero(found)
        counts = found[raw]
    there = (raw & (CELLS // 2 - 1)) <= WIDEST
    cells, counts = RANK[raw[there]], counts[there]
    order = np.argsort(cells)
    return cells[order], counts[order]


def _raw(values: np.ndarray, centre: float, unit: float) -> np.ndarray:
    """The upper half of each value as a 32-bit float, from the centre, in units."""
    with np.errstate(over="ignore", invalid="ignore"):
        return ((values - centre) / unit).astype(np.float32).view(np.uint16)[UPPER]


class Listing(BaseModel, frozen=True, extra="forbid"):
    """How categories are counted.

    Attributes:
        kind: "bool" says its values in small letters.
        values: those that have a bin of their own, the most frequent first.
        whole: whether no others were there; one more bin then counts what is new, else 16 bins count the others by their hash.
    """

    kind: Literal["category", "bool"]
    values: tuple[str, ...]
    whole: bool

    @cached_property
    def places(self) -> dict[str, int]:
        """The bin of each value that has its own."""
        return {value: place for place, value in enumerate(self.values)}

    def column(self, values: pd.Series) -> "Column":
        """Categories, in these bins."""
        counts = [0] * (len(self.values) + (1 if self.whole else BUCKETS))
        for name, count in _frequencies(values, self.kind).items():
            counts[self.places[name] if name in self.places else self._other(name)] += count
        return Column(bins=self, counts=tuple(counts), missing=len(values) - sum(counts))

    def _other(self, name: str) -> int:
        """The bin of a value that has none of its own; the same at any time and place."""
        return len(self.values) + (0 if self.whole else crc32(name.encode()) % BUCKETS)


def _frequencies(values: pd.Series, kind: str) -> dict[str, int]:
    """How often each text stands there, the most frequent first."""
    plain = values.astype("str") if values.dtype == object else values
    found: dict[str, int] = {}
    for each in pc.value_counts(pa.array(plain, from_pandas=True)).to_pylist():  # ty: ignore[missing-attribute]  # made at import
        if each["values"] is not None:
            name = str(each["values"]).lower() if kind == "bool" else str(each["values"])
            found[name] = found.get(name, 0) + each["counts"]
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


class Column(BaseModel, frozen=True, extra="forbid"):
    """One column of rows, in bins.

    Attributes:
        bins: what the counts are over.
        counts: values in each bin.
        missing: values that are not there.
        beyond: of numbers: how far those in the first and in the last bin lie from its inner end, added up, in units of the ruler.
    """

    bins: Annotated[Ruler | Listing, Field(discriminator="kind")]
    counts: tuple[int, ...]
    missing: int
    beyond: tuple[float, float] = (0.0, 0.0)

    @cached_property
    def held(self) -> np.ndarray:
        """The counts as an array."""
        return np.array(self.counts, dtype=float)

    @cached_property
    def there(self) -> int:
        """Values that are not missing."""
        return sum(self.counts)

    @property
    def rows(self) -> int:
        """Values, the missing ones too."""
        return self.there + self.missing

    @property
    def gaps(self) -> float:
        """Share of the values that are missing."""
        return self.missing / max(self.rows, 1)

    @property
    def new(self) -> float:
        """Share of the categories there that the rows behind the bins did not have; 0 where they had too many to tell."""
        known = isinstance(self.bins, Listing) and self.bins.whole
        return self.counts[-1] / max(self.there, 1) if known else 0.0

    @property
    def shares(self) -> np.ndarray:
        """Share of each bin among the values that are there."""
        return self.held / max(self.there, 1)

    def like(self, values: pd.Series) -> "Column":
        """Other values, in the same bins."""
        return self.bins.column(floats(values)) if isinstance(self.bins, Ruler) else self.bins.column(values)

    def __add__(self, other: "Column") -> "Column":
        """Both together. Raises ValueError where their bins differ."""
        if self.bins is not other.bins and self.bins != other.bins:
            raise ValueError("two columns are counted in different bins; sketch the second one `like` the first")
        return Column(
            bins=self.bins, counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)), missing=self.missing + other.missing,
            beyond=(self.beyond[0] + other.beyond[0], self.beyond[1] + other.beyond[1]),
        )  # fmt: skip


class Sketch(BaseModel, frozen=True, extra="forbid"):
    """What rows look like, and what was said about them.

    Attributes:
        rows: how many.
        features: column by column.
        predictions: the same of what a model said.
    """

    rows: int
    features: dict[str, Column]
    predictions: dict[str, Column] = {}

    @classmethod
    def of(cls, rows: pd.DataFrame, said: np.ndarray | None = None, types: Mapping[str, str] | None = None) -> Self:
        """A reference: bins are made from these rows.

        Args:
            rows: the features, raw; times are left out.
            said: (n,) values, categories or probabilities, or (n, classes) probabilities; of two classes the second says all.
            types: of the features, as a contract names them; told by the columns themselves when left out.
        """
        kinds = {name: _kind(rows[name]) for name in rows.columns} if types is None else types
        features = {name: _first(rows[name], kind) for name, kind in kinds.items() if kind not in UNJUDGED}
        predictions = {name: _first(column, _kind(column)) for name, column in answers(said).items()}
        return cls(rows=len(rows), features=features, predictions=predictions)

    def like(self, rows: pd.DataFrame, said: np.ndarray | None = None) -> "Sketch":
        """Other rows in the same bins.

        Raises:
            KeyError: a feature of the reference is not among the columns.
        """
        if lacking := [name for name in self.features if name not in rows.columns]:
            raise KeyError(
                f"the rows lack {', '.join(lacking)}, which the reference has; give every feature, empty ones too"
            )
        given = answers(said)
        return Sketch(
            rows=len(rows),
            features={name: column.like(rows[name]) for name, column in self.features.items()},
            predictions={name: column.like(given[name]) for name, column in self.predictions.items() if name in given},
        )

    def __add__(self, other: "Sketch") -> "Sketch":
        """Both together; only columns that both have."""
        return Sketch(
            rows=self.rows + other.rows,
            features={name: column + other.features[name] for name, column in self.features.items() if name in other.features},
            predictions={name: column + other.predictions[name] for name, column in self.predictions.items() if name in other.predictions},
        )  # fmt: skip


def merged(sketches: Sequence[Sketch]) -> Sketch | None:
    """All of them together, as a rolling reference is of the newest windows; None of none."""
    if not sketches:
        return None
    whole = sketches[0]
    for sketch in sketches[1:]:
        whole = whole + sketch
    return whole


def daily(reference: Sketch, rows: pd.DataFrame, at: np.ndarray, said: np.ndarray | None = None) -> list[Sketch]:
    """A sketch for each day from the first row's to the last row's, also for days without a row; in order.

    Args:
        reference: whose bins are used.
        rows: (n, …) the features, raw.
        at: (n,) datetime64, UTC: when a row happened.
        said: what was said about them, as `Sketch.of` takes it.
    """
    days = np.asarray(at, dtype="datetime64[D]")
    if not len(days):
        return []
    order = np.argsort(days, kind="stable")
    wanted = np.arange(days.min(), days.max() + 1)
    limits = np.searchsorted(days[order], np.r_[wanted, wanted[-1] + 1])
    parts = (order[low:high] for low, high in pairwise(limits))
    return [reference.like(rows.iloc[part], None if said is None else said[part]) for part in parts]


def answers(said: np.ndarray | None) -> dict[str, pd.Series]:
    """What a model said, as columns: one of values or of the second class's probability, else one for each class."""
    if said is None:
        return {}
    said = np.asarray(said)
    if said.ndim == 1:
        return {"prediction": pd.Series(said)}
    if said.shape[1] == 2:
        return {"prediction": pd.Series(said[:, 1])}
    return {f"class {number}": pd.Series(said[:, number]) for number in range(said.shape[1])}


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_datetime64_any_dtype(column):
        return "datetime"
    if pd.api.types.is_bool_dtype(column):
        return "bool"
    return "float" if pd.api.types.is_numeric_dtype(column) else "category"


def _first(column: pd.Series, kind: str) -> Column:
    """A column in bins made from itself."""
    if kind in {"int", "float"}:
        values = floats(column)
        return _ruler(values).column(values)
    return _listing(column, "bool" if kind == "bool" else "category").column(column)


def floats(column: pd.Series) -> np.ndarray:
    """Numbers of any width as float64, NaN where missing: (n,)."""
    values = column if column.dtype == "float64" else column.astype("Float64").astype("float64")
    return values.to_numpy()


def _ruler(values: np.ndarray) -> Ruler:
    """Bins of a hundredth of the values each, the outermost of half of one."""
    some = values[:: max(len(values) // SAMPLED, 1)]
    some = some[np.isfinite(some)]
    low, centre, high = np.quantile(some, [0.25, 0.5, 0.75]) if len(some) else (0.0, 0.0, 0.0)
    unit = float(high - low or some.std() if len(some) else 0.0) or max(abs(float(centre)), 1.0)
    cells, counts = occupied(values, float(centre), unit)
    cuts = _cuts(cells, counts)
    return Ruler(
        centre=float(centre), unit=unit, cuts=cuts, means=_means(cells, counts, cuts), spread=_spread(cells, counts) * unit or unit
    )  # fmt: skip


def _cuts(cells: np.ndarray, counts: np.ndarray) -> tuple[int, ...]:
    """Where the bins part: after each quantile, and before the first one where nothing lies below, so that what appears there is seen."""
    if not len(cells):
        return ()
    reached = np.cumsum(counts)
    at = np.searchsorted(reached, PROBABILITIES * reached[-1])
    lowest = [] if at[0] else [cells[0]]
    return tuple(np.unique(np.r_[lowest, cells[at] + 1]).astype(int).tolist())


def _means(cells: np.ndarray, counts: np.ndarray, cuts: tuple[int, ...]) -> tuple[float, ...]:
    """Of the values between two cuts, to 5 digits; the middle where there are none."""
    if not cuts:
        return ()
    places, bins = np.searchsorted(cuts, cells, side="right"), len(cuts) + 1
    held, total = (np.bincount(places, weights=counts * part, minlength=bins)[1:-1] for part in (1.0, MIDDLES[cells]))
    ends = BOUNDED[list(cuts)]
    means = np.where(held > 0, total / np.maximum(held, 1), (ends[1:] + ends[:-1]) / 2)
    return tuple(float(f"{mean:.5g}") for mean in np.clip(means, ends[:-1], ends[1:]))


def _spread(cells: np.ndarray, counts: np.ndarray) -> float:
    """Standard deviation, in units, from the middles of the cells; infinite values do not count."""
    finite = (cells >= HUGE) & (cells < CELLS - HUGE)
    if not finite.any():
        return 0.0
    weights, middles = counts[finite], MIDDLES[cells[finite]]
    mean = np.average(middles, weights=weights)
    return float(np.sqrt(np.average((middles - mean) ** 2, weights=weights)))


def _listing(column: pd.Series, kind: Literal["category", "bool"]) -> Listing:
    names = tuple(_frequencies(column, kind))
    return Listing(kind=kind, values=names[:LISTED], whole=len(names) <= LISTED)


def texts(names: Iterable[str], most: int = 5) -> str:
    """Names in a sentence, the first few of them.

    >>> texts(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    known = list(names)
    rest = len(known) - most
    return ", ".join(known) if rest <= 0 else f"{', '.join(known[:most])} and {rest} more"
