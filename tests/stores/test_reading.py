"""What the logs have of a rollout is read once, and then read on, whatever else happens to the logs."""

import datetime as dt
import json

import pytest

from tasks.config.settings import Settings
from tasks.ml.rollout import Outcome
from tasks.stores.predictions import Told
from tasks.stores.reading import Reading
from tasks.stores.shadows import Shadows
from tasks.tidy import Tidying
from tests.tasks.test_ingest import small

__all__ = ["small"]
DAY = dt.timedelta(days=1)
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
SAID = [{"prediction": "yes", "probabilities": {"no": 0.2, "yes": 0.8}}]


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path, projects=tmp_path / "projects")


def compare(settings, at, *names):
    """Logs a request of a row for each name."""
    records = [
        {"at": at.isoformat(), "project": "small", "answered": 2, "beside": 1, "ids": [name], "said": SAID, "thought": None, "ms": [1.5, 2.0]}
        for name in names
    ]  # fmt: skip
    assert Shadows(settings.home).append("small", at, records) == 0


def tell(settings, came, *names, value=True):
    Told(settings.home).tell("small", came, [(name, value, None) for name in names])


def compared(reading):
    return [name for records in reading.compared() for record in records for name in record["ids"]]


def told(reading):
    return [outcome.id for outcomes in reading.told() for outcome in outcomes]


def test_records_come_as_they_were_written(settings):
    """With a moment for `at`; outcomes with their value and when they were told."""
    compare(settings, NOON, "a")
    tell(settings, NOON + DAY, "a", value="yes")
    reading = Reading("small", NOON, settings)
    assert list(reading.compared()) == [
        [{"at": NOON, "answered": 2, "beside": 1, "ids": ["a"], "said": SAID, "thought": None, "ms": (1.5, 2.0)}]
    ]
    assert list(reading.told()) == [[Outcome("a", "yes", NOON + DAY)]]


def test_what_was_read_is_not_read_again(settings):
    """Only what came since, also in files that are new, and from the moment on at which the rollout began."""
    compare(settings, NOON - dt.timedelta(hours=1), "before")
    compare(settings, NOON - DAY, "long before")
    compare(settings, NOON, "a", "b")
    tell(settings, NOON - dt.timedelta(hours=1), "before")
    tell(settings, NOON, "a")
    reading = Reading("small", NOON, settings)
    assert (compared(reading), told(reading)) == (["a", "b"], ["a"])
    assert (compared(reading), told(reading)) == ([], [])
    compare(settings, NOON, "c")
    compare(settings, NOON + DAY, "d")
    tell(settings, NOON + DAY, "c", "d")
    assert (compared(reading), told(reading)) == (["c", "d"], ["c", "d"])


def test_a_line_that_is_being_written_comes_when_it_is_whole(settings):
    """And what a crash has torn never does."""
    compare(settings, NOON, "a")
    path = settings.home / "shadows" / "small" / "2026-03-01.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"at": "torn\n' + whole[:-9])
    reading = Reading("small", NOON, settings)
    assert compared(reading) == ["a"]
    with path.open("ab") as file:
        file.write(whole[-9:])
    assert (compared(reading), compared(reading)) == (["a"], [])


def test_who_leaves_in_between_goes_on_behind_it(settings, monkeypatch):
    """Each part comes once, whether the reading was ended or is begun again."""
    monkeypatch.setattr("tasks.stores.reading.PART", 400)
    for number in range(9):
        compare(settings, NOON, f"{number}")
    reading = Reading("small", NOON, settings)
    some = [record["ids"][0] for record in next(reading.compared())]
    assert 0 < len(some) < 9
    assert [*some, *compared(reading)] == [f"{number}" for number in range(9)]


def test_a_log_that_was_removed_by_hand_is_read_from_its_beginning(settings):
    """It is shorter than what was read of it."""
    compare(settings, NOON, "a", "b")
    reading = Reading("small", NOON, settings)
    compared(reading)
    (settings.home / "shadows" / "small" / "2026-03-01.jsonl").unlink()
    assert compared(reading) == []
    compare(settings, NOON, "c")
    assert (compared(reading), compared(reading)) == (["c"], [])


@pytest.mark.parametrize("keep_days", [30, 0])
def test_outcomes_come_once_when_they_go_into_the_lake(small, keep_days):
    """Before, between or after: from the log or from the table, for whoever reads on and for whoever begins anew."""
    settings = Settings()
    tell(settings, NOON - DAY, "long before")
    tell(settings, NOON, "a")
    early = Reading("small", NOON, settings)
    assert told(early) == ["a"]
    Tidying(small.use, settings, lambda: NOON + 3 * DAY).tidy(keep_days)
    assert bool(list(settings.home.glob("told/small/*"))) == bool(keep_days)
    tell(settings, NOON + 3 * DAY, "b")
    assert (told(early), told(Reading("small", NOON, settings))) == (["b"], ["a", "b"])


def test_whoever_says_that_nothing_came_true_has_said_nothing(settings):
    """A null is no outcome."""
    tell(settings, NOON, "a", value=None)
    assert json.loads((settings.home / "told" / "small" / "2026-03-01.jsonl").read_text())["value"] == "null"
    assert told(Reading("small", NOON, settings)) == []
