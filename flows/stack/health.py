"""How each service does: what supervisord says of it, then its probe."""

import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flows.stack import supervisor
from flows.stack.probes import PROBES
from flows.stack.record import Record, recorded
from tasks.config.settings import Settings

SERVICES = tuple(PROBES)


def services(settings: Settings) -> list[dict[str, Any]]:
    """How each service does, found out by a real call to each; never raises when nothing runs.

    Returns:
        For prefect, mlflow, worker, serving, inbox and recover: `name`, `url` (or None), `healthy`, `restarts` since the stack
        was started, and `detail`, a sentence for a reader.
    """
    record = recorded(settings)
    states = supervisor.states(record)
    if states is None:
        detail = "supervisord is gone; run `keepfit up`" if record else "not started; run `keepfit up`"
        return [{"name": name, "url": None, "healthy": False, "restarts": 0, "detail": detail} for name in SERVICES]
    restarts, met = _restarts(settings), faults(settings, record, SERVICES)
    return [
        {
            "name": name,
            "url": record["urls"].get(name),
            "healthy": met[name] is None,
            "restarts": restarts[name],
            "detail": met[name] or f"pid {states[name]['pid']}, up {_span(states[name])}",
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


def faults(settings: Settings, record: Record, names: Sequence[str]) -> dict[str, str | None]:
    """Why each service is not healthy, or None; all are asked at the same time."""
    states = supervisor.states(record) or {}
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
