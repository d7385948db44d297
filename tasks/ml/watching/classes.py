"""Classes: what to do about what moved. One alarm for each kind of incident, however many columns moved: retrain, mend the data, or ignore."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel

from tasks.ml.profile import CLEAR, FACTORS, POWERS, SCALES
from tasks.ml.watching.alarm import Alarm, Class
from tasks.ml.watching.domain import Domain
from tasks.ml.watching.drift import Drift, distances
from tasks.ml.watching.reference import Column, Ruler, Sketch, texts

Number = Literal["estimated", "realised"]

NAMED = 5  # features named in an alarm
LOOKED = 20_000  # values of a column looked at closely, evenly over the window: a distance is within about 0.01
FITS = 3.0  # by how much nearer a column must come to its reference before it counts as explained
FAR = 0.3  # distance below which nobody asks whether a column is in another unit, or swapped with another
CROSSED = 12  # features that are asked whether they are swapped; where more moved that far, nobody swapped two
QUARTERS = np.array([0.25, 0.5, 0.75])
CONSTANT = 0.9  # a column whose most frequent value had less than this in the reference is not constant by chance


class Performance(BaseModel, frozen=True, extra="forbid"):
    """What the caller knows about the metric; None where nothing is known, as of outcomes that have not matured.

    Attributes:
        metric: its name; higher_is_better: its direction.
        expected: what the version had when it was trained.
        estimated: what it is expected to have in this window, without outcomes; None, too, where that is in doubt.
        realised: what it had, as far as outcomes came true.
        is_old: whether those are of a time before this window, and say nothing of what moved in it.
        fell: which of the two surely fell, within the budget of false alarms, and the value that it is beyond.
    """

    metric: str = "the metric"
    higher_is_better: bool = True
    expected: float | None = None
    estimated: float | None = None
    realised: float | None = None
    is_old: bool = False
    fell: dict[Number, float] = {}

    def change(self, of: Number) -> float | None:
        """By how much the metric is above what it was at training, below 0 when it is worse; None when either is unknown."""
        now = getattr(self, of)
        if now is None or self.expected is None:
            return None
        return (now - self.expected) * (1 if self.higher_is_better else -1)

    @property
    def effect(self) -> float | None:
        """What came true in this window, else what is expected of it."""
        realised = None if self.is_old else self.change("realised")
        return self.change("estimated") if realised is None else realised


@dataclass(frozen=True)
class Moved:
    """What moved in a window, as `examine` found it.

    Attributes:
        reference: what the version was trained on; rows: the window's features, raw.
        features, predictions: drifts of those that moved.
        domain: what the domain classifier says, and the AUC that it had to pass; None where it was not asked.
        all: how many features were looked at.
    """

    reference: Sketch
    rows: pd.DataFrame
    features: Mapping[str, Drift]
    predictions: Mapping[str, Drift]
    domain: Domain | None
    domain_bar: float | None
    all: int

    @property
    def together(self) -> bool:
        """Whether the domain classifier can tell the window from the reference."""
        return self.domain is not None and self.domain_bar is not None and self.domain.auc > self.domain_bar

    def some(self, name: str) -> pd.Series:
        """Some values of a feature, evenly over the window."""
        return self.rows[name].iloc[:: max(len(self.rows) // LOOKED, 1)]


def alarms(moved: Moved, performance: Performance) -> tuple[Alarm, ...]:
    """One alarm for each kind of incident.

    Inputs that moved are to be mended where they look broken; else the model is retrained where the metric falls or is expected to, or
    where nobody can say whether it will; else they are ignored. A fall is mended, too, where broken inputs explain it.
    """
    broken = brokenness(moved)
    unknown = performance.effect is None and bool(moved.predictions or not moved.reference.predictions)
    what: Class = "mend" if broken else "retrain" if performance.fell or unknown else "ignore"
    found = []
    if moved.features or moved.together:
        found.append(_inputs(moved, performance, broken, what))
    if moved.predictions:
        found.append(_predictions(moved, performance, what))
    found += [_fall(of, moved, performance, "mend" if broken else "retrain") for of in sorted(performance.fell)]
    return tuple(found)


def brokenness(moved: Moved) -> dict[str, str]:
    """What looks broken, by feature: missing, constant, new categories, another unit, swapped; one reason each."""
    swapped = _swapped(moved)
    found = {}
    for name, drift in moved.features.items():
        if reason := swapped.get(name) or _broken(name, drift, moved):
            found[name] = reason
    return found


def _broken(name: str, drift: Drift, moved: Moved) -> str | None:
    """Why a feature looks broken, or None."""
    before, now = drift.fixed.missing
    if drift.gap_bar is not None and now - before > drift.gap_bar:
        return f"{now:.1%} missing, {before:.1%} before"
    column, values = moved.reference.features[name], moved.some(name)
    if column.shares.max(initial=0.0) < CONSTANT and values.nunique() == 1:
        return "constant"
    if drift.bar is not None and drift.fixed.new > drift.bar / 2:
        return f"{drift.fixed.new:.1%} in categories never seen before"
    return _unit(column, values) if drift.fixed.distance >= FAR else None


def _unit(column: Column, values: pd.Series) -> str | None:
    """In which other unit the values fit the reference again, or None; of units that fit alike, a power of ten."""
    numbers = values.dropna().to_numpy(dtype="float64") if isinstance(column.bins, Ruler) else np.zeros(0)
    if not len(numbers):
        return None
    fits = [(_distance(column, way.undone(numbers)), way) for way in _plausible(column, numbers)]
    near, far = min((distance for distance, _ in fits), default=1.0), _distance(column, numbers)
    if near > far / FITS or (far < CLEAR and near > 0.1):
        return None
    alike = {way for distance, way in fits if distance <= near + 0.05}
    return f"looks {next(way.name for way in WAYS if way in alike)}"


class Way(NamedTuple):
    """How numbers may have come into another unit: multiplied by `scale`, then moved by `shift`."""

    name: str
    scale: float
    shift: float = 0.0

    def undone(self, values: np.ndarray) -> np.ndarray:
        """What they were before."""
        return (values - self.shift) / self.scale


def _roundness(factor: float) -> bool:
    """False, and so first, for powers of ten."""
    return min(abs(factor / power - 1) for power in (*POWERS, *(1 / power for power in POWERS))) > 1e-9


WAYS = (
    *(Way(f"multiplied by {factor:g}", factor) for factor in sorted(FACTORS, key=_roundness)),
    *(Way(name, scale, shift) for name, (scale, shift) in SCALES.items()),
    Way("with the sign turned", -1.0),
)


def _plausible(column: Column, numbers: np.ndarray) -> list[Way]:
    """The three ways whose quartiles come nearest to the reference's, so that few are counted."""
    ruler = column.bins
    if not isinstance(ruler, Ruler) or not ruler.cuts:
        return []
    wanted = ruler.ends[np.minimum(np.searchsorted(np.cumsum(column.shares), QUARTERS), len(ruler.ends) - 1)]
    quartiles = np.quantile(numbers, QUARTERS)
    return sorted(WAYS, key=lambda way: float(np.abs(np.sort(way.undone(quartiles)) - wanted).sum()))[:3]


def _distance(column: Column, values: np.ndarray) -> float:
    """Of other values from a column of numbers."""
    other = column.bins.column(values) if isinstance(column.bins, Ruler) else column
    return float(distances(column.held, other.held, numeric=True))


def _swapped(moved: Moved) -> dict[str, str]:
    """Pairs of features each of which looks like the other in the reference, and not like itself."""
    far = [name for name in _by_excess(moved.features) if moved.features[name].fixed.distance >= FAR][:CROSSED]
    found: dict[str, str] = {}
    for at, one in enumerate(far):
        for other in far[at + 1 :]:
            if one in found or other in found or not _crossed(moved, one, other):
                continue
            found |= {one: f"looks swapped with {other}", other: f"looks swapped with {one}"}
    return found


def _crossed(moved: Moved, one: str, other: str) -> bool:
    """Whether both fit each other's reference three times better than their own."""
    a, b = moved.reference.features[one], moved.reference.features[other]
    if a.bins.kind != b.bins.kind:
        return False
    most = min(moved.features[name].fixed.distance for name in (one, other)) / FITS
    cross = ((column, column.like(moved.some(name))) for column, name in ((a, other), (b, one)))
    return all(
        distances(column.held, now.held, numeric=isinstance(column.bins, Ruler)) <= most for column, now in cross
    )


def _inputs(moved: Moved, performance: Performance, broken: Mapping[str, str], what: Class) -> Alarm:
    """Features moved, one by one or together."""
    names = [*broken, *(name for name in _by_excess(moved.features) if name not in broken)]
    domain = moved.domain
    names += [name for name, _ in (domain.features if domain else ()) if name not in names] if not names else []
    name, level, bar = (
        _strongest(moved.features) if moved.features else ("", domain.auc if domain else 0.0, moved.domain_bar or 0.0)
    )
    segments = domain.segments if domain else ()
    if broken:
        reasons = texts((f"{feature} {reason}" for feature, reason in broken.items()), 3)
        head = f"{_counted(moved)} moved, and look broken: {reasons}"
    elif name:
        head = f"{_counted(moved)} moved, most of all {name} by {level:.2f} where {bar:.2f} is usual at most"
    else:
        head = f"no feature moved alone, but together they tell the window apart (AUC {level:.2f}, usually at most {bar:.2f}): {texts(names)}"
    return Alarm(
        kind="inputs", what=what, effect=performance.effect, features=tuple(names[:NAMED]), segments=segments, level=level, threshold=bar,
        says=f"{head}{_where(segments)}. {_next(what, moved, performance, performance.effect)}",
    )  # fmt: skip


def _predictions(moved: Moved, performance: Performance, what: Class) -> Alarm:
    name, level, bar = _strongest(moved.predictions)
    return Alarm(
        kind="predictions", what=what, effect=performance.effect, features=tuple(_by_excess(moved.features))[:NAMED], level=level, threshold=bar,
        says=f"what the model says moved: {name} by {level:.2f} where {bar:.2f} is usual at most. {_next(what, moved, performance, performance.effect)}",
    )  # fmt: skip


def _fall(of: Number, moved: Moved, performance: Performance, what: Class) -> Alarm:
    now, bar, effect = float(getattr(performance, of)), performance.fell[of], performance.change(of)
    came = "came true at" if of == "realised" else "is estimated at"
    beyond = "below" if performance.higher_is_better else "above"
    was = "" if performance.expected is None else f", and was {performance.expected:.4g} at training"
    return Alarm(
        kind="performance" if of == "realised" else "estimate", what=what, effect=effect,
        features=tuple(_by_excess(moved.features))[:NAMED], segments=moved.domain.segments if moved.domain else (), level=now, threshold=bar,
        says=f"{performance.metric} {came} {now:.4g}, surely {beyond} {bar:.4g}{was}. {_next(what, moved, performance, effect)}",
    )  # fmt: skip


def _next(what: Class, moved: Moved, performance: Performance, effect: float | None) -> str:
    """What to do, and why."""
    act = {"mend": "Mend the data before a model learns from it", "retrain": "Retrain", "ignore": "Nothing to do"}[what]
    if effect is not None:
        return f"{act}: {performance.metric} changes by {effect:+.3g}."
    if moved.predictions or not moved.reference.predictions:
        return f"{act}: what that does to {performance.metric} is not known."
    return f"{act}: what the model says has not moved."


def _where(segments: Sequence[str]) -> str:
    return f"; most of it where {' or '.join(segments)}" if segments else ""


def _counted(moved: Moved) -> str:
    return f"{len(moved.features)} of {moved.all} features"


def _by_excess(drifts: Mapping[str, Drift]) -> list[str]:
    """The names, the one most above its bar first."""

    def excess(name: str) -> float:
        level, bar = drifts[name].strongest
        return level / max(bar, 1e-9)

    return sorted(drifts, key=excess, reverse=True)


def _strongest(drifts: Mapping[str, Drift]) -> tuple[str, float, float]:
    name = _by_excess(drifts)[0]
    return name, *drifts[name].strongest
