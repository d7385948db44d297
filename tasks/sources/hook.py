"""A hook: a program elsewhere says that something happened, and a declared source is fetched from, or a training is ordered.

What it sends is signed (https://www.standardwebhooks.com: HMAC-SHA256 over id, time and body), and is read for what makes it the same
message twice, never for where to go: an address in a body is an address that somebody else chose.
"""

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import msgspec
from pydantic import AfterValidator, BaseModel, Field, model_validator

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
SHORTEST = 16  # bytes of a secret; what is shorter can be tried out
LONGEST = 256  # characters of an id or a source
RECORDS = 100  # of a notification
STRUCTURED = "application/cloudevents+json"


class HookError(Exception):
    """A message that is not taken: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Hook(BaseModel, frozen=True, extra="forbid"):
    """One address, `POST /hooks/NAME`, and what a message there leads to."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="the last part of its address; of all projects once"
    )
    kind: Literal["cloudevents", "s3", "rest"] = Field(
        description="how messages are written: CloudEvents 1.0 (structured or binary), notifications of S3 or MinIO, or any JSON"
    )
    does: Literal["land", "train"] = Field(description="land: fetch from `source`; train: order a training")
    source: str | None = Field(default=None, description="land: one of the project's `sources`")
    secret: str = Field(
        pattern=r"^[A-Z][A-Z0-9_]{0,99}$",
        description="name of the environment variable that holds the secret, for the serving process; at least 16 characters",
    )
    types: tuple[str, ...] = Field(default=(), description="cloudevents: only these types; all when empty")
    window_seconds: float = Field(
        default=300, gt=0, le=3600, description="how far the sender's clock may be off, and how old a message may be"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.does == "land") != (self.source is not None):
            raise ValueError(f"hook '{self.name}' does '{self.does}': `source` is for land, and land needs one")
        if self.types and self.kind != "cloudevents":
            raise ValueError(f"hook '{self.name}' is of kind {self.kind}; `types` is for cloudevents")
        return self

    def admit(self, secret: bytes, headers: Mapping[str, str], body: bytes, now: dt.datetime) -> None:
        """Says no to a message that this secret has not signed, or that was signed too long ago or in the future.

        Args:
            secret: as the environment gives it; `whsec_` and base64, or its own bytes.
            headers: of the request, case-insensitive.
            body: as it came.
            now: the moment of arrival.

        Raises:
            HookError: 401.
        """
        if self.kind == "s3" and _bears(secret, headers):
            return  # MinIO cannot sign; the same notification twice is one by its sequencer
        said, sent = headers.get(SIGNATURE, ""), headers.get(TIMESTAMP, "")
        wanted = signature(secret, headers.get(ID, ""), sent, body)
        if not any(hmac.compare_digest(wanted.encode(), one.encode()) for one in said.split(" ")[:8]):
            raise HookError(
                401, f"The message is not signed by this hook's secret; wanted {ID}, {TIMESTAMP} and {SIGNATURE}: v1,…."
            )
        off = now.timestamp() - int(sent) if sent.isdecimal() and len(sent) < 12 else None
        if off is None or abs(off) > self.window_seconds:
            by = "" if off is None else f" by {abs(off):.0f} s, in the {'past' if off > 0 else 'future'}"
            raise HookError(
                401,
                f"{TIMESTAMP} is off{by}; wanted at most {self.window_seconds:g} s. Set the sender's clock, or send a new message.",
            )

    def read(self, headers: Mapping[str, str], body: bytes) -> list[str]:
        """What makes each event of an admitted message the same when it comes again; none for one that this hook does not listen to.

        Raises:
            HookError: 415 or 422, it is not of this hook's kind.
        """
        match self.kind:
            case "cloudevents":
                return self._cloudevent(headers, body)
            case "s3":
                return _notifications(body)
            case "rest":
                _parsed(body or b"{}")
                if not (name := headers.get(ID, "")):
                    raise HookError(422, f"The message has no {ID}; wanted one, another for each message.")
                return [_same("rest", name)]

    def _cloudevent(self, headers: Mapping[str, str], body: bytes) -> list[str]:
        """CloudEvents 1.0.2, HTTP binding 1.0.2, §3.1 and §3.2; batches are not taken."""
        content = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content == STRUCTURED:
            event = _parsed(body)
        elif "ce-specversion" in headers:
            event = {name: headers.get(f"ce-{name}") for name in ("specversion", "id", "source", "type")}
            if event["id"] != headers.get(ID):
                raise HookError(422, f"ce-id is not what was signed; wanted {ID} to be the same.")
        else:
            raise HookError(
                415,
                f"The message is no CloudEvent; wanted {STRUCTURED}, or headers ce-id, ce-source, ce-type and ce-specversion.",
            )
        name, source, kind = (str(event.get(name) or "") for name in ("id", "source", "type"))
        if event.get("specversion") != "1.0" or not all(0 < len(each) <= LONGEST for each in (name, source, kind)):
            raise HookError(
                422,
                f"The CloudEvent lacks something; wanted specversion 1.0, id, source and type, of at most {LONGEST} characters.",
            )
        return [_same("cloudevent", source, name)] if kind in self.types or not self.types else []


def _each_name_once(hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
    names = [hook.name for hook in hooks]
    if len(set(names)) != len(names):
        raise ValueError(f"each hook needs a name of its own, because it is its address; given: {names}")
    return hooks


Hooks = Annotated[tuple[Hook, ...], AfterValidator(_each_name_once)]


def signature(secret: bytes, name: str, timestamp: str, body: bytes) -> str:
    """What the header `webhook-signature` says of a message: `v1,` and the base64 of HMAC-SHA256 over id, time and body, dots between.

    >>> signature(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    key = secret
    if secret.startswith(b"whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
        except binascii.Error:
            key = secret
    signed = b".".join((name.encode(), timestamp.encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _bears(secret: bytes, headers: Mapping[str, str]) -> bool:
    shown = headers.get("authorization", "").removeprefix("Bearer ").strip()
    return hmac.compare_digest(hashlib.sha256(shown.encode()).digest(), hashlib.sha256(secret).digest())


class _Object(msgspec.Struct, rename="camel"):
    key: str
    sequencer: str = ""
    e_tag: str = ""
    version_id: str = ""


class _Bucket(msgspec.Struct):
    name: str


class _S3(msgspec.Struct):
    bucket: _Bucket
    object: _Object


class _Record(msgspec.Struct, rename="camel"):
    event_name: str
    s3: _S3


class _Notification(msgspec.Struct, rename="pascal"):
    records: Annotated[list[_Record], msgspec.Meta(max_length=RECORDS)] = []
    event: str = ""


def _notifications(body: bytes) -> list[str]:
    """Objects that were made; the rest, as deletions and the test that S3 sends first, wants nothing.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html; MinIO writes `s3:` before the name.
    """
    try:
        found = msgspec.json.decode(body, type=_Notification)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise HookError(
            422,
            f"The message is no notification of S3; wanted Records, at most {RECORDS}, with eventName and s3.bucket and s3.object.",
        ) from None
    made = [each for each in found.records if each.event_name.removeprefix("s3:").startswith("ObjectCreated:")]
    return [_same("s3", each.s3.bucket.name, *msgspec.structs.astuple(each.s3.object)) for each in made]


def _parsed(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise HookError(422, "The message is no JSON object in UTF-8.") from None


def _same(*names: str) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()
