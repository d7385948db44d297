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
from tasks.config.names import resource
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.gates import Verdict, outcome
from tasks.serving.champion import Champion
from tasks.stores import bundles
from tasks.stores.journal import Journal, Release
from tasks.stores.registry import Registry

BY_HAND = "by hand"  # the reason of whoever gave none
PATIENCE = 20.0  # seconds that the servers have to follow


class Plan(BaseModel, frozen=True, arbitrary_types_allowed=True):
    """A release that may happen, or the reason why it may not."""

    project: str
    release: Release | None = None
    previous: int | None = None
    refused: str = ""


@task(name="rehearse", cache_policy=NO_CACHE)
def rehearse(project: str, version: int, reason: str, actor: str) -> Plan:
    """Asks the journal whether the version may be released, then verifies, loads and queries its bundle as the server will."""
    settings = Settings()
    use, journal = Project.named(project, settings), Journal(settings.journal())
    champion = journal.champion(project)
    trained = next((row for row in reversed(journal.trainings(project)) if row["version"] == version), None)
    refused = _objection(use, version, trained["detail"] if trained else None, champion, reason)
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
    return Plan(project=project, release=release, previous=champion.version if champion else None)


def _objection(use: Project, version: int, detail: dict[str, Any] | None, champion: Release | None, reason: str) -> str:
    """Why a version may not be released, or nothing."""
    if detail is None:
        return f"{use.project} has no version {version} with verdicts on record; train one first"
    verdicts = [Verdict.model_validate(verdict) for verdict in detail.get("verdicts", [])]
    asked = {verdict.gate for verdict in verdicts}
    unasked = [gate.kind for gate in use.gates if gate.kind not in asked]
    if unasked:
        return f"version {version} has no verdict of: {', '.join(unasked)}; train again under the present configuration"
    failed, judged = [verdict for verdict in verdicts if not verdict.passed], outcome(verdicts)
    if judged == "refused":
        return f"version {version} did not pass: {', '.join(verdict.gate for verdict in failed)}"
    if judged == "held" and reason.strip() in {"", BY_HAND}:
        return f"version {version} is held: {failed[0].reason}. Whoever releases it says why: --reason"
    if champion and champion.version == version:
        return f"version {version} is the champion already, since {champion.at[:19]}"
    return ""


@task(name="commit", cache_policy=NO_CACHE)
def commit(plan: Plan) -> Release:
    """One database transaction makes the version champion; whoever was slower gets a conflict."""
    if plan.release is None:
        raise ValueError(f"nothing to commit: {plan.refused}")
    return Journal(Settings().journal()).release(plan.release)


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
            answer = httpx.get(f"{address}/projects/{champion.project}", timeout=5).json()
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
