"""The turnstile: what is decided about a request before it is taken apart.

Two things are. While the line is full, requests for predictions are told so: at three times the load that a process can answer, two of three
are refused, and each would cost the process a good part of what answering costs. And whoever asks with a head that was let in before is answered
past everything else, on whichever connection: who may ask, and for what, is decided from the head alone, by settings that do not change while the
process runs, so that the same head would be let in again. What arrives in one turn of the event loop is answered together
at its end, with one call of the model and one write into the log for a few, and one for as many as there is time for at the pace of those: a
refusal may wait for so long. Of those who have had no answer by then as many wait for the next turn as the line has places, and the others are
refused: so nobody is while no more are there than that, however slow a turn is, and of a crowd after a pause only who comes behind hundreds.
"""

import asyncio
import functools
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tasks.serving.answers import Refusal
from tasks.serving.connections import SECONDS, Connections, Handshake
from tasks.serving.line import Line, busy
from tasks.serving.quick import QUICK_BYTES

NAME = rb"[^ /?\r\n]+"
ASKS = re.compile(
    rb"POST (?:/projects/%b/predict|/v2/models/%b/infer|/invocations/%b) HTTP/1\.1\r\n" % (NAME, NAME, NAME)
)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,7})\r\n", re.IGNORECASE)
DONE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
HEAD_BYTES, HEADS = 4096, 64  # a longer one is not remembered, and of more than so many the eldest is forgotten
LONGEST_HEAD = 64 << 10  # bytes that have come without its end, before a connection is closed
LATE = Refusal(
    408, f"The head of the request did not arrive within {SECONDS:g} s. Send it in one piece.", Connection="close"
)
LONG = Refusal(
    431, f"The head of the request is longer than {LONGEST_HEAD >> 10} KiB. Send less of it.", Connection="close"
)
TOGETHER = 64  # rows, and as many bodies, that show the pace; many more together cost two thirds of it each
TOGETHER_SECONDS = 0.01  # of work at the end of a turn

AtOnce = Callable[[Any, Sequence[bytes]], Sequence[bytes | None]]


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
        clock: Callable[[], float] = time.thread_time, connections: Connections | None = None,
    ) -> None:  # fmt: skip
        """The rules of all connections.

        Args:
            line: who is in.
            refused: is told of each request that is turned away.
            at_once: of what a head names, the project and how it is asked, the answer to each body, or None where it must go the usual way.
            clock: seconds that this thread has worked.
            connections: which looks after those that wait for their clients.
        """
        self.connections = connections or Connections()
        self.encrypts: ssl.SSLContext | None = None  # with which connections are encrypted, where this process does so
        self._clock = clock
        self._line = line
        self._told = refused
        self._at_once = at_once
        self._arriving = 0
        self._held: dict[object, _Held] = {}  # by the connection, in order; each has one at most
        self._awaited = False  # the end of this turn is in the loop's hands
        self._let_in: dict[Head, Hashable] = {}
        self._lines: tuple[Any, bytes] = (None, DONE)
        self.refusal = _said(busy())

    def __call__(self, **how: Any) -> asyncio.Protocol:
        """The protocol of one connection."""
        if self.encrypts is None:
            return _Protocol(self, **how)
        return Handshake(self.encrypts, self.connections, functools.partial(_Protocol, self, **how))

    def remember(self, head: Head, named: Hashable) -> None:
        """Lets requests with this head in from now on, unless the head may end the connection."""
        if sum(map(len, head)) > HEAD_BYTES or b"close" in b"".join(head).lower():
            return
        self._let_in[head] = named
        if len(self._let_in) > HEADS:
            self._let_in.pop(next(iter(self._let_in)))

    def named(self, head: Head) -> Hashable | None:
        """What a head names that was let in; None for another one."""
        return self._let_in.get(head)

    def refuses(self) -> bool:
        """Whether the line has no place for one more request for predictions."""
        if self._line.count + self._arriving >= self._line.most:
            self._told()
            return True
        self._awaits_turn()
        self._arriving += 1
        return False

    def holds(self, held: "_Held") -> bool:
        """Whether a request may wait for the end of this turn of the loop; it is kept then."""
        if self._line.count >= self._line.most:
            self._told()
            return False
        self._waits(held)
        return True

    def is_held(self, asker: object) -> bool:
        """Whether a request of this connection waits for the end of a turn."""
        return asker in self._held

    def settle(self, asker: object) -> None:
        """Ends the wait of one connection's request at once, where it has one, for what comes behind it must not overtake it; in a crowd with a refusal."""
        if (held := self._held.pop(asker, None)) is None:
            return
        if len(self._held) < self._line.most:
            self._let_go(held.named, [held])
        else:
            self._refuse(held)

    def turn(self) -> None:
        """Ends a turn of the loop: what was held is answered, or goes the usual way; of the rest as many wait as the line has places, or are refused."""
        self._awaited, self._arriving = False, 0
        held, self._held = self._held, {}
        alike: dict[Hashable, list[_Held]] = {}
        for each in held.values():
            alike.setdefault(each.named, []).append(each)
        for named, some in alike.items():
            left = self._answered(named, some, TOGETHER_SECONDS / len(alike))
            places = max(self._line.most - self._line.count, 0) // len(alike)
            for each in left[:places]:
                self._waits(each)
            for each in left[places:]:
                self._refuse(each)

    def _waits(self, held: "_Held") -> None:
        self._held[held.asker] = held
        self._awaits_turn()

    def _refuse(self, held: "_Held") -> None:
        held.asker.turn_away()
        self._told()

    def _answered(self, named: Hashable, some: "list[_Held]", seconds: float) -> "list[_Held]":
        """Answers as many as there is time for, and gives the others."""
        room, began, left = float(TOGETHER), self._clock(), deque(some)
        end = began + seconds
        while left and began < end:
            part = [left.popleft()]
            size = part[0].size
            while left and size + (more := left[0].size) <= room:
                size += more
                part.append(left.popleft())
            self._let_go(named, part)
            now = self._clock()
            room = max(size * (end - now) / max(now - began, 1e-6), TOGETHER / 4)
            began = now
        return [*left]

    def _let_go(self, named: Hashable, some: "list[_Held]") -> None:
        """Answers requests that ask alike; each that must go the usual way needs a place in the line."""
        contents = self._at_once(named, [each.body for each in some])
        for each, content in zip(some, contents, strict=True):
            if content is not None:
                each.asker.answer(content)
            elif self.refuses():
                each.asker.turn_away()
            else:
                each.asker.let_in(each.data)

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
        if not self._awaited:
            self._awaited = True
            asyncio.get_running_loop().call_soon(self.turn)


def _said(refusal: Refusal) -> bytes:
    """The whole answer that a refusal is, for what is not taken apart."""
    body = bytes(refusal.response().body)
    lines = [f"{name.title()}: {value}" for name, value in refusal.headers.items()]
    first = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"
    return (
        "\r\n".join([first, *lines, "Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]).encode()
        + body
    )


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol behind a turnstile."""

    def __init__(self, turnstile: Turnstile, **how: Any) -> None:
        super().__init__(**how)
        self._turnstile = turnstile
        self._connections = turnstile.connections
        self._is_between = True  # no part of a request has come
        self._is_amid_head, self._head_bytes = False, 0
        self._comes: Head | None = None  # the head of the request that is being taken apart
        self._let_in: tuple[Head, Hashable] | None = None  # the last head here that was let in, and what it names
        self._last = 0.0  # when something was answered here, seconds of the loop
        self._heard = 0.0  # when something came last that was taken apart
        self._unsent = 0  # bytes that the client had not taken when it was looked at last

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Takes the connection up; its client has some time to say something."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._connections.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets it."""
        self._connections.leave(self)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Notes that a request has begun; whoever lets it in may say so, for the next ones with the same head."""
        self._is_between, self._is_amid_head, self._head_bytes = False, True, 0
        super().on_message_begin()
        if self._comes is not None:
            self.scope["let_in"] = functools.partial(self._turnstile.remember, self._comes)  # ty: ignore[invalid-typed-dict-key]

    def on_headers_complete(self) -> None:
        """Notes that its head is whole."""
        self._is_amid_head = False
        self._connections.has_come(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Notes that it is whole."""
        self._is_between = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Goes on with the next request; where the connection ends instead, its client has some time to take what was said."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._wait_until_taken()

    def data_received(self, data: bytes) -> None:
        """Takes what has come apart, or holds it to be answered at once."""
        self._turnstile.settle(self)
        self._comes = None
        if self._is_idle() and (self._holds(data) or self._looks_at(data)):
            return
        self._heard = self.loop.time()
        super().data_received(data)
        if self._is_amid_head:
            self._head_bytes += len(data)
            if self._head_bytes > LONGEST_HEAD:
                self._end(LONG)
        if self._is_amid_head or self.cycle is None or self.cycle.response_complete:
            self._connections.wait_for(self)  # for the rest; what has come has ended the wait for the next request

    def pause_writing(self) -> None:
        """Waits for a client that does not read what it is sent, but not for ever."""
        super().pause_writing()
        self._wait_until_taken()

    def resume_writing(self) -> None:
        """Ends that."""
        super().resume_writing()
        if not (self._is_amid_head or self.transport.is_closing()):
            self._connections.has_come(self)

    def hurry(self) -> bool:
        """Closes the connection where its client has taken too long; whether to look again."""
        self._turnstile.settle(self)
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if 0 < self._unsent < before:  # it reads, if slowly
            return True
        is_ending = self.transport.is_closing()
        if is_ending or self._unsent:
            self.drop()
        elif self._is_answering():
            return self._is_amid_head
        else:
            self._end(LATE if self._is_amid_head else None)
        if not is_ending:
            self._connections.told("late")
        return True

    def quiet_since(self) -> float | None:
        """When something came or went last; None while its request is being answered."""
        if self._turnstile.is_held(self) or (self._is_between and self._is_answering()):
            return None
        return max(self._heard, self._last)

    def drop(self) -> None:
        """Closes the connection at once."""
        self.transport.abort()

    def answer(self, content: bytes) -> None:
        """Ends the wait of a request with its answer."""
        self._write(self._turnstile.answer(content, self.server_state.default_headers))

    def turn_away(self) -> None:
        """Ends it with a refusal."""
        self._write(self._turnstile.refusal)

    def let_in(self, data: bytes) -> None:
        """Ends it the usual way: the request is taken apart."""
        if not self.transport.is_closing():
            super().data_received(data)

    def eof_received(self) -> None:
        """Answers what is held before the connection ends."""
        self._turnstile.settle(self)
        super().eof_received()

    def shutdown(self) -> None:
        """Answers what is held before the server ends."""
        self._turnstile.settle(self)
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Closes the connection when nothing has come for a while; what was answered at once did not wind the clock."""
        left = self._last + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()
            self._wait_until_taken()

    def _wait_until_taken(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._connections.wait_for(self)

    def _is_answering(self) -> bool:
        """Whether a request is being answered, or its body awaited."""
        return self.cycle is not None and not self.cycle.response_complete

    def _end(self, refusal: Refusal | None) -> None:
        """Closes the connection with a refusal, or without a word."""
        if refusal is not None and not self.transport.is_closing():
            self.transport.write(_said(refusal))
        self.transport.close()

    def _is_idle(self) -> bool:
        """Whether everything that came is answered, and the client reads what it is sent."""
        return self._is_between and (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _holds(self, data: bytes) -> bool:
        """Whether it is a request with the head that was let in; it is held then, or turned away."""
        if self._let_in is None:
            return False
        head, named = self._let_in
        body = head.body(data)
        if body is None or not 0 < len(body) <= QUICK_BYTES:
            return False
        if self._turnstile.holds(_Held(self, named, data, body)):
            self._last = self.loop.time()
        else:
            self._write(self._turnstile.refusal)
        return True

    def _looks_at(self, data: bytes) -> bool:
        """Whether it is a whole request for predictions that is held, or has no place; it is told so then."""
        head = Head.of(data)
        if head is None:
            return False
        self._connections.has_come(self)
        if (named := self._turnstile.named(head)) is not None and self._let_in != (head, named):
            self._let_in = head, named
            if self._holds(data):
                return True
        if self._turnstile.refuses():
            self._write(self._turnstile.refusal)
            return True
        self._comes = head
        return False

    def _write(self, answer: bytes) -> None:
        self._last = self.loop.time()
        if self.transport.is_closing():
            return
        self.transport.write(answer)
        if self.timeout_keep_alive_task is None:  # nothing was ever answered the usual way here
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )


class _Held(NamedTuple):
    """A request that waits for the end of a turn of the loop.

    Attributes:
        asker: its connection.
        named: by its head.
        data: all its bytes.
        body: the last of them.
    """

    asker: _Protocol
    named: Hashable
    data: bytes
    body: bytes

    @property
    def size(self) -> int:
        """About how many rows it has, and one."""
        return self.body.count(b"{") or 1
