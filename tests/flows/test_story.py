"""The fraud story: what it asks of its project, how recall is counted, and the whole of it on a stack of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows import story
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Settings of a story; the environment is as before afterwards."""
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(REPOSITORY / "deployments"))
    return story.settings_of(Settings())


def test_the_story_has_a_home_and_a_project_of_its_own(played, tmp_path):
    """A copy of the shipped project that says what the story says; contract and gates stay, and the shipped one is not touched."""
    assert played.home == tmp_path / "story"
    use, shipped = Project.named("fraud", played), Project.named("fraud", Settings(projects=REPOSITORY / "deployments"))
    assert (use.contract, use.gates, use.metric, use.floor) == (
        shipped.contract,
        shipped.gates,
        shipped.metric,
        shipped.floor,
    )
    assert (use.alerts, [policy.kind for policy in use.retrain]) == (story.BUDGET, ["decay", "drift", "cron"])


def test_recall_is_counted_within_the_budget():
    """Of 100 payments three are looked at: those that look worst."""
    truth, answers = np.zeros(100), np.linspace(0, 1, 100)
    truth[[99, 98, 50, 10]] = 1
    assert story._caught(truth, answers) == 0.5


def test_an_alarm_that_stands_is_not_waited_for():
    """What an earlier week's look found asks for no training in this week, and is not in its row; what is found in it does, and is."""
    alarms = [
        {"kind": "inputs", "class": "retrain"},
        {"kind": "performance", "class": "retrain"},
        {"kind": "volume", "class": "mend"},
    ]
    asking = [
        story._asking({"detail": {"alarms": alarms, **more}})
        for more in ({"repeated": ["inputs"]}, {"repeated": []}, {})
    ]
    assert asking == [["performance"], ["inputs", "performance"], ["inputs", "performance"]]


@pytest.mark.parametrize(("late", "state"), [(0.7, "done"), (0.5, "failed")])
def test_the_story_ends_well_when_recall_is_back(late, state):
    """Nearly what it was before the pattern, on average of the last two weeks."""
    weeks = [
        {"week": 9, "champion": 0.75, "frozen": 0.75},
        *({"week": week, "champion": late, "frozen": 0.2} for week in (15, 16)),
    ]
    ended = story._ended(weeks)
    assert (ended["state"], ended["before"], ended["after"], ended["without"]) == (state, 0.75, late, 0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_story_is_played(tmp_path):
    """A new pattern appears; with no hand on it the alarm, the training, the gates and the release follow, and recall comes back."""
    told = {"KEEPFIT_HOME": str(tmp_path), "KEEPFIT_PROJECTS": str(REPOSITORY / "deployments")}
    command = [Path(sys.executable).with_name("keepfit"), "demo", "fraud", "--json"]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["state"] == "done"
    assert result["without"] < 0.5 * result["after"]
    released = [week for week in result["weeks"] if week["decision"] == "released"]
    assert all("performance" in week["alarm"] for week in released)
    assert {week["version"] for week in result["weeks"]} >= {1, released[0]["made"]}
