"""Probes: one real call to each service, which only a healthy one answers."""

import contextlib
import http
import http.client
import json
import ssl
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.stack import password
from flows.stack.record import Record
from tasks.config.settings import Settings

FRESH = 10  # seconds for which a sign of life is one
POOL = "keepfit"
"""The work pool that the worker serves and every deployment runs in."""


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


def answers(url: str, path: str) -> bool:
    """Whether a server answers well."""
    try:
        _call(url, path)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


def heartbeat(settings: Settings, name: str) -> Path:
    """The file that a service without a port touches while it watches."""
    return settings.home / f"{name}.heartbeat"


def in_the_way(settings: Settings) -> list[str]:
    """What the inbox cannot take, a sentence each with the next move, as its watcher wrote it into its heartbeat; nothing while none watches."""
    beat = heartbeat(settings, "inbox")
    try:
        return beat.read_text().splitlines() if time.time() - beat.stat().st_mtime < FRESH else []
    except FileNotFoundError:
        return []


def _probe_prefect(settings: Settings, record: Record, _info: dict[str, Any]) -> str | None:
    """Asks whether the server is well, and then something that only the right password opens."""
    _call(record["urls"]["prefect"], "/api/health")
    _call(record["urls"]["prefect"], "/api/admin/version", headers=password.header(settings))
    return None


def _probe_mlflow(_settings: Settings, record: Record, _info: dict[str, Any]) -> str | None:
    """Searches experiments over REST, which reads the database."""
    _call(record["urls"]["mlflow"], "/api/2.0/mlflow/experiments/search", {"max_results": 1})
    return None


def _probe_worker(settings: Settings, record: Record, info: dict[str, Any]) -> str | None:
    """Asks Prefect for a heartbeat that is fresh and younger than the worker's process."""
    url, caller = record["urls"]["prefect"], str(uuid.uuid4())
    headers = password.header(settings) | {"Prefect-Csrf-Client": caller}
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
    path = heartbeat(settings, info["name"])
    beat = path.stat().st_mtime if path.exists() else 0.0
    return (
        None
        if time.time() - beat < FRESH and beat >= info["start"]
        else f"has left no sign of life in the last {FRESH} s"
    )


PROBES: dict[str, Callable[[Settings, Record, dict[str, Any]], str | None]] = {
    "prefect": _probe_prefect,
    "mlflow": _probe_mlflow,
    "worker": _probe_worker,
    "serving": _probe_serving,
    "inbox": _probe_beat,
    "recover": _probe_beat,
}
BEATING = tuple(name for name, probe in PROBES.items() if probe is _probe_beat)
"""The services without a port."""
