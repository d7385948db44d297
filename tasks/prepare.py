"""Prepare: a snapshot becomes parts, or the reason why nothing can be learned from it."""

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.config.names import artifact_key
from tasks.config.project import Project
from tasks.config.provenance import commit
from tasks.config.settings import Settings
from tasks.ml.pages import contract_table
from tasks.ml.split import Parts
from tasks.stores.lake import BATCH, ROW, parts
from tasks.stores.references import Prepared, Snapshot
from tasks.stores.registry import Registry

FEWEST = 50  # rows of a part; with fewer, no number about it means anything
FEWEST_OF_A_CLASS = 5


@task(name="prepare", cache_policy=NO_CACHE)
def prepare(project: str, snapshot: Snapshot, run: str) -> Prepared:
    """Reads and verifies the snapshot, splits it, and shows the contract beside what came."""
    settings = Settings()
    use = Project.named(project, settings)
    split = parts(use, snapshot, settings.lake(project))
    prepared = describe(use, split)
    everything = pd.concat([split.train, split.validation, split.holdout]).drop(columns=[ROW, BATCH])
    create_table_artifact(
        contract_table(use.contract, everything), key=artifact_key(project, "contract"),
        description=f"**{project}** {snapshot.name}: {snapshot.rows:,} rows, {snapshot.since[:10]} to {snapshot.until[:10]}, as the contract wants them and as they came.",
    )  # fmt: skip
    registry = Registry(project, settings.mlflow(), settings.artifacts)
    registry.log_rows(run, snapshot.name, snapshot.digest, everything.head(100), "training", snapshot.rows)
    registry.log(
        run, params={f"rows.{part}": rows for part, rows in prepared.rows.items()}, tags={"keepfit.code": commit()}
    )
    get_run_logger().info("%s", prepared.refused or f"train, validation, holdout: {prepared.rows}")
    return prepared


def describe(use: Project, split: Parts) -> Prepared:
    """Sizes, windows and class shares of the parts, and whether they can be learned from."""
    frames = {"train": split.train, "validation": split.validation, "holdout": split.holdout}
    truths = {name: use.truth(frame) for name, frame in frames.items()}
    windows = {
        name: (str(frame[use.split.column].min()), str(frame[use.split.column].max())) for name, frame in frames.items()
    }
    return Prepared(
        rows={name: len(frame) for name, frame in frames.items()},
        windows=windows,
        rates={name: float(truth.mean()) if len(truth) else 0.0 for name, truth in truths.items()},
        refused=next((problem for name in frames if (problem := _unlearnable(use, name, truths[name]))), ""),
    )


def _unlearnable(use: Project, name: str, truth: pd.Series) -> str:
    """Why a part cannot be used, or nothing."""
    if len(truth) < FEWEST:
        return f"too few rows: the {name} part has {len(truth)}, {FEWEST} are needed"
    positive = int(truth.sum())
    rare = min(positive, len(truth) - positive)
    if rare < FEWEST_OF_A_CLASS:
        label = use.labels[int(positive <= len(truth) - positive)]
        return f"insufficient classes: the {name} part has {rare} rows of '{label}' in {use.contract.target}, {FEWEST_OF_A_CLASS} are needed"
    return ""
