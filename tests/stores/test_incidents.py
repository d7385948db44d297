"""Incidents in the journal: one of a class is open at a time, its messages are queued with it, and nothing is told twice."""

import datetime as dt

import pytest

from tasks.config.errors import ConflictError
from tasks.ml.watching.alarm import Alarm
from tasks.ml.watching.incident import Seen, closed, described, joined
from tasks.stores import durable
from tasks.stores.journal import Journal

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request, tmp_path):
    """A journal, empty, in either kind of database."""
    url = f"sqlite:///{tmp_path / 'keepfit.db'}" if request.param == "sqlite" else request.getfixturevalue("database")
    return Journal(url)


def incident(what="retrain", at=NOON, project="fraud"):
    alarm = Alarm(kind="inputs", what=what, features=("amount",), level=0.4, threshold=0.1, says="amount moved")
    return described(joined((), [alarm], Seen(project, 7, "recall"), at)[0].incident)


def test_what_is_recorded_is_read_again_and_a_second_record_replaces_the_first(journal):
    """An incident that goes on is one record; those of a project and those in a state are found."""
    first = incident()
    journal.record_incident(first, NOON)
    grown = first.model_copy(update={"count": 9})
    journal.record_incident(grown, NOON + HOUR)
    journal.record_incident(incident(project="milling"), NOON)
    assert journal.incidents("fraud") == [grown]
    assert journal.open_incidents() == {"fraud": 1, "milling": 1}
    journal.record_incident(closed(grown, NOON + HOUR), NOON + HOUR)
    assert journal.incidents("fraud", state="open") == []
    assert [one.state for one in journal.incidents(state="closed")] == ["closed"]


def test_o_11_of_a_class_one_incident_is_open_at_a_time(journal):
    """A second one is refused and leaves nothing behind; after the end of the first it may begin."""
    journal.record_incident(incident(), NOON, "opened", ["webhook ops"])
    second = incident(at=NOON + HOUR)
    with pytest.raises(ConflictError, match="class retrain is open already"):
        journal.record_incident(second, NOON, "opened", ["webhook ops"])
    assert len(journal.notices()) == 1
    journal.record_incident(incident("mend"), NOON)
    journal.record_incident(closed(incident(), NOON + HOUR), NOON)
    journal.record_incident(second, NOON)
    assert len(journal.incidents("fraud")) == 3


def test_each_destination_is_told_of_each_event_once(journal):
    """However often an event is recorded; the beginning and the end are two."""
    first = incident()
    for _ in range(3):
        journal.record_incident(first, NOON, "opened", ["webhook ops", "FRAUD_CHAT 1"])
    journal.record_incident(first, NOON, None, ["webhook ops"])
    journal.record_incident(closed(first, NOON), NOON, "ended", ["webhook ops"])
    told = [(one.event, one.destination, one.state, one.tries) for one in journal.notices()]
    assert told == [
        ("opened", "webhook ops", "waiting", 0), ("opened", "FRAUD_CHAT 1", "waiting", 0), ("ended", "webhook ops", "waiting", 0),
    ]  # fmt: skip


def test_m_06_a_message_waits_until_it_is_due_and_is_shown_until_it_has_arrived(journal):
    """A try that failed says when the next one is due; two processes cannot both record the same try."""
    journal.record_incident(incident(), NOON, "opened", ["webhook ops"])
    (first,) = journal.notices("waiting")
    assert dt.datetime.fromisoformat(first.due) == NOON
    journal.move_notice(first, "waiting", "it answered 503", NOON + HOUR)
    (again,) = journal.notices("waiting")
    assert dt.datetime.fromisoformat(again.due) == NOON + HOUR
    assert [(one["tries"], one["said"]) for one in journal.unsent()] == [(1, "it answered 503")]
    journal.move_notice(first, "sent", "a process that was late", NOON)
    assert journal.notices("waiting") == [again]
    journal.move_notice(again, "sent", "it answered 200", NOON)
    assert journal.unsent() == []


def test_a_kill_before_the_transaction_leaves_neither_incident_nor_message(journal, monkeypatch):
    """Both are there, or none is; the next look records them."""

    def killed(what):
        if what == "record incident":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(durable, "seam", killed)
        with pytest.raises(KeyboardInterrupt):
            journal.record_incident(incident(), NOON, "opened", ["webhook ops"])
    assert (journal.incidents(), journal.notices()) == ([], [])
    journal.record_incident(incident(), NOON, "opened", ["webhook ops"])
    assert (len(journal.incidents()), len(journal.notices())) == (1, 1)


def test_the_last_watch_of_a_project_counts(journal):
    """With the time until the next one is due, or without."""
    looked = {"version": 1, "verdict": "ok", "detail": {}}
    journal.record_watch(project="fraud", at=NOON, **looked, interval=HOUR)
    journal.record_watch(project="fraud", at=NOON + HOUR, **looked, interval=2 * HOUR)
    journal.record_watch(project="milling", at=NOON, **looked)
    assert (journal.last_watch("fraud"), journal.last_watch("milling")) == ((NOON + HOUR, 2 * HOUR), (NOON, None))
    assert journal.last_watch("thyroid") is None
