"""A batch as a whole: its profile, what is odd about it against the batches before it, and how two sets of rows differ."""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from pandas.util import hash_array
from pydantic import BaseModel, Field, model_validator

from tasks.ml.contract import Contract

Kind = Literal[
    "rows", "stale", "nulls", "shift", "constant", "units", "sign", "swapped", "labels", "segment", "repeats", "target",
    "categories",
]  # fmt: skip

SAMPLE = 10_000  # rows looked at closely, however many there are
TWINS = 5_000  # different rows whose repetitions are counted
CHUNK = 65_536  # rows hashed at once: 0.5 MB a column, which stay in the cache
LISTED = 50  # categories kept by name
LONGEST = 60  # characters of a category kept by name
FEWEST = 20  # values below which quantiles would be values of single rows
PROBABILITIES = np.array([0.01, *np.linspace(0.05, 0.95, 19), 0.99])  # no minimum, no maximum: those are single rows
CUTS = slice(2, 19, 2)  # of the grid, its deciles part the values into ten segments
GOLDEN, MIX, GAP = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA5A5A5A5DEADBEEF)

POWERS = tuple(10.0**power for power in range(1, 7))
FACTORS: tuple[float, ...] = tuple(
    sorted(
        factor
        for base in (
            *POWERS,  # %, cents, milli, micro, and one typing error in the decimal point
            60.0, 3600.0, 86_400.0, 24.0, 7.0, 12.0,  # seconds, minutes, hours, days, weeks; months, inches in a foot
            1024.0, 1024.0**2, 8.0,  # KiB, MiB; bits
            2.54, 25.4, 3.28084, 1.609344, 0.45359237, 4.184, 3.6,  # inch, foot, mile, pound, calorie, m/s in km/h
        )
        for factor in (base, 1 / base)
    )
)  # fmt: skip
SCALES: dict[str, tuple[float, float]] = {
    "°C in °F": (1.8, 32.0),
    "°F in °C": (1 / 1.8, -32 / 1.8),
    "°C in K": (1.0, 273.15),
    "K in °C": (1.0, -273.15),
}
# KS from which on a factor is believed: any; those above 30, which no season makes
CLEAR, WIDE = 0.9, 0.75


class Numbers(BaseModel, frozen=True):
    """A column of numbers or times, as an aggregate.

    Attributes:
        kind: "number", or "time" (epoch seconds, not judged: time moves).
        nulls, gaps: exact number of missing values, and their share.
        seen: values in the sample; every share below is of these.
        distinct: estimate of the different values in the batch (Chao1).
        zeros, mode: share of values that are 0; share of the most frequent value.
        mean: of the values.
        grid: quantiles at `PROBABILITIES` of the values that are not 0; empty when they are fewer than 20.
        link: ROC AUC − ½ of the column alone against the target (half of Spearman's ρ when the target is a number).
        error: standard error of `link` if there were no link at all.
        segments: (rows, positives) of: missing, zero, then ten between the deciles of `grid`; values equal to a
            decile belong above it.
    """

    kind: Literal["number", "time"] = "number"
    nulls: int
    gaps: float = 0.0
    seen: int
    distinct: int
    zeros: float = 0.0
    mode: float = 0.0
    mean: float | None = None
    grid: tuple[float, ...] = ()
    link: float | None = None
    error: float | None = None
    segments: tuple[tuple[int, int], ...] = ()

    @cached_property
    def points(self) -> np.ndarray:
        """The grid as an array."""
        return np.array(self.grid)

    @cached_property
    def ends(self) -> np.ndarray:
        """The 11 ends of the ten segments of the values."""
        return np.r_[self.points[:1], self.points[CUTS], self.points[-1:]]

    @cached_property
    def cumulated(self) -> np.ndarray:
        """(2, 11) rows and positives of the ten segments up to each end."""
        return np.cumsum([(0, 0), *self.segments[2:]], axis=0, dtype=float).T

    @property
    def filled(self) -> int:
        """Values of the sample behind the grid."""
        return round(self.seen * (1 - self.zeros))

    def share_below(self, values: np.ndarray, side: Literal["left", "right"] = "right") -> np.ndarray:
        """The share of values below (`left`) or up to and including (`right`) each of `values`, zeros among them.

        >>> half = Numbers(nulls=0, seen=100, distinct=50, zeros=0.5, grid=tuple(PROBABILITIES))
        >>> half.share_below(np.array([-1.0, 0.0, 0.5, 2.0])).tolist()
        [0.0, 0.5, 0.75, 1.0]
        """
        zeros = self.zeros * (values >= 0 if side == "right" else values > 0)
        if not self.grid:
            return zeros if self.zeros else np.full(len(values), np.nan)
        return (1 - self.zeros) * _cumulated(self.points, values, side) + zeros

    def quantile(self, probability: float) -> float | None:
        """The value below which that share of all values lies, zeros among them; None when too few are known."""
        if not self.grid:
            return 0.0 if self.zeros >= FEWEST / max(self.seen, FEWEST) else None
        below = float(self.share_below(np.zeros(1), "left")[0])
        if below <= probability <= below + self.zeros and self.zeros:
            return 0.0
        rest = probability if probability < below else probability - self.zeros
        return float(np.interp(rest / (1 - self.zeros), PROBABILITIES, self.points))


class Words(BaseModel, frozen=True):
    """A column of categories, booleans, texts or keys, as an aggregate.

    Attributes:
        kind: "category" and "bool" list their values; "text" and "key" never do.
        nulls, gaps: exact number of missing values, and their share.
        seen: values in the sample; `counts` are of these.
        distinct: estimate of the different values in the batch.
        length: mean number of characters.
        values: the most frequent values, at most 50.
        counts: how often each stands in the sample.
        positives: in how many of those rows the target is positive; empty without classes.
        missing: (rows, positives) of the sample in which the value is missing.
    """

    kind: Literal["category", "bool", "text", "key"]
    nulls: int
    gaps: float = 0.0
    seen: int
    distinct: int = 0
    length: float | None = None
    values: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    positives: tuple[int, ...] = ()
    missing: tuple[int, int] = (0, 0)

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of each listed value among the values."""
        return {value: count / max(self.seen, 1) for value, count in zip(self.values, self.counts, strict=True)}

    @property
    def rest(self) -> float:
        """Share of the values that are not listed."""
        return max(0.0, 1 - sum(self.counts) / max(self.seen, 1))


class Repeats(BaseModel, frozen=True):
    """How often the same features with the same target stand in a batch more than once.

    Attributes:
        rows: rows of the batch.
        pairs: probability that two rows drawn from the batch are the same; does not depend on the batch's size.
        sizes: (mean size, number) of the groups of same rows, by power of two.
    """

    rows: int = 0
    pairs: float = 0.0
    sizes: tuple[tuple[float, float], ...] = ()

    def different(self, rows: int) -> float:
        """How many different rows to expect among `rows` of the batch's rows (rarefaction; Hurlbert, Ecology 1971).

        >>> Repeats(rows=200, sizes=((100.0, 2.0),)).different(200)
        2.0
        """
        drawn = min(rows / max(self.rows, 1), 1.0)
        return float(sum(groups * (1 - (1 - drawn) ** size) for size, groups in self.sizes))


class Profile(BaseModel, frozen=True):
    """What a batch looks like as a whole: aggregates only, never a row.

    Attributes:
        rows: exact number of rows.
        sampled: rows looked at closely.
        oldest, newest: of the contract's time column, exact, UTC.
        positives: rows of the sample with the positive target; None without classes.
        target: the target's name; empty where there is none.
        columns: each column's aggregate.
        repeats: how often rows are the same but for key and time.
    """

    rows: int = 0
    sampled: int = 0
    oldest: dt.datetime | None = None
    newest: dt.datetime | None = None
    positives: int | None = None
    target: str = ""
    columns: dict[str, Annotated[Numbers | Words, Field(discriminator="kind")]] = {}
    repeats: Repeats = Repeats()


class Profiler:
    """Profiles a batch chunk by chunk, in bounded memory.

    Rows, missing values and times are counted exactly; the rest comes from at most 10,000 rows, spread evenly over the
    whole batch, and from the repetitions of at most 5,000 different rows.

    >>> from tasks.ml.contract import Column
    >>> contract = Contract(
    ...     columns={"id": Column(type="int"), "at": Column(type="datetime"), "x": Column(type="float"),
    ...              "y": Column(type="bool")}, key=("id",), time="at", target="y")
    >>> profiler = Profiler(contract, positive=True)
    >>> profiler.add(pa.table({"id": range(100), "at": [dt.datetime(2026, 1, 1)] * 100,
    ...                        "x": [n + 1.0 for n in range(100)], "y": [n > 49 for n in range(100)]}))
    >>> profile = profiler.result()
    >>> profile.rows, round(profile.columns["x"].quantile(0.5), 9), profile.columns["x"].link
    (100, 50.5, 0.5)
    """

    def __init__(self, contract: Contract, positive: str | bool | int | None) -> None:
        self._contract, self._positive = contract, positive
        self._names = list(contract.columns)
        self._rows, self._nulls = 0, dict.fromkeys(self._names, 0)
        self._span = (2**63, -(2**63))
        self._sample = _Sample()
        self._twins = _Twins([name for name in [*contract.features, contract.target] if name])

    def add(self, rows: pa.Table) -> None:
        """Takes in the next rows, typed as the contract's schema."""
        for batch in rows.select(self._names).to_batches(max_chunksize=CHUNK):
            if not batch.num_rows:
                continue
            for name in self._names:
                self._nulls[name] += batch.column(name).null_count
            self._see_times(batch.column(self._contract.time))
            self._sample.add(batch, self._rows)
            self._twins.add(batch)
            self._rows += batch.num_rows

    def _see_times(self, column: pa.Array) -> None:
        """Widens the span of times, in microseconds since 1970."""
        times = _micros(column.drop_null()).to_numpy()
        if len(times):
            self._span = (min(self._span[0], int(times.min())), max(self._span[1], int(times.max())))

    def result(self) -> Profile:
        """The profile of all rows so far."""
        if not self._rows:
            return Profile(target=self._contract.target or "")
        sample, target = self._sample.rows(), self._contract.target
        truth = _truth(sample[target], self._positive) if target else None
        ranks = _ranks(sample[target]) if target and truth is None else None
        columns = {name: self._column(name, sample[name], truth, ranks) for name in self._names}
        oldest, newest = (_moment(end) if self._span[0] <= self._span[1] else None for end in self._span)
        return Profile(
            rows=self._rows,
            sampled=sample.num_rows,
            oldest=oldest,
            newest=newest,
            positives=None if truth is None else int(truth.sum()),
            target=target or "",
            columns=columns,
            repeats=self._twins.result(sample, self._rows),
        )

    def _column(
        self, name: str, values: pa.ChunkedArray, truth: np.ndarray | None, ranks: np.ndarray | None
    ) -> Numbers | Words:
        """One column of the sample as an aggregate; the target is not linked with itself."""
        kind, nulls = self._contract.columns[name].type, self._nulls[name]
        if name in self._contract.key:
            return Words(kind="key", nulls=nulls, gaps=_short(nulls / self._rows), seen=len(values) - values.null_count)
        if name not in self._contract.features:
            truth = ranks = None
        if kind in {"int", "float", "datetime"}:
            return _numbers(values, kind == "datetime", nulls, self._rows, truth, ranks)
        return _words(values, kind, nulls, self._rows, truth)


class _Sample:
    """Rows spread evenly over the batch: those whose number times the golden ratio has a small fraction.

    Such rows never fall into step with a period of the data, whatever its length (the three-distance theorem), and
    half of the limit is at least kept.
    """

    def __init__(self) -> None:
        self._level = np.uint64(0)
        self._kept: list[tuple[np.ndarray, pa.RecordBatch]] = []
        self._count = 0

    def add(self, batch: pa.RecordBatch, start: int) -> None:
        numbers = np.arange(start, start + batch.num_rows, dtype=np.uint64) * GOLDEN
        where = np.flatnonzero(self._chosen(numbers))
        while self._count + len(where) > SAMPLE:
            self._level += np.uint64(1)
            where = where[self._chosen(numbers[where])]
            self._kept = [_only(spots, rows, self._chosen(spots)) for spots, rows in self._kept]
            self._count = sum(len(spots) for spots, _ in self._kept)
        if len(where):
            self._kept.append((numbers[where], batch.take(pa.array(where))))
            self._count += len(where)

    def _chosen(self, numbers: np.ndarray) -> np.ndarray:
        if not self._level:
            return np.ones(len(numbers), dtype=bool)
        return numbers >> (np.uint64(64) - self._level) == 0

    def rows(self) -> pa.Table:
        return pa.Table.from_batches([rows for _, rows in self._kept]).combine_chunks()


def _only(spots: np.ndarray, rows: pa.RecordBatch, chosen: np.ndarray) -> tuple[np.ndarray, pa.RecordBatch]:
    return spots[chosen], rows.take(pa.array(np.flatnonzero(chosen)))


class _Twins:
    """Counts how often whole rows repeat, for a sample of *different* rows (distinct sampling; Gibbons, VLDB 2001).

    A row is in the sample or not by its hash, so all of its repetitions are. A hash of a few columns decides first,
    so that most rows are never hashed as a whole.
    """

    def __init__(self, names: list[str]) -> None:
        self._names, self._few = names, names[:0]
        self._levels = [0, 0]  # bits that must be zero: of the hash of a few columns, of the hash of all
        self._found = np.zeros((3, 0), dtype=np.uint64)  # hash of a few columns, of all, how often
        self._waiting: list[np.ndarray] = []
        self._count = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._few = self._few or self._telling(batch.slice(0, 1000))
        few = _hashed(batch, self._few)
        done = 0
        while done < len(few):  # few rows at a time at first, until it is known how many can be left out
            end = done + (TWINS << self._levels[0])
            where = done + np.flatnonzero(self._first(few[done:end]))
            whole = _hashed(batch.select(self._names).take(pa.array(where)), self._names)
            rows = np.stack([few[where], whole, np.ones(len(where), dtype=np.uint64)])[:, self._second(whole)]
            self._waiting.append(rows)
            self._count += rows.shape[1]
            if self._count > TWINS:
                self._merge()
            done = end

    def _telling(self, batch: pa.RecordBatch) -> list[str]:
        """The columns that tell rows apart nearly as well as all together; texts, being slow, come last."""
        whole, found = _different(_hashed(batch, self._names)), []
        texts = {name: pa.types.is_string(batch.schema.field(name).type) for name in self._names}
        different = {name: _different(_hashed(batch, [name])) for name in self._names}
        for name in sorted(self._names, key=lambda name: (texts[name], -different[name])):
            found.append(name)
            if 2 * _different(_hashed(batch, found)) >= whole:
                break
        return found

    def _first(self, few: np.ndarray) -> np.ndarray:
        return few & np.uint64(2 ** self._levels[0] - 1) == 0

    def _second(self, whole: np.ndarray) -> np.ndarray:
        return whole & np.uint64(2 ** self._levels[1] - 1) == 0

    def _merge(self) -> None:
        few, whole, count = np.concatenate([self._found, *self._waiting], axis=1)
        order = np.argsort(whole)
        starts = np.flatnonzero(np.r_[True, np.diff(whole[order]) != 0]) if len(order) else np.zeros(0, dtype=np.intp)
        counts = np.add.reduceat(count[order], starts) if len(order) else count
        found = np.stack([few[order][starts], whole[order][starts], counts])
        while found.shape[1] > TWINS:
            self._levels[0 if _different(found[0]) > TWINS // 32 else 1] += 1
            found = found[:, self._first(found[0]) & self._second(found[1])]
        self._found, self._waiting, self._count = found, [], 0

    def result(self, sample: pa.Table, rows: int) -> Repeats:
        """The groups of same rows of the whole batch; those that fill much of it are found in the even sample."""
        self._merge()
        _, whole, count = self._found
        counts = count.astype(float)
        numbers = np.full(len(counts), float(2 ** sum(self._levels)))
        if sum(self._levels):
            hashes, times = np.unique(_hashed(sample, self._names), return_counts=True)
            often = times >= 16
            usual = ~np.isin(whole, hashes[often])
            counts = np.r_[counts[usual], times[often] * (rows / sample.num_rows)]
            numbers = np.r_[numbers[usual], np.ones(int(often.sum()))]
        step = np.floor(np.log2(np.maximum(counts, 1))).astype(int)
        groups = np.bincount(step, weights=numbers)
        members = np.bincount(step, weights=numbers * counts)
        pairs = float((numbers * counts * (counts - 1)).sum()) / max(rows * (rows - 1.0), 1.0)
        sizes = [(_short(members[i] / groups[i]), _short(groups[i])) for i in np.flatnonzero(groups)]
        return Repeats(rows=rows, pairs=_short(min(pairs, 1.0)), sizes=tuple(sizes))


def _different(hashes: np.ndarray) -> int:
    ordered = np.sort(hashes)  # five times as fast as np.unique
    return int((ordered[1:] != ordered[:-1]).sum()) + min(len(ordered), 1)


def _hashed(rows: pa.RecordBatch | pa.Table, names: list[str]) -> np.ndarray:
    """A 64-bit hash of the named columns of every row: (n,) uint64, the same in every process."""
    state = np.zeros(rows.num_rows, dtype=np.uint64)
    for name in names:
        state ^= _cells(rows.column(name))
        state *= MIX
        state ^= state >> np.uint64(32)
    state *= GOLDEN
    return state ^ (state >> np.uint64(29))


def _cells(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column as (n,) uint64, the same for the same values; missing ones are the same too."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    kind, gaps = column.type, column.null_count
    if pa.types.is_floating(kind):
        return (column.to_numpy(zero_copy_only=False) + 0.0).view(np.uint64)  # minus zero is zero
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        coded = column.dictionary_encode()
        names = np.array([*coded.dictionary.to_pylist(), ""], dtype=object)
        hashes = hash_array(names, categorize=False)  # ty: ignore[not-callable]  # pandas hands it out lazily, untyped
        cells = hashes[coded.indices.fill_null(len(names) - 1).to_numpy()]
    elif pa.types.is_boolean(kind):
        filled = column.fill_null(False) if gaps else column
        cells = filled.to_numpy(zero_copy_only=False).astype(np.uint64)
    else:
        whole = column.cast(pa.int64())
        cells = (whole.fill_null(0) if gaps else whole).to_numpy().view(np.uint64)
    return cells ^ (column.is_null().to_numpy(zero_copy_only=False) * GAP) if gaps else cells


def _truth(target: pa.ChunkedArray, positive: str | bool | int | None) -> np.ndarray | None:
    """True where the target is the positive value, as `Project.truth` has it."""
    if positive is None:
        return None
    values = target.to_pandas()
    same = values.astype("string") == positive if isinstance(positive, str) else values == positive
    return same.fillna(value=False).to_numpy(dtype=bool)


def _ranks(target: pa.ChunkedArray) -> np.ndarray | None:
    """Ranks of a target that is a number, else None."""
    if not (pa.types.is_integer(target.type) or pa.types.is_floating(target.type)):
        return None
    return target.to_pandas().rank().to_numpy(dtype=float)


def _micros(column: Any) -> Any:
    """A column of times as microseconds since 1970."""
    return column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())


def _moment(micros: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)


def _short(number: float) -> float:
    """Five significant digits."""
    return float(f"{number:.5g}")


def _numbers(
    values: pa.ChunkedArray, moment: bool, nulls: int, rows: int, truth: np.ndarray | None, ranks: np.ndarray | None
) -> Numbers:
    """The aggregate of a column of numbers, from one sort of its sample."""
    if moment:
        values = _micros(values)
    raw = values.to_numpy().astype(np.float64, copy=False)
    known = ~np.isnan(raw)
    order = np.flatnonzero(known)[np.argsort(raw[known])]
    ordered, n = raw[order] / (1e6 if moment else 1.0), len(order)
    kind = "time" if moment else "number"
    if not n:
        return Numbers(kind=kind, nulls=nulls, gaps=1.0, seen=0, distinct=0, segments=_few_segments(known, truth))
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) != 0])
    times = np.diff(np.r_[starts, n])
    zero = ordered == 0
    grid = _grid(ordered if moment else ordered[~zero], moment)
    link, error = _link(starts, times, None if truth is None else truth[order], None if ranks is None else ranks[order])
    return Numbers(
        kind=kind,
        nulls=nulls,
        gaps=_short(nulls / rows),
        seen=n,
        distinct=_estimate(times, n, rows - nulls),
        zeros=0.0 if moment else _short(zero.mean()),
        mode=_short(times.max() / n),
        mean=_short(ordered.mean()) if not moment else None,
        grid=tuple(grid.tolist()),
        link=link,
        error=error,
        segments=() if moment else _segments(known, order, ordered, zero, grid, truth),
    )


def _grid(ordered: np.ndarray, moment: bool) -> np.ndarray:
    """Quantiles at `PROBABILITIES` of ascending values, between order statistics linearly; none when they are few."""
    if len(ordered) < FEWEST:
        return np.zeros(0)
    grid = np.interp(PROBABILITIES * (len(ordered) - 1), np.arange(len(ordered)), ordered)
    return grid.round() if moment else np.array([_short(value) for value in grid])


def _link(
    starts: np.ndarray, times: np.ndarray, truth: np.ndarray | None, ranks: np.ndarray | None
) -> tuple[float | None, float | None]:
    """Strength of a column's link with the target, and its standard error without any link, from the ties of its sort.

    ROC AUC − ½ = (R − P(P+1)/2)/(P·N) − ½ with R the positives' sum of ranks, variance (P+N+1)/(12·P·N) (Mann and
    Whitney, 1947); for a target that is a number half of Spearman's ρ, variance 1/(4(n−1)).
    """
    middle = starts + (times + 1) / 2
    if truth is not None:
        positive = np.add.reduceat(truth.astype(float), starts)
        p, n = positive.sum(), times.sum() - positive.sum()
        if not p or not n or len(starts) == 1:
            return None, None
        area = ((middle * positive).sum() - p * (p + 1) / 2) / (p * n)
        return _short(area - 0.5), _short(np.sqrt((p + n + 1) / (12 * p * n)))
    if ranks is None or len(starts) == 1:
        return None, None
    mine, known = np.repeat(middle, times), ~np.isnan(ranks)
    mine, theirs = mine[known], ranks[known]
    if len(mine) < 3 or not mine.std() or not theirs.std():
        return None, None
    return _short(np.corrcoef(mine, theirs)[0, 1] / 2), _short(0.5 / np.sqrt(len(mine) - 1))


def _estimate(times: np.ndarray, sample: int, rows: int) -> int:
    """Different values among `rows`, from how often each stands in the sample (Chao1; Chao, 1984, bias-corrected)."""
    once, twice = int((times == 1).sum()), int((times == 2).sum())
    unseen = once * (once - 1) / (2 * (twice + 1)) if rows > sample else 0.0
    return round(min(len(times) + unseen, max(rows, sample)))


def _few_segments(known: np.ndarray, truth: np.ndarray | None) -> tuple[tuple[int, int], ...]:
    return () if truth is None else ((int((~known).sum()), int(truth[~known].sum())),)


def _segments(
    known: np.ndarray,
    order: np.ndarray,
    ordered: np.ndarray,
    zero: np.ndarray,
    grid: np.ndarray,
    truth: np.ndarray | None,
) -> tuple[tuple[int, int], ...]:
    """(rows, positives) of missing, zero, and the ten parts between the grid's deciles."""
    if truth is None:
        return ()
    labels = truth[order]
    first = [*_few_segments(known, truth), (int(zero.sum()), int(labels[zero].sum()))]
    if not len(grid):
        return tuple(first)
    ends = np.r_[0, np.searchsorted(ordered[~zero], grid[CUTS], "left"), len(ordered) - zero.sum()]
    positives = np.r_[0, np.cumsum(labels[~zero])][ends]
    return (*first, *zip(np.diff(ends).tolist(), np.diff(positives).tolist(), strict=True))


def _words(values: pa.ChunkedArray, kind: str, nulls: int, rows: int, truth: np.ndarray | None) -> Words:
    """The aggregate of a column of words; only categories, booleans and texts with few values are listed."""
    column = values.chunk(0)
    gaps = column.is_null().to_numpy(zero_copy_only=False)
    missing = (int(gaps.sum()), 0 if truth is None else int(truth[gaps].sum()))
    seen = len(column) - missing[0]
    coded = column.cast(pa.string()).dictionary_encode()
    codes, names = coded.indices.drop_null().to_numpy(), coded.dictionary.to_pylist()
    times = np.bincount(codes, minlength=len(names))
    lengths = np.array([len(name) for name in names])
    about: dict[str, Any] = {
        "nulls": nulls,
        "gaps": _short(nulls / rows),
        "seen": seen,
        "distinct": _estimate(times, seen, rows - nulls) if seen else 0,
        "length": _short((lengths * times).sum() / seen) if seen and kind != "bool" else None,
        "missing": missing,
    }
    is_listed = kind == "bool" or (2 * len(names) <= seen and (kind == "category" or len(names) <= LISTED))
    if not is_listed:
        return Words(kind="text", **about)
    top = [at for at in sorted(range(len(names)), key=lambda at: (-times[at], names[at])) if lengths[at] <= LONGEST]
    top = [at for at in top[:LISTED] if kind != "text" or times[at] >= 5]  # a text that few rows have may be a person
    positive = None if truth is None else np.bincount(codes[truth[~gaps]], minlength=len(names))
    return Words(
        kind="bool" if kind == "bool" else "category",
        values=tuple(names[at] for at in top),
        counts=tuple(int(times[at]) for at in top),
        positives=() if positive is None else tuple(int(positive[at]) for at in top),
        **about,
    )


def _cumulated(grid: np.ndarray, values: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """The distribution function of a grid at `values`, linear between its quantiles, with its jumps.

    `np.interp` takes the last of several equal quantiles, which is the limit from the right; seen in a mirror, from the left.
    """
    if side == "right":
        return np.interp(values, grid, PROBABILITIES, left=0.0, right=1.0)
    return 1 - np.interp(-values, -grid[::-1], 1 - PROBABILITIES[::-1], left=0.0, right=1.0)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov–Smirnov distance of two grids; exact to .05 where values are tied, to .01 at the ends."""
    values = np.concatenate([one, other])
    return max(
        float(np.abs(_cumulated(one, values, side) - _cumulated(other, values, side)).max())
        for side in ("left", "right")
    )


def _moved(one: Numbers, other: Numbers) -> float | None:
    """Kolmogorov–Smirnov distance of two columns with their zeros; None when either has too few values."""
    values = np.concatenate([one.points, other.points, np.zeros(1)])
    gaps = [np.abs(one.share_below(values, side) - other.share_below(values, side)).max() for side in ("left", "right")]
    return None if np.isnan(gaps).any() else float(max(gaps))


def _spread(one: Words, other: Words) -> float | None:
    """Total variation distance of two columns' categories: the share that would have to change. None when unlisted."""
    if not one.values or not other.values:
        return None
    names = {*one.values, *other.values}
    listed = sum(abs(one.shares.get(name, 0.0) - other.shares.get(name, 0.0)) for name in names)
    return (listed + abs(one.rest - other.rest)) / 2


def _distance(one: Numbers | Words, other: Numbers | Words) -> float | None:
    """How far apart two columns are, 0 to 1; None when they cannot be compared."""
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        return _moved(one, other)
    return _spread(one, other) if isinstance(one, Words) and isinstance(other, Words) else None


def _noise(one: int, other: int) -> float:
    """The unit of a Kolmogorov–Smirnov distance between two samples."""
    return float(np.sqrt(1 / max(one, 1) + 1 / max(other, 1)))


class Finding(BaseModel, frozen=True):
    """Something odd about a batch.

    Attributes:
        kind: what is odd.
        column: where; empty when it is the whole batch.
        number: what was met.
        usual: what the batches before had, or the limit; None where there is none.
        reason: one sentence with column and number, for a person.
        holds: the batch should not be learned from before a person has looked.
    """

    kind: str
    column: str
    number: float
    usual: float | None
    reason: str
    holds: bool


class Expectations(BaseModel, frozen=True, extra="forbid"):
    """What a batch as a whole may be: limits of the project, and what the batches before it were like.

    >>> Expectations(rows_min=10).judge(Profile(rows=3), [], dt.datetime(2026, 1, 1, tzinfo=dt.UTC))[0].reason
    'the batch has 3 rows; at least 10 are wanted'
    """

    rows_min: int = Field(default=1, ge=0, description="fewer rows than this hold the batch")
    rows_max: int | None = Field(default=None, ge=1, description="more rows than this hold the batch")
    fresh_hours: float | None = Field(default=None, gt=0, description="how old the newest row may be when it arrives")
    shift: float = Field(
        default=0.25, gt=0, lt=1, description="reported from here on: KS of numbers, total variation of categories"
    )
    hold: tuple[Kind, ...] = Field(
        default=("rows", "stale", "nulls", "units", "sign", "swapped", "labels", "segment", "repeats"),
        description="kinds of findings that hold a batch when they are strong; the others are reported",
    )
    at_least: int = Field(default=100, ge=30, description="rows below which no distribution is judged")
    history: int = Field(default=20, ge=1, description="how many batches are looked back")

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> Self:
        if self.rows_max is not None and self.rows_max < self.rows_min:
            raise ValueError(
                f"rows_max is {self.rows_max}, below rows_min, which is {self.rows_min}; no batch can be both"
            )
        return self

    def judge(self, new: Profile, before: Sequence[Profile], now: dt.datetime) -> list[Finding]:
        """Everything odd about a batch, what holds it first. `before` is oldest first; `now` is its arrival, UTC."""
        past = list(before)[-self.history :]
        found = [*self._rows(new, past), *self._stale(new, now), *_emptied(new, past)]
        usual = [profile for profile in past if profile.rows >= self.at_least]
        if new.rows >= self.at_least and usual:
            found += self._distributions(new, usual)
        judged = [
            finding if finding.kind in self.hold else finding.model_copy(update={"holds": False}) for finding in found
        ]
        return sorted(judged, key=lambda finding: not finding.holds)

    def _rows(self, new: Profile, past: Sequence[Profile]) -> Iterator[Finding]:
        """Outside the limits: strong. Far from the usual (robust z of the logarithm above 4): weak."""
        rows = new.rows
        if rows < self.rows_min:
            reason = f"the batch has {rows} rows; at least {self.rows_min} are wanted"
            yield _finding("rows", "", rows, self.rows_min, reason, holds=True)
        elif self.rows_max is not None and rows > self.rows_max:
            reason = f"the batch has {rows} rows; at most {self.rows_max} are wanted"
            yield _finding("rows", "", rows, self.rows_max, reason, holds=True)
        elif len(past) >= 5:
            logs = np.log1p([profile.rows for profile in past])
            middle = float(np.median(logs))
            spread = max(1.4826 * float(np.median(np.abs(logs - middle))), 0.2)
            if abs(np.log1p(rows) - middle) > 4 * spread:
                usual = float(np.expm1(middle))
                yield _finding("rows", "", rows, usual, f"the batch has {rows} rows; usually it has about {usual:.0f}")

    def _stale(self, new: Profile, now: dt.datetime) -> Iterator[Finding]:
        if self.fresh_hours is None or new.newest is None:
            return
        age = (now - new.newest).total_seconds() / 3600
        if age > self.fresh_hours:
            reason = f"the newest row is {age:.1f} hours old on arrival; at most {self.fresh_hours:g} are wanted"
            yield _finding("stale", "", age, self.fresh_hours, reason, holds=True)

    def _distributions(self, new: Profile, usual: Sequence[Profile]) -> list[Finding]:
        moves = {name: move for name in new.columns if (move := _Move.of(name, new, usual)) is not None}
        pairs = list(_swapped(moves))
        crossed = {name for finding, other in pairs for name in (finding.column, other)}
        odd = [finding for finding, _ in pairs]
        odd += [
            finding
            for name, move in moves.items()
            if name not in crossed and (finding := move.units_or_sign()) is not None
        ]
        links, parts = _Links(new, usual), list(_parts(new, usual))
        labels = _inverted(parts) or links.inverted()
        odd += labels
        explained = crossed | {finding.column for finding in odd}
        if not labels:
            odd += links.mirrored(moves, explained)
            mirrored = {finding.column for finding in odd}
            odd += [finding for finding in _segment(new, usual, parts) if finding.column not in mirrored]
        odd += _repeats(new, usual)
        target = list(_target(new, usual))
        explained |= {finding.column for finding in target}  # what moved is told once
        for name, move in moves.items():
            if name not in explained:
                odd += move.reports(self.shift)
        return [*odd, *_nulls(new, usual), *target]


def _finding(
    kind: Kind, column: str, number: float, usual: float | None, reason: str, *, holds: bool = False
) -> Finding:
    rounded = None if usual is None else _short(usual)
    return Finding(kind=kind, column=column, number=_short(number), usual=rounded, reason=reason, holds=holds)


def _emptied(new: Profile, past: Sequence[Profile]) -> Iterator[Finding]:
    """Columns without any value now, that the fullest history makes as good as impossible (below 1e-6)."""
    for name, column in new.columns.items():
        known = [profile for profile in past if name in profile.columns and profile.rows]
        if not known or not new.rows or column.nulls < new.rows:
            continue
        worst = max((profile.columns[name].nulls + 1) / (profile.rows + 1) for profile in known)
        if worst**new.rows < 1e-6:
            usual = float(np.median([profile.columns[name].gaps for profile in known]))
            reason = f"{name} is missing in all {new.rows} rows; usually in {usual:.1%}"
            yield _finding("nulls", name, 1.0, usual, reason, holds=True)


def _nulls(new: Profile, usual: Sequence[Profile]) -> Iterator[Finding]:
    """Columns far emptier than ever before: by a tenth of the rows, and by 4 standard errors."""
    for name, column in new.columns.items():
        shares = [profile.columns[name].gaps for profile in usual if name in profile.columns]
        now = column.gaps
        if not shares or column.nulls == new.rows:
            continue
        most, middle = max(shares), float(np.median(shares))
        error = np.sqrt(most * (1 - most) / new.rows + 1 / new.rows**2 + np.var(shares))
        if now - most > 0.1 and now - most > 4 * error:
            reason = (
                f"{name} is missing in {now:.1%} of the rows; usually in {middle:.1%}, never in more than {most:.1%}"
            )
            yield _finding("nulls", name, now, middle, reason)


class _Move:
    """How one column of the new batch stands to the same column of the batches before."""

    def __init__(self, name: str, new: Numbers | Words, before: Sequence[Numbers | Words]) -> None:
        self.name, self.new, self.before = name, new, before

    @classmethod
    def of(cls, name: str, new: Profile, usual: Sequence[Profile]) -> Self | None:
        """None when the column cannot be compared: a time, a key, a text, or nothing of its kind before."""
        column = new.columns[name]
        if column.kind in {"time", "key", "text"}:
            return None
        before = [profile.columns[name] for profile in usual if name in profile.columns]
        same = [known for known in before if known.kind == column.kind and known.seen >= FEWEST]
        return cls(name, column, same) if same and column.seen >= FEWEST else None

    @cached_property
    def distances(self) -> np.ndarray:
        """To each batch before, in shares of values that moved; 0 where that cannot be told."""
        return np.array([_distance(self.new, known) or 0.0 for known in self.before])

    @cached_property
    def with_gaps(self) -> np.ndarray:
        """The same, missing values counted as one more value."""
        return np.maximum(self.distances, [abs(self.new.gaps - known.gaps) for known in self.before])

    def is_far(self, bar: float) -> bool:
        """Whether it is at least so far from every batch before, the newest first: one that is near answers for all."""
        return all(_with_gaps(self.new, known) >= bar for known in reversed(self.before))

    @cached_property
    def grids(self) -> list[Numbers]:
        """The batches before with a grid."""
        return [known for known in self.before if isinstance(known, Numbers) and known.grid]

    def nearest(self, grid: np.ndarray) -> float:
        """Distance of a grid to the most similar of the batches before."""
        return min(_apart(grid, known.points) for known in self.grids)

    @cached_property
    def unrest(self) -> float:
        """How far a batch before typically is from the most similar other: near 1 for counters and the like."""
        return _unrest([known.points for known in self.grids], _apart)

    def units_or_sign(self) -> Finding | None:
        """Another unit or the other sign: the new quantiles are far from every batch before, and near after undoing it.

        Far is 0.9 in Kolmogorov–Smirnov distance, which a season's shift of three standard deviations does not reach,
        and 0.75 (2.3 of them) for factors above 30; near is 0.1 plus sampling error, and a quarter of far. A column
        that moves much from batch to batch is only asked about factors above 30, by place and width (`_fits`).
        Zeros stay zeros in every unit and are left out.
        """
        if not isinstance(self.new, Numbers) or not self.new.grid or not self.grids:
            return None
        if any(_apart(self.new.points, known.points) < WIDE for known in reversed(self.grids)):
            return None
        far = self.nearest(self.new.points)
        close = min(far / 4, 0.1 + 0.8 * _noise(self.new.filled, max(known.filled for known in self.grids)))
        loose = min(far / 4, max(close, 1.5 * self.unrest))  # no factor fits by chance when there is only one
        undone = self._undone()
        calm = far >= 2 * self.unrest
        distances = {name: self.nearest(grid) for name, (bar, grid) in undone.items() if far >= bar and calm}
        names = [name for name, distance in distances.items() if distance <= (loose if name == "sign" else close)]
        if not names and far >= CLEAR and not self._goes_on():
            sure = {
                name for name, (bar, _) in undone.items() if bar == WIDE or (name == "sign" and self._is_off_zero())
            }
            names = [name for name in undone if name in sure and self._fits(undone[name][1])]
        if not names:
            return None
        name = min(names, key=lambda name: self.nearest(undone[name][1]))
        now = float(self.new.points[10])
        usual = float(np.median([known.points[10] for known in self.grids]))
        match = f"with that undone its quantiles match (KS {self.nearest(undone[name][1]):.2f} instead of {far:.2f})"
        kind = "sign" if name == "sign" else "units"
        what = "has the other sign" if name == "sign" else f"looks like {name}"
        reason = f"{self.name} {what}: its median is {now:.4g}, usually {usual:.4g}; {match}"
        return _finding(kind, self.name, now, usual, reason, holds=True)

    def fits(self, other: Numbers | Words) -> bool:
        """Whether another column's numbers lie where this one's used to, missing values included."""
        if not isinstance(other, Numbers) or not other.grid or not self.grids:
            return False
        return self._fits(other.points) and min(abs(other.gaps - known.gaps) for known in self.grids) <= 0.1

    @cached_property
    def _span(self) -> tuple[float, float]:
        """From the least 5 % quantile of the batches before to their greatest 95 % quantile."""
        return min(float(k.points[1]) for k in self.grids), max(float(k.points[19]) for k in self.grids)

    def _fits(self, grid: np.ndarray) -> bool:
        """Whether a grid lies where the batches before lay together, and is about as wide as any of them.

        Its median is within their 5 % and 95 % quantiles, and half that span beyond; its distance between quartiles within a factor of 2.
        The width is what a counter, that only went on, does not keep, unless its batches differ much in size (`_goes_on`).
        """
        table = np.array([known.points for known in self.grids])
        low, high = self._span
        slack = (high - low) / 2
        widths = table[:, 15] - table[:, 5]
        width = grid[15] - grid[5]
        return bool(
            low - slack <= grid[10] <= high + slack and widths.min() / 2 <= width <= widths.max() * 2 and width > 0
        )

    def _goes_on(self) -> bool:
        """Whether the new median is the next step of a counter: all steps went one way, and this one is not much longer."""
        if not isinstance(self.new, Numbers):
            return False
        steps = np.diff([*(known.points[10] for known in self.grids), self.new.points[10]])
        is_counter = len(steps) > 3 and ((steps > 0).all() or (steps < 0).all())
        return bool(is_counter and abs(steps[-1]) <= 3 * np.abs(steps[:-1]).max())

    def _is_off_zero(self) -> bool:
        """Whether the batches before lay further from 0 than they were wide together: no winter changes that sign."""
        low, high = self._span
        return min(abs(low), abs(high)) >= high - low

    def _undone(self) -> dict[str, tuple[float, np.ndarray]]:
        """The new grid with each plausible change undone, and the distance from which on the change is believed.

        The sign is only asked of a column that had one in every batch before, and has the other one now.
        """
        grid = self.new.points if isinstance(self.new, Numbers) else np.zeros(0)
        found: dict[str, tuple[float, np.ndarray]] = {}
        for factor in FACTORS:
            name = f"the usual times {factor:.4g}" if factor > 1 else f"the usual divided by {1 / factor:.4g}"
            found[name] = (WIDE if abs(np.log(factor)) > np.log(30) else CLEAR, grid / factor)
        signs = {_sign(known.points) for known in self.grids}
        if len(signs) == 1 and 0 not in signs and _sign(grid) in {-sign for sign in signs}:
            found["sign"] = (CLEAR, -grid[::-1])
        if isinstance(self.new, Numbers) and self.new.zeros < 0.05 and len(self.grids) > 1:
            # with an offset, zeros would not stay zeros; and a second batch of a counter is just another temperature
            found |= {name: (CLEAR, (grid - offset) / slope) for name, (slope, offset) in SCALES.items()}
        return found

    def reports(self, limit: float) -> Iterator[Finding]:
        """What is worth reading, though it may be a season: shifts, constants, unseen categories."""
        most = max(known.seen for known in self.before)
        if self._median_reaches(limit + _noise(self.new.seen, most) * 0.8):
            number = float(np.median(self.distances))
            rest = (_distance(self.before[-2], self.before[-1]) or 0.0) if len(self.before) > 1 else None
            measure = "KS" if isinstance(self.new, Numbers) else "total variation"
            reason = f"{self.name} moved: {measure} distance to the batches before is {number:.2f}, limit {limit:g}"
            yield _finding("shift", self.name, number, rest, reason)
        before = max(_top(known) for known in self.before)
        if _top(self.new) == 1 and before**self.new.seen < 1e-4:
            reason = f"{self.name} has one value in all {self.new.seen} rows looked at; usually its most frequent one has at most {before:.1%}"
            yield _finding("constant", self.name, 1.0, before, reason)
        yield from self._unseen()

    def _median_reaches(self, bar: float) -> bool:
        """Whether the median of the distances does; most batches before need not be looked at to deny it."""
        below = 0
        for known in reversed(self.before):
            below += (_distance(self.new, known) or 0.0) < bar
            if below > (len(self.before) + 1) // 2:
                return False
        return float(np.median(self.distances)) >= bar

    def _unseen(self) -> Iterator[Finding]:
        """Listed categories that no list before has, when they are more than those lists could have left out."""
        if not isinstance(self.new, Words) or self.new.kind != "category":
            return
        lists = [known for known in self.before if isinstance(known, Words) and known.values]
        seen = {value for known in lists for value in known.values}
        hidden = max((min(known.shares.values()) for known in lists if known.rest > 0), default=0.0)
        fresh = {value: share for value, share in self.new.shares.items() if value not in seen and share > 3 * hidden}
        if lists and fresh:
            rate, some = sum(fresh.values()), ", ".join(f"'{value}'" for value in list(fresh)[:3])
            reason = f"{self.name} has categories never seen before in {rate:.1%} of the rows: {len(fresh)}, among them {some}"
            yield _finding("categories", self.name, rate, 0.0, reason)


def _sign(grid: np.ndarray) -> int:
    """1 or −1 when at least 95 % of the values have that sign, else 0."""
    return int(grid[1] > 0) - int(grid[19] < 0)


def _unrest(items: Sequence[Any], distance: Callable[[Any, Any], float]) -> float:
    """The median of the distances to the most similar other; 0 with fewer than two."""
    if len(items) < 2:
        return 0.0
    table = np.full((len(items), len(items)), np.inf)
    for i in range(len(items)):
        for j in range(i):
            table[i, j] = table[j, i] = distance(items[i], items[j])
    return float(np.median(table.min(axis=1)))


def _top(column: Numbers | Words) -> float:
    """Share of the most frequent value; a long tail that is not listed counts as no constant."""
    if isinstance(column, Numbers):
        return column.mode
    return max(column.counts, default=0) / max(column.seen, 1)


def _swapped(moves: dict[str, _Move]) -> Iterator[tuple[Finding, str]]:
    """Pairs of columns that are far from themselves and near each other, in the same batch before; with the second.

    Missing values move with their column, so they count as one more value.
    """
    far = {name: move for name, move in moves.items() if move.new.kind != "bool" and move.is_far(0.4)}
    restless = {name: _unrest(move.before, _with_gaps) for name, move in far.items()}
    found = []
    for one, other in ((a, b) for a in far for b in far if a < b and far[a].new.kind == far[b].new.kind):
        a, b = far[one], far[other]
        straight = float(min(a.with_gaps.min(), b.with_gaps.min()))
        unrest = max(restless[one], restless[other])
        pairs = zip(a.before, b.before, strict=False) if len(a.before) == len(b.before) else ()
        cross = min((max(_with_gaps(a.new, y), _with_gaps(b.new, x)) for x, y in pairs), default=1.0)
        few = _noise(min(a.new.seen, b.new.seen), max(known.seen for known in (*a.before, *b.before)))
        if unrest > straight / 2:
            continue
        fits = straight >= CLEAR and a.fits(b.new) and b.fits(a.new)
        if fits or cross <= min(straight / 3, max(0.1 + 0.8 * few, 1.5 * unrest)):
            found.append((cross, one, other, straight))
    taken: set[str] = set()
    for cross, one, other, straight in sorted(found):
        if taken.isdisjoint({one, other}):
            taken |= {one, other}
            reason = f"{one} and {other} look swapped: each matches the other's usual values (distance {cross:.2f}), not its own ({straight:.2f})"
            yield _finding("swapped", one, straight, cross, reason, holds=True), other


def _with_gaps(one: Numbers | Words, other: Numbers | Words) -> float:
    """Distance of two columns, missing values counted as a value."""
    return max(_distance(one, other) or 0.0, abs(one.gaps - other.gaps))


class _Links:
    """Each feature's link with the target, now and in the batches before; a category is a feature of its own.

    The scale is ROC AUC − ½ throughout; for the 0/1 column "value is c" it is (P(c | positive) − P(c | negative))/2.
    """

    def __init__(self, new: Profile, usual: Sequence[Profile]) -> None:
        now, past = _links(new), [_links(profile) for profile in usual]
        self.names = [name for name in now if any(name in links for links in past)]
        self.now = np.array([now[name][0] for name in self.names])
        known = [np.array([links[name] for links in past if name in links]) for name in self.names]
        weights = [1 / links[:, 1] ** 2 for links in known]
        self.usual = np.array([np.average(k[:, 0], weights=w) for k, w in zip(known, weights, strict=True)])
        restless = np.array(
            [max(k[:, 0].var(ddof=1) - (k[:, 1] ** 2).mean(), 0.0) if len(k) > 2 else 0.0 for k in known]
        )
        self.error = np.sqrt(np.array([now[name][1] ** 2 for name in self.names]) + restless)
        few = np.array([len(k) for k in known])
        past_error = np.sqrt(np.array([1 / w.sum() for w in weights]) + restless / np.maximum(few, 1))
        self.strength = np.divide(np.abs(self.usual), past_error, out=np.zeros(len(few)), where=past_error > 0)
        self.signal = (self.strength >= 4) & (np.abs(self.usual) >= 0.03)

    def slope(self, chosen: np.ndarray) -> float:
        """How much of the usual links is there now: 1 is all, 0 none, −1 inverted (least squares through 0)."""
        weights = 1 / self.error[chosen] ** 2
        below = (weights * self.usual[chosen] ** 2).sum()
        return float((weights * self.now[chosen] * self.usual[chosen]).sum() / below) if below else 0.0

    def inverted(self) -> list[Finding]:
        """Labels that mean the opposite: the features' links with the target point the other way, beyond doubt.

        Only features count whose usual link is 4 standard errors from none. Slope at most −0.4, and the strongest link
        5 standard errors on the wrong side, or all of them 4 on average (no independence assumed).
        """
        chosen = self.signal
        if not chosen.any():
            return []
        against = self.now[chosen] * np.sign(self.usual[chosen]) / self.error[chosen]
        slope = self.slope(chosen)
        strongest = float(against[np.argmax(self.strength[chosen])])
        together = float(np.average(against, weights=np.abs(self.usual[chosen])))
        if slope > -0.4 or (strongest > -5 and together > -4):
            return []
        name = np.array(self.names)[chosen][np.argmax(self.strength[chosen])]
        at = self.names.index(str(name))
        reason = (
            f"the labels look inverted: {int((against < 0).sum())} of {int(chosen.sum())} links between feature and target "
            f"point the other way; {name} alone has ROC AUC {0.5 + self.now[at]:.2f}, usually {0.5 + self.usual[at]:.2f}"
        )
        return [_finding("labels", "", slope, 1.0, reason, holds=True)]

    def mirrored(self, moves: dict[str, _Move], known: set[str]) -> list[Finding]:
        """A column that is symmetric around 0 shows a change of sign only in its link with the target.

        Its own link turns round by 5 standard errors, at least half as strong as before, while at least two others with
        a signal stay (slope above 0.3), and its mirrored quantiles fit.
        """
        found = []
        for at, name in enumerate(self.names):
            move = moves.get(name)
            if (
                move is None
                or name in known
                or not move.grids
                or not isinstance(move.new, Numbers)
                or not move.new.grid
            ):
                continue
            others = self.signal & (np.arange(len(self.names)) != at)
            now, usual = self.now[at], self.usual[at]
            turned = self.signal[at] and now * np.sign(usual) < -max(5 * self.error[at], abs(usual) / 2)
            if not turned or others.sum() < 2 or self.slope(others) < 0.3:
                continue
            far = move.nearest(-move.new.points[::-1])
            if far <= 0.1 + 0.8 * _noise(move.new.filled, max(known.filled for known in move.grids)):
                reason = f"{name} looks as if it had the other sign: alone it has ROC AUC {0.5 + now:.2f}, usually {0.5 + usual:.2f}, and the other columns' links are as ever"
                found.append(_finding("sign", name, now, float(usual), reason, holds=True))
        return found


def _links(profile: Profile) -> dict[str, tuple[float, float]]:
    """(link, standard error) of every feature and of every listed category, by name."""
    found: dict[str, tuple[float, float]] = {}
    positives, rows = profile.positives or 0, profile.sampled
    for name, column in profile.columns.items():
        if isinstance(column, Numbers):
            if column.link is not None and column.error:
                found[name] = (column.link, column.error)
            continue
        p = positives - column.missing[1]
        n = column.seen - p
        if min(p, n) < 5:
            continue
        for value, count, positive in list(zip(column.values, column.counts, column.positives, strict=False)):
            share = (count + 1) / (column.seen + 2)
            error = 0.5 * np.sqrt(share * (1 - share) * (1 / p + 1 / n))
            found[f"{name}={value}"] = ((positive / p - (count - positive) / n) / 2, float(error))
    return found if rows else {}


@dataclass(frozen=True)
class _Part:
    """One segment of one column.

    Attributes:
        column, where: the column, and the segment in words.
        now: rows and positives in the new batch.
        before: (batches, 2) rows and positives of the same values in the batches before.
        alike: (batches, 2) the same by rank instead of value, so that a shift of the column changes nothing.
    """

    column: str
    where: str
    now: tuple[int, int]
    before: np.ndarray
    alike: np.ndarray


def _parts(new: Profile, usual: Sequence[Profile]) -> Iterator[_Part]:
    """Every segment of every feature, where there are classes."""
    known = [profile for profile in usual if profile.positives is not None]
    if new.positives is None or not known:
        return
    for name, column in new.columns.items():
        past = [profile.columns[name] for profile in known if name in profile.columns]
        if isinstance(column, Words) and column.positives:
            yield from _word_parts(name, column, [old for old in past if isinstance(old, Words) and old.positives])
        elif isinstance(column, Numbers) and column.segments:
            yield from _number_parts(name, column, [old for old in past if isinstance(old, Numbers) and old.segments])


def _word_parts(name: str, column: Words, past: Sequence[Words]) -> Iterator[_Part]:
    tables = [dict(zip(k.values, zip(k.counts, k.positives, strict=True), strict=True)) for k in past]
    for value, count, positive in zip(column.values, column.counts, column.positives, strict=True):
        before = _pairs(table.get(value, (0, 0)) for table in tables)
        yield _Part(name, f"{name} is {value}", (count, positive), before, before)
    before = _pairs(known.missing for known in past)
    yield _Part(name, f"{name} is missing", column.missing, before, before)


def _number_parts(name: str, column: Numbers, past: Sequence[Numbers]) -> Iterator[_Part]:
    for at, where in enumerate(("is missing", "is 0")):
        if len(column.segments) > at:
            before = _pairs(known.segments[at] if len(known.segments) > at else (0, 0) for known in past)
            yield _Part(name, f"{name} {where}", column.segments[at], before, before)
    if not column.grid:
        return
    ends, shares = column.ends, column.cumulated[0] / max(column.filled, 1)
    values = [_between(known, known.ends, ends) if known.grid else np.zeros((10, 2)) for known in past]
    ranks = [_between(known, None, shares) if known.grid else np.zeros((10, 2)) for known in past]
    for at, now in enumerate(column.segments[2:]):
        where = f"{name} is between {ends[at]:.4g} and {ends[at + 1]:.4g}"
        yield _Part(name, where, now, _pairs(table[at] for table in values), _pairs(table[at] for table in ranks))


def _between(column: Numbers, mine: np.ndarray | None, ends: np.ndarray) -> np.ndarray:
    """(10, 2) rows and positives of a column between other ends, spread evenly within its own segments.

    Its own ends are `mine`, or its shares of rows.
    """
    rows, positives = column.cumulated
    own = rows / max(rows[-1], 1) if mine is None else mine
    held = np.empty((10, 2))
    for at, counts in enumerate((rows, positives)):
        reached = np.interp(ends, own, counts)
        held[:, at] = reached[1:] - reached[:-1]
    return held


def _segment(new: Profile, usual: Sequence[Profile], parts: Sequence[_Part]) -> list[Finding]:
    """The segment whose share of positives left what is usual there, while the rest of the batch did not.

    A candidate has at least 15 rows now and 30 before, is nearly pure (at most 5 % or at least 95 %) and 0.3 away from
    the usual, or 0.5 away; the rest moved less than a third of that; and it is 6 standard errors away (1e-9, so that
    hundreds of segments need no further correction), the spread between the batches before included. All this holds
    for the same values and for the same ranks: a season moves a column under its segments.
    """
    known = [profile for profile in usual if profile.positives is not None]
    rate = sum(profile.positives or 0 for profile in known) / max(sum(profile.sampled for profile in known), 1)
    found = []
    for part in parts:
        rows, positive = part.now
        now, rest = positive / max(rows, 1), ((new.positives or 0) - positive) / max(new.sampled - rows, 1)
        one, other = (_beyond(part.now, before, rest - rate) for before in (part.before, part.alike))
        if rows >= 15 and one and other and one[1] * other[1] > 0:
            found.append((min(one[0], other[0]), part.column, part.where, now, now - one[1], rows, rest))
    if not found:
        return []
    sigmas, name, where, now, then, rows, rest = max(found)
    reason = (
        f"where {where}, {now:.0%} of {rows} rows are positive, usually {then:.0%} ({sigmas:.0f} standard errors), "
        f"while the rest of the batch has {rest:.0%}, usually {rate:.0%}"
    )
    return [_finding("segment", name, now, then, reason, holds=True)]


def _beyond(segment: tuple[int, int], before: np.ndarray, elsewhere: float) -> tuple[float, float] | None:
    """Standard errors and distance of a segment's rate from the usual; None when that is nothing extreme."""
    (rows, positive), (weight, hits) = segment, before.sum(axis=0)
    if not rows or weight < 30:
        return None
    now = positive / rows
    gap = now - hits / weight
    is_extreme = abs(gap) >= 0.5 or (abs(gap) >= 0.3 and min(now, 1 - now) <= 0.05)
    if not is_extreme or abs(elsewhere) > abs(gap) / 3:
        return None
    each = before[before[:, 0] >= 10]
    smooth = (hits + 1) / (weight + 2)
    chance = smooth * (1 - smooth)
    between = 0.0
    if len(each) > 2:
        between = max(float((each[:, 1] / each[:, 0]).var(ddof=1) - (chance / each[:, 0]).mean()), 0.0)
    sigmas = abs(gap) / np.sqrt(chance * (1 / rows + 1 / weight) + between)
    return (float(sigmas), float(gap)) if sigmas >= 6 else None


def _inverted(parts: Sequence[_Part]) -> list[Finding]:
    """Labels that mean the opposite: where positives used to be many they are few, beyond doubt.

    Each column is asked by itself how the usual rates of its segments go with the labels now (a score test: slope 1 is
    as ever, −1 inverted), by value and by rank, the better of both counting. It takes part when its usual rates differ
    beyond chance (χ² above its degrees of freedom by 6 of its standard deviations) and did so in the same sense in most
    of the batches before. The column with the most signal is 5 standard errors on the wrong side, or all are 4 on
    average (no independence assumed), and the slope over all is at most −0.4.
    """
    columns: dict[str, list[_Part]] = {}
    for part in parts:
        columns.setdefault(part.column, []).append(part)
    scores = {name: score for name, group in columns.items() if (score := _score(group)) is not None}
    if not scores:
        return []
    z, slopes, signal = (np.array(part) for part in zip(*scores.values(), strict=True))
    slope, most = float(np.average(slopes, weights=signal)), int(np.argmax(signal))
    if slope > -0.4 or (z[most] > -5 and float(np.average(z, weights=np.sqrt(signal))) > -4):
        return []
    reason = (
        f"the labels look inverted: in {int((z < 0).sum())} of the {len(z)} columns that tell something about the target, "
        f"positives are now rare where they were frequent; in {list(scores)[most]} by {-z[most]:.0f} standard errors"
    )
    return [_finding("labels", "", slope, 1.0, reason, holds=True)]


def _score(group: Sequence[_Part]) -> tuple[float, float, float] | None:
    """Standard errors, slope and usual signal of one column; None when it has no signal or no rows."""
    found = [_slope(group, by) for by in ("before", "alike")]
    known = [score for score in found if score is not None]
    return max(known, key=lambda score: score[1]) if len(known) == len(found) else None


def _slope(group: Sequence[_Part], by: Literal["before", "alike"]) -> tuple[float, float, float] | None:
    """The same by value or by rank: t = Σ(positives − n·rate)·d, variance rate·(1 − rate)·Σn·d², d the usual rates, centred."""
    before = np.stack([getattr(part, by) for part in group])  # (segments, batches, 2)
    weight, hits = before.sum(axis=1).T
    chosen = weight >= 20
    now = np.array([part.now for part in group], dtype=float)[chosen]
    weight, hits = weight[chosen], hits[chosen]
    if chosen.sum() < 2 or not 0 < hits.sum() < weight.sum() or not 0 < now[:, 1].sum() < now[:, 0].sum():
        return None
    rates, rate = hits / weight, hits.sum() / weight.sum()
    signal, free = float((weight * (rates - rate) ** 2).sum() / (rate * (1 - rate))), int(chosen.sum()) - 1
    if signal < free + 6 * np.sqrt(2 * free):
        return None
    _, slopes = _against(before[chosen].transpose(1, 0, 2), rates)
    if np.median(slopes) < 0.3:
        return None
    sigmas, slope = _against(now[None], rates)
    return float(sigmas[0]), float(slope[0]), signal


def _against(tables: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors and slope, (batches,) each, of (batches, segments, 2) rows and positives on the usual rates.

    Zero where nothing can be told.
    """
    rows, positives = tables[..., 0], tables[..., 1]
    total = np.maximum(rows.sum(axis=1), 1)
    rate = positives.sum(axis=1) / total
    score = ((positives - rows * rate[:, None]) * rates).sum(axis=1)
    spread = np.maximum((rows * rates**2).sum(axis=1) - (rows * rates).sum(axis=1) ** 2 / total, 0)
    error = np.sqrt(rate * (1 - rate) * spread)
    known = error > 1e-9
    return tuple(np.divide(score, below, out=np.zeros(len(score)), where=known) for below in (error, spread))


def _pairs(items: Iterable[Any]) -> np.ndarray:
    return np.array(list(items), dtype=float).reshape(-1, 2)


def _repeats(new: Profile, usual: Sequence[Profile]) -> list[Finding]:
    """Same features and target far more often than usual, under whatever keys.

    Either two rows are the same 50 times as probably as in any batch before, a row has 2 twins on average, and a tenth
    of the rows could go without loss; or among as many rows as the smaller batch has there are a fifth as many
    different ones. Both compare batches of any size, and rows with few columns, that repeat by nature, with their like.
    """
    now, past = new.repeats, [profile.repeats for profile in usual]
    chances = sum(known.rows * (known.rows - 1) / 2 for known in past)
    likely = max(1 / max(chances, 1), *(known.pairs for known in past))
    twins = now.pairs * (now.rows - 1)
    share = 1 - now.different(now.rows) / now.rows
    often = now.pairs >= 50 * likely and twins >= 2 and share >= 0.1
    shrunk = [(now.different(min(now.rows, k.rows)), k.different(min(now.rows, k.rows))) for k in past]
    fewer = all(mine <= theirs / 5 and theirs >= 50 for mine, theirs in shrunk)
    if not (often or fewer):
        return []
    before = float(np.median([1 - known.different(known.rows) / known.rows for known in past]))
    reason = (
        f"{share:.1%} of the {now.rows} rows repeat the features and the target of another row (usually {before:.1%}); "
        f"a row has {twins:.3g} twins on average"
    )
    return [_finding("repeats", "", share, before, reason, holds=True)]


def _target(new: Profile, usual: Sequence[Profile]) -> Iterator[Finding]:
    """One class only, or a share of positives 0.1 and 5 standard errors from the usual, its own spread included."""
    known = [profile for profile in usual if profile.positives is not None and profile.sampled]
    if new.positives is None or not known or not new.sampled:
        return
    rates = np.array([(profile.positives or 0) / profile.sampled for profile in known])
    now, then = new.positives / new.sampled, float(np.median(rates))
    if now in {0.0, 1.0} and 0 < then < 1:
        reason = f"{new.target} has one class only in {new.sampled} rows: {now:.0%} positive, usually {then:.1%}"
        yield _finding("target", new.target, now, then, reason)
        return
    chance = max(then * (1 - then), 1 / new.sampled)
    error = np.sqrt(chance * (1 / new.sampled + 1 / known[-1].sampled) + rates.var())
    if abs(now - then) >= max(0.1, 5 * error):
        reason = f"{new.target} is positive in {now:.1%} of the rows; usually in {then:.1%}"
        yield _finding("target", new.target, now, then, reason)


class Difference(BaseModel, frozen=True):
    """How one column of a set of rows differs from the same column of another.

    Attributes:
        column: its name.
        size: the largest of KS, total variation and change of the missing share: 0 the same, 1 nothing in common.
        nulls: missing share of the first and of the second.
        psi: population stability index over the first's deciles, or over categories; None when not comparable.
        ks: Kolmogorov–Smirnov distance; for categories total variation.
        mean, median: of the first and of the second; None when not numbers.
        new, vanished: categories that only the second, only the first lists.
    """

    column: str
    size: float
    nulls: tuple[float, float]
    psi: float | None = None
    ks: float | None = None
    mean: tuple[float | None, float | None] = (None, None)
    median: tuple[float | None, float | None] = (None, None)
    new: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()


def differences(a: Profile, b: Profile) -> list[Difference]:
    """How the rows behind `b` differ from those behind `a`, by column, the largest difference first.

    Columns that only one of them has are all difference: size 1, nothing else known.
    """
    found = [
        _difference(name, a.columns[name], b.columns[name]) if name in a.columns and name in b.columns
        else Difference(column=name, size=1.0, nulls=(float(name not in a.columns), float(name not in b.columns)))
        for name in {**a.columns, **b.columns}
    ]  # fmt: skip
    return sorted(found, key=lambda difference: -difference.size)


def _difference(name: str, a: Numbers | Words, b: Numbers | Words) -> Difference:
    moved = _distance(a, b)
    size = max(moved or 0.0, abs(a.gaps - b.gaps)) if type(a) is type(b) else 1.0
    about: dict[str, Any] = {"column": name, "size": _short(size), "nulls": (a.gaps, b.gaps)}
    if isinstance(a, Numbers) and isinstance(b, Numbers):
        about |= {"mean": (a.mean, b.mean), "median": (a.quantile(0.5), b.quantile(0.5))}
        if moved is not None:
            cuts = np.unique([a.quantile(share) or 0.0 for share in np.linspace(0.1, 0.9, 9)])
            about["psi"] = stability(*(np.diff(np.r_[0.0, known.share_below(cuts), 1.0]) for known in (a, b)))
    elif isinstance(a, Words) and isinstance(b, Words) and moved is not None:
        names = sorted({*a.values, *b.values})
        shares = (np.array([*(known.shares.get(name, 0.0) for name in names), known.rest]) for known in (a, b))
        about |= {
            "psi": stability(*shares),
            "new": tuple(value for value in b.values if value not in a.shares),
            "vanished": tuple(value for value in a.values if value not in b.shares),
        }
    return Difference(**about, ks=None if moved is None else _short(moved))


def stability(p: np.ndarray, q: np.ndarray) -> float:
    """Population stability index of two vectors of shares: Σ (q − p)·ln(q/p), shares below 1e-4 counted as that."""
    p, q = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    return _short(float(((q - p) * np.log(q / p)).sum()))
