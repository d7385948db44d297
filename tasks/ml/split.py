"""Splits: which rows a challenger learns from, which it is tuned on, and which it is judged by."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, Field, model_validator

from tasks.ml.contract import Type

ROW = "_row"  # the column of the rows' names, 32 hex digits each, as the lake hands them out
TRAIN, VALIDATION, HOLDOUT = 0, 1, 2
FEWEST = 50  # rows of a part; with fewer, no number about it means anything

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, strict=True)]


@dataclass(frozen=True)
class Parts:
    """The rows of one snapshot, split for one training; together they are all mature rows but the purged ones, and no row is in two.

    Attributes:
        immature: number of rows whose label may still change; they are in no part.
        late: of a split by time, number of the newest validation rows whose label was not final when the holdout began.
        gap: where the label's delay is longer than validation, the rows between train and validation whose label was not final then either;
            they are in no part.
        unripe: number of train rows whose label was not final then, where too few others would be left.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    holdout: pd.DataFrame
    immature: int = 0
    late: int = 0
    gap: pd.DataFrame = field(default_factory=pd.DataFrame)
    unripe: int = 0

    @property
    def purged(self) -> int:
        """How many rows are in the gap."""
        return len(self.gap)

    @property
    def both(self) -> pd.DataFrame:
        """Train, and validation behind it without the late rows."""
        known = self.validation.iloc[: len(self.validation) - self.late]
        return pd.concat([self.train, known], ignore_index=True)


class Learnable(Protocol):
    """Parts, as far as a model learns from them."""

    @property
    def train(self) -> pd.DataFrame:
        """What it is fitted on first."""
        ...

    @property
    def validation(self) -> pd.DataFrame:
        """What it is calibrated and thresholded with."""
        ...

    @property
    def both(self) -> pd.DataFrame:
        """What it is fitted on at last: train, and validation behind it as far as labels were final when the holdout began."""
        ...

    @property
    def late(self) -> int:
        """How many validation rows are left out of that."""
        ...


Folds = list[tuple[pd.DataFrame, pd.DataFrame]]


class _ByTime(BaseModel, frozen=True, extra="forbid"):
    """What splits have in common whose models have seen nothing newer than some instant."""

    column: str = Field(description="the column of type datetime that orders the rows")
    matures: float = Field(
        default=0,
        ge=0,
        le=36500,
        description="days until a row's label is final, counted back from the newest row; younger rows neither teach nor judge",
    )

    @property
    def by_time(self) -> bool:
        """Whether `seen_until` tells which rows a model has seen; else the split itself tells it, by hash."""
        return True

    def columns_needed(self) -> dict[str, Type | None]:
        """The columns that the contract must have, and of which type; None is any type."""
        return {self.column: "datetime"}

    def newest(self, rows: pd.DataFrame) -> pd.Timestamp | None:
        """The instant from which `matures` is counted back, of all rows, those without a label too; None when there is none."""
        return _last(rows, self.column)

    def unit(self, key: tuple[str, ...]) -> tuple[str, ...]:
        """The columns whose equal values stand on one side as a whole: a row's key."""
        return key

    def seen_until(self, parts: Learnable) -> str:
        """The newest instant of the rows that a model is fitted, stopped or thresholded with; empty when there is none."""
        return _newest(parts, self.column)

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The columns by which `unseen` tells."""
        return (self.column,)

    def unseen(self, rows: pd.DataFrame, seen_until: str) -> np.ndarray:
        """Which rows a model of this split and this `seen_until` surely has not seen: (n,) bool. Those that are newer.

        A row that is older may have been held back or have landed later; it is left out all the same, as is every row where the column is
        none any more.
        """
        if self.column not in rows:
            return np.zeros(len(rows), dtype=bool)
        return (rows[self.column] > pd.Timestamp(seen_until)).to_numpy()

    def newest_known(self, parts: Sequence[pd.DataFrame]) -> np.ndarray | None:
        """Of each row of the parts, one behind the other, the place of the newest one before it whose label was final then: (n,).

        The oldest row's place where none was.
        """
        times = pd.concat([part[self.column] for part in parts], ignore_index=True)
        order = times.argsort(kind="stable").to_numpy()
        came = times.iloc[order]
        final = came.searchsorted(came - pd.Timedelta(days=self.matures), side="right")
        places = np.empty(len(order), dtype=np.int64)
        places[order] = order[np.maximum(np.minimum(final, np.arange(len(order))) - 1, 0)]
        return places


class _ByHash(BaseModel, ABC, frozen=True, extra="forbid"):
    """What splits have in common whose models have never seen what hashes to the holdout."""

    column: str | None = Field(
        default=None, description="the column of type datetime that tells a row's age; needed for `matures`"
    )
    holdout: float = Field(default=0.2, gt=0, lt=1, description="share that judges, on average")
    validation: float = Field(
        default=0.15, gt=0, lt=1, description="share of the rest that stops and sets the threshold, on average"
    )
    matures: float = Field(
        default=0,
        ge=0,
        le=36500,
        description="days until a row's label is final, counted back from the newest row; younger rows neither teach nor judge",
    )
    seed: int = Field(default=0, description="another seed holds back others, which earlier models have seen")

    @model_validator(mode="after")
    def _age_is_known(self) -> Self:
        if self.matures and self.column is None:
            raise ValueError(
                f"matures is {self.matures:g} days, but no column tells how old a row is. Name one of type datetime as `column`, "
                "or leave `matures` out"
            )
        return self

    @property
    def by_time(self) -> bool:
        """Whether `seen_until` tells which rows a model has seen; else the split itself tells it, by hash."""
        return False

    def columns_needed(self) -> dict[str, Type | None]:
        """The columns that the contract must have, and of which type; None is any type."""
        return {self.column: "datetime"} if self.column else {}

    def newest(self, rows: pd.DataFrame) -> pd.Timestamp | None:
        """The instant from which `matures` is counted back, of all rows, those without a label too; None when no column tells it."""
        return _last(rows, self.column)

    def unit(self, key: tuple[str, ...]) -> tuple[str, ...]:
        """The columns whose equal values stand on one side as a whole: a row's key."""
        return key

    def seen_until(self, parts: Learnable) -> str:
        """The newest instant of the rows that a model is fitted, stopped or thresholded with; empty when no column tells it."""
        return _newest(parts, self.column)

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The columns by which `unseen` tells, beside the rows' names."""
        return tuple(name for name in self.columns_needed() if name != self.column)

    def unseen(self, rows: pd.DataFrame, seen_until: str) -> np.ndarray:  # noqa: ARG002 - a verb of every split
        """Which rows no model of this split has seen, whenever it was trained: (n,) bool. Those that hash to the holdout.

        All True for the holdout of an equal split. When a project's split was changed, ask the split that the model was
        trained with: it tells which of today's rows it would have held back; none where a column that it needs is none any more.
        """
        if not {*self.looks_at} <= {*rows.columns}:
            return np.zeros(len(rows), dtype=bool)
        return self._sides(rows) == HOLDOUT

    def newest_known(self, parts: Sequence[pd.DataFrame]) -> np.ndarray | None:  # noqa: ARG002 - a verb of every split
        """None: no row comes after all that were learned from, and the one before it may be of the same patient, as none in training is."""
        return None

    def apply(self, rows: pd.DataFrame, newest: pd.Timestamp | None = None) -> Parts:
        """Splits by hash; a row's side does not depend on any other row.

        Args:
            rows: those with a label.
            newest: what `newest` gives of all rows; by default of these.

        Raises:
            ValueError: the hash of a row needs its name, and it has none.
        """
        mature, immature = matured(rows, self.column, self.matures, newest)
        return _parted(mature, self._sides(mature), immature)

    def again(self, rows: pd.DataFrame, seen_until: str, newest: pd.Timestamp | None = None) -> Parts:  # noqa: ARG002 - a verb of every split
        """Splits what is left of a snapshot as the whole was split: a row's side does not depend on any other row."""
        return self.apply(rows, newest)

    @abstractmethod
    def _sides(self, rows: pd.DataFrame) -> np.ndarray:
        """The side of every row: (n,)."""

    def _side_of(self, numbers: np.ndarray) -> np.ndarray:
        """The side of each hash, (n,) uint64: a share of all hashes judges, a share of the others validates."""
        chance = (numbers >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
        learned = self.holdout + (1 - self.holdout) * self.validation
        return np.select([chance < self.holdout, chance < learned], [HOLDOUT, VALIDATION], TRAIN)


class TimeSplit(_ByTime, frozen=True):
    """Hold back the newest rows, as production will meet them."""

    kind: Literal["time"] = "time"
    holdout: float = Field(default=0.2, gt=0, lt=1, description="share of the newest rows that judges")
    validation: float = Field(
        default=0.15, gt=0, lt=1, description="share of the rows before them that stops and sets the threshold"
    )

    def apply(self, rows: pd.DataFrame, newest: pd.Timestamp | None = None) -> Parts:
        """Splits by time; rows of one instant stay together, so every holdout row is newer than every other.

        Which rows are mature follows from the rows alone, never from a clock, so a snapshot is split the same for ever. That
        is counted back from `newest`, which the method of that name gives of all rows; by default of these. Train has no row whose label
        was not final when the holdout began, unless few others are left: a history that is short beside the delay.

        >>> rows = pd.DataFrame({"at": pd.date_range("2020", periods=10, tz="UTC")})
        >>> parts = TimeSplit(column="at", holdout=0.2, validation=0.25).apply(rows)
        >>> len(parts.train), len(parts.validation), len(parts.holdout)
        (6, 2, 2)
        """
        mature, immature = matured(rows, self.column, self.matures, newest)
        learned, holdout = _cut(mature, self.column, self.holdout)
        train, validation = _cut(learned, self.column, self.validation)
        late = len(validation) - _final(validation, self.column, self.matures, holdout)
        known = _final(train, self.column, self.matures, holdout)
        if not _is_enough(known, len(validation)) or known < min(FEWEST, len(train)):
            return Parts(train, validation, holdout, immature, late, unripe=len(train) - known)
        return Parts(train.iloc[:known], validation, holdout, immature, late, gap=train.iloc[known:])

    def again(self, rows: pd.DataFrame, seen_until: str, newest: pd.Timestamp | None = None) -> Parts:
        """Splits what is left of a snapshot as the whole was split, by what a model has seen; validation rows stand among train.

        Shares of fewer rows would be cut elsewhere, and what taught would judge.
        """
        mature, immature = matured(rows, self.column, self.matures, newest)
        new = self.unseen(mature, seen_until)
        return Parts(mature[~new], mature[:0], mature[new], immature)

    def folds(self, rows: pd.DataFrame, count: int, target: str | None = None) -> Folds:  # noqa: ARG002 - a verb of every split
        """Pairs (earlier rows, later rows), each pair reaching further; the last one ends with the last row.

        Between the two lie as many rows as validate, and all whose label was not final when the later rows began. That is how far a model
        that stays as it was fitted on train (one of a window, say) lies before the holdout: what is best right after its rows need
        not be best there. One that is fitted once more learns up to the label's delay before the holdout; it is judged here from farther
        off than there, so that all recipes are judged on the same rows. A pair with less than half as many rows that teach as judge is left
        out; where all are, a history that is short beside the delay, labels that were not final teach, too: one cannot search by nothing.
        """
        ordered = _ordered(rows, self.column)
        step = min(self.validation, 1 / (count + 2))  # the first fold, too, has a step to learn from
        edges = [round(len(ordered) * (1 - step * (count - i))) for i in range(-1, count + 1)]
        pairs = [
            (ordered.iloc[:learned], ordered.iloc[start:stop])
            for learned, start, stop in zip(edges, edges[1:], edges[2:], strict=False)
        ]
        known = [(earlier.iloc[: _final(earlier, self.column, self.matures, later)], later) for earlier, later in pairs]
        enough = [(earlier, later) for earlier, later in known if _is_enough(len(earlier), len(later))]
        return _both_sided(enough or pairs)

    def at_most(self, rows: pd.DataFrame, count: int) -> pd.DataFrame:
        """Every so many-th row by time, for a search that cannot use all: the history keeps its length, which windows ask about."""
        ordered = rows.sort_values(self.column, kind="stable")
        return ordered.iloc[np.arange(count) * len(ordered) // count] if len(ordered) > count else ordered


class GroupTimeSplit(_ByTime, frozen=True):
    """Hold back the newest rows of every group: each customer's next purchases, each machine's next runs.

    Across groups time is not ordered: a row of one group may teach although it is newer than a judged row of another. Where
    all groups share shocks (weather, prices, a new release of the software) use kind `time`.
    """

    kind: Literal["group_time"] = "group_time"
    group: str = Field(description="the column whose equal values are one group; a row without a value only teaches")
    holdout: Share | Count = Field(
        default=0.2, description="share (below 1) or number (1 or more) of every group's newest rows that judge"
    )
    validation: Share | Count = Field(
        default=0.15, description="share or number of every group's rows before them that stop and set the threshold"
    )
    fewest: int = Field(default=5, ge=3, description="a group with fewer mature rows only teaches")

    def columns_needed(self) -> dict[str, Type | None]:
        """The columns that the contract must have, and of which type; None is any type."""
        return {self.group: None, self.column: "datetime"}

    def apply(self, rows: pd.DataFrame, newest: pd.Timestamp | None = None) -> Parts:
        """Splits every group by time; rows of one group and instant stay together.

        A group judges only when older rows of it remain to learn from and to validate; else all of it teaches.

        >>> rows = pd.DataFrame({"at": pd.date_range("2020", periods=10, tz="UTC"), "who": list("aaaaaaaabb")})
        >>> parts = GroupTimeSplit(group="who", column="at", holdout=2, validation=1).apply(rows)
        >>> "".join(parts.train["who"]), len(parts.validation), list(parts.holdout["at"].dt.day)
        ('aaaaabb', 1, [7, 8])
        """
        mature, immature = matured(rows, self.column, self.matures, newest)
        lines = _Lines.of(mature, self.group, self.column)
        judging = lines.reaching(lines.size - _amount(self.holdout, lines.size))
        left = lines.number(~judging)
        validating = lines.reaching(left - _amount(self.validation, left)) & ~judging
        able = lines.grouped & (lines.size >= self.fewest) & (lines.number(judging | validating) < lines.size)
        sides = np.select([able & judging, able & validating], [HOLDOUT, VALIDATION], TRAIN)
        return _parted(mature, sides, immature)

    def again(self, rows: pd.DataFrame, seen_until: str, newest: pd.Timestamp | None = None) -> Parts:  # noqa: ARG002 - a verb of every split
        """Splits what is left of a snapshot, group by group: in a group that lost rows the cuts move by as many at most."""
        return self.apply(rows, newest)

    def folds(self, rows: pd.DataFrame, count: int, target: str | None = None) -> Folds:  # noqa: ARG002 - a verb of every split
        """Pairs (every group's earlier rows, its rows right after them), each pair reaching further; small groups only teach.

        A row is judged only when older rows of its group are learned from.
        """
        ordered = _ordered(rows, self.column)
        lines = _Lines.of(ordered, self.group, self.column)
        small = ~lines.grouped | (lines.size < self.fewest)
        step = self.validation if isinstance(self.validation, int) else self.validation * lines.size
        reached = [lines.reaching(np.rint(lines.size - step * (count - i))) for i in range(count)]
        after = [*reached[1:], np.zeros(len(ordered), dtype=bool)]
        pairs = []
        for start, stop in zip(reached, after, strict=True):
            judged = start & ~stop & ~small & (lines.number(~start) > 0)
            pairs.append((ordered[~start | small], ordered[judged]))
        return _both_sided(pairs)

    def at_most(self, rows: pd.DataFrame, count: int) -> pd.DataFrame:
        """Whole groups, chosen by hash, for a search that cannot use all; see `GroupSplit.at_most`."""
        return _whole_groups(rows, *_groups(rows, self.group, 0), count)


class GroupSplit(_ByHash, frozen=True):
    """Hold back whole groups: all rows of a patient, a customer, a machine stand on one side.

    A keyed hash of the group's value decides (BLAKE2b, RFC 7693), nothing else: not the other rows, not their order, not the
    day. So a group stays on its side for ever, and a model trained last month saw no row of a group that judges today. The
    price: shares are of groups, and hold on average – of G groups G·share ± √(G·share·(1 - share)) judge. A row without a
    value is its own group, as its name decides.

    >>> rows = pd.DataFrame({"who": list(range(1000)) * 2})
    >>> parts = GroupSplit(group="who", holdout=0.2, validation=0.25).apply(rows)
    >>> set(parts.holdout["who"]) & {*parts.train["who"], *parts.validation["who"]}
    set()
    >>> abs(len(parts.holdout) - 400) < 100
    True
    """

    kind: Literal["group"] = "group"
    group: str = Field(description="the column whose equal values are one group")

    def unit(self, key: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - a verb of every split
        """The columns whose equal values stand on one side as a whole: the group."""
        return (self.group,)

    def columns_needed(self) -> dict[str, Type | None]:
        """The columns that the contract must have, and of which type; None is any type."""
        return {self.group: None} | super().columns_needed()

    def folds(self, rows: pd.DataFrame, count: int, target: str | None = None) -> Folds:
        """Pairs (rows of some groups, all rows of the others); with two folds or more every group is judged once.

        Groups are dealt like cards: when a target is named those with the rarest class first, and large ones before small
        ones, so that the folds are alike.
        """
        ordered = _ordered(rows, self.column)
        codes, numbers = _groups(ordered, self.group, self.seed)
        rarest = np.full(len(numbers), -1)
        np.maximum.at(rarest, codes, _rarity(ordered, target))
        dealt = _dealt((numbers, -np.bincount(codes, minlength=len(numbers)), -rarest), count)
        return _around(ordered, dealt[codes], count)

    def at_most(self, rows: pd.DataFrame, count: int) -> pd.DataFrame:
        """Whole groups, chosen by hash, of together at most `count` rows, for a search that cannot use all.

        Groups larger than a quarter of that come last; two are taken in any case, as a fold needs two.
        """
        return _whole_groups(rows, *_groups(rows, self.group, self.seed), count)

    def _sides(self, rows: pd.DataFrame) -> np.ndarray:
        codes, numbers = _groups(rows, self.group, self.seed)
        return self._side_of(numbers)[codes]


class ChanceSplit(_ByHash, frozen=True):
    """Hold back rows by chance: for rows that know neither time nor group.

    The hash of a row's name decides, nothing else, so a row never changes its side when data grow, and a model trained last
    month saw no row that judges today. Every class is held back with the same share on average: of n rows of a class
    n·share ± √(n·share·(1 - share)). Exact shares would need ranks, and a rank moves rows across the cut as others arrive.
    A row that is corrected is another row with another name: where that happens, use kind `group` with the key's column.

    >>> rows = pd.DataFrame({"_row": [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}{n:016x}" for n in range(1000)]})
    >>> parts = ChanceSplit(holdout=0.2, validation=0.25).apply(rows)
    >>> abs(len(parts.holdout) - 200) < 50, abs(len(parts.validation) - 200) < 50
    (True, True)
    """

    kind: Literal["chance"] = "chance"

    def folds(self, rows: pd.DataFrame, count: int, target: str | None = None) -> Folds:
        """Pairs (the other rows, a part of them); with two folds or more every row is judged once.

        When a target is named, the parts hold the same number of rows of every class, give or take one.
        """
        ordered = _ordered(rows, self.column)
        dealt = _dealt((_row_numbers(ordered, self.seed), -_rarity(ordered, target)), count)
        return _around(ordered, dealt, count)

    def at_most(self, rows: pd.DataFrame, count: int) -> pd.DataFrame:
        """Rows chosen by hash, for a search that cannot use all."""
        return rows.iloc[np.sort(np.argsort(_row_numbers(rows, self.seed), kind="stable")[:count])]

    def _sides(self, rows: pd.DataFrame) -> np.ndarray:
        return self._side_of(_row_numbers(rows, self.seed))


def _of_a_kind(given: Any) -> Any:
    """What a project says, as a split by time when it names no kind."""
    return {"kind": "time", **given} if isinstance(given, dict) else given


Split = Annotated[
    TimeSplit | GroupSplit | GroupTimeSplit | ChanceSplit, Field(discriminator="kind"), BeforeValidator(_of_a_kind)
]


# -- order and age ------------------------------------------------------------------------------------------------------
def _ordered(rows: pd.DataFrame, column: str | None) -> pd.DataFrame:
    """The rows by time, or as they came when there is none."""
    ordered = column is None or rows[column].is_monotonic_increasing
    return (rows if ordered else rows.sort_values(column, kind="stable")).reset_index(drop=True)


def _last(rows: pd.DataFrame, column: str | None) -> pd.Timestamp | None:
    last = None if column is None else rows[column].max()
    return None if pd.isna(last) else last


def matured(
    rows: pd.DataFrame, column: str | None, days: float, newest: pd.Timestamp | None
) -> tuple[pd.DataFrame, int]:
    """The rows whose label is final, by time, and the number of the others."""
    ordered = _ordered(rows, column)
    if column is None:
        return ordered, 0
    last = _last(ordered, column) if newest is None else newest
    mature = 0 if last is None else int((ordered[column] <= last - pd.Timedelta(days=days)).sum())
    return ordered.iloc[:mature], len(ordered) - mature  # a view: parts of rows in order need no memory of their own


def _final(earlier: pd.DataFrame, column: str, days: float, later: pd.DataFrame) -> int:
    """How many of the earlier rows, which are in order, had their final label when the later ones began."""
    return int((earlier[column] <= later[column].min() - pd.Timedelta(days=days)).sum())


def _is_enough(learned: int, judged: int) -> bool:
    """Whether so many rows teach enough for so many that judge."""
    return 2 * learned >= judged


def _newest(parts: Learnable, column: str | None) -> str:
    if column is None:
        return ""
    instants = pd.concat([parts.train[column], parts.validation[column]])
    return str(instants.max()) if len(instants) else ""


def _cut(ordered: pd.DataFrame, column: str, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The older rows and about `share` of the newest; an instant is never cut in two."""
    if ordered.empty:
        return ordered, ordered
    edge = ordered[column].iloc[min(len(ordered) - 1, round(len(ordered) * (1 - share)))]
    older = int((ordered[column] < edge).sum())
    return ordered.iloc[:older], ordered.iloc[older:].reset_index(drop=True)


def _parted(rows: pd.DataFrame, sides: np.ndarray, immature: int) -> Parts:
    train, validation, holdout = (rows[sides == side].reset_index(drop=True) for side in (TRAIN, VALIDATION, HOLDOUT))
    return Parts(train, validation, holdout, immature)


def _both_sided(pairs: Folds) -> Folds:
    return [(learned, judged) for learned, judged in pairs if len(learned) and len(judged)]


# -- hashes -------------------------------------------------------------------------------------------------------------
def _row_numbers(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """A keyed hash of every row's name: (n,) uint64. A name is a hash already; it is mixed with a key (SplitMix64)."""
    mixed = _halves(rows) ^ np.uint64(_number("", seed))
    with np.errstate(over="ignore"):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _halves(rows: pd.DataFrame) -> np.ndarray:
    """The first 16 of the 32 hex digits of every row's name as a number: (n,) uint64."""
    if ROW not in rows:
        raise ValueError(f"These rows have no column '{ROW}'. Split rows as the lake reads them: it names every row.")
    names = rows[ROW]
    odd = ~names.astype("str").str.fullmatch("[0-9a-f]{32}").to_numpy(dtype=bool, na_value=False)
    if odd.any():
        raise ValueError(
            f"'{names.iloc[odd.argmax()]}' is no row's name; wanted 32 hex digits. Split rows as the lake reads them."
        )
    if rows.empty:
        return np.empty(0, dtype=np.uint64)
    letters = np.asarray(names, dtype="S32").view(np.uint8).reshape(-1, 32)[:, :16]
    digits = np.where(letters > ord("9"), letters - (ord("a") - 10), letters - ord("0"))
    return np.ascontiguousarray(digits[:, ::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64).reshape(-1)


def _groups(rows: pd.DataFrame, group: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of every row's group, (n,), and a keyed hash of every group, (groups,) uint64."""
    codes, values = pd.factorize(rows[group])
    numbers = np.array([_number(_text(value), seed) for value in np.asarray(values, dtype=object)], dtype=np.uint64)
    alone = codes < 0
    if not alone.any():
        return codes, numbers
    codes = codes.copy()
    codes[alone] = len(values) + np.arange(alone.sum())
    return codes, np.concatenate([numbers, _row_numbers(rows[alone], seed)])


def _number(text: str, seed: int) -> int:
    key = f"split {seed}".encode()
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8, key=key).digest(), "big")


def _text(value: Any) -> str:
    """A group's value as text, the same whatever type pandas holds it in: 7, 7.0 and '7' are one group.

    A column of integers is read as floats as soon as one is missing; that must not move anybody.
    """
    if isinstance(value, pd.Timestamp):
        return (value.tz_convert("UTC") if value.tzinfo else value).isoformat()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


# -- dealing ------------------------------------------------------------------------------------------------------------
def _rarity(rows: pd.DataFrame, target: str | None) -> np.ndarray:
    """The class of every row, (n,): 0 the most frequent, the highest the rarest, -1 none."""
    if target is None:
        return np.zeros(len(rows), dtype=np.int64)
    codes, classes = pd.factorize(rows[target], sort=True)
    rank = np.empty(len(classes) + 1, dtype=np.int64)
    rank[np.argsort(-np.bincount(codes[codes >= 0], minlength=len(classes)), kind="stable")] = np.arange(len(classes))
    rank[-1] = -1
    return rank[codes]


def _dealt(keys: tuple[np.ndarray, ...], count: int) -> np.ndarray:
    """To which of `count` parts, two at least, each thing goes: (n,); things are dealt in turn, sorted by the last key first."""
    parts = np.empty(len(keys[0]), dtype=np.int64)
    parts[np.lexsort(keys)] = np.arange(len(parts)) % max(2, count)
    return parts


def _around(rows: pd.DataFrame, parts: np.ndarray, count: int) -> Folds:
    """For each part the rows outside of it and those in it."""
    return _both_sided([(rows[parts != part], rows[parts == part]) for part in range(count)])


def _whole_groups(rows: pd.DataFrame, codes: np.ndarray, numbers: np.ndarray, count: int) -> pd.DataFrame:
    sizes = np.bincount(codes, minlength=len(numbers))
    order = np.lexsort((numbers, sizes > count / 4))
    taken = np.zeros(len(numbers), dtype=bool)
    taken[order] = (np.cumsum(sizes[order]) <= count) | (np.arange(len(order)) < 2)
    return rows[taken[codes]]


# -- time within groups -------------------------------------------------------------------------------------------------
def _amount(wanted: float, rows: np.ndarray) -> np.ndarray:
    """How many of so many rows a share or a number is, one at least."""
    return np.full(len(rows), wanted) if isinstance(wanted, int) else np.maximum(1, np.rint(rows * wanted))


@dataclass(frozen=True)
class _Lines:
    """Rows as points on the time line of their group; every array has one value a row.

    Attributes:
        codes: number of the row's group.
        grouped: whether it has one.
        size: rows of its group.
        last: position, in its group by time, of the last row of its instant.
    """

    codes: np.ndarray
    grouped: np.ndarray
    size: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, ordered: pd.DataFrame, group: str, column: str) -> Self:
        """The lines of rows that are ordered by time."""
        codes, groups = pd.factorize(ordered[group])
        grouped, codes = codes >= 0, np.where(codes < 0, len(groups), codes)
        instants, _ = pd.factorize(ordered[column])
        order = np.argsort(codes, kind="stable")  # in a group by time
        sizes = np.bincount(codes, minlength=len(groups) + 1)
        starts = np.cumsum(sizes) - sizes
        ends = np.append((np.diff(codes[order]) != 0) | (np.diff(instants[order]) != 0), [True] * bool(len(order)))
        at = np.flatnonzero(ends)
        last = np.empty(len(order), dtype=np.int64)
        last[order] = at[np.searchsorted(at, np.arange(len(order)))]
        return cls(codes, grouped, sizes[codes], last - starts[codes])

    def reaching(self, edge: np.ndarray) -> np.ndarray:
        """Which rows stand at an edge of their group or after it: (n,) bool; an instant is never cut in two."""
        return self.last >= edge

    def number(self, chosen: np.ndarray) -> np.ndarray:
        """How many rows of the row's group are chosen: (n,)."""
        return np.bincount(self.codes[chosen], minlength=self.codes.max(initial=0) + 1)[self.codes]
