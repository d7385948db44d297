"""Rollout: a challenger's way from the shadow to all rows, and back when the evidence says so; looked at again and again.

What was answered, what was thought beside it and what came true are read from the logs, once, and then on from there; whoever looks
decides by the tests of `tasks/ml/rollout.py` and moves the record in the journal. Champion is made by releases and rollbacks alone. A kill
between two records is settled at the next look.
"""

import datetime as dt
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from tasks.config.errors import ConflictError, KeepfitError
from tasks.config.names import is_project
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.rollout import RolloutPlan, Step, UnheardError, Weighing, step
from tasks.ml.sequential import Evidence
from tasks.releasing import Plan, Releasing, utc
from tasks.rollback import Rollback
from tasks.stores.journal import BY_ITSELF, Journal, Release, Rollout, approved, resting
from tasks.stores.reading import Reading

LOG = logging.getLogger("keepfit.rollout")
BY_EVIDENCE = "rollout: evidence"  # the actor of a rollback that no person asked for
PATIENCE = 0.3  # seconds that a look may read where others wait for its end
REST = 20.0  # times as long as a look took nobody looks again: reading a long log must not fill a core
MOST_REST = 600.0  # seconds until a step that could not be done is tried again, at most
ROLLING = "rolling out"  # state of a release that goes through shadow or canary first


def begin(plan: Plan, settings: Settings, clock: Callable[[], dt.datetime] = utc) -> dict[str, Any] | None:
    """Begins the shadow or the canary of a version that may be released, where its project wants one; None where it is released at once.

    A person who releases the version that is in one already means at once, too; but not whoever approves what was approved already. Nothing is champion by it: the intent of the release is undone, and another one follows when the evidence allows. The caller is `alone`.

    Raises:
        ConflictError: another rollout began in between; the intent is undone.
    """
    use, journal = Project.named(plan.project, settings), Journal(settings.journal())
    champion, phase = journal.champion(plan.project), use.release.rollout.begins
    if plan.release is None or plan.intent is None or champion is None or phase is None:
        return None
    now, release, going = clock().isoformat(), plan.release, journal.rollout(plan.project)
    said = ""
    if going and going.phase != "probation" and plan.proposal is not None and going.proposal == plan.proposal:
        said = approved(going)
    elif going and going.version == release.version and not release.actor.startswith(BY_ITSELF):
        return None  # whoever says it again means now
    elif going and going.phase != "probation" and release.actor.startswith(BY_ITSELF):
        said = f"version {going.version} is in its {going.phase} since {going.since[:19]}; one at a time"
    if said:
        journal.undo(plan.intent, said)
        return {"project": plan.project, "state": "refused", "reason": said, "version": None, "from": champion.version}
    rollout = Rollout(
        plan.project, release.version, release.digest, champion.version, champion.digest, _planned(use), release.actor, release.reason,
        began=now, phase=phase, since=now, proposal=plan.proposal, said="nothing was scored yet",
    )  # fmt: skip
    try:
        begun = journal.begin_rollout(rollout, instead=going, intent=plan.intent.id)
    except ConflictError as error:
        journal.undo(plan.intent, str(error))
        raise
    said = f"version {begun.version} is in its {phase} beside version {begun.against}; `keepfit rollout {plan.project}` shows how it does"
    return {"project": plan.project, "state": ROLLING, "reason": said, "version": begun.version, "from": begun.against}


def _planned(use: Project) -> dict[str, Any]:
    """The project's rollout as JSON, with the columns that split the rows."""
    plan = use.release.rollout.model_dump(mode="json")
    plan["canary"]["key"] = plan["canary"]["key"] or [*use.contract.key]
    return plan


def _rested(overtaken: Rollout, release: Release, rollouts: Sequence[Rollout]) -> Rollout:
    """A probation as it goes on after another challenger was tried and did not become champion: without the time that this took.

    What was compared before counts on; what both would have said meanwhile nobody asked.
    """
    tried = [each for each in rollouts if each.generation is None and _moment(each.began) >= _moment(release.at)]
    took = sum((_moment(each.since) - _moment(each.began) for each in tried), dt.timedelta())
    since = (_moment(release.at) + took).isoformat()
    said = f"it rested while version {tried[-1].version} was tried" if tried else overtaken.said
    return replace(overtaken, phase="probation", since=since, revision=0, scores=True, said=said)


def _phase_began(rollout: Rollout, releases: Sequence[Release]) -> dt.datetime:
    """When the phase began: a probation with its release, also where it rested meanwhile."""
    released = (each.at for each in releases if each.generation == rollout.generation)
    return _moment(next(released, rollout.since))


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


class _Running:
    """What was read of one rollout, and the tests as they stand: in the memory alone, made again from the logs after a restart.

    What a test had reached is on record, and stays reached.

    Attributes:
        of: which rollout, what its models answer, and after how many days outcomes are final.
        seen: the tests.
    """

    def __init__(self, rollout: Rollout, use: Project, settings: Settings) -> None:
        self.of = rollout.id, use.task, use.split.matures
        plan = RolloutPlan.model_validate(rollout.plan).probation
        self.seen = Weighing(use.task, rollout.against, rollout.version, plan, use.split.matures)
        self.seen.resumes(rollout.evidence.get("tests", {}))
        self._reading = Reading(rollout.project, _moment(rollout.began), settings)
        self._rest: Iterator[None] | None = None
        self._began = _moment(rollout.began)

    def has_read(self, now: dt.datetime, until: Callable[[], bool]) -> bool:
        """Reads on, until it is time to leave; whether all was read that was there when that began.

        Only then anything is judged, as of that moment: whatever was told until then is known.
        """
        if self._rest is None:
            self._rest, self._began = self._parts(), now
        for _ in self._rest:
            if until():
                return False
        self.seen.judge(self._began)
        self._rest = None
        return True

    def _parts(self) -> Iterator[None]:
        """Takes in what has come since the last time, a part at a time."""
        for records in self._reading.compared():
            self.seen.see(records)
            yield
        for outcomes in self._reading.told():
            self.seen.hear(outcomes)
            yield


class Watch:
    """Looks at rollouts, one project at a time."""

    def __init__(
        self, settings: Settings, clock: Callable[[], dt.datetime] = utc, timer: Callable[[], float] = time.monotonic, patience: float = math.inf
    ) -> None:  # fmt: skip
        """`clock` says when things happened, `timer` when to look again; for about `patience` seconds a look reads, the next ones read on."""
        self.settings, self.journal = settings, Journal(settings.journal())
        self._clock, self._timer, self._patience = clock, timer, patience
        self._without: set[tuple[str, int]] = set()  # projects and generations that have no probation
        self._due: dict[int, float] = {}  # when a rollout is weighed again
        self._rests: dict[int, float] = {}  # seconds that rollouts rest whose next step could not be done
        self._running: dict[str, _Running] = {}
        self._since: dict[tuple[int, str], float] = {}  # when a phase began, by the timer

    def look(self, project: str) -> str | None:
        """Moves a project's rollout as far as the evidence allows, and says so; None where nothing moved.

        Raises:
            ConflictError: somebody moved something in between; the next look sees it.
            KeepfitError: what must be done cannot be done now.
        """
        releases = self.journal.releases(project)
        if not releases or project not in self.settings.project_names():
            return None
        rollout = self.journal.rollout(project)
        if rollout is None:
            self._running.pop(project, None)
            return self._probation(releases)
        return self._settled(rollout, releases) or self._weighed(rollout, _phase_began(rollout, releases))

    # -- beginnings and ends that the releases say --------------------------------------------------------------------
    def _probation(self, releases: list[Release]) -> str | None:
        """Begins the probation of a release that has none, or goes on with one that rested while another challenger was tried."""
        release = releases[-1]
        if (release.project, release.generation) in self._without or release.kind != "release" or len(releases) == 1:
            return None
        rollouts = self.journal.rollouts(release.project)
        rests = resting(rollouts, release.generation)
        if rests is None and any(each.generation == release.generation for each in rollouts):
            return self._none(release)
        begun = _rested(rests, release, rollouts) if rests else self._fresh(release, releases[-2])
        probation, age = RolloutPlan.model_validate(begun.plan).probation, self._clock() - _moment(begun.since)
        waits = Project.named(release.project, self.settings).split.matures * 86_400 if rests else 0.0
        if not probation.is_wanted or age.total_seconds() >= probation.seconds + waits:
            return self._none(release)
        self.journal.begin_rollout(begun)
        return f"version {begun.version} is on probation; version {begun.against} goes on scoring"

    def _none(self, release: Release) -> None:
        """Remembers that a release needs no probation any more."""
        self._without.add((release.project, release.generation))

    def _fresh(self, release: Release, before: Release) -> Rollout:
        """The probation of a release, from its beginning."""
        plan = _planned(Project.named(release.project, self.settings))
        return Rollout(
            release.project, release.version, release.digest, before.version, before.digest, plan, release.actor, release.reason,
            began=release.at, phase="probation", since=release.at, generation=release.generation, said="nothing was scored yet",
        )  # fmt: skip

    def _settled(self, rollout: Rollout, releases: list[Release]) -> str | None:
        """Follows what releases and rollbacks have made of it meanwhile."""
        champion = releases[-1]
        if rollout.phase != "probation" and champion.version == rollout.version:
            self.journal.move_rollout(rollout, **_as_champion(rollout, champion, rollout.said))
            return _told(rollout, rollout.said)
        if rollout.phase == "probation" and champion.version == rollout.against:
            return self._end(rollout, "undone", f"brought back by {champion.actor}: {champion.reason}")
        if champion.version in {rollout.version, rollout.against}:
            return None
        return self._end(
            rollout,
            "overtaken",
            f"version {champion.version} is champion since {champion.at[:19]}, by {champion.actor}",
        )

    def _end(self, rollout: Rollout, phase: str, said: str) -> str:
        self.journal.move_rollout(rollout, phase=phase, since=self._clock().isoformat(), said=said, scores=False)
        return f"version {rollout.version} {phase} in its {rollout.phase}: {said}"

    # -- what the evidence says ---------------------------------------------------------------------------------------
    def _weighed(self, rollout: Rollout, since: dt.datetime) -> str | None:
        began, now = self._timer(), self._clock()
        seconds = self._lasted(rollout, began, now)
        if began < self._due.get(rollout.id, float("-inf")):
            return None
        try:
            seen = self._read(rollout, since, now, until=lambda: self._timer() - began >= self._patience)
        except UnheardError as error:
            said = f"the project has changed, and what both versions answered cannot be compared any more: {error}"
            return self._end(rollout, "overtaken", said)
        if seen is None:
            return None  # the next look reads on
        plan = RolloutPlan.model_validate(rollout.plan)
        self._due[rollout.id] = began + max(plan.probation.every, REST * (self._timer() - began))
        then = step(plan, rollout.phase, seconds, seen)  # ty: ignore[invalid-argument-type]
        found = _found(seen, then)
        if found != rollout.evidence or then.scores != rollout.scores:
            changes = {"evidence": found, "looked": now.isoformat(), "scores": then.scores}
            rollout = self.journal.move_rollout(rollout, said=then.why, **changes)
        try:
            moved = self._moved(rollout, then)
        except ConflictError:  # somebody moved something: the next look sees it
            raise
        except Exception:  # it is tried again, and each try leaves a record: less and less often
            rest = min(2 * self._rests.get(rollout.id, plan.probation.every), MOST_REST)
            self._rests[rollout.id], self._due[rollout.id] = rest, self._timer() + rest
            raise
        self._rests.pop(rollout.id, None)
        return moved

    def _lasted(self, rollout: Rollout, timer: float, now: dt.datetime) -> float:
        """Seconds since its phase began, as far as clock and timer agree: a clock that jumps ahead meanwhile ends none early (faults: S-10).

        What was before the first look the clock alone says.
        """
        seconds = (now - _moment(rollout.since)).total_seconds()
        return min(seconds, timer - self._since.setdefault((rollout.id, rollout.since), timer - max(seconds, 0.0)))

    def _read(
        self, rollout: Rollout, since: dt.datetime, now: dt.datetime, until: Callable[[], bool]
    ) -> Weighing | None:
        """The tests when all was read that the logs have, of a phase that began at a moment; None where it was time to leave before.

        What was read is kept for the next look; not of another rollout, nor where what its outcomes mean has changed since.
        """
        use = Project.named(rollout.project, self.settings)
        running = self._running.pop(rollout.project, None)  # it comes back if it is read well, and else is made anew
        if running is None or running.of != (rollout.id, use.task, use.split.matures):
            running = _Running(rollout, use, self.settings)
        running.seen.begins(since)
        is_whole = running.has_read(now, until)
        self._running[rollout.project] = running
        return running.seen if is_whole else None

    def _moved(self, rollout: Rollout, then: Step) -> str | None:
        """Does what follows."""
        if then.phase == rollout.phase:
            return None
        if then.phase == "undone":
            return self._undone(rollout, then.why)
        if rollout.phase != "probation" and then.phase != "canary":
            return self._release(rollout, then.why)
        if then.phase == "passed":
            return self._end(rollout, "passed", then.why)
        self.journal.move_rollout(rollout, phase=then.phase, since=self._clock().isoformat(), said=then.why)
        return f"version {rollout.version} is in its {then.phase}: {then.why}"

    def _release(self, rollout: Rollout, why: str) -> str:
        """The journalled release, up to its commit; alias and servers follow by `recover`."""
        releasing = Releasing(rollout.project, self.settings, self._clock)
        with self.journal.alone(f"release {rollout.project}", patience=0):
            plan = releasing.plan(
                rollout.version, actor=rollout.actor, reason=f"{rollout.reason}; {why}", proposal=rollout.proposal
            )
            if plan.refused:
                return self._end(rollout, "undone", f"not released: {plan.refused}")
            if plan.release is not None:  # whoever has stopped it, or begun another one, while it was rehearsed wins
                releasing.commit(plan, (rollout, _as_champion(rollout, plan.release, why)))
            return _told(rollout, why)

    def _undone(self, rollout: Rollout, why: str) -> str:
        """Takes a challenger away, or brings the old champion back."""
        if rollout.phase == "probation":
            reason = f"probation of version {rollout.version} beside version {rollout.against}: {why}"
            back = Rollback(
                rollout.project, BY_EVIDENCE, reason, to=rollout.against, of=rollout.version, clock=self._clock
            )
            done = back.do(self.settings)
            if "state" in done:
                raise KeepfitError(f"version {rollout.version} should be brought back ({why}), but {done['reason']}")
        LOG.warning("%s: version %d is undone: %s", rollout.project, rollout.version, why)
        return self._end(rollout, "undone", why)


def _as_champion(rollout: Rollout, release: Release, said: str) -> dict[str, Any]:
    """What changes of a rollout whose version a release makes champion."""
    phase = RolloutPlan.model_validate(rollout.plan).after("canary")
    return {
        "phase": phase,
        "since": release.at,
        "generation": release.generation,
        "said": said,
        "scores": phase == "probation",
    }


def _told(rollout: Rollout, said: str) -> str:
    goes_on = RolloutPlan.model_validate(rollout.plan).after("canary") == "probation"
    return f"version {rollout.version} is champion; {f'version {rollout.against} goes on scoring' if goes_on else said}"


def _found(seen: Weighing, then: Step) -> dict[str, Any]:
    """The tests as they stand, as JSON."""
    return {
        "requests": seen.requests, "rows": seen.rows, "answered": seen.answered, "judged": seen.judged, "warning": then.warning,
        "tests": {name: _test(each) for name, each in seen.tests.items()},
    }  # fmt: skip


def _test(found: Evidence) -> dict[str, Any]:
    """A test as JSON, rounded: what is the same is not written again."""
    return {**asdict(found), **{name: float(f"{getattr(found, name):.6g}") for name in ("mean", "e", "peak", "bar")}, "against": found.against}  # fmt: skip


# -- what a person sees and does --------------------------------------------------------------------------------------
def shown(project: str, settings: Settings) -> dict[str, Any]:
    """The rollout that goes on, or the last one: its phase, what was scored, the tests, and what comes next.

    Raises:
        KeepfitError: there never was one.
    """
    rollout = _newest(project, settings)
    plan = RolloutPlan.model_validate(rollout.plan)
    after = plan.after(rollout.phase) if rollout.is_open else None  # ty: ignore[invalid-argument-type]
    return {
        "project": project, "version": rollout.version, "against": rollout.against, "phase": rollout.phase, "since": rollout.since,
        "began": rollout.began, "actor": rollout.actor, "said": rollout.said, "next": after, "scores": rollout.scores,
        "looked": rollout.looked or None, **{name: rollout.evidence.get(name, 0) for name in ("requests", "rows", "answered", "judged")},
        "warning": rollout.evidence.get("warning", ""), "tests": rollout.evidence.get("tests", {}), "plan": dict(rollout.plan),
    }  # fmt: skip


def stop(project: str, settings: Settings, reason: str, clock: Callable[[], dt.datetime] = utc) -> dict[str, Any]:
    """Takes a challenger out of its shadow or canary; the champion goes on. A champion on probation is brought back by a rollback."""
    rollout, journal = _newest(project, settings), Journal(settings.journal())
    if not rollout.is_open:
        return {"project": project, "state": "refused", "reason": f"no rollout goes on: version {rollout.version} {rollout.phase}, {rollout.said}"}  # fmt: skip
    if rollout.phase == "probation":
        said = f"version {rollout.version} is champion, on probation; `keepfit rollback {project}` brings version {rollout.against} back"
        return {"project": project, "state": "refused", "reason": said}
    said = f"stopped by {settings.actor}: {reason}"
    journal.move_rollout(rollout, phase="undone", since=clock().isoformat(), said=said, scores=False)
    return {"project": project, "state": "undone", "version": rollout.version, "reason": said}


def _newest(project: str, settings: Settings) -> Rollout:
    found = Journal(settings.journal()).rollouts(project) if is_project(project) else []
    if not found:
        raise KeepfitError(
            f"{project[:60]} had no rollout yet. One begins with a release: its probation, or before it the shadow and the canary of `release.rollout`."
        )
    return found[-1]
