"""Releasing: a release as a sequence of phases, each in the journal before the next begins, so that whoever comes next can finish or undo it.

intended → verified (the bundle's bytes) → answered (loaded and asked in the real serving process) → committed (one transaction, the next
generation) → aliased (MLflow) → confirmed (the servers). The journal is the truth; alias and servers follow it.
"""

import datetime as dt
import logging
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.config import plans
from tasks.config.errors import ArtifactError
from tasks.config.names import approval
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.gates import Verdict, outcome
from tasks.serving import asked
from tasks.serving.rehearsal import Rehearsal, UnservedError
from tasks.stores import bundles, processes, proposals
from tasks.stores.journal import AFTER, BY_ITSELF, COMMITTED, Intent, Journal, Moves, Proposal, Release, rolled_back
from tasks.stores.registry import Registry

LOG = logging.getLogger("keepfit.release")
BY_HAND = "by hand"  # the reason of whoever gave none
IN_MLFLOW = "hand-made change in MLflow"  # the actor of a release that follows one
PATIENCE = 20.0  # seconds that the servers have to follow
CANDIDATE = 60.0  # seconds that a candidate has to load and to answer


def utc() -> dt.datetime:
    """Now."""
    return dt.datetime.now(dt.UTC)


class Plan(BaseModel, frozen=True, arbitrary_types_allowed=True):
    """A release that may happen, or the reason why it may not; `proposal` is the one that it approves."""

    project: str
    intent: Intent | None = None
    proposal: int | None = None
    release: Release | None = None
    previous: int | None = None
    refused: str = ""


class Releasing:
    """Releases of one project."""

    def __init__(self, project: str, settings: Settings, clock: Callable[[], dt.datetime] = utc) -> None:
        self.project, self.settings, self._clock = project, settings, clock
        self.journal = Journal(settings.journal())

    @contextmanager
    def alone(self) -> Generator[None]:
        """One release of the project at a time; its intents stay untouched by `recover` as long. A rollback does not wait."""
        with self.journal.alone(f"release {self.project}"):
            yield

    def release(self, version: int, *, actor: str, reason: str) -> Plan:
        """All phases up to the commit, for whoever is no flow; alias and servers follow by `follow`."""
        with self.alone():
            plan = self.plan(version, actor=actor, reason=reason)
            if not plan.refused:
                self.commit(plan)
        return plan

    def plan(self, version: int, *, actor: str, reason: str, proposal: int | None = None) -> Plan:
        """Asks the journal whether the version may be released; then its bundle is verified, loaded and asked as it will be served.

        A proposal that is not about what is there any more becomes void. The caller is `alone`.

        Raises:
            ArtifactError: the bundle is not the registered one, or does not answer; the intent is undone.
        """
        self.undo_left()
        use, champion = Project.named(self.project, self.settings), self.journal.champion(self.project)
        trained = self.journal.made(self.project, version)
        refused = self._refusal(use, version, trained, champion, actor, reason, proposal)
        if refused or trained is None:
            return Plan(project=self.project, refused=refused)
        detail = trained["detail"]
        reason += self._accepted_skew(version, detail["digest"])
        intent = self.journal.intend_release(
            project=self.project, kind="release", version=version, actor=actor, reason=reason, at=self._clock(), runner=processes.this()
        )  # fmt: skip
        release = Release(
            project=self.project, generation=champion.generation + 1 if champion else 1, version=version, digest=detail["digest"], actor=actor, reason=reason,
            at=self._clock().isoformat(), metric=use.metric, value=detail["value"], low=detail["low"], high=detail["high"],
        )  # fmt: skip
        with self._undone_on_error(intent):
            intent = self._answered(self._verified(intent, release.digest), release.digest)
        return Plan(
            project=self.project, intent=intent, proposal=proposal, release=release, previous=champion.version if champion else None
        )  # fmt: skip

    def undo_left(self) -> None:
        """Undoes releases that a kill left open before their commit, and removes their files. The caller is `alone`."""
        self.journal.undo_left("release", self.project)
        shutil.rmtree(self._rehearsals, ignore_errors=True)

    @property
    def _rehearsals(self) -> Path:
        """Where the candidates of releases have their homes."""
        return self.settings.home / "rehearsals" / self.project

    def commit(self, plan: Plan, moves: Moves | None = None) -> Release:
        """One database transaction makes the version champion, its proposal approved, its intent committed and its rollout moved.

        Raises:
            ConflictError: somebody else was quicker; the intent is undone.
        """
        if plan.release is None or plan.intent is None:
            raise ValueError(f"nothing to commit: {plan.refused}")
        with self._undone_on_error(plan.intent):
            return self.journal.release(plan.release, plan.proposal, plan.intent.id, moves)

    def follow(self, patience: float = PATIENCE) -> str:
        """Brings MLflow's aliases and the servers to what the journal says, and says how the servers are; may be repeated.

        Aliases that have followed once stay as they are: whoever moves one then does so by hand, which is for `recover` to answer. Without MLflow the aliases are left to `recover`. The caller is `alone`, so that no older champion is named last.

        Raises:
            KeepfitError: the server does not answer with the champion within so many seconds.
        """
        open_ones = self.journal.release_intents(self.project, AFTER)
        releases = self.journal.releases(self.project)
        committed = [intent for intent in open_ones if intent.phase == COMMITTED]
        late = self._aliased(releases, committed) if committed else ""
        said = asked.confirm(self.settings.serving(), releases[-1], patience)
        if late:
            return f"{said}; the alias in MLflow follows by `keepfit recover`: {late}"
        for intent in open_ones:
            self.journal.reach(intent, "confirmed", said)
        return said

    def _aliased(self, releases: list[Release], committed: list[Intent]) -> str:
        """Moves the aliases, or says why they are late."""
        from mlflow.exceptions import MlflowException

        try:
            registry = Registry(self.project, self.settings.mlflow(), self.settings.artifacts)
            for name, release in zip(("champion", "previous"), reversed(releases), strict=False):
                if registry.has(release.version):  # one that somebody deleted there goes on answering without a name
                    registry.point(name, release.version)
        except (MlflowException, OSError) as error:
            LOG.warning("%s: the alias is late: %s", self.project, error)
            return " ".join(str(error).split())[:300]
        for intent in committed:
            self.journal.reach(intent, "aliased")
        return ""

    @contextmanager
    def _undone_on_error(self, intent: Intent) -> Generator[None]:
        try:
            yield
        except Exception as error:
            self.journal.undo(intent, f"{type(error).__name__}: {error}")
            raise

    def _folder(self, version: int) -> Path:
        return self.settings.bundles(self.project) / str(version)

    def _accepted_skew(self, version: int, digest: str) -> str:
        """What the release's reason says of other libraries' versions, where that is accepted."""
        if self.settings.library_skew != "accept":
            return ""
        others = bundles.skewed(bundles.manifest_of(self._folder(version), digest)["versions"])
        return f"; library skew accepted: written by {others}" if others else ""

    def _verified(self, intent: Intent, digest: str) -> Intent:
        if name := bundles.altered(folder := self._folder(intent.version), digest):
            raise ArtifactError(
                f"{folder / name} was altered or damaged; restore it from a copy, or release another version."
            )
        return self.journal.reach(intent, "verified")

    def _answered(self, intent: Intent, digest: str) -> Intent:
        """Loads and asks the candidate in a serving process of its own."""
        self._rehearsals.mkdir(parents=True, exist_ok=True)
        try:
            with Rehearsal(self._folder(intent.version), digest, self._rehearsals) as rehearsal:
                rehearsal.answer(CANDIDATE)
        except UnservedError as error:
            raise ArtifactError(f"version {intent.version} of {self.project} is not released: {error}") from error
        return self.journal.reach(intent, "answered")

    def _refusal(
        self, use: Project, version: int, trained: dict[str, Any] | None, champion: Release | None, actor: str, reason: str, proposal: int | None
    ) -> str:  # fmt: skip
        """Why the version may not be released, or nothing."""
        waits = next(reversed(self.journal.proposals(self.project, version=version)), None)
        approves = waits is not None and waits.id == proposal and reason.strip() not in {"", BY_HAND}
        return (
            (self._void(use, waits, actor) if waits and approves and waits.state == "open" else "")
            or _objection(use, version, trained["detail"] if trained else None, champion)
            or self._undecided(use, trained or {}, waits, approves=approves)
            or self._outdated(use, trained or {}, champion)
            or self._taken_back(version, actor)
            or self._spoken_against(version, actor)
        )

    def _taken_back(self, version: int, actor: str) -> str:
        """Why nothing but a person may release a version that was rolled back, or nothing."""
        back = rolled_back(self.journal.releases(self.project), version)
        if back is None or not actor.startswith((BY_ITSELF, IN_MLFLOW)):
            return ""
        return (
            f"version {version} was rolled back by {back.actor} on {back.at[:19]}: {back.reason}. It comes back when a person says so: "
            f"`keepfit release {self.project} {version} --reason TEXT`, or `{approval(self.project, version)}` where it waits"
        )

    def _spoken_against(self, version: int, actor: str) -> str:
        """Why nothing but a person may release a version that was taken out of its shadow or canary, or nothing."""
        last = next((each for each in reversed(self.journal.rollouts(self.project)) if each.version == version), None)
        if last is None or last.phase != "undone" or not actor.startswith((BY_ITSELF, IN_MLFLOW)):
            return ""
        return (
            f"version {version} was undone in its rollout on {last.since[:19]}: {last.said}. A person may release it: "
            f"`keepfit release {self.project} {version} --reason TEXT`"
        )

    def _void(self, use: Project, waits: Proposal, actor: str) -> str:
        """Makes a proposal void that is not about what is there any more, and says what changed; else nothing."""
        if not (changes := proposals.changed(use, waits, self.journal, self.settings)):
            return ""
        reason = f"changed since {waits.since[:19]}: {', '.join(changes)}"
        self.journal.decide(waits.id, "void", actor=actor, at=self._clock(), reason=reason)
        return f"the proposal of version {waits.version} is void, {reason}. {_again(use)}"

    def _undecided(self, use: Project, trained: dict[str, Any], waits: Proposal | None, *, approves: bool) -> str:
        """Why a version that a person decides about may not be released now, or nothing.

        Args:
            use: the project.
            trained: the training that made the version.
            waits: the version's newest proposal.
            approves: this release is the approval of that proposal.
        """
        version, again = trained["version"], _again(use)
        if waits and waits.state == "open":
            said = f"version {version} waits for a person since {waits.since[:19]}: {waits.why}. Say `{approval(use.project, version)}`, or reject"
            return "" if approves else said
        if version in {release.version for release in self.journal.releases(use.project)}:
            return ""  # what was champion once may come back
        if waits:
            return f"{waits.ended}; {again}"
        held = outcome([Verdict.model_validate(verdict) for verdict in trained["detail"]["verdicts"]]) == "held"
        return f"version {version} is held, but nobody was asked to decide; {again}" if held else ""

    def _outdated(self, use: Project, trained: dict[str, Any], champion: Release | None) -> str:
        """Why a version that never was champion may not become one by verdicts of another time, or nothing."""
        were = {release.version for release in self.journal.releases(use.project)}
        return "" if trained["version"] in were else outdated(use, trained, champion, self.settings)


def outdated(use: Project, trained: dict[str, Any], champion: Release | None, settings: Settings) -> str:
    """Why the verdicts on a version do not count any more, or nothing: another champion answers, or gates ask something else.

    What the record of an older training does not say is held against nobody.
    """
    detail, now = trained["detail"], champion.version if champion else None
    compared = detail.get("against", (detail.get("champion") or {}).get("version", now))
    if compared != now:
        then = f"was compared with version {compared}" if compared else "was judged when there was no champion"
        since = f"version {champion.version} is champion since {champion.at[:19]}" if champion else "there is none"
        return f"version {trained['version']} {then}, but {since}: a challenger must be better than the champion of now. {_again(use)}"
    asked, told = plans.bars(use, settings), detail.get("bars", {})
    if changed := [name for name, bar in asked.items() if told.get(name, bar) != bar]:
        return (
            f"version {trained['version']} was judged before this was changed: {', '.join(changed)}. "
            f"A challenger must pass every gate as it is configured now. {_again(use)}"
        )
    return ""


def _again(use: Project) -> str:
    return f"`keepfit train {use.project} --again` makes a new challenger"


def _objection(use: Project, version: int, detail: dict[str, Any] | None, champion: Release | None) -> str:
    """Why a version may not be released, or nothing."""
    if detail is None:
        return f"{use.project} has no version {version} with verdicts on record; train one first"
    verdicts = [Verdict.model_validate(verdict) for verdict in detail.get("verdicts", [])]
    asked_of = {verdict.gate for verdict in verdicts}
    unasked = [gate.kind for gate in use.gates if gate.kind not in asked_of]
    if unasked:
        return f"version {version} has no verdict of: {', '.join(unasked)}; train again under the present configuration"
    if outcome(verdicts) == "refused":
        failed = ", ".join(verdict.gate for verdict in verdicts if not verdict.passed)
        return f"version {version} did not pass: {failed}"
    if champion and champion.version == version:
        return f"version {version} is the champion already, since {champion.at[:19]}"
    return ""
