"""Orders over HTTP: on record when acknowledged, once however often they come, and never a way to anywhere else."""

import asyncio
import datetime as dt
import json
import logging

import httpx
import pytest

from tasks.config import private
from tasks.config.settings import Settings
from tasks.serving.app import Door
from tasks.sources.hook import ID, SIGNATURE, TIMESTAMP, signature
from tasks.stores.journal import Journal
from tests.samples import PROJECT

SECRET = "a-secret-canary-of-the-hook"
HOOKS = """
sources: [{kind: listing, name: drop, url: "file:///nowhere/*.csv"}]
hooks:
  - {name: orders, kind: cloudevents, does: train, secret: KF_HOOK_ORDERS}
  - {name: files, kind: s3, does: land, source: drop, secret: KF_HOOK_FILES}
  - {name: bare, kind: rest, does: train, secret: KF_HOOK_NONE}
"""
EVENT = {"specversion": "1.0", "id": "7", "source": "/orders", "type": "closed"}
INNER = "http://169.254.169.254/latest/meta-data"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Settings:
    """A project with three hooks, of which two have their secret here."""
    folder = tmp_path / "projects" / "small"
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text(PROJECT.format(name="small") + HOOKS)
    for name in ("ORDERS", "FILES"):
        monkeypatch.setenv(f"KF_HOOK_{name}", SECRET)
    return Settings(home=tmp_path / "state", projects=tmp_path / "projects")


def signed(body: bytes, name: str = "m1", secret: str = SECRET, at: dt.datetime | None = None) -> dict[str, str]:
    stamp = f"{(at or dt.datetime.now(dt.UTC)).timestamp():.0f}"
    made = signature(secret.encode(), name, stamp, body)
    return {ID: name, TIMESTAMP: stamp, SIGNATURE: made, "content-type": "application/cloudevents+json"}


def posted(
    place: Settings, *requests: tuple[str, bytes, dict[str, str]], at_once: bool = False
) -> list[httpx.Response]:
    """The answers to (path, body, headers)."""

    async def scene():
        transport = httpx.ASGITransport(Door(place).app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asked = [client.post(path, content=body, headers=headers) for path, body, headers in requests]
            return await asyncio.gather(*asked) if at_once else [await one for one in asked]

    return asyncio.run(scene())


def orders(place: Settings) -> list[tuple[str, str, str]]:
    return [(order.does, order.what, order.state) for order in Journal(place.journal()).orders("small")]


def event(**more: object) -> bytes:
    return json.dumps(EVENT | more).encode()


def notification(key: str = "a.csv") -> bytes:
    made = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": INNER}, "object": {"key": key, "sequencer": "1"}},
    }
    return json.dumps({"Records": [made]}).encode()


def test_a_message_is_on_record_once_however_often_it_comes(place):
    """202 and a number; the same event again, from another door and under another signature, is known and has the same number."""
    (first,) = posted(place, ("/hooks/orders", event(), signed(event())))
    again = event(time="2026-03-02T12:00:00Z")
    (second,) = posted(place, ("/hooks/orders", again, signed(again, "m2")))
    assert (first.status_code, first.json()["state"], first.json()["project"]) == (202, "recorded", "small")
    assert (second.status_code, second.json()["state"]) == (202, "known")
    assert first.json()["orders"] == second.json()["orders"]
    assert orders(place) == [("train", "", "open")]


def test_o_07_twenty_of_the_same_at_once_are_one_order(place):
    """They race for the row, and each sender is told that it is safe (O-07)."""
    answers = posted(place, *[("/hooks/orders", event(), signed(event()))] * 20, at_once=True)
    assert {answer.status_code for answer in answers} <= {202, 429}
    assert sorted(answer.json()["state"] for answer in answers if answer.status_code == 202).count("recorded") == 1
    assert len(orders(place)) == 1


def test_t9_what_a_body_says_is_no_address(place):
    """A notification with an inner address leads to the source that is declared; nothing of the body is in the order (T9)."""
    body = notification(f"{INNER}/a.csv")
    (answer,) = posted(place, ("/hooks/files", body, {"authorization": f"Bearer {SECRET}"}))
    assert (answer.status_code, answer.json()["does"]) == (202, "land")
    (order,) = Journal(place.journal()).orders("small")
    assert (order.does, order.what, order.by, order.reason) == ("fetch", "drop", "hook", "hook files")
    assert "169.254" not in order.model_dump_json()


def test_what_is_not_signed_leaves_nothing(place, caplog):
    """Unsigned, by another secret, replayed an hour later: 401, no order, and the log has neither secret nor body."""
    hour = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    body = event(data="canary-of-the-body")
    with caplog.at_level(logging.DEBUG):
        answers = posted(
            place, ("/hooks/orders", body, {}), ("/hooks/orders", body, signed(body, secret="another secret, longer")),
            ("/hooks/orders", body, signed(body, at=hour)), ("/hooks/orders", body, {"authorization": f"Bearer {SECRET}"}),
        )  # fmt: skip
    assert [answer.status_code for answer in answers] == [401] * 4
    assert orders(place) == []
    told = caplog.text + "".join(answer.text for answer in answers)
    assert SECRET not in told
    assert "canary-of-the-body" not in told


def test_a_hook_that_is_none_or_has_no_secret_here_takes_nothing(place, caplog):
    """404 for a name that nobody declared; 503 where the environment lacks the secret, whose name the log tells."""
    nobody, bare, empty = posted(
        place, ("/hooks/nobody", b"", {}), ("/hooks/bare", b"{}", signed(b"{}")), ("/hooks/bare", b"{}", signed(b"{}", secret=""))
    )  # fmt: skip
    assert [answer.status_code for answer in (nobody, bare, empty)] == [404, 503, 503]
    assert "KF_HOOK_NONE is not set" in caplog.text
    assert orders(place) == []


def test_a_name_that_two_projects_use_is_nobodys(place, caplog):
    """Which of them would be meant is not guessed."""
    other = place.projects / "other"
    other.mkdir()
    (other / "project.yaml").write_text(PROJECT.format(name="other") + HOOKS)
    (answer,) = posted(place, ("/hooks/orders", event(), signed(event())))
    assert answer.status_code == 404
    assert "declared by ['other', 'small']" in caplog.text


def test_a_broken_project_takes_no_other_ones_hooks_along(place, caplog):
    """Its file is named in the log; the others' hooks answer."""
    broken = place.projects / "broken"
    broken.mkdir()
    (broken / "project.yaml").write_text("hooks: [{name: x}]\n")
    (answer,) = posted(place, ("/hooks/orders", event(), signed(event())))
    assert answer.status_code == 202
    assert "broken/project.yaml" in caplog.text


def test_a_hook_needs_no_token_where_everything_else_does(place):
    """A signature is what it shows; a token in its place opens nothing."""
    place.home.mkdir(mode=0o700)
    private.make(place.tokens_file, b"trainings trainings-canary-0123456789\n")
    token = {"authorization": "Bearer trainings-canary-0123456789"}
    answers = posted(
        place, ("/hooks/orders", event(), signed(event())), ("/hooks/orders", event(), token), ("/projects/small/trainings", b"", {}),
        ("/projects/small/trainings", b"", token), ("/projects/small/predict", b"", token),
    )  # fmt: skip
    assert [answer.status_code for answer in answers] == [202, 401, 401, 202, 403]


# -- trainings ------------------------------------------------------------------------------------------------------------
def test_a_training_is_ordered_once_for_a_key(place):
    """202 with a number; the same key is the same order, another or none a new one; what came of it can be asked."""
    path, body = "/projects/small/trainings", b'{"reason": "prices changed"}'
    answers = posted(
        place, (path, body, {"idempotency-key": "a"}), (path, b"", {"idempotency-key": "a"}), (path, b"", {"idempotency-key": "b"}), (path, b"", {})
    )  # fmt: skip
    assert [answer.status_code for answer in answers] == [202] * 4
    first, second, third, fourth = (answer.json() for answer in answers)
    assert first == second
    assert (first["reason"], first["does"], first["state"]) == ("prices changed", "train", "open")
    assert len({each["id"] for each in (first, third, fourth)}) == 3

    async def asked():
        transport = httpx.ASGITransport(Door(place).app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [
                await client.get(f"{path}/{number}")
                for number in (first["id"], 99, 2**31, 2**70, "1" * 5000, "x", "-1", "\u0663", "%00")
            ]

    found, *missing = asyncio.run(asked())
    assert found.json() == first
    assert [answer.status_code for answer in missing] == [404] * 8


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/projects/nobody/trainings", b"", {}, 404), ("/projects/small/trainings", b"[]", {}, 422), ("/projects/small/trainings", b"\xff", {}, 422),
        ("/projects/small/trainings", b'{"again": true}', {}, 422), ("/projects/small/trainings", b'{"reason": "a\\nb"}', {}, 422),
        ("/projects/small/trainings", json.dumps({"reason": "x" * 201}).encode(), {}, 422),
        ("/projects/small/trainings", b"", {"idempotency-key": "x" * 101}, 422),
        ("/projects/small/trainings", b"", {"x-forwarded-for": "10.0.0.1"}, 403),
        ("/projects/small/trainings", b"", {"origin": "http://elsewhere.example"}, 403),
        ("/projects/small/trainings", b"{" * (9 << 20), {}, 413),
    ],
)  # fmt: skip
def test_what_is_no_order_is_refused(place, path, body, headers, status):
    """Another project, another shape, a key without end, a sender from elsewhere without a token, a body without end."""
    (answer,) = posted(place, (path, body, headers))
    assert answer.status_code == status
    assert "error" in answer.json()
    assert orders(place) == []


def test_an_order_that_cannot_be_written_is_not_acknowledged(place, monkeypatch):
    """503 and a moment to try again; the sender keeps it."""
    (first,) = posted(place, ("/projects/small/trainings", b"", {}))
    assert first.status_code == 202

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.stores.durable.seam", full)
    (answer,) = posted(place, ("/hooks/orders", event(), signed(event())))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    monkeypatch.undo()
    assert len(orders(place)) == 1


def test_the_document_and_the_counters_know_the_routes(place):
    """OpenAPI names the hook and its headers; each answer is counted under the route's own name."""

    async def scene():
        transport = httpx.ASGITransport(Door(place).app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await client.post("/hooks/nobody")
            await client.post("/projects/small/trainings")
            return (await client.get("/openapi.json")).json(), (await client.get("/metrics")).text

    document, counted = asyncio.run(scene())
    named = {each["name"] for each in document["paths"]["/hooks/{name}"]["post"]["parameters"]}
    assert named == {"name", ID, TIMESTAMP, SIGNATURE}
    assert 'keepfit_requests_total{project="",route="hook",status="404"} 1.0' in counted
    assert 'keepfit_requests_total{project="",route="training",status="202"} 1.0' in counted
