"""Evaluate: challenger, champion and naive baselines on the same holdout, read here and nowhere before."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import TypeAdapter

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import threads
from tasks.ml.features import matrix
from tasks.ml.metrics import estimate, metrics_of, packed, unpacked
from tasks.ml.split import Split
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
        use.task.truth(pd.concat([split.train, split.validation])),
        candidate,
        champion,
        settings,
    )
    path = Path(candidate.folder).with_name(f"{candidate.run}-{ANSWERS}")
    answers.to_parquet(path)
    scores = summarise(use, answers, candidate.operates, champion.version if champion else None, str(path))
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
    """One row an answer, in order of time: the row's id, the truth, and what everybody said."""
    features = matrix(holdout, {name: column.type for name, column in use.features.items()})
    asked, truth = use.task.asked(features, use.task.truth(holdout), use.search.seed)
    answers = pd.DataFrame({ROW: np.resize(holdout[ROW].to_numpy(), len(truth)), "truth": truth})
    for name, said in use.task.naive(before, truth).items():
        answers[f"baseline {name}"] = packed(said)
    own, _ = _ask(use, asked, Path(candidate.folder), candidate.digest)
    answers["challenger"], answers["unseen"] = packed(own), True
    if champion:
        said, manifest = _ask(use, asked, settings.bundles(use.project) / str(champion.version), champion.digest)
        answers["champion"] = packed(said)
        answers["unseen"] = np.resize(_unseen(use, holdout, manifest), len(truth))
    return answers


def _ask(use: Project, asked: pd.DataFrame, folder: Path, digest: str) -> tuple[np.ndarray, dict[str, Any]]:
    """A bundle's answers for rows of features, and its manifest."""
    manifest, model = bundles.read(folder, digest)
    with threads.limited(threads.share(1)):
        return use.task.answers(model, asked[[feature["name"] for feature in manifest["features"]]]), manifest


def _unseen(use: Project, holdout: pd.DataFrame, manifest: dict[str, Any]) -> np.ndarray:
    """Which rows a model has not seen: (n,) bool, as the split says that it was trained with."""
    split = TypeAdapter(Split).validate_python(manifest["split"]) if "split" in manifest else use.split
    return split.unseen(holdout, manifest["seen_until"])


def summarise(
    use: Project, answers: pd.DataFrame, operates: dict[str, float], champion: int | None, path: str
) -> Scores:
    """The numbers that people look at."""
    y, p = answers["truth"].to_numpy(), unpacked(answers["challenger"])
    sure = {"resamples": 500, "seed": use.search.seed}
    return Scores(
        metric=estimate(use.goal, y, p, **sure),
        champion=estimate(use.goal, y, unpacked(answers["champion"]), **sure) if champion is not None else None,
        champion_version=champion,
        every={name: metric.of(y, p) for name, metric in metrics_of(use.kind).items()},
        baselines={name.removeprefix("baseline "): use.goal.of(y, unpacked(answers[name])) for name in answers if name.startswith("baseline ")},
        operates=operates, panels=use.task.panels(y, p, operates), answers=path,
    )  # fmt: skip
