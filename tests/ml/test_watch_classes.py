"""Classes: what looks broken is to be mended, what costs is a reason to retrain, the rest is left alone."""

import numpy as np
import pandas as pd
import pytest

from tasks.ml.watching.calibration import DriftPlan, calibrated
from tasks.ml.watching.classes import Performance
from tasks.ml.watching.findings import Findings, Known, examine
from tasks.ml.watching.reference import Sketch

PLAN = DriftPlan()
CALM = Performance(metric="roc_auc", expected=0.85, estimated=0.85)
FALLING = Performance(metric="roc_auc", expected=0.85, estimated=0.78, fell={"estimated": 0.81})


def world(seed: int, n: int = 3000) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": random.lognormal(3, 0.5, n), "level": random.normal(20, 5, n), "pressure": random.normal(1000, 10, n),
            "change": random.normal(0, 1, n), "source": pd.Series(random.choice(["web", "shop"], n)).astype("str"), "night": random.random(n) < 0.3,
        }
    )  # fmt: skip


FIXED = Sketch.of(world(0), np.tanh(world(0)["change"].to_numpy()))
THRESHOLDS = calibrated(FIXED, [], PLAN)


def looked(rows: pd.DataFrame, performance: Performance = CALM, said: np.ndarray | None = None) -> Findings:
    """At a window of these rows."""
    return examine(Known(FIXED, THRESHOLDS, rows=world(0), performance=performance), rows, said, PLAN)


NEVER = np.arange(3000) % 5 == 0


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"level": lambda rows: rows["level"].mask(NEVER)}, "level 20.0% missing, 0.0% before"),
        ({"amount": lambda rows: rows["amount"] * 100}, "amount looks multiplied by 100"),
        ({"change": lambda rows: rows["change"] / 1000}, "change looks multiplied by 0.001"),
        ({"level": lambda rows: rows["level"] * 1.8 + 32}, "level looks °C in °F"),
        ({"level": lambda rows: -rows["level"]}, "level looks with the sign turned"),
        ({"level": 20.0}, "level constant"),
        ({"source": "web"}, "source constant"),
        ({"source": lambda rows: rows["source"].mask(NEVER, "phone")}, "source 20.0% in categories never seen before"),
        ({"level": lambda rows: rows["pressure"], "pressure": lambda rows: rows["level"]}, "level looks swapped with pressure"),
    ],
    ids=["missing", "hundredfold", "thousandth", "degrees", "sign", "constant", "one source", "new category", "swapped"],
)  # fmt: skip
def test_data_that_looks_broken_is_to_be_mended(broken, reason):
    """Also while the metric falls: a model must not learn from it. The alarm says what it looks like."""
    rows = world(1)
    rows = rows.assign(**{name: change(rows) if callable(change) else change for name, change in broken.items()})
    for performance in (CALM, FALLING):
        found = looked(rows, performance)
        assert found.verdict == "mend"
        assert {alarm.what for alarm in found.alarms} == {"mend"}
        assert reason in found.alarms[0].says.replace(
            "pressure looks swapped with level", "level looks swapped with pressure"
        )


def test_inputs_that_move_are_a_reason_to_retrain_when_the_metric_is_expected_to_fall():
    """The alarm carries by how much; a fall that is expected has one of its own."""
    found = looked(world(1).assign(level=lambda rows: rows["level"] + 4), FALLING)
    assert found.verdict == "retrain"
    assert [(alarm.kind, alarm.what, alarm.effect) for alarm in found.alarms] == [
        ("inputs", "retrain", pytest.approx(-0.07)), ("estimate", "retrain", pytest.approx(-0.07))
    ]  # fmt: skip
    assert found.alarms[0].features == ("level",)
    assert "level" in found.alarms[1].features


def test_inputs_that_move_without_an_effect_are_ignored():
    """And the alarm says so."""
    found = looked(world(1).assign(level=lambda rows: rows["level"] + 4), CALM)
    assert [(alarm.kind, alarm.what) for alarm in found.alarms] == [("inputs", "ignore")]
    assert "Nothing to do: roc_auc changes by +0." in found.says


@pytest.mark.parametrize(("said", "verdict"), [(False, "ignore"), (True, "retrain")])
def test_without_an_estimate_it_counts_whether_the_model_says_something_else(said, verdict):
    """Where its answers stay, the inputs that moved hardly matter to it."""
    rows = world(1).assign(level=lambda rows: rows["level"] + 4)
    answers = np.tanh(rows["change"].to_numpy()) + (0.5 if said else 0)
    found = looked(rows, Performance(), answers)
    assert found.verdict == verdict
    assert all(alarm.effect is None for alarm in found.alarms)


def test_where_a_drift_is_concentrated_is_in_the_alarm():
    """Levels rise at night only."""
    found = looked(world(1).assign(level=lambda rows: rows["level"] + 12 * rows["night"]), FALLING)
    assert found.alarms[0].segments == ("night = true",)
    assert "most of it where night = true" in found.alarms[0].says


# -- I-19: outcomes that have not matured --------------------------------------------------------------------------------
def test_i_19_while_outcomes_are_pending_there_is_no_alarm_of_performance():
    """What is not known yet is None, and no fall; nor is one that is not sure."""
    pending = Performance(metric="roc_auc", expected=0.85)
    assert looked(world(1), pending).alarms == ()
    unsure = Performance(metric="roc_auc", expected=0.85, realised=0.75)
    assert looked(world(1), unsure).verdict == "ok"


def test_a_fall_that_came_true_is_an_alarm_though_no_input_moved():
    """A pure change of concept: inputs are as ever, the labels are not."""
    fallen = Performance(metric="roc_auc", expected=0.85, realised=0.7, fell={"realised": 0.8})
    found = looked(world(1), fallen)
    assert [(alarm.kind, alarm.what) for alarm in found.alarms] == [("performance", "retrain")]
    assert (found.alarms[0].level, found.alarms[0].threshold) == (0.7, 0.8)
    assert found.alarms[0].effect == pytest.approx(-0.15)
    assert (
        found.says
        == "roc_auc came true at 0.7, surely below 0.8, and was 0.85 at training. Retrain: roc_auc changes by -0.15."
    )


def test_a_loss_falls_when_it_rises():
    """Below 0 is worse, whichever way the metric goes; what was said of it reads so."""
    loss = Performance(metric="log_loss", higher_is_better=False, expected=0.4, realised=0.45, fell={"realised": 0.42})
    assert loss.effect == pytest.approx(-0.05)
    assert looked(world(1), loss).says.startswith(
        "log_loss came true at 0.45, surely above 0.42, and was 0.4 at training."
    )


@pytest.mark.parametrize("realised", [None, 0.851])
def test_a_drift_that_nobody_can_judge_asks_for_a_training(realised):
    """Inputs and answers move; no estimate is sure, and what came true is of weeks before: it is not said that nothing changes."""
    rows = world(1).assign(level=lambda rows: rows["level"] + 4)
    answers = np.tanh(rows["change"].to_numpy()) + 0.5
    old = Performance(metric="roc_auc", expected=0.85, realised=realised, is_old=True)
    found = looked(rows, old, answers)
    assert [(alarm.kind, alarm.what, alarm.effect) for alarm in found.alarms] == [("inputs", "retrain", None), ("predictions", "retrain", None)]  # fmt: skip
    assert "Retrain: what that does to roc_auc is not known." in found.says
    current = old.model_copy(update={"is_old": False, "realised": 0.851})
    assert looked(rows, current, answers).verdict == "ignore"


def test_a_constant_as_in_the_reference_is_no_news():
    """A column that hardly ever varied, and now does not, is not broken."""
    fixed = Sketch.of(pd.DataFrame({"flag": np.arange(1000) < 60}))
    known = Known(fixed, calibrated(fixed, [], PLAN), performance=FALLING)
    found = examine(known, pd.DataFrame({"flag": np.zeros(1000, dtype=bool)}), None, PLAN)
    assert found.drift["flag"].moved
    assert found.alarms[0].what == "retrain"
