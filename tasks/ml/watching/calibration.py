"""Calibration: how far a column must move before it is called moved, so that false alarms stay within a budget.

Rows of one day resemble each other, weeks have their seasons, columns move together: p-values of independent rows know nothing of that.
So the project's own history says what is usual. Windows are taken from it, each with a reference made of other blocks of days in a random
order, and with the windows just before it; a block is at least as long as a window, so that what days have in common stays together
(block permutation: Künsch 1989, The jackknife and the bootstrap for general stationary observations; Politis and Romano 1994). Of each
draw the greatest of all columns' standardised distances counts, so that the family of all columns, of both references and of missing
values is corrected at once, and what moves together is not corrected twice (Westfall and Young 1993, Resampling-based multiple testing).

A window slides: it is judged day after day, and each day is another chance of a false alarm. So a draw is not one window but all that are
judged within the days of one, and the greatest of those counts. An alarm stands until its window has passed (`standing`), so that a false
one begins at most once in so many days: as often as the budget says, however often anybody looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field
from scipy import special, stats

from tasks.ml.threads import limited
from tasks.ml.watching.alarm import MONTH
from tasks.ml.watching.domain import sampled, told_apart
from tasks.ml.watching.drift import distances
from tasks.ml.watching.reference import Column, Ruler, Sketch

TOGETHER = 0.2  # share of the budget for what only several columns show together
ANSWERED = 0.2  # share of it for what a version says, where other rows say what is usual of that
DRAWS = 400
KOLMOGOROV = np.pi**2 / 12  # mean of the squared Kolmogorov distribution
FLOOR = 0.1  # of a distance's standard deviation, in √(1/n + 1/m): where a history never moved, rows still are draws
ENOUGH = 5  # windows of which the AUC is known, below which theory says what is usual
DOUBT = 2.0  # by which theory's standard error of an AUC is taken too small where no history says so


class DriftPlan(BaseModel, frozen=True, extra="forbid"):
    """When drift is an alarm."""

    false_alarms: float = Field(
        default=0.5, gt=0, le=30, description="how many false alarms a month are borne, over all columns together"
    )
    days: int = Field(
        default=7,
        ge=1,
        le=90,
        description="days in a window; whole weeks keep the days of a week from looking like drift",
    )
    every: int = Field(
        default=1,
        ge=1,
        le=90,
        description="days between two judgements of drift; looks between them repeat the last one, so that more of them make no more false alarms",
    )
    rolling: int = Field(
        default=4, ge=1, le=52, description="windows in the rolling reference, just before the one looked at"
    )
    fewest: int = Field(
        default=200, ge=20, description="rows in a window, below which nothing is said but that they are too few"
    )
    smallest: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="smallest distance that counts, from 0 (alike) to 1 (nothing in common), however sure it is",
    )
    gaps: float = Field(
        default=0.02, ge=0, lt=1, description="smallest change of the share of missing values that counts"
    )
    sample: int = Field(
        default=2000, ge=200, le=20_000, description="rows of the reference and of the window that the domain classifier looks at"
    )  # fmt: skip

    @property
    def level(self) -> float:
        """Chance of a false alarm in all windows that are judged within the days of one."""
        return min(self.false_alarms * self.days / MONTH, 0.5)

    @property
    def shifts(self) -> np.ndarray:
        """By how many days the windows that are judged within the days of one are later than the first of them: (judgements,)."""
        return np.arange(0, self.days, self.every)


class Bar(BaseModel, frozen=True, extra="forbid"):
    """What a statistic of one column has to pass.

    Attributes:
        level: the distance, or the change of a share, in windows of usual size.
        noise: what a smaller window adds to its square, times (1/rows − 1/usual rows).
    """

    level: float
    noise: float

    def of(self, rows: int, usual: int) -> float:
        """The bar in a window with so many rows; larger windows than usual do not lower it: days differ, however many rows they have.

        >>> Bar(level=0.3, noise=160).of(rows=1000, usual=100_000), Bar(level=0.3, noise=160).of(rows=10**6, usual=100_000)
        (0.4983974317750845, 0.3)
        """
        return float(np.sqrt(self.level**2 + self.noise * max(1 / max(rows, 1) - 1 / usual, 0)))


class Bars(BaseModel, frozen=True, extra="forbid"):
    """What a column has to pass, against the fixed and the rolling reference: its distance, and the change of its missing share."""

    fixed: Bar
    fixed_missing: Bar
    rolling: Bar
    rolling_missing: Bar


class Thresholds(BaseModel, frozen=True, extra="forbid"):
    """From where on something has moved.

    Attributes:
        method: what the bars of single columns rest on.
        budget: false alarms a month; level: chance of one in a window.
        blocks: windows of the history that do not overlap, as many as independent ones would be: fewer where a window resembles the one
            before; needed: how many permutation needs for this budget.
        rows: of a usual window; said: of one of those that say what is usual of predictions.
        features, predictions: the bars of each column.
        auc: of the domain classifier: `Bar.level` above ½.
        auc_windows: windows of the history whose AUC is known; below 5 theory stands in.
        says: how much the bars can be trusted.
    """

    method: Literal["block permutation", "theory"]
    budget: float
    level: float
    blocks: int
    needed: int
    rows: int
    said: int
    features: dict[str, Bars]
    predictions: dict[str, Bars] = {}
    auc: Bar
    auc_windows: int = 0
    says: str

    def usual(self, side: "Side") -> int:
        """Rows of the windows that the bars of a side are made for."""
        return self.said if side == "predictions" else self.rows


def calibrated(
    fixed: Sketch,
    history: Sequence[Sketch],
    plan: DriftPlan,
    samples: Sequence[pd.DataFrame] = (),
    *,
    share: float = 1 - TOGETHER,
    seed: int = 0,
    threads: int = 1,
) -> Thresholds:
    """Thresholds for windows that are compared with a reference.

    Args:
        fixed: the reference.
        history: a sketch for each day, in order, also for those without a row; in the reference's bins (`daily`). Best those that the
            reference was made from and all since that nobody found odd. Without any, theory says what is usual.
        plan: how many false alarms a month are borne, and how long a window is.
        samples: some rows of each of several windows of the history, in order, for the domain classifier; features only.
        share: of the budget for single columns, all together; the domain classifier has its own beside.
        seed: of the draws.
        threads: that learning may use.
    """
    draws = _drawn(fixed, history, plan, np.random.default_rng(seed))
    tests = [_Test(side, name, column) for side in SIDES for name, column in getattr(fixed, side).items()]
    level, windows = plan.level * share, len(history) // plan.days
    with limited(threads):
        found = [
            test.drawn(draws, history, level / max(4 * len(tests) * len(plan.shifts), 1), plan.days) for test in tests
        ]
    apart = _apart(found)
    blocks, needed = int(windows * apart), int(np.ceil(1 / level))
    usual, rank = draws.usual or fixed.rows or 1, (blocks + 1) * (1 - level)
    permuted = bool(len(draws.starts) and tests and rank <= blocks and draws.apart.any(axis=1).all())
    bars = (
        _permuted(found, draws.apart, rank / blocks, blocks, windows) if permuted else _theory(found, usual, fixed.rows)
    )
    known = dict(zip([(test.side, test.name) for test in tests], bars, strict=True))
    aucs = _aucs(samples, plan, seed, threads)
    few = (
        "" if len(aucs) >= ENOUGH else f"; what columns do together by theory, of {len(aucs)} windows (wanted {ENOUGH})"
    )
    return Thresholds(
        method="block permutation" if permuted else "theory", budget=plan.false_alarms, level=plan.level, blocks=blocks, needed=needed, rows=usual, said=usual,
        features={name: bar for (side, name), bar in known.items() if side == "features"},
        predictions={name: bar for (side, name), bar in known.items() if side == "predictions"},
        auc=_auc_bar(aucs, plan, len(aucs) * apart), auc_windows=len(aucs), says=_says(blocks, needed, permuted=permuted) + few,
    )  # fmt: skip


def calibrated_apart(
    fixed: Sketch,
    history: Sequence[Sketch],
    answered: Sketch,
    judged: Sequence[Sketch],
    plan: DriftPlan,
    samples: Sequence[pd.DataFrame] = (),
    *,
    seed: int = 0,
    threads: int = 1,
) -> Thresholds:
    """As `calibrated`, where other rows say what is usual of a version's answers than of columns: both share the one budget.

    Args:
        fixed: the reference of the columns.
        history: of the columns.
        answered: the reference of the answers; without any the columns have the whole budget.
        judged: a sketch for each day of the answers, as `history` is of the columns.
        plan: as in `calibrated`.
        samples: likewise.
        seed: likewise.
        threads: likewise.
    """
    kept = ANSWERED if answered.predictions else 0.0
    ours = calibrated(fixed, history, plan, samples, share=1 - TOGETHER - kept, seed=seed, threads=threads)
    if not kept:
        return ours
    theirs = calibrated(answered, judged, plan, share=kept, seed=seed)
    by = _says(theirs.blocks, theirs.needed, permuted=theirs.method == "block permutation")
    says = ours.says if theirs.method == ours.method else f"{ours.says}; those of its answers {by}"
    return ours.model_copy(update={"predictions": theirs.predictions, "said": theirs.rows, "says": says})


Side = Literal["features", "predictions"]
SIDES: tuple[Side, ...] = ("features", "predictions")


def _says(blocks: int, needed: int, *, permuted: bool) -> str:
    """How much the bars of single columns can be trusted."""
    if permuted:
        return f"by block permutation over a history worth {blocks} independent windows"
    return (
        f"by theory, Bonferroni-corrected and widened by what a history worth {blocks} independent windows shows: this budget needs {needed}, "
        "until then it is not assured"
    )


@dataclass(frozen=True)
class _Draws:
    """Which days of the history make up windows that are judged one after the other, and their references.

    Attributes:
        starts: (draws, judgements) the first day of each window.
        fixed: (draws, days) of 0 and 1: the days of the reference of all of a draw.
        days, rolling: of a window, and of its rolling reference.
        usual: rows of a window.
    """

    starts: np.ndarray
    fixed: np.ndarray
    days: int
    rolling: int
    usual: int

    @property
    def apart(self) -> np.ndarray:
        """Which draws share no day of their windows: (draws, draws) bool."""
        first, reach = self.starts[:, 0], self.starts[:1, -1] - self.starts[:1, 0] + self.days
        return np.abs(first[:, None] - first) >= reach

    def counts(self, daily: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Those of the windows, their fixed and their rolling references: (draws, judgements, bins) each; daily: (days, bins)."""
        until = np.vstack([np.zeros(daily.shape[1]), np.cumsum(daily, axis=0)])
        window, rolling = (
            until[self.starts + self.days] - until[self.starts],
            until[self.starts] - until[np.maximum(self.starts - self.rolling, 0)],
        )
        return window, np.broadcast_to((self.fixed @ daily)[:, None], window.shape), rolling


def _drawn(fixed: Sketch, history: Sequence[Sketch], plan: DriftPlan, random: np.random.Generator) -> _Draws:
    """Every window of the history that has enough rows and days enough around it, with those judged after it, each with several references."""
    rows, days, w = np.array([sketch.rows for sketch in history]), len(history), plan.days
    usual, reach = np.convolve(rows, np.ones(w), "valid") if days >= w else np.zeros(0), int(plan.shifts[-1])
    starts = np.array(
        [at for at in range(w, days - w - reach + 1) if usual[at + plan.shifts].min() >= plan.fewest], dtype=int
    )
    wanted = max(round(fixed.rows / max(rows.mean(), 1)), w) if days else w
    if days < 3 * w + reach or not len(starts):
        none = np.zeros((0, days))
        return _Draws(none[:, :1].astype(int), none, w, plan.rolling * w, int(rows.sum() * w / days) if days else 0)
    starts, others = (
        starts[:: max(len(starts) // DRAWS, 1)],
        days - 3 * w - reach,
    )  # more of a long history are no more independent
    chosen = np.repeat(starts, max(DRAWS // len(starts), 1) if wanted < others else 1)  # all other days have one order
    picked = np.stack([_others(days, (start - w, start + 2 * w + reach), w, wanted, random) for start in chosen])
    return _Draws(
        chosen[:, None] + plan.shifts, picked.astype(float), w, plan.rolling * w, int(np.median(usual[starts]))
    )


def _others(days: int, around: tuple[int, int], w: int, wanted: int, random: np.random.Generator) -> np.ndarray:
    """Blocks of days for a reference, in a random order, until it has as many as the true one; none of those around the windows: (days,)."""
    shift = int(random.integers(w))
    block = (np.arange(days) + shift) // w
    free = (np.arange(days) < around[0]) | (np.arange(days) >= around[1])
    order = random.permutation(block.max() + 1)
    sizes = np.bincount(block[free], minlength=block.max() + 1)[order]
    taken = order[np.cumsum(sizes) - sizes < wanted]
    return free & np.isin(block, taken)


@dataclass(frozen=True)
class _Drawn:
    """One column's four statistics in each window of each draw, (draws, judgements, 4), and what theory says of their squares.

    Attributes:
        noise: of so rare a square, times (1/n + 1/m).
        found: the statistics; scale: (4,) the mean of their 1/n + 1/m.
        wider: how many times as great as theory says their squares are on average; 1 where nothing was drawn.
        carried: correlation of windows of the history with those before them.
    """

    noise: np.ndarray
    found: np.ndarray
    scale: np.ndarray
    wider: float
    carried: float


@dataclass(frozen=True)
class _Test:
    """One column, and where it stands."""

    side: Side
    name: str
    column: Column

    def drawn(self, draws: _Draws, history: Sequence[Sketch], share: float, days: int) -> _Drawn:
        """Its statistics in every draw; `share` is the chance of a false alarm that theory gives each, `days` are those of a window."""
        noise, usual = self._theory(share)
        if not len(draws.starts):
            return _Drawn(noise, np.zeros((0, 1, 4)), np.ones(4), 1.0, 0.0)
        counts = self._daily(history)
        window, *references = draws.counts(counts)
        pairs = [self._statistics(reference, window) for reference in references]
        found, scale = (np.concatenate(parts, axis=-1) for parts in zip(*pairs, strict=True))
        wider = float((found**2 / scale / usual).mean())
        return _Drawn(noise, found, scale.mean(axis=(0, 1)), wider, _carried(counts[:, :-1], days))

    def _daily(self, history: Sequence[Sketch]) -> np.ndarray:
        """Its counts day by day, what is missing last: (days, bins + 1). A day whose sketch lacks it has none."""
        past = [getattr(sketch, self.side).get(self.name) for sketch in history]
        none = np.zeros(len(self.column.counts) + 1)
        return np.stack([none if column is None else np.r_[column.held, column.missing] for column in past])

    def _statistics(self, reference: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance and change of the missing share, and 1/n + 1/m of each: (draws, judgements, 2) both."""
        found = distances(reference[..., :-1], window[..., :-1], numeric=isinstance(self.column.bins, Ruler))
        there = [np.maximum(side[..., :-1].sum(axis=-1), 1) for side in (reference, window)]
        rows = [np.maximum(side.sum(axis=-1), 1) for side in (reference, window)]
        gaps = np.abs(reference[..., -1] / rows[0] - window[..., -1] / rows[1])
        return np.stack([found, gaps], axis=-1), np.stack(
            [sum(1 / side for side in sizes) for sizes in (there, rows)], axis=-1
        )

    def _theory(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Rare squares of the four statistics between independent rows, and their means, both times (1/n + 1/m).

        Kolmogorov's limit; the Jensen–Shannon divergence is chi-squared/(8 ln 2) times (1/n + 1/m) near 0; a share is normal.
        """
        if isinstance(self.column.bins, Ruler):
            rare, mean = float(special.kolmogi(min(share, 1.0))) ** 2, KOLMOGOROV
        else:
            free = max(int(np.count_nonzero(self.column.counts)) - 1, 1)
            rare, mean = float(stats.chi2.isf(share, free)) / 8 / np.log(2), free / 8 / np.log(2)
        gap = (self.column.missing + 1) / (self.column.rows + 2)
        spread = gap * (1 - gap)
        return np.array([rare, spread * float(stats.norm.isf(share / 2)) ** 2] * 2), np.array([mean, spread] * 2)


def _carried(counts: np.ndarray, days: int) -> float:
    """Correlation of windows with those before them in where their values lie, by mean rank; (days, bins) counts.

    Between n independent windows it is −1/n on average, which is made good.
    """
    n = len(counts) // days
    windows = counts[: n * days].reshape(n, days, -1).sum(axis=1)
    total, rows = windows.sum(axis=0), windows.sum(axis=1)
    ranks = np.cumsum(total) - total / 2
    mean = float(ranks @ total) / max(total.sum(), 1)
    away = np.where(rows > 0, windows @ ranks / np.maximum(rows, 1) - mean, 0)
    squares = float(away @ away)
    return float(away[1:] @ away[:-1]) / squares + 1 / n if squares > 0 else 0.0


def _apart(found: Sequence[_Drawn]) -> float:
    """How many independent windows one of the history is worth: (1 − r)/(1 + r), r their correlation (Bartlett 1946)."""
    carried = float(np.clip(np.mean([each.carried for each in found]), 0, 0.9)) if found else 0.0
    return (1 - carried) / (1 + carried)


def _permuted(found: Sequence[_Drawn], apart: np.ndarray, share: float, blocks: int, windows: int) -> list[Bars]:
    """The bars below which the greatest standardised statistic of all stays in such a share of the draws.

    What is usual for a draw is what the draws that share no day with it say, as it is for a window to come: a window that helped to say
    what is usual is never far from it. A window of the history resembles its neighbours, that are in its reference; a later one does not, and
    is farther from the fixed reference by as much as so many fewer independent windows say less about their mean.
    """
    later = 1 + 1 / blocks
    farther = np.sqrt(later / (later - 2 * (1 / blocks - 1 / windows)))
    greatest, every = np.full(len(apart), -np.inf), np.ones((1, len(apart)))
    for each in found:  # one column at a time, as all draws of all columns are much
        mean, deviation = _usual(each, apart)
        greatest = np.maximum(greatest, ((each.found - mean[:, None]) / deviation[:, None]).max(axis=(1, 2)))
    most = float(np.quantile(greatest, share, method="higher"))
    whole = [_usual(each, every) for each in found]
    bars = [(mean[0] + most * deviation[0]) * np.array([farther, farther, 1, 1]) for mean, deviation in whole]
    return [_bars(levels, each.noise) for levels, each in zip(bars, found, strict=True)]


def _usual(each: _Drawn, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a column's statistics among the draws of each row of `among`: (rows, 4) both."""
    share = among / among.sum(axis=1, keepdims=True)
    mean, squares = (share @ values.mean(axis=1) for values in (each.found, each.found**2))
    return mean, np.maximum(np.sqrt(np.maximum(squares - mean**2, 0)), FLOOR * np.sqrt(each.scale))


def _theory(found: Sequence[_Drawn], usual: int, reference: int) -> list[Bars]:
    """Bonferroni's bars between independent rows, widened by how much more the few windows of the history move, and above all that they did."""
    scale = np.array([1 / max(usual, 1) + 1 / max(rows, 1) for rows in (reference, reference, usual, usual)])
    wider = max(1.0, float(np.mean([each.wider for each in found]))) if found else 1.0
    most = [each.found.max(axis=(0, 1), initial=0.0) for each in found]
    levels = [np.maximum(np.sqrt(each.noise * wider * scale), top) for each, top in zip(found, most, strict=True)]
    return [_bars(level, each.noise * wider) for level, each in zip(levels, found, strict=True)]


def _bars(levels: np.ndarray, noise: np.ndarray) -> Bars:
    fixed, fixed_missing, rolling, rolling_missing = (
        Bar(level=float(level), noise=float(extra)) for level, extra in zip(levels, noise, strict=True)
    )
    return Bars(fixed=fixed, fixed_missing=fixed_missing, rolling=rolling, rolling_missing=rolling_missing)


def _aucs(samples: Sequence[pd.DataFrame], plan: DriftPlan, seed: int, threads: int) -> np.ndarray:
    """How well each window can be told from all that are not next to it, above ½."""
    if len(samples) < ENOUGH:
        return np.zeros(0)
    found = []
    for at, window in enumerate(samples):
        others = pd.concat([rows for place, rows in enumerate(samples) if abs(place - at) > 1], ignore_index=True)
        told = told_apart(
            sampled(others, plan.sample, seed + at), sampled(window, plan.sample, seed), seed=seed, threads=threads
        )
        if told is not None:
            found.append(told.auc - 0.5)
    return np.array(found)


def _auc_bar(aucs: np.ndarray, plan: DriftPlan, independent: float) -> Bar:
    """An upper bound for the next window's AUC, above ½: one-sided prediction from those known (Student's t), else theory's error, doubled."""
    level, theory = plan.level * TOGETHER / len(plan.shifts), np.sqrt(1 / (6 * plan.sample))
    noise = float(stats.norm.isf(level)) ** 2 / 12
    if len(aucs) < ENOUGH:
        return Bar(level=float(stats.norm.isf(level) * theory * DOUBT), noise=noise * DOUBT**2)
    n, deviation = max(independent, 3.0), max(float(aucs.std(ddof=1)), theory)
    reach = float(stats.t.isf(level, n - 1)) * deviation * np.sqrt(1 + 1 / n)
    return Bar(level=max(float(aucs.mean()), 0.0) + reach, noise=noise)
