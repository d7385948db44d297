"""Evidence from a real training: the rows behind the answers, the tests of hooks.py, what was served, and the gates that look at it."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks import evaluate, gate, train
from tasks.config.errors import ProjectError
from tasks.config.project import Project
from tasks.ml.gates import Evidence
from tasks.ml.questions import Questions
from tasks.ml.recipe import Recipe
from tasks.ml.sealed import SealedParts
from tasks.stores import bundles
from tasks.stores.predictions import Predictions
from tests.tasks.test_trusted import Small, quiet, rows, said

__all__ = ["quiet"]
NOW = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
HOOKS = """
from tasks.ml.behaviour import Direction, Expectation, Invariance

def behaviour():
    return [
        Direction(column="a", by=1.0), Invariance(column="b", within=0.4),
        Expectation(rows=[{"a": 3.0, "b": 0.0}], low=0.9, about="far above"),
    ]
"""
COLUMNS = {
    "id": {"type": "int"}, "at": {"type": "datetime"}, "a": {"type": "float"}, "b": {"type": "float"}, "town": {"type": "text", "feature": False},
    "y": {"type": "bool"},
}  # fmt: skip


def with_towns(first: int, count: int) -> pd.DataFrame:
    """Rows with a town that no model reads."""
    return rows(first, count).assign(town=np.where(np.arange(count) % 3 == 0, "ham", "by"))


@pytest.fixture
def project(quiet) -> Small:
    gates = ["sound", "baselines", "floors", "champion", "slices", "stability", "churn", "behaviour"]
    return Small(
        quiet, HOOKS, contract={"key": ["id"], "time": "at", "target": "y", "columns": COLUMNS}, slices={"columns": ["a"]}, floor=0.7,
        gates=[*({"kind": kind} for kind in gates), {"kind": "fairness", "columns": ["town"]}],
    )  # fmt: skip


def shown(project: Small, run: str, **settings) -> Evidence:
    """What the gates look at after a training of the newest snapshot."""
    candidate = train.fit.fn("small", project.newest(), Recipe.usual("logistic"), run)
    scores = evaluate.evaluate.fn("small", project.newest(), candidate)
    return gate.evidence(project.use, scores, **settings)


def test_every_answer_comes_with_its_row_and_time(project: Small):
    """Features, columns that are none, and instants, in the order of the answers; no key and no target."""
    project.land(with_towns(0, 2000))
    evidence = shown(project, "one")
    assert evidence.features is not None
    assert evidence.times is not None
    assert list(evidence.features) == ["at", "a", "b", "town"]
    assert len(evidence.features) == len(evidence.times) == len(evidence.y)
    right = 1 / (1 + np.exp(-2 * evidence.features["a"]))
    assert np.corrcoef(right, evidence.challenger)[0, 1] > 0.95
    assert (np.diff(evidence.times.astype("int64")) > 0).all()
    assert (evidence.floor, evidence.slices.columns, evidence.types["town"]) == (0.7, ("a",), "text")


def test_a_first_model_answers_for_groups_floors_and_behaviour(project: Small):
    """Every gate has a verdict with what it looked at; what the hooks state is asked of the model itself."""
    project.land(with_towns(0, 2000))
    verdicts = said(project.train(project.newest(), "one")[0])
    assert all(verdict.passed for verdict in verdicts.values()), verdicts
    assert verdicts["behaviour"].reason.startswith("3 of 3 tests passed")
    assert "pairs were compared" in verdicts["fairness"].reason
    assert verdicts["floors"].bar == 0.7


def test_a_model_that_breaks_a_test_of_the_hooks_is_refused(project: Small):
    """The hooks want the opposite of what the rows teach."""
    path = project.folder / "projects" / "small" / "hooks.py"
    path.write_text(HOOKS.replace("by=1.0)", "by=1.0, never='raises')"))
    project.land(with_towns(0, 2000))
    verdict = said(project.train(project.newest(), "one")[0])["behaviour"]
    assert not verdict.passed
    assert "rows break '1 more a never raises an answer" in verdict.reason
    path.write_text(HOOKS.replace('column="b"', 'column="c"'))
    with pytest.raises(ProjectError, match="behaviour names 'c'"):
        project.train(project.newest(), "two")


def test_a_refresh_is_told_from_a_change(project: Small):
    """The same family, columns and window as the champion's; and how the champion decides is known."""
    project.land(with_towns(0, 2000))
    _, digest = project.train(project.newest(), "one")
    project.crown("one", digest, 1)
    project.land(with_towns(2000, 600), "b.csv")
    evidence = shown(project, "two", before=3)
    assert (evidence.is_refresh, evidence.looks) == (True, 3)
    assert 0 < evidence.operated["threshold"] < 1
    other = train.fit.fn(
        "small", project.newest(), Recipe.usual("logistic").model_copy(update={"features": ("a",)}), "three"
    )
    assert not evaluate.evaluate.fn("small", project.newest(), other).is_refresh


def test_the_newest_served_rows_are_where_flips_are_looked_for(project: Small):
    """Read from the prediction log, asked of both models; with too few, or without a column, the holdout is."""
    project.land(with_towns(0, 2000))
    _, digest = project.train(project.newest(), "one")
    project.crown("one", digest, 1)
    log, asked = Predictions(project.settings.home), rows(9000, 1200)[["a", "b"]].to_dict("records")
    for some in ([{"a": 1.0}] * 500, asked[:199]):
        log.append("small", NOW, [{"id": "x", "row": row, "prediction": True} for row in some])
    assert shown(project, "two").served is None
    log.append("small", NOW, [{"id": "x", "row": row, "prediction": True} for row in asked[199:]])
    evidence = shown(project, "three")
    assert evidence.served is not None
    assert evidence.served.features.to_dict("records") == asked[-1000:]
    verdict = said(gate.judge(project.use.gates, evidence))["churn"]
    assert "1000 newest rows that were served" in verdict.reason
    turned = replace(evidence, served=replace(evidence.served, challenger=1 - evidence.served.champion))
    assert said(gate.judge(project.use.gates, turned))["churn"].hold


def test_a_users_question_comes_with_the_users_first_row(quiet):
    """One row a user, and no moment: a list answers for all of the user's rows."""
    columns = {"id": {"type": "int"}, "at": {"type": "datetime"}, "who": {"type": "text"}, "item": {"type": "text"}}
    contract = {"key": ["id"], "time": "at", "target": "item", "columns": columns}
    shop = Small(quiet, kind="recommendation", user="who", k=3, contract=contract)
    rng, ids = np.random.default_rng(0), np.arange(1500)
    taken = pd.DataFrame({"id": ids, "at": rows(0, 1500)["at"], "who": rng.choice([f"u{n}" for n in range(60)], 1500)})
    shop.land(taken.assign(item=[f"i{int(who[1:]) % 5 + rng.integers(0, 3)}" for who in taken["who"]]))
    candidate = train.fit.fn("small", shop.newest(), Recipe.usual("favourites"), "one")
    evidence = gate.evidence(shop.use, evaluate.evaluate.fn("small", shop.newest(), candidate))
    assert evidence.features is not None
    assert evidence.features["who"].is_unique
    assert len(evidence.features) == len(evidence.y)
    holdout = taken[taken["at"] >= evidence.features["at"].min()]
    assert evidence.features["at"].tolist() == holdout.groupby("who", sort=False)["at"].first().tolist()
    assert evidence.times is None
    assert said(gate.judge(shop.use.gates, evidence))["stability"].reason == "these answers are about no single moment"


HOURS = 24 * 60


def hourly(**more) -> tuple[Project, SealedParts, Questions]:
    """A project of a number that is the hour itself, parted, and the questions of its holdout."""
    columns = {"id": {"type": "int"}, "at": {"type": "datetime"}, "who": {"type": "int"}, "y": {"type": "float"}}
    contract = {"key": ["id"], "time": "at", "target": "y", "columns": columns}
    use = Project.model_validate({"project": "hours", "kind": "regression", "labels": [], "contract": contract, **more})
    hours, at = np.arange(HOURS), pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(HOURS), unit="h")
    made = use.split.apply(pd.DataFrame({"id": hours, "at": at, "who": hours // 24, "y": hours.astype(float)}))
    split = SealedParts.of(made, made.holdout.head(0), use.task, use.contract.target)
    return use, split, Questions.of(use.task, use.types, made.holdout, 0)


@pytest.mark.parametrize("days", [0, 7])
def test_i_19_no_baseline_knows_a_label_before_it_was_final(days):
    """With a delay of seven days the last value is that of the same hour a week ago, of the validation rows that no model learned from, too."""
    use, split, questions = hourly(split={"column": "at", "matures": days, "holdout": 0.4, "validation": 0.1})
    said = evaluate.unlearned(use, split, questions)
    assert (split.late > 0) == (days > 0)
    assert said["last value"].tolist() == (questions.truth - max(1, 24 * days)).tolist()
    assert set(said["mean"]) == {use.task.truth(split.both).mean()}


def test_new_groups_have_no_label_before_them():
    """Where whole groups judge, the row before is of the same group: what a model for new groups is held against knows none of it."""
    said = evaluate.unlearned(*hourly(split={"kind": "group", "group": "who"}))
    assert set(said) == {"mean", "median"}


def test_a_planted_row_comes_with_the_row_that_it_stands_for(quiet):
    """The rows as they are, then the same once more."""
    columns = {
        "id": {"type": "int"},
        "at": {"type": "datetime"},
        "a": {"type": "float"},
        "b": {"type": "float"},
        "y": {"type": "bool"},
    }
    odd = Small(quiet, kind="anomaly", contract={"key": ["id"], "time": "at", "columns": columns})
    odd.land(rows(0, 1000))
    candidate = train.fit.fn("small", odd.newest(), Recipe.usual("isolation_forest"), "one")
    evidence = gate.evidence(odd.use, evaluate.evaluate.fn("small", odd.newest(), candidate))
    assert evidence.features is not None
    half = len(evidence.y) // 2
    assert evidence.y[:half].sum() == 0
    assert evidence.y[half:].all()
    assert evidence.features[:half].reset_index(drop=True).equals(evidence.features[half:].reset_index(drop=True))


def test_a_compiled_form_that_fails_on_one_row_of_the_holdout_is_not_served(project: Small):
    """The form is held against the pipeline on every row of the holdout; where it differs scikit-learn serves, and the manifest says why."""
    project.land(with_towns(0, 2000))
    candidate = train.fit.fn("small", project.newest(), Recipe.usual("logistic"), "one")
    scores = evaluate.evaluate.fn("small", project.newest(), candidate)
    assert scores.judged(candidate) == candidate
    assert bundles.manifest_of(Path(candidate.folder), candidate.digest)["served by"] == "its compiled form"
    other = train.fit.fn("small", project.newest(), Recipe.usual("hist_gradient_boosting"), "other")
    own, strange = (bundles.opened(Path(each.folder), each.digest) for each in (candidate, other))
    mixed = candidate.model_copy(update={"folder": candidate.folder + "-mixed"})
    digest = bundles.write(Path(mixed.folder), own.model(), own.manifest, strange.served)
    mixed = mixed.model_copy(update={"digest": digest})
    judged = evaluate.evaluate.fn("small", project.newest(), mixed).judged(mixed)
    manifest = bundles.manifest_of(Path(judged.folder), judged.digest)
    assert manifest["served by"] == "scikit-learn"
    assert "rows otherwise, by up to" in manifest["because"]
