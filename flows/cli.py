"""The `keepfit` command: parsing and printing only."""

import datetime as dt
import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console, RenderableType
from rich.console import Group as Stacked
from rich.table import Table
from rich.text import Text

from flows import stack
from tasks.config.errors import BatchError, KeepfitError, MisuseError, suggestion
from tasks.config.names import approval
from tasks.config.settings import Settings

DONE, REFUSED, MISUSE = 0, 1, 2
STATUS = {"released", "registered", "landed", "known", "up", "down"}

app = App(
    name="keepfit", help="Keeps models fit: lands new data, retrains, proves that the new model is better, releases it, serves it.",
    version_flags=["--version"],
)  # fmt: skip
STACK, PROJECTS, LOOP, MODELS = (Group.create_ordered(name) for name in ("Stack", "Projects", "The loop", "Models"))
contract = App(name="contract", help="What a row may be, and how that has changed.", group=PROJECTS)
data = App(name="data", help="The rows that have landed, version by version.", group=LOOP)
quarantine = App(name="quarantine", help="Rows that broke the contract, and another try for them.", group=LOOP)
plan = App(name="plan", help="What a project may change by itself, and who signed that.", group=PROJECTS)
simulate = App(name="simulate", help="What the gates and the watch would do where the truth is known.", group=MODELS)
for part in (contract, data, plan, quarantine, simulate):
    app.command(part)
Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON object on stdout; everything else goes to stderr.")
]
Said = Annotated[str, Parameter(validator=lambda _type, text: _something(text))]
logs = Console(stderr=True, highlight=False)


def say(line: str) -> None:
    """One line for a person, on stderr."""
    logs.print(line, markup=False, soft_wrap=True)


def show(result: dict[str, Any], *, as_json: bool, page: RenderableType | None = None) -> int:
    """Prints a result and gives the exit code that it deserves."""
    if as_json:
        print(json.dumps(result, default=str))
    else:
        shown = page if page is not None else _lines(result)
        console = Console(highlight=False)
        console.print(shown, markup=False, soft_wrap=isinstance(shown, str))
    return REFUSED if result.get("state") in {"refused", "held", "failed"} or result.get("ok") is False else DONE


def _something(text: str | None) -> None:
    """Refuses an empty text: what goes on record must say something; an option that was left out is another matter."""
    if text is not None and not text.strip():
        raise ValueError("Say something: it goes on record.")


def _lines(result: dict[str, Any]) -> str:
    return "\n".join(f"{name:>12}  {value}" for name, value in result.items() if value not in (None, {}, []))


def connect() -> Settings:
    """Settings, with the environment of the stack (or of a temporary server) set before Prefect is imported."""
    settings = Settings()
    os.environ.update(stack.environment(settings))
    return settings


@app.command(group=STACK)
def up(*, as_json: Json = False) -> int:
    """Start the local stack (Prefect, MLflow, worker, serving, inbox, recover) and deploy every project. Harmless when it runs."""
    settings = Settings()
    started = stack.up(settings, say)
    return show({"state": "up", **started, "deployments": _deploy()}, as_json=as_json)


@app.command(group=STACK)
def down(*, wipe: bool = False, yes: bool = False, as_json: Json = False) -> int:
    """Stop every process of the local stack.

    Args:
        wipe: Also delete all state: rows, models, runs, journal. Asks first.
        yes: Do not ask.
    """
    settings = Settings()
    if wipe and not yes and input(f"Delete everything under {settings.home}? Type yes: ") != "yes":
        return show({"state": "refused", "reason": "nothing was stopped or deleted"}, as_json=as_json)
    return show({"state": "down", **stack.down(settings, wipe=wipe, say=say)}, as_json=as_json)


@app.command(group=STACK)
def status(*, as_json: Json = False) -> int:
    """Services, champions, batches, the last training of every project, and what waits for a person."""
    result = _status(Settings())
    if as_json:
        return show(result, as_json=True)
    console = Console(highlight=False)
    console.print(_service_table(result["services"]))
    console.print(_project_table(result["projects"]))
    if waiting := [(row["project"], each) for row in result["projects"] for each in row["proposals"]]:
        console.print(_proposal_table(waiting))
    if troubled := {row["project"]: row["incidents"] for row in result["projects"] if row["incidents"]}:
        console.print(f"open incidents: {troubled}; `keepfit incidents` tells of them", markup=False, soft_wrap=True)
    if result["unsent"]:
        console.print(_unsent_table(result["unsent"]))
    return DONE


@app.command(group=STACK)
def doctor(*, as_json: Json = False) -> int:
    """Look the installation over; every finding comes with the next move."""
    checks = stack.diagnose(Settings())
    table = Table("", "check", "finding", "next move", box=None)
    for check in checks:
        table.add_row(
            "ok" if check["ok"] else "NO",
            check["check"],
            str(check["detail"]),
            "" if check["ok"] else str(check["next"]),
        )
    return show({"ok": all(check["ok"] for check in checks), "checks": checks}, as_json=as_json, page=table)


@app.command(group=STACK)
def recover(project: str | None = None, *, as_json: Json = False) -> int:
    """Finish or undo releases that were cut off, put alias and servers right, end dead runs, start trainings that are owed.

    The running stack does so by itself; without one, this does. Harmless when all is well. Exit code 1 when something is left to do.

    Args:
        project: Only this one.
    """
    settings = connect()
    from flows.recover import once

    return show(once(settings, project), as_json=as_json)


@app.command(group=PROJECTS)
def check(project: str | None = None, *, as_json: Json = False) -> int:
    """Load one project, or all, with its change plan, and say what is wrong with it: file, line, key."""
    from tasks.config import plans
    from tasks.config.project import Project

    settings = Settings()
    found = [Project.named(name, settings) for name in ([project] if project else settings.project_names())]
    for use in found:
        plans.load(use, settings)
        if use.computing:
            use.computing.ready()
        use.behaviour(settings)
    rows = [
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
        f"{row['project']}: {row['columns']} columns, {row['features']} features, gates {', '.join(gate.kind for gate in use.gates)}"
        for use, row in zip(found, rows, strict=True)
    )
    return show({"ok": True, "projects": rows}, as_json=as_json, page=page)


@app.command(group=PROJECTS)
def new(
    name: str, *, data: Path, target: str | None = None, time: str | None = None,
    key: Annotated[tuple[str, ...], Parameter(negative="")] = (), kind: str | None = None, as_json: Json = False,
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


@data.command(name="list")
def data_list(project: str, *, as_json: Json = False) -> int:
    """List the versions of a project's rows and outcomes, newest first, and what made each."""
    from flows import looking

    versions = looking.versions(project, Settings())
    table = Table("version", "at", "why", "what", "", "rows", box=None)
    for row in versions:
        table.add_row(row["snapshot"], row["at"][:19], row["why"], row["name"], row["kind"], f"{row['rows']:,}")
    return show({"project": project, "versions": versions}, as_json=as_json, page=table)


@data.command(name="show")
def data_show(project: str, snapshot: str | None = None, *, as_json: Json = False) -> int:
    """Show one snapshot: its digest, its rows, its span of time, its columns.

    Args:
        project: The project.
        snapshot: Like v12 or v12-3f9c2a7b; the newest by default.
    """
    from flows import looking

    return show(looking.snapshot(project, snapshot, Settings()), as_json=as_json)


@data.command(name="diff")
def data_diff(project: str, a: str, b: str, *, as_json: Json = False) -> int:
    """Compare two snapshots: rows added, removed, changed, and the columns whose distribution moved.

    Args:
        project: The project.
        a: The older snapshot, like v11.
        b: The newer one.
    """
    from flows import looking

    found = looking.compare(project, a, b, Settings())
    table = Table(
        "column", "difference", "empty", "mean", title=f"{found['from']} → {found['to']}: {_changes(found)}", box=None
    )
    for line in found.get("columns", ()):
        means = " → ".join(f"{mean:.4g}" for mean in line.get("mean") or () if mean is not None)
        table.add_row(
            line["column"], f"{line['size']:.3f}", " → ".join(f"{share:.1%}" for share in line["nulls"]), means
        )
    return show(found, as_json=as_json, page=table if "from" in found else None)


@data.command(name="tidy")
def data_tidy(project: str, *, keep_days: float = 30, dry_run: bool = False, as_json: Json = False) -> int:
    """Compact small data files, and remove those that nothing needs: no newest version, no recent one, no model.

    Args:
        project: The project.
        keep_days: Versions of so many days stay readable, whether a model needs them or not.
        dry_run: Only say what would be done.
    """
    from tasks.config.project import Project
    from tasks.tidy import Tidying

    settings = Settings()
    found = Tidying(Project.named(project, settings), settings).tidy(keep_days, dry_run=dry_run)
    return show(found, as_json=as_json, page=f"{project}: {found['reason']}")


@data.command(name="trust")
def data_trust(project: str, *, why: str, snapshot: str | None = None, as_json: Json = False) -> int:
    """Set rows apart anew to judge by: in place of the trusted set that the first training made.

    Nothing learns from them from then on. The champion has learned from most of them, so the next challenger waits for a person.

    Args:
        project: The project.
        why: Goes on record with your name.
        snapshot: Rows that you trust, like v12-3f9c2a7b; the newest by default.
    """
    from flows import looking

    told = looking.trust(project, snapshot, why, Settings())
    return show(told, as_json=as_json, page=f"{project}: {told['reason']}")


def _changes(found: dict[str, Any]) -> str:
    return ", ".join(f"{found.get(what, 0):,} {what}" for what in ("added", "removed", "changed"))


@quarantine.command(name="list")
def quarantine_list(project: str, *, as_json: Json = False) -> int:
    """List the batches that have rows in quarantine, with the rules that they break."""
    from flows import looking

    batches = looking.quarantined(project, Settings())
    table = Table("batch", "name", "rows", "state", "rules", box=None)
    for row in batches:
        rules = "; ".join(f"{count:,} × {rule}" for rule, count in row["rules"].items())
        table.add_row(row["batch"][:12], row["name"], f"{row['quarantined']:,}", row["state"], rules or row["reason"])
    return show({"project": project, "batches": batches}, as_json=as_json, page=table)


@quarantine.command(name="replay")
def quarantine_replay(project: str, batch: str, *, accept: str = "", as_json: Json = False) -> int:
    """Try the quarantined rows of a batch again, after the contract or the hook was mended.

    Args:
        project: The project.
        batch: Name, or the beginning of the digest.
        accept: Why a batch that looks odd as a whole is right; your name goes on record with it.
    """
    settings = Settings()
    from flows import looking

    landing = looking.replay(project, batch, f"{accept} ({settings.actor})" if accept else "", settings)
    return show(landing, as_json=as_json, page=landing["reason"])


@app.command(group=LOOP)
def erase(
    project: str, *, key: Annotated[tuple[str, ...], Parameter(negative="")] = (), where: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    why: str = "", dry_run: bool = False, listed: Annotated[bool, Parameter(name="--list", negative="")] = False, yes: bool = False, as_json: Json = False,
) -> int:  # fmt: skip
    """Erase somebody's rows for good: from every version, quarantine, outcomes, kept files and the prediction log.

    Older snapshots that held them cannot be read any more, and say so. The models that learned from them are named; train
    again to be rid of them there, too. The same bytes do not come back; a new batch with the same key lands as any other.

    Args:
        project: The project.
        key: The key of rows to erase.
        where: COLUMN=VALUE; rows must have all of these values, and the other rows under their keys go, too.
        why: Goes on record, with your name; the key does not.
        dry_run: Only say what would be erased.
        listed: Show the erasures so far.
        yes: Do not ask.
    """
    settings = Settings()
    from tasks.config.project import Project
    from tasks.erase import Erasing
    from tasks.stores.journal import Journal

    use = Project.named(project, settings)
    if listed:
        past = Journal(settings.journal()).erasures(project)
        lines = [f"{row['at'][:19]}  {row['actor']}: {row['reason']} ({row['rows']:,} rows)" for row in past]
        return show({"project": project, "erasures": past}, as_json=as_json, page="\n".join(lines) or "none")
    if wrong := [text for text in where if "=" not in text]:
        raise BatchError(f"--where is '{wrong[0]}'. Wanted: COLUMN=VALUE.")
    erasing, values = Erasing(use, settings), dict(text.split("=", 1) for text in where)
    if not dry_run and not why:
        raise BatchError("An erasure goes on record: say --why. Nothing was changed.")
    if not dry_run and not yes:
        planned = erasing.erase(key, values, actor=settings.actor, reason=why, dry_run=True)
        if input(f"{planned.reason}, and {planned.snapshots} older snapshots become unreadable. Type yes: ") != "yes":
            return show({"state": "refused", "reason": "nothing was erased"}, as_json=as_json)
    erased = erasing.erase(key, values, actor=settings.actor, reason=why, dry_run=dry_run)
    return show(erased.model_dump(mode="json"), as_json=as_json, page=_erased(erased.model_dump()))


def _erased(erased: dict[str, Any]) -> str:
    lines = [f"{erased['project']}: {erased['reason']}; {erased['snapshots']} older snapshots cannot be read any more"]
    for model in erased["models"]:
        what = f"version {model['version']}" if model["version"] else f"training {model['training']}"
        lines.append(f"{what}{' (the champion)' if model['champion'] else ''} learned from {model['snapshot']}")
    if erased["models"]:
        lines.append(f"next: keepfit train {erased['project']} --reason 'rows were erased'")
    lines += [f"has not landed yet, so erase again when it has: {name}" for name in erased["waiting"]]
    lines += [f"cannot be read; look into it yourself: {name}" for name in erased["unread"]]
    return "\n".join(lines)


@app.command(group=PROJECTS)
def deploy(*, as_json: Json = False) -> int:
    """Bring the Prefect deployments of the running stack to what the project files say."""
    return show({"deployments": _deploy()}, as_json=as_json)


@app.command(group=LOOP)
def land(
    project: str, files: Annotated[list[Path], Parameter(negative="")], /, *, supersedes: str = "", accept: str = "", as_json: Json = False
) -> int:  # fmt: skip
    """Land files under the project's contract, each exactly once.

    Args:
        project: The project whose contract holds.
        files: CSV, Parquet or JSON lines.
        supersedes: A batch that these rows correct, by name or the beginning of its digest; a file of the same name corrects by itself.
        accept: Why a batch that looks odd as a whole is right; your name goes on record with it.
    """
    return _land(project, files, "rows", supersedes, accept, as_json=as_json)


@app.command(group=LOOP)
def outcomes(
    project: str, files: Annotated[list[Path], Parameter(negative="")], /, *, supersedes: str = "", accept: str = "", as_json: Json = False
) -> int:  # fmt: skip
    """Land what came true later: the key of rows that landed, the target, and outcome_at, when it became known.

    A file with a column prediction_id in place of the key tells what came true of predictions.

    Without outcome_at an outcome became known when it came. The newest outcome of a row is its label from then on; older
    snapshots read as they were.

    Args:
        project: The project.
        files: CSV, Parquet or JSON lines.
        supersedes: A batch of outcomes that these correct, by name or the beginning of its digest.
        accept: Why a batch that was held is right; your name goes on record with it.
    """
    return _land(project, files, "outcomes", supersedes, accept, as_json=as_json)


def _land(
    project: str, files: list[Path], kind: Literal["rows", "outcomes"], supersedes: str, accept: str, *, as_json: bool
) -> int:
    settings = connect()
    from flows import inbox
    from flows.runs import run, wait
    from tasks.config.project import Project
    from tasks.ingest import keep
    from tasks.tell import by_prediction, tell

    use = Project.named(project, settings)
    landings = []
    for file in files:
        if kind == "outcomes" and by_prediction(use, file):
            landings.append(tell(use, file, settings))
            continue
        kept = keep(project, file, settings, kind)
        parameters = {
            "project": project, "path": str(kept), "name": file.name, "supersedes": supersedes, "kind": kind,
            "accept": f"{accept} ({settings.actor})" if accept else "",
        }  # fmt: skip
        plain = settings.prefect() and not (supersedes or accept)
        landings.append(
            wait(inbox.submit(project, kept, kind), say) if plain else run("land", parameters, settings, say)
        )
    page = "\n".join(landing["reason"] for landing in landings)
    worst = "held" if any(landing["state"] == "held" for landing in landings) else "landed"
    return show(
        landings[0] if len(landings) == 1 else {"state": worst, "batches": landings}, as_json=as_json, page=page
    )


@app.command(group=LOOP)
def fetch(project: str, source: str | None = None, *, as_json: Json = False) -> int:
    """Fetch what is new from a project's sources into its inbox, from where it lands.

    Args:
        project: The project.
        source: One of its sources by name; all by default.
    """
    settings = connect()
    from flows.runs import run
    from tasks.config.project import Project

    Project.named(project, settings)
    return show(run("fetch", {"project": project, "source": source}, settings, say), as_json=as_json)


@app.command(group=LOOP)
def train(
    project: str, *, snapshot: str | None = None, reason: str = "by hand", again: bool = False, as_json: Json = False
) -> int:
    """Train a challenger on a snapshot, judge it, and release it when every gate passed.

    Args:
        project: The project.
        snapshot: Rows to train on, like v12-3f9c2a7b; the newest by default.
        reason: Why; goes on record.
        again: Also when this snapshot was trained on with this code and configuration.
    """
    settings = connect()
    from flows.runs import run
    from tasks.config.project import Project

    Project.named(project, settings)
    parameters = {"project": project, "snapshot": snapshot, "reason": f"{reason} ({settings.actor})", "again": again}
    return show(run("train", parameters, settings, say), as_json=as_json)


@app.command(group=LOOP)
def incidents(project: str | None = None, incident: str | None = None, *, as_json: Json = False) -> int:
    """List what alarms opened, newest first: what moved, what it is expected to cost, what was done; or show one with its summary.

    Args:
        project: Only of this project.
        incident: The id of one of them, or its beginning.
    """
    from flows.looking import incidents as kept

    found = kept(project, incident, Settings())
    if incident is not None:
        return show(found[0], as_json=as_json, page=_incident(found[0]))
    table = Table("project", "incident", "state", "class", "last seen", "alarms", "features", box=None)
    for one in found:
        features = ", ".join(one["features"][:3])
        table.add_row(
            one["project"], one["id"], one["state"], one["class"], one["last_seen"][:16], f"{one['count']:,}", features
        )
    return show({"incidents": found}, as_json=as_json, page=table)


def _incident(found: dict[str, Any]) -> RenderableType:
    by = "a language model" if found["written_by"] == "assistant" else "keepfit"
    table = Table("alarm", "class", "level", "threshold", "says", box=None)
    for alarm in found["alarms"]:
        table.add_row(
            alarm["kind"], alarm["class"], f"{alarm['level']:.3g}", f"{alarm['threshold']:.3g}", alarm["says"]
        )
    note = [Text(found["note"])] if found["note"] else []
    head = Text(f"{found['project']}, incident {found['id']}, {found['state']}\n{found['summary']}\n(written by {by})")
    return Stacked(head, *note, table)


@app.command(group=MODELS)
def release(project: str, version: int, *, reason: str = "by hand", as_json: Json = False) -> int:
    """Make a registered version champion, if every configured gate passed it; one that waits for a person is released by `approve`."""
    settings = connect()
    from flows.runs import run

    parameters = {"project": project, "version": version, "reason": reason, "actor": settings.actor}
    return show(run("release", parameters, settings, say), as_json=as_json)


@app.command(group=MODELS)
def rollback(project: str, *, to: int | None = None, reason: str = "by hand", as_json: Json = False) -> int:
    """Bring a former champion back within seconds; Prefect and MLflow are not needed. Nothing changes when it cannot be served.

    The automation leaves the version that was taken back alone from then on, until a person releases it: `keepfit release`.

    Args:
        project: The project.
        to: The version; by default the champion before the present one.
        reason: Why; goes on record.
    """
    from tasks.rollback import Rollback

    settings = Settings()
    done = Rollback(project, settings.actor, reason, to).do(settings)
    return show(done, as_json=as_json)


@app.command(group=MODELS)
def history(project: str, *, at: str | None = None, as_json: Json = False) -> int:
    """List every champion: from when to when, by whom, why, and what was changed by hand in MLflow.

    Args:
        project: The project.
        at: A time, like 2026-01-31 or 2026-01-31T12:00Z: only the champion of then.
    """
    from flows import looking

    found = looking.history(project, at, Settings())
    table = Table("generation", "version", "from", "to", "", "by", "why", box=None)
    for row in found["champions"]:
        until = (row["to"] or "now")[:19]
        table.add_row(
            str(row["generation"]),
            str(row["version"]),
            row["from"][:19],
            until,
            row["kind"],
            row["actor"],
            row["reason"],
        )
    return show(found, as_json=as_json, page=table)


@app.command(group=MODELS)
def rollout(project: str, *, stop: bool = False, reason: str = "by hand", as_json: Json = False) -> int:
    """Show how the newest release is rolled out: its phase, what was scored, what each test says, and what comes next.

    A test brings the new version back when its e-value reaches its bar. The running stack looks by itself.

    Args:
        project: The project.
        stop: Take a challenger out of its shadow or canary; the champion goes on.
        reason: Why; goes on record with --stop.
    """
    from tasks import rollout as rolling

    settings = Settings()
    if stop:
        return show(rolling.stop(project, settings, reason), as_json=as_json)
    found = rolling.shown(project, settings)
    return show(found, as_json=as_json, page=_rollout(found))


def _rollout(found: dict[str, Any]) -> RenderableType:
    head = (
        f"{found['project']}: version {found['version']} beside version {found['against']}, {found['phase']} since {found['since'][:19]}\n"
        f"{found['rows']:,} rows, {found['answered']:,} answered by version {found['version']}, {found['judged']:,} with an outcome\n{found['said']}"
    )
    table = Table("test", "rows", "difference", "e-value", "bar", "", box=None)
    for name, test in found["tests"].items():
        verdict = "against it" if test["against"] else ""
        table.add_row(
            name, str(test["rows"]), f"{test['mean']:+.4g}", f"{test['peak']:.3g}", f"{test['bar']:.3g}", verdict
        )
    warning = [Text(f"early warning: {found['warning']}")] if found["warning"] else []
    following = [Text(f"next: {found['next']}")] if found["next"] else []
    return Stacked(Text(head), table, *warning, *following)


@app.command(group=MODELS)
def approve(project: str, version: int, *, reason: Said, by: Said | None = None, as_json: Json = False) -> int:
    """Approve a version that waits for a person, and release it.

    It waits because a gate holds it, or because the project says `release: {by: person}`. What has changed since it began to
    wait – the model's files, the champion, the configuration, the rows, the verdicts – makes the proposal void.

    Args:
        project: The project.
        version: The version; `keepfit status` lists what waits.
        reason: Why; goes on record.
        by: Who decides; by default who is logged in. Goes on record.
    """
    return _decide("approve", project, version, reason, by, as_json=as_json)


@app.command(group=MODELS)
def reject(project: str, version: int, *, reason: Said, by: Said | None = None, as_json: Json = False) -> int:
    """Reject a version that waits for a person; the champion stays.

    Args:
        project: The project.
        version: The version; `keepfit status` lists what waits.
        reason: Why; goes on record.
        by: Who decides; by default who is logged in. Goes on record.
    """
    return _decide("reject", project, version, reason, by, as_json=as_json)


def _decide(decision: str, project: str, version: int, reason: str, by: str | None, *, as_json: bool) -> int:
    settings = connect()
    from flows.runs import run
    from tasks.config.project import Project

    Project.named(project, settings)
    parameters = {"project": project, "version": version, "decision": decision, "by": by or settings.actor, "reason": reason}  # fmt: skip
    return show(run("approve", parameters, settings, say), as_json=as_json)


@app.command(group=MODELS)
def why(project: str, version: int | None = None, *, as_json: Json = False) -> int:
    """Say what was decided last, about a training or a batch that was held, and what every gate answered.

    Args:
        project: The project.
        version: The decision that made this version in place of the newest.
    """
    from flows import looking

    found = looking.why(project, version, Settings())
    show(found, as_json=as_json, page=_why(found))
    return DONE  # the question was answered, whatever was decided


def _why(found: dict[str, Any]) -> RenderableType:
    """What was decided, the numbers of every gate, and under them the reasons."""
    from tasks.ml.gates import Verdict
    from tasks.ml.pages import VERDICT, verdict_cells

    name = f"version {found['version']}" if found.get("version") is not None else found["decision"]
    rows = [verdict_cells(Verdict.model_validate(verdict)) for verdict in found["verdicts"]]
    table = Table(*VERDICT[:-1], title=f"{found['project']} {name}, {found['at'][:19]}: {found['state']}", box=None)
    for cells in rows:
        table.add_row(*cells[:-1])
    reasons = (Text(f"{cells[0]}: {cells[-1]}", style="" if cells[1] == "yes" else "bold") for cells in rows)
    return Stacked(table, Text(found["reason"]), "", *reasons)


@app.command(group=MODELS)
def reproduce(project: str, version: int, *, as_recorded: bool = False, as_json: Json = False) -> int:
    """Make a registered version again: EXACT, NUMERIC, or DIFFERENT with the first step that diverges, and why.

    Rows, recipe, seed and threads are those of then; code, packages and project.yaml are those of this installation. Nothing
    is registered or released. The search is not done again.

    Args:
        project: The project.
        version: The registered version.
        as_recorded: With the configuration of then in place of today's project.yaml.
    """
    settings = connect()
    from flows.reproduce import reproduce as flow
    from tasks.reproduce import on_record

    on_record(project, version, settings)
    if not settings.prefect():
        say("no stack is running: a temporary Prefect server starts, which takes a while")
    found = flow(project, version, as_recorded)
    show(found, as_json=as_json, page=_reproduced(found))
    return REFUSED if found["verdict"] == "DIFFERENT" else DONE


def _reproduced(found: dict[str, Any]) -> Table:
    """The steps with what is different, under the verdict."""
    title = f"{found['project']} version {found['version']}: {found['verdict']}"
    table = Table("step", "", "recorded", "not as recorded", title=title, caption=found["reason"], box=None)
    for step in found["steps"]:
        more = [f"and {step['more']} more"] if step["more"] else []
        same = {True: "same", False: "DIFFERS", None: "not reached"}[step["same"]]
        table.add_row(step["step"], same, step["recorded"], "\n".join([*step["differences"], *more]))
    return table


@app.command(group=MODELS)
def prove(
    project: str, *, without: Annotated[tuple[str, ...], Parameter(negative="")] = (), as_json: Json = False
) -> int:
    """Put bad challengers and a good model through a project's gates; exit code 1 when a bad one gets through or the good one does not.

    Each bad one must be stopped by the gate that was named in advance. The work is done here, on the rows that have landed: it is this
    installation that is put to the proof. What came of it goes on record; with --without nothing does.

    Args:
        project: The project.
        without: Gates to leave out, to see what they hold back.
    """
    settings = Settings()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small models: threads that wait for each other are slower
    from tasks import prove as proving
    from tasks.config.project import Project

    use = Project.named(project, settings)
    known = [gate.kind for gate in use.gates]
    if unknown := next((name for name in without if name not in known), None):
        raise MisuseError(f"--without is '{unknown}', which is no gate of {project}. Gates: {', '.join(known)}.{suggestion(unknown, known)}")  # fmt: skip
    proof = proving.proven(use, settings, say, without)
    if not without:
        proving.keep(proof, settings)
    return show(proof.told, as_json=as_json, page=_proof(proof.told))


def _proof(proof: dict[str, Any]) -> RenderableType:
    """A row for each bad challenger, under the whole in a sentence."""
    title = f"{proof['project']}: {'proven' if proof['ok'] else 'NOT PROVEN'}"
    if proof["refused"]:
        return f"{title}: {proof['reason']}"
    table = Table("", "bad challenger", "stopped by", "because", title=title, caption=f"The good model: {proof['good']}", box=None)  # fmt: skip
    for put in proof["challengers"]:
        table.add_row("ok" if put["ok"] else "NO", put["name"], ", ".join(put["killed_by"]) or "nothing", put["reason"])
    return table


@simulate.command(name="gate")
def simulate_gate(
    *, null: Annotated[bool, Parameter(negative="")] = False, gain: float | None = None, n: int = 400, rows: int = 1000,
    metric: Literal["roc_auc"] = "roc_auc", looks: int = 1, seed: int = 0, as_json: Json = False,
) -> int:  # fmt: skip
    """Ask the champion gate about many retrains whose true gain is known: how often does it promote?

    Args:
        null: No challenger is truly better: how often is one promoted all the same?
        gain: Every challenger is truly better by so much: how often is that seen?
        n: Retrains.
        rows: Of the holdout.
        metric: What decides.
        looks: Challengers in turn against the same champion; one promotion of them counts.
        seed: Of everything that is drawn.
    """
    from tasks.ml import simulation

    if null == (gain is not None):
        raise MisuseError("Say either --null, when no challenger is better, or --gain, by how much every one is.")
    try:
        drawn = simulation.Retrains(rows=rows, metric=metric, gain=gain or 0.0, looks=looks)
    except ValueError as error:
        raise MisuseError(" ".join(str(error).split())) from error
    found = simulation.over(drawn, n, seed, say)
    return show(found.told, as_json=as_json)


@simulate.command(name="alarms")
def simulate_alarms(
    project: str | None = None, *, null: Annotated[bool, Parameter(negative="")] = False, months: int = 240, seed: int = 0, as_json: Json = False,
) -> int:  # fmt: skip
    """Watch over many months of which the truth is known: how often is there a false alarm, and which planted drifts are found when?

    Args:
        project: Days are drawn from its newest rows; from made ones when left out.
        null: Nothing is amiss: how many alarms are there a month? Exit code 1 when surely more than the budget: the whole interval is above it.
        months: Of watching, in versions that are watched for twelve months each. Few are few: below 60 a lucky or unlucky calibration decides.
        seed: Of everything that is drawn.
    """
    from flows.simulate import alarms

    if months < 1:
        raise MisuseError(f"--months is {months}; it must be at least 1.")
    found = alarms(project, null=null, months=months, seed=seed, settings=Settings(), say=say)
    return show(found, as_json=as_json, page=_planted(found) if "drifts" in found else None)


def _planted(found: dict[str, Any]) -> Table:
    """Which planted drifts were found."""
    table = Table("drift", "found", "95 %", "windows until then", "at most", "what", box=None)
    for name, drift in found["drifts"].items():
        delay, latest = ("" if drift[key] is None else f"{drift[key]:g}" for key in ("delay", "latest"))
        table.add_row(
            name, f"{drift['found']:.0%}", f"{drift['low']:.0%} to {drift['high']:.0%}", delay, latest, drift["about"]
        )
    return table


@app.command(group=MODELS)
def predict(project: str, *, row: str, explain: bool = False, as_json: Json = False) -> int:
    """Ask the champion about one row.

    Args:
        project: The project.
        row: The features as a JSON object; a dash reads it from stdin.
        explain: Also say what each column adds to the answer.
    """
    from flows.asking import ask

    text = sys.stdin.read() if row == "-" else row
    said = ask(project, text, Settings(), say, explain=explain)
    return show(said, as_json=as_json, page=_explained(said) if explain else None)


def _explained(said: dict[str, Any]) -> Table:
    """The answer, and under it what each column adds, the largest first."""
    (answer,) = said["predictions"]
    title = f"{said['project']} version {said['version']}: {answer['prediction']}"
    table = Table("column", said["explained"]["adds up to"], title=title, caption=said["explained"]["method"], box=None)
    parts = sorted(answer["contributions"].items(), key=lambda part: -abs(part[1]))
    for name, value in [("(base)", answer["base"]), *((name, value) for name, value in parts if value)]:
        table.add_row(name, f"{value:+.4g}")
    table.add_row("(sum)", f"{answer['base'] + sum(answer['contributions'].values()):+.4g}")
    return table


@app.command(group=LOOP)
def score(project: str, source: str, target: Path, /, *, sql: str = "", as_json: Json = False) -> int:
    """Score every row of a table with the champion into a file; rows that do not fit go to `<name>.rejects.csv` with their reasons.

    Args:
        project: The project.
        source: A file (CSV, Parquet, JSON lines) or the folder of a Delta table; with --sql a SQLAlchemy URL, or env:NAME of the variable that holds it.
        target: CSV or Parquet: key, prediction, what is known of its certainty, version. It is there as a whole or not at all.
        sql: One SELECT.
    """
    settings = connect()
    from flows.runs import run
    from tasks.config.project import Project

    Project.named(project, settings)
    where = source if sql or "://" in source else str(Path(source).absolute())
    parameters = {"project": project, "source": where, "target": str(target.absolute()), "sql": sql}
    return show(run("score", parameters, settings, say), as_json=as_json)


@app.command(group=LOOP)
def watch(project: str, *, as_json: Json = False) -> int:
    """Look at the newest window: what came in and was answered against what was learned, and what came true.

    Args:
        project: The project.
    """
    settings = connect()
    from flows import watched
    from flows.runs import run
    from tasks.config.project import Project

    Project.named(project, settings)
    seen = run("watch", {"project": project}, settings, say)
    return show(seen, as_json=as_json, page=watched.page(seen))


@app.command(group=LOOP)
def demo(told: Literal["thyroid", "fraud"] = "thyroid", *, as_json: Json = False) -> int:
    """Thyroid from nothing to a champion that was replaced because the data moved, about two minutes; or fraud: weeks in which a new pattern appears, is noticed, learned and caught again by itself, about five.

    Args:
        told: Which story. Fraud has a stack and a home of its own, inside of KEEPFIT_HOME, and stops it at its end.
    """
    from flows import demo as month_by_month
    from flows import story as week_by_week

    if told == "fraud":
        result = week_by_week.play(week_by_week.settings_of(Settings()), say)
        return show(result, as_json=as_json, page=week_by_week.page(result))
    result = month_by_month.play(Settings(), say)
    return show(result, as_json=as_json, page=month_by_month.page(result))


def _deploy() -> list[str]:
    settings = connect()
    if not settings.prefect():
        raise KeepfitError("No stack is running, so there is nowhere to deploy to. Say `keepfit up`.")
    from flows.deployments import deploy as deploy_all

    return deploy_all(settings)


def _status(settings: Settings) -> dict[str, Any]:
    from flows.asking import served
    from tasks.stores.journal import Journal

    if not (settings.database_url or (settings.home / "keepfit.db").is_file()):
        empty = {
            "champion": None,
            "serving": None,
            "batches": {
                "landed": 0,
                "held": 0,
                "arrived": 0,
                "rows": 0,
                "quarantined": 0,
                "known": 0,
                "outcomes": 0,
                "erased": 0,
            },
            "last_train": None,
            "incidents": 0,
            "proposals": [],
            "proof": None,
        }
        return {
            "services": stack.services(settings),
            "projects": [
                {"project": name, **empty, "waiting": _waiting(settings, name)} for name in settings.project_names()
            ],
            "unsent": [],
        }
    journal, live = Journal(settings.journal()), served(settings)
    champions, asked, incidents = journal.champions(), journal.proposals(state="open"), journal.open_incidents()
    return {
        "services": stack.services(settings),
        "projects": [
            {
                "project": name,
                "champion": _champion(champions.get(name)),
                "serving": {"version": live[name]} if name in live else None,
                "batches": journal.totals(name),
                "last_train": _last(journal.trainings(name)),
                "incidents": incidents.get(name, 0),
                "proposals": [_proposed(each) for each in asked if each.project == name],
                "proof": _proven(journal.proof(name), settings.declared(name)),
                "waiting": _waiting(settings, name),
            }
            for name in sorted({*settings.project_names(), *champions, *(each.project for each in asked)})
        ],
        "unsent": journal.unsent(),
    }  # fmt: skip


def _waiting(settings: Settings, project: str) -> int:
    """Files in the inbox that have not landed yet: just dropped, still being written, or taken and on their way."""
    folders = [settings.inbox(project, kind) for kind in ("rows", "outcomes")]
    found = [path for folder in folders for path in (*folder.glob("*"), *(folder / ".arrived").rglob("*"))]
    return sum(path.is_file() and not path.name.startswith(".") for path in found)


def _champion(release: Any) -> dict[str, Any] | None:
    if release is None:
        return None
    return {
        "version": release.version,
        "since": release.at,
        "metric": release.metric,
        "value": release.value,
        "low": release.low,
        "high": release.high,
    }


def _last(trainings: list[dict[str, Any]]) -> dict[str, Any] | None:
    return {name: trainings[-1][name] for name in ("state", "reason", "trigger", "at")} if trainings else None


def _proposed(proposal: Any) -> dict[str, Any]:
    """What waits for a person, since when in seconds, and the commands that decide."""
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(proposal.since)
    command = approval(proposal.project, proposal.version)
    return {
        "version": proposal.version, "since": proposal.since, "age": round(age.total_seconds()), "why": proposal.why,
        "approve": command, "reject": command.replace(" approve ", " reject ", 1),
    }  # fmt: skip


def _proposal_table(waiting: list[tuple[str, dict[str, Any]]]) -> Table:
    table = Table("project", "waits", "for", "why", "a person says, or `reject`", box=None)
    for project, each in waiting:
        age = str(dt.timedelta(seconds=each["age"]))
        table.add_row(project, f"version {each['version']}", age, each["why"], each["approve"])
    return table


def _unsent_table(unsent: list[dict[str, Any]]) -> Table:
    table = Table("project", "message that waits", "to", "tries", "again at", "why", box=None)
    for one in unsent:
        what = f"incident {one['incident']} {one['event']}"
        table.add_row(one["project"], what, one["destination"], str(one["tries"]), one["due"][:19], one["said"])
    return table


def _proven(proof: dict[str, Any] | None, files: str) -> dict[str, Any] | None:
    """The newest proof of the gates: proven, failed, or stale because the project's files have changed since."""
    if proof is None:
        return None
    state = "stale" if proof["files"] != files else "proven" if proof["ok"] else "failed"
    return {"state": state, "at": proof["at"], "reason": proof["detail"]["reason"]}


def _service_table(services: list[dict[str, Any]]) -> Table:
    table = Table("service", "", "address", "restarts", "", box=None)
    for service in services:
        table.add_row(
            service["name"],
            "healthy" if service["healthy"] else "DOWN",
            service["url"] or "",
            str(service["restarts"]),
            str(service["detail"] or ""),
        )
    return table


def _project_table(projects: list[dict[str, Any]]) -> Table:
    table = Table(
        "project",
        "champion",
        "metric",
        "answers",
        "batches",
        "waiting",
        "rows",
        "quarantined",
        "gates",
        "last training",
        box=None,
    )
    for row in projects:
        champion, last, batches = row["champion"], row["last_train"], row["batches"]
        table.add_row(
            row["project"], f"version {champion['version']}" if champion else "none",
            f"{champion['metric']} {champion['value']:.4f} [{champion['low']:.4f}, {champion['high']:.4f}]" if champion else "",
            f"version {row['serving']['version']}" if row["serving"] else "no", str(batches["landed"]), str(row["waiting"]), f"{batches['rows']:,}", str(batches["quarantined"]),
            f"{row['proof']['state']} {row['proof']['at'][:10]}" if row["proof"] else "not proven",
            f"{last['state']}: {last['reason']}" if last else "never",
        )  # fmt: skip
    return table


def explained(error: BaseException) -> str:
    """One sentence for what went wrong, in the user's words where the library's differ."""
    text = " ".join(str(error).split())
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "database or disk is full" in text:
        return (
            f"The disk is full: {text}. Nothing was changed; free some space under {Settings().home} and say it again."
        )
    if "Failed to reach API" in text or "ConnectError" in type(error).__name__ or "Connection refused" in text:
        return f"A server of the stack does not answer: {text[:200]}. Look at `keepfit status`, then say `keepfit up`."
    return f"{type(error).__name__}: {text[:500]}"


def main() -> None:
    """Entry point: exit code 0 done, 1 refused or failed, 2 misuse."""
    words = sys.argv[1:]
    try:
        code = app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        known = [name for name in app if not name.startswith("-")]
        hint = suggestion(words[0], known) if words and words[0] not in known else ""
        _fail(f"{' '.join(str(error).split())}{hint} See `keepfit --help`.", words, MISUSE)
    except MisuseError as error:
        _fail(str(error), words, MISUSE)
    except KeepfitError as error:
        _fail(str(error), words, REFUSED)
    except KeyboardInterrupt:
        _fail("Stopped by hand; what was landed or released stands. Say it again to go on.", words, 130)
    except Exception as error:
        if os.environ.get("KEEPFIT_DEBUG"):
            raise
        _fail(explained(error), words, REFUSED)
    sys.exit(code or DONE)


def _fail(message: str, words: list[str], code: int) -> None:
    say(message)
    if "--json" in words:
        print(json.dumps({"error": message}))
    sys.exit(code)


if __name__ == "__main__":
    main()
