"""Decide: a person's word on a version that waits is weighed, recorded and told; a release is the business of another step."""

import datetime as dt
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from pydantic import BaseModel

from tasks.config.names import approval, artifact_key, resource
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import pages
from tasks.ml.gates import Verdict
from tasks.stores.journal import Journal, Proposal, approved
from tasks.stores.registry import Registry, impatient

Word = Literal["approve", "reject"]
STATES = {"approve": "approved", "reject": "rejected"}


class Weighed(BaseModel, frozen=True, arbitrary_types_allowed=True):
    """A person's decision about a proposal, or the reason why it cannot be made.

    Attributes:
        proposal: the newest one of the version; None when there is none.
        live: it was approved, and the version answers now.
    """

    project: str
    version: int
    decision: Word
    by: str
    reason: str
    proposal: Proposal | None = None
    refused: str = ""
    live: bool = False

    @property
    def asked(self) -> Proposal:
        """The proposal; only a decision that can be made has one."""
        if self.proposal is None:
            raise ValueError(f"nothing of {self.project} is decided about: {self.refused}")
        return self.proposal


@task(name="weigh", cache_policy=NO_CACHE)
def weigh(project: str, version: int, decision: Word, by: str, reason: str) -> Weighed:
    """Asks the journal whether a person may decide about the version now."""
    settings = Settings()
    Project.named(project, settings)
    journal = Journal(settings.journal())
    newest = next(reversed(journal.proposals(project, version=version)), None)
    champion = journal.champion(project)
    return Weighed(
        project=project, version=version, decision=decision, by=by.strip(), reason=reason.strip(), proposal=newest,
        refused=_objection(project, version, newest, journal, by, reason),
        live=newest is not None and newest.state == "approved" and champion is not None and champion.version == version,
    )  # fmt: skip


def _objection(project: str, version: int, newest: Proposal | None, journal: Journal, by: str, reason: str) -> str:
    """Why nothing can be decided, or nothing."""
    if newest is None:
        return f"nobody was asked about version {version} of {project}: {_instead(project, version, journal)}"
    if newest.state != "open":
        again = f"; `keepfit train {project} --again` makes a new challenger" if newest.state != "approved" else ""
        return f"{newest.ended}. That stands{again}"
    going = journal.rollout(project)
    if going and going.phase != "probation" and going.proposal == newest.id:
        return approved(going)
    if not (by.strip() and reason.strip()):
        return "a decision goes on record with who made it and why: give both, by and reason"
    return ""


def _instead(project: str, version: int, journal: Journal) -> str:
    """The next move of somebody who asked about a version that does not wait."""
    if waiting := journal.proposals(project, state="open"):
        return "; ".join(f"version {each.version} waits: `{approval(project, each.version)}`" for each in waiting)
    if any(row["version"] == version for row in journal.trainings(project)):
        return f"no version of {project} waits. `keepfit release {project} {version}` releases what passed every gate"
    return f"there is no such version, and none waits. `keepfit train {project}` makes one"


@task(name="reject", cache_policy=NO_CACHE)
def reject(weighed: Weighed) -> dict[str, Any]:
    """Records that the champion stays; whoever was slower gets a conflict."""
    journal = Journal(Settings().journal())
    journal.decide(weighed.asked.id, "rejected", actor=weighed.by, at=dt.datetime.now(dt.UTC), reason=weighed.reason)
    champion = journal.champion(weighed.project)
    return {
        "state": "rejected",
        "reason": f"version {champion.version} stays champion" if champion else "there is no champion",
    }


@task(name="tell", cache_policy=NO_CACHE)
def tell(weighed: Weighed, ended: dict[str, Any]) -> dict[str, Any]:
    """Tells the world: a page with picture and verdicts, an event, and the outcome as the run's result."""
    state = "refused" if ended["state"] == "refused" else STATES[weighed.decision]
    result = {
        "project": weighed.project, "version": weighed.version, "state": state, "by": weighed.by, "why": weighed.reason,
        "reason": ended["reason"], "from": ended.get("from"),
    }  # fmt: skip
    if state != "refused":
        emit_event(event=f"keepfit.model.{state}", payload=result, resource=resource(weighed.project))
    if weighed.proposal:
        try:
            with impatient():
                _show(weighed, state, ended["reason"])
        except Exception as error:  # noqa: BLE001 -- the decision is on record whether or not MLflow answers; only its page is missed
            get_run_logger().warning("the page of this decision could not be made: %s", str(error)[:300])
    get_run_logger().info("%s: %s", state, ended["reason"])
    return result


def _show(weighed: Weighed, state: str, said: str) -> None:
    """The page of a decision: the report and the verdicts that it was about, the same as beside the run in MLflow."""
    settings, proposal = Settings(), weighed.asked
    registry = Registry(weighed.project, settings.mlflow(), settings.artifacts)
    (trained,) = (
        row for row in Journal(settings.journal()).trainings(weighed.project) if row["id"] == proposal.training
    )
    run = trained["detail"]["run"]
    who = f"{state} by {weighed.by}: {weighed.reason}; " if state != "refused" else ""
    links = {"the run in MLflow": link} if (link := registry.link(run)) else {}
    create_markdown_artifact(
        pages.decision(
            state, f"{who}{said}. It waited since {proposal.since[:19]}: {proposal.why}", [Verdict.model_validate(each) for each in trained["detail"]["verdicts"]],
            project=weighed.project, version=weighed.version, picture=registry.read(run, "report.png"), links=links,
        ),
        key=artifact_key(weighed.project, "approval"),
        description=f"**{weighed.project}** version {weighed.version}: {who or 'refused: '}{said[:300]}",
    )  # fmt: skip
    if state != "refused":
        registry.log(run, tags={"keepfit.decision": state, "keepfit.decided_by": weighed.by, "keepfit.decided_why": weighed.reason[:4000]})  # fmt: skip
