"""What a serving process counts, in Prometheus' text format; several processes of one server are added up.

Whoever starts several processes names a folder in PROMETHEUS_MULTIPROC_DIR; each keeps its numbers in files there, and whichever is asked
adds all of them up. A process that died has what it counted stay.
"""

import datetime as dt
import importlib.metadata
import os
from typing import Any, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.responses import Response
from starlette.types import Scope

from tasks.serving import counters
from tasks.serving.connections import Why
from tasks.serving.line import Line
from tasks.serving.succession import Succession

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The counters of one process."""

    def __init__(self, succession: Succession) -> None:
        self._succession = succession
        self._line: Line | None = None
        self._swaps = 0
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            counters.install()
        self._registry = registry = CollectorRegistry()
        self._children: dict[tuple[Any, ...], Any] = {}  # a look-up by labels costs more than the counting
        self._requests = Counter(
            "keepfit_requests", "Answered requests", ["route", "project", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "keepfit_request_seconds", "Seconds from a request's head to the end of its answer", ["route", "project"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._predict_seconds = Histogram(
            "keepfit_predict_seconds", "Seconds to check and score the rows of a request", ["project"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._predictions = Counter("keepfit_predictions", "Predictions", ["project"], registry=registry)
        self._unlogged = Counter(
            "keepfit_predictions_unlogged", "Predictions that were answered but not logged", ["project"],
            registry=registry,
        )  # fmt: skip
        self._rolled = Counter(
            "keepfit_rollout_rows", "Rows of a rollout: scored by the other model, failed there, dropped for lack of room, answered "
            "by a canary, or by the champion in its place", ["project", "what"], registry=registry,
        )  # fmt: skip
        self._closed = Counter(
            "keepfit_connections_closed", "Connections that were closed on their clients: those were late, or others needed the room",
            ["why"], registry=registry,
        )  # fmt: skip
        for why in get_args(Why):
            self._closed.labels(why)  # a series that is 0 before any is
        self._swapped = Counter("keepfit_swaps", "Champions put in place, in every process", registry=registry)
        self._in_flight = _gauge(registry, "keepfit_requests_in_flight", "Requests that are let in", mode="livesum")
        self._version = _gauge(registry, "keepfit_champion_version", "The version that answers", "project")
        self._generation = _gauge(
            registry, counters.GENERATION, "The release that every process answers with, or the oldest one of any; 0: none yet", "project", mode="livemin"
        )  # fmt: skip
        self._since = _gauge(
            registry, "keepfit_champion_released_timestamp_seconds", "When it was released, Unix time", "project"
        )
        self._refusing = _gauge(
            registry, "keepfit_release_refused", "1 while the newest release does not load", "project", mode="livemax"
        )
        _gauge(registry, "keepfit_build_info", "Always 1; says which keepfit this is", "version").labels(
            importlib.metadata.version("keepfit")
        ).set(1)
        self._all = registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            self._all = CollectorRegistry()
            MultiProcessCollector(self._all)
        else:
            ProcessCollector(registry=registry)

    def watch(self, line: Line) -> None:
        """Tells of a line how many are in."""
        self._line = line

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts an answer under names of our own: invented paths and projects make no new series (faults: V-15)."""
        route = getattr(scope.get("endpoint"), "__name__", "none")
        project = scope.get("path_params", {}).get("project", "")
        self.answered(route, project if project in self._succession.champions else "", status, seconds)

    def answered(self, route: str, project: str, status: int, seconds: float, count: int = 1) -> None:
        """Counts answers of a route for a project that has a champion, or for none; each took so long."""
        self._child(self._requests, route, project, str(status)).inc(count)
        observed = self._child(self._request_seconds, route, project)
        for _ in range(count):
            observed.observe(seconds)

    def turned_away(self) -> None:
        """Counts a request that was refused before it was taken apart, so that nobody knows whose it was."""
        self._child(self._requests, "turnstile", "", "429").inc()

    def closed(self, why: Why) -> None:
        """Counts a connection that was closed on its client."""
        self._child(self._closed, why).inc()

    def predicted(self, project: str, count: int, seconds: float, requests: int = 1) -> None:
        """Counts the predictions of a request, or of several that were answered together."""
        self._child(self._predictions, project).inc(count)
        observed = self._child(self._predict_seconds, project)
        for _ in range(requests):
            observed.observe(seconds)

    def lost(self, project: str, count: int) -> None:
        """Counts predictions that the log lacks."""
        self._child(self._unlogged, project).inc(count)

    def rolled(self, project: str, what: str, count: int) -> None:
        """Counts rows of a rollout."""
        self._child(self._rolled, project, what).inc(count)

    def look(self) -> None:
        """Takes over how things stand; several processes are looked at by any of them, so each does it by itself."""
        swaps = self._succession.swaps
        self._swapped.inc(swaps - self._swaps)
        self._swaps = swaps
        self._in_flight.set(self._line.count if self._line else 0)
        for project, champion in self._succession.champions.items():
            self._version.labels(project).set(champion.release.version)
            self._since.labels(project).set(_timestamp(champion.release.at))
            self._child(self._unlogged, project)  # a series that is 0 before anything is lost
        for project in {*self._succession.champions, *(self._succession.wanted or {})}:
            champion = self._succession.champions.get(project)
            self._generation.labels(project).set(champion.release.generation if champion else 0)
        for project in {*self._succession.champions, *self._succession.refused}:
            self._refusing.labels(project).set(project in self._succession.refused)

    def page(self) -> Response:
        """Everything that was counted."""
        self.look()
        return Response(generate_latest(self._all), headers={"content-type": CONTENT_TYPE_LATEST})

    def _child(self, family: Any, *labels: str) -> Any:
        if (child := self._children.get((family, *labels))) is None:
            child = self._children[family, *labels] = family.labels(*labels)
        return child


def _gauge(registry: CollectorRegistry, name: str, says: str, *labels: str, mode: str = "mostrecent") -> Gauge:
    """How something stands; of several processes the newest word counts, or what `mode` says."""
    return Gauge(name, says, labels, registry=registry, multiprocess_mode=mode)  # ty: ignore[invalid-argument-type]


def _timestamp(at: str) -> float:
    try:
        return dt.datetime.fromisoformat(at).timestamp()
    except ValueError:  # the journal is written by others, too
        return 0.0
