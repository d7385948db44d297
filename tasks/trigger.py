"""Triggers: may a training start, what is announced to the world, and which follow-up is owed."""

import datetime as dt
import os
import platform
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from tasks.config import provenance
from tasks.config.project import Project
from tasks.config.provenance import code, commit, lock
from tasks.config.settings import Settings
from tasks.ml import threads
from tasks.ml.identity import digest
from tasks.stores import bundles, processes
from tasks.stores.journal import OUT_OF_MEMORY, Journal
from tasks.stores.lake import Lake, snapshot_named
from tasks.stores.references import Training
from tasks.stores.registry import Registry
from tasks.stores.trust import Trust

DONE = frozenset({"released", "registered", "held", "refused"})
CRASHES = 3  # so often the same training may be killed before it is not tried again by itself
PATIENCE = 7 * 24 * 3600  # seconds that a training waits for another one of its project


@contextmanager
def alone(project: str) -> Generator[None]:
    """One training of a project at a time, over all processes and machines; a kill lets the next one in."""
    with Journal(Settings().journal()).alone(f"train {project}", PATIENCE):
        yield


@task(name="admit", cache_policy=NO_CACHE)
def admit(project: str, snapshot: str | None, reason: str, *, event: bool, again: bool) -> Training:
    """Decides whether a training may start, and if so records that it did in the journal and in MLflow. The caller is `alone`."""
    settings, now, cpu = Settings(), dt.datetime.now(dt.UTC), provenance.cpu_seconds()
    if other := provenance.other_than(_planned()):
        return Training(project=project, reason=reason, refused=other)
    use, journal = Project.named(project, settings), Journal(settings.journal())
    registry = Registry(project, settings.mlflow(), settings.artifacts)
    settle(project, journal, registry, settings, now)
    rows = snapshot_named(Lake(project, settings.lake(project), use.contract), snapshot)
    if rows is None:
        return Training(
            project=project,
            reason=reason,
            refused=f"no row of {project} has landed yet; drop a file into {settings.inbox(project)}",
        )
    rows = Trust(use, settings).ready(rows, settings.actor)
    past, recipe = journal.trainings(project), digest([use.digest, code(), lock(), rows.trusted])
    done = next(
        (
            row
            for row in reversed(past)
            if row["snapshot"] == rows.digest and row["config"] == recipe and row["state"] in DONE
        ),
        None,
    )
    if done and not again:
        return Training(
            project=project,
            reason=reason,
            snapshot=rows,
            refused=f"snapshot {rows.name} was trained on already with this code and configuration: {done['state']}, {done['reason']}",
        )
    hopeless = _hopeless([row for row in past if row["snapshot"] == rows.digest and row["config"] == recipe])
    if hopeless and not again:
        return Training(project=project, reason=reason, snapshot=rows, refused=hopeless)
    wait = (
        use.on_batch.wait(dt.datetime.fromisoformat(past[-1]["started"]), now)
        if event and use.on_batch and past
        else 0.0
    )
    if wait:
        return Training(
            project=project,
            reason=reason,
            snapshot=rows,
            wait=wait,
            refused=f"cooling down: the last training began less than {use.on_batch.cooldown if use.on_batch else 0:g} s ago; a follow-up is planned in {wait:.0f} s",
        )
    number = journal.start_training(
        project=project, trigger=reason, event=event, snapshot=rows.digest, config=recipe, at=now, rows=rows.name,
        runner=f"flow run {flow_run.id}, process {os.getpid()} on {socket.gethostname()}", process=processes.this(),
    )  # fmt: skip
    run = registry.start(f"{project} {rows.name}", {
        "keepfit.trigger": reason, "keepfit.snapshot": rows.name, "keepfit.snapshot_sha256": rows.digest, "keepfit.training": str(number),
        "keepfit.config_sha256": use.digest, "mlflow.user": settings.actor, "keepfit.seed": str(use.search.seed), **_origin(),
    })  # fmt: skip
    get_run_logger().info(
        "training %s of %s on %s (%s rows) because: %s", number, project, rows.name, rows.rows, reason
    )
    return Training(
        project=project, reason=reason, id=number, snapshot=rows, run=run, started=now.isoformat(), cpu_began=cpu
    )


def _planned() -> str | None:
    """The digest of the code that the deployment had when this run was planned from it; None outside of deployments."""
    context = FlowRunContext.get()
    return context.flow_run.deployment_version if context and context.flow_run else None


def _origin() -> dict[str, str]:
    """What made the model, as tags: code, lock, packages, machine, threads."""
    return {
        "mlflow.source.git.commit": commit(), "keepfit.code": commit(), "keepfit.code_sha256": code(), "keepfit.lock_sha256": lock(),
        "keepfit.python": platform.python_version(), "keepfit.packages": ", ".join(f"{name} {at}" for name, at in provenance.packages().items()),
        "keepfit.omp_threads": os.environ.get("OMP_NUM_THREADS", "all"), "keepfit.threads": str(threads.cores()),
        **{f"keepfit.{name}": value for name, value in provenance.machine().items()},
    }  # fmt: skip


def settle(
    project: str, journal: Journal, registry: Registry, settings: Settings, now: dt.datetime
) -> list[dict[str, Any]]:
    """Ends in journal and MLflow what trainings left that were killed, and removes their files; gives those. The caller is `alone`."""
    dead = [row for row in journal.under_way() if row["project"] == project]
    for row in dead:
        reason = f"cut off: {row['runner'] or 'its process'} was gone; the next training takes its finished trials over"
        journal.cut_off(row, state="crashed", reason=reason, at=now)
    shutil.rmtree(settings.home / "candidates" / project, ignore_errors=True)
    bundles.clear(settings.bundles(project))
    for row in dead:
        registry.abandon(row["id"])
    if dead and (champion := journal.champion(project)):
        registry.point("champion", champion.version)
    return dead


def _hopeless(past: list[dict[str, Any]]) -> str:
    """Why one more training of the same kind would only end as those before, or nothing.

    Args:
        past: the trainings on the same snapshot with the same code and configuration, oldest first.
    """
    again = "`keepfit train --again` tries it nonetheless"
    if past and past[-1]["state"] == "failed" and past[-1]["reason"].startswith(OUT_OF_MEMORY):
        return f"this snapshot ran out of memory with this code and configuration: {past[-1]['reason']} {again}"
    if len(past) >= CRASHES and all(row["state"] == "crashed" for row in past[-CRASHES:]):
        return f"the last {CRASHES} trainings on this snapshot were killed; see what ends them, often it is memory. {again}"
    return ""


@task(name="plan follow-up", cache_policy=NO_CACHE)
def plan_follow_up(project: str, wait: float, snapshot: str) -> str:
    """Plans one more training after the cool-down; the same snapshot plans it once, however many events ask."""
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=wait)
    try:
        run = run_deployment(
            f"train/{project}", parameters={"project": project, "reason": f"{snapshot} landed during the cool-down", "event": True},
            scheduled_time=at, timeout=0, as_subflow=False, idempotency_key=f"follow-up {project} {snapshot}",
        )  # fmt: skip
    except ObjectNotFound:
        return "no deployment runs here: start the training again by hand after the cool-down"
    return f"follow-up '{cast('FlowRun', run).name}' is planned for {at:%H:%M:%S} UTC"
