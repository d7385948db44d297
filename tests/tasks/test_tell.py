"""Outcomes in a file that name predictions are known of those predictions, as outcomes over HTTP are."""

import datetime as dt

import pytest

from tasks.config.errors import BatchError
from tasks.config.settings import Settings
from tasks.stores.served import Serving
from tasks.tell import by_prediction, tell
from tests.samples import write_rows
from tests.tasks.test_ingest import small

__all__ = ["small"]
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def test_outcomes_of_a_file_are_known_of_their_predictions(small, tmp_path):
    """Each outcome is told or refused with its rule; a second time changes nothing; one without a time became known when it came."""
    settings = Settings()
    rows = [
        {"prediction_id": "a", "y": "t", "outcome_at": "2026-02-01T00:00:00Z"}, {"prediction_id": "b", "y": "f", "outcome_at": ""},
        {"prediction_id": "c", "y": "maybe", "outcome_at": ""}, {"prediction_id": "", "y": "t", "outcome_at": ""},
    ]  # fmt: skip
    path = write_rows(tmp_path / "late.csv", rows)
    assert by_prediction(small.use, path)
    for _ in range(2):
        done = tell(small.use, path, settings, lambda: NOON)
        assert (done["state"], done["arrived"], done["told"], done["refused"]) == ("told", 4, 2, 2)
        assert done["rules"].keys() == {"y is no bool", "prediction_id is empty"}
        found = dict(Serving("small", settings).told("abc"))
        assert {name: (one.value, one.at) for name, one in found.items()} == {
            "a": (True, dt.datetime(2026, 2, 1, tzinfo=dt.UTC)), "b": (False, NOON),
        }  # fmt: skip


def test_outcomes_by_key_are_told_apart_and_a_missing_column_is_named(small, tmp_path):
    """A file with the row's key names rows; one without the target is refused in a sentence."""
    assert not by_prediction(small.use, write_rows(tmp_path / "key.csv", [{"id": "1", "y": "t"}]))
    with pytest.raises(BatchError, match="no column 'y'"):
        tell(small.use, write_rows(tmp_path / "bad.csv", [{"prediction_id": "1"}]), Settings())
