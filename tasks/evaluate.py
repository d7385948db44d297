"""Evaluate: challenger, champion and naive baselines on the same holdout, read here and nowhere before."""

from pathlib import Path

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.baselines import naive
from tasks.ml.features import matrix
from tasks.ml.metrics import METRICS, calibration_table, confusion, estimate
from tasks.ml.models import probabilities
from tasks.stores import bundles
from tasks.stores.journal import Journal, Release
from tasks.stores.lake import ROW, parts
from tasks.stores.references import Candidate, Scores, Snapshot
from tasks.stores.registry import Registry

ANSWERS = "holdout.parquet"  # what everybody answered on the holdout, a row each


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(project: str, snapshot: Snapshot, candidate: Candidate) -> Scores:
    """Scores everybody on the holdout and keeps every answer beside the candidate."""
    settings = Settings()
    use = Project.named(project, settings)
    split = parts(use, snapshot, settings.lake(project))
    champion = Journal(settings.journal()).champion(project)
    answers = _answers(
        use,
        split.holdout,
        use.truth(pd.concat([split.train, split.validation])).to_numpy(),
        candidate,
        champion,
        settings,
    )
    path = Path(candidate.folder).with_name(f"{candidate.run}-{ANSWERS}")
    answers.to_parquet(path)
    scores = summarise(use, answers, candidate.threshold, champion.version if champion else None, str(path))
    every = {f"holdout.{name}": value for name, value in scores.every.items()}
    Registry(project, settings.mlflow(), settings.artifacts).log(
        candidate.run,
        metrics=every
        | {f"holdout.{use.metric}.low": scores.metric.low, f"holdout.{use.metric}.high": scores.metric.high},
    )
    get_run_logger().info(
        "%s on %s holdout rows: %s; champion %s", use.goal.label, len(answers), scores.metric, scores.champion or "none"
    )
    return scores


def _answers(
    use: Project,
    holdout: pd.DataFrame,
    before: np.ndarray,
    candidate: Candidate,
    champion: Release | None,
    settings: Settings,
) -> pd.DataFrame:
    """One row a holdout row, in order of time: id, truth, and everybody's probability."""
    truth = use.truth(holdout).to_numpy()
    answers = pd.DataFrame({ROW: holdout[ROW], "truth": truth})
    for name, chances in naive(before, truth).items():
        answers[f"baseline {name}"] = chances
    answers["challenger"], _ = _ask(use, holdout, Path(candidate.folder), candidate.digest)
    answers["unseen"] = True
    if champion:
        answers["champion"], seen_until = _ask(
            use, holdout, settings.bundles(use.project) / str(champion.version), champion.digest
        )
        answers["unseen"] = (holdout[use.split.column] > pd.Timestamp(seen_until)).to_numpy()
    return answers


def _ask(use: Project, rows: pd.DataFrame, folder: Path, digest: str) -> tuple[np.ndarray, str]:
    """A bundle's probabilities for rows, and the time up to which it has seen rows."""
    manifest, model = bundles.read(folder, digest)
    types = {feature["name"]: feature["type"] for feature in manifest["features"]}
    return probabilities(model, matrix(rows, types), use.labels[1]), manifest["seen_until"]


def summarise(use: Project, answers: pd.DataFrame, threshold: float, champion: int | None, path: str) -> Scores:
    """The numbers that people look at."""
    y, p = answers["truth"].to_numpy(), answers["challenger"].to_numpy()
    sure = {"resamples": 500, "seed": use.search.seed}
    return Scores(
        metric=estimate(use.goal, y, p, **sure),
        champion=estimate(use.goal, y, answers["champion"].to_numpy(), **sure) if champion is not None else None,
        champion_version=champion,
        every={name: metric.of(y, p) for name, metric in METRICS.items()},
        baselines={name.removeprefix("baseline "): use.goal.of(y, answers[name].to_numpy()) for name in answers if name.startswith("baseline ")},
        confusion=confusion(y, p, threshold), calibration=calibration_table(y, p), answers=path,
    )  # fmt: skip
