"""The registry on a real MLflow: SQLite beside a folder, no server."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io

from tasks.config.provenance import pinned
from tasks.ml.contract import Column
from tasks.ml.models import HistGradientBoosting, Logistic, pipeline
from tasks.stores import bundles
from tasks.stores.registry import Registry, as_json

# MLflow says this of its own classes when its pyfunc module is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
COLUMNS = {"age": Column(type="float", nullable=True), "sex": Column(type="category", nullable=True)}
DIGEST = hashlib.sha256(b"rows").hexdigest()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A project's registry; MLflow's address in this process is put back afterwards."""
    import mlflow

    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # set_tracking_uri writes it; it is put back as it was
        yield Registry("thyroid", f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
        patch.setenv("MLFLOW_TRACKING_URI", before[0])


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    """Rows as pipelines meet them, with gaps."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": rng.normal(40, 20, 200), "sex": pd.Series(rng.choice(["f", "m"], 200), dtype="str")})
    rows.loc[::9, "age"] = np.nan
    rows.loc[::7, "sex"] = np.nan
    return rows


def logged(registry: Registry, sample: pd.DataFrame, family: Logistic | HistGradientBoosting) -> tuple[str, str]:
    """A run with a pipeline that was fitted on labels as texts: ids of the run and of the logged model."""
    truth = np.where(sample["age"].fillna(0) > 40, "finding", "healthy")
    model = pipeline(family, COLUMNS, 0).fit(sample, truth)
    run = registry.start("thyroid v1-abcdef01", {"keepfit.trigger": "a test"})
    needed = pinned("scikit-learn", "pandas", "numpy", "skops")
    return run, registry.log_model(
        run, model, sample.head(20), model.predict_proba(sample.head(20))[:, 1], bundles.REVIEWED, needed
    )


def test_an_experiment_is_made_once(registry: Registry):
    """Asked for twice it is the same; its files go straight to the artifact folder."""
    first = registry.experiment()
    assert registry.experiment() == first
    found = registry.client.get_experiment(first)
    assert found.name == "thyroid"
    assert found.artifact_location == (registry.artifacts / "thyroid").as_uri()


def test_an_experiment_that_was_deleted_is_restored(registry: Registry):
    """Somebody deleted it in MLflow: the next run begins in it all the same, beside the older ones."""
    first = registry.start("thyroid v1-abcdef01", {})
    registry.client.delete_experiment(registry.experiment())
    second = registry.start("thyroid v2-abcdef01", {})
    assert {first, second} <= {run.info.run_id for run in registry.client.search_runs([registry.experiment()])}


def test_a_run_holds_what_was_logged(registry: Registry, tmp_path: Path):
    """Parameters, metrics, a series and files of a run read back as they were given; the run ends as it ended."""
    run = registry.start("thyroid v1-abcdef01", {"keepfit.trigger": "a test"})
    registry.log(
        run, params={"family": "logistic", "C": 0.5}, metrics={"roc_auc": 0.93, "trials": 4}, tags={"seed": "7"}
    )
    registry.log_series(run, "trial.roc_auc", [(1000, 0, 0.91), (2000, 1, 0.93)])
    registry.log_files(run, {"trials.json": as_json([1, 2]), "card/README.md": "# Größe", "report.png": b"\x89PNG"})
    registry.end(run)
    found = registry.client.get_run(run)
    assert found.info.run_name == "thyroid v1-abcdef01"
    assert found.info.status == "FINISHED"
    assert found.data.params == {"family": "logistic", "C": "0.5"}
    assert found.data.metrics == {"roc_auc": 0.93, "trials": 4.0, "trial.roc_auc": 0.93}
    assert {"keepfit.trigger": "a test", "seed": "7"}.items() <= found.data.tags.items()
    series = registry.client.get_metric_history(run, "trial.roc_auc")
    assert [(row.timestamp, row.step, row.value) for row in series] == [(1000, 0, 0.91), (2000, 1, 0.93)]
    assert {file.path for file in registry.client.list_artifacts(run)} == {"trials.json", "card", "report.png"}
    assert registry.read_text(run, "card/README.md") == "# Größe"
    assert json.loads(registry.read_text(run, "trials.json")) == [1, 2]
    assert registry.link(run) is None


def test_a_table_is_one_that_mlflow_shows(registry: Registry):
    """MLflow's own reader finds the rows; logged again a table is replaced, and the others stay. No number is an empty cell."""
    run = registry.start("thyroid v1-abcdef01", {})
    registry.log_table(run, "importance", {"column": ["a", "b"], "loss": [0.5, float("nan")]})
    registry.log_table(run, "slices", {"slice": ["x"]})
    registry.log_table(run, "importance", {"column": ["c", "d"], "loss": [0.25, float("nan")]})
    found = registry.client.load_table(registry.experiment(), "importance.json", run_ids=[run])
    assert found["column"].tolist() == ["c", "d"]
    assert found["loss"].iloc[0] == 0.25
    assert pd.isna(found["loss"].iloc[1])
    shown = json.loads(registry.client.get_run(run).data.tags["mlflow.loggedArtifacts"])
    assert sorted(shown, key=str) == [{"path": f"{name}.json", "type": "table"} for name in ("importance", "slices")]


def test_nothing_to_log_is_no_error(registry: Registry):
    """A search without a finished trial logs an empty series."""
    run = registry.start("empty", {})
    registry.log(run)
    registry.log_series(run, "trial.roc_auc", [])
    registry.log_files(run, {})
    registry.end(run, failed=True)
    assert registry.client.get_run(run).info.status == "FAILED"


def test_the_rows_are_named_by_our_own_digest(registry: Registry, sample: pd.DataFrame):
    """MLflow's digest is the first 32 digits of ours; the whole SHA-256 stands beside it, with the number of rows."""
    run = registry.start("rows", {})
    registry.log_rows(run, "v1-abcdef01", DIGEST, sample.head(100), "training", 9172)
    inputs = registry.client.get_run(run).inputs
    assert inputs is not None
    found = inputs.dataset_inputs
    assert [(row.dataset.name, row.dataset.digest) for row in found] == [("thyroid v1-abcdef01", DIGEST[:32])]
    tags = {tag.key: tag.value for tag in found[0].tags}
    assert tags == {"mlflow.data.context": "training", "rows": "9172", "sha256": DIGEST}


@pytest.mark.parametrize("family", [Logistic(), HistGradientBoosting(max_iter=5)], ids=lambda family: family.kind)
def test_a_model_is_logged_without_a_pickle(registry: Registry, sample: pd.DataFrame, family):
    """Every family is kept as skops with its signature and the lock's pins; read with our reviewed list it answers."""
    import mlflow

    run, model = logged(registry, sample, family)
    info = mlflow.models.get_model_info(f"models:/{model}")
    assert info.signature is not None
    assert info.signature.inputs.input_names() == ["age", "sex"]
    assert info.flavors["sklearn"]["serialization_format"] == "skops"
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model}"))
    assert not [path.name for path in folder.rglob("*") if path.suffix in {".pkl", ".pickle", ".joblib"}]
    assert {*(folder / "requirements.txt").read_text().split()} >= {*pinned("scikit-learn", "pandas", "numpy", "skops")}
    answers = skops.io.load(folder / "model.skops", trusted=list(bundles.REVIEWED)).predict_proba(sample)
    assert answers.shape == (len(sample), 2)
    assert registry.client.get_run(run).info.status == "FINISHED"


def test_the_same_digest_is_the_same_version(registry: Registry, sample: pd.DataFrame):
    """Registering again what was registered changes nothing; another digest is the next version, with its tags."""
    run, model = logged(registry, sample, Logistic())
    first = registry.register(run, model, "a" * 64, {"keepfit.snapshot": "v1"}, "the first")
    assert registry.register(run, model, "a" * 64, {"keepfit.snapshot": "v1"}, "the first") == first
    second = registry.register(run, model, "b" * 64, {"keepfit.snapshot": "v2"}, "the second")
    assert (first, second) == (1, 2)
    found = registry.client.get_model_version("thyroid", str(second))
    assert found.tags == {"keepfit.model_digest": "b" * 64, "keepfit.snapshot": "v2"}
    assert (found.description, found.run_id) == ("the second", run)


def test_an_alias_moves(registry: Registry, sample: pd.DataFrame):
    """The alias points where it was pointed last, at one version only; pointing there again changes nothing."""
    run, model = logged(registry, sample, Logistic())
    versions = [registry.register(run, model, digit * 64, {}, "") for digit in "cd"]
    for version in (versions[0], versions[1], versions[1]):
        registry.point("champion", version)
        assert int(registry.client.get_model_version_by_alias("thyroid", "champion").version) == version
    assert registry.client.get_model_version("thyroid", str(versions[0])).aliases == []


def test_a_number_that_a_version_has_had_is_given_to_no_other(registry: Registry, sample: pd.DataFrame):
    """MLflow came back without its versions: the next one follows on the highest that is known elsewhere, and nothing else is there."""
    own = Registry("restored", registry.uri, registry.artifacts)
    run, model = logged(own, sample, Logistic())
    assert [own.register(run, model, digit * 64, {}, "", above=above) for above, digit in enumerate("ab")] == [1, 2]
    own.client.delete_registered_model("restored")
    assert own.register(run, model, "c" * 64, {}, "", above=2) == 3
    assert own.register(run, model, "d" * 64, {}, "", above=3) == 4
    assert own.register(run, model, "c" * 64, {}, "", above=9) == 3
    assert {each.version for each in own.client.search_model_versions("name='restored'")} == {3, 4}
