"""What a shadow log says of two models, and what follows from it: by hand."""

import numpy as np
import pytest

from tasks.ml.kinds import Binary, Kind, Multiclass, Recommendation, Regression
from tasks.ml.metrics import METRICS, Cost
from tasks.ml.rollout import Canary, Compared, Probation, RolloutPlan, Shadow, step
from tests.ml.test_kinds import MADE

OLD, NEW = 3, 4
KIND = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())


def chance(yes):
    """An answer as a server gives it."""
    return {"prediction": "yes" if yes >= 0.5 else "no", "probabilities": {"no": 1 - yes, "yes": yes}}


def request(ids, said, thought, answered=OLD, ms=None):
    """One request as the shadow log has it."""
    beside = NEW if answered == OLD else OLD
    return {"answered": answered, "beside": beside, "ids": ids, "said": said, "thought": thought, "ms": ms}


def plan(**probation):
    return RolloutPlan(probation=Probation(**probation))


def test_requests_are_read_from_both_sides():
    """Whoever answered, old is old and new is new; other versions are passed over."""
    records = [
        request(["a", "b"], [chance(0.1), chance(0.2)], [chance(0.3), chance(0.4)], ms=[1.0, 2.0]),
        request(["c"], [chance(0.9)], [chance(0.8)], answered=NEW, ms=[3.0, 4.0]),
        request(["d"], [chance(0.5)], None),
        request(["e"], None, [chance(0.5)], answered=NEW),
        request(["f"], None, [chance(0.5)]),
        request(["g"], None, None),
        request(["h"], [chance(0.5)], [chance(0.5)]) | {"beside": 9},
    ]
    found = Compared.of(records, OLD, NEW)
    assert found.ids == ["a", "b", "c"]
    assert KIND.heard(found.old).tolist() == [0.1, 0.2, 0.8]
    assert KIND.heard(found.new).tolist() == [0.3, 0.4, 0.9]
    assert found.failures == [0, 0, 1, 1, -1, 0]
    assert (found.old_ms, found.new_ms) == ([1.0, 4.0], [2.0, 3.0])
    assert found.answered == 2


def test_losses_come_in_the_order_of_the_outcomes():
    """The squared error of the new one less that of the old one; the first outcome of a row counts, one of nobody's row does not."""
    found = Compared.of([request(["a", "b"], [chance(0.1), chance(0.2)], [chance(0.5), chance(0.1)])], OLD, NEW)
    outcomes = [("b", True), ("x", True), ("a", False), ("b", False)]
    assert found.losses(KIND, outcomes) == pytest.approx([0.81 - 0.64, 0.25 - 0.01])
    assert found.estimates(KIND) == pytest.approx([0.16, 0.01])


def test_a_better_model_wins_whether_labels_or_own_values_are_told():
    """Old says 0.5, new 0.9, and all come true: 0.01 - 0.25 each. A label of nobody is no evidence."""
    kind = Binary("y", positive=True, labels=("punctual", "late"), cost=Cost(), own=(False, True), are_all=True)
    old, new = ([{"probabilities": {"punctual": 1 - p, "late": p}}] * 4 for p in (0.5, 0.9))
    found = Compared.of([request(["a", "b", "c", "d"], old, new)], OLD, NEW)
    told = [("a", "late"), ("b", True), ("c", "delayed"), ("d", "punctual")]
    assert found.losses(kind, told) == pytest.approx([0.01 - 0.25, 0.01 - 0.25, 0.81 - 0.25])


def test_an_error_counts_as_a_share_of_the_interval_of_the_old_one():
    """It is 4 wide; what is further off loses no more than all."""
    old = [{"prediction": 10.0, "interval": [8.0, 12.0]}, {"prediction": 10.0, "interval": [8.0, 12.0]}]
    new = [{"prediction": 12.0, "interval": [11.9, 12.1]}, {"prediction": 90.0, "interval": [89.9, 90.1]}]
    found = Compared.of([request(["a", "b"], old, new)], OLD, NEW)
    assert found.losses(Regression("y"), [("a", 11), ("b", 10)]) == pytest.approx([0.25 - 0.25, 1.0 - 0.0])
    assert found.losses(Regression("y"), [("a", None)]).size == 0
    assert found.estimates(Regression("y")).size == 0


def test_classes_and_lists_lose_from_0_to_1():
    """Sure and wrong loses all; a class that nobody knows is no evidence; a list loses all where the taken item is not on it."""
    sure = [{"probabilities": {"high": 1.0, "low": 0.0}}] * 2
    half = [{"probabilities": {"high": 0.5, "low": 0.5}}] * 2
    found = Compared.of([request(["a", "b"], sure, half)], OLD, NEW)
    assert found.losses(Multiclass("y", ("high", "low")), [("a", "low"), ("b", "?")]) == pytest.approx([0.25 - 1.0])
    assert found.estimates(Multiclass("y", ("high", "low"))) == pytest.approx([0.25, 0.25])
    lists = [{"prediction": ["milk", "tea"]}], [{"prediction": ["tea"]}]
    found = Compared.of([request(["a"], *lists)], OLD, NEW)
    assert found.losses(Recommendation("item", "who", k=2), [("a", "milk")]).tolist() == [1.0]


def test_the_estimate_is_the_expected_brier_score_under_the_old_ones_chances():
    """By enumeration of what may come true, with another implementation of the score."""
    before, after = np.array([0.2, 0.7]), np.array([0.5, 0.7])
    brier = METRICS["brier"].each
    assert brier is not None
    expected = sum(
        chance * (brier(np.full(2, truth), after) - brier(np.full(2, truth), before))
        for truth, chance in ((1, before), (0, 1 - before))
    )
    assert KIND.foreseen(before, after) == pytest.approx(expected)


@pytest.mark.parametrize("kind", MADE.values(), ids=lambda kind: kind.name)
def test_every_kind_loses_from_0_to_1_or_never(kind: Kind):
    """Who has a truth has a loss of each row within the range that the tests need."""
    answers = {"multiclass": np.array([[0.2, 0.3, 0.5]]), "recommendation": np.array([[1.0, -1.0]])}
    truth = {"multiclass": np.array([1]), "recommendation": np.array(["milk"], dtype=object)}
    lost = kind.loss(truth.get(kind.name, np.array([1.0])), answers.get(kind.name, np.array([0.25])), 0.5)
    assert (lost is None) == (kind.name == "anomaly")
    assert lost is None or (lost.shape == (1,) and 0 <= lost[0] <= 1)


def rows(count, old, new):
    """So many requests of one row that both answered."""
    return [request([f"r{place}"], [chance(old)], [chance(new)], ms=[1.0, 1.0]) for place in range(count)]


def follows(plan, phase, seconds, records, outcomes=()):
    found = Compared.of(records, OLD, NEW)
    return step(plan, phase, seconds, found, found.tests(KIND, outcomes, plan.probation))


STAGED = RolloutPlan(shadow=Shadow(rows=20, seconds=60), canary=Canary(share=0.5, rows=10))


@pytest.mark.parametrize(
    ("phase", "count", "seconds", "wanted"),
    [("shadow", 19, 99, "shadow"), ("shadow", 20, 59, "shadow"), ("shadow", 20, 60, "canary"), ("canary", 99, 99, "canary")],
)  # fmt: skip
def test_a_phase_is_over_when_all_that_it_asks_for_is_there(phase, count, seconds, wanted):
    """Rows and seconds, both; rows of a canary are those that the challenger answered."""
    assert follows(STAGED, phase, seconds, rows(count, 0.5, 0.5)).phase == wanted


def test_a_canary_counts_what_the_challenger_answered():
    """Ten rows of its own, and the release follows."""
    own = [request([f"n{place}"], [chance(0.5)], [chance(0.5)], answered=NEW) for place in range(10)]
    assert follows(STAGED, "canary", 0, own[:9]).phase == "canary"
    after = follows(STAGED, "canary", 0, own)
    assert (after.phase, "loss e-value 1 of 60" in after.why) == ("probation", True)


def test_v_13_what_fails_is_brought_back_in_every_phase():
    """A dozen failures where the old one has none are enough, and the reason has the numbers."""
    failing = [request([f"r{place}"], [chance(0.5)], None) for place in range(12)]
    for phase in ("shadow", "canary", "probation"):
        after = follows(STAGED, phase, 0, failing)
        assert after.phase == "undone"
        assert after.why.startswith("it fails more often: by 1 on 12 requests; the e-value")


def test_v_13_what_loses_more_is_brought_back_on_outcomes():
    """New says 0.8 where old says 0.2 and nothing comes true: 0.6 more in each row. Without outcomes there is only a warning."""
    records = rows(60, 0.2, 0.8)
    outcomes = [(f"r{place}", False) for place in range(60)]
    after = follows(plan(), "probation", 0, records, outcomes)
    assert (after.phase, after.why[:27]) == ("undone", "it loses more: by 0.6 on 60")
    silent = follows(plan(), "probation", 0, records)
    assert silent.phase == "probation"
    assert silent.warning.startswith("it is expected to lose more: by 0.36 on 60 rows")


def test_an_estimate_brings_back_only_where_the_project_says_so():
    """Then alpha is split over four tests, and so each bar is higher."""
    after = follows(plan(on_estimates=True), "probation", 0, rows(60, 0.2, 0.8))
    assert (after.phase, "reached 80" in after.why, after.warning) == ("undone", True, "")


def test_what_is_slow_is_brought_back():
    """Beyond the old one's 95th percentile of the first hundred, and beyond what nobody notices."""
    records = [request([f"r{place}"], [chance(0.5)], [chance(0.5)], ms=[10.0, 50.0]) for place in range(150)]
    assert follows(plan(), "probation", 0, records).why.startswith("it is slow more often: by 1 on 50 requests")
    assert follows(plan(quick_ms=60), "probation", 0, records).phase == "probation"


def test_a_probation_ends_with_its_time_or_its_last_outcome():
    """The old one scores no more than it is asked to, and outcomes are waited for."""
    records, outcomes = rows(20, 0.5, 0.5), [(f"r{place}", True) for place in range(20)]
    short = plan(rows=20, seconds=100)
    waits = follows(short, "probation", 99, records, outcomes[:19])
    assert (waits.phase, waits.scores) == ("probation", False)
    assert follows(short, "probation", 99, records[:19]).scores
    assert follows(short, "probation", 99, records, outcomes).phase == "passed"
    assert follows(short, "probation", 100, records[:1]).phase == "passed"


def test_without_a_probation_the_release_ends_the_rollout():
    """Whoever wants none says rows: 0."""
    assert plan(rows=0).after("canary") == "passed"
    assert (plan().begins, STAGED.begins, RolloutPlan(canary=Canary(share=1)).begins) == (None, "shadow", "canary")
