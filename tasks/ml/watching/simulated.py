"""Simulation: what the watch does over many months of which the truth is known, with nothing amiss or with one drift planted.

Days are drawn from one set of rows, each with its own weights: what a day favours follows the days before (autoregression) and the day of
the week, over three random mixtures of all columns, so that columns move together. Over a long time every day is like every other: each
alarm is a false one. The reference, its calibration, the looks at sliding windows, what stands between them and what becomes an incident are
those that `watch` calls, as often as it would.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field
from scipy import stats

from tasks.ml.uncertain import wilson
from tasks.ml.watching.alarm import MONTH, Alarm
from tasks.ml.watching.calibration import calibrated_apart
from tasks.ml.watching.domain import Coded, sampled
from tasks.ml.watching.findings import Known, examine
from tasks.ml.watching.incident import IncidentPlan, Seen, after
from tasks.ml.watching.plan import WatchPlan
from tasks.ml.watching.reference import Sketch, merged
from tasks.ml.watching.standing import DRIFT, Standing

LIFE = 12  # months that a version is watched, with one reference and one calibration
FEW = 5  # versions, below which little is said of how often there are false alarms
MIXTURES = 3
LOOKS = 12  # windows in which a planted drift is to be found
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)  # of the looks: a Monday
TIED = 0.3  # rank correlation of two columns, below which breaking it changes next to nothing

Say = Callable[[str], None]
Draw = Callable[[pd.DataFrame, int], pd.DataFrame]


class Stream(BaseModel, frozen=True, extra="forbid"):
    """How days differ while nothing is amiss.

    Attributes:
        rows: of a day, on average; history: days that a version is trained on and its columns are calibrated with.
        carried: how much of a day's level the next one keeps; restless: standard deviation of the levels, in logarithms of the weights.
        weekly: how far the days of a week are apart, the same.
    """

    rows: int = Field(default=100, ge=1)
    history: int = Field(default=182, ge=1)
    carried: float = Field(default=0.6, ge=0, lt=1)
    restless: float = Field(default=0.1, ge=0)
    weekly: float = Field(default=0.2, ge=0)

    @property
    def judged(self) -> int:
        """Days after them by which a version is judged, and its answers are calibrated with: a fifth of all."""
        return self.history // 4

    @property
    def past(self) -> int:
        """Days before a version is watched."""
        return self.history + self.judged

    def levels(self, days: int, random: np.random.Generator) -> np.ndarray:
        """What each day favours: (days, 3)."""
        shocks = random.normal(size=(days, MIXTURES)) * self.restless * np.sqrt(1 - self.carried**2)
        shocks[0] /= np.sqrt(1 - self.carried**2)
        levels = np.zeros_like(shocks)
        for day in range(days):
            levels[day] = self.carried * levels[day - 1] + shocks[day] if day else shocks[0]
        return levels + self.weekly * random.normal(size=(7, MIXTURES))[np.arange(days) % 7]


@dataclass(frozen=True)
class World:
    """The rows that days are drawn from.

    Attributes:
        rows: features, raw; said: (n,) what a fixed model says of them.
        mixtures: (n, 3) what a day may favour, of mean 0 and variance 1.
    """

    rows: pd.DataFrame
    said: np.ndarray
    mixtures: np.ndarray

    @classmethod
    def of(cls, rows: pd.DataFrame, seed: int) -> "World":
        """Of a project's own rows, times left out; the model is a random mixture of the columns."""
        rows = sampled(rows.select_dtypes(exclude="datetime"), 20_000, seed).reset_index(drop=True)
        random, ranks = (
            np.random.default_rng(seed),
            pd.DataFrame(Coded.of(rows).values).rank(pct=True).fillna(0.5).to_numpy(),
        )
        spread = ranks.std(axis=0)
        standard = (ranks - ranks.mean(axis=0)) / np.where(spread > 0, spread, 1)
        mixed = standard @ random.normal(size=(standard.shape[1], MIXTURES + 1))
        mixed = (mixed - mixed.mean(axis=0)) / np.maximum(mixed.std(axis=0), 1e-9)
        return cls(rows, 1 / (1 + np.exp(-mixed[:, 0])), mixed[:, 1:])

    @classmethod
    def made(cls, seed: int) -> "World":
        """Of 20,000 made rows: numbers, two of them tied, skewed and with gaps, categories, a flag."""
        random, n = np.random.default_rng(seed), 20_000
        rows = pd.DataFrame(random.normal(size=(n, 6)), columns=["a", "b", "c", "d", "e", "f"])
        rows["b"] = 0.8 * rows["a"] + 0.6 * rows["b"]
        rows["amount"] = random.lognormal(3, 1, n)
        rows["gapped"] = np.where(random.random(n) < 0.05, np.nan, random.normal(size=n))
        rows["count"] = random.poisson(3, n).astype("float64")
        rows["night"] = random.random(n) < 0.3
        rows["town"] = pd.Series(random.choice(list("abcdefgh"), n, p=np.arange(8, 0, -1) / 36)).astype("str")
        rows["source"] = pd.Series(random.choice(["web", "shop", "phone"], n, p=[0.6, 0.3, 0.1])).astype("str")
        return cls.of(rows, seed)

    def day(self, level: np.ndarray, rows: int, random: np.random.Generator) -> np.ndarray:
        """Which rows come on a day that favours so much: (rows,)."""
        reached = np.cumsum(np.exp(self.mixtures @ level))
        return np.searchsorted(reached, random.random(rows) * reached[-1])


class Day(NamedTuple):
    """What came on one day: features, what the model said of them, and how both are counted."""

    rows: pd.DataFrame
    said: np.ndarray
    sketch: Sketch


class Look(NamedTuple):
    """One look: on which day after the version's past, from 1, at which time, and the alarms of drift that stand then."""

    day: int
    at: dt.datetime
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True)
class Life:
    """One version's: what it was trained on, and the days that came after.

    Attributes:
        world, stream, plan: as they are.
        seed: of all that is drawn.
        length: how many days come; each is a batch.
    """

    world: World
    stream: Stream
    plan: WatchPlan
    seed: int
    length: int

    @cached_property
    def days(self) -> list[np.ndarray]:
        """Which rows came, day by day; those of the past first."""
        random = np.random.default_rng(self.seed)
        levels = self.stream.levels(self.stream.past + self.length, random)
        return [self.world.day(level, int(random.poisson(self.stream.rows)), random) for level in levels]

    @cached_property
    def known(self) -> Known:
        """Of the version, before its first day."""
        world, plan = self.world, self.plan.drift
        past, judged = self.days[: self.stream.history], self.days[self.stream.history : self.stream.past]
        every, new = np.concatenate(past), np.concatenate(judged)
        fixed = Sketch.of(world.rows.iloc[every])
        answered = Sketch.of(world.rows.iloc[new][[]], world.said[new])
        ends = range(len(past) % plan.days + plan.days, len(past) + 1, plan.days)
        windows = [np.concatenate(past[end - plan.days : end]) for end in ends]
        thresholds = calibrated_apart(
            fixed, [fixed.like(world.rows.iloc[day]) for day in past],
            answered, [answered.like(world.rows.iloc[day][[]], world.said[day]) for day in judged],
            plan, [sampled(world.rows.iloc[window], plan.sample, self.seed) for window in windows], seed=self.seed,
        )  # fmt: skip
        whole = fixed.model_copy(update={"predictions": answered.predictions})
        return Known(whole, thresholds, rows=sampled(world.rows.iloc[every], plan.sample, self.seed))

    def looks(self, planted: "Planted | None" = None) -> Iterator[Look]:
        """What stood at each look, with a drift planted from the first day on."""
        window, rolling, standing = self.plan.drift.days, self.plan.drift.rolling * self.plan.drift.days, None
        came = [self._came(day) for day in range(max(self.stream.past - window - rolling, 0), self.stream.past)]
        for day in range(1, self.length + 1):
            came.append(self._came(self.stream.past + day - 1, planted))
            if day % _step(self.plan):
                continue
            before = merged([each.sketch for each in came[-window - rolling : -window]])
            rows, said = (
                pd.concat([each.rows for each in came[-window:]], ignore_index=True),
                np.concatenate([each.said for each in came[-window:]]),
            )
            found = examine(replace(self.known, rolling=before), rows, said, self.plan.drift, seed=self.seed)
            at = START + dt.timedelta(days=day)
            standing = Standing.after(standing, found.alarms, at, at, self.plan.drift)
            yield Look(day, at, standing.alarms)

    def _came(self, day: int, planted: "Planted | None" = None) -> "Day":
        """What came on a day."""
        rows, said = self.world.rows.iloc[self.days[day]].reset_index(drop=True), self.world.said[self.days[day]]
        if planted is not None:
            rows, said = planted.into(rows, said, (day - self.stream.past) // self.plan.drift.days, self.seed + day)
        return Day(rows, said, self.known.fixed.like(rows, said))


def _step(plan: WatchPlan) -> int:
    """Days from one look to the next, where each day is a batch."""
    if plan.on_batch or plan.schedule is None:
        return 1
    return max(round(plan.schedule.interval(START) / dt.timedelta(days=1)), 1)


def openings(looks: Iterable[Look], plan: IncidentPlan) -> int:
    """How many incidents the looks open, as `tasks/incident.py` would tell of them; what an alarm costs is not asked: none is to ignore."""
    known, opened = {}, 0
    for look in looks:
        alarms = [
            alarm.model_copy(update={"what": "retrain"}) if alarm.what == "ignore" else alarm for alarm in look.alarms
        ]
        steps = after(
            [one for one in known.values() if one.state == "open"], alarms, DRIFT, Seen("simulated"), look.at, plan
        )
        known |= {step.incident.id: step.incident for step in steps}
        opened += sum(step.event == "opened" for step in steps)
    return opened


@dataclass(frozen=True)
class Planted:
    """A drift.

    Attributes:
        name: of its kind; about: how great it is, and where.
        change: what it makes of a window's rows, the number of the window after its start, and a seed.
        said: what it makes of what the model says.
    """

    name: str
    about: str
    change: Callable[[pd.DataFrame, int, int], pd.DataFrame] = lambda rows, _number, _seed: rows
    said: Callable[[np.ndarray], np.ndarray] = lambda said: said

    def into(self, rows: pd.DataFrame, said: np.ndarray, number: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        """A window with the drift in it."""
        return self.change(rows.copy(), number, seed), self.said(said)


def plantable(rows: pd.DataFrame) -> list[Planted]:
    """Six drifts of columns that the rows have, and one of what the model says; those whose kind of column is lacking are left out."""
    numbers = [
        name
        for name in rows.columns
        if pd.api.types.is_float_dtype(rows[name]) or pd.api.types.is_integer_dtype(rows[name])
    ]
    by_values = sorted(numbers, key=lambda name: -rows[name].nunique())
    words = [name for name in rows.columns if isinstance(rows[name].dtype, pd.StringDtype)]
    found = []
    if by_values:
        first, last = by_values[0], by_values[-1 if len(by_values) < 3 else 2]
        spread = float(rows[first].std()) or 1.0
        found += [
            Planted("mean", f"{first} rises by 0.5 standard deviations", _shift(first, 0.5 * spread)),
            Planted("scale", f"{first} spreads 1.6 times as wide", _scale(first, float(rows[first].mean()), 1.6)),
            Planted("missing", f"a tenth of {last} goes missing", _gaps(last, 0.1)),
            Planted("slow", f"{first} rises by 0.1 standard deviations a window", _slope(first, 0.1 * spread)),
        ]
    if words:
        found.append(
            Planted("category", f"5 % of {words[0]} is a category never seen before", _newcomer(words[0], 0.05))
        )
    if pair := _tied(rows[numbers]):
        found.append(
            Planted("correlation", f"{pair[0]} and {pair[1]} lose their tie, each as before", _untied(pair[1]))
        )
    return [*found, Planted("predictions", "log-odds of what the model says rise by 0.5", said=_lifted)]


def _shift(name: str, size: float) -> Callable[[pd.DataFrame, int, int], pd.DataFrame]:
    return lambda rows, _number, _seed: rows.assign(**{name: rows[name] + size})


def _scale(name: str, middle: float, factor: float) -> Callable[[pd.DataFrame, int, int], pd.DataFrame]:
    return lambda rows, _number, _seed: rows.assign(**{name: middle + (rows[name] - middle) * factor})


def _slope(name: str, size: float) -> Callable[[pd.DataFrame, int, int], pd.DataFrame]:
    return lambda rows, number, _seed: rows.assign(**{name: rows[name] + size * (number + 1)})


def _gaps(name: str, share: float) -> Callable[[pd.DataFrame, int, int], pd.DataFrame]:
    return lambda rows, _number, seed: rows.assign(**{name: rows[name].mask(_some(rows, share, seed))})


def _newcomer(name: str, share: float) -> Callable[[pd.DataFrame, int, int], pd.DataFrame]:
    return lambda rows, _number, seed: rows.assign(
        **{name: rows[name].mask(_some(rows, share, seed), "never seen before")}
    )


def _untied(name: str) -> Callable[[pd.DataFrame, int, int], pd.DataFrame]:
    return lambda rows, _number, seed: rows.assign(**{name: np.random.default_rng(seed).permutation(rows[name])})


def _some(rows: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(len(rows)) < share


def _lifted(said: np.ndarray) -> np.ndarray:
    odds = said / (1 - said) * np.exp(0.5)
    return odds / (1 + odds)


def _tied(numbers: pd.DataFrame) -> tuple[str, str] | None:
    """The two columns with the closest tie, where any is close."""
    ties = numbers.corr(method="spearman").abs().fillna(0).to_numpy(copy=True)
    np.fill_diagonal(ties, 0)
    if not ties.size or ties.max() < TIED:
        return None
    one, other = np.unravel_index(ties.argmax(), ties.shape)
    return str(numbers.columns[one]), str(numbers.columns[other])


def lives(world: World, months: int, plan: WatchPlan, stream: Stream, seed: int) -> list[Life]:
    """So many months of watching, in versions that are watched for twelve months each."""
    parts = [min(LIFE, months - at) for at in range(0, months, LIFE)]
    return [Life(world, stream, plan, seed + number, max(round(part * MONTH), 1)) for number, part in enumerate(parts)]


def unprovoked(world: World, months: int, plan: WatchPlan, stream: Stream, seed: int, say: Say) -> dict[str, Any]:
    """How many incidents of drift a month begin when nothing is amiss, with a 95 % interval; `ok` unless all of that lies above the budget.

    A version has one calibration, lucky or not, for all of its windows: versions are what is counted. One says nothing of how they
    differ, and is always ok; fewer than five say little, which `says` says.

    Args:
        world: what days are drawn from.
        months: of watching, all together.
        plan: the budget, how often is looked, and when an incident is over.
        stream: how days differ.
        seed: of all that is drawn.
        say: is told how far it is.
    """
    counts, spans, budget = [], [], plan.drift.false_alarms
    for life in (every := lives(world, months, plan, stream, seed)):
        counts.append(openings(life.looks(), plan.incidents))
        spans.append(life.length / MONTH)
        say(
            f"version {len(counts)} of {len(every)}: {sum(counts)} false alarms in {sum(spans):.0f} months; {budget:g} a month are borne"
        )
    low, high = interval(counts, spans)
    return {
        "rate": sum(counts) / sum(spans), "budget": budget, "low": low, "high": high,
        "ok": low <= budget or len(counts) == 1, "says": _sureness(len(counts)),
        "alarms": sum(counts), "months": round(sum(spans), 1), "looks": sum(life.length // _step(plan) for life in every), "versions": len(every),
        "days": plan.drift.days, "every": plan.drift.every, "columns": world.rows.shape[1], "stream": stream.model_dump(),
    }  # fmt: skip


def _sureness(versions: int) -> str:
    """How much so many versions say."""
    if versions >= FEW:
        return f"{versions} calibrations were tried"
    return f"{versions} calibration{'s' * (versions > 1)} only: lucky and unlucky ones do not balance; {FEW * LIFE} months and more say how well the budget is kept"


def interval(counts: Sequence[int], spans: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a rate: exact of one part (Garwood 1936).

    Of several it is wider where they differ by more than chance, and the fewer they are, as how much they differ is only estimated
    (quasi-Poisson with Student's t; McCullagh and Nelder, Generalized Linear Models, 1989, ch. 4.5).

    >>> [round(end, 2) for end in interval([10], [1.0])]
    [4.8, 18.39]
    """
    total, span, free = sum(counts), sum(spans), len(counts) - 1
    expected = [total * part / span for part in spans]
    wider = 1.0
    if free:
        differ = sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True)) if total else 0.0
        wider = max(differ / free, 1.0) * float(stats.t.ppf(0.975, free) / stats.norm.ppf(0.975)) ** 2
    shrunk = total / wider
    low = stats.chi2.ppf(0.025, 2 * shrunk) / 2 if total else 0.0
    return float(low * wider / span), float(stats.chi2.ppf(0.975, 2 * shrunk + 2) / 2 * wider / span)


def provoked(world: World, months: int, plan: WatchPlan, stream: Stream, seed: int, say: Say) -> dict[str, Any]:
    """Of each planted drift: in how many versions it was found within twelve windows, and after how many days.

    A false alarm in these days counts as found, as nobody could tell.

    Args:
        world: what days are drawn from.
        months: divided by twelve: versions that each drift is planted into.
        plan: how often is looked, and at what.
        stream: how days differ.
        seed: of all that is drawn.
        say: is told how far it is.
    """
    length, told = LOOKS * plan.drift.days, {}
    some = [Life(world, stream, plan, life.seed, length) for life in lives(world, months, plan, stream, seed)]
    for planted in plantable(world.rows):
        delays = [_delay(life, planted) for life in some]
        told[planted.name] = _found(planted, delays)
        say(f"{planted.name}: {told[planted.name]['found']:.0%} found, of {len(some)}; {planted.about}")
    return {"drifts": told, "versions": len(some), "windows": LOOKS, "days": plan.drift.days, "budget": plan.drift.false_alarms, "stream": stream.model_dump()}  # fmt: skip


def _delay(life: Life, planted: Planted) -> int | None:
    """After how many days a planted drift is found; None if it never is."""
    return next((look.day for look in life.looks(planted) if look.alarms), None)


def _found(planted: Planted, delays: Sequence[int | None]) -> dict[str, Any]:
    known = [delay for delay in delays if delay is not None]
    low, high = wilson(len(known) / len(delays), len(delays), 0.025)
    return {
        "about": planted.about, "found": len(known) / len(delays), "low": low, "high": high,
        "delay": float(np.median(known)) if known else None, "latest": max(known, default=None),
    }  # fmt: skip
