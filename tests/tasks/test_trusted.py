"""Two holdouts: what a poisoned batch bends in the newest rows, the trusted set says to a person."""

import datetime as dt
import itertools
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from flows import looking
from tasks import evaluate, gate, train
from tasks.config import provenance
from tasks.config.errors import KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.erase import Erasing
from tasks.ingest import Landings
from tasks.ml.gates import Verdict, outcome
from tasks.ml.judging import judging
from tasks.ml.recipe import Recipe
from tasks.ml.split import ROW
from tasks.stores import durable, minutes
from tasks.stores.changes import Change, Edit
from tasks.stores.journal import Journal, Release
from tasks.stores.lake import TRUSTED, Lake, parts
from tasks.stores.references import Snapshot
from tasks.stores.trust import Trust, set_at

NOW = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
START = pd.Timestamp("2026-01-01", tz="UTC")


def rows(first: int, count: int, *, gain: float = 2.0) -> pd.DataFrame:
    """Rows of consecutive hours whose target follows from `a`, and a little from `b`, as strongly as `gain` says."""
    rng = np.random.default_rng(first)
    a, b = rng.normal(size=count), rng.normal(size=count)
    y = rng.random(count) < 1 / (1 + np.exp(-(gain * a + 0.3 * b)))
    ids = np.arange(first, first + count)
    return pd.DataFrame(
        {"id": ids, "at": START + pd.to_timedelta(ids, unit="h"), "a": a.round(6), "b": b.round(6), "y": y}
    )


class Small:
    """A project on disk whose batches land for real, and the steps of a training that talk to no server."""

    def __init__(self, folder: Path, hooks: str = "", **more: Any) -> None:
        place = folder / "projects" / "small"
        place.mkdir(parents=True)
        if hooks:
            (place / "hooks.py").write_text(hooks)
        columns = {
            "id": {"type": "int"},
            "at": {"type": "datetime"},
            "a": {"type": "float"},
            "b": {"type": "float"},
            "y": {"type": "bool"},
        }
        YAML().dump({
            "project": "small", "contract": {"key": ["id"], "time": "at", "target": "y", "columns": columns}, "split": {"column": "at"},
            **more,
        }, place / "project.yaml")  # fmt: skip
        self.folder, self.settings = folder, Settings()
        self.use = Project.named("small", self.settings)
        self.lake = Lake("small", self.settings.lake("small"), self.use.contract)
        self.journal = Journal(self.settings.journal())

    def land(self, frame: pd.DataFrame, name: str = "a.csv") -> Snapshot:
        """The newest snapshot after a file with these rows, with its trusted set."""
        frame.assign(at=frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(self.folder / name, index=False)
        landing = Landings(self.use, self.settings, lambda: NOW).land(self.folder / name, accept="a test")
        assert landing.state == "landed", landing
        return Trust(self.use, self.settings, lambda: NOW).ready(self.newest(), "a test")

    def newest(self) -> Snapshot:
        """The newest snapshot."""
        snapshot = self.lake.snapshot()
        assert snapshot is not None
        return snapshot

    def train(self, snapshot: Snapshot, run: str) -> tuple[list[Verdict], str]:
        """The verdicts on a logistic model of the snapshot, and the digest of its bundle."""
        candidate = train.fit.fn("small", snapshot, Recipe.usual("logistic"), run)
        scores = evaluate.evaluate.fn("small", snapshot, candidate)
        verdicts = gate.gate.fn("small", snapshot, candidate, scores, self.conditions(snapshot))
        return verdicts, candidate.digest

    def conditions(self, snapshot: Snapshot) -> str:
        """What a training of it goes by today."""
        return provenance.conditions(Project.named("small", self.settings).digest, snapshot.trusted)

    def crown(self, run: str, digest: str, version: int) -> None:
        """Makes a trained candidate champion."""
        shutil.copytree(
            self.settings.home / "candidates" / "small" / run, self.settings.bundles("small") / str(version)
        )
        self.journal.release(
            Release("small", version, version, digest, "a test", "good", NOW.isoformat(), "roc_auc", 0.8, 0.7, 0.9)
        )


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Steps that talk to nobody; what they would have logged is dropped."""

    class Registry:
        def __init__(self, *_: object) -> None:
            pass

        def __getattr__(self, _name: str) -> Any:
            return lambda *_, **__: None

    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    for module in (train, evaluate, gate):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(minutes, "Registry", Registry)
    return tmp_path


@pytest.fixture
def small(quiet: Path) -> Small:
    return Small(quiet)


def said(verdicts: list[Verdict]) -> dict[str, Verdict]:
    return {verdict.gate: verdict for verdict in verdicts}


# -- setting apart ----------------------------------------------------------------------------------------------------
def test_the_first_training_sets_a_tenth_apart_and_nothing_learns_from_it(small: Small):
    """A tenth of the rows stand in their own table; no other part has them, in this training and in the next."""
    for snapshot in (small.land(rows(0, 2000)), small.land(rows(2000, 500), "b.csv")):
        made = parts(small.use, snapshot, small.settings.lake("small"))
        with judging():
            trusted, holdout = made.trusted.rows, made.holdout.rows
        assert 150 < len(trusted) < 250
        assert trusted["id"].max() < 2000
        others = pd.concat([made.train, made.validation, holdout])
        assert set(trusted["id"]).isdisjoint(others["id"])
        assert len(others) + len(trusted) == snapshot.rows


def test_a_batch_cannot_touch_what_was_set_apart(small: Small):
    """Every row corrected under the same keys: the trusted rows read as they were, and the corrections teach nothing."""
    first = small.land(rows(0, 2000))
    before = small.lake.apart(first.trusted)
    second = small.land(rows(0, 2000).assign(y=lambda frame: ~frame["y"]))
    assert (second.rows, second.trusted) == (2000, first.trusted)
    made = parts(small.use, second, small.settings.lake("small"))
    with judging():
        pd.testing.assert_frame_equal(made.trusted.rows, before)
    learned = pd.concat([made.train, made.validation])
    assert set(learned["id"]).isdisjoint(before["id"])


def test_what_has_no_label_yet_or_may_still_change_is_not_set_apart(quiet: Path):
    """Rows of the last days are not mature: none of them judges for good."""
    small = Small(quiet, split={"column": "at", "matures": 20})
    trusted = small.lake.apart(small.land(rows(0, 2000)).trusted)
    assert trusted["at"].max() <= START + pd.Timedelta(hours=1999) - pd.Timedelta(days=20)


def test_too_few_rows_wait_for_a_larger_snapshot(small: Small):
    """Ninety rows to judge by are too few: nothing is set apart until a later training has enough."""
    assert small.land(rows(0, 500)).trusted is None
    assert small.land(rows(500, 1500), "b.csv").trusted is not None


def test_a_share_of_none_sets_nothing_apart(quiet: Path):
    """`trusted: {share: 0}`: no table, no rows, and the gate says that the newest rows decide."""
    small = Small(quiet, trusted={"share": 0})
    snapshot = small.land(rows(0, 2000))
    verdicts, _ = small.train(snapshot, "one")
    assert snapshot.trusted is None
    assert said(verdicts)["trusted"].reason == "nothing was set apart yet; the newest rows decide"
    with pytest.raises(KeepfitError, match=r"trusted.share is 0"):
        looking.trust("small", None, "why not", small.settings)


@pytest.mark.parametrize("fault", [KeyboardInterrupt, pytest.param(OSError, marks=pytest.mark.slow)])
def test_s_01_setting_apart_survives_a_fault_at_every_durable_step(small: Small, monkeypatch, swept, fault):
    """A kill or an I/O error at the n-th durable step, for every n: whoever comes next has one whole set, of the same rows."""
    small.land(rows(0, 300))
    wanted = set(small.lake.apart(small.land(rows(300, 1700), "b.csv").trusted)[ROW])
    trust = Trust(small.use, small.settings, lambda: NOW)
    for step in itertools.count():
        shutil.rmtree(Path(small.lake.trusted.root))
        left = iter(range(step))

        def seam(what: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise fault(f"at {what}")

        monkeypatch.setattr(durable, "seam", seam)
        try:
            trust.ready(small.newest(), "a test")
            ended = True
        except fault:
            ended = False
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        ready = trust.ready(small.newest(), "a test")
        assert set(small.lake.apart(ready.trusted)[ROW]) == wanted
        with trust.alone():  # as the next landing does, which sweeps what is left
            pass
        assert not list(small.settings.staging("small").glob("*"))
        assert small.journal.intent("small") is None
        if ended:
            break
    swept(step)
    assert step >= 5


# -- judging ----------------------------------------------------------------------------------------------------------
def test_o_18_a_project_that_changes_during_a_training_is_refused(small: Small):
    """Rows that one split tuned on may judge in another: project.yaml of the end must be that of the beginning."""
    snapshot = small.land(rows(0, 2000))
    before = small.conditions(snapshot)
    candidate = train.fit.fn("small", snapshot, Recipe.usual("logistic"), "run")
    scores = evaluate.evaluate.fn("small", snapshot, candidate)
    assert "code" not in said(gate.gate.fn("small", snapshot, candidate, scores, before))
    yaml = small.settings.projects / "small" / "project.yaml"
    yaml.write_text(yaml.read_text().replace("column: at", "column: at\n  holdout: 0.3"))
    refused = said(gate.gate.fn("small", snapshot, candidate, scores, before))["code"]
    assert not refused.passed
    assert "project.yaml or hooks.py changed while this ran" in refused.reason


def test_an_honest_batch_passes_both(small: Small):
    """More rows of the same world: the trusted set has nothing against the challenger, and says on how many rows."""
    verdicts, digest = small.train(small.land(rows(0, 2000)), "one")
    assert outcome(verdicts) == "passed"
    assert said(verdicts)["trusted"].reason.startswith("there is no champion yet")
    small.crown("one", digest, 1)
    found = said(small.train(small.land(rows(2000, 2000), "b.csv"), "two")[0])["trusted"]
    assert found.passed
    assert "trusted rows that neither model has seen" in found.reason


def inverted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(y=~frame["y"])


def forced(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(y=frame["y"] | (frame["a"] < 0))


def repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """Sixty rows with the wrong label, a hundred times each under keys of their own."""
    few = frame.head(60).assign(y=lambda part: part["a"] < 0)
    return frame.assign(**few.loc[np.arange(len(frame)) % 60, ["a", "b", "y"]].reset_index(drop=True))


@pytest.mark.parametrize("attack", [inverted, forced, repeated])
def test_i_22_a_poisoned_batch_never_becomes_champion_by_itself(small: Small, attack):
    """The newest rows are all poisoned and praise the model that learned the poison; the trusted set holds it for a person."""
    _, digest = small.train(small.land(rows(0, 2000)), "one")
    small.crown("one", digest, 1)
    verdicts, _ = small.train(small.land(attack(rows(2000, 6000)), "b.csv"), "two")
    found = said(verdicts)
    assert found["champion"].passed, found[
        "champion"
    ].reason  # a holdout cut from the batch alone would have promoted it
    assert (found["trusted"].passed, found["trusted"].hold) == (False, True)
    assert found["trusted"].reason.startswith("the trusted set calls it worse than the champion")
    assert outcome(verdicts) in {"held", "refused"}


# -- a person ---------------------------------------------------------------------------------------------------------
def test_a_renewed_set_is_new_to_the_champion_only_where_it_was_apart_before(small: Small):
    """After `keepfit data trust` the champion has learned from most of the set: the next challenger waits for a person, once."""
    _, digest = small.train(small.land(rows(0, 2000)), "one")
    small.crown("one", digest, 1)
    snapshot = small.land(rows(2000, 500), "b.csv")
    before = set(small.lake.apart(snapshot.trusted)["id"])
    told = looking.trust("small", None, "the old one is stale", small.settings)
    assert told["state"] == "set apart"
    renewed = small.newest()
    after = small.lake.apart(renewed.trusted)
    assert before < set(after["id"])  # the same keys are chosen, and those of the new rows
    verdicts, digest = small.train(renewed, "two")
    found = said(verdicts)["trusted"]
    new = int((after["id"].isin(before) | (after["id"] >= 2000)).sum())
    assert f"{new} trusted rows" in found.reason or f"only {new} of {len(after)}" in found.reason
    with pytest.raises(KeepfitError, match="--why is empty"):
        looking.trust("small", None, " ", small.settings)


def test_a_set_that_is_renewed_from_its_own_rows_stays_as_it_is(small: Small):
    """The same rows chosen twice over are the set that stands: said so, and the next file lands."""
    before = small.land(rows(0, 2000))
    for _ in range(2):
        told = looking.trust("small", None, "once more", small.settings)
        assert (told["state"], told["version"]) == ("unchanged", before.trusted)
        assert told["rows"] == len(small.lake.apart(before.trusted))
    assert not small.settings.staging("small").exists()
    assert small.land(rows(2000, 10), "b.csv").rows == 2010


def test_a_home_where_such_a_renewal_was_begun_goes_on(small: Small):
    """An intent that brings in the data file that it takes out, as an older keepfit wrote it, is finished by whoever comes next."""
    before = small.land(rows(0, 2000))
    files = tuple(small.lake.trusted.files(small.lake.trusted.open()))
    begun = Change(
        project="small", id="trust twice", at=NOW, why={"keepfit.why": "trust"}, contract=small.use.contract,
        edits=(Edit(table=TRUSTED, add=files, remove=files),), staging=str(small.settings.staging("small")),
    )  # fmt: skip
    small.journal.intend("small", begun.model_dump_json(), NOW.isoformat())
    after = small.land(rows(2000, 10), "b.csv")
    assert (after.rows, small.journal.intent("small")) == (2010, None)
    pd.testing.assert_frame_equal(small.lake.apart(after.trusted), small.lake.apart(before.trusted))


def test_i_26_an_erased_row_leaves_the_trusted_set(small: Small):
    """Somebody who is erased is in no set that judges; the rest of the set stays the set that it was."""
    snapshot = small.land(rows(0, 2000))
    before = small.lake.apart(snapshot.trusted)
    gone = int(before["id"].iloc[0])
    Erasing(small.use, small.settings, lambda: NOW).erase((str(gone),), {}, actor="a test", reason="asked for")
    now = small.newest()
    left = small.lake.apart(now.trusted)
    assert gone not in set(left["id"])
    assert set(left["id"]) == set(before["id"]) - {gone}
    assert set_at(small.lake, now.trusted) == set_at(small.lake, snapshot.trusted)


def test_the_trusted_set_is_listed_with_who_and_why(small: Small):
    """`keepfit data list` shows when the set was made and how large it is."""
    small.land(rows(0, 2000))
    listed = [row for row in looking.versions("small", small.settings) if row["kind"] == TRUSTED]
    assert [(row["why"], row["name"]) for row in listed] == [("trust", "the first training")]
    assert listed[0]["rows"] == len(small.lake.apart(small.newest().trusted))
