"""The one way from a body to an answer: the champion of the moment checks and scores, and each prediction is logged before it is out."""

import datetime as dt
import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tasks.serving.answers import Refusal
from tasks.serving.bodies import Bodies
from tasks.serving.champion import Champion, RowError, Succession
from tasks.serving.line import IN_FLIGHT, Line
from tasks.serving.metrics import Metrics
from tasks.serving.protocols import Answered, Protocol
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
    ) -> None:
        self.line = Line(in_flight)
        self._succession = succession
        self._predictions = predictions
        self._metrics = metrics
        self._now = now
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
        try:
            asked = protocol.read(body, champion)
            rows = champion.check(asked.rows)
            answers = champion.score(rows)
            parts, explained = champion.explain(rows, answers) if asked.explain else ([{}] * len(answers), {})
        except RowError as error:
            raise Refusal(422, str(error)) from None
        took = time.perf_counter() - started
        names = secrets.token_hex(16 * len(answers)) if answers else ""
        predictions = [{"id": names[32 * n : 32 * n + 32], **answer} for n, answer in enumerate(answers)]
        said = [{**answer, **part} for answer, part in zip(predictions, parts, strict=True)]
        self._log(champion, at, took * 1000, rows, predictions)
        self._metrics.predicted(champion.release.project, len(answers), took)
        if small:
            self._paces[champion.release.project] = took
        return msgspec.json.encode(protocol.write(asked, Answered(champion, said, explained)))

    def _log(
        self,
        champion: Champion,
        at: dt.datetime,
        ms: float,
        rows: list[dict[str, Any]],
        predictions: list[dict[str, Any]],
    ) -> None:
        common = {
            "at": at.isoformat(),
            "project": champion.release.project,
            "version": champion.release.version,
            "ms": round(ms, 3),
        }
        records = [
            {
                "id": answer["id"],
                **common,
                "row": row,
                "prediction": answer["prediction"],
                "probability": champion.logged(answer),
            }
            for row, answer in zip(rows, predictions, strict=True)
        ]
        if records and (dropped := self._predictions.append(champion.release.project, at, records)):
            self._metrics.lost(champion.release.project, dropped)
