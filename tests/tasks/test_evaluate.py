"""Evaluating: a champion is asked in the words of its own time, whatever project.yaml says now; or the gates are told why it cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from sklearn.metrics import roc_auc_score

from tasks import evaluate, gate, train
from tasks.config.project import Project
from tasks.ml.gates import Verdict, outcome
from tasks.ml.metrics import unpacked
from tasks.ml.recipe import Recipe
from tasks.stores import bundles
from tasks.stores.lake import ROW, Lake
from tasks.stores.references import Candidate, Scores, Snapshot
from tests.tasks.test_trusted import Small, quiet, rows

__all__ = ["quiet"]  # a fixture

COLUMNS = {"id": {"type": "int"}, "at": {"type": "datetime"}, "a": {"type": "float"}, "b": {"type": "float"}}
GATES = [{"kind": "sound"}, {"kind": "champion"}, {"kind": "trusted"}, {"kind": "churn"}]
FAMILY = {
    "binary": "logistic",
    "multiclass": "logistic",
    "regression": "ridge",
    "anomaly": "gaussian_mixture",
    "recommendation": "favourites",
}


class Changing(Small):
    """A project whose project.yaml changes between one training and the next."""

    def change(self, how: Callable[[dict[str, Any]], object]) -> None:
        """Another project.yaml; only what is younger than the class's own columns lands under it."""
        path = self.settings.projects / "small" / "project.yaml"
        said = YAML().load(path)
        how(said)
        YAML().dump(said, path)
        self.use = Project.named("small", self.settings)

    def crowned(self, snapshot: Snapshot, kind: str = "binary") -> None:
        """A model of the snapshot is champion as version 1."""
        candidate = train.fit.fn("small", snapshot, Recipe.usual(FAMILY[kind]), "one")
        self.crown("one", candidate.digest, 1)

    def judged(
        self, snapshot: Snapshot, kind: str = "binary", run: str = "two"
    ) -> tuple[Scores, pd.DataFrame, dict[str, Verdict]]:
        """The next challenger's scores, everybody's answers, and the verdicts."""
        candidate = train.fit.fn("small", snapshot, Recipe.usual(FAMILY[kind]), run)
        scores = evaluate.evaluate.fn("small", snapshot, candidate)
        verdicts = gate.gate.fn("small", snapshot, candidate, scores, self.conditions(snapshot))
        return scores, pd.read_parquet(scores.answers), {verdict.gate: verdict for verdict in verdicts}

    @property
    def champion(self) -> Any:
        """The model of version 1, as it lies in its bundle."""
        return self._bundle[1]

    @property
    def manifest(self) -> dict[str, Any]:
        """What is known of it."""
        return self._bundle[0]

    @property
    def _bundle(self) -> tuple[dict[str, Any], Any]:
        champion = self.journal.champion("small")
        assert champion is not None
        return bundles.read(self.settings.bundles("small") / "1", champion.digest)


def of_the_rows(answers: pd.DataFrame, content: pd.DataFrame, small: Small, snapshot: Snapshot) -> pd.DataFrame:
    """The rows that the answers are about, as they were written down before they landed."""
    ids = small.lake.read(snapshot).set_index(ROW)["id"]
    return content.set_index("id").loc[ids.loc[answers[ROW]]]


def test_a_champion_is_asked_with_a_column_that_the_contract_has_no_more(quiet: Path):
    """As it was told to, a person takes a column out: the rows still have it, and the champion says what its model says of them."""
    small, content = Changing(quiet, gates=GATES), rows(0, 1200)
    small.crowned(small.land(content[:900]))
    snapshot = small.land(content[900:], "b.csv")
    small.change(lambda said: said["contract"]["columns"].pop("b"))
    scores, answers, verdicts = small.judged(snapshot)
    there = of_the_rows(answers, content, small, snapshot)
    wanted = small.champion.predict_proba(there[["a", "b"]])[:, 1]
    np.testing.assert_allclose(unpacked(answers["champion"]), wanted, rtol=1e-12)
    assert (scores.unasked, scores.champion_version, verdicts["champion"].hold) == ("", 1, False)
    assert "rows that neither model has seen" in verdicts["champion"].reason
    assert scores.trusted is not None
    reference = pd.read_parquet(scores.trusted.answers)
    apart = of_the_rows(reference, content, small, snapshot)
    wanted = small.champion.predict_proba(apart[["a", "b"]])[:, 1]
    np.testing.assert_allclose(unpacked(reference["champion"]), wanted, rtol=1e-12)


def test_a_champion_whose_column_the_newest_rows_lack_is_held_against_nobody(quiet: Path):
    """It learned from a column that is not delivered any more: what it would say with it nobody knows, and a person decides."""
    small, content = Changing(quiet, gates=GATES), rows(0, 1200)
    small.crowned(small.land(content[:900]))
    small.change(lambda said: said["contract"]["columns"].pop("b"))
    scores, answers, verdicts = small.judged(small.land(content[900:].drop(columns="b"), "b.csv"))
    assert "champion" not in answers
    assert scores.unasked.startswith("it reads 'b', which ")
    assert scores.unasked.endswith(" rows have no more")
    champion = verdicts["champion"]
    assert (champion.passed, champion.hold) == (False, True)
    assert champion.reason == f"the champion cannot be asked: {scores.unasked}. A person decides"
    assert outcome([*verdicts.values()]) == "held"
    assert (scores.champion_version, scores.champion) == (1, None)


def test_a_champion_is_asked_with_a_column_of_the_type_that_it_learned(quiet: Path):
    """A category that project.yaml calls a whole number now is a category to the champion."""
    content = rows(0, 1200).assign(b=lambda frame: (frame["b"] * 2).round().astype(int).astype(str))
    columns = {**COLUMNS, "b": {"type": "category"}, "y": {"type": "bool"}}
    small = Changing(quiet, gates=GATES, contract={"key": ["id"], "time": "at", "target": "y", "columns": columns})
    small.crowned(small.land(content))
    small.change(lambda said: said["contract"]["columns"].update(b={"type": "int"}))
    _, answers, _ = small.judged(small.newest())
    there = of_the_rows(answers, content, small, small.newest()).astype({"b": "str"})
    wanted = small.champion.predict_proba(there[["a", "b"]])[:, 1]
    np.testing.assert_allclose(unpacked(answers["champion"]), wanted, rtol=1e-12)


def test_a_category_that_is_new_beside_numbers_alone_is_asked_of_older_trusted_rows(quiet: Path):
    """The first text of a project: the rows that were set apart before have none of it, and both models answer for them."""
    small, content = Changing(quiet, gates=GATES), rows(0, 1200)
    small.crowned(small.land(content[:900]))
    small.change(lambda said: said["contract"]["columns"].update(c={"type": "category", "nullable": True}))
    small.lake = Lake("small", small.settings.lake("small"), small.use.contract)
    kinds = np.where(content["b"] > 0, "high", "low")
    scores, _, verdicts = small.judged(small.land(content.assign(c=kinds)[900:], "b.csv"))
    assert scores.trusted is not None
    apart = pd.read_parquet(scores.trusted.answers)
    assert np.isfinite(unpacked(apart["challenger"])).all()
    assert np.isfinite(unpacked(apart["champion"])).all()
    assert "trusted" in verdicts


@pytest.mark.parametrize("labels", [["fair", "fraud"], ["yes", "no"]], ids=["other names", "turned round"])
def test_what_the_champion_says_of_a_class_counts_for_it_under_whatever_name(quiet: Path, labels: list[str]):
    """A person calls the two classes otherwise: the champion's probability of the positive value is still that."""
    small, content = Changing(quiet, gates=GATES), rows(0, 1200)
    small.crowned(small.land(content))
    small.change(lambda said: said.update(labels=labels))
    scores, answers, _ = small.judged(small.newest())
    there = of_the_rows(answers, content, small, small.newest())
    model = small.champion
    wanted = model.predict_proba(there[["a", "b"]])[:, model.classes_.tolist().index("yes")]
    np.testing.assert_allclose(unpacked(answers["champion"]), wanted, rtol=1e-12)
    assert scores.unasked == ""
    assert np.corrcoef(unpacked(answers["challenger"]), wanted)[0, 1] > 0.99


def test_what_a_champion_says_of_a_class_that_is_none_any_more_is_left_out(quiet: Path):
    """A label is taken out of several, with its rows: the champion's probabilities of the others are what they are."""
    content = rows(0, 1600)
    content["y"] = np.select([content["a"] < -0.5, content["a"] < 0.5, content["b"] < 1], ["u", "v", "w"], "x")
    contract = {"key": ["id"], "time": "at", "target": "y", "columns": {**COLUMNS, "y": {"type": "text"}}}
    small = Changing(quiet, gates=GATES, kind="multiclass", labels=["u", "v", "w", "x"], contract=contract)
    small.crowned(small.land(content[:800]), "multiclass")
    later = content[800:][content["y"][800:] != "x"]
    snapshot = small.land(later, "b.csv")
    small.change(lambda said: said.update(labels=["u", "v", "w"]))
    found = small.lake.snapshot(window=(later["at"].min().isoformat(), ""))
    assert found is not None
    _, answers, _ = small.judged(found.model_copy(update={"trusted": None}), "multiclass")
    there = of_the_rows(answers, content, small, snapshot)
    said = small.champion.predict_proba(there[["a", "b"]])
    assert small.champion.classes_.tolist() == ["u", "v", "w", "x"]
    np.testing.assert_allclose(unpacked(answers["champion"]), said[:, :3], rtol=1e-12)


def test_planted_rows_keep_what_only_the_champion_reads(quiet: Path):
    """Where nobody knows the truth rows are planted by today's columns; one that was taken out is that of the row that is stood for."""
    small = Changing(
        quiet,
        gates=GATES,
        kind="anomaly",
        contract={"key": ["id"], "time": "at", "columns": COLUMNS | {"c": {"type": "float"}}},
    )
    content = rows(0, 1200).drop(columns="y").assign(c=lambda frame: frame["a"] * 3)
    small.crowned(small.land(content), "anomaly")
    small.change(lambda said: said["contract"]["columns"].pop("c"))
    scores, answers, _ = small.judged(small.newest(), "anomaly")
    there = of_the_rows(answers, content, small, small.newest())
    half = len(answers) // 2
    wanted = -small.champion.score_samples(there[["a", "b", "c"]].head(half))
    np.testing.assert_allclose(unpacked(answers["champion"])[:half], wanted, rtol=1e-9)
    assert unpacked(answers["champion"])[half:].mean() > wanted.mean()  # a usual c beside another row's a is odd
    assert scores.unasked == ""


OTHERS = {
    "another target": (lambda said: said["contract"].update(target="z"), "it answers another question: its target is 'y', the project's is 'z'"),
    "another kind": (lambda said: said.update(kind="regression", metric="mae") or said["contract"].update(target="a"), "it answers another question: its kind is 'binary', the project's is 'regression'"),
    "the other class": (lambda said: said.update(positive=False), "it answers another question: its positive value is True, the project's is False"),
}  # fmt: skip


@pytest.mark.parametrize(("how", "why"), OTHERS.values(), ids=OTHERS)
def test_a_champion_that_answers_another_question_waits_for_a_person(quiet: Path, how: Callable, why: str):
    """There is nothing to compare, and nothing breaks: the gate holds the challenger and says why."""
    contract = {
        "key": ["id"],
        "time": "at",
        "target": "y",
        "columns": {**COLUMNS, "y": {"type": "bool"}, "z": {"type": "bool"}},
    }
    small = Changing(quiet, gates=GATES, contract=contract)
    content = rows(0, 1200).assign(z=lambda frame: frame["b"] > 0.3)
    small.crowned(small.land(content))
    small.change(how)
    kind = small.use.kind
    scores, _, verdicts = small.judged(small.newest(), kind)
    assert scores.unasked == why
    assert verdicts["champion"].reason == f"the champion cannot be asked: {why}. A person decides"
    assert [gate for gate, verdict in verdicts.items() if not verdict.passed] == ["champion"]
    assert verdicts["champion"].hold
    assert verdicts["trusted"].reason == verdicts["churn"].reason == f"the champion cannot be asked: {why}"


def test_rows_of_which_nobody_knows_whether_the_champion_saw_them_prove_nothing(quiet: Path):
    """The rows were split by a time that is none any more: as long as they have it it tells what is new to the champion, then a person decides."""
    columns = {**COLUMNS, "y": {"type": "bool"}, "booked": {"type": "datetime"}}
    contract = {"key": ["id"], "time": "at", "target": "y", "columns": columns}
    small = Changing(quiet, gates=GATES, contract=contract, split={"column": "booked"})
    content = rows(0, 1800).assign(booked=lambda frame: frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    small.crowned(small.land(content[:900]))
    between = small.land(content[900:1500], "b.csv")

    def without(said: dict[str, Any]) -> None:
        said["contract"]["columns"].pop("booked")
        said["split"]["column"] = "at"

    small.change(without)
    scores, answers, _ = small.judged(between)
    seen = small.manifest["seen_until"]
    there = of_the_rows(answers, content, small, between)
    assert scores.unasked == ""
    np.testing.assert_array_equal(answers["unseen"], (there["at"] > pd.Timestamp(seen)).to_numpy())
    scores, _, verdicts = small.judged(small.land(content[1500:].drop(columns="booked"), "c.csv"), run="three")
    assert scores.unasked.startswith("it was split by 'booked', which ")
    assert verdicts["champion"].hold


def test_a_window_of_about_the_champions_length_makes_a_refresh(quiet: Path):
    """A history that has grown offers other lengths: 21 days for 20 is a refresh, 40 days are a change."""
    small = Changing(quiet, gates=GATES)
    snapshot = small.land(rows(0, 1200))

    def fitted(days: float, run: str) -> Candidate:
        recipe = Recipe.model_validate({"family": {"kind": "logistic"}, "window": {"kind": "decay", "days": days}})
        return train.fit.fn("small", snapshot, recipe, run)

    small.crown("one", fitted(20, "one").digest, 1)
    scores = [evaluate.evaluate.fn("small", snapshot, fitted(days, f"{days}")) for days in (21, 40)]
    assert [each.is_refresh for each in scores] == [True, False]


def test_what_the_champion_is_worth_is_measured_on_rows_that_are_new_to_it(quiet: Path):
    """A snapshot of old rows: the champion learned from half of those that judge, and they do not count for it; of no other row nothing is said."""
    small, content = Changing(quiet, gates=GATES), rows(0, 1300)
    old, first = small.land(content[:500]), small.land(content[500:1100], "b.csv")
    small.crowned(small.land(content[1100:], "c.csv"))
    scores, answers, _ = small.judged(first)
    there = of_the_rows(answers, content, small, first)
    new = (there["at"] > pd.Timestamp(small.manifest["seen_until"])).to_numpy()
    assert 20 < new.sum() < len(new) - 20
    assert scores.champion is not None
    wanted = roc_auc_score(there["y"][new], unpacked(answers["champion"])[new])
    assert scores.champion.value == pytest.approx(wanted)
    scores, _, _ = small.judged(old, run="three")
    assert (scores.champion, scores.champion_version) == (None, 1)
