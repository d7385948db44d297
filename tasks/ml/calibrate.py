"""Calibration: probabilities that mean what they say, learned on rows that the model has not learned from."""

from copy import copy
from typing import Any, Literal

import numpy as np
import pandas as pd

from tasks.ml.kinds import Kind
from tasks.ml.metrics import METRICS
from tasks.ml.uncertain import compared

Method = Literal["none", "sigmoid", "temperature"]
FEWEST = 200  # rows; with fewer, two parameters are noise
RESAMPLES = 200


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
    known = (
        np.unique(np.asarray(kind.taught(some))) for some in (truth[:half], truth)
    )  # a correction is of the model's classes
    if not kind.teaches(truth[half:]) or not all(np.array_equal(classes, model.classes_) for classes in known):
        return model, "none"
    older = _corrected(kind, model, features.iloc[:half], truth[:half], method)
    newer = features.iloc[half:]
    gain = compared(
        METRICS["log_loss"], truth[half:], kind.answers(older, newer), kind.answers(model, newer), resamples=RESAMPLES, seed=seed
    ).bounds()  # fmt: skip
    if not gain.low > 0:
        return model, "none"
    return _corrected(kind, model, features, truth, method), method


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

    return CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(features, kind.taught(truth))
