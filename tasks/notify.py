"""Notify: sends the messages about incidents that wait in the journal, until they have arrived; a kill, or a receiver that is down, loses none.

A webhook is sent a CloudEvent 1.0 in structured mode, signed as Standard Webhooks say (https://www.standardwebhooks.com); every other
destination is apprise's. A message may come twice, where a kill fell between its arrival and its record: its id is then the same.
"""

import datetime as dt
import json
import logging
import threading
from collections.abc import Callable, Set
from typing import Any

from tasks.config import destinations, outbound
from tasks.config.destinations import Destination
from tasks.config.errors import ConflictError, KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.watching.incident import LONGEST, plain
from tasks.sources.hook import ID, SIGNATURE, TIMESTAMP, signature
from tasks.stores.journal import Journal, Notice

LOG = logging.getLogger("keepfit.notify")
AGAIN, LATEST = 10.0, 3600.0  # seconds until the second try; each time four times as many, up to the latest
GIVEN_UP = dt.timedelta(days=7)  # of waiting from try to try, after which a message is old news
REFUSALS = 3  # tries, the last two of which were refused alike, after which a message is given up
LATER = {
    401,
    403,
    404,
    407,
    408,
    425,
    429,
}  # 4xx that speak of the address, of who asks or of the moment; others speak of the message
SECONDS = 10.0  # that a receiver may take


class RefusedError(KeepfitError):
    """A receiver is there, and does not take this message."""


def event(notice: Notice) -> dict[str, Any]:
    """A message as a CloudEvent 1.0; its id is the same at every try."""
    return {
        "specversion": "1.0", "id": f"{notice.incident}.{notice.event}", "source": f"/keepfit/projects/{notice.project}",
        "type": f"keepfit.incident.{notice.event}", "subject": notice.incident, "time": notice.at, "datacontenttype": "application/json",
        "data": notice.record,
    }  # fmt: skip


def pause(tries: int) -> dt.timedelta:
    """How long a message waits after so many tries.

    >>> [pause(tries).total_seconds() for tries in (1, 2, 3, 9)]
    [10.0, 40.0, 160.0, 3600.0]
    """
    return dt.timedelta(seconds=min(AGAIN * 4 ** min(tries - 1, 10), LATEST))


class Postman:
    """Sends what is due."""

    def __init__(self, settings: Settings, clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> None:
        self.settings, self.journal, self._clock = settings, Journal(settings.journal()), clock
        self._round: threading.Thread | None = None
        self._said: list[str] = []

    def look(self, patience: float = 0.5) -> list[str]:
        """Sends what is due beside whoever asks, one round at a time; gives what was said of the messages since it was asked last.

        Args:
            patience: seconds that are waited for the end of the round; a slow receiver holds nobody up for longer.
        """
        if self._round is None or not self._round.is_alive():
            if not self._due():
                return self._news()
            self._round = threading.Thread(target=self._go, name="notify")
            self._round.start()
        self._round.join(patience)
        return self._news()

    def send(self) -> list[str]:
        """Sends what is due, oldest first, and gives a sentence for each; nothing where another process is at it.

        After a failure the other messages to that destination are left for the next round, so that one that is down holds up no other.
        """
        said: list[str] = []
        resting: set[tuple[str, str]] = set()
        try:
            with self.journal.alone("notify", patience=0):
                while due := self._due(resting):
                    for notice in due:
                        if _place(notice) not in resting:
                            state, sentence = self._try(notice)
                            said.append(sentence)
                            resting |= {_place(notice)} if state == "waiting" else set()
        except ConflictError:
            return []
        return said

    def _due(self, resting: Set[tuple[str, str]] = frozenset()) -> list[Notice]:
        """What is due; that an incident ended waits until it was told, or cannot be told, that it began."""
        oldest: dict[tuple[tuple[str, str], str], Notice] = {}
        for notice in self.journal.notices("waiting"):
            oldest.setdefault((_place(notice), notice.incident), notice)
        now = self._clock()
        return [notice for notice in oldest.values() if _place(notice) not in resting and _is_due(notice, now)]

    def _go(self) -> None:
        try:
            self._said += self.send()
        except Exception:
            LOG.exception("messages could not be sent; the next look tries again")

    def _news(self) -> list[str]:
        said, self._said = self._said, []
        return said

    def _try(self, notice: Notice) -> tuple[str, str]:
        """One try of one message: its state, and a sentence about it, when that is on record."""
        now = self._clock()
        try:
            target = self._destination(notice)
            state, said = (
                ("sent", self._deliver(target, notice, now)) if target else ("dropped", "it is not configured any more")
            )
        except KeepfitError as error:
            state, said = "waiting", str(error)
            if _is_given_up(notice, error):
                state, said = "dropped", f"given up after {notice.tries + 1} tries: {said}"
        self.journal.move_notice(notice, state, said, now + pause(notice.tries + 1) if state == "waiting" else now)
        sentence = f"{notice.project}: incident {notice.incident} {notice.event}, {notice.destination}: {state}; {said}"
        LOG.log(logging.INFO if state == "sent" else logging.WARNING, "%s", sentence)
        return state, sentence

    def _destination(self, notice: Notice) -> Destination | None:
        if notice.project not in self.settings.project_names():
            return None
        return destinations.named(
            notice.destination, Project.named(notice.project, self.settings).notify, self.settings
        )

    def _deliver(self, target: Destination, notice: Notice, now: dt.datetime) -> str:
        """Sends a message, and says how it was taken.

        Raises:
            KeepfitError: it was not.
        """
        if target.is_webhook:
            return _posted(target, notice, now, self.settings)
        return _announced(target, notice, self.settings)


def _place(notice: Notice) -> tuple[str, str]:
    """Where a message goes: a project and one of its destinations."""
    return notice.project, notice.destination


def _is_due(notice: Notice, now: dt.datetime) -> bool:
    """Whether a message has waited; one that would wait for longer than its pause was put off by a clock that has gone back since (faults: S-10)."""
    return not dt.timedelta() < dt.datetime.fromisoformat(notice.due) - now <= pause(notice.tries)


def _is_given_up(notice: Notice, error: KeepfitError) -> bool:
    """Whether a message that failed once more is old, or is refused again and again; a refusal at a start is none for ever.

    It is as old as its pauses say: a clock may jump by a year in one of them (faults: S-10).
    """
    refused = isinstance(error, RefusedError) and notice.said == str(error) and notice.tries + 1 >= REFUSALS
    return refused or sum(map(pause, range(1, notice.tries + 1)), dt.timedelta()) > GIVEN_UP


def _posted(target: Destination, notice: Notice, now: dt.datetime, settings: Settings) -> str:
    told = event(notice)
    body, stamp = json.dumps(told).encode(), str(int(now.timestamp()))
    headers = {"content-type": "application/cloudevents+json", ID: told["id"], TIMESTAMP: stamp}
    if target.secret:
        headers[SIGNATURE] = signature(target.secret.encode(), told["id"], stamp, body)
    answer = outbound.post(target.url, body, headers, settings.allow_private, seconds=SECONDS)
    if not 200 <= answer.status < 300:
        refuses = 400 <= answer.status < 500 and answer.status not in LATER
        raise (RefusedError if refuses else KeepfitError)(f"it answered {answer.status}")
    return f"it answered {answer.status}"


def _announced(target: Destination, notice: Notice, settings: Settings) -> str:
    """By apprise, which says only whether it went well; its own log may name addresses and is silent."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    server = apprise.Apprise.instantiate(target.url, suppress_exceptions=True)
    if not isinstance(server, apprise.NotifyBase):
        raise KeepfitError("it holds no URL that apprise knows")
    server.redirects = False
    post = apprise.Apprise()
    post.add(server)
    title, body = headline(notice), plain(str(notice.record.get("summary", "")), LONGEST)
    with outbound.public_only(settings.allow_private):
        sent = post.notify(
            body=body, title=title, notify_type=_kind(notice, apprise), body_format=apprise.NotifyFormat.TEXT
        )
    if not sent:
        raise KeepfitError(outbound.refused() or "apprise could not send it")
    return "apprise has sent it"


def _kind(notice: Notice, apprise: Any) -> Any:
    return apprise.NotifyType.SUCCESS if notice.event == "ended" else apprise.NotifyType.WARNING


def headline(notice: Notice) -> str:
    """One line: the project, what happened, and what it is about."""
    what = {"retrain": "the model is losing touch", "mend": "data or service need mending"}.get(
        str(notice.record.get("class")), "incident"
    )
    return (
        f"keepfit: {notice.project}: {what}" if notice.event == "opened" else f"keepfit: {notice.project}: over: {what}"
    )
