"""Curves: what pictures of a watch show, as plain values: performance by period, measured and expected, and how far features moved.

Curve.of(measure, periods, expected, marks, floor) -> Curve       pictures.curve draws it
Shifts.of({period: {feature: level}}) -> Shifts                   pictures.drift draws it
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel

from tasks.ml.metrics import Metric
from tasks.ml.watching.estimate import Estimated
from tasks.ml.watching.realised import Measured, Realised


class Expected(BaseModel, frozen=True):
    """What a measure is expected to be of one version in one period, [begin, end) in UTC."""

    begin: dt.datetime
    end: dt.datetime
    version: str
    estimate: Estimated


class Mark(BaseModel, frozen=True):
    """Something that happened: a version was `released`, a `retrained` one was not, or an `alarm` went off; `name` is drawn beside it."""

    at: dt.datetime
    event: Literal["released", "retrained", "alarm"]
    name: str = ""


class Moment(BaseModel, frozen=True):
    """One version in one period.

    Attributes:
        begin, end: UTC; the end is not included.
        rows: answers; of a period that is only estimated those that the estimate rests on.
        measured: None while outcomes are pending or too few.
        estimated: None where there is no value.
    """

    begin: dt.datetime
    end: dt.datetime
    version: str
    rows: int
    measured: Measured | None = None
    estimated: Estimated | None = None

    @property
    def at(self) -> dt.datetime:
        """The middle."""
        return self.begin + (self.end - self.begin) / 2


class Curve(BaseModel, frozen=True):
    """A measure over time.

    Attributes:
        measure: its name; label: how a person calls it.
        floor: of the project; None where it has none.
        moments: oldest first, of one period by version.
        marks: oldest first.
    """

    measure: str
    label: str
    greater_is_better: bool
    floor: float | None
    moments: tuple[Moment, ...]
    marks: tuple[Mark, ...]

    @classmethod
    def of(
        cls, measure: Metric, periods: Iterable[Realised], expected: Iterable[Expected], marks: Iterable[Mark] = (), floor: float | None = None
    ) -> Self:  # fmt: skip
        """The curve of a measure from what was measured and what was expected; each period and version is one moment."""
        found = {}
        for one in expected:
            known = one.estimate if one.estimate.value is not None else None
            found[one.begin, one.version] = Moment(
                begin=one.begin, end=one.end, version=one.version, rows=one.estimate.rows, estimated=known
            )
        for one in periods:
            estimated = found[one.begin, one.version].estimated if (one.begin, one.version) in found else None
            found[one.begin, one.version] = Moment(
                begin=one.begin, end=one.end, version=one.version, rows=one.rows,
                measured=one.metrics.get(measure.name), estimated=estimated,
            )  # fmt: skip
        return cls(
            measure=measure.name, label=measure.label, greater_is_better=measure.greater_is_better, floor=floor,
            moments=tuple(found[key] for key in sorted(found)), marks=tuple(sorted(marks, key=lambda mark: mark.at)),
        )  # fmt: skip

    @property
    def main(self) -> tuple[Moment, ...]:
        """The version that answered most in each period, oldest first."""
        best: dict[dt.datetime, Moment] = {}
        for moment in self.moments:
            if moment.begin not in best or moment.rows > best[moment.begin].rows:
                best[moment.begin] = moment
        return tuple(best.values())

    def table(self) -> dict[str, list[object]]:
        """One row a moment, for a table beside the picture."""
        rows = [(one, one.measured, one.estimated) for one in self.moments]
        return {
            "begin": [one.begin.isoformat() for one, _, _ in rows],
            "version": [one.version for one, _, _ in rows],
            "rows": [one.rows for one, _, _ in rows],
            "measured": [said.value if said else None for _, said, _ in rows],
            "low": [said.low if said else None for _, said, _ in rows],
            "high": [said.high if said else None for _, said, _ in rows],
            "outcomes missing": [said.is_flagged if said else None for _, said, _ in rows],
            "estimated": [guess.value if guess else None for _, _, guess in rows],
            "estimated low": [guess.low if guess else None for _, _, guess in rows],
            "estimated high": [guess.high if guess else None for _, _, guess in rows],
        }


class Shifts(BaseModel, frozen=True):
    """How far features moved, period by period.

    Attributes:
        periods: in words, oldest first.
        features: those that moved furthest first.
        levels: (features, periods) of distances over what is usual at most: 1 is the bar; None where nothing is known.
    """

    periods: tuple[str, ...]
    features: tuple[str, ...]
    levels: tuple[tuple[float | None, ...], ...]

    @classmethod
    def of(cls, found: Mapping[str, Mapping[str, float]]) -> Self:
        """From the levels of each period by feature, oldest first.

        >>> Shifts.of({"May": {"age": 0.5, "TSH": 2.0}, "June": {"age": 0.7}}).levels
        ((2.0, None), (0.5, 0.7))
        """
        names = dict.fromkeys(name for levels in found.values() for name in levels)
        furthest = {name: max(levels[name] for levels in found.values() if name in levels) for name in names}
        ordered = sorted(names, key=lambda name: -furthest[name])
        return cls(
            periods=tuple(found), features=tuple(ordered), levels=tuple(tuple(levels.get(name) for levels in found.values()) for name in ordered)
        )  # fmt: skip

    @property
    def moved(self) -> Sequence[str]:
        """The features that passed the bar in the newest period, the furthest first."""
        newest = {name: row[-1] for name, row in zip(self.features, self.levels, strict=True) if row}
        over = {name: level for name, level in newest.items() if level is not None and level > 1}
        return sorted(over, key=lambda name: -over[name])
