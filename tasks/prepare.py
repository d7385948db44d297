"""Prepare: a snapshot becomes parts, or the reason why nothing can be learned from it."""

from functools import partial

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.config.names import artifact_key
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.features import matrix
from tasks.ml.leaks import Stacked
from tasks.ml.lean import give_back
from tasks.ml.pages import contract_table, sentence
from tasks.ml.sealed import Sealed, SealedParts
from tasks.ml.split import FEWEST
from tasks.stores.lake import ROW, Lake, parts
from tasks.stores.minutes import Minutes
from tasks.stores.references import Prepared, Snapshot
from tasks.stores.registry import Registry

SHOWN = 3  # leaks whose reasons stand in the refusal
SHOWN_ROWS = 100  # rows that MLflow shows of a snapshot


@task(name="prepare", cache_policy=NO_CACHE)
def prepare(project: str, snapshot: Snapshot, run: str) -> Prepared:
    """Reads and verifies the snapshot, splits it, looks for leaks, and shows the contract beside what came."""
    settings = Settings()
    use = Project.named(project, settings)
    use.behaviour(settings)  # hooks.py is mended before a model is made, not after
    lake = Lake(project, settings.lake(project), use.contract)
    split = parts(use, snapshot, lake.root)
    with split.kept():
        prepared = examined(use, split, describe(use, split, lake.unjoined(snapshot)))
        some = pd.concat([split.train.head(SHOWN_ROWS), split.validation.head(SHOWN_ROWS)]).head(SHOWN_ROWS)
        table = contract_table(use.whole, partial(_column, split))
    create_table_artifact(
        table, key=artifact_key(project, "contract"),
        description=f"**{project}** {snapshot.name}: {snapshot.rows:,} rows, {snapshot.since[:10]} to {snapshot.until[:10]}, as the contract wants them and as they came."
        + "".join(f"\n\n{sentence(noted)}" for noted in _noted(prepared)),
    )  # fmt: skip
    minutes, sample = Minutes.of(settings, project, run), some.drop(columns=[ROW])
    minutes.note(
        Registry.log_rows, snapshot=snapshot.name, digest=snapshot.digest, sample=sample, context="training", rows=snapshot.rows
    )  # fmt: skip
    counted = prepared.rows | {
        name: n
        for name, n in (("pending", prepared.immature), ("purged", prepared.purged), ("trusted", prepared.trusted))
        if n
    }
    minutes.note(Registry.log, params={f"rows.{part}": rows for part, rows in counted.items()})
    get_run_logger().info("%s", said(prepared))
    return prepared


def _column(split: SealedParts, name: str) -> pd.Series | None:
    """One column of all rows, the holdout's target excepted; one at a time, because all of them need not be in memory once more."""
    known = [part[name] for part in (split.train, split.validation, split.holdout.without_target()) if name in part]
    return pd.concat(known) if known else None


def said(prepared: Prepared) -> str:
    """One line: the parts or why there is no training, rows that wait for their label, values that are new, leaks that do not block."""
    return "; ".join([
        prepared.refused or f"train, validation, holdout: {prepared.rows}; trusted: {prepared.trusted}",
        *([f"pending: {prepared.immature:,} rows whose label may still change"] if prepared.immature else []),
        *([f"purged: {prepared.purged:,} rows whose label was not final when the holdout began"] if prepared.purged else []),
        *([f"{prepared.unripe:,} train rows teach although their label was not final when the holdout began: the history is short beside `matures`"] if prepared.unripe else []),
        *(f"'{name}': {share:.1%} of the validation rows hold a value that train has not" for name, share in prepared.unseen.items()),
        *_noted(prepared),
    ])  # fmt: skip


def _noted(prepared: Prepared) -> list[str]:
    """What forbids no training and is worth a look, a sentence each."""
    return [*prepared.leaks, *([prepared.unjoined] if prepared.unjoined not in prepared.refused else [])]


def describe(use: Project, split: SealedParts, unjoined: str = "") -> Prepared:
    """Sizes, windows and class shares of the parts, and whether they can be learned from; beside which outcomes are `unjoined`."""
    kind, target, time = use.task, use.contract.target, use.contract.time
    parts = {
        "train": Sealed("train", split.train, kind, target),
        "validation": Sealed("validation", split.validation, kind, target),
        "holdout": split.holdout,
    }
    problems = (_unlearnable(part) for part in parts.values())
    refused = (
        next((problem for problem in problems if problem), "")
        or split.trusted.unnamed
        or _untunable(use, split)
        or _entangled(use, split)
    )
    return Prepared(
        rows={name: len(part) for name, part in parts.items()},
        windows={name: part.window(time) for name, part in parts.items()},
        rates={name: part.rate for name, part in parts.items()},
        trusted=len(split.trusted),
        refused="; ".join([refused, *_left_out(split), *filter(None, [unjoined])]) if refused else "",
        immature=split.immature,
        purged=len(split.gap),
        unripe=split.unripe,
        unseen=_unseen(use, split),
        unjoined=unjoined,
    )


def _left_out(split: SealedParts) -> list[str]:
    """The rows that could be in the parts, and are not."""
    told = (
        (split.immature, "rows wait for their label"),
        (len(split.gap), "rows are left out: their label was not final when the holdout began"),
    )
    return [f"{count:,} {why}" for count, why in told if count]


def examined(use: Project, split: SealedParts, prepared: Prepared) -> Prepared:
    """The same, refused when something in the parts knows the target before it should.

    Of the holdout only features and keys are handed on, to find rows and groups that stand on both sides; its target is not.
    """
    if prepared.refused:
        return prepared
    give_back()  # what counting took need not be beside what looking takes
    learned, holdout = Stacked((split.train, split.validation)), split.holdout.without_target()
    questions = use.task.questions(np.concatenate([use.task.truth(part) for part in learned.parts]))
    found = use.leaks.find(learned, questions, holdout, use.whole, use.search.seed, repeats=use.user is not None)
    blocking = [leak.reason for leak in found if leak.blocks]
    more = f" And {len(blocking) - SHOWN} more." if len(blocking) > SHOWN else ""
    return prepared.model_copy(
        update={
            "refused": f"leak: {' '.join(blocking[:SHOWN])}{more}" if blocking else "",
            "leaks": tuple(leak.reason for leak in found if not leak.blocks),
        }
    )


def _untunable(use: Project, split: SealedParts) -> str:
    """Why the search could score no model, or nothing: its folds need truths that differ on both sides, and a feature with a value."""
    some, target = use.split.at_most(split.train, use.search.rows), use.contract.target
    folds = [
        before
        for before, after in use.split.folds(some, use.search.folds, target)
        if use.task.teaches(use.task.truth(before)) and use.task.teaches(use.task.truth(after))
    ]
    if not folds:
        wanted = f"both '{use.labels[0]}' and '{use.labels[1]}'" if use.kind == "binary" else "different values"
        where = f" in {target}" if target else ""
        return f"insufficient classes: none of the {use.search.folds} folds of the train part has {wanted}{where} before and after its cut"
    if not folds[0][list(use.features)].notna().to_numpy().any():
        return f"nothing to learn from: no feature holds any value in the oldest {len(folds[0]):,} rows of the train part, from which the first fold learns"
    return ""


def _entangled(use: Project, split: SealedParts) -> str:
    """Why the computed columns cannot be served, or nothing: what a row gets must not depend on other rows."""
    return use.computing.entangled(matrix(split.train, use.sent), use.search.seed) if use.computing else ""


def _unseen(use: Project, split: SealedParts) -> dict[str, float]:
    """For each column of texts, the share of validation rows whose value train has not; columns without any are left out."""
    texts = [name for name, kind in use.types.items() if kind in {"text", "category"}]
    shares = {
        name: float((split.validation[name].notna() & ~split.validation[name].isin(split.train[name].unique())).mean())
        for name in texts
        if len(split.validation)
    }
    return {name: share for name, share in shares.items() if share}


def _unlearnable(part: Sealed) -> str:
    """Why a part cannot be used, or nothing."""
    if len(part) < FEWEST:
        return f"too few rows: the {part.name} part has {len(part)}, {FEWEST} are needed"
    return part.unlearnable
