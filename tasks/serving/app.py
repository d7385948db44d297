"""The serving process: `python -m tasks.serving.app` answers over HTTP with the champions that the journal names.

It needs the journal and the bundles, and nothing else that runs. What a client sent is never repeated, neither in
answers nor in logs.
"""

import asyncio
import datetime as dt
import html
import ipaddress
import logging
import os
import secrets
import socket
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.config.settings import Settings
from tasks.serving.champion import Champion, RowError, Succession
from tasks.serving.quick import Quick
from tasks.serving.reading import quotes
from tasks.sources.upload import UploadError, Uploads
from tasks.stores.predictions import Predictions

LOG = logging.getLogger("keepfit.serving")

BODY_BYTES = 8 << 20
BUFFERED_BYTES = 64 << 20  # of all bodies that are being read: many slow big ones must not fill the memory
BODY_SECONDS = 30.0
ROWS = 10_000
IN_FLIGHT = 64
THREADS = 2  # one big request must not hold up the small ones; more than two only take turns
GRACE_SECONDS = 10


class Refusal(Exception):  # noqa: N818 – a refusal is an answer, not a fault
    """An answer other than the wanted one: a status and one sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        """The refusal as it goes out."""
        return _json({"error": str(self)}, self.status, self.headers)


FAILED = Refusal(500, "The server failed at this request; its log says where. Tell whoever runs it.")


class Rows(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for predictions."""

    rows: list[dict[str, str | int | float | bool | None]]
    explain: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def names(self) -> int:
        """How many names the body has outside of its rows."""
        return 1 + (self.explain is not msgspec.UNSET)


_DECODER = msgspec.json.Decoder(Rows)


def question(body: bytes) -> Rows:
    """What a body asks.

    Raises:
        Refusal: 422 for another shape or a name that stands twice in an object, 400 for no JSON, 413 for too many rows.
    """
    try:
        asked = _DECODER.decode(body)
    except msgspec.ValidationError:
        raise Refusal(
            422,
            'The body has another shape; wanted {"rows": [{feature: text, number, true, false or null}]}, and "explain": '
            "true where wanted. See /docs.",
        ) from None
    except (ValueError, RecursionError):  # msgspec's malformed JSON and Python's bad UTF-8 are both a ValueError
        raise Refusal(
            400, 'The body is no JSON in UTF-8; wanted {"rows": [{…}]} with finite numbers. See /docs.'
        ) from None
    rows = asked.rows
    if len(rows) > ROWS:
        raise Refusal(413, f"The request has {len(rows):,} rows; wanted at most {ROWS:,}. Send them in parts.")
    if quotes(body) != 2 * (
        asked.names + sum(len(row) + sum(type(value) is str for value in row.values()) for row in rows)
    ):
        raise Refusal(
            422,
            "An object names a field twice; wanted each once, because only one of the two values could count. Remove "
            "one.",
        )
    return asked


def _scored(
    champion: Champion, body: bytes
) -> tuple[Sequence[Any], list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """The rows of a body as they are logged, their answers, and what explains them, where that was asked.

    Raises:
        Refusal: the body is no question.
        RowError: a row cannot be scored.
    """
    quick = champion.read(body)
    if quick is not None and len(quick.values) <= ROWS:
        with suppress(ValueError):  # the slower look below says what is wrong
            return quick.rows, champion.answer(quick), [], {}
    asked = question(body)
    rows = champion.check(asked.rows)
    answers = champion.score(rows)
    return rows, answers, *(champion.explain(rows, answers) if asked.explain is True else ([], {}))


# -- the guard --------------------------------------------------------------------------------------------------------
class Guard:
    """Stands before everything: asks for the right Host and Origin, counts answers, turns faults into one sentence."""

    def __init__(self, app: ASGIApp, settings: Settings, count: Callable[[Scope, int], None]) -> None:
        self._app = app
        self._count = count
        elsewhere = urlsplit(settings.serving_url or "")
        self._own = elsewhere.netloc.lower()
        self._wide = settings.host in {"0.0.0.0", "::", ""}  # noqa: S104 – asked, not bound
        self._names = {
            "localhost",
            "127.0.0.1",
            "::1",
            settings.host.lower(),
            (elsewhere.hostname or "localhost").lower(),
        }
        if self._wide:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes the start and the end of the process on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._admit(Headers(scope=scope))
            await self._app(scope, receive, counted)
        except Refusal as refusal:
            await refusal.response()(scope, receive, counted)
        except Exception as error:  # noqa: BLE001 – the last net: a client gets a sentence, the log gets the place
            _log_fault(error)
            if not status:
                await FAILED.response()(scope, receive, counted)
        self._count(scope, status)

    def _admit(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0].lower()):
            raise Refusal(
                400,
                "The Host header names another machine; wanted a name of this one. Whoever runs it adds a name with "
                "KEEPFIT_SERVING_URL.",
            )
        origins = {origin.lower().partition("://")[2] for origin in headers.getlist("origin")}
        if not origins <= {hosts[0].lower(), self._own} - {""}:
            raise Refusal(
                403,
                "The request comes from a page of another site; wanted one of this server or no browser. Call it from "
                "a program.",
            )

    def _is_own(self, host: str) -> bool:
        if set(host) & set("@/?#\\ \t,"):
            return False
        try:
            name = urlsplit(f"//{host}").hostname or ""
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        return name != "" and (name in self._names or (self._wide and _is_address(name)))


def _is_address(name: str) -> bool:
    """Whether it is an IP address: those cannot be rebound by somebody else's DNS."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _log_fault(error: Exception) -> None:
    """The kind and the place of a fault; its message may repeat what a client sent, and so stays out."""
    frames = traceback.extract_tb(error.__traceback__)
    LOG.error(
        "%s at %s", type(error).__name__, " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    )


# -- the door ---------------------------------------------------------------------------------------------------------
class Door:
    """The routes, and what they share: champions, the prediction log, the threads, the counters."""

    def __init__(self, settings: Settings, in_flight: int = IN_FLIGHT) -> None:
        self.settings = settings
        self.succession = Succession(
            settings.journal(), settings.bundles, skew=settings.library_skew, copies=settings.home / "served"
        )
        self.predictions = Predictions(settings.home)
        self.uploads = Uploads(settings)
        self._in_flight = 0
        self._most_in_flight = in_flight
        self._buffered = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="score")
        self._meter()

    def app(self) -> ASGIApp:
        """The application that a server runs."""
        routes = [
            Route("/projects/{project}/predict", self.predict, methods=["POST"]),
            Route("/projects/{project}/batches", self.batches, methods=["POST", "PUT"]),
            Route("/projects/{project}", self.project, methods=["GET"]),
            Route("/projects", self.projects, methods=["GET"]),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {HTTPException: _not_here, Refusal: _refused, Exception: _failed}
        usual = Starlette(routes=routes, lifespan=self._life, exception_handlers=handlers)
        return Guard(Quick(usual, self._quickly, self.predict), self.settings, self._count)

    @asynccontextmanager
    async def _life(self, _app: Starlette) -> AsyncGenerator[None]:
        follower = asyncio.create_task(self.succession.follow())
        yield
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        self._threads.shutdown()
        self.predictions.close()

    # -- predictions --------------------------------------------------------------------------------------------------
    async def predict(self, request: Request) -> Response:
        """Scores rows with the champion; every prediction is in the log before it is out."""
        champion = self._champion(request.path_params["project"])
        body = await self._body(request)
        if self._in_flight >= self._most_in_flight:
            raise Refusal(
                429,
                f"{self._in_flight} requests are being answered; wanted fewer at once. Try again in a second.",
                Retry_After="1",
            )
        self._in_flight += 1
        try:
            content = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, champion, body)
        finally:
            self._in_flight -= 1
        return Response(content, media_type="application/json")

    def _quickly(self, project: str, body: bytes) -> bytes | None:
        """The answer to a body that is as it should be, where the champion needs microseconds; else None."""
        champion = self.succession.champions.get(project)
        if champion is None or (quick := champion.read(body)) is None:
            return None
        started, at = time.perf_counter(), dt.datetime.now(dt.UTC)
        try:
            answers = champion.answer(quick)
        except ValueError:  # the usual way says what is wrong
            return None
        return self._told(champion, at, time.perf_counter() - started, quick.rows, answers)

    def _champion(self, project: str) -> Champion:
        """Taken once a request, so that version and score of an answer fit even while the champion is replaced."""
        if champion := self.succession.champions.get(project):
            return champion
        if self.succession.wanted is None:
            raise Refusal(
                503,
                "The journal was not read yet; wanted a champion. Try again when /readyz says 200.",
                Retry_After="1",
            )
        if project in self.succession.wanted:
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
            rows, answers, parts, explained = _scored(champion, body)
        except RowError as error:
            raise Refusal(422, str(error)) from None
        return self._told(champion, at, time.perf_counter() - started, rows, answers, parts, explained)

    def _told(
        self, champion: Champion, at: dt.datetime, took: float, rows: Sequence[Any], answers: list[dict[str, Any]],
        parts: Sequence[dict[str, Any]] = (), explained: dict[str, str] | None = None,
    ) -> bytes:  # fmt: skip
        """What goes out, after it is in the log."""
        project, version = champion.release.project, champion.release.version
        names = secrets.token_hex(16 * len(answers)) if answers else ""
        predictions = [{"id": names[32 * n : 32 * n + 32], **answer} for n, answer in enumerate(answers)]
        self._log(champion, at, took * 1000, rows, predictions)
        self._seconds.labels(project).observe(took)
        self._predicted.labels(project).inc(len(answers))
        said = [{**answer, **part} for answer, part in zip(predictions, parts, strict=True)] if parts else predictions
        content = {"project": project, "version": version, "predictions": said}
        return msgspec.json.encode(content | ({"explained": explained} if explained else {}))

    def _log(
        self, champion: Champion, at: dt.datetime, ms: float, rows: Sequence[Any], predictions: list[dict[str, Any]]
    ) -> None:
        project, version = champion.release.project, champion.release.version
        when, took, logged = at.isoformat(), round(ms, 3), champion.logged
        records = [
            {
                "id": answer["id"], "at": when, "project": project, "version": version, "ms": took, "row": row,
                "prediction": answer["prediction"], "probability": logged(answer),
            }
            for row, answer in zip(rows, predictions, strict=True)
        ]  # fmt: skip
        if records and (dropped := self.predictions.append(project, at, records)):
            self._dropped.labels(project).inc(dropped)

    async def _body(self, request: Request) -> bytes:
        """The body, read no further than its limit."""
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Refusal(
                415,
                "The body is compressed; wanted plain JSON. Send it without a content encoding.",
                Connection="close",
            )
        big = Refusal(
            413, f"The body is bigger than {BODY_BYTES >> 20} MiB. Send the rows in parts.", Connection="close"
        )
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 12 or int(length) > BODY_BYTES:
            raise big
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    size += len(part)
                    self._buffered += len(part)
                    if size > BODY_BYTES:
                        raise big
                    if self._buffered > BUFFERED_BYTES:
                        raise Refusal(
                            429,
                            "Too many big bodies arrive at once. Try again in a second.",
                            Retry_After="1",
                            Connection="close",
                        )
                    parts.append(part)
        except TimeoutError:
            raise Refusal(
                408,
                f"The body did not arrive within {BODY_SECONDS:g} s. Send it faster or in parts.",
                Connection="close",
            ) from None
        except ClientDisconnect:
            raise Refusal(400, "The body ended early. Send it again.", Connection="close") from None
        finally:
            self._buffered -= size
        return b"".join(parts)

    # -- batches ------------------------------------------------------------------------------------------------------
    async def batches(self, request: Request) -> Response:
        """Takes a file into the inbox, from where it lands."""
        project, name = request.path_params["project"], request.query_params.get("name")
        peer = request.client.host if request.client else None
        try:
            arrived = await self.uploads.receive(project, name, request.headers, peer, request.stream())
        except UploadError as error:
            raise Refusal(error.status, str(error), **error.headers, Connection="close") from None
        except ClientDisconnect:
            raise Refusal(400, "The body ended early. Send it again.", Connection="close") from None
        LOG.info("%s: batch %s arrived (%d bytes)", project, arrived["batch"][:12], arrived["bytes"])
        return _json(arrived, 202)

    # -- who answers --------------------------------------------------------------------------------------------------
    async def projects(self, _request: Request) -> Response:
        """Every released project with the version that answers for it."""
        names = sorted({*self.succession.champions, *(self.succession.wanted or {})})
        return _json({"projects": [self._describe(name) for name in names]})

    async def project(self, request: Request) -> Response:
        """One project: as in the list, with what a row must hold."""
        champion = self._champion(request.path_params["project"])
        manifest = champion.manifest
        more = {
            "features": manifest.features,
            "ignored": manifest.ignored,
            "computed": manifest.computed,
            "kind": manifest.kind,
        }
        known = ("classes", "positive", "threshold", "interval")
        decides = {name: getattr(manifest, name) for name in known if getattr(manifest, name) not in (None, ())}
        return _json({**self._describe(champion.release.project), **more, **decides})

    def _describe(self, project: str) -> dict[str, Any]:
        champion, refused = self.succession.champions.get(project), self.succession.refused.get(project)
        described: dict[str, Any] = {"project": project, "version": None}
        if champion:
            release = champion.release
            described |= {
                "version": release.version,
                "generation": release.generation,
                "since": release.at,
                "digest": release.digest,
            }
            described |= {"metric": release.metric, "value": release.value, "low": release.low, "high": release.high}
        if refused:
            described["refused"] = refused.describe()
        return described

    async def healthz(self, _request: Request) -> Response:
        """200 as long as the process answers."""
        return _json({"alive": True})

    async def readyz(self, _request: Request) -> Response:
        """200 when somebody answers for every released project; a refused successor is named, the old one counts."""
        succession = self.succession
        missing = succession.missing()
        ready = succession.wanted is not None and not missing
        versions = {name: champion.release.version for name, champion in sorted(succession.champions.items())}
        refused = {name: value.describe() for name, value in sorted(succession.refused.items())}
        body = {
            "ready": ready,
            "projects": versions,
            "missing": missing,
            "refused": refused,
            "degraded": succession.degraded,
            "journal": succession.trouble or "readable",
        }
        return _json(body, 200 if ready else 503)

    # -- counters -----------------------------------------------------------------------------------------------------
    def _meter(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "keepfit_requests", "Answered requests", ["route", "project", "status"], registry=registry
        )
        self._seconds = Histogram(
            "keepfit_predict_seconds", "Seconds to check and score a request", ["project"], registry=registry
        )
        self._predicted = Counter("keepfit_predictions", "Predictions", ["project"], registry=registry)
        self._dropped = Counter(
            "keepfit_predictions_unlogged",
            "Predictions that were answered but not logged",
            ["project"],
            registry=registry,
        )
        self._version = Gauge("keepfit_champion_version", "The version that answers", ["project"], registry=registry)
        self._refusing = Gauge(
            "keepfit_release_refused", "1 while the newest release does not load", ["project"], registry=registry
        )
        Gauge("keepfit_requests_in_flight", "Requests that are being scored", registry=registry).set_function(
            lambda: self._in_flight
        )
        Gauge("keepfit_swaps", "Champions put in place since the start", registry=registry).set_function(
            lambda: self.succession.swaps
        )

    def _count(self, scope: Scope, status: int) -> None:
        """Counts an answer under names of our own: invented paths and projects make no new series (faults: V-15)."""
        route = getattr(scope.get("endpoint"), "__name__", "none")
        project = scope.get("path_params", {}).get("project", "")
        self._requests.labels(route, project if project in self.succession.champions else "", str(status)).inc()

    async def metrics(self, _request: Request) -> Response:
        """The counters in Prometheus' text format."""
        for project, champion in self.succession.champions.items():
            self._version.labels(project).set(champion.release.version)
            self._refusing.labels(project).set(project in self.succession.refused)
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})

    # -- description --------------------------------------------------------------------------------------------------
    async def openapi(self, _request: Request) -> Response:
        """The OpenAPI description of the routes, with the features of every champion."""
        return _json(describe(self.succession.champions))

    async def docs(self, _request: Request) -> Response:
        """The same as a page that loads nothing from elsewhere."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(page(describe(self.succession.champions)), headers={"content-security-policy": policy})


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


async def _refused(_request: Request, refusal: Exception) -> Response:
    return refusal.response() if isinstance(refusal, Refusal) else FAILED.response()


async def _failed(_request: Request, _error: Exception) -> Response:
    return FAILED.response()  # Starlette raises the error again, and the guard logs it


async def _not_here(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    what = "This path takes another method" if status == 405 else "Nothing is at this path"
    return Refusal(status, f"{what}; /docs lists what there is.").response()


# -- OpenAPI ----------------------------------------------------------------------------------------------------------
JSON_TYPES = {"int": "integer", "float": "number", "bool": "boolean"}
STYLE = (
    "body{font:16px sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
    "td{padding:.1em 1em .1em 0}h2{font-size:1.1em;margin-top:2em}"
)
PLAIN_ROUTES = {
    "/projects": "Released projects and the version that answers for each",
    "/healthz": "200 as long as the process answers",
    "/readyz": "200 when somebody answers for every released project, else 503 and for which not",
    "/metrics": "Counters in Prometheus' text format",
    "/openapi.json": "This description",
}
EXPLAIN = "With true every prediction has what each column adds to it, for a few rows at once"
REFUSALS = {
    "400": "No JSON, or a Host header of another machine",
    "403": "Called from a page of another site",
    "404": "No champion under this name",
    "413": f"More than {BODY_BYTES >> 20} MiB or {ROWS:,} rows",
    "415": "A compressed body",
    "422": "A row does not fit; the sentence names its place and the feature",
    "429": "Too many requests at once; try again after Retry-After seconds",
    "503": "The champion is not loaded yet",
}


def describe(champions: dict[str, Champion]) -> dict[str, Any]:
    """The OpenAPI 3.1 description of this process, with one predict path a champion."""
    paths: dict[str, Any] = {path: {"get": _operation(summary)} for path, summary in PLAIN_ROUTES.items()}
    paths["/projects/{project}/batches"] = {
        "post": _operation("Takes a file of rows, as the body, with ?name=rows.csv; 202 when it is safe")
    }
    for name, champion in sorted(champions.items()):
        paths[f"/projects/{name}"] = {"get": _operation(f"{name}: who answers, and what a row must hold")}
        paths[f"/projects/{name}/predict"] = {"post": _predicting(name, champion)}
    return {"openapi": "3.1.0", "info": {"title": "keepfit", "version": "1"}, "paths": paths}


def _operation(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "Done"}}}


def _predicting(name: str, champion: Champion) -> dict[str, Any]:
    features = champion.manifest.features
    row = {
        "type": "object",
        "properties": {feature.name: _schema(feature.type, feature.nullable) for feature in features},
        "required": [feature.name for feature in features if not feature.nullable],
    }
    body = {
        "type": "object",
        "required": ["rows"],
        "properties": {
            "rows": {"type": "array", "maxItems": ROWS, "items": row},
            "explain": {"type": "boolean", "default": False, "description": EXPLAIN},
        },
    }
    target = champion.manifest.target
    asked = f"predictions of '{target}'" if target else "how odd rows are,"
    operation = _operation(f"{name}: {asked} by version {champion.release.version}")
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    operation["responses"] |= {status: {"description": text} for status, text in REFUSALS.items()}
    return operation


def _schema(kind: str, nullable: bool) -> dict[str, Any]:
    named = JSON_TYPES.get(kind, "string")
    schema: dict[str, Any] = {"type": [named, "null"] if nullable else named}
    return {**schema, "format": "date-time"} if kind == "datetime" else schema


def page(description: dict[str, Any]) -> str:
    """An OpenAPI description as HTML, without scripts."""
    sections = [
        f"<h2>{verb.upper()} "
        f"<code>{html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}</p>{_details(operation)}"
        for path, verbs in description["paths"].items()
        for verb, operation in verbs.items()
    ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>keepfit</title><style>{STYLE}</style>'
    return f"{head}<h1>keepfit</h1>{''.join(sections)}"


def _details(operation: dict[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    row = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]["rows"]["items"]
    fields = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(str(schema.get('format') or schema['type']))}<td>"
        f"{'required' if name in row['required'] else 'may be null or left out'}"
        for name, schema in row["properties"].items()
    )
    answers = "".join(
        f"<tr><td>{status}<td>{html.escape(answer['description'])}" for status, answer in operation["responses"].items()
    )
    body = "<code>{&quot;rows&quot;: [{…}], &quot;explain&quot;: false}</code>"
    return f"<p>Body: {body}. {html.escape(EXPLAIN)}. Each row with</p><table>{fields}</table><p>Answers</p><table>{answers}</table>"


# -- the process ------------------------------------------------------------------------------------------------------
def main() -> None:
    """Serves at the address of the settings."""
    serve(Settings())


def serve(settings: Settings, sockets: list[socket.socket] | None = None) -> None:
    """Runs the server until it is told to stop; requests that are being answered are finished first.

    Args:
        settings: whose champions answer, and where.
        sockets: which listen already, in place of the address of the settings.
    """
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # before scikit-learn is imported: with two threads on a busy machine one row took 70 ms instead of 3
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    host, port = sockets[0].getsockname() if sockets else (settings.host, settings.serving_port)
    LOG.info("serving on http://%s:%d, process %d", host, port, os.getpid())
    server = uvicorn.Server(uvicorn.Config(
        Door(settings).app(), host=settings.host, port=settings.serving_port, lifespan="on", ws="none", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=GRACE_SECONDS,
    ))  # fmt: skip
    with suppress(KeyboardInterrupt):
        server.run(sockets)


if __name__ == "__main__":
    main()
