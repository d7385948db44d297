"""Gates that look at parts of the holdout: groups of rows, protected groups, folds of time, and where decisions flip.

Of many parts one looks bad by chance, so the error of the whole gate, one in twenty, is shared out among all that it looks at
(Bonferroni): a part is refused for what it surely is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from tasks.ml.gates.evidence import Evidence, groups
from tasks.ml.gates.verdict import Verdict
from tasks.ml.metrics import Estimate
from tasks.ml.slices import Slices
from tasks.ml.uncertain import Uncertain, apart, compared, measured, newcombe, wilson

ALPHA = 0.05


@dataclass(frozen=True)
class _Part:
    """One part that is compared: what is good lies above the bar."""

    name: str
    gain: Uncertain
    bar: float
    before: float | None
    after: float
    at: np.ndarray


@dataclass(frozen=True)
class _Gap:
    """What two groups differ in: shares of so many rows each, or a number with a standard error."""

    what: str
    names: tuple[str, str]
    more: float
    less: float
    bar: float
    rows: tuple[int, int] | None = None
    error: float = 0.0

    def bounds(self, alpha: float) -> Estimate:
        """The difference between its bounds."""
        if self.rows is None:
            return Uncertain(self.more - self.less, self.error).bounds(alpha)
        return newcombe(self.more, self.rows[0], self.less, self.rows[1], alpha)


def _is_too_bad(part: _Part, among: int) -> bool:
    return part.gain.bounds(ALPHA / among).high < part.bar


def _gain(evidence: Evidence, at: np.ndarray) -> float:
    """How much better than the champion the challenger is there."""
    if evidence.champion is None:
        return float("nan")
    after, before = (evidence.metric.of(evidence.y[at], said[at]) for said in (evidence.challenger, evidence.champion))
    return float(evidence.metric.gain(after, before))


def _judged(gate: str, parts: list[_Part], what: str, against: str, among: int = 0) -> Verdict:
    """Passed when no part is surely below its bar; told is the one that is nearest to it, or furthest below.

    Args:
        gate: whose verdict it is.
        parts: those that count.
        what: how they are called.
        against: what they were held against.
        among: how many were looked at; 0: these.
    """
    alpha = ALPHA / (among or len(parts))
    found = [part.gain.bounds(alpha) for part in parts]
    at = int(np.argmin([bounds.high - part.bar for bounds, part in zip(found, parts, strict=True)]))
    worst, bounds = parts[at], found[at]
    failed = [part.name for part, seen in zip(parts, found, strict=True) if seen.high < part.bar]
    shown = f"'{worst.name}' {bounds}, must reach {worst.bar:.4g}"
    others = f"; so are {len(failed) - 1} more" if len(failed) > 1 else ""
    reason = f"none of {len(parts)} {what} is surely too bad {against}; nearest to it is {shown}"
    return Verdict(
        gate=gate, passed=not failed, value=bounds.value, low=bounds.low, high=bounds.high, bar=worst.bar, before=worst.before,
        after=worst.after, alpha=alpha, power=worst.gain.visible(alpha),
        reason=f"of {len(parts)} {what} one is surely too bad {against}: {shown}{others}" if failed else reason,
    )  # fmt: skip


class EverySlice(BaseModel, frozen=True, extra="forbid"):
    """Is every group of rows that `slices` of the project names served well enough?"""

    kind: Literal["slices"] = "slices"
    margin: float = Field(
        default=0.0,
        ge=0,
        description="how much worse than the champion any group may surely be, in units of the metric",
    )
    floor: float | None = Field(
        default=None, description="the worst value of the metric in any group that is of any use; left out: none"
    )

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when no group that is large enough is surely worse than the champion by more than the margin, or than the floor."""
        parts = [*self._against_champion(evidence), *self._against_floor(evidence)]
        if not parts:
            if not evidence.slices.columns:
                reason = "the project names no groups of rows"
            elif evidence.champion is None and self.floor is None:
                reason = "there is no champion to hold the groups against, and no floor for them"
            else:
                reason = "no group is large enough"
            return Verdict(gate=self.kind, passed=True, reason=reason)
        return _judged(self.kind, parts, "groups", "against the champion or the floor")

    def _against_champion(self, evidence: Evidence) -> Iterator[_Part]:
        before, new = evidence.champion, evidence.unseen_by_champion
        if before is None:
            return
        for name, at in evidence.groups(evidence.slices):
            rows = at[new[at]]
            if len(rows) < evidence.slices.fewest:
                continue
            y, said, old = evidence.y[rows], evidence.challenger[rows], before[rows]
            gain = compared(evidence.metric, y, said, old)
            if np.isfinite(gain.error):  # a group of one class has no ROC AUC: nothing is said of it
                yield _Part(
                    name, gain, 0.0 - self.margin, evidence.metric.of(y, old), evidence.metric.of(y, said), rows
                )

    def _against_floor(self, evidence: Evidence) -> Iterator[_Part]:
        if self.floor is None:
            return
        for name, at in evidence.groups(evidence.slices):
            found = measured(evidence.metric, evidence.y[at], evidence.challenger[at])
            above = Uncertain(float(evidence.metric.gain(found.value, self.floor)), found.error)
            if np.isfinite(above.error):
                yield _Part(name, above, 0.0, None, found.value, at)


class Fairness(BaseModel, frozen=True, extra="forbid"):
    """Are groups that the law or decency protects treated alike?"""

    kind: Literal["fairness"] = "fairness"
    columns: tuple[str, ...] = Field(default=(), description="columns of the contract, whether models read them or not")
    selection: float | None = Field(
        default=0.2,
        gt=0,
        le=1,
        description="of yes-or-no decisions: largest sure difference in the share that is called positive",
    )
    true_positive: float | None = Field(default=0.2, gt=0, le=1, description="the same among rows that are positive")
    false_positive: float | None = Field(default=0.2, gt=0, le=1, description="the same among rows that are negative")
    metric: float = Field(
        default=0.5,
        gt=0,
        description="of other decisions: largest sure difference in the metric, as a share of it over all rows",
    )
    fewest: int = Field(default=50, ge=10, description="rows of the holdout that a group needs to be looked at")

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when no two groups of a column surely differ by more than the bar."""
        if not self.columns:
            return Verdict(gate=self.kind, passed=True, reason="the project names no protected columns")
        called = evidence.kind.called(evidence.challenger, evidence.operates)
        found = list(self._rates(evidence, called) if called is not None else self._metric(evidence))
        if not found:
            return Verdict(
                gate=self.kind, passed=True,
                reason=f"no column of {', '.join(self.columns)} has two groups of {self.fewest} rows or more that can be compared",
            )  # fmt: skip
        gaps = [gap.bounds(ALPHA / len(found)) for gap in found]
        at = int(np.argmax([bounds.low - gap.bar for gap, bounds in zip(found, gaps, strict=True)]))
        worst, bounds, failed = found[at], gaps[at], gaps[at].low > found[at].bar
        return Verdict(
            gate=self.kind, passed=not failed, value=bounds.value, low=bounds.low, high=bounds.high, bar=worst.bar, wanted="below",
            before=worst.less, after=worst.more, alpha=ALPHA / len(found),
            reason=f"{worst.what} of {worst.names[0]} is {'surely' if failed else 'not surely'} more than {worst.bar:.3g} above that of "
            f"{worst.names[1]}: {worst.more:.3f} against {worst.less:.3f}, difference {bounds}; {len(found)} pairs were compared",
        )  # fmt: skip

    def _groups(self, evidence: Evidence, only: np.ndarray | None = None) -> Iterator[list[tuple[str, np.ndarray]]]:
        """The groups of each column, of rows where `only` holds."""
        for column in self.columns:
            each = evidence.groups(Slices(columns=(column,), fewest=self.fewest))
            kept = [(name, at if only is None else at[only[at]]) for name, at in each]
            yield [(name, at) for name, at in kept if len(at) >= self.fewest]

    def _rates(self, evidence: Evidence, called: np.ndarray) -> Iterator[_Gap]:
        rates = (
            ("selection rate", self.selection, None),
            ("true positive rate", self.true_positive, evidence.y == 1),
            ("false positive rate", self.false_positive, evidence.y == 0),
        )
        for what, bar, only in rates:
            for column in self._groups(evidence, only) if bar is not None else ():
                for pair in combinations(column, 2):
                    (more, rows), (less, others) = sorted(pair, key=lambda group: -called[group[1]].mean())
                    yield _Gap(what, (more, less), float(called[rows].mean()), float(called[others].mean()), bar or 1.0, (len(rows), len(others)))  # fmt: skip

    def _metric(self, evidence: Evidence) -> Iterator[_Gap]:
        metric, whole = evidence.metric, evidence.metric.of(evidence.y, evidence.challenger)
        for column in self._groups(evidence):
            for one, two in combinations(column, 2):
                values = [metric.of(evidence.y[at], evidence.challenger[at]) for _, at in (one, two)]
                (more, rows), (less, others) = (one, two) if values[0] >= values[1] else (two, one)
                error = apart(metric, evidence.y, evidence.challenger, rows, others).error
                if np.isfinite(error):
                    yield _Gap(metric.label, (more, less), max(values), min(values), self.metric * abs(whole), error=error)  # fmt: skip


class Stability(BaseModel, frozen=True, extra="forbid"):
    """Is it good all the time, or only for a while?"""

    kind: Literal["stability"] = "stability"
    folds: int = Field(default=4, ge=2, le=20, description="equal parts of the holdout in order of time")
    share: float = Field(
        default=0.5, gt=0, description="how much of its lead over the naive baselines it may surely lose in any of them"
    )
    fewest: int = Field(default=50, ge=10, description="rows that a part needs to be looked at")

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when no fold is surely worse than all others by more than the bar, and no single fold made the gain over the champion.

        A fold in which the champion is not surely better is the world's doing and not the challenger's. A gain that is surely a loss
        without its best fold waits for a person: where the world has moved, it may be right.
        """
        if evidence.times is None:
            return Verdict(gate=self.kind, passed=True, reason="these answers are about no single moment")
        if len(evidence.y) < self.folds * self.fewest:
            return Verdict(
                gate=self.kind, passed=True,
                reason=f"{len(evidence.y)} rows; {self.folds} parts of {self.fewest} are needed to look at parts in time",
            )  # fmt: skip
        folds = np.array_split(np.argsort(evidence.times, kind="stable"), self.folds)
        steady = self._steady(evidence, folds)
        return (self._carried(evidence, folds) or steady) if steady.passed else steady

    def _steady(self, evidence: Evidence, folds: list[np.ndarray]) -> Verdict:
        y, said, metric = evidence.y, evidence.challenger, evidence.metric
        naive = [float(metric.gain(metric.of(y, said), metric.of(y, other))) for other in evidence.baselines.values()]
        bar = 0.0 - self.share * max(min(naive, default=0.0), 0.0)
        parts = []
        for number, at in enumerate(folds):
            rest = np.concatenate([fold for other, fold in enumerate(folds) if other != number])
            name, fell = f"part {number + 1} of {len(folds)}", apart(metric, y, said, at, rest)
            if np.isfinite(fell.error):
                parts.append(_Part(name, fell, bar, metric.of(y[rest], said[rest]), metric.of(y[at], said[at]), at))
        if not parts:
            return Verdict(gate=self.kind, passed=True, reason="no part in time can be compared with the others")
        own = [
            part for part in parts if not _is_too_bad(part, len(parts)) or not self._with_the_world(evidence, part.at)
        ]
        if not own:
            return Verdict(
                gate=self.kind,
                passed=True,
                reason="it falls in parts in time where the champion is not surely better: the world's doing",
            )
        return _judged(self.kind, own, "parts in time", "against the others", among=len(parts))

    def _with_the_world(self, evidence: Evidence, at: np.ndarray) -> bool:
        """Whether the champion is not surely better there, on rows that neither has learned from; of too few nobody knows."""
        at = at[evidence.unseen_by_champion[at]] if evidence.champion is not None else at[:0]
        if evidence.champion is None or len(at) < self.fewest:
            return False
        y, said, old = evidence.y[at], evidence.challenger[at], evidence.champion[at]
        return compared(evidence.metric, y, said, old).bounds().high >= 0

    def _carried(self, evidence: Evidence, folds: list[np.ndarray]) -> Verdict | None:
        """A hold when the gain over the champion is surely a loss without its best fold."""
        if evidence.champion is None:
            return None
        y, said, old, metric = evidence.y, evidence.challenger, evidence.champion, evidence.metric
        new = [at[evidence.unseen_by_champion[at]] for at in folds]
        if min(len(at) for at in new) < self.fewest or not _gain(evidence, np.concatenate(new)) > 0:
            return None
        gains = [_gain(evidence, at) for at in new]
        best = int(np.nanargmax([*gains, -np.inf]))
        rest = np.concatenate([at for number, at in enumerate(new) if number != best])
        without = compared(metric, y[rest], said[rest], old[rest])
        bounds = without.bounds(ALPHA / len(folds))
        if not bounds.high < 0:
            return None
        return Verdict(
            gate=self.kind, passed=False, hold=True, value=bounds.value, low=bounds.low, high=bounds.high, bar=0.0, alpha=ALPHA / len(folds),
            before=metric.of(y[rest], old[rest]), after=metric.of(y[rest], said[rest]), power=without.visible(ALPHA / len(folds)),
            reason=f"the gain over the champion comes from part {best + 1} of {len(folds)} alone ({gains[best]:+.4f}); without it the gain is {bounds}. "
            "Where the world has moved, that may be right: a person decides",
        )  # fmt: skip


class Churn(BaseModel, frozen=True, extra="forbid"):
    """How many decisions become others, and where?"""

    kind: Literal["churn"] = "churn"
    most: float = Field(
        default=0.3, gt=0, le=1, description="share of the decisions that may surely become others without a person"
    )
    region: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="the same share in any one group of rows: a value of a text, a quarter of a number",
    )
    fewest: int = Field(default=50, ge=10, description="rows that a group needs to be looked at")

    def judge(self, evidence: Evidence) -> Verdict:
        """Holds the challenger when surely more decisions flip against the champion's, on the whole or in one group of rows.

        The group that flips most surely is named: it is where a release would be felt first.
        """
        if evidence.champion is None:
            nobody = "there is no champion whose decisions could flip"
            return Verdict(gate=self.kind, passed=True, reason=evidence.alone if evidence.unasked else nobody)
        served = evidence.served
        before, after = (served.champion, served.challenger) if served else (evidence.champion, evidence.challenger)
        flips = evidence.kind.flipped(before, after, evidence.operated or evidence.operates, evidence.operates)
        whole = _Flips("all", float(flips.mean()), len(flips), self.most)
        worst = self._worst(evidence, served.features if served else evidence.features, flips)
        told = worst if worst and worst.least > self.region and whole.least <= self.most else whole
        passed = told.least <= told.bar
        rows = f"the {len(flips)} newest rows that were served" if served else f"{len(flips)} rows of the holdout"
        where = (
            f"; most of all where {worst.name}: {worst.share:.1%} of {worst.rows} rows, {worst.bar:.0%} may"
            if worst
            else ""
        )
        return Verdict(
            gate=self.kind, passed=passed, hold=not passed, value=told.share, low=told.least, high=wilson(told.share, told.rows, told.alpha)[1],
            bar=told.bar, wanted="below", alpha=told.alpha,
            reason=f"{whole.share:.1%} of the decisions on {rows} become others, {self.most:.0%} may{where}",
        )  # fmt: skip

    def _worst(self, evidence: Evidence, features: pd.DataFrame | None, flips: np.ndarray) -> "_Flips | None":
        """The group of rows, by any column, that flips most surely."""
        if features is None or not flips.any():
            return None
        columns = tuple(name for name in features if evidence.types.get(name) not in {None, "datetime"})
        found = [*groups(features, evidence.types, Slices(columns=columns, fewest=self.fewest))]
        each = [_Flips(name, float(flips[at].mean()), len(at), self.region, ALPHA / len(found)) for name, at in found]
        return max(each, key=lambda one: one.least, default=None)


@dataclass(frozen=True)
class _Flips:
    """The share of the decisions on some rows that become others."""

    name: str
    share: float
    rows: int
    bar: float
    alpha: float = ALPHA

    @property
    def least(self) -> float:
        """How many at least."""
        return wilson(self.share, self.rows, self.alpha)[0]
