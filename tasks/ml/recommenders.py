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

MOST_ITEMS = 10_000  # the most taken ones; what is rarer is never recommended
CELLS = 4_000_000  # scores held at once: 32 MB
BLOCK = 500  # items that are compared with all at once


class _Recommender(BaseEstimator):
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
        """The names of the k best items for each row's user, and their scores: two arrays (n, k).

        Somebody who was never seen, or has no name, gets what is popular. Where there are fewer than k items, names are
        empty and scores 0.
        """
        given = np.asarray(X)
        asked, inverse = pd.factorize(given[:, 0] if given.shape[1] else np.full(len(given), np.nan))[::-1]
        known = self._known(np.asarray(asked))
        best = np.zeros((len(known) + 1, k), dtype=np.int64)
        scores = np.zeros((len(known) + 1, k))
        width = min(k, len(self.items_))
        step = max(1, CELLS // max(len(self.items_), 1))
        for begin in range(0, len(known), step):
            some = slice(begin, begin + step)
            best[:-1][some, :width], scores[:-1][some, :width] = _best(self._scores(known[some]), width)
        best[-1:, :width], scores[-1:, :width] = _best(
            self.shares_[None, :], width
        )  # of rows without a user: inverse is -1
        names = self.items_[best] if width else np.full(best.shape, "")
        names[:, width:] = ""
        return names[inverse], scores[inverse]

    def predict(self, X: Any) -> np.ndarray:
        """The best item for each row's user: (n,)."""
        return self.top(X, 1)[0][:, 0]

    def _known(self, asked: np.ndarray) -> np.ndarray:
        """The place of each user among those that were learned from, -1 for a new one: (n,)."""
        if not len(self.users_) or not len(asked):
            return np.full(len(asked), -1)
        same = np.array(asked.tolist())
        if (same.dtype.kind == "U") != (self.users_.dtype.kind == "U"):
            return np.full(len(asked), -1)
        at = np.minimum(np.searchsorted(self.users_, same), len(self.users_) - 1)
        return np.where(self.users_[at] == same, at, -1)

    def _scores(self, known: np.ndarray) -> np.ndarray:
        """How much each user should like each item: (n, items); of new users what is popular."""
        scores = np.tile(self.shares_, (len(known), 1))
        seen = known >= 0
        if seen.any():
            scores[seen] = self._liked(known[seen])
        return scores

    def _liked(self, users: np.ndarray) -> np.ndarray:
        """The same of users that were learned from."""
        raise NotImplementedError

    def _taken(self, users: np.ndarray) -> np.ndarray:
        """How much each of these users took of each item: (n, items)."""
        taken = np.zeros((len(users), len(self.items_)))
        for row, user in enumerate(users.tolist()):
            mine = slice(self.starts_[user], self.starts_[user + 1])
            taken[row, self.own_[mine]] = self.weights_[mine]
        return taken

    def _matrix(self) -> csr_matrix:
        """Logarithms of how much everybody took, so that the tenth time says less than the first: (users, items)."""
        shape = (len(self.users_), len(self.items_))
        return csr_matrix((np.log1p(self.weights_), self.own_, self.starts_), shape=shape)


class Favourites(_Recommender):
    """What the user took before, smoothed with what everybody takes: strong where people buy the same again."""

    def __init__(self, smoothing: float = 5.0) -> None:
        self.smoothing = smoothing

    def _liked(self, users: np.ndarray) -> np.ndarray:
        """Own weight and pseudo-counts of what is popular, as the share of all."""
        taken = self._taken(users) + self.smoothing * self.shares_
        return taken / taken.sum(axis=1, keepdims=True)


class ItemNeighbours(_Recommender):
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
            self.sources_[some], self.cosines_[some] = _best(cosines, width)

    def _liked(self, users: np.ndarray) -> np.ndarray:
        """The sum over the user's items of how much they go with each; what is popular decides where nothing goes."""
        own = np.log1p(self._taken(users))
        scores = 1e-9 * np.tile(self.shares_, (len(users), 1))
        for sources, cosines in zip(self.sources_.T, self.cosines_.T, strict=True):
            scores += own[:, sources] * cosines
        return scores


class Factors(_Recommender):
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

    def _liked(self, users: np.ndarray) -> np.ndarray:
        """How far user and item point the same way."""
        return self.tastes_[users] @ self.kinds_.T + 1e-9 * self.shares_


def _best(scores: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the best scores of each row, of equal ones the first, and those scores: two arrays (n, width)."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :width]
    return best, np.take_along_axis(scores, best, axis=1)
