"""Gating: which of a project's earlier trainings say what is plausible."""

import datetime as dt
import subprocess
from pathlib import Path

import pytest

from tasks import gate, train
from tasks.config import plans, provenance
from tasks.gate import history, looks
from tasks.ml.gates import ChangePlan
from tasks.ml.metrics import Estimate
from tasks.ml.recipe import Recipe
from tasks.stores.journal import Journal, Release
from tests.tasks.test_trusted import Small, quiet, rows, small

__all__ = ["quiet", "small"]  # fixtures

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def ended(journal: Journal, state: str, detail: dict) -> None:
    """A training that ended so."""
    number = journal.start_training(project="small", trigger="by hand", event=False, snapshot="s", config="c", at=NOW)
    journal.end_training(number, state=state, reason="a test", at=NOW, detail=detail)


def measured(value: float, plausible: bool | None = True, metric: str = "roc_auc") -> dict:
    """What register writes down about a challenger; None is a project without that gate."""
    verdicts = [{"gate": "champion", "passed": False}]
    verdicts += [] if plausible is None else [{"gate": "plausible", "passed": plausible}]
    return {"metric": metric, "value": value, "low": value - 0.01, "high": value + 0.01, "verdicts": verdicts}


def test_earlier_challengers_of_the_same_metric_are_the_history(tmp_path):
    """Released or refused, oldest first; without those that were not measured, measured otherwise, or too good to be true."""
    journal = Journal(f"sqlite:///{tmp_path}/keepfit.db")
    ended(journal, "released", measured(0.70))
    ended(journal, "refused", measured(0.69, plausible=None))
    ended(journal, "refused", {"run": "declined before it was measured"})
    ended(journal, "refused", measured(0.99, plausible=False))
    ended(journal, "released", measured(0.4, metric="log_loss"))
    ended(journal, "refused", measured(float("nan")))
    journal.start_training(project="small", trigger="now", event=False, snapshot="s", config="c", at=NOW)
    found = history(journal.trainings("small"), "roc_auc")
    assert [estimate.value for estimate in found] == [0.70, 0.69]
    assert found[0] == Estimate(value=0.70, low=0.70 - 0.01, high=0.70 + 0.01)


def test_a_snapshot_whose_rows_are_others_now_is_altered(small: Small):
    """The table still names the rows that were learned from; where it does not, or they were erased, the inputs say how."""
    snapshot = small.land(rows(0, 300))
    made = gate.made(small.lake, snapshot)
    assert (made.snapshot, made.altered, made.lock) == (snapshot.name, "", provenance.lock())
    other = gate.made(small.lake, snapshot.model_copy(update={"digest": "0" * 64}))
    assert other.altered == f"its rows have the digest {snapshot.digest[:12]} now, 000000000000 were learned from"
    for path in (Path(small.settings.lake("small")) / "rows").glob("*.parquet"):
        path.unlink()
    assert "cannot be read (FileNotFoundError)" in gate.made(small.lake, snapshot).altered


# -- the change plan ---------------------------------------------------------------------------------------------------
def planned(small: Small, text: str) -> None:
    """A signed plan beside the project."""
    (small.settings.projects / "small" / plans.FILE).write_text(text)
    plans.sign(small.use, small.settings, "Ada", NOW)


def test_a_challenger_outside_of_the_signed_plan_waits_for_a_person(small: Small):
    """Through the real steps: inside it passes; then three limits at once hold it, each with what was met."""
    planned(small, "families: [logistic]\nfeatures: [a, b]\nfloors: {roc_auc: 0.6}\ndrift: 0.5\n")
    shift = rows(600, 150).assign(b=lambda frame: frame["b"] + 5)
    snapshot = small.land(rows(0, 600))
    inside = {verdict.gate: verdict for verdict in small.train(snapshot, "one")[0]}["plan"]
    assert (inside.passed, inside.reason) == (True, "inside of the change plan; Ada signed it on 2026-01-01")
    planned(small, "families: [random_forest]\nfeatures: [a]\ndrift: 0.5\n")
    outside = {verdict.gate: verdict for verdict in small.train(small.land(shift, "b.csv"), "two")[0]}["plan"]
    assert (outside.passed, outside.hold, outside.value) == (False, True, 3)
    assert "the family is logistic; allowed are random_forest" in outside.reason
    assert "1 of 2 columns that it reads are not allowed: b" in outside.reason
    assert "the drift of 'b' is " in outside.reason


def test_models_that_went_live_by_themselves_count_for_30_days(small: Small):
    """What a person released, and what is older, does not."""
    now = dt.datetime.now(dt.UTC)
    released = [
        Release("small", number, number, "d", actor, "r", (now - dt.timedelta(days=days)).isoformat(), "roc_auc", 0.9, 0.8, 1.0)
        for number, (actor, days) in enumerate([("train: a batch", 31), ("train: a batch", 29), ("Ada", 2), ("train: by hand", 1)], 1)
    ]  # fmt: skip
    snapshot = small.land(rows(0, 300))
    candidate = train.fit.fn("small", snapshot, Recipe.usual("logistic"), "run")
    found = gate.change(small.use, ChangePlan(retrains=3), snapshot, candidate, {"roc_auc": 0.9}, released)
    assert (found.family, found.window, found.days, found.features) == ("logistic", "all", None, ("a", "b"))
    assert (found.retrains, found.drift, found.measured) == (2, None, {"roc_auc": 0.9})


# -- who is asked ------------------------------------------------------------------------------------------------------
def test_no_process_starts_where_no_gate_looks_at_it(quiet: Path, monkeypatch):
    """A project that asks for neither serving nor parity does not pay for them."""
    small = Small(quiet, gates=[{"kind": "sound"}, {"kind": "inputs"}])
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    verdicts, _ = small.train(small.land(rows(0, 300)), "run")
    assert [verdict.gate for verdict in verdicts] == ["sound", "inputs"]


def test_only_challengers_held_against_this_champion_are_looks(tmp_path):
    """Released, refused or held alike; not those against another champion, without one, or that were never judged."""
    journal = Journal(f"sqlite:///{tmp_path}/keepfit.db")
    for state, version in (("refused", 1), ("released", 1), ("held", 2), ("refused", 2), ("refused", None)):
        ended(journal, state, measured(0.7) | {"champion": {"version": version} if version else None})
    ended(journal, "refused", {"run": "declined before it was measured"})
    journal.start_training(project="small", trigger="now", event=False, snapshot="s", config="c", at=NOW)
    trainings = journal.trainings("small")
    assert [looks(trainings, version) for version in (1, 2, 3, None)] == [2, 2, 0, 0]
