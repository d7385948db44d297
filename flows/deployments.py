"""Declared projects become Prefect deployments: schedules, event triggers, forms."""

import sys
from typing import Any, cast

from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron, Schedule

from flows.approve import approve
from flows.fetch import fetch
from flows.land import land
from flows.prove import prove
from flows.recover import recover
from flows.release import release
from flows.score import score
from flows.train import train
from flows.watch import watch
from tasks.config.names import artifact_key, resource
from tasks.config.project import Project
from tasks.config.provenance import code
from tasks.config.settings import Settings
from tasks.ml.policy import OnSchedule

POOL = "keepfit"
WARM = f"{sys.executable} -P -m flows.warm"  # forks a run from a process that has imported everything; starts cold without it
ONE = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)


def declared(use: Project) -> list[RunnerDeployment]:
    """The deployments of one project: `land`, `train`, `release`, `approve`, `prove`, `recover`, `score`, `watch`, and `fetch` when it declares sources, each `/<p>`."""
    return [
        _deployment(land, use, f"Lands one file of {use.project} under its contract."),
        _deployment(train, use, f"Retrains {use.project}: {_when(use)}.", schedules=_schedules(use), triggers=_triggers(use)),
        _deployment(release, use, f"Makes a version of {use.project} champion."),
        _deployment(approve, use, f"Approves or rejects a version of {use.project} that waits for a person; the newest decision's artifact `{artifact_key(use.project, 'decision')}` shows what it is."),
        _deployment(prove, use, f"Puts bad challengers through the gates of {use.project}: each must be stopped.", schedules=_proving(use)),
        _deployment(recover, use, f"Finishes what a kill cut off in {use.project}, and puts alias and servers right; the stack does so by itself."),
        _deployment(score, use, f"The champion of {use.project} scores a file, a Delta table or a query into a file."),
        _deployment(watch, use, f"Compares what the champion of {use.project} answered with what it learned and what came true.", schedules=_watching(use), triggers=_looking(use)),
        *([_deployment(fetch, use, f"Fetches what is new for {use.project} into its inbox.", schedules=_fetching(use))] if use.sources else []),
    ]  # fmt: skip


def deploy(settings: Settings | None = None) -> list[str]:
    """Deploys every project; gives the deployments' names.

    Raises:
        ProjectError: a folder does not load; then nothing is deployed.
    """
    settings = settings or Settings()
    found = [Project.named(name, settings) for name in settings.project_names()]
    deployments = [deployment for use in found for deployment in declared(use)]
    for deployment in deployments:
        deployment.apply(work_pool_name=POOL)
    return [deployment.full_name for deployment in deployments]


def _deployment(flow: Flow[..., Any], use: Project, description: str, **when: Any) -> RunnerDeployment:
    """One deployment; its version is the code's digest, which Prefect writes on every run that is planned from it."""
    made = flow.to_deployment(
        name=use.project, version=code(), parameters={"project": use.project}, tags=[f"project:{use.project}"], description=description, work_pool_name=POOL,
        concurrency_limit=ONE, entrypoint_type=EntrypointType.MODULE_PATH, job_variables={"command": WARM}, **when,
    )  # fmt: skip
    return cast("RunnerDeployment", made)  # outside of an event loop it is never a coroutine


def _schedules(use: Project) -> list[Schedule]:
    return [
        Cron(
            policy.cron,
            timezone=policy.timezone,
            slug=f"schedule-{number}",
            parameters={"reason": f"schedule {policy.cron} {policy.timezone}"},
        )
        for number, policy in enumerate(policy for policy in use.retrain if isinstance(policy, OnSchedule))
    ]


def _proving(use: Project) -> list[Schedule]:
    at = use.prove.schedule
    return [Cron(at.cron, timezone=at.timezone, slug="nightly")] if at else []


def _watching(use: Project) -> list[Schedule]:
    at = use.watch.schedule
    return (
        [Cron(at.cron, timezone=at.timezone, slug="watch", parameters={"reason": f"schedule {at.cron} {at.timezone}"})]
        if at
        else []
    )


def _looking(use: Project) -> list[DeploymentEventTrigger]:
    """A look at every batch that landed."""
    if not use.watch.on_batch:
        return []
    return [
        DeploymentEventTrigger(
            name=f"{use.project}: a batch landed → watch", expect={"keepfit.batch.landed"},
            match={"prefect.resource.id": resource(use.project)["prefect.resource.id"]},
            parameters={"project": use.project, "reason": "{{ event.payload.name }} landed"},
        )
    ]  # fmt: skip


def _fetching(use: Project) -> list[Schedule]:
    return [
        Cron(
            source.schedule.cron,
            timezone=source.schedule.timezone,
            slug=source.name,
            parameters={"source": source.name},
        )
        for source in use.sources
        if source.schedule
    ]


def _triggers(use: Project) -> list[DeploymentEventTrigger]:
    """One event, one run; the cool-down is the training's own business, because it must hold for every kind of start."""
    if not use.on_batch:
        return []
    return [
        DeploymentEventTrigger(
            name=f"{use.project}: a batch landed → train", expect={"keepfit.batch.landed"},
            match={"prefect.resource.id": resource(use.project)["prefect.resource.id"]},
            parameters={"project": use.project, "event": True, "reason": "{{ event.payload.name }} landed"},
        )
    ]  # fmt: skip


def _when(use: Project) -> str:
    words = [
        f"at {policy.cron} {policy.timezone}" if isinstance(policy, OnSchedule) else "when a batch has landed"
        for policy in use.retrain
    ]
    return " and ".join(words) or "by hand only"
