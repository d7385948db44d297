"""The one way from a body to an answer: the champion of the moment checks and scores, and each prediction is logged before it is out."""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tasks.serving.answers import Refusal
from tasks.serving.bodies import ROWS, Bodies
from tasks.serving.champion import Champion, RowError, Succession
from tasks.serving.line import IN_FLIGHT, Line
from tasks.serving.metrics import Metrics
from tasks.serving.protocols import OWN, Answered, Protocol, Question
from tasks.serving.writing import Decided, each_encoded, new_names
from tasks.stores.predictions import Predictions

SMALL_BYTES = 16 << 10
QUICK_SECONDS = 0.001  # below it a way to a thread and back would cost more than it saves


class Predicting:
    """The requests for predictions of one process.

    Attributes:
        line: how many are in.
    """

    def __init__(
        self,
        succession: Succession,
        predictions: Predictions,
        metrics: Metrics,
        in_flight: int = IN_FLIGHT,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        unlogged: Literal["serve", "refuse"] = "serve",
    ) -> None:
        """With `unlogged="refuse"` no prediction goes out that is not in the log."""
        self.line = Line(in_flight)
        self._succession = succession
        self._predictions = predictions
        self._metrics = metrics
        self._now = now
        self._unlogged = unlogged
        self._bodies = Bodies()
        self._paces: dict[str, float] = {}  # of each project the seconds that its last small request took
        metrics.watch(self.line)

    async def answer(self, request: Request, protocol: Protocol) -> Response:
        """Scores rows with the champion; every prediction is in the log before it is out."""
        champion = self.champion(request.path_params["project"])
        self.line.admit()
        body = await self._bodies.read(request)
        small = len(body) <= SMALL_BYTES
        quick = small and self._paces.get(champion.release.project, 1.0) < QUICK_SECONDS
        content = await self.line.run(lambda: self._answer(champion, protocol, body, small=small), quick=quick)
        return Response(content, media_type="application/json")

    def quickly(self, project: str, body: bytes) -> bytes | None:
        """The answer to a body in keepfit's own words that is as it should be, where a compiled champion needs microseconds; else None."""
        champion = self._succession.champions.get(project)
        if champion is None or self.line.count >= self.line.most:
            return None
        started, at = time.perf_counter(), self._now()
        if (scored := _scored_at_once(champion, body)) is None:
            return None
        try:
            return self._told(champion, OWN, Question([]), at, time.perf_counter() - started, *scored)
        except Refusal:  # the usual way tries once more and says it
            return None

    def close(self) -> None:
        """Waits for what is being scored, and closes the log."""
        self.line.close()
        self._predictions.close()

    def champion(self, project: str) -> Champion:
        """Taken once a request, so that version and score of an answer fit even while the champion is replaced.

        Raises:
            Refusal: nobody answers for this project.
        """
        if champion := self._succession.champions.get(project):
            return champion
        if self._succession.wanted is None:
            raise Refusal(
                503,
                "The journal was not read yet; wanted a champion. Try again when /readyz says 200.",
                Retry_After="1",
            )
        if project in self._succession.wanted:
            raise Refusal(
                503,
                "The champion of this project does not load; GET /readyz says why. Try again later.",
                Retry_After="5",
            )
        raise Refusal(
            404,
            "No project of this name has a champion; GET /projects lists those that do. Correct the name, or release a "
            "version.",
        )

    def _answer(self, champion: Champion, protocol: Protocol, body: bytes, *, small: bool) -> bytes:
        started, at = time.perf_counter(), self._now()
        parts, explained, asked = list[dict[str, Any]](), dict[str, str](), Question([])
        try:
            scored = _scored_at_once(champion, body) if protocol is OWN else None
            if scored is None:
                asked = protocol.read(body, champion)
                rows = champion.check(asked.rows)
                answers = champion.score(rows)
                parts, explained = champion.explain(rows, answers) if asked.explain else (parts, explained)
                scored = each_encoded(rows), answers
        except RowError as error:
            raise Refusal(422, str(error)) from None
        took = time.perf_counter() - started
        if small:
            self._paces[champion.release.project] = took
        return self._told(champion, protocol, asked, at, took, *scored, parts, explained)

    def _told(
        self, champion: Champion, protocol: Protocol, asked: Question, at: dt.datetime, took: float, rows: Sequence[bytes],
        answers: list[dict[str, Any]], parts: Sequence[dict[str, Any]] = (), explained: dict[str, str] | None = None,
    ) -> bytes:  # fmt: skip
        """What goes out, after it is in the log."""
        names = new_names(len(answers))
        self._log(champion, at, took, names, rows, answers)
        self._metrics.predicted(champion.release.project, len(answers), took)
        if protocol is OWN and not explained:
            return champion.writer.answer(names, answers)
        told = zip(names, answers, parts or [{}] * len(answers), strict=True)
        predictions = [{"id": name.decode(), **answer, **part} for name, answer, part in told]
        return msgspec.json.encode(protocol.write(asked, Answered(champion, predictions, explained or {})))

    def _log(
        self, champion: Champion, at: dt.datetime, took: float, names: list[bytes], rows: Sequence[bytes],
        answers: list[dict[str, Any]],
    ) -> None:  # fmt: skip
        if not answers:
            return
        decided = [Decided(answer["prediction"], champion.logged(answer)) for answer in answers]
        lines = champion.writer.lines(at, took, names, rows, decided)
        if dropped := self._predictions.append_lines(champion.release.project, at, lines, len(answers)):
            if self._unlogged == "refuse":
                raise Refusal(
                    503,
                    "The prediction could not be put on record, so there is none. Try again later.",
                    Retry_After="5",
                )
            self._metrics.lost(champion.release.project, dropped)


def _scored_at_once(champion: Champion, body: bytes) -> tuple[Sequence[bytes], list[dict[str, Any]]] | None:
    """The rows of a body as they are logged, and their answers, past dictionaries; None where the usual way must look."""
    asked = champion.read(body)
    if asked is None or len(asked.values) > ROWS:
        return None
    try:
        return asked.rows, champion.answer(asked)
    except ValueError:  # the usual way says what is wrong
        return None
