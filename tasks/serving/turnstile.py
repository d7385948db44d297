"""The turnstile: while the line is full, requests for predictions are told so before they are taken apart.

At three times the load that a process can answer, two requests of three are refused. Each costs the process what it takes to read a request,
route it and write an answer, a good part of what answering would; refused so, it costs one look at the bytes and one write.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tasks.serving.line import Line, busy

ASKS = re.compile(rb"POST (?:/projects/[^ /?]+/predict|/v2/models/[^ /?]+/infer|/invocations/[^ /?]+) HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,7})\r\n", re.IGNORECASE)


class Turnstile:
    """Makes the protocols of one server's connections."""

    def __init__(self, line: Line, refused: Callable[[], None]) -> None:
        """`refused` is told of each request that is turned away."""
        self._line = line
        self._told = refused
        self._arriving = 0
        refusal = busy()
        body = bytes(refusal.response().body)
        lines = [f"{name.title()}: {value}" for name, value in refusal.headers.items()]
        head = [
            "HTTP/1.1 429 Too Many Requests",
            *lines,
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        self.answer = "\r\n".join([*head, "", ""]).encode() + body

    def __call__(self, **how: Any) -> asyncio.Protocol:
        """The protocol of one connection."""
        return _Protocol(self, **how)

    def refuses(self, data: bytes) -> bool:
        """Whether the bytes are one whole request for predictions, and the line has no place for it."""
        if not ASKS.match(data):
            return False
        if self._line.count + self._arriving < self._line.most:
            self._arrives()
            return False
        end = data.find(b"\r\n\r\n")
        length = LENGTH.search(data, 0, end + 2)
        if end < 0 or not length or len(data) != end + 4 + int(length[1]):
            return False
        self._told()
        return True

    def _arrives(self) -> None:
        """Counts a request that was let through and is in the line at the next turn of the loop."""
        if not self._arriving:
            asyncio.get_running_loop().call_soon(self._arrived)
        self._arriving += 1

    def _arrived(self) -> None:
        self._arriving = 0


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol behind a turnstile."""

    def __init__(self, turnstile: Turnstile, **how: Any) -> None:
        super().__init__(**how)
        self._turnstile = turnstile
        self._is_between = True  # no part of a request has come

    def on_message_begin(self) -> None:
        """Notes that a request has begun."""
        self._is_between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Notes that it is whole."""
        self._is_between = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Takes what has come, or turns it away."""
        is_idle = self._is_between and (self.cycle is None or self.cycle.response_complete)
        if is_idle and self._turnstile.refuses(data):
            self.transport.write(self._turnstile.answer)
        else:
            super().data_received(data)
