"""Deploy: a version is rehearsed, written into the journal as champion, and everything that follows the journal is brought along."""

from collections.abc import Generator
from contextlib import contextmanager

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from tasks import rollout
from tasks.config.names import resource
from tasks.config.settings import Settings
from tasks.releasing import BY_HAND, Plan, Releasing
from tasks.stores.journal import Journal, Release

__all__ = ["BY_HAND", "alone", "commit", "follow", "proclaim", "rehearse", "roll_out"]


@contextmanager
def alone(project: str) -> Generator[None]:
    """One release of a project at a time, over all processes and machines; a kill lets the next one in."""
    with Releasing(project, Settings()).alone():
        yield


@task(name="rehearse", cache_policy=NO_CACHE)
def rehearse(project: str, version: int, reason: str, actor: str, proposal: int | None = None) -> Plan:
    """Asks the journal whether the version may be released; then its bundle is verified, loaded and asked as it will be served."""
    plan = Releasing(project, Settings()).plan(version, actor=actor, reason=reason, proposal=proposal)
    if plan.release:
        get_run_logger().info(
            "version %s of %s: bundle %s verified, loaded and asked", version, project, plan.release.digest[:12]
        )
    return plan


@task(name="roll out", cache_policy=NO_CACHE)
def roll_out(plan: Plan) -> dict[str, object] | None:
    """Begins the shadow or the canary, where the project wants one before the release; None where it is released at once."""
    begun = rollout.begin(plan, Settings())
    if begun:
        get_run_logger().info("%s", begun["reason"])
    return begun


@task(name="commit", cache_policy=NO_CACHE)
def commit(plan: Plan) -> Release:
    """One database transaction makes the version champion, and its proposal approved; whoever was slower gets a conflict."""
    return Releasing(plan.project, Settings()).commit(plan)


@task(name="follow", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
def follow(project: str) -> str:
    """Brings MLflow's aliases and the servers to what the journal says; may be repeated."""
    said = Releasing(project, Settings()).follow()
    get_run_logger().info("%s: %s", project, said)
    return said


@task(name="proclaim", cache_policy=NO_CACHE)
def proclaim(plan: Plan, said: str) -> dict[str, object]:
    """Tells the world: an event, and the outcome as the run's result."""
    state = "refused" if plan.release is None else "released"
    version = plan.release.version if plan.release else None
    result: dict[str, object] = {
        "project": plan.project,
        "state": state,
        "reason": plan.refused or said,
        "version": version,
        "from": plan.previous,
    }
    if plan.intent:
        emit_event(
            event="keepfit.model.released", payload=result,
            resource=resource(plan.project),
        )  # fmt: skip
        Journal(Settings().journal()).told(plan.intent.id)
    get_run_logger().info("%s", result["reason"])
    return result
