"""Leaks: what knows the answer before it should, and must not be trained on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_pandas_object
from pydantic import BaseModel, Field

from tasks.config.errors import suggestion
from tasks.ml.contract import NUMERIC, Column, Contract
from tasks.ml.metrics import Estimate

NUMBERED = r"(?P<number>[0-9]{1,15})[^0-9]*$"  # the last number in a text
SAMPLE = 100_000  # rows that are looked at for what tells the target; with more, the numbers hardly move
BLOCK = 16_384  # rows that are compared at a time
FEWEST = 20  # rows of either class; with fewer, a perfect order is no surprise
FOLDS = 5
SMOOTHING = 10.0  # rows of the overall rate that every value starts with, so that a rare value says little
BINS = 100
MANY = 100  # a column with more values than this may be an identifier: its characters and remainders are looked at
REMAINDERS = (*range(2, 17), 100)
HOUR, DAY = 3.6e9, 8.64e10  # microseconds
REACH = 730 * DAY  # a number is read as an instant when nearly all rows have one this near to their time
NEARLY_ALL, MOST = 0.95, 0.5
EPOCHS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}  # microseconds in each unit
DATES = ("ISO8601", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y%m%d")
RECENT = 0.1  # share of the newest rows, whose gaps are held against those of the older ones
PARTS = 4  # of the learned rows, in order of time, whose copies elsewhere tell how many are usual
GAPS = 0.2  # by how much more of the newest rows may lack a value before it is told
Z = 1.645  # 90 % intervals, as everywhere


class Leak(BaseModel, frozen=True):
    """One thing that knows the answer before it should.

    Attributes:
        kind: separable, stamped later, filled later, key, duplicates, or group.
        column: where; several features together have no column.
        number: what was measured; limit: what it was held against.
        reason: a sentence with the numbers and the next move, for a person.
        blocks: whether nothing may be trained; else it is only told.
    """

    kind: str
    column: str | None
    number: float
    limit: float
    reason: str
    blocks: bool


class Leaks(BaseModel, frozen=True, extra="forbid"):
    """How much the rows may say about the target, and what a person looked at and accepts."""

    auc: float = Field(default=0.99, gt=0.5, lt=1, description="a column that alone tells the target better is a leak")
    allow: tuple[str, ...] = Field(default=(), description="columns that a person looked at: known before the label")
    duplicates: float = Field(
        default=0.1, gt=0, le=1,
        description="share of the holdout that may stand in train under other keys, above what train shows within itself",
    )  # fmt: skip
    group: str | None = Field(
        default=None, description="a column (patient, device) whose values may not stand on both sides of the split"
    )

    def fits(self, contract: Contract) -> None:
        """Checks that every column named here is one of the contract.

        Raises:
            ValueError: one is not.
        """
        named = {"leaks.allow": self.allow, "leaks.group": (self.group,) if self.group else ()}
        for field, columns in named.items():
            for name in columns:
                if name not in contract.columns:
                    raise ValueError(
                        f"{field} names '{name}', which is not among the columns.{suggestion(name, contract.columns)}"
                    )

    def find(
        self, learned: "Stacked", truths: Mapping[str, np.ndarray], holdout: pd.DataFrame, contract: Contract, seed: int = 0,
        *, repeats: bool = False,
    ) -> list[Leak]:  # fmt: skip
        """Every leak, those that block first.

        Args:
            learned: train and validation; the only rows whose target is looked at.
            truths: yes-or-no questions about their target, as a kind asks them: each (n,) of 0 and 1 by what it asks; none where there is none.
            holdout: read for two questions only, whether its rows and whether its groups stand in `learned`; it needs no target.
            contract: what the columns are.
            seed: of the sample and of the folds.
            repeats: whether rows are alike by their nature, as those of one user are: then they are no copies.
        """
        looked = [name for name in contract.features if name not in self.allow]
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(len(learned))[:SAMPLE])
        folds, rows = rng.integers(0, FOLDS, len(chosen)), learned.at(chosen)
        times = rows[contract.time]
        ordered = rows.at(_by_time(times))
        asked = {"the target" if len(truths) == 1 else f"whether {what}": truth[chosen].astype(np.int64) for what, truth in truths.items()}  # fmt: skip
        found = [
            *self._telling(rows, asked, folds, contract),
            *(_stamped(name, rows[name], times, contract.columns) for name in looked),
            *(_filled_later(name, ordered[name]) for name in looked),
            None if repeats else self._doubled(learned, holdout, contract, rng),
            *(self._bleed(name, learned, holdout, contract) for name in self._groups(contract)),
        ]
        told = sorted((leak for leak in found if leak), key=lambda leak: leak.blocks)  # what comes last stands
        return sorted({(leak.kind, leak.column): leak for leak in told}.values(), key=lambda leak: not leak.blocks)

    def _telling(
        self, rows: "Stacked", asked: Mapping[str, np.ndarray], folds: np.ndarray, contract: Contract
    ) -> Iterator[Leak | None]:
        """Features and parts of the key that alone tell a question's answer."""
        looked = [name for name in contract.features if name not in self.allow]
        keys = [name for name in contract.key if name not in {*self.allow, contract.time, contract.target}]
        for names, key in ((looked, False), (keys, True)):
            yield from (self._separable(name, rows, asked, folds, contract, key=key) for name in names if asked)

    def _separable(
        self, name: str, rows: "Stacked", asked: Mapping[str, np.ndarray], folds: np.ndarray, contract: Contract, *, key: bool
    ) -> Leak | None:  # fmt: skip
        """Whether one column alone tells an answer: the one that it tells most surely, in the form in which it does so."""
        told = [
            (low, area, high, what + how, count)
            for how, grouped in forms(rows[name], contract.columns[name], key=key)
            for what, truth in asked.items()
            for area, count, low, high in [grouped.tells(truth, folds, self.auc)]
            if area > self.auc
        ]
        if not told:
            return None
        low, area, high, what, count = max(told, key=lambda form: form[0])  # of equals the plainest, which comes first
        numbers = f"AUC {area:.3f} [{low:.3f}, {high:.3f}] on {count:,} rows, limit {self.auc:g}"
        blocks = low > self.auc
        move = (
            "Whatever is derived from it leaks: name the rows by what is known before the label"
            if key
            else "Take it out of the contract"
        )
        advice = f"{move}, or put it under leaks.allow when it is known before the label."
        said = f"{'key' if key else 'column'} '{name}' alone tells {what}: {numbers}."
        return Leak(
            kind="key" if key else "separable", column=name, number=area, limit=self.auc, blocks=blocks,
            reason=f"{said} {advice}" if blocks else f"{said} Too few rows to be sure; look at it.",
        )  # fmt: skip

    def _doubled(
        self, learned: "Stacked", holdout: pd.DataFrame, contract: Contract, rng: np.random.Generator
    ) -> Leak | None:
        """Whether more of the holdout stands in train, under other keys, than parts of train stand in the rest of it.

        Both are looked up in as many rows, the holdout in some of train by chance, for the more rows, the more of them are
        alike by themselves; what is above that counts for all of train. Of the parts the one counts that is found least: in
        the others the same copies may stand.
        """
        names, at = list(contract.features), contract.time
        size = min(len(holdout), len(learned) // 2)
        if size < FEWEST:
            return None
        before = np.concatenate([fingerprints(part, names, contract.columns) for part in learned.parts])
        before = before[_by_time(learned[at])]
        judged = fingerprints(holdout, names, contract.columns)
        some, times = rng.choice(before, len(before) - size, replace=False), len(before) / (len(before) - size)
        starts = {round(part * (len(before) - size) / (PARTS - 1)) for part in range(PARTS)}
        usual = min(_share_within(before[at : at + size], np.delete(before, slice(at, at + size))) for at in starts)
        share = min(1.0, usual + times * (_share_within(judged, some) - usual))
        sure = times * Z * np.sqrt(share * (1 - share) / len(judged) + usual * (1 - usual) / size)
        if share - usual <= self.duplicates:
            return None
        blocks = bool(share - usual - sure > self.duplicates)
        return Leak(
            kind="duplicates", column=None, number=share - usual, limit=self.duplicates, blocks=blocks,
            reason=f"{share:.1%} of {len(judged):,} holdout rows stand in train too, with all features alike to three digits; within train it is {usual:.1%}, "
            f"and {self.duplicates:.1%} more is the limit. Take the copies out, or raise leaks.duplicates when such rows are truly new.",
        )  # fmt: skip

    def _groups(self, contract: Contract) -> list[str]:
        """The group that was named; else the parts of a key that has several, which are told and never block."""
        return [self.group] if self.group else [name for name in contract.key if len(contract.key) > 1]

    def _bleed(self, name: str, learned: "Stacked", holdout: pd.DataFrame, contract: Contract) -> Leak | None:
        """Whether values of a column stand on both sides of the split."""
        if name in {contract.time, contract.target} or holdout.empty:
            return None
        known = holdout[name].notna()
        share = float((holdout[name].isin(learned[name].dropna().unique()) & known).mean())
        if share == 0:
            return None
        said = f"{share:.1%} of {len(holdout):,} holdout rows belong to a '{name}' that was trained on"
        advice = "Split so that each stands on one side, or take leaks.group away when known ones are asked about in production too."
        return Leak(
            kind="group", column=name, number=share, limit=0, blocks=bool(self.group),
            reason=f"{said}. {advice}" if self.group else f"{said}; leaks.group: {name} would refuse that.",
        )  # fmt: skip


@dataclass(frozen=True)
class Stacked:
    """Rows of several frames one under the other; a column is joined when it is asked for, because all of them need not be in memory again.

    Attributes:
        parts: the frames.
        places: (m,) which of all rows, in this order; None: all of them.

    >>> rows = Stacked((pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [3]})))
    >>> len(rows), rows["a"].tolist(), rows.at(np.array([2, 0]))["a"].tolist()
    (3, [1, 2, 3], [3, 1])
    """

    parts: tuple[pd.DataFrame, ...]
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return sum(map(len, self.parts)) if self.places is None else len(self.places)

    def __getitem__(self, name: str) -> pd.Series:
        column = pd.concat([part[name] for part in self.parts], ignore_index=True)
        return column if self.places is None else column.iloc[self.places]

    def at(self, places: np.ndarray) -> "Stacked":
        """The rows at these places, (m,), in this order."""
        return Stacked(self.parts, places if self.places is None else self.places[places])


def _by_time(times: pd.Series) -> np.ndarray:
    """Places of rows in the order of time, those without one last: (n,)."""
    return times.reset_index(drop=True).sort_values(kind="stable").index.to_numpy()


@dataclass(frozen=True)
class Grouped:
    """One column of (n,) rows as numbered groups.

    Attributes:
        codes: (n,) the group of each row, from 0; -1 where the row is left out.
        ordered: the groups' numbers are an order; else they are only names.
    """

    codes: np.ndarray
    ordered: bool

    def tells(self, truth: np.ndarray, folds: np.ndarray, limit: float) -> tuple[float, int, float, float]:
        """AUC of the groups against the target, rows, and interval; an AUC of 0 where it is not above the limit or not defined.

        An order is taken in its better direction. Names are taken by their share of positives among rows of *other* folds, drawn
        towards the overall share, so that a name that stands once says nothing (Micci-Barreca 2001, out of fold).
        """
        used = self.codes >= 0
        codes, labels, part = self.codes[used], truth[used], folds[used]
        positive, rows = int(labels.sum()), len(labels)
        if min(positive, rows - positive) < FEWEST:
            return 0.0, rows, 0.0, 0.0
        groups = int(codes.max()) + 1
        total = np.bincount(codes, minlength=groups).astype(float)
        hits = np.bincount(codes, weights=labels, minlength=groups)
        if self.ordered:
            area = _area(np.arange(groups), hits, total - hits)
            area = max(area, 1 - area)
        else:
            area = _area(hits / np.maximum(total, 1), hits, total - hits)  # seen by itself: never below the honest one
            if area > limit:
                area = _out_of_fold(codes * FOLDS + part, labels, groups)
        return (area, rows, *auc_interval(area, positive, rows - positive)) if area > limit else (0.0, rows, 0.0, 0.0)


def forms(values: pd.Series, column: Column, *, key: bool = False) -> Iterator[tuple[str, Grouped]]:
    """The ways in which a column can tell something, each with the words for it.

    Its order, its values (numbers in bins of equal size), and being empty; for a column that may be an identifier also characters at
    either end, length, the number in it, and remainders.
    """
    empty = values.isna().to_numpy()
    if empty.any() and not empty.all():
        yield " by being empty", Grouped(empty.astype(np.int64), ordered=True)
    if empty.all():
        return
    if column.type in NUMERIC or column.type == "datetime":
        numbers = _numbers(values)
        yield from _numeric_forms("", numbers, identifier=column.type == "int" or key)
        if column.type == "int" and len(np.unique(numbers[~empty])) > MANY:
            yield from _text_forms(values.astype("Int64").astype("string"))
        return
    texts = values.astype("string")
    codes, distinct = pd.factorize(texts, sort=True)
    yield " by its values", Grouped(np.where(codes < 0, len(distinct), codes), ordered=False)
    if len(distinct) > MANY:
        yield " by its order", Grouped(codes, ordered=True)
        yield " by its length", Grouped(texts.str.len().fillna(0).to_numpy(np.int64), ordered=False)
        yield from _text_forms(texts)
        parted = pc.extract_regex(pa.array(distinct, pa.string()), pattern=NUMBERED)  # ty: ignore[missing-attribute]
        number = parted.flatten()[0].cast(pa.float64()).to_numpy(zero_copy_only=False)
        digits = np.append(number, np.nan)
        if np.isfinite(digits).any():
            yield from _numeric_forms(" by the number in it", digits[codes], identifier=True)


def _numeric_forms(whose: str, numbers: np.ndarray, *, identifier: bool) -> Iterator[tuple[str, Grouped]]:
    """Order and bins of (n,) floats; remainders of whole numbers that may be an identifier."""
    known = np.isfinite(numbers)
    distinct, inverse = np.unique(numbers[known], return_inverse=True)
    ranks = np.full(len(numbers), -1)
    ranks[known] = inverse
    yield whose, Grouped(ranks, ordered=True)
    upto = np.cumsum(np.bincount(inverse))
    bins = np.arange(len(distinct)) if len(distinct) <= MANY else (upto - 1) * BINS // upto[-1]
    named = np.full(len(numbers), bins[-1] + 1)
    named[known] = bins[inverse]
    yield whose or " by its values", Grouped(named, ordered=False)
    if identifier and len(distinct) > MANY and (distinct % 1 == 0).all():
        for by in REMAINDERS:
            left = np.full(len(numbers), -1)
            left[known] = (numbers[known] % by).astype(np.int64)
            yield f"{whose} by its remainder by {by}", Grouped(left, ordered=False)


def _text_forms(texts: pd.Series) -> Iterator[tuple[str, Grouped]]:
    """One to three characters at either end."""
    for size in (1, 2, 3):
        characters = "character" if size == 1 else f"{size} characters"
        for which, cut in (("first", texts.str[:size]), ("last", texts.str[-size:])):
            codes, _ = pd.factorize(cut)
            yield f" by its {which} {characters}", Grouped(codes, ordered=False)


def auc_interval(area: float, positive: int, negative: int) -> tuple[float, float]:
    """90 % interval of an AUC from the numbers of rows of both classes: Newcombe 2006, method 5.

    Hanley and McNeil's variance is taken at the bound, not at the estimate, so that a perfect order of few rows is not taken for certain.

    >>> [round(bound, 3) for bound in auc_interval(1.0, 20, 20)]
    [0.928, 1.0]
    >>> [round(bound, 4) for bound in auc_interval(1.0, 2000, 2000)]
    [0.9993, 1.0]
    """
    half = (positive + negative) / 2

    def beyond(bound: float) -> bool:
        odds = (1 - bound) / (2 - bound) + bound / (1 + bound)
        variance = bound * (1 - bound) * (1 + (half - 1) * odds) / (positive * negative)
        return (area - bound) ** 2 > Z**2 * variance

    return _bisected(beyond, 0.0, area), _bisected(beyond, 1.0, area)


def _bisected(beyond: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where between a place that is beyond and one that is not the border lies."""
    for _ in range(50):
        middle = (outside + inside) / 2
        if beyond(middle):
            outside = middle
        else:
            inside = middle
    return inside


def _out_of_fold(cells: np.ndarray, labels: np.ndarray, groups: int) -> float:
    """AUC when every row is given the smoothed share of positives of its group among rows of other folds."""
    total = np.bincount(cells, minlength=groups * FOLDS).reshape(groups, FOLDS).astype(float)
    hits = np.bincount(cells, weights=labels, minlength=groups * FOLDS).reshape(groups, FOLDS)
    others, theirs = total.sum(axis=1, keepdims=True) - total, hits.sum(axis=1, keepdims=True) - hits
    share = (theirs + SMOOTHING * labels.mean()) / (others + SMOOTHING)
    return _area(share.ravel(), hits.ravel(), (total - hits).ravel())


def _area(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve of groups with a score each and their numbers of rows; ties count half."""
    filled = positive + negative > 0
    _, group = np.unique(scores[filled], return_inverse=True)
    up = np.bincount(group, weights=positive[filled])
    down = np.bincount(group, weights=negative[filled])
    below = np.cumsum(down) - down
    return float((up * (below + down / 2)).sum() / (up.sum() * down.sum()))


def _numbers(values: pd.Series) -> np.ndarray:
    """(n,) floats, NaN where empty or infinite; instants as microseconds."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return _microseconds(values)
    numbers = values.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _microseconds(instants: pd.Series) -> np.ndarray:
    """(n,) floats since 1970, NaN where empty."""
    numbers = instants.astype("datetime64[us, UTC]").astype("int64").to_numpy(dtype=float)
    return np.where(instants.isna(), np.nan, numbers)


# -- instants after the row's own ---------------------------------------------------------------------------------------
def stamps(values: pd.Series, times: pd.Series, kind: str) -> np.ndarray | None:
    """The values read as instants, (n,) microseconds since 1970 with NaN for none; None when they are no instants near the rows' times.

    Numbers are tried as seconds, milli-, micro- and nanoseconds since 1970 and as 20130131; texts as ISO 8601 and the usual dates.

    >>> times = pd.Series(pd.to_datetime(["2013-01-01T10:00Z", "2013-01-02T10:00Z"]))
    >>> stamps(pd.Series([1357038000, 1357124400]), times, "int").tolist()
    [1357038000000000.0, 1357124400000000.0]
    >>> stamps(pd.Series([7, 12]), times, "int") is None
    True
    """
    own = _microseconds(times)
    return next((read for read in _readings(values, kind) if _near(read, own)), None)


def _readings(values: pd.Series, kind: str) -> Iterator[np.ndarray]:
    if kind in {"text", "category"}:
        texts = values.astype("string")
        few = texts.dropna().drop_duplicates().head(200)
        for form in DATES:
            if pd.to_datetime(few, utc=True, errors="coerce", format=form).notna().mean() >= NEARLY_ALL:
                yield _microseconds(pd.to_datetime(texts, utc=True, errors="coerce", format=form))
    elif kind in {"int", "float"}:
        numbers = _numbers(values)
        yield from (numbers * microseconds for microseconds in EPOCHS.values())
        known = np.isfinite(numbers)
        if known.any() and ((numbers[known] >= 19_000_101) & (numbers[known] <= 22_001_231)).all():
            days = pd.Series(numbers).astype("Int64").astype("string")
            yield _microseconds(pd.to_datetime(days, utc=True, errors="coerce", format="%Y%m%d"))
    elif kind == "datetime":
        yield _microseconds(values)


def _near(read: np.ndarray, own: np.ndarray) -> bool:
    known = np.isfinite(read)
    return bool(known.any() and (np.abs(read - own)[known] <= REACH).mean() >= NEARLY_ALL)


def _stamped(name: str, values: pd.Series, times: pd.Series, columns: Mapping[str, Column]) -> Leak | None:
    """Whether a feature holds instants that lie after the row's time for most rows that have one."""
    read = stamps(values, times, columns[name].type)
    if read is None or np.isfinite(read).sum() < FEWEST:
        return None
    own, known = _microseconds(times), np.isfinite(read)
    days_only = (own % DAY == 0).all()
    lag = (read - (read % DAY if days_only else 0) - own)[known]
    share = float((lag > 0).mean())
    if share <= MOST:
        return None
    return Leak(
        kind="stamped later", column=name, number=share, limit=MOST, blocks=True,
        reason=f"column '{name}' holds instants after the row's time in {share:.1%} of {len(lag):,} rows (median {np.median(lag[lag > 0]) / HOUR:,.1f} h later), limit {MOST:.0%}. "
        "Take it out of the contract, or put it under leaks.allow when it is known before the label.",
    )  # fmt: skip


def _filled_later(name: str, values: pd.Series) -> Leak | None:
    """Whether the newest rows lack a value that older rows have: it may be filled in after the label is known, or a source fell silent."""
    recent = max(1, round(len(values) * RECENT))
    empty = values.isna().to_numpy()
    if min(recent, len(values) - recent) < FEWEST:
        return None
    old, new = float(empty[:-recent].mean()), float(empty[-recent:].mean())
    sure = Z * np.sqrt(old * (1 - old) / (len(values) - recent) + new * (1 - new) / recent)
    if new - old - sure <= GAPS:
        return None
    return Leak(
        kind="filled later", column=name, number=new - old, limit=GAPS, blocks=False,
        reason=f"column '{name}' is empty in {new:.1%} of the newest {recent:,} rows and in {old:.1%} of the older ones: is it filled in after the label is known, or did its source fall silent?",
    )  # fmt: skip


# -- rows that stand on both sides --------------------------------------------------------------------------------------
def fingerprints(rows: pd.DataFrame, features: Sequence[str], columns: Mapping[str, Column]) -> np.ndarray:
    """A 64-bit name for every row's features, (n,) uint64, in which floats count to three significant digits.

    >>> rows = pd.DataFrame({"a": [0.12345, 0.12349, 0.2]})
    >>> names = fingerprints(rows, ["a"], {"a": Column(type="float")})
    >>> bool(names[0] == names[1]), bool(names[0] == names[2])
    (True, False)
    """
    made = np.empty(len(rows), dtype=np.uint64)
    for first in range(0, len(rows), BLOCK):  # all rows at once would be here three times
        some = rows[first : first + BLOCK]
        seen = pd.DataFrame({name: _rounded(some[name], columns[name]) for name in features})
        made[first : first + BLOCK] = hash_pandas_object(seen, index=False)  # ty: ignore[not-callable]
    return made


def _rounded(values: pd.Series, column: Column) -> np.ndarray | pd.Series:
    """The values as they are compared: floats to three digits, other numbers and texts as they are."""
    if column.type not in NUMERIC:
        return values.astype("string").fillna("").reset_index(drop=True)
    numbers = _numbers(values)
    return significant(numbers) if column.type == "float" else numbers


def significant(numbers: np.ndarray, digits: int = 3) -> np.ndarray:
    """Floats rounded to so many significant digits.

    >>> significant(np.array([1234.0, -0.0012345, 0.0])).tolist()
    [1230.0, -0.00123, 0.0]
    """
    sized = np.where((numbers == 0) | ~np.isfinite(numbers), 1.0, np.abs(numbers))
    scale = 10.0 ** np.clip(digits - 1 - np.floor(np.log10(sized)), -300, 300)
    return np.round(numbers * scale) / scale + 0.0  # minus zero is zero


def _share_within(rows: np.ndarray, others: np.ndarray) -> float:
    return float(pd.Series(rows).isin(others).mean())  # by hashing: NumPy sorts both


# -- too good to be true ------------------------------------------------------------------------------------------------
def jump(value: float, history: Sequence[Estimate], *, greater_is_better: bool, rows: int) -> float:
    """By how many sigmas a metric is better than the best of the project's past; below 0 when it is not better.

    Scores from 0 to 1 are compared as log odds and losses as logarithms, so that .98 → .99 counts as much as .6 → .75. Sigma is the
    larger of the past values' robust spread (1.4826 × median absolute deviation) and the median half-width of their intervals. Nothing
    counts as nearer to perfect than half a row of `rows`, the number of the rarer class.

    >>> past = [Estimate(value=value, low=value - 0.01, high=value + 0.01) for value in (0.70, 0.71, 0.70, 0.69, 0.70)]
    >>> jump(0.72, past, greater_is_better=True, rows=500) < 1.5, jump(0.99, past, greater_is_better=True, rows=500) > 50
    (True, True)
    """
    edge = 0.5 / max(rows, 1)

    def turned(number: float) -> float:
        inside = max(number, edge)
        return (
            float(np.log(min(inside, 1 - edge) / (1 - min(inside, 1 - edge)))) if greater_is_better else -np.log(inside)
        )

    past = np.array([turned(estimate.value) for estimate in history])
    halves = [abs(turned(estimate.high) - turned(estimate.low)) / 2 for estimate in history]
    sigma = max(1.4826 * float(np.median(np.abs(past - np.median(past)))), float(np.median(halves)), 1e-9)
    return (turned(value) - float(past.max())) / sigma
