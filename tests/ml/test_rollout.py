"""What a shadow log says of two models, and what follows from it: by hand."""

import datetime as dt
import itertools

import numpy as np
import pytest
from scipy.stats import binom

from tasks.ml.kinds import Binary, Kind, Multiclass, Recommendation, Regression
from tasks.ml.metrics import METRICS, Cost
from tasks.ml.rollout import (
    LAG,
    Canary,
    Compared,
    Outcome,
    Probation,
    RolloutPlan,
    Shadow,
    UnheardError,
    Weighing,
    step,
)
from tests.ml.test_kinds import MADE

OLD, NEW = 3, 4
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
KIND = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())


def chance(yes):
    """An answer as a server gives it."""
    return {"prediction": "yes" if yes >= 0.5 else "no", "probabilities": {"no": 1 - yes, "yes": yes}}


def request(ids, said, thought, answered=OLD, ms=None, at=START):
    """One request as the shadow log has it."""
    beside = NEW if answered == OLD else OLD
    return {"at": at, "answered": answered, "beside": beside, "ids": ids, "said": said, "thought": thought, "ms": ms}


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
    found = Compared.of(KIND, [[record] for record in records], OLD, NEW)
    assert [request.ids for request in found.both] == [["a", "b"], ["c"]]
    assert [request.old.tolist() for request in found.both] == [[0.1, 0.2], [0.8]]
    assert [request.new.tolist() for request in found.both] == [[0.3, 0.4], [0.9]]
    assert found.failures == [0, 0, 1, 1, -1, 0]
    assert (found.old_ms, found.new_ms) == ([1.0, 4.0], [2.0, 3.0])
    assert found.answered == 2


def compared(kind, *requests):
    """What is found in requests of (ids, old answers, new answers)."""
    return Compared.of(kind, [[request(*each)] for each in requests], OLD, NEW)


def lost(found, kind, first):
    """How much more the new one lost at each request."""
    return found.means(found.losses(kind, first))


def test_a_request_counts_with_the_mean_of_its_rows():
    """The squared error of the new one less that of the old one; rows without an outcome, and of nobody's request, count for nothing."""
    found = compared(
        KIND,
        (["a", "b", "c"], [chance(0.1), chance(0.2), chance(0.3)], [chance(0.5), chance(0.1), chance(0.9)]),
        (["d"], [chance(0.3)], [chance(0.9)]),
        (["e"], [chance(0.4)], [chance(0.3)]),
    )
    assert lost(found, KIND, {"b": True, "x": True, "a": False, "e": False}) == pytest.approx(
        [((0.25 - 0.01) + (0.81 - 0.64)) / 2, 0.09 - 0.16]
    )
    assert found.estimates(KIND) == pytest.approx([(0.16 + 0.01 + 0.36) / 3, 0.36, 0.01])


def test_a_request_whose_rows_two_models_answered_counts_once():
    """It fails where any part does, took what its parts took, and says what they say; the challenger answered the rows of its own."""
    parts = [
        request(["a", "b"], [chance(0.1), chance(0.2)], [chance(0.5), chance(0.1)], ms=[1.0, 2.0]),
        request(["c"], [chance(0.9)], [chance(0.3)], answered=NEW, ms=[30.0, 10.0]),
    ]
    found = Compared.of(KIND, [parts], OLD, NEW)
    assert (found.failures, found.old_ms, found.new_ms, found.answered) == ([0], [11.0], [32.0], 1)
    assert [(each.ids, each.old.tolist(), each.new.tolist()) for each in found.both] == [(["a", "b", "c"], [0.1, 0.2, 0.3], [0.5, 0.1, 0.9])]  # fmt: skip
    assert lost(found, KIND, {"a": False, "b": False, "c": True}) == pytest.approx(
        [((0.25 - 0.01) + (0.01 - 0.04) + (0.01 - 0.49)) / 3]
    )
    parts[0] |= {"thought": None, "ms": None}
    found = Compared.of(KIND, [parts], OLD, NEW)
    assert (found.failures, found.old_ms, found.new_ms) == ([1], [10.0], [30.0])
    assert [each.ids for each in found.both] == [["c"]]


def test_a_better_model_wins_whether_labels_or_own_values_are_told():
    """Old says 0.5, new 0.9, and all come true: 0.01 - 0.25 each. A label of nobody is no evidence."""
    kind = Binary("y", positive=True, labels=("punctual", "late"), cost=Cost(), own=(False, True), are_all=True)
    old, new = ([{"probabilities": {"punctual": 1 - p, "late": p}}] * 4 for p in (0.5, 0.9))
    found = compared(kind, *(([name], old[:1], new[:1]) for name in "abcd"))
    told = {"a": "late", "b": True, "c": "delayed", "d": "punctual"}
    assert lost(found, kind, told) == pytest.approx([0.01 - 0.25, 0.01 - 0.25, 0.81 - 0.25])


def test_an_error_counts_as_a_share_of_the_interval_of_the_old_one():
    """It is 4 wide; what is further off loses no more than all."""
    old = [{"prediction": 10.0, "interval": [8.0, 12.0]}]
    found = compared(
        Regression("y"),
        (["a"], old, [{"prediction": 12.0, "interval": [11.9, 12.1]}]),
        (["b"], old, [{"prediction": 90.0, "interval": [89.9, 90.1]}]),
    )
    assert lost(found, Regression("y"), {"a": 11, "b": 10}) == pytest.approx([0.25 - 0.25, 1.0 - 0.0])
    assert lost(found, Regression("y"), {"a": None}).size == 0
    assert found.estimates(Regression("y")).size == 0


def test_classes_and_lists_lose_from_0_to_1():
    """Sure and wrong loses all; a class that nobody knows is no evidence; a list loses all where the taken item is not on it."""
    sure, half = {"probabilities": {"high": 1.0, "low": 0.0}}, {"probabilities": {"high": 0.5, "low": 0.5}}
    kind = Multiclass("y", ("high", "low"))
    found = compared(kind, (["a"], [sure], [half]), (["b"], [sure], [half]))
    assert lost(found, kind, {"a": "low", "b": "?"}) == pytest.approx([0.25 - 1.0])
    assert found.estimates(kind) == pytest.approx([0.25, 0.25])
    lists = Recommendation("item", "who", k=2)
    found = compared(lists, (["a"], [{"prediction": ["milk", "tea"]}], [{"prediction": ["tea"]}]))
    assert lost(found, lists, {"a": "milk"}).tolist() == [1.0]


@pytest.mark.parametrize(
    ("kind", "said", "why"),
    [
        (
            Binary("y", True, ("no", "late"), Cost()),
            chance(0.5),
            r"they name 'yes', and the labels are \['late', 'no'\]",
        ),
        (Multiclass("y", ("no", "maybe", "late")), chance(0.5), "they name 'yes'"),
        (Regression("y"), chance(0.5), "they name 'no'"),
        (KIND, {"prediction": 2.0}, "they are none of kind binary"),
        (Regression("y"), {"prediction": "yes"}, "they are none of kind regression"),
    ],
    ids=["a label", "a class", "no number", "a number", "a word"],
)
def test_answers_of_another_kind_or_of_other_labels_are_not_compared(kind, said, why):
    """It is said why, whatever the project was when they were given; none of them counts as something else."""
    with pytest.raises(UnheardError, match=why):
        compared(kind, (["a"], [said], [said]))


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


def weighing(records, outcomes=(), matures=0.0, **plan):
    """What is known of a log, and of outcomes that were all told after ten days."""
    seen = Weighing(KIND, OLD, NEW, Probation(**plan), matures)
    seen.see(records)
    seen.hear([Outcome(name, value, START + 10 * DAY) for name, value in outcomes])
    seen.judge(START + 10 * DAY)
    return seen


def follows(plan, phase, seconds, records, outcomes=()):
    return step(plan, phase, seconds, weighing(records, outcomes, **plan.probation.model_dump()))


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
    assert silent.warning.startswith("it is expected to lose more: by 0.36 on 60 requests")


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


# -- in which order ---------------------------------------------------------------------------------------------------
def asked(count, frauds, old, new):
    """3,000 rows a day, and what comes true of each: both models say a chance to all frauds and none to all else."""
    records = [
        request([f"r{n}"], [chance(old * (n in frauds))], [chance(new * (n in frauds))], at=START + n * DAY / 3000)
        for n in range(count)
    ]
    return records, {f"r{n}": n in frauds for n in range(count)}


def judged(records, tellings, matures, looks):
    """The test of losses after looks at these times; a telling is (when, id, value)."""
    seen, rest, left = Weighing(KIND, OLD, NEW, Probation(), matures), sorted(tellings), list(records)
    for now in looks:
        seen.see([record for record in left if record["at"] <= now])
        seen.hear([Outcome(name, value, came) for came, name, value in rest if came <= now])
        left, rest = [record for record in left if record["at"] > now], [one for one in rest if one[0] > now]
        seen.judge(now)
    return seen.tests["loss"]


FRAUDS = range(50, 5000, 100)  # one row in a hundred
LOOKS = [START + DAY * tenth / 10 for tenth in range(1, 90)]


def told(records, truth, found):
    """Frauds are told as `found` days after the request, all else after seven: (when, id, value)."""
    return [
        (each["at"] + (found if truth[name] else 7) * DAY, name, truth[name])
        for each in records
        for name in each["ids"]
    ]


def test_i_19_which_outcome_is_told_first_does_not_decide():
    """A model that loses 0.0033 more on the whole, all of it on frauds, is put up with where 0.01 is, although frauds are known first.

    Judged as soon as they are known it would be brought back.
    """
    records, truth = asked(5000, FRAUDS, 0.6, 0.3)
    found = judged(records, told(records, truth, found=0.5), 7.0, LOOKS)
    assert (found.rows, found.against) == (5000, False)
    assert found.mean == pytest.approx(0.01 * (0.49 - 0.16))
    assert found == judged(records, told(records, truth, found=7), 7.0, LOOKS)
    hasty = judged(records, told(records, truth, found=0.5), 0.0, LOOKS)
    assert (hasty.rows, hasty.against) == (5000, True)


@pytest.mark.slow
def test_i_19_the_level_holds_although_frauds_are_told_first():
    """Of 200 models that are worse by just the tolerance no more are brought back than a coin of rate alpha would in one run of a thousand.

    Judged as soon as something is known nearly all are.
    """
    rng, streams = np.random.default_rng(2), 200
    share = 0.01 / (0.8**2 - 0.1**2)
    back = {7.0: 0, 0.0: 0}
    for _ in range(streams):
        records, truth = asked(1500, set(np.flatnonzero(rng.random(1500) < share).tolist()), 0.9, 0.2)
        for matures in back:
            back[matures] += judged(records, told(records, truth, found=0.5), matures, LOOKS).against
    assert back[7.0] <= binom.ppf(0.999, streams, 0.05 / 3)
    assert back[0.0] > 0.9 * streams


def test_i_19_in_one_look_the_order_of_the_requests_counts():
    """An upload that is sorted by what came true weighs as any other, with or without a time to wait."""
    records, truth = asked(2000, range(1500, 2000), 0.6, 0.3)
    outcomes = sorted(truth.items(), key=lambda one: not one[1])
    found = [
        weighing(records, some, matures=matures).tests["loss"]
        for some, matures in itertools.product((outcomes, outcomes[::-1]), (0.0, 1e-9))
    ]
    assert all(each == found[0] for each in found)


def test_i_19_nothing_is_judged_before_it_is_final():
    """Neither what is told at once nor anything else; then all that was told of, and the test is of requests."""
    records = [request([f"a{n}", f"b{n}"], [chance(0.2)] * 2, [chance(0.8)] * 2, at=START + n * DAY) for n in range(4)]
    seen = Weighing(KIND, OLD, NEW, Probation(), matures=2)
    seen.see(records)
    seen.hear([Outcome(f"{side}{n}", False, START + n * DAY) for n in range(4) for side in "ab"][:-1])
    for day, (requests, rows) in enumerate([(0, 0), (0, 0), (1, 2), (2, 4), (3, 6), (4, 7)]):
        seen.judge(START + day * DAY)
        assert (seen.tests["loss"].rows, seen.judged) == (requests, rows)
    seen.hear([Outcome("b3", True, START + 9 * DAY)])
    seen.judge(START + 9 * DAY)
    assert (seen.tests["loss"].rows, seen.tests["loss"].mean) == (4, pytest.approx(0.6))


@pytest.mark.parametrize(
    ("kind", "said", "value"),
    [
        (Multiclass("y", ("high", "low")), {"probabilities": {"high": 0.5, "low": 0.5}}, "?"),
        (Binary("y", True, ("no", "yes"), Cost(), own=(False, True), are_all=True), chance(0.5), "perhaps"),
        (Regression("y"), {"prediction": 1.0}, "many"),
    ],
    ids=["class", "label", "number"],
)
def test_what_nobody_knows_the_loss_of_is_not_judged(kind, said, value):
    """An outcome that the project has no such value of is no row with an outcome, and ends no probation."""
    going = Probation(rows=1)
    seen = Weighing(kind, OLD, NEW, going)
    seen.see([request(["a"], [said], [said], answered=NEW)])
    seen.hear([Outcome("a", value, START)])
    seen.judge(START)
    assert (seen.judged, seen.tests["loss"].rows) == (0, 0)
    assert step(RolloutPlan(probation=going), "probation", 0, seen).phase == "probation"


@pytest.mark.parametrize(
    ("days", "counts"), [((1, 2), True), ((2, 1), False), ((1, 9), False), ((9, 8), True), ((8, 9), False)]
)
def test_what_was_told_last_before_it_was_final_counts(days, counts):
    """Of False and then True, told on these days, of a row that is final after three: True counts, or it does not."""
    seen = Weighing(KIND, OLD, NEW, Probation(), matures=3)
    seen.see([request(["a"], [chance(0.0)], [chance(1.0)])])
    seen.hear([Outcome("a", value, START + day * DAY) for day, value in zip(days, (False, True), strict=True)])
    seen.judge(START + 10 * DAY)
    assert seen.tests["loss"].mean == (-1 if counts else 1)


def test_m_07_what_is_never_told_is_left_out():
    """It waits for good and is no evidence, on either side."""
    records, truth = asked(300, range(0, 300, 3), 0.9, 0.2)
    seen = weighing(records, [(name, value) for name, value in truth.items() if not value])
    assert (seen.judged, seen.tests["loss"].mean, seen.waiting) == (200, 0.0, 100)


def test_an_outcome_may_be_told_before_it_is_logged_what_both_said():
    """Within some minutes it is remembered; what nobody asked for is forgotten."""
    seen = Weighing(KIND, OLD, NEW, Probation())
    seen.hear([Outcome("a", True, START), Outcome("b", True, START + DAY), Outcome("c", True, START + DAY + LAG / 2)])
    seen.see([request([name], [chance(0.0)], [chance(1.0)], at=START + DAY) for name in "abc"])
    seen.judge(START + 2 * DAY)
    assert (seen.judged, seen.waiting) == (2, 1)


def test_in_parts_the_evidence_is_the_same():
    """A log that is read in any number of looks weighs as it does in one."""
    rng = np.random.default_rng(5)
    records = [
        request([f"a{n}", f"b{n}"], *([chance(each) for each in rng.random(2)] for _ in range(2)), ms=rng.exponential(40, 2).tolist(), at=START + n * DAY / 500)
        for n in range(400)
    ]  # fmt: skip
    records[7]["thought"] = records[300]["said"] = None
    records[70]["asked"] = "its other part is lost"
    records[20]["asked"] = records[22]["asked"] = "two parts"
    records[22]["at"] = records[20]["at"]
    outcomes = [Outcome(f"{side}{n}", bool(rng.random() < 0.4), START + DAY) for n in range(400) for side in "ab"]
    whole, parts = (Weighing(KIND, OLD, NEW, Probation()) for _ in range(2))
    for seen, size in ((whole, 400), (parts, 33)):
        for some in range(0, 400, size):
            seen.see(records[some : some + size])
            seen.hear(outcomes[2 * some : 2 * (some + size)])
            seen.judge(START + DAY)
    for name, test in whole.tests.items():
        again = parts.tests[name]
        assert (test.rows, test.crossed) == (again.rows, again.crossed)
        assert (again.mean, again.e, again.peak) == pytest.approx((test.mean, test.e, test.peak))
    assert (parts.requests, parts.rows, parts.judged) == (399, 796, 796)


def test_what_waits_is_bounded(monkeypatch):
    """Rows for which there is no room are compared, but not judged; what was judged makes room."""
    monkeypatch.setattr("tasks.ml.rollout.MOST", 0)
    seen = Weighing(KIND, OLD, NEW, Probation(rows=3))
    seen.see(rows(5, 0.1, 0.2))
    assert (seen.rows, seen.waiting) == (5, 3)
    seen.hear([Outcome("r1", True, START), Outcome("r4", True, START)])
    seen.judge(START)
    seen.see([request(["r5"], [chance(0.1)], [chance(0.2)])])
    assert (seen.judged, seen.waiting) == (1, 3)


@pytest.mark.parametrize("restarted", [False, True], ids=["watched all along", "read anew"])
def test_v_13_a_probation_begins_with_nothing_of_the_shadow(monkeypatch, restarted):
    """Rows of the shadow and their outcomes neither end it, nor end the scoring of the old one, nor keep the room that its rows wait in."""
    monkeypatch.setattr("tasks.ml.rollout.MOST", 40)
    shadow, canary, own = (
        [request([f"{name}{n}"], [chance(0.2)], [chance(0.2)], answered, at=START + day * DAY) for n in range(count)]
        for day, (name, count, answered) in enumerate([("s", 40, OLD), ("c", 3, NEW), ("p", 40, NEW)])
    )
    going, seen = plan(rows=40, seconds=1e9), Weighing(KIND, OLD, NEW, Probation(rows=40))
    for day, records in enumerate([shadow, canary]):
        seen.begins(START + (2 if restarted else day) * DAY)
        seen.see(records)
    seen.begins(START + 2 * DAY)
    seen.see(own[:39])
    assert step(going, "probation", 0, seen).scores
    seen.see(own[39:])
    assert not step(going, "probation", 0, seen).scores
    for records, phase in ((shadow, "probation"), (own[:39], "probation"), (own[39:], "passed")):
        seen.hear([Outcome(name, True, START + 9 * DAY) for record in records for name in record["ids"]])
        seen.judge(START + 9 * DAY)
        after = step(going, "probation", 0, seen)
        assert after.phase == phase
    assert after.why.startswith("40 rows in 0 s, 40 with an outcome")
    assert (seen.rows, seen.judged, seen.tests["loss"].rows) == (83, 80, 80)


def split(name, at, old=0.5, new=0.5):
    """A request of two rows of which each model answered one, as its two records."""
    made = [
        request([f"{name}1"], [chance(old)], [chance(new)], at=at),
        request([f"{name}2"], [chance(new)], [chance(old)], answered=NEW, at=at),
    ]
    return [record | {"asked": f"{name}1"} for record in made]


def test_a_request_of_two_records_counts_once():
    """Whatever lies between them, and in however many looks they come; older logs do not say which belong together, and each counts."""
    seen, rest = Weighing(KIND, OLD, NEW, Probation()), rows(5, 0.5, 0.5)
    first, second = split("s", START)
    seen.see([first, *rest])
    assert seen.tests["errors"].rows == 5
    seen.see([second])
    assert (seen.tests["errors"].rows, seen.requests, seen.rows, seen.answered) == (6, 6, 7, 1)
    seen.hear([Outcome(name, True, START + DAY) for name in ("s1", "s2")])
    seen.judge(START + DAY)
    assert (seen.tests["loss"].rows, seen.judged) == (1, 2)
    older = [{name: value for name, value in each.items() if name != "asked"} for each in split("s", START)]
    assert weighing(older, [("s1", True), ("s2", True)]).tests["loss"].rows == 2


@pytest.mark.parametrize("order", [1, -1])
def test_a_request_whose_other_part_is_lost_counts_with_what_is_there(order):
    """After some minutes of further requests; if the other part comes all the same, it does not make a second one of it."""
    first, second = split("s", START)[::order]
    seen = Weighing(KIND, OLD, NEW, Probation())
    seen.see([first])
    seen.see([request(["r"], [chance(0.5)], [chance(0.5)], at=START + LAG)])
    assert seen.requests == 1
    seen.see([request(["q"], [chance(0.5)], [chance(0.5)], at=START + 2 * LAG)])
    assert (seen.requests, seen.rows) == (3, 3)
    seen.see([second])
    assert (seen.requests, seen.rows) == (3, 3)


@pytest.mark.slow
def test_v_13_a_canary_of_several_rows_a_request_keeps_the_level():
    """Of 300 challengers that are worse by just the tolerance, all rows of a request alike, no more go than a coin of alpha would say in one run of a thousand.

    Were each of the two records a difference, too many would.
    """
    rng, streams, requests = np.random.default_rng(7), 300, 300
    share = (
        0.01 + 0.21
    ) / 0.6  # of requests that do not come true: each costs 0.8² - 0.5² = 0.39 more, any other 0.21 less
    gone = {"one": 0, "two": 0}
    logs = [split(f"r{n}-", START + n * DAY / 3000, 0.5, 0.8) for n in range(requests)]
    older = [[{name: value for name, value in each.items() if name != "asked"} for each in some] for some in logs]
    for _ in range(streams):
        truth = rng.random(requests) >= share
        outcomes = [(f"r{n}-{row}", bool(truth[n])) for n in range(requests) for row in (1, 2)]
        for name, records in (("one", logs), ("two", older)):
            gone[name] += weighing([each for some in records for each in some], outcomes).tests["loss"].against
    most = binom.ppf(0.999, streams, 0.05 / 3)
    assert gone["one"] <= most < gone["two"]
