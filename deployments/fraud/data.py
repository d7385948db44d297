"""Card payments of a region and their frauds, simulated after the description of the Fraud Detection Handbook, cut into batches.

`python deployments/fraud/data.py FOLDER [--every week|month|quarter]`

Process: Y.-A. Le Borgne, W. Siblini, B. Lebichot, G. Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection – Practical
Handbook", ULB 2022, chapter 3, sections 2 (simulator) and 4 (baseline features). README.md says where this simulation adds to it or differs.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from tasks.config.demos import cut, main

START = dt.datetime(2025, 1, 6, tzinfo=dt.UTC)  # a Monday
DAYS = 182
SEED = 41
DAY = 86_400  # seconds
HANDBOOK = 5_000  # customers of the handbook's region, of side 100, with twice as many terminals
REACH = 5.0  # how far from home a customer pays
TYPICAL = (5.0, 100.0)  # mean amount of a customer, between
PACE = (0.0, 4.0)  # payments a day of a customer, on average, between
MIDDAY, SPREAD = DAY / 2, 20_000.0  # seconds: when people pay
LARGE = 220.0  # scenario 1: whatever is larger is fraud
TERMINALS, TERMINAL_DAYS = 2.0, 28  # scenario 2: compromised a day in the handbook's region, and for how long
CARDS, CARD_DAYS, CARD_SHARE, CARD_FACTOR = 3.0, 14, 1 / 3, 5.0  # scenario 3: the same of leaked cards
WINDOWS, DELAY = (1, 7, 30), 7  # days: of the features, and until a fraud is known
LARGEST_ID = 1 << 32  # of a customer or terminal

SENT = ["payment", "time", "customer", "terminal", "amount", "away", "weekend", "night"]
FEATURES = [
    f"{who}_{what}_{days}d" for who, ways in (("customer", ("count", "mean")), ("terminal", ("count", "risk"))) for what in ways for days in WINDOWS
]  # fmt: skip


@dataclass(frozen=True)
class Cloned:
    """A new pattern: cards are cloned and used far from home, small amounts at a time, until the customer notices."""

    since: dt.datetime
    a_day: float = 6.0  # cards of the handbook's region
    lasts: int = 10  # days
    share: float = 0.5  # of the card's payments
    amounts: tuple[float, float] = (10.0, 60.0)


@dataclass(frozen=True)
class Hardened:
    """An old pattern fades: no terminal is compromised any more."""

    since: dt.datetime


Change = Cloned | Hardened
CHANGES: tuple[Change, ...] = (
    Cloned(START + dt.timedelta(days=98)),
    Hardened(START + dt.timedelta(days=133)),
)


@dataclass(frozen=True)
class World:
    """Customers and terminals on a square, and what is done to them; every day can be drawn by itself.

    A smaller world is a smaller square of the same density, with as many frauds for each customer.
    """

    customers: int = 1_000
    seed: int = SEED
    changes: tuple[Change, ...] = CHANGES

    @property
    def scale(self) -> float:
        """Of the handbook's region."""
        return self.customers / HANDBOOK

    @cached_property
    def _people(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Homes (n, 2), mean amounts and paces of customers, (n,), and places of terminals, (m, 2)."""
        rng, side = np.random.default_rng([self.seed, 0]), 100 * np.sqrt(self.scale)
        homes, places = rng.uniform(0, side, (self.customers, 2)), rng.uniform(0, side, (2 * self.customers, 2))
        return homes, rng.uniform(*TYPICAL, self.customers), rng.uniform(*PACE, self.customers), places

    @cached_property
    def _near(self) -> tuple[np.ndarray, np.ndarray]:
        """The terminals within reach of each customer, one after another, and where each customer's begin: (n + 1,)."""
        homes, _, _, places = self._people
        found = KDTree(places).query_ball_point(homes, REACH, return_sorted=True)
        return np.concatenate([np.array(each, dtype=np.int64) for each in found]), np.cumsum([0, *map(len, found)])

    def payments(self, since: int, until: int) -> pd.DataFrame:
        """The payments of the days from `since` on and before `until`, by time, with `fraud` and its `scenario` (0: none)."""
        made = pd.concat([self._day(day) for day in range(since, until)], ignore_index=True)
        return made.sort_values(["time", "payment"], ignore_index=True)

    def _day(self, day: int) -> pd.DataFrame:
        rng = np.random.default_rng([self.seed, 1, day])
        _, means, paces, _ = self._people
        near, begins = self._near
        customer = np.repeat(np.arange(self.customers), rng.poisson(paces))
        size = len(customer)
        seconds = rng.normal(MIDDAY, SPREAD, size)
        amount = rng.normal(means[customer], means[customer] / 2)
        chance, pick, third, far, small = rng.random((5, size))
        amount = np.where(amount < 0, 2 * means[customer] * chance, amount).round(2)
        choices = begins[customer + 1] - begins[customer]
        kept = (seconds > 0) & (seconds < DAY) & (choices > 0)
        terminal = near[np.minimum(begins[customer] + (pick * choices).astype(np.int64), len(near) - 1)]
        scenario = np.where(amount > LARGE, 1, 0)
        compromised = self._hit(2, TERMINALS, 2 * self.customers, day, TERMINAL_DAYS, until=self._hardened)
        scenario = np.where(np.isin(terminal, compromised), 2, scenario)
        leaked = np.isin(customer, self._hit(3, CARDS, self.customers, day, CARD_DAYS)) & (third < CARD_SHARE)
        amount, scenario = np.where(leaked, (CARD_FACTOR * amount).round(2), amount), np.where(leaked, 3, scenario)
        for place, pattern in enumerate(change for change in self.changes if isinstance(change, Cloned)):
            begun = self._place_of(pattern.since)
            cards = self._hit(4 + place, pattern.a_day, self.customers, day, pattern.lasts, since=begun)
            cloned = np.isin(customer, cards) & (third >= 1 - pattern.share)
            low, high = pattern.amounts
            terminal = np.where(cloned, (far * 2 * self.customers).astype(np.int64), terminal)
            amount = np.where(cloned, (low + (high - low) * small).round(2), amount)
            scenario = np.where(cloned, 4 + place, scenario)
        stamp = pd.Timestamp(START) + pd.to_timedelta(day * DAY + np.floor(seconds).astype(np.int64), unit="s")
        made = pd.DataFrame({
            "payment": day * 1_000_000 + np.arange(size), "time": stamp, "customer": customer, "terminal": terminal, "amount": amount,
            "away": self._distance(customer, terminal), "fraud": (scenario > 0).astype(np.int64), "scenario": scenario,
        })  # fmt: skip
        return made[kept]

    def _hit(
        self, scenario: int, a_day: float, among: int, day: int, lasts: int, since: int = 0, until: int | None = None
    ) -> np.ndarray:
        """Whoever was hit within the last days: those of each day are drawn once, whichever day asks."""
        last = day if until is None else min(day, until - 1)
        hits = [self._hit_on(scenario, a_day, among, begun) for begun in range(max(since, day - lasts + 1), last + 1)]
        return np.concatenate(hits) if hits else np.empty(0, dtype=np.int64)

    def _hit_on(self, scenario: int, a_day: float, among: int, day: int) -> np.ndarray:
        """As many as there are a day on average, one more or less where that is no whole number."""
        rng, many = np.random.default_rng([self.seed, scenario, day]), a_day * self.scale
        return rng.choice(among, size=int(many) + int(rng.random() < many % 1), replace=False)

    @property
    def _hardened(self) -> int | None:
        return next((self._place_of(change.since) for change in self.changes if isinstance(change, Hardened)), None)

    def _place_of(self, at: dt.datetime) -> int:
        return (at - START).days

    def _distance(self, customer: np.ndarray, terminal: np.ndarray) -> np.ndarray:
        homes, _, _, places = self._people
        return np.hypot(*(homes[customer] - places[terminal]).T).round(2)


def with_features(payments: pd.DataFrame) -> pd.DataFrame:
    """Adds what the bank knows at the moment of each payment: no payment after it, no fraud of the last seven days.

    Of the customer the number and the mean amount of the payments of 1, 7, 30 days, this one included; of the terminal the number
    and the share of frauds of as many days that ended seven days ago; whether it is a weekend, or before seven in the morning.

    Args:
        payments: in order of time.
    """
    seconds = payments["time"].astype("datetime64[s, UTC]").astype("int64").to_numpy()
    found: dict[str, np.ndarray] = {}
    for days in WINDOWS:
        count, total = _within(payments["customer"], seconds, payments["amount"], days * DAY, 0)
        found[f"customer_count_{days}d"], found[f"customer_mean_{days}d"] = count, (total / count).round(4)
    for days in WINDOWS:
        count, frauds = _within(payments["terminal"], seconds, payments["fraud"], days * DAY, DELAY * DAY)
        found[f"terminal_count_{days}d"] = count
        found[f"terminal_risk_{days}d"] = np.divide(frauds, count, out=np.zeros(len(count)), where=count > 0).round(6)
    return payments.assign(
        weekend=(payments["time"].dt.day_of_week >= 5).astype(int),
        night=(payments["time"].dt.hour <= 6).astype(int),
        **found,
    )


def _within(
    who: pd.Series, seconds: np.ndarray, values: pd.Series, length: int, delay: int
) -> tuple[np.ndarray, np.ndarray]:
    """Number and sum of the values of the same one in (t - delay - length, t - delay]; of one instant, those that stand before it too."""
    order = np.lexsort((np.arange(len(seconds)), seconds, who))
    stamps = who.to_numpy()[order].astype(np.int64) * LARGEST_ID + seconds[order]
    sums = np.concatenate([[0.0], np.cumsum(values.to_numpy(dtype=float)[order])])
    first = np.searchsorted(stamps, stamps - delay - length, side="right")
    first = np.maximum(
        first, np.searchsorted(stamps, stamps // LARGEST_ID * LARGEST_ID)
    )  # the one before in line is another
    last = np.searchsorted(stamps, stamps - delay, side="right") if delay else np.arange(1, len(stamps) + 1)
    count, total = np.empty(len(stamps), dtype=np.int64), np.empty(len(stamps))
    count[order] = np.maximum(last - first, 0)
    total[order] = np.where(last > first, sums[np.maximum(last, first)] - sums[first], 0.0)
    return count, total


def days(world: World, since: int, until: int) -> pd.DataFrame:
    """What the bank sends of these days: the payments with their features. The 37 days before are drawn for the windows alone."""
    before = max(0, since - max(WINDOWS) - DELAY)
    made = with_features(world.payments(before, until))
    return made[made["time"] >= pd.Timestamp(START) + pd.Timedelta(days=since)].reset_index(drop=True)


def batches(folder: Path, every: str = "month", world: World | None = None, length: int = DAYS) -> list[Path]:
    """Writes what the bank sends, one file a period, and gives the files in order of time.

    Raises:
        KeepfitError: `every` is no period.
    """
    made = days(world or World(), 0, length)
    return cut(sent(made), made["time"].dt.tz_localize(None), folder, every)


def sent(made: pd.DataFrame, more: Sequence[str] = ()) -> pd.DataFrame:
    """The columns of a file, times as text."""
    columns = [*SENT, *FEATURES, "fraud", *more]
    return made[columns].assign(time=made["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))


if __name__ == "__main__":
    main(batches, "Writes the fraud project's batches as CSV files.")
