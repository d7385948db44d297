"""The quick way: a small body for a project whose champion is compiled is answered where it arrives, past routes, tasks and threads.

It knows two ways to ask, keepfit's own and MLflow's. Such an answer takes microseconds, less than finding its route does. Whatever is not as usual goes the way of every other
request, with what was read of it; so nothing is refused here, and there is one place that says why.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.serving.protocols import MLFLOW, OWN, Protocol

QUICK_BYTES = 4096  # beyond it the model takes longer than the way
# What stands before and behind a project's name.
PATHS = (("/projects/", "/predict", OWN), ("/invocations/", "", MLFLOW))
UNUSUAL = frozenset({b"content-encoding", b"transfer-encoding"})
PATIENCE = 0.05  # seconds that a small body may take to arrive


class Quick:
    """Stands behind the guard and before the routes.

    Attributes:
        answer: the answer to each of a project's bodies, or None where it must go the usual way.
        endpoints: those of the usual way, under whose names the answers are counted.
    """

    def __init__(
        self, app: ASGIApp, answer: Callable[[str, Protocol, Sequence[bytes]], Sequence[bytes | None]],
        endpoints: Mapping[Protocol, object],
    ) -> None:  # fmt: skip
        self._app = app
        self._answer = answer
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes it on."""
        if (named := _asked(scope)) is None:
            await self._app(scope, receive, send)
            return
        project, protocol = named
        try:
            async with asyncio.timeout(PATIENCE):
                message = await receive()
        except TimeoutError:  # a slow sender meets the limits of the usual way
            await self._app(scope, receive, send)
            return
        body = b"" if message.get("more_body") else message.get("body", b"")
        scope["endpoint"], scope["path_params"] = self._endpoints[protocol], {"project": project}
        content = self._answer(project, protocol, [body])[0] if 0 < len(body) <= QUICK_BYTES else None
        if content is None:
            await self._app(scope, _again(message, receive), send)
            return
        if let_in := scope.get("let_in"):
            let_in(named)
        length = str(len(content)).encode()
        headers = [(b"content-length", length), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _asked(scope: Scope) -> tuple[str, Protocol] | None:
    """The project that a request with a small, plain body asks for predictions, and how; None for every other request."""
    if scope["type"] != "http" or scope["method"] != "POST" or "predict" not in scope["roles"]:
        return None
    path: str = scope["path"]
    for before, after, protocol in PATHS:
        if path.startswith(before) and path.endswith(after) and _is_small(scope["headers"]):
            project = path[len(before) : len(path) - len(after)]
            return None if "/" in project else (project, protocol)
    return None


def _is_small(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether they announce a plain body of few bytes."""
    length = b""
    for name, value in headers:
        if name in UNUSUAL:
            return False
        if name == b"content-length":
            length = value
    return len(length) <= 4 and length.isdigit() and int(length) <= QUICK_BYTES


def _again(message: Message, receive: Receive) -> Receive:
    """The message that was taken, then those that follow."""
    taken = False

    async def replayed() -> Message:
        nonlocal taken
        if taken:
            return await receive()
        taken = True
        return message

    return replayed
