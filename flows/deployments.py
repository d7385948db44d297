"""Declared projects become Prefect deployments: schedules, event triggers, forms."""

import datetime as dt
import sys
from collections.abc import Collection
from typing import Any, NamedTuple, cast

from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.events.schemas.automations import Posture
from prefect.schedules import Cron, Schedule

from flows.approve import approve
from flows.fetch import fetch
from flows.land import land
from flows.prove import prove
from flows.recover import recover
from flows.release import release
from flows.saying import Say, quiet
from flows.score import score
from flows.stack.probes import POOL
from flows.train import train
from flows.watch import watch
from tasks.config.errors import ProjectError
from tasks.config.names import CLASS, KIND, artifact_key, resource
from tasks.config.project import Project
from tasks.config.provenance import code
from tasks.config.settings import Settings
from tasks.ml.policy import OnRows, OnSchedule, OnSilence, Policy
from tasks.stores import deployed
from tasks.stores.alarms import EVENTS

WARM = f"{sys.executable} -P -m flows.warm"  # forks a run from a process that has imported everything; starts cold without it
LANDED = "keepfit.batch.landed"
STORM = 5.0  # seconds: events that come together are one, whatever the cool-down


class Deployed(NamedTuple):
    """What a deploy came to: the names of the deployments that are as the files say, and what was removed because no file says it any more."""

    names: list[str]
    removed: list[str]


class Start(NamedTuple):
    """What an event is called that starts a training, which label its resource has, and how a reader is told."""

    event: str
    label: dict[str, str]
    happens: str
    reason: str
    says: str


STARTS = {
    "batch": Start(LANDED, {}, "a batch landed", "{{ event.payload.name }} landed", "when a batch has landed"),
    "drift": Start(EVENTS["drift"], {CLASS: "retrain"}, "drift", "drift: {{ event.payload.reason }}", "when the watch finds drift"),
    "decay": Start(EVENTS["decay"], {CLASS: "retrain"}, "decay", "decay: {{ event.payload.reason }}", "when the watch finds decay"),
}  # fmt: skip

ONE = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)


def declared(use: Project) -> list[RunnerDeployment]:
    """The deployments of one project: `land`, `train`, `release`, `approve`, `prove`, `recover`, `score`, `watch`, and `fetch` when it declares sources, each `/<p>`."""
    return [
        _deployment(land, use, f"Lands one file of {use.project} under its contract."),
        _deployment(train, use, f"Retrains {use.project}: {_when(use)}.", schedules=_schedules(use), triggers=_triggers(use)),
        _deployment(release, use, f"Makes a version of {use.project} champion."),
        _deployment(approve, use, f"Approves or rejects a version of {use.project} that waits for a person; the newest decision's artifact `{artifact_key(use.project, 'decision')}` shows what it is."),
        _deployment(prove, use, f"Puts bad challengers through the gates of {use.project}: each must be stopped.", schedules=_proving(use)),
        _deployment(recover, use, f"Finishes what a kill cut off in {use.project}, and puts alias and servers right; the stack does so by itself.", triggers=_silences(use)),
        _deployment(score, use, f"The champion of {use.project} scores a file, a Delta table or a query into a file.", schedules=_scoring(use)),
        _deployment(watch, use, f"Compares what the champion of {use.project} answered with what it learned and what came true.", schedules=_watching(use), triggers=_looking(use)),
        *([_deployment(fetch, use, f"Fetches what is new for {use.project} into its inbox.", schedules=_fetching(use))] if use.sources else []),
    ]  # fmt: skip


def deploy(settings: Settings | None = None, projects: Collection[str] | None = None, say: Say = quiet) -> Deployed:
    """Deploys every project, or these of them, and removes what was deployed of them and is not declared any more.

    Where no project at all is found nothing is removed: their folder is rather not there at the moment than empty on purpose. What another
    installation has deployed to the same server stays, too. Each project is said as its turn comes.

    Raises:
        ProjectError: a folder does not load, or two have a hook of one name; then nothing is deployed, and nothing removed.
    """
    settings = settings or Settings()
    found = [Project.named(name, settings) for name in settings.project_names()]
    _hooks_apart(found)
    wanted = {use.project: declared(use) for use in found if projects is None or use.project in projects}
    slugs = {
        each.full_name: {entry.slug for entry in each.schedules or ()} for some in wanted.values() for each in some
    }
    deployed.spare(slugs, POOL)
    mine = deployed.mark(settings)
    for place, (project, deployments) in enumerate(wanted.items(), 1):
        say(f"deploying {project} ({place} of {len(wanted)})")
        for deployment in deployments:
            deployment.tags = [*(deployment.tags or ()), mine]
            deployment.apply(work_pool_name=POOL)
    if not found:
        return Deployed([], [])
    return Deployed([*slugs], deployed.withdraw(slugs, POOL, mine, deployed.made_before(settings), projects))


def _hooks_apart(found: list[Project]) -> None:
    """A hook's name is its address, so that two projects cannot share it."""
    whose: dict[str, str] = {}
    for use in found:
        for hook in use.hooks:
            if (other := whose.setdefault(hook.name, use.project)) != use.project:
                raise ProjectError(
                    f"{use.project}/project.yaml: hooks has '{hook.name}', which {other} has, too. Each is an address: give one another name."
                )


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
            parameters={"by": "schedule", "reason": f"schedule {policy.cron} {policy.timezone}"},
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
    """A look when a batch has landed; of a storm one, whatever comes in it is seen by the next."""
    if not use.watch.on_batch:
        return []
    return [
        DeploymentEventTrigger(
            name=f"{use.project}: a batch landed → watch", expect={LANDED}, match=_match(use, {}), within=dt.timedelta(seconds=STORM),
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


def _scoring(use: Project) -> list[Schedule]:
    return [
        Cron(each.schedule.cron, timezone=each.schedule.timezone, slug=each.name, parameters={"name": each.name})
        for each in use.scores
    ]


def _triggers(use: Project) -> list[DeploymentEventTrigger]:
    """What an event starts: within a policy's cool-down one run, however many come; what is left out the recovery finds owed."""
    return [
        DeploymentEventTrigger(
            name=f"{use.project}: {STARTS[policy.kind].happens} → train", expect={STARTS[policy.kind].event}, match=_match(use, STARTS[policy.kind].label),
            within=dt.timedelta(seconds=max(policy.cooldown, STORM)),
            parameters={"project": use.project, "by": policy.kind, "reason": STARTS[policy.kind].reason},
        )
        for policy in use.retrain
        if not isinstance(policy, OnSchedule) and policy.kind in STARTS
    ]  # fmt: skip


def _silences(use: Project) -> list[DeploymentEventTrigger]:
    """What does not happen has the recovery look, which says so, and trains where the policy wants it."""
    return [
        DeploymentEventTrigger(
            name=f"{use.project}: no {policy.of} for {policy.hours:g} h → recover", posture=Posture.Proactive, expect={LANDED},
            within=dt.timedelta(hours=policy.hours), match=_match(use, {KIND: policy.of}), parameters={"project": use.project},
        )
        for policy in use.retrain
        if isinstance(policy, OnSilence)
    ]  # fmt: skip


def _match(use: Project, label: dict[str, str]) -> dict[str, Any]:
    return {"prefect.resource.id": resource(use.project)["prefect.resource.id"], **label}


def _when(use: Project) -> str:
    return " and ".join(_says(policy) for policy in use.retrain) or "by hand only"


def _says(policy: Policy) -> str:
    match policy:
        case OnSchedule():
            return f"at {policy.cron} {policy.timezone}"
        case OnRows():
            return f"when {policy.rows:,} rows have landed"
        case OnSilence():
            then = "" if policy.retrain else " it is said"
            return f"when no {policy.of} come for {policy.hours:g} h{then}"
        case _:
            return STARTS[policy.kind].says
