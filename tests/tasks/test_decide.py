"""A person's word on a version that waits: one door, for what the proposal was about and nothing else."""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from prefect.logging import disable_run_logger

from tasks import decide, deploy, releasing
from tasks.config.errors import ArtifactError, ConflictError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.decide import Weighed
from tasks.erase import Erasing
from tasks.ml.gates import Verdict
from tasks.stores import bundles, proposals
from tasks.stores.journal import Journal, Proposal, Release, Rollout
from tasks.stores.registry import Registry
from tests.released import InProcess
from tests.tasks.test_reproduce import NAME, home, lake, trained

__all__ = ["home", "trained"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
NOW = dt.datetime(2026, 3, 2, 1, 2, 3, tzinfo=dt.UTC)
CROWN = Release(NAME, 1, 7, "c" * 64, "a test", "first", NOW.isoformat(), "roc_auc", 0.8, 0.7, 0.9)
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8ffff3f0005fe02fea7356f8d0000000049454e44ae426082"
)


@pytest.fixture
def held(home: Path, monkeypatch: pytest.MonkeyPatch) -> Proposal:
    """Version 1 of a home is held by the trusted set, and waits since 01:02:03 on 2 March."""
    settings = Settings()
    use, journal = Project.named(NAME, settings), Journal(settings.journal())
    (row,) = journal.trainings(NAME)
    verdicts = [
        Verdict(gate=gate.kind, passed=gate.kind != "trusted", hold=gate.kind == "trusted", reason="so", value=0.25)
        for gate in use.gates
    ]
    run = Registry(NAME, settings.mlflow(), settings.artifacts).start("a test", {})
    Registry(NAME, settings.mlflow(), settings.artifacts).log_files(run, {"report.png": PIXEL})
    detail = {
        "value": 0.9, "low": 0.8, "high": 0.95, "run": run, "verdicts": [verdict.model_dump() for verdict in verdicts]
    }  # fmt: skip
    asked = proposals.digests(use, journal, row["detail"]["digest"], None, lake()[1], detail["verdicts"])
    journal.end_training(
        row["id"], state="held", reason="the sets disagree", at=NOW, version=1, detail=row["detail"] | detail, digests=asked
    )  # fmt: skip
    return journal.proposals(NAME)[0]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are loaded in this process."""
    monkeypatch.setattr(releasing, "Rehearsal", InProcess)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Prefect would have been told, by artifact key and event."""
    said: dict[str, Any] = {}
    monkeypatch.setattr(decide, "create_markdown_artifact", lambda page, key, **_: said.update({key: page}))
    monkeypatch.setattr(decide, "emit_event", lambda event, payload, **_: said.update({event: payload}))
    return said


def journal() -> Journal:
    return Journal(Settings().journal())


def weigh(decision: decide.Word = "approve", version: int = 1, by: str = "anna", reason: str = "looked") -> Weighed:
    return decide.weigh.fn(NAME, version, decision, by, reason)


def rehearse(proposal: int | None = None, reason: str = "looked") -> deploy.Plan:
    """What a release of the version would do; with a proposal as its approval."""
    with disable_run_logger():
        return deploy.rehearse.fn(NAME, 1, reason, "anna", proposal)


def now(proposal: Proposal) -> Proposal:
    return next(each for each in journal().proposals(NAME) if each.id == proposal.id)


# -- one door ---------------------------------------------------------------------------------------------------------
def test_what_is_as_it_was_is_approved_and_released(held: Proposal, told: dict[str, Any]):
    """Approval, release and the training's end stand together; the page shows picture, verdicts, who and why."""
    weighed = weigh(by=" anna ")
    assert (weighed.refused, weighed.asked.id) == ("", held.id)
    plan = rehearse(held.id)
    assert plan.refused == ""
    release = deploy.commit.fn(plan)
    assert (release.version, release.actor, release.reason) == (1, "anna", "looked")
    done = now(held)
    assert (done.state, done.actor, done.reason, done.at) == ("approved", "anna", "looked", release.at)
    assert journal().champion(NAME) == release
    with disable_run_logger():
        result = decide.tell.fn(weighed, {"state": "released", "reason": "it answers", "from": None})
    assert (result["state"], result["by"], result["why"], result["version"]) == ("approved", "anna", "looked", 1)
    assert told["keepfit.model.approved"] == result
    page = told["binary-logistic-approval"]
    assert "## Approved: binary-logistic version 1" in page
    assert "Approved by anna: looked; it answers. It waited since 2026-03-02T01:02:03: the sets disagree" in page
    assert "| trusted | **a person decides** |" in page
    assert "data:image/png;base64,iVBOR" in page
    settings = Settings()
    tags = Registry(NAME, settings.mlflow(), settings.artifacts).client.get_run(_run()).data.tags
    assert (tags["keepfit.decision"], tags["keepfit.decided_by"]) == ("approved", "anna")


def _run() -> str:
    return journal().trainings(NAME)[0]["detail"]["run"]


def test_a_rejected_version_leaves_everything_as_it_was(held: Proposal, told: dict[str, Any]):
    """Nothing is released; the decision is on record, told as an event, and cannot be taken back."""
    journal().release(CROWN)
    before = journal().releases(NAME)
    held = propose_again(held)
    with disable_run_logger():
        weighed = weigh("reject", reason="labels are inverted")
        result = decide.tell.fn(weighed, decide.reject.fn(weighed))
    assert (result["state"], result["reason"]) == ("rejected", "version 7 stays champion")
    assert told["keepfit.model.rejected"] == result
    assert journal().releases(NAME) == before
    assert now(held).ended.startswith("version 1 was rejected by anna on ")
    for word in ("approve", "reject"):
        assert weigh(word, by="bert").refused.startswith("version 1 was rejected by anna on ")
    assert "labels are inverted" in rehearse(held.id).refused
    with pytest.raises(ConflictError, match="rejected by anna"):
        decide.reject.fn(weighed)


def test_a_decision_is_told_where_mlflow_does_not_answer(
    held: Proposal, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """It is on record: its event goes out, and only its page is missed."""

    def gone(*_: object) -> None:
        raise MlflowException("no answer")

    monkeypatch.setattr(Registry, "link", gone)
    with disable_run_logger():
        weighed = weigh("reject", reason="labels are inverted")
        result = decide.tell.fn(weighed, decide.reject.fn(weighed))
    assert (result["state"], now(held).state) == ("rejected", "rejected")
    assert told == {"keepfit.model.rejected": result}


def propose_again(held: Proposal) -> Proposal:
    """The same version waits once more, against the champion of today."""
    champion = journal().champion(NAME)
    asked = held.digests | {"champion": champion.digest if champion else proposals.NOBODY}
    journal().end_training(held.training, state="held", reason="so", at=NOW, digests=asked)
    return journal().proposals(NAME)[-1]


def test_a_release_points_to_the_approval(held: Proposal):
    """While a version waits, and when its proposal ended otherwise, `release` is not the door; nobody is asked twice."""
    waiting = rehearse().refused
    assert waiting.startswith("version 1 waits for a person since 2026-03-02T01:02:03: the sets disagree. Say ")
    assert f"`keepfit approve {NAME} 1 --reason TEXT`" in waiting
    assert rehearse(held.id + 1).refused == waiting
    assert rehearse(held.id, reason="by hand").refused == waiting  # the form of `release` with the number filled in
    journal().decide(held.id, "rejected", actor="bert", at=NOW, reason="no")
    assert rehearse().refused.startswith("version 1 was rejected by bert on 2026-03-02T01:02:03: no; `keepfit train")


def test_what_was_champion_once_may_come_back_by_a_release(held: Proposal):
    """Approved, replaced, and wanted again: no second approval is asked for."""
    deploy.commit.fn(rehearse(held.id))
    assert "champion already" in rehearse().refused
    journal().release(dataclasses.replace(CROWN, generation=2))
    assert rehearse().refused == ""


def test_a_held_version_of_an_older_home_is_trained_again(held: Proposal):
    """Held before there were proposals: neither door opens, both say what to do."""
    with journal().engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM proposals")
    assert rehearse().refused.startswith("version 1 is held, but nobody was asked to decide; `keepfit train")
    assert "nobody was asked about version 1" in weigh().refused


def test_a_version_that_passed_every_gate_waits_where_the_project_says_so(held: Proposal):
    """`release: {by: person}` leaves a registered version with a proposal: the same door, the same refusals."""
    (row,) = journal().trainings(NAME)
    fine = [verdict | {"passed": True} for verdict in row["detail"]["verdicts"]]
    asked = held.digests | {"report": proposals.report(fine)}
    journal().end_training(
        row["id"], state="registered", reason="good", at=NOW, detail=row["detail"] | {"verdicts": fine}, digests=asked
    )  # fmt: skip
    newest = journal().proposals(NAME)[-1]
    assert newest.why == "every gate passed: good"
    assert rehearse().refused.startswith("version 1 waits for a person since ")
    deploy.commit.fn(rehearse(newest.id))
    assert now(newest).state == "approved"


# -- what cannot be decided -------------------------------------------------------------------------------------------
def test_a_version_that_does_not_wait_is_refused_with_the_next_move(held: Proposal):
    """Another version waits: its command. None waits: release what passed, or train."""
    assert f"version 1 waits: `keepfit approve {NAME} 1 --reason TEXT`" in weigh(version=3).refused
    with journal().engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM proposals")
    assert f"`keepfit release {NAME} 1`" in weigh(version=1).refused
    assert f"there is no such version, and none waits. `keepfit train {NAME}` makes one" in weigh(version=3).refused


@pytest.mark.parametrize("blank", [{"by": " "}, {"reason": ""}], ids=["by", "reason"])
def test_a_decision_without_a_name_or_a_reason_is_refused(held: Proposal, blank):
    """As a form may send it; the proposal stays open."""
    assert "give both, by and reason" in weigh(**blank).refused
    assert now(held).state == "open"


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_what_is_in_its_canary_was_decided(held: Proposal, decision: decide.Word):
    """Approved, and not champion yet: nobody decides once more, and who wants it away is told how."""
    journal().begin_rollout(
        Rollout(
            NAME,
            1,
            "d",
            9,
            "d",
            {},
            "anna",
            "looked",
            began=held.since,
            phase="canary",
            since=held.since,
            proposal=held.id,
        )
    )
    refused = weigh(decision, by="bert").refused
    assert refused.startswith(
        "version 1 was approved by anna on 2026-03-02T01:02:03 and is in its canary; `keepfit rollout"
    )


def test_an_approval_that_was_killed_before_the_servers_followed_says_so(held: Proposal):
    """Decision and release stand; the same command again is refused with who decided, and knows that it may bring the servers along."""
    deploy.commit.fn(rehearse(held.id))
    again = weigh()
    assert again.live
    assert again.refused.startswith("version 1 was approved by anna on ")


# -- void -------------------------------------------------------------------------------------------------------------
def model_bytes() -> None:
    path = Settings().bundles(NAME) / "1" / bundles.MODEL
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def manifest_bytes() -> None:
    path = Settings().bundles(NAME) / "1" / bundles.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 8}))


def configuration() -> None:
    path = Settings().projects / NAME / "project.yaml"
    path.write_text(path.read_text().replace("seed: 7", "seed: 8"))


def rows() -> None:
    with pytest.MonkeyPatch.context() as patch:  # a kill came before the erasure could end the proposal
        patch.setattr(Erasing, "_void", lambda *_: None)
        Erasing(Project.named(NAME), Settings()).erase(("3",), {}, actor="a test", reason="asked for")


def verdicts() -> None:
    (row,) = journal().trainings(NAME)
    kinder = [verdict | {"value": 0.99} for verdict in row["detail"]["verdicts"]]
    journal().end_training(
        row["id"], state="held", reason="so", at=NOW, detail=row["detail"] | {"verdicts": kinder}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (model_bytes, "the model's files"),
        (manifest_bytes, "the model's files"),
        (configuration, "project.yaml or hooks.py"),
        (rows, "the rows that it was made from"),
        (verdicts, "the verdicts on record"),
    ],
)
def test_a_proposal_is_void_when_a_digest_changed(held: Proposal, change: Callable[[], None], name: str):
    """Whichever it is: the approval is refused, says which one and what to do, and the proposal can never be approved again."""
    change()
    refused = rehearse(held.id).refused
    assert refused.startswith("the proposal of version 1 is void, changed since 2026-03-02T01:02:03: ")
    assert [word for word in proposals.WORDS.values() if word in refused] == [name]
    assert f"`keepfit train {NAME} --again`" in refused
    assert (now(held).state, now(held).actor) == ("void", "anna")
    assert journal().champion(NAME) is None
    for refused in (weigh().refused, rehearse(held.id).refused):
        assert refused.startswith("the proposal of version 1 is void since ")


def test_another_champion_makes_a_proposal_void(held: Proposal):
    """In the same transaction that makes it champion, and by its digest where a proposal is about another one."""
    journal().release(CROWN)
    assert "version 7 was released" in weigh().refused
    journal().end_training(held.training, state="held", reason="so", at=NOW, digests=held.digests)
    refused = rehearse(journal().proposals(NAME)[-1].id).refused
    assert "the champion (none then, cccccccccccc now)" in refused


def test_a_bundle_that_is_away_is_no_change(held: Proposal):
    """A disk that is not mounted raises an error and leaves the proposal open; when it is back, it is approved."""
    folder = Settings().bundles(NAME) / "1"
    folder.rename(folder.with_name("away"))
    with pytest.raises(ArtifactError, match="cannot be read"):
        rehearse(held.id)
    folder.with_name("away").rename(folder)
    assert rehearse(held.id).refused == ""
