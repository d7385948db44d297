"""Monitor: what the champion answered against what it learned and what came true; what moved goes on record, and out as an alarm."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import TypeAdapter

from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.evaluate import Bundle
from tasks.ml import threads
from tasks.ml.features import matrix
from tasks.ml.identity import digest
from tasks.ml.metrics import Estimate
from tasks.ml.questions import Questions
from tasks.ml.split import Split
from tasks.ml.uncertain import estimate
from tasks.ml.watching.calibration import calibrated
from tasks.ml.watching.classes import Performance
from tasks.ml.watching.domain import sampled
from tasks.ml.watching.findings import GRAVEST, Findings, Known, examine
from tasks.ml.watching.reference import Sketch, daily, merged
from tasks.releasing import utc
from tasks.stores.alarms import sound
from tasks.stores.journal import Journal, Release
from tasks.stores.lake import Lake, parts, snapshot_named
from tasks.stores.observed import Observed, observed
from tasks.stores.remembered import Learned, Remembered

FEWEST = 30  # rows with an outcome, below which nothing is measured
SOUNDED: dict[Literal["drift", "decay"], tuple[str, ...]] = {"drift": ("inputs", "predictions"), "decay": ("performance", "estimate")}  # fmt: skip
NONE = {"realised": None, "estimated": None, "low": None, "high": None}


@dataclass(frozen=True)
class Span:
    """A window of time.

    Attributes:
        since, until: datetime64[us], UTC; `since` is not in it, `until` is.
    """

    since: np.datetime64
    until: np.datetime64

    def of(self, seen: Observed) -> Observed:
        """What was answered in it."""
        return seen.where((seen.at > self.since) & (seen.at <= self.until))

    def told(self) -> dict[str, str]:
        """As JSON."""
        since, until = (np.datetime_as_string(each, unit="s", timezone="UTC") for each in (self.since, self.until))
        return {"since": str(since), "until": str(until)}


class Asked:
    """One version, asked about rows that it answered."""

    def __init__(self, use: Project, settings: Settings, release: Release) -> None:
        self.use, self.release = use, release
        self.bundle = Bundle.read(settings.bundles(use.project) / str(release.version), release.digest)

    @cached_property
    def split(self) -> Split:
        """How its rows were split."""
        said = self.bundle.manifest
        return TypeAdapter(Split).validate_python(said["split"]) if "split" in said else self.use.split

    def unseen(self, seen: Observed) -> Observed:
        """Those rows that it surely has not learned from; of rows that were served it cannot have."""
        if seen.source == "served" or not self.split.by_time:
            return seen
        return seen.where(seen.at > _instant(dt.datetime.fromisoformat(self.bundle.manifest["seen_until"])))

    def says(self, rows: pd.DataFrame) -> np.ndarray:
        """Its answers to rows."""
        return self.bundle.answers(self.use, matrix(rows, self.use.sent))

    def measured(self, seen: Observed) -> Estimate | None:
        """The project's metric on rows whose outcome is known, with its interval; None where they are too few or of one class."""
        if len(seen) < FEWEST:
            return None
        questions = Questions.of(self.use.task, self.use.sent, seen.rows, self.use.search.seed)
        if self.use.task.unlearnable(questions.truth, "window"):
            return None
        said = self.bundle.answers(self.use, questions.asked)
        return estimate(self.use.goal, questions.truth, said, resamples=500, seed=self.use.search.seed)


@task(name="look", cache_policy=NO_CACHE)
def look(project: str, reason: str) -> dict[str, Any]:
    """Looks at the newest window, puts what it saw on record, and shows it in Prefect."""
    settings = Settings()
    seen = Monitor(Project.named(project, settings), settings).look()
    get_run_logger().info("%s (%s): %s", seen["verdict"], reason, seen["reason"])
    return seen


class Monitor:
    """Looks at one project."""

    def __init__(self, use: Project, settings: Settings, clock: Callable[[], dt.datetime] = utc) -> None:
        self.use, self._settings, self._clock = use, settings, clock
        self.journal = Journal(settings.journal())
        self.plan = use.watch

    def look(self) -> dict[str, Any]:
        """One look at the newest window; on record when this returns.

        Returns:
            {"project", "at", "version", "window", "rows", "drift", "predictions", "performance", "alarms", "verdict", "reason", "curve"}.
        """
        now, champion = self._clock(), self.journal.champion(self.use.project)
        seen = self._nobody() if champion is None else self._looked(champion, now)
        told: dict[str, Any] = {"project": self.use.project, "at": now.isoformat(), **seen}
        until = told["window"]["until"] if told["window"] else ""
        self.journal.record_watch(
            project=self.use.project, at=now, version=told["version"], verdict=told["verdict"], until=until, detail=told
        )
        self._sound(told, now)
        return told

    def _sound(self, told: dict[str, Any], now: dt.datetime) -> None:
        """Alarms go out, one event for drift and one for decay; a look at the same window again says nothing new."""
        for kind, moved in SOUNDED.items():
            loud = [alarm for alarm in told["alarms"] if alarm["kind"] in moved]
            what = next((each for each in GRAVEST if any(alarm["class"] == each for alarm in loud)), None)
            if what:
                said = " ".join(alarm["says"] for alarm in loud if alarm["class"] == what)
                incident = f"{told['version']} {told['window']['until']}"
                sound(self.use, self.journal, kind, what, reason=said, incident=incident, at=now)

    def _nobody(self) -> dict[str, Any]:
        reason = f"{self.use.project} has no champion yet: `keepfit train {self.use.project}` makes one"
        return {"version": 0, "window": None, "rows": 0, "drift": {}, "predictions": {}, "performance": NONE, "alarms": [], "verdict": "no champion", "reason": reason, "curve": []}  # fmt: skip

    def _looked(self, champion: Release, now: dt.datetime) -> dict[str, Any]:
        days = self.plan.drift.days
        seen = observed(self.use, self._settings, now - dt.timedelta(days=days * (self.plan.history + 1)), now)
        version = Asked(self.use, self._settings, champion)
        mine = version.unseen(seen.where(seen.version == champion.version))
        spans = self._spans(seen)
        performance, told = self._performance(version, mine, spans[-1])
        found = self._examined(version, mine, spans, performance)
        return {
            "version": champion.version, "window": {"source": seen.source, "days": days, **spans[-1].told()}, "rows": found.rows,
            "drift": {name: drift.model_dump(mode="json") for name, drift in found.drift.items()},
            "predictions": {name: drift.model_dump(mode="json") for name, drift in found.predictions.items()},
            "performance": told, "alarms": [alarm.model_dump(mode="json", by_alias=True) for alarm in found.alarms],
            "verdict": found.verdict, "reason": found.says, "curve": self._curve(seen, spans),
        }  # fmt: skip

    def _spans(self, seen: Observed) -> list[Span]:
        """The windows that end with the newest row, oldest first."""
        days = np.timedelta64(self.plan.drift.days, "D")
        end = _instant(seen.until)
        return [Span(end - (place + 1) * days, end - place * days) for place in reversed(range(self.plan.history))]

    # -- performance --------------------------------------------------------------------------------------------------
    def _matured(self, seen: Observed) -> Observed:
        """Rows whose outcome is known and will not change any more."""
        if len(seen) == 0 or self.use.contract.target is None:
            return seen if self.use.contract.target is None else seen.where(np.zeros(0, dtype=bool))
        end = _instant(seen.until)
        old = end - seen.at >= np.timedelta64(round(self.use.split.matures * 86_400), "s")
        return seen.where(old & self.use.labelled(seen.rows).to_numpy())

    def _performance(self, version: Asked, mine: Observed, newest: Span) -> tuple[Performance, dict[str, Any]]:
        """What is known of the metric in the newest window whose outcomes have matured, and the same as JSON."""
        late = np.timedelta64(round(self.use.split.matures * 86_400), "s")
        ready = self._matured(Span(newest.since - late, newest.until - late).of(mine))
        came = version.measured(ready) if self.use.task.needs_labels else None
        pending = len(newest.of(mine)) - len(self._matured(newest.of(mine)))
        told = {
            "metric": self.use.metric, "at_training": version.release.value, "rows": len(ready), "pending": pending,
            "realised": came.value if came else None, "realised_low": came.low if came else None, "realised_high": came.high if came else None,
            **dict.fromkeys(("estimated", "low", "high")),
        }  # fmt: skip
        known = Performance(
            metric=self.use.goal.label, higher_is_better=self.use.goal.greater_is_better, expected=version.release.value,
            realised=told["realised"], realised_low=told["realised_low"], realised_high=told["realised_high"],
        )  # fmt: skip
        return known, told

    def _curve(self, seen: Observed, spans: list[Span]) -> list[dict[str, Any]]:
        """What each version's answers were worth, window by window, where enough came true."""
        releases = {release.version: release for release in self.journal.releases(self.use.project)}
        asked = {number: Asked(self.use, self._settings, releases[number]) for number in set(seen.version.tolist()) & set(releases)}  # fmt: skip
        points = []
        for span in spans:
            here = self._matured(span.of(seen))
            for number in sorted(set(here.version.tolist()) & set(asked)):
                value = asked[number].measured(asked[number].unseen(here.where(here.version == number)))
                if value:
                    points.append({**span.told(), "version": number, **value.model_dump()})
        return points

    # -- drift --------------------------------------------------------------------------------------------------------
    def _examined(self, version: Asked, mine: Observed, spans: list[Span], performance: Performance) -> Findings:
        """The newest window against the rows that the version was made of, and against the windows just before it."""
        learned, rows = self._remembered(version)
        window, plan = spans[-1].of(mine), self.plan.drift
        before = [each for span in spans[-1 - plan.rolling : -1] if len(each := span.of(mine))]
        rolling = merged([learned.fixed.like(matrix(each.rows, self.use.sent), version.says(each.rows)) for each in before])  # fmt: skip
        features = matrix(window.rows, self.use.sent)
        said = version.says(window.rows) if len(window) else None
        known = Known(learned.fixed, learned.thresholds, rolling, rows, performance)
        return examine(known, features, said, plan, seed=self.use.search.seed, threads=threads.share(1))

    def _remembered(self, version: Asked) -> tuple[Learned, pd.DataFrame]:
        """What the version's rows look like; made of its snapshot when it is asked for the first time."""
        key = digest([version.release.digest, self.plan.drift.model_dump(mode="json")])
        kept = Remembered.of(self._settings, self.use.project, version.release.version, key)
        found = kept.read()
        if found is None:
            found = self._learned(version)
            kept.write(*found)
        return found

    def _learned(self, version: Asked) -> tuple[Learned, pd.DataFrame]:
        """Sketch, thresholds and some rows; answers only of rows that taught nothing, as those of the others are surer than they will be."""
        train, validation = self._taught(version)
        whole, seed = pd.concat([train, validation], ignore_index=True), self.use.search.seed
        features, held = matrix(whole, self.use.sent), matrix(validation, self.use.sent)
        said, plan, time = version.says(validation), self.plan.drift, self.use.contract.time
        fixed = Sketch.of(features, None, self.use.sent)
        answered = Sketch.of(held[[]], said)
        at, then = (rows[time].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy() for rows in (whole, validation))
        weeks = [features[mask] for mask in _windows(at, plan.days)]
        some = [sampled(week, plan.sample, seed) for week in weeks if len(week) >= plan.fewest]
        ours = calibrated(fixed, daily(fixed, features, at), plan, some, seed=seed, threads=threads.share(1))
        theirs = calibrated(answered, daily(answered, held[[]], then, said), plan, seed=seed)
        learned = Learned(
            fixed=fixed.model_copy(update={"predictions": answered.predictions}),
            thresholds=ours.model_copy(update={"predictions": theirs.predictions}), first=str(at.min()), last=str(at.max()),
        )  # fmt: skip
        return learned, sampled(features, plan.sample, seed).reset_index(drop=True)

    def _taught(self, version: Asked) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Train and validation rows of its snapshot; where rows of it were erased since, what is left of them."""
        root, use = self._settings.lake(self.use.project), self.use.model_copy(update={"split": version.split})
        lake = Lake(use.project, root, use.contract)
        try:
            snapshot = snapshot_named(lake, version.bundle.manifest["snapshot"])
        except ArtifactError:
            snapshot = lake.snapshot()
        if snapshot is None:
            raise ArtifactError(f"no row of {use.project} is left to compare with. Land some and train again.")
        split = parts(use, snapshot, root)
        return split.train, split.validation


def _instant(at: dt.datetime) -> np.datetime64:
    """A moment as datetime64[us], UTC."""
    return np.datetime64(at.astimezone(dt.UTC).replace(tzinfo=None), "us")


def _windows(at: np.ndarray, days: int) -> list[np.ndarray]:
    """Which rows are in each window that ends with the newest one, oldest first: (n,) bool each."""
    place = (at.max() - at) // np.timedelta64(days, "D")
    return [place == number for number in range(int(place.max()), -1, -1)]
