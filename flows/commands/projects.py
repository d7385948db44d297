"""Projects: a new one, whether it loads, its contract, its change plan, its deployments."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from flows.commands.running import deployed
from flows.commands.terminal import Json, Words, show
from tasks.config.errors import ProjectError
from tasks.config.settings import Settings

if TYPE_CHECKING:
    from tasks.config.project import Project

contract = App(name="contract", help="What a row may be, and how that has changed.")
plan = App(name="plan", help="What a project may change by itself, and who signed that.")


def check(project: str | None = None, *, as_json: Json = False) -> int:
    """Load one project, or all, with its change plan, and say what is wrong with it: file, line, key."""
    settings, found, faults = Settings(), [], list[str]()
    for name in [project] if project else settings.project_names():
        try:
            found.append(_loaded(name, settings))
        except ProjectError as error:  # those behind it may have faults, too
            faults += error.faults
    if faults:
        raise ProjectError(*faults)
    rows: list[dict[str, Any]] = [
        {
            "project": use.project,
            "columns": len(use.contract.columns),
            "features": len(use.features),
            "gates": [gate.kind for gate in use.gates],
            "digest": use.digest,
        }
        for use in found
    ]
    page = "\n".join(
        f"{row['project']}: {row['columns']} columns, {row['features']} features, gates {', '.join(row['gates'])}"
        for row in rows
    )
    return show({"ok": True, "projects": rows}, as_json=as_json, page=page)


def _loaded(name: str, settings: Settings) -> "Project":
    """A project that loads as a whole: file, change plan, computed columns, behaviour."""
    from tasks.config import plans
    from tasks.config.project import Project

    use = Project.named(name, settings)
    plans.load(use, settings)
    if use.computing:
        use.computing.ready()
    use.behaviour(settings)
    return use


def new(
    name: str, *, data: Path, target: str | None = None, time: str | None = None,
    key: Words = (), kind: str | None = None, as_json: Json = False,
) -> int:  # fmt: skip
    """Write a new project whose contract is inferred from a file.

    Args:
        name: Of the project, and of its folder.
        data: CSV, Parquet or JSON lines.
        target: The column to predict; not needed with --kind anomaly.
        time: The column that says when a row happened.
        key: The columns that name a row.
        kind: binary, multiclass, regression or anomaly; by default what the target's values say.
    """
    from flows import newcomer

    now = dt.datetime.now(dt.UTC)
    made = newcomer.new(name, data, target, time=time, key=key, kind=kind, settings=Settings(), now=now)
    return show(made, as_json=as_json, page=newcomer.page_of_new(made))


def deploy(*, as_json: Json = False) -> int:
    """Bring the Prefect deployments of the running stack to what the project files say; what they do not declare any more goes."""
    done = deployed()
    return show(done, as_json=as_json, page=page_of_deployed(done))


def page_of_deployed(done: dict[str, list[str]]) -> str:
    """What is deployed of each project, on a line of its own, and what was removed."""
    flows: dict[str, list[str]] = {}
    for name in done["deployments"]:
        flow, _, project = name.partition("/")
        flows.setdefault(project, []).append(flow)
    lines = [f"{project}: {', '.join(of)}" for project, of in flows.items()]
    return "\n".join([*lines, *(f"removed: {each}" for each in done["removed"])]) or "no project is declared"


@contract.command(name="diff")
def contract_diff(project: str, old: str, new: str = "now", *, as_json: Json = False) -> int:
    """Say what changed between two contracts: breaking, risky or benign, and which features and models it touches.

    Args:
        project: The project.
        old: now, a path to a project.yaml, a git revision, or the beginning of a digest that landings recorded.
        new: Likewise.
    """
    from flows import newcomer

    found = newcomer.contract_diff(project, old, new, Settings())
    return show(found, as_json=as_json, page=newcomer.page_of_diff(found))


@plan.command(name="show")
def plan_show(project: str, *, as_json: Json = False) -> int:
    """Show the change plan of a project, and whether it counts."""
    from flows import looking

    told = looking.plan(project, Settings())
    return show(told, as_json=as_json, page=_plan(told))


@plan.command(name="sign")
def plan_sign(project: str, *, by: str = "", as_json: Json = False) -> int:
    """Answer for the change plan as it stands: what is inside of it is released without asking anybody.

    The key is made at the first signature, under KEEPFIT_HOME/keys. Others trust it when its plan.pub lies in their keys/trusted.

    Args:
        project: The project.
        by: Who signs; goes on record. By default whoever is logged in.
    """
    from flows import looking

    settings = Settings()
    told = looking.sign_plan(project, by or settings.actor, settings)
    return show(told, as_json=as_json, page=_plan(told))


@plan.command(name="verify")
def plan_verify(project: str, *, as_json: Json = False) -> int:
    """Say whether the change plan is signed by somebody who is trusted here, and unchanged since; else why not, with exit code 1."""
    from flows import looking

    told = looking.plan(project, Settings())
    return show({"ok": told["signed"], **told}, as_json=as_json, page=f"{project}: {told['reason']}")


def _plan(told: dict[str, Any]) -> str:
    limits = [f"  {name}: {limit}" for name, limit in (told["plan"] or {}).items()]
    return "\n".join([f"{told['project']}: {told['reason']}", *limits])
