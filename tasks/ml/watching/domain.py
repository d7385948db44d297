"""Domain classifier: can rows of a window be told from rows of the reference? What several columns do together shows here, even where none moved alone.

Friedman (2003), On multivariate goodness-of-fit and two-sample testing; Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from pydantic import BaseModel
from scipy.stats import rankdata

from tasks.ml.threads import limited

FOLDS = 3
FEWEST = 100  # rows of either side, below which nothing is learned
GIVING = 5  # features named at most
SEEN = 20  # values of a category that are told apart; segments of a number
SEGMENTS = 3  # segments named at most
HELD = 40  # rows of either side in a segment, below which nothing is said of it
SURE = 3.0  # standard errors by which a segment's AUC must be above the rest's


class Domain(BaseModel, frozen=True, extra="forbid"):
    """Whether two sets of rows can be told apart.

    Attributes:
        auc: how well, cross-validated: ½ not at all, 1 always.
        error: standard error of the AUC if they could not, and rows were independent (Mann and Whitney, 1947).
        rows: of the reference and of the window that were looked at.
        features: that give it away, the greatest part first: name and how much the AUC falls when its values are shuffled.
        segments: where it is, as conditions on features.
    """

    auc: float
    error: float
    rows: tuple[int, int]
    features: tuple[tuple[str, float], ...] = ()
    segments: tuple[str, ...] = ()


def sampled(rows: pd.DataFrame, most: int, seed: int = 0) -> pd.DataFrame:
    """At most so many of the rows, drawn without order, but in order."""
    if len(rows) <= most:
        return rows
    return rows.iloc[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]


def told_apart(
    reference: pd.DataFrame, window: pd.DataFrame, *, seed: int = 0, threads: int = 1, explain: bool = False
) -> Domain | None:
    """How well rows of a window can be told from rows of the reference; None where either has fewer than 100.

    Args:
        reference: some rows of it, raw, a few thousand; times do not count.
        window: some of its rows, with the same columns.
        seed: of the folds.
        threads: that learning may use.
        explain: also which features and segments give it away; takes longer.
    """
    if min(len(reference), len(window)) < FEWEST:
        return None
    X, y = (
        as_numbers(pd.concat([reference, window], ignore_index=True)),
        np.repeat([0, 1], [len(reference), len(window)]),
    )
    n, m = len(reference), len(window)
    with limited(threads):
        models, folds = _learned(X.to_numpy(), y, seed)
        said = _said(models, folds, X.to_numpy())
        found = Domain(auc=_auc(y, said), error=float(np.sqrt((n + m + 1) / (12 * n * m))), rows=(n, m))
        if not explain:
            return found
        features = _giving(models, folds, X, y, found.auc, seed)
    both = pd.concat([reference[list(X.columns)], window[list(X.columns)]], ignore_index=True)
    return found.model_copy(
        update={"features": features, "segments": _segments(both, y, said, [name for name, _ in features])}
    )


def as_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as numbers, times left out, and what nobody has a value of: a category is its rank by frequency."""
    names = [name for name in rows.columns if not pd.api.types.is_datetime64_any_dtype(rows[name]) and rows[name].notna().any()]  # fmt: skip
    return rows[names].apply(_coded)


def _coded(column: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        return column.astype("Float64").astype("float64").replace([np.inf, -np.inf], [1e300, -1e300])
    counts = column.value_counts()
    ranks = pd.Series(np.minimum(np.arange(len(counts)), 10 * SEEN).astype("float64"), index=counts.index)
    return column.map(ranks).astype("float64")


def _learned(X: np.ndarray, y: np.ndarray, seed: int) -> tuple[list, list[np.ndarray]]:
    """A small boosted forest for each fold, learned from the others; with the rows of the folds."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    models, folds = [], []
    for learn, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y):
        model = HistGradientBoostingClassifier(
            max_iter=20, max_leaf_nodes=6, max_bins=32, learning_rate=0.2, early_stopping=False, random_state=seed
        )
        models.append(model.fit(X[learn], y[learn]))
        folds.append(test)
    return models, folds


def _said(models: Sequence, folds: Sequence[np.ndarray], X: np.ndarray) -> np.ndarray:
    """What each row's model, which did not learn from it, says."""
    said = np.empty(len(X))
    for model, test in zip(models, folds, strict=True):
        said[test] = model.decision_function(X[test])
    return said


def _auc(y: np.ndarray, said: np.ndarray) -> float:
    """ROC AUC by the ranks (Mann and Whitney 1947); scikit-learn's takes ten times as long, most of it to look its arguments over."""
    n, m = int((y == 0).sum()), int((y == 1).sum())
    return float((rankdata(said)[y == 1].sum() - m * (m + 1) / 2) / (n * m))


def _giving(
    models: Sequence, folds: Sequence[np.ndarray], X: pd.DataFrame, y: np.ndarray, auc: float, seed: int
) -> tuple[tuple[str, float], ...]:
    """Features without whose values the AUC falls by a tenth of what it is above chance, the greatest fall first."""
    random, falls = np.random.default_rng(seed), {}
    for at, name in enumerate(X.columns):
        shuffled = X.to_numpy(copy=True)
        shuffled[:, at] = random.permutation(shuffled[:, at])
        falls[str(name)] = auc - _auc(y, _said(models, folds, shuffled))
    most = max(falls.values(), default=0.0)
    kept = [(name, fall) for name, fall in falls.items() if fall > 0.1 * most and fall > 0]
    return tuple(sorted(kept, key=lambda each: -each[1])[:GIVING])


def _segments(rows: pd.DataFrame, y: np.ndarray, said: np.ndarray, giving: Sequence[str]) -> tuple[str, ...]:
    """Conditions under which the sides can be told apart while elsewhere they hardly can, the clearest first.

    Conditions on the features that give it away would only say again that these moved; but categories among them say where.
    """
    found = []
    for name in rows.columns:
        for condition, inside in _conditions(rows[name], str(name)):
            if (sure := _concentrated(y, said, inside)) is not None:
                found.append((sure, condition, str(name)))
    found = [each for each in found if each[2] not in giving[:1]]
    best: dict[str, tuple[float, str]] = {}
    for sure, condition, name in sorted(found, reverse=True):
        best.setdefault(name, (sure, condition))
    return tuple(condition for _, condition in list(best.values())[:SEGMENTS])


def _conditions(column: pd.Series, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Conditions on a column, with the rows that meet them."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.astype("Float64").astype("float64")
        low, high = values.quantile([0.25, 0.75])
        if low < high:
            yield f"{name} <= {low:.4g}", (values <= low).to_numpy()
            yield f"{name} > {high:.4g}", (values > high).to_numpy()
        return
    for value in column.value_counts().index[:SEEN]:
        said = str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value)
        yield f"{name} = {said}", (column == value).fillna(False).to_numpy(dtype=bool)


def _concentrated(y: np.ndarray, said: np.ndarray, inside: np.ndarray) -> float | None:
    """By how many standard errors the AUC inside is above the one outside, where the former is twice as far from chance; None where it is not."""
    held = [int((inside & (y == side)).sum()) for side in (0, 1)]
    rest = [int((~inside & (y == side)).sum()) for side in (0, 1)]
    if min(*held, *rest) < HELD:
        return None
    here, there = _auc(y[inside], said[inside]), _auc(y[~inside], said[~inside])
    error = np.sqrt(sum((n + m + 1) / (12 * n * m) for n, m in (held, rest)))
    sure = (here - there) / error
    return float(sure) if sure >= SURE and here - 0.5 >= 2 * (there - 0.5) else None
