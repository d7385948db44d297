"""What starts a training on the running stack: many events, a server that is down, an alarm, a program; and what Prefect lists of it."""

import datetime as dt
import uuid

import httpx
import pytest

from flows.stack import supervisor
from flows.stack.record import recorded
from tasks.config.project import Project
from tasks.ingest import Landings
from tasks.ml.watching.alarm import Class
from tasks.stores import alarms
from tasks.stores.journal import Journal
from tasks.trigger import DONE
from tests.conftest import Stack
from tests.flows.test_loop import ENDED, drop, runs
from tests.samples import until, write_rows

pytestmark = pytest.mark.stack
NAME = "thyroid"


def journal(stack: Stack) -> Journal:
    return Journal(stack.settings.journal())


def idle(stack: Stack) -> bool:
    """No run of a training is planned or under way, and nothing that landed waits for one."""
    newest, tried = journal(stack).newest(NAME), journal(stack).tried(NAME)
    done = any(state in ENDED and rows.startswith(f"v{newest[0]}") for rows, state, _ in tried)
    return (done or newest == (0, 0)) and all(run.state.is_final() for run in runs(stack, f"train/{NAME}"))


@pytest.fixture(scope="module")
def learned(stack: Stack, thyroid_rows, tmp_path_factory) -> Stack:
    """The stack, when something was trained and nothing is left to do."""
    if not journal(stack).trainings(NAME):
        drop(stack, tmp_path_factory.mktemp("drop"), "before.csv", thyroid_rows[:1772])
        until(lambda: any(row["state"] in ENDED for row in journal(stack).trainings(NAME)), 180, "the first training")
    until(lambda: idle(stack), 180, "rest")
    return stack


def alarm(stack: Stack, what: Class) -> tuple[str, list[int]]:
    """An alarm of drift, as the watch sounds one; gives its incident."""
    incident, now = uuid.uuid4().hex, dt.datetime.now(dt.UTC)
    use = Project.named(NAME, stack.settings)
    return incident, alarms.sound(use, journal(stack), "drift", what, reason=incident, incident=incident, at=now)


def test_o_07_a_hundred_identical_events_start_one_training(learned: Stack, thyroid_rows, tmp_path):
    """Sent at once, each with an id of its own: one flow run, one training on record (O-07, O-11)."""
    from prefect.client.orchestration import get_client
    from prefect.events import Event, Resource

    from tasks.config.names import resource

    before, trained = {run.id for run in runs(learned, f"train/{NAME}")}, len(journal(learned).trainings(NAME))
    landing = Landings(Project.named(NAME, learned.settings), learned.settings)
    landed = landing.land(write_rows(tmp_path / "storm.csv", thyroid_rows[3300:3700]))
    assert landed.landed > 0
    events = [
        Event(event="keepfit.batch.landed", resource=Resource(resource(NAME)), payload={"name": "storm.csv"})
        for _ in range(100)
    ]
    with get_client(sync_client=True) as client:
        sent = [event.model_dump(mode="json") for event in events]
        client.request("POST", "/events", json=sent).raise_for_status()
    until(lambda: journal(learned).trainings(NAME)[trained:], 60, "a training")
    until(lambda: idle(learned), 180, "its end")
    (row,) = journal(learned).trainings(NAME)[trained:]
    assert (row["by"], row["trigger"]) == ("batch", "storm.csv landed")
    assert row["detail"]["cpu_seconds"] > 0
    assert len({run.id for run in runs(learned, f"train/{NAME}")} - before) == 1


def test_only_an_alarm_that_wants_a_training_starts_one(learned: Stack):
    """`ignore` and `mend` are told and start nothing; `retrain` has one run, which obeys the order, and its refusal is the answer."""
    ignored, mended, wanted = (alarm(learned, what) for what in ("ignore", "mend", "retrain"))
    assert [len(orders) for _, orders in (ignored, mended, wanted)] == [1, 1, 2]
    assert alarm_again(learned, wanted[0]) == []

    def answers() -> list[str]:
        return [
            order.state for order in journal(learned).orders(NAME) if order.id in {*wanted[1], *ignored[1], *mended[1]}
        ]

    until(lambda: "open" not in answers(), 60, "the answers")
    (order,) = (order for order in journal(learned).orders(NAME) if order.key.startswith(f"train drift {wanted[0]}"))
    assert (order.state, "was trained on already" in order.said) == ("refused", True), order
    names = [run.name for run in runs(learned, f"train/{NAME}")]
    assert [sum(incident in name for name in names) for incident, _ in (ignored, mended, wanted)] == [0, 0, 1]


def alarm_again(stack: Stack, incident: str) -> list[int]:
    """The same incident a second time."""
    use, now = Project.named(NAME, stack.settings), dt.datetime.now(dt.UTC)
    return alarms.sound(use, journal(stack), "drift", "retrain", reason="again", incident=incident, at=now)


def test_a_training_that_a_program_orders_becomes_a_run(learned: Stack):
    """`POST …/trainings` twice with one key is one order and one run, and says what came of it."""
    address, reason = f"{learned.urls['serving']}/projects/{NAME}/trainings", f"asked {uuid.uuid4().hex}"
    sent = [
        httpx.post(address, json={"reason": reason}, headers={"Idempotency-Key": reason}).raise_for_status()
        for _ in range(2)
    ]
    assert [answer.status_code for answer in sent] == [202, 202]
    assert len({answer.json()["id"] for answer in sent}) == 1
    where = f"{address}/{sent[0].json()['id']}"
    until(lambda: httpx.get(where).json()["state"] == "refused", 60, "its answer")
    assert "was trained on already" in httpx.get(where).json()["said"]
    assert len([run for run in runs(learned, f"train/{NAME}") if reason in run.name]) == 1


def test_o_12_a_schedule_plans_runs(stack: Stack):
    """Prefect's scheduler makes runs of what it lists: some of its versions do not under some of SQLAlchemy, and say so in a log alone (O-12)."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowFilter, FlowFilterName

    flow, deployment = (
        FlowFilter(name=FlowFilterName(any_=["train"])),
        DeploymentFilter(name=DeploymentFilterName(any_=[NAME])),
    )
    with get_client(sync_client=True) as client:
        found = until(
            lambda: [
                run
                for run in client.read_flow_runs(flow_filter=flow, deployment_filter=deployment)
                if run.auto_scheduled
            ],
            90,
            "a planned run",
        )
    assert all(run.parameters["by"] == "schedule" for run in found)


def test_prefect_lists_what_project_yaml_says(learned: Stack):
    """Every schedule, trigger and silence that the project declares, by name, and no other; deployments by name, too."""
    from prefect.client.orchestration import get_client

    use = Project.named(NAME, learned.settings)
    with get_client(sync_client=True) as client:
        listed = {
            f"{name}/{NAME}" for name in ("land", "train", "release", "approve", "prove", "recover", "score", "watch")
        }
        assert all(client.read_deployment_by_name(name).tags[0] == f"project:{NAME}" for name in listed)
        train = client.read_deployment_by_name(f"train/{NAME}")
        found = client._client.post("/automations/filter", json={}).json()
    automations = [
        one for one in found if one["name"].startswith(f"{NAME}: ")
    ]  # other tests deploy projects of their own
    crons = [policy.cron for policy in use.retrain if policy.kind == "cron"]
    assert [one.schedule.model_dump()["cron"] for one in train.schedules] == crons
    assert {one["name"] for one in automations} == {
        f"{NAME}: a batch landed → train", f"{NAME}: drift → train", f"{NAME}: decay → train", f"{NAME}: a batch landed → watch",
    }  # fmt: skip
    matches = {one["name"].partition(": ")[2]: one["trigger"]["match"].get("keepfit.class") for one in automations}
    assert matches == {
        "a batch landed → train": None,
        "drift → train": "retrain",
        "decay → train": "retrain",
        "a batch landed → watch": None,
    }


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["down", "killed with its events"])
def test_o_03_o_04_what_is_dropped_while_the_server_is_down_is_trained_on_when_it_is_back(
    learned: Stack, thyroid_rows, tmp_path, lost: str
):
    """The file waits in the inbox; or it has landed, its event is lost with the server, and the recovery finds what is owed."""
    record, name = recorded(learned.settings), f"while-{lost.partition(' ')[0]}.csv"
    rows = thyroid_rows[3800:4200] if lost == "down" else thyroid_rows[4300:4700]
    before, trained = journal(learned).newest(NAME), len(journal(learned).trainings(NAME))
    supervisor.ask(record, "stopProcess", "servers:prefect")
    try:
        if lost == "down":
            drop(learned, tmp_path, name, rows)
        else:
            landing = Landings(Project.named(NAME, learned.settings), learned.settings)
            landing.land(write_rows(tmp_path / name, rows))
    finally:
        supervisor.ask(record, "startProcess", "servers:prefect")
    until(lambda: journal(learned).newest(NAME) > before, 180, "its landing")
    until(lambda: len(journal(learned).trainings(NAME)) > trained, 180, "its training")
    until(lambda: idle(learned), 180, "its end")
    (row,) = journal(learned).trainings(NAME)[trained:]
    assert (row["by"], row["state"] in ENDED) == ("batch", True)


@pytest.mark.slow
def test_o_03_a_server_that_goes_away_under_a_training_costs_no_training(learned: Stack, thyroid_rows, tmp_path):
    """It is stopped while the model is made and comes back: the run goes on, or is told as ended and made again (O-03)."""
    record, trained = recorded(learned.settings), len(journal(learned).trainings(NAME))
    drop(learned, tmp_path, "under.csv", thyroid_rows[4800:5200])
    until(lambda: len(journal(learned).trainings(NAME)) > trained, 120, "its beginning")
    supervisor.ask(record, "stopProcess", "servers:prefect")
    supervisor.ask(record, "startProcess", "servers:prefect")
    until(lambda: any(row["state"] in DONE for row in journal(learned).trainings(NAME)[trained:]), 300, "its end")
    until(lambda: idle(learned), 180, "rest")
    assert journal(learned).under_way() == []


@pytest.mark.slow
def test_silence_is_noticed_by_level_and_by_prefect(learned: Stack):
    """Nothing has landed for 36 seconds: it is told once, and Prefect's automation on what does not come has the recovery look."""
    from flows.deployments import deploy

    file = learned.settings.projects / NAME / "project.yaml"
    text = file.read_text()
    looked = len(runs(learned, f"recover/{NAME}"))
    file.write_text(text.replace("retrain:\n", "retrain:\n  - {kind: silence, hours: 0.01}\n"))
    try:
        deploy(learned.settings)
        until(lambda: len(runs(learned, f"recover/{NAME}")) > looked, 180, "a look")
        told = [order for order in journal(learned).orders(NAME) if order.by == "silence"]
    finally:
        file.write_text(text)
        deploy(learned.settings)
    assert [(order.does, order.state) for order in told] == [("tell", "done")]
    assert "no rows have landed for" in told[0].reason
