"""Gate: every configured question put to the challenger; the verdicts go on record."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.config import plans, provenance
from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.gates import Change, ChangePlan, Envelope, Evidence, Made, Served, Verdict, judge
from tasks.ml.metrics import Estimate, unpacked
from tasks.ml.recipe import Recipe
from tasks.ml.watching.drift import moved
from tasks.stores import bundles
from tasks.stores.journal import BY_ITSELF, Journal, Release
from tasks.stores.lake import Lake, parts
from tasks.stores.minutes import Minutes
from tasks.stores.references import COLUMN, Candidate, Scores, Snapshot
from tasks.stores.registry import Registry, as_json

MONTH = dt.timedelta(days=30)


@task(name="gate", cache_policy=NO_CACHE)
def gate(project: str, snapshot: Snapshot, candidate: Candidate, scores: Scores, config: str) -> list[Verdict]:
    """Judges from the file of answers, and from what is on record of the inputs; may be repeated with the same result.

    `config`: what the training goes by, as it was admitted; a challenger that was made while that changed is refused.
    """
    settings = Settings()
    use = Project.named(project, settings)
    journal = Journal(settings.journal())
    trainings = journal.trainings(project)
    shown = replace(
        evidence(use, scores, history(trainings, use.metric), looks(trainings, scores.champion_version)),
        made=made(Lake(project, settings.lake(project), use.contract), snapshot),
        envelope=_planned(use, settings, journal, snapshot, scores.judged(candidate), scores),
    )
    verdicts = [*judge(use.gates, shown), *_one_code(), *_one_configuration(use, snapshot, config)]
    minutes = Minutes.of(settings, project, candidate.run)
    minutes.note(Registry.log, metrics={f"gate.{verdict.gate}": float(verdict.passed) for verdict in verdicts})
    minutes.note(Registry.log_files, files={"verdicts.json": as_json([verdict.model_dump() for verdict in verdicts])})
    for verdict in verdicts:
        get_run_logger().info("%s %s: %s", "passed" if verdict.passed else "REFUSED", verdict.gate, verdict.reason)
    return verdicts


def _one_code() -> list[Verdict]:
    """A refusal when the code changed while the training ran: nobody could say which code made the model."""
    return [Verdict(gate="code", passed=False, reason=changed)] if (changed := provenance.changed()) else []


def _one_configuration(use: Project, snapshot: Snapshot, admitted: str) -> list[Verdict]:
    """The same of project.yaml and hooks.py: rows that one split tuned on may judge in another."""
    if provenance.conditions(use.digest, snapshot.trusted) == admitted:
        return []
    changed = (
        "project.yaml or hooks.py changed while this ran: nobody could say which of the two was judged; start it again"
    )
    return [Verdict(gate="code", passed=False, reason=changed)]


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


def _planned(
    use: Project, settings: Settings, journal: Journal, snapshot: Snapshot, candidate: Candidate, scores: Scores
) -> Envelope:
    """The project's plan, with what the challenger changes where there is one."""
    found = plans.envelope(use, settings)
    if found.plan is None:
        return found
    return replace(
        found, change=change(use, found.plan, snapshot, candidate, scores.every, journal.releases(use.project))
    )


def change(
    use: Project,
    plan: ChangePlan,
    snapshot: Snapshot,
    candidate: Candidate,
    measured: dict[str, float],
    releases: list[Release],
) -> Change:
    """What would change if the challenger became champion; the drift of the rows only where the plan limits it."""
    recipe = Recipe.model_validate(bundles.manifest_of(Path(candidate.folder), candidate.digest)["recipe"])
    name, drift = _moved(use, snapshot) if plan.drift is not None else ("", None)
    month = (dt.datetime.now(dt.UTC) - MONTH).isoformat()
    retrains = sum(each.at >= month and each.actor.startswith(BY_ITSELF) for each in releases)
    found = Change.of(recipe, recipe.columns(use.features), measured)
    return replace(found, drift=drift, drifted=name, retrains=retrains)


def _moved(use: Project, snapshot: Snapshot) -> tuple[str, float]:
    """The feature that moved most within the snapshot, and how far; targets are not looked at."""
    split = parts(use, snapshot, Settings().lake(use.project))
    known = [split.train, split.validation, split.holdout.without_target()]
    return moved(pd.concat(known, ignore_index=True), use.types, use.contract.time)


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
    answers, rows = pd.read_parquet(Path(scores.answers)), pd.read_parquet(Path(scores.rows)) if scores.rows else None
    reference = pd.read_parquet(Path(scores.trusted.answers)) if scores.trusted else None
    return replace(
        weighed(use, answers, reference, rows, scores.operates), history=past, looks=before, operated=scores.operated,
        unasked=scores.unasked, behaved=scores.behaved, is_refresh=scores.is_refresh, rehearsal=scores.rehearsal,
        served=_served(pd.read_parquet(Path(scores.served))) if scores.served else None,
    )  # fmt: skip


def weighed(
    use: Project, answers: pd.DataFrame, reference: pd.DataFrame | None, rows: pd.DataFrame | None, operates: Mapping[str, float]
) -> Evidence:  # fmt: skip
    """What the gates look at of answers alone.

    Args:
        use: the project.
        answers: on the holdout.
        reference: on the trusted set, where there is one.
        rows: the row that each answer is about.
        operates: how the challenger's answers become decisions.
    """
    times = rows[use.contract.time].to_numpy("datetime64[us]") if rows is not None and use.task.has_moments else None
    return replace(
        _evidence(use, answers, operates), floor=use.floor, slices=use.slices, features=rows, types=use.beside, times=times,
        trusted=None if reference is None else _evidence(use, reference, operates),
    )  # fmt: skip


def _served(found: pd.DataFrame) -> Served:
    rows = {name.removeprefix(COLUMN): found[name] for name in found if name.startswith(COLUMN)}
    return Served(pd.DataFrame(rows), unpacked(found["challenger"]), unpacked(found["champion"]))


def _evidence(use: Project, answers: pd.DataFrame, operates: Mapping[str, float]) -> Evidence:
    naive = [name for name in answers if name.startswith("baseline ")]
    return Evidence(
        y=unpacked(answers["truth"]), challenger=unpacked(answers["challenger"]), metric=use.goal, seed=use.search.seed,
        baselines={name.removeprefix("baseline "): unpacked(answers[name]) for name in naive},
        champion=unpacked(answers["champion"]) if "champion" in answers else None,
        unseen_by_champion=answers["unseen"].to_numpy(), kind=use.task, operates=operates,
        heard=unpacked(answers["heard"]) if "heard" in answers else None,
        decided=answers["decided"].to_numpy(dtype=object) if "decided" in answers else None,
    )  # fmt: skip
