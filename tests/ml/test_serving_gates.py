"""Serving and parity: what the gates make of what a serving process did."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.ml.gates import Evidence, Parity, Rehearsed, Serving
from tasks.ml.kinds import Binary, Recommendation, Regression
from tasks.ml.metrics import METRICS, Cost

BINARY = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
SAID = np.array([0.1, 0.5, 0.9, 0.3])
FINE = Rehearsed(p50=3.0, p95=5.0, requests=90, size=2.0, memory=20.0, rows=4, seconds=1.5)
SHOWN = Evidence(
    y=np.array([0, 1, 1, 0]), challenger=SAID, baselines={}, metric=METRICS["roc_auc"], seed=1, kind=BINARY, operates={"threshold": 0.5},
    rehearsal=FINE, heard=SAID, decided=np.array(["no", "yes", "yes", "no"], dtype=object),
)  # fmt: skip


def test_a_process_that_carries_the_model_passes_with_its_numbers():
    """The verdict says how quick, how large and how hungry it is."""
    said = Serving().judge(SHOWN)
    assert (said.passed, said.value, said.bar) == (True, 5.0, 500)
    assert said.reason == (
        "a row is answered in 3.0 ms, 95 of 100 in 5.0 ms (90 requests); the bundle has 2.00 MiB and takes 20.0 MiB of memory"
    )


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("p50", {"p50": 201.0, "p95": 299.0}, "p50 201 ms, allowed are 200"),
        ("p95", {"p95": 501.0}, "p95 501 ms, allowed are 500"),
        ("size", {"size": 257.0}, "bundle 257 MiB, allowed are 256"),
        ("memory", {"memory": 1025.0}, "memory 1025 MiB, allowed are 1024"),
    ],
)
def test_each_bar_refuses_by_itself(name, change, said):
    """One number above its bar is enough; the reason names it and both numbers; a higher bar lets it pass."""
    shown = replace(SHOWN, rehearsal=FINE.model_copy(update=change))
    verdict = Serving().judge(shown)
    assert not verdict.passed
    assert verdict.reason.startswith(f"too much for the serving process: {said}. ")
    assert verdict.bar == getattr(Serving(), name)
    assert Serving(**{name: change[name] + 1}).judge(shown).passed


def test_what_was_not_served_is_refused():
    """Without a rehearsal, and with one that failed, both gates refuse: nothing passes for want of evidence."""
    never = replace(SHOWN, rehearsal=None, heard=None, decided=None)
    failed = replace(never, rehearsal=Rehearsed(failed="the serving process answers 500"))
    for gate in (Serving(), Parity()):
        assert not gate.judge(never).passed
        assert not gate.judge(failed).passed
        assert "the serving process answers 500" in gate.judge(failed).reason


def test_one_answer_beyond_the_tolerance_is_refused_with_its_row():
    """A millionth is within it, two are not; the first row that differs is shown with both answers."""
    near, far = (replace(SHOWN, heard=SAID + np.array([0, 0, distance, 0])) for distance in (9e-7, 2e-6))
    assert Parity().judge(near).passed
    verdict = Parity().judge(far)
    assert not verdict.passed
    assert verdict.value == pytest.approx(2e-6)
    assert verdict.reason.startswith(
        "1 of 4 rows are answered by the serving process otherwise than they were judged: row 2 is"
    )


def test_a_label_on_the_other_side_of_the_threshold_is_refused():
    """Labels are exact, however near their probabilities are; answers without labels are no match either."""
    turned = np.array(["no", "no", "yes", "no"], dtype=object)
    verdict = Parity().judge(replace(SHOWN, heard=SAID - 1e-9, decided=turned))
    assert not verdict.passed
    assert "row 1 is 0.5" in verdict.reason
    assert not Parity().judge(replace(SHOWN, decided=None)).passed


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_another_answer(wrong):
    """NaN is within no tolerance, and the verdict can still be written as JSON."""
    verdict = Parity().judge(replace(SHOWN, heard=np.array([0.1, 0.5, 0.9, wrong])))
    assert (verdict.passed, verdict.value) == (False, None)


def test_large_numbers_are_compared_by_their_share():
    """A regression's answer of a million may differ by less than one; one of a half may not differ by a millionth."""
    judged = np.array([1e6, 0.5])
    shown = replace(SHOWN, kind=Regression("y"), challenger=judged, operates={}, decided=None)
    assert Parity().judge(replace(shown, heard=judged + np.array([0.9, 0]))).passed
    assert not Parity().judge(replace(shown, heard=judged + np.array([0, 2e-6]))).passed


def test_lists_are_the_same_item_for_item():
    """Two items that changed places, or one that is missing, make another list."""
    kind = Recommendation("item", "who", k=3)
    judged, turned, short = (
        kind.heard([{"prediction": items}]) for items in (["a", "b", "c"], ["a", "c", "b"], ["a", "b"])
    )
    shown = replace(SHOWN, kind=kind, challenger=judged, operates={}, decided=None)
    assert Parity().judge(replace(shown, heard=judged)).passed
    assert not Parity().judge(replace(shown, heard=turned)).passed
    assert not Parity().judge(replace(shown, heard=short)).passed


def test_fewer_answers_than_rows_are_refused():
    """Nothing is compared row by row when rows are missing."""
    assert "3 answers of shape (3,)" in Parity().judge(replace(SHOWN, heard=SAID[:3])).reason
