"""Three protocols, one way: the same rows get the same answers, the same checks and a line in the same log."""

import asyncio
import json
import tracemalloc
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tasks.serving.answers import Refusal
from tasks.serving.bodies import BODY_BYTES, ROWS
from tasks.serving.champion import Champion, Manifest
from tasks.serving.inference import OPEN_INFERENCE, _flat, outputs, packed
from tasks.serving.protocols import MLFLOW
from tasks.stores.predictions import Predictions
from tests.stage import GOOD, door, released

INFER, INVOKE = "/v2/models/flights/infer", "/invocations/flights"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home in which version 1 of flights is released."""
    return released(tmp_path_factory.mktemp("protocols")).home


def talk(home, *requests):
    """The answers to requests, each a method, a path and what the client is told of the body."""

    async def scene():
        opened, client = door(home)
        opened.succession.look()
        return [await client.request(method, path, **how) for method, path, how in requests]

    return asyncio.run(scene())


def tensor(name, datatype, data, shape=None, **more):
    """A tensor of one value a row."""
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data, **more}


def inputs(*tensors, **more):
    """The body of an inference request."""
    return {"inputs": list(tensors), **more}


AGE, NEW = tensor("age", "FP64", [30.0, 1]), tensor("new", "BOOL", [[True], [False]], shape=[2, 1])


def test_the_same_rows_get_the_same_answer_in_every_protocol(home):
    """Labels and probabilities are equal, in their protocol's shape, and every prediction is in the log under its id."""
    rows = [{"age": 30.0, "new": True}, {"age": 1, "new": False}]
    split = {"dataframe_split": {"columns": ["new", "age"], "index": [5, 7], "data": [[True, 30.0], [False, 1]]}}
    own, infer, split_said, records_said = (
        answer.json()
        for answer in talk(
            home,
            ("POST", "/projects/flights/predict", {"json": {"rows": rows}}),
            ("POST", INFER, {"json": inputs(AGE, NEW, id="q-1")}),
            ("POST", INVOKE, {"json": split}),
            ("POST", INVOKE, {"json": {"dataframe_records": rows}}),
        )
    )
    labels = [one["prediction"] for one in own["predictions"]]
    chances = [list(one["probabilities"].values()) for one in own["predictions"]]
    assert {name: infer[name] for name in ("model_name", "model_version", "id")} == {
        "model_name": "flights", "model_version": "1", "id": "q-1",
    }  # fmt: skip
    tensors = {each["name"]: each for each in infer["outputs"]}
    assert (tensors["prediction"]["datatype"], tensors["prediction"]["shape"]) == ("BOOL", [2])
    assert tensors["prediction"]["data"] == split_said["predictions"] == records_said["predictions"] == labels
    assert tensors["probabilities"]["parameters"] == {"classes": ["false", "true"]}
    assert np.reshape(tensors["probabilities"]["data"], tensors["probabilities"]["shape"]).tolist() == chances
    ids = [*tensors["id"]["data"], *split_said["ids"], *records_said["ids"], *(one["id"] for one in own["predictions"])]
    logged = {record["id"]: record for record in Predictions(home).read("flights")}
    assert len({*ids}) == 8
    assert [logged[name]["row"] for name in ids] == [{"age": 30.0, "new": True}, {"age": 1.0, "new": False}] * 4


def test_a_client_of_the_open_inference_protocol_finds_its_way(home):
    """Health, the server's and the model's metadata have the protocol's fields; who is not there is an error with a reason."""
    live, ready, server, model, is_ready, missing, not_ready = talk(
        home,
        *(("GET", path, {}) for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/flights")),
        ("GET", "/v2/models/flights/ready", {}),
        ("GET", "/v2/models/SECRET", {}),
        ("GET", "/v2/models/SECRET/ready", {}),
    )
    assert (live.status_code, ready.status_code, is_ready.status_code) == (200, 200, 200)
    assert set(server.json()) == {"name", "version", "extensions"}
    described = model.json()
    assert (described["name"], described["versions"]) == ("flights", ["1"])
    assert described["inputs"] == [
        {"name": "age", "datatype": "FP64", "shape": [-1]},
        {"name": "new", "datatype": "BOOL", "shape": [-1]},
    ]
    assert {each["name"]: (each["datatype"], each["shape"]) for each in described["outputs"]} == {
        "prediction": ("BOOL", [-1]), "id": ("BYTES", [-1]), "probabilities": ("FP64", [-1, 2]),
    }  # fmt: skip
    for answer in (missing, not_ready):
        assert answer.status_code == 404
        assert set(answer.json()) == {"error"}
        assert "SECRET" not in answer.text


def test_only_the_wanted_outputs_come(home):
    """A request may name its outputs; one that does not exist is refused before anything is scored."""
    before = len(list(Predictions(home).read("flights")))
    some, strange = talk(
        home,
        ("POST", INFER, {"json": inputs(AGE, NEW, outputs=[{"name": "prediction"}])}),
        ("POST", INFER, {"json": inputs(AGE, NEW, outputs=[{"name": "SECRET"}])}),
    )
    assert [each["name"] for each in some.json()["outputs"]] == ["prediction"]
    assert strange.status_code == 422
    assert "SECRET" not in strange.text
    assert len(list(Predictions(home).read("flights"))) == before + 2


HOSTILE_INFERENCES = {
    "no inputs": inputs(),
    "no shape": {"inputs": [{"name": "age", "datatype": "FP64", "data": [1]}]},
    "empty shape": inputs(tensor("age", "FP64", [1]) | {"shape": []}, NEW),
    "wide": inputs(tensor("age", "FP64", [1, 2], shape=[1, 2]), tensor("new", "BOOL", [True])),
    "negative": inputs(tensor("age", "FP64", [1], shape=[-1]), tensor("new", "BOOL", [True], shape=[-1])),
    "more data than shape": inputs(tensor("age", "FP64", [1, 2], shape=[1]), tensor("new", "BOOL", [True])),
    "other lengths": inputs(tensor("age", "FP64", [1, 2]), tensor("new", "BOOL", [True])),
    "a tensor twice": inputs(AGE, AGE, NEW),
    "a tensor missing": inputs(AGE),
    "a tensor too many": inputs(AGE, NEW, tensor("SECRET", "FP64", [1, 2])),
    "another datatype": inputs(tensor("age", "BF16", [1, 2]), NEW),
    "a number beyond its datatype": inputs(tensor("age", "INT8", [128, 1]), NEW),
    "a negative number without a sign": inputs(tensor("age", "UINT64", [-1, 1]), NEW),
    "half a whole number": inputs(tensor("age", "INT32", [0.5, 1]), NEW),
    "no data": inputs({"name": "age", "datatype": "FP64", "shape": [2]}, NEW),
    "texts as numbers": inputs(tensor("age", "FP64", ["SECRET", "1"]), NEW),
    "numbers as bools": inputs(AGE, tensor("new", "BOOL", [1, 0])),
    "a bool as a number": inputs(tensor("age", "FP64", [True, 1]), NEW),
    "null": inputs(tensor("age", "FP64", [None, 1]), NEW),
    "deep data": inputs(tensor("age", "FP64", [[[1]], 1]), NEW),
    "huge number": inputs(tensor("age", "INT64", [10**400, 1]), NEW),
    "odd id": inputs(AGE, NEW, id="SECRET\n\x1b[31m"),
    "long id": inputs(AGE, NEW, id="x" * 65),
    "number as id": inputs(AGE, NEW, id=7),
    "a list": [],
    "too many rows": inputs(
        tensor("age", "FP64", [1] * (ROWS + 1)), tensor("new", "BOOL", [True] * (ROWS + 1))
    ),
}  # fmt: skip
HOSTILE_INVOCATIONS = {
    "nothing": {},
    "both": {"dataframe_records": [GOOD], "dataframe_split": {"columns": ["age"], "data": []}},
    "instances": {"instances": [GOOD]},
    "params": {"dataframe_records": [GOOD], "params": {"SECRET": 1}},
    "a column twice": {"dataframe_split": {"columns": ["age", "age"], "data": [[1, 2]]}},
    "a short row": {"dataframe_split": {"columns": ["age", "new"], "data": [[1]]}},
    "a long row": {"dataframe_split": {"columns": ["age", "new"], "data": [[1, True, 2]]}},
    "an unknown column": {"dataframe_split": {"columns": ["age", "new", "SECRET"], "data": [[1, True, 2]]}},
    "a list inside": {"dataframe_records": [{"age": [1], "new": True}]},
    "records are an object": {"dataframe_records": {"age": [1]}},
    "too many rows": {"dataframe_split": {"columns": ["age", "new"], "data": [[1, True]] * (ROWS + 1)}},
}


def nested(levels):
    """A list in a list in a list."""
    return b"[" * levels + b"]" * levels


RAW = {
    "empty": b"",
    "NaN": b'{"dataframe_records":[{"age":NaN,"new":true}]}',
    "deep": b'{"inputs":' + b"[" * 200_000,
    "deep and whole": b'{"inputs":' + nested(900) + b"}",
    "deep in a parameter": b'{"inputs":[],"parameters":{"a":' + nested(600) + b"}}",
    "deeper in a parameter": b'{"inputs":[],"parameters":{"a":' + nested(950) + b"}}",
    "deep in an unknown field": b'{"inputs":[],"SECRET":' + nested(600) + b"}",
    "deep in an index": b'{"dataframe_split":{"columns":[],"data":[],"index":' + nested(600) + b"}}",
    "bad UTF-8 in an unknown field": b'{"inputs":[],"SECRET":"\xff"}',
    "1e999 in an unknown field": b'{"inputs":[],"SECRET":1e999}',
    "5000 digits in an unknown field": b'{"inputs":[],"SECRET":' + b"9" * 5000 + b"}",
    "bad UTF-8": b'{"dataframe_records":[{"age":"\xff"}]}',
    "a name twice": b'{"dataframe_records":[{"age":1,"age":2,"new":true}]}',
    "inputs twice": b'{"inputs":[],"inputs":[]}',
    "a form": b"SECRET=1",
}


@pytest.mark.parametrize(("path", "bodies"), [(INFER, HOSTILE_INFERENCES), (INVOKE, HOSTILE_INVOCATIONS)])
def test_v_04_a_hostile_body_gets_a_short_refusal_in_every_protocol(home, path, bodies):
    """Another shape, other types, twice the same name: 4xx with one sentence that repeats nothing; nothing is logged (V-04)."""
    before = len(list(Predictions(home).read("flights")))
    sent = {name: json.dumps(body).encode() for name, body in bodies.items()} | RAW
    answers = talk(home, *(("POST", path, {"content": body}) for body in sent.values()))
    for name, answer in zip(sent, answers, strict=True):
        assert answer.status_code in {400, 413, 422}, name
        assert set(answer.json()) == {"error"}, name
        assert len(answer.content) < 400, name
        assert "SECRET" not in answer.text, name
    assert len(list(Predictions(home).read("flights"))) == before


def whole(begin, item, end, size=BODY_BYTES):
    """A body of as many items as fit."""
    return begin + item * ((size - len(begin) - len(end)) // len(item)) + end


MANY = {
    "records": (INVOKE, whole(b'{"dataframe_records":[', b'{"age":1},', b'{"age":1}]}')),
    "split": (INVOKE, whole(b'{"dataframe_split":{"columns":["age"],"data":[', b"[1],", b"[1]]}}")),
    "index": (INVOKE, whole(b'{"dataframe_split":{"columns":["age"],"data":[[1]],"index":[', b"[1],", b"[1]]}}")),
    "nested tensor": (INFER, whole(b'{"inputs":[{"name":"age","shape":[1],"datatype":"FP64","data":[', b"[1],", b"[1]]}]}")),
    "tensors": (INFER, whole(b'{"inputs":[', b'{"name":"a","shape":[0],"datatype":"FP64","data":[]},', b"{}]}")),
    "parameters": (INFER, whole(b'{"inputs":[],"parameters":{"a":[', b"{},", b"{}]}}")),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_v_04_far_too_many_rows_are_refused_before_they_fill_the_memory(name):
    """To refuse a body of 8 MiB of the smallest rows takes less memory than a tenth of its bytes, for nothing of it is decoded (V-04)."""
    path, body = MANY[name]
    asked = SimpleNamespace(
        manifest=Manifest(project="p", version=1, kind="regression", target="y", features=(), ignored=("age", "new"))
    )
    tracemalloc.start()
    try:
        with pytest.raises(Refusal) as met:
            (OPEN_INFERENCE if path == INFER else MLFLOW).read(body, cast(Champion, asked))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (met.value.status, peak < BODY_BYTES / 10) == (413, True)


def test_brackets_in_texts_are_no_rows(home):
    """A text may hold as many as it likes."""
    odd = {"dataframe_records": [GOOD | {"id": "[{" * 50_000}]}
    of_tensors = inputs(
        tensor("age", "FP64", [1]), tensor("new", "BOOL", [True]), tensor("id", "BYTES", ["[{" * 50_000])
    )
    answers = talk(home, ("POST", INVOKE, {"json": odd}), ("POST", INFER, {"json": of_tensors}))
    assert [answer.status_code for answer in answers] == [200, 200]


def of_kind(kind, **more):
    """A manifest with what the tensors depend on."""
    return Manifest(project="p", version=1, kind=kind, target="y", features=(), ignored=(), **more)


@pytest.mark.parametrize(
    ("manifest", "wanted"),
    [
        (of_kind("regression"), {"prediction": ("FP64", [-1]), "interval": ("FP64", [-1, 2])}),
        (of_kind("anomaly"), {"prediction": ("BOOL", [-1]), "score": ("FP64", [-1])}),
        (of_kind("recommendation", k=3), {"prediction": ("BYTES", [-1, 3]), "scores": ("FP64", [-1, 3])}),
        (of_kind("multiclass", classes=(1, 2, 3)), {"prediction": ("INT64", [-1]), "probabilities": ("FP64", [-1, 3])}),
        (of_kind("multiclass", classes=("a", 2)), {"prediction": ("BYTES", [-1]), "probabilities": ("FP64", [-1, 2])}),
    ],
)  # fmt: skip
def test_every_kind_of_problem_has_its_tensors(manifest, wanted):
    """The label's type, an interval, a score, or lists of items: each has a datatype and a shape."""
    found = {name: (each["datatype"], each["shape"]) for name, each in outputs(manifest).items()}
    assert found == wanted | {"id": ("BYTES", [-1])}


def test_lists_of_different_lengths_make_a_tensor():
    """A shorter list ends in empty texts, or null among numbers, so that the shape holds; as bytes null is NaN."""
    names = _flat({"datatype": "BYTES", "shape": [-1, 3]}, [["a", "b"], ["c"], []])
    scores = _flat({"datatype": "FP64", "shape": [-1, 3]}, [[0.5, 0.25], [1.0], []])
    assert (names[0]["shape"], names[1]) == ([3, 2], ["a", "b", "c", "", "", ""])
    assert (scores[0]["shape"], scores[1]) == ([3, 2], [0.5, 0.25, 1.0, None, None, None])
    found = np.frombuffer(packed("FP64", scores[1]))
    assert (found[:3].tolist(), np.isnan(found[3:]).all()) == ([0.5, 0.25, 1.0], True)
