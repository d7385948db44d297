"""The champion answers rows by name and by threshold."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from tasks.config.errors import ArtifactError
from tasks.ml.contributions import Explainer, usual
from tasks.ml.recommenders import Favourites
from tasks.serving import arrow
from tasks.serving.answers import Refusal
from tasks.serving.champion import Champion, Feature, RowError, frame
from tasks.serving.reading import Reader
from tasks.stores import bundles
from tasks.stores.journal import Release

FEATURES = [
    {"name": "age", "type": "float", "nullable": True},
    {"name": "visits", "type": "int", "nullable": False},
    {"name": "sex", "type": "category", "nullable": True},
    {"name": "new", "type": "bool", "nullable": False},
]
GOOD = {"age": 30.5, "visits": 2, "sex": "f", "new": True}


def table(count=200):
    """Training rows as the model meets them, and a target that follows age and sex."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "age": rng.normal(40, 20, count),
            "visits": rng.integers(0, 9, count).astype("float64"),
            "sex": pd.Series(rng.choice(["f", "m", None], count), dtype="str"),
            "new": rng.integers(0, 2, count).astype("float64"),
        }
    )
    target = ((rows["age"] > 40) & (rows["sex"] != "f")).to_numpy()
    rows.loc[::9, "age"] = np.nan
    return rows, target


def fitted(learner=None):
    """A pipeline fitted on the table."""
    rows, target = table()
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    prepare = ColumnTransformer([("n", "passthrough", ["age", "visits", "new"]), ("t", encoder, ["sex"])])
    learner = learner or HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5, random_state=0)
    return Pipeline([("prepare", prepare), ("model", learner)]).fit(rows, target)


@pytest.fixture(scope="module")
def model():
    """One fitted pipeline for all tests."""
    return fitted()


def manifest(version=1, **changes):
    """A manifest as training writes it."""
    return {
        "project": "flights",
        "version": version,
        "kind": "binary",
        "classes": [False, True],
        "positive": True,
        "target": "late",
        "features": FEATURES,
        "ignored": ["id", "late"],
        "threshold": 0.3,
        "metric": "roc_auc",
        "snapshot": "s" * 64,
        "seen_until": "2026-01-01T00:00:00Z",
    } | changes


def release(generation, version, digest):
    """A row of the journal."""
    at = "2026-01-01T00:00:00+00:00"
    return Release("flights", generation, version, digest, "test", "test", at, "roc_auc", value=0.9, low=0.8, high=0.95)


def loaded(folder, model, **changes):
    """The champion of a bundle written a moment ago."""
    return Champion.load(folder, release(1, 1, bundles.write(folder, model, manifest(**changes))))


@pytest.fixture(scope="module")
def champion(model, tmp_path_factory):
    """One loaded champion for all tests that only ask it."""
    return loaded(tmp_path_factory.mktemp("bundles") / "1", model)


def test_answers_are_the_models_own(champion, model):
    """Probabilities are the pipeline's, bit by bit, and the threshold chooses the label."""
    rows, _ = table()
    sent = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        | {"new": bool(row["new"])}
        for row in rows.to_dict("records")
    ]
    answers = champion.predict(sent)
    chances = model.predict_proba(rows)
    assert [list(answer["probabilities"].values()) for answer in answers] == chances.tolist()
    assert [answer["prediction"] for answer in answers] == (chances[:, 1] >= 0.3).tolist()
    assert list(answers[0]["probabilities"]) == ["false", "true"]
    assert champion.predict([]) == []


def test_r_10_rows_are_read_by_name(champion):
    """The order of a row's fields plays no part, and ignored columns may be there (R-10)."""
    turned = dict(reversed(GOOD.items())) | {"id": 7, "late": None}
    assert champion.predict([turned]) == champion.predict([GOOD])


def test_a_missing_nullable_feature_is_an_empty_one(champion):
    """Left out and null mean the same for a feature that may be empty."""
    without = {name: value for name, value in GOOD.items() if name not in {"age", "sex"}}
    assert champion.predict([without]) == champion.predict([without | {"age": None, "sex": None}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": "SECRET"}, "'age' is a text that does not fit; wanted a number"),
        ({"age": "30"}, "'age' is a text that does not fit; wanted a number"),
        ({"age": True}, "'age' is true or false that does not fit; wanted a number"),
        ({"age": math.nan}, "'age' is a number that does not fit; wanted a finite number"),
        ({"age": -math.inf}, "wanted a finite number"),
        ({"age": 10**400}, "wanted a finite number"),
        ({"visits": 1.5}, "'visits' is a number that does not fit; wanted a whole number"),
        ({"visits": 2**53 + 1}, r"wanted a whole number between -2\^53 and 2\^53"),
        ({"visits": math.inf}, "wanted a whole number"),
        ({"visits": None}, "'visits' is empty; wanted a value of type int"),
        ({"sex": 1}, "'sex' is a number that does not fit; wanted a text"),
        ({"new": 1}, "'new' is a number that does not fit; wanted true or false"),
        ({"SECRET": 1, "x": 2}, "has 2 unknown fields"),
        ({"sex": ["SECRET"]}, "'sex' is a list that does not fit"),
    ],
)
def test_v_04_a_row_that_does_not_fit_is_named_and_not_repeated(champion, change, message):
    """The error names the row and the feature, and never what was sent (V-04)."""
    with pytest.raises(RowError, match=message) as met:
        champion.predict([GOOD, GOOD | change])
    assert "rows[1]" in str(met.value)
    assert "SECRET" not in str(met.value)
    missing = {name: value for name, value in GOOD.items() if name != "visits"}
    with pytest.raises(RowError, match=r"rows\[0\]: 'visits' is missing"):
        champion.predict([missing])


@pytest.mark.parametrize(
    ("at", "passes"), [("2026-01-31T12:00:00+01:00", True), ("2026-01-31T11:00Z", True), ("2026-01-31T12:00:00", False), ("2026-01-31", False)]
)  # fmt: skip
def test_i_21_a_time_of_another_zone_says_its_offset(at, passes):
    """Where rows land a time without an offset is of the contract's zone; a server that took it for UTC would answer another question."""
    here, utc = (Feature("at", "datetime", nullable=False, offset=offset) for offset in (True, False))
    body = json.dumps({"rows": [{"at": at}]}).encode()
    read = Reader([utc], ()).read(body)
    assert read is not None
    assert [*read.values[0]] == [at]
    assert (Reader([here], ()).read(body) is not None) == passes
    slow = Champion.__new__(Champion)
    if passes:
        assert Champion._value(slow, 0, {"at": at}, here) == at
        assert arrow._values(pa.array([at]), 1, here) == [at]
    else:
        with pytest.raises(
            RowError,
            match=r"'at' is a text that does not fit; wanted a time with its offset, such as 2026-01-31T12:00:00\+01:00",
        ):
            Champion._value(slow, 0, {"at": at}, here)
        with pytest.raises(
            Refusal, match="'at' has a value that does not fit; wanted timestamps, or strings in ISO 8601 with"
        ):
            arrow._values(pa.array([at]), 1, here)
        with pytest.raises(Refusal, match="'at' has no time zone; wanted timestamps of one"):
            arrow._values(pa.array([0], pa.timestamp("us")), 1, here)
        assert arrow._values(pa.array([0], pa.timestamp("us", "UTC")), 1, here) == ["1970-01-01T00:00:00+00:00"]


def test_frames_have_the_types_of_training():
    """Numbers and truths are float64, texts pandas' own type with NaN for missing, times UTC."""
    features = [Feature("a", "int", True), Feature("b", "bool", True), Feature("c", "text", True)]
    features.append(Feature("d", "datetime", nullable=True))
    rows = [{"a": 1, "b": True, "c": "x", "d": "2026-01-31T12:00:00+02:00"}, dict.fromkeys("abcd")]
    built = frame(rows, features)
    assert built.dtypes.astype(str).to_dict() == {
        "a": "float64",
        "b": "float64",
        "c": "str",
        "d": "datetime64[us, UTC]",
    }
    assert built.iloc[1].isna().all()
    assert built["d"][0] == pd.Timestamp("2026-01-31T10:00:00Z")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "the journal wants version 1"),
        ({"project": "thyroid"}, "the journal wants version 1 of flights"),
        ({"features": FEATURES[:-1]}, "do not agree about the features: new"),
        ({"features": [*FEATURES, FEATURES[0]]}, "stands twice"),
        ({"classes": [0, 1]}, "not the model's"),
        ({"positive": "yes"}, "lack the positive one"),
        ({"threshold": 1.5}, "wanted a probability"),
        ({"kind": "oracle"}, "not one of a model that can be served"),
        ({"features": [FEATURES[0] | {"type": "blob"}]}, "not one of a model that can be served"),
    ],
)
def test_a_manifest_that_is_not_the_models_is_refused(tmp_path, model, changes, message):
    """Project, version, features, classes and threshold must be those of the release and of the model."""
    with pytest.raises(ArtifactError, match=message):
        loaded(tmp_path / "1", model, **changes)


def test_a_threshold_right_above_one_calls_no_row(tmp_path, model):
    """It keeps an alert budget where too many answers tie at 1."""
    none = loaded(tmp_path / "1", model, threshold=float(np.nextafter(1, 2)))
    said = none.predict([{"age": age, "visits": 1, "new": True, "sex": "f"} for age in (20, 90)])
    assert [each["prediction"] for each in said] == [False, False]


def test_v_03_a_model_that_fails_its_warm_up_is_refused(tmp_path):
    """Models that raise at an empty row, or give no probability, do not become champion (V-03)."""
    rows, target = table()
    rows = rows.fillna({"age": 40, "sex": "f"})
    strict = Pipeline(
        [
            (
                "p",
                ColumnTransformer([("n", "passthrough", ["age", "visits", "new"]), ("t", OrdinalEncoder(), ["sex"])]),
            ),
            ("m", LogisticRegression(max_iter=1000)),
        ]
    ).fit(rows, target)
    with pytest.raises(ArtifactError, match="does not answer a warm-up row"):
        loaded(tmp_path / "strict", strict)
    empty = fitted()
    empty[-1]._baseline_prediction = np.full_like(empty[-1]._baseline_prediction, np.nan)
    with pytest.raises(ArtifactError, match="does not answer a warm-up row"):
        loaded(tmp_path / "nan", empty)


def test_an_answer_is_explained_when_asked(champion, model):
    """What each column adds and the base are the log-odds of the answered probability of the positive class; names and numbers only."""
    rows = champion.check([GOOD, {**GOOD, "sex": None, "age": None}, {**GOOD, "age": 80.0, "sex": "m"}])
    answers = champion.score(rows)
    parts, explained = champion.explain(rows, answers)
    assert explained == {"adds up to": "log-odds of 'true'", "method": "tree shap"}
    for answer, part in zip(answers, parts, strict=True):
        assert list(part["contributions"]) == ["age", "visits", "sex", "new"]
        log_odds = math.log(answer["probabilities"]["true"] / answer["probabilities"]["false"])
        assert part["base"] + sum(part["contributions"].values()) == pytest.approx(log_odds, abs=1e-9)
    assert parts[2]["contributions"]["age"] > 0 > parts[0]["contributions"]["age"]
    assert champion.explain([], [])[0] == []


def test_the_positive_class_is_explained_wherever_it_stands(model, tmp_path):
    """Where the first class is the positive one, its own log-odds are explained."""
    champion = loaded(tmp_path / "1", model, positive=False)
    rows = champion.check([GOOD])
    (answer,) = champion.score(rows)
    (part,), explained = champion.explain(rows, [answer])
    log_odds = math.log(answer["probabilities"]["false"] / answer["probabilities"]["true"])
    assert explained["adds up to"] == "log-odds of 'false'"
    assert part["base"] + sum(part["contributions"].values()) == pytest.approx(log_odds, abs=1e-9)


def test_what_cannot_be_explained_is_refused_and_answered_all_the_same(tmp_path):
    """A linear model without training means has answers but no explanation; the message says what to do. So with too many rows."""
    rows, target = table()
    scaled = ColumnTransformer([("n", StandardScaler(), ["visits", "new"])])
    linear = Pipeline([("prepare", scaled), ("model", LogisticRegression())]).fit(rows, target)
    champion = loaded(tmp_path / "1", linear)
    checked = champion.check([GOOD])
    answers = champion.score(checked)
    with pytest.raises(RowError, match=r"Version 1 cannot be explained so\. .*Train again"):
        champion.explain(checked, answers)
    known = loaded(tmp_path / "2", linear, usual=usual(linear, rows))
    (part,), explained = known.explain(checked, answers)
    assert explained["method"] == "linear"
    assert part["contributions"]["age"] == part["contributions"]["sex"] == 0.0
    with pytest.raises(RowError, match="There are 101 rows to explain; wanted at most 100"):
        known.explain(checked * 101, answers * 101)


def test_nobody_waits_for_what_was_not_asked(model, tmp_path, monkeypatch):
    """Without the question no explainer is made, neither at loading nor at answering."""
    monkeypatch.setattr(Explainer, "of", lambda *_: pytest.fail("made without being asked"))
    champion = loaded(tmp_path / "1", model)
    assert len(champion.predict([GOOD] * 200)) == 200


@pytest.fixture(scope="module")
def recommender():
    """A pipeline that recommends: a household takes what it took, others what everybody takes."""
    rows = pd.DataFrame({"household": [1.0, 1.0, 1.0, 2.0, 2.0, 3.0]})
    who = ColumnTransformer([("user", "passthrough", ["household"])])
    taken = np.array(["milk", "milk", "eggs", "beer", "milk", "beer"])
    return Pipeline([("prepare", who), ("model", Favourites(smoothing=0.5))]).fit(rows, taken)


HOUSEHOLD = {
    "kind": "recommendation", "classes": [], "positive": None, "threshold": None, "target": "item", "user": "household",
    "features": [{"name": "household", "type": "int", "nullable": False}], "ignored": ["item"],
}  # fmt: skip


def test_a_recommendation_is_a_list_of_items_with_their_scores(tmp_path, recommender):
    """The k best items, the best first, each with its score; where there are fewer, the list is shorter."""
    champion = loaded(tmp_path / "1", recommender, **HOUSEHOLD, k=2)
    known, new = champion.predict([{"household": 1}, {"household": 77}])
    assert known["prediction"] == ["milk", "eggs"]
    assert known["scores"] == pytest.approx([(2 + 0.5 * 3 / 6) / 3.5, (1 + 0.5 / 6) / 3.5])
    assert (new["prediction"], new["scores"]) == (["milk", "beer"], pytest.approx([3 / 6, 2 / 6]))
    assert champion.logged(known) is None
    more = loaded(tmp_path / "2", recommender, **HOUSEHOLD, k=9).predict([{"household": 2}])[0]
    assert len(more["prediction"]) == len(more["scores"]) == 3


def test_a_recommendation_is_not_explained(tmp_path, recommender):
    """Who asks for an explanation hears that there is none, and why."""
    champion = loaded(tmp_path / "1", recommender, **HOUSEHOLD, k=2)
    rows = champion.check([{"household": 1}])
    with pytest.raises(RowError, match="follows from who the user is"):
        champion.explain(rows, champion.score(rows))


@pytest.mark.parametrize("k", [None, 0])
def test_a_recommender_without_a_number_of_items_is_refused(tmp_path, recommender, k):
    """A manifest that does not say how many items are named is no answer."""
    with pytest.raises(ArtifactError, match="lacks the k that"):
        loaded(tmp_path / "1", recommender, **HOUSEHOLD, k=k)
