"""The logs of the door under kills, full disks and personal data."""

import asyncio
import contextlib
import datetime as dt
import json
import resource
import signal
import threading

import httpx
import pytest

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.stores.predictions import Predictions
from tasks.stores.served import Serving
from tasks.tidy import Tidying
from tests.samples import PROJECT
from tests.stage import GOOD, Stage, door, until

CANARY = "canary-4711@example.org"


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A running process whose champion of flights is version 1."""
    home = tmp_path_factory.mktemp("log")
    (home / "projects" / "flights").mkdir(parents=True)
    (home / "projects" / "flights" / "project.yaml").write_text(PROJECT.format(name="flights"))
    stage = Stage(home / "state")
    stage.write(1, 0.2)
    stage.release(1)
    stage.start()
    until(stage.version, 60)
    yield stage
    stage.stop()


def test_v_11_a_kill_under_load_loses_nothing_acknowledged(stage):
    """After SIGKILL amid predictions and outcomes each acknowledged one is in the tables exactly once, and no torn one is (V-11)."""
    known, told, lock = [], [], threading.Lock()

    def ask():
        with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=stage.url) as client:
            while True:
                answer = client.post("/projects/flights/predict", json={"rows": [GOOD] * 50}).json()
                ids = [prediction["id"] for prediction in answer["predictions"]]
                with lock:
                    known.extend(ids)
                outcomes = {"outcomes": [{"id": name, "value": True} for name in ids]}
                assert client.post("/projects/flights/outcomes", json=outcomes).status_code == 200
                with lock:
                    told.extend(ids)

    settings = Settings(home=stage.home, projects=stage.home.parent / "projects")
    tidying = Tidying(Project.named("flights", settings), settings)
    for goal in (300, 600):
        crowd = [threading.Thread(target=ask) for _ in range(4)]
        for one in crowd:
            one.start()
        until(lambda wanted=goal: len(told) > wanted)
        tidying.tidy(30)  # while they write
        stage.stop(signal.SIGKILL)
        for one in crowd:
            one.join()
        stage.start()
        until(stage.version, 60)
    tidying.tidy(30)
    serving = Serving("flights", settings)
    for kind, acknowledged in (("predictions", known), ("told", told)):
        table = serving.lake.table(kind)
        stored = [name for file in table.files(table.open()) for name in table.read(file)["id"].to_pylist()]
        assert len(stored) == len(set(stored))
        assert set(acknowledged) <= set(stored)
    assert serving.known().counts()["unknown"] == 0


def test_v_14_what_the_model_does_not_read_is_nowhere_on_the_disk(stage):
    """A value of a column that the model ignores, in good rows and bad ones, reaches no file of the home (V-14)."""
    with httpx.Client(base_url=stage.url) as client:
        assert client.post("/projects/flights/predict", json={"rows": [GOOD | {"id": CANARY}]}).status_code == 200
        assert (
            client.post("/projects/flights/predict", json={"rows": [{"age": CANARY, "id": CANARY}]}).status_code == 422
        )
        split = {"dataframe_records": [GOOD | {"id": CANARY}]}
        assert client.post("/invocations/flights", json=split).status_code == 200
        assert (
            client.post("/projects/flights/outcomes", json={"outcomes": [{"id": CANARY, "value": True}]}).status_code
            == 422
        )
        assert (
            client.post("/projects/flights/outcomes", json={"outcomes": [{"id": "a", "value": CANARY}]}).status_code
            == 422
        )
    files = [path for path in stage.home.parent.rglob("*") if path.is_file()]
    assert any(path.suffix == ".jsonl" for path in files)
    assert [path.name for path in files if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("policy", ["serve", "refuse"])
@pytest.mark.parametrize("rows", [1, 2000])
def test_v_10_a_full_log_is_served_or_refused_by_policy(tmp_path, monkeypatch, policy, rows):
    """With no room for the record a prediction is answered and counted, or refused; with room again it is answered (V-10)."""
    monkeypatch.setenv("KEEPFIT_UNLOGGED", policy)
    stage = Stage(tmp_path)
    stage.write(1, 0.2)
    stage.release(1)
    at, size = dt.datetime.now(dt.UTC), 1 << 20
    for day in (at, at + dt.timedelta(days=1)):
        Predictions(tmp_path).append("flights", day, [{"id": "x" * size}])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def scene():
        opened, client = door(tmp_path)
        opened.succession.look()
        ask = {"rows": [GOOD] * rows}
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))
        try:
            full = await client.post("/projects/flights/predict", json=ask)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        metrics = (await client.get("/metrics")).text
        return full, await client.post("/projects/flights/predict", json=ask), metrics

    full, again, metrics = asyncio.run(scene())
    lost = f'keepfit_predictions_unlogged_total{{project="flights"}} {0 if policy == "refuse" else rows}.0'
    assert lost in metrics
    assert full.status_code == (503 if policy == "refuse" else 200)
    assert again.status_code == 200
    logged = {record["id"] for record in Predictions(tmp_path).read("flights")}
    assert {prediction["id"] for prediction in again.json()["predictions"]} <= logged
    if policy == "refuse":
        assert full.headers["retry-after"] == "5"
        assert set(json.loads(full.content)) == {"error"}
