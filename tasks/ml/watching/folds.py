"""Folds: boosted forests each of which says of the rows of one fold what it learned from the others; asked again, tree by tree, without a column."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

FOLDS = 3


@dataclass(frozen=True)
class Fold:
    """Rows that a small boosted forest did not learn from.

    Attributes:
        forest: scikit-learn's, of two classes.
        places: (rows,) where they stand among all.
        rows: (rows, columns) as numbers.
    """

    forest: Any
    places: np.ndarray
    rows: np.ndarray

    @cached_property
    def said(self) -> np.ndarray:
        """What the forest says of the rows, above 0 for the second class: (rows,)."""
        return self.parts.sum(axis=0)

    def without(self, column: int, values: np.ndarray) -> np.ndarray:
        """The same where a column holds other values; trees that do not ask about it say what they said."""
        asking = np.flatnonzero(self.asks[:, column])
        if not len(asking):
            return self.said
        rows, parts = self.rows.copy(), self.parts.copy()
        rows[:, column] = values
        parts[1 + asking] = [self._leaves(self.trees[at], rows) for at in asking]
        return parts.sum(axis=0)

    @cached_property
    def trees(self) -> list[Any]:
        """In the order in which they were grown."""
        return [tree for (tree,) in self.forest._predictors]

    @cached_property
    def parts(self) -> np.ndarray:
        """What the forest starts from, and what each tree adds: (1 + trees, rows)."""
        start = np.full(len(self.rows), self.forest._baseline_prediction.item())
        return np.stack([start, *(self._leaves(tree, self.rows) for tree in self.trees)])

    @cached_property
    def asks(self) -> np.ndarray:
        """Which tree asks about which column: (trees, columns) bool."""
        found = np.zeros((len(self.trees), self.rows.shape[1]), dtype=bool)
        for at, tree in enumerate(self.trees):
            found[at, tree.nodes["feature_idx"][tree.nodes["is_leaf"] == 0]] = True
        return found

    def _leaves(self, tree: Any, rows: np.ndarray) -> np.ndarray:
        return tree.predict(rows, *self._no_categories, 1)

    @cached_property
    def _no_categories(self) -> tuple[np.ndarray, np.ndarray]:
        return self.forest._bin_mapper.make_known_categories_bitsets()


def learned(rows: np.ndarray, y: np.ndarray, seed: int) -> list[Fold]:
    """A forest for each fold, learned from the others.

    Args:
        rows: (n, columns) numbers, NaN where missing.
        y: (n,) 0 or 1.
        seed: of the folds.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    found = []
    for learn, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(rows, y):
        forest = HistGradientBoostingClassifier(
            max_iter=20, max_leaf_nodes=6, max_bins=32, learning_rate=0.2, early_stopping=False, random_state=seed
        )
        found.append(Fold(forest.fit(_askable(rows[learn]), y[learn]), test, rows[test]))
    return found


def _askable(rows: np.ndarray) -> np.ndarray:
    """The same with 0 in columns of which no row has a value: scikit-learn finds no bins for them, and no tree asks about a constant."""
    return np.where(np.isnan(rows).all(axis=0), 0.0, rows)
