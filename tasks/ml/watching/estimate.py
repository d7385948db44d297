"""Estimates: how good answers are expected to be while nobody knows what came true.

Made once at training, kept with the version as JSON, asked of every window:

    learned(kind, measures, truth, answers, features=None, *, seed) -> Estimator
    read(text) -> Estimator                              of Estimator.model_dump_json()
    estimator.estimates(measures, answers, features=None, *, fewest=200, seed) -> dict[str, Estimated]

Classifiers: confidence-based performance estimation (CBPE; NannyML's documentation, How it works, Performance estimation). If the chance of
each class is known of a row, every metric has an expected value: the row stands for each class with its chance. Regression: direct loss
estimation (DLE; same place): a small forest learns from rows whose outcomes are known how far off an answer is, of features and answer.
Both hold only while outcomes follow from inputs as they did (`Estimated.assumes`); neither can see that this has changed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, TypeAdapter
from scipy.special import chdtri

from tasks.ml.kinds import Kind
from tasks.ml.metrics import METRICS, Metric
from tasks.ml.uncertain import compared
from tasks.ml.watching.losses import Forest
from tasks.ml.watching.measures import REACH, Reference, gauged, rarest, standard_error

FEWEST = 200  # rows with outcomes, below which nothing is learned from them
RARE = 50  # rows of the rarest class, below which an estimate is doubted
BLOCKS, FORESTS = 10, 5  # consecutive stretches of those rows, on which estimates by chances, and by forests, are tried
DRAWS = 100  # of labels, for the error of sampling
PAIRS = 20_000  # rows times classes that labels are drawn for; the error of more rows follows by the square root
CELLS = 400_000  # rows times classes squared of a window that are looked at; of more every k-th row
LOOKED_AT = 20_000  # rows of a window that the forest looks at; of more every k-th
OUTSIDE = 0.05  # share of rows beyond what was met in learning, from which an estimate is doubted
Tried = Callable[[np.ndarray], dict[str, tuple[float, float]]]  # which rows (n,) → value and sampling error by measure
SAME_CHANCES = (
    "the chance of an outcome, given what the model says, is what it was on the rows that this was learned from; a change of concept "
    "(same inputs, other outcomes) is not seen"
)
SAME_LOSSES = (
    "how far off an answer is, given the features, is what it was on the rows that this was learned from; a change of concept (same inputs, "
    "other outcomes) is not seen"
)


class Estimated(BaseModel, frozen=True):
    """What a measure is expected to be in a window. It is an expectation under `assumes`, and never says that all is well.

    Attributes:
        measure: its name.
        method: `cbpe`, `dle`, or `none`.
        value: the expected value; None where there is none, and `reason` says why.
        low, high: where the measure lies nine times in ten while the assumption holds, error of sampling and of estimation together.
        sampling: standard error by the rows that happen to be in the window, and what happens to come true of them.
        estimation: standard error of the estimate itself, as found on rows whose outcomes are known.
        rows: of the window.
        reason: why there is no value.
        assumes: what must hold.
        doubts: what speaks against trusting it, in words.
    """

    measure: str
    method: Literal["cbpe", "dle", "none"]
    rows: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    sampling: float | None = None
    estimation: float | None = None
    reason: str = ""
    assumes: str = ""
    doubts: tuple[str, ...] = ()


class Known(Reference, frozen=True):
    """What rows with outcomes say of a measure, and of its estimates.

    Attributes:
        excess: standard error of an estimate beyond what sampling explains, found on consecutive blocks, each estimated by the others.
        is_off: whether the estimates were off by more than luck explains in 19 of 20 cases.
    """

    excess: float
    is_off: bool


class Calibration(BaseModel, frozen=True):
    """What the chance of each class is, given what the model says.

    Attributes:
        method: `none` where answers are chances, surely as good as corrected ones.
        said, chance: by class the knots of a rising line, of two classes only the positive one's (isotonic regression).
    """

    method: Literal["none", "isotonic"] = "none"
    said: tuple[tuple[float, ...], ...] = ()
    chance: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def of(cls, truth: np.ndarray, answers: np.ndarray, seed: int) -> Self:
        """Isotonic where that surely helps: learned from the older half, asked of the newer one by Brier score; then from all rows.

        Args:
            truth: (n,) places of classes, in order of time.
            answers: (n,) or (n, classes).
            seed: of the bootstrap.
        """
        half, line = len(truth) // 2, cls.line(truth, answers)
        older = cls.line(truth[:half], answers[:half])
        newer, came = answers[half:], truth[half:]
        gain = compared(METRICS["brier"], came, older.answers(newer), newer, resamples=DRAWS, seed=seed).bounds()
        return line if gain.low > 0 else cls()

    @classmethod
    def line(cls, truth: np.ndarray, answers: np.ndarray) -> Self:
        """Isotonic regression of each class."""
        from sklearn.isotonic import IsotonicRegression

        pairs = [(answers, truth == 1)] if answers.ndim == 1 else [(answers[:, k], truth == k) for k in range(answers.shape[1])]  # fmt: skip
        lines = [IsotonicRegression(out_of_bounds="clip").fit(said, came.astype(float)) for said, came in pairs]
        said = tuple(tuple(one.X_thresholds_.tolist()) for one in lines)
        return cls(method="isotonic", said=said, chance=tuple(tuple(one.y_thresholds_.tolist()) for one in lines))

    def answers(self, answers: np.ndarray) -> np.ndarray:
        """The answers corrected, in the same form."""
        if self.method == "none":
            return answers
        columns = answers[:, None] if answers.ndim == 1 else answers
        made = [np.interp(column, said, chance) for column, said, chance in zip(columns.T, self.said, self.chance, strict=True)]  # fmt: skip
        if answers.ndim == 1:
            return made[0]
        total = np.sum(made, axis=0)[:, None]
        return np.where(total > 0, np.stack(made, axis=1) / np.where(total > 0, total, 1), answers)

    def chances(self, answers: np.ndarray) -> np.ndarray:
        """The chance of each class: (n, classes)."""
        made = self.answers(answers)
        return np.clip(np.stack([1 - made, made], axis=1) if made.ndim == 1 else made, 0.0, 1.0)


class Chances(BaseModel, frozen=True):
    """Estimates of classifiers by their chances (CBPE).

    Attributes:
        rows: that it was learned from; low, high: the least and the greatest answer among them, the greatest class's where there are many.
        known: what they say of each measure.
    """

    method: Literal["cbpe"] = "cbpe"
    rows: int
    low: float
    high: float
    calibration: Calibration
    known: dict[str, Known]

    @classmethod
    def of(cls, measures: Mapping[str, Metric], truth: np.ndarray, answers: np.ndarray, seed: int) -> Self:
        """Learns from rows in order of time."""
        calibration, rng = Calibration.of(truth, answers, seed), np.random.default_rng(seed)

        def tried(inside: np.ndarray) -> dict[str, tuple[float, float]]:
            others = Calibration.line(truth[~inside], answers[~inside]) if calibration.method == "isotonic" else calibration  # fmt: skip
            here, chances = answers[inside], others.chances(answers[inside])
            errors = _errors(measures, here, chances, rng, same_rows=True)
            return {name: (_expected(measure, here, chances), errors[name]) for name, measure in measures.items()}

        top = _top(answers)
        return cls(
            rows=len(truth), low=float(top.min()), high=float(top.max()), calibration=calibration,
            known=_known(measures, truth, answers, tried, most=BLOCKS, rare=rarest(truth), seed=seed),
        )  # fmt: skip

    def estimates(
        self, measures: Mapping[str, Metric], answers: np.ndarray, features: pd.DataFrame | None = None, *, fewest: int = FEWEST, seed: int  # noqa: ARG002 -- the interface
    ) -> dict[str, Estimated]:  # fmt: skip
        """What each measure is expected to be, by name.

        Args:
            measures: as in `learned`.
            answers: (n,) or (n, classes), of the window.
            features: not looked at.
            fewest: rows, below which nothing is said but that they are too few.
            seed: of the draws.
        """
        if len(answers) < fewest:
            return {name: _unsaid(name, len(answers), too_few(len(answers), fewest)) for name in measures}
        classes = 2 if answers.ndim == 1 else answers.shape[1]
        some = answers[:: -(-len(answers) * classes**2 // CELLS)]
        chances = self.calibration.chances(some)
        errors = _errors(measures, some, chances, np.random.default_rng(seed), same_rows=False)
        doubts = self._doubts(answers)
        return {
            name: _said(self.known.get(name), measure, "cbpe", _expected(measure, some, chances), errors[name], len(answers), SAME_CHANCES, doubts)
            for name, measure in measures.items()
        }  # fmt: skip

    def _doubts(self, answers: np.ndarray) -> tuple[str, ...]:
        top = _top(answers)
        outside = float(((top < self.low) | (top > self.high)).mean())
        rare = min((known.rare for known in self.known.values()), default=RARE)
        told = [(rare < RARE, f"it was learned from {rare} rows of the rarest class"), (outside > OUTSIDE, f"{outside:.0%} of the answers are lower or higher than any that it was learned from")]  # fmt: skip
        return tuple(words for holds, words in told if holds)


class Losses(BaseModel, frozen=True):
    """Estimates of regressions by a model of their losses (DLE).

    Attributes:
        rows: that it was learned from.
        forest: what says how far off answers are.
        known: what those rows say of each measure.
    """

    method: Literal["dle"] = "dle"
    rows: int
    forest: Forest
    known: dict[str, Known]

    @classmethod
    def of(
        cls, measures: Mapping[str, Metric], truth: np.ndarray, answers: np.ndarray, features: pd.DataFrame, seed: int
    ) -> Self:
        """Learns from rows in order of time."""

        def tried(inside: np.ndarray) -> dict[str, tuple[float, float]]:
            others = Forest.of(features[~inside], answers[~inside], (truth - answers)[~inside], seed)
            return _of_means(others.means(features[inside], answers[inside]), int(inside.sum()))

        own = {name: measure for name, measure in measures.items() if name in {"mae", "rmse"}}
        return cls(
            rows=len(truth), forest=Forest.of(features, answers, truth - answers, seed),
            known=_known(own, truth, answers, tried, most=FORESTS, rare=len(truth), seed=seed),
        )  # fmt: skip

    def estimates(
        self, measures: Mapping[str, Metric], answers: np.ndarray, features: pd.DataFrame | None = None, *, fewest: int = FEWEST, seed: int  # noqa: ARG002 -- the interface
    ) -> dict[str, Estimated]:  # fmt: skip
        """What each measure is expected to be, by name.

        Args:
            measures: as in `learned`.
            answers: (n,) of the window.
            features: of the window, as `features.matrix` gives them.
            fewest: rows, below which nothing is said but that they are too few.
            seed: nothing is drawn.

        Raises:
            ValueError: there are no features.
        """
        if features is None:
            raise ValueError("no features are given; a regression's losses are estimated from features and answers")
        if len(answers) < fewest:
            return {name: _unsaid(name, len(answers), too_few(len(answers), fewest)) for name in measures}
        some = slice(None, None, -(-len(answers) // LOOKED_AT))
        rows, said = features.iloc[some], answers[some]
        found, doubts = _of_means(self.forest.means(rows, said), len(said)), self._doubts(rows, said)
        unknown = "it needs how far what comes true is spread in the window, which nobody knows yet"
        return {
            name: _said(self.known.get(name), measure, "dle", *found[name], len(answers), SAME_LOSSES, doubts) if name in found else _unsaid(name, len(answers), unknown)
            for name, measure in measures.items()
        }  # fmt: skip

    def _doubts(self, features: pd.DataFrame, answers: np.ndarray) -> tuple[str, ...]:
        shares = self.forest.outside(features, answers)
        far = sorted((name for name, share in shares.items() if share > OUTSIDE), key=lambda name: -shares[name])
        told = ", ".join(f"{shares[name]:.0%} of {name}" for name in far[:3])
        return (f"values are such as it was not learned from: {told}{', …' if len(far) > 3 else ''}",) if far else ()


class Nothing(BaseModel, frozen=True):
    """No estimate, and why."""

    method: Literal["none"] = "none"
    reason: str
    known: dict[str, Known] = {}

    def estimates(
        self, measures: Mapping[str, Metric], answers: np.ndarray, features: pd.DataFrame | None = None, *, fewest: int = FEWEST, seed: int  # noqa: ARG002 -- the interface
    ) -> dict[str, Estimated]:  # fmt: skip
        """The reason, by measure."""
        return {name: _unsaid(name, len(answers), self.reason) for name in measures}


Estimator = Annotated[Chances | Losses | Nothing, Field(discriminator="method")]
ESTIMATOR: TypeAdapter[Chances | Losses | Nothing] = TypeAdapter(Estimator)


def learned(
    kind: Kind, measures: Mapping[str, Metric], truth: np.ndarray, answers: np.ndarray, features: pd.DataFrame | None = None, *, seed: int
) -> Chances | Losses | Nothing:  # fmt: skip
    """What estimates performance without outcomes, from rows whose outcomes are known and that the model did not learn from.

    Args:
        kind: the problem.
        measures: what is estimated, as `measures.measures` gives it.
        truth: (n,) of the rows in order of time, as `Kind.truth` gives it.
        answers: (n,) or (n, classes), as `Kind.answers` gives them.
        features: of a regression, as `features.matrix` gives them: (n, columns).
        seed: of everything that is drawn.
    """
    if not kind.has_chances and kind.name != "regression":
        return Nothing(
            reason=f"answers of the kind '{kind.name}' say neither how likely an outcome is nor how far off they may be"
        )
    if len(truth) < FEWEST:
        return Nothing(reason=f"too few rows with outcomes to learn from: {too_few(len(truth), FEWEST)}")
    if why := kind.unlearnable(truth, "holdout"):
        return Nothing(reason=why)
    if kind.has_chances:
        return Chances.of(measures, truth, answers, seed)
    if features is None:
        raise ValueError("no features are given; a regression's losses are learned from features and answers")
    return Losses.of(measures, truth, answers, features, seed)


def read(text: str | bytes) -> Chances | Losses | Nothing:
    """An estimator from the JSON of its `model_dump_json`."""
    return ESTIMATOR.validate_json(text)


def too_few(rows: int, wanted: int) -> str:
    """The words for a window that says nothing.

    >>> too_few(5, 200)
    'too few rows: 5, 200 are wanted'
    """
    return f"too few rows: {rows:,}, {wanted:,} are wanted"


# -- chances ----------------------------------------------------------------------------------------------------------
def _pairs(answers: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Every row once for each class that may come true: truth and answers, row by row."""
    return np.tile(np.arange(classes), len(answers)), np.repeat(answers, classes, axis=0)


def _expected(measure: Metric, answers: np.ndarray, chances: np.ndarray) -> float:
    """The measure where each row stands for each class with its chance: of a mean the expectation, of others what it tends to.

    >>> said = np.array([0.2, 0.9])  # 0.2 · 0.8² + 0.8 · 0.2² = 0.16, 0.9 · 0.1² + 0.1 · 0.9² = 0.09
    >>> round(_expected(METRICS["brier"], said, np.stack([1 - said, said], axis=1)), 9)
    0.125
    """
    return float(measure.scores(*_pairs(answers, chances.shape[1]), chances.reshape(1, -1))[0])


def _errors(
    measures: Mapping[str, Metric], answers: np.ndarray, chances: np.ndarray, rng: np.random.Generator, *, same_rows: bool
) -> dict[str, float]:  # fmt: skip
    """The standard error of each measure by what comes true of the rows, and unless they are the `same_rows`, by which rows there are.

    Each row counts a Poisson number of times for each class, with its chance for a mean: the Poisson bootstrap over rows and outcomes. Of
    the same rows one class each is drawn.
    """
    count, classes = chances.shape
    some = slice(None, None, max(1, count * classes // PAIRS))
    few, here = chances[some], answers[some]
    drawn = _one_each(few, rng) if same_rows else rng.poisson(few.reshape(1, -1), (DRAWS, few.size)).astype(float)
    y, p = _pairs(here, classes)
    return {
        name: _deviation(measure.scores(y, p, drawn)) * float(np.sqrt(len(few) / count))
        for name, measure in measures.items()
    }


def _deviation(values: np.ndarray) -> float:
    """The standard deviation of those that exist; 0 where fewer than two do."""
    known = values[np.isfinite(values)]
    return float(known.std()) if len(known) > 1 else 0.0


def _one_each(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Classes drawn for each row, as weights of the pairs: (draws, n · classes)."""
    edges = np.cumsum(chances, axis=1)
    places = (rng.random((DRAWS, len(chances), 1)) > edges / edges[:, -1:]).sum(axis=2)
    return np.eye(chances.shape[1])[places].reshape(DRAWS, -1)


def _top(answers: np.ndarray) -> np.ndarray:
    return answers.max(axis=1) if answers.ndim == 2 else answers


# -- losses -----------------------------------------------------------------------------------------------------------
def _of_means(means: np.ndarray, rows: int) -> dict[str, tuple[float, float]]:
    """Mean absolute error and root mean squared error with their standard errors of sampling, from the means of the powers 1, 2, 4.

    >>> {name: [round(part, 3) for part in found] for name, found in _of_means(np.array([3.0, 25.0, 1025.0]), 100).items()}
    {'mae': [3.0, 0.4], 'rmse': [5.0, 0.2]}
    """
    first, second, fourth = means.tolist()
    root = max(second, 1e-300) ** 0.5
    spreads = [max(second - first**2, 0.0), max(fourth - second**2, 0.0) / (4 * root**2)]
    return {name: (value, (spread / rows) ** 0.5) for name, value, spread in zip(("mae", "rmse"), (first, root), spreads, strict=True)}  # fmt: skip


# -- what both have in common -----------------------------------------------------------------------------------------
def _known(
    measures: Mapping[str, Metric],
    truth: np.ndarray,
    answers: np.ndarray,
    tried: Tried,
    *,
    most: int,
    rare: int,
    seed: int,
) -> dict[str, Known]:
    """What rows with outcomes say of each measure, and how far off an estimate of each block from the others is.

    Beyond sampling (of the block's outcomes, and of what the others taught) is what is left of the mean square of the differences; below 0
    there is nothing left (DerSimonian and Laird 1986, by the method of moments).
    """
    blocks = max(2, min(most, len(truth) // FEWEST))
    place = np.arange(len(truth)) * blocks // len(truth)
    guessed = [tried(place == block) for block in range(blocks)]
    found = {}
    for name, measure in measures.items():
        whole = gauged(measure, truth, answers, seed)
        if not np.isfinite([whole.value, whole.low, whole.high]).all():
            continue
        came = np.array([measure.of(truth[place == block], answers[place == block]) for block in range(blocks)])
        said, error = np.array([block[name] for block in guessed]).T
        excess, spread, is_off = _beyond(came, said, error, standard_error(whole))
        found[name] = Known(
            value=whole.value, low=whole.low, high=whole.high, rare=rare, excess=excess, spread=spread, is_off=is_off
        )
    return found


def _beyond(came: np.ndarray, said: np.ndarray, error: np.ndarray, own: float) -> tuple[float, float, bool]:
    """What sampling leaves over in blocks: error of the estimates, spread of the measure, and whether the former is surely more than luck.

    Args:
        came: (blocks,) the measure, NaN where it does not exist.
        said: (blocks,) its estimates from the other blocks.
        error: (blocks,) standard errors by what came true of the block's rows.
        own: standard error of the measure on all rows.
    """
    exist = np.isfinite(came) & np.isfinite(said)
    blocks = int(exist.sum())
    if blocks < 2:
        return own, 0.0, False
    square = (came - said)[exist] ** 2
    luck = np.maximum(error[exist] ** 2 + own**2 * blocks / (blocks - 1), 1e-18)
    apart = float(np.var(came[exist], ddof=1)) - own**2 * blocks
    return _root(float(np.mean(square - luck))), _root(apart), bool((square / luck).sum() > chdtri(blocks, 0.05))


def _root(square: float) -> float:
    return max(square, 0.0) ** 0.5


def _said(
    known: Known | None, measure: Metric, method: Literal["cbpe", "dle"], value: float, sampling: float, rows: int, assumes: str, doubts: Sequence[str]
) -> Estimated:  # fmt: skip
    """An estimate with the band of both errors, and a doubt where those of the estimate are more than luck."""
    if known is None or not np.isfinite(value):
        where = "on the rows that it was learned from" if known is None else "where no such row is expected"
        return _unsaid(measure.name, rows, f"there is no {measure.label} {where}")
    estimation = float(np.hypot(standard_error(known), known.excess))
    reach, ceiling = REACH * float(np.hypot(sampling, estimation)), 1.0 if measure.greater_is_better else float("inf")
    off = (f"on rows with outcomes it was off by {known.excess:.2g} more than luck explains",) if known.is_off else ()
    return Estimated(
        measure=measure.name, method=method, rows=rows, value=value, low=max(value - reach, 0.0), high=min(value + reach, ceiling),
        sampling=sampling, estimation=estimation, assumes=assumes, doubts=(*doubts, *off),
    )  # fmt: skip


def _unsaid(name: str, rows: int, reason: str) -> Estimated:
    return Estimated(measure=name, method="none", rows=rows, reason=reason)
