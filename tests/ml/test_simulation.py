"""The simulation of the champion gate: what is known of it by formula, and what the gate does."""

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import log_loss, roc_auc_score

from tasks.ml.gates import Champion
from tasks.ml.simulation import Retrains, Simulated, over


def silent(_: str) -> None:
    """Says nothing."""


@pytest.mark.parametrize("auc", [0.6, 0.85, 0.97])
def test_the_simulated_models_are_as_good_as_they_are_said_to_be(auc):
    """On very many rows scikit-learn's ROC AUC is the one that was asked for, of both, and their answers are correlated."""
    shown = Retrains(rows=400_000, auc=auc, gain=0.02).draw(np.random.default_rng(1))
    assert shown.champion is not None
    assert roc_auc_score(shown.y, shown.champion) == pytest.approx(auc, abs=0.002)
    assert roc_auc_score(shown.y, shown.challenger) == pytest.approx(auc + 0.02, abs=0.002)
    assert np.corrcoef(shown.champion[shown.y == 0], shown.challenger[shown.y == 0])[0, 1] > 0.7


def test_the_simulated_probabilities_mean_what_they_say():
    """Nothing that is said twice as sharp or half as sharp has a smaller log loss."""
    shown = Retrains(rows=200_000).draw(np.random.default_rng(2))
    odds = np.log(shown.challenger / (1 - shown.challenger))
    losses = {sharp: log_loss(shown.y, 1 / (1 + np.exp(-sharp * odds))) for sharp in (0.5, 0.9, 1.0, 1.1, 2.0)}
    assert min(losses, key=lambda sharp: losses[sharp]) == 1.0


def test_r_10_no_improvement_is_seldom_promoted_and_a_naive_gate_promotes_half():
    """Where no challenger is better the gate stays below its alpha within its interval; `>=` promotes about every second one."""
    found = over(Retrains(rows=300, resamples=100), 120, 0, silent)
    said = found.told
    assert said["ok"]
    assert said["low"] <= said["alpha"] == 0.05
    assert 0.35 < said["naive"]["rate"] < 0.65
    assert found == over(Retrains(rows=300, resamples=100), 120, 0, silent)


def test_a_gate_that_promotes_everything_is_called_that():
    """A champion gate without a bar is not ok; the simulation would notice."""
    blind = Champion.model_construct(kind="champion", margin=-1.0, log_loss_slack=10.0, min_rows=2)
    found = over(Retrains(rows=200, resamples=100), 20, 0, silent, gate=blind)
    assert found.promoted == 20
    assert not found.told["ok"]


def test_power_grows_with_the_gain():
    """What is truly better is promoted more often, the more so the more it is better; progress is said ten times."""
    told: list[str] = []
    small, large = (
        over(Retrains(rows=600, gain=gain, resamples=100), 25, 3, told.append).told["power"] for gain in (0.01, 0.05)
    )
    assert small < large
    assert large > 0.9
    assert len(told) == 20


def test_looks_at_the_same_champion_count_together():
    """Several challengers against one champion are one case: it is a false promotion when any of them is promoted."""
    once, often = (over(Retrains(rows=200, looks=looks, resamples=100), 20, 5, silent) for looks in (1, 8))
    assert often.naive > once.naive
    assert often.naive >= 19


def test_a_gain_that_nobody_can_have_is_refused():
    """A champion of .85 cannot be beaten by .2."""
    with pytest.raises(ValidationError, match=r"gain is 0.2; with a champion of 0.85 it must be below 0.15"):
        Retrains(gain=0.2)


def test_both_results_have_their_words():
    """No improvement is told as false promotions, a gain as power."""
    null, gain = (Simulated(Retrains(gain=gain), 10, 1, 5, 0.05).told for gain in (0.0, 0.02))
    assert (null["false_promotions"], null["rate"], null["n"], null["ok"]) == (1, 0.1, 10, True)
    assert (gain["promotions"], gain["power"], gain["n"]) == (1, 0.1, 10)
    assert "ok" not in gain
