"""An open-loop generator: `python -m tests.open_loop PORT RATE SECONDS < request` sends on time, whatever the server does.

A closed loop waits for answers and so slows down with the server; clients who do not know each other do not. Every wait counts from the moment
at which the request was due, so that a late start is not forgiven (Tene's "coordinated omission"). It prints one JSON object: the seconds until
the last answer (`took`: more than it was to send for where neither it nor the server keeps up), and of each status how many, and milliseconds at
some percentiles.
"""

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any

import numpy as np
import uvloop

CONNECTIONS = 1024  # opened before anything is due; beyond them requests wait here, and their wait counts
PATIENCE = 5.0  # seconds for what is under way at the end


class Line(asyncio.Protocol):
    """One connection, which has one request under way at a time."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._due = 0.0
        self._answer = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """It may send."""
        self._transport = transport
        self._crowd.free(self)

    def send(self, due: float) -> None:
        """Sends the request that was due then."""
        self._due, self._answer = due, b""
        self._transport.write(self._crowd.request)

    def data_received(self, data: bytes) -> None:
        """Counts the answer when it is whole."""
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end:
            return
        length = next(int(each[15:]) for each in head.lower().split(b"\r\n") if each.startswith(b"content-length:"))
        if len(body) >= length:
            self._crowd.count(int(head[9:12]), time.perf_counter() - self._due)
            self._crowd.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 – so it is called
        """A request that was under way failed."""
        self._crowd.lost(self)


class Crowd:
    """All connections, and what came of the requests."""

    def __init__(self, port: int, request: bytes) -> None:
        self.request = request
        self.waits: dict[str, list[float]] = {}
        self.began = self.last = 0.0
        self._port = port
        self._free: list[Line] = []
        self._waiting: deque[float] = deque()

    async def run(self, rate: float, seconds: float) -> None:
        """Sends `rate` requests a second on time."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: Line(self), "127.0.0.1", self._port)
        self.began = start = time.perf_counter()
        count = int(rate * seconds)
        sent = 0
        while sent < count:
            due = min(int((time.perf_counter() - start) * rate) + 1, count)
            for number in range(sent, due):
                self._send(start + number / rate)
            sent = due
            await asyncio.sleep(0.0005)
        end = time.perf_counter() + PATIENCE
        while sum(map(len, self.waits.values())) < count and time.perf_counter() < end:
            await asyncio.sleep(0.01)
        self.waits.setdefault("unanswered", []).extend([PATIENCE] * (count - sum(map(len, self.waits.values()))))

    def _send(self, due: float) -> None:
        if self._free:
            self._free.pop().send(due)  # as a client's pool does: the one that was used last
        else:
            self._waiting.append(due)

    def free(self, line: Line) -> None:
        """A connection that has nothing to do takes what waits."""
        if self._waiting:
            line.send(self._waiting.popleft())
        else:
            self._free.append(line)

    def count(self, status: int, wait: float) -> None:
        """One request was answered."""
        self.waits.setdefault(str(status), []).append(wait)
        self.last = time.perf_counter()

    def lost(self, line: Line) -> None:
        """A connection has gone."""
        if line in self._free:
            self._free.remove(line)


def main() -> None:
    """Reads the request and prints what came of it."""
    port, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    crowd = Crowd(port, sys.stdin.buffer.read())
    uvloop.run(crowd.run(rate, seconds))
    told: dict[str, object] = {"took": crowd.last - crowd.began}
    told |= {
        status: {"count": len(waits)}
        | dict(zip(("p50", "p95", "p99"), np.percentile(waits, [50, 95, 99]) * 1000, strict=True))
        for status, waits in sorted(crowd.waits.items())
        if waits
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
