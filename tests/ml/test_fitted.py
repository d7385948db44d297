"""Fitted models: what is released has learned from validation rows, under a correction and numbers that were learned before."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, HistGradientBoostingRegressor

from tasks.ml.compiled.parity import compiled
from tasks.ml.fitted import Fitted
from tasks.ml.kinds import KINDS, Kind, Multiclass
from tasks.ml.recipe import Recipe
from tasks.ml.split import Parts
from tasks.stores import bundles
from tests.ml.test_kinds import MADE, PAIRS, columns_of, rows, types_of

NUMBERS = {"amount": columns_of(MADE["binary"])["amount"], "width": columns_of(MADE["binary"])["width"]}
OVERFIT = {"kind": "extra_trees", "min_samples_leaf": 1, "n_estimators": 20, "max_features": 1.0}


def parted(frame: pd.DataFrame, cut: int) -> Parts:
    """Rows before a place teach first, those after it are validation."""
    return Parts(frame[:cut].reset_index(drop=True), frame[cut:].reset_index(drop=True), frame[:0])


def noisy(count: int = 900) -> pd.DataFrame:
    """Rows a quarter of whose labels say the opposite."""
    frame = rows(count)
    return frame.assign(yes=frame["yes"] ^ (np.random.default_rng(1).random(count) < 0.25))


def phases(
    kind: Kind, family: Mapping[str, Any], parts: Parts, columns: dict | None = None, window: dict | None = None
) -> tuple[Fitted, Fitted]:
    """A model of both phases."""
    recipe = Recipe.model_validate({"family": family, "window": window or {}})
    first = Fitted.of(recipe, kind, columns or columns_of(kind), "at", parts, seed=3)
    return first, first.refitted(parts)


def test_the_released_model_has_learned_from_train_and_validation():
    """It says what scikit-learn's own boosting says that was fitted on both by hand; the first phase what one says of train."""
    parts, kind = parted(rows(900), 700), MADE["regression"]
    first, second = phases(
        kind, {"kind": "hist_gradient_boosting", "max_iter": 20, "learning_rate": 0.1}, parts, NUMBERS
    )
    asked = rows(200, seed=9)[list(NUMBERS)]
    for made, taught in ((first, parts.train), (second, pd.concat([parts.train, parts.validation]))):
        by_hand = HistGradientBoostingRegressor(
            early_stopping=False, random_state=3, max_iter=20, l2_regularization=1e-3, learning_rate=0.1
        ).fit(taught[list(NUMBERS)], taught["number"])  # fmt: skip
        np.testing.assert_allclose(made.model.predict(asked), by_hand.predict(asked), rtol=1e-12)
        assert made.rows == len(taught)
    assert (first.refit, second.refit) == (False, True)


def test_correction_and_threshold_are_those_of_the_first_phase():
    """A forest that knows its rows by heart is too sure: the sigmoid that was learned on rows new to it goes over the forest of all rows."""
    parts, kind = parted(noisy(), 500), MADE["binary"]
    first, second = phases(kind, OVERFIT, parts, NUMBERS)
    assert first.calibration == second.calibration == "sigmoid"
    assert first.operates == second.operates
    learned, carried = (made.model.calibrated_classifiers_[0].calibrators[0] for made in (first, second))
    assert (carried.a_, carried.b_) == (learned.a_, learned.b_)
    taught = pd.concat([parts.train, parts.validation])
    forest = ExtraTreesClassifier(n_estimators=20, min_samples_leaf=1, max_features=1.0, random_state=3)
    by_hand = forest.fit(taught[list(NUMBERS)], kind.taught(kind.truth(taught)))
    asked = noisy(100)[list(NUMBERS)]
    meant = 1 / (1 + np.exp(learned.a_ * by_hand.predict_proba(asked)[:, 1] + learned.b_))
    np.testing.assert_allclose(kind.answers(second.model, asked), meant, rtol=1e-9)


def test_what_was_said_of_validation_rows_is_from_before_they_were_learned():
    """The model of both phases keeps the answers of the first; its own are nearer to what came true, as it knows that by heart."""
    parts, kind = parted(noisy(), 500), MADE["binary"]
    first, second = phases(kind, OVERFIT, parts, NUMBERS)
    truth = kind.truth(parts.validation)
    assert second.said is first.said
    assert first.said.tobytes() == kind.answers(first.model, second.asked).tobytes()
    now = kind.answers(second.model, second.asked)
    assert np.mean((now - truth) ** 2) < 0.7 * np.mean((second.said - truth) ** 2)


def moved(count: int, rate: float, seed: int) -> pd.DataFrame:
    """Rows of which a share is positive; how much a column tells of it is the same at every rate."""
    rng, frame = np.random.default_rng(seed), rows(count, seed)
    yes = rng.random(count) < rate
    return frame.assign(yes=yes, amount=rng.normal(size=count) + yes, width=rng.normal(size=count))


@pytest.mark.parametrize("window", [{"kind": "last", "days": 10}, {"kind": "decay", "days": 3}])
def test_a_correction_is_not_applied_to_a_model_that_knows_the_shift_itself(window):
    """From a fifth positives to a half: the model of a window stays as it was fitted on train, and under its correction says the true rate.

    Fitted once more it would know the new rate from the newest rows, and the correction for not knowing it would come on top.
    """
    before, after = moved(1200, 0.2, 1), moved(400, 0.5, 2)
    frame = pd.concat([before, after], ignore_index=True).assign(
        at=pd.date_range("2026", periods=1600, freq="h", tz="UTC")
    )
    kind = MADE["binary"]
    first, second = phases(kind, {"kind": "logistic"}, parted(frame, 1200), NUMBERS, window)
    asked = moved(2000, 0.5, 3)[list(NUMBERS)]
    assert (second.refit, second.calibration) == (False, "sigmoid")
    assert second.once.startswith("its window (")
    assert kind.answers(second.model, asked).tobytes() == kind.answers(first.model, asked).tobytes()
    assert kind.answers(second.model, asked).mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("kind", ["multiclass", "recommendation"])
def test_a_model_of_a_window_that_nothing_was_set_for_learns_the_newest_rows(kind):
    """Neither corrected nor operated by a number there is nothing that could be counted twice."""
    family = {"multiclass": "logistic", "recommendation": "favourites"}[kind]
    before = rows(1200)
    _, second = phases(MADE[kind], {"kind": family}, parted(before, 1190), window={"kind": "decay", "days": 3})
    assert (second.calibration, second.operates) == ("none", {})
    assert (second.refit, second.rows) == (True, 1200)


def test_a_detector_of_anomalies_does_not_learn_the_rows_that_set_its_threshold():
    """After a shift one new row in twenty reaches the threshold, as the budget says; a detector that knew the shift would say nothing."""
    kind, frame = MADE["anomaly"], rows(1600)
    frame = frame.assign(width=frame["width"].where(np.arange(1600) < 800, frame["width"] + 6))
    first, second = phases(kind, {"kind": "gaussian_mixture"}, parted(frame[:1200], 800), NUMBERS)
    assert (second.refit, second.rows) == (False, first.rows)
    said = kind.answers(second.model, frame[1200:][list(NUMBERS)].reset_index(drop=True))
    assert 0.02 < np.mean(said >= second.operates["threshold"]) < 0.09


def test_a_label_that_came_after_the_holdout_began_is_not_learned():
    """Of 300 validation rows the newest 100 are left out; where all of them are, the model stays as it was fitted on train."""
    kind, frame = MADE["regression"], rows(900)
    parts = dataclasses.replace(parted(frame, 600), late=100)
    _, second = phases(kind, {"kind": "ridge"}, parts, NUMBERS)
    by_hand, _ = second.making.of(second.making.learned(frame[:800]))
    asked = frame[list(NUMBERS)]
    assert (second.rows, second.late) == (800, 100)
    assert second.model.predict(asked).tolist() == by_hand.predict(asked).tolist()
    first, stays = phases(kind, {"kind": "ridge"}, dataclasses.replace(parts, late=300), NUMBERS)
    assert (stays.rows, stays.late, stays.once[:12]) == (600, 0, "no validatio")
    assert stays.model is first.model


@pytest.mark.parametrize(("window", "refit"), [({"kind": "last", "days": 5}, False), ({}, True)])
def test_validation_rows_of_one_class_do_no_harm(window, refit):
    """What is fitted once more always holds the train rows, and so both classes; a window that only reached validation rows would not."""
    frame = rows(900)
    frame = frame.assign(yes=frame["yes"] & (np.arange(900) < 700))
    _, made = phases(MADE["binary"], {"kind": "logistic"}, parted(frame, 700), NUMBERS, window)
    assert (made.refit, len(made.model.classes_)) == (refit, 2)


def test_a_class_that_only_validation_has_is_learned_at_last():
    """A correction is learned for classes that the model knows, so here none is; what is released knows all three."""
    frame, kind = rows(900), Multiclass("grade", ("high", "low", "middle"))
    early = frame[frame["grade"] != "high"]
    parts = Parts(early[:400].reset_index(drop=True), frame[500:].reset_index(drop=True), frame[:0])
    first, second = phases(kind, {"kind": "logistic"}, parts, NUMBERS)
    assert (first.calibration, second.calibration) == ("none", "none")
    assert (len(first.model.classes_), len(second.model.classes_)) == (2, 3)
    assert kind.answers(second.model, second.asked)[:, 0].max() > 0.5


def test_a_temperature_is_carried_over_all_classes():
    """Of a forest that is too sure of three classes, one number goes over to the forest of all rows."""
    frame = rows(1200)
    wrong = np.random.default_rng(2).random(len(frame)) < 0.3
    frame = frame.assign(grade=np.where(wrong, np.roll(frame["grade"], 7), frame["grade"]))
    kind = MADE["multiclass"]
    first, second = phases(
        kind,
        {"kind": "hist_gradient_boosting", "max_iter": 100, "min_samples_leaf": 5, "learning_rate": 0.1},
        parted(frame, 600),
        NUMBERS,
    )
    assert second.calibration == "temperature"
    learned, carried = (made.model.calibrated_classifiers_[0].calibrators[0].beta_ for made in (first, second))
    assert carried == learned != 1
    bare = second.model.estimator.estimator
    taught = HistGradientBoostingClassifier(
        early_stopping=False, random_state=3, max_iter=100, min_samples_leaf=5, l2_regularization=1e-3, learning_rate=0.1
    ).fit(frame[list(NUMBERS)], frame["grade"])  # fmt: skip
    asked = rows(50, seed=4)[list(NUMBERS)]
    odds = taught.decision_function(asked) * learned
    meant = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kind.answers(second.model, asked), meant, rtol=1e-9)
    assert bare.classes_.tolist() == ["high", "low", "middle"]


def test_every_kind_keeps_its_numbers():
    """Whatever a kind operates by comes from rows that were new to the model, and stays."""
    for name in KINDS:
        kind, family = MADE[name], next(family for of, family in PAIRS if of == name)
        first, second = phases(kind, {"kind": family}, parted(rows(600), 400))
        assert second.operates == first.operates
        assert second.said.tobytes() == first.said.tobytes()


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_model_of_both_phases_is_saved_read_and_compiled(name, family, tmp_path):
    """With reviewed types only, and the same answers; the compiled form, where there is one, says the same of every validation row."""
    kind, parts = MADE[name], parted(rows(900), 600)
    _, made = phases(kind, {"kind": family}, parts)
    assert made.model.feature_names_in_.tolist() == list(types_of(kind))
    digest = bundles.write(tmp_path / "bundle", made.model, {"project": "any"})
    _, again = bundles.read(tmp_path / "bundle", digest)
    assert kind.answers(again, made.asked).tobytes() == kind.answers(made.model, made.asked).tobytes()
    operates = {
        of: value - 1e-9 for of, value in made.operates.items()
    }  # a threshold may be what is said of one of these rows
    outcome = compiled(kind, made.model, made.asked, operates)
    assert (outcome.form is not None) == (family != "nearest_neighbours"), outcome.reason
