"""Gating: which of a project's earlier trainings say what is plausible."""

import datetime as dt

from tasks.gate import history, looks
from tasks.ml.metrics import Estimate
from tasks.stores.journal import Journal

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


def test_only_challengers_held_against_this_champion_are_looks(tmp_path):
    """Released, refused or held alike; not those against another champion, without one, or that were never judged."""
    journal = Journal(f"sqlite:///{tmp_path}/keepfit.db")
    for state, version in (("refused", 1), ("released", 1), ("held", 2), ("refused", 2), ("refused", None)):
        ended(journal, state, measured(0.7) | {"champion": {"version": version} if version else None})
    ended(journal, "refused", {"run": "declined before it was measured"})
    journal.start_training(project="small", trigger="now", event=False, snapshot="s", config="c", at=NOW)
    trainings = journal.trainings("small")
    assert [looks(trainings, version) for version in (1, 2, 3, None)] == [2, 2, 0, 0]
