"""Outcomes over HTTP: by prediction id, safe when acknowledged, refused in a sentence where they do not fit."""

import asyncio
import datetime as dt
import json
import os

import pytest

from tasks.config.settings import Settings
from tasks.serving.bodies import ROWS
from tasks.serving.champion import Manifest
from tasks.serving.outcomes import misfit
from tasks.stores.predictions import Told
from tasks.stores.served import Serving
from tests.ml.test_kinds import TOLD
from tests.stage import GOOD, door, released

LATER = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home in which version 1 of flights is released."""
    return released(tmp_path_factory.mktemp("outcomes")).home


def told(home, *bodies):
    """The answers to bodies of outcomes: bytes, or lists of outcomes."""

    async def scene():
        opened, client = door(home)
        opened.succession.look()
        contents = [body if isinstance(body, bytes) else json.dumps({"outcomes": body}).encode() for body in bodies]
        return [await client.post("/projects/flights/outcomes", content=content) for content in contents]

    return asyncio.run(scene())


def predicted(home, count):
    """The ids of some predictions."""

    async def scene():
        opened, client = door(home)
        opened.succession.look()
        return await client.post("/projects/flights/predict", json={"rows": [GOOD] * count})

    return [prediction["id"] for prediction in asyncio.run(scene()).json()["predictions"]]


def test_an_outcome_is_known_of_its_prediction(home):
    """An outcome is joined to its prediction by id; one without a time became known when it came."""
    first, second = predicted(home, 2)
    (answer,) = told(
        home, [{"id": first, "value": True, "at": "2026-01-31T12:00:00+01:00"}, {"id": second, "value": False}]
    )
    assert (answer.status_code, answer.json()) == (200, {"project": "flights", "outcomes": 2})
    found = dict(Serving("flights", Settings(home=home)).told([first, second, "never"]))
    assert {name: outcome.value for name, outcome in found.items()} == {first: True, second: False}
    assert found[first].at == dt.datetime(2026, 1, 31, 11, tzinfo=dt.UTC)
    assert found[second].at == found[second].came


WRONG = {
    "no class": [{"id": "a", "value": "SECRET"}],
    "a number beyond all": [{"id": "a", "value": 10**400}],
    "null": [{"id": "a", "value": None}],
    "a list": [{"id": "a", "value": [True]}],
    "no value": [{"id": "a"}],
    "no id": [{"value": True}],
    "a path as id": [{"id": "../SECRET", "value": True}],
    "a long id": [{"id": "a" * 65, "value": True}],
    "an empty id": [{"id": "", "value": True}],
    "a number as id": [{"id": 7, "value": True}],
    "another field": [{"id": "a", "value": True, "SECRET": 1}],
    "no time": [{"id": "a", "value": True, "at": "SECRET"}],
    "a time to come": [{"id": "a", "value": True, "at": LATER}],
    "beyond all years": [{"id": "a", "value": True, "at": "9999-12-31T23:59:59-10:00"}],
    "an empty body": b"",
    "no JSON": b"SECRET",
    "a list as body": b"[]",
    "NaN": b'{"outcomes":[{"id":"a","value":NaN}]}',
    "deep": b'{"outcomes":' + b"[" * 200_000,
    "a value twice": b'{"outcomes":[{"id":"a","value":true,"value":false}]}',
    "outcomes twice": b'{"outcomes":[],"outcomes":[]}',
    "too many": [{"id": "a", "value": True}] * (ROWS + 1),
}


def test_v_04_what_is_no_outcome_gets_a_short_refusal_and_leaves_nothing(home):
    """Each wrong body gets 4xx and one sentence without what was sent; not even the good outcomes in it count (V-04)."""
    before = list(Told(home).read("flights"))
    good = {"id": "good", "value": True}
    bodies = [body if isinstance(body, bytes) else [good, *body] for body in WRONG.values()]
    for name, answer in zip(WRONG, told(home, *bodies), strict=True):
        assert answer.status_code in {400, 413, 422}, name
        assert set(answer.json()) == {"error"}, name
        assert len(answer.content) < 300, name
        assert "SECRET" not in answer.text, name
    assert list(Told(home).read("flights")) == before


POOL = [
    True,
    False,
    0,
    1,
    1.0,
    2,
    2.0,
    2.5,
    7,
    -0.0,
    1e300,
    *("1", "1.0", "2", "true", "false", "True", "ill", "well", "pos", "neg", "low", "milk", ""),
]


@pytest.mark.parametrize("kind", [kind for kind, *_ in TOLD])
def test_what_is_taken_is_known_to_mean_something(kind):
    """No value gets 200 at the door that the readers of the log then pass over."""
    manifest = Manifest(project="p", version=1, kind=kind.name, target="y", features=(), ignored=(), **_told(kind))
    taken = [value for value in POOL if misfit(value, manifest) is None]
    assert taken
    assert kind.meant(taken).notna().all()


def _told(kind):
    """What of its description a manifest keeps."""
    return {name: value for name, value in kind.described().items() if name in {"classes", "positive", "own"}}


def test_v_10_outcomes_that_do_not_reach_the_disk_are_not_acknowledged(home, monkeypatch):
    """A full disk gives 503 and a time to wait; told again they are there once (V-10)."""
    (name,) = predicted(home, 1)
    real = os.writev
    with monkeypatch.context() as broken:
        broken.setattr(os, "writev", lambda handle, parts: real(handle, [b"".join(parts)[:20]]))
        (answer,) = told(home, [{"id": name, "value": True}])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert Serving("flights", Settings(home=home)).history(name) == []
    (answer,) = told(home, [{"id": name, "value": True}])
    assert answer.status_code == 200
    assert [outcome.value for outcome in Serving("flights", Settings(home=home)).history(name)] == [True]
