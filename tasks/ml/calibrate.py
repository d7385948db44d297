"""Calibration: probabilities that mean what they say, learned on rows that the model has not learned from."""

from copy import copy
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logit, softmax

from tasks.ml.kinds import Kind
from tasks.ml.metrics import METRICS
from tasks.ml.uncertain import compared

Method = Literal["none", "sigmoid", "temperature"]
FEWEST = 200  # rows; with fewer, two parameters are noise
RESAMPLES = 200
LEAST = 1e-7  # no chance counts as smaller


def calibrated(kind: Kind, model: Any, features: pd.DataFrame, truth: np.ndarray, seed: int) -> tuple[Any, Method]:
    """The model, corrected where that surely helps, and how.

    Two classes are corrected by a sigmoid of the log-odds (Platt 1999), more by one temperature (Guo et al. 2017). Whether that
    helps is asked of the newer half of the rows after learning it from the older half, by log loss; learned for good, it is
    from all of them. Isotonic regression is not among the choices: its steps need more rows of the rarer class than most have.

    Args:
        kind: the problem; one without probabilities is never corrected.
        model: fitted on other rows.
        features: validation rows in order of time.
        truth: theirs, (n,).
        seed: of the bootstrap.
    """
    if not kind.has_chances or len(features) < FEWEST:
        return model, "none"
    method: Method = "sigmoid" if kind.name == "binary" else "temperature"
    half = len(features) // 2
    if not kind.teaches(truth[half:]) or not all(_meets(kind, model, some) for some in (truth[:half], truth)):
        return model, "none"
    older = _corrected(kind, model, features.iloc[:half], truth[:half], method)
    newer = features.iloc[half:]
    gain = compared(
        METRICS["log_loss"], truth[half:], kind.answers(older, newer), kind.answers(model, newer), resamples=RESAMPLES, seed=seed
    ).bounds()  # fmt: skip
    if not gain.low > 0:
        return model, "none"
    return _corrected(kind, model, features, truth, method), method


def _meets(kind: Kind, model: Any, truth: np.ndarray) -> bool:
    """Whether the truths are of all classes that the model knows and of no other: scikit-learn learns a correction from no less."""
    return np.array_equal(np.unique(np.asarray(kind.taught(truth))), model.classes_)


def at_best(kind: Kind, answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The answers as the correction of `calibrated` would leave them: what is asked of a family is not how sure it is of itself.

    The correction is learned from the same rows: its one or two parameters can hardly fit chance in `FEWEST` rows, and every model
    gets it alike. Other answers come back as they are.

    Args:
        kind: the problem.
        answers: chances, (n,) or (n, classes), of rows that the model has not learned from.
        truth: theirs, (n,).
    """
    if not kind.has_chances or len(truth) < FEWEST or not kind.teaches(truth):
        return answers
    return _by_sigmoid(answers, truth) if answers.ndim == 1 else _by_temperature(answers, truth)


def _by_sigmoid(chances: np.ndarray, truth: np.ndarray) -> np.ndarray:
    from sklearn.calibration import _SigmoidCalibration  # the one that CalibratedClassifierCV learns

    odds = logit(np.clip(chances, LEAST, 1 - LEAST))
    return _SigmoidCalibration().fit(odds, truth).predict(odds)


def _by_temperature(chances: np.ndarray, truth: np.ndarray) -> np.ndarray:
    row, wrong = _slip(chances, truth)
    surely, own = np.log(np.clip(chances, LEAST, 1)), np.arange(len(truth))

    def loss(cold: float) -> float:
        said = log_softmax(np.exp(cold) * surely, axis=1)
        return -float(said[own, truth].sum() + said[row, wrong])

    return softmax(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x) * surely, axis=1)


def _slip(chances: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """A row that is as sure as most are, and the likeliest class that it is not.

    Counted as one error more, it keeps a temperature from making a model that erred nowhere infinitely sure (Laplace's rule of
    succession; Platt 1999 smooths his sigmoid alike).
    """
    row = int(np.argsort(chances.max(axis=1), kind="stable")[len(truth) // 2])
    others = np.where(chances.max(axis=0) > 0, chances[row], -1.0)  # a class that it never met cannot be told from none
    others[truth[row]] = -2.0
    return row, int(others.argmax())


def carried(before: Any, model: Any) -> Any:
    """What was learned to correct one model, over another that the same recipe made; the other itself where nothing was learned.

    Nothing is learned anew: the rows that the correction was learned on may be among those that the other learned from.

    Args:
        before: as `calibrated` gives it.
        model: the other fitted pipeline.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    if not isinstance(before, CalibratedClassifierCV):
        return model
    over, (only,) = copy(before), (copy(each) for each in before.calibrated_classifiers_)
    only.estimator = over.estimator = FrozenEstimator(model)
    only.classes = over.classes_ = model.classes_
    over.calibrated_classifiers_ = [only]
    return over


def _corrected(kind: Kind, model: Any, features: pd.DataFrame, truth: np.ndarray, method: Method) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    if method == "temperature":
        row, wrong = _slip(kind.answers(model, features), truth)
        features, truth = pd.concat([features, features.iloc[[row]]]), np.append(truth, wrong)
    return CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(features, kind.taught(truth))
