import os
import signal
import sqlite3
import time
from contextlib import closing

import httpx
import psutil
import pytest

from flows import stack as local
from flows.stack import addresses, password, processes, supervisor
from flows.stack.record import recorded
from tasks.config import access
from tasks.config.settings import Settings

pytestmark = pytest.mark.stack
FOREIGN = {"Origin": "http://elsewhere.example"}


@pytest.fixture
def prefect(stack):
    """A client of the Prefect server that knows nothing."""
    with httpx.Client(base_url=stack.urls["prefect"], trust_env=False) as client:
        yield client


@pytest.fixture
def mlflow(stack):
    """A client of the MLflow server."""
    with httpx.Client(base_url=stack.urls["mlflow"], trust_env=False) as client:
        yield client


def eventually(is_true, seconds=60.0):
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def service(stack, name):
    """What status says of one service."""
    return next(one for one in local.services(stack.settings) if one["name"] == name)


def test_every_service_is_healthy(stack):
    """Once `up` has returned, every service answers."""
    assert {one["name"]: one["detail"] for one in local.services(stack.settings) if not one["healthy"]} == {}


def test_up_twice_is_harmless(stack):
    """A second `up` finds the stack running, says so and starts nothing."""
    said: list[str] = []
    before = {process.pid for process in processes.members(stack.settings)}
    again = local.up(stack.settings, said.append)
    assert again["already"]
    assert again["urls"] == stack.urls
    assert "The stack runs already." in said
    assert before == {process.pid for process in processes.members(stack.settings)}


def test_a_killed_service_is_started_again_and_reported(stack):
    """A service that is killed comes back by itself, and status counts the restart."""
    before = service(stack, "serving")["restarts"]
    os.kill((supervisor.states(recorded(stack.settings)) or {})["serving"]["pid"], signal.SIGKILL)
    eventually(lambda: (now := service(stack, "serving"))["healthy"] and now["restarts"] == before + 1)


def test_a_stopped_service_is_started_by_up(stack):
    """`up` on a running stack starts what has stopped in it."""
    record = recorded(stack.settings)
    supervisor.ask(record, "stopProcess", "jobs:inbox")
    assert not service(stack, "inbox")["healthy"]
    assert local.up(stack.settings)["already"]
    assert service(stack, "inbox")["healthy"]


def test_flow_runs_stand_back_behind_the_serving_process(stack):
    """Whoever starts flow runs is nicer than who serves, in one session with it: between sessions Linux may count no niceness."""
    pids = {name: one["pid"] for name, one in (supervisor.states(recorded(stack.settings)) or {}).items()}
    niceness = {name: psutil.Process(pid).nice() for name, pid in pids.items()}
    expected = min(niceness["serving"] + stack.settings.nice, 19)
    assert (niceness["worker"], niceness["warm"]) == (expected, expected)
    assert niceness["recover"] == niceness["serving"]
    assert len({os.getsid(pid) for pid in pids.values()}) == 1


def test_every_listening_socket_is_on_loopback(stack):
    """No process of the stack can be reached from another machine."""
    found = addresses.listening(stack.settings)
    assert len(found) >= 3
    assert [one for one in found if not access.is_loopback(one[1])] == []


def test_prefect_wants_the_password(stack, prefect):
    """Without the password the Prefect API answers 401, with a wrong one too, with the right one it opens."""
    assert prefect.get("/api/admin/version").status_code == 401
    assert prefect.get("/api/admin/version", auth=("keepfit", "wrong")).status_code == 401
    assert prefect.get("/api/admin/version", headers=password.header(stack.settings)).status_code == 200


def test_prefect_wants_a_csrf_token(stack, prefect):
    """A state-changing call without a CSRF token is refused even with the password."""
    answer = prefect.post("/api/flows/filter", json={}, headers=password.header(stack.settings))
    assert answer.status_code == 403


def test_a_foreign_page_gets_no_cors_header(stack, prefect, mlflow):
    """A web page from elsewhere can neither read from nor write to Prefect and MLflow."""
    asking = FOREIGN | {"Access-Control-Request-Method": "POST"}
    for answer in (
        prefect.options("/api/flows/filter", headers=asking),
        prefect.get("/api/health", headers=FOREIGN),
        mlflow.options("/api/2.0/mlflow/experiments/search", headers=asking),
        mlflow.get("/api/2.0/mlflow/experiments/search?max_results=1", headers=FOREIGN),
    ):
        assert "access-control-allow-origin" not in answer.headers
    assert mlflow.post("/api/2.0/mlflow/experiments/create", json={"name": "x"}, headers=FOREIGN).status_code == 403


def test_prefect_lets_its_own_page_in(stack, prefect):
    """The Prefect UI works under both names of this machine."""
    port = stack.urls["prefect"].rsplit(":", 1)[1]
    for origin in (stack.urls["prefect"], f"http://localhost:{port}"):
        answer = prefect.get("/api/health", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin


def test_mlflow_refuses_a_foreign_host_name(mlflow):
    """A host name that was pointed at this machine by somebody else (DNS rebinding) is refused."""
    assert mlflow.get("/api/2.0/mlflow/experiments/search", headers={"Host": "elsewhere.example"}).status_code == 403


def test_artifacts_cannot_be_written_over_http(mlflow, stack):
    """MLflow shows artifacts that a run wrote to disk, and nobody can overwrite them over HTTP."""
    experiment = mlflow.post("/api/2.0/mlflow/experiments/create", json={"name": f"uploads {time.time_ns()}"}).json()[
        "experiment_id"
    ]
    info = mlflow.post("/api/2.0/mlflow/runs/create", json={"experiment_id": experiment}).json()["run"]["info"]
    folder = stack.settings.artifacts / experiment / info["run_id"] / "artifacts"
    folder.mkdir(parents=True)
    (folder / "card.md").write_text("as written")
    proxy = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{info['run_id']}/artifacts/card.md"
    where = {"run_uuid": info["run_id"], "path": "card.md"}
    assert mlflow.put(proxy, content=b"forged").is_error
    assert mlflow.post("/ajax-api/2.0/mlflow/upload-artifact", params=where, content=b"forged").status_code == 403
    assert mlflow.get("/get-artifact", params=where).text == "as written"


def test_the_databases_are_in_wal_mode(stack):
    """A reader of the stack's SQLite files does not block a writer."""
    for path in (stack.settings.home / "mlflow.db", stack.settings.home / "prefect" / "prefect.db"):
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_doctor_finds_nothing_wrong_with_a_running_stack(stack):
    """Every check of the doctor is well while the stack runs."""
    assert [finding for finding in local.diagnose(stack.settings) if not finding["ok"]] == []


@pytest.mark.slow
def test_down_leaves_no_process_and_up_survives_a_killed_supervisor(tmp_path):
    """After a SIGKILL of supervisord, `up` ends the orphans and takes the same ports; `down` leaves nothing."""
    settings = Settings(home=tmp_path / "home", prefect_port=24200, mlflow_port=25000, serving_port=28080)
    try:
        first = local.up(settings)
        orphans = [process for process in processes.members(settings) if process.pid != first["pid"]]
        os.kill(first["pid"], signal.SIGKILL)
        assert {one["detail"] for one in local.services(settings)} == {"supervisord is gone; run `keepfit up`"}
        second = local.up(settings)
        assert second["urls"] == first["urls"]
        assert not any(processes.lives(process) for process in orphans)
        members = processes.members(settings)
    finally:
        local.down(settings)
    assert not any(processes.lives(process) for process in members)
    assert processes.members(settings) == []
    assert not settings.stack_file.exists()
    assert not psutil.pid_exists(second["pid"]) or not processes.lives(psutil.Process(second["pid"]))
