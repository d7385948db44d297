"""Gate: every configured question put to the challenger; the verdicts go on record."""

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.config import provenance
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.gates import Evidence, Served, Verdict, judge
from tasks.ml.metrics import Estimate, unpacked
from tasks.stores.journal import Journal
from tasks.stores.references import COLUMN, Scores
from tasks.stores.registry import Registry, as_json


@task(name="gate", cache_policy=NO_CACHE)
def gate(project: str, scores: Scores, run: str) -> list[Verdict]:
    """Judges from the file of answers; may be repeated with the same result."""
    settings = Settings()
    use = Project.named(project, settings)
    trainings = Journal(settings.journal()).trainings(project)
    past, before = history(trainings, use.metric), looks(trainings, scores.champion_version)
    verdicts = [*judge(use.gates, evidence(use, scores, past, before)), *_one_code()]
    registry = Registry(project, settings.mlflow(), settings.artifacts)
    registry.log(run, metrics={f"gate.{verdict.gate}": float(verdict.passed) for verdict in verdicts})
    registry.log_files(run, {"verdicts.json": as_json([verdict.model_dump() for verdict in verdicts])})
    for verdict in verdicts:
        get_run_logger().info("%s %s: %s", "passed" if verdict.passed else "REFUSED", verdict.gate, verdict.reason)
    return verdicts


def _one_code() -> list[Verdict]:
    """A refusal when the code changed while the training ran: nobody could say which code made the model."""
    return [Verdict(gate="code", passed=False, reason=changed)] if (changed := provenance.changed()) else []


def history(trainings: list[dict[str, Any]], metric: str) -> tuple[Estimate, ...]:
    """The metric of every earlier challenger, oldest first; one that was too good to be true sets no standard."""
    return tuple(
        Estimate(value=detail["value"], low=detail["low"], high=detail["high"])
        for detail in (training["detail"] for training in trainings)
        if detail.get("metric") == metric
        and all(isfinite(detail[name]) for name in ("value", "low", "high"))
        and all(verdict["passed"] for verdict in detail["verdicts"] if verdict["gate"] == "plausible")
    )


def looks(trainings: list[dict[str, Any]], champion: int | None) -> int:
    """How many challengers were held against this champion before; each look has spent a part of the error."""
    against = (training["detail"].get("champion") for training in trainings if training["detail"].get("verdicts"))
    return sum(found is not None and found["version"] == champion for found in against)


def evidence(use: Project, scores: Scores, past: tuple[Estimate, ...] = (), before: int = 0) -> Evidence:
    """What the gates look at, from the files of answers and the project's past.

    Args:
        use: the project.
        scores: where the files are.
        past: the metric of earlier challengers.
        before: how many challengers were held against this champion.
    """
    whole = _evidence(use, scores, pd.read_parquet(Path(scores.answers)))
    rows = pd.read_parquet(Path(scores.rows)) if scores.rows else None
    times = rows[use.contract.time].to_numpy("datetime64[us]") if rows is not None and use.task.has_moments else None
    return replace(
        whole, history=past, looks=before, floor=use.floor, slices=use.slices, features=rows, types=use.beside, times=times,
        behaved=scores.behaved, is_refresh=scores.is_refresh,
        trusted=_evidence(use, scores, pd.read_parquet(Path(scores.trusted.answers))) if scores.trusted else None,
        served=_served(pd.read_parquet(Path(scores.served))) if scores.served else None,
    )  # fmt: skip


def _served(found: pd.DataFrame) -> Served:
    rows = {name.removeprefix(COLUMN): found[name] for name in found if name.startswith(COLUMN)}
    return Served(pd.DataFrame(rows), unpacked(found["challenger"]), unpacked(found["champion"]))


def _evidence(use: Project, scores: Scores, answers: pd.DataFrame) -> Evidence:
    naive = [name for name in answers if name.startswith("baseline ")]
    return Evidence(
        y=unpacked(answers["truth"]), challenger=unpacked(answers["challenger"]), metric=use.goal, seed=use.search.seed,
        baselines={name.removeprefix("baseline "): unpacked(answers[name]) for name in naive},
        champion=unpacked(answers["champion"]) if "champion" in answers else None,
        unseen_by_champion=answers["unseen"].to_numpy(), kind=use.task, operates=scores.operates, operated=scores.operated,
    )  # fmt: skip
