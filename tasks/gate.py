"""Gate: every configured question put to the challenger; the verdicts go on record."""

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.config import provenance
from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.gates import Evidence, Made, Verdict, judge
from tasks.ml.metrics import Estimate, unpacked
from tasks.stores.journal import Journal
from tasks.stores.lake import Lake
from tasks.stores.references import Candidate, Scores, Snapshot
from tasks.stores.registry import Registry, as_json


@task(name="gate", cache_policy=NO_CACHE)
def gate(project: str, snapshot: Snapshot, candidate: Candidate, scores: Scores) -> list[Verdict]:
    """Judges from the file of answers, and from what is on record of the inputs; may be repeated with the same result."""
    settings, run = Settings(), candidate.run
    use = Project.named(project, settings)
    past = history(Journal(settings.journal()).trainings(project), use.metric)
    shown = replace(
        evidence(use, scores, past), made=made(Lake(project, settings.lake(project), use.contract), snapshot)
    )
    verdicts = [*judge(use.gates, shown), *_one_code()]
    registry = Registry(project, settings.mlflow(), settings.artifacts)
    registry.log(run, metrics={f"gate.{verdict.gate}": float(verdict.passed) for verdict in verdicts})
    registry.log_files(run, {"verdicts.json": as_json([verdict.model_dump() for verdict in verdicts])})
    for verdict in verdicts:
        get_run_logger().info("%s %s: %s", "passed" if verdict.passed else "REFUSED", verdict.gate, verdict.reason)
    return verdicts


def _one_code() -> list[Verdict]:
    """A refusal when the code changed while the training ran: nobody could say which code made the model."""
    return [Verdict(gate="code", passed=False, reason=changed)] if (changed := provenance.changed()) else []


def made(lake: Lake, snapshot: Snapshot) -> Made:
    """What a challenger was made of. Every byte of its rows was verified when they were read; here their names are, once more."""
    return Made(
        snapshot=snapshot.name, altered=_altered(lake, snapshot), lock=provenance.lock(), astray=provenance.astray(),
        commit=provenance.commit(), code=provenance.code(),
    )  # fmt: skip


def _altered(lake: Lake, snapshot: Snapshot) -> str:
    try:
        now = lake.snapshot(snapshot.version, snapshot.outcomes, snapshot.window)
    except ArtifactError as error:
        return str(error)
    found = now.digest if now else "none"
    return (
        ""
        if found == snapshot.digest
        else f"its rows have the digest {found[:12]} now, {snapshot.digest[:12]} were learned from"
    )


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
    whole = _evidence(use, scores, answers, past)
    return whole if reference is None else replace(whole, trusted=_evidence(use, scores, reference, ()))


def _evidence(use: Project, scores: Scores, answers: pd.DataFrame, past: tuple[Estimate, ...]) -> Evidence:
    naive = [name for name in answers if name.startswith("baseline ")]
    return Evidence(
        y=unpacked(answers["truth"]), challenger=unpacked(answers["challenger"]), metric=use.goal, seed=use.search.seed,
        baselines={name.removeprefix("baseline "): unpacked(answers[name]) for name in naive},
        champion=unpacked(answers["champion"]) if "champion" in answers else None,
        unseen_by_champion=answers["unseen"].to_numpy(), history=past, kind=use.task, operates=scores.operates,
        rehearsal=scores.rehearsal, heard=unpacked(answers["heard"]) if "heard" in answers else None,
        decided=answers["decided"].to_numpy(dtype=object) if "decided" in answers else None,
    )  # fmt: skip
