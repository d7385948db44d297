"""The line before the models: how many requests wait or are answered at once, and where each is computed.

A request beyond the limit is told so at once, before its body is read, because a refusal must cost next to nothing: what a server under
overload spends on refusing it lacks for answering.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tasks.serving.answers import Refusal

IN_FLIGHT = 64
THREADS = 2  # one big request must not hold up the small ones; more than two only take turns


class Line:
    """The requests that one process has let in."""

    def __init__(self, most: int = IN_FLIGHT) -> None:
        self._most = most
        self.count = 0
        self._quick: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="score")

    def admit(self) -> None:
        """Says no when too many are in.

        Raises:
            Refusal: 429.
        """
        if self.count >= self._most:
            raise Refusal(
                429,
                f"{self.count} requests are being answered; wanted fewer at once. Try again in a second.",
                Retry_After="1",
            )

    async def run(self, work: Callable[[], Any], *, quick: bool) -> Any:
        """What the work gives; quick work is done in the event loop, the other in a thread.

        Raises:
            Refusal: 429, too many are in.
        """
        self.admit()
        self.count += 1
        try:
            if quick:
                return await self._turn(work)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.count -= 1

    def close(self) -> None:
        """Waits for what the threads have begun."""
        self._threads.shutdown()

    def _turn(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """One piece of work a turn of the loop: between two of them it reads what has arrived, so that refusals are prompt."""
        loop = asyncio.get_running_loop()
        self._quick.append((work, done := loop.create_future()))
        if len(self._quick) == 1:
            loop.call_soon(self._next)
        return done

    def _next(self) -> None:
        work, done = self._quick[0]
        if not done.cancelled():
            try:
                done.set_result(work())
            except Exception as error:  # noqa: BLE001 – whoever waits for the result gets it
                done.set_exception(error)
        self._quick.popleft()
        if self._quick:
            asyncio.get_running_loop().call_soon(self._next)
