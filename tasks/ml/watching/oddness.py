"""Oddness: what a check of data or service looks at, and how it says that something is odd.

A check learns from the project's own past what is usual, and spends its share of the false alarms that the project bears.
"""

import datetime as dt
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, Field

from tasks.ml.profile import Profile
from tasks.ml.watching.alarm import MONTH, Alarm, Kind
from tasks.ml.watching.usual import bar, changes, usual_of

CHECKS = 11  # that share the false alarms
LEAST_Z = 4.0  # robust standard deviations: less is of no interest
LEAST_SHARE = 0.01  # of the rows: less is of no interest
WEEKS = 6  # of days, before a change of level among them is looked for
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
        kind: of its alarms; None where nothing was judged.
    """

    name: str
    state: State
    says: str
    level: float | None = None
    threshold: float | None = None
    kind: Kind | None = None


class Found(NamedTuple):
    """The alarms of one look, and what each check says."""

    alarms: tuple[Alarm, ...]
    checks: tuple[Check, ...]

    @property
    def judged(self) -> tuple[str, ...]:
        """The checks that had enough to judge, by their names and, for alarms of which only that is known, by their kinds."""
        told = [check for check in self.checks if check.kind is not None]
        return tuple(dict.fromkeys([*(check.name for check in told), *(str(check.kind) for check in told)]))


Looked = tuple[Check, Alarm | None]


@dataclass(frozen=True)
class Look:
    """One look: a history, a time, a plan."""

    history: History
    now: dt.datetime
    plan: AnomalyPlan
    seed: int

    def alpha(self, times: Sequence[dt.datetime]) -> float:
        """The chance of a false alarm that one unit of a check may have, so that those of a month keep its share."""
        span = (max(times) - min(times)).total_seconds() / 86_400 if len(times) > 1 else 0.0
        monthly = MONTH * (len(times) - 1) / span if span else float(len(times))
        return self.plan.false_alarms / CHECKS / max(monthly, 1.0)

    def old(self, times: Sequence[dt.datetime]) -> int:
        """How many of them, oldest first, are the past; the rest is judged."""
        if self.history.since is None:
            return max(len(times) - 1, 0)
        return sum(at <= self.history.since for at in times)

    def is_few(self, old: int) -> bool:
        """Whether that is too little of a past."""
        return old < self.plan.at_least


class Odd(NamedTuple):
    """The oddest of what was judged."""

    place: int
    level: float
    bar: float


def oddest(scores: np.ndarray, old: int, alpha: float, least: float) -> Odd:
    """The oddest new score, against the bar that the old ones make. Some are new."""
    place = old + int(np.argmax(scores[old:]))
    return Odd(place, float(scores[place]), bar(scores[:old], alpha, least))


def few(name: str, have: int, want: int, what: str) -> Looked:
    """There is not enough of a past."""
    return Check(name, "too few", f"too few {what}: {have} before, {want} are wanted"), None


def nothing(name: str, what: str) -> Looked:
    """There is nothing to judge."""
    return Check(name, "no data", f"no {what} to judge"), None


def said(name: str, kind: Kind, odd: Odd, usual: str, strange: str, features: Iterable[str] = ()) -> Looked:
    """An alarm when the level is above the bar, else an "ok" with its numbers."""
    if odd.level <= odd.bar:
        return Check(name, "ok", usual, odd.level, odd.bar, kind), None
    alarm = Alarm(
        kind=kind, what="mend", features=tuple(features), level=odd.level, threshold=odd.bar, says=strange, check=name
    )
    return Check(name, "alarm", strange, odd.level, odd.bar, kind), alarm


def apart(values: np.ndarray, groups: Sequence[int], old: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) what is usual for each value: the median of its peers among the old ones; and the distance from it."""
    usual = usual_of(values, groups, old)
    return usual, values - usual


def level(
    look: Look, name: str, kind: Kind, series: np.ndarray, times: Sequence[dt.datetime], what: str, recent: int
) -> Looked:
    """A change of the level of a series of logarithms among its last `recent` values."""
    alpha = look.alpha(times)
    places = [0, *changes(series, alpha, np.random.default_rng(look.seed)), len(series)]
    if len(places) == 2 or places[-2] < len(series) - recent:
        return Check(name, "ok", f"{what} keep their level", kind=kind), None
    before, after = (float(np.median(series[start:end])) for start, end in list(pairwise(places))[-2:])
    odd = Odd(places[-2], abs(after - before), math.log(look.plan.factor))
    says = f"since {time(times[places[-2]])} {what} are {math.exp(after - before):.2f} times what they were"
    return said(name, kind, odd, f"{what} changed by less than a factor of {look.plan.factor:g}", says)


def time(at: dt.datetime) -> str:
    """As sentences say it."""
    return f"{at:%Y-%m-%d %H:%M}"
