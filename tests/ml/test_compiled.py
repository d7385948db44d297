"""Compiled models: the form of every pipeline that is offered says what the pipeline says, and what has none says why."""

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder

from tasks.ml import calibrate, threads
from tasks.ml.compiled.encode import GONE, Rows, microseconds, parts
from tasks.ml.compiled.form import Form
from tasks.ml.compiled.frame import Frame
from tasks.ml.compiled.graph import session
from tasks.ml.compiled.parity import PORTABLE, AsModel, compiled
from tasks.ml.compiled.translate import UncompiledError, translated
from tasks.ml.features import matrix
from tasks.ml.recipe import Recipe
from tasks.ml.transformers import DateParts
from tests.ml.test_kinds import MADE, PAIRS, rows, types_of
from tests.ml.test_kinds import taught as taught_anew

UNTRANSLATED = "nearest_neighbours"
TRANSLATED = [pair for pair in PAIRS if pair[1] != UNTRANSLATED]
CALIBRATED = [("binary", "sigmoid"), ("multiclass", "temperature")]


@pytest.fixture(autouse=True, scope="module")
def alone():
    """One thread: boosting with a thread a core waits for the other processes of a busy machine."""
    with threads.limited(1):
        yield


@cache
def taught(name, family):
    """The kind, a model of the family, and features and truth of newer rows."""
    return MADE[name], *taught_anew(MADE[name], Recipe.usual(family))


def odd(kind, asked):
    """Rows at the edges: each column missing once, all missing, texts that nobody knows, huge numbers, moments far away."""
    some = asked.iloc[:40].reset_index(drop=True)
    frames = [some.assign(**{name: some[name].mask(np.ones(40, dtype=bool))}) for name in some]
    frames.append(some.mask(np.ones(some.shape, dtype=bool)))
    for name, kind_of in types_of(kind).items():
        if kind_of in {"text", "category"}:
            frames.append(some.assign(**{name: pd.Series(["not known", "", "ünïcode"] * 14, dtype="str").iloc[:40]}))
        elif kind_of == "float":
            frames.append(some.assign(**{name: np.resize([1e30, -1e30, 0.0, -0.0, 1e-300], 40)}))
        else:
            far = pd.to_datetime(
                np.resize(np.array(["1900-02-28T23:59:59.999999", "2200-12-31T00:00:00.000001"]), 40), utc=True
            )
            frames.append(some.assign(**{name: pd.Series(far).astype("datetime64[us, UTC]")}))
    return pd.concat([asked, *frames], ignore_index=True)[list(asked)].astype(asked.dtypes)


@pytest.mark.parametrize(("name", "family"), TRANSLATED)
def test_every_family_compiles_and_says_the_same_of_every_row(name, family):
    """Usual rows and rows at every edge get the pipeline's answers, trees bit by bit; the form is read from its file."""
    kind, model, asked, truth = taught(name, family)
    operates = kind.operate(truth, kind.answers(model, asked))
    made = compiled(kind, model, odd(kind, asked), operates)
    assert (made.reason, made.rows) == ("", len(odd(kind, asked)))
    assert made.form is not None
    again = AsModel(Form.unpacked(made.form.packed()), made.graph)
    said, meant = kind.answers(again, odd(kind, asked)), kind.answers(model, odd(kind, asked))
    if family in {"logistic", "ridge", "gaussian_mixture"}:  # whose sums depend on how many rows are asked at once
        np.testing.assert_allclose(said, meant, rtol=1e-9, atol=1e-12)
    else:
        assert said.tobytes() == meant.tobytes()


@pytest.mark.parametrize(("name", "method"), CALIBRATED)
@pytest.mark.parametrize("family", ["hist_gradient_boosting", "logistic", "random_forest"])
def test_calibration_is_compiled_with_the_model(name, method, family):
    """A sigmoid and a temperature, on log-odds and on probabilities, are the last steps of the form and of the graph."""
    kind, model, asked, truth = taught(name, family)
    corrected = calibrate._corrected(kind, model, asked, truth, method)
    made = compiled(kind, corrected, asked, kind.operate(truth, kind.answers(corrected, asked)))
    assert made.form is not None
    assert made.portable
    plain = kind.answers(model, asked)
    assert not np.allclose(kind.answers(AsModel(made.form, made.graph), asked), plain)


@pytest.mark.parametrize(("name", "family"), [pair for pair in TRANSLATED if pair[0] != "recommendation"])
def test_the_graph_gives_the_answers_by_itself(name, family):
    """Whoever runs model.onnx on the encoded columns, without a line of ours, gets the pipeline's answers."""
    kind, model, asked, truth = taught(name, family)
    made = compiled(kind, model, asked, kind.operate(truth, kind.answers(model, asked)))
    if family == "gaussian_mixture":
        assert made.graph is None
        return
    graph = made.graph or b""
    onnx.checker.check_model(onnx.load_from_string(graph))
    encoded = np.asarray(model[0].transform(asked), dtype="float64")  # scikit-learn's own
    (answers,) = onnxruntime.InferenceSession(graph).run(["answers"], {"features": encoded})
    meant = model.predict_proba(asked) if kind.has_chances else kind.answers(model, asked)
    np.testing.assert_allclose(np.asarray(answers), meant, rtol=PORTABLE, atol=PORTABLE)
    described = made.described()["onnx"]
    assert described["input"]["shape"][1] == encoded.shape[1] == len(described["input"]["columns"])


@pytest.mark.parametrize("name", ["binary", "multiclass", "regression"])
def test_what_has_no_translation_says_so(name):
    """Nearest neighbours stay with scikit-learn, and the reason goes into the manifest."""
    kind, model, asked, truth = taught(name, UNTRANSLATED)
    made = compiled(kind, model, asked, kind.operate(truth, kind.answers(model, asked)))
    assert made.form is made.graph is None
    assert "has no translation" in made.described()["because"]


def frame(count=300):
    rng = np.random.default_rng(3)
    return pd.DataFrame({"a": rng.normal(size=count), "b": rng.integers(0, 4, count).astype(float)})


def piped(prepare, learner):
    some = frame()
    return Pipeline([("prepare", ColumnTransformer([("n", prepare, ["a", "b"])])), ("model", learner)]).fit(
        some, some["a"] > some["b"] - 1
    )


NATIVE = HistGradientBoostingClassifier(categorical_features=[1], early_stopping=False, max_iter=5)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: piped("passthrough", NATIVE), "native categories"),
        (lambda: piped(MinMaxScaler(), LogisticRegression()), "MinMaxScaler"),
        (lambda: piped(OneHotEncoder(), LogisticRegression()), "no texts"),
        (lambda: LogisticRegression().fit(frame(), frame()["a"] > 0), "no pipeline"),
        (lambda: piped("passthrough", clone(NATIVE).set_params(categorical_features=None))[1:], "no pipeline"),
    ],
    ids=["native categories", "another scaler", "encoded numbers", "no pipeline", "no preparation"],
)
def test_nothing_is_guessed(model, reason):
    """A part that is not known stands against the translation, by name; above all native categorical splits."""
    with pytest.raises(UncompiledError, match=reason):
        translated(model())


def test_a_form_that_says_something_else_does_not_pass():
    """One leaf or one threshold that is another one ends the compiling, with the number of rows that it would have hit."""
    kind, model, asked, truth = taught("binary", "hist_gradient_boosting")
    operates = kind.operate(truth, kind.answers(model, asked))
    bent = compiled(kind, _Bent(model), asked, operates)
    assert bent.form is None
    assert "rows otherwise" in bent.reason
    assert bent.apart > 0


class _Bent(Pipeline):
    """The pipeline, but for what it says: a little more."""

    def __init__(self, model):
        super().__init__(model.steps)

    def predict_proba(self, X):
        return super().predict_proba(X) * 0.999


def test_a_boosted_tree_on_several_outputs_and_poisson_are_told_apart():
    """A regression with a logarithmic link is no sum of leaves: it is refused."""
    some = frame()
    learner = HistGradientBoostingRegressor(loss="poisson", max_iter=5, early_stopping=False)
    prepare = ColumnTransformer([("n", "passthrough", ["a", "b"])])
    with pytest.raises(UncompiledError, match="HalfPoissonLoss"):
        translated(Pipeline([("prepare", prepare), ("model", learner)]).fit(some, some["b"]))


@given(st.lists(st.datetimes() | st.none(), min_size=1, max_size=20))
def test_moments_are_read_as_in_training(moments):
    """Day, hour, weekday and day of the year of any moment are those that the pipeline's transformer makes of it."""
    texts = [None if moment is None else moment.isoformat() for moment in moments]
    column = pd.to_datetime(pd.Series(texts, dtype="str"), utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    frame = pd.DataFrame({"at": column})
    meant = DateParts().fit(frame).transform(frame)
    sent = Rows({"at": 0}, [(text,) for text in texts])
    for given_rows in (sent, Frame(frame)):
        np.testing.assert_array_equal(parts(given_rows.moments(["at"])), meant)


def test_a_time_beyond_the_calendar_is_none():
    """A year that an offset pushes out of the calendar, and what is no time, raise what the caller turns into an answer."""
    for text in ("0001-01-01T00:00:00+01:00", "yesterday", ""):
        try:
            assert microseconds(text) < 0
        except ValueError:
            continue
    assert Rows({"at": 0}, [(None,)]).moments(["at"]).tolist() == [[GONE]]


def test_rows_and_frames_are_encoded_alike():
    """Rows as a server is sent them give the very array that their frame gives."""
    kind, model, _, _ = taught("binary", "logistic")
    form, _ = translated(model)
    features = matrix(rows(200), types_of(kind))
    plain = features.astype(object)
    plain["joined"] = [None if pd.isna(at) else at.isoformat() for at in plain["joined"]]
    sent = [tuple(None if pd.isna(value) else value for value in row) for row in plain.itertuples(index=False)]
    places = {name: place for place, name in enumerate(features)}
    np.testing.assert_array_equal(form.encode(Rows(places, sent)), form.encode(Frame(features)))
    np.testing.assert_allclose(form.encode(Frame(features)), model[0].transform(features), rtol=1e-15)


def test_the_runtime_is_asked_with_one_thread():
    """Onnx writes a graph that onnxruntime runs: the pins fit each other, and trees are added up in their order."""
    _, model, asked, _ = taught("regression", "hist_gradient_boosting")
    form, graph = translated(model)
    runner = session(graph or b"")
    assert runner.get_session_options().intra_op_num_threads == 1
    whole = form.answers(form.encode(Frame(asked)), runner)
    alone = [form.answers(form.encode(Frame(asked.iloc[[n]])), runner)[0] for n in range(50)]
    assert whole[:50].tolist() == alone


def test_unknown_encoder_values_are_in_the_table():
    """A value that only scoring meets gets what the fitted encoder gives it; a missing one its own."""
    texts = pd.DataFrame({"t": pd.Series(["a", "b", None] * 40, dtype="str")})
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    prepare = ColumnTransformer([("t", encoder, ["t"])])
    model = Pipeline([("prepare", prepare), ("model", LogisticRegression())]).fit(texts, np.arange(120) % 3 == 1)
    form, _ = translated(model)
    assert form.encode(Rows({"t": 0}, [("b",), ("zebra",), (None,)])).tolist() == [[1.0], [-1.0], [-2.0]]
