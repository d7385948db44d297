"""The one way from a body to an answer: the champion of the moment checks and scores, and each prediction is logged before it is out."""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from tasks.serving.answers import Refusal
from tasks.serving.beside import Beside, Own, merged
from tasks.serving.bodies import Bodies
from tasks.serving.canary import Part
from tasks.serving.champion import Champion, RowError
from tasks.serving.line import IN_FLIGHT, Line
from tasks.serving.metrics import Metrics
from tasks.serving.protocols import OWN, Protocol, Question, WriteMany
from tasks.serving.reading import ROWS, Asked, how_often, joined
from tasks.serving.shadow import Seen
from tasks.serving.sheet import Sheet
from tasks.serving.succession import Succession
from tasks.serving.writing import Decided, Writer, each_encoded, new_digits, new_names, split
from tasks.stores.predictions import Predictions

SMALL_BYTES = 16 << 10
COUNTED_BYTES = 64 << 10  # of a longer body not even the rows are counted
QUICK_SECONDS = 0.002  # of work; for less a thread, which quarrels with the loop, costs a third more

Size = tuple[str, int]  # a project, and about how many rows a body has, to the power of two


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
        unlogged: Literal["serve", "refuse"] = "serve",
    ) -> None:
        """With `unlogged="refuse"` no prediction goes out that is not in the log."""
        self.line = Line(in_flight)
        self._succession = succession
        self._predictions = predictions
        self._metrics = metrics
        self._beside = beside
        self._now = now
        self._unlogged = unlogged
        self._bodies = Bodies()
        self._paces: dict[Size, float] = {}  # seconds of work of the last request of a size
        metrics.watch(self.line)

    async def answer(self, request: Request, protocol: Protocol) -> Response:
        """Scores rows with the champion; every prediction is in the log before it is out."""
        champion = self.champion(request.path_params["project"])
        self.line.admit()
        body = await self._bodies.read(request)
        small = len(body) <= SMALL_BYTES and not protocol.read_columns  # columns of nulls have many rows in few bytes
        size = _size(champion, protocol, body)
        quick = size is not None and self._paces.get(size, 1.0) < QUICK_SECONDS
        self.line.enter()  # a challenger's share is a part of the work; so that it cannot fill the line only a few wait for it
        try:
            own = await self._beside.own(champion, protocol, body, request.headers, small=small)
            response, seen = await self.line.do(
                lambda: self._answer(champion, protocol, body, own, size, small=small), quick=quick
            )
        finally:
            self.line.leave()
        if seen:
            response.background = BackgroundTask(self._beside.shadow.take, seen)
        return response

    def quickly(self, project: str, protocol: Protocol, bodies: Sequence[bytes]) -> list[bytes | None]:
        """The answer to each body whose rows are objects, as they should be, where a compiled champion needs microseconds; else None.

        They are answered together where nobody's answer depends on who asks beside them.
        """
        champion = self._succession.champions.get(project)
        if champion is None or self.line.count >= self.line.most or self._beside.splits(champion):
            return [None] * len(bodies)
        own = Own(self._beside.others.of(champion))
        if len(bodies) == 1 or (champion.is_steady and own.pair is None):
            return self._together(champion, protocol, bodies, own)
        return self._one_by_one(champion, protocol, bodies, own)

    def _together(
        self, champion: Champion, protocol: Protocol, bodies: Sequence[bytes], own: Own
    ) -> list[bytes | None]:
        """As `quickly`, with one call of the model and one write into the log."""
        if protocol.field is None or protocol.write_many is None:
            return [None] * len(bodies)
        at, began = self._now(), time.perf_counter()
        read = [champion.read(body, protocol.field) for body in bodies]
        if not (found := [each for each in read if each is not None]):
            return [None] * len(bodies)
        if (said := _said_at_once(champion, protocol, joined(found), bodies[0], own, began)) is None:
            return [None] if len(bodies) == 1 else self._one_by_one(champion, protocol, bodies, own)
        asked, parts = said
        names = new_names(len(parts[0].places))
        sizes = [len(each.values) for each in found]
        told = iter(protocol.write_many(champion.writer, names, parts[0].answers, sizes))
        try:
            self._record(parts, at, names)
        except Refusal:  # the usual way tries once more and says it
            return [None] * len(bodies)
        self._metrics.predicted(champion.release.project, len(names), parts[0].seconds, len(found))
        if own.pair:
            for each in own.seen(at, asked, parts, [name.decode() for name in names]):
                self._beside.shadow.offer(each)
        return [None if each is None else next(told) for each in read]

    def _one_by_one(
        self, champion: Champion, protocol: Protocol, bodies: Sequence[bytes], own: Own
    ) -> list[bytes | None]:
        return [self._alone(champion, protocol, body, own) for body in bodies]

    def _alone(self, champion: Champion, protocol: Protocol, body: bytes, own: Own) -> bytes | None:
        """As `quickly` of one body, whatever is wrong with it: those beside it are answered, and in the log, already."""
        try:
            return self._together(champion, protocol, [body], own)[0]
        except Exception:  # noqa: BLE001 -- the usual way meets it again, and there is the one place that says so
            return None

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
        self, champion: Champion, protocol: Protocol, body: bytes, own: Own, size: Size | None, *, small: bool
    ) -> tuple[Response, list[Seen]]:  # fmt: skip
        """The answer, and what the shadow is to score; what it took, or a refusal, tells of the next one of its size."""
        began, started, at = time.thread_time(), time.perf_counter(), self._now()
        try:
            if own.pair is None and (columnar := _columnar(champion, protocol, body, small=small)) is not None:
                return self._by_column(champion, protocol, *columnar, at, started), []
            asked, parts = self._said(champion, protocol, body, own, at)
            return self._told(protocol, asked, parts, own, at, time.perf_counter() - started)
        finally:
            if size is not None and own.part is None:
                self._paces[size] = time.thread_time() - began

    def _said(
        self, champion: Champion, protocol: Protocol, body: bytes, own: Own, at: dt.datetime
    ) -> tuple[Question, list[Part]]:
        """What is asked, and what each model says of its share."""
        began = time.perf_counter()
        read = champion.read(body, protocol.field) if protocol.field and own.part is None else None
        if read and (said := _said_at_once(champion, protocol, read, body, own, began)):
            return said
        asked = protocol.read(body, champion)
        with self._beside.watched(own, at, asked):
            try:
                return asked, own.completed(champion, asked)
            except RowError as error:
                raise Refusal(422, str(error)) from None

    def _by_column(
        self, champion: Champion, protocol: Protocol, asked: Question, sheet: Sheet, at: dt.datetime, began: float
    ) -> Response:
        """The answer to rows by column; those of numbers alone are logged so."""
        project = champion.release.project
        try:
            columns = champion.columns(sheet)
        except RowError as error:
            raise Refusal(422, str(error)) from None
        seconds = time.perf_counter() - began
        ids = new_digits(sheet.count)
        if sheet.count and sheet.is_numbers and not sheet.beside:
            self._append(project, at, champion.writer.packed(at, seconds, ids, sheet.matrix, columns), sheet.count)
        else:
            rows = each_encoded(champion.marked(sheet.rows(), sheet.sent()))
            self._log(Part(champion, [], rows, champion.listed(columns), [], {}, seconds), at, split(ids))
        self._metrics.predicted(project, sheet.count, seconds)
        if protocol.write_columns:
            return protocol.write_columns(asked, champion, ids, columns)
        if champion.labels:
            return _json(champion.writer.classes(split(ids), columns, champion.labels))
        return _written(Writer.answers, champion, split(ids), champion.listed(columns))

    def _told(
        self, protocol: Protocol, asked: Question, parts: list[Part], own: Own, at: dt.datetime, took: float
    ) -> tuple[Response, list[Seen]]:
        """What goes out, after it is in the log, and what the shadow is to score."""
        names = new_names(sum(len(part.places) for part in parts))
        self._record(parts, at, names)
        self._metrics.predicted(parts[0].model.release.project, len(names), took)
        ids = [name.decode() for name in names]
        if protocol.write_many and len(parts) == 1 and not parts[0].explained:
            response = _written(protocol.write_many, parts[0].model, names, parts[0].answers)
        else:
            response = protocol.write(asked, merged(parts, ids))
        return response, own.seen(at, asked, parts, ids)

    def _record(self, parts: list[Part], at: dt.datetime, names: list[bytes]) -> None:
        """Puts the predictions into the log under their names, in order of the rows.

        Raises:
            Refusal: they are not there, and nothing goes out without.
        """
        for part in parts:
            self._log(part, at, names if len(parts) == 1 else [names[place] for place in part.places])

    def _log(self, part: Part, at: dt.datetime, names: list[bytes]) -> None:
        if not names:
            return
        model, project = part.model, part.model.release.project
        decided = [Decided(answer["prediction"], model.logged(answer)) for answer in part.answers]
        self._append(project, at, model.writer.lines(at, part.seconds, names, part.rows, decided), len(names))

    def _append(self, project: str, at: dt.datetime, lines: bytes | memoryview, count: int) -> None:
        if dropped := self._predictions.append_lines(project, at, lines, count):
            if self._unlogged == "refuse":
                raise Refusal(
                    503,
                    "The prediction could not be put on record, so there is none. Try again later.",
                    Retry_After="5",
                )
            self._metrics.lost(project, dropped)


def _size(champion: Champion, protocol: Protocol, body: bytes) -> Size | None:
    """None where the number of rows says little about the work, or there may be very many."""
    if protocol.read_columns or champion.computing is not None or len(body) > COUNTED_BYTES:
        return None
    # The name may be written with escapes, too; whether there are any is seen in a twentieth of the time.
    if b'"explain"' in body or (b"\\" in body and b"\\u" in body):
        return None
    return champion.release.project, max(how_often(body, b"{"), how_often(body, b"[")).bit_length()


def _written(write: WriteMany, champion: Champion, names: list[bytes], answers: list[dict[str, Any]]) -> Response:
    """Answers of one version to one request."""
    (content,) = write(champion.writer, names, answers, [len(names)])
    return _json(content)


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _columnar(champion: Champion, protocol: Protocol, body: bytes, *, small: bool) -> tuple[Question, Sheet] | None:
    """What a body asks by column, where its rows come so, or are many numbers; None where they are answered one by one.

    Raises:
        Refusal: columns are not as they should be.
    """
    if protocol.read_columns and champion.answers_columns:
        return protocol.read_columns(body, champion)
    if protocol is not OWN or small or (numbers := champion.numbers(body)) is None:
        return None
    return Question([]), Sheet(champion.manifest.features, numbers, {}, {})


def _said_at_once(
    champion: Champion, protocol: Protocol, read: Asked, body: bytes, own: Own, began: float
) -> tuple[Question, list[Part]] | None:
    """What the champion says of rows that it read, past dictionaries; None where the usual way must look.

    Where another model is to be asked too, `body` holds all rows: it may read columns that the champion does not.
    """
    if len(read.values) > ROWS:
        return None
    try:
        answers = champion.answer(read)
    except ValueError:  # the usual way says what is wrong
        return None
    sent = protocol.read(body, champion).rows if own.pair else []  # for the shadow alone
    part = Part(champion, [*range(len(answers))], read.rows, answers, [], {}, time.perf_counter() - began)
    return Question(sent), [part]
