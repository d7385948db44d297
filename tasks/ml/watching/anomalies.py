"""Anomalies of data and service: odd values, volumes, silence, slowness, failures. What is broken is mended; nobody retrains on it.

The watch calls `find(History(...), now, plan)`. Every check learns from the project's own past what is usual and spends its share of the
false alarms that the project bears; one without enough of a past says "too few", never "ok".
"""

import datetime as dt
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, Field

from tasks.ml.profile import PROBABILITIES, Numbers, Profile, Words
from tasks.ml.watching.alarm import MONTH, Alarm, Kind
from tasks.ml.watching.usual import bar, changes, usual_of, without_each

FEWEST_ROWS = 30  # below which a batch has no distribution
FEWEST_ANSWERS = 20  # below which a bucket has no percentile
COMMON = 5  # categories whose shares are looked at
NAMED = 5  # columns that an alarm names
LEAST_Z = 4.0  # robust standard deviations: less is of no interest
LEAST_SHARE = 0.01  # of the rows: less is of no interest
LEAST_MOVE = 0.05  # of a column's usual width: less is of no interest
DAMPED = 5.0  # milliseconds: below that a ratio says nothing
AHEAD = 2.0  # hours that a sender's clock may be ahead
WEEKS = 6  # of days, before a change of level among them is looked for
LONGEST_PAUSE = 20.0  # logarithm of hours: longer than any project lives
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)

State = Literal["ok", "alarm", "too few", "no data"]


class AnomalyPlan(BaseModel, frozen=True, extra="forbid"):
    """What counts as an anomaly of data or service."""

    false_alarms: float = Field(
        default=1.0, gt=0, le=100, description="a month, that the checks of data and service may make together"
    )
    at_least: int = Field(
        default=10, ge=5, description="batches, days, pauses or hours of the past below which nothing is judged"
    )
    history: int = Field(default=60, ge=10, le=1000, description="batches whose values are looked back at")
    factor: float = Field(default=1.5, gt=1, description="rows, pauses or times that differ by less are never an alarm")
    fresh_hours: float | None = Field(
        default=None, gt=0, description="rows must come at least so often; learned from their arrivals when left out"
    )
    outcome_hours: float | None = Field(
        default=None, gt=0, description="outcomes must come at least so often; learned when left out"
    )
    latency_ms: float | None = Field(
        default=None, gt=0, description="95% of the answers must be as quick, of every hour; learned when left out"
    )
    error_rate: float | None = Field(
        default=None, gt=0, lt=1, description="share of requests that may fail, of every hour; learned when left out"
    )


class Batch(NamedTuple):
    """A batch of rows that landed.

    Attributes:
        at: when, UTC, by this machine's clock.
        rows: how many landed.
        profile: what they look like, with those of the batches that landed together with it; None where another one of these has it.
    """

    at: dt.datetime
    rows: int
    profile: Profile | None = None


class Requests(NamedTuple):
    """The requests of one hour, or of the time between two looks.

    Attributes:
        at: its beginning, UTC.
        count, failed: all of them; those that the server answered with 5xx.
    """

    at: dt.datetime
    count: int
    failed: int

    @classmethod
    def between(cls, at: dt.datetime, before: tuple[int, int], now: tuple[int, int]) -> Self:
        """What was counted since a look at that time, of what `counted` gave then and now; a server that began anew counts from 0.

        >>> START = dt.datetime(2026, 1, 1)
        >>> Requests.between(START, (10, 1), (15, 3))[1:], Requests.between(START, (10, 1), (4, 0))[1:]
        ((5, 2), (4, 0))
        """
        anew = now[0] < before[0] or now[1] < before[1]
        return cls(at, *(now if anew else (now[0] - before[0], now[1] - before[1])))


@dataclass(frozen=True)
class History:
    """What a project received and answered, the newest included.

    Attributes:
        batches: of rows, in the order in which they landed.
        outcomes: when outcomes came, UTC, in any order.
        answered, ms: (n,) when each prediction was answered, datetime64 in UTC, and after how many milliseconds; NaN where not known.
        requests: hour by hour, oldest first.
        since: the last look; what came after it is judged, what came before is the past. None: the newest of each is judged.
        target: the column that is predicted; when its values are odd, the labels are.
    """

    batches: Sequence[Batch] = ()
    outcomes: Sequence[dt.datetime] = ()
    answered: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype="datetime64[us]"))
    ms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    requests: Sequence[Requests] = ()
    since: dt.datetime | None = None
    target: str | None = None


class Check(NamedTuple):
    """What one check says.

    Attributes:
        name: of the check.
        state: "too few": there is not enough of a past; "no data": there was nothing to judge.
        says: a sentence.
        level, threshold: of the oddest that was judged, in the check's own unit; None where nothing was.
    """

    name: str
    state: State
    says: str
    level: float | None = None
    threshold: float | None = None


class Found(NamedTuple):
    """The alarms of one look, and what each check says."""

    alarms: tuple[Alarm, ...]
    checks: tuple[Check, ...]

    @property
    def state(self) -> State:
        """An alarm counts most, then "ok" where any check could judge, then "too few" (faults: M-01)."""
        order: tuple[State, ...] = ("alarm", "ok", "too few", "no data")
        return min((check.state for check in self.checks), key=order.index, default="no data")


Looked = tuple[Check, Alarm | None]


def counted(metrics: str, project: str) -> tuple[int, int]:
    r"""The requests of a project that its server has answered so far, and those that it answered with 5xx, of the text of `/metrics`.

    >>> counted('keepfit_requests_total{project="p",route="predict",status="200"} 7.0\n'
    ...         'keepfit_requests_total{project="p",route="predict",status="503"} 2.0', "p")
    (9, 2)
    """
    from prometheus_client.parser import text_string_to_metric_families

    found = [
        (sample.labels.get("status", ""), round(sample.value))
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "keepfit_requests_total" and sample.labels.get("project") == project
    ]
    return sum(count for _, count in found), sum(count for status, count in found if status.startswith("5"))


def find(history: History, now: dt.datetime, plan: AnomalyPlan | None = None, seed: int = 0) -> Found:
    """The anomalies of what came since the last look, at most one alarm a check (faults: O-11, I-24).

    Args:
        history: of one project.
        now: UTC; what claims to have come later is left out (faults: I-20).
        plan: what counts.
        seed: of the forest, and of the orders that a change of level is tried against.
    """
    look = _Look(history, now, plan or AnomalyPlan(), seed)
    done = [check(look) for check in CHECKS]
    return Found(tuple(alarm for _, alarm in done if alarm), tuple(check for check, _ in done))


@dataclass(frozen=True)
class _Look:
    """One look: a history, a time, a plan."""

    history: History
    now: dt.datetime
    plan: AnomalyPlan
    seed: int

    def alpha(self, times: Sequence[dt.datetime]) -> float:
        """The chance of a false alarm that one unit of a check may have, so that those of a month keep its share."""
        span = (max(times) - min(times)).total_seconds() / 86_400 if len(times) > 1 else 0.0
        monthly = MONTH * (len(times) - 1) / span if span else float(len(times))
        return self.plan.false_alarms / len(CHECKS) / max(monthly, 1.0)

    def old(self, times: Sequence[dt.datetime]) -> int:
        """How many of them, oldest first, are the past; the rest is judged."""
        if self.history.since is None:
            return max(len(times) - 1, 0)
        return sum(at <= self.history.since for at in times)

    def is_few(self, old: int) -> bool:
        """Whether that is too little of a past."""
        return old < self.plan.at_least

    @cached_property
    def table(self) -> "_Table | None":
        """What its batches look like."""
        return _table(self)

    @cached_property
    def hours(self) -> tuple[list[dt.datetime], np.ndarray]:
        """How slow each hour was."""
        return _hours(self)


class _Odd(NamedTuple):
    """The oddest of what was judged."""

    place: int
    level: float
    bar: float


def _oddest(scores: np.ndarray, old: int, alpha: float, least: float) -> _Odd:
    """The oddest new score, against the bar that the old ones make. Some are new."""
    place = old + int(np.argmax(scores[old:]))
    return _Odd(place, float(scores[place]), bar(scores[:old], alpha, least))


def _few(name: str, have: int, want: int, what: str) -> Looked:
    return Check(name, "too few", f"too few {what}: {have} before, {want} are wanted"), None


def _nothing(name: str, what: str) -> Looked:
    return Check(name, "no data", f"no {what} to judge"), None


def _said(name: str, kind: Kind, odd: _Odd, usual: str, strange: str, features: Iterable[str] = ()) -> Looked:
    """An alarm when the level is above the bar, else an "ok" with its numbers."""
    if odd.level <= odd.bar:
        return Check(name, "ok", usual, odd.level, odd.bar), None
    alarm = Alarm(kind=kind, what="mend", features=tuple(features), level=odd.level, threshold=odd.bar, says=strange)
    return Check(name, "alarm", strange, odd.level, odd.bar), alarm


# -- values -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Table:
    """What batches look like, as numbers.

    Attributes:
        batches: the b batches.
        names: of the d summaries: column, and what of it.
        values: (b, d), NaN where a batch has none.
        errors: (b, d) standard errors of sampling, below which no difference counts.
        old: of the batches.
    """

    batches: Sequence[Batch]
    names: Sequence[tuple[str, str]]
    values: np.ndarray
    errors: np.ndarray
    old: int

    @cached_property
    def standardised(self) -> np.ndarray:
        """(b, d) distance of each batch from the old ones beside itself, in robust standard deviations with their sign; 0 where missing."""
        missing = np.isnan(self.values)
        usual = [
            np.median(column[known]) if known.any() else 0.0
            for column, known in zip(self.values.T, ~missing.T, strict=True)
        ]
        filled = np.where(missing, usual, self.values)
        middle, spread = without_each(filled, self.old)
        return np.where(missing, 0.0, (filled - middle) / np.hypot(spread, np.nan_to_num(self.errors, nan=1.0)))


def _table(look: _Look) -> _Table | None:
    """The batches that are big enough, the newest of the past and all that are judged; None where there is nothing to judge."""
    big = [
        one
        for one in look.history.batches
        if one.profile is not None and one.profile.rows >= FEWEST_ROWS and one.at <= look.now
    ]
    old = look.old([one.at for one in big])
    kept = big[max(old - look.plan.history, 0) :]
    old = min(old, look.plan.history)
    if len(kept) <= old:
        return None
    profiles = [one.profile for one in kept if one.profile]
    lines = [line for name in profiles[-1].columns for line in _summaries(name, profiles, old)]
    if not lines:
        return None
    values, errors = (np.array([line[index] for line in lines]).T for index in (1, 2))
    return _Table(kept, [line[0] for line in lines], values, errors, old)


Line = tuple[tuple[str, str], Sequence[float], Sequence[float]]


def _summaries(name: str, profiles: Sequence[Profile], old: int) -> Iterator[Line]:
    """The summaries of one column: what it is, its value in each batch, and its error there."""
    columns = [profile.columns.get(name) for profile in profiles]
    yield _shares((name, "share missing"), [None if one is None else one.gaps for one in columns], profiles)
    numbers = [one if isinstance(one, Numbers) and one.kind == "number" else None for one in columns]
    words = [one if isinstance(one, Words) else None for one in columns]
    if any(numbers):
        yield _shares((name, "share of zeros"), [one.zeros if one else None for one in numbers], profiles)
        yield _shares((name, "share of one value"), [one.mode if one else None for one in numbers], profiles)
        yield from _places(name, numbers, old)
    if any(words):
        yield from _kinds(name, words, profiles, old)


def _shares(what: tuple[str, str], shares: Sequence[float | None], profiles: Sequence[Profile]) -> Line:
    """Shares of the rows, with the error that as many drawn rows have."""
    known = np.array([np.nan if share is None else share for share in shares], dtype=float)
    rows = np.array([profile.sampled or profile.rows for profile in profiles], dtype=float)
    drawn = np.sqrt(np.clip(known, 1 / rows, 1 - 1 / rows) * (1 - np.clip(known, 1 / rows, 1 - 1 / rows)) / rows)
    return what, list(known), list(np.hypot(drawn, LEAST_SHARE))


def _places(name: str, numbers: Sequence[Numbers | None], old: int) -> Iterator[Line]:
    """Quantiles of the values that are not 0, in units of the column's usual width; 0 is a share of its own."""
    none = (math.nan,) * len(PROBABILITIES)
    grid = np.array([one.grid if one and one.grid else none for one in numbers])
    low, quarter, half, three, high = (grid[:, place] for place in (1, 5, 10, 15, 19))
    width = _width(three - quarter, high - low, np.abs(half), old=old)
    filled = np.array([one.filled if one else 1 for one in numbers], dtype=float)
    for place, called in ((1, "low end"), (10, "median"), (19, "high end")):
        share, ends = PROBABILITIES[place], (place - 1, place + 1)
        slope = np.ptp(grid[:, ends], axis=1) / np.ptp(PROBABILITIES[list(ends)])
        drawn = np.sqrt(share * (1 - share) / np.maximum(filled, 1)) * np.nan_to_num(slope) / width
        yield (name, called), list(grid[:, place] / width), list(np.hypot(drawn, LEAST_MOVE))


def _width(*widths: np.ndarray, old: int) -> float:
    """The first of some kinds of width that is usually above 0."""
    for one in widths:
        known = one[:old][~np.isnan(one[:old])]
        if len(known) and (usual := float(np.median(known))) > 0:
            return usual
    return 1.0


def _kinds(name: str, words: Sequence[Words | None], profiles: Sequence[Profile], old: int) -> Iterator[Line]:
    """Shares of the usual categories, and of those that were never seen; the mean length of other texts. No category is named."""
    if lengths := [one.length for one in words if one and one.length]:
        usual = float(np.median(lengths))
        values = [np.nan if one is None or one.length is None else one.length / usual for one in words]
        yield (name, "length"), values, [LEAST_MOVE] * len(words)
    shares = [one.shares if one else {} for one in words]
    total: dict[str, float] = {}
    for known in shares[:old]:
        for value, share in known.items():
            total[value] = total.get(value, 0.0) + share
    if not total:
        return
    for place, value in enumerate(sorted(total, key=lambda value: -total[value])[:COMMON]):
        given = [known.get(value, 0.0) if known else None for known in shares]
        yield _shares((name, f"share of its {_nth(place)} category"), given, profiles)
    unseen = [sum(share for value, share in known.items() if value not in total) if known else None for known in shares]
    yield _shares((name, "share of categories not seen before"), unseen, profiles)


def _nth(place: int) -> str:
    return "commonest" if place == 0 else f"{('second', 'third', 'fourth', 'fifth')[place - 1]} commonest"


def _values(look: _Look) -> Looked:
    """Whether one summary of a batch is far from what it was in those before: the greatest of all, against the greatest of each before."""
    name, table = "values", look.table
    if table is None:
        return _nothing(name, f"batch of {FEWEST_ROWS} rows or more")
    if look.is_few(table.old):
        return _few(name, table.old, look.plan.at_least, "batches")
    away = np.abs(table.standardised)
    odd = _oddest(away.max(axis=1), table.old, look.alpha([one.at for one in table.batches]), LEAST_Z)
    order = [int(place) for place in np.argsort(-away[odd.place]) if away[odd.place, place] > odd.bar] or [
        int(away[odd.place].argmax())
    ]
    columns = list(dict.fromkeys(table.names[place][0] for place in order))[:NAMED]
    column, what = table.names[order[0]]
    says = (
        f"the batch of {_time(table.batches[odd.place].at)} is odd: {what} of {column} is {odd.level:.1f} robust standard deviations from "
        f"the usual; up to {odd.bar:.1f} happens{f'; {len(columns) - 1} more columns are odd' if len(columns) > 1 else ''}"
    )
    kind: Kind = "labels" if columns == [look.history.target] else "values"
    return _said(name, kind, odd, f"no column is odd: at most {odd.level:.1f} of {odd.bar:.1f}", says, columns)


def _whole(look: _Look) -> Looked:
    """Whether a batch is odd as a whole: an isolation forest over all summaries (Liu, Ting and Zhou, 2008), old and new alike."""
    name, table = "whole batch", look.table
    if table is None:
        return _nothing(name, f"batch of {FEWEST_ROWS} rows or more")
    if look.is_few(table.old):
        return _few(name, table.old, look.plan.at_least, "batches")
    from sklearn.ensemble import IsolationForest

    vectors = np.clip(table.standardised, -20, 20)
    forest = IsolationForest(n_estimators=100, max_samples=min(256, len(vectors)), random_state=look.seed).fit(vectors)
    odds = -forest.score_samples(vectors)  # 0.5 is ordinary, 1 is alone at once
    odd = _oddest(
        odds, table.old, look.alpha([one.at for one in table.batches]), float(np.median(odds[: table.old])) + 0.05
    )
    columns = (
        _blamed(vectors[odd.place], table, lambda some: -forest.score_samples(some)) if odd.level > odd.bar else []
    )
    says = (
        f"the batch of {_time(table.batches[odd.place].at)} is odd as a whole: isolation {odd.level:.2f}, up to {odd.bar:.2f} happens; "
        f"most of it by {', '.join(columns)}"
    )
    return _said(name, "values", odd, f"no batch is odd as a whole: {odd.level:.2f} of {odd.bar:.2f}", says, columns)


def _blamed(vector: np.ndarray, table: _Table, odds: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """The columns without whose oddness the batch would be the least odd, the greatest part first; none with less than half of that."""
    columns = list(dict.fromkeys(column for column, _ in table.names))
    owner = np.array([columns.index(column) for column, _ in table.names])
    mended = np.where(owner[None, :] == np.arange(len(columns))[:, None], 0.0, vector)
    part = odds(vector[None, :])[0] - odds(mended)
    return [columns[place] for place in np.argsort(-part)[:NAMED] if part[place] >= part.max() / 2]


# -- volumes and freshness ------------------------------------------------------------------------------------------------
def _apart(values: np.ndarray, groups: Sequence[int], old: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) what is usual for each value: the median of its peers among the old ones; and the distance from it."""
    usual = usual_of(values, groups, old)
    return usual, values - usual


def _batch_rows(look: _Look) -> Looked:
    """Whether a batch has far more or fewer rows than those before."""
    name, batches = "rows a batch", [one for one in look.history.batches if one.at <= look.now]
    times = [one.at for one in batches]
    old = look.old(times)
    if old == len(batches):
        return _nothing(name, "batch")
    if look.is_few(old):
        return _few(name, old, look.plan.at_least, "batches")
    rows = np.log1p([one.rows for one in batches])
    usual, away = _apart(rows, [at.weekday() for at in times], old)
    odd = _oddest(np.abs(away), old, look.alpha(times), math.log(look.plan.factor))
    says = f"the batch of {_time(times[odd.place])} has {batches[odd.place].rows:,} rows; usually it has about {np.expm1(usual[odd.place]):,.0f}"
    return _said(name, "volume", odd, f"{len(batches) - old} batches of a usual size", says)


def _days(look: _Look) -> tuple[list[dt.datetime], np.ndarray]:
    """Every whole UTC day from the second of the history on, and the logarithm of its rows."""
    times = [one.at for one in look.history.batches if one.at <= look.now]
    if not times:
        return [], np.zeros(0)
    first, today = min(times).date(), look.now.date()
    count = max((today - first).days - 1, 0)
    rows = np.zeros(count)
    for one in look.history.batches:
        place = (one.at.date() - first).days - 1
        if 0 <= place < count:
            rows[place] += one.rows
    midnight = dt.datetime.combine(first, dt.time(), tzinfo=look.now.tzinfo)
    return [midnight + (place + 1) * DAY for place in range(count)], np.log1p(rows)


def _day_rows(look: _Look) -> Looked:
    """Whether a whole day brought far more or fewer rows than that weekday usually does."""
    name, (days, rows) = "rows a day", _days(look)
    old = look.old([day + DAY for day in days])
    if old == len(days):
        return _nothing(name, "whole day since the last look")
    if look.is_few(old):
        return _few(name, old, look.plan.at_least, "days")
    usual, away = _apart(rows, [day.weekday() for day in days], old)
    away = np.where(usual > 0, np.abs(away), 0)  # rows on a day that usually brings none are nothing broken
    odd = _oddest(away, old, look.alpha(days), math.log(look.plan.factor))
    says = f"{days[odd.place]:%A, %Y-%m-%d}, brought {np.expm1(rows[odd.place]):,.0f} rows; usually it brings about {np.expm1(usual[odd.place]):,.0f}"
    return _said(name, "volume", odd, f"{len(days) - old} days of a usual size", says)


def _day_level(look: _Look) -> Looked:
    """Whether the rows a day have settled on another level within the last two weeks, though no single day is odd."""
    name, (days, rows) = "level of the rows a day", _days(look)
    if not days or look.old([day + DAY for day in days]) == len(days):
        return _nothing(name, "whole day since the last look")
    if len(days) < 7 * WEEKS:
        return _few(name, len(days), 7 * WEEKS, "days")
    series = _apart(rows, [day.weekday() for day in days], len(days))[1]
    return _level(look, name, "volume", series, days, "the rows a day", 14)


def _level(
    look: _Look, name: str, kind: Kind, series: np.ndarray, times: Sequence[dt.datetime], what: str, recent: int
) -> Looked:
    """A change of the level of a series of logarithms among its last `recent` values."""
    alpha = look.alpha(times)
    places = [0, *changes(series, alpha, np.random.default_rng(look.seed)), len(series)]
    if len(places) == 2 or places[-2] < len(series) - recent:
        return Check(name, "ok", f"{what} keep their level"), None
    before, after = (float(np.median(series[start:end])) for start, end in list(pairwise(places))[-2:])
    odd = _Odd(places[-2], abs(after - before), math.log(look.plan.factor))
    says = f"since {_time(times[places[-2]])} {what} are {math.exp(after - before):.2f} times what they were"
    return _said(name, kind, odd, f"{what} changed by less than a factor of {look.plan.factor:g}", says)


def _clock(look: _Look) -> Looked:
    """Whether the newest row of a batch is from the future, or far older than usual when it arrives (faults: I-20)."""
    name = "age of the newest row"
    batches = [one for one in look.history.batches if one.profile and one.profile.newest and one.at <= look.now]
    times = [one.at for one in batches]
    old = look.old(times)
    if old == len(batches):
        return _nothing(name, "batch with times")
    hours = np.array(
        [(one.at - one.profile.newest).total_seconds() / 3600 for one in batches if one.profile and one.profile.newest]
    )
    early = _Odd(old + int(hours[old:].argmin()), float(-hours[old:].min()), AHEAD)
    if early.level > early.bar:
        says = f"the newest row of the batch of {_time(times[early.place])} is {early.level:,.1f} hours from the future; a clock is wrong"
        return _said(name, "freshness", early, "", says)
    if look.is_few(old):
        return _few(name, old, look.plan.at_least, "batches")
    _, away = _apart(np.log1p(np.maximum(hours, 0)), [at.weekday() for at in times], old)
    odd = _oddest(np.maximum(away, 0), old, look.alpha(times), math.log(look.plan.factor))
    says = f"the newest row of the batch of {_time(times[odd.place])} is {hours[odd.place]:,.1f} hours old on arrival, older than usual"
    return _said(name, "freshness", odd, "the rows are as new as usual", says)


def _arrivals(look: _Look) -> Looked:
    return _pause(look, "arrival of rows", "freshness", [one.at for one in look.history.batches], look.plan.fresh_hours)


def _outcomes(look: _Look) -> Looked:
    return _pause(look, "arrival of outcomes", "labels", look.history.outcomes, look.plan.outcome_hours)


def _pause(look: _Look, name: str, kind: Kind, times: Sequence[dt.datetime], declared: float | None) -> Looked:
    """Whether nothing has come for longer than was declared, or than the pauses so far let expect after that weekday."""
    what = name.removeprefix("arrival of ")
    came = sorted(at for at in times if at <= look.now)
    if not came:
        return _nothing(name, what)
    waited = (look.now - came[-1]).total_seconds() / 3600
    if declared is not None:
        says = f"no {what} came for {waited:,.1f} hours; every {declared:g} hours are wanted"
        return _said(name, kind, _Odd(0, waited, declared), f"{what} came {waited:,.1f} hours ago", says)
    starts, pauses = _pauses(came)
    if look.is_few(len(pauses)):
        return _few(name, len(pauses), look.plan.at_least, "pauses")
    days = [at.weekday() for at in (*starts, came[-1])]
    usual, away = _apart(np.log([*pauses, max(waited, 1e-9)]), days, len(pauses))
    odd = _oddest(np.maximum(away, 0), len(pauses), look.alpha([*starts, came[-1]]), math.log(look.plan.factor))
    due = came[-1] + dt.timedelta(hours=float(np.exp(usual[-1])))
    odd = _Odd(odd.place, waited, float(np.exp(min(usual[-1] + odd.bar, LONGEST_PAUSE))))
    says = f"no {what} came for {waited:,.1f} hours; they were expected around {_time(due)}, and pauses of up to {odd.bar:,.1f} hours happen"
    return _said(name, kind, odd, f"{what} came {waited:,.1f} hours ago", says)


def _pauses(came: Sequence[dt.datetime]) -> tuple[list[dt.datetime], np.ndarray]:
    """Where the pauses between arrivals begin, and their hours; what comes together counts once, be it ten thousand files (faults: I-24).

    Together is what follows within a twentieth of the pause that half of the time lies in.
    """
    gaps = np.array([(after - before).total_seconds() / 3600 for before, after in pairwise(came)])
    if not gaps.any():
        return [], np.zeros(0)
    ordered = np.sort(gaps)
    middle = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
    real = gaps > middle / 20
    return [at for at, is_real in zip(came[:-1], real, strict=True) if is_real], gaps[real]


# -- the service ----------------------------------------------------------------------------------------------------------
def _hours(look: _Look) -> tuple[list[dt.datetime], np.ndarray]:
    """Every hour with enough answers, and the 95th percentile of their milliseconds."""
    until = np.datetime64(look.now.astimezone(dt.UTC).replace(tzinfo=None), "us")
    known = ~np.isnan(look.history.ms) & (look.history.answered <= until)
    hour, ms = look.history.answered[known].astype("datetime64[h]"), look.history.ms[known]
    order = np.argsort(hour, kind="stable")
    begins, starts, counts = np.unique(hour[order], return_index=True, return_counts=True)
    kept = counts >= FEWEST_ANSWERS
    slow = [_high(some) for some, enough in zip(np.split(ms[order], starts[1:]), kept, strict=False) if enough]
    moments = begins[kept].astype("datetime64[us]").tolist()
    return [moment.replace(tzinfo=dt.UTC) for moment in moments], np.array(slow)


def _high(values: np.ndarray) -> float:
    """The value that one in twenty is above."""
    place = math.ceil(0.95 * len(values)) - 1
    return float(np.partition(values, place)[place])


def _latency(look: _Look) -> Looked:
    """Whether the slowest twentieth of an hour's answers took far longer than usual, or than was declared."""
    name, (times, slow) = "latency", look.hours
    old = look.old([at + HOUR for at in times])
    if old == len(times):
        return _nothing(name, f"hour with {FEWEST_ANSWERS} answers")
    if (declared := look.plan.latency_ms) is not None:
        place = old + int(slow[old:].argmax())
        odd = _Odd(place, float(slow[place]), declared)
        says = f"in the hour from {_time(times[place])} one answer in twenty took over {slow[place]:,.1f} ms; {declared:g} ms are wanted"
        return _said(name, "latency", odd, f"95% of the answers within {slow[place]:,.1f} ms", says)
    if look.is_few(old):
        return _few(name, old, look.plan.at_least, "hours")
    usual, away = _apart(np.log(slow + DAMPED), [0] * len(slow), old)
    odd = _oddest(np.maximum(away, 0), old, look.alpha(times), math.log(look.plan.factor))
    says = (
        f"in the hour from {_time(times[odd.place])} one answer in twenty took over {slow[odd.place]:,.1f} ms; usually it is "
        f"{np.exp(usual[odd.place]) - DAMPED:,.1f} ms"
    )
    return _said(name, "latency", odd, "the service answers as quickly as usual", says)


def _latency_level(look: _Look) -> Looked:
    """Whether the answers have become slower for good within the last two days."""
    name, (times, slow) = "level of the latency", look.hours
    if look.old([at + HOUR for at in times]) == len(times):
        return _nothing(name, f"hour with {FEWEST_ANSWERS} answers")
    if len(times) < 7 * WEEKS:
        return _few(name, len(times), 7 * WEEKS, "hours")
    kept = slice(-24 * 14, None)  # two weeks
    return _level(look, name, "latency", np.log(slow[kept] + DAMPED), times[kept], "the times of answers", 48)


def _errors(look: _Look) -> Looked:
    """Whether far more requests failed in an hour than usual, or than was declared."""
    name, hours = "errors", [one for one in look.history.requests if one.count and one.at <= look.now]
    times = [one.at for one in hours]
    old = look.old([at + HOUR for at in times])
    if old == len(hours):
        return _nothing(name, "request")
    count, failed = (np.array([one[place] for one in hours], dtype=float) for place in (1, 2))
    if (declared := look.plan.error_rate) is not None:
        place = old + int(_surely(failed, count, declared)[old:].argmax())
        odd = _Odd(place, float(_surely(failed, count, declared)[place]), LEAST_Z)
        says = f"{failed[place]:,.0f} of {count[place]:,.0f} requests from {_time(times[place])} on failed; {declared:.2%} may"
        return _said(name, "errors", odd, f"at most {declared:.2%} of the requests fail", says)
    if look.is_few(old):
        return _few(name, old, look.plan.at_least, "hours")
    usual, _ = _apart(failed / count, [0] * len(hours), old)
    scores = np.where(failed / count - usual >= LEAST_SHARE, _surely(failed, count, usual), 0.0)
    odd = _oddest(scores, old, look.alpha(times), LEAST_Z)
    says = f"{failed[odd.place]:,.0f} of {count[odd.place]:,.0f} requests from {_time(times[odd.place])} on failed; usually {usual[odd.place]:.2%} do"
    return _said(name, "errors", odd, "no more requests fail than usual", says)


def _surely(failed: np.ndarray, count: np.ndarray, usual: np.ndarray | float) -> np.ndarray:
    """By how many standard errors a share is above the usual one, 0 below it; the arcsine makes them alike (Anscombe, 1948)."""
    share = (failed + 3 / 8) / (count + 3 / 4)
    return np.maximum(2 * np.sqrt(count) * (np.arcsin(np.sqrt(share)) - np.arcsin(np.sqrt(usual))), 0)


def _time(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


CHECKS: tuple[Callable[[_Look], Looked], ...] = (
    _values, _whole, _batch_rows, _day_rows, _day_level, _clock, _arrivals, _outcomes, _latency, _latency_level, _errors,
)  # fmt: skip
