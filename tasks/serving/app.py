"""The serving process: `python -m tasks.serving.app` answers over HTTP with the champions that the journal names.

It needs the journal and the bundles, and nothing else that runs. What a client sent is never repeated, neither in
answers nor in logs.
"""

import asyncio
import ctypes
import functools
import gc
import importlib.metadata
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tasks.config import access
from tasks.config.errors import KeepfitError, StackError
from tasks.config.settings import Settings
from tasks.serving import inference
from tasks.serving.answers import FAILED, Refusal, as_json
from tasks.serving.beside import Beside
from tasks.serving.connections import Connections, room
from tasks.serving.crew import Crew
from tasks.serving.guard import Guard
from tasks.serving.hooks import Ordering
from tasks.serving.line import IN_FLIGHT
from tasks.serving.loaded import Loaded
from tasks.serving.metrics import Metrics
from tasks.serving.openapi import describe, page
from tasks.serving.outcomes import Telling
from tasks.serving.predicting import Predicting
from tasks.serving.protocols import MLFLOW, OWN, STREAM, Protocol
from tasks.serving.quick import Quick
from tasks.serving.succession import Succession
from tasks.serving.turnstile import Turnstile
from tasks.sources.upload import UploadError, Uploads
from tasks.stores import marks
from tasks.stores.predictions import Predictions, Told
from tasks.stores.seals import Seals

LOG = logging.getLogger("keepfit.serving")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
GRACE_SECONDS = 6  # that requests have to end; supervisord waits for 8


# -- the door ---------------------------------------------------------------------------------------------------------
class Door:
    """The routes, and what they share: champions, predictions, uploads, counters."""

    def __init__(self, settings: Settings, in_flight: int = IN_FLIGHT, *, loads_first: bool = False) -> None:
        """With `loads_first` nobody is let in before the champions are loaded: of several processes the others answer meanwhile."""
        self.settings = settings
        self._loads_first = loads_first
        loaded = Loaded(settings.library_skew, _secret(settings), Seals.of(settings))
        self.succession = Succession(settings.journal(), settings.bundles, loaded, copies=settings.home / "served")
        self.meter = Metrics(self.succession)
        self.beside = Beside(self.succession, settings, self.meter)
        self.predicting = Predicting(
            self.succession, Predictions(settings.home), self.meter, self.beside, in_flight, unlogged=settings.unlogged
        )
        self.telling = Telling(Told(settings.home), self.predicting.line, self.predicting.champion)
        self.uploads = Uploads(settings)
        self.ordering = Ordering(settings, self.predicting.line)
        self.is_leaving = False
        self._endpoints = {OWN: self.predict, MLFLOW: self.invocations}  # of those that are answered quickly, too

    def routes(self) -> list[Route]:
        """Every path, what answers there, and which role of a token opens it."""
        return [
            Route("/projects/{project}/predict", _for("predict", self.predict), methods=["POST"]),
            Route("/projects/{project}/outcomes", _for("outcomes", self.outcomes), methods=["POST"]),
            Route("/projects/{project}/batches", _for("batches", self.batches), methods=["POST", "PUT"]),
            Route("/projects/{project}/trainings", _for("trainings", self.training), methods=["POST"]),
            Route("/projects/{project}/trainings/{id}", _for("trainings", self.ordered), methods=["GET"]),
            Route("/hooks/{name}", self.hook, methods=["POST"]),
            Route("/projects/{project}", self.project, methods=["GET"]),
            Route("/projects", self.projects, methods=["GET"]),
            Route("/v2/models/{project}/infer", _for("predict", self.infer), methods=["POST"]),
            Route("/v2/models/{project}/ready", self.model_ready, methods=["GET"]),
            Route("/v2/models/{project}", self.model, methods=["GET"]),
            Route("/v2/health/live", self.healthz, methods=["GET"]),
            Route("/v2/health/ready", self.readyz, methods=["GET"]),
            Route("/v2", self.server, methods=["GET"]),
            Route("/invocations/{project}", _for("predict", self.invocations), methods=["POST"]),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", _for("metrics", self.metrics), methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
        ]

    def app(self) -> ASGIApp:
        """The application that a server runs."""
        handlers: dict[Any, Any] = {HTTPException: _not_here, Refusal: _refused, Exception: _failed}
        inner = Starlette(routes=self.routes(), lifespan=self._life, exception_handlers=handlers)
        return Guard(Quick(inner, self.predicting.quickly, self._endpoints), self.settings, self.meter.count)

    @asynccontextmanager
    async def _life(self, _app: Starlette) -> AsyncGenerator[None]:
        if self._loads_first:
            await asyncio.to_thread(self.succession.look)
        followers = [self.succession.follow(told=self.meter.look), self.beside.others.follow()]
        tasks = [asyncio.create_task(follower) for follower in followers]
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        self.predicting.close()

    # -- predictions and batches --------------------------------------------------------------------------------------
    async def predict(self, request: Request) -> Response:
        """Scores rows with the champion; every prediction is in the log before it is out."""
        return await self.predicting.answer(request, _protocol(request))

    def at_once(self, named: tuple[str, Protocol], bodies: Sequence[bytes]) -> list[bytes | None]:
        """The bodies of the answers to those who are let in already for a project, counted; None for each that must go the usual way."""
        (project, protocol), began = named, time.perf_counter()
        try:
            contents = self.predicting.quickly(project, protocol, bodies)
        except Exception:  # noqa: BLE001 – the usual way meets it again, and there is the one place that says so
            return [None] * len(bodies)
        if count := len(contents) - contents.count(None):
            self.meter.answered(self._endpoints[protocol].__name__, project, 200, time.perf_counter() - began, count)
        return contents

    async def infer(self, request: Request) -> Response:
        """As `predict`, in the words of the Open Inference Protocol."""
        return await self.predicting.answer(request, inference.protocol(request.headers.get(inference.HEADER)))

    async def invocations(self, request: Request) -> Response:
        """As `predict`, in the words of MLflow."""
        return await self.predicting.answer(request, MLFLOW)

    async def outcomes(self, request: Request) -> Response:
        """Takes what came true of predictions, by their ids; it is on the disk before it is acknowledged."""
        return await self.telling.answer(request)

    async def batches(self, request: Request) -> Response:
        """Takes a file into the inbox, from where it lands."""
        project, name = request.path_params["project"], request.query_params.get("name")
        peer = request.client.host if request.client else None
        try:
            arrived = await self.uploads.receive(
                project, name, request.headers, peer, request.stream(), known=request.scope["is_known"]
            )
        except UploadError as error:
            raise Refusal(error.status, str(error), **error.headers, Connection="close") from None
        except ClientDisconnect:
            raise Refusal(400, "The body ended early. Send it again.", Connection="close") from None
        LOG.info("%s: batch %s arrived (%d bytes)", project, arrived["batch"][:12], arrived["bytes"])
        return as_json(arrived, 202)

    async def training(self, request: Request) -> Response:
        """Takes an order for a training; it is on record before it is acknowledged."""
        return await self.ordering.training(request)

    async def ordered(self, request: Request) -> Response:
        """What came of an order."""
        return await self.ordering.ordered(request)

    async def hook(self, request: Request) -> Response:
        """Takes a message of another program, if it is signed; it is on record before it is acknowledged."""
        return await self.ordering.hook(request)

    # -- who answers --------------------------------------------------------------------------------------------------
    async def projects(self, _request: Request) -> Response:
        """Every released project with the version that answers for it."""
        names = sorted({*self.succession.champions, *(self.succession.wanted or {})})
        return as_json({"projects": [self._describe(name) for name in names]})

    async def project(self, request: Request) -> Response:
        """One project: as in the list, with what a row must hold."""
        champion = self.predicting.champion(request.path_params["project"])
        manifest = champion.manifest
        more = {
            "features": manifest.features,
            "ignored": manifest.ignored,
            "computed": manifest.computed,
            "kind": manifest.kind,
        }
        known = ("classes", "positive", "own", "threshold", "interval")
        decides = {name: getattr(manifest, name) for name in known if getattr(manifest, name) not in (None, ())}
        return as_json({**self._describe(champion.release.project), **more, **decides})

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
        if pair := self.beside.others.pairs.get(project):
            described["beside"] = {"version": pair.beside, "phase": pair.rollout.phase}
        if refused:
            described["refused"] = refused.describe()
        return described

    async def server(self, _request: Request) -> Response:
        """The server, in the words of the Open Inference Protocol."""
        return as_json(
            {"name": "keepfit", "version": importlib.metadata.version("keepfit"), "extensions": [inference.EXTENSION]}
        )

    async def model(self, request: Request) -> Response:
        """A champion, in the words of the Open Inference Protocol: its tensors, in which -1 stands for the number of rows."""
        champion = self.predicting.champion(request.path_params["project"])
        return as_json(inference.metadata(champion))

    async def model_ready(self, request: Request) -> Response:
        """200 when somebody answers for this project."""
        champion = self.predicting.champion(request.path_params["project"])
        return as_json({"name": champion.release.project, "ready": True})

    async def healthz(self, _request: Request) -> Response:
        """200 as long as the process answers."""
        return as_json({"alive": True})

    async def readyz(self, request: Request) -> Response:
        """200 when somebody answers for every released project; a refused successor is named, the old one counts."""
        succession = self.succession
        missing = succession.missing()
        ready = succession.wanted is not None and not missing and not self.is_leaving
        if not request.scope["roles"]:  # whoever shows no token learns nothing about projects
            return as_json({"ready": ready}, 200 if ready else 503)
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
        return as_json(body, 200 if ready else 503)

    # -- counters and description -------------------------------------------------------------------------------------
    async def metrics(self, _request: Request) -> Response:
        """The counters in Prometheus' text format."""
        return self.meter.page()

    async def openapi(self, _request: Request) -> Response:
        """The OpenAPI description of the routes, with the features of every champion."""
        return as_json(describe(self.succession.champions))

    async def docs(self, _request: Request) -> Response:
        """The same as a page that loads nothing from elsewhere."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(page(describe(self.succession.champions)), headers={"content-security-policy": policy})


def _secret(settings: Settings) -> bytes | None:
    """The secret of the marks in the log; without it answers go on, and an erasure finds none of them by its key."""
    try:
        return marks.secret(settings.home, make=True)
    except (KeepfitError, OSError) as error:
        LOG.error("erasures will find no prediction by its key: %s", error)  # noqa: TRY400 -- the sentence is the whole matter
        return None


def _protocol(request: Request) -> Protocol:
    """In which words a request for predictions of keepfit's own speaks: JSON, or an Arrow stream."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != STREAM:
        return OWN
    from tasks.serving import arrow

    return arrow.ARROW if STREAM in request.headers.get("accept", "").lower() else arrow.ARROW_AS_JSON


def _for(role: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that only tokens with this role open."""

    @functools.wraps(endpoint)
    async def admitted(request: Request) -> Response:
        if role not in request.scope["roles"]:
            raise Refusal(403, f"This token does not open it; wanted one with the role {role}.", Connection="close")
        return await endpoint(request)

    return admitted


async def _refused(_request: Request, refusal: Exception) -> Response:
    return refusal.response() if isinstance(refusal, Refusal) else FAILED.response()


async def _failed(_request: Request, _error: Exception) -> Response:
    return FAILED.response()  # Starlette raises the error again, and the guard logs it


async def _not_here(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    what = "This path takes another method" if status == 405 else "Nothing is at this path"
    return Refusal(status, f"{what}; /docs lists what there is.").response()


# -- the process ------------------------------------------------------------------------------------------------------
def main() -> None:
    """Serves at the address of the settings, in as many processes as they say."""
    settings = Settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        access.check(settings)
    except StackError as error:
        LOG.error("not started: %s", error)  # noqa: TRY400 – the sentence is the whole matter
        raise SystemExit(1) from None
    if settings.serving_workers == 1:
        serve(settings)
    else:
        _secret(settings)  # made before several processes look for it
        Crew(settings).run()


class Server(uvicorn.Server):
    """uvicorn's server, but that it answers a little longer when it is told to stop: not ready any more, so that nobody new comes."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops after a while; at once when somebody presses Ctrl-C, or before anything is answered."""
        if sig == signal.SIGINT or not self.started:
            super().handle_exit(sig, frame)
            return
        if self._door.is_leaving:  # whoever ends a whole group of processes tells each more than once
            return
        self._door.is_leaving = True
        LOG.info("stops in %g s", self._door.settings.drain_seconds)
        asyncio.get_running_loop().call_later(self._door.settings.drain_seconds, super().handle_exit, sig, frame)


def serve(settings: Settings, sockets: list[socket.socket] | None = None, *, loads_first: bool = False) -> None:
    """Runs the server until it is told to stop; requests that are being answered are finished first.

    Args:
        settings: whose champions answer, and where.
        sockets: which listen already, in place of the address of the settings.
        loads_first: nobody is let in before the champions are loaded.
    """
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # before scikit-learn is imported: with two threads on a busy machine one row took 70 ms instead of 3
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    _keep_freed()
    host, port = sockets[0].getsockname()[:2] if sockets else (settings.host, settings.serving_port)
    LOG.info("serving on %s:%d, process %d", host, port, os.getpid())
    door = Door(settings, loads_first=loads_first)
    gc.collect()
    gc.freeze()  # what is imported stays; to look through it at each of the collector's rounds took a tenth of the time of big requests
    connections = Connections(room(), door.meter.closed)
    turnstile = Turnstile(door.predicting.line, door.meter.turned_away, door.at_once, connections=connections)
    config = uvicorn.Config(
        door.app(), host=settings.host, port=settings.serving_port, lifespan="on", ws="none", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=GRACE_SECONDS,
        http=turnstile,  # ty: ignore[invalid-argument-type]
        ssl_certfile=settings.tls_cert, ssl_keyfile=settings.tls_key,
    )  # fmt: skip
    config.load()
    turnstile.encrypts, config.ssl = config.ssl, None  # from its first byte a connection counts
    server = Server(config, door)
    with suppress(KeyboardInterrupt):
        server.run(sockets)


def _keep_freed() -> None:
    """Lets the C library keep what big requests free for the next one: given back and fetched anew page by page, it took a tenth of their time.

    Of what is free up to 128 MiB stay with each of the few threads that allocate. Elsewhere than under glibc nothing changes.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 128 << 20)


if __name__ == "__main__":
    main()
