"""Hooks: what a message must show, and what makes it the same message twice."""

import base64
import datetime as dt
import hashlib
import hmac
import json

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers

from tasks.sources.hook import ID, SIGNATURE, TIMESTAMP, Hook, HookError, Hooks, signature

SECRET = b"a secret of the tests"
NOW = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
EVENT = {"specversion": "1.0", "id": "7", "source": "/orders", "type": "com.example.closed"}
WAYS = {"content-type": "application/cloudevents+json; charset=utf-8"}


def hook(kind: str = "rest", types: tuple[str, ...] = ()) -> Hook:
    return Hook.model_validate(
        {"name": "orders", "kind": kind, "does": "train", "secret": "HOOK_SECRET", "types": types}
    )


def signed(
    body: bytes, name: str = "m1", at: float | None = None, secret: bytes = SECRET, more: dict[str, str] | None = None
) -> Headers:
    """The headers of a sender, its signature made by the standard library alone."""
    stamp = f"{NOW.timestamp() if at is None else at:.0f}"
    made = hmac.new(secret, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    own = {ID: name, TIMESTAMP: stamp, SIGNATURE: f"v1,{base64.b64encode(made).decode()}"}
    return Headers(own | (more or {}))


def refusal(ask: Hook, headers: Headers, body: bytes) -> HookError:
    with pytest.raises(HookError) as met:
        ask.admit(SECRET, headers, body, NOW)
    return met.value


def test_a_signed_message_is_admitted_and_any_other_is_not():
    """Another body, id, time, secret, scheme, or none: 401, whatever it is."""
    body = b'{"a": 1}'
    good = signed(body)
    hook().admit(SECRET, good, body, NOW)
    hook().admit(SECRET, Headers({**good, SIGNATURE: f"v1,bm9uZQ== {good[SIGNATURE]}"}), body, NOW)  # a secret in turn
    bad = [
        (good, b'{"a": 2}'), (Headers({**good, ID: "m2"}), body), (Headers({**good, TIMESTAMP: "1"}), body), (signed(body, secret=b"x" * 20), body),
        (Headers({**good, SIGNATURE: good[SIGNATURE].replace("v1", "v2")}), body), (Headers({}), body), (Headers({**good, SIGNATURE: ""}), body),
        (Headers({**good, SIGNATURE: "\u00fc"}), body),
    ]  # fmt: skip
    assert [refusal(hook(), headers, content).status for headers, content in bad] == [401] * len(bad)
    assert refusal(hook(), Headers({"authorization": f"Bearer {SECRET.decode()}"}), body).status == 401


@given(st.binary(max_size=200), st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=20))
def test_a_signature_is_what_the_standard_says(body, name):
    """HMAC-SHA256 over id, time and body, base64; a secret that begins with whsec_ is base64 itself."""
    wanted = hmac.new(SECRET, f"{name}.123.".encode() + body, hashlib.sha256).digest()
    assert signature(SECRET, name, "123", body) == f"v1,{base64.b64encode(wanted).decode()}"
    assert signature(b"whsec_" + base64.b64encode(SECRET), name, "123", body) == signature(SECRET, name, "123", body)


@pytest.mark.parametrize(
    ("off", "said"),
    [(0, None), (299, None), (-299, None), (301, "in the past"), (-301, "in the future"), (3600, "by 3600 s, in the past"), (-3600, "by 3600 s")],
)  # fmt: skip
def test_i_20_a_senders_clock_may_be_a_little_off(off, said):
    """Five minutes either way; an hour is told, so that somebody sets it, and only to who has signed (I-20)."""
    headers = signed(b"", at=NOW.timestamp() - off)
    if said is None:
        hook().admit(SECRET, headers, b"", NOW)
    else:
        assert said in str(refusal(hook(), headers, b""))
        assert "clock" not in str(refusal(hook(), headers, b"altered"))


@pytest.mark.parametrize("stamp", ["", "-5", "1e9", "now", "9" * 30, "١٢٣"])
def test_a_time_that_is_none_is_refused(stamp):
    """Signed or not, what is no number of seconds is no time."""
    made = signature(SECRET, "m1", stamp, b"")
    assert refusal(hook(), {ID: "m1", TIMESTAMP: stamp, SIGNATURE: made}, b"").status == 401  # ty: ignore[invalid-argument-type]


def test_a_cloudevent_is_the_same_by_source_and_id_in_either_mode():
    """CloudEvents 1.0: what else it says, and its own time, play no part (I-20)."""
    ask = hook("cloudevents")
    plain = ask.read(Headers(WAYS), json.dumps(EVENT).encode())
    other = ask.read(
        Headers(WAYS),
        json.dumps(EVENT | {"time": "1970-01-01T00:00:00Z", "data": {"url": "http://169.254.169.254/"}}).encode(),
    )
    binary = {f"ce-{name}": value for name, value in EVENT.items()}
    same = ask.read(signed(b"anything", name="7", more=binary | {"content-type": "text/plain"}), b"anything")
    assert plain == other == same
    assert len(plain) == 1
    assert ask.read(Headers(WAYS), json.dumps(EVENT | {"source": "/returns"}).encode()) != plain
    with pytest.raises(HookError, match="what was signed"):
        ask.read(signed(b"", name="8", more=binary), b"")


def test_a_hook_listens_to_the_types_that_it_names():
    """Another type is taken and leads to nothing."""
    ask = hook("cloudevents", types=("com.example.closed",))
    assert len(ask.read(Headers(WAYS), json.dumps(EVENT).encode())) == 1
    assert ask.read(Headers(WAYS), json.dumps(EVENT | {"type": "com.example.opened"}).encode()) == []


@pytest.mark.parametrize(
    ("content", "body", "status"),
    [
        (WAYS["content-type"], b"[]", 422), (WAYS["content-type"], b"{", 422), (WAYS["content-type"], b"\xff", 422), (WAYS["content-type"], b"[" * 100_000, 422),
        (WAYS["content-type"], json.dumps(EVENT | {"specversion": "0.3"}).encode(), 422), (WAYS["content-type"], json.dumps(EVENT | {"id": ""}).encode(), 422),
        (WAYS["content-type"], json.dumps(EVENT | {"id": "x" * 257}).encode(), 422), ("application/json", json.dumps(EVENT).encode(), 415),
        ("application/cloudevents-batch+json", b"[]", 415),
    ],
)  # fmt: skip
def test_what_is_no_cloudevent_is_refused(content, body, status):
    """Broken JSON, another version, no id, an id without end, a batch."""
    with pytest.raises(HookError) as met:
        hook("cloudevents").read(Headers({"content-type": content}), body)
    assert met.value.status == status


def record(name: str = "ObjectCreated:Put", key: str = "in/a.csv", sequencer: str = "0055AED6") -> dict:
    return {
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-03-02T12:00:00.000Z", "eventName": name,
        "s3": {"bucket": {"name": "drop", "arn": "arn:aws:s3:::drop"}, "object": {"key": key, "size": 1024, "eTag": "d41d8cd9", "sequencer": sequencer}},
    }  # fmt: skip


def notified(*records: dict) -> list[str]:
    return hook("s3").read(Headers({}), json.dumps({"Records": list(records)}).encode())


@pytest.mark.parametrize("name", ["", None])
def test_a_message_without_an_id_is_no_message_of_kind_rest(name: str | None):
    """Signed as it is, nothing tells it from the next one, which would be taken for the same: 422 says what to send."""
    for body in (b'{"closed": 1}', b'{"closed": 2}', b""):
        sent = signed(body, name="")
        headers = sent if name is not None else Headers({key: value for key, value in sent.items() if key != ID})
        hook().admit(SECRET, headers, body, NOW)
        with pytest.raises(HookError, match="has no webhook-id") as met:
            hook().read(headers, body)
        assert met.value.status == 422


def test_a_notification_of_s3_is_an_event_for_each_object_that_was_made():
    """AWS and MinIO write the name differently; the same change twice is one, a deletion is none, the test message is none."""
    assert notified(record()) == notified(record("s3:ObjectCreated:CompleteMultipartUpload"))
    assert len(set(notified(record(), record(key="in/b.csv"), record(sequencer="0055AED7")))) == 3
    assert notified(record("ObjectRemoved:Delete")) == []
    minio = {"EventName": "s3:ObjectCreated:Put", "Key": "drop/in/a.csv", "Records": [record("s3:ObjectCreated:Put")]}
    assert hook("s3").read(Headers({}), json.dumps(minio).encode()) == notified(record())
    assert hook("s3").read(Headers({}), b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "drop"}') == []
    with pytest.raises(HookError):
        notified(*[record()] * 101)


def test_minio_shows_the_secret_because_it_cannot_sign():
    """`Authorization: Bearer` with the secret opens a hook of kind s3; anything else does not."""
    hook("s3").admit(SECRET, Headers({"authorization": f"Bearer {SECRET.decode()}"}), b"{}", NOW)
    assert refusal(hook("s3"), Headers({"authorization": "Bearer another"}), b"{}").status == 401
    hook("s3").admit(SECRET, signed(b"{}"), b"{}", NOW)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"does": "land"}, "land needs one"), ({"source": "drop"}, "`source` is for land"), ({"types": ["a"]}, "`types` is for cloudevents"),
        ({"secret": "hunter2-hunter2-hunter2"}, "pattern"), ({"name": "../x"}, "pattern"), ({"url": "http://x"}, "Extra"),
    ],
)  # fmt: skip
def test_a_hook_that_does_not_fit_is_refused(told, said):
    """A secret in the file, a source that is not needed or lacks, a name that is no address."""
    with pytest.raises(ValidationError, match=said):
        Hook.model_validate({"name": "orders", "kind": "rest", "does": "train", "secret": "HOOK_SECRET"} | told)


def test_each_hook_has_a_name_of_its_own():
    """Two of one name would be one address."""
    with pytest.raises(ValidationError, match="a name of its own"):
        TypeAdapter(Hooks).validate_python([hook(), hook("s3")])
