"""Gates that look at parts of the holdout, at flips, floors, calibration and behaviour."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.stats import binomtest

from tasks.ml.behaviour import Behaved, Direction, Expectation, Invariance, Test, fits, tried
from tasks.ml.gates import (
    Behaviour,
    Calibration,
    Churn,
    EverySlice,
    Evidence,
    Fairness,
    Floors,
    Served,
    Stability,
    outcome,
)
from tasks.ml.kinds import Binary, Multiclass
from tasks.ml.metrics import METRICS, Cost
from tasks.ml.slices import Slices
from tests.ml.test_gate_faults import KINDS, number, shown
from tests.ml.test_uncertain import CASES, answered

KIND = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
N = 4000
RNG = np.random.default_rng(0)
TRUE = RNG.beta(1, 2, N)
Y = (RNG.random(N) < TRUE).astype(int)
NOISY = np.clip(0.7 * TRUE + 0.3 * RNG.beta(1, 2, N), 0, 1)
FEATURES = pd.DataFrame(
    {"a": RNG.normal(size=N), "town": RNG.choice(list("abcd"), N), "sex": RNG.choice(["f", "m"], N)}
)


def evidence(challenger: np.ndarray = TRUE, champion: np.ndarray | None = NOISY, **more) -> Evidence:
    """A holdout of 4,000 rows with their features, in order of time."""
    return Evidence(
        y=Y, challenger=challenger, baselines={"base rate": np.full(N, Y.mean())}, metric=METRICS["roc_auc"], seed=1, champion=champion,
        unseen_by_champion=np.ones(N, dtype=bool), kind=KIND, operates={"threshold": 0.5}, features=FEATURES,
        types={"a": "float", "town": "text", "sex": "text"}, times=np.arange(N), slices=Slices(columns=("a", "town")), **more,
    )  # fmt: skip


def spoiled(where: np.ndarray, answers: np.ndarray = TRUE) -> np.ndarray:
    """The answers with those of some rows exchanged among them."""
    mixed = answers.copy()
    mixed[where] = np.random.default_rng(1).permutation(answers[where])
    return mixed


# -- floors -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_floor_is_kept_whatever_the_direction(kind, name):
    """A little better than the floor passes; surely worse than it is refused, for every metric."""
    metric = METRICS[name]
    y, good, worse = answered(kind, 1200, 0)
    value, step = metric.of(y, worse), abs(metric.of(y, good) - metric.of(y, worse))
    better = 1 if metric.greater_is_better else -1
    looked_at = replace(shown(kind, metric, y, worse, good), champion=None)
    assert Floors(floors={name: value - better * step}).judge(looked_at).passed
    verdict = Floors(floors={name: value + better * 20 * step}).judge(looked_at)
    assert (verdict.passed, verdict.hold) == (False, False)
    assert verdict.wanted == ("above" if better > 0 else "below")


def test_the_projects_own_floor_counts_where_none_is_given():
    """And without any the gate passes and says so."""
    assert "has no floor" in Floors().judge(evidence()).reason
    assert Floors().judge(evidence(floor=0.6)).passed
    verdict = Floors().judge(evidence(floor=0.95))
    assert (verdict.passed, verdict.bar) == (False, 0.95)


def test_of_several_floors_the_worst_is_told():
    """One is kept, the other is not: refused for that one."""
    verdict = Floors(floors={"roc_auc": 0.6, "log_loss": 0.1}).judge(evidence())
    assert not verdict.passed
    assert verdict.reason.startswith("log loss is 0.")


def test_below_the_floor_like_the_champion_is_for_a_person():
    """To refuse it would keep what is of no use either."""
    assert Floors().judge(evidence(floor=0.95)).hold
    assert not Floors().judge(evidence(floor=0.95, champion=None)).hold


# -- groups -----------------------------------------------------------------------------------------------------------
def test_a_challenger_that_fails_one_group_is_refused_though_it_is_better_on_the_whole():
    """The group is named, with the champion's value and the challenger's there."""
    bad = spoiled(np.flatnonzero(FEATURES["town"] == "c"))
    champion = spoiled(np.flatnonzero(FEATURES["town"] != "c"), NOISY)
    shown = evidence(bad, champion)
    assert shown.gain_over(champion).value > 0
    verdict = EverySlice().judge(shown)
    assert not verdict.passed
    assert "'town = c'" in verdict.reason
    assert number(verdict.before) > number(verdict.after)
    assert EverySlice(margin=0.9).judge(shown).passed


def test_a_better_challenger_fails_no_group():
    """And without a champion, groups or features nothing is said against it."""
    assert EverySlice().judge(evidence()).passed
    first = EverySlice().judge(evidence(champion=None))
    assert first.passed
    assert first.reason == "there is no champion to hold the groups against, and no floor for them"
    assert "names no groups" in EverySlice().judge(replace(evidence(), slices=Slices())).reason
    assert EverySlice().judge(replace(evidence(), features=None)).passed


def test_a_group_without_one_of_the_classes_can_fail_and_is_named():
    """Its ROC AUC is of the classes that occur in it, and so are its bounds: no other group is named in its place."""
    y, good, _ = answered("multiclass", 1500, 0)
    towns = np.where(y == 2, "far", np.where(np.arange(1500) % 2 == 0, "near", "far"))
    lost = good.copy()
    lost[towns == "near"] = np.random.default_rng(1).permutation(good[towns == "near"])
    seen = replace(
        shown("multiclass", METRICS["roc_auc"], y, lost, good),
        features=pd.DataFrame({"town": towns}),
        types={"town": "text"},
        slices=Slices(columns=("town",)),
    )
    for gate in (EverySlice(), EverySlice(floor=0.8)):
        verdict = gate.judge(seen)
        assert not verdict.passed
        assert "'town = near'" in verdict.reason
        assert number(verdict.low) < number(verdict.value) < number(verdict.high) < number(verdict.bar)


def test_a_floor_for_every_group_needs_no_champion():
    """A group that is surely below it is refused in a first model as well."""
    bad = evidence(spoiled(np.flatnonzero(FEATURES["town"] == "c")), champion=None)
    assert EverySlice().judge(bad).passed
    verdict = EverySlice(floor=0.6).judge(bad)
    assert not verdict.passed
    assert "'town = c'" in verdict.reason


def test_a_group_that_is_too_small_says_nothing():
    """Below the project's `slices.fewest` it is left alone."""
    town = FEATURES["town"].mask(np.arange(N) < 60, "hamlet")
    bad = spoiled(np.arange(60), np.where(np.arange(N) < 60, 1 - TRUE, TRUE))
    for fewest, passed in ((50, False), (61, True)):
        shown = replace(
            evidence(bad, TRUE), features=FEATURES.assign(town=town), slices=Slices(columns=("town",), fewest=fewest)
        )
        assert EverySlice(margin=0.1).judge(shown).passed == passed


def test_of_many_groups_one_looks_bad_by_chance_and_is_not_refused():
    """Thirty groups, an equally good challenger: refused at most one time in twenty."""
    refused = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        one, two = (np.clip(TRUE + 0.1 * rng.normal(size=N), 0, 1) for _ in range(2))
        town = pd.Series(rng.integers(0, 30, N)).astype(str)
        shown = replace(
            evidence(one, two), features=FEATURES.assign(town=town), slices=Slices(columns=("town",), most=30), metric=METRICS["brier"]
        )  # fmt: skip
        refused += not EverySlice().judge(shown).passed
    assert binomtest(refused, 80, 0.05, alternative="greater").pvalue > 0.01


# -- protected groups -------------------------------------------------------------------------------------------------
def test_a_model_that_calls_one_sex_more_often_is_refused():
    """The rate, the two groups and their values are told; with a higher bar it passes."""
    unfair = np.where(FEATURES["sex"] == "m", np.clip(TRUE + 0.4, 0, 1), TRUE)
    verdict = Fairness(columns=("sex",)).judge(evidence(unfair))
    assert not verdict.passed
    assert "of sex = m is surely more than 0.2 above that of sex = f" in verdict.reason
    assert number(verdict.after) > number(verdict.before) + 0.2
    assert (
        Fairness(columns=("sex",), selection=0.9, true_positive=0.9, false_positive=0.9).judge(evidence(unfair)).passed
    )


@pytest.mark.parametrize("rate", ["selection", "true_positive", "false_positive"])
def test_each_rate_has_a_bar_of_its_own(rate):
    """Only the one that is asked about refuses."""
    of = {"selection": np.ones(N, dtype=bool), "true_positive": Y == 1, "false_positive": Y == 0}[rate]
    unfair = np.where((FEATURES["sex"] == "m") & of, np.clip(TRUE + 0.4, 0, 1), TRUE)
    others = dict.fromkeys({"selection", "true_positive", "false_positive"} - {rate})
    assert not Fairness.model_validate({"columns": ["sex"], **others}).judge(evidence(unfair)).passed
    assert (
        Fairness.model_validate({"columns": ["sex"], rate: None, **dict.fromkeys(others, 0.9)})
        .judge(evidence(unfair))
        .passed
    )


def test_a_fair_model_passes_and_no_columns_are_said():
    """Neither names anybody."""
    assert Fairness(columns=("sex", "town")).judge(evidence()).passed
    assert Fairness().judge(evidence()).reason == "the project names no protected columns"


def test_a_difference_between_small_groups_is_not_sure():
    """The same rates, a third above the bar, are sure of thousands and by chance of fifty; of smaller groups nothing is said."""
    selected = np.where(np.arange(N) % 3 == 0, 0.9, 0.1)  # a third of the women, three fifths of the men
    unfair = np.where((FEATURES["sex"] == "m") & (np.arange(N) % 5 < 2), 0.9, selected)
    only = Fairness(columns=("sex",), true_positive=None, false_positive=None)
    large = evidence(unfair)
    small = replace(large, challenger=unfair[:100], y=Y[:100], features=FEATURES.head(100))
    assert not only.judge(large).passed
    assert only.model_copy(update={"fewest": 40}).judge(small).passed
    assert "that can be compared" in only.model_copy(update={"fewest": 90}).judge(small).reason


def test_a_regression_is_fair_when_its_error_is_alike():
    """The bar is a share of the metric over all rows."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=N)
    for scale, passed in ((0.3, True), (1.2, False)):
        said = y + np.where(FEATURES["sex"] == "m", scale, 0.3) * rng.normal(size=N)
        looked_at = replace(
            shown("regression", METRICS["mae"], y, said, said), features=FEATURES, types={"sex": "text"}
        )
        assert Fairness(columns=("sex",)).judge(looked_at).passed == passed


# -- parts in time ----------------------------------------------------------------------------------------------------
def test_a_model_that_breaks_down_in_one_part_of_time_is_refused():
    """Surely worse there than on all other rows; the part is named."""
    verdict = Stability().judge(evidence(spoiled(np.arange(N // 4, N // 2)), champion=None))
    assert (verdict.passed, verdict.hold) == (False, False)
    assert "'part 2 of 4'" in verdict.reason
    assert Stability().judge(evidence(champion=None)).passed


def test_a_part_in_which_the_champion_breaks_down_too_is_the_worlds_doing():
    """Both are at a loss there: no reason to keep the champion."""
    where = np.arange(N // 4, N // 2)
    assert Stability().judge(evidence(spoiled(where), spoiled(where, NOISY))).passed


def test_what_a_champion_knows_by_heart_does_not_speak_for_it():
    """It has learned from every second row: there it says the truth, elsewhere it breaks down in the same part and lies below the same floor."""
    where, seen = np.arange(N // 4, N // 2), np.arange(N) % 2 == 0
    by_heart = np.where(seen, Y, spoiled(where, NOISY))
    known = replace(evidence(spoiled(where), by_heart), unseen_by_champion=~seen)
    assert Stability().judge(known).passed
    assert (
        not Stability().judge(replace(known, unseen_by_champion=~seen & (np.arange(N) < N // 4))).passed
    )  # nobody knows
    assert Floors(floors={"roc_auc": 0.95}).judge(known).hold
    assert not Floors(floors={"roc_auc": 0.95}).judge(replace(known, unseen_by_champion=np.zeros(N, dtype=bool))).hold


def test_a_gain_that_one_part_of_time_makes_waits_for_a_person():
    """Better on the whole, worse without its best part: held; the part is named."""
    best = np.arange(N) >= 3 * N // 4
    champion = spoiled(np.flatnonzero(best))
    worse = np.where(best, TRUE, np.clip(TRUE + 0.15 * RNG.normal(size=N), 0, 1))
    shown = evidence(worse, champion)
    assert shown.gain_over(champion).bounds().low > 0
    verdict = Stability().judge(shown)
    assert (verdict.passed, verdict.hold) == (False, True)
    assert "part 4 of 4 alone" in verdict.reason
    assert Stability().judge(evidence()).passed


def test_time_decides_about_parts_and_not_the_order_of_rows():
    """Mixed up rows with their times give the same verdict."""
    order = np.random.default_rng(0).permutation(N)
    straight = evidence(spoiled(np.arange(N // 4, N // 2)), champion=None)
    mixed = replace(
        straight, y=Y[order], challenger=straight.challenger[order], times=np.arange(N)[order], baselines={"base rate": np.full(N, Y.mean())}
    )  # fmt: skip
    assert Stability().judge(mixed) == Stability().judge(straight)
    assert Stability().judge(replace(straight, times=None)).passed


# -- flips ------------------------------------------------------------------------------------------------------------
def test_many_flips_wait_for_a_person_and_the_place_is_named():
    """Decisions are turned round where a is high: held, with the share, and the quarter of a."""
    turned = np.where(FEATURES["a"] > 0, 1 - TRUE, TRUE)
    verdict = Churn().judge(evidence(turned, TRUE))
    assert (verdict.passed, verdict.hold) == (False, True)
    assert outcome([verdict]) == "held"
    assert verdict.value == pytest.approx(((turned >= 0.5) != (TRUE >= 0.5)).mean())
    assert "most of all where a > " in verdict.reason
    assert Churn(most=0.6, region=1.0).judge(evidence(turned, TRUE)).passed


def test_one_region_that_flips_is_enough():
    """An eighth of all decisions, and nearly all in one town: held for the town, unless its bar is higher."""
    turned = np.where((FEATURES["town"] == "c") & (np.arange(N) % 2 == 0), 1 - TRUE, TRUE)
    town = FEATURES["town"].mask((FEATURES["town"] == "c") & (np.arange(N) % 2 == 0), "cape")
    shown = replace(evidence(turned, TRUE), features=FEATURES.assign(town=town))
    verdict = Churn().judge(shown)
    assert verdict.hold
    assert verdict.bar == 0.6
    assert "most of all where town = cape: " in verdict.reason
    assert Churn(region=1.0).judge(shown).passed


def test_each_model_decides_by_its_own_threshold():
    """The same answers with thresholds far apart flip; other answers on the same side of theirs do not."""
    flips = Churn().judge(replace(evidence(TRUE, TRUE), operated={"threshold": 0.1})).value
    assert flips == pytest.approx(((TRUE >= 0.1) & (TRUE < 0.5)).mean())
    assert Churn().judge(replace(evidence(TRUE / 5, TRUE), operates={"threshold": 0.1}, operated={"threshold": 0.5})).value == 0  # fmt: skip


def test_rows_that_were_served_are_looked_at_in_place_of_the_holdout():
    """The holdout flips nowhere, the served rows all over."""
    served = Served(FEATURES.head(300), np.full(300, 0.9), np.full(300, 0.1))
    verdict = Churn().judge(replace(evidence(TRUE, TRUE), served=served))
    assert verdict.hold
    assert "300 newest rows that were served" in verdict.reason


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_knows_when_a_decision_becomes_another(kind):
    """No flips against itself, some against a noisier model, and more against a noisier one still."""
    y, good, worse = answered(kind, 1500, 0)
    worst = answered(kind, 1500, 0, noise=2.0)[2]
    operates = KINDS[kind].operate(y, good) if kind != "regression" else {"interval": 0.3}
    shares = [float(KINDS[kind].flipped(good, other, operates, operates).mean()) for other in (good, worse, worst)]
    assert shares[0] == 0
    assert 0 < shares[1] < shares[2] <= 1


# -- calibration ------------------------------------------------------------------------------------------------------
def chances(seed: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """What came true, and the chances that it had."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 2, rows)
    return (rng.random(rows) < p).astype(int), p


def calibrated(y: np.ndarray, p: np.ndarray, bars: Calibration | None = None) -> bool:
    """Whether the gate lets these probabilities through."""
    small = Evidence(y=y, challenger=p, baselines={}, metric=METRICS["roc_auc"], seed=1, kind=KIND)
    return (bars or Calibration()).judge(small).passed


def test_an_honest_model_passes_on_four_hundred_rows():
    """Its calibration error is above .05 by chance in many samples; it is refused in at most one of twenty even at bars near 0."""
    errors = [KIND.calibration(*chances(seed), {}, 1)[0].value for seed in range(100)]
    assert np.mean(np.array(errors) > 0.05) > 0.2
    assert all(calibrated(*chances(seed)) for seed in range(100))
    strict = sum(not calibrated(*chances(seed), Calibration(error=0.001, bias=0.99, loss=9)) for seed in range(100))
    assert binomtest(strict, 100, 0.05, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(
    "bend", [lambda p: p / 2, lambda p: 0.5 + p / 2, lambda p: p**3, lambda p: np.where(p > 0.5, 0.99, 0.01)], ids=["low", "high", "sharp", "certain"]
)  # fmt: skip
def test_a_plainly_miscalibrated_model_is_refused_on_five_hundred_rows(bend):
    """Far too low, too high, too sharp, too certain: in nineteen of twenty samples at least."""
    refused = 0
    for seed in range(40):
        y, p = chances(seed, 500)
        refused += not calibrated(y, bend(p))
    assert refused >= 38


def test_a_log_loss_above_what_is_promised_is_enough():
    """Certain and wrong in one row of fifty: the error is small, the loss is not."""
    rng = np.random.default_rng(0)
    p = np.where(rng.random(3000) < 0.5, 1e-7, 1 - 1e-7)
    y = ((p > 0.5) ^ (rng.random(3000) < 0.03)).astype(int)
    assert KIND.calibration(y, p, {}, 1)[0].value < 0.05
    assert not calibrated(y, p)
    assert calibrated(y, p, Calibration(loss=5))


def test_classes_and_numbers_are_held_to_what_they_say():
    """Of three classes an honest model passes and one that is too sure does not; so with an interval that holds too little."""
    kind, rng = Multiclass("y", ("a", "b", "c")), np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 500)
    y = (p.cumsum(axis=1) < rng.random((500, 1))).sum(axis=1)
    sharp = p**4 / (p**4).sum(axis=1, keepdims=True)
    base = Evidence(y=y, challenger=p, baselines={}, metric=METRICS["log_loss"], seed=1, kind=kind)
    assert Calibration().judge(base).passed
    assert not Calibration().judge(replace(base, challenger=sharp)).passed
    number, said = rng.normal(size=500), np.zeros(500)
    numbers = Evidence(
        y=number, challenger=said + 1e-9 * number, baselines={}, metric=METRICS["mae"], seed=1, kind=KINDS["regression"]
    )
    for interval, bias, passed in ((1.645, 0.0, True), (1.0, 0.0, False), (1.645, 0.5, False)):
        looked_at = replace(numbers, challenger=numbers.challenger + bias, operates={"interval": interval + bias})
        assert Calibration().judge(looked_at).passed == passed


# -- behaviour --------------------------------------------------------------------------------------------------------
TYPES = {"a": "float", "town": "text", "sex": "text"}


def ask(rows: pd.DataFrame) -> np.ndarray:
    """A model that rises with a, and knows one town."""
    return 1 / (1 + np.exp(-rows["a"].fillna(0).to_numpy())) * np.where(rows["town"] == "c", 0.5, 1.0)


def behaved(test: Test) -> Behaved:
    """How that model does."""
    (found,) = tried((test,), KIND, ask, FEATURES, TYPES, 1)
    return found


@pytest.mark.parametrize(("test", "passed"), [
    (Invariance(column="sex"), True), (Invariance(column="town"), False), (Invariance(column="town", most=0.6), True),
    (Invariance(column="town", to="c", within=0.6), True), (Invariance(column="town", to="c", within=0.1), False),
    (Direction(column="a", by=1), True), (Direction(column="a", by=1, never="raises"), False), (Direction(column="a", by=1, never="raises", within=0.5), True),
    (Expectation(rows=({"a": 5, "town": "a"},), low=0.9), True), (Expectation(rows=({"a": 5, "town": "c"},), low=0.9), False),
    (Expectation(rows=({"a": 5, "town": "c"}, {"a": 5}), low=0.9, most=0.5), True), (Expectation(rows=({},), high=0.4), False),
], ids=lambda each: str(each)[:60])  # fmt: skip
def test_a_model_is_held_to_what_hooks_state(test, passed):
    """Invariance, direction, expectation: as the toy model deserves; the gate says how many rows break which test."""
    found = behaved(test)
    assert found.passed == passed
    verdict = Behaviour().judge(evidence(behaved=(behaved(Invariance(column="sex")), found)))
    assert verdict.passed == passed
    assert test.test in verdict.reason or passed
    assert "hooks.py states no behaviour" in Behaviour().judge(evidence()).reason


def test_rows_are_told_by_number_and_worst():
    """Of 500 rows about a quarter is in the town that halves; the worst moved by its half."""
    found = behaved(Invariance(column="town", to="a"))
    assert found.rows == 500
    assert 0.15 < found.share < 0.35
    assert 0.3 < found.worst < 0.5


def test_an_answer_that_is_no_number_is_broken():
    """NaN is not within anything."""
    (found,) = tried((Invariance(column="sex"),), KIND, lambda rows: np.full(len(rows), np.nan), FEATURES, TYPES, 1)
    assert found.broken == 500


@pytest.mark.parametrize(("test", "kind", "said"), [
    (Invariance(column="towns"), "binary", "names 'towns', which is no feature column of the contract. Did you mean 'town'?"),
    (Direction(column="town", by=1), "binary", "raises 'town', which is of type text"),
    (Expectation(rows=({"b": 1},), low=0), "binary", "names 'b'"),
    (Direction(column="a", by=1), "multiclass", "no single number"),
    (Expectation(rows=({"a": 1},), low=0), "recommendation", "no single number"),
])  # fmt: skip
def test_a_test_that_cannot_be_asked_is_named_before_a_model_is_made(test, kind, said):
    """What was met, and what was wanted."""
    with pytest.raises(ValueError, match=said):
        fits((test,), TYPES, KINDS[kind])


def test_an_expectation_that_nothing_breaks_is_none():
    """Without a bound, or with bounds the wrong way round."""
    for bounds in ({}, {"low": 2, "high": 1}):
        with pytest.raises(ValidationError, match="two bounds that some answer breaks"):
            Expectation.model_validate({"rows": [{"a": 1}], **bounds})
