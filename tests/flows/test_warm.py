"""The warm start with real processes: a tiny engine in place of Prefect's, everything else as in production."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.samples import until

# The stamp comes from a file, so that nobody who edits the code during the tests changes what they see.
DRIVER = """
import os, sys
from pathlib import Path
from flows import warm
warm.ENGINE = "engine"
warm._load = lambda: None
warm.stamp = lambda: float(Path(os.environ["STAMP"]).read_text())
if sys.argv[1] == "serve":
    warm.serve()
    sys.exit(0)
sys.exit(warm.request())
"""
ENGINE = """
import json, os, signal, subprocess, sys
facts = {
    "pid": os.getpid(), "group": os.getpgid(0), "session": os.getsid(0), "cwd": os.getcwd(), "word": os.environ.get("WORD"),
    "extra": os.environ.get("ONLY_SERVER"), "argv": sys.argv[1:], "forked": "flows.warm" in sys.modules, "name": __name__,
}
if os.environ.get("WAITS"):
    def told(number, frame):
        print("told", number, flush=True)
        sys.exit(5)
    signal.signal(signal.SIGTERM, told)
    facts["grandchild"] = subprocess.Popen(["sleep", "600"]).pid
print(json.dumps(facts), flush=True)
print("to stderr", file=sys.stderr)
if os.environ.get("WAITS"):
    while True:
        signal.pause()
if os.environ.get("FAILS"):
    raise RuntimeError("the run failed")
sys.exit(int(os.environ.get("CODE", "0")))
"""


@dataclass(frozen=True)
class Bench:
    """A folder with driver and engine, and the environment in which both find each other."""

    folder: Path
    environment: dict[str, str]

    def start(self, what: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        """Starts the warm process (`serve`) or a run (`request`)."""
        return subprocess.Popen(
            [sys.executable, self.folder / "driver.py", what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=cwd or self.folder, env=self.environment | env,
        )  # fmt: skip

    def run(self, **env: str) -> tuple[int, dict[str, Any], str]:
        """A run to its end: exit code, the facts that its engine told, stderr."""
        with self.start("request", None, **env) as run:
            out, err = run.communicate(timeout=60)
        return run.returncode, json.loads(out.splitlines()[0]), err

    @property
    def stamp(self) -> Path:
        """The file that says when the code was changed."""
        return Path(self.environment["STAMP"])


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench in a short folder, because a socket's path has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="kfw-", dir=tempfile.gettempdir()))
    (folder / "driver.py").write_text(DRIVER)
    (folder / "engine.py").write_text(ENGINE)
    (folder / "stamp").write_text("1.5")
    yield Bench(
        folder,
        os.environ
        | {
            "KEEPFIT_SOCKET": str(folder / "supervisor.sock"),
            "PYTHONPATH": str(folder),
            "STAMP": str(folder / "stamp"),
        },
    )
    shutil.rmtree(folder)


@pytest.fixture
def nursery(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """The warm process, listening; nothing of it is left afterwards."""
    serving = bench.start("serve", ONLY_SERVER="yes")
    until(listening(bench.folder / "warm.sock", serving), 60, "the warm process")
    yield serving
    for child in psutil.Process(serving.pid).children(recursive=True) if serving.poll() is None else []:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    serving.kill()
    serving.communicate()


def listening(place: Path, serving: subprocess.Popen[str]) -> Callable[[], bool]:
    """Asks whether a process listens, without connecting to it; the socket is private before it listens."""

    def ask() -> bool:
        assert serving.poll() is None, serving.communicate()
        return place.exists() and any(found.laddr == str(place) for found in psutil.Process(serving.pid).net_connections("unix")) and place.stat().st_mode & 0o777 == 0o600  # fmt: skip

    return ask


def gone(*pids: int) -> Callable[[], bool]:
    """Asks whether none of the processes runs any more."""

    def ended(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return lambda: all(ended(pid) for pid in pids)


def waiting(bench: Bench) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A run whose engine waits to be told, and the facts that it gave."""
    run = bench.start("request", WAITS="yes")
    assert run.stdout is not None
    return run, json.loads(run.stdout.readline())


# -- a run that is forked ---------------------------------------------------------------------------------------------
def test_a_run_is_a_forked_child_in_the_requests_place(bench: Bench, nursery):
    """The engine runs forked, with environment, folder and output of the request, and nothing of the server's."""
    (bench.folder / "elsewhere").mkdir()
    with bench.start("request", bench.folder / "elsewhere", WORD="given") as run:
        out, err = run.communicate(timeout=60)
    facts = json.loads(out)
    assert (run.returncode, err) == (0, "to stderr\n")
    assert facts["forked"]
    assert facts["pid"] != run.pid
    assert facts["group"] == facts["pid"]
    # Else its niceness would count for nothing beside the serving process.
    assert facts["session"] == os.getsid(nursery.pid)
    assert facts["cwd"] == str(bench.folder / "elsewhere")
    assert (facts["word"], facts["extra"], facts["argv"], facts["name"]) == ("given", None, [], "__main__")


@pytest.mark.parametrize("code", ["0", "1", "7", "130"])
def test_the_exit_code_comes_back(bench: Bench, nursery, code):
    """A run ends as its engine ended."""
    assert bench.run(CODE=code)[0] == int(code)


def test_a_run_that_raises_fails_with_its_traceback(bench: Bench, nursery):
    """An error of the engine is told on the request's stderr and is exit code 1; the next run is not touched by it."""
    code, facts, err = bench.run(FAILS="yes")
    assert (code, facts["forked"]) == (1, True)
    assert "RuntimeError: the run failed" in err
    assert bench.run()[0] == 0


def test_runs_share_nothing_but_the_loaded_code(bench: Bench, nursery):
    """Each run is a process of its own with an environment of its own."""
    first, second = bench.run(WORD="first")[1], bench.run()[1]
    assert (first["word"], second["word"]) == ("first", None)
    assert first["pid"] != second["pid"]


def test_two_runs_go_on_at_once(bench: Bench, nursery):
    """A run that takes long keeps no other one waiting."""
    run, facts = waiting(bench)
    assert bench.run()[0] == 0
    assert not gone(facts["pid"])()
    run.terminate()
    run.communicate(timeout=60)


# -- a run that is stopped --------------------------------------------------------------------------------------------
def test_a_polite_signal_reaches_the_run(bench: Bench, nursery):
    """SIGTERM to the request is SIGTERM to the engine, which ends as it likes; nothing that it started outlives it."""
    run, facts = waiting(bench)
    run.send_signal(signal.SIGTERM)
    out, _ = run.communicate(timeout=60)
    assert (out, run.returncode) == (f"told {int(signal.SIGTERM)}\n", 5)
    until(gone(facts["pid"], facts["grandchild"]), 30, "the end of the run's group")


def test_a_killed_request_takes_its_run_along(bench: Bench, nursery):
    """SIGKILL of the request ends the engine and all that it started; the warm process goes on."""
    run, facts = waiting(bench)
    run.kill()
    until(gone(facts["pid"], facts["grandchild"]), 30, "the end of the run's group")
    run.communicate(timeout=60)
    assert bench.run()[1]["forked"]


def test_a_killed_run_is_a_failed_request(bench: Bench, nursery):
    """SIGKILL of the engine, as the kernel does when memory runs out, ends the request with a failure."""
    run, facts = waiting(bench)
    os.kill(facts["pid"], signal.SIGKILL)
    run.communicate(timeout=60)
    assert run.returncode not in {0, None}
    assert nursery.poll() is None


def test_a_request_that_dies_before_its_answer_leaves_the_warm_process_alive(bench: Bench, nursery):
    """A request that is killed between asking and reading the answer ends its own run only."""
    message = json.dumps({"env": bench.environment | {"WAITS": "yes"}, "cwd": str(bench.folder), "stamp": 1.5}).encode()
    with socket.socket(socket.AF_UNIX) as link, (bench.folder / "out").open("w") as out:
        link.connect(str(bench.folder / "warm.sock"))
        socket.send_fds(link, [len(message).to_bytes(4, "big")], [out.fileno(), out.fileno()])
        link.sendall(message)
        facts = until(lambda: _first_line(bench.folder / "out"), 30, "the run's start")
    until(gone(facts["pid"], facts["grandchild"]), 30, "the end of the run's group")
    assert bench.run()[1]["forked"]
    assert nursery.poll() is None


def _first_line(path: Path) -> dict[str, Any] | None:
    text = path.read_text()
    return json.loads(text.splitlines()[0]) if "\n" in text else None


# -- a run that starts cold -------------------------------------------------------------------------------------------
def test_without_a_warm_process_the_run_starts_cold_with_the_same_result(bench: Bench):
    """Nobody listens: the request becomes the ordinary process and ends as the engine ends."""
    code, facts, err = bench.run(WORD="given", CODE="7")
    assert (code, facts["forked"], facts["word"], facts["cwd"]) == (7, False, "given", str(bench.folder))
    assert err == "to stderr\n"


def test_a_socket_that_nobody_listens_on_is_no_hindrance(bench: Bench):
    """What a killed warm process left behind does not keep a run from starting, nor the next warm process."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(bench.folder / "warm.sock"))
    assert bench.run(CODE="3")[0] == 3


def test_without_a_stack_the_run_starts_cold(bench: Bench):
    """No socket is named at all: the run starts in the ordinary way."""
    with bench.start("request", CODE="4", KEEPFIT_SOCKET="") as run:
        run.communicate(timeout=60)
    assert run.returncode == 4


def test_changed_code_starts_cold_and_ends_the_warm_process(bench: Bench, nursery):
    """A run for newer code is sent away and starts cold; the warm process ends, so that its successor loads that code."""
    assert bench.run()[1]["forked"]
    bench.stamp.write_text("2.5")
    code, facts, _ = bench.run(CODE="7")
    assert (code, facts["forked"]) == (7, False)
    assert nursery.wait(timeout=60) == 0


def test_changed_code_lets_the_running_child_end_first(bench: Bench, nursery):
    """The warm process outlives the change of the code for as long as a child of it runs."""
    run, _ = waiting(bench)
    bench.stamp.write_text("2.5")
    assert not bench.run()[1]["forked"]
    assert nursery.poll() is None
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == 5
    assert nursery.wait(timeout=60) == 0


def test_a_warm_process_that_ends_before_it_answers_costs_only_time(bench: Bench):
    """The connection breaks before the run was promised: nothing has started, so it starts cold."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.folder / "warm.sock"))
        listener.listen()
        with bench.start("request", CODE="7") as run:
            link, _ = listener.accept()
            link.close()
            out, err = run.communicate(timeout=60)
    assert run.returncode == 7, err
    assert not json.loads(out)["forked"]
