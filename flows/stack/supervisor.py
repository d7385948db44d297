"""Talking to supervisord, which starts the programs and starts again what dies."""

import http.client
import socket
import xmlrpc.client
from typing import Any

from flows.saying import Say
from flows.stack.record import Record


def ask(record: Record, method: str, *arguments: str | bool) -> Any:
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


def states(record: Record) -> dict[str, dict[str, Any]] | None:
    """What supervisord says of each program, or nothing when it does not answer."""
    try:
        return {info["name"]: info for info in ask(record, "getAllProcessInfo")}
    except (KeyError, OSError, http.client.HTTPException, xmlrpc.client.Error):
        return None


def awake(record: Record, say: Say) -> None:
    """Starts every program that supervisord knows and that does not run."""
    for name, info in (states(record) or {}).items():
        if info["statename"] in {"FATAL", "EXITED", "STOPPED"}:
            say(f"{name}: {info['statename'].lower()}, is started")
            ask(record, "startProcess", f"{info['group']}:{name}", False)
