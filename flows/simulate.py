"""Simulations of the watch: on made rows, or on a project's own. Plain functions without a run."""

from typing import Any, Protocol

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.watching.plan import WatchPlan
from tasks.ml.watching.simulated import Say, Stream, World, provoked, unprovoked
from tasks.stores.lake import Lake, snapshot_named, teachable


class _Tells(Protocol):
    """What both simulations look like."""

    def __call__(
        self, world: World, months: int, plan: WatchPlan, stream: Stream, seed: int, say: Say
    ) -> dict[str, Any]: ...


def alarms(project: str | None, *, null: bool, months: int, seed: int, settings: Settings, say: Say) -> dict[str, Any]:
    """False alarms a month where nothing is amiss; or which of the planted drifts are found, and after how many days.

    Args:
        project: days are drawn from its newest snapshot; from made rows when left out.
        null: nothing is amiss.
        months: of watching, in versions that are watched for twelve months each; below 60 a lucky or unlucky calibration decides.
        seed: of all that is drawn.
        settings: where the rows are.
        say: is told how far it is.

    Raises:
        ProjectError: there is no such project.
    """
    use = None if project is None else Project.named(project, settings)
    world = World.made(seed) if use is None else _own(use, settings, seed)
    if world is None:
        return {
            "state": "refused",
            "reason": f"no row of {project} has landed yet; `keepfit land {project} FILE` lands some",
        }
    tells: _Tells = unprovoked if null else provoked
    return {"project": project, **tells(world, months, use.watch if use else WatchPlan(), Stream(), seed, say)}


def _own(use: Project, settings: Settings, seed: int) -> World | None:
    """A project's labelled rows, as its models read them; None where none has landed."""
    root = settings.lake(use.project)
    snapshot = snapshot_named(Lake(use.project, root, use.contract), None)
    if snapshot is None:
        return None
    rows, _, _ = teachable(use, snapshot, root)
    return World.of(rows[list(use.types)], seed)
