"""A rehearsal: the real serving process answers with a candidate, is measured, and never outlives whoever asked it."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from tasks.ml.compiled import parity
from tasks.ml.features import matrix
from tasks.ml.gates import Evidence, Parity, Rehearsed, Serving
from tasks.ml.kinds import KINDS, Kind
from tasks.ml.metrics import METRICS
from tasks.ml.recipe import Recipe
from tasks.serving import rehearsal
from tasks.serving.champion import Champion, Feature
from tasks.serving.rehearsal import Heard, Rehearsal, encoded
from tasks.stores import bundles
from tasks.stores.journal import Release
from tests.ml.test_kinds import MADE, columns_of, taught

FAMILY = {
    "binary": "logistic", "multiclass": "logistic", "regression": "ridge", "anomaly": "isolation_forest",
    "recommendation": "item_neighbours",
}  # fmt: skip


def bundle(folder, kind: Kind, model, operates, made=parity.Outcome(), **changes) -> str:  # noqa: B008 -- frozen
    """A candidate as training writes it; gives the digest."""
    features = [
        {"name": name, "type": column.type, "nullable": column.nullable} for name, column in columns_of(kind).items()
    ]
    manifest = {
        "project": "small", "version": 0, "kind": kind.name, **kind.described(), "target": "y", "features": features, "ignored": [],
        **operates,
    }  # fmt: skip
    return bundles.write(folder, model, manifest | changes, bundles.compiled(made.form, made.graph))


def judged(kind: Kind, answers, heard: Heard, operates) -> Evidence:
    """The evidence that a rehearsal gives."""
    return Evidence(
        y=np.zeros(len(answers)), challenger=answers, baselines={}, metric=METRICS[kind.metric], seed=1, kind=kind, operates=operates,
        rehearsal=heard.served, heard=heard.answers, decided=np.array(heard.decided, dtype=object),
    )  # fmt: skip


@pytest.mark.parametrize("served", ["its compiled form", "scikit-learn"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_answered_as_it_was_judged(name, served, tmp_path):
    """Holes, dates, texts and planted rows go out and come back, from either: every answer, label and list is the judged one, bit by bit."""
    kind = MADE[name]
    model, asked, truth = taught(kind, Recipe.usual(FAMILY[name]))
    answers = kind.answers(model, asked)
    operates = kind.operate(truth, answers)
    made = parity.compiled(kind, model, asked, operates) if served == "its compiled form" else parity.Outcome()
    digest = bundle(tmp_path / "run", kind, model, operates, made)
    assert bundles.manifest_of(tmp_path / "run", digest)["served by"] == served
    with Rehearsal(tmp_path / "run", digest) as stage:
        heard = stage.ask(kind, asked, seconds=60)
    assert heard.served.failed == ""
    assert (heard.served.rows, heard.served.requests) == (len(asked), 90)
    assert 0 < heard.served.p50 <= heard.served.p95
    shown = judged(kind, answers, heard, operates)
    said = Parity(tolerance=0).judge(shown)
    assert (said.passed, said.value) == (True, 0.0), said.reason
    assert Serving().judge(shown).passed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


# -- refusals ----------------------------------------------------------------------------------------------------------
COLUMNS = {"amount": "float", "width": "float"}
ROWS = matrix(pd.DataFrame({"amount": np.linspace(-2, 2, 60), "width": np.linspace(9, 1, 60)}), COLUMNS)

FEATURES = tuple(Feature(name, "float", nullable=False) for name in COLUMNS)


def linear(weight: float = 1.0):
    """A pipeline that answers 1 + amount + weight × width."""
    model = Pipeline([("scale", FunctionTransformer()), ("model", LinearRegression())])
    model.fit(ROWS, 1 + ROWS["amount"] + ROWS["width"])
    model[-1].coef_ = np.array([1.0, weight])
    return model


def line(folder, model=None, **changes) -> str:
    """The bundle of a regression on two numbers."""
    manifest = {
        "project": "small", "version": 0, "kind": "regression", "target": "y", "ignored": [], "interval": 1.0,
        "features": [{"name": name, "type": kind, "nullable": False} for name, kind in COLUMNS.items()],
    }  # fmt: skip
    return bundles.write(folder, model or linear(), manifest | changes)


def refusal(folder, digest: str, rows=ROWS, seconds: float = 60) -> str:
    """What both gates say of a rehearsal that fails; the process is gone afterwards, and so are its files."""
    with Rehearsal(folder, digest) as stage:
        heard, process = stage.ask(MADE["regression"], rows, seconds), stage._process
    assert process.poll() is not None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    shown = judged(MADE["regression"], np.zeros(len(rows)), heard, {})
    verdicts = [Serving().judge(shown), Parity().judge(shown)]
    assert not any(verdict.passed for verdict in verdicts)
    assert verdicts[1].reason == f"nothing to compare: {verdicts[0].reason}"
    return verdicts[0].reason


def test_rows_that_are_too_many_for_one_request_go_in_parts(monkeypatch, tmp_path):
    """However few a request may hold, by number or by size, each row is asked about once, in order."""
    monkeypatch.setattr(rehearsal, "ROWS", 25)
    monkeypatch.setattr(rehearsal, "BODY_BYTES", 100 + 10 * len(encoded(ROWS, FEATURES)[0]))
    bodies = list(rehearsal._bodies(ROWS, FEATURES))
    parts = [json.loads(body)["rows"] for body in bodies]
    assert max(map(len, parts)) <= 10
    assert max(map(len, bodies)) <= rehearsal.BODY_BYTES
    assert [row["width"] for part in parts for row in part] == ROWS["width"].tolist()


def test_v_03_a_candidate_that_does_not_load_is_refused_with_the_reason(tmp_path):
    """What the serving process says of it stands in the verdict (V-03)."""
    digest = line(tmp_path / "run", interval=None)
    said = refusal(tmp_path / "run", digest)
    assert said.startswith("the serving process does not load the candidate: ")
    assert "lacks the interval" in said


def test_answers_that_are_no_numbers_are_a_refusal(tmp_path):
    """A model that overflows on real rows, though not on the empty ones of the warm-up, has no answer to them: 422."""
    said = refusal(tmp_path / "run", line(tmp_path / "run", linear(weight=1e308)))
    assert said.startswith(
        "the serving process answers 422 to rows of the holdout: The model of version 0 has no answer"
    )


def test_r_10_rows_that_do_not_fit_the_manifest_are_a_refusal(tmp_path):
    """A column that the manifest calls a text where training met numbers is not answered (R-10)."""
    features = [{"name": "amount", "type": "float", "nullable": False}, {"name": "width", "type": "category", "nullable": False}]  # fmt: skip
    said = refusal(tmp_path / "run", line(tmp_path / "run", features=features))
    assert "does not load the candidate" in said
    assert "does not answer a warm-up row" in said


def test_o_13_a_process_that_takes_too_long_is_killed_and_refused(tmp_path):
    """The time limit bounds the whole rehearsal, whatever the process is doing then."""
    said = refusal(tmp_path / "run", line(tmp_path / "run"), seconds=0.05)
    assert said == "the serving process had not answered every row after 0.05 s (gate serving, `seconds`)"


def test_a_process_that_ends_early_is_a_refusal(tmp_path):
    """Killed by whomever, for want of memory perhaps: the verdict says so, nothing is raised."""
    digest = line(tmp_path / "run")
    with Rehearsal(tmp_path / "run", digest) as stage:
        stage._process.kill()
        heard = stage.ask(MADE["regression"], ROWS, 60)
    assert heard.served.failed.startswith("the serving process broke off (")


def test_the_process_does_not_outlive_whoever_started_it(tmp_path):
    """Its starter is killed without a chance to end it; it ends by itself."""
    digest = line(tmp_path / "run")
    program = (
        "import sys\nfrom pathlib import Path\nfrom tasks.serving.rehearsal import Rehearsal\n"
        f"with Rehearsal(Path({str(tmp_path / 'run')!r}), {digest!r}) as stage:\n"
        "    print(stage._process.pid, flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        assert child.is_running()
        starter.kill()
    child.wait(30)
    assert not child.is_running()


# -- order and types ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def champion(tmp_path_factory) -> tuple[Champion, pd.DataFrame, np.ndarray]:
    """A loaded model of five columns of different types, rows, and what it says of them."""
    kind = MADE["regression"]
    model, asked, truth = taught(kind, Recipe.usual("hist_gradient_boosting"))
    folder = tmp_path_factory.mktemp("bundles") / "0"
    digest = bundle(folder, kind, model, kind.operate(truth, kind.answers(model, asked)))
    release = Release("small", 1, 0, digest, "t", "t", "2026-01-01", "mae", value=0.0, low=0.0, high=0.0)
    return Champion.load(folder, release), asked[:10], kind.answers(model, asked[:10])


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(sorted(columns_of(MADE["regression"]))))
def test_r_10_the_order_of_the_columns_of_a_request_plays_no_part(champion, order):
    """Whatever order a client sends the columns in, each answer is the one of training's order (R-10)."""
    served, asked, answers = champion
    features = {feature.name: feature for feature in served.manifest.features}
    sent = encoded(asked[order], tuple(features[name] for name in order))
    assert list(json.loads(sent[0])) == order
    said = served.predict([json.loads(row) for row in sent])
    assert [one["prediction"] for one in said] == answers.tolist()


def test_r_10_columns_that_changed_places_are_noticed(champion):
    """A compiled model that takes columns by place, and gets two of them the wrong way round, is refused with a row (R-10)."""
    served, asked, answers = champion
    turned = served.model.predict(asked.assign(amount=asked["width"], width=asked["amount"]))
    heard = Heard(Rehearsed(p50=1, p95=1, rows=len(asked)), turned)
    said = Parity().judge(judged(MADE["regression"], answers, heard, {}))
    assert not said.passed
    assert "otherwise than they were judged: row " in said.reason
    assert "order and the types of the columns" in said.reason
