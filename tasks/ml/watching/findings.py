"""Findings: what a look at one window came to. Start here; it walks through the rest of the room."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from tasks.ml.watching.alarm import Alarm, Kind, gravest
from tasks.ml.watching.calibration import Bar, Bars, DriftPlan, Thresholds
from tasks.ml.watching.classes import Moved, Performance, alarms
from tasks.ml.watching.domain import Apart, Domain, sampled, told_apart
from tasks.ml.watching.drift import Drift, compared
from tasks.ml.watching.reference import Column, Sketch

Verdict = Literal["no data", "too few rows", "ok", "ignore", "mend", "retrain"]


@dataclass(frozen=True)
class Known:
    """What is known of one model version when a window is looked at.

    Attributes:
        fixed: the sketch of the rows that it was trained on, and of what it says of them.
        thresholds: from where on something has moved.
        rolling: the newest windows before this one, `merged`; None where there are none.
        rows: some of the rows behind `fixed`, raw, features only, for the domain classifier; None leaves it out.
        performance: what is known about its metric.
    """

    fixed: Sketch
    thresholds: Thresholds
    rolling: Sketch | None = None
    rows: pd.DataFrame | None = None
    performance: Performance = field(default_factory=Performance)


class Findings(BaseModel, frozen=True, extra="forbid"):
    """What a look at one window came to.

    Attributes:
        verdict: what to do: the gravest class of the alarms; `ok` without any; with too few rows never that.
        rows: of the window.
        drift, predictions: how far each feature, and what the model says, has moved.
        domain: whether the window can be told from the reference; `domain_bar`: the AUC that was to be passed.
        alarms: one for each kind of incident.
        says: what the alarms say; a sentence where there are none, and why nothing can be said where rows are too few.
        sketch: of the window, to be kept for the rolling reference and the next calibration; not in JSON.
    """

    verdict: Verdict
    rows: int
    drift: dict[str, Drift] = {}
    predictions: dict[str, Drift] = {}
    domain: Domain | None = None
    domain_bar: float | None = None
    alarms: tuple[Alarm, ...] = ()
    says: str
    sketch: Sketch | None = Field(default=None, exclude=True, repr=False)

    @property
    def judged(self) -> tuple[Kind, ...]:
        """Of which drift there was enough to judge."""
        sides: dict[Kind, dict[str, Drift]] = {"inputs": self.drift, "predictions": self.predictions}
        return tuple(kind for kind, drifts in sides.items() if drifts)


def examine(
    known: Known, rows: pd.DataFrame, said: np.ndarray | None, plan: DriftPlan, *, seed: int = 0, threads: int = 1
) -> Findings:
    """What became of the rows that one version answered in one window.

    Args:
        known: of that version.
        rows: (n, …) their features, raw; more columns do no harm.
        said: what the version said about them, as `Sketch.of` takes it.
        plan: what counts as drift.
        seed: of samples and folds.
        threads: that the domain classifier may use.
    """
    sketch = known.fixed.like(rows, said)
    if len(rows) < plan.fewest:
        return _too_few(known, sketch, plan)
    drift, predictions = (_drifts(known, sketch, side, plan) for side in ("features", "predictions"))
    apart = _apart(known, rows, plan, seed, threads)
    domain, bar = (apart.domain, _domain_bar(apart.domain, known.thresholds, plan)) if apart else (None, None)
    moved = Moved(known.fixed, rows, _those(drift), _those(predictions), domain, bar, len(drift))
    if apart and (moved.features or moved.predictions or moved.together):
        domain = apart.explained()
        moved = replace(moved, domain=domain)
    found = alarms(moved, known.performance)
    return Findings(
        verdict=gravest(found) or "ok", rows=len(rows), drift=drift,
        predictions=predictions, domain=domain, domain_bar=bar, alarms=found, sketch=sketch,
        says=" ".join(alarm.says for alarm in found) or f"nothing moved beyond what is usual; thresholds {known.thresholds.says}",
    )  # fmt: skip


def _too_few(known: Known, sketch: Sketch, plan: DriftPlan) -> Findings:
    """Nothing but that: neither ok nor drift."""
    verdict: Verdict = "too few rows" if sketch.rows else "no data"
    says = f"{sketch.rows} rows, and {plan.fewest} are wanted before anything is said" if sketch.rows else "no row came in this window"  # fmt: skip
    found = alarms(Moved(known.fixed, pd.DataFrame(), {}, {}, None, None, 0), known.performance)
    return Findings(
        verdict=verdict,
        rows=sketch.rows,
        alarms=found,
        says=says,
        sketch=sketch,
    )


def _those(drifts: Mapping[str, Drift]) -> dict[str, Drift]:
    return {name: drift for name, drift in drifts.items() if drift.moved}


def _apart(known: Known, rows: pd.DataFrame, plan: DriftPlan, seed: int, threads: int) -> Apart | None:
    """Some rows of the window beside some of the reference; None where there are too few, or none was kept."""
    if known.rows is None:
        return None
    names = [name for name in known.fixed.features if name in known.rows.columns]
    reference, window = (sampled(side[names], plan.sample, seed) for side in (known.rows, rows))
    return told_apart(reference, window, seed=seed, threads=threads)


def _domain_bar(domain: Domain, thresholds: Thresholds, plan: DriftPlan) -> float:
    """The AUC that it has to pass."""
    return 0.5 + max(thresholds.auc.of(min(domain.rows), plan.sample), plan.smallest)


def _drifts(
    known: Known, sketch: Sketch, side: Literal["features", "predictions"], plan: DriftPlan
) -> dict[str, Drift]:
    """Every column of one side of a sketch, against both references."""
    bars = getattr(known.thresholds, side)
    fixed, rolling, now = (getattr(each, side) if each else {} for each in (known.fixed, known.rolling, sketch))
    return {
        name: _drift(fixed[name], rolling.get(name), column, bars.get(name), known.thresholds.usual(side), plan)
        for name, column in now.items()
    }


def _drift(fixed: Column, rolling: Column | None, now: Column, bars: Bars | None, usual: int, plan: DriftPlan) -> Drift:
    """One column; too few values of it say nothing about how they lie, but that they are missing."""
    held = Drift(fixed=compared(fixed, now), rolling=compared(rolling, now) if rolling else None)
    if bars is None:
        return held
    there = now.there if now.there >= plan.fewest else None
    barred = held.model_copy(update={
        "bar": _least(bars.fixed, there, usual, plan.smallest), "gap_bar": _least(bars.fixed_missing, now.rows, usual, plan.gaps),
        "rolling_bar": _least(bars.rolling, there, usual, plan.smallest), "rolling_gap_bar": _least(bars.rolling_missing, now.rows, usual, plan.gaps),
    })  # fmt: skip
    level, bar = barred.strongest
    return barred.model_copy(update={"moved": level > bar})


def _least(bar: Bar, rows: int | None, usual: int, smallest: float) -> float | None:
    """The bar for so many rows, but at least the smallest effect that counts."""
    return None if rows is None else max(bar.of(rows, usual), smallest)
