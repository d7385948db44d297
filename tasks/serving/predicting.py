"""The one way from a body to an answer: the champion of the moment checks and scores, and each prediction is logged before it is out."""

import asyncio
import datetime as dt
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from starlette.requests import Request

from tasks.serving.answers import Refusal
from tasks.serving.bodies import Bodies, question
from tasks.serving.champion import Champion, RowError, Succession
from tasks.serving.metrics import Metrics
from tasks.stores.predictions import Predictions

IN_FLIGHT = 64
THREADS = 2  # one big request must not hold up the small ones; more than two only take turns


class Predicting:
    """The requests for predictions of one process."""

    def __init__(
        self, succession: Succession, predictions: Predictions, metrics: Metrics, in_flight: int = IN_FLIGHT
    ) -> None:
        self._succession = succession
        self._predictions = predictions
        self._metrics = metrics
        self._bodies = Bodies()
        self._in_flight = 0
        self._most_in_flight = in_flight
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="score")
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def answer(self, request: Request) -> bytes:
        """Scores rows with the champion; every prediction is in the log before it is out."""
        champion = self.champion(request.path_params["project"])
        body = await self._bodies.read(request)
        if self._in_flight >= self._most_in_flight:
            raise Refusal(
                429,
                f"{self._in_flight} requests are being answered; wanted fewer at once. Try again in a second.",
                Retry_After="1",
            )
        self._in_flight += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, champion, body)
        finally:
            self._in_flight -= 1

    def close(self) -> None:
        """Waits for what is being scored, and closes the log."""
        self._threads.shutdown()
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

    def _answer(self, champion: Champion, body: bytes) -> bytes:
        started, at = time.perf_counter(), dt.datetime.now(dt.UTC)
        try:
            asked = question(body)
            rows = champion.check(asked.rows)
            answers = champion.score(rows)
            parts, explained = champion.explain(rows, answers) if asked.explain is True else ([{}] * len(answers), {})
        except RowError as error:
            raise Refusal(422, str(error)) from None
        took = time.perf_counter() - started
        project, version = champion.release.project, champion.release.version
        names = secrets.token_hex(16 * len(answers)) if answers else ""
        predictions = [{"id": names[32 * n : 32 * n + 32], **answer} for n, answer in enumerate(answers)]
        said = [{**answer, **part} for answer, part in zip(predictions, parts, strict=True)]
        self._log(champion, at, took * 1000, rows, predictions)
        self._metrics.seconds.labels(project).observe(took)
        self._metrics.predictions.labels(project).inc(len(answers))
        content = {"project": project, "version": version, "predictions": said}
        return msgspec.json.encode(content | ({"explained": explained} if explained else {}))

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
            self._metrics.unlogged.labels(champion.release.project).inc(dropped)
