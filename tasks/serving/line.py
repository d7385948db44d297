"""The line before the models: how many requests wait or are answered at once, and where each is computed.

A request beyond the limit is told so at once, before its body is read, because a refusal must cost next to nothing: what a server under
overload spends on refusing it lacks for answering.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tasks.serving.answers import Refusal

IN_FLIGHT = 64
TURN_SECONDS = 0.005  # of work, then what has arrived is read: a refusal waits so long
THREADS = 2  # one big request must not hold up the small ones; more than two only take turns


class Line:
    """The requests that one process has let in."""

    def __init__(self, most: int = IN_FLIGHT) -> None:
        self.most = most
        self.count = 0
        self._quick: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="score")

    def admit(self) -> None:
        """Says no when too many are in.

        Raises:
            Refusal: 429.
        """
        if self.count >= self.most:
            raise busy()

    def enter(self) -> None:
        """Takes a place, which must be left again.

        Raises:
            Refusal: 429, too many are in.
        """
        self.admit()
        self.count += 1

    def leave(self) -> None:
        """Gives a place back."""
        self.count -= 1

    async def run(self, work: Callable[[], Any], *, quick: bool) -> Any:
        """What the work gives, in a place of its own.

        Raises:
            Refusal: 429, too many are in.
        """
        self.enter()
        try:
            return await self.do(work, quick=quick)
        finally:
            self.leave()

    def do(self, work: Callable[[], Any], *, quick: bool) -> asyncio.Future[Any]:
        """What the work of somebody who has a place gives; quick work is done in the event loop, the other in a thread."""
        if quick:
            return self._turn(work)
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Waits for what the threads have begun."""
        self._threads.shutdown()

    def _turn(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Some work a turn of the loop: between two of them it reads what has arrived, so that refusals are prompt."""
        loop = asyncio.get_running_loop()
        self._quick.append((work, done := loop.create_future()))
        if len(self._quick) == 1:
            loop.call_soon(self._next)  # which leaves nothing in it, or comes again
        return done

    def _next(self) -> None:
        end = time.perf_counter() + TURN_SECONDS
        while self._quick:
            _do(*self._quick.popleft())
            if time.perf_counter() >= end:
                break
        if self._quick:
            asyncio.get_running_loop().call_soon(self._next)


def _do(work: Callable[[], Any], done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 – whoever waits for the result gets it
            done.set_exception(error)


def busy() -> Refusal:
    """What one too many is told."""
    return Refusal(
        429, "Too many requests are being answered; wanted fewer at once. Try again in a second.", Retry_After="1"
    )
