"""The serving process: `python -m tasks.serving.app` answers over HTTP with the champions that the journal names.

It needs the journal and the bundles, and nothing else that runs. What a client sent is never repeated, neither in
answers nor in logs.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tasks.config.settings import Settings
from tasks.serving.answers import FAILED, Refusal, as_json
from tasks.serving.champion import Succession
from tasks.serving.guard import Guard
from tasks.serving.metrics import Metrics
from tasks.serving.openapi import describe, page
from tasks.serving.predicting import IN_FLIGHT, Predicting
from tasks.sources.upload import UploadError, Uploads
from tasks.stores.predictions import Predictions

LOG = logging.getLogger("keepfit.serving")

GRACE_SECONDS = 10


# -- the door ---------------------------------------------------------------------------------------------------------
class Door:
    """The routes, and what they share: champions, predictions, uploads, counters."""

    def __init__(self, settings: Settings, in_flight: int = IN_FLIGHT) -> None:
        self.settings = settings
        self.succession = Succession(settings.journal(), settings.bundles, skew=settings.library_skew)
        self.metrics = Metrics(self.succession)
        self.predicting = Predicting(self.succession, Predictions(settings.home), self.metrics, in_flight)
        self.uploads = Uploads(settings)

    def app(self) -> ASGIApp:
        """The application that a server runs."""
        routes = [
            Route("/projects/{project}/predict", self.predict, methods=["POST"]),
            Route("/projects/{project}/batches", self.batches, methods=["POST", "PUT"]),
            Route("/projects/{project}", self.project, methods=["GET"]),
            Route("/projects", self.projects, methods=["GET"]),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.measured, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {HTTPException: _not_here, Refusal: _refused, Exception: _failed}
        return Guard(
            Starlette(routes=routes, lifespan=self._life, exception_handlers=handlers),
            self.settings,
            self.metrics.count,
        )

    @asynccontextmanager
    async def _life(self, _app: Starlette) -> AsyncGenerator[None]:
        follower = asyncio.create_task(self.succession.follow())
        yield
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        self.predicting.close()

    # -- predictions and batches --------------------------------------------------------------------------------------
    async def predict(self, request: Request) -> Response:
        """Scores rows with the champion; every prediction is in the log before it is out."""
        return Response(await self.predicting.answer(request), media_type="application/json")

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
        return as_json(arrived, 202)

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
        known = ("classes", "positive", "threshold", "interval")
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
        if refused:
            described["refused"] = refused.describe()
        return described

    async def healthz(self, _request: Request) -> Response:
        """200 as long as the process answers."""
        return as_json({"alive": True})

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
            "journal": succession.trouble or "readable",
        }
        return as_json(body, 200 if ready else 503)

    # -- counters and description -------------------------------------------------------------------------------------
    async def measured(self, _request: Request) -> Response:
        """The counters in Prometheus' text format."""
        return self.metrics.page()

    async def openapi(self, _request: Request) -> Response:
        """The OpenAPI description of the routes, with the features of every champion."""
        return as_json(describe(self.succession.champions))

    async def docs(self, _request: Request) -> Response:
        """The same as a page that loads nothing from elsewhere."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(page(describe(self.succession.champions)), headers={"content-security-policy": policy})


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
