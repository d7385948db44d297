"""What project files declare, as Prefect will be told it; no server is asked."""

from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger, ResourceSpecification

from flows.deployments import POOL, declared, deploy
from tasks.config.errors import ProjectError
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ml.proof import Proving
from tests.samples import SHIPPED, light_projects

PROJECTS = {"thyroid": ("0 3 * * 1", "Australia/Sydney"), "flights": ("0 4 2 * *", "America/New_York")}
FLOWS = ["land", "train", "release", "approve", "prove", "recover", "score"]


def named(project: str, **changes: Any) -> Project:
    return Project.named(project, Settings(projects=REPOSITORY / "deployments")).model_copy(update=changes)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Records what would be sent to the server."""
    sent: list[tuple[str, str | None]] = []

    def apply(self: RunnerDeployment, work_pool_name: str | None = None) -> None:
        sent.append((self.full_name, work_pool_name))

    monkeypatch.setattr(RunnerDeployment, "apply", apply)
    return sent


@pytest.mark.parametrize("project", PROJECTS)
def test_a_project_is_seven_deployments(project):
    """Landing, training, releasing, approving, proving, recovering and scoring, each called like its project and tagged with it, one run at a time."""
    found = declared(named(project))
    assert [deployment.full_name for deployment in found] == [f"{flow}/{project}" for flow in FLOWS]
    for deployment, flow in zip(found, FLOWS, strict=True):
        assert deployment.tags == [f"project:{project}"]
        assert deployment.parameters == {"project": project}
        assert deployment.entrypoint == f"flows.{flow}.{flow}"
        assert deployment.work_pool_name == POOL
        assert deployment.concurrency_limit == 1
        assert deployment.concurrency_options is not None
        assert deployment.concurrency_options.collision_strategy == ConcurrencyLimitStrategy.ENQUEUE
        assert deployment.job_variables["command"].endswith(" -P -m flows.warm")


@pytest.mark.parametrize("project", PROJECTS)
def test_a_declared_schedule_keeps_its_time_zone(project):
    """The cron line holds on the project's own wall clock; only training has one, and its run says why it started."""
    land, train, release, approve, *_ = declared(named(project))
    cron, zone = PROJECTS[project]
    assert not any(each.schedules for each in (land, release, approve))
    assert train.schedules is not None
    assert [entry.schedule for entry in train.schedules] == [CronSchedule(cron=cron, timezone=zone)]
    assert train.schedules[0].parameters == {"by": "schedule", "reason": f"schedule {cron} {zone}"}
    assert train.schedules[0].slug == "schedule-0"


@pytest.mark.parametrize("project", PROJECTS)
def test_a_landed_batch_starts_a_training(project):
    """One trigger on the event of this project's batches, which tells the run what landed."""
    land, train, *others = declared(named(project))
    assert not any(each.triggers for each in (land, *others))
    assert len(train.triggers) == 1
    trigger = train.triggers[0]
    assert isinstance(trigger, DeploymentEventTrigger)
    assert trigger.name == f"{project}: a batch landed → train"
    assert trigger.expect == {"keepfit.batch.landed"}
    assert trigger.match == ResourceSpecification({"prefect.resource.id": f"keepfit.project.{project}"})
    assert trigger.threshold == 1
    assert trigger.parameters == {"project": project, "by": "batch", "reason": "{{ event.payload.name }} landed"}


def test_a_project_without_policies_is_trained_by_hand_only():
    """No policy, no schedule and no trigger; the description says so."""
    train = declared(named("thyroid", retrain=()))[1]
    assert not train.schedules
    assert train.triggers == []
    assert train.description == "Retrains thyroid: by hand only."


def test_the_description_says_when():
    """A reader of Prefect's page sees when a project is retrained."""
    train = declared(named("thyroid"))[1]
    assert train.description == "Retrains thyroid: when a batch has landed and at 0 3 * * 1 Australia/Sydney."


def test_every_declared_parameter_is_one_of_the_flow():
    """What a schedule or a trigger gives is something that the flow takes."""
    train = declared(named("thyroid"))[1]
    triggered = [trigger.parameters or {} for trigger in train.triggers if isinstance(trigger, DeploymentEventTrigger)]
    scheduled = [entry.parameters for entry in train.schedules or []]
    assert (len(triggered), len(scheduled)) == (1, 1)
    given = {name for parameters in (train.parameters, *triggered, *scheduled) for name in parameters or {}}
    assert given <= set(train._parameter_openapi_schema.properties)


def test_a_decision_is_a_form_that_demands_everything():
    """The form of `approve/<p>` offers the two decisions, helps with every field, and starts with none of them but the project."""
    form = declared(named("thyroid"))[3]._parameter_openapi_schema
    assert form.properties["decision"]["enum"] == ["approve", "reject"]
    assert form.required == ["project", "version", "decision", "by", "reason"]
    assert all(form.properties[name]["description"] for name in form.required)


def test_deploying_applies_every_project(tmp_path: Path, applied):
    """Each project's four deployments are sent to the work pool, and their names are given back."""
    names = deploy(Settings(home=tmp_path, projects=REPOSITORY / "deployments"))
    assert names == [f"{flow}/{project}" for project in SHIPPED for flow in FLOWS]
    assert applied == [(name, POOL) for name in names]


def test_a_broken_folder_stops_everything_before_it_begins(tmp_path: Path, applied):
    """One project that does not load, and nothing is deployed, whatever the order of names."""
    folder = light_projects(tmp_path / "projects")
    (folder / "zebra").mkdir()
    (folder / "zebra" / "project.yaml").write_text("project: zebra\n")
    with pytest.raises(ProjectError, match=r"zebra/project\.yaml.*contract is missing"):
        deploy(Settings(home=tmp_path, projects=folder))
    assert applied == []


def test_a_proof_comes_every_night_unless_it_is_turned_off():
    """The gates are proven by schedule, on the wall clock that the project names; with null only before a release and after a change."""
    weekly = {"schedule": {"cron": "0 5 * * 0", "timezone": "Europe/Berlin"}}
    assert proving(Proving()) == [CronSchedule(cron="30 1 * * *", timezone="UTC")]
    assert proving(Proving.model_validate(weekly)) == [CronSchedule(cron="0 5 * * 0", timezone="Europe/Berlin")]
    assert proving(Proving(schedule=None)) == []


def proving(at: Proving) -> list[Any]:
    """The schedules of `prove/thyroid`."""
    (deployment,) = (each for each in declared(named("thyroid", prove=at)) if each.full_name == "prove/thyroid")
    return [entry.schedule for entry in deployment.schedules or ()]


def test_when_to_prove_decides_nothing_about_a_model():
    """Another schedule or another number of rows is the same configuration: no new proof, no new training."""
    other = Proving(schedule=None, rows=1000)
    kept = Project.model_validate(named("thyroid").model_dump() | {"prove": other.model_dump()})
    assert kept.digest == Project.model_validate(named("thyroid").model_dump()).digest
