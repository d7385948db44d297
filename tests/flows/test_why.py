"""`keepfit why`: what was decided last, and what every gate answered."""

import datetime as dt
import json
import os
import subprocess
import sys

import pytest

from flows import looking
from flows.commands import evidence
from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings
from tasks.ml.gates import Verdict
from tasks.stores.journal import Journal

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
VERDICTS = [
    Verdict(gate="champion", passed=False, reason="a tie keeps the champion", value=0.001, low=-0.002, high=0.004, bar=0, before=0.9, after=0.901, power=0.003, alpha=0.03),
    Verdict(gate="churn", passed=False, hold=True, reason="half of the decisions become others", value=0.5, bar=0.3, wanted="below"),
]  # fmt: skip


def trained(journal: Journal, day: int, state: str, version: int | None = None) -> None:
    """A training that ended so, that day."""
    at = START + dt.timedelta(days=day)
    number = journal.start_training(
        project="thyroid", trigger="by hand", event=False, snapshot="s", config="c", at=at, rows=f"v{day}-abc"
    )
    detail = {
        "metric": "roc_auc",
        "value": 0.9,
        "low": 0.8,
        "high": 0.95,
        "verdicts": [one.model_dump() for one in VERDICTS],
    }
    journal.end_training(number, state=state, reason=f"day {day}", at=at, version=version, detail=detail)


def arrived(journal: Journal, day: int, state: str) -> None:
    """A batch that arrived that day."""
    journal.finish("thyroid", [{
        "project": "thyroid", "batch": f"{day}", "name": f"{day}.csv", "state": state, "reason": f"labels inverted on day {day}", "arrived": 9,
        "landed": 0, "quarantined": 0, "known": 0, "at": (START + dt.timedelta(days=day)).isoformat(),
    }], None)  # fmt: skip


@pytest.fixture
def journal(settings: Settings) -> Journal:
    return Journal(settings.journal())


def test_the_newest_decision_is_told_whatever_it_was(settings, journal):
    """A release, a refusal, a batch that is held, in turn; a batch that landed decides nothing."""
    for day, state, version in ((1, "released", 1), (2, "refused", None)):
        trained(journal, day, state, version)
        found = looking.why("thyroid", None, settings)
        assert (found["decision"], found["state"], found["version"]) == ("training", state, version)
        assert [verdict["gate"] for verdict in found["verdicts"]] == ["champion", "churn"]
    arrived(journal, 3, "held")
    arrived(journal, 4, "landed")
    found = looking.why("thyroid", None, settings)
    assert (found["decision"], found["state"], found["name"], found["reason"]) == (
        "batch",
        "held",
        "3.csv",
        "labels inverted on day 3",
    )
    trained(journal, 5, "held", 2)
    assert looking.why("thyroid", None, settings)["version"] == 2


def test_s_10_the_newest_of_held_batches_and_of_trainings_is_told_where_the_clock_went_back(settings, journal):
    """What was held last, and what was trained last, whatever the times of those before say (S-10)."""
    arrived(journal, 400, "held")
    arrived(journal, 3, "held")
    assert looking.why("thyroid", None, settings)["name"] == "3.csv"
    trained(journal, 500, "refused")
    trained(journal, 4, "refused")
    assert looking.why("thyroid", None, settings)["reason"] == "day 4"


def test_a_training_under_way_has_decided_nothing(settings, journal):
    """The one before it is told."""
    trained(journal, 1, "refused")
    journal.start_training(
        project="thyroid", trigger="now", event=False, snapshot="s", config="c", at=START + dt.timedelta(days=9)
    )
    assert looking.why("thyroid", None, settings)["reason"] == "day 1"


def test_a_version_is_told_by_its_own_decision(settings, journal):
    """And one that there is not is named beside those that there are."""
    trained(journal, 1, "released", 1)
    trained(journal, 2, "released", 2)
    assert looking.why("thyroid", 1, settings)["reason"] == "day 1"
    with pytest.raises(KeepfitError, match=r"thyroid has no version 7. Versions on record: 1, 2\."):
        looking.why("thyroid", 7, settings)


def test_where_nothing_was_decided_the_next_move_is_said(settings):
    """A misspelt project is told from one without a past."""
    with pytest.raises(
        KeepfitError, match=r"Nothing was decided about thyroid yet\. Land rows, then say `keepfit train thyroid`"
    ):
        looking.why("thyroid", None, settings)
    with pytest.raises(KeepfitError, match="no project 'tyroid'"):
        looking.why("tyroid", None, settings)


def test_the_command_prints_one_object_or_the_table(settings, journal, capsys):
    """With numbers before and after, interval, bar and power; the question was answered, so the exit code is 0."""
    trained(journal, 1, "refused")
    assert evidence.why("thyroid", as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdicts"][0]["power"] == 0.003
    assert said["state"] == "refused"
    environment = os.environ | {"COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "why", "thyroid"], capture_output=True, text=True, env=environment, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.strip().startswith("champion"))
    assert all(text in row for text in ("no", "0.9000", "0.9010", "-0.0020 … 0.0040 (α 0.03)", "> 0", "0.0030"))
    assert "a person decides" in done.stdout
    assert "champion: a tie keeps the champion" in done.stdout.splitlines()


@pytest.mark.parametrize("decided", ["training", "batch"])
def test_a_decision_without_verdicts_has_no_table(settings, journal, capsys, decided):
    """A training that failed before any gate, and a batch: what it was, and why."""
    if decided == "training":
        number = journal.start_training(
            project="thyroid", trigger="t", event=False, snapshot="s", config="c", at=START, rows="v1-abc"
        )
        journal.end_training(number, state="failed", reason="labels inverted on day 0", at=START)
    else:
        arrived(journal, 0, "held")
    assert evidence.why("thyroid") == 0
    state = {"training": "failed", "batch": "held"}[decided]
    assert capsys.readouterr().out.splitlines() == [
        f"thyroid {decided}, 2026-01-01T00:00:00: {state}", "labels inverted on day 0"
    ]  # fmt: skip
