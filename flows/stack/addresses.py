"""Where the stack listens: which ports, and who can reach them."""

import contextlib
import socket
from urllib.parse import urlsplit

import psutil

from flows.saying import Say
from flows.stack import processes
from flows.stack.record import Record
from tasks.config import access
from tasks.config.errors import StackError
from tasks.config.settings import Settings


def wished(settings: Settings) -> dict[str, int]:
    """The port that each service with an address should have."""
    return {"prefect": settings.prefect_port, "mlflow": settings.mlflow_port, "serving": settings.serving_port}


def chosen(settings: Settings, stale: Record, say: Say) -> dict[str, str]:
    """The services' addresses: the ports of a stack that crashed, else the wished ones, else free ones."""
    ports = wished(settings)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    taken: set[int] = set()
    for name, port in wished(settings).items():
        last = urlsplit(stale.get("urls", {}).get(name, "")).port
        ports[name] = free_port(settings.host, [last, port] if last else [port], taken)
        if ports[name] != port:
            say(f"{name}: port {port} is busy or was replaced before; {ports[name]} takes its place")
        taken.add(ports[name])
    place = f"[{host}]" if ":" in host else host
    schemes = {"serving": "https"} if settings.tls_cert else {}
    return {name: f"{schemes.get(name, 'http')}://{place}:{port}" for name, port in ports.items()}


def free_port(host: str, preferred: list[int], taken: set[int]) -> int:
    """The first wished port that is free, else any free one."""
    for port in [*preferred, 0]:
        found = None if port in taken else bindable(host, port)
        if found is not None and found not in taken:
            return found
    return free_port(host, [], taken)


def bindable(host: str, port: int) -> int | None:
    """The port that a server could listen on now (0 asks for any), or nothing when it is busy."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def may_listen(settings: Settings) -> None:
    """Raises when somebody else could reach what this stack answers, or write what it reads."""
    access.check(settings)
    if not access.is_loopback(settings.host) and not settings.behind_proxy:
        raise StackError(
            f"KEEPFIT_HOST={settings.host} would open Prefect and MLflow to the network; Prefect does not encrypt, and MLflow asks for "
            "no password.\nPut a proxy in front that does both and set KEEPFIT_BEHIND_PROXY=true; or leave KEEPFIT_HOST and open the "
            "serving process alone, with `python -m tasks.serving.app` under other settings."
        )


def listening(settings: Settings) -> list[tuple[str, str, int]]:
    """The program, address and port of every TCP socket that a process of the stack listens on."""
    found: list[tuple[str, str, int]] = []
    for process in processes.members(settings):
        with contextlib.suppress(psutil.Error):
            found += [
                (" ".join(process.cmdline()[1:5]), connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN
            ]
    return found
