"""The loop through the real processes, on a cut of thyroid: land, event, train, gates, release, answers."""

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tasks.config import plans
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY
from tasks.stores.journal import Journal
from tasks.stores.lake import BATCH, Lake
from tests.conftest import Stack
from tests.samples import until, write_rows

pytestmark = pytest.mark.stack
FIRST, SECOND = slice(0, 1772), slice(1772, 2972)
PLAN = "families: [hist_gradient_boosting, logistic]\nfloors: {roc_auc: 0.6}\ndrift: 20\nretrains: 9\n"
ENDED = {"released", "registered", "held", "refused", "failed"}


def keepfit(*words: str) -> tuple[int, dict]:
    """Runs the command as a person would; gives exit code and the object on stdout."""
    done = subprocess.run(
        [Path(sys.executable).with_name("keepfit"), *words, "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.count("\n") == 1, done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def drop(stack: Stack, tmp_path: Path, name: str, rows: list[dict[str, str]]) -> None:
    """Puts a file into the inbox as a sender does: slowly under its own name would do too, a rename is quicker."""
    folder = stack.settings.inbox("thyroid")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(write_rows(tmp_path / name, rows), folder / f".{name}")
    (folder / f".{name}").rename(folder / name)


def trainings(stack: Stack, name: str) -> list[dict]:
    return [row for row in Journal(stack.settings.journal()).trainings("thyroid") if name in row["trigger"]]


def runs(stack: Stack, deployment: str) -> list:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        everything = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=[StateType.SCHEDULED]))
        )
        return client.read_flow_runs(
            flow_run_filter=everything, deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[found.id]))
        )


@pytest.fixture(scope="module")
def champion(stack: Stack, thyroid_rows, tmp_path_factory) -> dict:
    """The first champion, that a dropped file led to, inside of a plan that somebody signed."""
    (stack.settings.projects / "thyroid" / "change_plan.yaml").write_text(PLAN)
    code, signed = keepfit("plan", "sign", "thyroid", "--by", "Ada")
    assert (code, signed["signed"]) == (0, True)
    drop(stack, tmp_path_factory.mktemp("drop"), "first.csv", thyroid_rows[FIRST])
    return until(
        lambda: next((row for row in trainings(stack, "first.csv") if row["state"] in ENDED), None),
        180,
        "the first training's end",
    )


def test_a_dropped_file_ends_in_a_champion_that_answers(stack: Stack, champion: dict, thyroid_rows):
    """One drop leads by event to a released version; HTTP and command give the same answer of that version."""
    assert (champion["state"], champion["version"]) == ("released", 1), champion["reason"]
    asked = [verdict["gate"] for verdict in champion["detail"]["verdicts"]]
    assert asked == [gate.kind for gate in Project.named("thyroid", stack.settings).gates]
    assert champion["detail"]["bars"] == plans.bars(Project.named("thyroid", stack.settings), stack.settings)
    said = {verdict["gate"]: verdict for verdict in champion["detail"]["verdicts"]}
    assert said["plan"]["reason"].startswith("inside of the change plan; Ada signed it on ")
    assert said["parity"]["value"] == 0
    assert "verifies; what is installed is what the lock" in said["inputs"]["reason"]
    left = stack.settings.home / "candidates" / "thyroid"
    assert not list(left.iterdir()), "the rehearsal and the files of answers are gone"
    numbers = {"age", "TSH", "T3", "TT4", "T4U", "FTI", "TBG"}
    listed = httpx.get(f"{stack.urls['serving']}/projects/thyroid").json()
    raw = thyroid_rows[1800]
    row = {feature["name"]: _value(raw[feature["name"]], feature["name"] in numbers) for feature in listed["features"]}
    over_http = (
        httpx.post(f"{stack.urls['serving']}/projects/thyroid/predict", json={"rows": [row]}).raise_for_status().json()
    )
    code, by_command = keepfit("predict", "thyroid", "--row", json.dumps(row))
    assert code == 0
    assert over_http["version"] == by_command["version"] == 1
    assert _without_id(over_http) == _without_id(by_command)
    assert over_http["predictions"][0]["id"] != by_command["predictions"][0]["id"]


def _value(text: str, is_number: bool) -> object:
    if text == "":
        return None
    return float(text) if is_number else {"t": True, "f": False}.get(text, text)


def _without_id(answer: dict) -> list[dict]:
    return [{name: value for name, value in prediction.items() if name != "id"} for prediction in answer["predictions"]]


def test_status_says_the_same_as_the_servers(stack: Stack, champion: dict):
    """`keepfit status --json` has the promised keys; every service is healthy; the server answers with the champion."""
    code, said = keepfit("status")
    assert code == 0
    assert {service["name"] for service in said["services"]} >= {"prefect", "mlflow", "worker", "serving", "inbox"}
    assert all(service["healthy"] for service in said["services"]), said["services"]
    project = next(row for row in said["projects"] if row["project"] == "thyroid")
    assert set(project["champion"]) == {"version", "since", "metric", "value", "low", "high"}
    assert project["serving"]["version"] == project["champion"]["version"]
    assert project["batches"]["rows"] == len(Lake("thyroid", stack.settings.lake("thyroid")).rows([BATCH]))
    assert project["last_train"]["state"] in ENDED


def test_what_was_trained_is_in_mlflow(stack: Stack, champion: dict):
    """The parent run holds dataset, trials, pictures, card and verdicts; the aliases point where the journal does; the signature is there."""
    import mlflow

    mlflow.set_tracking_uri(stack.urls["mlflow"])
    client = mlflow.MlflowClient()
    run = client.get_run(champion["detail"]["run"])
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names >= {"report.png", "search.png", "trials.json", "verdicts.json", "verdicts.png", "decision.md", "card"}
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == champion["snapshot"][:32]
    assert run.data.tags["keepfit.decision"] == "released"
    assert run.info.status == "FINISHED"
    version = client.get_model_version_by_alias("thyroid", "champion")
    assert int(version.version) >= 1
    signature = mlflow.models.get_model_info(f"models:/thyroid/{version.version}").signature
    assert signature is not None
    assert "TSH" in signature.inputs.input_names()


def test_a_finished_training_says_what_it_was_made_of(stack: Stack, champion: dict):
    """Read back through MLflow's client: rows, code, lock, seed, threads, CPU and wall time, trigger, environment, footprint."""
    import mlflow
    import numpy as np
    import psutil

    mlflow.set_tracking_uri(stack.urls["mlflow"])
    client = mlflow.MlflowClient()
    run = client.get_run(champion["detail"]["run"])
    tags, metrics = run.data.tags, run.data.metrics
    lock = hashlib.sha256((REPOSITORY / "requirements.lock").read_bytes()).hexdigest()
    assert tags["keepfit.snapshot_sha256"] == champion["snapshot"]
    assert tags["keepfit.lock_sha256"] == lock
    assert tags["mlflow.source.git.commit"].partition("+")[0] == _head()
    assert (tags["keepfit.seed"], tags["keepfit.threads"]) == (
        "7",
        tags["keepfit.omp_threads"].replace("all", tags["keepfit.threads"]),
    )
    assert tags["keepfit.trigger"] == champion["trigger"] == "first.csv landed"
    assert tags["keepfit.python"] == platform.python_version()
    assert f"numpy {np.__version__}" in tags["keepfit.packages"]
    assert float(tags["keepfit.memory_gib"]) == pytest.approx(psutil.virtual_memory().total / 2**30, abs=0.06)
    assert (tags["keepfit.platform"], int(tags["keepfit.cores"])) == (platform.platform(), os.cpu_count())
    assert tags["keepfit.container"] in {"none", "docker", "podman", "kubernetes"}
    assert len(tags["keepfit.code_sha256"]) == 64
    assert metrics["training.seconds"] >= metrics["search.seconds"] > 0
    assert 0 < metrics["serving.p50"] <= metrics["serving.p95"]
    assert metrics["training.cpu_seconds"] >= metrics["search.cpu_seconds"] > 0
    steps = json.loads(Path(client.download_artifacts(run.info.run_id, "footprint.json")).read_text())
    assert [step["name"] for step in steps][-1] == "answers"


def _head() -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_decision_links_to_the_classic_view_of_the_run(stack: Stack, champion: dict):
    """The link on the decision's page opens MLflow's page of this run in the view for models."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    run = next(run for run in runs(stack, "train/thyroid") if "first.csv" in run.name)
    link = run.state.result()["link"]
    assert link.startswith(f"{stack.urls['mlflow']}/#/experiments/")
    assert link.endswith(f"/runs/{champion['detail']['run']}?workflowType=machine_learning")
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        pages = {artifact.key: str(artifact.data) for artifact in client.read_artifacts(artifact_filter=of_run)}
    assert link in pages["thyroid-decision"]


def test_the_champion_is_made_again_exactly(stack: Stack, champion: dict):
    """`keepfit reproduce` on the running stack: EXACT, exit code 0, and neither journal nor registry has one entry more."""
    import mlflow

    mlflow.set_tracking_uri(stack.urls["mlflow"])
    client, journal = mlflow.MlflowClient(), Journal(stack.settings.journal())
    before = (
        journal.trainings("thyroid"),
        journal.releases("thyroid"),
        len(client.search_model_versions("name='thyroid'")),
    )
    code, said = keepfit("reproduce", "thyroid", "1")
    assert (code, said["verdict"], said["difference"], said["diverges"]) == (0, "EXACT", 0.0, None), said
    assert (
        journal.trainings("thyroid"),
        journal.releases("thyroid"),
        len(client.search_model_versions("name='thyroid'")),
    ) == before
    code, said = keepfit("reproduce", "thyroid", "77")
    assert (code, set(said)) == (1, {"error"})


def test_o_18_a_run_that_was_planned_with_other_code_is_refused(stack: Stack, champion: dict, monkeypatch):
    """The deployment of older code plans a run; what is here is newer: refused with the next move, and nothing is trained (O-18)."""
    from flows import deployments

    trained = len(Journal(stack.settings.journal()).trainings("thyroid"))
    monkeypatch.setattr(deployments, "code", lambda: "0" * 64)
    deployments.deploy(stack.settings)
    monkeypatch.undo()
    try:
        code, said = keepfit("train", "thyroid", "--again")
    finally:
        deployments.deploy(stack.settings)
    assert (code, said["state"]) == (1, "refused")
    assert said["reason"].startswith("the run was planned with the code 000000000000, which is not the code here")
    assert "keepfit deploy" in said["reason"]
    assert len(Journal(stack.settings.journal()).trainings("thyroid")) == trained


def test_a_train_run_leaves_four_artifacts_with_stable_keys(stack: Stack, champion: dict):
    """Contract, tuning, report and decision; the report carries a picture."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    run = next(run for run in runs(stack, "train/thyroid") if "first.csv" in run.name)
    with get_client(sync_client=True) as client:
        found = {
            artifact.key: artifact
            for artifact in client.read_artifacts(
                artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
            )
        }
    del found[None]  # the steps' own results
    assert set(found) == {"thyroid-contract", "thyroid-tuning", "thyroid-report", "thyroid-decision"}
    assert "data:image/png;base64," in str(found["thyroid-report"].data)
    assert len(str(found["thyroid-report"].data)) < 200_000


def test_i_03_the_same_file_again_changes_nothing(stack: Stack, champion: dict, thyroid_rows, tmp_path: Path):
    """Dropped again under another name: known, no row more, no train run more."""
    lake = Lake("thyroid", stack.settings.lake("thyroid"))
    rows, trained, landed = len(lake.rows([BATCH])), len(runs(stack, "train/thyroid")), len(runs(stack, "land/thyroid"))
    drop(stack, tmp_path, "again.csv", thyroid_rows[FIRST])
    run = until(
        lambda: next(
            (run for run in runs(stack, "land/thyroid") if "again.csv" in run.name and run.state.is_completed()), None
        ),
        60,
        "the second landing",
    )
    assert run.state.result()["known"] == len(thyroid_rows[FIRST])
    assert len(lake.rows([BATCH])) == rows
    assert len(runs(stack, "land/thyroid")) == landed + 1
    code, said = keepfit("train", "thyroid")
    assert (code, said["state"]) == (1, "refused")
    assert "was trained on already" in said["reason"]
    assert len([run for run in runs(stack, "train/thyroid") if "again.csv" in run.name]) == 0
    assert len(runs(stack, "train/thyroid")) == trained + 1  # the one by hand, which refused


def test_a_later_batch_leads_to_one_training_and_a_decision(stack: Stack, champion: dict, thyroid_rows, tmp_path: Path):
    """The event starts exactly one run; it ends released or refused with the numbers in its reason; quarantined ages are counted."""
    later = [dict(row) for row in thyroid_rows[SECOND]]
    later[0]["age"] = "455"
    drop(stack, tmp_path, "later.csv", later)
    ended = until(
        lambda: next((row for row in trainings(stack, "later.csv") if row["state"] in ENDED), None),
        180,
        "the second training's end",
    )
    assert ended["state"] in {"released", "refused"}
    assert "ROC AUC" in ended["reason"]
    assert len([run for run in runs(stack, "train/thyroid") if "later.csv" in run.name]) == 1
    _, said = keepfit("status")
    project = next(row for row in said["projects"] if row["project"] == "thyroid")
    assert project["batches"] == {
        "landed": 2,
        "held": 0,
        "arrived": 2972,
        "rows": 2971,
        "quarantined": 1,
        "known": 0,
        "outcomes": 0,
        "erased": 0,
    }
    assert project["serving"]["version"] == project["champion"]["version"] == (2 if ended["state"] == "released" else 1)


def test_a_held_batch_is_refused_with_a_reason_and_exit_code_1(
    stack: Stack, champion: dict, thyroid_rows, tmp_path: Path
):
    """A missing column: nothing lands, the file is kept apart, the message names the column, no training starts."""
    rows = [{name: value for name, value in row.items() if name != "TSH"} for row in thyroid_rows[3000:3100]]
    before = len(runs(stack, "train/thyroid"))
    code, said = keepfit("land", "thyroid", str(write_rows(tmp_path / "short.csv", rows)))
    assert (code, said["state"], said["landed"], said["quarantined"]) == (1, "held", 0, 100)
    assert "column 'TSH' is missing" in said["reason"]
    assert [file.name.partition("-")[2] for file in (stack.settings.inbox("thyroid") / ".held").iterdir()] == [
        "short.csv"
    ]
    assert len(runs(stack, "train/thyroid")) == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("empty.csv", b"", "is empty"), ("broken.parquet", b"PAR1", "does not read as parquet")],
)
def test_an_empty_or_broken_file_is_refused_in_one_line(stack: Stack, tmp_path: Path, name, content, said):
    """I-09, I-11: exit code 1, one line, nothing changed; the next file gets in."""
    (tmp_path / name).write_bytes(content)
    code, answer = keepfit("land", "thyroid", str(tmp_path / name))
    assert (code, answer["state"]) == (1, "held")
    assert said in answer["reason"]
    assert "\n" not in answer["reason"]


def test_a_version_that_is_not_there_is_not_released(stack: Stack, champion: dict):
    """Releasing by hand asks the journal first; the refusal is a value and says the next move."""
    code, said = keepfit("release", "thyroid", "99")
    assert (code, said["state"]) == (1, "refused")
    assert "no version 99" in said["reason"]


def test_deployments_say_what_project_yaml_says(stack: Stack):
    """land, train, release and approve are deployed with tags, helped parameters, a schedule in the project's time zone and a named trigger."""
    from prefect.client.orchestration import get_client

    from tasks.stores.deployed import mark

    with get_client(sync_client=True) as client:
        found = {
            name: client.read_deployment_by_name(f"{name}/thyroid") for name in ("land", "train", "release", "approve")
        }
        automations = client._client.post("/automations/filter", json={}).json()
    assert all({*deployment.tags} == {"project:thyroid", mark(stack.settings)} for deployment in found.values())
    schedules = [one.schedule.model_dump() for one in found["train"].schedules]
    assert [(one["cron"], one["timezone"]) for one in schedules] == [("0 3 * * 1", "Australia/Sydney")]
    schema = found["train"].parameter_openapi_schema
    assert schema is not None
    described = schema["properties"]
    assert all(described[name].get("description") for name in ("project", "reason", "snapshot", "by", "again"))
    assert {one["name"] for one in automations} == {
        "thyroid: a batch landed → train",
        "thyroid: drift → train",
        "thyroid: decay → train",
        "thyroid: a batch landed → watch",
    }


def test_r_06_an_alias_that_somebody_deletes_comes_back_while_the_stack_runs(stack: Stack, champion: dict):
    """The stack's own process notices, records what it met, and names the champion again; the answers never changed."""
    import mlflow

    client, journal = mlflow.MlflowClient(stack.urls["mlflow"], stack.urls["mlflow"]), Journal(stack.settings.journal())
    before = len(journal.hand_made("thyroid"))
    client.delete_registered_model_alias("thyroid", "champion")
    until(lambda: len(journal.hand_made("thyroid")) > before, 30, "its record")
    assert journal.hand_made("thyroid")[-1]["met"] == "no alias"
    now = journal.champion("thyroid")
    assert now is not None
    assert int(client.get_model_version_by_alias("thyroid", "champion").version) == now.version


def test_a_rollback_is_answered_with_at_once_and_proclaimed(stack: Stack, champion: dict):
    """The next answer is the former champion's; history names both; alias and event follow by themselves."""
    journal = Journal(stack.settings.journal())
    if len({release.version for release in journal.releases("thyroid")}) == 1:
        pytest.skip("the second training was refused on this machine: there is nothing to go back to")
    code, done = keepfit("rollback", "thyroid", "--reason", "a try")
    assert (code, done["project"], done["to"]) == (0, "thyroid", 1)
    assert httpx.get(f"{stack.urls['serving']}/projects/thyroid").json()["version"] == 1
    _, told = keepfit("history", "thyroid")
    assert [(row["version"], row["kind"], row["to"] is None) for row in told["champions"][-2:]] == [
        (done["from"], "release", False),
        (1, "rollback", True),
    ]
    until(lambda: journal.release_intents("thyroid")[-1].announced, 30, "its event")
    assert journal.release_intents("thyroid")[-1].phase == "confirmed"
    code, again = keepfit("release", "thyroid", str(done["from"]), "--reason", "a person says so")
    assert (code, again["state"]) == (0, "released")


def test_o_02_a_killed_worker_and_its_run_are_told_as_crashed(stack: Stack, champion: dict):
    """SIGKILL of worker and training: journal and Prefect say so, with the runs inside; the same training then runs to its end."""
    from flows.runs import start
    from flows.stack import supervisor
    from flows.stack.record import recorded

    journal = Journal(stack.settings.journal())
    run = start("train", {"project": "thyroid", "reason": "to be killed", "again": True})
    (row,) = until(lambda: [row for row in journal.under_way() if str(run) in row["runner"]], 60, "its beginning")
    worker = (supervisor.states(recorded(stack.settings)) or {})["worker"]["pid"]
    os.kill(worker, signal.SIGKILL)
    os.killpg(int(row["process"].split()[2]), signal.SIGKILL)

    def crashed() -> bool:
        told = next(each for each in journal.trainings("thyroid") if each["id"] == row["id"])["state"]
        return (told, {each.id: each.state.name for each in runs(stack, "train/thyroid")}[run]) == (
            "crashed",
            "Crashed",
        )

    until(crashed, 60, "its end in journal and Prefect")
    with journal.alone("train thyroid", patience=5):
        pass


def test_rows_that_hold_one_class_are_not_trained_on(stack: Stack, thyroid_rows, tmp_path: Path):
    """I-16: the run ends well, refused, with the class that is missing; the champion stays. Done in this process, on the same server."""
    from flows.train import train

    settings = stack.settings
    folder = settings.projects / "single"
    shutil.copytree(settings.projects / "thyroid", folder)
    text = (folder / "project.yaml").read_text().replace("project: thyroid", "project: single")
    (folder / "project.yaml").write_text(text)
    try:
        from flows.land import land

        healthy = [row for row in thyroid_rows if row["target"] == "-"][:600]
        landed = land("single", str(write_rows(tmp_path / "healthy.csv", healthy)), "healthy.csv")
        said = train("single")
    finally:
        shutil.rmtree(folder)
    assert landed["landed"] == 600
    assert said["state"] == "refused"
    assert said["reason"].startswith("insufficient classes: the train part has 0 rows of 'finding'")
    assert Journal(settings.journal()).champion("single") is None
