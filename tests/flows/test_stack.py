import importlib.metadata
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows import stack
from flows.stack import addresses, doctor, health, password, processes
from flows.stack.record import control_folder, lock
from tasks.config.errors import StackError
from tasks.config.settings import REPOSITORY, Settings


@pytest.fixture
def settings(tmp_path):
    """Settings of a home in which nothing runs."""
    home = tmp_path / "home"
    home.mkdir()
    found = Settings(home=home)
    yield found
    shutil.rmtree(control_folder(found))


@pytest.fixture
def busy():
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def record(settings, **changes):
    """The record of a stack whose supervisord is long dead."""
    written = {
        "urls": {
            "prefect": "http://127.0.0.1:4200",
            "mlflow": "http://127.0.0.1:5000",
            "serving": "http://127.0.0.1:8080",
        },
        "socket": str(settings.home / "nobody.sock"),
        "pid": 2**22 + 1,
        "started_at": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    settings.stack_file.write_text(json.dumps(written))
    return written


def write_secret(settings, mode, text="keepfit:word"):
    """A password file with a mode."""
    settings.secret_file.write_text(text)
    settings.secret_file.chmod(mode)


# -- ports ------------------------------------------------------------------------------------------------------------
def test_a_busy_port_is_replaced_by_a_free_one_and_said(tmp_path, busy):
    """A busy port is replaced by a free one, and the user is told which."""
    settings = Settings(home=tmp_path, prefect_port=busy)
    said: list[str] = []
    urls = addresses.chosen(settings, {}, said.append)
    chosen = int(urls["prefect"].rsplit(":", 1)[1])
    assert chosen != busy
    assert any(str(busy) in line and str(chosen) in line for line in said)


def test_no_two_services_get_the_same_port(tmp_path, busy):
    """Services that ask for one and the same port get different ones."""
    settings = Settings(home=tmp_path, prefect_port=busy, mlflow_port=busy, serving_port=busy)
    assert len(set(addresses.chosen(settings, {}, lambda _: None).values())) == 3


def test_a_crashed_stack_comes_back_on_its_ports(settings):
    """The ports of a stack that crashed are taken again when they are free."""
    free = [addresses.free_port("127.0.0.1", [], set()) for _ in range(3)]
    last = {name: f"http://127.0.0.1:{port}" for name, port in zip(addresses.wished(settings), free, strict=True)}
    if len(set(free)) == 3:
        assert addresses.chosen(settings, {"urls": last}, lambda _: None) == last


# -- the password -----------------------------------------------------------------------------------------------------
def test_a_password_is_made_once_and_for_its_owner_only(settings):
    """The password is random, stays the same, and only its owner may read it."""
    first = password.make(settings)
    assert password.make(settings) == first
    assert stat.S_IMODE(settings.secret_file.stat().st_mode) == 0o600
    assert len(first) > 40


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o666])
def test_a_password_that_others_may_read_or_write_is_refused(settings, mode):
    """A password file that is open to others is refused with its mode and the next move."""
    write_secret(settings, mode)
    with pytest.raises(StackError, match=f"mode {mode:04o}.*0600.*\n?.*keepfit up"):
        stack.up(settings)
    assert not settings.stack_file.exists()


def test_a_link_in_place_of_the_password_is_refused(settings, tmp_path):
    """A symbolic link cannot smuggle in a password that somebody else knows."""
    known = tmp_path / "known"
    known.write_text("keepfit:known")
    known.chmod(0o600)
    settings.secret_file.symlink_to(known)
    with pytest.raises(StackError, match="not a file of the current user"):
        password.make(settings)


# -- the environment --------------------------------------------------------------------------------------------------
def test_without_a_stack_the_environment_is_that_of_a_temporary_server(settings):
    """Without a stack, Prefect may start a server of its own, protected, patient and silent towards third parties."""
    found = stack.environment(settings)
    assert "PREFECT_API_URL" not in found
    assert found["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] == "true"
    assert found["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "120"
    assert found["PREFECT_API_AUTH_STRING"] == found["PREFECT_SERVER_API_AUTH_STRING"]
    assert found["MLFLOW_TRACKING_URI"] == f"sqlite:///{settings.home / 'mlflow.db'}"
    assert Path(found["PREFECT_HOME"]).is_dir()


def test_every_hardening_is_on_with_a_stack(settings):
    """With a stack, the environment carries the password, CSRF protection, own origins only, and no telemetry."""
    write_secret(settings, 0o600)
    found = stack.environment(settings, {"prefect": "http://127.0.0.1:4200", "mlflow": "http://127.0.0.1:5000"})
    assert (
        found.items()
        >= {
            "PREFECT_API_URL": "http://127.0.0.1:4200/api",
            "PREFECT_SERVER_UI_API_URL": "http://127.0.0.1:4200/api",
            "PREFECT_API_AUTH_STRING": "keepfit:word",
            "PREFECT_SERVER_API_AUTH_STRING": "keepfit:word",
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1:4200,http://localhost:4200",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "DO_NOT_TRACK": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "OMP_NUM_THREADS": "1",
        }.items()
    )


@pytest.mark.parametrize("nice", ["20", "-1", "low"])
def test_another_niceness_is_refused(monkeypatch, nice):
    """Flow runs never go before the serving process."""
    monkeypatch.setenv("KEEPFIT_NICE", nice)
    with pytest.raises(ValidationError, match="nice"):
        Settings()


def test_the_password_is_not_sent_to_a_server_elsewhere(tmp_path):
    """A Prefect server that runs elsewhere does not get the local stack's password."""
    settings = Settings(home=tmp_path, prefect_url="https://prefect.example")
    write_secret(settings, 0o600)
    found = stack.environment(settings)
    assert found["PREFECT_API_URL"] == "https://prefect.example/api"
    assert "PREFECT_API_AUTH_STRING" not in found


def test_a_stack_that_is_gone_is_named_instead_of_waited_for(settings):
    """A recorded stack that no longer runs is an error with two ways out, not a call that never ends."""
    record(settings)
    with pytest.raises(StackError, match=r"keepfit up.*keepfit down"):
        stack.environment(settings)


def test_the_module_imports_nothing_heavy():
    """`status` answers at once: importing the stack's module loads no Prefect, MLflow, pandas or scikit-learn."""
    code = "import sys, flows.stack; print({'prefect', 'mlflow', 'pandas', 'sklearn', 'sqlalchemy'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


# -- when nothing runs ------------------------------------------------------------------------------------------------
def test_services_are_listed_when_nothing_runs(settings):
    """Status without a stack lists every service as not healthy, with the next move."""
    found = stack.services(settings)
    assert [service["name"] for service in found] == list(health.SERVICES)
    assert not any(service["healthy"] for service in found)
    assert all("keepfit up" in service["detail"] for service in found)


def test_services_are_listed_when_the_record_is_stale(settings):
    """Status after a crash says that the supervisor is gone."""
    record(settings)
    assert {service["detail"] for service in stack.services(settings)} == {"supervisord is gone; run `keepfit up`"}


def test_a_torn_record_counts_as_none(settings):
    """A half-written stack.json stops neither status nor down."""
    settings.stack_file.write_text('{"urls": {"pre')
    assert not any(service["healthy"] for service in stack.services(settings))
    assert stack.down(settings)["stopped"] == 0


def test_down_is_harmless_when_nothing_runs(tmp_path):
    """Down stops nothing, makes no folder, and forgets a stale record."""
    settings = Settings(home=tmp_path / "never")
    assert stack.down(settings)["stopped"] == 0
    assert not settings.home.exists()


def test_down_forgets_a_stale_record(settings):
    """After down, no record points at a stack that is gone."""
    record(settings)
    stack.down(settings)
    assert not settings.stack_file.exists()


def test_down_ends_what_an_earlier_stack_left_behind(settings):
    """A process that carries the stack's mark is ended even though its supervisor died, whatever its process group."""
    marked = {**os.environ, processes.MARK: str(settings.home)}
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    sleeper = [sys.executable, "-c", code]
    with subprocess.Popen(sleeper, env=marked, start_new_session=True, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None
        orphan.stdout.readline()
        assert stack.down(settings)["stopped"] == 1
        assert orphan.wait(10) == -9


def test_down_leaves_the_processes_of_another_home_alone(settings, tmp_path):
    """The stack of another KEEPFIT_HOME is not touched."""
    other = {**os.environ, processes.MARK: str(tmp_path / "other")}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=other, stdin=subprocess.PIPE) as neighbour:
        assert stack.down(settings)["stopped"] == 0
        assert neighbour.poll() is None
        neighbour.communicate(b"\n")


def test_wipe_removes_the_home_folder(settings):
    """Down with wipe removes all state."""
    write_secret(settings, 0o600)
    assert stack.down(settings, wipe=True)["wiped"]
    assert not settings.home.exists()


@pytest.mark.parametrize("place", [Path.home(), Path.home().parent, REPOSITORY, REPOSITORY.parent])
def test_wipe_refuses_a_folder_that_holds_more_than_state(place):
    """A KEEPFIT_HOME set to somebody's home or to the repository is not wiped."""
    with pytest.raises(StackError, match="only a folder of keepfit's own"):
        stack.down(Settings(home=place), wipe=True)
    assert place.exists()


def test_a_second_up_waits_for_the_first(settings):
    """Two commands at once do not race: the second gets the lock when the first has ended."""
    order: list[str] = []

    def second():
        with lock(settings):
            order.append("second")

    with lock(settings):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_down_removes_the_control_folder(settings):
    """After down, nothing of the stack is left in the temporary folder."""
    folder = control_folder(settings)
    stack.down(settings)
    assert not folder.exists()


def test_a_lock_that_was_removed_meanwhile_does_not_count(settings):
    """A command that waited for a `down` does not hold a lock that nobody else can see."""
    held: list[bool] = []

    def second():
        with lock(settings):
            held.append((control_folder(settings) / "lock").exists())

    with lock(settings):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        shutil.rmtree(control_folder(settings))
    waiting.join(10)
    assert held == [True]


def test_a_control_folder_that_is_open_to_others_is_refused(settings):
    """A folder that somebody else prepared in the temporary folder is not trusted with the control socket."""
    folder = control_folder(settings)
    folder.chmod(0o777)
    with pytest.raises(StackError, match="mode 0777"):
        control_folder(settings)
    folder.chmod(0o700)


def test_the_control_socket_fits_however_deep_the_home_is(tmp_path):
    """The control socket's path does not grow with KEEPFIT_HOME."""
    deep = Settings(home=tmp_path / ("x" * 100) / ("y" * 100))
    folder = control_folder(deep)
    assert len(str(folder / "supervisor.sock")) < 108
    folder.rmdir()


# -- restarts and the doctor ------------------------------------------------------------------------------------------
def test_restarts_count_from_the_last_start(settings):
    """Only what was started again since supervisord's own last start counts as a restart."""
    settings.logs.mkdir()
    (settings.logs / "supervisord.log").write_text(
        "a INFO supervisord started with pid 1\n"
        "a INFO spawned: 'prefect' with pid 2\na INFO spawned: 'prefect' with pid 3\n"
        "b INFO supervisord started with pid 4\n"
        "b INFO spawned: 'prefect' with pid 5\nb INFO spawned: 'worker' with pid 6\n"
        "b INFO spawned: 'worker' with pid 7\n"
    )
    found = health._restarts(settings)
    assert (found["prefect"], found["worker"], found["mlflow"]) == (0, 1, 0)


def test_the_doctor_has_a_next_move_for_every_failure(tmp_path, busy):
    """Every finding of the doctor that is not well comes with a next move; a well one has none."""
    settings = Settings(home=tmp_path, mlflow_port=busy)
    write_secret(settings, 0o644)
    found = {finding["check"]: finding for finding in stack.diagnose(settings)}
    assert not found["port of mlflow"]["ok"]
    assert not found["secret"]["ok"]
    assert all(bool(finding["next"]) != finding["ok"] for finding in found.values())


@pytest.mark.parametrize("version", ["1.0", "3.99.0", None])
def test_the_doctor_sees_a_package_that_pyproject_does_not_allow(version, monkeypatch):
    """Older than the bounds of pyproject.toml, newer, or not there: each comes with what was wanted; what is installed is well."""

    def told(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    assert doctor._check_package("prefect")["ok"]
    monkeypatch.setattr(importlib.metadata, "version", told)
    finding = doctor._check_package("prefect")
    assert not finding["ok"]
    assert "wanted prefect<" in finding["detail"]
