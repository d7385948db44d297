"""Plan: how a project is watched; the section `watch:` of project.yaml."""

from pydantic import BaseModel, Field

from tasks.ml.policy import OnSchedule
from tasks.ml.watching.calibration import DriftPlan
from tasks.ml.watching.incident import IncidentPlan
from tasks.ml.watching.oddness import AnomalyPlan
from tasks.ml.watching.realised import PerformancePlan


class WatchPlan(BaseModel, frozen=True, extra="forbid"):
    """When the watch looks, how far back, and what it calls an alarm."""

    schedule: OnSchedule | None = Field(
        default=OnSchedule(cron="17 5 * * *"), description="when to look, whatever else happens; null: never by the clock"
    )  # fmt: skip
    on_batch: bool = Field(default=True, description="look when a batch has landed, too")
    history: int = Field(default=26, ge=2, le=520, description="windows that the curve shows")
    drift: DriftPlan = DriftPlan()
    performance: PerformancePlan = PerformancePlan()
    anomalies: AnomalyPlan = AnomalyPlan()
    incidents: IncidentPlan = IncidentPlan()

    @property
    def looks(self) -> int:
        """The looks of the past that a look reads: some of each window that the curve shows."""
        return 4 * self.history
