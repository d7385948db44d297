"""Scoring: encoded rows to scores, and scores to answers. The numbers are added up in scikit-learn's order, so that they are the same."""

from typing import Protocol

import msgspec
import numpy as np
from scipy.special import expit

from tasks.ml.tastes import Factors, Favourites, ItemNeighbours

FLOAT32 = float(np.finfo(np.float32).max)


class Session(Protocol):
    """Whoever runs the graph of a form."""

    def run(self, outputs: list[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The named outputs."""
        ...


class Trees(msgspec.Struct, frozen=True, tag="trees"):
    """Trees in a graph: (n, width) to (n, outputs) float64.

    Attributes:
        single: whether the trees were cut on float32 numbers, as forests are; the graph makes them so.
    """

    single: bool = False

    @property
    def runs_graph(self) -> bool:
        """It does."""
        return True

    def scores(self, encoded: np.ndarray, session: Session | None) -> np.ndarray:
        """The sums over the trees' leaves.

        Raises:
            ValueError: a number is beyond float32 where the trees were cut on those.
        """
        if self.single and (np.abs(encoded) > FLOAT32).any():
            raise ValueError("a number is beyond float32")
        if session is None:
            raise TypeError("trees need the session of their graph")
        return session.run(["scores"], {"features": encoded})[0]


class Linear(msgspec.Struct, frozen=True, tag="linear"):
    """A weighted sum: (n, width) to (n, outputs)."""

    weights: np.ndarray
    intercept: np.ndarray

    @property
    def runs_graph(self) -> bool:
        """It does not."""
        return False

    def scores(self, encoded: np.ndarray, session: Session | None) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The sums."""
        return encoded @ self.weights + self.intercept


class Mixture(msgspec.Struct, frozen=True, tag="mixture"):
    """The log-density of a mixture of Gaussians with full covariances, negative: (n, width) to (n, 1).

    Attributes:
        roots: (components, width, width) Cholesky factors of the precisions.
        centers: (components, width) means, each times its root.
        heights: (components,) logarithm of weight and determinant.
    """

    roots: np.ndarray
    centers: np.ndarray
    heights: np.ndarray

    @property
    def runs_graph(self) -> bool:
        """It does not."""
        return False

    def scores(self, encoded: np.ndarray, session: Session | None) -> np.ndarray:  # noqa: ARG002 -- the interface
        """How odd each row is (Bishop 2006, Pattern Recognition and Machine Learning, 9.2)."""
        apart = np.stack(
            [
                np.square(encoded @ root - center).sum(axis=1)
                for root, center in zip(self.roots, self.centers, strict=True)
            ],
            axis=1,
        )
        each = -0.5 * (encoded.shape[1] * np.log(2 * np.pi) + apart) + self.heights
        most = each.max(axis=1, keepdims=True)
        return -(np.log(np.exp(each - most).sum(axis=1, keepdims=True)) + most)


Model = Trees | Linear | Mixture | Favourites | ItemNeighbours | Factors


# -- endings ----------------------------------------------------------------------------------------------------------
class Chance(msgspec.Struct, frozen=True, tag="chance"):
    """The log-odds of the second class, (n, 1), to the probability of both."""

    def of(self, scores: np.ndarray) -> np.ndarray:
        """(n, 2)."""
        return both(expit(scores[:, 0]))


class Softmax(msgspec.Struct, frozen=True, tag="softmax"):
    """Log-odds of each class, up to a constant, to probabilities."""

    def of(self, scores: np.ndarray) -> np.ndarray:
        """(n, classes)."""
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


class Mean(msgspec.Struct, frozen=True, tag="mean"):
    """Sums over trees to means."""

    trees: int

    def of(self, scores: np.ndarray) -> np.ndarray:
        """The same shape."""
        return scores / self.trees


class Depth(msgspec.Struct, frozen=True, tag="depth"):
    """Summed depths to oddness (Liu, Ting and Zhou 2008, Isolation Forest, 3)."""

    usual: float

    def of(self, scores: np.ndarray) -> np.ndarray:
        """The same shape."""
        return 2.0 ** (-(scores / self.usual))


class Second(msgspec.Struct, frozen=True, tag="second"):
    """Of the probabilities of two classes the second."""

    def of(self, scores: np.ndarray) -> np.ndarray:
        """(n, 1)."""
        return scores[:, 1:]


class Sigmoid(msgspec.Struct, frozen=True, tag="sigmoid"):
    """A calibrated score of the second class, (n, 1), to the probability of both (Platt 1999)."""

    slope: float
    offset: float

    def of(self, scores: np.ndarray) -> np.ndarray:
        """(n, 2)."""
        return both(expit(-(self.slope * scores[:, 0] + self.offset)))


class Logarithm(msgspec.Struct, frozen=True, tag="logarithm"):
    """Probabilities as log-odds."""

    least: float = 1e-12

    def of(self, scores: np.ndarray) -> np.ndarray:
        """The same shape."""
        return np.log(scores + self.least)


class Temperature(msgspec.Struct, frozen=True, tag="temperature"):
    """Log-odds times one number (Guo et al. 2017)."""

    beta: float

    def of(self, scores: np.ndarray) -> np.ndarray:
        """The same shape."""
        return self.beta * scores


class Flat(msgspec.Struct, frozen=True, tag="flat"):
    """One number a row."""

    def of(self, scores: np.ndarray) -> np.ndarray:
        """(n,)."""
        return scores[:, 0]


Ending = Chance | Softmax | Mean | Depth | Second | Sigmoid | Logarithm | Temperature | Flat


def both(second: np.ndarray) -> np.ndarray:
    """The probabilities of two classes, (n, 2), from that of the second, (n,)."""
    chances = np.empty((len(second), 2))
    chances[:, 1] = second
    np.subtract(1, second, out=chances[:, 0])
    return chances
