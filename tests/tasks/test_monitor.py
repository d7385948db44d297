"""Looks at a project: what came true, what moved, what goes on record and out; on real tables, bundles and journals."""

import datetime as dt
import json
import os
import shutil
from functools import partial
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tasks import asked, monitor
from tasks.asked import Asked
from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.erase import Erasing
from tasks.evaluate import Bundle
from tasks.ingest import Landings
from tasks.ml.fitted import Fitted
from tasks.ml.judging import judging
from tasks.ml.questions import Questions
from tasks.ml.recipe import Recipe
from tasks.ml.watching import calibration
from tasks.ml.watching.calibration import Thresholds
from tasks.ml.watching.measures import gauged
from tasks.ml.watching.reference import Sketch
from tasks.monitor import Monitor, _beside
from tasks.stores import bundles, durable, footprints, remembered
from tasks.stores.journal import Journal, Release
from tasks.stores.lake import Lake, parts
from tasks.stores.predictions import Predictions
from tasks.stores.registry import IMPATIENT
from tasks.train import manifest

WEEK = 300  # rows
MONDAY = pd.Timestamp("2026-01-05", tz="UTC")
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
FAMILY = {
    "binary": "logistic", "multiclass": "logistic", "regression": "ridge", "anomaly": "gaussian_mixture", "recommendation": "favourites",
}  # fmt: skip
TARGET = {"binary": "bool", "multiclass": "category", "regression": "float", "recommendation": "text"}
HEAD = """
project: small
kind: {kind}
contract:
  key: [id]
  time: at
{target}
  columns:
    id: {{type: int}}
    at: {{type: datetime}}
    a: {{type: float, nullable: true}}
    b: {{type: float}}
    c: {{type: {group}}}
{column}
split: {{kind: time, column: at{split}}}
search: {{families: [{family}], seed: 3}}
{more}
"""
MORE = {
    "multiclass": "labels: [high, low, middle]",
    "recommendation": "user: c\nk: 5\ntrusted: {share: 0}\nwatch: {performance: {fewest: 30}}",
}


def project(settings: Settings, kind: str = "binary", split: str = "", more: str = "") -> Project:
    """A project of that kind on disk."""
    folder = settings.projects / "small"
    folder.mkdir(parents=True)
    target = TARGET.get(kind)
    (folder / "project.yaml").write_text(HEAD.format(
        kind=kind, target="  target: y" if target else "", column=f"    y: {{type: {target}, nullable: true}}" if target else "",
        group="text" if kind == "recommendation" else "category", split=split, family=FAMILY[kind], more=f"{MORE.get(kind, '')}\n{more}",
    ))  # fmt: skip
    return Project.named("small", settings)


def week(
    number: int, kind: str = "binary", *, inverted: bool = False, shift: float = 0.0, first: int = 0
) -> pd.DataFrame:
    """Rows of one week, evenly over it, that a model of the kind learns well from."""
    rng = np.random.default_rng(number)
    a, b, c = rng.normal(size=WEEK), rng.normal(size=WEEK), rng.choice(["u", "v"], WEEK)
    signal = (2.5 * a + b + (c == "u")) * (-1 if inverted else 1) + rng.normal(scale=0.7, size=WEEK)
    at = MONDAY + pd.Timedelta(weeks=number) + pd.to_timedelta(np.arange(WEEK) * (7 * 24 * 60 / WEEK), unit="min")
    frame = pd.DataFrame({"id": number * WEEK + np.arange(WEEK) + first, "at": at, "a": a + shift, "b": b, "c": c})
    if kind == "recommendation":
        who = rng.integers(0, 40, WEEK)
        taste = np.random.default_rng(0).integers(0, 20, (40, 3))
        return frame.assign(c=np.char.add("user", who.astype(str)), y=np.char.add("item", taste[who, rng.integers(0, 3, WEEK)].astype(str)))  # fmt: skip
    answers = {"binary": signal > 0.5, "regression": signal, "multiclass": np.select([signal < -0.8, signal < 1.8], ["low", "middle"], "high")}  # fmt: skip
    return frame.assign(y=answers[kind]) if kind in answers else frame


class Place:
    """A project with a champion of its first weeks."""

    def __init__(self, settings: Settings, kind: str, weeks: int = 8, **more: Any) -> None:
        self.settings, self.kind, self.use = settings, kind, project(settings, kind, **more)
        self.journal = Journal(settings.journal())
        self.clock = NOW
        for number in range(weeks):
            self.land(week(number, kind))

    def land(self, rows: pd.DataFrame) -> None:
        """Lands rows as one file, an hour after what came before."""
        self.clock += HOUR
        path = self.settings.home / f"{self.clock:%m%dT%H}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path)
        landing = Landings(self.use, self.settings, lambda: self.clock).land(path, accept="a test")
        assert landing.landed == len(rows), landing.reason

    def crown(self, version: int = 1, recipe: Recipe | None = None, *, older: bool = False) -> None:
        """Makes a model of all that has landed champion; an older one left no footprint."""
        root, seed = self.settings.lake("small"), self.use.search.seed
        lake = Lake("small", root, self.use.contract)
        snapshot = lake.snapshot()
        assert snapshot is not None
        split = parts(self.use, snapshot, root)
        recipe = recipe or Recipe.usual(FAMILY[self.kind])
        fitted = Fitted.of(recipe, self.use.task, self.use.features, "at", split, seed=seed).refitted(split)
        said = manifest(
            self.use, snapshot, recipe, fitted.operates, fitted.calibration, self.use.split.seen_until(split)
        )
        files = footprints.taken(self.use, snapshot, split, recipe, fitted, lake).files()
        digest = bundles.write(
            self.settings.bundles("small") / str(version),
            fitted.model,
            said | {"version": version},
            {} if older else files,
        )
        with judging():
            questions = Questions.of(self.use.task, self.use.types, split.holdout.rows, seed)
        asked = questions.asked[fitted.model.feature_names_in_.tolist()]
        value = gauged(self.use.goal, questions.truth, self.use.task.answers(fitted.model, asked))
        self.clock += HOUR
        generation = len(self.journal.releases("small")) + 1
        self.journal.release(Release("small", generation, version, digest, "t", "t", self.clock.isoformat(), self.use.metric, value.value, value.low, value.high))  # fmt: skip

    def watched(self) -> Self:
        """A champion, and two weeks that landed after what it was made of."""
        self.crown()
        self.land(week(8))
        self.land(week(9))
        return self

    def look(self) -> dict[str, Any]:
        """One look, an hour later."""
        self.clock += HOUR
        return Monitor(Project.named("small", self.settings), self.settings, lambda: self.clock).look()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place of a kind."""
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    return partial(Place, Settings())


@pytest.mark.parametrize("kind", FAMILY)
def test_a_project_of_every_kind_is_watched(place, kind):
    """A quiet week: no alarm but of those to ignore; what can be measured is, and what cannot is said to be unknown."""
    there = place(kind)
    there.crown()
    for number in (8, 9):
        there.land(week(number, kind))
    seen = there.look()
    assert {"window", "rows", "drift", "performance", "alarms", "verdict"} <= set(seen)
    assert (seen["verdict"], seen["rows"], seen["window"]["source"]) in {("ok", WEEK, "landed"), ("ignore", WEEK, "landed")}, seen["reason"]  # fmt: skip
    told = seen["performance"]
    assert {"realised", "estimated", "low", "high"} <= set(told)
    assert (told["realised"] is not None) == (kind != "anomaly")
    assert (told["estimated"] is not None) == (kind in {"binary", "multiclass", "regression"})
    assert ("performance" in seen["judged"], "inputs" in seen["judged"]) == (kind != "anomaly", True)
    assert ("estimate" in seen["judged"]) == (told["estimated"] is not None and not told["doubts"])
    assert ("predictions" in seen["judged"]) == bool(seen["predictions"])
    assert there.journal.watches("small")[-1]["detail"]["verdict"] == seen["verdict"]


def test_s_10_a_look_says_what_had_landed_when_it_began(place, monkeypatch):
    """What lands while it reads is owed another one, whatever the clock says (S-10)."""
    there = place("binary").watched()
    before, observed = there.journal.landed("small"), monitor.observed

    def meanwhile(*what: Any, **more: Any) -> Any:
        there.land(week(10))
        return observed(*what, **more)

    monkeypatch.setattr(monitor, "observed", meanwhile)
    there.look()
    assert there.journal.watched("small") == before != there.journal.landed("small")


def test_what_came_true_is_what_scikit_learn_says(place):
    """Of the rows of the newest whole week that the champion answered."""
    there = place("binary").watched()
    told = there.look()["performance"]
    release = there.journal.champion("small")
    _, model = bundles.read(there.settings.bundles("small") / "1", release.digest)
    rows = week(8).astype({"c": "str"})
    said = model.predict_proba(rows[["a", "b", "c"]])[:, 1]
    (period,) = [each for each in told["periods"] if each["begin"].startswith("2026-03-02")]
    assert period["value"] == pytest.approx(roc_auc_score(rows["y"], said))
    assert period["low"] < period["value"] < period["high"]


def confused(number: int) -> pd.DataFrame:
    """A week of which a third of the labels say the opposite."""
    rows = week(number)
    return rows.assign(y=rows["y"] ^ (np.random.default_rng(100 + number).random(WEEK) < 0.33))


BY_HEART = Recipe.model_validate({"family": {"kind": "extra_trees", "min_samples_leaf": 1, "n_estimators": 50}})


def test_what_is_expected_comes_from_rows_that_were_new_to_the_model(place):
    """A forest of whole trees knows all rows that it learned from by heart; the watch expects of it what new rows get.

    Of ten weeks the last two judge: what the released forest says of them is what its answers are compared with, too.
    """
    there = place("binary", weeks=0)
    for number in range(10):
        there.land(confused(number))
    there.crown(recipe=BY_HEART)
    release = there.journal.champion("small")
    _, model = bundles.read(there.settings.bundles("small") / "1", release.digest)

    def says(first: int, last: int) -> tuple[pd.DataFrame, np.ndarray]:
        rows = pd.concat([confused(number) for number in range(first, last)]).astype({"c": "str"})
        return rows, model.predict_proba(rows[["a", "b", "c"]])[:, 1]

    newest, said = says(10, 14)
    on_new = roc_auc_score(newest["y"], said)
    for number in (10, 11):
        there.land(confused(number))
    told = there.look()["performance"]
    assert on_new < 0.75
    assert told["estimated"] == pytest.approx(on_new, abs=0.08)
    learned, _ = Asked(there.use, there.settings, release).remembered
    judged, said = says(8, 10)
    assert learned.fixed.predictions == Sketch.of(judged[[]], said).predictions
    assert learned.estimator.known["roc_auc"].value == pytest.approx(roc_auc_score(judged["y"], said))


@pytest.mark.parametrize("gone", [(41, 2300), (*range(100), *range(2000, 2400))])
def test_an_erasure_takes_its_rows_from_what_is_compared_and_no_more(place, gone):
    """Of eight weeks the newest 480 rows judged; whoever was erased, the others stand where they stood, and rows that came since nowhere."""
    there = place("binary").watched()
    erased = Erasing(there.use, there.settings, lambda: there.clock)
    assert erased.erase(tuple(map(str, gone)), {}, actor="a", reason="r").rows == len(gone)
    seen, release = there.look(), there.journal.champion("small")
    told = seen["performance"]
    assert set(seen["predictions"]) == {"prediction"}
    if len(gone) == 2:
        assert told["estimated"] == pytest.approx(release.value, abs=0.03)
    else:
        assert (told["estimated"], told["why_no_estimate"]) == (None, "too few rows with outcomes to learn from: too few rows: 80, 200 are wanted")  # fmt: skip
    known, held = Asked(there.use, there.settings, release)._parts()
    assert known["id"].tolist() == [each for each in range(1920) if each not in gone]
    assert held["id"].tolist() == [each for each in range(1920, 2400) if each not in gone]


def test_where_no_row_is_left_that_judged_nothing_is_made_up(place):
    """All of them were erased: inputs are compared as ever, and that answers are not is said."""
    there = place("binary").watched()
    erased = Erasing(there.use, there.settings, lambda: there.clock)
    erased.erase(tuple(map(str, range(1920, 2400))), {}, actor="a", reason="r")
    seen = there.look()
    assert (set(seen["drift"]), seen["predictions"], seen["performance"]["estimated"]) == ({"a", "b", "c"}, {}, None)
    assert "its predictions cannot be compared: no row is left that version 1 was judged by" in seen["reason"]


def test_where_no_row_is_left_that_it_learned_from_it_asks_for_a_training(place):
    """All of them were erased: there is nothing to compare with, which is an error with the next move."""
    there = place("binary").watched()
    erased = Erasing(there.use, there.settings, lambda: there.clock)
    erased.erase(tuple(map(str, range(1920))), {}, actor="a", reason="r")
    with pytest.raises(ArtifactError, match=r"no row that version 1 of small learned from is left .* Train again"):
        there.look()


def test_a_version_without_a_footprint_is_looked_at_after_an_erasure(place):
    """It knows how far its rows reached, and not which judged it: inputs are compared as ever, and that answers are not is said."""
    there = place("binary")
    there.crown(older=True)
    there.land(week(8))
    there.land(week(9))
    Erasing(there.use, there.settings, lambda: there.clock).erase(("41",), {}, actor="a", reason="r")
    seen = there.look()
    assert (set(seen["drift"]), seen["predictions"]) == ({"a", "b", "c"}, {})
    assert "its predictions cannot be compared" in seen["reason"]


def test_a_concept_that_changes_asks_for_a_training_once(place):
    """Inputs stay as they were, outcomes turn round: performance falls, an incident opens, one training is ordered however often it is looked."""
    there = place("binary", more="retrain: [{kind: batch}, {kind: decay}]")
    there.crown()
    there.land(week(8))
    assert there.look()["alarms"] == []
    for number in (9, 10):
        there.land(week(number, inverted=True))
    seen, again = there.look(), there.look()
    (alarm,) = [each for each in seen["alarms"] if each["kind"] == "performance"]
    assert (alarm["class"], seen["verdict"]) == ("retrain", "retrain")
    assert alarm["effect"] == pytest.approx(seen["performance"]["realised"] - seen["performance"]["at_training"])
    assert alarm["effect"] < -0.3
    (incident,) = there.journal.incidents("small", state="open")
    assert (incident.what, incident.looks, again["incidents"][0]["id"]) == ("retrain", 2, incident.id)
    orders = [order for order in there.journal.orders("small") if order.does == "train"]
    assert [(order.by, order.reason) for order in orders] == [("decay", alarm["says"])]
    number = there.journal.start_training(
        project="small", trigger="t", event=False, snapshot="s", config="c", at=there.clock
    )
    there.journal.end_training(number, state="refused", reason="a tie", at=there.clock)
    there.land(week(11, inverted=True))
    there.look()
    assert len([order for order in there.journal.orders("small") if order.does == "train"]) == 2, (
        "it goes on, so it asks again"
    )


def test_a_fall_below_the_floor_is_an_alarm_however_near_to_it_the_version_was_trained(place):
    """The metric stays what it was at training, and the floor is far above: what came true and what is expected both say so."""
    there = place("binary", more="floor: 0.9999")
    there.crown()
    for number in (8, 9, 10, 11):
        there.land(week(number))
    seen = there.look()
    told = seen["performance"]
    assert told["decay"]["fell"]
    assert told["realised"] > 0.97 * told["at_training"]
    assert [(each["kind"], each["class"], each["threshold"]) for each in seen["alarms"] if each["kind"] == "performance"] == [("performance", "retrain", 0.9999)]  # fmt: skip
    assert seen["verdict"] == "retrain"


def test_a_drift_in_which_nothing_came_true_is_not_said_to_be_harmless(place):
    """Outcomes mature for three weeks: what came true is of before the drift, and the estimate is in doubt about values it never met."""
    there = place("binary", split=", matures: 21")
    there.crown()
    for number in (8, 9, 10, 11):
        there.land(week(number))
    there.land(week(12, shift=8.0))
    seen = there.look()
    assert seen["performance"]["realised"] is not None
    assert seen["performance"]["doubts"]
    assert {(each["kind"], each["effect"]) for each in seen["alarms"] if each["class"] == "retrain"} >= {("inputs", None), ("predictions", None)}  # fmt: skip
    assert "is not known" in seen["reason"]


def test_inputs_that_move_without_harm_are_ignored_and_broken_ones_mended(place):
    """A column that is suddenly missing is a matter of the data, and starts no training."""
    there = place("binary", more="retrain: [{kind: batch}, {kind: drift}]")
    there.crown()
    there.land(week(8))
    there.land(week(9).assign(a=lambda rows: rows["a"].where(np.arange(WEEK) % 2 == 0)))
    seen = there.look()
    assert {(alarm["kind"], alarm["class"]) for alarm in seen["alarms"]} >= {("inputs", "mend")}
    assert next(alarm for alarm in seen["alarms"] if alarm["kind"] == "inputs")["features"][0] == "a"
    assert seen["drift"]["a"]["fixed"]["missing"] == [0.0, 0.5]
    assert not [order for order in there.journal.orders("small") if order.does == "train"]


def test_m_02_an_alarm_of_drift_stands_until_its_window_has_passed(place):
    """A week that begins broken: six calm days later the alarm stands, and asks nobody again; a later look of that day repeats it."""
    there = place("binary", more="retrain: [{kind: batch}, {kind: drift}]\nwatch: {drift: {fewest: 295}}")
    there.crown()
    there.land(week(8).assign(a=lambda rows: rows["a"].where((np.arange(WEEK) % 2 == 0) | (np.arange(WEEK) > 200))))
    first = there.look()
    told = len(there.journal.orders("small"))
    there.land(week(9)[:250])
    stands = there.look()
    there.land(week(9)[250:255].assign(a=99.0))
    again = there.look()
    (alarm,) = [each for each in first["alarms"] if each["kind"] == "inputs"]
    assert alarm in stands["alarms"]
    assert not stands["drift"]["a"]["moved"]
    assert "The alarm of 2026-03-08 23:26 stands until its window has passed." in stands["reason"]
    assert len(there.journal.orders("small")) == told
    assert (first["repeated"], "inputs" in stands["repeated"]) == ([], True)
    (incident,) = there.journal.incidents("small", state="open")
    assert (incident.looks, incident.last_seen) == (1, there.clock)
    assert again["standing"] == stands["standing"]
    assert f"Drift is as it was judged at {stands['window']['until'][:16].replace('T', ' ')}." in again["reason"]


def test_an_alarm_is_out_before_its_look_is_on_record(place, monkeypatch):
    """The watch is killed where the look is recorded: the event of drift is ordered already, and the look that is repeated orders no second one."""
    there = place("binary")
    there.crown()
    there.land(week(8).assign(a=lambda rows: rows["a"].where(np.arange(WEEK) % 2 == 0)))
    there.clock += 6 * HOUR  # both looks are of one day

    def seam(what: str) -> None:
        if what == "record watch":
            raise KeyboardInterrupt

    monkeypatch.setattr(durable, "seam", seam)
    with pytest.raises(KeyboardInterrupt):
        there.look()
    killed = there.journal.orders("small")
    monkeypatch.setattr(durable, "seam", lambda _what: None)
    there.look()
    assert [(order.does, order.by) for order in killed] == [("tell", "drift")]
    assert there.journal.orders("small") == killed


def test_rows_that_land_under_a_newest_time_that_stays_are_judged_the_next_day(place):
    """A project whose rows tell the month alone: the second file of March is looked at as the first one was."""
    there, march = place("binary"), pd.Timestamp("2026-03-02", tz="UTC")
    there.crown()
    there.land(week(8).assign(at=march))
    calm = there.look()
    there.clock += 24 * HOUR
    there.land(week(9, shift=3.0).assign(at=march))
    moved = there.look()
    assert (calm["window"], [alarm["kind"] for alarm in calm["alarms"]]) == (moved["window"], [])
    assert "inputs" in [alarm["kind"] for alarm in moved["alarms"]]
    assert moved["repeated"] == []


def test_m_01_without_rows_nothing_is_said(place):
    """No champion, no row since it is champion, five rows: each is said as such, and is no alarm."""
    there = place("binary")
    assert there.look()["verdict"] == "no champion"
    there.crown()
    assert there.look()["verdict"] == "no data"
    there.land(week(8).head(5))
    seen = there.look()
    assert (seen["verdict"], seen["rows"], seen["alarms"]) == ("too few rows", 5, [])
    assert seen["reason"].startswith("5 rows, and 200 are wanted")


def test_i_19_young_rows_are_pending(place):
    """Outcomes that mature for a fortnight: what came early does not count, however bad it looks."""
    there = place("binary", split=", matures: 14")
    there.crown()
    there.land(week(8))
    early = week(9)
    there.land(early.assign(y=early["y"].where(early["y"]).astype("boolean")))  # only the positives are known yet
    told = there.look()["performance"]
    assert (told["realised"], told["pending"]) == (None, 2 * WEEK)


def test_m_05_each_version_has_its_own_performance(place):
    """A window in which two versions answered is two measures; the old one's fall is not the new one's."""
    there = place("binary", more="watch: {performance: {fewest: 100}}")
    there.crown()
    there.land(week(8, inverted=True).head(WEEK // 2))
    there.crown(2)
    there.land(week(8, inverted=True).tail(WEEK // 2).assign(y=lambda rows: ~rows["y"]))
    there.land(week(9))
    seen = there.look()
    values = {
        (each["version"], each["begin"][:10]): each["value"]
        for each in seen["performance"]["periods"]
        if each["value"] is not None
    }
    assert values[1, "2026-03-02"] < 0.3
    assert values[2, "2026-03-02"] > 0.7
    assert not [alarm for alarm in seen["alarms"] if alarm["kind"] == "performance"]


def test_the_pictures_are_drawn(place):
    """The curve and the features, as PNG that fit into an artifact."""
    there = place("binary").watched()
    monitor = Monitor(there.use, there.settings, lambda: there.clock)
    monitor.look()
    assert set(monitor.drawn) == {"curve", "drift"}
    assert all(png.startswith(b"\x89PNG") and len(png) < 200_000 for png in monitor.drawn.values())


def test_trainings_that_changed_nothing_are_on_the_curve(place, monkeypatch):
    """Those that were refused or held, at the end of the window that was looked at before they began; the clock of landed rows is not the wall's."""
    there, drawn = place("binary").watched(), []
    monkeypatch.setattr("tasks.monitor.pictures.curve", lambda curve: drawn.append(curve) or b"")

    def train(state: str) -> None:
        number = there.journal.start_training(
            project="small", trigger="t", event=False, snapshot="s", config="c", at=there.clock
        )
        there.journal.end_training(number, state=state, reason="r", at=there.clock)

    train("refused")  # nobody had looked
    until = there.look()["window"]["until"]
    for state in ("refused", "refused", "held", "failed", "released"):
        train(state)
    there.land(week(10))
    there.look()
    marks = [(mark.at.isoformat(), mark.name) for mark in drawn[-1].marks if mark.event == "retrained"]
    assert marks == [(dt.datetime.fromisoformat(until).isoformat(), name) for name in ("held", "refused")]


def test_what_is_remembered_is_made_anew(place):
    """It lies in files of their own, which an erasure deletes; without them the next look makes them of the rows that are there."""
    there = place("binary").watched()
    first = there.look()
    files = remembered.kept(there.settings, "small")
    assert {path.name for path in files} == {"learned.json", "rows.parquet"}
    for path in files:
        path.unlink()
    second = there.look()
    assert second["drift"] == first["drift"]
    assert remembered.kept(there.settings, "small") == files


def test_a_version_that_cannot_be_asked_any_more_is_left_out(place):
    """Its bundle is gone: its periods are not measured, which is said; the champion is looked at as ever."""
    there = place("binary")
    there.crown()
    there.land(week(8))
    there.crown(2)
    shutil.rmtree(there.settings.bundles("small") / "1")
    there.land(week(9))
    told = there.look()["performance"]
    assert set(told["unasked"]) == {1}
    assert {period["version"] for period in told["periods"]} == {2}


def test_values_of_private_columns_stay_here(place):
    """Neither a look's record, nor its alarms, nor what is ordered says more than the name of such a column."""
    there = place("binary", more="retrain: [{kind: batch}, {kind: drift}]\nwatch: {incidents: {private: [c]}}")
    there.crown()
    there.land(week(8))
    there.land(week(9).assign(c="u", a=lambda rows: rows["a"] + 2))
    seen = there.look()
    assert any(alarm["kind"] == "inputs" for alarm in seen["alarms"])
    said = json.dumps(
        [seen["alarms"], seen["domain"], seen["reason"], [order.reason for order in there.journal.orders("small")]]
    )
    assert "c = u" not in said
    assert "c =" not in said


def test_a_new_column_is_no_trouble(place):
    """A nullable column that no row has yet is missing; the look goes on."""
    there = place("binary").watched()
    path = there.settings.projects / "small" / "project.yaml"
    path.write_text(
        path.read_text().replace(
            "    b: {type: float}\n", "    b: {type: float}\n    late: {type: float, nullable: true}\n"
        )
    )
    seen = there.look()
    assert (seen["rows"], "late" in seen["drift"]) == (WEEK, True)


@pytest.mark.parametrize(
    ("before", "now", "name", "was"),
    [("c: {type: category}", "c: {type: float, nullable: true}", "c", "category"), ("b: {type: float}", "b: {type: text}", "b", "float")],
)  # fmt: skip
def test_a_column_of_another_type_than_the_version_learned_is_not_compared(place, before, now, name, was):
    """Which is said; the rest is looked at as ever, also what is asked for under the new contract."""
    there = place("binary").watched()
    path = there.settings.projects / "small" / "project.yaml"
    path.write_text(path.read_text().replace(before, now))
    landed = there.look()
    asked_for(there, week(9).drop(columns=["id", "at", "y"]).assign(**{name: 7.5 if name == "c" else "red"}))
    for seen, source in ((landed, "landed"), (there.look(), "served")):
        assert (seen["window"]["source"], seen["rows"], set(seen["drift"])) == (source, WEEK, {"a", "b", "c"} - {name})
        assert f"{was} in what version 1 learned from" in seen["not_compared"][name]
        assert f"{name} cannot be compared" in seen["reason"]


@pytest.mark.parametrize("kind", ["binary", "recommendation"])
def test_a_version_is_asked_with_a_column_that_the_contract_has_no_more(place, kind):
    """Somebody took it out: it is compared no more, and what the champion says of the rows that have it is what its model says."""
    there = place(kind).watched()
    before = there.look()
    path = there.settings.projects / "small" / "project.yaml"
    path.write_text(path.read_text().replace("    b: {type: float}\n", ""))
    landed = there.look()
    assert (landed["rows"], set(landed["drift"])) == (WEEK, {"a", "c"})
    assert landed["performance"]["periods"] == before["performance"]["periods"]
    if kind == "binary":
        assert landed["performance"]["realised"] is not None
        asked_for(there, week(9).drop(columns=["id", "at", "y"]))
        served = there.look()
        assert (served["window"]["source"], set(served["drift"])) == ("served", {"a", "c"})
        said = [seen["predictions"]["prediction"]["fixed"] for seen in (served, landed)]
        assert said[0] == said[1]  # of the same rows


def test_a_version_whose_classes_a_person_calls_otherwise_now_is_looked_at(place):
    """Its probability of the positive class is that under whatever name."""
    there = place("binary").watched()
    before = there.look()
    path = there.settings.projects / "small" / "project.yaml"
    path.write_text(f"{path.read_text()}\nlabels: [fair, fraud]\n")
    assert there.look()["performance"]["periods"] == before["performance"]["periods"]


def test_a_version_that_answers_another_question_is_not_asked(place):
    """Today's target is not what it predicts: nothing is judged, and that and the next move are said."""
    there = place("binary").watched()
    path = there.settings.projects / "small" / "project.yaml"
    path.write_text(
        path.read_text()
        .replace("target: y", "target: d")
        .replace("    a: {type", "    d: {type: bool, nullable: true}\n    a: {type")
    )
    seen = there.look()
    assert (seen["verdict"], seen["version"], seen["alarms"]) == ("not asked", 1, [])
    assert seen["reason"].startswith(
        "version 1 cannot be asked: it answers another question: its target is 'y', the project's is 'd'. "
    )


def test_where_every_column_changed_its_type_none_is_compared(place):
    """Not all after all; what came true is still measured."""
    there = place("binary").watched()
    path = there.settings.projects / "small" / "project.yaml"
    said = path.read_text().replace("{type: category}", "{type: float, nullable: true}")
    path.write_text(said.replace("a: {type: float, nullable: true}", "a: {type: text, nullable: true}").replace("b: {type: float}", "b: {type: text}"))  # fmt: skip
    seen = there.look()
    assert (seen["drift"], seen["domain"], set(seen["not_compared"])) == ({}, None, {"a", "b", "c"})
    assert seen["performance"]["realised"] is not None


def test_rows_are_told_apart_by_the_columns_that_are_compared_in_what_is_usual_too(place, monkeypatch):
    """The classifier's bar comes from classifiers that were given the same columns."""
    given: list[list[str]] = []

    def calibrated_apart(*known: Any, **more: Any) -> Thresholds:
        given.extend(list(rows.columns) for rows in known[-1])
        return calibration.calibrated_apart(*known, **more)

    monkeypatch.setattr(asked, "calibrated_apart", calibrated_apart)
    there = place("binary").watched()
    path = there.settings.projects / "small" / "project.yaml"
    path.write_text(path.read_text().replace("c: {type: category}", "c: {type: float, nullable: true}"))
    assert set(there.look()["drift"]) == {"a", "b"}
    assert given
    assert all(columns == ["a", "b"] for columns in given)


def asked_for(there: Place, rows: pd.DataFrame) -> None:
    """Rows that a server was asked about, all within the hour."""
    records = [
        {"id": f"{number}", "at": (there.clock + number * dt.timedelta(seconds=1)).isoformat(), "project": "small", "version": 1, "ms": 0.5,
         "prediction": True, "row": row}
        for number, row in enumerate(rows.to_dict("records"))
    ]  # fmt: skip
    assert Predictions(there.settings.home).append("small", there.clock, records) == 0


def test_rows_are_new_to_a_version_by_the_column_that_it_was_split_by(place):
    """Not by the contract's time: of two weeks of landed rows the half that was booked long ago may have taught it."""
    there = place("binary", weeks=0)
    path = there.settings.projects / "small" / "project.yaml"
    text = path.read_text().replace("column: at}", "column: booked}")
    path.write_text(text.replace("    a: {type", "    booked: {type: datetime}\n    a: {type"))
    there.use = Project.named("small", there.settings)
    for number in range(8):
        there.land(week(number).assign(booked=lambda rows: rows["at"]))
    there.crown()
    long_ago = np.arange(WEEK) % 2 == 0
    there.land(week(8).assign(booked=lambda rows: rows["at"].mask(long_ago, rows["at"] - pd.Timedelta(weeks=6))))
    assert there.look()["rows"] == WEEK / 2


def test_the_champion_is_asked_about_each_row_once(place, monkeypatch):
    """For drift, for the estimate, and for what came true together; the first look also asks about the rows that it was made of."""
    there = place("binary").watched()
    there.look()
    asked = []
    answers = Bundle.answers
    monkeypatch.setattr(Bundle, "answers", lambda self, use, rows: asked.append(len(rows)) or answers(self, use, rows))
    there.look()
    assert asked == [2 * WEEK]


def test_pictures_do_not_wait_long_for_mlflow(monkeypatch):
    """A server that is down is asked twice, for seconds; whoever asks next is as patient as before."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    met = []
    registry: Any = SimpleNamespace(log_files=lambda run, files: met.append((run, files, {name: os.environ[name] for name in IMPATIENT})))  # fmt: skip
    _beside(registry, "run", {"a": "b"})
    assert met == [("run", {"a": "b"}, IMPATIENT)]
    assert (os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], "MLFLOW_HTTP_REQUEST_MAX_RETRIES" in os.environ) == ("77", False)


def test_nothing_ends_an_incident_that_could_not_be_judged(place):
    """A week without rows, in which an anomaly is found: what was to be retrained still is."""
    there = place("binary", more="retrain: [{kind: batch}, {kind: decay}]\nwatch: {anomalies: {fresh_hours: 5}}")
    there.crown()
    for number in (8, 9, 10):
        there.land(week(number, inverted=number > 8))
    assert there.look()["verdict"] == "retrain"
    there.crown(2)
    there.clock += 48 * HOUR
    seen = there.look()
    assert (seen["verdict"], seen["reason"].startswith("no row came")) == ("mend", True)
    assert "freshness" in seen["judged"]
    assert "performance" not in seen["judged"]
    assert "retrain" in {incident.what for incident in there.journal.incidents("small", state="open")}


def test_a_bad_batch_is_not_over_before_another_one_came(place):
    """Looks that have no batch to judge leave its incident open, though they know that rows came lately; the next usual one ends it."""
    there = place("binary", more="watch: {anomalies: {at_least: 5, fresh_hours: 100}}")
    there.crown()
    there.land(week(8).head(30))
    opened = there.look()
    assert "has 30 rows; usually it has about 300" in opened["anomalies"]["rows a batch"]["says"]
    there.clock += 13 * HOUR
    waiting = there.look()
    there.land(week(9))
    over = there.look()
    assert [[(one["class"], one["state"]) for one in seen["incidents"]] for seen in (opened, waiting, over)] == [
        [("mend", "open")], [], [("mend", "closed")],
    ]  # fmt: skip
    assert waiting["anomalies"]["arrival of rows"]["state"] == "ok"


def test_data_that_was_late_is_over_where_too_few_rows_come_to_judge_drift(place):
    """Fifty rows a look are too few for drift; that a batch was late is told, and that it is over when data flows again."""
    there = place("binary", more="watch: {anomalies: {fresh_hours: 5}}")
    there.crown()
    there.land(week(8).head(50))
    there.clock += 48 * HOUR
    late = there.look()
    assert [(one["class"], one["state"]) for one in late["incidents"]] == [("mend", "open")]
    there.clock += 12 * HOUR
    there.land(week(8)[50:60])
    seen = there.look()
    assert (seen["verdict"], seen["rows"]) == ("too few rows", 60)
    assert [(one["class"], one["state"]) for one in seen["incidents"]] == [("mend", "closed")]
