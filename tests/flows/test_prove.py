"""Proofs around a training: a configuration that is not proven is proven before it releases by itself, and a weakened one does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.changed import Changed
from flows.commands import evidence
from flows.standing import standing
from tasks.config.errors import MisuseError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import Landings
from tasks.ml.kinds import Binary
from tasks.stores.journal import Journal
from tests.conftest import Stack
from tests.samples import PROJECT, mark_proven

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
YAML = (
    PROJECT
    + """search: {{seconds: 600, trials: 1, folds: 2, seed: 7, families: [logistic]}}
gates: [{gates}]
retrain: []
"""
)
GATES = Binary.gates
COUNT = 1500


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Makes a project of that name, with those gates and with rows whose truth follows from a number and a category."""
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))

    def make(name: str, gates: tuple[str, ...] = GATES) -> Settings:
        settings = Settings()
        (settings.projects / name).mkdir(parents=True)
        said = ", ".join(f"{{kind: {gate}}}" for gate in gates)
        (settings.projects / name / "project.yaml").write_text(YAML.format(name=name, gates=said))
        rng = np.random.default_rng(0)
        amount, kind = rng.normal(size=COUNT), rng.choice(["a", "b"], COUNT)
        stamps = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(COUNT), unit="min")
        truth = amount + (kind == "a") + rng.normal(scale=0.7, size=COUNT) > 0.5
        rows = {"id": range(COUNT), "at": stamps.astype(str), "y": truth, "amount": amount, "kind": kind}
        pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
        landed = Landings(Project.named(name, settings), settings).land(tmp_path / "rows.csv")
        assert landed.landed == COUNT, landed
        return settings

    return make


@pytest.mark.stack
def test_a_stale_proof_is_made_good_before_the_release(stack: Stack, begun, monkeypatch):
    """A training whose challenger passed proves the gates first, records that, and then releases by itself."""
    from flows.train import train

    monkeypatch.setenv("KEEPFIT_MLFLOW_URL", stack.urls["mlflow"])
    settings = begun("unproven")
    journal, use = Journal(settings.journal()), Project.named("unproven", settings)
    mark_proven(settings, "unproven", digest="of an older configuration")
    assert not journal.is_proven("unproven", use.digest)
    said = train("unproven")
    assert (said["state"], said["version"]) == ("released", 1), said["reason"]
    proof = journal.proof("unproven")
    assert proof is not None
    assert (proof["ok"], proof["digest"]) == (True, use.digest)
    assert {put["name"] for put in proof["detail"]["challengers"]} >= {"constant", "tie", "leaked target"}


@pytest.mark.stack
def test_a_weakened_configuration_does_not_release_by_itself(stack: Stack, begun, monkeypatch):
    """With a gate taken out the challenger is registered with the name of the bad model that would get through; a person may release it."""
    from flows.approve import approve
    from flows.release import release
    from flows.train import train

    monkeypatch.setenv("KEEPFIT_MLFLOW_URL", stack.urls["mlflow"])
    settings = begun("weakened", tuple(gate for gate in GATES if gate != "calibration"))
    journal = Journal(settings.journal())
    said = train("weakened")
    assert (said["state"], said["version"]) == ("registered", 1)
    assert said["reason"] == (
        "not released: the gates are not proven: miscalibrated: it got through: no gate stopped it, and 'calibration' was to. "
        "`keepfit prove weakened` says all of it"
    )
    assert journal.champion("weakened") is None
    assert [row["state"] for row in journal.trainings("weakened")] == ["registered"]
    assert (
        release("weakened", 1, reason="by hand", actor="a person")["state"] == "refused"
    )  # it waits for a person's decision
    assert [each.version for each in journal.proposals("weakened", state="open")] == [1]
    assert approve("weakened", 1, "approve", "Ada", "looked at it")["state"] == "approved"
    live = journal.champion("weakened")
    assert live is not None
    assert (live.version, live.actor) == (1, "Ada")


def test_the_command_names_what_gets_through(begun, capsys: pytest.CaptureFixture[str]):
    """Exit code 0 and a record when the gates hold; 1 and the bad model's name without a gate, and nothing on record; 2 for no gate."""
    settings = begun("held")
    journal = Journal(settings.journal())
    code, said = evidence.prove("held", without=("calibration",), as_json=True), _printed(capsys)
    assert (code, said["ok"], said["without"]) == (1, False, ["calibration"])
    assert [put["name"] for put in said["challengers"] if not put["ok"]] == ["miscalibrated"]
    assert [put["killed_by"] for put in said["challengers"] if not put["ok"]] == [[]]
    assert journal.proof("held") is None
    with pytest.raises(MisuseError, match=r"--without is 'calibratoin', which is no gate of held.*Did you mean 'calibration'\?"):  # fmt: skip
        evidence.prove("held", without=("calibratoin",))
    code, said = evidence.prove("held", as_json=True), _printed(capsys)
    assert (code, said["ok"], said["good_passes"], said["project"]) == (0, True, True, "held")
    assert all(put["ok"] and put["expected"] in put["killed_by"] for put in said["challengers"])
    assert journal.is_proven("held", Project.named("held", settings).digest)


def _printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one object on stdout."""
    return json.loads(capsys.readouterr().out)


def test_a_change_of_the_files_owes_one_proof(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A project with a champion owes a proof once for each change of its files; none without a champion, none while it does not load."""
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    settings = Settings()
    file = settings.projects / "watched" / "project.yaml"
    file.parent.mkdir(parents=True)
    whole = YAML.format(name="watched", gates="{kind: sound}")
    file.write_text(whole)
    assert Changed(settings).owed() == []
    champion(settings, "watched")
    mark_proven(settings, "watched")
    changed = Changed(settings)
    assert changed.owed() == []
    file.write_text(whole + "about: changed\n")
    assert changed.owed() == ["watched"]
    assert changed.owed() == []
    file.write_text(whole + "nonsense: 1\n")
    assert changed.owed() == []
    file.write_text(whole + "about: changed again\n")
    mark_proven(settings, "watched")
    assert changed.owed() == []


def champion(settings: Settings, name: str) -> None:
    """Makes a version champion on paper."""
    from tasks.stores.journal import Release

    Journal(settings.journal()).release(
        Release(name, 1, 1, "d" * 64, "a test", "good", "2026-06-01T00:00:00+00:00", "roc_auc", 0.8, 0.7, 0.9)
    )


def test_status_says_whether_the_gates_are_proven(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Proven, stale once the files have changed, failed when a bad model got through; nothing before the first proof."""
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    settings = Settings()
    file = settings.projects / "shown" / "project.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(YAML.format(name="shown", gates="{kind: sound}"))
    Journal(settings.journal())
    assert _shown(settings) is None
    mark_proven(settings, "shown")
    assert _shown(settings) == "proven"
    file.write_text(file.read_text() + "about: changed\n")
    assert _shown(settings) == "stale"
    mark_proven(settings, "shown", ok=False)
    assert _shown(settings) == "failed"


def _shown(settings: Settings) -> str | None:
    """The state of the proof that `keepfit status` tells."""
    (row,) = standing(settings)["projects"]
    return row["proof"] and row["proof"]["state"]
