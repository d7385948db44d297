"""Recommenders: what somebody takes next, learned from what people took; as scikit-learn knows estimators. Importing this imports it.

They hold arrays of numbers and names, and answer with numpy alone, which looks at every index: a file with a wrong one
raises. Items are ordered by how much they were taken, so that of equal scores the more popular item comes first, always.
"""

from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator
from sklearn.utils.extmath import randomized_svd

from tasks.ml.tastes import FactorTastes, NeighbourTastes, OwnTastes, Tastes, ranked

MOST_ITEMS = 10_000  # the most taken ones; what is rarer is never recommended
BLOCK = 500  # items that are compared with all at once


class _Recommender(Tastes, BaseEstimator):
    """What recommenders have in common: who took what how often, and what is popular with everybody.

    Attributes:
        items_: the names of the items, the most taken first: (items,).
        shares_: how much of everything each is: (items,).
        users_: the users in order: (users,).
        starts_, own_, weights_: the items that a user took stand from one start to the next, with how much.
    """

    def fit(self, X: Any, y: Any, sample_weight: np.ndarray | None = None) -> Self:
        """Learns from rows of one user column, (n, 1), or none, and the item that each took, (n,)."""
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype="float64")
        codes, names = pd.factorize(np.asarray(y, dtype=object), sort=True)
        taken = np.bincount(codes, weights=weights, minlength=len(names))
        order = np.argsort(-taken, kind="stable")[:MOST_ITEMS]
        places = np.full(len(names), -1)
        places[order] = np.arange(len(order))
        self.items_ = np.array([str(name) for name in names[order]], dtype=str)
        self.shares_ = taken[order] / max(float(taken.sum()), 1e-300)
        self._remember(np.asarray(X), places[codes], weights)
        self._learn()
        return self

    def _remember(self, X: np.ndarray, items: np.ndarray, weights: np.ndarray) -> None:
        """Each user's own items, each once, with the sum of its weights."""
        users, names = pd.factorize(X[:, 0] if X.shape[1] else np.full(len(X), np.nan), sort=True)
        known = (users >= 0) & (items >= 0) & (weights > 0)
        pairs = users[known].astype(np.int64) * len(self.items_) + items[known]
        different, inverse = np.unique(pairs, return_inverse=True)
        counts = np.bincount(different // max(len(self.items_), 1), minlength=len(names))
        self.users_ = np.array(names.tolist(), dtype=None if len(names) else "float64")
        self.starts_ = np.r_[0, np.cumsum(counts)]
        self.own_ = (different % max(len(self.items_), 1)).astype("int32")
        self.weights_ = np.bincount(inverse, weights=weights[known], minlength=len(different))

    def _learn(self) -> None:
        """Whatever a family learns beyond that."""

    def top(self, X: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `best_for`, for rows of one user column, (n, 1), or none."""
        given = np.asarray(X)
        return self.best_for(given[:, 0].tolist() if given.shape[1] else [None] * len(given), k)

    def predict(self, X: Any) -> np.ndarray:
        """The best item for each row's user: (n,)."""
        return self.top(X, 1)[0][:, 0]

    def _matrix(self) -> csr_matrix:
        """Logarithms of how much everybody took, so that the tenth time says less than the first: (users, items)."""
        shape = (len(self.users_), len(self.items_))
        return csr_matrix((np.log1p(self.weights_), self.own_, self.starts_), shape=shape)


class Favourites(OwnTastes, _Recommender):
    """What the user took before, smoothed with what everybody takes: strong where people buy the same again."""

    def __init__(self, smoothing: float = 5.0) -> None:
        self.smoothing = smoothing


class ItemNeighbours(NeighbourTastes, _Recommender):
    """What goes with the user's own items, by the cosine of who took both; an item goes with itself.

    The shrinkage makes cosines small that rest on few users (Bell and Koren 2007, Scalable collaborative filtering, 4.1).
    """

    def __init__(self, neighbours: int = 20, shrinkage: float = 10.0) -> None:
        self.neighbours = neighbours
        self.shrinkage = shrinkage

    def _learn(self) -> None:
        """For each item those that speak for it most: `sources_` and `cosines_`, (items, neighbours)."""
        matrix = self._matrix().tocsc()
        norms = np.sqrt(np.asarray(matrix.power(2).sum(axis=0)).ravel())
        items, width = len(self.items_), min(self.neighbours, len(self.items_))
        self.sources_ = np.zeros((items, width), dtype="int32")
        self.cosines_ = np.zeros((items, width))
        for begin in range(0, items, BLOCK):
            some = slice(begin, begin + BLOCK)
            both = np.asarray((matrix[:, some].T @ matrix).todense())
            cosines = both / (np.outer(norms[some], norms) + self.shrinkage)
            self.sources_[some], self.cosines_[some] = ranked(cosines, width)


class Factors(FactorTastes, _Recommender):
    """A few directions of taste that explain most of who took what (PureSVD; Cremonesi, Koren and Turrin 2010, 3.3)."""

    def __init__(self, components: int = 32, random_state: int = 0) -> None:
        self.components = components
        self.random_state = random_state

    def _learn(self) -> None:
        """Where users and items stand along the directions: `tastes_` (users, d) and `kinds_` (items, d)."""
        matrix = self._matrix()
        width = min(self.components, *matrix.shape)
        self.tastes_, self.kinds_ = np.zeros((matrix.shape[0], width)), np.zeros((matrix.shape[1], width))
        if width:
            left, strengths, right = randomized_svd(matrix, width, random_state=self.random_state)
            self.tastes_, self.kinds_ = left * strengths, np.ascontiguousarray(right.T)
