"""The stack: start it, stop it, look it over, put right what a kill left behind."""

from flows import stack
from flows.commands.running import connect, deployed
from flows.commands.terminal import Json, confirmed, say, show, table
from tasks.config.settings import Settings


def up(*, as_json: Json = False) -> int:
    """Start the local stack (Prefect, MLflow, worker, serving, inbox, recover) and deploy every project. Harmless when it runs."""
    started = stack.up(Settings(), say)
    return show({"state": "up", **started, **deployed()}, as_json=as_json)


def down(*, wipe: bool = False, yes: bool = False, as_json: Json = False) -> int:
    """Stop every process of the local stack.

    Args:
        wipe: Also delete all state: rows, models, runs, journal. Asks first.
        yes: Do not ask.
    """
    settings = Settings()
    if wipe and not yes and not confirmed(f"Delete everything under {settings.home}?"):
        return show({"state": "refused", "reason": "nothing was stopped or deleted"}, as_json=as_json)
    return show({"state": "down", **stack.down(settings, wipe=wipe, say=say)}, as_json=as_json)


def doctor(*, as_json: Json = False) -> int:
    """Look the installation over; every finding comes with the next move."""
    checks = stack.diagnose(Settings())
    rows = (("ok" if one["ok"] else "NO", one["check"], str(one["detail"]), str(one["next"])) for one in checks)
    page = table(("", "check", "finding", "next move"), rows)
    return show({"ok": all(check["ok"] for check in checks), "checks": checks}, as_json=as_json, page=page)


def recover(project: str | None = None, *, as_json: Json = False) -> int:
    """Finish or undo releases that were cut off, put alias and servers right, end dead runs, start trainings and looks that are owed.

    The running stack does so by itself; without one, this does. Harmless when all is well. Exit code 1 when something is left to do.

    Args:
        project: Only this one.
    """
    settings = connect()
    from flows.recover import once

    return show(once(settings, project), as_json=as_json)
