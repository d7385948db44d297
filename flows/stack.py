"""The local stack: Prefect, MLflow, a worker, the serving process and the inbox, under one supervisor.

Nothing heavy is imported at module level, because `keepfit status` must answer at once. What belongs to the stack is
known by one environment variable, `KEEPFIT_STACK`, that every process of it inherits; so `down`, and the `up` after a
crash, find grandchildren and orphans too.
"""

import base64
import contextlib
import fcntl
import hashlib
import http
import http.client
import importlib.metadata
import json
import os
import runpy
import secrets
import shutil
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import uuid
import xmlrpc.client
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tasks.config import access, private
from tasks.config.errors import StackError
from tasks.config.settings import REPOSITORY, Settings
from tasks.stores.sqlite import refuse_damaged

CONFIGURATION = REPOSITORY / "infra" / "supervisord.conf"
SERVICES = ("prefect", "mlflow", "worker", "serving", "inbox", "recover")
BEATING = ("inbox", "recover")
LISTENERS = ("prefect", "mlflow", "serving")
DATABASES = ("keepfit.db", "studies.db", "mlflow.db")
POOL = "keepfit"
MARK = "KEEPFIT_STACK"
BOUNDS = {"prefect": (3, 9), "mlflow": (3, 18), "fastapi": (0, 151)}
"""The first version of each package that is known not to work here."""
PATIENCE = 120.0
"""Seconds that a service may take until it answers for the first time."""

Say = Callable[[str], None]
Record = dict[str, Any]


def _quiet(_line: str) -> None:
    """Takes a line of progress and shows it to nobody."""


# -- the environment --------------------------------------------------------------------------------------------------
def environment(settings: Settings, urls: dict[str, str] | None = None) -> dict[str, str]:
    """Every environment variable that Prefect, MLflow and our own processes need, to be set before Prefect is imported.

    Args:
        settings: where things are.
        urls: addresses of the services by name; by default those of the running stack.

    Returns:
        Variables for the stack when there is one, else for a temporary Prefect server of this process, whose folder
        is made, because that server dies without it and Prefect then tries again for two minutes.

    Raises:
        StackError: the file with the server's password can be read by others, or the recorded stack is gone.
    """
    local = _living(settings) if urls is None else urls
    prefect = local.get("prefect") if urls is not None else settings.prefect()
    tracking = local.get("mlflow") if urls is not None else settings.mlflow()
    return {
        "KEEPFIT_HOME": str(settings.home),
        "KEEPFIT_PROJECTS": str(settings.projects),
        "DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
        **_prefect_common(settings),
        **_mlflow_common(tracking or settings.mlflow_database()),
        **(
            _prefect_server(settings, prefect, local=prefect == local.get("prefect"))
            if prefect is not None
            else _prefect_temporary(settings)
        ),
    }


def _living(settings: Settings) -> dict[str, str]:
    """The addresses of the local stack; raises when it is recorded but gone, since every call to it would only wait."""
    record = _record(settings)
    if record and _states(record) is None:
        raise StackError(
            f"{settings.stack_file} names a stack that no longer runs.\n"
            "Run `keepfit up` to start it again, or `keepfit down` to work without it."
        )
    return settings.stack()


def _prefect_common(settings: Settings) -> dict[str, str]:
    """Prefect's settings that hold with and without a running stack."""
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_PROMPT": "false",
        # The defaults of 10 s and 30 s were most of the wait from a trigger to its run, and until a dead worker shows.
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    }


def _mlflow_common(tracking: str) -> dict[str, str]:
    """MLflow's settings: where it is, and everything off that keepfit does not use."""
    return {
        "MLFLOW_TRACKING_URI": tracking,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }


def _prefect_server(settings: Settings, url: str, *, local: bool) -> dict[str, str]:
    """Settings for a Prefect server at an address; the password goes to the local stack's server only."""
    found = {
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(_origins(url)),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    }
    return found | _password(_secret(settings)) if local and settings.secret_file.exists() else found


def _prefect_temporary(settings: Settings) -> dict[str, str]:
    """Settings for a Prefect server that lives as long as this process and answers to it alone."""
    (settings.home / "prefect").mkdir(parents=True, exist_ok=True)
    return {
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
        **_password(_fresh_secret()),
    }


def _password(secret: str) -> dict[str, str]:
    """The password for both ends of Prefect's API."""
    return {"PREFECT_API_AUTH_STRING": secret, "PREFECT_SERVER_API_AUTH_STRING": secret}


def _origins(url: str) -> list[str]:
    """The origins under which a browser on this machine reaches a server, and no others."""
    port = urlsplit(url).port
    return (
        list(dict.fromkeys([url, f"http://localhost:{port}"]))
        if access.is_loopback(urlsplit(url).hostname or "")
        else [url]
    )


def _supervised(settings: Settings, record: Record) -> dict[str, str]:
    """The environment of supervisord and of everything below it; infra/supervisord.conf refers to it."""
    urls = record["urls"]
    ports = {f"KEEPFIT_{name.upper()}_PORT": str(urlsplit(urls[name]).port) for name in LISTENERS}
    names = {urlsplit(urls["mlflow"]).hostname or "", settings.host, socket.gethostname()}
    hosts = {"localhost", "127.0.0.1", "[::1]"} | (set() if access.is_loopback(settings.host) else names)
    port = ports["KEEPFIT_MLFLOW_PORT"]
    elsewhere = {"KEEPFIT_PREFECT_URL", "KEEPFIT_MLFLOW_URL", "KEEPFIT_SERVING_URL"}
    files = {"KEEPFIT_TLS_CERT": settings.tls_cert, "KEEPFIT_TLS_KEY": settings.tls_key}
    return {
        **{key: value for key, value in os.environ.items() if key not in elsewhere},
        **{name: str(path) for name, path in files.items() if path},
        **environment(settings, urls),
        **ports,
        MARK: str(settings.home),
        "KEEPFIT_HOST": settings.host,
        "KEEPFIT_PYTHON": sys.executable,
        "KEEPFIT_SOCKET": record["socket"],
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(sorted(f"{host}:{port}" for host in hosts)),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(_origins(urls["mlflow"])),
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_CLI_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
    }


# -- the password -----------------------------------------------------------------------------------------------------
def _fresh_secret() -> str:
    """A new password in the form that Prefect's API and its login page take."""
    return f"keepfit:{secrets.token_urlsafe(32)}"


def _make_secret(settings: Settings) -> str:
    """The password of the Prefect server, made at the first call."""
    private.make(settings.secret_file, _fresh_secret().encode())
    return _secret(settings)


def _secret(settings: Settings) -> str:
    """The password of the Prefect server; refuses one that somebody else may know or have written."""
    fault = _secret_fault(settings.secret_file)
    if fault:
        raise StackError(f"{fault[0]} {fault[1]}")
    return settings.secret_file.read_text().strip()


def _secret_fault(path: Path) -> tuple[str, str] | None:
    """What is wrong with a secret file and the next move, or nothing."""
    renew = f"Delete it and run `keepfit down` and `keepfit up`, which makes a new one: rm '{path}'"
    return (found, renew) if (found := private.fault(path)) else None


# -- up ---------------------------------------------------------------------------------------------------------------
def up(settings: Settings, say: Say = _quiet) -> Record:
    """Starts the stack and waits until every service has answered a real call; harmless when it runs already.

    Returns:
        `urls`, `socket`, `pid`, `started_at` as in stack.json, and `already` (whether it ran before) and `seconds`.

    Raises:
        StackError: a service does not come up; the message holds the end of its log. What this call started is stopped.
        ArtifactError: a database is damaged; nothing was started.
    """
    begun = time.monotonic()
    _may_listen(settings)
    with _lock(settings):
        record = _record(settings)
        already = _states(record) is not None
        record = _mend(settings, record, say) if already else _start(settings, record, say)
    return {**record, "already": already, "seconds": round(time.monotonic() - begun, 1)}


def _may_listen(settings: Settings) -> None:
    """Raises when somebody else could reach what this stack answers, or write what it reads."""
    access.check(settings)
    if not access.is_loopback(settings.host) and not settings.behind_proxy:
        raise StackError(
            f"KEEPFIT_HOST={settings.host} would open Prefect and MLflow to the network; Prefect does not encrypt, and MLflow asks for "
            "no password.\nPut a proxy in front that does both and set KEEPFIT_BEHIND_PROXY=true; or leave KEEPFIT_HOST and open the "
            "serving process alone, with `python -m tasks.serving.app` under other settings."
        )


def _mend(settings: Settings, record: Record, say: Say) -> Record:
    """Starts again what has stopped in a running stack, and waits for what is not healthy."""
    _awake(record, say)
    if all(service["healthy"] for service in services(settings)):
        say("The stack runs already.")
    else:
        _wait(settings, record, say)
    return record


def _awake(record: Record, say: Say) -> None:
    """Starts every program that supervisord knows and that does not run."""
    for name, info in (_states(record) or {}).items():
        if info["statename"] in {"FATAL", "EXITED", "STOPPED"}:
            say(f"{name}: {info['statename'].lower()}, is started")
            _ask(record, "startProcess", f"{info['group']}:{name}", False)


def _start(settings: Settings, stale: Record, say: Say) -> Record:
    """Starts supervisord and everything below it; on any failure, ends it all again."""
    orphans = _end(settings)
    if orphans:
        say(f"Ended {orphans} processes that an earlier stack had left behind.")
    for name in DATABASES:
        refuse_damaged(settings.home / name)
    _furnish(settings)
    record: Record = {
        "urls": _addresses(settings, stale, say),
        "socket": str(_control(settings) / "supervisor.sock"),
        "pid": None,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        _write(settings, record)
        _launch(settings, record)
        record["pid"] = _ask(record, "getPID")
        _write(settings, record)
        _wait(settings, record, say)
        # What has autostart = false only makes runs quicker; it must not hold up those that are waited for.
        _awake(record, _quiet)
    except BaseException:
        # An interrupted or failed start leaves nothing behind, except the logs.
        say("Stopping what was started.")
        _halt(settings)
        raise
    return record


def _furnish(settings: Settings) -> None:
    """Makes the folders, the password, and MLflow's database in WAL mode; forgets the last stack's signs of life."""
    for folder in (
        settings.home,
        settings.logs,
        settings.artifacts,
        settings.home / "prefect",
        settings.home / "inbox",
    ):
        folder.mkdir(parents=True, exist_ok=True)
    _make_secret(settings)
    for name in BEATING:
        _heartbeat(settings, name).unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(settings.home / "mlflow.db", timeout=20)) as database:
        # The mode stays with the file. MLflow itself sets a busy timeout of 20 s on every session.
        database.execute("PRAGMA journal_mode=WAL")


def _heartbeat(settings: Settings, name: str) -> Path:
    """The file that a service without a port touches while it watches."""
    return settings.home / f"{name}.heartbeat"


def _addresses(settings: Settings, stale: Record, say: Say) -> dict[str, str]:
    """The services' addresses: the ports of a stack that crashed, else the wished ones, else free ones."""
    wished = {"prefect": settings.prefect_port, "mlflow": settings.mlflow_port, "serving": settings.serving_port}
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    taken: set[int] = set()
    for name, port in wished.items():
        last = urlsplit(stale.get("urls", {}).get(name, "")).port
        wished[name] = _port(settings.host, [last, port] if last else [port], taken)
        if wished[name] != port:
            say(f"{name}: port {port} is busy or was replaced before; {wished[name]} takes its place")
        taken.add(wished[name])
    place = f"[{host}]" if ":" in host else host
    schemes = {"serving": "https"} if settings.tls_cert else {}
    return {name: f"{schemes.get(name, 'http')}://{place}:{port}" for name, port in wished.items()}


def _port(host: str, wished: list[int], taken: set[int]) -> int:
    """The first wished port that is free, else any free one."""
    for port in [*wished, 0]:
        found = None if port in taken else _bindable(host, port)
        if found is not None and found not in taken:
            return found
    return _port(host, [], taken)


def _bindable(host: str, port: int) -> int | None:
    """The port that a server could listen on now (0 asks for any), or nothing when it is busy."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def _launch(settings: Settings, record: Record) -> None:
    """Starts supervisord in the background; it starts every program at once."""
    command = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(CONFIGURATION)]
    started = subprocess.run(
        command,
        env=_supervised(settings, record),
        cwd=settings.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if started.returncode:
        said = (started.stderr or started.stdout).strip()
        raise StackError(f"supervisord did not start: {said}\nRun `keepfit doctor`; it names what stands in the way.")
    _until(
        lambda: _states(record) is not None, 15, f"supervisord does not answer; see {settings.logs / 'supervisord.log'}"
    )


def _until(is_true: Callable[[], bool], seconds: float, complaint: str) -> None:
    """Waits until something is true, or raises a complaint."""
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise StackError(complaint)
        time.sleep(0.05)


def _wait(settings: Settings, record: Record, say: Say) -> None:
    """Waits until every service is healthy, telling each as it comes."""
    begun = time.monotonic()
    pending = list(SERVICES)
    while pending:
        states = _states(record) or {}
        faults = _faults(settings, record, pending)
        waited = time.monotonic() - begun
        for name, fault in faults.items():
            if fault is None:
                say(f"{name}: ready after {waited:.1f} s{_place(record, name)}")
            elif waited > PATIENCE or states.get(name, {}).get("statename") == "FATAL":
                raise StackError(_obituary(settings, name, fault, waited))
        pending = [name for name in pending if faults[name] is not None]
        time.sleep(0.1 if pending else 0)


def _place(record: Record, name: str) -> str:
    """The end of a progress line: the address of a service that has one."""
    return f", {record['urls'][name]}" if name in record["urls"] else ""


def _obituary(settings: Settings, name: str, fault: str, waited: float) -> str:
    """What a service met, the end of its log, and the next move."""
    log = settings.logs / f"{name}.log"
    lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
    told = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
    return (
        f"{name} is not healthy after {waited:.0f} s: {fault}\n"
        f"The end of {log}:\n{told}\n"
        "Mend what the log names, then run `keepfit up` again; `keepfit doctor` looks for the usual causes."
    )


# -- down -------------------------------------------------------------------------------------------------------------
def down(settings: Settings, wipe: bool = False, say: Say = _quiet) -> dict[str, Any]:
    """Stops the stack and waits until no process of it is left; harmless when nothing runs.

    Args:
        settings: where things are.
        wipe: removes KEEPFIT_HOME too, with all data, models and decisions in it. The caller asks first.
        say: is told of progress.

    Returns:
        `stopped` (number of processes that were ended), `wiped`, `seconds`.
    """
    begun = time.monotonic()
    if wipe:
        _refuse_to_wipe(settings.home)
    with _lock(settings):
        stopped = _halt(settings)
        say(f"Stopped {stopped} processes." if stopped else "Nothing was running.")
        if wipe and settings.home.exists():
            shutil.rmtree(settings.home)
            say(f"Removed {settings.home}.")
        shutil.rmtree(_control(settings))
    return {"stopped": stopped, "wiped": wipe, "seconds": round(time.monotonic() - begun, 1)}


def _refuse_to_wipe(home: Path) -> None:
    """Raises when KEEPFIT_HOME names a folder that holds more than keepfit's state."""
    home = home.resolve()
    for precious in (REPOSITORY.resolve(), Path.home().resolve(), Path.cwd().resolve()):
        if precious.is_relative_to(home):
            raise StackError(
                f"KEEPFIT_HOME is {home}, which holds {precious}; only a folder of keepfit's own may be wiped.\n"
                "Remove the state by hand, or point KEEPFIT_HOME at the folder that was meant."
            )


def _halt(settings: Settings) -> int:
    """Ends every process of the stack: politely through supervisord, then whatever is left. Gives their number."""
    members = _members(settings)
    record = _record(settings)
    with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error, KeyError):
        _ask(record, "shutdown")
        # Jobs get 8 s and then the servers get 8 s, as infra/supervisord.conf says.
        _gone([member for member in members if member.pid == record["pid"]], 20)
    _end(settings)
    settings.stack_file.unlink(missing_ok=True)
    return len(members)


def _end(settings: Settings) -> int:
    """Ends whatever still carries the stack's mark, supervisord first, and gives how many that were."""
    ended = 0
    # A process may start another one between the look and the signal; so look again until nothing is left.
    for _round in range(5):
        members = sorted(_members(settings), key=lambda member: member.create_time())
        if not members:
            return ended
        ended += len(members)
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        if not _gone(members, 5):
            for member in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            _gone(members, 5)
    left = ", ".join(str(member.pid) for member in _members(settings))
    if left:
        raise StackError(
            f"Processes {left} of the stack do not end, not even when killed.\nLook at them with `ps -fp {left}`."
        )
    return ended


def _members(settings: Settings) -> list[psutil.Process]:
    """Every process below the stack of this KEEPFIT_HOME, however deep, except this one and its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        # Other users' processes and those that have just ended tell nothing and are not ours.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(MARK) == str(settings.home):
                found.append(process)
    return found


def _gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether all processes have ended within some seconds; one that only waits to be reaped has ended."""
    end = time.monotonic() + seconds
    while any(_lives(process) for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _lives(process: psutil.Process) -> bool:
    """Whether a process still runs."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# -- status -----------------------------------------------------------------------------------------------------------
def services(settings: Settings) -> list[dict[str, Any]]:
    """How each service does, found out by a real call to each; never raises when nothing runs.

    Returns:
        For prefect, mlflow, worker, serving, inbox and recover: `name`, `url` (or None), `healthy`, `restarts` since the stack
        was started, and `detail`, a sentence for a reader.
    """
    record = _record(settings)
    states = _states(record)
    if states is None:
        detail = "supervisord is gone; run `keepfit up`" if record else "not started; run `keepfit up`"
        return [{"name": name, "url": None, "healthy": False, "restarts": 0, "detail": detail} for name in SERVICES]
    restarts, faults = _restarts(settings), _faults(settings, record, SERVICES)
    return [
        {
            "name": name,
            "url": record["urls"].get(name),
            "healthy": faults[name] is None,
            "restarts": restarts[name],
            "detail": faults[name] or f"pid {states[name]['pid']}, up {_span(states[name])}",
        }
        for name in SERVICES
    ]


def _span(info: dict[str, Any]) -> str:
    """How long a program has been running, for a reader."""
    minutes, seconds = divmod(max(info["now"] - info["start"], 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _restarts(settings: Settings) -> dict[str, int]:
    """How often supervisord has started each program again since its own start, from its log and the last rotation."""
    log = settings.logs / "supervisord.log"
    parts = [path for path in (log.with_name(f"{log.name}.1"), log) if path.exists()]
    lines = "".join(part.read_text(errors="replace") for part in parts).splitlines()
    begin = max((at for at, line in enumerate(lines) if "supervisord started with pid" in line), default=0)
    spawned = "".join(line for line in lines[begin:] if "INFO spawned: " in line)
    return {name: max(spawned.count(f"spawned: '{name}'") - 1, 0) for name in SERVICES}


def _faults(settings: Settings, record: Record, names: Sequence[str]) -> dict[str, str | None]:
    """Why each service is not healthy, or None; all are asked at the same time."""
    states = _states(record) or {}
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(
            zip(names, pool.map(lambda name: _fault(settings, record, name, states.get(name)), names), strict=True)
        )


def _fault(settings: Settings, record: Record, name: str, info: dict[str, Any] | None) -> str | None:
    """Why a service is not healthy, or nothing when it is."""
    if info is None:
        return "supervisord does not know it"
    if info["statename"] not in {"STARTING", "RUNNING"}:
        return f"{info['statename'].lower()}: {info['spawnerr'] or info['description']}"
    try:
        return PROBES[name](settings, record, info)
    except (http.client.HTTPException, ValueError, KeyError, OSError) as error:
        return f"does not answer yet ({type(error).__name__}: {error})"


def _call(url: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
    """What a service answers in JSON (a POST when there is a body), within 3 s and never through a proxy.

    The standard library's client: a hundred calls while the stack starts must not take the processor from it.
    """
    place = urlsplit(url)
    link = _line(place.scheme, place.hostname or "", place.port)
    with contextlib.closing(link):
        sent = None if body is None else json.dumps(body)
        kind = {} if sent is None else {"Content-Type": "application/json"}
        link.request("GET" if sent is None else "POST", path, sent, kind | (headers or {}))
        answer = link.getresponse()
        text = answer.read()
    if answer.status >= 400:
        raise _RefusedError(answer.status, path)
    return json.loads(text or "null")


def _line(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    """A connection to a service of this machine; asked whether it answers, it need not prove who it is."""
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=3)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=3, context=context)


class _RefusedError(OSError):
    """A service answered with an error status."""

    def __init__(self, status: int, path: str) -> None:
        super().__init__(f"{path} answered {status}")
        self.status = status


def _credentials(settings: Settings) -> dict[str, str]:
    """The header that opens the Prefect server."""
    return {"Authorization": "Basic " + base64.b64encode(_secret(settings).encode()).decode()}


def _probe_prefect(settings: Settings, record: Record, _info: dict[str, Any]) -> str | None:
    """Asks whether the server is well, and then something that only the right password opens."""
    _call(record["urls"]["prefect"], "/api/health")
    _call(record["urls"]["prefect"], "/api/admin/version", headers=_credentials(settings))
    return None


def _probe_mlflow(_settings: Settings, record: Record, _info: dict[str, Any]) -> str | None:
    """Searches experiments over REST, which reads the database."""
    _call(record["urls"]["mlflow"], "/api/2.0/mlflow/experiments/search", {"max_results": 1})
    return None


def _probe_worker(settings: Settings, record: Record, info: dict[str, Any]) -> str | None:
    """Asks Prefect for a heartbeat that is fresh and younger than the worker's process."""
    url, caller = record["urls"]["prefect"], str(uuid.uuid4())
    headers = _credentials(settings) | {"Prefect-Csrf-Client": caller}
    headers["Prefect-Csrf-Token"] = _call(url, f"/api/csrf-token?client={caller}", headers=headers)["token"]
    try:
        found = _call(url, f"/api/work_pools/{POOL}/workers/filter", {}, headers)
    except _RefusedError as refusal:
        if refusal.status == http.HTTPStatus.NOT_FOUND:
            return f"has not made the work pool '{POOL}' yet"
        raise
    beats = [datetime.fromisoformat(one["last_heartbeat_time"]) for one in found if one["status"] == "ONLINE"]
    return None if any(beat.timestamp() >= info["start"] for beat in beats) else "has sent no heartbeat yet"


def _probe_serving(_settings: Settings, record: Record, _info: dict[str, Any]) -> str | None:
    """Asks the serving process whether it is well."""
    _call(record["urls"]["serving"], "/healthz")
    return None


def _probe_beat(settings: Settings, _record: Record, info: dict[str, Any]) -> str | None:
    """Looks for the sign of life that a service without a port leaves every few seconds."""
    path = _heartbeat(settings, info["name"])
    beat = path.stat().st_mtime if path.exists() else 0.0
    return None if time.time() - beat < 10 and beat >= info["start"] else "has left no sign of life in the last 10 s"


PROBES: dict[str, Callable[[Settings, Record, dict[str, Any]], str | None]] = {
    "prefect": _probe_prefect,
    "mlflow": _probe_mlflow,
    "worker": _probe_worker,
    "serving": _probe_serving,
    "inbox": _probe_beat,
    "recover": _probe_beat,
}


# -- doctor -----------------------------------------------------------------------------------------------------------
def diagnose(settings: Settings) -> list[dict[str, Any]]:
    """What on this machine could stand in the way, each finding with its next move.

    Returns:
        One `check`, `ok`, `detail`, `next` (empty when ok) for each thing looked at.
    """
    return [
        _check_python(),
        _check_disk(settings),
        *(_check_package(name, bound) for name, bound in BOUNDS.items()),
        *_check_ports(settings),
        _check_secret(settings),
        _check_access(settings),
        _check_sockets(settings),
        _check_clock(),
        _check_browser(),
    ]


def _finding(check: str, ok: bool, detail: str, move: str) -> dict[str, Any]:
    """One line of the doctor's answer."""
    return {"check": check, "ok": ok, "detail": detail, "next": "" if ok else move}


def _check_python() -> dict[str, Any]:
    """Whether the interpreter is new enough."""
    return _finding(
        "python",
        sys.version_info >= (3, 11),
        sys.version.split()[0],
        "Make the environment anew with Python 3.11 or newer.",
    )


def _check_disk(settings: Settings) -> dict[str, Any]:
    """Whether there is room for a database to grow."""
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    return _finding(
        "disk", free > 1, f"{free:.1f} GiB free at {settings.home}", "Free some space, or set KEEPFIT_HOME."
    )


def _check_package(name: str, bound: tuple[int, ...]) -> dict[str, Any]:
    """Whether a package is older than the first version that is known to break; does not import it."""
    wanted = f"{name}<{'.'.join(map(str, bound))}"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _finding(name, False, f"not installed; wanted {wanted}", "Run `make install`.")
    numbers = tuple(int(part) for part in version.split(".")[: len(bound)] if part.isdigit())
    return _finding(name, numbers < bound, f"{version}; wanted {wanted}", "Run `make install`.")


def _check_ports(settings: Settings) -> list[dict[str, Any]]:
    """Whether each port is free, or used by the stack itself."""
    urls = settings.stack()
    found = []
    for name, port in (
        ("prefect", settings.prefect_port),
        ("mlflow", settings.mlflow_port),
        ("serving", settings.serving_port),
    ):
        used = urls.get(name)
        ok = bool(used) or _bindable(settings.host, port) is not None
        detail = (
            f"in use by the stack: {used}"
            if used is not None
            else f"{port} is {'free' if ok else 'used by another program'}"
        )
        move = f"`keepfit up` will take a free port; to choose one, set KEEPFIT_{name.upper()}_PORT."
        found.append(_finding(f"port of {name}", ok, detail, move))
    return found


def _check_secret(settings: Settings) -> dict[str, Any]:
    """Whether only its owner can read the Prefect server's password."""
    if not settings.secret_file.exists():
        return _finding("secret", True, "none yet; `keepfit up` makes it", "")
    fault = _secret_fault(settings.secret_file)
    return _finding(
        "secret", fault is None, fault[0] if fault else "readable by its owner only", fault[1] if fault else ""
    )


def _check_access(settings: Settings) -> dict[str, Any]:
    """Whether others could write the state or read a secret, or reach what they should not."""
    try:
        _may_listen(settings)
    except StackError as error:
        return _finding("access", False, str(error), "Do what it says, then run this again.")
    return _finding("access", True, "the state and its secrets are the current user's alone", "")


def _check_sockets(settings: Settings) -> dict[str, Any]:
    """Whether every socket that the stack listens on is reached from this machine only."""
    sockets = listening(settings)
    wide = [f"{name} on {host}:{port}" for name, host, port in sockets if not access.is_loopback(host)]
    if wide and not access.is_loopback(settings.host):
        return _finding(
            "sockets", True, f"open to the network, as KEEPFIT_HOST={settings.host} asks: {', '.join(wide)}", ""
        )
    detail = (
        f"open to the network: {', '.join(wide)}" if wide else f"{len(sockets)} listening, all on this machine only"
    )
    return _finding(
        "sockets", not wide, detail, "Run `keepfit down`, and find out what opened it before starting again."
    )


def listening(settings: Settings) -> list[tuple[str, str, int]]:
    """The program, address and port of every TCP socket that a process of the stack listens on."""
    found: list[tuple[str, str, int]] = []
    for process in _members(settings):
        with contextlib.suppress(psutil.Error):
            found += [
                (" ".join(process.cmdline()[1:5]), connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN
            ]
    return found


def _check_clock() -> dict[str, Any]:
    """Whether the clock is at least not behind the installed code."""
    now = datetime.now(UTC)
    sane = now.timestamp() > Path(__file__).stat().st_mtime - 86400
    return _finding(
        "clock", sane, f"{now:%Y-%m-%d %H:%M:%S} UTC", "The clock is behind the installed code; set it by NTP."
    )


def _check_browser() -> dict[str, Any]:
    """Which browser the tests of the pages would use; none is needed otherwise."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    return _finding("browser (optional)", True, path or "no Chromium found; only the browser tests need one", "")


# -- the record, the lock, the control socket -------------------------------------------------------------------------
def _record(settings: Settings) -> Record:
    """What the last `up` wrote down, or an empty record."""
    try:
        return json.loads(settings.stack_file.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def _write(settings: Settings, record: Record) -> None:
    """Replaces stack.json in one step, so that no reader meets half of it."""
    draft = settings.stack_file.with_suffix(".part")
    draft.write_text(json.dumps(record, indent=2))
    draft.replace(settings.stack_file)


def _control(settings: Settings) -> Path:
    """A folder of the current user alone, with a path short enough for a Unix socket (108 bytes)."""
    digest = hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"keepfit-{os.getuid()}-{digest}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise StackError(
            f"{folder} is not a folder of the current user alone"
            f" (owner {facts.st_uid}, mode {stat.S_IMODE(facts.st_mode):04o}).\n"
            "Somebody else may have made it; remove it, or set TMPDIR to a folder of your own."
        )
    return folder


@contextlib.contextmanager
def _lock(settings: Settings) -> Generator[None]:
    """Holds back a second `up` or `down` until the first has ended; a killed holder lets go by itself."""
    while True:
        path = _control(settings) / "lock"
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The `down` that was waited for has removed this lock and its folder; then the next one counts.
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield
                return


def _ask(record: Record, method: str, *arguments: str | bool) -> Any:
    """Calls one method of supervisord's XML-RPC interface over its Unix socket, with a time limit."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(5)
        wire.connect(record["socket"])
        link = http.client.HTTPConnection("localhost")
        link.sock = wire
        link.request(
            "POST", "/RPC2", xmlrpc.client.dumps(arguments, f"supervisor.{method}"), {"Content-Type": "text/xml"}
        )
        (answer,), _ = xmlrpc.client.loads(link.getresponse().read())
    return answer


def _states(record: Record) -> dict[str, dict[str, Any]] | None:
    """What supervisord says of each program, or nothing when it does not answer."""
    try:
        return {info["name"]: info for info in _ask(record, "getAllProcessInfo")}
    except (KeyError, OSError, http.client.HTTPException, xmlrpc.client.Error):
        return None


# -- the entries of the programs ---------------------------------------------------------------------------------------
def work() -> None:
    """Runs the worker in this process once the Prefect server answers.

    The worker's imports take as long as the server's, so both load at the same time; started too early, the worker
    would give up and pay for its imports again.
    """
    import prefect.workers.process  # noqa: F401 - loaded while the server starts

    url = os.environ["PREFECT_API_URL"].removesuffix("/api")
    _until(lambda: _answers(url, "/api/health"), PATIENCE, "The Prefect server does not answer.")
    sys.argv = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "local", "--limit", "2"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def track() -> None:
    """Runs MLflow's server in this process, as `mlflow server --workers 1 --no-serve-artifacts` does in two.

    The command imports MLflow twice, once to start the process that serves: 4 s of the start and 250 MB for nothing.
    MLflow's own names of the two variables are compared below, so that a release that renames them is noticed.
    """
    home = Path(os.environ["KEEPFIT_HOME"])
    database, artifacts = f"sqlite:///{home / 'mlflow.db'}", str(home / "artifacts")
    # MLflow reads them while it is imported: without a database in sight it leaves its security middleware out.
    os.environ.update({"_MLFLOW_SERVER_FILE_STORE": database, "_MLFLOW_SERVER_ARTIFACT_ROOT": artifacts})
    import uvicorn
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
    from mlflow.server.handlers import initialize_backend_stores

    if os.environ.get(BACKEND_STORE_URI_ENV_VAR) != database or os.environ.get(ARTIFACT_ROOT_ENV_VAR) != artifacts:
        raise StackError(f"This MLflow reads its places from {BACKEND_STORE_URI_ENV_VAR} and {ARTIFACT_ROOT_ENV_VAR}.")
    initialize_backend_stores(database, default_artifact_root=artifacts)
    from mlflow.server.fastapi_app import app

    uvicorn.run(
        _without_uploads(app),
        host=os.environ["KEEPFIT_HOST"],
        port=int(os.environ["KEEPFIT_MLFLOW_PORT"]),
        log_level="warning",
    )


def _without_uploads(app: Any) -> Any:
    """MLflow's application with its last anonymous way to overwrite an artifact shut.

    Without --serve-artifacts the proxy answers 503, but this call of the UI (for tables of prompts) still wrote files.
    """

    async def guarded(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/mlflow/upload-artifact"):
            await send({"type": "http.response.start", "status": http.HTTPStatus.FORBIDDEN, "headers": []})
            await send({"type": "http.response.body", "body": b"Artifacts are written by runs, not over HTTP."})
        else:
            await app(scope, receive, send)

    return guarded


def _answers(url: str, path: str) -> bool:
    """Whether a server answers well."""
    try:
        _call(url, path)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


if __name__ == "__main__":
    {"worker": work, "mlflow": track}[sys.argv[1]]()
