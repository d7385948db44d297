"""What is usual: how far is too far, learned from a thing's own past within a budget of false alarms, and where a series changed."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

TAIL = 0.25  # share of the past that is its tail, of at least and at most so many values:
TAIL_LEAST, TAIL_VALUES = 3, 30
OWN_ALARMS = 0.05  # share of the past that may be left out because it would be an alarm itself
SEGMENT = 3  # values that a level needs on either side of a change
DRAWS = 499  # orders of a series that a split is tried against
EULER = 0.5772156649
MAD = 1.4826  # of a normal distribution: standard deviation over median absolute deviation


def bar(past: np.ndarray, alpha: float, least: float) -> float:
    """What the next score exceeds with a chance of about `alpha` while all is as usual; never below `least`.

    Inside of what was seen and beyond it the tail is taken to be that of a Pareto distribution: the logarithm's excesses over the upper
    quarter are exponential. Their mean is only estimated, from k of them; that the next one exceeds x has then the chance
    (1 + x / (k mean))^-k exactly (a ratio of gamma variables), so that a short past makes a high bar by itself.
    B. M. Hill (1975), A simple general approach to inference about the tail of a distribution, Annals of Statistics 3(5).

    Args:
        past: (n,) scores of the past, n at least 4, 0 or more, each measured against the rest of the past.
        alpha: above 0.
        least: the smallest score that is of interest; scores far below it are all the same.

    >>> round(bar(np.arange(1.0, 41.0), 0.001, 1.0))  # the past is no bound: the tail goes on
    101
    >>> bar(np.zeros(20), 0.01, 4.0)
    4.0
    """
    logs = np.sort(np.log(np.maximum(np.asarray(past, dtype=float), least / 4)))
    rare = min(alpha, 0.1 / len(logs))  # what leaves hardly any value of a calm past out
    for many in range(int(OWN_ALARMS * len(logs)), 0, -1):  # the many first: two alike would hide each other
        if logs[-many] > max(_edge(logs[:-many], rare), np.log(least)):
            logs = logs[:-many]
            break
    return float(np.exp(max(_edge(logs, alpha), np.log(least))))


def _edge(logs: np.ndarray, alpha: float) -> float:
    """The bar on the logarithmic scale, of sorted logarithms."""
    many = min(max(int(TAIL * len(logs)), TAIL_LEAST), TAIL_VALUES, len(logs) - 1)
    start = logs[-many - 1]
    share = many / len(logs)
    if alpha >= share:
        return float(np.quantile(logs, 1 - alpha))
    return float(start + np.sum(logs[-many:] - start) * ((share / alpha) ** (1 / many) - 1))


def without_each(values: np.ndarray, old: int) -> tuple[np.ndarray, np.ndarray]:
    """Median and scaled median absolute deviation of the old rows beside each row itself: (n, d), (n, d).

    Args:
        values: (n, d) without gaps, the old rows first.
        old: how many they are, at least 2.

    >>> middle, spread = without_each(np.array([[1.0], [2.0], [4.0], [9.0]]), 3)
    >>> middle.ravel().tolist(), (spread / MAD).ravel().tolist()
    ([3.0, 2.5, 1.5, 2.0], [1.0, 1.5, 0.5, 1.0])
    """
    past = values[:old]
    others = past[np.array([np.delete(np.arange(old), place) for place in range(old)])]  # (old, old - 1, d)
    middle = np.median(others, axis=1)
    spread = np.median(np.abs(others - middle[:, None, :]), axis=1)
    whole = np.median(past, axis=0)
    new = np.ones((len(values) - old, 1))
    spread = np.vstack([spread, new * np.median(np.abs(past - whole), axis=0)])
    return np.vstack([middle, new * whole]), MAD * spread


def usual_of(values: np.ndarray, groups: Sequence[int], old: int, least: int = 3) -> np.ndarray:
    """(n,) what is usual for each value: the median of the old ones of its group, as of its weekday, beside itself.

    Where a group has fewer than `least` others, all old ones count.

    Args:
        values: (n,) the old ones first.
        groups: (n,) of which kind each is.
        old: how many they are, at least 2.
        least: others that a group needs.

    >>> usual_of(np.array([1.0, 9.0, 2.0, 9.0, 3.0, 4.0, 5.0]), [0, 1, 0, 1, 0, 0, 0], 6).tolist()
    [3.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.5]
    """
    kinds = np.asarray(groups)
    is_old = np.arange(len(values)) < old
    found = np.where(is_old, _median_beside(values, is_old), np.median(values[:old]))
    for kind in np.unique(kinds):
        mine = is_old & (kinds == kind)
        if mine.sum() >= least:
            found[~is_old & (kinds == kind)] = np.median(values[mine])
        if mine.sum() > least:
            found[mine] = _median_beside(values, mine)[mine]
    return found


def _median_beside(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n,) for each of the chosen the median of the others that are chosen; 0 elsewhere."""
    few = values[chosen]
    order = np.argsort(few, kind="stable")
    place = np.empty(len(few), dtype=int)
    place[order] = np.arange(len(few))
    sizes = few[order]
    ends = [
        sizes[at + (at >= place)] for at in ((len(few) - 2) // 2, (len(few) - 1) // 2)
    ]  # the middle of what is left
    found = np.zeros(len(values))
    found[chosen] = (ends[0] + ends[1]) / 2
    return found


def changes(values: np.ndarray, alpha: float, rng: np.random.Generator, segment: int = SEGMENT) -> list[int]:
    """Where the level of a series changed: the first place of each new level, in order.

    Binary segmentation (Scott and Knott, 1974): the split with the greatest rank CUSUM counts when hardly any order of the values has a
    greater one, and both parts are looked at in turn. What neighbours have in common widens the bar by the square root of
    (1 + r) / (1 - r), r being their correlation beside the levels (M. S. Bartlett, 1946), less its bias (M. G. Kendall, 1954).

    Args:
        values: (n,) without gaps, equally far apart.
        alpha: the chance of a change where there is none.
        rng: draws the orders.
        segment: values that a level has at least.

    >>> series = np.r_[np.arange(20) % 3, 9 + np.arange(10) % 3]
    >>> changes(series, 0.01, np.random.default_rng(1))
    [20]
    """
    return sorted(_changes(np.asarray(values, dtype=float), alpha, rng, segment, 0))


def _changes(values: np.ndarray, alpha: float, rng: np.random.Generator, segment: int, start: int) -> Iterator[int]:
    if len(values) < 4 * segment:
        return
    where, chance = _split(values, rng, segment)
    if chance <= alpha:
        yield start + where
        yield from _changes(values[:where], alpha, rng, segment, start)
        yield from _changes(values[where:], alpha, rng, segment, start + where)


def _split(values: np.ndarray, rng: np.random.Generator, segment: int) -> tuple[int, float]:
    """The best place to split at, and the chance of one as good in a series without a change."""
    from scipy.stats import rankdata

    ranks = rankdata(values)
    path = _cusum(ranks[None, :], segment)[0]
    where = int(path.argmax()) + segment
    shuffled = rng.permuted(np.broadcast_to(ranks, (DRAWS, len(ranks))), axis=1)
    return where, _chance(path.max(), _cusum(shuffled, segment).max(axis=1) * _widened(ranks, where))


def _chance(level: float, drawn: np.ndarray) -> float:
    """The chance of a greatest value of that size: a Gumbel distribution with the mean and the spread of those drawn goes on where they end."""
    scale = max(float(np.std(drawn)) * math.sqrt(6) / math.pi, 1e-12)
    return -math.expm1(-math.exp(-min((level - float(np.mean(drawn))) / scale + EULER, 700.0)))


def _widened(ranks: np.ndarray, where: int) -> float:
    """How much wider a sum over neighbours spreads than one over strangers."""
    rest = np.r_[ranks[:where] - ranks[:where].mean(), ranks[where:] - ranks[where:].mean()]
    if not rest.any():
        return 1.0
    alike = float(rest[1:] @ rest[:-1] / (rest @ rest))
    alike = min(max(alike + (1 + 4 * alike) / len(ranks), 0.0), 0.9)
    return float(np.sqrt((1 + alike) / (1 - alike)))


def _cusum(ranks: np.ndarray, segment: int) -> np.ndarray:
    """(draws, splits) the standardised difference of the means before and after each split."""
    n = ranks.shape[1]
    sums = np.cumsum(ranks - ranks.mean(axis=1, keepdims=True), axis=1)[:, segment - 1 : n - segment]
    before = np.arange(segment, n - segment + 1)
    return np.abs(sums) / np.sqrt(before * (n - before) / n)
