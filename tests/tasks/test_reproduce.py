"""A version is made again: exactly, or with the name of what is not as it was."""

import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from prefect.logging import disable_run_logger

from tasks import reproduce
from tasks.config.errors import ArtifactError, KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.erase import Erasing
from tasks.evaluate import evaluate
from tasks.ingest import Landings
from tasks.ml.card import CardFacts, card
from tasks.ml.footprint import Divergence
from tasks.ml.kinds import KINDS
from tasks.ml.models import FAMILIES
from tasks.ml.recipe import Recipe
from tasks.prepare import describe
from tasks.register import _answered, _facts, _version
from tasks.stores import bundles, footprints
from tasks.stores.journal import Journal
from tasks.stores.lake import ROW, Lake, parts
from tasks.stores.references import Best, Snapshot, Training
from tasks.stores.registry import Registry
from tasks.stores.tables import encode
from tasks.train import fit
from tests.samples import write_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
YAML = """
project: {name}
kind: {kind}
positive: true
metric: {metric}
contract:
  key: [id]
  time: at
  target: {target}
  columns:
    id: {{type: int}}
    at: {{type: datetime}}
    amount: {{type: float, nullable: true}}
    group: {{type: category}}
    yes: {{type: bool}}
    grade: {{type: category, categories: [high, low, middle]}}
    number: {{type: float}}
split: {{kind: time, column: at}}
search: {{seed: 7, trials: 2, columns: false}}
"""
TARGETS = {"binary": "yes", "multiclass": "grade", "regression": "number", "anomaly": "yes", "recommendation": "item"}
TAKEN = """user: who
contract:
  key: [id]
  time: at
  target: item
  columns: {id: {type: int}, at: {type: datetime}, who: {type: category}, item: {type: text}}
"""
ONCE = {name: family.fits[0] for name, family in FAMILIES.items()}  # each family with one kind that it fits
PAIRS = [(kind, name) for kind in KINDS for name, family in FAMILIES.items() if kind in family.fits]


def content(count: int = 500) -> list[dict[str, Any]]:
    """Rows whose truth of every kind follows from a number and a category."""
    rng = np.random.default_rng(3)
    amount, group = rng.normal(size=count).round(4), rng.choice(["a", "b"], count)
    number = amount + (group == "a") + rng.normal(scale=0.4, size=count)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return [
        {
            "id": n, "at": (start + dt.timedelta(hours=n)).isoformat(), "amount": "" if n % 19 == 0 else amount[n], "group": group[n],
            "yes": "t" if number[n] > 0.5 else "f", "grade": ["low", "middle", "high"][int(np.digitize(number[n], [0, 1]))], "number": number[n],
            "who": f"user {n % 20}", "item": f"item {(n % 20 + int(abs(amount[n]) * 3)) % 12}",
        }
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Path]]:
    """Makes a home with a version 1 of a project of that kind and family, through the real steps; the same again is the same home."""
    homes: dict[tuple[str, str], Path] = {}
    with pytest.MonkeyPatch.context() as patch, disable_run_logger():
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        store = tmp_path_factory.mktemp("mlflow")
        patch.setenv("KEEPFIT_MLFLOW_URL", f"sqlite:///{store / 'mlflow.db'}")

        def make(kind: str = "binary", family: str = "logistic") -> Path:
            if (kind, family) not in homes:
                home = homes[kind, family] = tmp_path_factory.mktemp("home")
                patch.setenv("KEEPFIT_HOME", str(home / "state"))
                patch.setenv("KEEPFIT_PROJECTS", str(home / "projects"))
                train(home, f"{kind}-{family}".replace("_", "-"), kind, family)
            return homes[kind, family]

        yield make


def train(home: Path, name: str, kind: str, family: str, window: dict[str, Any] | None = None) -> CardFacts:
    """Lands rows, fits one recipe, judges and registers it; as the flow does, without a search and without Prefect; what its card says."""
    (home / "projects" / name).mkdir(parents=True)
    text = YAML.format(name=name, kind=kind, target=TARGETS[kind], metric=KINDS[kind].metric)
    if kind == "recommendation":
        text = f"{text[: text.index('contract:')]}{TAKEN}{text[text.index('split:') :]}"
    (home / "projects" / name / "project.yaml").write_text(text)
    settings = Settings()
    use = Project.named(name, settings)
    Landings(use, settings).land(write_rows(home / "rows.csv", content()))
    snapshot = Lake(name, settings.lake(name), use.contract).snapshot()
    assert snapshot is not None
    journal, now = Journal(settings.journal()), dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    registry = Registry(name, settings.mlflow(), settings.artifacts)
    run = registry.start(name, {})
    number = journal.start_training(
        project=name, trigger="a test", event=False, snapshot=snapshot.digest, config=use.digest, at=now, rows=snapshot.name
    )  # fmt: skip
    recipe = Recipe.model_validate({"family": {"kind": family}, "window": window or {}})
    candidate = fit.fn(name, snapshot, recipe, run)
    scores = evaluate.fn(name, snapshot, candidate)
    training = Training(project=name, reason="a test", id=number, snapshot=snapshot, run=run, started=now.isoformat())
    recorded = _answered(candidate, scores)
    version, digest, _ = _version(use, training, candidate, recorded, registry, settings, [], "")
    detail = {"digest": digest, "recipe": recipe.model_dump(mode="json")}
    journal.end_training(number, state="registered", reason="", at=now, version=version, detail=detail)
    assert version == 1
    prepared = describe(use, parts(use, snapshot, settings.lake(name)))
    best = Best(
        recipe=recipe, value=0, most=0, trial=0, trials=1, pruned=0, resumed=0, seconds=0, cpu_seconds=0, history=[]
    )
    return _facts(use, training, prepared, best, candidate, scores, [], refit=recorded.refit)


@pytest.fixture
def home(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the home with a logistic regression, to be harmed."""
    shutil.copytree(trained("binary", "logistic"), tmp_path / "copy")
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "copy" / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "copy" / "projects"))
    return tmp_path / "copy"


NAME = "binary-logistic"


def again(name: str = NAME, **how: Any) -> dict[str, Any]:
    """What the flow gives, without Prefect."""
    with disable_run_logger():
        asked = reproduce.recall.fn(name, 1, **{"as_recorded": False, **how})
        return reproduce.judge.fn(asked, reproduce.rebuild.fn(asked))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rebuild happens in this process, which has one thread as the recorded one had: seconds of imports less."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def elsewhere(asked: reproduce.Version, place: Path) -> Iterator[dict[str, Any]]:
        for step in reproduce.remade(asked, place, Settings()):
            said = step.model_dump(mode="json")
            yield json.loads(json.dumps({"stopped": said} if isinstance(step, Divergence) else said))

    monkeypatch.setattr(reproduce, "_elsewhere", elsewhere)


def lake(name: str = NAME) -> tuple[Lake, Snapshot]:
    settings = Settings()
    found = Lake(name, settings.lake(name), Project.named(name, settings).contract)
    snapshot = found.snapshot()
    assert snapshot is not None
    return found, snapshot


def state(home: Path) -> dict[str, bytes]:
    """Every file of a home with its bytes, but for SQLite's own beside its databases."""
    return {
        str(path): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock"))
    }


# -- exactly ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("family", "kind"), ONCE.items())
def test_an_unchanged_project_makes_the_same_version_again(trained, monkeypatch, family, kind):
    """Every family, in another process: the same parameters and the same answers bit for bit, and no step differs."""
    home = trained(kind, family)
    monkeypatch.setenv("KEEPFIT_HOME", str(home / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(home / "projects"))
    found = again(f"{kind}-{family}".replace("_", "-"))
    assert (found["verdict"], found["difference"], found["diverges"]) == ("EXACT", 0.0, None), found
    assert [step["same"] for step in found["steps"]] == [True] * len(found["steps"])


def test_making_a_version_again_changes_nothing(home):
    """Journal, bundles, lake and registry have the same bytes before and after; it runs as often as one likes."""
    Journal(Settings().journal())  # widens and checkpoints, as any reader does
    before = state(home)
    assert again()["verdict"] == again()["verdict"] == "EXACT"
    assert state(home) == before


def test_it_runs_with_as_many_threads_as_were_recorded(home, monkeypatch):
    """Whatever this process is told, the rebuild has the recorded number."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = again()
    assert next(step for step in found["steps"] if step["step"] == "threads")["same"] is True


# -- what is not as it was --------------------------------------------------------------------------------------------
def rewritten(change: Callable[[pa.Table], pa.Table], *, honest: bool = True) -> None:
    """Puts another data file into the place of the only one, under its right name, and edits the table's log to match."""
    found, _ = lake()
    table = found.landed
    opened = table.open()
    assert opened is not None
    (file,) = table.files(opened)
    rows = change(table.read(file))
    made, data = encode(rows, "at")
    root = Path(table.root)
    name = made.path if honest else file.path
    (root / name).write_bytes(data.to_pybytes())
    if honest:
        for entry in (root / "_delta_log").glob("*.json"):
            text = entry.read_text().replace(file.path, name).replace(f'"size":{file.size}', f'"size":{made.size}')
            entry.write_text(text.replace(f'\\"numRecords\\": {file.rows}', f'\\"numRecords\\": {made.rows}'))


def changed_row(rows: pa.Table, *, renamed: bool) -> pa.Table:
    """The row of id 41 with another amount; its name follows its content, or stays."""
    frame_names = rows["id"].to_pylist()
    at = frame_names.index(41)
    amounts = rows["amount"].to_pylist()
    amounts[at] = 99.0
    rows = rows.set_column(rows.column_names.index("amount"), "amount", pa.array(amounts, pa.float64()))
    if renamed:
        names = rows[ROW].to_pylist()
        names[at] = bytes(range(16))
        rows = rows.set_column(rows.column_names.index(ROW), ROW, pa.array(names, pa.binary()))
    return rows


@pytest.mark.parametrize(
    ("change", "honest", "said"),
    [
        (lambda rows: changed_row(rows, renamed=True), True, "row id=41 was changed since"),
        (lambda rows: changed_row(rows, renamed=False), True, "row id=41 was changed since"),
        (lambda rows: changed_row(rows, renamed=False), False, "row id=41 was changed since"),
        (lambda rows: rows.filter(pc.field("id") != 41), True, "row id=41 is missing"),
    ],
    ids=["another name", "the old name", "in place", "left out"],
)
def test_one_row_that_was_altered_in_the_lake_is_named(home, here, change, honest, said):
    """Whoever alters one row, with or without the log and the row's name, is found out by the row's key."""
    rewritten(change, honest=honest)
    found = again()
    assert found["verdict"] == "DIFFERENT"
    assert (found["diverges"]["step"], found["diverges"]["kind"], found["diverges"]["name"]) == (
        "snapshot",
        "row",
        "id=41",
    )
    assert found["diverges"]["cause"] == said
    assert next(step for step in found["steps"] if step["step"] == "parameters")["same"] is None


def test_a_flipped_bit_in_a_data_file_is_told_with_the_file(home, here):
    """Bytes that do not read as rows any more have no row to name: the file is."""
    found, _ = lake()
    (path,) = Path(found.landed.root).glob("*.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    said = again()
    assert (said["verdict"], said["diverges"]["step"]) == ("DIFFERENT", "snapshot")
    assert said["diverges"]["kind"] in {"damaged", "file"}
    assert path.name[:12] in said["diverges"]["cause"]


def test_erased_rows_are_named_as_the_reason(home, here):
    """After an erasure the snapshot cannot be read; the report says so, and at which step."""
    settings = Settings()
    Erasing(Project.named(NAME, settings), settings).erase(("41",), {}, actor="auditor", reason="letter 7")
    found = again()
    assert (found["verdict"], found["diverges"]["step"], found["diverges"]["kind"]) == (
        "DIFFERENT",
        "snapshot",
        "erased",
    )
    assert "rows were erased" in found["reason"]


def recorded_otherwise(home: Path, change: Callable[[dict[str, Any]], None], name: str = NAME) -> None:
    """The version's footprint with other facts, as if the training had been another one; the journal follows."""
    settings = Settings()
    folder, journal = settings.bundles(name) / "1", Journal(settings.journal())
    (row,) = journal.trainings(name)
    manifest, model = bundles.read(folder, row["detail"]["digest"])
    recorded = footprints.read(folder, row["detail"]["digest"])
    facts = {step.name: json.loads(json.dumps(step.facts)) for step in recorded.footprint.steps}
    change(facts)
    steps = type(recorded.footprint).model_validate(
        {"steps": [{"name": name, "facts": f} for name, f in facts.items()]}
    )
    shutil.rmtree(folder)
    own = {name: value for name, value in manifest.items() if name not in {"files", "versions"}}
    digest = bundles.write(folder, model, own, footprints.Recorded(steps, recorded.names, recorded.answers).files())
    journal.end_training(
        row["id"], state="registered", reason="", at=dt.datetime(2026, 3, 2, tzinfo=dt.UTC), detail=row["detail"] | {"digest": digest}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "kind", "name", "said"),
    [
        (("environment", "packages", "scikit-learn"), "1.2.3", "package", "scikit-learn", "package scikit-learn: 1.2.3 is recorded"),
        (("environment", "code", "tasks/ml/recipe.py"), "0" * 16, "code", "tasks/ml/recipe.py", "code: tasks/ml/recipe.py is another file"),
        (("environment", "python"), "3.9.0", "python", "python", "python: python was 3.9.0"),
        (("environment", "lock"), "0" * 64, "lock", "lock", "lock: lock was 000000000000…"),
        (("threads", "threads"), 64, "threads", "threads", "threads: threads was 64"),
    ],
    ids=["package", "code", "python", "lock", "threads"],
)  # fmt: skip
def test_what_the_installation_has_otherwise_is_named(home, here, place, value, kind, name, said):
    """It is made again all the same; the parameters decide, and the first thing that is not as recorded is named."""

    def change(facts: dict[str, Any]) -> None:
        node = facts
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = value

    recorded_otherwise(home, change)
    found = again()
    assert (found["diverges"]["step"], found["diverges"]["kind"], found["diverges"]["name"]) == (place[0], kind, name)
    assert said in found["diverges"]["cause"]
    assert found["diverges"]["recorded"] == value
    assert found["verdict"] == "EXACT"
    assert said in found["reason"]


@pytest.mark.parametrize(
    ("old", "new", "step", "said", "verdict"),
    [
        ("seed: 7", "seed: 8", "seed", "seed: search.seed was 7, is 8", "NUMERIC"),
        ("trials: 2", "trials: 3", "configuration", "configuration: search.trials was 2, is 3", "EXACT"),
        (
            "column: at}",
            "column: at, holdout: 0.3}",
            "configuration",
            "configuration: split.holdout was 0.2, is 0.3",
            "DIFFERENT",
        ),
    ],
    ids=["a seed that is kept and not used", "a key of the search", "a key of the split"],
)
def test_one_key_of_the_configuration_is_named(home, here, old, new, step, said, verdict):
    """What project.yaml says otherwise today is the first divergence; with the configuration of then it is as it was."""
    path = home / "projects" / NAME / "project.yaml"
    path.write_text(path.read_text().replace(old, new))
    found = again()
    assert (found["diverges"]["step"], found["diverges"]["cause"]) == (step, said)
    assert found["verdict"] == verdict
    assert again(as_recorded=True)["verdict"] == "EXACT"
    assert again(as_recorded=True)["diverges"] is None


def test_another_seed_makes_another_forest(trained, here, tmp_path, monkeypatch):
    """Where the seed matters the verdict follows: another model, and the seed is the cause that is named."""
    shutil.copytree(trained("binary", "random_forest"), tmp_path / "copy")
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "copy" / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "copy" / "projects"))
    path = tmp_path / "copy" / "projects" / "binary-random-forest" / "project.yaml"
    path.write_text(path.read_text().replace("seed: 7", "seed: 8"))
    found = again("binary-random-forest")
    assert (found["verdict"], found["diverges"]["kind"]) == ("DIFFERENT", "seed")
    assert (found["diverges"]["recorded"], found["diverges"]["found"]) == (7, 8)
    assert found["difference"] > found["tolerance"]


# -- what cannot be asked ---------------------------------------------------------------------------------------------
def test_a_version_that_is_not_there_is_told_with_those_that_are(home):
    """The error names the versions on record."""
    with pytest.raises(KeepfitError, match=r"has no version 9\. Versions on record: 1\."):
        reproduce.on_record(NAME, 9, Settings())


def test_a_version_from_before_footprints_says_so(home):
    """A bundle without a footprint is no fault of the version: the error says what to do."""
    settings = Settings()
    folder, journal = settings.bundles(NAME) / "1", Journal(settings.journal())
    (row,) = journal.trainings(NAME)
    manifest, model = bundles.read(folder, row["detail"]["digest"])
    shutil.rmtree(folder)
    own = {name: value for name, value in manifest.items() if name not in {"files", "versions"}}
    digest = bundles.write(folder, model, own)
    at = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    journal.end_training(row["id"], state="registered", reason="", at=at, detail={"digest": digest})
    with pytest.raises(ArtifactError, match="written before trainings left one"):
        reproduce.on_record(NAME, 1, settings)


def test_an_altered_footprint_is_refused(home):
    """What a version is compared with is what was written, or nothing."""
    path = Settings().bundles(NAME) / "1" / footprints.STEPS
    path.write_bytes(path.read_bytes().replace(b'"seed":7', b'"seed":8'))
    with pytest.raises(ArtifactError, match="altered or damaged"):
        reproduce.on_record(NAME, 1, Settings())


# -- O-17 -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_o_17_the_same_snapshot_code_and_seed_give_the_same_digest(trained, monkeypatch, kind, family):
    """Fitted twice in this process with one thread, a candidate has one digest, footprint and all (O-17)."""
    home, name = trained(kind, family), f"{kind}-{family}".replace("_", "-")
    monkeypatch.setenv("KEEPFIT_HOME", str(home / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(home / "projects"))
    _, snapshot = lake(name)
    with disable_run_logger():
        first, second = (fit.fn(name, snapshot, Recipe.usual(family), run) for run in ("one", "two"))
    assert first.digest == second.digest
    for run in ("one", "two"):
        shutil.rmtree(Settings().home / "candidates" / name / run)


def test_o_17_a_fit_that_does_not_repeat_is_told_with_the_reason(home, here):
    """All that went in is as recorded and other parameters came out: the report says what can be the reason (O-17)."""
    recorded_otherwise(home, lambda facts: facts["parameters"].update(sha256="0" * 64))
    found = again()
    assert (found["verdict"], found["diverges"]["step"]) == ("NUMERIC", "parameters")
    assert "though all that went in is as recorded: the fit itself does not repeat" in found["reason"]


# -- two phases -------------------------------------------------------------------------------------------------------
def test_the_first_phase_that_differs_is_named(home, here):
    """The steps stand in the order in which they happen: what was said of validation rows comes before the model that learned them."""
    recorded = footprints.read(Settings().bundles(NAME) / "1", digest_of(NAME)).footprint
    names = [step.name for step in recorded.steps]
    assert recorded["refit"] == {"rows": recorded["train"]["rows"] + recorded["validation"]["rows"], "late": 0}
    assert names[names.index("recipe") :] == ["recipe", "validated", "operates", "refit", "parameters", "answers"]

    def otherwise(facts: dict[str, Any]) -> None:
        for step in ("validated", "parameters"):
            facts[step]["sha256"] = "0" * 64

    recorded_otherwise(home, otherwise)
    found = again()
    assert (found["verdict"], found["diverges"]["step"]) == ("NUMERIC", "validated")
    assert {step["step"]: step["same"] for step in found["steps"]}["refit"] is True


def test_a_version_that_was_fitted_once_is_made_again_so(trained, tmp_path, monkeypatch):
    """`refit: false` releases the model of train, as all versions once were; made again it is the same, whatever project.yaml says now."""
    trained("binary", "logistic")
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setitem(globals(), "YAML", YAML.replace("seed: 7,", "seed: 7, refit: false,"))
    with disable_run_logger():
        train(tmp_path, "once", "binary", "logistic")
    folder, digest = Settings().bundles("once") / "1", digest_of("once")
    assert footprints.read(folder, digest).footprint["refit"] == {"because": "it was not asked for"}
    (tmp_path / "projects" / "once" / "project.yaml").write_text(
        (tmp_path / "projects" / "once" / "project.yaml").read_text().replace("refit: false", "refit: true")
    )
    found = again("once")
    assert (found["verdict"], found["difference"]) == ("EXACT", 0.0), found
    assert found["diverges"]["name"] == "search.refit"


def test_a_version_from_before_there_was_a_second_fit_is_made_as_it_was(trained, tmp_path, here, monkeypatch):
    """Its configuration says nothing of one and its footprint has none: there is none now either, and nothing is said of it."""
    trained("binary", "logistic")
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    monkeypatch.setitem(globals(), "YAML", YAML.replace("seed: 7,", "seed: 7, refit: false,"))
    with disable_run_logger():
        train(tmp_path, "older", "binary", "logistic")

    def older(facts: dict[str, Any]) -> None:
        del facts["configuration"]["search"]["refit"], facts["refit"]

    recorded_otherwise(tmp_path, older, "older")
    project = tmp_path / "projects" / "older" / "project.yaml"
    project.write_text(project.read_text().replace(" refit: false,", ""))
    for found in (again("older"), again("older", as_recorded=True)):
        assert (found["verdict"], found["difference"], found["diverges"]) == ("EXACT", 0.0, None), found
        assert found["reason"] == "the same parameters, bit for bit"


def test_what_was_done_is_said_whatever_was_asked_for(tmp_path, trained, here, monkeypatch):
    """A project that asks for a second fit, and a recipe of a window, which gets none: footprint, rebuild and card say so."""
    trained("binary", "logistic")
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    with disable_run_logger():
        facts = train(tmp_path, "lately", "binary", "logistic", {"kind": "last", "days": 9})
    recorded = footprints.read(Settings().bundles("lately") / "1", digest_of("lately"))
    assert recorded.project().search.refit
    assert recorded.footprint["refit"]["because"].startswith("its window (last 9 days)")
    assert (recorded.refit, facts.refit, "last 9 days of the train part" in card(facts)) == (False, False, True)
    found = again("lately")
    assert (found["verdict"], found["diverges"]) == ("EXACT", None), found


def test_a_version_whose_configuration_this_code_knows_no_more_is_made_again_all_the_same(home: Path, here: None):
    """A key of then that is gone: by today's project.yaml it is made again; as recorded it cannot be, and the message says which key and what to do."""

    def gone(facts: dict[str, Any]) -> None:
        facts["configuration"]["gone"] = 1

    recorded_otherwise(home, gone)
    found = again()
    assert (found["verdict"], found["diverges"]["name"]) == ("EXACT", "gone"), found
    with pytest.raises(ArtifactError, match=r"(?s)does not fit this code: gone: .*keepfit\.code.*--as-recorded"):
        again(as_recorded=True)


def test_a_recipe_that_this_code_knows_no_more_is_said(home: Path, here: None):
    """A parameter of then that is gone: nothing is made, and the report names the recipe and the next move."""

    def gone(facts: dict[str, Any]) -> None:
        facts["recipe"]["family"]["gone"] = 1

    recorded_otherwise(home, gone)
    found = again()
    assert found["verdict"] != "EXACT"
    assert (found["diverges"]["step"], found["diverges"]["name"]) == ("recipe", "logistic")
    assert "check out the commit that its run in MLflow names" in found["diverges"]["cause"]


def digest_of(name: str) -> str:
    """The digest of the bundle of version 1."""
    (row,) = Journal(Settings().journal()).trainings(name)
    return row["detail"]["digest"]


def test_what_a_hook_prints_is_no_step(monkeypatch, capsys, tmp_path):
    """Its words go where a log goes: on stdout stand the steps alone, a line each."""

    def remade(*_):
        print("computing")  # noqa: T201 -- as a hooks.py may
        yield SimpleNamespace(model_dump=lambda mode: {"name": f"rows as {mode}"})

    monkeypatch.setattr(reproduce, "remade", remade)
    monkeypatch.setattr(reproduce.Version, "model_validate_json", lambda _: None)
    reproduce.again("{}", str(tmp_path / "said"))
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == ({"name": "rows as json"}, "computing\n")
