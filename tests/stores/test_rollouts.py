"""Rollouts in the journal: one at a time, moved by whoever saw the newest state, and never a champion by themselves."""

import dataclasses
from pathlib import Path

import pytest

from tasks.config.errors import ConflictError
from tasks.stores.journal import Journal, Rollout
from tests.stores.test_journal import FIRST, at_once

BEGUN = Rollout(
    project="p", version=2, digest="d2", against=1, against_digest="d1", plan={"canary": {"share": 0.1, "key": ["id"]}}, actor="a",
    reason="r", began="2026-01-01T00:00:00+00:00", phase="shadow", since="2026-01-01T00:00:00+00:00",
)  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    """The journal in a file, and on a real server."""
    if request.param == "sqlite":
        return Journal(f"sqlite:///{tmp_path / 'keepfit.db'}")
    return Journal(request.getfixturevalue("database"))


def test_a_rollout_comes_back_as_it_was_recorded(journal: Journal):
    """With its plan, its evidence and each change; other projects have their own."""
    begun = journal.begin_rollout(BEGUN)
    moved = journal.move_rollout(begun, phase="canary", evidence={"scored": 7}, said="all is well")
    assert moved == dataclasses.replace(
        BEGUN, id=begun.id, revision=1, phase="canary", evidence={"scored": 7}, said="all is well"
    )
    other = journal.begin_rollout(dataclasses.replace(BEGUN, project="q"))
    assert journal.rollout("p") == moved
    assert journal.open_rollouts() == {"p": moved, "q": other}


def test_o_08_of_twenty_that_begin_at_once_one_does(journal: Journal):
    """The others get a conflict; once it has ended the next one may begin, and both stay on record."""
    ended = at_once(lambda number: journal.begin_rollout(dataclasses.replace(BEGUN, version=number)))
    assert sum(isinstance(each, ConflictError) for each in ended) == 19
    (begun,) = journal.rollouts("p")
    journal.move_rollout(begun, phase="passed")
    assert journal.rollout("p") is None
    journal.begin_rollout(BEGUN)
    assert [each.phase for each in journal.rollouts("p")] == ["passed", "shadow"]


def test_o_08_of_twenty_that_move_it_at_once_one_does(journal: Journal):
    """Whoever saw an older state changes nothing."""
    begun = journal.begin_rollout(BEGUN)
    ended = at_once(lambda number: journal.move_rollout(begun, said=str(number)))
    (moved,) = [each for each in ended if isinstance(each, Rollout)]
    assert journal.rollout("p") == moved
    assert moved.revision == 1


def test_a_challenger_in_its_canary_is_no_champion(journal: Journal):
    """The champion is who was released last, whatever a rollout says (P3)."""
    journal.release(FIRST)
    begun = journal.begin_rollout(BEGUN)
    for phase in ("shadow", "canary", "probation", "passed", "undone"):
        begun = journal.move_rollout(begun, phase=phase)
        assert journal.champions() == {"p": FIRST}
