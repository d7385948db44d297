"""Inputs: what a regulated team wants to know of what a challenger was made of."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.ml.gates import Evidence, Inputs, Made, outcome
from tasks.ml.metrics import METRICS

MADE = Made(snapshot="v3-1a2b3c4d", lock="a" * 64, commit="b" * 40, code="c" * 64)
SHOWN = Evidence(y=np.array([0, 1]), challenger=np.array([0.1, 0.9]), baselines={}, metric=METRICS["roc_auc"], seed=1)


def judged(committed: bool = False, **changes: object):
    """The verdict on these inputs, with some of them changed."""
    return Inputs(committed=committed).judge(replace(SHOWN, made=MADE.model_copy(update=changes)))


def test_what_can_be_had_again_passes_and_is_named():
    """Snapshot, lock, code and commit stand in the verdict."""
    said = judged()
    assert said.passed
    assert said.reason == (
        "snapshot v3-1a2b3c4d verifies; what is installed is what the lock aaaaaaaaaaaa says; code cccccccccccc is in commit bbbbbbbbbbbb"
    )


@pytest.mark.parametrize("commit", ["b" * 40 + "+changes", "unknown"])
def test_code_that_is_in_no_commit_passes_and_says_so_unless_it_must_be(commit):
    """A development checkout trains; a strict project leaves it to a person."""
    assert judged(commit=commit).passed
    assert "in no commit, only its digest is on record" in judged(commit=commit).reason
    strict = judged(committed=True, commit=commit)
    assert outcome([strict]) == "held"
    assert "Commit it and train again" in strict.reason
    assert judged(committed=True).passed


def test_other_packages_than_the_locked_ones_wait_for_a_person():
    """An unknown lock and a package at another version are held; three are named, the others counted."""
    unknown = judged(lock="unknown")
    assert outcome([unknown]) == "held"
    assert "no requirements.lock" in unknown.reason
    others = judged(
        astray=("numpy 2, locked is 1", "pandas 3, locked is 2", "pyarrow 9, locked is 8", "scipy 2, locked is 1")
    )
    assert outcome([others]) == "held"
    assert others.value == 4
    assert "numpy 2, locked is 1, pandas 3, locked is 2, pyarrow 9, locked is 8 and 1 more" in others.reason


def test_rows_that_cannot_be_had_again_are_refused():
    """Nobody can vouch for rows that nobody can read; nor for a challenger of which nothing is known."""
    assert outcome([judged(altered="its log was altered")]) == "refused"
    assert (
        "snapshot v3-1a2b3c4d cannot be had again: its log was altered" in judged(altered="its log was altered").reason
    )
    assert outcome([Inputs().judge(SHOWN)]) == "refused"
