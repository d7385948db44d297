"""Service: whether answers are as quick as usual, and fail as seldom."""

import datetime as dt
import math

import numpy as np

from tasks.ml.watching.oddness import (
    HOUR,
    LEAST_SHARE,
    LEAST_Z,
    WEEKS,
    Look,
    Looked,
    Odd,
    apart,
    few,
    level,
    nothing,
    oddest,
    said,
    time,
)

FEWEST_ANSWERS = 20  # below which a bucket has no percentile
DAMPED = 5.0  # milliseconds: below that a ratio says nothing

Hours = tuple[list[dt.datetime], np.ndarray]


def checked(look: Look) -> list[Looked]:
    """What the checks say of the requests since the last look."""
    hours = _hours(look)
    return [_latency(look, hours), _latency_level(look, hours), _errors(look)]


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


def _hours(look: Look) -> Hours:
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


def _latency(look: Look, hours: Hours) -> Looked:
    """Whether the slowest twentieth of an hour's answers took far longer than usual, or than was declared."""
    name, (times, slow) = "latency", hours
    old = look.old([at + HOUR for at in times])
    if old == len(times):
        return nothing(name, f"hour with {FEWEST_ANSWERS} answers")
    if (declared := look.plan.latency_ms) is not None:
        place = old + int(slow[old:].argmax())
        odd = Odd(place, float(slow[place]), declared)
        says = f"in the hour from {time(times[place])} one answer in twenty took over {slow[place]:,.1f} ms; {declared:g} ms are wanted"
        return said(name, "latency", odd, f"95% of the answers within {slow[place]:,.1f} ms", says)
    if look.is_few(old):
        return few(name, old, look.plan.at_least, "hours")
    usual, away = apart(np.log(slow + DAMPED), [0] * len(slow), old)
    odd = oddest(np.maximum(away, 0), old, look.alpha(times), math.log(look.plan.factor))
    says = (
        f"in the hour from {time(times[odd.place])} one answer in twenty took over {slow[odd.place]:,.1f} ms; usually it is "
        f"{np.exp(usual[odd.place]) - DAMPED:,.1f} ms"
    )
    return said(name, "latency", odd, "the service answers as quickly as usual", says)


def _latency_level(look: Look, hours: Hours) -> Looked:
    """Whether the answers have become slower for good within the last two days."""
    name, (times, slow) = "level of the latency", hours
    if look.old([at + HOUR for at in times]) == len(times):
        return nothing(name, f"hour with {FEWEST_ANSWERS} answers")
    if len(times) < 7 * WEEKS:
        return few(name, len(times), 7 * WEEKS, "hours")
    kept = slice(-24 * 14, None)  # two weeks
    return level(look, name, "latency", np.log(slow[kept] + DAMPED), times[kept], "the times of answers", 48)


def _errors(look: Look) -> Looked:
    """Whether far more requests failed in an hour than usual, or than was declared."""
    name, hours = "errors", [one for one in look.history.requests if one.count and one.at <= look.now]
    times = [one.at for one in hours]
    old = look.old([at + HOUR for at in times])
    if old == len(hours):
        return nothing(name, "request")
    count, failed = (np.array([one[place] for one in hours], dtype=float) for place in (1, 2))
    if (declared := look.plan.error_rate) is not None:
        place = old + int(_surely(failed, count, declared)[old:].argmax())
        odd = Odd(place, float(_surely(failed, count, declared)[place]), LEAST_Z)
        says = f"{failed[place]:,.0f} of {count[place]:,.0f} requests from {time(times[place])} on failed; {declared:.2%} may"
        return said(name, "errors", odd, f"at most {declared:.2%} of the requests fail", says)
    if look.is_few(old):
        return few(name, old, look.plan.at_least, "hours")
    usual, _ = apart(failed / count, [0] * len(hours), old)
    scores = np.where(failed / count - usual >= LEAST_SHARE, _surely(failed, count, usual), 0.0)
    odd = oddest(scores, old, look.alpha(times), LEAST_Z)
    says = f"{failed[odd.place]:,.0f} of {count[odd.place]:,.0f} requests from {time(times[odd.place])} on failed; usually {usual[odd.place]:.2%} do"
    return said(name, "errors", odd, "no more requests fail than usual", says)


def _surely(failed: np.ndarray, count: np.ndarray, usual: np.ndarray | float) -> np.ndarray:
    """By how many standard errors a share is above the usual one, 0 below it; the arcsine makes them alike (Anscombe, 1948)."""
    share = (failed + 3 / 8) / (count + 3 / 4)
    return np.maximum(2 * np.sqrt(count) * (np.arcsin(np.sqrt(share)) - np.arcsin(np.sqrt(usual))), 0)
