"""Recover: what must be so is made so again, level by level: intents of releases, dead runs, aliases, trainings and looks that are owed.

It looks at what is, not at what was announced, so that it may be repeated, interrupted, and run in many processes at once. Whoever is
at work holds a lock that a kill frees; what is locked is left alone. What needs a server that is down is said, and done at a later look.
"""

import datetime as dt
import logging
import math
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from pydantic import BaseModel

from tasks.config.errors import ConflictError, KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.incident import note_files, note_silence
from tasks.ml.watching.incident import Incident
from tasks.notify import Postman
from tasks.owed import Owed
from tasks.releasing import IN_MLFLOW, Releasing, utc
from tasks.rollout import PATIENCE, Watch
from tasks.stores import minutes, processes
from tasks.stores.holding import Holding
from tasks.stores.journal import AFTER, BEFORE, COMMITTED, Intent, Journal, Release
from tasks.stores.minutes import Minutes
from tasks.stores.registry import Registry
from tasks.trigger import settle, tell

LOG = logging.getLogger("keepfit.recover")
GRACE = 10.0  # seconds that an event has to start a training before it counts as lost
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CANNOT = "cannot be put back"
FOLLOW = 2.0  # seconds that a server has to follow, at each look


class Report(BaseModel):
    """What one look found and did; an empty one means that all was as it must be.

    Attributes:
        finished, undone: intents of releases, a sentence each.
        dead: trainings and flow runs whose process was gone.
        hand_made: changes in MLflow that were put back or accepted.
        rollouts: what the evidence moved.
        started: runs that were owed or ordered, and events that were ordered and went out.
        told: events that had not gone out.
        silent: projects that nobody watches any more.
        altered: champions whose files on disk are not what was released, or are so again.
        sent: messages about incidents, and how each was taken.
        trouble: what could not be done now, and why.
    """

    finished: list[str] = []
    undone: list[str] = []
    dead: list[str] = []
    hand_made: list[str] = []
    rollouts: list[str] = []
    started: list[str] = []
    told: list[str] = []
    silent: list[str] = []
    altered: list[str] = []
    sent: list[str] = []
    trouble: list[str] = []


class Recovery:
    """Looks again and again; or once."""

    def __init__(
        self, settings: Settings, projects: Iterable[str] | None = None, *, grace: float = GRACE, clock: Callable[[], dt.datetime] = utc
    ) -> None:  # fmt: skip
        """Over the journal of an installation.

        Args:
            settings: where things are.
            projects: only these; by default all that are declared or have a champion.
            grace: seconds that an event has to start a training.
            clock: says when things happened, for a reader; nothing is decided by it.
        """
        self.settings, self.journal = settings, Journal(settings.journal())
        self._only, self._clock = None if projects is None else tuple(projects), clock
        self._watch = Watch(settings, clock, patience=PATIENCE if grace else math.inf)  # who looks once reads all
        self._postman, self._patience = Postman(settings, clock), 0.5 if grace else 60.0
        self._trouble: list[str] = []  # of the last look: what goes on is said once
        self._owed = Owed(settings, self.journal, grace, clock)
        self._held: dict[str, tuple[object, str]] = {}  # by project: how the champion's files were, and what was wrong

    def look(self) -> Report:
        """One look at everything; never raises for what is only away at the moment."""
        report = Report()
        for intent in self.journal.release_intents(phases=(*BEFORE, *AFTER)):
            if self._concerns(intent.project):
                with self._troubled(report, intent.project), _free(self.journal, intent.lock) as free:
                    if free:
                        self._settle(intent, report)
        dead = self._dead(report)
        if self.settings.prefect():
            with self._troubled(report, "Prefect"):
                self._bury(dead, report)
        for project in self._projects():
            with self._troubled(report, project):
                report.rollouts += [f"{project}: {said}" for said in [self._watch.look(project)] if said]
            with self._troubled(report, project):
                self._minutes(project, report)
            with self._troubled(report, project):
                self._alias(project, report)
            if self.settings.prefect():
                with self._troubled(report, project):
                    self._tell(project, report)
                with self._troubled(report, project):
                    report.started += self._owed.look(project, partial(self._troubled, report, project))
            with self._troubled(report, project):
                report.silent += [one.summary for one in self._silence(project)]
            with self._troubled(report, project):
                report.altered += [one.summary for one in self._files(project)]
        with self._troubled(report, "messages"):
            report.sent += self._postman.look(self._patience)
        self._trouble = report.trouble
        return report

    def _silence(self, project: str) -> list[Incident]:
        """The incident that nobody watches a project, as often as it is put on record."""
        if project not in self.settings.project_names():
            return []
        try:
            return note_silence(project, self.settings, self._clock())
        except ConflictError:  # a watch is at it
            return []

    def _files(self, project: str) -> list[Incident]:
        """The incident that the champion's files are not what was released, as it begins or ends; they are read where somebody has touched them."""
        release = self.journal.champion(project)
        if release is None or project not in self.settings.project_names():
            return []
        holding = Holding.of(self.settings, self.journal, release)
        stamps = holding.stamps()
        if project not in self._held or self._held[project][0] != stamps:
            self._held[project] = (stamps, holding.fault())
        try:
            return note_files(release, self._held[project][1], self.settings, self._clock())
        except ConflictError:  # another look is at it
            return []

    def _concerns(self, project: str) -> bool:
        return self._only is None or project in self._only

    def _projects(self) -> list[str]:
        known = {*self.settings.project_names(), *self.journal.champions()}
        return sorted(project for project in known if self._concerns(project))

    @contextmanager
    def _troubled(self, report: Report, what: str) -> Generator[None]:
        """Goes on with the rest, whatever is wrong with this part."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- a server that is away raises what its client likes; the next look tries again
            self._note(report, f"{what}: {' '.join(str(error).split())[:300]}")

    def _note(self, report: Report, said: str) -> None:
        if said in report.trouble:  # one server that is away is in the way of many parts
            return
        report.trouble.append(said)
        if said not in self._trouble:
            LOG.warning("%s", said)

    # -- intents ------------------------------------------------------------------------------------------------------
    def _settle(self, intent: Intent, report: Report) -> None:
        """Finishes or undoes an intent whose process is gone."""
        found = self._now(intent)
        what = f"{intent.kind} of version {intent.version} of {intent.project}"
        releasing = Releasing(intent.project, self.settings)
        if found.phase in AFTER:
            self._finish(found, what, releasing, report)
        elif found.phase in BEFORE:
            if intent.kind == "release":
                releasing.undo_left()
            else:
                self.journal.undo_left(intent.kind, intent.project)
            report.undone.append(f"{what} was {found.phase}, and nothing had changed")

    def _now(self, intent: Intent) -> Intent:
        return next(each for each in self.journal.release_intents(intent.project) if each.id == intent.id)

    def _finish(self, intent: Intent, what: str, releasing: Releasing, report: Report) -> None:
        """Brings alias and servers along, unless a release is under way, which does so itself."""
        with ExitStack() as held:
            if intent.kind != "release" and not held.enter_context(_free(self.journal, f"release {intent.project}")):
                return
            said = f"{what} was {intent.phase}: {releasing.follow(FOLLOW)}"
            if self._now(intent).phase == "confirmed":
                report.finished.append(said)
            else:
                self._note(report, said)

    def _tell(self, project: str, report: Report) -> None:
        """Sends the events of releases and rollbacks that have not gone out."""
        from tasks.stores import runs

        releases = {release.generation: release for release in self.journal.releases(project)}
        for intent in self.journal.release_intents(project, ("aliased", "confirmed")):
            if intent.announced:
                continue
            with _free(self.journal, intent.lock) as free:
                if not free:
                    continue
                event = "keepfit.model.rolledback" if intent.kind == "rollback" else "keepfit.model.released"
                before = releases.get((intent.generation or 0) - 1)
                payload = {
                    "project": project, "state": event.rpartition(".")[2], "reason": intent.reason, "version": intent.version,
                    "from": before.version if before else None, "actor": intent.actor,
                }  # fmt: skip
                runs.tell(event, project, payload)
                self.journal.told(intent.id)
                report.told.append(f"{event} {project} version {intent.version}")

    # -- dead runs ----------------------------------------------------------------------------------------------------
    def _dead(self, report: Report) -> list[dict[str, Any]]:
        """Ends the trainings whose process is gone; a living one holds its project's lock, or is this machine's and there.

        One of another machine that lost its connection to PostgreSQL, and with it the lock, is taken for dead, too: it is refused its next
        write, so that it makes no version.
        """
        under_way = [row for row in self.journal.under_way() if self._concerns(row["project"])]
        dead = [row for row in under_way if self._hanged(row, report)]
        under_way = [row for row in under_way if row not in dead]
        living = {row["project"] for row in under_way if processes.is_gone(row["process"] or "") is False}
        for project in sorted({row["project"] for row in under_way} - living):
            with self._troubled(report, project), _free(self.journal, f"train {project}") as free:
                if not free:
                    continue
                dead += [row for row in under_way if row["project"] == project]
                settle(project, self.journal, self.settings, self._clock())
        report.dead += [f"training {row['id']} of {row['project']}" for row in dead]
        return dead

    def _hanged(self, row: dict[str, Any], report: Report) -> bool:
        """Whether a training of this machine took too long, and was ended."""
        with self._troubled(report, row["project"]):
            if processes.is_gone(row["process"] or "") is False and (reason := self._owed.hanging(row)):
                self.journal.cut_off(row, state="failed", reason=reason, at=self._clock())
                LOG.warning("training %s of %s: %s", row["id"], row["project"], reason)
                Minutes.of(self.settings, row["project"], str(row["id"])).note(Registry.abandon)
                return True
        return False

    def _bury(self, dead: list[dict[str, Any]], report: Report) -> None:
        """Tells Prefect, which believes in a killed run for ever."""
        from tasks.stores import runs

        # Of the stack's own server no worker is elsewhere.
        local = self.settings.prefect_url is None and self.settings.host in LOOPBACK
        report.dead += [f"flow run '{name}'" for name in runs.bury(dead, here=local)]

    # -- what MLflow was away for -------------------------------------------------------------------------------------
    def _minutes(self, project: str, report: Report) -> None:
        """Tells MLflow the rest of what a training that has ended had to tell."""
        if not minutes.left(self.settings, project):
            return
        with _free(self.journal, f"train {project}") as free:
            if free:
                told = tell(project, self.journal, self.settings)
                report.told += [f"MLflow was told the rest of run {run} of {project}" for run in told]

    # -- the alias ----------------------------------------------------------------------------------------------------
    def _alias(self, project: str, report: Report) -> None:
        """Notices what somebody did by hand to the champion in MLflow; it is put back, or accepted."""
        if self.journal.champion(project) is None:
            return
        with _free(self.journal, f"release {project}") as free:
            if not free:
                return
            registry = self._registry(project)
            met = registry.pointed("champion")
            # Read after the alias: a rollback in between has a committed intent by now, which the alias has still to follow.
            champion = self.journal.champion(project)
            if champion is None or met == champion.version or self.journal.release_intents(project, (COMMITTED,)):
                return
            refusal = self._accepted(project, met)
            if refusal is None:
                answer, reason = "accepted", "release.hand_made is accept"
            else:
                answer, reason = _put_back(registry, champion, refusal)
            self._record(champion, met, answer, reason, report)

    def _accepted(self, project: str, met: int | None) -> str | None:
        """None when the version that the alias names was released; else why it was not."""
        if met is None:
            return "the alias is gone"
        if self._project(project).release.hand_made != "accept":
            return "release.hand_made is put_back"
        releasing = Releasing(project, self.settings, self._clock)
        try:
            plan = releasing.plan(met, actor=IN_MLFLOW, reason=f"@champion was moved to version {met}")
            if not plan.refused:
                releasing.commit(plan)  # alias and servers follow at the next look, as after a kill
        except KeepfitError as error:
            return str(error)
        return plan.refused or None

    def _record(self, champion: Release, met: int | None, answer: str, reason: str, report: Report) -> None:
        """Puts a change on record once; what cannot be put back is met again at every look."""
        what = {
            "generation": champion.generation,
            "met": "no alias" if met is None else f"version {met}",
            "answer": answer,
        }
        past = self.journal.hand_made(champion.project)
        if answer == CANNOT and past and what.items() <= past[-1].items():
            return
        self.journal.record_hand_made(
            project=champion.project, wanted=champion.version, reason=reason, at=self._clock(), **what
        )
        said = (
            f"{champion.project}: @champion is version {champion.version}, MLflow had {what['met']}: {answer}; {reason}"
        )
        LOG.warning("%s", said)
        report.hand_made.append(said)

    def _registry(self, project: str) -> Registry:
        return Registry(project, self.settings.mlflow(), self.settings.artifacts)

    def _project(self, project: str) -> Project:
        return Project.named(project, self.settings)


def _put_back(registry: Registry, champion: Release, refusal: str) -> tuple[str, str]:
    """Points the alias at the champion again; what was done, and why."""
    if not registry.has(champion.version):
        return CANNOT, f"version {champion.version} was deleted in MLflow; it goes on answering from its bundle"
    registry.point("champion", champion.version)
    return "put back", refusal


@contextmanager
def _free(journal: Journal, what: str) -> Generator[bool]:
    """Whether nobody is at work on it; while this is held nobody begins."""
    with ExitStack() as held:
        try:
            held.enter_context(journal.alone(what, patience=0))
        except ConflictError:
            yield False
            return
        yield True
