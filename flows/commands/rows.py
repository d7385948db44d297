"""The rows that have landed: their versions, those in quarantine, and how somebody's are erased."""

from functools import partial
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from flows.commands.terminal import Json, Words, confirmed, show, table
from tasks.config.errors import BatchError
from tasks.config.settings import Settings

data = App(name="data", help="The rows that have landed, version by version.")
quarantine = App(name="quarantine", help="Rows that broke the contract, and another try for them.")


@data.command(name="list")
def data_list(project: str, *, as_json: Json = False) -> int:
    """List the versions of a project's rows and outcomes, newest first, and what made each."""
    from flows import looking

    versions = looking.versions(project, Settings())
    rows = (
        (row["snapshot"], row["at"][:19], row["why"], row["name"], row["kind"], f"{row['rows']:,}") for row in versions
    )
    page = table(("version", "at", "why", "what", "", "rows"), rows)
    return show({"project": project, "versions": versions}, as_json=as_json, page=page)


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
    return show(found, as_json=as_json, page=_difference(found) if "from" in found else None)


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


def _difference(found: dict[str, Any]) -> Table:
    """How many rows changed, and the columns whose distribution moved."""
    changes = ", ".join(f"{found.get(what, 0):,} {what}" for what in ("added", "removed", "changed"))
    rows = (
        (line["column"], f"{line['size']:.3f}", " → ".join(f"{share:.1%}" for share in line["nulls"]), _means(line))
        for line in found.get("columns", ())
    )
    title = f"{found['from']} → {found['to']}: {changes}"
    return table(("column", "difference", "empty", "mean"), rows, title=title)


def _means(line: dict[str, Any]) -> str:
    return " → ".join(f"{mean:.4g}" for mean in line.get("mean") or () if mean is not None)


@quarantine.command(name="list")
def quarantine_list(project: str, *, as_json: Json = False) -> int:
    """List the batches that have rows in quarantine, with the rules that they break."""
    from flows import looking

    batches = looking.quarantined(project, Settings())
    rows = (
        (row["batch"][:12], row["name"], f"{row['quarantined']:,}", row["state"], _broken(row) or row["reason"])
        for row in batches
    )
    page = table(("batch", "name", "rows", "state", "rules"), rows)
    return show({"project": project, "batches": batches}, as_json=as_json, page=page)


def _broken(batch: dict[str, Any]) -> str:
    """The rules that rows of a batch broke, each with its count."""
    return "; ".join(f"{count:,} × {rule}" for rule, count in batch["rules"].items())


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


def erase(
    project: str, *, key: Words = (), where: Words = (), why: str = "", dry_run: bool = False,
    listed: Annotated[bool, Parameter(name="--list", negative="")] = False, yes: bool = False, as_json: Json = False,
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

    use = Project.named(project, settings)
    if listed:
        return _erasures(project, settings, as_json=as_json)
    values = _values(where)
    erase_them = partial(Erasing(use, settings).erase, key, values, actor=settings.actor, reason=why)
    if not dry_run and not why:
        raise BatchError("An erasure goes on record: say --why. Nothing was changed.")
    if not dry_run and not yes:
        planned = erase_them(dry_run=True)
        if not confirmed(f"{planned.reason}, and {planned.snapshots} older snapshots become unreadable."):
            return show({"state": "refused", "reason": "nothing was erased"}, as_json=as_json)
    erased = erase_them(dry_run=dry_run)
    return show(erased.model_dump(mode="json"), as_json=as_json, page=_erased(erased.model_dump()))


def _values(where: tuple[str, ...]) -> dict[str, str]:
    """The values by column that COLUMN=VALUE says."""
    if wrong := [text for text in where if "=" not in text]:
        raise BatchError(f"--where is '{wrong[0]}'. Wanted: COLUMN=VALUE.")
    names = [text.split("=", 1)[0] for text in where]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise BatchError(
            f"--where names '{twice}' twice, and no row has two values. Say one erasure for each. Nothing was changed."
        )
    return dict(text.split("=", 1) for text in where)


def _erasures(project: str, settings: Settings, *, as_json: bool) -> int:
    from tasks.stores.journal import Journal

    past = Journal(settings.journal()).erasures(project)
    lines = [f"{row['at'][:19]}  {row['actor']}: {row['reason']} ({row['rows']:,} rows)" for row in past]
    return show({"project": project, "erasures": past}, as_json=as_json, page="\n".join(lines) or "none")


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
