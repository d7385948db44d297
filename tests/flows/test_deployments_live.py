"""What a deploy leaves on the running stack's Prefect server when project files have changed, or are gone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.config.errors import ProjectError
from tasks.stores import deployed, runs
from tests.conftest import Stack
from tests.flows.test_loop import keepfit
from tests.samples import PROJECT

pytestmark = pytest.mark.stack
NAME, OTHER = "seasonal", "seasonal2"
FULL = """
retrain: [{kind: batch}, {kind: cron, cron: "1 1 * * *"}, {kind: cron, cron: "2 2 * * *"}]
prove: {schedule: {cron: "3 3 * * *"}}
watch: {schedule: {cron: "4 4 * * *"}}
sources: [{name: drop, kind: listing, url: "file:///nowhere/", schedule: {cron: "5 5 * * *"}}]
scores:
  - {name: nightly, source: a.csv, target: b.csv, schedule: {cron: "6 6 * * *"}}
  - {name: weekly, source: a.csv, target: c.csv, schedule: {cron: "7 7 * * 1"}}
"""
LESS = """
retrain: [{kind: cron, cron: "2 2 * * *"}]
prove: {schedule: null}
watch: {schedule: null, on_batch: false}
scores: [{name: weekly, source: a.csv, target: c.csv, schedule: {cron: "7 7 * * 1"}}]
"""
BARE: dict[str, list[str]] = {
    f"{flow}/{NAME}": [] for flow in ("land", "train", "release", "approve", "prove", "recover", "score", "watch")
}
ALL_OF_IT = BARE | {
    f"train/{NAME}": ["1 1 * * *", "2 2 * * *"], f"prove/{NAME}": ["3 3 * * *"], f"watch/{NAME}": ["4 4 * * *"],
    f"fetch/{NAME}": ["5 5 * * *"], f"score/{NAME}": ["6 6 * * *", "7 7 * * 1"],
}  # fmt: skip
EVENTS = {f"{NAME}: a batch landed → train", f"{NAME}: a batch landed → watch"}


def write(folder: Path, name: str, rest: str) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "project.yaml").write_text(PROJECT.format(name=name) + rest)


@pytest.fixture
def folder(stack: Stack) -> Iterator[Path]:
    """The folder of the running stack's projects, one of which is deployed with all that a file may declare by the clock."""
    from flows.deployments import POOL, deploy

    projects = stack.settings.projects
    write(projects, NAME, FULL)
    try:
        deploy(stack.settings, [NAME])
        yield projects
    finally:
        for name in (NAME, OTHER):
            shutil.rmtree(projects / name, ignore_errors=True)
        deployed.withdraw({}, POOL, deployed.mark(stack.settings), projects=[NAME, OTHER])


def listed(*names: str) -> dict[str, list[str]]:
    """The crons of each deployment that is called like a project, by flow and name, as the server has them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    with get_client(sync_client=True) as client:
        found = client.read_deployments(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[*(names or [NAME])]))
        )
        return {
            f"{client.read_flow(each.flow_id).name}/{each.name}": sorted(
                entry.schedule.model_dump()["cron"] for entry in each.schedules
            )
            for each in found
        }


def automations() -> set[str]:
    """The names of the project's automations."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {each.name for each in client.read_automations() if each.name.startswith(f"{NAME}: ")}


def test_prefect_s_own_command_lists_what_the_file_declares(folder: Path, stack: Stack):
    """After what `keepfit env` says, in a shell that knows nothing else of the stack."""
    place = Path(sys.executable).parent
    listing = f'eval "$({place}/keepfit env)" && {place}/prefect deployment ls && {place}/prefect automation ls'
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW"))}
    done = subprocess.run(
        ["bash", "-c", listing], env=plain | {"COLUMNS": "250"}, capture_output=True, text=True, check=True
    )
    assert {name for name in (*ALL_OF_IT, *EVENTS) if name not in done.stdout} == set()


@pytest.mark.parametrize("asked", ["land", "watch"])
def test_a_project_that_the_stack_does_not_know_yet_wants_to_be_deployed(folder: Path, tmp_path: Path, asked):
    """Whatever is asked of it, also to land a file."""
    write(folder, OTHER, "")
    file = tmp_path / "a.csv"
    file.write_text("id,at,y,amount,kind\n1,2026-01-01,true,2.5,a\n")
    code, said = keepfit(asked, OTHER, *([str(file)] if asked == "land" else []))
    assert code == 1
    assert said == {"error": f"'{asked}/{OTHER}' is not deployed on the running stack. Say `keepfit deploy`."}


def test_what_a_file_declares_no_more_is_gone_from_prefect(folder: Path, stack: Stack):
    """Crons, scores, sources and triggers that were taken out stop; what stays has one schedule each, and the command says what went."""
    from flows.deployments import deploy

    assert (listed(), automations()) == (ALL_OF_IT, EVENTS)
    write(folder, NAME, LESS)
    code, said = keepfit("deploy")
    left = {f"train/{NAME}": ["2 2 * * *"], f"score/{NAME}": ["7 7 * * 1"]}
    assert (listed(), automations()) == (BARE | left, set())
    assert code == 0
    assert set(said["removed"]) == {
        f"fetch/{NAME}", f"schedule 'schedule-1' of train/{NAME}", f"schedule 'nightly' of prove/{NAME}",
        f"schedule 'watch' of watch/{NAME}", f"schedule 'nightly' of score/{NAME}",
    }  # fmt: skip
    assert deploy(stack.settings).removed == []


def test_a_schedule_that_was_made_by_hand_stays(folder: Path, stack: Stack):
    """As the UI makes it, without a slug, beside declared ones or alone: with its parameters, paused or not, through deploys that take others away."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.schedules import CronSchedule

    from flows.deployments import deploy

    by_hand = {f"train/{NAME}": ("8 8 * * *", {"reason": "by hand"}, True), f"release/{NAME}": ("9 9 * * *", {}, False)}
    with get_client(sync_client=True) as client:
        for name, (cron, parameters, active) in by_hand.items():
            made = client.read_deployment_by_name(name).id
            client.create_deployment_schedules(made, [(CronSchedule(cron=cron), active)], parameters=parameters)
        for rest in (FULL, LESS, FULL):
            write(folder, NAME, rest)
            removed = deploy(stack.settings).removed
            assert [each for each in removed if "None" in each or "by-hand" in each] == []
            for name, (cron, parameters, active) in by_hand.items():
                found = {
                    each.schedule.model_dump()["cron"]: each for each in client.read_deployment_by_name(name).schedules
                }
                assert (found[cron].parameters, found[cron].active) == (parameters, active)
    assert listed() == ALL_OF_IT | {
        f"train/{NAME}": ["1 1 * * *", "2 2 * * *", "8 8 * * *"], f"release/{NAME}": ["9 9 * * *"],
    }  # fmt: skip


STRANGERS: list[tuple[list[str] | None, str, str | None]] = [  # each lacks one of what keepfit's have
    (None, "flows.train.train", "keepfit"),
    (["project:other"], "flows.train.train", "keepfit"),
    ([f"project:{NAME}"], "their/flows.py:train", "keepfit"),
    ([f"project:{NAME}"], "flows.train.train", None),
    ([f"project:{NAME}", "installation:of others"], "flows.train.train", "keepfit"),
]


def test_a_project_whose_folder_is_gone_is_gone_from_prefect(folder: Path, stack: Stack):
    """All of its deployments with their automations, and nothing else: another project's, or what only some of tag, flow and pool say is keepfit's."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from flows.deployments import deploy

    others = listed("thyroid")
    with get_client(sync_client=True) as client:
        theirs = [
            client.create_deployment(client.create_flow_from_name(f"theirs-{number}"), NAME, tags=tags, entrypoint=entrypoint, work_pool_name=pool)
            for number, (tags, entrypoint, pool) in enumerate(STRANGERS)
        ]  # fmt: skip
        try:
            shutil.rmtree(folder / NAME)
            assert set(deploy(stack.settings).removed) == {*ALL_OF_IT}
            assert {*listed()} == {f"theirs-{number}/{NAME}" for number in range(len(STRANGERS))}
            assert (automations(), listed("thyroid")) == (set(), others)
        finally:
            for each in theirs:
                client.delete_deployment(each)
    with pytest.raises(ObjectNotFound, match=f"'fetch/{NAME}' is not deployed on the running stack"):
        runs.fetch(NAME, "drop", "a key")


def test_what_another_installation_deployed_to_the_same_server_stays(folder: Path, stack: Stack, tmp_path: Path):
    """Neither of two with projects of their own, in homes or in folders of their own, takes anything of the other's away; each removes what it has deployed."""
    from flows.deployments import deploy

    write(tmp_path, OTHER, FULL)
    clone = stack.settings.model_copy(update={"home": tmp_path / "state", "projects": tmp_path})
    trial = stack.settings.model_copy(update={"projects": tmp_path})
    for another in (clone, trial):
        assert deploy(another).removed == []
        assert (listed(), automations()) == (ALL_OF_IT, EVENTS)
        assert deploy(stack.settings).removed == []
        theirs = listed(OTHER)
        assert f"fetch/{OTHER}" in theirs
        shutil.rmtree(folder / NAME)
        assert {*deploy(stack.settings).removed} == {*ALL_OF_IT}
        assert listed(OTHER) == theirs
        write(folder, NAME, FULL)
        deploy(stack.settings)
    write(tmp_path, OTHER, LESS)
    assert f"fetch/{OTHER}" in deploy(trial).removed
    shutil.rmtree(tmp_path / OTHER)
    deployed.withdraw({}, "keepfit", deployed.mark(trial))
    assert listed(OTHER) == {}


def test_what_an_older_release_deployed_is_removed_where_this_installation_surely_did_it(
    folder: Path, stack: Stack, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """It has no mark. On a server of its own, of a project that is declared or has landed files; elsewhere, or of a project that nobody knows, it stays and that is said."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate

    mine, settings = deployed.mark(stack.settings), stack.settings
    with get_client(sync_client=True) as client:
        for name in ALL_OF_IT:
            made = client.read_deployment_by_name(name)
            assert made.tags == [f"project:{NAME}", mine]
            client.update_deployment(made.id, DeploymentUpdate(tags=[f"project:{NAME}"]))
    elsewhere = settings.model_copy(update={"prefect_url": settings.prefect()})
    assert deployed.withdraw({}, "keepfit", mine, deployed.made_before(elsewhere), [NAME]) == []
    shutil.rmtree(folder / NAME)
    assert deployed.withdraw({}, "keepfit", mine, deployed.made_before(settings), [NAME]) == []
    assert (listed(), automations()) == (ALL_OF_IT, EVENTS)
    assert f"fetch/{NAME} stays, for nothing says who deployed it" in caplog.text
    write(folder, NAME, LESS)
    assert {*deployed.withdraw({}, "keepfit", mine, deployed.made_before(settings), [NAME])} == {*ALL_OF_IT}


def test_a_deploy_of_one_project_removes_nothing_of_others(folder: Path, stack: Stack):
    """Whatever their files say by now, or whether there are any; of the one that is deployed what is not declared goes."""
    from flows.deployments import deploy

    write(folder, OTHER, FULL)
    deploy(stack.settings, [OTHER])
    write(folder, OTHER, LESS)
    shutil.rmtree(folder / NAME)
    assert f"fetch/{OTHER}" in deploy(stack.settings, [OTHER]).removed
    assert (listed(), automations()) == (ALL_OF_IT, EVENTS)
    assert f"fetch/{OTHER}" not in listed(OTHER)


def test_what_is_broken_or_not_there_at_the_moment_costs_no_deployment(folder: Path, stack: Stack):
    """A deploy of everything, or of another project, says what is wrong with a file and has changed nothing; a folder of projects without any is rather not mounted than meant."""
    from flows.deployments import deploy

    for text in ("project: [", f"project: {NAME}\n"):
        (folder / NAME / "project.yaml").write_text(text)
        for projects in (None, [OTHER]):
            with pytest.raises(ProjectError, match=NAME):
                deploy(stack.settings, projects)
    assert deploy(stack.settings.model_copy(update={"projects": folder / "not mounted"})) == ([], [])
    assert (listed(), automations()) == (ALL_OF_IT, EVENTS)
