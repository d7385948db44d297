"""The stack: start it, stop it, look it over, put right what a kill left behind."""

import shlex

from flows import stack
from flows.commands.projects import page_of_deployed
from flows.commands.running import connect, deployed
from flows.commands.terminal import Json, confirmed, say, show, table
from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings

# variables by which the clients of Prefect and MLflow find their servers, and say nothing to third parties
REACHING = (
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    "MLFLOW_TRACKING_URI",
    "DO_NOT_TRACK",
    "MLFLOW_DISABLE_TELEMETRY",
)


def up(*, as_json: Json = False) -> int:
    """Start the local stack (Prefect, MLflow, worker, serving, inbox, recover) and deploy every project. Harmless when it runs."""
    started = stack.up(Settings(), say)
    done = deployed()
    page = "\n".join([f"up after {started['seconds']} s", *_addresses(started["urls"]), page_of_deployed(done)])
    return show({"state": "up", **started, **done}, as_json=as_json, page=page)


def _addresses(urls: dict[str, str]) -> list[str]:
    return [f"{name}: {url}" for name, url in urls.items()]


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


def env(*, as_json: Json = False) -> int:
    """Print what `prefect` and `mlflow` need to reach the running stack, Prefect's password among it: eval "$(keepfit env)".

    Raises:
        KeepfitError: no stack runs.
    """
    settings = Settings()
    if not settings.prefect():
        raise KeepfitError("No stack is running, so there is nothing to reach. Say `keepfit up`.")
    found = stack.environment(settings)
    told = {name: found[name] for name in REACHING if name in found}
    return show(
        told, as_json=as_json, page="\n".join(f"export {name}={shlex.quote(value)}" for name, value in told.items())
    )


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
