"""Estimates without outcomes: by hand, by other libraries, and against worlds whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score
from sklearn.tree import DecisionTreeRegressor

from tasks.ml.kinds import Anomaly, Binary, Multiclass, Recommendation, Regression
from tasks.ml.metrics import METRICS, Cost
from tasks.ml.watching.estimate import Calibration, Chances, Estimated, Losses, Nothing, _expected, learned, read
from tasks.ml.watching.losses import ANSWER, Forest, Tree
from tasks.ml.watching.measures import gauged, measures, standard_error

KIND = Binary("y", True, ("no", "yes"), Cost(false_positive=1, false_negative=5), alerts=0.1)
OPERATES = {"threshold": 0.3}
ASKED = measures(KIND, OPERATES)
NUMBER = Regression("y")
LOSSES = measures(NUMBER, {"interval": 1.0})


def world(n: int, seed: int, *, shift: float = 0.0, turned: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and true chances under inputs that moved by `shift`; `turned` is the share of a slope that changed its sign since."""
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, 1, (n, 2))
    said, now = -2 + 1.5 * x[:, 0] + x[:, 1], -2 + 1.5 * (1 - 2 * turned) * x[:, 0] + x[:, 1]
    return (rng.random(n) < expit(now)).astype(int), expit(said)


def numbers(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Truth, answers and features, with errors that are normal with a standard deviation of exp(x0 / 2), doubled for the kind b."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({f"x{place}": rng.normal(shift if place == 0 else 0, 1, n) for place in range(4)})
    rows["kind"] = pd.Series(rng.choice(["a", "b"], n), dtype="str")
    rows["at"] = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(n), unit="min")
    scale = np.exp(rows["x0"].to_numpy() / 2) * np.where(rows["kind"] == "b", 2, 1)
    answers = 2 * rows["x1"].to_numpy()
    return answers + scale * rng.normal(size=n), answers, rows


def holds(said: Estimated, value: float) -> bool:
    """Whether the band holds a value."""
    assert said.low is not None
    assert said.high is not None
    return said.low <= value <= said.high


@pytest.fixture(scope="module")
def chances() -> Chances:
    found = learned(KIND, ASKED, *world(4000, 1), seed=0)
    assert isinstance(found, Chances)
    return found


@pytest.fixture(scope="module")
def losses() -> Losses:
    found = learned(NUMBER, LOSSES, *numbers(4000, 1), seed=0)
    assert isinstance(found, Losses)
    return found


def test_expected_decisions_are_sums_of_chances():
    """Of three rows of chances .9, .4, .1 and a threshold of .3, 1.3 of the two called and 1.4 of all are expected to be positive."""
    said = np.array([0.9, 0.4, 0.1])
    found = {name: _expected(ASKED[name], said, np.stack([1 - said, said], axis=1)) for name in ("accuracy", "recall", "precision", "f1", "cost")}  # fmt: skip
    wanted = {"accuracy": (0.9 + 0.4 + 0.9) / 3, "recall": 1.3 / 1.4, "precision": 1.3 / 2, "f1": 2 * 1.3 / (2 * 1.3 + 0.7 + 0.1), "cost": (0.1 + 0.6 + 0.1 * 5) / 3}  # fmt: skip
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("name", "other"), [("roc_auc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_expected_rankings_weigh_each_row_as_both_classes(name, other):
    """scikit-learn says the same of rows that stand once for each class, with its chance for a weight."""
    said = np.random.default_rng(0).beta(1, 4, 300).round(2)
    weights = np.r_[said, 1 - said]
    wanted = other(np.r_[np.ones(300), np.zeros(300)], np.r_[said, said], sample_weight=weights)
    assert _expected(METRICS[name], said, np.stack([1 - said, said], axis=1)) == pytest.approx(wanted)


def test_expected_accuracy_of_many_classes_is_the_mean_of_the_highest_chances():
    """However many classes there are."""
    said = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    assert _expected(METRICS["accuracy"], said, said) == pytest.approx(said.max(axis=1).mean())
    assert _expected(METRICS["log_loss"], said, said) == pytest.approx(-(said * np.log(said)).sum(axis=1).mean())


def test_decisions_are_measured_as_scikit_learn_does():
    """Recall, precision and F1 at the threshold; recall within the budget looks at the tenth of the rows with the highest answers."""
    y, p = world(500, 3)
    called = p >= OPERATES["threshold"]
    for name, other in {"recall": recall_score, "precision": precision_score, "f1": f1_score}.items():
        assert gauged(ASKED[name], y, p).value == pytest.approx(other(y, called))
        assert ASKED[name].of(y, p) == pytest.approx(other(y, called))
    best = np.argsort(-p)[:50]
    assert ASKED["recall_at_alerts"].of(y, p) == pytest.approx(y[best].sum() / y.sum())


def test_bounds_of_shares_hold_where_nothing_varies():
    """Of four positives that were all found recall is 1, and surely above .59: the z of one in twenty squared over n (Wilson 1927)."""
    found = gauged(ASKED["recall"], np.array([1, 1, 1, 1, 0]), np.array([0.9, 0.9, 0.9, 0.9, 0.1]))
    assert (found.value, found.low) == (1.0, pytest.approx(4 / (4 + 1.644854**2), abs=1e-5))


@pytest.mark.parametrize("shift", [0.0, -0.7, 0.7])
def test_under_other_inputs_bands_hold_what_comes_true(chances, shift):
    """While outcomes follow from inputs as before, nine in ten of the bands hold the measure, each asked of 40 windows."""
    inside = dict.fromkeys(ASKED, 0)
    for seed in range(40):
        y, p = world(800, 100 + seed, shift=shift)
        for name, said in chances.estimates(ASKED, p, seed=seed).items():
            inside[name] += holds(said, ASKED[name].of(y, p))
    assert min(inside.values()) >= 31  # of 40 at .9 fewer come by chance in one case of 150
    assert np.mean(list(inside.values())) >= 35


def test_estimate_follows_other_inputs(chances):
    """Where positives become rare average precision falls, and the estimate sees it without an outcome."""
    y, p = world(20_000, 5, shift=-1)
    came, said = METRICS["average_precision"].of(y, p), chances.estimates(ASKED, p, seed=0)["average_precision"]
    before = chances.known["average_precision"]
    assert before.value - came > 0.15
    assert said.value == pytest.approx(came, abs=0.03)
    assert said.high < before.low


def test_estimate_is_blind_to_a_change_of_concept_and_says_so(chances):
    """Same inputs, other outcomes: the estimate stays where it was while the measure has fallen, and names what it assumes."""
    before, p = world(5000, 6)
    after, same = world(5000, 6, turned=0.5)
    assert (p == same).all()
    said = chances.estimates(ASKED, p, seed=0)["roc_auc"]
    assert holds(said, METRICS["roc_auc"].of(before, p))
    assert METRICS["roc_auc"].of(after, p) < said.low - 0.1
    assert "change of concept" in said.assumes
    assert not {"ok", "passed", "fell"} & set(type(said).model_fields)


def test_chances_of_a_model_that_is_too_sure_are_corrected():
    """Log-odds doubled: isotonic regression is learned as scikit-learn does it, and the expected log loss is the true one."""
    y, p = world(6000, 7)
    sure = expit(2 * np.log(p / (1 - p)))
    found = learned(KIND, ASKED, y, sure, seed=0)
    assert isinstance(found, Chances)
    wanted = IsotonicRegression(out_of_bounds="clip").fit(sure, y)
    fresh, new = world(3000, 8)
    new = expit(2 * np.log(new / (1 - new)))
    assert found.calibration.chances(new)[:, 1] == pytest.approx(wanted.predict(new))
    said = found.estimates(ASKED, new, seed=0)["log_loss"]
    assert holds(said, METRICS["log_loss"].of(fresh, new))
    uncorrected = found.model_copy(update={"calibration": Calibration()})
    assert not holds(uncorrected.estimates(ASKED, new, seed=0)["log_loss"], METRICS["log_loss"].of(fresh, new))


def test_chances_of_a_calibrated_model_are_left_alone(chances):
    """What cannot be told from luck is not corrected."""
    assert chances.calibration.method == "none"


def test_estimates_of_many_classes_hold_what_comes_true():
    """Three classes, answers squared so that they are too sure: corrected, every band holds the measure of 3,000 rows."""
    kind = Multiclass("y", ("a", "b", "c"))

    def rows(seed: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        odds = np.exp(np.c_[rng.normal(shift, 1, (4000, 2)), np.zeros(4000)] * 1.5)
        true = odds / odds.sum(axis=1, keepdims=True)
        y = (rng.random((4000, 1)) > true.cumsum(axis=1)).sum(axis=1)
        return y, true**2 / (true**2).sum(axis=1, keepdims=True)

    asked = measures(kind, {})
    found = learned(kind, asked, *rows(0, 0.0), seed=0)
    y, p = rows(1, 0.2)
    assert set(asked) == {"roc_auc", "log_loss", "brier", "accuracy", "macro_recall"}
    for name, said in found.estimates(asked, p, seed=0).items():
        assert holds(said, asked[name].of(y, p))


def test_errors_of_regression_are_estimated_from_features(losses):
    """Errors grow with x0: their mean under moved inputs is known by formula, and is within the band."""
    y, answers, rows = numbers(6000, 9, shift=0.5)
    scale = np.exp(0.5 / 2 + 1 / 8) * 1.5  # mean of the log-normal, and of both kinds
    said = losses.estimates(LOSSES, answers, rows, seed=0)
    assert said["mae"].value == pytest.approx(scale * np.sqrt(2 / np.pi), rel=0.1)
    assert said["mae"].value > 1.15 * losses.known["mae"].value
    assert METRICS["mae"].of(y, answers) == pytest.approx(scale * np.sqrt(2 / np.pi), rel=0.05)


def test_bands_of_regression_hold_what_comes_true(losses):
    """Nine in ten of the bands over 40 windows of the same world."""
    inside = dict.fromkeys(("mae", "rmse"), 0)
    for seed in range(40):
        y, answers, rows = numbers(600, 200 + seed)
        said = losses.estimates(LOSSES, answers, rows, seed=0)
        for name in inside:
            inside[name] += holds(said[name], METRICS[name].of(y, answers))
    assert min(inside.values()) >= 31


def test_estimates_of_rows_that_are_known_are_what_came_true(losses):
    """Over the rows that it learned from, the forest's mean is theirs, whatever its trees look like."""
    y, answers, rows = numbers(4000, 1)
    means = losses.forest.means(rows, answers)
    assert means == pytest.approx([np.mean(np.abs(y - answers) ** power) for power in (1, 2, 4)])


def test_trees_lead_where_scikit_learns_do():
    """Every row ends in the same leaf."""
    rng = np.random.default_rng(0)
    read = rng.normal(size=(500, 3)).astype("float32")
    grown = DecisionTreeRegressor(min_samples_leaf=5, random_state=0).fit(read, read[:, 0] * read[:, 1])
    new = rng.normal(size=(400, 3)).astype("float32")
    assert (Tree.grown(grown.tree_, read, np.ones((500, 1))).leaf(new) == grown.apply(new)).all()


def test_times_are_not_learned_from_and_rare_texts_stand_in_the_middle():
    """A column of times always moves; a text that was never met is neither good nor bad."""
    y, answers, rows = numbers(2000, 3)
    forest = Forest.of(rows, answers, y - answers, seed=0)
    assert [column.name for column in forest.columns] == ["x0", "x1", "x2", "x3", "kind", ANSWER]
    good, bad, new = (forest.means(rows.assign(kind=pd.Series(kind, index=rows.index, dtype="str")), answers)[0] for kind in ("a", "b", "c"))  # fmt: skip
    assert good < new <= bad or good <= new < bad


def test_what_was_never_met_is_doubted(losses, chances):
    """Inputs beyond those learned from, new texts and missing values, and answers higher than any before, are named."""
    _, answers, rows = numbers(500, 4)
    odd = rows.assign(x0=rows["x0"] + 50, x2=np.nan, kind=pd.Series("new", index=rows.index, dtype="str"))
    said = losses.estimates(LOSSES, answers, odd, seed=0)["mae"]
    assert "100% of x0, 100% of x2, 100% of kind" in said.doubts[0]
    assert not losses.estimates(LOSSES, answers, rows, seed=0)["mae"].doubts
    assert "higher than any" in chances.estimates(ASKED, np.linspace(0.99, 1.0, 400), seed=0)["roc_auc"].doubts[0]


def test_a_model_that_drifts_among_the_known_rows_is_doubted():
    """Half of the rows with another concept: the blocks contradict each other, the band is wider and a doubt says why."""
    old, p = world(2000, 1)
    turned, q = world(2000, 2, turned=0.4)
    whole = learned(KIND, ASKED, np.r_[old, turned], np.r_[p, q], seed=0)
    assert whole.known["roc_auc"].is_off
    said = whole.estimates(ASKED, p, seed=0)["roc_auc"]
    assert "more than luck" in " ".join(said.doubts)
    assert (said.estimation or 0.0) > 2 * standard_error(whole.known["roc_auc"])


@pytest.mark.parametrize("rows", [0, 5, 199])
def test_m_01_few_rows_get_no_estimate(chances, losses, rows):
    """Neither good nor bad is said of so few."""
    _, answers, features = numbers(rows, 0)
    for found in (chances.estimates(ASKED, np.full(rows, 0.5), seed=0), losses.estimates(LOSSES, answers, features, seed=0)):  # fmt: skip
        assert {(said.value, said.low, said.method) for said in found.values()} == {(None, None, "none")}
        assert all(f"too few rows: {rows}" in said.reason for said in found.values())


@pytest.mark.parametrize("kind", [Anomaly(), Recommendation("item", "who")])
def test_where_nothing_is_said_of_chances_there_is_no_estimate(kind):
    """Scores and lists say neither a chance nor a distance, and the reason says so."""
    asked = measures(kind, {"threshold": 1.0})
    found = learned(kind, asked, np.zeros(500), np.zeros(500), seed=0)
    assert isinstance(found, Nothing)
    said = found.estimates(asked, np.zeros(500), seed=0)
    assert set(said) == set(asked)
    assert all(one.value is None and kind.name in one.reason for one in said.values())


def test_too_few_known_rows_teach_nothing():
    """Of 100 rows, or of one class, nothing is learned."""
    y, p = world(1000, 1)
    few, alike = learned(KIND, ASKED, y[:100], p[:100], seed=0), learned(KIND, ASKED, np.zeros(1000, int), p, seed=0)
    assert isinstance(few, Nothing)
    assert "too few" in few.reason
    assert isinstance(alike, Nothing)
    assert "insufficient classes" in alike.reason


def test_r2_has_no_estimate(losses):
    """Nobody knows yet how far the truth is spread."""
    _, answers, rows = numbers(500, 4)
    said = losses.estimates(LOSSES, answers, rows, seed=0)["r2"]
    assert said.value is None
    assert "spread" in said.reason


def test_an_estimator_comes_back_from_json(chances, losses):
    """Kept with the version as text, it says the same."""
    _, p = world(500, 3)
    _, answers, rows = numbers(500, 3)
    for found in (chances, losses, Nothing(reason="no")):
        again = read(found.model_dump_json())
        assert again == found
        assert again.estimates(LOSSES if found is losses else ASKED, answers if found is losses else p, rows, seed=1) == found.estimates(LOSSES if found is losses else ASKED, answers if found is losses else p, rows, seed=1)  # fmt: skip


def test_measures_that_do_not_exist_have_no_estimate():
    """A threshold that nothing reaches leaves no precision, neither to learn nor to expect; the reason says so, and JSON holds no gap."""
    asked = measures(KIND, {"threshold": 0.999})
    y, p = world(2000, 1)
    found = learned(KIND, asked, y, p * 0.9, seed=0)
    assert "precision" not in found.known
    assert read(found.model_dump_json()) == found
    said = found.estimates(asked, p * 0.9, seed=0)
    assert (said["precision"].value, said["precision"].method) == (None, "none")
    assert "no precision" in said["precision"].reason
    assert said["recall"].value == 0


def test_rows_without_any_chance_have_no_ranking(chances):
    """Where no row can be positive, nobody can say how well positives are ranked; what is left is said."""
    said = chances.estimates(ASKED, np.zeros(500), seed=0)
    assert said["roc_auc"].value is None
    assert "where no such row is expected" in said["roc_auc"].reason
    assert said["brier"].value == 0


def test_perfect_answers_break_nothing():
    """All ones and zeros, all right: errors are 0 wherever they are looked for."""
    y = np.arange(1000) % 2
    found = learned(KIND, ASKED, y, y.astype(float), seed=0)
    assert found.known["roc_auc"].excess == 0
    assert found.estimates(ASKED, y.astype(float), seed=0)["roc_auc"].value == 1


def test_values_of_few_rows_are_not_kept():
    """A name that stands in a handful of rows is in no estimator, and is no news in a window that has as many of them."""
    y, answers, rows = numbers(1000, 3)
    named = rows.assign(kind=rows["kind"].where(rows.index % 10 > 0, "name " + (rows.index // 100).astype("str")))
    found = learned(NUMBER, LOSSES, y, answers, named, seed=0)
    assert isinstance(found, Losses)
    assert "name 3" not in found.model_dump_json()
    assert found.forest.outside(named, answers)["kind"] == 0
    assert found.forest.outside(named.assign(kind="name 3"), answers)["kind"] == pytest.approx(0.9)
