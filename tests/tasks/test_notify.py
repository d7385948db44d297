"""Messages about incidents: signed, queued until they have arrived, never to a private address, and without a secret in sight."""

import datetime as dt
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from ipaddress import ip_network

import pytest

from tasks.config import outbound
from tasks.config.destinations import Notify, Webhook, named, names
from tasks.config.errors import KeepfitError
from tasks.config.settings import REPOSITORY, Settings
from tasks.ml.watching.alarm import Alarm
from tasks.ml.watching.incident import Seen, closed, described, joined
from tasks.notify import Postman, pause, signature
from tasks.recover import Recovery
from tasks.stores.journal import Journal
from tests.receiver import declare, receiving
from tests.samples import until

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
SECRET = "whsec_dGhlIHNlY3JldCBvZiB0aGUgb3BzIHRlYW0="


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = NOON

    def __call__(self):
        """What it shows."""
        return self.now


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Settings that may reach this machine; declare a project in its folder of projects."""
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setenv("KEEPFIT_ALLOW_PRIVATE", "127.0.0.1")
    monkeypatch.setenv("OPS_SECRET", SECRET)
    return Settings()


def notify(settings, lines):
    declare(settings.projects, "small", f"notify: {lines}\n")


def incident(feature="amount"):
    alarm = Alarm(kind="inputs", what="retrain", features=(feature,), level=0.4, threshold=0.1, says=f"{feature} moved")
    return described(joined((), [alarm], Seen("small", 3, "roc_auc"), NOON)[0].incident)


def queue(settings, one=None, event="opened", *, to=("webhook ops",), at=NOON):
    journal = Journal(settings.journal())
    journal.record_incident(one or incident(), at, event, to)
    return journal


# -- webhooks -----------------------------------------------------------------------------------------------------------
def test_a_webhook_is_sent_a_cloudevent_that_its_secret_signs(place):
    """In structured mode; id, time and body are signed as Standard Webhooks say, so that whoever knows the secret can tell."""
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in', secret: OPS_SECRET}}]}}")
        journal = queue(place)
        queue(place, closed(incident(), NOON), "ended")
        assert len(Postman(place, Clock()).send()) == 2
    first, second = sink.got
    told = json.loads(first.body)
    assert first.headers["content-type"] == "application/cloudevents+json"
    assert {name: told[name] for name in ("specversion", "type", "source", "subject", "time")} == {
        "specversion": "1.0", "type": "keepfit.incident.opened", "source": "/keepfit/projects/small", "subject": incident().id,
        "time": "2026-03-01T12:00:00.000000+00:00",
    }  # fmt: skip
    assert told["data"] == incident().told()
    stamp = first.headers["webhook-timestamp"]
    assert (first.headers["webhook-id"], stamp) == (told["id"], str(int(NOON.timestamp())))
    assert first.headers["webhook-signature"] == signature(SECRET.encode(), told["id"], stamp, first.body)
    assert json.loads(second.body)["type"] == "keepfit.incident.ended"
    assert journal.unsent() == []


def test_m_06_a_receiver_that_is_down_gets_its_message_when_it_is_back_and_status_shows_that_it_waits(place):
    """Refused, then answered 503, then up: three tries at growing distances, one message; nothing is tried before it is due."""
    clock = Clock()
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
    postman, journal = Postman(place, clock), queue(place)
    (said,) = postman.send()  # nobody listens there any more
    assert "webhook ops: waiting; no answer: ConnectError" in said
    (shown,) = journal.unsent()
    assert (shown["tries"], shown["due"]) == (1, "2026-03-01T12:00:10.000000+00:00")
    clock.now += dt.timedelta(seconds=9)
    assert postman.send() == []
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
        sink.answer = lambda _: (503, b"", {})
        clock.now += dt.timedelta(seconds=1)
        assert "it answered 503" in postman.send()[0]
        sink.answer = lambda _: (204, b"", {})
        clock.now += pause(2)
        assert "sent; it answered 204" in postman.send()[0]
        clock.now += dt.timedelta(days=1)
        assert postman.send() == []
    assert (len(sink.got), journal.unsent()) == (2, [])
    assert sink.got[0].headers["webhook-id"] == sink.got[1].headers["webhook-id"]


def test_a_message_is_given_up_in_the_end_and_one_whose_destination_is_gone_at_once(place, monkeypatch):
    """Old news is dropped, and says after how many tries; here after a day of them instead of a week."""
    monkeypatch.setattr("tasks.notify.GIVEN_UP", dt.timedelta(days=1))
    clock = Clock()
    notify(place, "{webhooks: [{name: ops, url: 'http://127.0.0.1:1/in'}]}")
    journal = queue(place, to=("webhook ops", "webhook old", "OLD_CHAT 1"))
    assert [one.rpartition("; ")[2] for one in Postman(place, clock).send()[1:]] == [
        "it is not configured any more"
    ] * 2
    for tries in range(1, 30):
        assert [one["tries"] for one in journal.unsent()] == [tries]
        clock.now += pause(tries)
        (said,) = Postman(place, clock).send()
    assert dt.timedelta(hours=24) < clock.now - NOON < dt.timedelta(hours=25)
    assert "dropped; given up after 30 tries: no answer" in said
    assert journal.unsent() == []


@pytest.mark.parametrize("jump", [dt.timedelta(days=365), dt.timedelta(hours=-1), dt.timedelta(days=-365)])
def test_s_10_a_clock_that_jumps_drops_no_message_and_puts_none_off(place, jump):
    """Nobody answers before and after the jump, nor when the clock is right again: the message waits its pause each time, then goes out once (S-10)."""
    clock = Clock()
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
        sink.answer = lambda _: (503, b"", {})
        postman, journal = Postman(place, clock), queue(place)
        postman.send()
        for tries, jumped in enumerate((jump, -jump), 2):
            clock.now += jumped
            assert "waiting; it answered 503" in postman.send()[0]
            clock.now += pause(tries) / 2
            assert postman.send() == []
        sink.answer = lambda _: (204, b"", {})
        clock.now += pause(3) / 2
        assert "sent; it answered 204" in postman.send()[0]
        clock.now += jump
        assert postman.send() == journal.unsent() == []
    assert len({got.headers["webhook-id"] for got in sink.got}) == 1
    assert len(sink.got) == 4


def test_a_receiver_that_is_down_does_not_hold_up_the_others(place):
    """After one failure the rest of its messages wait, untried; those to others go out."""
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: 'http://127.0.0.1:1/'}}, {{name: team, url: '{sink.url}'}}]}}")
        for place_of in range(5):
            one = incident(f"f{place_of}").model_copy(update={"id": f"i{place_of}", "state": "closed"})
            journal = queue(place, one, to=("webhook ops", "webhook team"))
        Postman(place, Clock()).send()
        assert len(sink.got) == 5
    assert [(one.said, one.tries) for one in journal.notices("waiting")] == [
        ("no answer: ConnectError", 1),
        *[("", 0)] * 4,
    ]


def test_m_06_no_message_overtakes_an_older_one(place):
    """That an incident began failed three times and has minutes to wait; that it ended is queued meanwhile, and comes after it, however often is looked."""
    clock = Clock()
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
        sink.answer = lambda _: (503, b"", {})
        postman, journal = Postman(place, clock), queue(place)
        for tries in (1, 2, 3):
            postman.send()
            clock.now += pause(tries) if tries < 3 else dt.timedelta()
        sink.answer = lambda _: (204, b"", {})
        queue(place, closed(incident(), clock.now), "ended", at=clock.now)
        for _ in range(10):
            clock.now += pause(3) / 8
            postman.send()
    assert [json.loads(got.body)["type"].rpartition(".")[2] for got in sink.got] == ["opened"] * 4 + ["ended"]
    assert journal.unsent() == []


def test_m_06_a_message_that_is_refused_holds_up_no_other_and_is_given_up_after_three_tries(place):
    """422 to all of one incident's beginning, 204 to all else: another incident is told at the next look, the end of the first after it was given up."""
    clock, other = Clock(), incident("other").model_copy(update={"id": "o1", "what": "mend"})
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
        sink.answer = lambda got: (422 if json.loads(got.body)["id"] == f"{incident().id}.opened" else 204, b"", {})
        postman, journal = Postman(place, clock), queue(place)
        queue(place, closed(incident(), NOON), "ended")
        queue(place, other)
        for tries in (1, 2, 3):
            for _ in range(3):
                postman.send()
            clock.now += pause(tries)
    told = [(json.loads(got.body)["subject"], json.loads(got.body)["type"].rpartition(".")[2]) for got in sink.got]
    first = (incident().id, "opened")
    assert told == [first, ("o1", "opened"), first, first, (incident().id, "ended")]
    assert [(one["state"], one["said"]) for one in journal.unsent(NOON)] == [
        ("dropped", "given up after 3 tries: it answered 422")
    ]
    assert journal.unsent() == journal.unsent(clock.now) == []


@pytest.mark.parametrize("status", [401, 403, 404, 408, 425, 429, 500, 503, 302])
def test_m_06_what_may_be_mended_gives_up_no_message(place, status):
    """Ten times an answer that speaks of the address, of who asks or of the moment; then it is taken."""
    clock = Clock()
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
        sink.answer = lambda _: (status, b"", {})
        postman, journal = Postman(place, clock), queue(place)
        for tries in range(1, 11):
            assert f"waiting; it answered {status}" in postman.send()[0]
            clock.now += pause(tries)
        sink.answer = lambda _: (204, b"", {})
        assert "sent; it answered 204" in postman.send()[0]
    assert journal.unsent(NOON) == []


def test_m_06_one_refusal_after_others_had_no_answer_gives_up_nothing(place):
    """A proxy may say 400 while what is behind it starts; refused twice alike it is over, however many tries there were."""
    clock, answers = Clock(), [503, 503, 503, 400, 503, 400, 422, 422]
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
        sink.answer = lambda _: (answers[len(sink.got) - 1], b"", {})
        postman, journal = Postman(place, clock), queue(place)
        for tries in range(1, 12):
            postman.send()
            clock.now += pause(tries)
    assert [one["said"] for one in journal.unsent(NOON)] == ["given up after 8 tries: it answered 422"]


def test_m_06_a_new_incident_does_not_wait_for_an_old_one_to_be_tried_again(place):
    """After an outage of hours an old message is tried within the hour, and a new one at once."""
    clock = Clock()
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
        sink.answer = lambda _: (503, b"", {})
        postman, journal = Postman(place, clock), queue(place)
        for tries in range(1, 8):
            postman.send()
            clock.now += pause(tries)
        clock.now -= dt.timedelta(minutes=30)
        sink.answer = lambda _: (204, b"", {})
        queue(place, incident("other").model_copy(update={"id": "o1", "what": "mend"}), at=clock.now)
        postman.send()
    assert (json.loads(sink.got[-1].body)["subject"], [one["incident"] for one in journal.unsent()]) == (
        "o1", [incident().id],
    )  # fmt: skip


def test_a_message_to_another_destination_or_of_another_project_waits_for_none(place):
    """Each has an order of its own."""
    with receiving() as sink:
        notify(
            place, f"{{webhooks: [{{name: ops, url: 'http://127.0.0.1:1/'}}, {{name: team, url: '{sink.url}/team'}}]}}"
        )
        declare(place.projects, "other", f"notify: {{webhooks: [{{name: ops, url: '{sink.url}/other'}}]}}\n")
        queue(place)
        Postman(place, Clock()).send()
        queue(place, closed(incident(), NOON), "ended", to=("webhook ops", "webhook team"))
        queue(place, incident().model_copy(update={"id": "o1", "project": "other"}))
        Postman(place, Clock()).send()
    assert [got.path for got in sink.got] == ["/team", "/other"]


# -- private addresses ----------------------------------------------------------------------------------------------------
def test_t9_no_message_goes_to_a_private_address_unless_its_network_is_allowed(place):
    """Neither by webhook nor by apprise, by number, by name or in IPv6's dress; the message waits and says what would allow it."""
    place = place.model_copy(update={"allow_private": ()})
    with receiving() as sink:
        port = sink.url.rpartition(":")[2]
        urls = [
            sink.url,
            f"http://localhost:{port}",
            f"http://[::ffff:127.0.0.1]:{port}",
            f"http://2130706433:{port}",
            f"http://0.0.0.0:{port}",
        ]
        hooks = ", ".join(f"{{name: h{place_of}, url: '{url}'}}" for place_of, url in enumerate(urls))
        place = place.model_copy(update={"notify": Settings(notify=f"json://127.0.0.1:{port}/").notify})
        notify(place, f"{{webhooks: [{hooks}]}}")
        journal = queue(place, to=(*(f"webhook h{place_of}" for place_of in range(len(urls))), "KEEPFIT_NOTIFY 1"))
        Postman(place, Clock()).send()
    assert sink.got == []
    said = [one["said"] for one in journal.unsent()]
    assert len(said) == 6
    assert [one for one in said if "KEEPFIT_ALLOW_PRIVATE=" not in one] == []


def test_t9_a_name_that_changes_its_address_between_look_and_connection_leads_nowhere(place, monkeypatch):
    """The address that the socket connects to is what counts: a first resolution that looks public helps nobody."""
    answers = iter([("93.184.215.14", 0), ("127.0.0.1", 0)])
    with receiving() as sink:
        port = int(sink.url.rpartition(":")[2])

        def resolve(host, *_rest, **_more):
            address = next(answers)[0] if host == "rebind.example" else host
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        assert socket.getaddrinfo("rebind.example", port)[0][4][0] == "93.184.215.14"
        with pytest.raises(outbound.OutboundError, match=r"leads to 127\.0\.0\.1"):
            outbound.post(f"http://rebind.example:{port}/", b"{}", {})
    assert sink.got == []


def test_t9_a_redirect_is_not_followed(place):
    """Whatever it leads to; the message waits."""
    with receiving() as inside, receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}")
        sink.answer = lambda _: (307, b"", {"location": f"{inside.url}/admin"})
        queue(place)
        assert "it answered 307" in Postman(place, Clock()).send()[0]
    assert inside.got == []


def test_t9_other_threads_connect_as_before(place):
    """The rule is for who asks for it: while one thread may reach the public only, another one reaches this machine."""
    with receiving() as sink, outbound.public_only():
        host, port = sink.url.removeprefix("http://").split(":")
        reached = []
        thread = threading.Thread(target=lambda: reached.append(socket.create_connection((host, int(port)))))
        thread.start()
        thread.join()
        with pytest.raises(PermissionError):
            socket.create_connection((host, int(port)))
        reached[0].close()
        with outbound.public_only([ip_network("127.0.0.0/8")]):
            socket.create_connection((host, int(port))).close()


# -- apprise ------------------------------------------------------------------------------------------------------------
def test_apprise_is_told_in_plain_text_once_for_each_url_of_a_variable(place, monkeypatch):
    """Two URLs in one variable are two destinations; a title, and the summary; a redirect is not followed."""
    with receiving() as sink:
        host = sink.url.removeprefix("http://")
        monkeypatch.setenv("SMALL_CHAT", f"json://{host}/a json://user:secret-of-the-chat@{host}/b")
        declared = Notify(apprise=("SMALL_CHAT",))
        notify(place, "{apprise: [SMALL_CHAT]}")
        to = names(declared, place)
        assert to == ["SMALL_CHAT 1", "SMALL_CHAT 2"]
        sink.answer = lambda got: (200 if got.path == "/a" else 302, b"", {"location": f"{sink.url}/elsewhere"})
        journal = queue(place, to=to)
        Postman(place, Clock()).send()
    assert [got.path for got in sink.got] == ["/a", "/b"]
    told = json.loads(sink.got[0].body)
    assert told["title"] == "keepfit: small: the model is losing touch"
    assert told["message"] == incident().summary
    assert [(one["destination"], one["said"]) for one in journal.unsent()] == [
        ("SMALL_CHAT 2", "apprise could not send it")
    ]


def test_no_secret_stands_in_the_journal_in_a_log_or_in_an_error(place, monkeypatch, caplog):
    """Nor the URL of a chat, nor what signs, nor a token in a path, whatever fails."""
    caplog.set_level(logging.DEBUG)
    secrets = {
        "SMALL_CHAT": "json://user:canary-one@127.0.0.1:1/canary-two",
        "SMALL_HOOK": "http://127.0.0.1:1/canary-three?k=canary-four",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    notify(place, "{apprise: [SMALL_CHAT], webhooks: [{name: ops, url_env: SMALL_HOOK, secret: OPS_SECRET}]}")
    journal = queue(place, to=("webhook ops", "SMALL_CHAT 1"))
    said = Postman(place, Clock()).send()
    assert len(journal.unsent()) == 2
    shown = json.dumps([said, journal.unsent(), [one.record for one in journal.notices()], caplog.text])
    assert [word for word in ("canary", SECRET.removeprefix("whsec_"), "user:") if word in shown] == []
    assert "canary" not in repr(
        named("webhook ops", Notify(webhooks=(Webhook(name="ops", url_env="SMALL_HOOK"),)), place)
    )


def test_a_variable_that_is_not_set_or_a_secret_that_is_short_is_told_and_the_message_waits(place, monkeypatch):
    """Nothing is lost by a configuration that is mended later."""
    with receiving() as sink:
        notify(place, f"{{apprise: [SMALL_CHAT], webhooks: [{{name: ops, url: '{sink.url}', secret: SHORT_SECRET}}]}}")
        monkeypatch.setenv("SHORT_SECRET", "short")
        journal = queue(place, to=("webhook ops", "SMALL_CHAT 1"))
        Postman(place, Clock()).send()
        first, second = (one["said"] for one in journal.unsent())
        assert first.startswith("SHORT_SECRET is shorter than 16 characters")
        assert second == "the environment variable SMALL_CHAT is not set. Set it where `keepfit up` is said."
        assert sink.got == []


@pytest.mark.parametrize(
    ("webhook", "why"),
    [
        ({"name": "ops"}, "needs one of url and url_env"),
        ({"name": "ops", "url": "https://a.example", "url_env": "A"}, "needs one of url and url_env"),
        ({"name": "ops", "url": "ftp://a.example"}, "must be http"),
        ({"name": "ops", "url": "https://user:pw@a.example"}, "may be secret"),
        ({"name": "ops", "url": "https://a.example/?token=x"}, "may be secret"),
        ({"name": "ops", "url": "https://a.example", "secret": "not a name"}, "String should match"),
    ],
)
def test_a_webhook_is_declared_without_a_secret(webhook, why):
    """One URL, http or https, with nothing secret in it; secrets are names of environment variables."""
    with pytest.raises(ValueError, match=why):
        Webhook(**webhook)


def test_two_webhooks_of_one_name_are_refused():
    """Their queues would be one."""
    with pytest.raises(ValueError, match="a name of its own"):
        Notify(webhooks=(Webhook(name="ops", url="https://a.example"), Webhook(name="ops", url="https://b.example")))
    assert named("webhook ops", Notify(), Settings()) is None
    with pytest.raises(KeepfitError, match="NOT_SET_HERE is not set"):
        named("NOT_SET_HERE 1", Notify(apprise=("NOT_SET_HERE",)), Settings())


# -- kills, and the loop that sends -----------------------------------------------------------------------------------------
KILLED = """
import os, signal, sys
from tasks.config.settings import Settings
from tasks.notify import Postman
from tasks.stores import durable
durable.seam = lambda what: os.kill(os.getpid(), signal.SIGKILL) if what == "notice sent" else None
Postman(Settings()).send()
"""


def test_m_06_a_kill_between_sending_and_recording_sends_again_under_the_same_id(place):
    """What the receiver has seen comes once more, and it can tell; nothing is lost."""
    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}'}}]}}")
        journal = queue(place)
        ended = subprocess.run([sys.executable, "-c", KILLED], cwd=REPOSITORY, env=dict(os.environ), check=False)
        assert ended.returncode == -signal.SIGKILL
        assert (len(sink.got), len(journal.unsent())) == (1, 1)
        Postman(place).send()
    assert len({got.headers["webhook-id"] for got in sink.got}) == 1
    assert (len(sink.got), journal.unsent()) == (2, [])


def test_o_11_two_processes_that_send_at_once_send_each_message_once(place):
    """Whoever comes second finds the round taken."""
    entered, free = threading.Event(), threading.Event()

    def slow(_):
        entered.set()
        free.wait(20)
        return 200, b"", {}

    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}'}}]}}")
        queue(place)
        sink.answer = slow
        first = threading.Thread(target=Postman(place, Clock()).send)
        first.start()
        assert entered.wait(20)
        assert Postman(place, Clock()).send() == []
        free.set()
        first.join()
    assert len(sink.got) == 1


def test_a_slow_receiver_does_not_hold_up_the_recovery(place):
    """A look starts a round and goes on; a later look says how the round ended."""
    entered, free = threading.Event(), threading.Event()

    def slow(_):
        entered.set()
        free.wait(20)
        return 200, b"", {}

    with receiving() as sink:
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}'}}]}}")
        queue(place)
        sink.answer = slow
        postman = Postman(place, Clock())
        assert postman.look(0.01) == []
        assert entered.wait(20)
        assert postman.look(0.01) == []
        free.set()
        assert until(lambda: postman.look(0.1), 20) == [
            f"small: incident {incident().id} opened, webhook ops: sent; it answered 200"
        ]
    assert len(sink.got) == 1


def test_m_06_the_recovery_notices_a_silent_watch_and_sends_the_message(place):
    """One look: nobody has watched for three hours, though every hour is due; the incident is open and the receiver knows."""
    with receiving() as sink:
        hourly = 'watch: {schedule: {cron: "0 * * * *"}}'
        notify(place, f"{{webhooks: [{{name: ops, url: '{sink.url}'}}]}}\n{hourly}")
        journal = Journal(place.journal())
        journal.record_watch(
            project="small",
            at=NOON - dt.timedelta(hours=3),
            version=1,
            verdict="ok",
            detail={},
            interval=dt.timedelta(hours=1),
        )
        report = Recovery(place, ["small"], grace=0.0, clock=Clock()).look()
        assert report.silent[0].startswith("Nobody watches small: no watch report for 3 intervals")
        assert [one.rpartition(": ")[2] for one in report.sent] == ["sent; it answered 200"]
        assert Recovery(place, ["small"], grace=0.0, clock=Clock()).look().silent == []
    assert [json.loads(got.body)["type"] for got in sink.got] == ["keepfit.incident.opened"]
