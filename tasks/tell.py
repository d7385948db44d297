"""Tell: a file of outcomes by prediction id goes where outcomes over HTTP go, to be known of the predictions."""

import datetime as dt
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.config.errors import BatchError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.contract import Column
from tasks.ml.outcomes import AT
from tasks.stores import files
from tasks.stores.predictions import Told

PREDICTION = "prediction_id"  # an outcome names a row by its key, or a prediction by this


def by_prediction(use: Project, path: Path) -> bool:
    """Whether the outcomes of a file name predictions; what does not read is left to landing, which says why."""
    try:
        return PREDICTION in files.columns(path, use.reads)
    except BatchError:
        return False


def tell(use: Project, path: Path, settings: Settings, clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> dict[str, Any]:  # fmt: skip
    """Takes the outcomes of a file: `prediction_id`, the target, and `outcome_at` where it was not just now. May be repeated.

    Returns:
        {"project", "state", "arrived", "told", "refused", "rules": how many broke which rule, "reason"}; arrived = told + refused.

    Raises:
        BatchError: the project has no target, or the file lacks a column or is broken; what came before the broken place is told.
    """
    columns, told, rules, arrived = _columns(use), Told(settings.home), Counter[str](), 0
    for chunk in files.chunks(path, use.reads, tuple(columns)):
        values, broken = _checked(use, columns, chunk)
        fits = np.flatnonzero(broken == "")
        rows = pa.table(values).take(pa.array(fits, pa.int64())).to_pylist()
        told.tell(use.project, clock(), [(row[PREDICTION], row[use.contract.target], row.get(AT)) for row in rows])
        rules.update(broken[broken != ""].tolist())
        arrived += len(chunk)
    refused = rules.total()
    why = "".join(f"; {rule}: {count:,}" for rule, count in rules.most_common(3))
    return {
        "project": use.project, "state": "told" if arrived > refused or not arrived else "refused", "arrived": arrived, "told": arrived - refused,
        "refused": refused, "rules": dict(rules), "reason": f"{path.name}: {arrived:,} arrived, {arrived - refused:,} told, {refused:,} refused{why}",
    }  # fmt: skip


def _columns(use: Project) -> dict[str, Column]:
    """What an outcome of a prediction holds."""
    target = use.contract.target
    if target is None:
        raise BatchError(
            f"{use.project} has no target, so nothing can come true of its predictions. Nothing was changed."
        )
    own = use.contract.columns[target].model_copy(update={"nullable": False})
    return {PREDICTION: Column(type="text"), target: own, AT: Column(type="datetime", nullable=True)}


def _checked(use: Project, columns: dict[str, Column], chunk: pa.Table) -> tuple[dict[str, pa.Array], np.ndarray]:
    """The values, and of each row the first rule that it breaks, else an empty text."""
    broken, values = np.full(len(chunk), "", dtype=object), dict[str, pa.Array]()
    for name, column in columns.items():
        if name in chunk.column_names:
            values[name], faults = column.check(chunk[name].combine_chunks(), use.reads.decimal)
            for rule, mask in faults.items():
                broken[mask & (broken == "")] = f"{name} {rule}"
        elif not column.nullable:
            raise BatchError(
                f"The outcomes have no column '{name}'. Wanted: {', '.join(columns)}. Nothing was changed."
            )
    return values, broken
