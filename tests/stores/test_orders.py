"""Orders: each once, kept until it is done, and answered by nobody but whose it is."""

import datetime as dt
import threading
from pathlib import Path

import pytest

from tasks.stores.journal import Journal, Order

NOW = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path / 'keepfit.db'}")


def order(
    journal: Journal, key: str = "a", does: str = "train", by: str = "hook", at: dt.datetime = NOW
) -> tuple[int, bool]:
    return journal.order(project="p", key=key, does=does, by=by, reason="r", at=at)  # ty: ignore[invalid-argument-type]


def test_the_same_order_twice_is_one(journal: Journal):
    """The second has the number of the first, whatever it says; another project's is another."""
    assert order(journal) == (1, True)
    assert order(journal, by="drift") == (1, False)
    assert journal.order(project="q", key="a", does="train", by="hook", reason="r", at=NOW)[1]
    (kept,) = journal.orders("p", "open")
    assert (kept.by, kept.state, kept.run, kept.tries, kept.at) == ("hook", "open", "", 0, NOW.isoformat())


def test_o_07_many_who_order_the_same_at_once_have_one_order(journal: Journal):
    """Five threads, twenty times each: one row, and one of them was told that it is new (O-07)."""
    gate, told = threading.Barrier(5), list[tuple[int, bool]]()

    def ask() -> None:
        gate.wait()
        told.extend(order(journal, f"{turn}") for turn in range(20))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.orders("p")) == 20
    assert (len(told), sum(is_new for _, is_new in told)) == (100, 20)


def test_an_answer_is_final(journal: Journal):
    """What was answered keeps its answer, and is not open any more."""
    order(journal)
    orders = journal.orders("p", "open")
    journal.answer(orders, "refused", "no")
    journal.answer(orders, "done", "yes")
    journal.run_for(orders, "another")
    assert journal.orders("p", "open") == []
    (kept,) = journal.orders("p")
    assert (kept.state, kept.said, kept.run) == ("refused", "no", "")


def test_a_run_that_handed_on_answers_for_nobody(journal: Journal):
    """An order that was given to a follow-up is not done when the run before it ends."""
    order(journal)
    journal.run_for(journal.orders("p"), "first")
    seen = journal.orders("p", "open")
    journal.run_for(seen, "follow-up")
    journal.answer(seen, "done", "by the first", run="first")
    journal.lost(seen, "first", "no", most=1)
    (kept,) = journal.orders("p")
    assert (kept.state, kept.run, kept.tries) == ("open", "follow-up", 0)


def test_an_order_whose_runs_are_lost_fails_after_so_many(journal: Journal):
    """Twice it wants another run; the third time it says why it has failed."""
    order(journal)
    seen = list[Order]()
    for turn in range(3):
        journal.run_for(journal.orders("p", "open"), f"run {turn}")
        journal.lost(journal.orders("p", "open"), f"run {turn}", "three were lost", most=3)
        seen += journal.orders("p")
    assert [(each.state, each.tries, each.run, each.said) for each in seen] == [
        ("open", 1, "", ""), ("open", 2, "", ""), ("failed", 3, "", "three were lost"),
    ]  # fmt: skip


def test_alarms_are_those_that_wanted_a_training(journal: Journal):
    """Drift that ordered one and the breaker's refusal count; what is only told and what others ordered do not."""
    told = [
        ("drift", "train"),
        ("drift", "tell"),
        ("hook", "train"),
        ("breaker", "tell"),
        ("decay", "train"),
        ("budget", "tell"),
    ]
    for place, (by, does) in enumerate(told):
        order(journal, f"{place}", does, by, NOW + dt.timedelta(hours=place))
    wanted = [(NOW + dt.timedelta(hours=place)).isoformat() for place in (0, 3, 4)]
    assert journal.alarmed("p", {"drift", "decay"}) == wanted


def test_an_order_is_found_by_its_number(journal: Journal):
    """In its own project alone."""
    number, _ = order(journal)
    found = journal.ordered("p", number)
    assert found is not None
    assert found.key == "a"
    assert journal.ordered("q", number) is journal.ordered("p", 99) is None


def test_rows_that_landed_since_a_version_are_counted(journal: Journal):
    """Outcomes are no rows; the time of the newest is told for each of the two."""
    told = [(1, None, 10), (2, None, 20), (None, 1, 5), (3, None, 0), (4, None, 30)]
    for place, (version, outcomes, landed) in enumerate(told):
        row = {
            "project": "p", "batch": f"{place}", "name": "f", "state": "landed", "reason": "", "arrived": 9, "landed": landed, "quarantined": 0,
            "known": 0, "at": (NOW + dt.timedelta(days=place)).isoformat(), "version": version, "outcomes": outcomes, "kind": "outcomes" if outcomes else "rows",
        }  # fmt: skip
        journal.finish("p", [row], None)
    assert [journal.landed_since("p", version) for version in (0, 1, 2, 4)] == [60, 50, 30, 0]
    assert journal.last_landed("p", "rows") == (NOW + dt.timedelta(days=4)).isoformat()
    assert journal.last_landed("p", "outcomes") == (NOW + dt.timedelta(days=2)).isoformat()
    assert journal.last_landed("q", "rows") is None
