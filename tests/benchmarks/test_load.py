"""The serving process near its limit, beside MLflow's server on the same model: throughput, overload, swaps, the log. Nothing asserts a time.

One process answers unless said otherwise; the load comes from `wrk` (a closed loop) for throughput and from tests/open_loop.py for what clients
wait. Both run on the same machine and take a part of it, so ratios say more than numbers.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from tasks.config.settings import REPOSITORY, Settings
from tasks.ml.compiled.frame import Frame
from tasks.ml.compiled.graph import session
from tasks.ml.compiled.parity import compiled
from tasks.ml.kinds import Binary
from tasks.ml.metrics import Cost
from tasks.serving import inference
from tasks.serving.protocols import STREAM
from tasks.stores import bundles
from tests.benchmarks.test_landing import said
from tests.benchmarks.test_serving import WITHOUT_LOG, body_of, stream_of, tensors_of
from tests.samples import free_port
from tests.stage import Stage, until

SECONDS = float(os.environ.get("KEEPFIT_BENCHMARK_SECONDS", "5"))
KIND = Binary("late", positive=True, labels=("no", "yes"), cost=Cost())
VERSIONS = 5
NICE = Settings.model_fields["nice"].default
NAMES = [f"x{number}" for number in range(22)]
ROW = dict.fromkeys(NAMES, 0.25)
PATH = "/projects/flights/predict"
SCRIPT = 'wrk.method="POST"\nwrk.body=io.open("{body}", "rb"):read("*a")\n'
JSON = {"Content-Type": "application/json"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def models() -> list[Pipeline]:
    """Two models of 200 trees over 22 columns."""
    return [trained(seed) for seed in (1, 2)]


def trained(seed: int) -> Pipeline:
    """A model of 200 trees over 22 columns."""
    random = np.random.default_rng(7)
    rows = pd.DataFrame(random.normal(size=(5000, len(NAMES))), columns=NAMES)
    target = np.where(rows["x0"] + random.normal(size=len(rows)) > 0, "yes", "no")
    model = HistGradientBoostingClassifier(max_iter=200, early_stopping=False, random_state=seed)
    prepare = ColumnTransformer([("numbers", "passthrough", NAMES)])
    with threadpool_limits(1):  # two threads on a busy machine take a minute instead of a second
        return Pipeline([("prepare", prepare), ("model", model)]).fit(rows, target)


@pytest.fixture(scope="module")
def home(models: list[Pipeline], tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Compiled bundles of both models in turn, the first one released."""
    stage = Stage(tmp_path_factory.mktemp("load"))
    asked = pd.DataFrame(np.random.default_rng(8).normal(size=(500, len(NAMES))), columns=NAMES)
    forms = [compiled(KIND, model, asked, {"threshold": 0.5}) for model in models]
    for version in range(1, VERSIONS + 1):
        model, made = models[version % 2], forms[version % 2]
        assert made.form is not None, made
        manifest = {
            "project": "flights", "version": version, "kind": "binary", "target": "late",
            "features": [{"name": name, "type": "float", "nullable": False} for name in NAMES], "ignored": [], "threshold": 0.5,
            **KIND.described(), **made.described(),
        }  # fmt: skip
        folder = stage.home / "bundles" / "flights" / str(version)
        stage.digests[version] = bundles.write(folder, model, manifest, bundles.compiled(made.form, made.graph))
    stage.release(1)
    return stage


@pytest.fixture
def served(home: Stage):
    """The process, which has answered a few requests."""
    yield from running(home)


def running(stage: Stage, **told: object):
    """The process, until the test has ended."""
    stage.start(**told)
    try:
        until(stage.answers, 120)
        for _ in range(20):
            stage.predict(ROW)
        yield stage
    finally:
        stage.stop()


def wrk(url: str, body: dict | bytes, place: Path, connections: int = 32, headers: Mapping[str, str] = JSON) -> float:
    """Requests a second that were answered well."""
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not here: `apt-get install wrk`")
    script, content = place / "post.lua", place / "body"
    content.write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
    script.write_text(
        SCRIPT.format(body=content) + "".join(f'wrk.headers["{name}"]="{value}"\n' for name, value in headers.items())
    )
    told = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS:g}s", "-s", str(script), url], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    assert "Non-2xx" not in told, told
    return float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])  # ty: ignore[not-subscriptable]


def open_loop(stage: Stage, rate: float, seconds: float = SECONDS, rows: int = 1) -> tuple[dict, float]:
    """What came of requests of so many rows that are sent on time: by status the count and milliseconds at percentiles; and the seconds it took."""
    body = json.dumps({"rows": [ROW] * rows}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    done = subprocess.run(
        [sys.executable, "-m", "tests.open_loop", str(stage.port), str(rate), str(seconds)],
        input=head.encode() + body, capture_output=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    told = json.loads(done.stdout)
    return told, told.pop("took")


def cpu(stage: Stage) -> float:
    """Seconds that the process has worked."""
    assert stage.process is not None
    used = psutil.Process(stage.process.pid).cpu_times()
    return used.user + used.system


@pytest.mark.parametrize("rows", [1, 10, 100, 1000])
def test_v_07_three_times_the_load(served: Stage, tmp_path: Path, rows: int):
    """Half, all and three times of what a closed loop gets answered: how much is answered, how much refused, who waits how long (V-07).

    The generator has one of two cores, and cannot send everything where a request is one row: what it has sent is told.
    """
    before = cpu(served)
    capacity = wrk(served.url + PATH, {"rows": [ROW] * rows}, tmp_path)
    each = (cpu(served) - before) / (capacity * SECONDS)
    said(f"capacity, {rows} rows of 22 columns a request: {capacity:,.0f} requests/s, {each * 1e6:.0f} µs of CPU each")
    for times in (0.5, 1, 3):
        before = cpu(served)
        told, took = open_loop(served, capacity * times, rows=rows)
        answered = told.get("200", {}).get("count", 0)
        sent = sum(one["count"] for one in told.values()) / took / capacity
        by_cpu = answered * each / (cpu(served) - before)
        waits = ", ".join(
            f"{status}: {one['count']:,} (p50 {one['p50']:.1f}, p99 {one['p99']:.1f} ms)"
            for status, one in told.items()
        )
        said(
            f"{times:g} x ({sent:.1f} x sent): {answered / took / capacity:.0%} of capacity answered, {by_cpu:.0%} by CPU (goal at 3 x: 95 %; 429 within 20 ms): {waits}"
        )
        assert set(told) <= {"200", "429", "unanswered"}


@pytest.mark.parametrize("rate", [1_000, 5_000, None])
def test_v_01_swaps_under_load(home: Stage, served: Stage, tmp_path: Path, rate: float | None):
    """What clients wait at so many requests a second, or half of the capacity, and what while champions change ten times a second (V-01).

    Back and forth between two, as a rollback and a release after a shadow do: both are in memory. And on to one that must be loaded. Who releases
    and asks whether the server has followed works on the same two cores: so it is measured, too, what clients wait while it does as much for
    somebody else's journal. Who releases stands back as a flow run does. Each three times, in turn; medians of the 99th percentiles are compared.
    """
    rate = rate or wrk(served.url + PATH, {"rows": [ROW]}, tmp_path) / 2
    elsewhere = Stage(tmp_path / "elsewhere")
    elsewhere.digests = home.digests
    kinds = {"in memory": (served, 2), "loaded": (served, VERSIONS), "elsewhere": (elsewhere, 2)}
    waits: dict[str, list[float]] = {"calm": []} | {kind: [] for kind in kinds}
    swaps, failed, sent = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    questions: list[int] = []
    for _ in range(3):
        waits["calm"].append(open_loop(served, rate)[0]["200"]["p99"])
        for kind, (stage, versions) in kinds.items():
            with swapping(served, stage, versions, questions) as asked:
                told, _ = open_loop(served, rate, 2 * SECONDS)
            questions = questions if kind == "loaded" else asked
            waits[kind].append(told["200"]["p99"])
            swaps[kind] += len(asked)
            failed[kind] += sum(one["count"] for status, one in told.items() if status != "200")
            sent[kind] += sum(one["count"] for one in told.values())
    medians = {kind: float(np.median(some)) for kind, some in waits.items()}
    for kind in kinds:
        waited = medians[kind]
        said(
            f"{rate:,.0f} requests/s, {swaps[kind]} swaps {kind}: {failed[kind]} of {sent[kind]:,} not answered (goal 0), p99 {waited:.1f} ms, {waited / medians['calm']:.1f} x of calm, {waited / medians['elsewhere']:.1f} x of as much work elsewhere (goal 2 x)"
        )


@contextmanager
def swapping(served: Stage, stage: Stage, versions: int, questions: list[int]) -> Generator[list[int]]:
    """Changes the champion of a stage again and again meanwhile; gives how often the server was asked each time until it had followed.

    Where the stage is not the served one, it is asked as often as `questions` says.
    """
    stop, asked = threading.Event(), []

    def follows(client: httpx.Client, wanted: int) -> int:
        for count in range(1, 1000):
            there = client.get("/readyz").json()["projects"].get("flights")
            if there == wanted if stage is served else count >= questions[len(asked) % len(questions)]:
                return count
            time.sleep(0.05)  # to ask all the time, over new connections, took a core, which is the server's
        raise AssertionError("the server does not follow")

    def swap():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(os.nice(0) + NICE, 19))
        with httpx.Client(base_url=served.url) as client:
            while not stop.is_set():
                stage.release(wanted := (stage.generation + 1) % versions + 1)
                asked.append(follows(client, wanted))

    with ThreadPoolExecutor(1) as pool:
        swaps = pool.submit(swap)
        try:
            yield asked
        finally:
            stop.set()
        swaps.result()


TRAINING = """
from tests.benchmarks.test_load import trained
print("begun", flush=True)
while True:
    trained(1)
"""


@pytest.mark.parametrize("rate", [1_000, 5_000])
def test_waits_while_models_are_trained(served: Stage, rate: float):
    """What clients wait while two trainings have all processors: started as flow runs are by default (KEEPFIT_NICE), and as the server's equals."""
    kinds = {"standing back": NICE, "equals": 0}
    waits: dict[str, list[float]] = {"calm": []} | {kind: [] for kind in kinds}
    for _ in range(3):
        waits["calm"].append(open_loop(served, rate)[0]["200"]["p99"])
        for kind, nice in kinds.items():
            with training(nice), training(nice):
                waits[kind].append(open_loop(served, rate)[0]["200"]["p99"])
    medians = {kind: float(np.median(some)) for kind, some in waits.items()}
    said(
        f"{rate:,} requests/s beside two trainings: "
        + ", ".join(
            f"{kind} p99 {wait:.1f} ms ({wait / medians['calm']:.1f} x of calm)" for kind, wait in medians.items()
        )
    )


@contextmanager
def training(nice: int) -> Generator[None]:
    """A process that trains without end, until the block has ended."""
    command = ["nice", "-n", str(nice), sys.executable, "-c", TRAINING]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


def test_what_logging_costs(home: Stage, served: Stage, tmp_path: Path):
    """The same server with its prediction log and without: lines are written as ever, and then not handed to the system."""
    logged = wrk(served.url + PATH, {"rows": [ROW]}, tmp_path)
    port = free_port()
    environment = os.environ | {"KEEPFIT_HOME": str(home.home), "KEEPFIT_SERVING_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-c", WITHOUT_LOG], env=environment, cwd=REPOSITORY)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 120)
        unlogged = wrk(f"http://127.0.0.1:{port}{PATH}", {"rows": [ROW]}, tmp_path)
    finally:
        process.terminate()
        process.wait(30)
    said(
        f"with the log {logged:,.0f}, without {unlogged:,.0f} requests/s: it costs {1 - logged / unlogged:.0%} (goal 15 %)"
    )


@pytest.mark.filterwarnings("ignore::UserWarning")  # MLflow's own, while it saves a model
def test_beside_mlflow_s_server(served: Stage, models: list[Pipeline], tmp_path: Path):
    """The same model behind `mlflow models serve` and here, asked in MLflow's words, and here in keepfit's own; one process each."""
    import mlflow.sklearn

    ours = wrk(f"{served.url}/invocations/flights", {"dataframe_records": [ROW]}, tmp_path)
    own = wrk(served.url + PATH, {"rows": [ROW]}, tmp_path)
    mlflow.sklearn.save_model(
        models[0], str(tmp_path / "model"), serialization_format="cloudpickle", pip_requirements=[]
    )
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(tmp_path / "model"),
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts uvicorn by its name
    environment = os.environ | {
        "PATH": programs,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",
    }
    with (tmp_path / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/ping"), 120)
        theirs = wrk(f"http://127.0.0.1:{port}/invocations", {"dataframe_records": [ROW]}, tmp_path)
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
    said(
        f"/invocations: {ours:,.0f} requests/s here, {theirs:,.0f} by mlflow models serve: {ours / theirs:.0f} x (goal 50 x); {PATH}: {own:,.0f}, {own / theirs:.0f} x"
    )


def test_a_thousand_rows_a_request(served: Stage, models: list[Pipeline], tmp_path: Path):
    """One process, as JSON, as Arrow, and as V2's binary tensors, beside calls of the compiled model on a ready array, one after the other and two at once."""
    some = pd.DataFrame(np.random.default_rng(9).normal(size=(1000, len(NAMES))).round(6), columns=NAMES)
    with threadpool_limits(1):
        made = compiled(KIND, models[0], some, {"threshold": 0.5})
    assert made.form is not None
    form, runner = made.form, session(made.graph or b"")
    array = form.encode(Frame(some))
    alone = {}
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            end = time.monotonic() + SECONDS
            each = [pool.submit(calls, lambda: form.answers(array, runner), end) for _ in range(threads)]
            alone[threads] = sum(one.result() for one in each) / SECONDS
    said(f"the compiled model alone: {alone[1]:.0f} calls/s in one thread, {alone[2]:.0f} in two, 1,000 rows each")
    infer = f"{served.url}/v2/models/flights/infer"
    bodies = {
        "JSON": (served.url + PATH, body_of(some), JSON),
        "Arrow": (served.url + PATH, stream_of(some), {"Content-Type": STREAM, "Accept": STREAM}),
    }
    for datatype in ("FP64", "FP32"):
        body, length = tensors_of(some, datatype)
        bodies[f"V2 {datatype}"] = infer, body, {inference.HEADER: str(length)}
    for name, (url, body, headers) in bodies.items():
        rate = wrk(url, body, tmp_path, 8, headers)
        said(
            f"{name}: {rate:.0f} requests/s, {rate / alone[1]:.2f} x of one thread (goal .8), {rate / alone[2]:.2f} x of two"
        )


def calls(what: Callable[[], object], end: float) -> int:
    """How often it can be called until then."""
    count = 0
    while time.monotonic() < end:
        what()
        count += 1
    return count


def test_two_processes(home: Stage, tmp_path: Path):
    """What a second process adds on this machine."""
    for workers in (1, 2):
        for stage in running(home, SERVING_WORKERS=workers):
            rate = wrk(stage.url + PATH, {"rows": [ROW]}, tmp_path)
            said(f"{workers} process(es) on {os.cpu_count()} cores: {rate:,.0f} requests/s")


def answers(url: str) -> bool:
    """Whether somebody answers well there."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
