"""Marks: no key that a request carries is logged, and an erasure finds the prediction nevertheless."""

import asyncio
import datetime as dt
import json
import logging

import pyarrow as pa
import pytest

from tasks.config.errors import KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.erase import Erasing
from tasks.ml.rollout import RolloutPlan
from tasks.serving.protocols import STREAM
from tasks.stores import marks
from tasks.stores.journal import Rollout
from tasks.stores.predictions import Predictions
from tasks.stores.shadows import Shadows
from tasks.tidy import Tidying
from tests.serving.test_champion import GOOD
from tests.serving.test_hot_path import Labelled, labelled
from tests.stage import Stage, door, until

__all__ = ["labelled"]
KEY = 471_147_114_711  # no piece of an id by chance
YAML = """
project: flights
positive: true
contract:
  key: [id]
  time: at
  target: late
  columns:
    id: {type: int}
    at: {type: datetime}
    late: {type: bool}
    age: {type: float, nullable: true}
    visits: {type: int}
    sex: {type: text, nullable: true}
    new: {type: bool}
split: {kind: time, column: at}
"""


@pytest.fixture
def settings(tmp_path, labelled: Labelled) -> Settings:
    """A home whose champion of flights is compiled, and knows what names a row."""
    (tmp_path / "projects" / "flights").mkdir(parents=True)
    (tmp_path / "projects" / "flights" / "project.yaml").write_text(YAML)
    stage = Stage(tmp_path / "state")
    for version in (1, 2):
        folder = stage.home / "bundles" / "flights" / str(version)
        stage.digests[version] = labelled.write(folder, version, key={"id": "int"})
    stage.release(1)
    return Settings(home=stage.home, projects=tmp_path / "projects")


def asked(settings: Settings, *rows: dict, path: str = "/projects/flights/predict", many: str = "rows") -> list[str]:
    """Asks the door over a home, without a network; gives the ids."""

    async def scene():
        opened, client = door(settings.home)
        opened.succession.look()
        opened.beside.others.look()
        answer = await client.post(path, json={many: list(rows)})
        assert answer.status_code == 200, answer.text
        until(lambda: opened.beside.shadow._rows == 0)
        opened.predicting.close()
        said = answer.json()
        return said.get("ids") or [each["id"] for each in said["predictions"]]

    return asyncio.run(scene())


def erase(settings: Settings, *, dry_run: bool = False):
    erasing = Erasing(Project.named("flights", settings), settings)
    return erasing.erase((str(KEY),), {}, actor="test", reason="asked for", dry_run=dry_run)


@pytest.mark.parametrize("when", ["logged", "gathered"])
def test_r_12_predictions_are_erased_by_a_key_that_no_log_holds(settings, when):
    """However the key was written and by whichever way it came; who was asked about without a key is counted, and stays."""
    sent = {"id": KEY}
    (one,) = asked(settings, GOOD | sent)
    two, other = asked(settings, GOOD | {"id": str(KEY)}, GOOD | {"id": 12})
    (three,) = asked(settings, GOOD | {"id": float(KEY)}, path="/invocations/flights", many="dataframe_records")
    nobody, none = asked(settings, GOOD, GOOD | {"id": None})
    log = list(Predictions(settings.home).read("flights"))
    assert [marks.MARK in record["row"] for record in log] == [True, True, True, True, False, False]
    assert all(record["row"].keys() - {marks.MARK} == GOOD.keys() for record in log)
    for path in settings.home.rglob("*.jsonl"):
        assert str(KEY).encode() not in path.read_bytes()
    if when == "gathered":
        now = dt.datetime.now(dt.UTC)
        Tidying(Project.named("flights", settings), settings, lambda: now + dt.timedelta(days=2)).tidy(0)
        assert list(Predictions(settings.home).read("flights")) == []
    planned, done = erase(settings, dry_run=True), erase(settings)
    assert (planned.predictions, done.predictions, done.unattributed) == (3, 3, 2)
    assert done.reason.endswith("; 2 predictions were asked for without the key, so nobody can say whose they are")
    left = [name for rows in _tables(settings) for name in rows["id"].to_pylist()]
    assert sorted(left) == sorted([other, nobody, none])
    assert not {one, two, three} & set(left)
    again = erase(settings)
    assert (again.state, again.unattributed) == ("nothing", 2)


def _tables(settings):
    from tasks.stores.served import Serving

    return Serving("flights", settings).tables("predictions")


def test_rows_by_column_are_marked_too(settings):
    """An Arrow stream that carries the key leaves the marks that the same rows in JSON leave; without it there are none."""
    rows = [GOOD | {"id": KEY}, GOOD | {"id": 12}]

    async def scene():
        opened, client = door(settings.home)
        opened.succession.look()
        for sent in (rows, [GOOD]):
            columns = {name: [row[name] for row in sent] for name in sent[0]}
            body, head = arrow_stream(columns), {"content-type": STREAM}
            answer = await client.post("/projects/flights/predict", content=body, headers=head)
            assert answer.status_code == 200, answer.text
        await client.post("/projects/flights/predict", json={"rows": rows})
        opened.predicting.close()

    asyncio.run(scene())
    first, second, plain, *others = [
        record["row"].get(marks.MARK) for record in Predictions(settings.home).read("flights")
    ]
    assert [first, second] == others
    assert first != second
    assert plain is None
    assert str(KEY).encode() not in b"".join(path.read_bytes() for path in settings.home.rglob("*.jsonl"))


def arrow_stream(columns: dict[str, list]) -> bytes:
    """Columns as an Arrow IPC stream."""
    table, sink = pa.table(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_the_shadow_is_asked_what_was_sent(settings):
    """The mark stands in the log alone: the model beside the champion meets rows as they were sent."""
    stage = Stage(settings.home)
    champion = stage.journal.champion("flights")
    assert champion is not None
    digest = marks.hashlib.sha256((settings.bundles("flights") / "2" / "manifest.json").read_bytes()).hexdigest()
    now, plan = dt.datetime.now(dt.UTC).isoformat(), RolloutPlan().model_dump(mode="json")
    stage.journal.begin_rollout(
        Rollout("flights", 2, digest, 1, champion.digest, plan, "a", "r", began=now, phase="shadow", since=now)
    )
    ids = asked(settings, GOOD | {"id": KEY}, GOOD)
    (record,) = until(lambda: list(Shadows(settings.home).read("flights")))
    assert record["ids"] == ids
    assert record["thought"] == record["said"]


def test_a_secret_that_others_may_know_marks_nothing(settings, caplog):
    """The door says so and goes on answering; an erasure says so and does nothing."""
    assert marks.secret(settings.home) is None
    secret = marks.secret(settings.home, make=True)
    assert secret == marks.secret(settings.home, make=True) == marks.secret(settings.home)
    path = settings.home / "keys" / "marks.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with caplog.at_level(logging.ERROR, "keepfit.serving"):
        asked(settings, GOOD | {"id": KEY})
    assert "erasures will find no prediction by its key" in caplog.text
    assert [marks.MARK in record["row"] for record in Predictions(settings.home).read("flights")] == [False]
    with pytest.raises(KeepfitError, match=r"may know it.*chmod 600"):
        erase(settings)


def test_a_mark_tells_projects_and_keys_apart():
    """Another project, another column of a key, another order of values: another mark; a part of a key makes none."""
    one = marks.Marks(b"s", "p", {"a": "text", "b": "text"})
    said = {json.dumps(row): one.of(row) for row in ({"a": "x", "b": "y"}, {"a": "y", "b": "x"}, {"a": "x,y", "b": ""})}
    others = {marks.Marks(b"s", "q", one.key).of({"a": "x", "b": "y"}), marks.Marks(b"t", "p", one.key).of({"a": "x", "b": "y"})}  # fmt: skip
    assert len({*said.values(), *others}) == 5
    assert one.of({"a": "x"}) is None


@pytest.mark.parametrize(
    ("kind", "same", "none"),
    [
        ("int", [7, "7", 7.0], [7.5, "x", None, [7], float("inf")]),
        ("float", [7.5, "7.5"], ["x", None]),
        ("text", ["7", 7], [7.5, None, {}]),
        ("bool", [True, "true", "True"], [1, None]),
        ("datetime", ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)], ["x", None, "2026-01-01T00:00:00"]),
    ],
)  # fmt: skip
def test_a_key_is_known_however_it_is_written(kind, same, none):
    """By the type of its column; what is none of that type leaves no mark."""
    one = marks.Marks(b"s", "p", {"k": kind})
    assert len({one.of({"k": value}) for value in same} - {None}) == 1
    assert {one.of({"k": value}) for value in none} == {None}
