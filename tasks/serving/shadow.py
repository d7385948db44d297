"""The shadow: what was answered is scored by the other model as well, later, in a thread of its own. Nobody waits for it.

What does not find room is dropped and counted. That it throws, and how long it takes, is evidence; neither reaches an answer. A model that
does not come to an end is left alone with its thread, and all that it is asked counts as failed until it does.
"""

import datetime as dt
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.serving.champion import Champion
from tasks.serving.metrics import Metrics
from tasks.serving.others import Pair
from tasks.stores.shadows import Shadows

LOG = logging.getLogger("keepfit.serving")
WAITING = 4096  # rows that may wait; a request with more is dropped
PATIENCE = 5.0  # seconds; who takes longer for a request hangs
TIMED = 16  # requests, of which one is timed however many wait: a slow model lets some wait at all times
LEAVE = 2.0  # seconds that a server that stops waits for the row that is being scored


@dataclass(frozen=True)
class Seen:
    """A request, or the rows of it that one model answered.

    Attributes:
        pair: whose it is.
        model: who answered.
        rows: as they were sent.
        ids: of its predictions.
        said: its answers; None where it failed.
        failed: the other model was asked already, and failed.
        asked: the id of the request's first row, where the other model answered some of its rows.
    """

    pair: Pair
    model: Champion
    at: dt.datetime
    rows: list[dict[str, Any]]
    ids: list[str]
    said: list[dict[str, Any]] | None
    failed: bool = False
    asked: str | None = None

    @property
    def other(self) -> Champion | None:
        """The model that did not answer; None where it does not load."""
        return self.pair.other if self.model is self.pair.champion else self.pair.champion


@dataclass
class _Turn:
    """What one thread is at.

    Attributes:
        seen: the request.
        model: who is being asked.
        began: when it was asked, in seconds of the timer.
        over: nobody waits for it any more.
        hung: on whom it hung.
    """

    seen: Seen | None = None
    model: Champion | None = None
    began: float = 0.0
    over: bool = False
    hung: Champion | None = None


class Shadow:
    """The requests of one process that wait for the other model."""

    def __init__(
        self, shadows: Shadows, metrics: Metrics, waiting: int = WAITING, patience: float = PATIENCE, timer: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        """At most so many rows wait; a request that takes longer than `patience` seconds hangs."""
        self._shadows = shadows
        self._metrics = metrics
        self._most, self._patience, self._timer = waiting, patience, timer
        self._waiting: deque[Seen] = deque()
        self._rows = 0
        self._untimed = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._turn = _Turn(over=True)
        self._hanging: list[Champion] = []
        self._thread: threading.Thread | None = None

    async def take(self, seen: list[Seen]) -> None:
        """As `offer`, for each; a task for after the answer."""
        for each in seen:
            self.offer(each)

    def offer(self, seen: Seen) -> None:
        """Puts a request in line, or drops it where there is no room."""
        with self._changed:
            self._relieve()
            if seen.failed or seen.other is None or _is_in(seen.other, self._hanging):
                self._log(seen, None, None)
            elif self._stopped or self._rows + len(seen.rows) > self._most:
                self._metrics.rolled(seen.pair.rollout.project, "dropped", len(seen.rows))
            else:
                self._rows += len(seen.rows)
                self._waiting.append(seen)
                self._changed.notify()
                if self._turn.over:
                    self._begin()

    def close(self) -> None:
        """Leaves what waits; a model that does not come to an end is left with its thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread:
            self._thread.join(LEAVE)
        self._shadows.close()

    def _begin(self) -> None:
        self._turn = _Turn()
        self._thread = threading.Thread(target=self._work, args=(self._turn,), name="shadow", daemon=True)
        self._thread.start()

    def _relieve(self) -> None:
        """Leaves a thread whose model hangs, and goes on with another."""
        turn = self._turn
        if turn.over or turn.seen is None or turn.model is None or self._timer() - turn.began < self._patience:
            return
        turn.over, turn.hung = True, turn.model
        self._hanging.append(turn.model)
        self._rows -= len(turn.seen.rows)
        if turn.model is turn.seen.other:
            self._log(turn.seen, None, None)
        self._begin()

    def _work(self, turn: _Turn) -> None:
        while self._next(turn):
            try:
                record = self._scored(turn)
            except Exception as error:  # noqa: BLE001 -- the next one is scored
                said = f"a request was not scored beside the champion: {type(error).__name__}"
                LOG.error("%s", said)  # noqa: TRY400 -- what was raised may repeat what a client sent
                record = None
            with self._changed:
                if turn.over:  # it hung, and its end is here
                    self._hanging = [model for model in self._hanging if model is not turn.hung]
                    return
                seen, turn.seen, turn.model = turn.seen, None, None
                if seen is not None:
                    self._rows -= len(seen.rows)
                    if record is not None:
                        self._log(seen, *record)

    def _next(self, turn: _Turn) -> bool:
        """Waits for a request; false when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            if not self._stopped:
                turn.seen = self._waiting.popleft()
            return not self._stopped

    def _scored(self, turn: _Turn) -> "tuple[_Answers, list[float] | None] | None":
        """What the other model says; and what both took, where it is to be timed and the one that answered can be asked once more.

        So both are timed in one place. Who is asked first is drawn by the id, for the second one meets warm caches.
        """
        seen = turn.seen
        if seen is None or seen.other is None:
            return None
        if _is_in(seen.other, self._hanging):
            return None, None
        if not seen.said or not self._times():
            return self._ask(turn, seen.other)[0], None
        order = [seen.other, seen.model][:: 1 if int(seen.ids[0][0], 16) % 2 else -1]
        said = {id(model): self._ask(turn, model) for model in order}
        (again, before), (thought, after) = said[id(seen.model)], said[id(seen.other)]
        return thought, None if again is None or thought is None else [before, after]

    def _times(self) -> bool:
        """Whether a request is timed: where nobody waits, and now and then where others do."""
        self._untimed = self._untimed + 1 if self._waiting and self._untimed < TIMED - 1 else 0
        return self._untimed == 0

    def _ask(self, turn: _Turn, model: Champion) -> "tuple[_Answers, float]":
        """What a model says, None where it fails in whatever manner; and the milliseconds that it took."""
        turn.began, turn.model = self._timer(), model
        began = time.perf_counter()
        try:
            said = model.predict(turn.seen.rows) if turn.seen else None
        except Exception:  # noqa: BLE001 -- that it fails is what is asked
            said = None
        return said, round((time.perf_counter() - began) * 1000, 3)

    def _log(self, seen: Seen, thought: list[dict[str, Any]] | None, ms: list[float] | None) -> None:
        project, version = seen.pair.rollout.project, seen.model.release.version
        beside = ({seen.pair.rollout.version, seen.pair.rollout.against} - {version}).pop()
        record = {
            "at": seen.at.isoformat(), "project": project, "answered": version, "beside": beside, "ids": seen.ids, "said": seen.said,
            "thought": thought, "ms": ms, **({"asked": seen.asked} if seen.asked else {}),
        }  # fmt: skip
        lost = self._shadows.append(project, seen.at, [record])
        self._metrics.rolled(project, "dropped" if lost else "failed" if thought is None else "scored", len(seen.rows))


_Answers = list[dict[str, Any]] | None


def _is_in(model: Champion, models: list[Champion]) -> bool:
    return any(each is model for each in models)  # they have no hash, and are compared by much
