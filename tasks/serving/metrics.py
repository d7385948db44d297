"""What a serving process counts, in Prometheus' text format."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response
from starlette.types import Scope

from tasks.serving.champion import Succession


class Metrics:
    """The counters of one process."""

    def __init__(self, succession: Succession) -> None:
        self._succession = succession
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "keepfit_requests", "Answered requests", ["route", "project", "status"], registry=registry
        )
        self.seconds = Histogram(
            "keepfit_predict_seconds", "Seconds to check and score a request", ["project"], registry=registry
        )
        self.predictions = Counter("keepfit_predictions", "Predictions", ["project"], registry=registry)
        self.unlogged = Counter(
            "keepfit_predictions_unlogged",
            "Predictions that were answered but not logged",
            ["project"],
            registry=registry,
        )
        self.in_flight = Gauge("keepfit_requests_in_flight", "Requests that are being scored", registry=registry)
        self._version = Gauge("keepfit_champion_version", "The version that answers", ["project"], registry=registry)
        self._refusing = Gauge(
            "keepfit_release_refused", "1 while the newest release does not load", ["project"], registry=registry
        )
        Gauge("keepfit_swaps", "Champions put in place since the start", registry=registry).set_function(
            lambda: succession.swaps
        )

    def count(self, scope: Scope, status: int) -> None:
        """Counts an answer under names of our own: invented paths and projects make no new series (faults: V-15)."""
        route = getattr(scope.get("endpoint"), "__name__", "none")
        project = scope.get("path_params", {}).get("project", "")
        self._requests.labels(route, project if project in self._succession.champions else "", str(status)).inc()

    def page(self) -> Response:
        """Everything that was counted."""
        for project, champion in self._succession.champions.items():
            self._version.labels(project).set(champion.release.version)
            self._refusing.labels(project).set(project in self._succession.refused)
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})
