"""The change plan: each limit is left by one number, and says which one and by how much."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.ml.gates import Change, ChangePlan, Envelope, Evidence, WithinPlan, outcome
from tasks.ml.metrics import METRICS

SHOWN = Evidence(y=np.array([0, 1]), challenger=np.array([0.1, 0.9]), baselines={}, metric=METRICS["roc_auc"], seed=1)
CHANGE = Change(
    family="logistic", window="last", days=90.0, features=("age", "sex"), measured={"roc_auc": 0.9, "log_loss": 0.4},
    drift=0.25, drifted="age", retrains=3,
)  # fmt: skip
ALLOWS = {
    "families": ("logistic", "random_forest"), "windows": ("all", "last"), "shortest": 90.0, "features": ("age", "sex", "town"),
    "floors": {"roc_auc": 0.9, "log_loss": 0.4}, "drift": 0.25, "retrains": 4,
}  # fmt: skip


def judged(plan: ChangePlan | None, change: Change | None = CHANGE, objection: str = ""):
    """The verdict on a change under a plan."""
    envelope = Envelope(plan, objection, change, "Ada signed it on 2026-01-02" if plan else "")
    return WithinPlan().judge(replace(SHOWN, envelope=envelope))


def test_a_change_on_every_edge_of_the_plan_is_inside():
    """Each limit includes its own value; who signed stands in the verdict."""
    said = judged(ChangePlan.model_validate(ALLOWS))
    assert (said.passed, said.value, said.reason) == (True, 0, "inside of the change plan; Ada signed it on 2026-01-02")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"family": "extra_trees"}, "the family is extra_trees; allowed are logistic, random_forest"),
        ({"window": "decay"}, "the window is 'decay'; allowed are all, last"),
        ({"days": 60.0}, "the window is 60 days, 30 below the least of 90"),
        ({"features": ("age", "income")}, "1 of 2 columns that it reads are not allowed: income"),
        ({"measured": {"roc_auc": 0.85, "log_loss": 0.4}}, "roc_auc is 0.85, 0.05 below the least of 0.9"),
        ({"measured": {"roc_auc": 0.9, "log_loss": 0.5}}, "log_loss is 0.5, 0.1 above the most of 0.4"),
        ({"drift": 0.35}, "the drift of 'age' is 0.35, 0.1 above the most of 0.25"),
        ({"retrains": 4}, "the number of models that went live by themselves within 30 days is 5 with this one, 1 above the most of 4"),
        ({"measured": {"roc_auc": float("nan"), "log_loss": 0.4}}, "roc_auc is nan"),
    ],
)  # fmt: skip
def test_one_step_outside_waits_for_a_person(change, said):
    """The sentence names the limit, what was met, and by how much; nothing else is said."""
    verdict = judged(ChangePlan.model_validate(ALLOWS), replace(CHANGE, **change))
    assert outcome([verdict]) == "held"
    assert verdict.value == 1
    assert verdict.reason.startswith(f"outside of the change plan: {said}")
    (name,) = [
        name
        for name in ALLOWS
        if not judged(ChangePlan.model_validate({name: ALLOWS[name]}), replace(CHANGE, **change)).passed
    ]
    assert judged(
        ChangePlan.model_validate({key: value for key, value in ALLOWS.items() if key != name}),
        replace(CHANGE, **change),
    ).passed


def test_a_plan_that_does_not_count_allows_nothing():
    """Inside of it or not, a person decides, and hears why it does not count."""
    verdict = judged(ChangePlan.model_validate(ALLOWS), objection="nobody signed it.")
    assert outcome([verdict]) == "held"
    assert verdict.reason == "the change plan does not count: nobody signed it."
    assert outcome([judged(None, objection="is no readable YAML.")]) == "held"
    assert outcome([judged(ChangePlan.model_validate(ALLOWS), change=None)]) == "held"


def test_without_a_plan_nothing_is_limited():
    """The verdict says so."""
    said = judged(None)
    assert said.passed
    assert said.reason == "no change plan limits what this project changes by itself"


def test_all_limits_that_are_left_are_named():
    """Two at once are two clauses."""
    verdict = judged(ChangePlan(families=("random_forest",), retrains=0))
    assert verdict.value == 2
    assert "; the number of models" in verdict.reason


@pytest.mark.parametrize(
    "wrong", [{"families": []}, {"families": ["nonsense"]}, {"drift": 0}, {"floors": {"roc_auc": "inf"}}, {"limit": 1}]
)
def test_a_plan_that_limits_nothing_sensible_is_none(wrong):
    """Empty lists, unknown names, impossible numbers and unknown keys are refused."""
    with pytest.raises(ValidationError):
        ChangePlan.model_validate(wrong)


def test_names_are_held_against_the_project_where_it_is_known():
    """A feature that the project lacks is refused with the nearest one."""
    with pytest.raises(
        ValidationError, match=r"names 'aeg', which the project does not have\. .* Did you mean 'age'\?"
    ):
        ChangePlan.model_validate({"features": ["aeg"]}, context={"features": ["age", "sex"]})
