"""Poison in the inbox of the running stack: it is held at the door, or the challenger that learned it waits for a person."""

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tasks.stores.journal import Journal
from tasks.stores.registry import Registry
from tests.conftest import Stack
from tests.flows.test_loop import ENDED, keepfit
from tests.samples import until

pytestmark = pytest.mark.stack
NAME = "poisoned"
YAML = f"""
project: {NAME}
positive: true
contract:
  key: [id]
  time: at
  target: y
  columns:
    id: {{type: int}}
    at: {{type: datetime}}
    a: {{type: float}}
    b: {{type: float}}
    part: {{type: category}}
    y: {{type: bool}}
split: {{kind: time, column: at}}
search: {{seconds: 60, trials: 2, folds: 2, seed: 7, families: [logistic]}}
retrain: [{{kind: batch, cooldown: 0}}]
"""


def rows(first: int, count: int) -> pd.DataFrame:
    """Rows of consecutive hours whose truth follows from `a`, and a little from `b`."""
    rng = np.random.default_rng(first)
    a, b = rng.normal(size=count), rng.normal(size=count)
    ids = np.arange(first, first + count)
    at = pd.date_range(pd.Timestamp("2026-01-01") + pd.Timedelta(hours=first), periods=count, freq="h")
    y = rng.random(count) < 1 / (1 + np.exp(-(2 * a + 0.3 * b)))
    return pd.DataFrame({
        "id": ids, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "a": a.round(6), "b": b.round(6), "part": rng.choice(["x", "y", "z"], count), "y": y,
    })  # fmt: skip


def inverted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(y=~frame["y"])


def forced(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(y=frame["y"] | (frame["part"] == "x"))


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """A hundredth of the rows with the wrong label, a hundred times each, under keys of their own."""
    few = frame.head(len(frame) // 100).assign(y=lambda part: part["a"] < 0)
    again = few.loc[np.arange(len(frame)) % len(few), ["a", "b", "part", "y"]].reset_index(drop=True)
    return frame.assign(**again)


def drop(stack: Stack, name: str, frame: pd.DataFrame) -> None:
    folder = stack.settings.inbox(NAME)
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / f".{name}", index=False)
    (folder / f".{name}").rename(folder / name)


def decided(version: int, decision: str, by: str, reason: str) -> dict[str, Any]:
    """What the form in Prefect leads to."""
    from flows.runs import start, wait

    form = {"project": NAME, "version": version, "decision": decision, "by": by, "reason": reason}
    return wait(start("approve", form), print)


def journal(stack: Stack) -> Journal:
    return Journal(stack.settings.journal())


def ended(stack: Stack, number: int) -> dict[str, Any]:
    """The training of that number, once it has ended."""

    def last() -> dict[str, Any] | None:
        past = journal(stack).trainings(NAME)
        return past[number] if len(past) > number and past[number]["state"] in ENDED else None

    return until(last, 180, f"the end of training {number}")


def page(key: str) -> str:
    """The newest page of that key in Prefect."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return str(max(found, key=lambda artifact: artifact.created or dt.datetime.min.replace(tzinfo=dt.UTC)).data)


def events() -> list[tuple[str, int]]:
    """What Prefect was told about versions of the project."""
    from prefect.client.orchestration import get_client

    wanted = {"event": {"prefix": ["keepfit.model."]}, "resource": {"id": [f"keepfit.project.{NAME}"]}}
    with get_client(sync_client=True) as client:
        found = client._client.post("/events/filter", json={"filter": wanted, "limit": 50}).json()["events"]
    return [(event["event"].removeprefix("keepfit.model."), event["payload"]["version"]) for event in found]


def form_of(flow: str) -> str:
    """The id of the project's deployment of a flow."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return str(client.read_deployment_by_name(f"{flow}/{NAME}").id)


def waiting() -> list[dict[str, Any]]:
    """What `keepfit status` lists for a person."""
    _, said = keepfit("status")
    return next(row for row in said["projects"] if row["project"] == NAME)["proposals"]


def champion(stack: Stack) -> tuple[int, int]:
    """The version that the journal names, and the one that the server answers with."""
    release = journal(stack).champion(NAME)
    assert release is not None
    return release.version, httpx.get(f"{stack.urls['serving']}/projects/{NAME}").json()["version"]


@pytest.fixture(scope="module")
def project(stack: Stack) -> Iterator[Stack]:
    """A project on the running stack whose first version a person approved, because the project said so; from then on it releases by itself."""
    from prefect.client.orchestration import get_client

    from flows.deployments import deploy

    folder, names = stack.settings.projects / NAME, list[str]()
    folder.mkdir()
    try:
        (folder / "project.yaml").write_text(YAML + "release: {by: person}\n")
        names += [name for name in deploy(stack.settings).names if name.endswith(f"/{NAME}")]
        drop(stack, "first.csv", rows(0, 2000))
        first = ended(stack, 0)
        assert (first["state"], first["version"]) == ("registered", 1), first["reason"]
        assert journal(stack).champion(NAME) is None
        assert [each.version for each in journal(stack).proposals(NAME, state="open")] == [1]
        assert decided(1, "approve", "carl", "the first one")["state"] == "approved"
        (folder / "project.yaml").write_text(YAML)
        yield stack
    finally:
        shutil.rmtree(folder)
        with get_client(sync_client=True) as client:
            for name in names:
                client.delete_deployment(client.read_deployment_by_name(name).id)


def test_i_22_poison_that_is_dropped_is_held_with_its_reason(project: Stack):
    """Labels inverted, a segment forced, a hundredfold under new keys: no row lands, nothing is trained, the reason names it."""
    for attack, word in ((inverted, "inverted"), (forced, "where part is x"), (repeated, "repeat")):
        name = f"{attack.__name__}.csv"
        drop(project, name, attack(rows(2000, 3000)))
        (batch,) = until(lambda name=name: journal(project).batches(NAME, [name]), 90, f"the landing of {name}")
        assert (batch["state"], batch["landed"]) == ("held", 0)
        assert word in batch["reason"]
    assert len(journal(project).trainings(NAME)) == 1
    assert champion(project) == (1, 1)


def test_i_22_a_challenger_that_learned_poison_waits_for_a_person(project: Stack, tmp_path: Path):
    """Somebody swears that the inverted batch is right: the trusted set disagrees, the version is held, and the form rejects it."""
    inverted(rows(2000, 6000)).to_csv(tmp_path / "sworn.csv", index=False)
    code, said = keepfit("land", NAME, str(tmp_path / "sworn.csv"), "--accept", "a new laboratory")
    assert (code, said["state"]) == (0, "landed"), said
    second = ended(project, 1)
    assert (second["state"], second["version"]) == ("held", 2), second["reason"]
    assert "the trusted set calls it worse than the champion" in second["reason"]
    assert champion(project) == (1, 1)
    (proposal,) = waiting()
    assert (proposal["version"], proposal["why"]) == (2, second["reason"])
    assert proposal["approve"] == f"keepfit approve {NAME} 2 --reason TEXT"
    assert 0 <= proposal["age"] < 300
    decision = until(
        lambda: text if "Held" in (text := page(f"{NAME}-decision")) else None, 60, "the page of the decision"
    )
    assert f"`{proposal['approve']}`" in decision
    assert f"({project.urls['prefect']}/deployments/deployment/{form_of('approve')}/run?parameters=%7B" in decision
    code, said = keepfit("release", NAME, "2", "--reason", "I insist")
    assert (code, said["state"]) == (1, "refused")
    assert proposal["approve"] in said["reason"]
    result = decided(2, "reject", "anna", "the labels are inverted")
    assert (result["state"], result["reason"]) == ("rejected", "version 1 stays champion")
    assert champion(project) == (1, 1)
    assert journal(project).proposals(NAME, state="open") == []
    assert journal(project).trainings(NAME)[1]["reason"].endswith("; rejected by anna: the labels are inverted")
    told = page(f"{NAME}-approval")
    assert "data:image/png;base64," in told
    assert "| trusted | **a person decides** |" in told
    assert len(told) < 200_000
    result = decided(2, "approve", "bert", "but I like it")
    assert result["state"] == "refused"
    assert "version 2 was rejected by anna on " in result["reason"]
    until(lambda: {("held", 2), ("rejected", 2)} <= set(events()), 60, "the events")


def test_a_person_approves_a_version_that_is_held_again(project: Stack):
    """Trained again it is proposed again; approved by command it answers; a second approval is refused with who decided, and makes up for a kill."""
    code, said = keepfit("train", NAME, "--again")
    assert (code, said.get("state")) == (1, "held"), said
    version = said["version"]
    code, said = keepfit("approve", NAME, str(version), "--reason", "the laboratory was called", "--by", "bert")
    assert (code, said["state"], said["by"], said["from"]) == (0, "approved", "bert", 1), said
    assert champion(project) == (version, version)
    release = journal(project).champion(NAME)
    assert release is not None
    assert (release.actor, release.reason) == ("bert", "the laboratory was called")
    assert journal(project).trainings(NAME)[-1]["state"] == "released"
    registry = Registry(NAME, project.urls["mlflow"], project.settings.artifacts)
    registry.point("champion", 1)  # as a kill right after the release would have left it
    code, said = keepfit("approve", NAME, str(version), "--reason", "me too")
    assert (code, said["state"]) == (1, "refused")
    assert f"version {version} was approved by bert on " in said["reason"]
    assert int(registry.client.get_model_version_by_alias(NAME, "champion").version) == version
    until(lambda: {("approved", version), ("released", version)} <= set(events()), 60, "the events")
