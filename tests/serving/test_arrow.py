"""Rows by column, as an Arrow stream: answered and logged as the same rows in JSON; hostile streams get a short refusal."""

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline

from tasks.config.settings import Settings
from tasks.serving import arrow
from tasks.serving.answers import Refusal
from tasks.serving.app import Door
from tasks.serving.bodies import ROWS
from tasks.serving.champion import Champion, Feature, Manifest
from tasks.serving.protocols import STREAM
from tasks.serving.reading import OWN_FIELD
from tasks.serving.sheet import Sheet
from tasks.serving.writing import Columns, split
from tasks.stores.bundles import Bundle
from tasks.stores.journal import Journal
from tasks.stores.predictions import Predictions
from tasks.stores.served import parsed
from tests.serving.test_champion import FEATURES, release
from tests.serving.test_hot_path import Labelled
from tests.stage import door, released

SCHEMA = pa.schema([("age", pa.float64()), ("visits", pa.int64()), ("sex", pa.string()), ("new", pa.bool_())])
ROWS_SENT = [
    {"age": 30.5, "visits": 2, "sex": "f", "new": True},
    {"age": None, "visits": 0, "sex": None, "new": False},
    {"age": 7.0, "visits": 2**53, "sex": 'a"\n', "new": True},
    {"age": 61.0, "visits": -3, "sex": "m", "new": False},
]
HERE = "/projects/flights/predict"


def numbers() -> Pipeline:
    """A pipeline that reads no texts."""
    prepare = ColumnTransformer([("numbers", "passthrough", ["age", "visits", "new"])])
    return Pipeline(
        [
            ("prepare", prepare),
            ("model", HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5, random_state=0)),
        ]
    )


class Home:
    """A home whose champion of flights is compiled."""

    def __init__(self, path: Path, made: Labelled, names: list[str]) -> None:
        self.path, self.names = path, names
        settings = Settings(home=path, bundle_keys=Settings().signers)
        features = [each for each in FEATURES if each["name"] in names]
        ignored = ["id", "late", *({each["name"] for each in FEATURES} - set(names))]
        digest = made.write(settings.bundles("flights") / "1", features=features, ignored=ignored)
        Journal(settings.journal()).release(release(1, 1, digest))
        self.door = Door(settings)
        self.door.succession.look()

    def ask(self, body: bytes | dict, **headers: str) -> httpx.Response:
        """The answer to a body: an Arrow stream, or JSON."""
        if isinstance(body, dict):
            return self.send(HERE, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return self.send(HERE, body, {"Content-Type": STREAM} | headers)

    def send(self, path: str, content: bytes, headers: dict[str, Any]) -> httpx.Response:
        """The answer to a body under a path."""

        async def scene() -> httpx.Response:
            transport = httpx.ASGITransport(self.door.app(), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.post(path, content=content, headers=headers)

        return asyncio.run(scene())

    def logged(self) -> dict[str, dict]:
        """The log, by id."""
        return {record["id"]: record for record in Predictions(self.path).read("flights")}


@pytest.fixture(scope="module", params=["mixed", "numbers"])
def home(request, tmp_path_factory) -> Home:
    """One whose model reads texts, and one whose model reads numbers alone."""
    path = tmp_path_factory.mktemp("arrow")
    if request.param == "mixed":
        return Home(path, Labelled(), ["age", "visits", "sex", "new"])
    made = Labelled(numbers(), ["age", "visits", "new"])
    return Home(path, made, ["age", "visits", "new"])


def stream(table: pa.Table, **options: object) -> bytes:
    """A table as a stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def table(rows: list[dict], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows as a table."""
    return pa.Table.from_pylist(rows, schema)


def plain(answer: httpx.Response) -> list[dict]:
    """The predictions of an answer without their ids."""
    return [{name: value for name, value in one.items() if name != "id"} for one in answer.json()["predictions"]]


def test_columns_are_answered_and_logged_as_the_same_rows_in_json(home):
    """Answers, ids, version and what is logged are those of the JSON body; what the model does not read is not logged (V-14)."""
    said, other = home.ask({"rows": ROWS_SENT}), home.ask(stream(table(ROWS_SENT)))
    assert (said.status_code, other.status_code) == (200, 200)
    assert other.headers["content-type"] == "application/json"
    assert plain(said) == plain(other)
    assert {name: said.json()[name] for name in ("project", "version")} == {
        name: other.json()[name] for name in ("project", "version")
    }
    logged, kept = home.logged(), {"ms", "at", "id"}
    pairs = [
        (logged[one["id"]], logged[two["id"]])
        for one, two in zip(said.json()["predictions"], other.json()["predictions"], strict=True)
    ]
    for (one, two), row in zip(pairs, ROWS_SENT, strict=True):
        assert {name: one[name] for name in one.keys() - kept} == {name: two[name] for name in two.keys() - kept}
        assert two["row"] == {name: row[name] for name in home.names}
        assert [type(value) for value in two["row"].values()] == [type(row[name]) for name in home.names]
        assert one.keys() == two.keys()
        assert two["ms"] >= 0


def test_many_rows_in_json_are_answered_and_logged_as_few_are(home):
    """Each of them, however many; those of numbers alone stand in one line of the log."""
    rows, times = [{name: row[name] for name in home.names} for row in ROWS_SENT], 150
    few = home.ask({"rows": rows})
    (path,) = Predictions(home.path).files("flights")
    before = len(list(filter(None, path.read_bytes().split(b"\n"))))
    many = home.ask({"rows": rows * times})
    lines = len(list(filter(None, path.read_bytes().split(b"\n")))) - before
    assert plain(many) == plain(few) * times
    assert lines == (len(rows) * times if "sex" in home.names else 1)
    logged, ids = home.logged(), [one["id"] for one in many.json()["predictions"]]
    assert len(set(ids)) == len(rows) * times
    assert [logged[name]["row"] for name in ids] == rows * times
    known = [logged[one["id"]] for one in few.json()["predictions"]] * times
    assert [[logged[name][what] for what in ("prediction", "probability", "version")] for name in ids] == [
        [one[what] for what in ("prediction", "probability", "version")] for one in known
    ]


def test_v_05_too_many_rows_in_json_are_refused_undecoded(home, monkeypatch):
    """Rows of a few bytes each get 413, and the reader of the columns never takes them apart (V-05)."""
    reader, asked = home.door.succession.champions["flights"]._reader, []
    decoder = type("Decoder", (), {"decode": lambda _, body: asked.append(body)})()
    monkeypatch.setitem(reader._decoders, OWN_FIELD, decoder)
    answer = home.ask({"rows": [{}] * 200_000})
    assert (answer.status_code, asked) == (413, [])
    assert "10,000" in answer.json()["error"]


def test_the_answer_comes_as_a_stream_when_it_is_asked_for(home):
    """The columns hold what JSON says, in order; project and version stand in the schema; every id is in the log."""
    said = home.ask({"rows": ROWS_SENT})
    answer = home.ask(stream(table(ROWS_SENT)), Accept=f"{STREAM}, */*")
    assert answer.headers["content-type"] == STREAM
    got = pa.ipc.open_stream(answer.content).read_all()
    assert got.drop_columns("id").to_pylist() == plain(said)
    assert got.schema.metadata == {b"project": b"flights", b"version": b"1"}
    assert set(got["id"].to_pylist()) <= home.logged().keys()
    assert len(set(got["id"].to_pylist())) == len(ROWS_SENT)


def test_v_11_what_columns_were_logged_as_is_read_into_the_table_as_other_lines_are(home):
    """The reader of the log that fills the table finds a record for each row, with row and prediction as JSON; torn and blanked lines none (V-11)."""
    ids = [one["id"] for one in home.ask(stream(table(ROWS_SENT))).json()["predictions"]]
    (path,) = Predictions(home.path).files("flights")
    lines = [line for line in path.read_bytes().split(b"\n") if any(name.encode() in line for name in ids)]
    read = parsed("predictions", b"\n".join(lines)).to_pylist()
    assert [each["id"] for each in read] == ids
    wanted = [{name: row[name] for name in home.names} for row in ROWS_SENT]
    assert [msgspec.json.decode(each["row"]) for each in read] == wanted
    assert [msgspec.json.decode(each["prediction"]) for each in read] == [
        home.logged()[name]["prediction"] for name in ids
    ]
    cut = [line[: len(line) * 2 // 3] for line in lines] + [b" " * 80]
    assert len(parsed("predictions", b"\n".join(cut))) == 0


def test_other_types_that_hold_the_same_values_are_read(home):
    """Smaller and unsigned integers, single floats, whole numbers as floats, large strings, several batches, slices, no value at all."""
    few = ROWS_SENT[:2]
    said = plain(home.ask({"rows": few}))
    kinds = {"age": pa.float32(), "visits": pa.uint16(), "sex": pa.large_string(), "new": pa.bool_()}
    for changes in ({}, {"age": pa.float16(), "visits": pa.float64()}, {"visits": pa.int8()}):
        cast = table(few).cast(pa.schema(list((kinds | changes).items())))
        assert plain(home.ask(stream(cast))) == said
    assert plain(home.ask(stream(table(few), allow_64bit=True))) == said
    batches = pa.concat_tables([table(few[:1]), table(few[1:]), table([])])
    assert plain(home.ask(stream(batches))) == said
    assert plain(home.ask(stream(table([ROWS_SENT[3], *few, ROWS_SENT[3]]).slice(1, 2)))) == said
    nothing = table(few[1:]).set_column(0, "age", pa.nulls(1)).drop_columns("sex")
    assert plain(home.ask(stream(nothing))) == said[1:]
    assert plain(home.ask(stream(table([])))) == []
    assert pa.ipc.open_stream(home.ask(stream(table([])), Accept=STREAM).content).read_all().num_rows == 0


def test_many_rows_are_answered_as_each_alone(home):
    """A thousand rows, more than a model is asked about at once: byte for byte the answers of JSON, and each is logged once."""
    rng = np.random.default_rng(0)
    many = [
        {"age": float(age), "visits": int(n % 9), "sex": "fm"[n % 2], "new": bool(n % 3)}
        for n, age in enumerate(rng.normal(40, 20, 1000))
    ]
    before = len(home.logged())
    said = home.ask({"rows": [{name: row[name] for name in home.names} for row in many]})
    assert plain(home.ask(stream(table(many)))) == plain(said)
    assert len(home.logged()) == before + 2000


def test_a_model_that_is_not_compiled_answers_columns_as_rows(tmp_path):
    """What must become rows first, for a model of scikit-learn, a shadow or a canary, has the answers of JSON, in both forms."""
    stage = released(tmp_path)
    opened, client = door(stage.home)
    opened.succession.look()
    sent = table(
        [{"age": 30.0, "new": True}, {"age": 2.0, "new": False}], pa.schema([SCHEMA.field("age"), SCHEMA.field("new")])
    )

    async def scene() -> list[httpx.Response]:
        kinds = ({"Content-Type": STREAM}, {"Content-Type": STREAM, "Accept": STREAM})
        said = await client.post(HERE, json={"rows": sent.to_pylist()})
        return [said, *[await client.post(HERE, content=stream(sent), headers=kind) for kind in kinds]]

    said, rows, columns = asyncio.run(scene())
    assert plain(rows) == plain(said)
    assert pa.ipc.open_stream(columns.content).read_all().drop_columns("id").to_pylist() == plain(said)
    assert [record["row"] for record in Predictions(tmp_path).read("flights")] == sent.to_pylist() * 3


class Saying:
    """A compiled model that says what it was given."""

    def __init__(self, said: list) -> None:
        self.said = np.array(said)

    def encode(self, _given: object) -> None:
        """Nothing."""

    def answers(self, _encoded: object, _session: object) -> np.ndarray:
        """What it was given."""
        return self.said


KINDS = {
    "binary": ({"classes": ("no", "yes"), "positive": "yes", "threshold": 0.3}, [[0.7, 0.3], [0.8, 0.2], [0.1, 0.9]]),
    "binary, the first is positive": ({"kind": "binary", "classes": (True, False), "positive": True, "threshold": 0.5}, [[0.7, 0.3], [0.2, 0.8]]),
    "multiclass": ({"classes": ("a", "b", "c")}, [[0.2, 0.4, 0.4], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]),
    "binary, labels with signs": ({"kind": "binary", "classes": ("50 %b", 'a "b"'), "positive": "50 %b", "threshold": 0.5}, [[0.7, 0.3], [1e-9, 1.0]]),
    "multiclass of several types": ({"kind": "multiclass", "classes": ("a", 2, True)}, [[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]),
    "regression": ({"interval": 1.5}, [1.25, -3.0, 1e9]),
    "anomaly": ({"threshold": 0.6}, [0.6, 0.59, 0.7]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_answers_by_column_are_the_answers_one_by_one(kind):
    """Predictions, what stands beside them, and what is logged, for every kind of model."""
    more, said = KINDS[kind]
    base = {"project": "flights", "version": 1, "kind": kind, "target": None, "features": [], "ignored": []}
    manifest = msgspec.convert(base | more, Manifest)
    champion = Champion(release(1, 1, ""), manifest, Bundle(Path(), {}, {}), Saying(said))  # ty: ignore[invalid-argument-type]
    columns = champion.columns(Sheet((), np.empty((len(said), 0)), {}, {}))
    listed = champion.listed(columns)
    ids = b"".join([b"%032d" % n for n in range(len(said))])
    one = [{"id": f"{n:032d}", **each} for n, each in enumerate(listed)]
    assert arrow.answer(champion, ids, columns) == arrow.answer_of(champion, one)
    if champion.labels:
        (told,) = champion.writer.answers(split(ids), listed, [len(said)])
        assert champion.writer.classes(split(ids), columns, champion.labels) == told
        assert json.loads(told)["predictions"] == one
    predictions = [each["prediction"] for each in listed]
    assert predictions == (
        [chosen(columns, n) for n in range(len(said))] if columns.choices else columns.chosen.tolist()
    )
    assert columns.number.tolist() == [each if (number := champion.logged(answer)) is None else number for each, answer in zip(predictions, listed, strict=True)]  # fmt: skip


def chosen(columns: Columns, row: int) -> object:
    """The prediction of a row."""
    return columns.choices[columns.chosen[row]]


GOOD = table(ROWS_SENT[:2])
BYTES = stream(GOOD)


def changed(name: str, values: list, kind: pa.DataType | None = None) -> bytes:
    """The good stream with another column in place of one."""
    return stream(GOOD.set_column(GOOD.column_names.index(name), name, pa.array(values, kind)))


def overwritten(place: int, value: bytes) -> bytes:
    return BYTES[:place] + value + BYTES[place + len(value) :]


def wide(count: int) -> bytes:
    """A stream whose batch says that it has so many rows, in a column that needs no bytes for them."""
    few = stream(pa.table({"sex": pa.nulls(4242)}))
    return few.replace(struct.pack("<q", 4242), struct.pack("<q", count))


HOSTILE = {
    "empty": (b"", 400),
    "no stream": (b"SECRET" * 20, 400),
    "json": (b'{"rows":[]}', 400),
    "a file": (b"ARROW1\0\0" + BYTES, 400),
    "cut in the schema": (BYTES[:60], 400),
    "cut in a batch": (BYTES[:-60], 400),
    "more behind it": (BYTES + BYTES, 400),
    "a huge schema, as it says": (overwritten(4, struct.pack("<i", 2**31 - 1)), 400),
    "a negative schema, as it says": (overwritten(4, struct.pack("<i", -5)), 400),
    "no schema": (BYTES[8 + int.from_bytes(BYTES[4:8], "little") :], 400),
    "no batch": (BYTES[:8], 400),
    "zstd": (stream(GOOD, compression="zstd"), 415),
    "lz4": (stream(pa.table({"age": np.zeros(1 << 20)}), compression="lz4"), 415),
    "a dictionary": (stream(GOOD.set_column(2, "sex", pa.array(["f", "m"]).dictionary_encode())), 422),
    "a list": (changed("age", [[1.0], [2.0]]), 422),
    "a struct": (changed("age", [{"a": 1}, {"a": 2}]), 422),
    "binary": (changed("sex", [b"SECRET", b"b"]), 422),
    "decimals": (changed("age", [1, 2], pa.decimal128(5, 2)), 422),
    "a time of day": (changed("age", [1, 2], pa.time64("us")), 422),
    "a text for a number": (changed("age", ["SECRET", "1"]), 422),
    "a number for a truth": (changed("new", [1, 0]), 422),
    "a truth for a number": (changed("visits", [True, False]), 422),
    "a time for a number": (changed("age", [1, 2], pa.timestamp("us")), 422),
    "not a number": (changed("age", [float("nan"), 1.0]), 422),
    "infinite": (changed("age", [1.0, float("-inf")]), 422),
    "not whole": (changed("visits", [1.5, 2.0]), 422),
    "too big": (changed("visits", [2**53 + 1, 2]), 422),
    "too big for a float": (changed("visits", [1e300, 2.0]), 422),
    "missing": (changed("visits", [None, 2], pa.int64()), 422),
    "a column less": (stream(GOOD.drop_columns("visits")), 422),
    "a column more": (stream(GOOD.append_column("SECRET", pa.array([1, 2]))), 422),
    "a column twice": (stream(pa.table([*GOOD.columns, GOOD["age"]], names=[*GOOD.column_names, "age"])), 422),
    "rows without columns": (stream(pa.table({"sex": pa.nulls(1)})).replace(b"sex", b"age"), 422),
    "too many rows": (stream(pa.concat_tables([GOOD] * (ROWS // 2 + 1)).combine_chunks()), 413),
    "endless rows of nothing": (wide(2**40), 413),
    "too many batches": (stream(pa.concat_tables([GOOD] * 65)), 413),
}


FLOATS = [Feature("a", "float", nullable=True), Feature("b", "float", nullable=False)]


@pytest.mark.parametrize("some", [{"a": [0.5, None], "b": [-0.0, 2.0]}, {"more": ["x", "y"], "b": [1.0, 2.0], "a": [None, 3.0]}, {"a": [], "b": []}], ids=["as they are", "another order", "no rows"])  # fmt: skip
def test_floats_are_read_at_once_as_they_are_one_by_one(some):
    """With nulls, in another order, beside other columns, and where there are none."""
    types = {"a": pa.float64(), "b": pa.float64(), "more": pa.string()}
    batch = pa.record_batch([pa.array(values, types[name]) for name, values in some.items()], names=[*some])
    matrix, texts = arrow._columns(batch, FLOATS)
    found = arrow._doubles(batch, FLOATS)
    assert found is not None
    assert found.flags.c_contiguous
    assert (found.shape, found.tobytes(), texts) == (matrix.shape, matrix.tobytes(), {})


@pytest.mark.parametrize("b", [[1.0, None], [1.0, float("nan")], [1.0, float("inf")], [1, 2]], ids=["null", "NaN", "infinite", "whole"])  # fmt: skip
def test_floats_that_are_not_as_they_should_be_are_looked_at_one_by_one(b):
    """Which says what is wrong, or casts them."""
    assert arrow._doubles(pa.record_batch({"a": [0.5, None], "b": b}), FLOATS) is None


def test_v_05_columns_that_share_their_bytes_are_refused(home):
    """A second column that lies in the bytes of the first costs nothing to send and as much again to read, and a twentieth as well (V-05)."""
    body = stream(pa.table({"sex": ["f" * 4000], "late": ["l"]}))
    large, small = (place for place in range(len(body) - 16) if struct.unpack_from("<qq", body, place)[1] in {4000, 1} and _lies(body, place))  # fmt: skip
    offsets = body.index(struct.pack("<ii", 0, 1), body.index(b"f" * 4000))
    aliased = body[:offsets] + struct.pack("<ii", 0, 4000) + body[offsets + 8 :]
    aliased = aliased[:small] + aliased[large : large + 16] + aliased[small + 16 :]
    assert pa.ipc.open_stream(aliased).read_all()["late"].to_pylist() == ["f" * 4000]
    answer = home.ask(aliased)
    assert (answer.status_code, home.ask(stream(GOOD)).status_code) == (400, 200), answer.text


def _lies(body: bytes, place: int) -> bool:
    """Whether offset and length of a buffer of texts stand here: it holds one of the two."""
    offset, length = struct.unpack_from("<qq", body, place)
    begin = body.index(b"f" * 4000) - 8  # the offsets of the first column lie before its texts
    return 0 < offset < 8192 and body[begin + offset : begin + offset + length] in {b"f" * 4000, b"l"}


def test_v_04_times_beyond_the_calendar_are_refused_in_every_column(home):
    """Of a feature and of a column that leaves a mark or that another model reads: a short refusal, never another time (V-04)."""
    champion = home.door.succession.champions["flights"]
    for unit in ("s", "ms", "us"):
        body = stream(GOOD.append_column("id", pa.array([2**62, 1], pa.timestamp(unit))))
        with pytest.raises(Refusal, match="'id' has a value that does not fit"):
            arrow.read(body, champion, whole=True)
    body = stream(GOOD.append_column("id", pa.array([2**62, 10**9 + 1], pa.timestamp("ns", "No/Zone"))))
    assert arrow.read(body, champion, whole=True).sent()[1]["id"] == "1970-01-01T00:00:01+00:00"
    with pytest.raises(Refusal, match="'at' has a value"):
        arrow._values(pa.array([2**58 + 7], pa.timestamp("s")), 1, Feature("at", "datetime", nullable=False))


def test_another_model_meets_every_column_that_was_sent(home):
    """A challenger may read what the champion does not: the rows of a stream are those of the same rows in JSON."""
    champion = home.door.succession.champions["flights"]
    body = stream(GOOD.append_column("id", pa.array([7, 8])))
    asked = arrow.ARROW.read(body, champion).rows
    assert asked == [row | {"id": n} for row, n in zip(ROWS_SENT[:2], (7, 8), strict=True)]
    assert arrow.read(body, champion).beside == {}


@pytest.mark.parametrize(("body", "status"), HOSTILE.values(), ids=HOSTILE)
def test_v_04_a_hostile_stream_gets_a_short_refusal(home, body, status):
    """Refused with a sentence that repeats nothing, and nothing is logged (V-04)."""
    before = len(home.logged())
    answer = home.ask(body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert len(answer.content) < 400
    assert b"SECRET" not in answer.content
    assert len(home.logged()) == before


def test_v_04_a_stream_with_any_byte_altered_is_answered_or_refused(home):
    """No altered byte, and no cut, ends in a fault (V-04)."""
    rng = np.random.default_rng(7)
    for place in range(0, len(BYTES), 3):
        broken = overwritten(place, bytes([int(rng.integers(0, 256))]))
        assert home.ask(broken).status_code in {200, 400, 413, 415, 422}
    for end in range(0, len(BYTES), 16):
        assert home.ask(BYTES[:end]).status_code in {200, 400, 422}


def test_v_05_a_big_or_compressed_body_is_refused(home):
    """The limits of JSON bodies hold for streams (V-05)."""
    assert home.ask(BYTES, **{"Content-Encoding": "gzip"}).status_code == 415
    assert home.ask(b"\0" * (9 << 20)).status_code == 413


@pytest.mark.parametrize(("policy", "status"), [("serve", 200), ("refuse", 503)])
def test_v_10_columns_whose_record_the_disk_does_not_take_are_served_or_refused(home, monkeypatch, policy, status):
    """As the policy says, and counted where they are served (V-10)."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(home.door.predicting, "_unlogged", policy)
    monkeypatch.setattr(home.door.predicting._predictions, "write", full)
    lost = home.door.meter._unlogged.labels("flights")
    before = lost._value.get()
    assert home.ask(BYTES).status_code == status
    assert lost._value.get() - before == (2 if policy == "serve" else 0)
