"""Problem kinds: every one of them, with every family that fits it, goes the whole way; a new kind inherits these tests."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ml import calibrate, models
from tasks.ml.contract import Column
from tasks.ml.contributions import Explainer, usual
from tasks.ml.examination import Examination, Marks, plainest, pooled
from tasks.ml.explain import Importance
from tasks.ml.features import matrix
from tasks.ml.gates import Calibration, Champion, Evidence, Sound
from tasks.ml.kinds import COVERED, KINDS, Anomaly, Binary, Kind, Multiclass, Recommendation, Regression
from tasks.ml.metrics import METRICS, Cost, metrics_of
from tasks.ml.pictures import PANELS, report
from tasks.ml.recipe import Learned, Recipe
from tasks.ml.window import Window
from tasks.stores import bundles

COLUMNS = {
    "amount": Column(type="float", nullable=True),
    "width": Column(type="float"),
    "kind": Column(type="category"),
    "joined": Column(type="datetime", nullable=True),
    "town": Column(type="text"),
}
TYPES = {name: column.type for name, column in COLUMNS.items()}
BINARY = Binary("yes", positive=True, labels=("no", "yes"), cost=Cost())
MADE: dict[str, Kind] = {
    "binary": BINARY,
    "multiclass": Multiclass("grade", ("high", "low", "middle")),
    "regression": Regression("number"),
    "anomaly": Anomaly(0.05),
    "recommendation": Recommendation("item", "who", k=5),
}
WHO = {"who": Column(type="category", nullable=True)}  # the only column that a recommender reads
PAIRS = [(kind, name) for kind in KINDS for name, family in models.FAMILIES.items() if kind in family.fits]
LABELS = {"binary": ("no", "yes"), "multiclass": ("high", "low", "middle")}


def rows(count: int = 1500, seed: int = 0) -> pd.DataFrame:
    """Rows in order of time with holes, a date, a category, a text of a hundred values; what comes true follows from them."""
    rng = np.random.default_rng(seed)
    amount, kind = rng.normal(size=count), rng.choice(["a", "b"], count)
    joined = pd.Series(pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC"))
    number = amount + (kind == "a") + np.sin(np.arange(count) % 24 / 24 * 2 * np.pi) + rng.normal(scale=0.3, size=count)
    return pd.DataFrame(
        {
            "amount": np.where(np.arange(count) % 17 == 0, np.nan, amount),
            "width": 2 * amount + rng.normal(scale=0.2, size=count),
            "kind": kind,
            "joined": joined.mask(np.arange(count) % 23 == 0),
            "town": [f"town {n % 100}" for n in range(count)],
            "at": pd.Series(pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC")),
            "yes": pd.array(number > 0.5, dtype="boolean"),
            "grade": pd.cut(number, [-99, 0, 1, 99], labels=["low", "middle", "high"]).astype(str),
            "number": number,
            "who": pd.Series([f"user {n % 60}" for n in range(count)]).mask(np.arange(count) % 53 == 0),
            "item": [
                f"item {n}"
                for n in np.where(rng.random(count) < 0.6, np.arange(count) % 60 // 3, rng.integers(0, 20, count))
            ],
        }
    )


def columns_of(kind: Kind) -> dict[str, Column]:
    """The feature columns that a problem of this kind has."""
    return COLUMNS | (WHO if kind.name == "recommendation" else {})


def types_of(kind: Kind) -> dict[str, str]:
    return {name: column.type for name, column in columns_of(kind).items()}


def learned(kind: Kind, frame: pd.DataFrame) -> Learned:
    return Learned.of(frame, kind, columns_of(kind), "at")


def taught(kind: Kind, recipe: Recipe, count: int = 1000):
    """A model of the older rows, and features and truth of the newer ones."""
    frame = rows()
    model = recipe.fit(kind, columns_of(kind), learned(kind, frame[:count]), seed=1)
    newer = frame[count:].reset_index(drop=True)
    return model, *kind.asked(matrix(newer, types_of(kind)), kind.truth(newer), 1)


WELL_OR_ILL = ("well", "ill")
TOLD: list[tuple[Kind, list, list]] = [  # what may be told of a prediction, and the target's own value; None stands for a waiting row
    (Binary("y", positive=True, labels=WELL_OR_ILL, cost=Cost(), own=(False, True), are_all=True), ["ill", "well", True, False, None, "other"], [1, 0, 1, 0, None, None]),
    (Binary("y", positive=True, labels=WELL_OR_ILL, cost=Cost(), own=(0, 1)), ["ill", "well", 1, 0, 1.0, -1, None], [1, 0, 1, 0, 1, 0, None]),
    (Binary("y", positive=2, labels=WELL_OR_ILL, cost=Cost(), own=(2,)), ["ill", "well", 2, 7, 2.0, None], [1, 0, 1, 0, 1, None]),
    (Binary("y", positive="1", labels=WELL_OR_ILL, cost=Cost(), own=("1",)), ["ill", "well", 1, "1", "0", None], [1, 0, 1, 1, 0, None]),
    (Binary("y", positive="pos", labels=WELL_OR_ILL, cost=Cost(), own=("neg", "pos"), are_all=True), ["ill", "well", "pos", "neg", None], [1, 0, 1, 0, None]),
    (Binary("y", positive="pos", labels=WELL_OR_ILL, cost=Cost()), ["ill", "well", "pos", "other", None], [1, 0, 1, 0, None]),
    (Multiclass("y", ("high", "low", "middle")), ["low", "high", None, "other"], [1, 0, None, None]),
    (Multiclass("y", ("1", "2", "3")), [None, 1, 2, "3", 3.0, 4], [None, 0, 1, 2, 2, None]),
    (Multiclass("y", ("1.0", "2.0", "2.5")), [None, 1, 2.0, 2.5, "2.0"], [None, 0, 1, 2, 1]),
    (Regression("y"), [None, 1, 2.5, 2**60, "soon"], [None, 1.0, 2.5, 2.0**60, None]),
    (Anomaly(), [None, True, "x"], [None, 0, 0]),
    (Recommendation("y", "who"), [None, "milk", 7], [None, "milk", "7"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "told", "truth"), TOLD)
def test_what_was_told_is_the_truth_in_whichever_words(kind, told, truth):
    """Labels and the target's own values say the same, beside rows that wait, too; what is neither is not known."""
    meant = kind.meant(told)
    known = meant.notna().to_numpy()
    assert known.tolist() == [each is not None for each in truth]
    found = kind.truth(pd.DataFrame({"y": meant[known]}))
    assert found.tolist() == [each for each in truth if each is not None]


def test_every_kind_is_told():
    """No kind goes without the table above."""
    assert {kind.name for kind, *_ in TOLD} == set(KINDS)


def test_every_kind_is_tested():
    """No kind goes without this suite."""
    assert set(MADE) == set(KINDS)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_model_of_every_family_goes_the_whole_way(name, family, tmp_path):
    """Fitted, saved without pickle, read again; better than what needs no learning; sound, calibrated, drawn."""
    kind = MADE[name]
    model, asked, truth = taught(kind, Recipe.usual(family))
    model, _ = calibrate.calibrated(kind, model, asked, truth, 1)
    answers = kind.answers(model, asked)
    digest = bundles.write(tmp_path / "bundle", model, {"project": "any"})
    _, again = bundles.read(tmp_path / "bundle", digest)
    assert kind.answers(again, asked).tobytes() == answers.tobytes()
    if name != "recommendation" and family not in {"nearest_neighbours", "gaussian_mixture"}:
        learned_from = json.loads(json.dumps(usual(model, asked)))  # as a manifest holds it
        explainer = Explainer.of(again, learned_from)
        assert explainer.most >= 10
        parts = explainer.explain(asked[:10], np.zeros(10, dtype=int))
        assert parts.contributions.shape == (10, len(COLUMNS))
        assert np.isfinite(parts.score).all()
    goal, before = METRICS[kind.metric], kind.truth(rows()[:1000])
    for naive in kind.naive(before, truth).values():
        assert len(naive) == len(truth)
        assert goal.gain(goal.of(truth, answers), goal.of(truth, naive)) > 0
    operates = kind.operate(truth, answers)
    panels = kind.panels(truth, answers, operates)
    assert set(panels) <= set(PANELS)
    png = report(
        [], panels, LABELS.get(name, ("", "")), operates=operates, metric_label=goal.label, floor=None, title="t"
    )
    assert png.startswith(b"\x89PNG")
    evidence = Evidence(
        y=truth, challenger=answers, baselines={}, metric=goal, seed=1, kind=kind, operates=operates, resamples=100
    )
    assert Sound().judge(evidence).passed
    assert Calibration(error=0.15, bias=0.15).judge(evidence).passed


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_every_model_says_what_it_relies_on(name, family):
    """The columns that the truth follows from come first and are sure; the one that is only a name is not among them."""
    kind = MADE[name]
    model, asked, truth = taught(kind, Recipe.usual(family))
    found = Importance.of_model(kind, METRICS[kind.metric], model, asked, truth, seed=1)
    order = [one.column for one in found.columns]
    assert set(order) == set(columns_of(kind))
    assert order[0] != "town"
    assert found.columns[0].is_sure
    assert order.index("town") > 1


@pytest.mark.parametrize("name", KINDS)
def test_what_is_known_of_rows_is_known_of_every_question(name):
    """A question about rows that were all seen is seen, one about rows that were not is not, and there is a word for each."""
    kind, frame = MADE[name], rows(300)
    features = matrix(frame, types_of(kind))
    asked, truth = kind.asked(features, kind.truth(frame), 1)
    for seen in (True, False):
        assert kind.told(features, np.full(300, seen)).tolist() == [seen] * len(truth)
    assert len(asked) == len(truth)
    some = np.arange(300) != 7
    assert 0 < (~kind.told(features, some)).sum() <= 2


@pytest.mark.parametrize("name", KINDS)
def test_answers_that_are_none_are_found(name):
    """A NaN among the answers, and answers that are all the same, are unsound; real ones are not."""
    kind = MADE[name]
    model, asked, _ = taught(kind, Recipe.usual(models.families_of(name)[0]))
    answers = kind.answers(model, asked)
    broken = answers.copy()
    broken[3] = np.nan
    assert kind.unsound(answers) == ""
    assert kind.unsound(broken)
    assert kind.unsound(np.repeat(answers[:1], len(answers), axis=0)) == f"all {len(answers)} answers are the same"


@pytest.mark.parametrize("name", KINDS)
def test_every_metric_of_a_kind_judges_it(name):
    """A tie is a tie, and the same answers in another order of rows are worse, by every metric of the kind."""
    kind = MADE[name]
    model, asked, truth = taught(kind, Recipe.usual(models.families_of(name)[0]))
    answers = kind.answers(model, asked)
    mixed = answers[np.random.default_rng(0).permutation(len(answers))]
    assert kind.metric in metrics_of(name)
    for metric in metrics_of(name).values():
        assert metric.gain(metric.of(truth, answers), metric.of(truth, mixed)) > 0


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_of_the_champion_is_a_tie_and_a_worse_one_is_refused(name):
    """Equal answers keep the champion, whatever the kind; so do mixed up ones."""
    kind = MADE[name]
    model, asked, truth = taught(kind, Recipe.usual(models.families_of(name)[0]))
    answers = kind.answers(model, asked)
    for challenger in (answers, answers[::-1].copy()):
        evidence = Evidence(
            y=truth, challenger=challenger, baselines={}, metric=METRICS[kind.metric], seed=1, kind=kind, champion=answers,
            unseen_by_champion=np.ones(len(truth), dtype=bool), resamples=200,
        )  # fmt: skip
        assert not Champion().judge(evidence).passed


@pytest.mark.parametrize("name", KINDS)
def test_a_search_examines_every_kind(name):
    """Two recipes are marked on the same rows; the one that may not read the telling columns does worse, surely."""
    kind = MADE[name]
    frame = rows(800)
    examination = Examination.of(
        [(frame[:400], frame[400:600]), (frame[:600], frame[600:])],
        kind,
        METRICS[kind.metric],
        columns_of(kind),
        "at",
        seed=1,
    )
    usual = Recipe.usual(models.families_of(name)[0])
    whole, blind = (
        examination.mark(recipe, lambda _step, _loss: None)
        for recipe in (usual, usual.model_copy(update={"features": ("town", "kind")}))
    )
    assert whole is not None
    assert blind is not None
    assert blind.loss - whole.loss > 2 * blind.noise(whole)
    assert set(examination.ranked()) == set(columns_of(kind))
    assert examination.ranked().index("town") > 1


def test_the_plainest_of_equals_is_taken():
    """A plain recipe within one standard error of the best is taken; one beyond it is not, nor a less plain one."""
    plain, middle, best = (Recipe.usual(name) for name in ("logistic", "random_forest", "hist_gradient_boosting"))
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.01, size=60)
    marks = Marks(0.5, tuple(0.5 + rng.normal(scale=0.01, size=60)))
    near, far = Marks(0.505, tuple(np.array(marks.spread) + 0.005 + noise)), Marks(0.53, tuple(np.array(marks.spread) + 0.03 + noise))  # fmt: skip
    assert plainest([(best, marks), (plain, near), (middle, near)]) == 1
    assert plainest([(best, marks), (plain, far), (middle, near)]) == 0


def test_what_two_examinations_say_weighs_by_how_sure_they_are():
    """By hand: -6 with an error of 2 and +2 with one of 4 are (-6/4 + 2/16) / (1/4 + 1/16) = -4.4; one without an error decides alone."""
    spread = np.array([-1.0, 1.0])  # a standard deviation of 1
    sure, unsure = (
        (Marks(gain, tuple(gain + noise * spread)), Marks(0.0, (0.0, 0.0))) for gain, noise in ((-6, 2), (2, 4))
    )
    assert pooled([sure, unsure]) == pytest.approx(-4.4)
    assert pooled([unsure]) == pytest.approx(2)
    assert pooled([sure, (Marks(1.0, (1.0, 1.0)), Marks(0.0, (0.0, 0.0)))]) == 1.0
    assert pooled([(unsure[1], unsure[1])]) == 0.0


@pytest.mark.parametrize("window", [Window(kind="last", days=10), Window(kind="decay", days=5)], ids=lambda w: w.kind)
def test_a_window_decides_what_is_learned(window):
    """Where the world turned around, a model of the recent rows knows it and a model of all rows does not."""
    kind = MADE["binary"]
    frame = rows(1500)
    turned = frame.assign(yes=frame["yes"].mask(np.arange(1500) < 900, ~frame["yes"]))
    asked = matrix(frame[1200:], TYPES)
    scores = [
        METRICS["roc_auc"].of(
            kind.truth(turned[1200:]),
            kind.answers(
                Recipe(family=models.Logistic(), window=each).fit(kind, COLUMNS, learned(kind, turned[:1200]), seed=1),
                asked,
            ),
        )
        for each in (Window(), window)
    ]
    assert scores[0] < 0.5
    assert scores[1] > 0.8


@given(
    st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=10, max_size=80), st.floats(0.01, 0.5)
)  # fmt: skip
@pytest.mark.parametrize("kind", [Anomaly(), BINARY], ids=lambda kind: kind.name)
def test_an_alert_budget_is_used_and_never_exceeded(kind, scores, share):
    """However many answers tie, at 1 too, no more rows are called than the budget allows; with those that tie next it would be more."""
    answers = np.array(scores)
    called = (kind := replace(kind, alerts=share)).called(answers, kind.operate(np.zeros(len(answers)), answers))
    assert called.sum() <= share * len(answers)
    next_ones = answers == answers[~called].max()
    assert (called | next_ones).sum() > share * len(answers)


@pytest.mark.parametrize("kind", [Anomaly(0.3), replace(BINARY, alerts=0.3)], ids=lambda kind: kind.name)
def test_the_threshold_of_an_alert_budget_is_no_rows_own_answer(kind):
    """It lies half-way to the next answer, so that the last digit of none decides."""
    answers = np.array([0.5, 0.1, 0.9, 0.2, 0.7, 0.3, 0.4, 0.0, 0.8, 0.3])
    assert kind.operate(np.zeros(10), answers) == {"threshold": pytest.approx(0.6)}
    assert kind.operate(np.zeros(10), np.sort(answers).clip(max=0.7)) == {"threshold": pytest.approx(0.6)}


def test_calls_beyond_an_alert_budget_are_off_and_fewer_are_not():
    """Three rows in ten are called where one in twenty may be; where none is, the budget is kept."""
    kind, rng = replace(BINARY, alerts=0.05), np.random.default_rng(0)
    answers = np.r_[np.full(300, 0.9), np.full(700, 0.1)]
    truth = (rng.random(1000) < answers).astype(int)
    verdicts = [
        Calibration().judge(
            Evidence(y=truth, challenger=answers, baselines={}, metric=METRICS["roc_auc"], seed=1, kind=kind, operates={"threshold": at})
        )
        for at in (0.5, 0.95)
    ]  # fmt: skip
    assert [verdict.passed for verdict in verdicts] == [False, True]
    assert "30.00% of the rows reach the threshold; the alert budget is 5.00%" in verdicts[0].reason


def test_an_interval_holds_what_it_promises():
    """Of rows like those it was learned from, nine in ten lie inside, over many draws."""
    rng, held = np.random.default_rng(0), []
    for _ in range(200):
        errors = rng.standard_t(3, 400)
        half = Regression("y").operate(errors[:200], np.zeros(200))["interval"]
        held.append((np.abs(errors[200:]) <= half).mean())
    assert abs(np.mean(held) - COVERED) < 0.01


def test_calibration_mends_what_is_off_and_leaves_what_is_right():
    """Probabilities that are too bold are corrected, on rows that were not learned from; honest ones stay as they are."""
    kind, rng = MADE["binary"], np.random.default_rng(0)
    frame = rows(3000)
    noisy = frame.assign(yes=frame["yes"] ^ (rng.random(3000) < 0.3))
    bold = Recipe(family=models.RandomForest(min_samples_leaf=1, n_estimators=20))
    model = bold.fit(kind, COLUMNS, learned(kind, noisy[:1000]), seed=1)
    features, truth = matrix(noisy[1000:2000], TYPES), kind.truth(noisy[1000:2000])
    mended, method = calibrate.calibrated(kind, model, features, truth, 1)
    asked, later = matrix(noisy[2000:], TYPES), kind.truth(noisy[2000:])
    loss = METRICS["log_loss"]
    assert method == "sigmoid"
    assert loss.of(later, kind.answers(mended, asked)) < loss.of(later, kind.answers(model, asked))
    assert calibrate.calibrated(kind, mended, features, truth, 1)[1] == "none"
