"""Realised performance: how good answers were, as outcomes mature; by period and version, and whether it surely fell.

    realised(kind, operates, served, *, now, matures, plan, seed) -> tuple[Realised, ...]     periods and versions, oldest first
    decay(measure, periods, reference, *, floor, plan) -> Decay                               of one version's periods
    fallen(measure, values, errors, reference, *, floor, plan) -> Decay                       the same of any series, as of estimates

Only rows count that are old enough for their outcome to be known, whether it came or not. Outcomes that come early are mostly of one class
(a victim complains at once, and nobody ever says that a payment was fair), so that young rows with an outcome would look like a fall.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from tasks.ml.kinds import Kind
from tasks.ml.metrics import Estimate, Metric
from tasks.ml.sequential import shifted
from tasks.ml.uncertain import newcombe
from tasks.ml.watching.alarm import MONTH
from tasks.ml.watching.measures import Reference, gauged, measures, rarest, standard_error

MONDAY = np.datetime64("1970-01-05T00:00:00", "us")  # periods of whole weeks begin on Mondays, UTC
State = Literal["measured", "pending", "too few rows", "no outcomes", "unknowable"]


class PerformancePlan(BaseModel, frozen=True, extra="forbid"):
    """When performance is measured, estimated, and called fallen."""

    days: int = Field(default=7, ge=1, le=90, description="days in a period")
    fewest: int = Field(
        default=200, ge=20, description="rows in a period, below which nothing is said but that they are too few"
    )
    rarest: int = Field(
        default=10, ge=5, description="rows of each class in a period with outcomes, below which they are too few"
    )
    unlabelled: float = Field(
        default=0.05, ge=0, lt=1,
        description="share of rows without an outcome in due time, above which a metric carries a warning; the same of a difference between decisions",
    )  # fmt: skip
    false_alarms: float = Field(
        default=0.1, gt=0, le=10, description="how many false alarms of a fall a month are borne"
    )
    material: float = Field(
        default=0.03,
        ge=0,
        lt=1,
        description="smallest fall of the metric that counts, came true or expected, as a share of what it was at training",
    )

    @property
    def bar(self) -> float:
        """How strongly periods must speak for a fall: periods between two false alarms.

        >>> PerformancePlan(days=7, false_alarms=0.1).bar.__round__(1)
        43.5
        """
        return MONTH / self.days / self.false_alarms


@dataclass(frozen=True)
class Served:
    """Answers and what came true of them.

    Attributes:
        at: (n,) datetime64 in UTC, when each answer was given.
        versions: (n,) of the model that gave it.
        answers: (n,), (n, classes) or (n, k), as `Kind.answers` gives them.
        truth: (n,) as `Kind.truth` gives it, or (n, m) of lists; what is unknown is NaN or, where it is a code, below 0.
        decisions: (n,) what was decided, where it was not just what follows from the answers; None: it was.
    """

    at: np.ndarray
    versions: np.ndarray
    answers: np.ndarray
    truth: np.ndarray
    decisions: np.ndarray | None = None


class Measured(Estimate, frozen=True):
    """A measure of matured rows with its 90 % interval.

    Attributes:
        rows: with an outcome.
        rare: of them those of the rarest class, or all where there are no classes.
        is_flagged: whether outcomes are missing to a share, or in a pattern, that may bend it.
    """

    rows: int
    rare: int
    is_flagged: bool


class Censoring(BaseModel, frozen=True):
    """Which matured rows have no outcome.

    Attributes:
        share: of all; by_group: of each decision, or of each quarter of the answers where nothing is decided.
        is_flagged: whether it is more than the plan allows, or uneven.
        is_uneven: whether one group surely lacks more outcomes than another: what is measured is measured on rows that the model chose itself.
        says: in words, nothing where it is not flagged.
    """

    share: float
    by_group: dict[str, float]
    is_flagged: bool
    is_uneven: bool
    says: str


class Realised(BaseModel, frozen=True):
    """One version in one period.

    Attributes:
        begin, end: UTC; the end is not included.
        rows: answers that it gave.
        matured: those that are old enough; labelled: those of the matured that have an outcome.
        early: rows with an outcome that are too young to count.
        is_complete: whether all rows are old enough, so that no later look changes which rows count.
        state: `measured`, or why there is no measure; `pending` is no verdict, neither good nor bad.
        metrics: by name; without those that do not exist, as a precision where nothing was called.
        censoring: of the matured rows; None without any.
        says: in words.
    """

    begin: dt.datetime
    end: dt.datetime
    version: str
    rows: int
    matured: int
    labelled: int
    early: int
    is_complete: bool
    state: State
    metrics: dict[str, Measured] = {}
    censoring: Censoring | None = None
    says: str

    @property
    def pending(self) -> float:
        """The share of rows that are too young."""
        return 1 - self.matured / self.rows


class Decay(BaseModel, frozen=True):
    """Whether a measure has surely fallen.

    Attributes:
        measure: its name.
        fell: whether it has; false says that it is not sure, never that all is well.
        level, threshold: how strongly the periods speak for it, and from where on it is sure: the mean number of periods without a fall until
            chance reaches it.
        bar: what it fell below; against: whether that is the `reference` or the `floor`.
        effect: the newest period against the reference, in the measure's unit, below 0 when it is worse; None without a period.
        periods: that were looked at.
        says: in words.
    """

    measure: str
    fell: bool
    level: float
    threshold: float
    bar: float
    against: Literal["reference", "floor"]
    effect: float | None
    periods: int
    says: str


def realised(
    kind: Kind, operates: Mapping[str, Mapping[str, float]], served: Served, *, now: dt.datetime, matures: float, plan: PerformancePlan, seed: int
) -> tuple[Realised, ...]:  # fmt: skip
    """Every version's performance in every period in which it answered, oldest first.

    Args:
        kind: the problem.
        operates: how answers become decisions, by version.
        served: rows in any order.
        now: with a time zone; rows of the future are none of a period's.
        matures: days until the outcome of a row is known, if it is ever to be.
        plan: how long a period is, and how many rows are few.
        seed: of the bootstrap, where it is used.
    """
    moment = np.datetime64(now.astimezone(dt.UTC).replace(tzinfo=None), "us")
    delay = np.timedelta64(round(matures * 86_400_000_000), "us")
    found = []
    for begin, end, version, rows in _groups(served, moment, plan.days):
        some = _taken(served, rows)
        old = some.at + delay <= moment
        one = _Group(kind, operates.get(version, {}), some, old, _is_known(kind, some.truth), plan, seed)
        found.append(one.said(begin, end, version, is_complete=bool(end + delay <= moment)))
    return tuple(found)


def decay(
    measure: Metric, periods: Sequence[Realised], reference: Reference, *, floor: float | None, plan: PerformancePlan
) -> Decay:
    """Whether a measure of one version has surely fallen below what it was at training, or below the floor.

    Periods count that are complete, measured, and whose outcomes are not missing unevenly, in order of time: looking every week spends
    nothing, and periods that a later look may change are left out.

    Args:
        measure: that decides.
        periods: of one version.
        reference: the measure on rows that it did not learn from.
        floor: of the project, or None.
        plan: the budget of false alarms, and what is material.

    Raises:
        ValueError: the periods are of several versions.
    """
    if len(versions := {period.version for period in periods}) > 1:
        raise ValueError(f"periods of {len(versions)} versions are given, {sorted(versions)}; give those of one")
    usable = sorted((period for period in periods if _counts(period, measure.name)), key=lambda period: period.begin)
    found = [period.metrics[measure.name] for period in usable]
    own = standard_error(reference)
    errors = [max(standard_error(one), own * (reference.rare / max(one.rare, 1)) ** 0.5) for one in found]
    return fallen(measure, [one.value for one in found], errors, reference, floor=floor, plan=plan)


def fallen(
    measure: Metric, values: Sequence[float], errors: Sequence[float], reference: Reference, *, floor: float | None, plan: PerformancePlan
) -> Decay:  # fmt: skip
    """Whether values have surely fallen below the reference's worse end less what is immaterial, or below the floor if that is stricter.

    Each value's distance from the bar in standard errors, with the reference's spread between periods in them, is taken as normal.

    Args:
        measure: that decides.
        values: (n,) one a period, oldest first.
        errors: (n,) their standard errors.
        reference: the measure on rows that the version did not learn from.
        floor: of the project, or None.
        plan: the budget of false alarms, and what is material.
    """
    bar, against = _bar(measure, reference, floor, plan.material)
    scale = np.hypot(np.asarray(errors, dtype="float64"), reference.spread)
    below = -measure.gain(np.asarray(values, dtype="float64"), bar)
    path = shifted(below / np.maximum(scale, 1e-12))
    level = float(path[-1]) if len(path) else 0.0
    fell, effect = level >= plan.bar, float(measure.gain(values[-1], reference.value)) if len(values) else None
    return Decay(
        measure=measure.name, fell=fell, level=level, threshold=plan.bar, bar=bar, against=against, effect=effect, periods=len(values),
        says=_words(measure, values, bar, against, level, plan.bar),
    )  # fmt: skip


@dataclass(frozen=True)
class _Group:
    """The rows of one version in one period."""

    kind: Kind
    operates: Mapping[str, float]
    rows: Served
    old: np.ndarray
    known: np.ndarray
    plan: PerformancePlan
    seed: int

    def said(self, begin: np.datetime64, end: np.datetime64, version: str, *, is_complete: bool) -> Realised:
        """What can be said of them."""
        state, why = self._state()
        censoring = self._censoring() if self.old.any() and state != "unknowable" else None
        metrics = self._metrics(censoring) if censoring and state == "measured" else {}
        warning = f"; {censoring.says}" if censoring and censoring.says else ""
        return Realised(
            begin=_moment(begin), end=_moment(end), version=version, rows=len(self.old), matured=int(self.old.sum()),
            labelled=int((self.old & self.known).sum()), early=int((~self.old & self.known).sum()), is_complete=is_complete,
            state=state, metrics=metrics, censoring=censoring, says=f"{why}{warning}",
        )  # fmt: skip

    def _state(self) -> tuple[State, str]:
        """Whether there is a measure, and in words how many rows it has or why there is none."""
        matured, labelled = int(self.old.sum()), int((self.old & self.known).sum())
        if not self.kind.needs_labels:
            return "unknowable", "nobody ever knows what is true of these answers"
        if not matured:
            return "pending", f"all {len(self.old):,} rows are too young for their outcomes"
        if not labelled:
            return "no outcomes", f"none of {matured:,} matured rows has an outcome"
        if labelled < self.plan.fewest:
            return "too few rows", f"too few rows: {labelled:,} have an outcome, {self.plan.fewest:,} are wanted"
        if self.kind.has_chances and (rare := self._second()) < self.plan.rarest:
            return "too few rows", f"too few rows: {rare:,} of the rarer class, {self.plan.rarest:,} are wanted"
        young = len(self.old) - matured
        return "measured", f"{labelled:,} rows with an outcome{f'; {young:,} are pending' if young else ''}"

    def _second(self) -> int:
        """Rows of the second most frequent class: of two the rarer one."""
        counts = np.unique(self._truth(), return_counts=True)[1]
        return int(np.sort(counts)[-2]) if len(counts) > 1 else 0

    def _truth(self) -> np.ndarray:
        truth = self.rows.truth[self.old & self.known]
        return truth.astype(int) if self.kind.has_chances else truth

    def _metrics(self, censoring: Censoring) -> dict[str, Measured]:
        truth, answers = self._truth(), self.rows.answers[self.old & self.known]
        rare = rarest(truth) if self.kind.has_chances else len(truth)
        found = {
            name: gauged(one, truth, answers, self.seed) for name, one in measures(self.kind, self.operates).items()
        }
        return {
            name: Measured(**said.model_dump(), rows=len(truth), rare=rare, is_flagged=censoring.is_flagged)
            for name, said in found.items()
            if isfinite(said.high - said.low)
        }

    def _censoring(self) -> Censoring:
        gone, groups = ~self.known[self.old], self._grouping()
        by_group = {name: gone[at] for name, at in groups.items()}
        shares = {name: float(lost.mean()) for name, lost in by_group.items()}
        most, least = max(shares, key=lambda name: shares[name]), min(shares, key=lambda name: shares[name])
        apart = newcombe(
            shares[most], len(by_group[most]), shares[least], len(by_group[least]), alpha=0.05 / len(shares)
        )
        is_uneven = len(shares) > 1 and apart.low > self.plan.unlabelled
        share, says = float(gone.mean()), ""
        if is_uneven:
            says = f"{shares[most]:.0%} of the matured rows of “{most}” have no outcome, against {shares[least]:.0%} of “{least}”: it is measured on rows that were chosen by what the model said"
        elif share > self.plan.unlabelled:
            says = f"{share:.0%} of the matured rows have no outcome"
        return Censoring(share=share, by_group=shares, is_flagged=bool(says), is_uneven=bool(is_uneven), says=says)

    def _grouping(self) -> dict[str, np.ndarray]:
        """Places of matured rows by what was decided, else by quarter of the answers; all together where neither can be said."""
        old = _taken(self.rows, np.flatnonzero(self.old))
        decided = old.decisions
        if decided is None and (self.operates or not self.kind.is_number):
            decided = self.kind.decided(old.answers, dict(self.operates))
        if decided is not None:
            return {str(name): np.flatnonzero(decided == name) for name in pd.unique(decided)}
        if old.answers.ndim == 1 and len(old.at) >= 4:
            quarters = np.array_split(np.argsort(old.answers, kind="stable"), 4)
            return dict(
                zip(("lowest quarter", "second quarter", "third quarter", "highest quarter"), quarters, strict=True)
            )
        return {"all": np.arange(len(old.at))}


def _groups(
    served: Served, now: np.datetime64, days: int
) -> Iterator[tuple[np.datetime64, np.datetime64, str, np.ndarray]]:
    """Begin, end, version and places of the rows of each period and version, oldest first; rows of the future are left out."""
    length, at = np.timedelta64(days, "D").astype("timedelta64[us]"), served.at.astype("datetime64[us]")
    period = np.where(at <= now, (at - MONDAY) // length, np.iinfo(np.int64).min)
    table = pd.DataFrame({"period": period, "version": [str(version) for version in served.versions]})
    for (number, version), rows in table[at <= now].groupby(["period", "version"], sort=True):
        begin = MONDAY + int(number) * length
        yield begin, begin + length, str(version), rows.index.to_numpy()


def _taken(served: Served, places: np.ndarray) -> Served:
    decisions = None if served.decisions is None else served.decisions[places]
    return Served(served.at[places], served.versions[places], served.answers[places], served.truth[places], decisions)


def _is_known(kind: Kind, truth: np.ndarray) -> np.ndarray:
    """Which rows have an outcome: (n,)."""
    numbers = np.asarray(truth, dtype="float64")
    if numbers.ndim == 2:
        numbers = numbers.max(axis=1)
        return numbers >= 0
    return numbers >= 0 if kind.has_chances else np.isfinite(numbers)


def _moment(at: np.datetime64) -> dt.datetime:
    return dt.datetime.fromisoformat(str(at.astype("datetime64[us]"))).replace(tzinfo=dt.UTC)


def _counts(period: Realised, measure: str) -> bool:
    """Whether a period is evidence: nothing in it will change, and nobody chose its outcomes."""
    uneven = period.censoring is not None and period.censoring.is_uneven
    return period.is_complete and not uneven and measure in period.metrics


def _bar(
    measure: Metric, reference: Reference, floor: float | None, material: float
) -> tuple[float, Literal["reference", "floor"]]:
    sign = 1 if measure.greater_is_better else -1
    end = reference.low if measure.greater_is_better else reference.high
    bar = end - sign * material * abs(reference.value)
    return (floor, "floor") if floor is not None and sign * (floor - bar) > 0 else (bar, "reference")


def _words(
    measure: Metric, values: Sequence[float], bar: float, against: str, level: float, threshold: float
) -> str:  # fmt: skip
    if not len(values):
        return f"no period tells yet whether {measure.label} fell"
    than = f"{'below' if measure.greater_is_better else 'above'} {bar:.4g}, {'the floor' if against == 'floor' else 'what it was at training less what is immaterial'}"
    now = f"{measure.label} was {values[-1]:.4g} in the newest period"
    sure = "surely" if level >= threshold else "not surely"
    return f"{now}; it is {sure} {than} ({len(values)} period{'s' if len(values) > 1 else ''}, evidence {level:.3g} of {threshold:.3g})"
