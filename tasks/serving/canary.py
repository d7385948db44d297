"""The canary: the challenger answers a share of the rows, always the same ones. Where it fails or is late the champion answers.

That it is late for a request, or that others are before it, is no fault of the challenger's: then the champion answers, which may take as
long as it does, and the shadow asks the challenger later and times both.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from tasks.serving.champion import Champion
from tasks.serving.line import THREADS
from tasks.serving.metrics import Metrics
from tasks.serving.others import Pair
from tasks.serving.protocols import Question
from tasks.serving.writing import each_encoded

PATIENCE = 1.0  # seconds that a challenger has for a request, and that a request waits for its turn
WAITING = 4 * THREADS  # requests that wait at once, each in a place of the line; most of those are the champion's
HANGS = 5.0  # seconds after which it counts as one that does not come to an end, as in the shadow
HEADER = "keepfit-key"
Row = dict[str, Any]


class Part(NamedTuple):
    """What one model says of some rows of a request.

    Attributes:
        model: who says it.
        places: of the rows in the request.
        rows: as they go into the log, JSON each.
        answers: one a row.
        parts, explained: contributions and what they mean, where they were asked for.
        seconds: that it took.
    """

    model: Champion
    places: list[int]
    rows: Sequence[bytes]
    answers: list[Row]
    parts: list[Row]
    explained: dict[str, str]
    seconds: float


def say(model: Champion, asked: Question, places: list[int]) -> Part:
    """What a model says of the rows at these places.

    Raises:
        RowError: a row cannot be scored; then none is.
    """
    began = time.perf_counter()
    sent = [asked.rows[place] for place in places]
    rows = model.check(sent)
    answers = model.score(rows)
    parts, explained = model.explain(rows, answers) if asked.explain else ([{}] * len(answers), {})
    return Part(
        model, places, each_encoded(model.marked(rows, sent)), answers, parts, explained, time.perf_counter() - began
    )


def is_chosen(share: float, salt: str, key: Sequence[str], row: Row, header: str | None) -> bool:
    """Whether the challenger answers a row: the same in every process, before and after a restart.

    A keyed hash (BLAKE2b) of the row's key; of the header where the row lacks a column of it; of the whole row where there is none.

    >>> chosen = [is_chosen(0.25, "p 2", ["id"], {"id": n}, None) for n in range(10_000)]
    >>> 2400 < sum(chosen) < 2600
    True
    >>> is_chosen(0.25, "p 2", ["id"], {"id": 7, "x": 1}, None) == is_chosen(0.25, "p 2", ["id"], {"id": 7.0}, "other")
    True
    """
    values: object = [row.get(name) for name in key]
    if not key or None in values:
        values = header if header is not None else sorted(row.items())
    said = msgspec.json.encode(_plain(values))
    drawn = hashlib.blake2b(said, key=salt.encode()[:64], digest_size=8).digest()
    return int.from_bytes(drawn, "big") < share * 2**64


def _plain(value: object) -> object:
    """7.0 as 7: protocols write one number in several ways."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Canary:
    """The challengers' answers of one process, in threads of their own: the champion's threads never wait for them."""

    def __init__(self, metrics: Metrics, patience: float = PATIENCE, hangs: float = HANGS) -> None:
        self._metrics = metrics
        self._patience, self._hangs = patience, hangs
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="canary")
        self._waiting = 0
        self._late: dict[
            Future[Part], float
        ] = {}  # those that nobody waits for any more, and that go on, and since when

    def chosen(self, pair: Pair, asked: Question, header: str | None) -> list[int]:
        """The places of the rows that the challenger answers."""
        plan, salt = pair.rollout.plan["canary"], f"{pair.rollout.project} {pair.rollout.id}"
        return [
            place for place, row in enumerate(asked.rows) if is_chosen(plan["share"], salt, plan["key"], row, header)
        ]

    async def ask(self, pair: Pair, asked: Question, places: list[int]) -> tuple[Part | None, bool]:
        """What the challenger says of the rows at these places, None where it says nothing, and whether that is its fault.

        It is where it fails, does not load, or hangs; not where it is late, or had no turn, because others are before it.
        """
        project = pair.rollout.project
        if pair.other is None:
            part, failed = None, True
        elif len(self._late) >= THREADS:
            now = time.monotonic()
            part, failed = None, now - max([*self._late.values()], default=now) >= self._hangs
        elif self._waiting >= WAITING:
            part, failed = None, False
        else:
            self._waiting += 1
            try:
                part, failed = await self._answered(pair.other, asked, places)
            finally:
                self._waiting -= 1
        self._metrics.rolled(project, "canary" if part else "fallback", len(places))
        return part, failed

    async def _answered(self, model: Champion, asked: Question, places: list[int]) -> tuple[Part | None, bool]:
        """Its answer, and whether it failed; the time that it has begins with its turn."""
        loop, turn = asyncio.get_running_loop(), asyncio.Event()

        def work() -> Part:
            loop.call_soon_threadsafe(turn.set)
            return say(model, asked, places)

        future = self._threads.submit(work)
        try:
            await asyncio.wait_for(turn.wait(), self._patience)
        except TimeoutError:
            if future.cancel():
                return None, False
        return await self._waited(future)

    async def _waited(self, future: Future[Part]) -> tuple[Part | None, bool]:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._patience), False
        except TimeoutError:
            if future.done():  # by now, or it is the model that raises this
                return None, future.exception() is not None
            self._late[future] = time.monotonic()
            future.add_done_callback(self._forget)
            return None, False
        except Exception:  # noqa: BLE001 -- whatever it raises, the champion answers
            return None, True

    def _forget(self, future: Future[Part]) -> None:
        self._late.pop(future, None)

    def close(self) -> None:
        """Waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)
