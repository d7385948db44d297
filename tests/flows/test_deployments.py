"""What project files declare, as Prefect will be told it; no server is asked."""

import asyncio
import datetime as dt
import shutil
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger, ResourceSpecification
from prefect.events.schemas.automations import Posture
from prefect.server.schemas.schedules import CronSchedule as ServerCron
from pydantic import TypeAdapter

from flows.deployments import declared, deploy
from flows.stack.probes import POOL
from tasks.config.errors import ProjectError
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ml.policy import OnSchedule, Policies
from tasks.ml.proof import Proving
from tasks.ml.watching.plan import WatchPlan
from tasks.sources.scores import Scores
from tasks.stores import deployed
from tasks.stores.journal import Journal
from tests.samples import SHIPPED, light_projects

PROJECTS = {"thyroid": ("0 3 * * 1", "Australia/Sydney"), "flights": ("0 4 2 * *", "America/New_York")}
FLOWS = ["land", "train", "release", "approve", "prove", "recover", "score", "watch"]


def named(project: str, **changes: Any) -> Project:
    return Project.named(project, Settings(projects=REPOSITORY / "deployments")).model_copy(update=changes)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Records what would be sent to the server."""
    sent: list[tuple[str, str | None]] = []

    def apply(self: RunnerDeployment, work_pool_name: str | None = None) -> None:
        sent.append((self.full_name, work_pool_name))

    monkeypatch.setattr(RunnerDeployment, "apply", apply)
    monkeypatch.setattr(deployed, "spare", lambda *_about: None)
    monkeypatch.setattr(deployed, "withdraw", lambda *_about: [])
    return sent


@pytest.mark.parametrize("project", PROJECTS)
def test_a_project_is_eight_deployments(project):
    """Landing, training, releasing, approving, proving, recovering, scoring and watching, each called like its project and tagged with it, one run at a time."""
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


def test_the_watch_looks_by_the_clock_and_at_what_landed():
    """Both are as `watch:` says; either can be left out."""
    watch = {each.flow_name: each for each in declared(named("thyroid"))}["watch"]
    assert [entry.schedule for entry in watch.schedules or ()] == [CronSchedule(cron="17 5 * * *", timezone="UTC")]
    (trigger,) = events(watch)
    assert (trigger.name, trigger.expect) == ("thyroid: a batch landed → watch", {"keepfit.batch.landed"})
    assert trigger.parameters == {"project": "thyroid", "reason": "{{ event.payload.name }} landed"}
    quiet = declared(named("thyroid", watch=WatchPlan(schedule=None, on_batch=False)))
    (watch,) = (each for each in quiet if each.flow_name == "watch")
    assert (watch.schedules, watch.triggers) == ([], [])


def test_what_is_scored_by_the_clock_has_a_schedule_each():
    """Each entry of `scores:` is a schedule of `score/<p>` on its own wall clock, whose run is told its name and nothing else."""
    scores = [
        {"name": "nightly", "source": "in.csv", "target": "out.csv", "schedule": {"cron": "0 2 * * *"}},
        {"name": "crm", "source": "env:CRM_URL", "sql": "select 1", "target": "crm.parquet", "schedule": {"cron": "5 3 * * 1", "timezone": "Europe/Berlin"}},
    ]  # fmt: skip
    use = named("thyroid", scores=TypeAdapter(Scores).validate_python(scores))
    (score,) = (each for each in declared(use) if each.flow_name == "score")
    assert [(each.slug, each.schedule, each.parameters) for each in score.schedules or ()] == [
        ("nightly", CronSchedule(cron="0 2 * * *", timezone="UTC"), {"name": "nightly"}),
        ("crm", CronSchedule(cron="5 3 * * 1", timezone="Europe/Berlin"), {"name": "crm"}),
    ]
    assert set(score._parameter_openapi_schema.properties) == {"project", "source", "target", "sql", "name"}
    assert use.digest == named("thyroid").digest


def events(deployment: RunnerDeployment) -> list[DeploymentEventTrigger]:
    """The triggers of a deployment, which are all on events."""
    return [trigger for trigger in deployment.triggers if isinstance(trigger, DeploymentEventTrigger)]


@pytest.mark.parametrize("project", PROJECTS)
def test_a_landed_batch_starts_a_training(project):
    """One trigger on the event of this project's batches, which tells the run what landed; nothing else trains, but what alarms want."""
    land, train, *others = declared(named(project))
    assert {each.flow_name for each in (land, *others) if each.triggers} <= {"recover", "watch"}
    (trigger,) = (each for each in events(train) if each.name == f"{project}: a batch landed → train")
    assert trigger.expect == {"keepfit.batch.landed"}
    assert trigger.match == ResourceSpecification({"prefect.resource.id": f"keepfit.project.{project}"})
    assert trigger.threshold == 1
    assert trigger.parameters == {"project": project, "by": "batch", "reason": "{{ event.payload.name }} landed"}


@pytest.mark.parametrize(
    ("kind", "event"), [("drift", "keepfit.drift.detected"), ("decay", "keepfit.performance.decayed")]
)
def test_an_alarm_that_wants_a_training_starts_one(kind, event):
    """The trigger matches the label of the class, because a payload cannot be matched; alarms within the cool-down are one run (O-11)."""
    retrain = TypeAdapter(Policies).validate_python([{"kind": "batch"}, {"kind": kind, "cooldown": 1800}])
    _, trigger = events(declared(named("fraud", retrain=retrain))[1])
    assert (trigger.name, trigger.expect) == (f"fraud: {kind} → train", {event})
    assert trigger.match == ResourceSpecification(
        {"prefect.resource.id": "keepfit.project.fraud", "keepfit.class": "retrain"}
    )
    assert trigger.within == dt.timedelta(seconds=1800)
    assert trigger.parameters == {"project": "fraud", "by": kind, "reason": f"{kind}: {{{{ event.payload.reason }}}}"}


def test_silence_has_the_recovery_look():
    """A trigger on what does not come, of rows or of outcomes, for as long as the policy says."""
    silence = [{"kind": "silence", "hours": 26}, {"kind": "silence", "of": "outcomes", "hours": 90}]
    use = named("fraud", retrain=TypeAdapter(Policies).validate_python(silence))
    (recover,) = (each for each in declared(use) if each.flow_name == "recover")
    rows, outcomes = events(recover)
    assert [each.name for each in (rows, outcomes)] == [
        "fraud: no rows for 26 h → recover", "fraud: no outcomes for 90 h → recover",
    ]  # fmt: skip
    assert (rows.posture, rows.within, rows.expect) == (
        Posture.Proactive, dt.timedelta(hours=26), {"keepfit.batch.landed"},
    )  # fmt: skip
    for of, each in (("rows", rows), ("outcomes", outcomes)):
        assert each.match == ResourceSpecification({"prefect.resource.id": "keepfit.project.fraud", "keepfit.kind": of})
    assert not declared(use)[1].triggers


DAYS = [("Europe/Brussels", "2026-03-29"), ("Europe/Brussels", "2026-10-25"), ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
        ("Australia/Sydney", "2026-04-05"), ("Australia/Sydney", "2026-10-04")]  # fmt: skip


@pytest.mark.parametrize(("zone", "day"), DAYS)
@pytest.mark.parametrize("clock", ["03:00", "02:30", "04:00"])
def test_o_12_a_local_schedule_is_right_on_the_days_when_clocks_change(zone, day, clock):
    """Once a day, at its time on the wall; a time that the clock leaves out comes once nevertheless (O-12)."""
    hour, minute = clock.split(":")
    policy = OnSchedule(cron=f"{int(minute)} {int(hour)} * * *", timezone=zone)
    entry = (declared(named("thyroid", retrain=(policy,)))[1].schedules or [])[0]
    assert isinstance(entry.schedule, CronSchedule)
    changed = dt.datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    ticks = asyncio.run(
        ServerCron(cron=entry.schedule.cron, timezone=entry.schedule.timezone).get_dates(
            20, changed - dt.timedelta(days=2), changed + dt.timedelta(days=3)
        )
    )
    local = [tick.astimezone(ZoneInfo(zone)) for tick in ticks]
    days = [(changed + dt.timedelta(days=count)).date() for count in range(-2, 3)]
    assert [tick.date() for tick in local] == days
    assert all(f"{tick:%H:%M}" == clock for tick in local if _is_there(tick.date(), clock, zone))


def _is_there(day: dt.date, clock: str, zone: str) -> bool:
    """Whether the clock on that wall shows that time on that day."""
    wanted = dt.datetime.combine(day, dt.time.fromisoformat(clock), ZoneInfo(zone))
    return f"{wanted.astimezone(dt.UTC).astimezone(ZoneInfo(zone)):%H:%M}" == clock


def test_a_project_without_policies_is_trained_by_hand_only():
    """No policy, no schedule and no trigger; the description says so."""
    train = declared(named("thyroid", retrain=()))[1]
    assert not train.schedules
    assert train.triggers == []
    assert train.description == "Retrains thyroid: by hand only."


def test_the_description_says_when():
    """A reader of Prefect's page sees when a project is retrained."""
    train = declared(named("thyroid"))[1]
    assert train.description == (
        "Retrains thyroid: when a batch has landed and at 0 3 * * 1 Australia/Sydney and when the watch finds drift and when the watch "
        "finds decay."
    )
    others = [{"kind": "rows", "rows": 5000}, {"kind": "silence", "hours": 26}]
    use = named("thyroid", retrain=TypeAdapter(Policies).validate_python(others))
    assert declared(use)[1].description == (
        "Retrains thyroid: when 5,000 rows have landed and when no rows come for 26 h it is said."
    )


def test_every_declared_parameter_is_one_of_the_flow():
    """What a schedule or a trigger gives is something that the flow takes."""
    train = declared(named("thyroid"))[1]
    triggered = [trigger.parameters or {} for trigger in train.triggers if isinstance(trigger, DeploymentEventTrigger)]
    scheduled = [entry.parameters for entry in train.schedules or []]
    assert (len(triggered), len(scheduled)) == (3, 1)
    given = {name for parameters in (train.parameters, *triggered, *scheduled) for name in parameters or {}}
    assert given <= set(train._parameter_openapi_schema.properties)


def test_a_decision_is_a_form_that_demands_everything():
    """The form of `approve/<p>` offers the two decisions, helps with every field, and starts with none of them but the project."""
    form = declared(named("thyroid"))[3]._parameter_openapi_schema
    assert form.properties["decision"]["enum"] == ["approve", "reject"]
    assert form.required == ["project", "version", "decision", "by", "reason"]
    assert all(form.properties[name]["description"] for name in form.required)


def test_deploying_applies_every_project(tmp_path: Path, applied):
    """Each project's deployments are sent to the work pool, each project is said as its turn comes, and the names are given back."""
    told: list[str] = []
    names = deploy(Settings(home=tmp_path, projects=REPOSITORY / "deployments"), say=told.append).names
    assert told == [f"deploying {name} ({place} of {len(SHIPPED)})" for place, name in enumerate(SHIPPED, 1)]
    assert names == [f"{flow}/{project}" for project in SHIPPED for flow in FLOWS]
    assert applied == [(name, POOL) for name in names]


def test_another_home_a_copy_of_it_or_another_folder_of_projects_is_another_installation(tmp_path: Path):
    """What each deploys has a tag of its own, the same at every deploy."""
    here = Settings(home=tmp_path / "a", projects=tmp_path / "projects")
    other = here.model_copy(update={"home": tmp_path / "b"})
    marks = [deployed.mark(here), deployed.mark(other), deployed.mark(here.model_copy(update={"projects": tmp_path}))]
    shutil.copytree(here.home, tmp_path / "c")
    marks.append(deployed.mark(here.model_copy(update={"home": tmp_path / "c"})))
    assert len({*marks}) == 4
    assert deployed.mark(here) == marks[0]
    shutil.rmtree(here.home)  # in another machine's container the same paths hold another home
    assert deployed.mark(here) not in marks


def test_what_has_no_mark_is_an_installation_s_own_where_its_server_and_its_journal_say_so(tmp_path: Path):
    """Declared, or files have landed; nothing is on a server that runs elsewhere."""
    here = Settings(home=tmp_path / "home", projects=light_projects(tmp_path / "projects"))
    assert [deployed.made_before(here)(name) for name in ("thyroid", "retired", "unknown")] == [True, False, False]
    batch = {
        "batch": "a",
        "name": "f",
        "state": "landed",
        "reason": "",
        "arrived": 9,
        "landed": 9,
        "quarantined": 0,
        "known": 0,
        "at": "2026-01-01",
    }
    Journal(here.journal()).finish("retired", [{"project": "retired", **batch, "kind": "rows"}], None)
    assert [deployed.made_before(here)(name) for name in ("thyroid", "retired", "unknown")] == [True, True, False]
    elsewhere = here.model_copy(update={"prefect_url": "http://prefect.example"})
    assert [deployed.made_before(elsewhere)(name) for name in ("thyroid", "retired", "unknown")] == [False] * 3


def test_a_broken_folder_stops_everything_before_it_begins(tmp_path: Path, applied):
    """One project that does not load, and nothing is deployed, whatever the order of names."""
    folder = light_projects(tmp_path / "projects")
    (folder / "zebra").mkdir()
    (folder / "zebra" / "project.yaml").write_text("project: zebra\n")
    with pytest.raises(ProjectError, match=r"zebra/project\.yaml.*contract is missing"):
        deploy(Settings(home=tmp_path, projects=folder))
    assert applied == []


def test_a_hook_of_two_projects_stops_everything_before_it_begins(tmp_path: Path, applied):
    """Its name is an address; which of the two would be meant is not guessed."""
    folder = light_projects(tmp_path / "projects")
    text = (folder / "thyroid" / "project.yaml").read_text()
    text += "hooks: [{name: closed, kind: rest, does: train, secret: CLOSED}]\n"
    shutil.copytree(folder / "thyroid", folder / "other")
    for name in ("thyroid", "other"):
        (folder / name / "project.yaml").write_text(text.replace("project: thyroid", f"project: {name}"))
    with pytest.raises(ProjectError, match=r"'closed', which other has, too"):
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
