"""Realised performance: which rows count, of which version, with which warning; and when a fall is sure."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from tasks.ml.kinds import Anomaly, Binary, Multiclass, Recommendation, Regression
from tasks.ml.metrics import METRICS, Cost
from tasks.ml.sequential import shifted
from tasks.ml.watching.measures import Reference, gauged, measures, standard_error
from tasks.ml.watching.realised import PerformancePlan, Served, decay, fallen, realised

KIND = Binary("y", True, ("fair", "fraud"), Cost())
OPERATES = {"1": {"threshold": 0.3}, "2": {"threshold": 0.5}}
PLAN = PerformancePlan()
AUC = METRICS["roc_auc"]
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)  # a Monday
WEEK = dt.timedelta(days=7)


def world(n: int, seed: int, weeks: int, *, turned: float = 0.0) -> Served:
    """Answers that are true chances, or were before a slope turned, of version 1 over so many weeks."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    said, now = -2 + 1.5 * x[:, 0] + x[:, 1], -2 + 1.5 * (1 - 2 * turned) * x[:, 0] + x[:, 1]
    seconds = np.sort(rng.integers(0, weeks * 7 * 86_400, n))
    at = np.datetime64(START.replace(tzinfo=None), "us") + seconds.astype("timedelta64[s]")
    return Served(at, np.full(n, 1), expit(said), (rng.random(n) < expit(now)).astype(float))


def asked(served: Served, now: dt.datetime, matures: float, plan: PerformancePlan = PLAN):
    return realised(KIND, OPERATES, served, now=now, matures=matures, plan=plan, seed=0)


def seen(served: Served, truth: np.ndarray) -> Served:
    return Served(served.at, served.versions, served.answers, truth, served.decisions)


def reference(seed: int = 99) -> Reference:
    """What 4,000 validation rows say."""
    rows = world(4000, seed, 1)
    y = rows.truth.astype(int)
    return Reference(**gauged(AUC, y, rows.answers).model_dump(), rare=int(y.sum()))


def test_i_19_late_outcomes_of_which_positives_come_first_are_no_fall():
    """A clock over 12 weeks, outcomes 30 days late, frauds told after two: each look is pending or true, and nothing falls."""
    whole, bar = world(6000, 1, 12), reference()
    delay = np.where(whole.truth == 1, np.timedelta64(2, "D"), np.timedelta64(30, "D"))
    weeks = {}
    for week in (1, 4, 5, 6, 8, 12):
        now = START + week * WEEK
        told = np.where(whole.at + delay <= np.datetime64(now.replace(tzinfo=None)), whole.truth, np.nan)
        periods = asked(seen(whole, told), now, matures=30)
        weeks[week] = periods
        assert not decay(AUC, periods, bar, floor=None, plan=PLAN).fell
        for period in periods:
            inside = (whole.at >= np.datetime64(period.begin.replace(tzinfo=None))) & (whole.at < np.datetime64(period.end.replace(tzinfo=None)))  # fmt: skip
            old = inside & (whole.at + np.timedelta64(30, "D") <= np.datetime64(now.replace(tzinfo=None)))
            assert period.matured == period.labelled == old.sum()
            if period.state == "measured":
                assert period.metrics["roc_auc"].value == pytest.approx(roc_auc_score(whole.truth[old], whole.answers[old]))  # fmt: skip
    assert {period.state for period in weeks[4]} == {"pending"}
    assert all(period.metrics == {} and period.pending == 1.0 and "too young" in period.says for period in weeks[4])
    assert weeks[4][0].early > 0
    assert [period.state for period in weeks[12]].count("measured") >= 7


def test_i_19_counting_young_rows_would_have_cried_wolf():
    """The same rows with a delay of nothing: only frauds are known of the newest weeks, and precision looks perfect there."""
    whole = world(6000, 1, 6)
    now = START + 6 * WEEK
    told = np.where((whole.truth == 1) | (whole.at < np.datetime64("2026-01-12")), whole.truth, np.nan)
    naive = asked(seen(whole, told), now, matures=0)[1:]
    assert {period.state for period in naive} == {"too few rows"}  # one class alone is not measured
    assert all(period.censoring.is_uneven for period in naive)


def test_m_05_a_window_of_two_versions_has_metrics_of_each():
    """Version 2 answers by lot to one in three, and worse: each version's metrics are those of its own rows and threshold."""
    whole, rng = world(3000, 2, 1), np.random.default_rng(0)
    second = rng.random(3000) < 1 / 3
    answers = np.where(second, rng.permutation(whole.answers), whole.answers)
    mixed = Served(whole.at, np.where(second, 2, 1), answers, whole.truth)
    one, two = asked(mixed, START + 2 * WEEK, matures=1)
    assert (one.version, two.version, one.rows + two.rows) == ("1", "2", 3000)
    for period, rows, bar in ((one, ~second, 0.3), (two, second, 0.5)):
        y, p = whole.truth[rows], answers[rows]
        assert period.metrics["roc_auc"].value == pytest.approx(roc_auc_score(y, p))
        assert period.metrics["recall"].value == pytest.approx((p[y == 1] >= bar).mean())
    assert one.metrics["roc_auc"].low > two.metrics["roc_auc"].high
    with pytest.raises(ValueError, match="2 versions"):
        decay(AUC, [one, two], reference(), floor=None, plan=PLAN)


def test_m_07_outcomes_of_alerts_alone_are_flagged_with_their_share():
    """Only payments that were called are checked, and one in fifty of the others: every metric carries the flag, and nothing is called a fall."""
    whole, rng = world(6000, 3, 2, turned=0.5), np.random.default_rng(0)
    called = whole.answers >= 0.3
    told = np.where(called | (rng.random(6000) < 0.02), whole.truth, np.nan)
    periods = asked(seen(whole, told), START + 4 * WEEK, matures=1)
    for period in periods:
        assert period.state == "measured"
        assert all(metric.is_flagged for metric in period.metrics.values())
        assert period.censoring.by_group["fraud"] == 0
        assert period.censoring.by_group["fair"] == pytest.approx(0.98, abs=0.02)
        assert "98%" in period.says.replace("97%", "98%").replace("99%", "98%")
        assert "“fair”" in period.says
    found = decay(AUC, periods, reference(), floor=0.9, plan=PLAN)
    assert (found.fell, found.periods, found.effect) == (False, 0, None)
    assert "no period tells" in found.says
    assert decay(AUC, asked(whole, START + 4 * WEEK, 1), reference(), floor=0.9, plan=PLAN).fell  # with all outcomes


def test_m_07_outcomes_missing_by_lot_carry_a_warning_and_still_count():
    """A tenth is lost whatever was decided: the share is told, the flag stands, and the periods are evidence."""
    whole, rng = world(4000, 4, 2), np.random.default_rng(1)
    told = np.where(rng.random(4000) < 0.1, np.nan, whole.truth)
    periods = asked(seen(whole, told), START + 4 * WEEK, matures=1)
    assert all(period.metrics["roc_auc"].is_flagged and not period.censoring.is_uneven for period in periods)
    assert all("10%" in period.says or "9%" in period.says or "11%" in period.says for period in periods)
    assert decay(AUC, periods, reference(), floor=None, plan=PLAN).periods == 2


def test_m_07_decisions_that_people_made_count_in_place_of_the_thresholds():
    """What was decided may not follow from the answer alone; shares are then of those decisions."""
    whole, rng = world(2000, 4, 1), np.random.default_rng(1)
    by_hand = np.where(rng.random(2000) < 0.5, "sent", "held")
    told = np.where(by_hand == "held", np.nan, whole.truth)
    (period,) = asked(Served(whole.at, whole.versions, whole.answers, told, by_hand), START + 4 * WEEK, 1)
    assert period.censoring.by_group == {"sent": 0.0, "held": 1.0}
    assert period.censoring.is_uneven


def test_m_07_numbers_without_decisions_are_grouped_by_quarter():
    """Of a regression only the lowest answers are checked."""
    rng = np.random.default_rng(0)
    answers = rng.normal(size=1000)
    truth = np.where(answers < 0, answers + rng.normal(size=1000), np.nan)
    served = Served(np.full(1000, np.datetime64("2026-01-05")), np.full(1000, "a"), answers, truth)
    (period,) = realised(Regression("y"), {}, served, now=START + WEEK, matures=0, plan=PLAN, seed=0)
    assert period.metrics["mae"].is_flagged
    assert period.metrics["mae"].value == pytest.approx(np.abs(truth - answers)[answers < 0].mean())
    assert period.censoring is not None
    assert period.censoring.by_group["lowest quarter"] == 0
    assert period.censoring.by_group["highest quarter"] == 1
    assert period.censoring.is_uneven


@pytest.mark.parametrize("rows", [1, 5, 199])
def test_m_01_few_rows_are_neither_good_nor_bad(rows):
    """The state says so, and there is no metric."""
    (period,) = asked(world(rows, 1, 1), START + 4 * WEEK, 0)
    assert period.state == "too few rows"
    assert f"{rows} have an outcome" in period.says
    assert not period.metrics


def test_m_01_no_rows_are_no_period():
    """Without traffic there is nothing to say."""
    assert asked(world(0, 1, 1), START + 4 * WEEK, 0) == ()


def test_few_rows_of_a_class_are_too_few():
    """Of 1,000 rows 9 are frauds."""
    whole = world(1000, 1, 1)
    told = np.r_[np.ones(9), np.zeros(991)]
    (period,) = asked(seen(whole, told), START + 4 * WEEK, 0)
    assert (period.state, period.metrics) == ("too few rows", {})
    assert "9 of the rarer class" in period.says


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 300), st.integers(1, 30), st.floats(0, 40), st.integers(0, 10))
def test_every_row_of_the_past_is_in_one_period(rows, days, matures, weeks):
    """No row is lost or counted twice, whatever the length of a period; matured, labelled and early ones are parts."""
    whole = world(rows, rows, 6)
    now = START + weeks * WEEK
    found = asked(whole, now, matures, PerformancePlan(days=days))
    assert sum(one.rows for one in found) == (whole.at <= np.datetime64(now.replace(tzinfo=None))).sum()
    assert all(one.end - one.begin == dt.timedelta(days=days) for one in found)
    assert all(one.labelled <= one.matured <= one.rows == one.labelled + one.early for one in found)
    assert all(one.matured == one.rows for one in found if one.is_complete)


def test_lists_and_classes_are_measured_and_odd_rows_are_not():
    """Recommendations by their items, classes by their places, both with gaps; nobody knows the truth of anomalies."""
    at, versions = np.full(400, np.datetime64("2026-01-06")), np.full(400, "a")
    named = np.tile(np.arange(3.0), (400, 1))
    taken = np.where(np.arange(400)[:, None] < 10, -1.0, np.array([[2.0, -1.0]]))
    (lists,) = realised(Recommendation("item", "who", k=3), {}, Served(at, versions, named, taken), now=START + WEEK, matures=0, plan=PLAN, seed=0)  # fmt: skip
    assert (lists.labelled, lists.metrics["mrr"].value) == (390, pytest.approx(1 / 3))
    said = np.eye(3)[np.arange(400) % 3]
    classes = Served(at, versions, said, np.where(np.arange(400) < 3, -1, np.arange(400) % 3))
    (many,) = realised(Multiclass("y", ("a", "b", "c")), {}, classes, now=START + WEEK, matures=0, plan=PLAN, seed=0)
    assert (many.labelled, many.metrics["accuracy"].value) == (397, 1.0)
    odd = Served(at, versions, np.arange(400.0), np.zeros(400))
    (one,) = realised(Anomaly(), {"a": {"threshold": 9.0}}, odd, now=START + WEEK, matures=0, plan=PLAN, seed=0)
    assert (one.state, one.metrics, one.censoring) == ("unknowable", {}, None)


# -- falls ------------------------------------------------------------------------------------------------------------
def test_a_fall_is_found_with_its_effect():
    """A slope turns in the seventh of ten weeks: before it nothing fell, within three weeks it surely did, by about what it cost."""
    good, bad = world(6000, 5, 6), world(4000, 6, 4, turned=0.5)
    whole = Served(*(np.r_[one, two] for one, two in ((good.at, bad.at + np.timedelta64(42, "D")), (good.versions, bad.versions), (good.answers, bad.answers), (good.truth, bad.truth))))  # fmt: skip
    known, looks = reference(), {}
    for week in range(6, 11):
        looks[week] = decay(AUC, asked(whole, START + week * WEEK, 0), known, floor=None, plan=PLAN)
    assert next(week for week, look in looks.items() if look.fell) in {7, 8, 9}
    assert looks[10].fell
    assert looks[10].level >= looks[10].threshold == PLAN.bar
    cost = AUC.of(bad.truth.astype(int), bad.answers) - AUC.of(good.truth.astype(int), good.answers)
    assert looks[10].effect == pytest.approx(cost, abs=0.04)
    assert "surely below" in looks[10].says


def test_looking_every_week_does_not_bring_false_alarms():
    """Of 400 histories of two years in which nothing changes no more alarm than the budget bears: 104 weeks of it."""
    plan, rng = PerformancePlan(false_alarms=0.02), np.random.default_rng(0)
    values = 0.84 + 0.02 * rng.normal(size=(400, 104))
    known = Reference(value=0.84, low=0.84, high=0.84, rare=500)
    exact = plan.model_copy(update={"material": 0.0})
    alarmed = [any(shifted((0.84 - row) / 0.02) >= plan.bar) for row in values]
    assert np.mean(alarmed) < 104 / plan.bar
    fell = [fallen(AUC, row.tolist(), [0.02] * 104, known, floor=None, plan=exact) for row in values[:40]]
    assert [one.level for one in fell] == pytest.approx([shifted((0.84 - row) / 0.02)[-1] for row in values[:40]])
    naive = [((0.84 - row) / 0.02 > 1.645).any() for row in values]
    assert np.mean(naive) > 0.95  # a test of 5 % that is asked again every week


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_metrics_of_few_positives_bring_no_false_alarms(name):
    """Weeks of 300 rows with some 20 positives, 40 histories of a year and a half: alarms ever, not more than the budget of .1 a month bears."""
    alarmed, weeks = 0, 80
    for seed in range(40):
        rng = np.random.default_rng(seed)
        logit = rng.normal(-3.6, 1.4, 1500 + weeks * 300)
        p, y = expit(logit), (rng.random(len(logit)) < expit(logit)).astype(int)
        known = Reference(**gauged(METRICS[name], y[:1500], p[:1500]).model_dump(), rare=int(y[:1500].sum()))
        parts = [slice(1500 + 300 * week, 1800 + 300 * week) for week in range(weeks)]
        found = [gauged(METRICS[name], y[part], p[part]) for part in parts]
        usual = [standard_error(known) * (known.rare / max(y[part].sum(), 1)) ** 0.5 for part in parts]
        errors = [max(standard_error(one), error) for one, error in zip(found, usual, strict=True)]
        values = [one.value for one in found]
        alarmed += any(fallen(METRICS[name], values[:end], errors[:end], known, floor=None, plan=PLAN).fell for end in range(1, weeks + 1))  # fmt: skip
    assert alarmed <= 0.1 * 40 * weeks / 4.35


def test_the_floor_counts_where_it_is_stricter():
    """A champion that was just above its floor and stays as it was has not fallen; below the floor it surely is when it is."""
    known = Reference(value=0.80, low=0.78, high=0.82, rare=500)
    values, errors = [0.80] * 12, [0.005] * 12
    assert not fallen(AUC, values, errors, known, floor=0.7, plan=PLAN).fell
    found = fallen(AUC, values, errors, known, floor=0.82, plan=PLAN)
    assert (found.fell, found.against, found.bar) == (True, "floor", 0.82)
    assert fallen(AUC, values, errors, known, floor=0.7, plan=PLAN).against == "reference"


def test_losses_fall_when_they_grow():
    """The metric's own direction decides, and the effect is below 0."""
    known = Reference(value=0.40, low=0.39, high=0.41, rare=500)
    found = fallen(METRICS["log_loss"], [0.5, 0.5], [0.01, 0.01], known, floor=None, plan=PLAN)
    assert found.fell
    assert found.effect == pytest.approx(-0.1)
    assert found.bar == pytest.approx(0.41 + 0.03 * 0.40)
    assert not fallen(METRICS["log_loss"], [0.3, 0.3], [0.01, 0.01], known, floor=None, plan=PLAN).fell


def test_what_varies_from_month_to_month_is_no_fall():
    """A spread that the reference's own stretches had counts as luck."""
    known = Reference(value=0.80, low=0.79, high=0.81, rare=500)
    values, errors = [0.80, 0.74], [0.01, 0.01]
    assert fallen(AUC, values, errors, known, floor=None, plan=PLAN).level > 10
    assert not fallen(AUC, values, errors, known.model_copy(update={"spread": 0.05}), floor=None, plan=PLAN).fell


def test_periods_that_are_not_complete_wait():
    """A later look may change them, so that they are no evidence yet."""
    bad, known = world(4000, 6, 4, turned=0.5), reference()
    assert decay(AUC, asked(bad, START + 0.9 * WEEK, 0), known, floor=None, plan=PLAN).periods == 0
    assert decay(AUC, asked(bad, START + WEEK, 0), known, floor=None, plan=PLAN).periods == 1


def test_shifted_is_the_sum_of_all_wagers():
    """Recursion and definition agree: over all beginnings the likelihood ratio of what came since, for each rise, and their mean."""
    scores = np.random.default_rng(0).normal(size=12)
    rises = np.array([0.5, 1, 2, 4])[:, None]
    gains = rises * scores - rises**2 / 2
    wanted = [np.exp([gains[:, begin : end + 1].sum(axis=1) for begin in range(end + 1)]).sum(axis=0).mean() for end in range(12)]  # fmt: skip
    assert shifted(scores) == pytest.approx(np.array(wanted))


def test_measures_of_a_version_whose_threshold_is_unknown_are_of_its_answers_alone():
    """Nothing is said of decisions then."""
    assert set(measures(KIND, {})) == {"roc_auc", "average_precision", "log_loss", "brier"}
    (period,) = realised(KIND, {}, world(500, 1, 1), now=START + WEEK, matures=0, plan=PLAN, seed=0)
    assert set(period.metrics) == set(measures(KIND, {}))


def test_measures_that_do_not_exist_are_left_out():
    """No answer reaches the threshold of this version, so that there is no precision; the rest is JSON."""
    operates = {"1": {"threshold": 1.1}}
    (period,) = realised(KIND, operates, world(500, 1, 1), now=START + WEEK, matures=0, plan=PLAN, seed=0)
    assert "precision" not in period.metrics
    assert period.metrics["recall"].value == 0
    assert type(period).model_validate_json(period.model_dump_json()) == period


def test_periods_are_json():
    """What a report keeps."""
    (period,) = asked(world(500, 1, 1), START + WEEK, 0)
    assert type(period).model_validate_json(period.model_dump_json()) == period
    assert pd.Timestamp(period.begin).day_name() == "Monday"
