"""Starting the stack: `keepfit up`."""

import contextlib
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime

from flows.saying import Say, quiet
from flows.stack import addresses, password, processes, supervisor
from flows.stack.health import SERVICES, faults, services
from flows.stack.probes import BEATING, heartbeat
from flows.stack.record import Record, control_folder, lock, recorded, save
from flows.stack.stopping import halt
from flows.stack.variables import supervised
from flows.stack.waiting import PATIENCE, until
from tasks.config.errors import StackError
from tasks.config.settings import REPOSITORY, Settings
from tasks.stores.sqlite import refuse_damaged

CONFIGURATION = REPOSITORY / "infra" / "supervisord.conf"
DATABASES = ("keepfit.db", "studies.db", "mlflow.db")


def up(settings: Settings, say: Say = quiet) -> Record:
    """Starts the stack and waits until every service has answered a real call; harmless when it runs already.

    Returns:
        `urls`, `socket`, `pid`, `started_at` as in stack.json, and `already` (whether it ran before) and `seconds`.

    Raises:
        StackError: a service does not come up; the message holds the end of its log. What this call started is stopped.
        ArtifactError: a database is damaged; nothing was started.
    """
    begun = time.monotonic()
    addresses.may_listen(settings)
    with lock(settings):
        record = recorded(settings)
        already = supervisor.states(record) is not None
        record = _mend(settings, record, say) if already else _start(settings, record, say)
    return {**record, "already": already, "seconds": round(time.monotonic() - begun, 1)}


def _mend(settings: Settings, record: Record, say: Say) -> Record:
    """Starts again what has stopped in a running stack, and waits for what is not healthy."""
    supervisor.awake(record, say)
    if all(service["healthy"] for service in services(settings)):
        say("The stack runs already.")
    else:
        _wait(settings, record, say)
    return record


def _start(settings: Settings, stale: Record, say: Say) -> Record:
    """Starts supervisord and everything below it; on any failure, ends it all again."""
    orphans = processes.end(settings)
    if orphans:
        say(f"Ended {orphans} processes that an earlier stack had left behind.")
    for name in DATABASES:
        refuse_damaged(settings.home / name)
    _furnish(settings)
    record: Record = {
        "urls": addresses.chosen(settings, stale, say),
        "socket": str(control_folder(settings) / "supervisor.sock"),
        "pid": None,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        save(settings, record)
        _launch(settings, record)
        record["pid"] = supervisor.ask(record, "getPID")
        save(settings, record)
        _wait(settings, record, say)
        # What has autostart = false only makes runs quicker; it must not hold up those that are waited for.
        supervisor.awake(record, quiet)
    except BaseException:
        # An interrupted or failed start leaves nothing behind, except the logs.
        say("Stopping what was started.")
        halt(settings)
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
    password.make(settings)
    for name in BEATING:
        heartbeat(settings, name).unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(settings.home / "mlflow.db", timeout=20)) as database:
        # The mode stays with the file. MLflow itself sets a busy timeout of 20 s on every session.
        database.execute("PRAGMA journal_mode=WAL")


def _launch(settings: Settings, record: Record) -> None:
    """Starts supervisord in the background; it starts every program at once."""
    command = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(CONFIGURATION)]
    started = subprocess.run(
        command,
        env=supervised(settings, record),
        cwd=settings.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if started.returncode:
        said = (started.stderr or started.stdout).strip()
        raise StackError(f"supervisord did not start: {said}\nRun `keepfit doctor`; it names what stands in the way.")
    until(
        lambda: supervisor.states(record) is not None,
        15,
        f"supervisord does not answer; see {settings.logs / 'supervisord.log'}",
    )


def _wait(settings: Settings, record: Record, say: Say) -> None:
    """Waits until every service is healthy, telling each as it comes."""
    begun = time.monotonic()
    pending = list(SERVICES)
    while pending:
        states = supervisor.states(record) or {}
        met = faults(settings, record, pending)
        waited = time.monotonic() - begun
        for name, fault in met.items():
            if fault is None:
                say(f"{name}: ready after {waited:.1f} s{_place(record, name)}")
            elif waited > PATIENCE or states.get(name, {}).get("statename") == "FATAL":
                raise StackError(_obituary(settings, name, fault, waited))
        pending = [name for name in pending if met[name] is not None]
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
