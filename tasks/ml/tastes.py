"""Tastes: what a recommender has learned, and the items that follow from it for a user, with numpy alone."""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

CELLS = 4_000_000  # scores held at once: 32 MB


class Tastes:
    """What recommenders have in common: who took what how often, and what is popular with everybody.

    Attributes:
        items_: the names of the items, the most taken first: (items,).
        shares_: how much of everything each is: (items,).
        users_: the users in order: (users,).
        starts_, own_, weights_: the items that a user took stand from one start to the next, with how much.
    """

    __slots__ = ()

    items_: np.ndarray
    shares_: np.ndarray
    users_: np.ndarray
    starts_: np.ndarray
    own_: np.ndarray
    weights_: np.ndarray

    def best_for(self, users: Sequence[Any], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The names of the k best items for each user, and their scores: two arrays (n, k).

        Somebody who was never seen, or has no name (None or NaN), gets what is popular. Where there are fewer than k items, names
        are empty and scores 0.
        """
        asked, inverse = _different(users)
        known = self._known(asked)
        best = np.zeros((len(known) + 1, k), dtype=np.int64)
        scores = np.zeros((len(known) + 1, k))
        width = min(k, len(self.items_))
        step = max(1, CELLS // max(len(self.items_), 1))
        for begin in range(0, len(known), step):
            some = slice(begin, begin + step)
            best[:-1][some, :width], scores[:-1][some, :width] = ranked(self._scores(known[some]), width)
        best[-1:, :width], scores[-1:, :width] = ranked(
            self.shares_[None, :], width
        )  # of rows without a user: inverse is -1
        names = self.items_[best] if width else np.full(best.shape, "")
        names[:, width:] = ""
        return names[inverse], scores[inverse]

    def _known(self, asked: list[Any]) -> np.ndarray:
        """The place of each user among those that were learned from, -1 for a new one: (n,)."""
        if not len(self.users_) or not asked:
            return np.full(len(asked), -1)
        same = np.array(asked)
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


class OwnTastes(Tastes):
    """What the user took before, smoothed with what everybody takes: strong where people buy the same again."""

    __slots__ = ()

    smoothing: float

    def _liked(self, users: np.ndarray) -> np.ndarray:
        """Own weight and pseudo-counts of what is popular, as the share of all."""
        taken = self._taken(users) + self.smoothing * self.shares_
        return taken / taken.sum(axis=1, keepdims=True)


class NeighbourTastes(Tastes):
    """What goes with the user's own items; `sources_` and `cosines_`, (items, neighbours), say for each item which speak for it."""

    __slots__ = ()

    sources_: np.ndarray
    cosines_: np.ndarray

    def _liked(self, users: np.ndarray) -> np.ndarray:
        """The sum over the user's items of how much they go with each; what is popular decides where nothing goes."""
        own = np.log1p(self._taken(users))
        scores = 1e-9 * np.tile(self.shares_, (len(users), 1))
        for sources, cosines in zip(self.sources_.T, self.cosines_.T, strict=True):
            scores += own[:, sources] * cosines
        return scores


class FactorTastes(Tastes):
    """Where users, `tastes_` (users, d), and items, `kinds_` (items, d), stand along a few directions."""

    __slots__ = ()

    tastes_: np.ndarray
    kinds_: np.ndarray

    def _liked(self, users: np.ndarray) -> np.ndarray:
        """How far user and item point the same way."""
        return self.tastes_[users] @ self.kinds_.T + 1e-9 * self.shares_


# -- the same as plain data -------------------------------------------------------------------------------------------
class _Plain(msgspec.Struct, frozen=True):
    """The arrays that every recommender has."""

    items_: np.ndarray
    shares_: np.ndarray
    users_: np.ndarray
    starts_: np.ndarray
    own_: np.ndarray
    weights_: np.ndarray

    runs_graph: ClassVar[bool] = False


class Favourites(OwnTastes, _Plain, frozen=True, tag="favourites"):
    """`OwnTastes` as plain data."""

    smoothing: float


class ItemNeighbours(NeighbourTastes, _Plain, frozen=True, tag="item_neighbours"):
    """`NeighbourTastes` as plain data."""

    sources_: np.ndarray
    cosines_: np.ndarray


class Factors(FactorTastes, _Plain, frozen=True, tag="factors"):
    """`FactorTastes` as plain data."""

    tastes_: np.ndarray
    kinds_: np.ndarray


PLAIN: dict[str, type[Favourites] | type[ItemNeighbours] | type[Factors]] = {
    each.__name__: each for each in (Favourites, ItemNeighbours, Factors)
}


def ranked(scores: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the best scores of each row, of equal ones the first, and those scores: two arrays (n, width)."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :width]
    return best, np.take_along_axis(scores, best, axis=1)


def _different(users: Sequence[Any]) -> tuple[list[Any], np.ndarray]:
    """Each user once, and of each row the place of its user among them, -1 where it has none."""
    places: dict[Any, int] = {}
    inverse = [-1 if user is None or user != user else places.setdefault(user, len(places)) for user in users]  # noqa: PLR0124 -- NaN
    return list(places), np.array(inverse, dtype=np.int64)
