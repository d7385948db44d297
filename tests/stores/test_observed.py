"""What a project's champions answered: asked for over HTTP, or landed while one was champion."""

import datetime as dt
from functools import partial

import numpy as np
import pytest

from tasks import ingest
from tasks.config.project import Project, load
from tasks.config.settings import Settings
from tasks.ml.features import matrix
from tasks.ml.watching import older
from tasks.stores import observed
from tasks.stores.journal import Journal, Release
from tasks.stores.predictions import Predictions, Told
from tests.samples import PROJECT
from tests.tasks.test_ingest import land, rows, small

__all__ = ["small"]
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
look = partial(observed.observed, window=dt.timedelta(days=1), fewest=1)


@pytest.fixture
def use(small) -> Project:
    return small.use


def release(version, at):
    """Makes a version champion at a moment."""
    journal = Journal(Settings().journal())
    row = Release("small", len(journal.releases("small")) + 1, version, "d", "test", "test", at.isoformat(), "roc_auc", 0.9, 0.8, 0.95)  # fmt: skip
    journal.release(row)


def landing(small, at):
    """The door of the project with a clock of its own."""
    return ingest.Landings(small.use, Settings(), lambda: at)


def test_m_05_a_row_belongs_to_the_version_that_was_champion_when_it_landed(small, use, tmp_path):
    """Not to the one of its own time, nor to today's; what landed before the first champion belongs to nobody."""
    land(landing(small, NOON), tmp_path, "a.csv", rows(0, 1))
    release(1, NOON + HOUR)
    land(landing(small, NOON + 2 * HOUR), tmp_path, "b.csv", rows(2, 3))
    release(2, NOON + 3 * HOUR)
    land(landing(small, NOON + 4 * HOUR), tmp_path, "c.csv", rows(4))
    seen = look(use, Settings(), None, NOON + 5 * HOUR)
    assert seen.source == "landed"
    assert seen.version.tolist() == [0, 0, 1, 1, 2]
    assert seen.rows["age"].tolist() == [0, 1, 2, 3, 4]
    assert seen.rows["y"].tolist() == [True, False, True, False, True]
    assert seen.at.astype("datetime64[D]").astype(str).tolist() == [f"2026-01-0{day}" for day in range(1, 6)]
    assert seen.until == dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    earlier = observed.landed(use, Settings(), None, NOON + 3 * HOUR)
    assert earlier.version.tolist() == [0, 0, 1, 1, 0], "what landed later was not known yet"
    newest = look(use, Settings(), NOON + 5 * HOUR - dt.timedelta(days=1), NOON + 5 * HOUR)
    assert newest.rows["age"].tolist() == [3, 4], "a day, counted back from the newest row"


def test_the_newest_row_is_seen_to_the_microsecond(small, use, tmp_path):
    """The window ends with it, and holds it."""
    release(1, NOON)
    land(landing(small, NOON + HOUR), tmp_path, "a.csv", rows(0, 1) + rows(2, at="2026-01-07T10:00:00.123456Z"))
    seen = look(use, Settings(), NOON, NOON + 2 * HOUR)
    assert seen.until == dt.datetime(2026, 1, 7, 10, 0, 0, 123456, tzinfo=dt.UTC)
    assert (seen.rows["age"].tolist(), seen.at.max()) == ([2], observed.instant(seen.until))


def test_what_was_asked_for_comes_before_what_landed(small, use, tmp_path):
    """With the outcomes that had come by then, the versions that answered, and rows as models read them, whatever was left out."""
    settings = Settings()
    land(small, tmp_path, "a.csv", rows(0, 1))
    said = [("a", 1, {"age": 30}), ("b", 2, {"age": None}), ("c", 2, {})]
    records = [
        {"id": name, "at": (NOON + version * HOUR).isoformat(), "project": "small", "version": version, "ms": 0.5, "prediction": True, "row": row}
        for name, version, row in said
    ]  # fmt: skip
    assert Predictions(settings.home).append("small", NOON, records) == 0
    Told(settings.home).tell("small", NOON + 3 * HOUR, [("a", True, None)])
    Told(settings.home).tell("small", NOON + 6 * HOUR, [("b", False, None)])
    seen = look(use, settings, NOON, NOON + 5 * HOUR)
    assert (seen.source, seen.version.tolist(), seen.milliseconds.tolist()) == ("served", [1, 2, 2], [0.5] * 3)
    assert seen.rows["y"].tolist() == [True, None, None], "the second outcome was not known yet"
    assert np.array_equal(matrix(seen.rows, use.sent)["age"], [30, np.nan, np.nan], equal_nan=True)
    assert (seen.at - np.datetime64("2026-03-01T12", "us")).astype("timedelta64[h]").astype(int).tolist() == [1, 2, 2]
    assert len(seen.where(seen.version == 2)) == 2
    assert look(use, settings, NOON + 9 * HOUR, NOON + 10 * HOUR).source == "landed"
    few = look(use, settings, NOON, NOON + 5 * HOUR, fewest=4)
    assert few.source == "landed", "three predictions do not turn away from what landed"


def test_whole_numbers_of_several_classes_stay_whole_beside_a_row_that_waits(use, tmp_path):
    """A column of numbers with a gap would make 1.0 of 1, which is no class."""
    (tmp_path / "small").mkdir()
    text = PROJECT.format(name="small").replace("positive: true", "kind: multiclass\nlabels: ['1', '2', '3']")
    (tmp_path / "small" / "project.yaml").write_text(text.replace("y: {type: bool}", "y: {type: int}"))
    graded, settings = load(tmp_path / "small"), Settings()
    records = [
        {"id": name, "at": (NOON + place * HOUR).isoformat(), "project": "small", "version": 1, "ms": 0.5, "prediction": "1", "row": {}}
        for place, name in enumerate("abcd")
    ]  # fmt: skip
    assert Predictions(settings.home).append("small", NOON, records) == 0
    Told(settings.home).tell("small", NOON + HOUR, [("a", 1, None), ("b", "3", None), ("c", 2, None)])
    seen = observed.served(graded, settings, None, NOON + 9 * HOUR).rows
    assert graded.labelled(seen).tolist() == [True, True, True, False]
    assert graded.task.truth(seen[:3]).tolist() == [0, 2, 1]


def test_a_prediction_of_an_older_contract_is_read(use):
    """As it was sent: what was a text then and is a number now is a text still, and missing only for who wants a number."""
    settings = Settings()
    record = {
        "id": "a",
        "at": NOON.isoformat(),
        "project": "small",
        "version": 1,
        "ms": 0.5,
        "prediction": True,
        "row": {"age": "red"},
    }
    assert Predictions(settings.home).append("small", NOON, [record]) == 0
    seen = observed.served(use, settings, None, NOON + HOUR)
    assert seen.rows["age"].tolist() == ["red"]
    assert matrix(older.read(seen.rows, use.sent), use.sent)["age"].isna().tolist() == [True]


def test_of_a_project_without_rows_nothing_is_seen(use):
    """Neither asked for nor landed."""
    seen = look(use, Settings(), None, NOON)
    assert (len(seen), seen.rows.columns.tolist(), seen.until) == (0, ["age", "y", "at"], NOON)
