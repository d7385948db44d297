"""The turnstile: what is decided about a request before it is taken apart.

Two things are. While the line is full, requests for predictions are told so: at three times the load that a process can answer, two of three
are refused, and each would cost the process a good part of what answering costs. And whoever asks again with the head that was let in before on
the same connection is answered where the bytes arrive: who may ask, and for what, is decided from the head alone, by settings that do not
change while the process runs, so that the same head would be let in again.
"""

import asyncio
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tasks.serving.line import Line, busy
from tasks.serving.quick import QUICK_BYTES

ASKS = re.compile(rb"POST (?:/projects/[^ /?]+/predict|/v2/models/[^ /?]+/infer|/invocations/[^ /?]+) HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,7})\r\n", re.IGNORECASE)
DONE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
HEAD_BYTES = 4096  # a longer one is not remembered

Head = tuple[bytes, bytes]


class Asks(NamedTuple):
    """A whole request for predictions, as its bytes came.

    Attributes:
        head: all of it but the digits of the body's length: what stands before them, and behind.
        body: as long as the head says.
    """

    head: Head
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> Self | None:
        """The request that the bytes are; None where they are another, a part of one, or more than one."""
        if not ASKS.match(data):
            return None
        end = data.find(b"\r\n\r\n")
        length = LENGTH.search(data, 0, end + 2)
        if end < 0 or not length or len(data) != end + 4 + int(length[1]):
            return None
        begins, ends = length.span(1)
        return cls((data[:begins], data[ends:end]), data[end + 4 :])


class Turnstile:
    """Makes the protocols of one server's connections."""

    def __init__(
        self, line: Line, refused: Callable[[], None], at_once: Callable[[str, bytes], bytes | None] = lambda *_: None
    ) -> None:
        """The rules of all connections.

        Args:
            line: who is in.
            refused: is told of each request that is turned away.
            at_once: the answer to a project's body, or None where it must go the usual way.
        """
        self._line = line
        self._told = refused
        self._at_once = at_once
        self._arriving = 0
        self._lines: tuple[Any, bytes] = (None, DONE)
        refusal = busy()
        body = bytes(refusal.response().body)
        lines = [f"{name.title()}: {value}" for name, value in refusal.headers.items()]
        head = [
            "HTTP/1.1 429 Too Many Requests",
            *lines,
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        self.refusal = "\r\n".join([*head, "", ""]).encode() + body

    def __call__(self, **how: Any) -> asyncio.Protocol:
        """The protocol of one connection."""
        return _Protocol(self, **how)

    def refuses(self) -> bool:
        """Whether the line has no place for one more request for predictions."""
        if self._line.count + self._arriving < self._line.most:
            self._arrives()
            return False
        self._told()
        return True

    def answer(self, project: str, body: bytes, always: list[tuple[bytes, bytes]]) -> bytes | None:
        """The whole answer to a body of a project, or None where it must go the usual way.

        Args:
            project: whose champion answers.
            body: what is asked.
            always: the headers of every answer, another list when they change.
        """
        content = self._at_once(project, body) if 0 < len(body) <= QUICK_BYTES else None
        if content is None:
            return None
        if self._lines[0] is not always:
            self._lines = always, DONE + b"".join([b"%b: %b\r\n" % each for each in always])
        return b"%bcontent-length: %d\r\n\r\n%b" % (self._lines[1], len(content), content)

    def _arrives(self) -> None:
        """Counts a request that was let through and is in the line, or answered, at the next turn of the loop."""
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
        self._comes: Head | None = None  # the head of the request that is being taken apart
        self._let_in: tuple[Head, str] | None = None  # the last head that was let in, and the project that it names
        self._last = 0.0  # when something was answered here, seconds of the loop

    def on_message_begin(self) -> None:
        """Notes that a request has begun; whoever lets it in may say so, for the next one with the same head."""
        self._is_between = False
        super().on_message_begin()
        if self._comes is not None:
            self.scope["let_in"] = functools.partial(self._remember, self._comes)  # ty: ignore[invalid-typed-dict-key]

    def on_message_complete(self) -> None:
        """Notes that it is whole."""
        self._is_between = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Takes what has come apart, or answers it at once."""
        asks = Asks.of(data) if self._is_idle() else None
        self._comes = asks.head if asks else None
        answer = self._answer(asks) if asks else None
        if answer is None:
            super().data_received(data)
            return
        self._last = self.loop.time()
        self.transport.write(answer)

    def timeout_keep_alive_handler(self) -> None:
        """Closes the connection when nothing has come for a while; what was answered at once did not wind the clock."""
        left = self._last + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _is_idle(self) -> bool:
        """Whether everything that came is answered, and the client reads what it is sent."""
        return self._is_between and (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _answer(self, asks: Asks) -> bytes | None:
        if self._turnstile.refuses():
            return self._turnstile.refusal
        if self._let_in is None or self._let_in[0] != asks.head:
            return None
        return self._turnstile.answer(self._let_in[1], asks.body, self.server_state.default_headers)

    def _remember(self, head: Head, project: str) -> None:
        """Lets the next request with this head in, unless the head may end the connection."""
        if sum(map(len, head)) <= HEAD_BYTES and b"close" not in b"".join(head).lower():
            self._let_in = head, project
