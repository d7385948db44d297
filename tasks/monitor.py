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

from tasks.asked import Asked
from tasks.config.errors import ArtifactError
from tasks.config.names import artifact_key
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.incident import Noting
from tasks.ml import pages, threads
from tasks.ml.computed import ComputedError
from tasks.ml.watching import anomalies, pictures
from tasks.ml.watching.alarm import Alarm, Class
from tasks.ml.watching.anomalies import History, Requests
from tasks.ml.watching.classes import Performance
from tasks.ml.watching.curve import Curve, Expected, Mark, Shifts
from tasks.ml.watching.estimate import Estimated
from tasks.ml.watching.findings import GRAVEST, Findings, Known, examine
from tasks.ml.watching.incident import Seen, Window, cleaned
from tasks.ml.watching.measures import standard_error
from tasks.ml.watching.realised import MONDAY, Decay, Realised, decay, fallen, realised
from tasks.ml.watching.reference import merged
from tasks.releasing import utc
from tasks.stores.alarms import sound
from tasks.stores.arrivals import arrivals
from tasks.stores.journal import Journal, Release
from tasks.stores.observed import Observed, instant, observed
from tasks.stores.registry import Registry, as_json

SOUNDED: dict[Literal["drift", "decay"], tuple[str, ...]] = {"drift": ("inputs", "predictions"), "decay": ("performance", "estimate")}  # fmt: skip
UNKNOWN = {"realised": None, "estimated": None, "low": None, "high": None}
JUDGED: tuple[Class, ...] = ("retrain", "mend")
SILENT = frozenset({"no champion", "no data", "too few rows"})  # verdicts that judge nothing


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

    def of(self, seen: Observed) -> Observed:
        """What was answered in it."""
        return seen.where((seen.at > self.since) & (seen.at <= self.until))

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
            {"project", "at", "version", "window", "rows", "drift", "predictions", "domain", "performance", "anomalies", "alarms", "incidents",
            "verdict", "reason"}.
        """
        now, champion = self._clock(), self.journal.champion(self.use.project)
        seen = self._nobody() if champion is None else self._looked(champion, now)
        told: dict[str, Any] = {"project": self.use.project, "at": now.isoformat(), **seen}
        told["incidents"] = self._noted(told, now)
        interval = self.plan.schedule.interval(now) if self.plan.schedule else None
        until = told["window"]["until"] if told["window"] else ""
        self.journal.record_watch(
            project=self.use.project, at=now, version=told["version"], verdict=told["verdict"], until=until, detail=told, interval=interval
        )  # fmt: skip
        self._sound(told, now)
        return told

    @cached_property
    def past(self) -> list[dict[str, Any]]:
        """The looks before this one that pictures and comparisons need, read once."""
        return self.journal.watches(self.use.project, 4 * self.plan.history)

    def _nobody(self) -> dict[str, Any]:
        reason = f"{self.use.project} has no champion yet: `keepfit train {self.use.project}` makes one"
        return {
            "version": 0, "window": None, "rows": 0, "drift": {}, "predictions": {}, "domain": None, "performance": UNKNOWN, "anomalies": {},
            "alarms": [], "verdict": "no champion", "judged": False, "reason": reason,
        }  # fmt: skip

    def _looked(self, champion: Release, now: dt.datetime) -> dict[str, Any]:
        days = max(self.plan.drift.days, self.plan.performance.days)
        seen = observed(
            self.use, self.settings, now - dt.timedelta(days=days * (self.plan.history + 1)), now,
            window=dt.timedelta(days=self.plan.drift.days), fewest=self.plan.drift.fewest,
        )  # fmt: skip
        version, spans = Asked(self.use, self.settings, champion), self._spans(seen)
        mine = version.unseen(seen.where(seen.version == champion.version))
        performance = Measuring(self, version, seen, spans[-1].of(mine))
        found = self._examined(version, mine, spans, performance.known)
        requests = self._counted()
        odd = self._anomalies(seen, requests, now)
        private = Noting(self.use, self.settings, self.plan.incidents).private
        alarms = tuple(cleaned(alarm, private) for alarm in (*found.alarms, *odd.alarms))
        verdict = next((what for what in GRAVEST if any(alarm.what == what for alarm in alarms)), found.verdict)
        told = {
            "version": champion.version, "window": {"source": seen.source, "days": self.plan.drift.days, **spans[-1].told()}, "rows": found.rows,
            "drift": {name: drift.model_dump(mode="json") for name, drift in found.drift.items()},
            "predictions": {name: drift.model_dump(mode="json") for name, drift in found.predictions.items()},
            "domain": found.domain.model_dump(mode="json", exclude={"segments"}) if found.domain else None, "performance": performance.told,
            "requests": requests, "anomalies": {check.name: check._asdict() for check in odd.checks},
            "alarms": [alarm.model_dump(mode="json", by_alias=True) for alarm in alarms], "verdict": verdict, "judged": found.verdict not in SILENT,
            "reason": " ".join([*([] if found.alarms and found.verdict not in SILENT else [_bare(found)]), *(alarm.says for alarm in alarms)]),
        }  # fmt: skip
        self.drawn = {"curve": pictures.curve(performance.curve(told)), "drift": pictures.drift(self._shifts(told))}
        return told

    def _spans(self, seen: Observed) -> list[Span]:
        """The windows that end with the newest row, oldest first."""
        days, end = np.timedelta64(self.plan.drift.days, "D"), instant(seen.until)
        return [Span(end - (place + 1) * days, end - place * days) for place in reversed(range(self.plan.history))]

    def _examined(self, version: Asked, mine: Observed, spans: list[Span], performance: Performance) -> Findings:
        """The newest window against the rows that the version was made of, and against the windows just before it."""
        (learned, rows), plan = version.remembered, self.plan.drift
        before = [each for span in spans[-1 - plan.rolling : -1] if len(each := span.of(mine)) >= plan.fewest]
        rolling = merged([learned.fixed.like(version.features(each.rows), version.foretold(each.rows)) for each in before])  # fmt: skip
        window = spans[-1].of(mine)
        said = version.foretold(window.rows)
        known = Known(learned.fixed, learned.thresholds, rolling, rows, performance)
        return examine(known, version.features(window.rows), said, plan, seed=self.use.search.seed, threads=threads.share(1))  # fmt: skip

    def _anomalies(self, seen: Observed, requests: tuple[int, int] | None, now: dt.datetime) -> anomalies.Found:
        """What is odd about what landed, and about how it was answered."""
        asked = seen.where(np.full(len(seen), seen.source == "served"))
        batches, outcomes = arrivals(self.journal, self.use.project, self.plan.anomalies.history)
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
            return anomalies.counted(page.raise_for_status().text, self.use.project)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):  # it may be somebody else who answers there
            return None

    def _noted(self, told: dict[str, Any], now: dt.datetime) -> list[dict[str, Any]]:
        """What the alarms open, join or end."""
        alarms = [Alarm.model_validate(alarm) for alarm in told["alarms"]]
        window = told["window"] or {}
        looked = Window(start=window.get("since"), end=window.get("until"), rows=told["rows"])
        judged = JUDGED if told["judged"] else ()
        seen = Seen(self.use.project, told["version"] or None, self.use.metric, looked)
        noted = Noting(self.use, self.settings, self.plan.incidents).note(alarms, judged, seen, now)
        return [{name: value for name, value in one.told().items() if name in {"id", "class", "state", "summary"}} for one in noted]  # fmt: skip

    def _sound(self, told: dict[str, Any], now: dt.datetime) -> None:
        """Alarms go out, one event for drift and one for decay; what asks again, and when, `sound` says."""
        open_ = {one["class"]: one["id"] for one in told["incidents"] if one["state"] == "open"}
        for kind, moved in SOUNDED.items():
            loud = [alarm for alarm in told["alarms"] if alarm["kind"] in moved]
            what = next((each for each in GRAVEST if any(alarm["class"] == each for alarm in loud)), None)
            if what and what in open_:
                said = " ".join(alarm["says"] for alarm in loud if alarm["class"] == what)
                sound(self.use, self.journal, kind, what, reason=said, incident=open_[what], at=now)  # fmt: skip

    def _shifts(self, told: dict[str, Any]) -> Shifts:
        """How far each feature was from its bar, at the newest look at each window."""
        looks = {row["until"]: row["detail"]["drift"] for row in self.past if row["version"] == told["version"] and row["detail"]["drift"]}  # fmt: skip
        looks |= {told["window"]["until"]: told["drift"]}
        bars = {until: {name: each["fixed"]["distance"] / each["bar"] for name, each in drift.items() if each["bar"]} for until, drift in looks.items()}  # fmt: skip
        return Shifts.of({until[:10]: levels for until, levels in sorted(bars.items())[-self.plan.history :]})


class Measuring:
    """What is known of the metric: what came true, window by window, and what is expected of the newest."""

    def __init__(self, monitor: Monitor, version: Asked, seen: Observed, newest: Observed) -> None:
        self.use, self._monitor, self.version, self._seen = monitor.use, monitor, version, seen
        self._plan = monitor.plan.performance
        self.name = str(version.release.version)
        self.unasked: dict[int, str] = {}
        self.estimated = self._estimated(newest)
        self.periods = self._periods()
        own = [period for period in self.periods if period.version == self.name]
        self.newest: Realised | None = next((one for one in reversed(own) if self.use.metric in one.metrics), None)
        self.decay: Decay = decay(self.use.goal, own, version.reference, floor=self.use.floor, plan=self._plan)
        self.pending = sum(one.rows - one.matured for one in own)

    def _estimated(self, newest: Observed) -> Estimated | None:
        """What the newest window is expected to be worth, without outcomes."""
        if not len(newest):
            return None
        features, said = self.version.features(newest.rows), self.version.says(newest.rows)
        estimator = self.version.remembered[0].estimator
        found = estimator.estimates(self.version.measures, said, features, fewest=self._plan.fewest, seed=self.use.search.seed)  # fmt: skip
        return found.get(self.use.metric)

    def _periods(self) -> tuple[Realised, ...]:
        """Every version in every period in which it answered."""
        releases = {release.version: release for release in self._monitor.journal.releases(self.use.project)}
        found: list[Realised] = []
        for number in sorted(set(self._seen.version.tolist()) & set(releases)):
            try:
                found += self._measured(number, releases[number])
            except (ArtifactError, ComputedError, KeyError, ValueError) as error:
                if str(number) == self.name:
                    raise
                self.unasked[number] = " ".join(str(error).split())[
                    :300
                ]  # one that is champion no more: the others are looked at all the same
        return tuple(sorted(found, key=lambda one: (one.begin, one.version)))

    def _measured(self, number: int, release: Release) -> list[Realised]:
        """One version in every period in which it answered."""
        asked = self.version if str(number) == self.name else Asked(self.use, self._monitor.settings, release)
        rows, operates = (
            asked.unseen(self._seen.where(self._seen.version == number)),
            {str(number): asked.bundle.operates},
        )
        return [
            period
            for stretch in self._stretches(rows)
            for period in realised(
                self.use.task, operates, asked.served(stretch), now=self._seen.until, matures=self.use.split.matures, plan=self._plan,
                seed=self.use.search.seed,
            )
        ]  # fmt: skip

    def _stretches(self, rows: Observed) -> list[Observed]:
        """What is measured together: all of it; where a user's rows make one question, those of each period."""
        if self.use.kind != "recommendation" or not len(rows):
            return [rows] if len(rows) else []
        place = (rows.at - MONDAY) // np.timedelta64(self._plan.days, "D")
        return [rows.where(place == number) for number in np.unique(place)]

    @property
    def known(self) -> Performance:
        """For the alarms. A number that has not surely fallen, within the budget, is given a band that reaches what it was at training."""
        came, guess, expected = self._came, self.estimated, self.version.release.value
        told = {
            "metric": self.use.goal.label,
            "higher_is_better": self.use.goal.greater_is_better,
            "expected": expected,
        }
        if came:
            told |= {"realised": came.value} | (
                {} if self.decay.fell else {"realised_low": expected, "realised_high": expected}
            )
        if guess and guess.value is not None:
            told |= {"estimated": guess.value} | (
                {} if self._expected_to_fall else {"estimated_low": expected, "estimated_high": expected}
            )
        return Performance.model_validate(told)

    @property
    def _came(self) -> Any:
        return self.newest.metrics[self.use.metric] if self.newest else None

    @property
    def _expected_to_fall(self) -> bool:
        """Whether the estimate alone says so, within the budget; not where outcomes speak against its assumption."""
        guess = self.estimated
        if guess is None or guess.value is None or guess.doubts:
            return False
        error = float(np.hypot(guess.sampling or 0.0, guess.estimation or 0.0)) or standard_error(
            self.version.reference
        )
        return fallen(self.use.goal, [guess.value], [error], self.version.reference, floor=self.use.floor, plan=self._plan).fell  # fmt: skip

    @property
    def told(self) -> dict[str, Any]:
        """As JSON."""
        came, guess = self._came, self.estimated
        return {
            "metric": self.use.metric, "at_training": self.version.release.value, "rows": came.rows if came else 0, "pending": self.pending,
            "realised": came.value if came else None, "realised_low": came.low if came else None, "realised_high": came.high if came else None,
            "until": self.newest.end.isoformat() if self.newest else None, "flagged": came.is_flagged if came else False,
            "estimated": guess.value if guess else None, "low": guess.low if guess else None, "high": guess.high if guess else None,
            "method": guess.method if guess else "none", "assumes": guess.assumes if guess else "", "doubts": list(guess.doubts) if guess else [],
            "why_no_estimate": guess.reason if guess else "no row came in this window", "decay": self.decay.model_dump(mode="json"), "unasked": self.unasked,
            "periods": [
                {"begin": one.begin.isoformat(), "end": one.end.isoformat(), "version": int(one.version), "rows": one.rows, "state": one.state, "says": one.says,
                 **{name: getattr(one.metrics[self.use.metric], name) if self.use.metric in one.metrics else None for name in ("value", "low", "high")}}
                for one in self.periods
            ],
        }  # fmt: skip

    def curve(self, told: dict[str, Any]) -> Curve:
        """Measured and expected, with alarms and releases, by the clock of the rows."""
        guesses = {row["until"]: (row["version"], row["detail"]["performance"]) for row in self._monitor.past if row["until"]}  # fmt: skip
        guesses |= {told["window"]["until"]: (told["version"], told["performance"])}
        week = dt.timedelta(days=told["window"]["days"])
        expected = [self._expectation(dt.datetime.fromisoformat(until) - week, week, version, said) for until, (version, said) in sorted(guesses.items())]  # fmt: skip
        return Curve.of(self.use.goal, self.periods, [each for each in expected if each], self._marks(told), self.use.floor)  # fmt: skip

    def _expectation(
        self, begin: dt.datetime, week: dt.timedelta, version: int, said: dict[str, Any]
    ) -> Expected | None:
        """What a look expected of its window, on the period in which its middle lies."""
        if said.get("estimated") is None:
            return None
        middle = begin + week / 2
        period = next((one for one in self.periods if one.begin <= middle < one.end), None)
        begin, end = (period.begin, period.end) if period else (begin, begin + week)
        estimate = Estimated(measure=self.use.metric, method=said["method"], rows=1, value=said["estimated"], low=said["low"], high=said["high"])  # fmt: skip
        return Expected(begin=begin, end=end, version=str(version), estimate=estimate)

    def _marks(self, told: dict[str, Any]) -> list[Mark]:
        """Releases where a version's first rows are, alarms at the end of their windows."""
        firsts = {
            number: self._seen.at[self._seen.version == number].min()
            for number in set(self._seen.version.tolist()) - {0}
        }
        marks = [Mark(at=_moment(at), event="released", name=f"v{number}") for number, at in firsts.items()]
        past = [row["detail"] for row in self._monitor.past]
        loud = {
            seen["window"]["until"]
            for seen in [*past, told]
            if any(alarm["class"] == "retrain" for alarm in seen["alarms"])
        }
        return marks + [Mark(at=dt.datetime.fromisoformat(until), event="alarm") for until in sorted(loud)]


def _bare(found: Findings) -> str:
    """What was found, without the sentences of its alarms."""
    said = found.says
    for alarm in found.alarms:
        said = said.replace(alarm.says, "").strip()
    return said


def _moment(at: np.datetime64) -> dt.datetime:
    return dt.datetime.fromtimestamp(at.astype("datetime64[us]").astype(int) / 1e6, dt.UTC)


def _show(monitor: Monitor, seen: dict[str, Any], settings: Settings) -> None:
    """The pictures and the verdict in Prefect, and beside the version's run in MLflow."""
    project, drawn = monitor.use.project, monitor.drawn
    shown = "\n\n".join(pages.embedded(drawn[name], name) for name in drawn)
    create_markdown_artifact(
        f"# {project} version {seen['version']}: {seen['verdict']}\n\n{pages.sentence(seen['reason'])}\n\n{shown}\n",
        key=artifact_key(project, "watch"), description=f"**{project}** {seen['verdict']}: {seen['reason'][:300]}",
    )  # fmt: skip
    run = next((row["detail"].get("run") for row in reversed(monitor.journal.trainings(project)) if row["version"] == seen["version"]), None)  # fmt: skip
    if run:
        files = {f"watch/{name}.png": png for name, png in drawn.items()} | {"watch/watch.json": as_json(seen)}
        _beside(Registry(project, settings.mlflow(), settings.artifacts), run, files)


def _beside(registry: Registry, run: str, files: dict[str, bytes | str]) -> None:
    """Puts files beside a run; a server that is away only misses the pictures of this look."""
    try:
        registry.log_files(run, files)
    except Exception as error:  # noqa: BLE001 -- MLflow's client raises what its transport likes; the look is on record already
        get_run_logger().warning("MLflow does not take the pictures of this look: %s", str(error)[:300])
