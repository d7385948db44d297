"""Calibration: chances that mean what they say, and models that are chosen for what they say after it."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from tasks.ml.calibrate import at_best, calibrated
from tasks.ml.kinds import Binary, Multiclass
from tasks.ml.metrics import METRICS, Cost

THREE = Multiclass("y", labels=("a", "b", "c"))
TWO = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
ROWS = 4_000


class Says(ClassifierMixin, BaseEstimator):
    """A model that says what its column holds, as it came."""

    def __init__(self, chances: np.ndarray, labels: tuple[str, ...]) -> None:
        self.chances, self.labels = chances, labels
        self.classes_ = np.array(labels)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self) -> None:
        """Learned before."""

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """The chances of the rows that are named."""
        return self.chances[features["row"].to_numpy()]

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """The likeliest label."""
        return self.classes_[self.predict_proba(features).argmax(axis=1)]


def true_chances(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Chances, and truths that are drawn with them."""
    random = np.random.default_rng(0)
    chances = softmax(random.normal(scale=2, size=(ROWS, classes)), axis=1)
    return chances, (chances.cumsum(axis=1) < random.random(ROWS)[:, None]).sum(axis=1)


@pytest.mark.parametrize("power", [0.3, 3.0])
def test_too_sure_or_unsure_answers_are_worth_what_true_ones_are(power: float):
    """Chances raised to a power lose what they lost by it, in two classes and in three; the bare ones lose much more."""
    loss = METRICS["log_loss"]
    for kind, classes in ((TWO, 2), (THREE, 3)):
        chances, truth = true_chances(classes)
        bent = chances**power / (chances**power).sum(axis=1, keepdims=True)
        own, bent = (chances[:, 1], bent[:, 1]) if classes == 2 else (chances, bent)
        assert loss.of(truth, at_best(kind, bent, truth)) == pytest.approx(loss.of(truth, own), abs=2e-3)
        assert loss.of(truth, bent) > loss.of(truth, own) + 0.05


def test_a_model_that_erred_nowhere_is_not_infinitely_sure():
    """N rows without an error mean a chance of n of n + 1, as one error more would leave; in what is judged and in what is kept."""
    truth = np.random.default_rng(0).integers(0, 3, ROWS)
    chances = np.full((ROWS, 3), 0.05)
    chances[np.arange(ROWS), truth] = 0.9
    right = ROWS / (ROWS + 1)
    assert at_best(THREE, chances, truth).max(axis=1) == pytest.approx(right, abs=1e-5)
    features = pd.DataFrame({"row": np.arange(ROWS)})
    model, method = calibrated(THREE, Says(chances, THREE.labels), features, truth, seed=0)
    assert method == "temperature"
    assert THREE.answers(model, features).max(axis=1) == pytest.approx(right, abs=1e-5)


@pytest.mark.parametrize("lacks", ["the model", "the older half", "the newer half"])
def test_a_rare_class_that_somebody_lacks_ends_in_no_error(lacks: str):
    """A class that the model never met, or that stands in one half of the rows alone: corrected where that can be, else left."""
    random = np.random.default_rng(0)
    labels = ("b", "c") if lacks == "the model" else THREE.labels
    truth = random.integers(1, 3, ROWS)
    if lacks != "the model":
        truth[slice(6) if lacks == "the newer half" else slice(ROWS - 6, ROWS)] = 0
    chances = np.zeros((ROWS, len(labels)))
    chances[np.arange(ROWS), truth - 3 + len(labels)] = 1.0
    model, method = calibrated(THREE, Says(chances, labels), pd.DataFrame({"row": np.arange(ROWS)}), truth, seed=0)
    assert method in {"none", "temperature"}
    said = THREE.answers(model, pd.DataFrame({"row": np.arange(ROWS)}))
    assert np.isfinite(said).all()
    assert np.isfinite(at_best(THREE, said, truth)).all()


def test_two_classes_that_are_told_apart_are_ranked_by_nobodys_luck():
    """Answers that err nowhere are worth the same however far apart they are, as Platt's smoothed truths leave them."""
    truth = np.repeat([0, 1], ROWS // 2)
    losses = [
        METRICS["log_loss"].of(truth, at_best(TWO, np.where(truth, high, 1 - high), truth))
        for high in (0.6, 0.9, 0.999)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)


def test_few_rows_and_one_class_teach_no_correction():
    """The answers come back as they are."""
    chances, truth = true_chances(3)
    np.testing.assert_array_equal(at_best(THREE, chances[:100], truth[:100]), chances[:100])
    np.testing.assert_array_equal(at_best(THREE, chances, np.zeros(ROWS, dtype=int)), chances)
