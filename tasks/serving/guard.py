"""Who may ask: Host and Origin of a request are this server's, and its token is known; whatever fails behind it becomes one sentence."""

import functools
import ipaddress
import logging
import socket
import time
import traceback
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.config.access import ROLES, Tokens
from tasks.config.settings import Settings
from tasks.serving.answers import FAILED, Refusal

LOG = logging.getLogger("keepfit.serving")

OPEN = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})  # no token: a balancer has none
SIGNED = "/hooks/"  # no token: each message shows that it is its hook's
KNOWN_HOSTS = 256  # names that were looked at lately


class Guard:
    """Stands before everything: asks for the right Host, Origin and token, counts answers, turns faults into one sentence.

    What the token of a request opens is in `scope["roles"]`; without any tokens that is everything. `scope["is_known"]` says whether it
    has shown one.
    """

    def __init__(self, app: ASGIApp, settings: Settings, count: Callable[[Scope, int, float], None]) -> None:
        self._app = app
        self._count = count
        self._tokens = Tokens.of(settings)
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
        self._is_known = functools.lru_cache(KNOWN_HOSTS)(self._is_own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes the start and the end of the process on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._admit(headers)
            scope["roles"] = self._roles(scope["path"], headers)
            scope["is_known"] = bool(self._tokens.known and scope["roles"])
            await self._app(scope, receive, counted)
        except Refusal as refusal:
            await refusal.response()(scope, receive, counted)
        except Exception as error:  # noqa: BLE001 – the last net: a client gets a sentence, the log gets the place
            _log_fault(error)
            if not status:
                await FAILED.response()(scope, receive, counted)
        self._count(scope, status, time.perf_counter() - began)

    def _roles(self, path: str, headers: Headers) -> frozenset[str]:
        if not self._tokens.known:
            return ROLES
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        roles = self._tokens.opens(shown.strip()) if scheme.lower() == "bearer" else frozenset[str]()
        if not roles and path not in OPEN and not path.startswith(SIGNED):
            raise Refusal(
                401,
                "Wanted the header 'Authorization: Bearer …' with a token of this server.",
                WWW_Authenticate="Bearer",
                Connection="close",
            )
        return roles

    def _admit(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_known(hosts[0].lower()):
            raise Refusal(
                400,
                "The Host header names another machine; wanted a name of this one. Whoever runs it adds a name with "
                "KEEPFIT_SERVING_URL.",
            )
        origins = {origin.lower().partition("://")[2] for origin in headers.getlist("origin")}
        if origins and not origins <= {hosts[0].lower(), self._own} - {""}:
            raise Refusal(
                403,
                "The request comes from a page of another site; wanted one of this server or no browser. Call it from "
                "a program.",
            )

    def _is_own(self, host: str) -> bool:
        if len(host) > 300 or set(host) & set("@/?#\\ \t,"):
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
