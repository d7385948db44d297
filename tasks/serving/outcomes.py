"""Outcomes over HTTP: what came true of predictions, by their ids; acknowledged when it is on the disk."""

import datetime as dt
import math
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tasks.ml.told import words
from tasks.serving.answers import Refusal, as_json
from tasks.serving.bodies import ROWS, Bodies
from tasks.serving.champion import Champion, Manifest
from tasks.serving.line import Line
from tasks.serving.reading import quotes
from tasks.stores.predictions import Told

NAME = "^[A-Za-z0-9_.:-]{1,64}$"
AHEAD = dt.timedelta(minutes=5)  # that the clock of whoever tells may go before this one's
SHAPE = '{"outcomes": [{"id": text, "value": text, number, true or false, "at": time}]}, "at" where it was not just now'
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # what a contract's column of whole numbers holds


class Outcome(msgspec.Struct, forbid_unknown_fields=True):
    """What came true of one prediction."""

    id: Annotated[str, msgspec.Meta(pattern=NAME)]
    value: bool | Whole | float | str
    at: dt.datetime | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def moment(self) -> dt.datetime | None:
        """When it became known, UTC; None: now.

        Raises:
            OverflowError: beyond the years that there are.
        """
        if not isinstance(self.at, dt.datetime):
            return None
        return (self.at if self.at.tzinfo else self.at.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)

    @property
    def quotes(self) -> int:
        """How many quotation marks its names and texts have."""
        texts = 1 + (type(self.value) is str) + isinstance(self.at, dt.datetime)
        return 2 * (2 + (self.at is not msgspec.UNSET) + texts)


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that tells outcomes."""

    outcomes: list[Outcome]


_DECODER = msgspec.json.Decoder(Body)


class Telling:
    """The requests that tell outcomes to one process."""

    def __init__(
        self, told: Told, line: Line, champion: Callable[[str], Champion],
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:  # fmt: skip
        self._told, self._line, self._champion, self._now = told, line, champion, now
        self._bodies = Bodies()

    async def answer(self, request: Request) -> Response:
        """Takes outcomes; what is acknowledged is on the disk. Telling them again does no harm."""
        champion = self._champion(request.path_params["project"])
        self._line.admit()
        body = await self._bodies.read(request)
        return as_json(await self._line.run(lambda: self._take(champion, body), quick=False))

    def _take(self, champion: Champion, body: bytes) -> dict[str, Any]:
        now, project = self._now(), champion.release.project
        outcomes = asked(body)
        moments = checked(outcomes, champion.manifest, now)
        try:
            if outcomes:
                each = zip(outcomes, moments, strict=True)
                self._told.tell(project, now, ((outcome.id, outcome.value, at) for outcome, at in each))
        except OSError:
            raise Refusal(
                503, "The outcomes could not be written; none counts. Tell them again later.", Retry_After="5"
            ) from None
        return {"project": project, "outcomes": len(outcomes)}


def asked(body: bytes) -> list[Outcome]:
    """The outcomes that a body tells.

    Raises:
        Refusal: 422 for another shape or a name that stands twice in an object, 400 for no JSON, 413 for too many.
    """
    try:
        outcomes = _DECODER.decode(body).outcomes
    except msgspec.ValidationError:
        raise Refusal(422, f"The body has another shape; wanted {SHAPE}. See /docs.") from None
    except (ValueError, RecursionError):
        raise Refusal(400, f"The body is no JSON in UTF-8; wanted {SHAPE}. See /docs.") from None
    if len(outcomes) > ROWS:
        raise Refusal(413, f"The request has {len(outcomes):,} outcomes; wanted at most {ROWS:,}. Send them in parts.")
    if quotes(body) != 2 + sum(outcome.quotes for outcome in outcomes):
        raise Refusal(422, "An object names a field twice; wanted each once. Remove one.")
    return outcomes


def checked(outcomes: list[Outcome], manifest: Manifest, now: dt.datetime) -> list[dt.datetime | None]:
    """When each became known.

    Raises:
        Refusal: 422, a value is none that can come true of a prediction of this model, or a time has not come yet.
    """
    moments = []
    for place, outcome in enumerate(outcomes):
        if wanted := misfit(outcome.value, manifest):
            raise Refusal(
                422, f"outcomes[{place}]: the value does not fit; wanted {wanted}. Correct it and send it again."
            )
        moments.append(_moment(place, outcome, now))
    return moments


def misfit(value: object, manifest: Manifest) -> str | None:
    """What is wanted in place of a value that cannot come true of a prediction; None where it can."""
    if manifest.kind in {"binary", "multiclass"}:
        known = {text for each in (*manifest.classes, *manifest.own) for text in words(each)}
        return (
            None
            if known & {*words(value)}
            else "one of the classes, or of the target's own values, that GET /projects/… lists"
        )
    if manifest.kind == "regression":
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return None if fits else "a finite number"
    if manifest.kind == "anomaly":
        return None if isinstance(value, bool) else "true or false"
    return None if isinstance(value, str) else "an item as text"


def _moment(place: int, outcome: Outcome, now: dt.datetime) -> dt.datetime | None:
    try:
        moment = outcome.moment
    except OverflowError:
        moment = now + 2 * AHEAD
    if moment and moment > now + AHEAD:
        raise Refusal(
            422,
            f"outcomes[{place}]: the time has not come yet; wanted when it became known. Correct it and send it again.",
        )
    return moment
