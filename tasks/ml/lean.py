"""Fitting a pipeline of numbers in little memory: scikit-learn alone would hold the matrix five times over.

Context: a median in `SimpleImputer`, a variance in `StandardScaler` and the joining in `ColumnTransformer` copy all rows each.
Choice: what an imputer looks at (medians, and which columns have gaps) is said by two rows; a scaler takes the rows in blocks,
which it is made for; and what the preparation makes of the rows is written block by block into one array. Price: the variances
differ in their last digits from those of a single pass. Where texts or times are among the columns, scikit-learn goes its own way.
"""

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

BLOCK = 8_192  # rows that are prepared at a time


def fit(pipeline: "Pipeline", features: pd.DataFrame, truth: np.ndarray | None, weights: np.ndarray | None) -> None:
    """Fits a pipeline of a preparation and a model, in place; memory that is free by then is given back before.

    Args:
        pipeline: as `models.pipeline` makes it.
        features: (n, p) the rows to learn from.
        truth: (n,) what came true; None where the model learns without.
        weights: (n,) how much each row counts; None where all count alike.
    """
    give_back()
    weighed = {} if weights is None else {"sample_weight": weights}
    if not _of_numbers(pipeline[0]) or not len(features):
        pipeline.fit(features, truth, **{f"model__{name}": value for name, value in weighed.items()})
        return
    pipeline[-1].fit(_prepared(pipeline[0], features), truth, **weighed)


def _of_numbers(prepare: "ColumnTransformer") -> bool:
    """Whether it prepares numbers, and nothing else."""
    return [name for name, _, _ in prepare.transformers] == ["numbers"]


def _prepared(prepare: "ColumnTransformer", features: pd.DataFrame) -> np.ndarray:
    """What the preparation, fitted here, makes of the rows: (n, columns), each row's numbers side by side."""
    names = prepare.transformers[0][2]
    prepare.fit(_summary(features, names))
    step = prepare.named_transformers_["numbers"]
    if list(features.columns) == names and prepare.transformers[0][1] == "passthrough":
        return features.to_numpy()  # a view, where the numbers stand in one block
    if "scale" in getattr(step, "named_steps", {}):
        _scaled(step, features[names])
    made = np.empty((len(features), prepare.transform(features.head(1)).shape[1]))
    for first in range(0, len(features), BLOCK):
        made[first : first + BLOCK] = prepare.transform(features.iloc[first : first + BLOCK])
    return made


def _summary(features: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Two rows that have the medians of all in the columns of these names, the second one a gap where any row has one."""
    medians = np.array([features[name].median() for name in names])
    gaps = np.array([features[name].hasnans for name in names])
    rows = np.vstack([medians, np.where(gaps, np.nan, medians)])
    return features.iloc[[0, 0]].reset_index(drop=True).assign(**dict(zip(names, rows.T, strict=True)))


def _scaled(step: "Pipeline", numbers: pd.DataFrame) -> None:
    """Fits the scaler behind a fitted imputer, block by block."""
    fill, scale = step[0], step[-1]
    scale.fit(fill.transform(numbers.iloc[:BLOCK]))
    for first in range(BLOCK, len(numbers), BLOCK):
        scale.partial_fit(fill.transform(numbers.iloc[first : first + BLOCK]))


def give_back() -> None:
    """Gives memory that is free in this process back to the system; else it is there beside what is needed next."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # the C library of Linux
        trim(0)
