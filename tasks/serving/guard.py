"""Who may ask: the Host and the Origin of a request are this server's; whatever fails behind it becomes one sentence."""

import ipaddress
import logging
import socket
import traceback
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.config.settings import Settings
from tasks.serving.answers import FAILED, Refusal

LOG = logging.getLogger("keepfit.serving")


class Guard:
    """Stands before everything: asks for the right Host and Origin, counts answers, turns faults into one sentence."""

    def __init__(self, app: ASGIApp, settings: Settings, count: Callable[[Scope, int], None]) -> None:
        self._app = app
        self._count = count
        elsewhere = urlsplit(settings.serving_url or "")
        self._own = elsewhere.netloc.lower()
        self._wide = settings.host in {"0.0.0.0", "::", ""}  # noqa: S104 – asked, not bound
        self._names = {
            "localhost",
            "127.0.0.1",
            "::1",
            settings.host.lower(),
            (elsewhere.hostname or "localhost").lower(),
        }
        if self._wide:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes the start and the end of the process on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._admit(Headers(scope=scope))
            await self._app(scope, receive, counted)
        except Refusal as refusal:
            await refusal.response()(scope, receive, counted)
        except Exception as error:  # noqa: BLE001 – the last net: a client gets a sentence, the log gets the place
            _log_fault(error)
            if not status:
                await FAILED.response()(scope, receive, counted)
        self._count(scope, status)

    def _admit(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0].lower()):
            raise Refusal(
                400,
                "The Host header names another machine; wanted a name of this one. Whoever runs it adds a name with "
                "KEEPFIT_SERVING_URL.",
            )
        origins = {origin.lower().partition("://")[2] for origin in headers.getlist("origin")}
        if not origins <= {hosts[0].lower(), self._own} - {""}:
            raise Refusal(
                403,
                "The request comes from a page of another site; wanted one of this server or no browser. Call it from "
                "a program.",
            )

    def _is_own(self, host: str) -> bool:
        if set(host) & set("@/?#\\ \t,"):
            return False
        try:
            name = urlsplit(f"//{host}").hostname or ""
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        return name != "" and (name in self._names or (self._wide and _is_address(name)))


def _is_address(name: str) -> bool:
    """Whether it is an IP address: those cannot be rebound by somebody else's DNS."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _log_fault(error: Exception) -> None:
    """The kind and the place of a fault; its message may repeat what a client sent, and so stays out."""
    frames = traceback.extract_tb(error.__traceback__)
    LOG.error(
        "%s at %s", type(error).__name__, " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    )
