"""The registry behind a network that loses answers: a real MLflow server, and a proxy that fails one call at a time."""

import http.client
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tasks.stores.registry import Registry
from tests.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")]
MODES = ("executed, and the answer lost", "reset before it was executed", "answered with 500")
SLOW = "answered after 30 s"


class Flaky(http.server.ThreadingHTTPServer):
    """Forwards to a server; the n-th call from now is met by a fault, or each from that on."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Forward)
        self.behind, self.calls, self.at, self.last, self.mode = urlsplit(behind).netloc, 0, 0, 0.0, ""
        self.turn = threading.Lock()

    def fail(self, at: int, mode: str, *, last: float | None = None) -> None:
        """Plans the fault; by default only the n-th call meets it, 0: none."""
        self.calls, self.at, self.last, self.mode = 0, at, at if last is None else last, mode

    def met(self) -> str:
        """The fault that this call meets, or nothing."""
        with self.turn:
            self.calls += 1
            return self.mode if self.at <= self.calls <= self.last else ""


class Forward(http.server.BaseHTTPRequestHandler):
    """One call: passed on and answered, or met by the fault."""

    server: Flaky  # ty: ignore[incompatible-mutable-override] -- it is started by that one alone

    def _forward(self) -> None:
        fault = self.server.met()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True
        if fault == MODES[1]:
            return
        if fault == SLOW:
            time.sleep(30)
        status, kind, content = (500, "text/plain", b"no") if fault == MODES[2] else self._ask(body)
        if fault != MODES[0]:
            self._reply(status, kind, content)

    def _ask(self, body: bytes) -> tuple[int, str, bytes]:
        line = http.client.HTTPConnection(self.server.behind, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
        line.request(self.command, self.path, body, kept)
        answer = line.getresponse()
        content = answer.read()
        line.close()
        return answer.status, answer.headers.get("Content-Type", "application/json"), content

    def _reply(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _forward  # noqa: N815 -- the base class looks for these names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class calls it so
        """Nothing is logged."""


@pytest.fixture(scope="module")
def flaky(stack: Stack) -> Iterator[Flaky]:
    """The proxy before the session's MLflow; MLflow's address in this process is put back afterwards."""
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    with pytest.MonkeyPatch.context() as patch, Flaky(stack.urls["mlflow"]) as proxy:
        patch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
        patch.setenv("MLFLOW_TRACKING_URI", before[0])


def test_the_same_call_is_made_twice_by_mlflow_itself(flaky: Flaky, tmp_path: Path):
    """What it is all for: when the answer is lost, MLflow's own client creates a second run."""
    plain = Registry("twice", f"http://127.0.0.1:{flaky.server_port}", tmp_path)
    experiment = plain.experiment()
    flaky.fail(1, MODES[0])
    plain.client.create_run(experiment)
    assert len(plain.client.search_runs([experiment])) == 2


@pytest.mark.parametrize("mode", MODES)
def test_o_05_o_06_what_is_registered_is_registered_once(flaky: Flaky, tmp_path: Path, mode: str):
    """Whichever call of a training's bookkeeping fails, in whichever way: one run, one version, its numbers, and the alias on it."""
    name = f"flaky-{MODES.index(mode)}"
    flaky.fail(0, mode)
    registry = Registry(name, f"http://127.0.0.1:{flaky.server_port}", tmp_path)
    model = registry.client.create_logged_model(registry.client.create_experiment(f"{name} models"), "model").model_id
    swept = 0
    for at in range(1, 100):
        flaky.fail(at, mode)
        run = registry.start(f"run {at}", {"keepfit.training": str(at)})
        registry.log(run, metrics={"roc_auc": 0.9}, tags={"seed": "7"}, params={"C": 1})
        version = registry.register(run, model, f"{at:064d}", {"keepfit.snapshot": "v1"}, "a test")
        registry.point("champion", version)
        registry.end(run)
        met = flaky.calls >= at
        flaky.fail(0, mode)
        assert version == at
        assert registry.pointed("champion") == at
        assert len(registry.client.search_model_versions(f"name='{name}'")) == at
        runs = registry.client.search_runs([registry.experiment()])
        assert len(runs) == at
        assert (runs[0].data.metrics, runs[0].data.params, runs[0].info.status) == (
            {"roc_auc": 0.9},
            {"C": "1"},
            "FINISHED",
        )
        if not met:
            break
        swept += 1
    assert swept >= 8, "calls that were failed, one at a time"
