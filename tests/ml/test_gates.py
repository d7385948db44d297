"""Gates: what a challenger must show, and that nothing worse ever passes."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tasks.ml.gates import (
    ALL,
    Baselines,
    Calibration,
    Champion,
    Evidence,
    Made,
    Plausible,
    Rehearsed,
    Sound,
    TrustedSet,
    Verdict,
    judge,
    outcome,
)
from tasks.ml.kinds import Binary
from tasks.ml.leaks import jump
from tasks.ml.metrics import Cost, Estimate, metrics_of

METRICS = metrics_of("binary")
KIND = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
OPERATES = {"threshold": 0.5}
MADE = Made(snapshot="v1-0", lock="l", commit="c", code="d")
N = 1500
RNG = np.random.default_rng(0)
TRUE = RNG.beta(1, 2, N)  # what a perfect model would say
Y = (RNG.random(N) < TRUE).astype(int)
GOOD = TRUE
WORSE = np.clip(0.6 * TRUE + 0.4 * RNG.beta(1, 2, N), 0, 1)  # two fifths noise
EARLIER = (RNG.random(N) < TRUE).astype(int)


def evidence(
    challenger: np.ndarray, champion: np.ndarray | None = None, metric: str = "roc_auc", seen: int = 0
) -> Evidence:
    """The evidence on the common holdout; the champion has seen the first `seen` rows."""
    return Evidence(
        y=Y, challenger=challenger, baselines=KIND.naive(EARLIER, Y), metric=METRICS[metric], seed=1, resamples=300,
        champion=champion, unseen_by_champion=np.arange(N) >= seen, kind=KIND, operates=OPERATES,
        rehearsal=Rehearsed(p50=3.0, p95=5.0, requests=90), heard=challenger, decided=KIND.decided(challenger, OPERATES), made=MADE,
    )  # fmt: skip


def verdicts(shown: Evidence) -> dict[str, Verdict]:
    """Every gate's verdict by name."""
    return {verdict.gate: verdict for verdict in judge(ALL, shown)}


def promoted(shown: Evidence) -> bool:
    """Whether every gate lets the challenger through."""
    return all(verdict.passed for verdict in judge(ALL, shown))


@pytest.mark.parametrize("metric", METRICS)
def test_a_better_challenger_is_promoted(metric):
    """A challenger that is surely better than champion and baselines passes every gate, whatever the metric."""
    assert promoted(evidence(GOOD, WORSE, metric))


@pytest.mark.parametrize("metric", METRICS)
def test_a_first_model_that_beats_the_baselines_is_promoted(metric):
    """Without a champion the naive baselines decide."""
    shown = evidence(GOOD, metric=metric)
    assert promoted(shown)
    assert "no champion yet" in verdicts(shown)["champion"].reason


@pytest.mark.parametrize("metric", METRICS)
def test_a_worse_challenger_is_never_promoted(metric):
    """Whatever the metric, the champion stays when the challenger is worse."""
    verdict = verdicts(evidence(WORSE, GOOD, metric))["champion"]
    assert not verdict.passed
    assert verdict.high is not None
    assert verdict.high < 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_noise_added_to_the_champion_is_never_promoted(metric, seed):
    """The champion's own answers with a little noise do not replace it."""
    noise = np.random.default_rng(seed).normal(scale=0.05, size=N)
    assert not verdicts(evidence(np.clip(GOOD + noise, 0, 1), GOOD, metric))["champion"].passed


@pytest.mark.parametrize("metric", METRICS)
def test_a_tie_keeps_the_champion(metric):
    """Equal answers are no reason to change, and the verdict says so."""
    verdict = verdicts(evidence(GOOD, GOOD, metric))["champion"]
    assert not verdict.passed
    assert verdict.value == 0
    assert verdict.reason.startswith("a tie keeps the champion")


def test_a_gain_within_the_margin_keeps_the_champion():
    """A gain that is sure but smaller than the margin is not enough."""
    gain = Champion().judge(evidence(GOOD, WORSE)).value
    assert gain is not None
    assert gain > 0
    assert not Champion(margin=gain).judge(evidence(GOOD, WORSE)).passed


def test_a_better_rank_with_a_worse_log_loss_is_refused():
    """Answers that rank better but mean less do not pass: their log loss gets worse."""
    sharp = np.clip(GOOD**6, 0, 1)  # same ranking as the perfect model, far too low
    verdict = verdicts(evidence(sharp, WORSE))["champion"]
    assert verdict.value is not None
    assert verdict.value > 0
    assert not verdict.passed
    assert "log loss may get worse" in verdict.reason


def test_rows_that_the_champion_has_seen_do_not_count():
    """A champion that knows some rows by heart is compared on the others only."""
    champion = np.where(np.arange(N) < 1000, Y, WORSE)
    assert not verdicts(evidence(GOOD, champion))["champion"].passed
    assert verdicts(evidence(GOOD, champion, seen=1000))["champion"].passed
    assert "500 rows that neither model has seen" in verdicts(evidence(GOOD, champion, seen=1000))["champion"].reason


def test_too_few_unseen_rows_prove_nothing():
    """Below the least number of rows the champion stays, and the verdict names both numbers."""
    verdict = verdicts(evidence(GOOD, WORSE, seen=N - 99))["champion"]
    assert not verdict.passed
    assert (verdict.value, verdict.bar) == (99, 100)
    assert "only 99 rows" in verdict.reason


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -0.1, 1.1], ids=repr)
def test_one_answer_that_is_no_probability_is_refused(wrong):
    """A single NaN, infinity or number out of range refuses the challenger; the verdict counts them."""
    answers = GOOD.copy()
    answers[7] = wrong
    shown = evidence(answers, WORSE)
    assert not promoted(shown)
    assert "1 of 1500 answers are no probability" in verdicts(shown)["sound"].reason


def test_every_gate_has_a_verdict_even_when_nothing_can_be_judged():
    """With answers that no metric is defined on, each gate still stands on record, refused."""
    found = judge(ALL, evidence(np.full(N, np.nan), WORSE))
    assert sorted(verdict.gate for verdict in found) == sorted(gate.kind for gate in ALL)
    assert not any(verdict.passed for verdict in found)


def test_a_constant_answer_is_refused():
    """A model that says the same to everybody is no model, even at the right rate."""
    shown = evidence(np.full(N, Y.mean()))
    assert not verdicts(shown)["sound"].passed
    assert not verdicts(shown)["baselines"].passed


def test_a_model_no_better_than_a_baseline_is_refused():
    """Random answers do not beat what needs no learning; the verdict names the baseline."""
    verdict = verdicts(evidence(np.random.default_rng(3).random(N)))["baselines"]
    assert not verdict.passed
    assert "not surely better than '" in verdict.reason


def test_the_strongest_baseline_counts():
    """On a stream where the last label says nearly all, a fair model that ignores it is refused."""
    y = np.repeat(np.random.default_rng(0).integers(0, 2, N // 50), 50)
    shown = replace(
        evidence(WORSE), y=y, challenger=np.clip(0.2 * y + 0.8 * RNG.random(N), 0, 1),
        baselines=KIND.naive(y, y, np.r_[y[:1], y, y[:-1]]),
    )  # fmt: skip
    verdict = Baselines().judge(shown)
    assert not verdict.passed
    assert "'last label'" in verdict.reason


def test_a_margin_over_the_baselines_is_kept():
    """The gain over the baselines must exceed the margin with its lower bound."""
    low = Baselines().judge(evidence(GOOD)).low
    assert low is not None
    assert Baselines(margin=low - 0.001).judge(evidence(GOOD)).passed
    assert not Baselines(margin=low).judge(evidence(GOOD)).passed


@pytest.mark.parametrize("squeezed", [GOOD * 0.5, 0.5 + GOOD / 2, GOOD**3], ids=["too low", "too high", "too sharp"])
def test_a_miscalibrated_challenger_is_refused(squeezed):
    """A perfect ranking does not help when the probabilities do not mean what they say."""
    shown = evidence(squeezed)
    assert verdicts(shown)["baselines"].passed
    assert not verdicts(shown)["calibration"].passed
    assert not promoted(shown)


def test_errors_that_cancel_out_are_still_miscalibration():
    """Too low for one half and too high for the other has no bias, but an error."""
    answers = 0.5 + (GOOD - 0.5) * 0.1
    shown = replace(evidence(answers), y=RNG.binomial(1, np.where(np.median(GOOD) < GOOD, 0.9, 0.1)))
    verdict = Calibration(error=0.05, bias=0.2).judge(shown)
    assert not verdict.passed


def test_a_leaked_perfect_model_passes_without_a_history():
    """Answers equal to the truth beat everybody: without a past no gate here can tell a leak from a miracle."""
    assert promoted(evidence(Y.astype(float), WORSE))


# What the demo's champions really measured, in order: value, low, high.
THYROID = ((0.9741, 0.961, 0.9855), (0.9897, 0.9847, 0.9935), (0.9827, 0.9777, 0.9873), (0.9917, 0.9893, 0.994))
SWINGING = (
    0.587,
    0.695,
    0.675,
    0.679,
    0.761,
    0.723,
    0.727,
    0.714,
    0.693,
    0.643,
    0.633,
    0.678,
)  # flights, month by month


def past(values) -> tuple[Estimate, ...]:
    """Earlier trainings with these values; those of one number have an interval of .01 either side."""
    triples = [value if isinstance(value, tuple) else (value, value - 0.01, value + 0.01) for value in values]
    return tuple(Estimate(value=value, low=low, high=high) for value, low, high in triples)


@pytest.mark.parametrize("metric", METRICS)
def test_i_18_a_jump_over_all_history_is_refused(metric):
    """A model that knows the answer, after trainings that hovered around one value, is too good to be true; the reason has the numbers."""
    usual = METRICS[metric].of(Y, WORSE)
    history = past(usual + step for step in (0, 0.005, -0.004, 0.003, -0.002, 0.001))
    shown = replace(evidence(np.clip(0.98 * Y + 0.01 * GOOD, 0, 1), WORSE, metric), history=history)
    verdict = verdicts(shown)["plausible"]
    assert not verdict.passed
    assert verdict.value is not None
    assert verdict.value > 5
    assert verdict.reason.startswith(f"too good to be true: {METRICS[metric].label}")
    assert "6 earlier values" in verdict.reason
    assert verdicts(replace(shown, challenger=WORSE))["plausible"].passed


def test_five_earlier_values_are_needed_to_know_what_is_plausible():
    """With four it passes and says so; with five it judges."""
    shown = evidence(Y.astype(float), WORSE)
    four, five = (Plausible().judge(replace(shown, history=past([0.7] * count))) for count in (4, 5))
    assert (four.passed, five.passed) == (True, False)
    assert four.reason == "4 earlier values; 5 are needed to know what is plausible"


def test_an_improving_project_is_left_in_peace():
    """Thyroid's own line from .974 to .992 goes on without a refusal, up to .998 on 300 positives, and flights' swings too."""
    for values, rows in [([*THYROID, 0.9925, 0.993, 0.995, 0.998], 300), (SWINGING, 3000)]:
        known = past(values)
        for end in range(5, len(known)):
            assert jump(known[end].value, known[:end], greater_is_better=True, rows=rows) < Plausible().sigma


def test_a_gate_believes_as_many_sigmas_as_it_is_told():
    """The bar is the gate's own; just above it refuses."""
    shown = replace(evidence(GOOD), history=past([0.6, 0.62, 0.61, 0.6, 0.63]))
    sigmas = Plausible().judge(shown).value
    assert sigmas is not None
    assert Plausible(sigma=sigmas).judge(shown).passed
    assert not Plausible(sigma=sigmas - 0.01).judge(shown).passed


def test_i_18_poisoned_labels_do_not_reach_production():
    """A model fitted on labels most of which were turned round does not replace the one before, judged on rows that were left alone."""
    rng = np.random.default_rng(4)
    x = np.c_[TRUE + 0.1 * rng.normal(size=N), rng.normal(size=(N, 5))]
    seen, judged = np.arange(N) < N // 2, np.arange(N) >= N // 2
    poison = np.where(rng.random(N) < 0.7, 1 - Y, Y)
    champion, challenger = (
        LogisticRegression().fit(x[seen], labels[seen]).predict_proba(x[judged])[:, 1] for labels in (Y, poison)
    )
    shown = replace(
        evidence(GOOD),
        y=Y[judged],
        challenger=challenger,
        champion=champion,
        baselines=KIND.naive(Y[seen], Y[judged]),
        unseen_by_champion=np.ones(judged.sum(), dtype=bool),
    )
    assert not promoted(shown)
    assert not verdicts(shown)["champion"].passed
    assert not verdicts(shown)["baselines"].passed


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
def test_a_holdout_of_one_class_proves_nothing(metric):
    """Where the metric does not exist, neither baselines nor champion can be beaten."""
    shown = replace(evidence(GOOD, WORSE, metric), y=np.zeros(N, dtype=int))
    assert not verdicts(shown)["baselines"].passed
    assert not verdicts(shown)["champion"].passed


def test_verdicts_come_in_the_order_of_the_gates():
    """The record reads like the project file."""
    gates = (Calibration(), Sound(), Champion())
    assert [verdict.gate for verdict in judge(gates, evidence(GOOD, WORSE))] == ["calibration", "sound", "champion"]


def test_the_same_evidence_gives_the_same_verdicts():
    """A judgement can be repeated to the last digit."""
    assert judge(ALL, evidence(GOOD, WORSE)) == judge(ALL, evidence(GOOD, WORSE))


# -- the trusted set --------------------------------------------------------------------------------------------------
def both(recent: Evidence, trusted: Evidence | None) -> list[Verdict]:
    """The verdicts when a second set of rows is asked."""
    return judge(ALL, replace(recent, trusted=trusted))


@pytest.mark.parametrize("metric", METRICS)
def test_two_sets_that_agree_promote(metric):
    """Better on the newest rows and on the trusted ones: nothing stands against it, whatever the metric."""
    shown = evidence(GOOD, WORSE, metric)
    assert outcome(both(shown, shown)) == "passed"


@pytest.mark.parametrize("metric", METRICS)
def test_a_challenger_that_is_worse_on_trusted_rows_is_held(metric):
    """Better on the newest rows, surely worse on the trusted ones: held for a person, and the reason says where to look."""
    verdicts = both(evidence(GOOD, WORSE, metric), evidence(WORSE, GOOD, metric))
    assert outcome(verdicts) == "held"
    (against,) = [verdict for verdict in verdicts if not verdict.passed]
    assert (against.gate, against.hold) == ("trusted", True)
    assert "calls it worse than the champion" in against.reason


@pytest.mark.parametrize("metric", METRICS)
def test_a_challenger_that_only_trusted_rows_call_better_is_held(metric):
    """Surely worse on the newest rows, surely better on the trusted ones: what the newest rows say is not believed."""
    verdicts = both(evidence(WORSE, GOOD, metric), evidence(GOOD, WORSE, metric))
    failed = {verdict.gate for verdict in verdicts if not verdict.passed}
    assert {"champion", "trusted"} <= failed
    assert next(verdict for verdict in verdicts if verdict.gate == "trusted").hold
    assert outcome(verdicts) == ("held" if failed == {"champion", "trusted"} else "refused")


def test_a_tie_on_trusted_rows_leaves_the_newest_rows_to_decide():
    """The same answers on the trusted rows contradict nobody: better is promoted, a tie keeps the champion."""
    tie = evidence(GOOD, GOOD)
    assert outcome(both(evidence(GOOD, WORSE), tie)) == "passed"
    assert outcome(both(tie, tie)) == "refused"


def test_a_worse_log_loss_on_trusted_rows_is_enough_to_hold():
    """The rank is the same, the probabilities are squeezed: log loss is surely worse, and a person decides."""
    squeezed = np.clip(GOOD**4, 1e-4, 1)
    found = next(
        verdict for verdict in both(evidence(GOOD, WORSE), evidence(squeezed, GOOD)) if verdict.gate == "trusted"
    )
    assert (found.passed, found.hold) == (False, True)
    assert "log loss" in found.reason


def test_trusted_rows_that_the_champion_has_seen_do_not_count():
    """With fewer than fifty that are new to it the set cannot be asked, and a person decides once."""
    found = next(
        verdict
        for verdict in both(evidence(GOOD, WORSE), evidence(GOOD, WORSE, seen=N - 49))
        if verdict.gate == "trusted"
    )
    assert (found.passed, found.hold, found.value) == (False, True, 49)
    assert (
        TrustedSet(min_rows=49).judge(replace(evidence(GOOD, WORSE), trusted=evidence(GOOD, WORSE, seen=N - 49))).passed
    )


def test_trusted_rows_of_one_class_agree_with_nobody():
    """A metric that does not exist there is no agreement: held."""
    one = replace(evidence(GOOD, WORSE), y=np.zeros(N, dtype=int))
    assert TrustedSet().judge(replace(evidence(GOOD, WORSE), trusted=one)).hold


def test_a_refusal_is_stronger_than_a_hold():
    """A gate that no person may overrule beside one that waits for a person: refused."""
    hold = Verdict(gate="trusted", passed=False, hold=True, reason="")
    assert outcome([hold, Verdict(gate="champion", passed=False, reason="")]) == "held"
    assert outcome([hold, Verdict(gate="calibration", passed=False, reason="")]) == "refused"
    assert outcome([Verdict(gate="champion", passed=False, reason="")]) == "refused"


@pytest.mark.parametrize("shown", [evidence(GOOD), evidence(GOOD, WORSE)], ids=["first", "against a champion"])
def test_a_number_stands_on_the_side_of_its_bar_that_its_verdict_says(shown):
    """Whoever draws value and bar may trust `wanted`: what passed is not on the wrong side by more than its interval."""
    for verdict in judge(ALL, shown):
        if verdict.passed and verdict.value is not None and verdict.bar is not None:
            best = verdict.high if verdict.wanted == "above" else verdict.low
            best = verdict.value if best is None else best
            assert best >= verdict.bar if verdict.wanted == "above" else best <= verdict.bar, verdict
