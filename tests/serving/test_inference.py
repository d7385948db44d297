"""Tensors as bytes behind the JSON: the same rows get the same answers as in JSON, by row and by column; odd ones get a short refusal."""

import functools
import json
import struct
import tracemalloc
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from tasks.serving import inference
from tasks.serving.answers import Refusal
from tasks.serving.bodies import ROWS
from tasks.serving.inference import HEADER
from tasks.stores.predictions import Predictions
from tests.benchmarks.test_quality import environment, ran
from tests.serving.test_arrow import ROWS_SENT, Home, numbers
from tests.serving.test_hot_path import Labelled
from tests.stage import released, until

INFER = "/v2/models/flights/infer"
AS_BYTES = {"parameters": {"binary_data_output": True}}
Sent = tuple[str, str, Sequence[Any]]  # name, datatype, values
AGE: Sent = ("age", "FP64", [30.5, np.nan, 7, 61])
VISITS: Sent = ("visits", "INT64", [2, 0, 2**53, -3])
NEW: Sent = ("new", "BOOL", [True, False, True, False])
SEX = {"name": "sex", "datatype": "BYTES", "shape": [4], "data": ["f", None, 'a"\n', "m"]}


@pytest.fixture(scope="module", params=["mixed", "numbers"])
def home(request, tmp_path_factory) -> Home:
    """One whose model reads texts, and one whose model reads numbers alone and answers by column."""
    path = tmp_path_factory.mktemp("inference")
    if request.param == "mixed":
        return Home(path, Labelled(), ["age", "visits", "sex", "new"])
    names = ["age", "visits", "new"]
    return Home(path, Labelled(numbers(), names), names)


def binary(*sent: Sent, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A body with these tensors behind its JSON, and the header that says where that ends."""
    tensors, behind = [], []
    for name, datatype, values in sent:
        behind.append(inference.packed(datatype, list(values)))
        size = {"binary_data_size": len(behind[-1])}
        tensors.append({"name": name, "datatype": datatype, "shape": [len(values)], "parameters": size})
    head = json.dumps({"inputs": tensors + more.pop("inputs", []), **more}).encode()
    return b"".join([head, *behind]), {HEADER: str(len(head))}


def ask(home: Home, body: bytes | dict, headers: dict[str, Any] | None = None) -> httpx.Response:
    """The answer to an inference request."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return home.send(INFER, content, headers or {})


def unpacked(answer: httpx.Response) -> dict[str, tuple[list[int], list]]:
    """Shape and values of each tensor of an answer, read apart from the code under test."""
    length = int(answer.headers[HEADER])
    head, behind = json.loads(answer.content[:length]), answer.content[length:]
    found = {}
    for each in head["outputs"]:
        if "data" in each:
            found[each["name"]] = each["shape"], each["data"]
            continue
        size = each["parameters"]["binary_data_size"]
        mine, behind = behind[:size], behind[size:]
        if each["datatype"] == "BYTES":
            values = []
            while mine:
                (long,) = struct.unpack("<I", mine[:4])
                values.append(mine[4 : 4 + long].decode())
                mine = mine[4 + long :]
        else:
            values = np.frombuffer(mine, {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}[each["datatype"]]).tolist()
        found[each["name"]] = each["shape"], values
    assert not behind
    return found


def test_bytes_are_answered_and_logged_as_the_same_rows_in_json(home):
    """Label, probabilities and log are those of keepfit's own words, with JSON answers and with bytes; texts may stand in the JSON beside them."""
    own = home.ask({"rows": ROWS_SENT}).json()["predictions"]
    body, headers = binary(AGE, VISITS, NEW, inputs=[SEX])
    as_json = ask(home, body, headers)
    told, headers = binary(AGE, VISITS, NEW, inputs=[SEX], id="q-1", **AS_BYTES)
    as_bytes = ask(home, told, headers)
    assert (as_json.status_code, as_json.headers["content-type"]) == (200, "application/json")
    assert (as_bytes.status_code, as_bytes.headers["content-type"]) == (200, "application/octet-stream")
    plain = {each["name"]: (each["shape"], each["data"]) for each in as_json.json()["outputs"]}
    assert HEADER not in as_json.headers
    found = unpacked(as_bytes)
    for said in (plain, found):
        assert said["prediction"] == ([4], [one["prediction"] for one in own])
        chances = [chance for one in own for chance in one["probabilities"].values()]
        assert said["probabilities"] == ([4, 2], chances)
    logged = home.logged()
    ids = [*plain["id"][1], *found["id"][1], *(one["id"] for one in own)]
    assert len({*ids}) == 12
    for first, second, third in zip(ids[:4], ids[4:8], ids[8:], strict=True):
        assert logged[first]["row"] == logged[second]["row"] == logged[third]["row"]
        assert logged[first]["prediction"] == logged[second]["prediction"] == logged[third]["prediction"]


def test_numbers_alone_do_not_become_rows(home, monkeypatch):
    """Where the model reads numbers alone, bytes go by column; any other tensor, or a JSON one, goes by row."""
    by_row = []
    read = inference._listed
    monkeypatch.setattr(inference, "_listed", lambda *how: by_row.append(1) or read(*how))
    body, headers = binary(AGE, VISITS, NEW)
    assert ask(home, body, headers).status_code == 200
    assert bool(by_row) == ("sex" in home.names)
    by_row.clear()
    body, headers = binary(AGE, VISITS, inputs=[{"name": "new", "datatype": "BOOL", "shape": [4], "data": NEW[2]}])
    assert ask(home, body, headers).status_code == 200
    assert by_row


@pytest.mark.parametrize(
    ("name", "datatype", "values"),
    [("age", kind, [30, 0, 7, 61]) for kind in inference.NUMBERS]
    + [("visits", kind, [2, 0, 3, 100]) for kind in inference.NUMBERS]
    + [("age", "FP32", [30.5, np.nan, 7, 61]), ("visits", "INT8", [2, 0, 127, -128])],
)
def test_every_datatype_of_the_protocol_is_read(home, name, datatype, values):
    """A number may come as any of them, in JSON and as bytes; the log has the same, a whole one where the feature is whole."""
    others = [each for each in (AGE, VISITS, NEW) if each[0] != name]
    body, headers = binary((name, datatype, values), *others)
    listed = [
        {"name": each, "datatype": kind, "shape": [4, 1], "data": [[None if one != one else one] for one in some]}  # noqa: PLR0124
        for each, kind, some in [(name, datatype, values), *others]
    ]
    answers = [ask(home, body, headers), ask(home, {"inputs": listed})]
    assert [answer.status_code for answer in answers] == [200, 200]
    first, second = (
        [home.logged()[one]["row"][name] for one in next(each["data"] for each in answer.json()["outputs"] if each["name"] == "id")]
        for answer in answers
    )  # fmt: skip
    assert first == second == [None if one != one else one for one in values]  # noqa: PLR0124
    assert {type(one) for one in first if one is not None} == {float if name == "age" else int}


def test_texts_come_as_bytes_too(home):
    """Each behind its size; the same answer as in JSON."""
    texts: Sent = ("sex", "BYTES", ["f", "", 'a"\n', "ü"])
    body, headers = binary(AGE, VISITS, NEW, texts)
    answer = ask(home, body, headers)
    assert answer.status_code == 200
    if "sex" in home.names:
        ids = next(each["data"] for each in answer.json()["outputs"] if each["name"] == "id")
        assert [home.logged()[one]["row"]["sex"] for one in ids] == texts[2]


def test_json_may_want_bytes_and_bytes_may_want_json(home):
    """An output says for itself whether it comes as bytes; the request says it for all."""
    body = {
        "inputs": [
            {"name": name, "datatype": kind, "shape": [4], "data": [None if one != one else one for one in some]}  # noqa: PLR0124
            for name, kind, some in (AGE, VISITS, NEW)
        ]
    }
    some = ask(
        home, body | {"outputs": [{"name": "id"}, {"name": "probabilities", "parameters": {"binary_data": True}}]}
    )
    head = json.loads(some.content[: int(some.headers[HEADER])])
    assert {each["name"]: "data" in each for each in head["outputs"]} == {"id": True, "probabilities": False}
    assert unpacked(some)["probabilities"][0] == [4, 2]
    told, headers = binary(AGE, VISITS, NEW, outputs=[{"name": "id", "parameters": {"binary_data": False}}], **AS_BYTES)
    assert [each["name"] for each in ask(home, told, headers).json()["outputs"]] == ["id"]


def test_no_rows_are_answered_with_none(home):
    """By column and by row, in JSON and as bytes: tensors of no values."""
    none = [(name, kind, []) for name, kind, _ in (AGE, VISITS, NEW)]
    for more in ({}, AS_BYTES):
        body, headers = binary(*none, **more)
        answer = ask(home, body, headers)
        assert answer.status_code == 200, answer.text
        if more:
            assert {shape[0] for shape, _ in unpacked(answer).values()} == {0}
        else:
            assert {each["shape"][0] for each in answer.json()["outputs"]} == {0}


def test_v_04_unknown_tensors_are_refused_before_they_become_rows(home):
    """Eight hundred of ten thousand rows each take no more memory than a few times their bytes (V-04)."""
    body, headers = binary(*[(f"u{n}", "UINT8", [0] * ROWS) for n in range(800)])
    champion = home.door.succession.champions["flights"]
    tracemalloc.start()
    try:
        with pytest.raises(Refusal) as met:
            inference.protocol(headers[HEADER]).read(body, champion)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (met.value.status, peak < len(body)) == (422, True)
    assert "800 tensors are unknown" in str(met.value)


def sized(size: object, datatype: str = "FP64", shape: Sequence[int] = (4,), name: str = "age") -> dict:
    """A tensor that announces so many bytes."""
    return {"name": name, "datatype": datatype, "shape": [*shape], "parameters": {"binary_data_size": size}}


@functools.cache
def hostile() -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Bodies that are not as they should be, with their headers."""
    good, headers = binary(AGE, VISITS, NEW)
    length = int(headers[HEADER])

    def made(tensor: dict, behind: bytes, *others: Sent) -> tuple[bytes, dict[str, str]]:
        rest, _ = binary(*others)
        told = [tensor] + (json.loads(rest[: len(rest) - sum(len(inference.packed(k, list(v))) for _, k, v in others)])["inputs"])  # fmt: skip
        head = json.dumps({"inputs": told}).encode()
        return head + behind + b"".join(inference.packed(k, list(v)) for _, k, v in others), {HEADER: str(len(head))}

    texts = inference.packed("BYTES", ["f", "m", "f", "SECRET"])
    return {
        "no header": (good, {}),
        "a header that is none": (good, {HEADER: "SECRET"}),
        "a negative header": (good, {HEADER: "-1"}),
        "an endless header": (good, {HEADER: "9" * 30}),
        "a header in other digits": (good, {HEADER: b"\xb2"}),
        "a header beyond the body": (good, {HEADER: str(len(good) + 1)}),
        "a header that cuts the JSON": (good, {HEADER: str(length - 1)}),
        "a header that cuts a tensor": (good, {HEADER: str(length + 1)}),
        "cut bytes": (good[:-1], headers),
        "more bytes": (good + b"SECRET", headers),
        "JSON alone": (good[:length], headers),
        "no size": made({"name": "age", "datatype": "FP64", "shape": [4]}, b"", VISITS, NEW),
        "size and data": made(sized(32) | {"data": [1, 2, 3, 4]}, b"\0" * 32, VISITS, NEW),
        "size is a text": made(sized("SECRET"), b"\0" * 32, VISITS, NEW),
        "size is true": made(sized(True), b"\0", VISITS, NEW),
        "a negative size": made(sized(-32), b"", VISITS, NEW),
        "another size than the shape's": made(sized(24), b"\0" * 24, VISITS, NEW),
        "a huge size": made(sized(2**62), b"\0" * 32, VISITS, NEW),
        "other rows": made(sized(16, shape=[2]), b"\0" * 16, VISITS, NEW),
        "a negative shape": made(sized(32, shape=[-4]), b"\0" * 32),
        "wide": made(sized(32, shape=[2, 2]), b"\0" * 32),
        "infinite": binary(("age", "FP64", [np.inf, 1, 2, 3]), VISITS, NEW),
        "a truth that is 2": made(sized(4, "BOOL", name="new"), b"\0\1\2\1", AGE, VISITS),
        "a missing whole number": binary(AGE, ("visits", "FP64", [1, np.nan, 2, 3]), NEW),
        "half a whole number": binary(AGE, ("visits", "FP64", [1, 0.5, 2, 3]), NEW),
        "too large a whole number": binary(AGE, ("visits", "UINT64", [1, 2**53 + 1, 2, 3]), NEW),
        "too small a whole number": binary(AGE, ("visits", "INT64", [1, -(2**53) - 1, 2, 3]), NEW),
        "numbers as truths": binary(AGE, VISITS, ("new", "UINT8", [0, 1, 0, 1])),
        "truths as numbers": binary(("age", "BOOL", [True] * 4), VISITS, NEW),
        "texts as numbers": binary(("age", "BYTES", ["SECRET"] * 4), VISITS, NEW),
        "a tensor too many": binary(AGE, VISITS, NEW, ("SECRET", "FP64", [1, 2, 3, 4])),
        "a tensor twice": binary(AGE, AGE, VISITS, NEW),
        "a tensor missing": binary(AGE, NEW),
        "too many rows": binary(*[(name, kind, [one[0]] * (ROWS + 1)) for name, kind, one in (AGE, VISITS, NEW)]),
        "texts that end early": made(sized(len(texts) - 1, "BYTES", name="sex"), texts[:-1], AGE, VISITS, NEW),
        "fewer texts": made(sized(5, "BYTES", name="sex"), texts[:5], AGE, VISITS, NEW),
        "a text that is no UTF-8": made(sized(8, "BYTES", [1], "sex"), b"\4\0\0\0\xff\xfe\xff\xfe"),
        "texts without an end": made(sized(4, "BYTES", [1], "sex"), b"\xff\xff\xff\xff"),
        "millions of empty texts": made(sized(4 << 20, "BYTES", name="sex"), b"\0" * (4 << 20), AGE, VISITS, NEW),
    }  # fmt: skip


@pytest.mark.parametrize("name", hostile())
def test_v_04_a_hostile_body_gets_a_short_refusal(home, name):
    """4xx with one sentence that repeats nothing; nothing is logged (V-04)."""
    before = len(home.logged())
    answer = ask(home, *hostile()[name])
    assert answer.status_code in {400, 413, 422}, answer.text
    assert set(answer.json()) == {"error"}
    assert len(answer.content) < 400
    assert "SECRET" not in answer.text
    assert len(home.logged()) == before


def test_v_04_any_bytes_are_refused_or_answered(home):
    """Bytes that were changed anywhere, and cut anywhere, never end in a fault (V-04)."""
    good, headers = binary(AGE, VISITS, NEW, inputs=[SEX])
    random, statuses = np.random.default_rng(3), set()
    for _ in range(400):
        odd = bytearray(good)
        for place in random.integers(len(odd), size=random.integers(1, 4)):
            odd[place] = random.integers(256)
        cut = len(odd) if random.random() < 0.8 else int(random.integers(len(odd)))
        statuses.add(ask(home, bytes(odd[:cut]), headers).status_code)
    assert statuses <= {200, 400, 413, 422}
    assert len(statuses) > 1
    assert ask(home, good, headers).status_code == 200


TRITON = """
import json, sys
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
client = InferenceServerClient(sys.argv[1])
age, new = InferInput("age", [3], "FP32"), InferInput("new", [3], "BOOL")
age.set_data_from_numpy(np.array([30, 1.5, 7], "f4"))
new.set_data_from_numpy(np.array([True, False, True]))
told = client.infer("flights", [age, new], request_id="q-1")
some = client.infer("flights", [age, new], outputs=[InferRequestedOutput("prediction", binary_data=False)])
print(json.dumps({
    "live": client.is_server_live(), "ready": client.is_model_ready("flights"), "extensions": client.get_server_metadata()["extensions"],
    "inputs": [each["name"] for each in client.get_model_metadata("flights")["inputs"]], "request": told.get_response()["id"],
    "id": [name.decode() for name in told.as_numpy("id")], "probabilities": told.as_numpy("probabilities").tolist(),
    "prediction": told.as_numpy("prediction").tolist(), "again": some.as_numpy("prediction").tolist(), "none": some.as_numpy("id"),
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_triton_s_own_client_is_answered(tmp_path):
    """NVIDIA's Python client, as it comes, asks for bytes and reads them: ids, labels and probabilities of the three rows."""
    python = environment("triton")
    if python is None:
        pytest.skip("tritonclient cannot be installed here")
    stage = released(tmp_path)
    stage.start()
    try:
        until(stage.answers)
        found = json.loads(ran(python, TRITON, f"127.0.0.1:{stage.port}", home=tmp_path))
        own = stage.predict({"age": 30.0, "new": True}).json()["predictions"][0]
    finally:
        stage.stop()
    assert (found["live"], found["ready"], found["request"], found["none"]) == (True, True, "q-1", None)
    assert (found["extensions"], found["inputs"]) == ([inference.EXTENSION], ["age", "new"])
    assert found["prediction"] == found["again"] == [own["prediction"]] * 3
    assert found["probabilities"][0] == pytest.approx([*own["probabilities"].values()])
    logged = {record["id"]: record["row"] for record in Predictions(tmp_path).read("flights")}
    assert [logged[name]["age"] for name in found["id"]] == [30.0, 1.5, 7.0]
