"""Monitor: what the champion answered against what it learned and what came true; what moved goes on record, and out as an alarm."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import httpx
import numpy as np
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.asked import Answered, Asked
from tasks.config.names import artifact_key
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.incident import Noting
from tasks.measuring import Measuring
from tasks.ml import pages, threads
from tasks.ml.watching import anomalies, pictures, service
from tasks.ml.watching.alarm import Alarm, Kind, gravest
from tasks.ml.watching.curve import Shifts
from tasks.ml.watching.findings import Findings, Known, examine
from tasks.ml.watching.incident import Seen, Window, cleaned
from tasks.ml.watching.oddness import Found, History, Requests
from tasks.ml.watching.reference import merged
from tasks.ml.watching.standing import DRIFT, Standing
from tasks.releasing import utc
from tasks.stores.alarms import sound
from tasks.stores.arrivals import arrivals
from tasks.stores.journal import Journal, Release
from tasks.stores.observed import Observed, instant, observed
from tasks.stores.registry import Registry, as_json, impatient
from tasks.stores.served import Serving

SOUNDED: dict[Literal["drift", "decay"], tuple[Kind, ...]] = {"drift": DRIFT, "decay": ("performance", "estimate")}  # fmt: skip
UNKNOWN = {"realised": None, "estimated": None, "low": None, "high": None}
SILENT = frozenset({"no champion", "not asked", "no data", "too few rows"})  # verdicts that judge nothing


@task(name="look", cache_policy=NO_CACHE)
def look(project: str, reason: str) -> dict[str, Any]:
    """Looks at the newest window, puts what it saw on record, and shows it in Prefect and beside the version in MLflow."""
    settings = Settings()
    monitor = Monitor(Project.named(project, settings), settings)
    seen = monitor.look()
    get_run_logger().info("%s (%s): %s", seen["verdict"], reason, seen["reason"])
    if monitor.drawn:
        _show(monitor, seen, settings)
    return seen


@dataclass(frozen=True)
class Span:
    """A window of time.

    Attributes:
        since, until: datetime64[us], UTC; `since` is not in it, `until` is.
    """

    since: np.datetime64
    until: np.datetime64

    def of(self, rows: Answered) -> Answered:
        """What was answered in it."""
        return rows.where((rows.at > self.since) & (rows.at <= self.until))

    def told(self) -> dict[str, str]:
        """As JSON."""
        since, until = (np.datetime_as_string(each, unit="s", timezone="UTC") for each in (self.since, self.until))
        return {"since": str(since), "until": str(until)}


class Monitor:
    """Looks at one project.

    Attributes:
        drawn: pictures of the last look, PNG by name.
    """

    def __init__(self, use: Project, settings: Settings, clock: Callable[[], dt.datetime] = utc) -> None:
        self.use, self.settings, self._clock = use, settings, clock
        self.journal, self.plan = Journal(settings.journal()), use.watch
        self.drawn: dict[str, bytes] = {}

    def look(self) -> dict[str, Any]:
        """One look at the newest window; on record, its alarms joined to incidents and out, when this returns.

        Returns:
            {"project", "at", "version", "window", "rows", "drift", "not_compared", "predictions", "domain", "performance", "anomalies", "alarms", "judged",
            "repeated": kinds of alarms that an earlier look found, "incidents", "verdict", "reason"}.
        """
        now, landed = self._clock(), self.journal.landed(self.use.project)
        champion = self.journal.champion(self.use.project)
        seen = self._nobody() if champion is None else self._looked(champion, now)
        told: dict[str, Any] = {"project": self.use.project, "at": now.isoformat(), **seen}
        told["incidents"] = self._noted(told, now)
        self._sound(told, now)  # first: a look that is not on record is repeated, and says the same once
        interval = self.plan.schedule.interval(now) if self.plan.schedule else None
        until = told["window"]["until"] if told["window"] else ""
        self.journal.record_watch(
            project=self.use.project, at=now, version=told["version"], verdict=told["verdict"], until=until, detail=told, interval=interval,
            landed=landed,
        )  # fmt: skip
        return told

    @cached_property
    def past(self) -> list[dict[str, Any]]:
        """The looks before this one that pictures and comparisons need, read once."""
        return self.journal.watches(self.use.project, self.plan.looks)

    def _nobody(self) -> dict[str, Any]:
        return self._silent(
            "no champion", f"{self.use.project} has no champion yet: `keepfit train {self.use.project}` makes one"
        )

    def _silent(self, verdict: str, reason: str, version: int = 0) -> dict[str, Any]:
        """What is said where nothing is judged."""
        return {
            "version": version, "window": None, "rows": 0, "drift": {}, "not_compared": {}, "predictions": {}, "domain": None, "performance": UNKNOWN, "anomalies": {},
            "alarms": [], "verdict": verdict, "judged": [], "repeated": [], "reason": reason,
        }  # fmt: skip

    def _looked(self, champion: Release, now: dt.datetime) -> dict[str, Any]:
        version = Asked(self.use, self.settings, champion)
        if version.unasked:
            move = f"Nothing is compared until another one is champion: `keepfit train {self.use.project}` makes one"
            reason = f"version {champion.version} cannot be asked: {version.unasked}. {move}"
            return self._silent("not asked", reason, champion.version)
        days = max(self.plan.drift.days, self.plan.performance.days)
        seen = observed(
            self.use, self.settings, now - dt.timedelta(days=days * (self.plan.history + 1)), now,
            window=dt.timedelta(days=self.plan.drift.days), fewest=self.plan.drift.fewest,
        )  # fmt: skip
        spans = self._spans(seen)
        mine = version.about(version.unseen(seen.where(seen.version == champion.version)))
        releases = {release.version: release for release in self.journal.releases(self.use.project)}
        measuring = Measuring(version, self.settings, releases, seen, mine, spans[-1].of(mine))
        told = self._judged(measuring, spans, now)
        looks = [row["detail"] for row in self.past if row["until"]]
        self.drawn = {
            "curve": pictures.curve(measuring.curve([*looks, told], self.journal.trainings(self.use.project))),
            "drift": pictures.drift(self._shifts(told)),
        }
        return told

    def _judged(self, measuring: Measuring, spans: list[Span], now: dt.datetime) -> dict[str, Any]:
        """What is to be said of the newest window."""
        version, requests = measuring.version, self._counted()
        found, odd = self._examined(measuring, spans), self._anomalies(measuring.seen, requests, now)
        private = Noting(self.use, self.settings, self.plan.incidents).private
        ours, others = ([cleaned(alarm, private) for alarm in each.alarms] for each in (found, odd))
        is_silent, before = found.verdict in SILENT, self._stood(version.release.version)
        standing = before if is_silent else Standing.after(before, ours, measuring.seen.until, now, self.plan.drift)
        alarms = (*(ours if is_silent or standing is None else standing.told(ours)), *others)
        calm = found.verdict if is_silent else "ok"
        verdict = gravest(alarms) or calm
        apart = version.not_compared
        return {
            "version": version.release.version, "window": {"source": measuring.seen.source, "days": self.plan.drift.days, **spans[-1].told()}, "rows": found.rows,
            "drift": {name: drift.model_dump(mode="json") for name, drift in found.drift.items()}, "not_compared": apart,
            "predictions": {name: drift.model_dump(mode="json") for name, drift in found.predictions.items()},
            "domain": found.domain.model_dump(mode="json", exclude={"segments"}) if found.domain else None, "performance": measuring.told,
            "requests": requests, "anomalies": {check.name: check._asdict() for check in odd.checks},
            "alarms": [alarm.model_dump(mode="json", by_alias=True) for alarm in alarms], "verdict": verdict,
            "judged": [*found.judged, *measuring.judged, *odd.judged],
            "repeated": [*standing.repeated(now)] if standing else [],
            "standing": standing.model_dump(mode="json", by_alias=True) if standing else None,
            "reason": " ".join([
                *([found.says] if not found.alarms or is_silent else []), *(alarm.says for alarm in alarms),
                *([standing.says(now)] if standing and not is_silent else []),
                *(f"{name} cannot be compared: {why}." for name, why in apart.items()),
            ]),
        }  # fmt: skip

    def _stood(self, version: int) -> Standing | None:
        """What stood of a version's drift at the last look; None where it was not looked at since it is champion."""
        stood = self.past[-1]["detail"].get("standing") if self.past and self.past[-1]["version"] == version else None
        return Standing.model_validate(stood) if stood else None

    def _spans(self, seen: Observed) -> list[Span]:
        """The windows that end with the newest row, oldest first."""
        days, end = np.timedelta64(self.plan.drift.days, "D"), instant(seen.until)
        return [Span(end - (place + 1) * days, end - place * days) for place in reversed(range(self.plan.history))]

    def _examined(self, measuring: Measuring, spans: list[Span]) -> Findings:
        """The newest window against the rows that the version was made of, and against the windows just before it."""
        (learned, rows), plan, newest = measuring.version.remembered, self.plan.drift, measuring.newest
        before = [each for span in spans[-1 - plan.rolling : -1] if len(each := span.of(measuring.mine)) >= plan.fewest]
        rolling = merged([learned.fixed.like(each.features, each.said) for each in before])
        known = Known(learned.fixed, learned.thresholds, rolling, rows, measuring.known)
        return examine(known, newest.features, newest.said, plan, seed=self.use.search.seed, threads=threads.share(1))  # fmt: skip

    def _anomalies(self, seen: Observed, requests: tuple[int, int] | None, now: dt.datetime) -> Found:
        """What is odd about what landed, and about how it was answered."""
        asked = seen.where(np.full(len(seen), seen.source == "served"))
        serving = Serving(self.use.project, self.settings)
        batches, outcomes = arrivals(self.journal, serving, self.plan.anomalies.history)
        before = self.journal.last_watch(self.use.project)
        history = History(
            batches=batches, outcomes=outcomes, answered=asked.at, ms=asked.milliseconds, requests=self._requests(requests, now),
            since=before[0] if before else None, target=self.use.contract.target,
        )  # fmt: skip
        return anomalies.find(history, now, self.plan.anomalies, self.use.search.seed)

    def _requests(self, newest: tuple[int, int] | None, now: dt.datetime) -> list[Requests]:
        """The requests between looks, as the server had counted them at each."""
        past = [(row["at"], row["detail"].get("requests")) for row in self.past]  # fmt: skip
        known = [(dt.datetime.fromisoformat(at), (int(count[0]), int(count[1]))) for at, count in [*past, (now.isoformat(), newest)] if count]  # fmt: skip
        return [Requests.between(at, before, after) for (at, before), (_, after) in pairwise(known)]

    def _counted(self) -> tuple[int, int] | None:
        """Requests so far and those that failed, as the serving process counts them; None where none answers."""
        try:
            page = httpx.get(f"{self.settings.serving()}/metrics", headers=self.settings.bearer(), timeout=5)
            return service.counted(page.raise_for_status().text, self.use.project)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):  # it may be somebody else who answers there
            return None

    def _noted(self, told: dict[str, Any], now: dt.datetime) -> list[dict[str, Any]]:
        """What the alarms open, join or end."""
        alarms = [Alarm.model_validate(alarm) for alarm in told["alarms"]]
        window = told["window"] or {}
        looked = Window(start=window.get("since"), end=window.get("until"), rows=told["rows"])
        seen = Seen(self.use.project, told["version"] or None, self.use.metric, looked, repeated=told["repeated"])
        noted = Noting(self.use, self.settings, self.plan.incidents).note(alarms, told["judged"], seen, now)
        return [{name: value for name, value in one.told().items() if name in {"id", "class", "state", "summary"}} for one in noted]  # fmt: skip

    def _sound(self, told: dict[str, Any], now: dt.datetime) -> None:
        """Alarms go out, one event for drift and one for decay; what asks again, and when, `sound` says. What an earlier look found asks nobody again."""
        open_ = {one["class"]: one["id"] for one in told["incidents"] if one["state"] == "open"}
        for kind, moved in SOUNDED.items():
            loud = [
                Alarm.model_validate(alarm)
                for alarm in told["alarms"]
                if alarm["kind"] in {*moved} - {*told["repeated"]}
            ]
            what = gravest(loud)
            if what and what in open_:
                said = " ".join(alarm.says for alarm in loud if alarm.what == what)
                sound(self.use, self.journal, kind, what, reason=said, incident=open_[what], at=now)  # fmt: skip

    def _shifts(self, told: dict[str, Any]) -> Shifts:
        """How far each feature was from its bar, at the newest look at each window."""
        looks = {row["until"]: row["detail"]["drift"] for row in self.past if row["version"] == told["version"] and row["detail"]["drift"]}  # fmt: skip
        looks |= {told["window"]["until"]: told["drift"]}
        bars = {until: {name: each["fixed"]["distance"] / each["bar"] for name, each in drift.items() if each["bar"]} for until, drift in looks.items()}  # fmt: skip
        return Shifts.of({until[:10]: levels for until, levels in sorted(bars.items())[-self.plan.history :]})


def _show(monitor: Monitor, seen: dict[str, Any], settings: Settings) -> None:
    """The pictures and the verdict in Prefect, and beside the version's run in MLflow."""
    project, drawn = monitor.use.project, monitor.drawn
    shown = "\n\n".join(pages.embedded(drawn[name], name) for name in drawn)
    create_markdown_artifact(
        f"# {project} version {seen['version']}: {seen['verdict']}\n\n{pages.sentence(seen['reason'])}\n\n{shown}\n",
        key=artifact_key(project, "watch"), description=f"**{project}** {seen['verdict']}: {seen['reason'][:300]}",
    )  # fmt: skip
    made = monitor.journal.made(project, seen["version"])
    run = made["detail"].get("run") if made else None
    if run:
        files = {f"watch/{name}.png": png for name, png in drawn.items()} | {"watch/watch.json": as_json(seen)}
        _beside(Registry(project, settings.mlflow(), settings.artifacts), run, files)


def _beside(registry: Registry, run: str, files: dict[str, bytes | str]) -> None:
    """Puts files beside a run; a server that is away only misses the pictures of this look."""
    try:
        with impatient():
            registry.log_files(run, files)
    except Exception as error:  # noqa: BLE001 -- MLflow's client raises what its transport likes; the look is on record already
        get_run_logger().warning("MLflow does not take the pictures of this look: %s", str(error)[:300])
