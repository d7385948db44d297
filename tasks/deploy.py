"""Deploy: a version is rehearsed, written into the journal as champion, and everything that follows the journal is brought along."""

import datetime as dt
import time
from typing import Any

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from pydantic import BaseModel

from tasks.config.errors import KeepfitError
from tasks.config.names import approval, resource
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.gates import Verdict, outcome
from tasks.serving.champion import Champion
from tasks.stores import bundles, proposals
from tasks.stores.journal import Journal, Proposal, Release
from tasks.stores.registry import Registry

BY_HAND = "by hand"  # the reason of whoever gave none
PATIENCE = 20.0  # seconds that the servers have to follow


class Plan(BaseModel, frozen=True, arbitrary_types_allowed=True):
    """A release that may happen, or the reason why it may not; `proposal` is the one that it approves."""

    project: str
    proposal: int | None = None
    release: Release | None = None
    previous: int | None = None
    refused: str = ""


@task(name="rehearse", cache_policy=NO_CACHE)
def rehearse(project: str, version: int, reason: str, actor: str, proposal: int | None = None) -> Plan:
    """Asks the journal whether the version may be released, then verifies, loads and queries its bundle as the server will.

    A proposal that is not about what is there any more becomes void.
    """
    settings = Settings()
    use, journal = Project.named(project, settings), Journal(settings.journal())
    champion = journal.champion(project)
    trained = next((row for row in reversed(journal.trainings(project)) if row["version"] == version), None)
    waits = next(reversed(journal.proposals(project, version=version)), None)
    approves = waits is not None and waits.id == proposal and reason.strip() not in {"", BY_HAND}
    refused = (
        (_void(use, waits, actor, journal, settings) if waits and approves and waits.state == "open" else "")
        or _objection(use, version, trained["detail"] if trained else None, champion)
        or _undecided(use, journal, trained or {}, waits, approves=approves)
    )
    if refused or trained is None:
        return Plan(project=project, refused=refused)
    detail, folder = trained["detail"], settings.bundles(project) / str(version)
    others = bundles.skewed(bundles.manifest_of(folder, detail["digest"])["versions"])
    if others and settings.library_skew == "accept":
        reason = f"{reason}; library skew accepted: written by {others}"
    release = Release(
        project=project, generation=champion.generation + 1 if champion else 1, version=version, digest=detail["digest"], actor=actor, reason=reason,
        at=dt.datetime.now(dt.UTC).isoformat(), metric=use.metric, value=detail["value"], low=detail["low"], high=detail["high"],
    )  # fmt: skip
    Champion.load(folder, release, skew=settings.library_skew)
    get_run_logger().info(
        "version %s of %s: bundle %s verified, loaded and asked", version, project, release.digest[:12]
    )
    return Plan(project=project, proposal=proposal, release=release, previous=champion.version if champion else None)


def _objection(use: Project, version: int, detail: dict[str, Any] | None, champion: Release | None) -> str:
    """Why a version may not be released, or nothing."""
    if detail is None:
        return f"{use.project} has no version {version} with verdicts on record; train one first"
    verdicts = [Verdict.model_validate(verdict) for verdict in detail.get("verdicts", [])]
    asked = {verdict.gate for verdict in verdicts}
    unasked = [gate.kind for gate in use.gates if gate.kind not in asked]
    if unasked:
        return f"version {version} has no verdict of: {', '.join(unasked)}; train again under the present configuration"
    if outcome(verdicts) == "refused":
        failed = ", ".join(verdict.gate for verdict in verdicts if not verdict.passed)
        return f"version {version} did not pass: {failed}"
    if champion and champion.version == version:
        return f"version {version} is the champion already, since {champion.at[:19]}"
    return ""


def _undecided(
    use: Project, journal: Journal, trained: dict[str, Any], waits: Proposal | None, *, approves: bool
) -> str:
    """Why a version that a person decides about may not be released now, or nothing.

    Args:
        use: the project.
        journal: where releases are on record; what was champion once may come back.
        trained: the training that made the version.
        waits: the version's newest proposal.
        approves: this release is the approval of that proposal.
    """
    version, again = trained["version"], f"`keepfit train {use.project} --again` makes a new challenger"
    if waits and waits.state == "open":
        said = f"version {version} waits for a person since {waits.since[:19]}: {waits.why}. Say `{approval(use.project, version)}`, or reject"
        return "" if approves else said
    if version in {release.version for release in journal.releases(use.project)}:
        return ""
    if waits:
        return f"{waits.ended}; {again}"
    held = outcome([Verdict.model_validate(verdict) for verdict in trained["detail"]["verdicts"]]) == "held"
    return f"version {version} is held, but nobody was asked to decide; {again}" if held else ""


def _void(use: Project, waits: Proposal, actor: str, journal: Journal, settings: Settings) -> str:
    """Makes a proposal void that is not about what is there any more, and says what changed; else nothing."""
    if not (changes := proposals.changed(use, waits, journal, settings)):
        return ""
    reason = f"changed since {waits.since[:19]}: {', '.join(changes)}"
    journal.decide(waits.id, "void", actor=actor, at=dt.datetime.now(dt.UTC), reason=reason)
    return f"the proposal of version {waits.version} is void, {reason}. `keepfit train {use.project} --again` makes a new challenger"


@task(name="commit", cache_policy=NO_CACHE)
def commit(plan: Plan) -> Release:
    """One database transaction makes the version champion, and its proposal approved; whoever was slower gets a conflict."""
    if plan.release is None:
        raise ValueError(f"nothing to commit: {plan.refused}")
    return Journal(Settings().journal()).release(plan.release, plan.proposal)


@task(name="follow", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
def follow(project: str) -> str:
    """Brings MLflow's aliases and the servers to what the journal says; may be repeated."""
    settings = Settings()
    releases = Journal(settings.journal()).releases(project)
    champion = releases[-1]
    registry = Registry(project, settings.mlflow(), settings.artifacts)
    registry.point("champion", champion.version)
    if len(releases) > 1:
        registry.point("previous", releases[-2].version)
    address = settings.serving()
    said = (
        _wait_for_server(address, champion) if address else "no server runs; it will load the champion when it starts"
    )
    get_run_logger().info("version %s of %s is champion: %s", champion.version, project, said)
    return said


def _wait_for_server(address: str, champion: Release) -> str:
    """Waits until the server answers with the champion.

    Raises:
        KeepfitError: it does not within the patience; the journal stands, and the server goes on trying.
    """
    start = time.monotonic()
    answer: dict[str, object] = {}
    while time.monotonic() - start < PATIENCE:
        try:
            answer = httpx.get(f"{address}/projects/{champion.project}", headers=Settings().bearer(), timeout=5).json()
        except (httpx.HTTPError, ValueError):
            answer = {}
        if answer.get("version") == champion.version:
            return f"the server answers with it after {time.monotonic() - start:.1f} s"
        time.sleep(0.05)
    raise KeepfitError(
        f"{address} does not answer with version {champion.version} of {champion.project} after {PATIENCE:g} s (it says: {answer or 'nothing'}). "
        "The release stands in the journal and the server goes on trying; look at its log, or at `keepfit status`."
    )


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
    if plan.release:
        emit_event(
            event="keepfit.model.released", payload=result,
            resource=resource(plan.project),
        )  # fmt: skip
    get_run_logger().info("%s", result["reason"])
    return result
