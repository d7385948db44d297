"""Prove: every bad challenger is stopped by the gate that was named in advance, and no gate can be left out unnoticed."""

import datetime as dt
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ingest import Landings
from tasks.ml import gates
from tasks.ml.challengers import (
    LEAKS,
    LIBRARY,
    Challenger,
    Flipping,
    Miscalibrated,
    Shuffled,
    Sunken,
    Unfair,
    Unstable,
    chosen,
)
from tasks.ml.gates import Verdict
from tasks.ml.kinds import KINDS
from tasks.ml.proof import Proof, Put
from tasks.ml.recipe import Recipe
from tasks.ml.split import ROW
from tasks.prove import Bench, Subject, keep, proven
from tasks.stores.journal import Journal
from tasks.stores.references import Snapshot
from tests.samples import SHIPPED

N = 2000
FAMILY = {
    "binary": "logistic", "multiclass": "logistic", "regression": "ridge", "anomaly": "gaussian_mixture", "recommendation": "favourites",
}  # fmt: skip
UNSEEN = {  # gates that find nothing to look at here: no hooks.py, and users' lists have no groups and no moments
    "anomaly": {"behaviour", LEAKS}, "recommendation": {"behaviour", "slices", "fairness", "stability", LEAKS},
}  # fmt: skip
FLOOR = {"binary": 0.8, "multiclass": 0.6, "regression": 1.0, "anomaly": 0.7, "recommendation": 0.5}
GATED = [(kind, gate) for kind, each in KINDS.items() for gate in each.gates]


def rows(kind: str) -> pd.DataFrame:
    """Rows of consecutive hours that a model of the kind learns well from; two columns of numbers and one of texts."""
    rng = np.random.default_rng(5)
    a, b, group = rng.normal(size=N), rng.normal(size=N), rng.choice(["u", "v"], N)
    signal = 2.5 * a + b + (group == "u") + rng.normal(scale=0.5, size=N)
    frame = pd.DataFrame({"id": np.arange(N), "at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(N), unit="h"), "a": a, "b": b, "c": group})  # fmt: skip
    match kind:
        case "binary":
            frame["y"] = signal > 0.5
        case "multiclass":
            frame["y"] = np.select([signal < -0.8, signal < 1.8], ["low", "middle"], "high")
        case "regression":
            frame["y"] = signal
        case "anomaly":
            frame["b"] = 2 * a + rng.normal(scale=0.2, size=N)
        case "recommendation":
            who = rng.integers(0, 80, N)
            frame["c"] = np.char.add("user", who.astype(str))
            taste = rng.integers(0, 30, (80, 4))
            frame["y"] = np.char.add("item", taste[who, rng.choice(4, N, p=[0.4, 0.3, 0.2, 0.1])].astype(str))
    names = [f"{number:032x}" for number in rng.permutation(N)]
    return frame.astype({"c": "string"} | ({"y": "string"} if kind in {"multiclass", "recommendation"} else {})).assign(**{ROW: pd.array(names, dtype="str")})  # fmt: skip


def project(kind: str, **more: Any) -> Project:
    """A project of that kind in which the gates are the kind's own."""
    target = {"binary": "bool", "multiclass": "category", "regression": "float", "recommendation": "text"}.get(kind)
    columns = {
        "id": {"type": "int"},
        "at": {"type": "datetime"},
        "a": {"type": "float"},
        "b": {"type": "float"},
        "c": {"type": "text" if kind == "recommendation" else "category"},
    }
    said = {
        "project": "small", "kind": kind, "contract": {"key": ["id"], "time": "at", "columns": columns},
        "split": {"kind": "time", "column": "at"}, "search": {"families": [FAMILY[kind]]}, "slices": {"columns": ["c"]}, "floor": FLOOR[kind],
        "gates": [{"kind": gate} | ({"columns": ["c"]} if gate == "fairness" else {}) for gate in KINDS[kind].gates], **more,
    }  # fmt: skip
    if target:
        said["contract"] |= {"target": "y", "columns": columns | {"y": {"type": target}}}
    return Project.model_validate(
        said
        | {"multiclass": {"labels": ["low", "middle", "high"]}, "recommendation": {"user": "c", "k": 5}}.get(kind, {})
    )


def bench(use: Project, frame: pd.DataFrame) -> Bench:
    """Where challengers of these rows are judged."""
    snapshot = Snapshot(project="small", version=1, rows=N, digest="0" * 64, since="", until="")
    there = Bench.of(Subject.parted(use, snapshot, frame, frame.iloc[:0], Recipe.usual(FAMILY[use.kind])), Settings())
    made = there.facts["made"].model_copy(update={"altered": ""})  # these rows have landed nowhere
    return replace(there, facts=there.facts | {"made": made})


@functools.cache
def judged(kind: str) -> tuple[list[Verdict], dict[str, list[Verdict]]]:
    """The verdicts on the good model of a kind, and on each bad one by its name; every model is made once."""
    use = project(kind)
    there = bench(use, rows(kind))
    return there.verdicts(Challenger()), {
        each.name: there.verdicts(each) for each in chosen(there.scene, use.task.gates)
    }


def proof(kind: str, without: str = "") -> Proof:
    """What comes of the kind's own gates, but one."""
    good, bad = judged(kind)
    kept = [gate for gate in KINDS[kind].gates if gate != without]
    puts = [
        Put.judged(each.name, each.gate, each.why, bad[each.name], [*kept, LEAKS])
        for each in LIBRARY
        if each.name in bad
    ]
    passes = all(verdict.passed for verdict in good if verdict.gate in kept)
    unasked = tuple(gate for gate in KINDS[kind].gates if gate not in kept)
    return Proof(project="small", digest="", challengers=tuple(puts), good_passes=passes, unasked=unasked)


def test_shuffled_labels_are_judged_by_the_model_that_was_asked_which_way_it_points():
    """The good model is fitted twice; the one of shuffled labels says to the gates what it said of the validation rows, which it is new to."""
    scene = bench(project("binary", gates=[{"kind": "baselines"}]), rows("binary")).scene
    fitted = Shuffled().learned(scene, scene.train, scene.validation)
    asked, _ = scene.asked(scene.validation)
    assert scene.good.refit
    assert scene.kind.answers(fitted.model, asked).tolist() == fitted.said.tolist()
    assert not scene.points_right(fitted)


def test_a_gate_that_is_not_asked_fails_the_proof_even_where_no_bad_model_names_it():
    """Whatever the rows: what the kind's projects are asked is asked."""
    found = Proof(project="small", digest="", good_passes=True, unasked=("stability",))
    assert not found.ok
    assert found.reason == "gate 'stability' of the project's kind is not asked"


@pytest.mark.parametrize("kind", KINDS)
def test_the_gates_of_every_kind_stop_what_they_must(kind):
    """Each bad challenger is stopped by the gate that was named in advance, and the good model passes."""
    found = proof(kind)
    assert found.ok, found.reason
    assert {put.expected for put in found.challengers} == {*KINDS[kind].gates, LEAKS} - UNSEEN.get(kind, {"behaviour"})


@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_no_gate_can_be_left_out(kind, gate):
    """Without any one gate of a kind the proof fails, and says which bad model that gate was to stop."""
    found = proof(kind, without=gate)
    assert not found.ok
    missed = {put.expected for put in found.challengers if not put.ok}
    assert missed == ({gate} - UNSEEN.get(kind, {"behaviour"}))
    assert (f"'{gate}' was to" if missed else f"gate '{gate}' of the project's kind is not asked") in found.reason


@pytest.mark.parametrize(
    "gate", ["sound", "champion", "calibration", "plausible", "serving", "parity", "inputs", "plan"]
)
def test_each_gate_that_looks_at_something_of_its_own_alone_holds_something_back(gate):
    """There is a bad model that no other gate stops: without this one it would become champion. Others look at parts of the same answers."""
    assert any(not put.killed_by for put in proof("binary", without=gate).challengers)


def test_a_bar_that_nothing_can_miss_fails_the_proof():
    """A gate that stands in the configuration but asks for nothing is as good as none."""
    loose = [{"kind": gate} | ({"error": 0.99, "bias": 0.99} if gate == "calibration" else {}) for gate in KINDS["binary"].gates]  # fmt: skip
    verdicts = bench(project("binary", gates=loose), rows("binary")).verdicts(Miscalibrated())
    assert [verdict.gate for verdict in verdicts if not verdict.passed] == []


def test_bars_that_a_good_model_does_not_pass_fail_the_proof():
    """Gates that let nothing pass would never release anything: the good model must pass."""
    strict = [{"kind": gate} | ({"margin": 0.6} if gate == "baselines" else {}) for gate in KINDS["binary"].gates]
    verdicts = bench(project("binary", gates=strict), rows("binary")).verdicts(Challenger())
    assert [verdict.gate for verdict in verdicts if not verdict.passed] == ["baselines"]


def test_every_gate_has_a_challenger_that_names_it():
    """Whoever builds a gate writes a model that it must stop: a gate without one is not proven for any project."""
    union = {gate.model_fields["kind"].default for gate in get_args(get_args(gates.Gate)[0])}
    assert union | {LEAKS} == {each.gate for each in LIBRARY}
    assert len({each.name for each in LIBRARY}) == len(LIBRARY)


def test_challengers_are_as_bad_as_they_are_said_to_be():
    """One guesses in a group of rows and nowhere else, one on the newest quarter, one hardly knows anything; one decides the opposite in a region."""
    there = bench(project("binary", floor=0.8), rows("binary"))
    scene, asked, truth = there.scene, there.holdout.asked, there.holdout.truth
    times = there.holdout.rows["at"]
    group, newest = scene.segment(asked), (times > times.quantile(0.75)).to_numpy()

    def worth(challenger: Challenger, where: np.ndarray) -> float:
        """ROC AUC of what it says there."""
        return float(roc_auc_score(truth[where], challenger.says(scene, there.said, there.holdout)[where]))

    for challenger, where in ((Unfair(), group), (Unstable(), newest)):
        assert challenger.fits(scene)
        assert 0.3 < worth(challenger, where) < 0.7
        assert worth(challenger, ~where) == worth(Challenger(), ~where) > 0.9
    assert worth(Sunken(), np.ones(len(truth), dtype=bool)) < 0.8
    before, after = (
        scene.kind.called(said, scene.good.operates)
        for said in (there.said, Flipping().says(scene, there.said, there.holdout))
    )
    assert np.array_equal(before != after, group)
    assert 0.2 < group.mean() < 0.8


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_projects_ask_every_gate_of_their_kind(name):
    """A project that leaves one out cannot be proven, so that it could not release by itself."""
    use = Project.named(name, Settings(projects=REPOSITORY / "deployments"))
    assert {gate.kind for gate in use.gates} >= set(use.task.gates)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project on disk whose rows can land for real."""
    from ruamel.yaml import YAML

    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    place = tmp_path / "projects" / "small"
    place.mkdir(parents=True)
    said = project("binary").model_dump(mode="json", exclude_unset=True) | {"split": {"column": "at"}}
    YAML().dump(said, place / "project.yaml")
    return place


def land(place: Path, count: int) -> None:
    """Lands the first rows."""
    frame = rows("binary").drop(columns=[ROW]).head(count)
    frame.assign(at=frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(place / "rows.csv", index=False)
    landing = Landings(Project.named("small"), Settings(), lambda: dt.datetime(2027, 1, 1, tzinfo=dt.UTC)).land(place / "rows.csv")  # fmt: skip
    assert landing.landed == count, landing


def test_without_rows_nothing_is_proven(small: Path):
    """Before anything has landed, and with too few rows, the proof is refused with the next move."""
    nothing = proven(Project.named("small"), Settings(), print)
    assert (nothing.ok, nothing.challengers) == (False, ())
    assert "no row of small has landed yet; drop a file into" in nothing.reason
    land(small, 100)
    few = proven(Project.named("small"), Settings(), print)
    assert not few.ok
    assert "nothing can be proven on 9" in few.reason
    assert "too few rows" in few.reason
    assert few.reason.endswith("Land more rows")


def test_a_proof_of_landed_rows_goes_on_record(small: Path):
    """What was landed for real is proven; the journal then knows the present configuration as proven, and no other."""
    land(small, 1200)
    use, said = Project.named("small"), list[str]()
    found = proven(use, Settings(), said.append)
    assert found.ok, found.reason
    assert len(said) == len(found.challengers) + 1
    keep(found, Settings())
    journal = Journal(Settings().journal())
    assert journal.is_proven("small", use.digest)
    assert not journal.is_proven("small", "another")
    assert not journal.is_proven("other", use.digest)
    assert found.told["snapshot"] == "v1-" + str(found.snapshot).partition("-")[2]


def test_what_was_left_out_is_named(small: Path):
    """Without a gate the bad model that gets through is named."""
    land(small, 1200)
    found = proven(Project.named("small"), Settings(), print, without=("calibration",))
    assert not found.ok
    assert [put.name for put in found.challengers if not put.ok] == ["miscalibrated"]
    assert found.reason == "miscalibrated: it got through: no gate stopped it, and 'calibration' was to"
