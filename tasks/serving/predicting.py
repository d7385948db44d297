"""The one way from a body to an answer: the champion of the moment checks and scores, and each prediction is logged before it is out."""

import datetime as dt
import secrets
import time
from collections.abc import Callable

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from tasks.serving.answers import Refusal
from tasks.serving.beside import Beside, Own, merged
from tasks.serving.bodies import Bodies
from tasks.serving.canary import Part
from tasks.serving.champion import Champion, RowError, Succession
from tasks.serving.line import IN_FLIGHT, Line
from tasks.serving.metrics import Metrics
from tasks.serving.protocols import Protocol
from tasks.serving.shadow import Seen
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
        beside: Beside,
        in_flight: int = IN_FLIGHT,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.line = Line(in_flight)
        self._succession = succession
        self._predictions = predictions
        self._metrics = metrics
        self._beside = beside
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
        own = await self._beside.own(champion, protocol, body, request.headers, small=small)
        content, seen = await self.line.run(
            lambda: self._answer(champion, protocol, body, own, small=small), quick=quick
        )
        later = BackgroundTask(self._beside.shadow.take, seen) if seen else None
        return Response(content, media_type="application/json", background=later)

    def close(self) -> None:
        """Waits for what is being scored, and closes the log."""
        self.line.close()
        self._beside.close()
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

    def _answer(
        self, champion: Champion, protocol: Protocol, body: bytes, own: Own, *, small: bool
    ) -> tuple[bytes, list[Seen]]:
        """The answer, and what the shadow is to score."""
        started, at = time.perf_counter(), self._now()
        asked = protocol.read(body, champion)
        with self._beside.watched(own, at, asked):
            try:
                parts = own.completed(champion, asked)
            except RowError as error:
                raise Refusal(422, str(error)) from None
        took = time.perf_counter() - started
        names = secrets.token_hex(16 * len(asked.rows)) if asked.rows else ""
        ids = [names[32 * n : 32 * n + 32] for n in range(len(asked.rows))]
        for part in parts:
            self._log(part, at, ids)
        self._metrics.predicted(champion.release.project, len(ids), took)
        if small and parts[0].model is champion:
            self._paces[champion.release.project] = took
        content = msgspec.json.encode(protocol.write(asked, merged(parts, ids)))
        return content, own.seen(at, asked, parts, ids)

    def _log(self, part: Part, at: dt.datetime, ids: list[str]) -> None:
        project, version = part.model.release.project, part.model.release.version
        ms = round(part.seconds * 1000, 3)
        common = {"at": at.isoformat(), "project": project, "version": version, "ms": ms}
        records = [
            {
                "id": ids[place],
                **common,
                "row": row,
                "prediction": answer["prediction"],
                "probability": part.model.logged(answer),
            }
            for place, row, answer in zip(part.places, part.rows, part.answers, strict=True)
        ]
        if records and (dropped := self._predictions.append(project, at, records)):
            self._metrics.lost(project, dropped)
