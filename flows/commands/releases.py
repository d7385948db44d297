"""Releases: who becomes champion, who decides about it, how it is rolled out, and how it is taken back."""

from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from flows.commands.running import connect, run
from flows.commands.terminal import Json, Said, show, table
from tasks.config.settings import Settings


def release(project: str, version: int, *, reason: str = "by hand", as_json: Json = False) -> int:
    """Make a registered version champion, if every configured gate passed it; one that waits for a person is released by `approve`."""
    settings = connect()
    released = run("release", settings, project=project, version=version, reason=reason, actor=settings.actor)
    return show(released, as_json=as_json)


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


def reject(project: str, version: int, *, reason: Said, by: Said | None = None, as_json: Json = False) -> int:
    """Reject a version that waits for a person; the champion stays.

    Args:
        project: The project.
        version: The version; `keepfit status` lists what waits.
        reason: Why; goes on record.
        by: Who decides; by default who is logged in. Goes on record.
    """
    return _decide("reject", project, version, reason, by, as_json=as_json)


def _decide(
    decision: Literal["approve", "reject"], project: str, version: int, reason: str, by: str | None, *, as_json: bool
) -> int:
    settings = connect(project)
    who = by or settings.actor
    decided = run("approve", settings, project=project, version=version, decision=decision, by=who, reason=reason)
    return show(decided, as_json=as_json)


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
    tests = table(("test", "requests", "difference", "e-value", "bar", ""), map(_test, found["tests"].items()))
    warning = [Text(f"early warning: {found['warning']}")] if found["warning"] else []
    following = [Text(f"next: {found['next']}")] if found["next"] else []
    return Group(Text(head), tests, *warning, *following)


def _test(named: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    name, test = named
    verdict = "against it" if test["against"] else ""
    return name, str(test["rows"]), f"{test['mean']:+.4g}", f"{test['peak']:.3g}", f"{test['bar']:.3g}", verdict


def history(project: str, *, at: str | None = None, as_json: Json = False) -> int:
    """List every champion: from when to when, by whom, why; what was begun and came to nothing, and what was changed by hand in MLflow.

    Args:
        project: The project.
        at: A time, like 2026-01-31 or 2026-01-31T12:00Z: only the champion of then.
    """
    from flows import looking

    found = looking.history(project, at, Settings())
    return show(found, as_json=as_json, page=_history(found))


def _history(found: dict[str, Any]) -> RenderableType:
    """A row for each champion, and under them, where there is room, by whom and why."""
    if not found["champions"]:
        return f"{found['project']} had no champion at {found['at']}"
    reigns = table(("generation", "version", "from", "to", ""), map(_reign, found["champions"]))
    reasons = (Text(f"{row['generation']}, by {row['actor']}: {row['reason']}") for row in found["champions"])
    undone = (
        Text(f"undone {row['kind']} of version {row['version']}, by {row['actor']}: {row['said']}")
        for row in found["undone"]
    )
    return Group(reigns, "", *reasons, *(() if found["at"] else undone))


def _reign(row: dict[str, Any]) -> tuple[str, ...]:
    since, until = row["from"][:19], (row["to"] or "now")[:19]
    return str(row["generation"]), str(row["version"]), since, until, row["kind"]
