"""Volumes: whether as much comes as usual, as often, and as new."""

import datetime as dt
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tasks.ml.watching.alarm import Kind
from tasks.ml.watching.oddness import DAY, WEEKS, Look, Looked, Odd, apart, few, level, nothing, oddest, said, time

AHEAD = 2.0  # hours that a sender's clock may be ahead
LONGEST_PAUSE = 20.0  # logarithm of hours: longer than any project lives


def checked(look: Look) -> list[Looked]:
    """What the checks say of what came since the last look, and of what did not."""
    return [check(look) for check in (_batch_rows, _day_rows, _day_level, _clock, _arrivals, _outcomes)]


def _batch_rows(look: Look) -> Looked:
    """Whether a batch has far more or fewer rows than those before."""
    name, batches = "rows a batch", [one for one in look.history.batches if one.at <= look.now]
    times = [one.at for one in batches]
    old = look.old(times)
    if old == len(batches):
        return nothing(name, "batch")
    if look.is_few(old):
        return few(name, old, look.plan.at_least, "batches")
    rows = np.log1p([one.rows for one in batches])
    usual, away = apart(rows, [at.weekday() for at in times], old)
    odd = oddest(np.abs(away), old, look.alpha(times), math.log(look.plan.factor))
    says = f"the batch of {time(times[odd.place])} has {batches[odd.place].rows:,} rows; usually it has about {np.expm1(usual[odd.place]):,.0f}"
    return said(name, "volume", odd, f"{len(batches) - old} batches of a usual size", says)


def _days(look: Look) -> tuple[list[dt.datetime], np.ndarray]:
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


def _day_rows(look: Look) -> Looked:
    """Whether a whole day brought far more or fewer rows than that weekday usually does."""
    name, (days, rows) = "rows a day", _days(look)
    old = look.old([day + DAY for day in days])
    if old == len(days):
        return nothing(name, "whole day since the last look")
    if look.is_few(old):
        return few(name, old, look.plan.at_least, "days")
    usual, away = apart(rows, [day.weekday() for day in days], old)
    away = np.where(usual > 0, np.abs(away), 0)  # rows on a day that usually brings none are nothing broken
    odd = oddest(away, old, look.alpha(days), math.log(look.plan.factor))
    says = f"{days[odd.place]:%A, %Y-%m-%d}, brought {np.expm1(rows[odd.place]):,.0f} rows; usually it brings about {np.expm1(usual[odd.place]):,.0f}"
    return said(name, "volume", odd, f"{len(days) - old} days of a usual size", says)


def _day_level(look: Look) -> Looked:
    """Whether the rows a day have settled on another level within the last two weeks, though no single day is odd."""
    name, (days, rows) = "level of the rows a day", _days(look)
    if not days or look.old([day + DAY for day in days]) == len(days):
        return nothing(name, "whole day since the last look")
    if len(days) < 7 * WEEKS:
        return few(name, len(days), 7 * WEEKS, "days")
    series = apart(rows, [day.weekday() for day in days], len(days))[1]
    return level(look, name, "volume", series, days, "the rows a day", 14)


def _clock(look: Look) -> Looked:
    """Whether the newest row of a batch is from the future, or far older than usual when it arrives (faults: I-20)."""
    name = "age of the newest row"
    batches = [one for one in look.history.batches if one.profile and one.profile.newest and one.at <= look.now]
    times = [one.at for one in batches]
    old = look.old(times)
    if old == len(batches):
        return nothing(name, "batch with times")
    hours = np.array(
        [(one.at - one.profile.newest).total_seconds() / 3600 for one in batches if one.profile and one.profile.newest]
    )
    early = Odd(old + int(hours[old:].argmin()), float(-hours[old:].min()), AHEAD)
    if early.level > early.bar:
        says = f"the newest row of the batch of {time(times[early.place])} is {early.level:,.1f} hours from the future; a clock is wrong"
        return said(name, "freshness", early, "", says)
    if look.is_few(old):
        return few(name, old, look.plan.at_least, "batches")
    _, away = apart(np.log1p(np.maximum(hours, 0)), [at.weekday() for at in times], old)
    odd = oddest(np.maximum(away, 0), old, look.alpha(times), math.log(look.plan.factor))
    says = f"the newest row of the batch of {time(times[odd.place])} is {hours[odd.place]:,.1f} hours old on arrival, older than usual"
    return said(name, "freshness", odd, "the rows are as new as usual", says)


def _arrivals(look: Look) -> Looked:
    return _pause(look, "arrival of rows", "freshness", [one.at for one in look.history.batches], look.plan.fresh_hours)


def _outcomes(look: Look) -> Looked:
    return _pause(look, "arrival of outcomes", "labels", look.history.outcomes, look.plan.outcome_hours)


def _pause(look: Look, name: str, kind: Kind, times: Sequence[dt.datetime], declared: float | None) -> Looked:
    """Whether nothing has come for longer than was declared, or than the pauses so far let expect after that weekday."""
    what = name.removeprefix("arrival of ")
    came = sorted(at for at in times if at <= look.now)
    if not came:
        return nothing(name, what)
    waited = (look.now - came[-1]).total_seconds() / 3600
    if declared is not None:
        says = f"no {what} came for {waited:,.1f} hours; every {declared:g} hours are wanted"
        return said(name, kind, Odd(0, waited, declared), f"{what} came {waited:,.1f} hours ago", says)
    starts, pauses = _pauses(came)
    if look.is_few(len(pauses)):
        return few(name, len(pauses), look.plan.at_least, "pauses")
    days = [at.weekday() for at in (*starts, came[-1])]
    usual, away = apart(np.log([*pauses, max(waited, 1e-9)]), days, len(pauses))
    odd = oddest(np.maximum(away, 0), len(pauses), look.alpha([*starts, came[-1]]), math.log(look.plan.factor))
    due = came[-1] + dt.timedelta(hours=float(np.exp(usual[-1])))
    odd = Odd(odd.place, waited, float(np.exp(min(usual[-1] + odd.bar, LONGEST_PAUSE))))
    says = f"no {what} came for {waited:,.1f} hours; they were expected around {time(due)}, and pauses of up to {odd.bar:,.1f} hours happen"
    return said(name, kind, odd, f"{what} came {waited:,.1f} hours ago", says)


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
