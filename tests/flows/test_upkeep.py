"""Upkeep: every project is tidied once a day by itself, and nothing waits for it."""

import datetime as dt
import sys
from pathlib import Path

import pytest

from flows.upkeep import Upkeep
from tasks.config.settings import Settings
from tests.tasks.test_ingest import land, rows, small

__all__ = ["small"]
NOW = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


class Place:
    """A home with one project, a clock that is set by hand, and a command that writes down whom it tidied."""

    def __init__(self, folder: Path, then: str = "") -> None:
        self.told, self.now, self.settings = folder / "told", NOW, Settings()
        says = f"import sys, time; open({str(self.told)!r}, 'a').write(sys.argv[1] + chr(10)); {then}"
        self.command = (sys.executable, "-c", says)
        self.upkeep = self.another()

    def another(self) -> Upkeep:
        """The upkeep of another recovery over the same home."""
        return Upkeep(self.settings, lambda: self.now, self.command)

    def look(self, hours: float = 0) -> list[str]:
        """One look so many hours later, and the end of what it began; gives whom it has tidied until then."""
        self.now += hours * HOUR
        self.upkeep.look()
        if self.upkeep._running is not None:
            self.upkeep._running[1].wait(60)
        return self.told.read_text().split() if self.told.exists() else []


def test_a_project_is_tidied_once_a_day(small, tmp_path: Path):
    """A day after it was first met, then each day once, however many look and whether or not they were started anew."""
    place = Place(tmp_path)
    assert [place.look(), place.look(23)] == [[], []]
    assert [place.look(1), place.look(1)] == [["small"], ["small"]]
    place.upkeep = place.another()
    assert [place.look(22), place.look(1), place.look(1)] == [["small"], ["small"] * 2, ["small"] * 2]


def test_s_10_a_clock_that_stood_a_year_ahead_costs_no_year(small, tmp_path: Path):
    """What is on record lies in the future: it is tidied at the next look, then each day once; a clock that is a second behind another's begins nothing (S-10)."""
    place = Place(tmp_path)
    place.look(24 * 365)
    assert place.look(24) == ["small"]
    assert [place.look(-24 * 366), place.look(23), place.look(1)] == [["small"] * 2, ["small"] * 2, ["small"] * 3]
    assert place.look(-1 / 3600) == ["small"] * 3


@pytest.mark.parametrize("is_restarted", [False, True])
def test_s_10_a_clock_that_jumps_a_year_ahead_removes_nothing(small, tmp_path: Path, caplog, is_restarted: bool):
    """It is said, and nothing is tidied by that clock before it has gone on for a day; put right sooner, it has cost nothing (S-10)."""
    place = Place(tmp_path)
    place.look()
    assert place.look(24) == ["small"]
    place.upkeep = place.another() if is_restarted else place.upkeep
    assert [place.look(24 * 365), place.look(23)] == [["small"]] * 2
    assert "small is tidied tomorrow: the last time was 365 days ago" in caplog.text
    assert place.look(-24 * 365) == ["small"] * 2


def test_s_10_a_clock_that_was_set_ahead_for_good_is_believed_after_a_day(small, tmp_path: Path):
    """As is that of a stack which was down for a month; a weekend puts nothing off (S-10)."""
    place = Place(tmp_path)
    place.look()
    assert [place.look(24 * 30), place.look(23), place.look(1)] == [[], [], ["small"]]
    assert place.look(24 * 3) == ["small"] * 2


def test_one_that_fails_is_said_and_tried_again_on_the_next_day(
    small, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The log names the project and what to say; looks meanwhile begin nothing."""
    place = Place(tmp_path, then="sys.exit(3)")
    place.look()
    assert [place.look(24), place.look(1), place.look(23)] == [["small"], ["small"], ["small"] * 2]
    assert "tidying small ended with exit code 3" in caplog.text


def test_a_look_waits_for_no_tidying_and_the_end_ends_it(small, tmp_path: Path):
    """While one is under way further looks return and begin none; it is ended with the recovery."""
    place = Place(tmp_path, then="time.sleep(600)")
    place.upkeep.look()
    place.now += 24 * HOUR
    place.upkeep.look()
    assert place.upkeep._running is not None
    process = place.upkeep._running[1]
    place.now += 24 * HOUR
    place.upkeep.look()
    assert place.upkeep._running[1] is process
    assert process.poll() is None
    place.upkeep.end()
    assert process.returncode


def test_what_is_begun_is_the_command_that_a_person_says(small, tmp_path: Path):
    """The real command, in a process of its own: small data files become one."""
    for number in range(3):
        land(small, tmp_path, f"{number}.csv", rows(number))
    place = Place(tmp_path)
    place.upkeep = Upkeep(place.settings, lambda: place.now)
    place.look()
    place.look(24)
    assert place.upkeep._running is not None
    assert place.upkeep._running[1].returncode == 0
    table = small.lake.landed
    assert [file.rows for file in table.files(table.open())] == [3]
