"""Contents: whether the batches that landed look as they used to, column by column and as a whole."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tasks.ml.profile import PROBABILITIES, Numbers, Profile, Words
from tasks.ml.watching.alarm import Kind
from tasks.ml.watching.oddness import LEAST_SHARE, LEAST_Z, Batch, Look, Looked, few, nothing, oddest, said, time
from tasks.ml.watching.usual import without_each

FEWEST_ROWS = 30  # below which a batch has no distribution
COMMON = 5  # categories whose shares are looked at
NAMED = 5  # columns that an alarm names
LEAST_MOVE = 0.05  # of a column's usual width: less is of no interest


def checked(look: Look) -> list[Looked]:
    """What the checks say of the batches since the last look."""
    table = _table(look)
    return [_values(look, table), _whole(look, table)]


@dataclass(frozen=True)
class _Table:
    """What batches look like, as numbers.

    Attributes:
        batches: the b batches.
        names: of the d summaries: column, and what of it.
        values: (b, d), NaN where a batch has none.
        errors: (b, d) standard errors of sampling, below which no difference counts.
        old: of the batches.
    """

    batches: Sequence[Batch]
    names: Sequence[tuple[str, str]]
    values: np.ndarray
    errors: np.ndarray
    old: int

    @cached_property
    def standardised(self) -> np.ndarray:
        """(b, d) distance of each batch from the old ones beside itself, in robust standard deviations with their sign; 0 where missing."""
        missing = np.isnan(self.values)
        usual = [
            np.median(column[known]) if known.any() else 0.0
            for column, known in zip(self.values.T, ~missing.T, strict=True)
        ]
        filled = np.where(missing, usual, self.values)
        middle, spread = without_each(filled, self.old)
        return np.where(missing, 0.0, (filled - middle) / np.hypot(spread, np.nan_to_num(self.errors, nan=1.0)))


def _table(look: Look) -> _Table | None:
    """The batches that are big enough, the newest of the past and all that are judged; None where there is nothing to judge."""
    big = [
        one
        for one in look.history.batches
        if one.profile is not None and one.profile.rows >= FEWEST_ROWS and one.at <= look.now
    ]
    old = look.old([one.at for one in big])
    kept = big[max(old - look.plan.history, 0) :]
    old = min(old, look.plan.history)
    if len(kept) <= old:
        return None
    profiles = [one.profile for one in kept if one.profile]
    lines = [line for name in profiles[-1].columns for line in _summaries(name, profiles, old)]
    if not lines:
        return None
    values, errors = (np.array([line[index] for line in lines]).T for index in (1, 2))
    return _Table(kept, [line[0] for line in lines], values, errors, old)


Line = tuple[tuple[str, str], Sequence[float], Sequence[float]]


def _summaries(name: str, profiles: Sequence[Profile], old: int) -> Iterator[Line]:
    """The summaries of one column: what it is, its value in each batch, and its error there."""
    columns = [profile.columns.get(name) for profile in profiles]
    yield _shares((name, "share missing"), [None if one is None else one.gaps for one in columns], profiles)
    numbers = [one if isinstance(one, Numbers) and one.kind == "number" else None for one in columns]
    words = [one if isinstance(one, Words) else None for one in columns]
    if any(numbers):
        yield _shares((name, "share of zeros"), [one.zeros if one else None for one in numbers], profiles)
        yield _shares((name, "share of one value"), [one.mode if one else None for one in numbers], profiles)
        yield from _places(name, numbers, old)
    if any(words):
        yield from _kinds(name, words, profiles, old)


def _shares(what: tuple[str, str], shares: Sequence[float | None], profiles: Sequence[Profile]) -> Line:
    """Shares of the rows, with the error that as many drawn rows have."""
    known = np.array([np.nan if share is None else share for share in shares], dtype=float)
    rows = np.array([profile.sampled or profile.rows for profile in profiles], dtype=float)
    drawn = np.sqrt(np.clip(known, 1 / rows, 1 - 1 / rows) * (1 - np.clip(known, 1 / rows, 1 - 1 / rows)) / rows)
    return what, list(known), list(np.hypot(drawn, LEAST_SHARE))


def _places(name: str, numbers: Sequence[Numbers | None], old: int) -> Iterator[Line]:
    """Quantiles of the values that are not 0, in units of the column's usual width; 0 is a share of its own."""
    none = (math.nan,) * len(PROBABILITIES)
    grid = np.array([one.grid if one and one.grid else none for one in numbers])
    low, quarter, half, three, high = (grid[:, place] for place in (1, 5, 10, 15, 19))
    width = _width(three - quarter, high - low, np.abs(half), old=old)
    filled = np.array([one.filled if one else 1 for one in numbers], dtype=float)
    for place, called in ((1, "low end"), (10, "median"), (19, "high end")):
        share, ends = PROBABILITIES[place], (place - 1, place + 1)
        slope = np.ptp(grid[:, ends], axis=1) / np.ptp(PROBABILITIES[list(ends)])
        drawn = np.sqrt(share * (1 - share) / np.maximum(filled, 1)) * np.nan_to_num(slope) / width
        yield (name, called), list(grid[:, place] / width), list(np.hypot(drawn, LEAST_MOVE))


def _width(*widths: np.ndarray, old: int) -> float:
    """The first of some kinds of width that is usually above 0."""
    for one in widths:
        known = one[:old][~np.isnan(one[:old])]
        if len(known) and (usual := float(np.median(known))) > 0:
            return usual
    return 1.0


def _kinds(name: str, words: Sequence[Words | None], profiles: Sequence[Profile], old: int) -> Iterator[Line]:
    """Shares of the usual categories, and of those that were never seen; the mean length of other texts. No category is named."""
    if lengths := [one.length for one in words if one and one.length]:
        usual = float(np.median(lengths))
        values = [np.nan if one is None or one.length is None else one.length / usual for one in words]
        yield (name, "length"), values, [LEAST_MOVE] * len(words)
    shares = [one.shares if one else {} for one in words]
    total: dict[str, float] = {}
    for known in shares[:old]:
        for value, share in known.items():
            total[value] = total.get(value, 0.0) + share
    if not total:
        return
    for place, value in enumerate(sorted(total, key=lambda value: -total[value])[:COMMON]):
        given = [known.get(value, 0.0) if known else None for known in shares]
        yield _shares((name, f"share of its {_nth(place)} category"), given, profiles)
    unseen = [sum(share for value, share in known.items() if value not in total) if known else None for known in shares]
    yield _shares((name, "share of categories not seen before"), unseen, profiles)


def _nth(place: int) -> str:
    return "commonest" if place == 0 else f"{('second', 'third', 'fourth', 'fifth')[place - 1]} commonest"


def _values(look: Look, table: _Table | None) -> Looked:
    """Whether one summary of a batch is far from what it was in those before: the greatest of all, against the greatest of each before."""
    name = "values"
    if table is None:
        return nothing(name, f"batch of {FEWEST_ROWS} rows or more")
    if look.is_few(table.old):
        return few(name, table.old, look.plan.at_least, "batches")
    away = np.abs(table.standardised)
    odd = oddest(away.max(axis=1), table.old, look.alpha([one.at for one in table.batches]), LEAST_Z)
    order = [int(place) for place in np.argsort(-away[odd.place]) if away[odd.place, place] > odd.bar] or [
        int(away[odd.place].argmax())
    ]
    columns = list(dict.fromkeys(table.names[place][0] for place in order))[:NAMED]
    column, what = table.names[order[0]]
    says = (
        f"the batch of {time(table.batches[odd.place].at)} is odd: {what} of {column} is {odd.level:.1f} robust standard deviations from "
        f"the usual; up to {odd.bar:.1f} happens{f'; {len(columns) - 1} more columns are odd' if len(columns) > 1 else ''}"
    )
    kind: Kind = "labels" if columns == [look.history.target] else "values"
    return said(name, kind, odd, f"no column is odd: at most {odd.level:.1f} of {odd.bar:.1f}", says, columns)


def _whole(look: Look, table: _Table | None) -> Looked:
    """Whether a batch is odd as a whole: an isolation forest over all summaries (Liu, Ting and Zhou, 2008), old and new alike."""
    name = "whole batch"
    if table is None:
        return nothing(name, f"batch of {FEWEST_ROWS} rows or more")
    if look.is_few(table.old):
        return few(name, table.old, look.plan.at_least, "batches")
    from sklearn.ensemble import IsolationForest

    vectors = np.clip(table.standardised, -20, 20)
    forest = IsolationForest(n_estimators=100, max_samples=min(256, len(vectors)), random_state=look.seed).fit(vectors)
    odds = -forest.score_samples(vectors)  # 0.5 is ordinary, 1 is alone at once
    odd = oddest(
        odds, table.old, look.alpha([one.at for one in table.batches]), float(np.median(odds[: table.old])) + 0.05
    )
    columns = (
        _blamed(vectors[odd.place], table, lambda some: -forest.score_samples(some)) if odd.level > odd.bar else []
    )
    says = (
        f"the batch of {time(table.batches[odd.place].at)} is odd as a whole: isolation {odd.level:.2f}, up to {odd.bar:.2f} happens; "
        f"most of it by {', '.join(columns)}"
    )
    return said(name, "values", odd, f"no batch is odd as a whole: {odd.level:.2f} of {odd.bar:.2f}", says, columns)


def _blamed(vector: np.ndarray, table: _Table, odds: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """The columns without whose oddness the batch would be the least odd, the greatest part first; none with less than half of that."""
    columns = list(dict.fromkeys(column for column, _ in table.names))
    owner = np.array([columns.index(column) for column, _ in table.names])
    mended = np.where(owner[None, :] == np.arange(len(columns))[:, None], 0.0, vector)
    part = odds(vector[None, :])[0] - odds(mended)
    return [columns[place] for place in np.argsort(-part)[:NAMED] if part[place] >= part.max() / 2]
