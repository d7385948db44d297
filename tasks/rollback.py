"""Rollback: a version that was champion before is champion again, within seconds; neither Prefect nor MLflow is needed for it.

Nothing heavy is imported here, and no model is loaded: the version has answered before, its bytes, seal and libraries are verified, and the
server loads it beside the champion of now, which answers until then. The alias in MLflow follows by `recover`.
"""

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tasks.config.errors import ConflictError, KeepfitError, ProjectError
from tasks.config.names import is_project
from tasks.config.settings import Settings
from tasks.serving.asked import NOBODY, confirm, is_up
from tasks.stores import bundles, processes
from tasks.stores.journal import Intent, Journal, Release, predecessor
from tasks.stores.seals import Seals

PATIENCE = 4.0  # seconds for another rollback to end, and for the server to follow


def utc() -> dt.datetime:
    """Now."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Rollback:
    """One rollback of one project.

    Attributes:
        project: whose champion changes.
        actor, reason: go on record.
        to: the version that comes back; by default the one before the champion.
        of: the version that is taken back; nothing changes when another one is champion by now.
    """

    project: str
    actor: str
    reason: str
    to: int | None = None
    of: int | None = None
    clock: Callable[[], dt.datetime] = utc

    def do(self, settings: Settings) -> dict[str, Any]:
        """Brings the version back: {"project", "from", "to", "seconds", "generation", "reason"}; or the refusal, after which all is as before.

        Raises:
            ConflictError: somebody else moved the champion in between; it is theirs.
            KeepfitError: the server does not follow; the rollback stands.
        """
        began = time.monotonic()
        if not is_project(self.project):
            raise ProjectError(f"{self.project[:60]!r} is no name of a project; `keepfit status` lists them.")
        journal = Journal(settings.journal())
        with journal.alone(f"rollback {self.project}", PATIENCE):
            done = self._committed(journal, settings)
        if isinstance(done, str):
            return {"project": self.project, "state": "refused", "reason": done}
        before, champion = done
        said = _confirmed(settings.serving(), champion)
        return {
            "project": self.project, "from": before.version, "to": champion.version, "seconds": round(time.monotonic() - began, 2),
            "generation": champion.generation, "reason": f"{champion.reason}; {said}",
        }  # fmt: skip

    def _committed(self, journal: Journal, settings: Settings) -> tuple[Release, Release] | str:
        """The champion of before and the one of now; or why nothing changed."""
        journal.undo_left("rollback", self.project)
        releases = journal.releases(self.project)
        chosen = self._chosen(releases)
        if isinstance(chosen, str):
            return chosen
        intent = journal.intend_release(
            project=self.project, kind="rollback", version=chosen.version, actor=self.actor, reason=self.reason, at=self.clock(), runner=processes.this()
        )  # fmt: skip
        if unfit := _unfit(chosen, settings):
            journal.undo(intent, unfit)
            return f"version {chosen.version} cannot come back: {unfit} Version {releases[-1].version} stays champion."
        return releases[-1], self._commit(journal, journal.reach(intent, "verified"), releases[-1], chosen)

    def _commit(self, journal: Journal, intent: Intent, before: Release, chosen: Release) -> Release:
        again = replace(
            chosen, generation=before.generation + 1, actor=self.actor, reason=self.reason, at=self.clock().isoformat(), kind="rollback"
        )  # fmt: skip
        try:
            return journal.release(again, intent=intent.id)
        except ConflictError as error:
            journal.undo(intent, str(error))
            raise

    def _chosen(self, releases: list[Release]) -> Release | str:
        """The release whose version comes back, or why there is none."""
        if not releases:
            return f"{self.project} has no champion, so there is nothing to take back"
        known = {release.version: release for release in releases}
        if self.of not in {None, releases[-1].version}:
            return f"version {self.of} is not the champion any more; version {releases[-1].version} is, since {releases[-1].at[:19]}"
        if self.to is None:
            return predecessor(releases) or _without_predecessor(self.project, known, releases[-1])
        if self.to == releases[-1].version:
            return f"version {self.to} is the champion already, since {releases[-1].at[:19]}"
        if self.to not in known:
            return f"version {self.to} of {self.project} was never champion. Those that were: {_others(known, releases[-1])}; `keepfit release` makes another one champion"
        return known[self.to]


def _without_predecessor(project: str, known: dict[int, Release], champion: Release) -> str:
    """Why there is none to bring back by default, and what may be done."""
    if known.keys() == {champion.version}:
        return (
            f"version {champion.version} is the only one that was ever champion of {project}, so there is nothing to roll back to. "
            f"`keepfit train {project} --again` makes another challenger"
        )
    return f"nothing of {project} was champion before version {champion.version}; name a version with --to: {_others(known, champion)}"


def _confirmed(address: str | None, champion: Release) -> str:
    """How the server follows; one that is down has nothing to follow with, and loads the champion when it starts.

    Raises:
        KeepfitError: it is up and does not follow.
    """
    return NOBODY if address is None or not is_up(address) else confirm(address, champion, PATIENCE)


def _others(known: dict[int, Release], champion: Release) -> str:
    return ", ".join(str(version) for version in known if version != champion.version) or "none"


def _unfit(chosen: Release, settings: Settings) -> str:
    """Why no server here would load a version, or nothing: a file of it is gone or altered, nobody who is trusted signed it, or other libraries wrote it."""
    folder = settings.bundles(chosen.project) / str(chosen.version)
    try:
        bundles.opened(folder, chosen.digest, skew=settings.library_skew, seals=Seals.of(settings))
        name = bundles.altered(folder, chosen.digest)
    except KeepfitError as error:
        return str(error)
    return f"{folder / name} was altered or damaged; restore it from a copy." if name else ""
