"""Gate: every configured question put to the challenger; the verdicts go on record."""

from collections.abc import Mapping
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
from tasks.ml.gates import Evidence, Verdict, judge
from tasks.ml.metrics import Estimate, unpacked
from tasks.stores.journal import Journal
from tasks.stores.references import Scores
from tasks.stores.registry import Registry, as_json


@task(name="gate", cache_policy=NO_CACHE)
def gate(project: str, scores: Scores, run: str) -> list[Verdict]:
    """Judges from the file of answers; may be repeated with the same result."""
    settings = Settings()
    use = Project.named(project, settings)
    past = history(Journal(settings.journal()).trainings(project), use.metric)
    verdicts = [*judge(use.gates, evidence(use, scores, past)), *_one_code()]
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


def evidence(use: Project, scores: Scores, past: tuple[Estimate, ...] = ()) -> Evidence:
    """What the gates look at, from the files of answers and the project's past."""
    answers = pd.read_parquet(Path(scores.answers))
    reference = pd.read_parquet(Path(scores.trusted.answers)) if scores.trusted else None
    return weighed(use, answers, reference, scores.operates, past)


def weighed(
    use: Project, answers: pd.DataFrame, reference: pd.DataFrame | None, operates: Mapping[str, float], past: tuple[Estimate, ...]
) -> Evidence:  # fmt: skip
    """What the gates look at, from the tables of answers on the holdout and on the trusted set, where there is one."""
    whole = _evidence(use, answers, operates, past)
    return whole if reference is None else replace(whole, trusted=_evidence(use, reference, operates, ()))


def _evidence(
    use: Project, answers: pd.DataFrame, operates: Mapping[str, float], past: tuple[Estimate, ...]
) -> Evidence:
    naive = [name for name in answers if name.startswith("baseline ")]
    return Evidence(
        y=unpacked(answers["truth"]), challenger=unpacked(answers["challenger"]), metric=use.goal, seed=use.search.seed,
        baselines={name.removeprefix("baseline "): unpacked(answers[name]) for name in naive},
        champion=unpacked(answers["champion"]) if "champion" in answers else None,
        unseen_by_champion=answers["unseen"].to_numpy(), history=past, kind=use.task, operates=operates,
    )  # fmt: skip
