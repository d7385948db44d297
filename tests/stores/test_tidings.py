"""Tidings come after every release, and seldom without one."""

import pytest

from tasks.stores.journal import Journal, Release, Rollout
from tasks.stores.tidings import LATEST, Tidings


def release(generation):
    """A row of the journal."""
    at = "2026-01-01T00:00:00+00:00"
    return Release("flights", generation, 1, "d", "test", "test", at, "roc_auc", value=0.9, low=0.8, high=0.95)


def test_each_release_is_heard_of_once(tmp_path):
    """After a release there are tidings for everybody who follows, and then none until the next one."""
    url = f"sqlite:///{tmp_path / 'keepfit.db'}"
    journal = Journal(url)
    followers = [Tidings(url, clock=lambda: 0.0) for _ in range(2)]
    assert [one.have_come() for one in followers] == [True, True]
    for generation in range(1, 4):
        assert [one.have_come() for one in followers] == [False, False]
        journal.release(release(generation))
        assert [one.have_come() for one in followers] == [True, True]


def test_each_release_is_heard_of_once_on_a_server(database):
    """The same in PostgreSQL; and each move of a rollout, so that a challenger which is stopped scores no longer than on a file."""
    journal = Journal(database)
    tidings = Tidings(database, clock=lambda: 0.0)
    assert [tidings.have_come(), tidings.have_come()] == [True, False]
    journal.release(release(1))
    assert [tidings.have_come(), tidings.have_come()] == [True, False]
    at = "2026-01-01T00:00:00+00:00"
    begun = journal.begin_rollout(
        Rollout(
            "flights", 2, "d", 1, "d", {}, "a", "r", began=at, phase="shadow", since=at, said="nothing was scored yet"
        )
    )
    assert [tidings.have_come(), tidings.have_come()] == [True, False]
    journal.move_rollout(begun, phase="undone", scores=False)
    assert [tidings.have_come(), tidings.have_come()] == [True, False]


def test_after_a_while_there_are_tidings_in_any_case(tmp_path):
    """What was refused is tried again, and a change that was not heard of is found."""
    url = f"sqlite:///{tmp_path / 'keepfit.db'}"
    Journal(url)
    now = 0.0
    tidings = Tidings(url, clock=lambda: now)
    assert tidings.have_come()
    now = LATEST / 2
    assert not tidings.have_come()
    now = LATEST
    assert tidings.have_come()


@pytest.mark.parametrize(
    "url", ["sqlite:///{folder}/none.db", "sqlite:///{folder}", "postgresql+psycopg://127.0.0.1:9/none"]
)
def test_what_cannot_be_looked_at_is_looked_at(tmp_path, url):
    """A journal that is away always has tidings: whoever looks then says what is wrong."""
    tidings = Tidings(url.format(folder=tmp_path), clock=lambda: 0.0)
    assert [tidings.have_come() for _ in range(3)] == [True] * 3
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_its_place_is_tidings(tmp_path):
    """A journal that was restored from a copy is followed, and not the removed one."""
    (tmp_path / "copy").mkdir()
    here, copy = tmp_path / "keepfit.db", tmp_path / "copy" / "keepfit.db"
    Journal(f"sqlite:///{here}")
    restored = Journal(f"sqlite:///{copy}")
    tidings = Tidings(f"sqlite:///{here}", clock=lambda: 0.0)
    assert [tidings.have_come(), tidings.have_come()] == [True, False]
    copy.replace(here)
    assert tidings.have_come()
    assert not tidings.have_come()
    restored.engine.dispose()
