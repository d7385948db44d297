"""The open connections of one process: how long a client may keep one waiting, and how many there are at most.

Each takes a file, and a process without a free one can neither accept a connection nor read the journal. So whoever leaves one without a
whole head is cut off after a while, and beyond a number that leaves files for everything else, who keeps the process waiting goes first:
clients that are slow on purpose cannot keep the others out.
"""

import asyncio
import heapq
import logging
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import Literal, Protocol, cast

LOG = logging.getLogger("keepfit.serving")

SECONDS = 10.0  # for the head of a request, for the start of encryption, and to take what was said
MOST = 4096  # with the longest heads they hold 256 MiB
OTHER_FILES = 128  # journal, log, counters, bundles, uploads
AT_ONCE = 32  # one of so many leaves when room is made: to look through all of them for each newcomer costs too much
QUIET_SECONDS = 60.0  # between two lines of the log

Why = Literal["late", "room"]


class Client(Protocol):
    """A connection, as it is looked after here."""

    def quiet_since(self) -> float | None:
        """When something came or went last, in seconds of the loop; None while the next move is not the client's."""
        ...

    def hurry(self) -> bool:
        """Closes it where its client has taken too long; whether to look again after the same time."""
        ...

    def drop(self) -> None:
        """Closes it at once."""
        ...


def room() -> int:
    """How many connections this process may have; it asks for as many files as they take, and makes do with what it gets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = more
    files = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    return max(files - OTHER_FILES, files // 2)


class Connections:
    """Those of one server.

    Whoever waits for its client is in a list in the order of the waits, which are all equally long, so that one timer is enough for all;
    a request that comes whole does not touch it.
    """

    def __init__(self, most: int = MOST, told: Callable[[Why], None] = lambda _: None) -> None:
        """So many at most.

        Args:
            most: beyond them one leaves for each that comes.
            told: is told of each connection that is closed on its client, and why.
        """
        self._most = most
        self.told = told
        self._open: set[Client] = set()
        self._due: dict[Client, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._said = -QUIET_SECONDS

    def enter(self, client: Client) -> None:
        """Takes a connection up, whose client is waited for; another one leaves where there are too many."""
        self._open.add(client)
        self.wait_for(client)
        if len(self._open) > self._most:
            self._make_room(client)

    def leave(self, client: Client) -> None:
        """Forgets a connection that is over."""
        self._open.discard(client)
        self._due.pop(client, None)

    def wait_for(self, client: Client) -> None:
        """Starts the time that a client has; who is waited for already gets no more of it by sending a little."""
        if client in self._open and client not in self._due:
            self._due[client] = asyncio.get_running_loop().time() + SECONDS
            self._wind()

    def has_come(self, client: Client) -> None:
        """Ends that time: what was waited for is there."""
        self._due.pop(client, None)

    def _wind(self) -> None:
        if self._timer is None and self._due:
            self._timer = asyncio.get_running_loop().call_at(next(iter(self._due.values())), self._look)

    def _look(self) -> None:
        """Ends the waits that have been long enough."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for client, _ in [*takewhile(lambda each: each[1] <= now, self._due.items())]:
            del self._due[client]
            if client.hurry():
                self.wait_for(client)
        self._wind()

    def _make_room(self, newcomer: Client) -> None:
        """Closes the connection that has been waited for longest, else those that have been idle longest, else the new one."""
        if (first := next(iter(self._due))) is not newcomer:
            leaving = [first]
        else:
            idle = [(since, id(each), each) for each in self._open if (since := each.quiet_since()) is not None]
            leaving = [each for *_, each in heapq.nsmallest(1 + self._most // AT_ONCE, idle) if each is not newcomer]
        for client in leaving or [newcomer]:
            self.leave(client)
            client.drop()
            self.told("room")
        if (now := time.monotonic()) >= self._said + QUIET_SECONDS:
            self._said = now
            LOG.warning(
                "%d connections are open, as many as may be; whoever keeps one waiting longest is cut off", self._most
            )


class Handshake(asyncio.Protocol):
    """A connection that is not encrypted yet: it counts and has its time like every other.

    The loop's own server of TLS shows a connection only when its handshake is over, and gives that a minute. So the loop accepts it in the
    clear, and its file is handed over to be encrypted before anything is read.
    """

    _taken: asyncio.Task[object]

    def __init__(
        self, context: ssl.SSLContext, connections: Connections, follows: Callable[[], asyncio.Protocol]
    ) -> None:
        """Encrypts as the context says; `follows` makes the protocol that talks to the client then."""
        self._context = context
        self._connections = connections
        self._follows = follows
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the handshake."""
        loop = asyncio.get_running_loop()
        line = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        cast("asyncio.Transport", transport).abort()
        self._began = loop.time()
        self._taken = loop.create_task(self._encrypt(line))
        self._taken.add_done_callback(lambda _: self._ends(line))
        self._connections.enter(self)

    def quiet_since(self) -> float:
        """When it came."""
        return self._began

    def hurry(self) -> bool:
        """Closes it: the handshake is not over."""
        self._connections.told("late")
        self.drop()
        return False

    def drop(self) -> None:
        """Closes it at once."""
        self._taken.cancel()

    async def _encrypt(self, line: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(self._follows, line, ssl=self._context)

    def _ends(self, line: socket.socket) -> None:
        self._connections.leave(self)
        if (
            self._taken.cancelled() or self._taken.exception()
        ):  # the client has gone, or speaks no TLS that is known here
            line.close()
