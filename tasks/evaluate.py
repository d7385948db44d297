"""Evaluate: challenger, champion and naive baselines on the same holdout, read here and nowhere before."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import TypeAdapter

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import threads
from tasks.ml.explain import Importance
from tasks.ml.features import matrix
from tasks.ml.metrics import estimate, metrics_of, packed, unpacked
from tasks.ml.split import Split
from tasks.stores import bundles
from tasks.stores.journal import Journal
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
    features = matrix(split.holdout, use.types)
    asked, truth = use.task.asked(features, use.task.truth(split.holdout), use.search.seed)
    own = _Bundle.read(Path(candidate.folder), candidate.digest)
    before = _Bundle.read(settings.bundles(project) / str(champion.version), champion.digest) if champion else None
    answers = _answers(
        use,
        split.holdout,
        use.task.truth(pd.concat([split.train, split.validation])),
        lambda values: use.task.told(features, values),
        asked,
        truth,
        own,
        before,
    )
    path = Path(candidate.folder).with_name(f"{candidate.run}-{ANSWERS}")
    answers.to_parquet(path)
    with threads.limited(threads.share(1)):
        importance = Importance.of_model(use.task, use.goal, own.model, asked[own.columns], truth, seed=use.search.seed)
    scores = summarise(  # planted rows come last, and users' questions are fewer than rows
        use,
        asked.head(len(features)),
        answers,
        importance,
        candidate.operates,
        champion.version if champion else None,
        str(path),
    )
    every = {f"holdout.{name}": value for name, value in scores.every.items()}
    registry = Registry(project, settings.mlflow(), settings.artifacts)
    for name, table in (("importance", scores.importance), ("slices", scores.slices)):
        if table:
            registry.log_table(candidate.run, name, table.table())
    registry.log(
        candidate.run,
        metrics=every
        | {f"holdout.{use.metric}.low": scores.metric.low, f"holdout.{use.metric}.high": scores.metric.high},
    )
    get_run_logger().info(
        "%s on %s holdout rows: %s; champion %s", use.goal.label, len(answers), scores.metric, scores.champion or "none"
    )
    return scores


@dataclass(frozen=True)
class _Bundle:
    """A model with what its manifest says of it."""

    manifest: dict[str, Any]
    model: Any

    @classmethod
    def read(cls, folder: Path, digest: str) -> Self:
        """The bundle of that digest."""
        return cls(*bundles.read(folder, digest))

    @property
    def columns(self) -> list[str]:
        """The columns that the model reads."""
        return [feature["name"] for feature in self.manifest["features"]]

    def answers(self, use: Project, asked: pd.DataFrame) -> np.ndarray:
        """What it says of rows of features."""
        with threads.limited(threads.share(1)):
            return use.task.answers(self.model, asked[self.columns])


def _answers(
    use: Project,
    holdout: pd.DataFrame,
    before: np.ndarray,
    told: Callable[[np.ndarray], np.ndarray],
    asked: pd.DataFrame,
    truth: np.ndarray,
    challenger: _Bundle,
    champion: _Bundle | None,
) -> pd.DataFrame:
    """One row an answer, in order of time: the row's id, the truth, and what everybody said."""
    answers = pd.DataFrame({ROW: told(holdout[ROW].to_numpy()), "truth": packed(truth)})
    for name, said in use.task.naive(before, truth).items():
        answers[f"baseline {name}"] = packed(said)
    answers["challenger"], answers["unseen"] = packed(challenger.answers(use, asked)), True
    if champion:
        answers["champion"] = packed(champion.answers(use, asked))
        answers["unseen"] = told(_unseen(use, holdout, champion.manifest))
    return answers


def _unseen(use: Project, holdout: pd.DataFrame, manifest: dict[str, Any]) -> np.ndarray:
    """Which rows a model has not seen: (n,) bool, as the split says that it was trained with."""
    split = TypeAdapter(Split).validate_python(manifest["split"]) if "split" in manifest else use.split
    return split.unseen(holdout, manifest["seen_until"])


def summarise(
    use: Project,
    features: pd.DataFrame,
    answers: pd.DataFrame,
    importance: Importance,
    operates: dict[str, float],
    champion: int | None,
    path: str,
) -> Scores:
    """The numbers that people look at."""
    y, p = unpacked(answers["truth"]), unpacked(answers["challenger"])
    before = unpacked(answers["champion"]) if champion is not None else None
    sure = {"resamples": 500, "seed": use.search.seed}
    metric = estimate(use.goal, y, p, **sure)
    slices = use.slices.measure(
        use.goal, features, use.types, y, p, before, answers["unseen"].to_numpy(), whole=metric, seed=use.search.seed
    )
    return Scores(
        metric=metric,
        champion=estimate(use.goal, y, before, **sure) if before is not None else None,
        champion_version=champion,
        every={name: metric.of(y, p) for name, metric in metrics_of(use.kind).items()},
        baselines={name.removeprefix("baseline "): use.goal.of(y, unpacked(answers[name])) for name in answers if name.startswith("baseline ")},
        operates=operates, panels=use.task.panels(y, p, operates), importance=importance, slices=slices, answers=path,
    )  # fmt: skip
