"""The turnstile: what is decided about a request before it is taken apart.

Two things are. While the line is full, requests for predictions are told so: at three times the load that a process can answer, two of three
are refused, and each would cost the process a good part of what answering costs. And whoever asks again with the head that was let in before on
the same connection is answered past everything else: who may ask, and for what, is decided from the head alone, by settings that do not
change while the process runs, so that the same head would be let in again. All that arrive in one turn of the event loop are answered together
at its end, with one call of the model and one write into the log: as many as that can do in a time that a refusal may wait. A fixed number
would be wrong: under a load that cannot be answered every connection has sent something by the next turn, and whoever is not answered costs, too.
"""

import asyncio
import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tasks.serving.line import Line, busy
from tasks.serving.quick import QUICK_BYTES

ASKS = re.compile(rb"POST (?:/projects/[^ /?]+/predict|/v2/models/[^ /?]+/infer|/invocations/[^ /?]+) HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,7})\r\n", re.IGNORECASE)
DONE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
HEAD_BYTES = 4096  # a longer one is not remembered
TOGETHER_SECONDS = 0.01  # of work at the end of a turn
MEMORY = 8  # turns, about, in which the pace of answers is forgotten

AtOnce = Callable[[str, Sequence[bytes]], Sequence[bytes | None]]


class Head(NamedTuple):
    """The head of a request but for the digits of the body's length: what stands before them, and behind to the body."""

    before: bytes
    behind: bytes

    def body(self, data: bytes) -> bytes | None:
        """The body of a whole request with this head; None where the bytes are another, a part of one, or more than one."""
        if not data.startswith(self.before):
            return None
        begins = len(self.before)
        ends = data.find(b"\r", begins, begins + 8)
        digits = data[begins:ends] if ends > 0 else b""
        if not digits.isdigit() or not data.startswith(self.behind, ends):
            return None
        body = data[ends + len(self.behind) :]
        return body if len(body) == int(digits) else None

    @classmethod
    def of(cls, data: bytes) -> Self | None:
        """The head of a whole request for predictions; None where the bytes are another, a part of one, or more than one."""
        if not ASKS.match(data):
            return None
        end = data.find(b"\r\n\r\n")
        length = LENGTH.search(data, 0, end + 2)
        if end < 0 or not length or len(data) != end + 4 + int(length[1]):
            return None
        begins, ends = length.span(1)
        return cls(data[:begins], data[ends : end + 4])


class Turnstile:
    """Makes the protocols of one server's connections."""

    def __init__(
        self, line: Line, refused: Callable[[], None], at_once: AtOnce = lambda _, bodies: [None] * len(bodies),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        """The rules of all connections.

        Args:
            line: who is in.
            refused: is told of each request that is turned away.
            at_once: the answer to each of a project's bodies, or None where it must go the usual way.
            clock: seconds.
        """
        self._clock = clock
        self._line = line
        self._told = refused
        self._at_once = at_once
        self._arriving = 0
        self._held: list[_Held] = []
        self._pace = TOGETHER_SECONDS / max(line.most, 1)  # seconds that a request took that was answered with others
        self._answers = True  # whether the last turn answered anybody
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
        if self._line.count + self._arriving >= self._line.most:
            self._told()
            return True
        self._awaits_turn()
        self._arriving += 1
        return False

    def holds(self, held: "_Held") -> bool:
        """Whether there is a place for a request that is answered at the end of this turn of the loop; it is kept then."""
        if self._line.count >= self._line.most or len(self._held) >= self._most():
            self._told()
            return False
        self._awaits_turn()
        self._held.append(held)
        return True

    def turn(self) -> None:
        """Ends a turn of the loop: what was held is answered, or goes the usual way."""
        self._arriving = 0
        held, self._held = self._held, []
        began = self._clock()
        answered = self._let_go(held)
        if answered:
            self._pace += ((self._clock() - began) / answered - self._pace) / MEMORY
        if held:
            self._answers = answered > 0

    def _most(self) -> float:
        """How many may be held in a turn; where nobody is answered at once they go into the line, and need its places."""
        if not self._answers:
            return self._line.most - self._line.count
        return max(self._line.most, TOGETHER_SECONDS / self._pace)

    def _let_go(self, held: "list[_Held]") -> int:
        """Gives how many were answered."""
        answered = 0
        for project in dict.fromkeys([each.project for each in held]):
            some = [each for each in held if each.project == project]
            for each, content in zip(some, self._at_once(project, [each.body for each in some]), strict=True):
                each.asker.let_go(each.data, content)
                answered += content is not None
        return answered

    def answer(self, content: bytes, always: list[tuple[bytes, bytes]]) -> bytes:
        """The whole answer with this content.

        Args:
            content: its body.
            always: the headers of every answer, another list when they change.
        """
        if self._lines[0] is not always:
            self._lines = always, DONE + b"".join([b"%b: %b\r\n" % each for each in always])
        return b"%bcontent-length: %d\r\n\r\n%b" % (self._lines[1], len(content), content)

    def _awaits_turn(self) -> None:
        """Sees to it that the turn ends: what was let through is in the line, or answered, by then."""
        if not self._arriving and not self._held:
            asyncio.get_running_loop().call_soon(self.turn)


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol behind a turnstile."""

    def __init__(self, turnstile: Turnstile, **how: Any) -> None:
        super().__init__(**how)
        self._turnstile = turnstile
        self._is_between = True  # no part of a request has come
        self._comes: Head | None = None  # the head of the request that is being taken apart
        self._let_in: tuple[Head, str] | None = None  # the last head that was let in, and the project that it names
        self._is_held = False  # a request waits for the end of the turn
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
        """Takes what has come apart, or holds it to be answered at once."""
        self._settle()
        self._comes = None
        if self._is_idle() and (self._holds(data) or self._turns_away(data)):
            return
        super().data_received(data)

    def let_go(self, data: bytes, content: bytes | None) -> None:
        """Ends the wait of a request: its answer goes out; without one it is taken apart."""
        self._is_held = False
        if self.transport.is_closing():
            return
        if content is None:
            super().data_received(data)
        else:
            self._write(self._turnstile.answer(content, self.server_state.default_headers))

    def eof_received(self) -> None:
        """Answers what is held before the connection ends."""
        self._settle()
        super().eof_received()

    def shutdown(self) -> None:
        """Answers what is held before the server ends."""
        self._settle()
        super().shutdown()

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

    def _holds(self, data: bytes) -> bool:
        """Whether it is a request with the head that was let in; it is held then, or turned away."""
        if self._let_in is None:
            return False
        head, project = self._let_in
        body = head.body(data)
        if body is None or not 0 < len(body) <= QUICK_BYTES:
            return False
        if self._turnstile.holds(_Held(self, project, data, body)):
            self._is_held, self._last = True, self.loop.time()
        else:
            self._write(self._turnstile.refusal)
        return True

    def _turns_away(self, data: bytes) -> bool:
        """Whether it is a whole request for predictions that has no place; it is told so then."""
        head = Head.of(data)
        if head is None:
            return False
        if self._turnstile.refuses():
            self._write(self._turnstile.refusal)
            return True
        self._comes = head
        return False

    def _write(self, answer: bytes) -> None:
        self._last = self.loop.time()
        self.transport.write(answer)

    def _settle(self) -> None:
        """Ends the turn early where a request of this connection is held: what comes behind it must not overtake it."""
        if self._is_held:
            self._turnstile.turn()

    def _remember(self, head: Head, project: str) -> None:
        """Lets the next request with this head in, unless the head may end the connection."""
        if sum(map(len, head)) <= HEAD_BYTES and b"close" not in b"".join(head).lower():
            self._let_in = head, project


class _Held(NamedTuple):
    """A request that waits for the end of a turn of the loop.

    Attributes:
        asker: its connection.
        project: that its head names.
        data: all its bytes.
        body: the last of them.
    """

    asker: _Protocol
    project: str
    data: bytes
    body: bytes
