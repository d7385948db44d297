"""Gating: which of a project's earlier trainings say what is plausible."""

import datetime as dt
from pathlib import Path

from tasks import gate
from tasks.config import provenance
from tasks.gate import history
from tasks.ml.metrics import Estimate
from tasks.stores.journal import Journal
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
