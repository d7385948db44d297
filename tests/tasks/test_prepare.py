"""Preparing: how big the parts are, whether anything can be learned from them, and what must not be."""

import datetime as dt
import importlib
import logging
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from ruamel.yaml import YAML
from threadpoolctl import threadpool_limits

from tasks import ingest, prepare, register
from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import models
from tasks.ml.features import matrix
from tasks.ml.judging import judging
from tasks.ml.sealed import SealedParts
from tasks.ml.split import Parts
from tasks.stores import minutes
from tasks.stores.journal import Journal, Release
from tasks.stores.lake import ROW, Lake, parts
from tasks.stores.references import Prepared, Snapshot, Training

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"train": 300, "validation": 80, "holdout": 100}


@pytest.fixture(scope="module")
def one_thread():
    """Small fits on a busy machine wait for each other's threads."""
    with threadpool_limits(1):
        yield


def described_as(columns: dict, **more) -> dict:
    """What a project.yaml with these features says."""
    own = {"id": {"type": "int"}, "at": {"type": "datetime"}, "y": {"type": "bool"}}
    contract = {"key": ["id"], "time": "at", "target": "y", "columns": own | columns}
    return {"project": "small", "labels": ["healthy", "finding"], "contract": contract, "split": {"column": "at"}, **more}  # fmt: skip


def project(columns: dict | None = None, **more) -> Project:
    return Project.model_validate(described_as(columns or {"amount": {"type": "float"}}, **more))


def part(first: int, count: int, positive: int) -> pd.DataFrame:
    """Rows of consecutive hours, some of which are positive; nothing in them says which."""
    rng = np.random.default_rng(first)
    return pd.DataFrame(
        {
            "id": range(first, first + count),
            "at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(first, first + count), unit="h"),
            "y": pd.array(rng.permutation(np.arange(count) < positive), dtype="boolean"),
            "amount": rng.normal(size=count),
        }
    )


def sealed(use: Project, made: Parts) -> SealedParts:
    """The same parts as the lake hands them out, without a trusted set."""
    return SealedParts.of(made, made.holdout.head(0), use.task, use.contract.target)


def described(sizes: dict[str, int] | None = None, positive: dict[str, int] | None = None) -> Prepared:
    """What is said about parts of these sizes with so many positives, by default a quarter."""
    first, frames = 0, {}
    for name, count in (SIZES | (sizes or {})).items():
        frames[name] = part(first, count, (positive or {}).get(name, count // 4))
        first += count
    return prepare.describe(project(), sealed(project(), Parts(**frames)))


def test_parts_are_described_by_size_window_and_share():
    """Sizes, oldest and newest time, and the share of positives of each part; nothing stands against learning."""
    found = described()
    assert found.rows == SIZES
    assert found.rates == {"train": 0.25, "validation": 0.25, "holdout": 0.25}
    assert found.windows["train"] == ("2026-01-01 00:00:00+00:00", "2026-01-13 11:00:00+00:00")
    assert found.windows["holdout"][0] == "2026-01-16 20:00:00+00:00"
    assert found.refused == ""


@pytest.mark.parametrize("name", list(SIZES))
def test_too_few_rows_of_any_part_are_refused(name):
    """Fifty rows are enough, one less is not; the reason names the part and both numbers."""
    assert described({name: prepare.FEWEST}).refused == ""
    assert described({name: prepare.FEWEST - 1}).refused == f"too few rows: the {name} part has 49, 50 are needed"


@pytest.mark.parametrize("name", list(SIZES))
@pytest.mark.parametrize(
    ("positive", "label"), [(0, "finding"), (None, "healthy")], ids=["no positive", "all positive"]
)
def test_a_single_class_is_refused_and_the_missing_one_named(name, positive, label):
    """A part with one class teaches nothing: the reason names the part, the class that is missing, and the target."""
    count = SIZES[name] if positive is None else positive
    refused = described(positive={name: count}).refused
    assert refused == f"insufficient classes: the {name} part has 0 rows of '{label}' in y, 5 are needed"


def test_five_of_a_class_are_enough_and_four_are_not():
    """The rarer class decides, whichever it is."""
    assert described(positive={"holdout": 5}).refused == ""
    assert "has 4 rows of 'finding'" in described(positive={"holdout": 4}).refused
    assert "has 4 rows of 'healthy'" in described(positive={"holdout": SIZES["holdout"] - 4}).refused


def test_the_first_problem_in_time_is_the_one_that_is_told():
    """With two parts that cannot be used, the older one is named."""
    assert "the train part has 0 rows of 'finding'" in described({"holdout": 1}, {"train": 0}).refused


def test_an_empty_part_is_refused_instead_of_failing():
    """No rows at all: a share of nothing is 0, and the reason is the number of rows."""
    found = described({"validation": 0})
    assert found.rates["validation"] == 0.0
    assert found.refused == "too few rows: the validation part has 0, 50 are needed"


@pytest.mark.parametrize("name", [*SIZES, "trusted"])
def test_a_class_without_a_label_is_refused_and_counted(name):
    """Two rows of a value that `labels` does not have: the reason names the part and the labels, and nothing is counted as one of them."""
    columns = {"amount": {"type": "float"}, "y": {"type": "text"}}
    use = project(columns, kind="multiclass", labels=["red", "green", "blue"])
    first, frames = 0, {}
    for each, count in (SIZES | {"trusted": 60}).items():
        colours = np.array(["red", "green", "blue"])[np.arange(count) % 3].astype(object)
        if each == name:
            colours[[3, 40]] = "violet"
        frames[each] = part(first, count, 0).assign(y=pd.array(colours, dtype="string"))
        first += count
    trusted = frames.pop("trusted")
    split = SealedParts.of(Parts(**frames), trusted, use.task, use.contract.target)
    refused = prepare.describe(use, split).refused
    assert (
        refused
        == f"unknown classes: 2 rows of the {name} part have a y that is none of the labels blue, green, red. Name it under `labels`, or erase those rows"
    )


# -- labels that come late --------------------------------------------------------------------------------------------
def test_i_19_immature_rows_are_pending_and_counted():
    """Rows of the last days are in no part; their number is in what is said, and in the reason when too little is left."""
    use = project(split={"column": "at", "matures": 5})
    rows = part(0, 600, 150)
    found = prepare.describe(use, sealed(use, use.split.apply(rows)))
    pending = int((rows["at"] > rows["at"].max() - pd.Timedelta(days=5)).sum())
    assert (pending, found.immature) == (120, 120)
    assert found.purged == 61
    assert sum(found.rows.values()) == 480 - 61
    assert "purged: 61 rows" in prepare.said(found)
    assert found.refused == ""
    assert "pending: 120 rows whose label may still change" in prepare.said(found)
    unripe = project(split={"column": "at", "matures": 15})
    assert "train rows teach although their label was not final" in prepare.said(
        prepare.describe(unripe, sealed(unripe, unripe.split.apply(rows)))
    )
    short = project(split={"column": "at", "matures": 23})
    assert prepare.describe(short, sealed(short, short.split.apply(rows))).refused.endswith(
        "; 552 rows wait for their label"
    )


# -- rows of any shape --------------------------------------------------------------------------------------------------
NUMBERS = st.sampled_from(
    [
        ["NaN"],
        [""],
        ["inf", "-inf", "1"],
        ["3"],
        ["1e120", "-1e120"],
        ["1e300", "2"],
        ["0.5", "", "2", "-7"],
        ["1e-300", "0"],
    ]
)
KINDS = st.sampled_from([[""], ["a"], ["a", "b", ""], [f"k{n}" for n in range(90)], ["\u0000", "'\"", "é\u202e"]])
FLAGS = st.sampled_from([[""], ["t"], ["t", "f"], ["t", "f", ""]])
SHAPES = {
    "number": ("float", NUMBERS),
    "whole": ("int", st.sampled_from([[""], ["1"], ["1", "2", ""], ["-9007199254740993", "0"]])),
    "flag": ("bool", FLAGS),
    "kind": ("category", KINDS),
    "note": ("text", KINDS),
}
ANY = project({name: {"type": kind, "nullable": True} for name, (kind, _) in SHAPES.items()})


def typed(values: list[str], kind: str) -> pd.Series:
    """Texts as the types that the lake reads back: what is no finite number is missing."""
    if kind == "bool":
        return pd.Series(values).map({"t": True, "f": False}).astype("boolean")
    if kind in {"float", "int"}:
        numbers = pd.to_numeric(pd.Series(values), errors="coerce")
        return numbers.where(np.isfinite(numbers)).astype("float64" if kind == "float" else "Int64")
    return pd.Series([text or None for text in values], dtype="string")


@hypothesis_settings(
    deadline=None, derandomize=True, max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
@given(st.fixed_dictionaries({name: values for name, (_, values) in SHAPES.items()}), st.integers(0, 99))
def test_i_15_no_shape_of_columns_stops_a_training(choices, seed):
    """Not a number, infinite, constant, empty, huge and tiny, many categories: preparing answers, and every family fits and answers."""
    rng = np.random.default_rng(seed)
    rows = part(0, 600, 150).drop(columns="amount")
    for name, values in choices.items():
        rows[name] = typed(rng.choice(values, len(rows)).tolist(), SHAPES[name][0])
    split = sealed(ANY, ANY.split.apply(rows))
    prepared = prepare.examined(ANY, split, prepare.describe(ANY, split))
    if not rows[list(SHAPES)].notna().to_numpy().any():
        assert prepared.refused.startswith("nothing to learn from: no feature holds any value")
        return
    few = "stand in train too" in prepared.refused  # a handful of values in every column: rows repeat by themselves
    assert few or prepared.refused == ""
    columns = {name: ANY.contract.columns[name] for name in ANY.contract.features}
    types = {name: column.type for name, column in columns.items()}
    learned, asked = matrix(split.train, types), matrix(split.validation, types)
    forests = models.RandomForest(n_estimators=3), models.ExtraTrees(n_estimators=3)
    for family in (models.Logistic(), models.HistGradientBoosting(max_iter=3), *forests):
        fitted = models.pipeline(family, models.observed(columns, learned), 7).fit(learned, ANY.task.truth(split.train))
        answers = fitted.predict_proba(asked)
        assert np.isfinite(answers).all()


def test_i_16_a_class_that_no_fold_can_learn_is_refused():
    """Positives only among the oldest rows are enough in number, but no fold has both classes on both sides."""
    use = project()
    split = use.split.apply(part(0, 480, 120))
    early = split.train.assign(y=pd.array(np.arange(len(split.train)) < 40, dtype="boolean"))
    refused = prepare.describe(use, sealed(use, Parts(early, split.validation, split.holdout))).refused
    assert (
        refused
        == "insufficient classes: none of the 3 folds of the train part has both 'healthy' and 'finding' in y before and after its cut"
    )


def test_i_17_categories_that_train_never_met_are_answered_and_counted():
    """Hundreds of categories, a third of the later ones new: every answer is a probability, and the share stands in what is said."""
    use = project({"kind": {"type": "category"}, "amount": {"type": "float"}})
    rng = np.random.default_rng(0)
    split = use.split.apply(
        part(0, 2000, 500).assign(kind=pd.array([f"k{n}" for n in rng.integers(0, 400, 2000)], dtype="string"))
    )
    fresh = np.arange(len(split.validation)) % 3 == 0
    split = Parts(
        split.train, split.validation.assign(kind=split.validation["kind"].mask(fresh, "never seen")), split.holdout
    )
    known = set(split.train["kind"])
    wanted = np.mean([kind not in known for kind in split.validation["kind"]])
    prepared = prepare.describe(use, sealed(use, split))
    assert prepared.unseen == {"kind": pytest.approx(wanted)}
    assert wanted >= fresh.mean()
    assert f"'kind': {wanted:.1%} of the validation rows hold a value that train has not" in prepare.said(prepared)
    columns = {name: use.contract.columns[name] for name in use.contract.features}
    types = {name: column.type for name, column in columns.items()}
    for family in (models.Logistic(), models.HistGradientBoosting(max_iter=20)):
        fitted = models.pipeline(family, columns, 7).fit(matrix(split.train, types), use.task.truth(split.train))
        answers = fitted.predict_proba(matrix(split.validation, types))
        assert np.isfinite(answers).all()
        same = answers[fresh & (split.validation["amount"] > 9).to_numpy()]
        assert len(same) == 0  # amounts are normal: what differs between unseen kinds is the amount alone
        alone = matrix(split.validation.assign(amount=0.0), types)[fresh]
        assert len(np.unique(fitted.predict_proba(alone).round(12), axis=0)) == 1


# -- the whole step, on landed rows -----------------------------------------------------------------------------------------
COLUMNS = {"amount": {"type": "float"}, "culprit": {"type": "float", "nullable": True}}


class Seen:
    """What a step would have shown and logged."""

    def __init__(self) -> None:
        self.descriptions: list[str] = []
        self.params: dict[str, object] = {}
        self.tags: dict[str, str] = {}

    def artifact(self, *_: object, description: str = "", **__: object) -> None:
        """Instead of Prefect's."""
        self.descriptions.append(description)

    def registry(self, *_: object) -> "Seen":
        """Instead of MLflow's."""
        return self

    def log_rows(self, *_: object, **__: object) -> None:
        """The rows that were used."""

    def log(self, _run: str, params: dict | None = None, tags: dict | None = None, **_: object) -> None:
        """Parameters and tags of the run."""
        self.params |= params or {}
        self.tags |= tags or {}

    def end(self, _run: str) -> None:
        """The run's end."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Steps that talk to nobody."""
    listener = Seen()
    monkeypatch.setattr(minutes, "Registry", listener.registry)
    for module in (prepare, register):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(prepare, "create_table_artifact", listener.artifact)
    monkeypatch.setattr(register, "create_markdown_artifact", listener.artifact)
    monkeypatch.setattr(register, "_announce", lambda _decision: None)
    return listener


def landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict, *batches: pd.DataFrame, **more) -> tuple[Project, Settings, list[Snapshot]]:  # fmt: skip
    """A project on disk whose batches were landed for real, and the snapshot after each."""
    folder = tmp_path / "projects" / "small"
    folder.mkdir(parents=True)
    YAML().dump(described_as(columns, **more), folder / "project.yaml")
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(folder.parent))
    settings = Settings()
    use = Project.named("small", settings)
    landings, snapshots = ingest.Landings(use, settings, lambda: dt.datetime(2027, 1, 1, tzinfo=dt.UTC)), []
    for number, rows in enumerate(batches):
        rows.assign(at=rows["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(tmp_path / f"{number}.csv", index=False)
        landing = landings.land(tmp_path / f"{number}.csv", accept="a test")
        assert (landing.state, landing.landed) == ("landed", len(rows)), landing
        snapshot = landings.lake.snapshot()
        assert snapshot is not None
        snapshots.append(snapshot)
    return use, settings, snapshots


def poisoned(kind: str) -> pd.DataFrame:
    """Rows of which one column knows the answer."""
    rows = part(0, 1500, 450)
    rng, truth = np.random.default_rng(5), rows["y"].to_numpy(dtype=bool)
    if kind == "id":
        return rows.assign(id=rng.permutation(10**6)[: len(rows)] * 2 + truth, culprit=1.0)
    culprits = {
        "copy": truth * 1.0,
        "noisy copy": truth + rng.normal(scale=0.15, size=len(rows)),
        "stamp": (rows["at"] + pd.to_timedelta(rng.integers(1, 200, len(rows)), unit="h")).astype("datetime64[s, UTC]").astype("int64"),
    }  # fmt: skip
    return rows.assign(culprit=culprits[kind])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("copy", "leak: column 'culprit' alone tells the target: AUC 1.000 ["),
        ("noisy copy", "leak: column 'culprit' alone tells the target: AUC "),
        ("stamp", "leak: column 'culprit' holds instants after the row's time in 100.0%"),
        ("id", "leak: key 'id' alone tells the target by its remainder by "),
    ],
)
def test_i_18_a_leak_ends_the_training_before_it_begins(kind, said, tmp_path, monkeypatch, seen):
    """Landed for real and prepared as a run does it: the reason names the column, and without the leak nothing is said."""
    use, settings, (bad,) = landed(tmp_path, monkeypatch, COLUMNS, poisoned(kind))
    prepared = prepare.prepare.fn("small", bad, "run")
    assert prepared.refused.startswith(said)
    assert seen.params["rows.holdout"] == prepared.rows["holdout"]
    split = parts(use, bad, settings.lake("small"))
    allowed = use.model_copy(update={"leaks": use.leaks.model_copy(update={"allow": ("culprit", "id")})})
    assert prepare.examined(allowed, split, prepare.describe(allowed, split)).refused == ""


def examined_as(use: Project, rows: pd.DataFrame) -> Prepared:
    """What preparing says of rows that are split as the project says."""
    split = sealed(use, use.split.apply(rows))
    return prepare.examined(use, split, prepare.describe(use, split))


@pytest.mark.parametrize("cap", [np.inf, 40])
def test_i_18_a_copy_of_a_number_is_met_whether_or_not_most_rows_stand_at_their_highest(cap):
    """A regression whose target is capped so that more than half of its rows have the cap: three times the target is a leak all the same."""
    use = project({key: {"type": "float"} for key in ("y", "amount", "culprit")}, kind="regression", labels=[])
    y = np.minimum(np.random.default_rng(1).permutation(600) / 6, cap)
    found = examined_as(use, part(0, 600, 150).assign(y=y, culprit=3 * y))
    assert found.refused.startswith("leak: column 'culprit' alone tells the target: AUC 1.000 [")


def test_i_18_groups_on_both_sides_are_met_where_nothing_is_asked_of_a_target():
    """An anomaly project names a group that must stand on one side, and every group stands on both: refused."""
    columns = {"amount": {"type": "float"}, "who": {"type": "int"}}
    use = project(columns, kind="anomaly", positive=True, leaks={"group": "who"})
    found = examined_as(use, part(0, 600, 150).assign(who=np.arange(600) % 7))
    assert found.refused.startswith("leak: 100.0% of 120 holdout rows belong to a 'who' that was trained on")


def test_i_18_a_leak_is_refused_and_the_champion_stays(tmp_path, monkeypatch, seen):
    """The flow ends well as refused: nothing is tuned or fitted, the journal has the reason, the champion is the one before."""
    _, settings, (bad,) = landed(tmp_path, monkeypatch, COLUMNS, poisoned("copy"))
    said, journal, champion = _trained(settings, bad, monkeypatch)
    assert said["state"] == "refused"
    assert said["reason"].startswith("leak: column 'culprit' alone tells the target")
    assert journal.champion("small") == champion
    (training,) = journal.trainings("small")
    assert (training["state"], training["reason"]) == ("refused", said["reason"])
    assert seen.tags["keepfit.decision"] == "refused"


def test_i_16_a_single_class_is_refused_and_the_champion_stays(tmp_path, monkeypatch, seen):
    """Rows of one class: insufficient classes, nothing is fitted, and the champion is the one before."""
    rows = part(0, 600, 0).assign(culprit=1.0)
    _, settings, (single,) = landed(tmp_path, monkeypatch, COLUMNS, rows)
    said, journal, champion = _trained(settings, single, monkeypatch)
    assert (said["state"], said["reason"]) == ("refused", "insufficient classes: the train part has 0 rows of 'finding' in y, 5 are needed")  # fmt: skip
    assert journal.champion("small") == champion


def _trained(settings: Settings, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, Journal, Release]:
    """What the flow says to a snapshot beside a champion, with the steps that talk to servers taken out."""
    flow = importlib.import_module("flows.train")
    journal, now = Journal(settings.journal()), dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    champion = journal.release(
        Release("small", 1, 1, "d" * 64, "a test", "good", now.isoformat(), "roc_auc", 0.8, 0.7, 0.9)
    )
    number = journal.start_training(
        project="small", trigger="by hand", event=False, snapshot=snapshot.digest, config="c", at=now
    )
    training = Training(
        project="small", reason="by hand", id=number, snapshot=snapshot, run="run", started=now.isoformat()
    )

    def never(*_: object, **__: object) -> None:
        pytest.fail("a refused snapshot was learned from")

    monkeypatch.setattr(flow, "admit", lambda *_, **__: training)
    monkeypatch.setattr(flow, "prepare", prepare.prepare.fn)
    monkeypatch.setattr(flow, "decline", register.decline.fn)
    for name in ("tune", "fit", "evaluate", "gate", "register", "release"):
        monkeypatch.setattr(flow, name, never)
    return flow.train.fn("small"), journal, champion


def test_i_14_no_training_learns_from_a_target_that_is_no_number(tmp_path, monkeypatch):
    """One row in a hundred with such a target is put apart and counted, and is in no part; more of them and nothing lands."""
    use, settings, (before,) = landed(tmp_path, monkeypatch, {"amount": {"type": "float"}}, part(0, 600, 150))
    landings = ingest.Landings(use, settings, lambda: dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    more = part(0, 400, 100).assign(id=np.arange(400) + 1000, at=lambda rows: rows["at"] + pd.Timedelta(days=40))
    said = []
    for name, bad in {"few.csv": ["NaN", "inf", "1e999", "NA"], "many.csv": ["None", "NaN", "inf", "", "-inf"]}.items():
        texts = more["y"].astype(str).to_numpy(dtype=object)
        texts[:: 400 // len(bad)] = bad
        shifted = more["id"] + (1000 if name == "many.csv" else 0)
        more.assign(y=texts, id=shifted, at=more["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(
            tmp_path / name, index=False
        )
        said.append(landings.land(tmp_path / name))
    few, many = said
    assert (few.state, few.landed, few.quarantined) == ("landed", 396, 4)
    assert (many.state, many.landed) == ("held", 0)
    assert "y" in many.reason
    snapshot = landings.lake.snapshot()
    assert snapshot is not None
    assert snapshot.rows == before.rows + 396
    split = parts(use, snapshot, settings.lake("small"))
    with judging():
        every = pd.concat([split.train, split.validation, split.holdout.rows])
    assert set(use.task.truth(every)) == {0, 1}
    assert not set(more["id"][:: 400 // 4]) & set(every["id"])


def test_what_does_not_block_is_told(tmp_path, monkeypatch, seen, caplog):
    """A column that the newest rows lack is no reason to refuse: it stands in the log and beside the contract."""
    rows = part(0, 1500, 450)
    gaps = np.where(np.arange(1500) > 1000, np.nan, np.random.default_rng(0).normal(size=1500))
    _, _, (snapshot,) = landed(
        tmp_path,
        monkeypatch,
        COLUMNS | {"other": {"type": "float"}},
        rows.assign(culprit=gaps, other=np.arange(1500.0)),
    )
    with caplog.at_level(logging.INFO):
        prepared = prepare.prepare.fn("small", snapshot, "run")
    assert prepared.refused == ""
    (told,) = prepared.leaks
    assert "column 'culprit' is empty in 100.0% of the newest" in told
    assert told in caplog.text
    assert "culprit" in seen.descriptions[0]


def test_i_07_late_rows_never_enter_a_closed_evaluation_window(tmp_path, monkeypatch):
    """Rows that arrive later with times inside an older snapshot's holdout are in the next snapshot only."""
    first = part(0, 600, 150)
    late = part(0, 600, 150).assign(id=np.arange(600) + 10_000).tail(60)
    use, settings, (before, after) = landed(tmp_path, monkeypatch, {"amount": {"type": "float"}}, first, late)
    closed = use.split.apply(first)
    parts.cache_clear()
    again = parts(use, before, settings.lake("small"))
    later = parts(use, after, settings.lake("small"))
    with judging():
        assert set(again.holdout.rows["id"]) == set(closed.holdout["id"])
        assert set(late["id"]) <= set(later.holdout.rows["id"])
        assert again.holdout.rows[ROW].is_unique
    for name in ("train", "validation"):
        assert set(getattr(again, name)["id"]) == set(getattr(closed, name)["id"])
    assert late["at"].min() >= closed.holdout["at"].min()  # they do lie inside the window


@pytest.mark.parametrize("kind", ["time", "group_time", "group", "chance"])
def test_parts_are_those_of_a_split_of_all_rows(kind, tmp_path, monkeypatch):
    """Each is read when it is asked for, and has the same rows in the same order as when the whole snapshot is read and split."""
    rows = part(0, 400, 120).assign(who=np.arange(400) % 40, amount=np.arange(400) / 7)
    split = {"kind": kind, "column": "at", "matures": 0.5} | ({"group": "who"} if kind.startswith("group") else {})
    columns = {"amount": {"type": "float"}, "who": {"type": "int"}}
    more = {"split": split, "trusted": {"share": 0}}
    use, settings, (_, snapshot) = landed(tmp_path, monkeypatch, columns, rows[:250], rows[250:], **more)
    root = settings.lake("small")
    whole = use.split.apply(Lake("small", root, use.contract).read(snapshot))
    made = parts(use, snapshot, root)
    pd.testing.assert_frame_equal(made.train, whole.train)
    pd.testing.assert_frame_equal(made.validation, whole.validation)
    pd.testing.assert_frame_equal(made.both, whole.both)
    assert made.late == whole.late == (11 if kind == "time" else 0)
    with judging():
        pd.testing.assert_frame_equal(made.holdout.rows, whole.holdout)
    assert min(len(made.train), len(made.validation), len(made.holdout)) > 0


YOUNG = {"float": 0.5, "int": 1, "bool": True, "category": "c", "text": "t", "datetime": "2026-02-01T00:00:00Z"}


def test_a_column_that_is_younger_than_every_row_is_empty_in_them(tmp_path, monkeypatch, seen):
    """It was added to the contract: what landed before teaches as ever, before and after the first batch with it."""
    columns: dict[str, dict[str, Any]] = {"amount": {"type": "float"}}
    _, settings, (before,) = landed(tmp_path, monkeypatch, columns, part(0, 600, 150))
    wider = columns | {f"a {kind}": {"type": kind, "nullable": True} for kind in YOUNG}
    YAML().dump(described_as(wider), settings.projects / "small" / "project.yaml")
    use, root, said = Project.named("small", settings), settings.lake("small"), []
    by_it = project(wider, split={"kind": "group", "group": "a text"})
    for batch in (None, part(600, 60, 15).assign(**{f"a {kind}": value for kind, value in YOUNG.items()})):
        if batch is not None:
            batch.to_parquet(tmp_path / "b.parquet")
            assert ingest.Landings(use, settings).land(tmp_path / "b.parquet", accept="a test").landed == 60
        parts.cache_clear()
        said.append(prepare.prepare.fn("small", before, "run"))
        made = parts(use, before, root)
        with judging():
            read = matrix(pd.concat([made.train, made.validation, made.holdout.rows]), use.types)
        assert read["amount"].notna().all()
        assert read.drop(columns="amount").isna().all(axis=None)
        apart = parts(by_it, before, root)
        assert len(apart.train) + len(apart.validation) + len(apart.holdout) == 600
    assert (said[0].refused, said[0]) == ("", said[1])


def test_a_damaged_file_is_met_when_its_rows_are_read(tmp_path, monkeypatch):
    """A file whose rows all judge does not keep anybody from learning of the others; whoever asks for its rows is told its name."""
    rows = part(0, 400, 120)
    use, settings, (old, snapshot) = landed(
        tmp_path, monkeypatch, {"amount": {"type": "float"}}, rows[:300], rows[300:]
    )
    root = settings.lake("small")
    lake = Lake("small", root, use.contract)
    (newest,) = {file.path for file in lake.landed.files(lake.landed.open())} - {
        file.path for file in lake.landed.files(lake.landed.open(old.version))
    }
    made = parts(use, snapshot, root)
    path = Path(lake.landed.root) / newest
    path.write_bytes(path.read_bytes()[:-1])
    assert len(made.train) > 0
    with pytest.raises(ArtifactError, match=newest):
        len(made.holdout)
