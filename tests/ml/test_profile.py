# ruff: noqa: ARG005 – makers and attacks all take the same arguments
"""Profiles of batches, what is odd about one, and how two sets of rows differ."""

import datetime as dt
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pydantic import ValidationError
from scipy import stats
from sklearn.metrics import roc_auc_score

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.contract import Column, Contract
from tasks.ml.profile import Expectations, Finding, Profile, Profiler, Repeats, differences
from tests.samples import data_of

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
START = 1_767_225_600_000_000  # 2026-01-01 in microseconds since 1970
TYPES = {"f": "float", "i": "int", "b": "bool", "O": "category", "U": "category"}
BOUNDS = [0.1, 0.99, 0.01]


def contract_of(columns: dict[str, np.ndarray], **types: str) -> Contract:
    """A contract for id, at, y and the given columns."""
    features = {name: Column(type=types.get(name, TYPES[v.dtype.kind]), nullable=True) for name, v in columns.items()}  # ty: ignore[invalid-argument-type]
    fixed = {"id": Column(type="int"), "at": Column(type="datetime"), "y": Column(type="bool")}
    return Contract(columns={**fixed, **features}, key=("id",), time="at", target="y")


def table_of(columns: dict[str, np.ndarray], y: np.ndarray, first: int = 0) -> pa.Table:
    """Typed rows; NaN is missing."""
    n = len(y)
    fixed = {
        "id": np.arange(first, first + n),
        "at": pa.array(np.full(n, START), pa.timestamp("us", "UTC")),
        "y": np.asarray(y, dtype=bool),
    }
    features = {
        name: pa.array(v, mask=np.isnan(v))
        if v.dtype.kind == "f"
        else pa.array(v.tolist() if v.dtype.kind == "O" else v)
        for name, v in columns.items()
    }
    return pa.table({**fixed, **features})


def profiled(rows: pa.Table, contract: Contract, positive=True, chunk: int | None = None) -> Profile:
    """The profile of rows, added at once or in chunks."""
    profiler = Profiler(contract, positive)
    for at in range(0, max(len(rows), 1), chunk or max(len(rows), 1)):
        profiler.add(rows.slice(at, chunk or len(rows)))
    return profiler.result()


def holding(findings: list[Finding]) -> set[tuple[str, str]]:
    """Kind and column of what holds."""
    return {(finding.kind, finding.column) for finding in findings if finding.holds}


def kinds(findings: list[Finding]) -> set[str]:
    """What was found at all."""
    return {finding.kind for finding in findings}


def draw(rng: np.random.Generator, n: int = 600) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch of a plain world: a level, a centred and a wide number, a mostly-zero one, a flag, a category; a target."""
    common = rng.normal(size=n)
    z = {name: 0.4 * common + 0.9 * rng.normal(size=n) for name in ("level", "centred", "wide", "rain", "size")}
    columns = {
        "level": 20 + 3 * z["level"],
        "centred": z["centred"],
        "wide": np.exp(z["wide"]),
        "rain": np.where(rng.random(n) < 0.6, 0.0, np.exp(z["rain"])),
        "size": np.round(1000 + 100 * z["size"]).astype(int),
        "flag": rng.random(n) < 0.3,
        "site": rng.choice(["north", "south", "east"], n, p=[0.5, 0.3, 0.2]),
    }
    score = -1 + 0.8 * z["level"] + 1.0 * z["centred"] + 0.6 * z["wide"] + 0.7 * columns["flag"]
    return columns, rng.random(n) < 1 / (1 + np.exp(-score))


@pytest.fixture(scope="module")
def usual() -> list[Profile]:
    """Six ordinary batches of the plain world."""
    rng = np.random.default_rng(1)
    batches = [draw(rng) for _ in range(6)]
    return [profiled(table_of(*batch), contract_of(batch[0])) for batch in batches]


def judged(columns, y, usual, **expects) -> list[Finding]:
    """The findings about one batch of the plain world."""
    return Expectations(**expects).judge(profiled(table_of(columns, y), contract_of(columns)), usual, NOW)


# -- what a profile says


@given(st.lists(st.floats(0.5, 1e6), min_size=40, max_size=200), st.sampled_from(BOUNDS))
@settings(max_examples=40, deadline=None)
def test_quantiles_are_numpys(values, probability):
    """A quantile of the grid is numpy's, to five digits."""
    rows = {"x": np.array(values)}
    column = profiled(table_of(rows, np.zeros(len(values))), contract_of(rows)).columns["x"]
    assert column.quantile(probability) == pytest.approx(np.quantile(values, probability), rel=1e-4)  # ty: ignore[missing-union-attribute]


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_features_link_is_its_area_under_the_curve(seed, missing, tied):
    """The link is scikit-learn's ROC AUC − ½ over the rows where the value is known, ties included."""
    rng = np.random.default_rng(seed)
    y = rng.random(80) < 0.4
    x = rng.normal(size=80) + y
    x = np.where(rng.random(80) < missing, np.nan, np.round(x) if tied else x)
    known = ~np.isnan(x)
    link = profiled(table_of({"x": x}, y), contract_of({"x": x})).columns["x"].link  # ty: ignore[missing-union-attribute]
    if len(set(y[known])) < 2 or len(set(x[known])) < 2:
        assert link is None
    else:
        assert link == pytest.approx(roc_auc_score(y[known], x[known]) - 0.5, abs=1e-4)


def test_with_a_number_as_target_the_link_is_half_the_rank_correlation():
    """Spearman's ρ as scipy has it, and no classes are counted."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    price = np.round(np.exp(x + rng.normal(size=200)), 1)
    contract = Contract(
        columns={"id": Column(type="int"), "at": Column(type="datetime"), "price": Column(type="float"), "x": Column(type="float")},
        key=("id",), time="at", target="price",
    )  # fmt: skip
    rows = table_of({"x": x, "price": price}, np.zeros(200)).drop_columns(["y"])
    profile = profiled(rows, contract, positive=None)
    assert profile.columns["x"].link == pytest.approx(stats.spearmanr(x, price).statistic / 2, abs=1e-4)  # ty: ignore[missing-union-attribute]
    assert profile.positives is None
    assert profile.columns["x"].segments == ()  # ty: ignore[missing-union-attribute]


@pytest.mark.parametrize(("values", "positive"), [(["ill", "well"], "ill"), ([2, 1], 2)])
def test_the_positive_value_may_be_a_text_or_a_number(values, positive):
    """Every third row is positive, whatever the target's type."""
    target = [values[0 if n % 3 == 0 else 1] for n in range(90)]
    kind = "category" if isinstance(positive, str) else "int"
    contract = Contract(
        columns={"id": Column(type="int"), "at": Column(type="datetime"), "t": Column(type=kind), "x": Column(type="float")},
        key=("id",), time="at", target="t",
    )  # fmt: skip
    rows = table_of({"x": np.arange(90.0)}, np.zeros(90)).drop_columns(["y"]).append_column("t", pa.array(target))
    assert profiled(rows, contract, positive).positives == 30


@given(st.integers(1, 400), st.integers(1, 150))
@settings(max_examples=30, deadline=None)
def test_the_chunks_do_not_matter(n, chunk):
    """Rows added in pieces of any size have the profile of the whole."""
    columns, y = draw(np.random.default_rng(n), n)
    rows, contract = table_of(columns, y), contract_of(columns)
    assert profiled(rows, contract, chunk=chunk) == profiled(rows, contract)


def test_a_large_batch_is_sampled_but_counted_exactly():
    """Rows, missing values and times are exact over 200,000 rows; the sample is bounded and even over the batch."""
    n = 200_000
    rng = np.random.default_rng(3)
    x = np.where(rng.random(n) < 0.25, np.nan, np.arange(n) / n + 1)
    rows = table_of({"x": x, "week": np.arange(n) % 7}, np.arange(n) % 2)
    times = pa.array(START + np.arange(n) * 1_000_000, pa.timestamp("us", "UTC"))
    profile = profiled(rows.set_column(1, "at", times), contract_of({"x": x, "week": np.arange(n) % 7}), chunk=17_000)
    assert profile.rows == n
    assert profile.sampled <= 20_000
    assert profile.columns["x"].nulls == np.isnan(x).sum()
    assert profile.oldest == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert profile.newest == dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=n - 1)
    assert np.allclose(
        profile.columns["x"].grid,  # ty: ignore[missing-union-attribute]
        np.nanquantile(x, [0.01, *np.linspace(0.05, 0.95, 19), 0.99]),
        atol=0.02,
    )
    assert profile.columns["week"].mean == pytest.approx(3, abs=0.05)  # no step of 7 in the sample  # ty: ignore[missing-union-attribute]
    assert abs(profile.positives / profile.sampled - 0.5) < 0.02  # ty: ignore[unsupported-operator]


@pytest.mark.parametrize(("rows", "copies"), [(3000, 1), (3000, 100), (200_000, 100), (200_000, 1), (200_000, 5)])
def test_repetitions_are_measured_in_a_batch_of_any_size(rows, copies):
    """Every row stands `copies` times, in any order: so many rows differ, and two are the same with that probability."""
    rng = np.random.default_rng(4)
    x = np.repeat(rng.normal(size=rows // copies), copies)
    rng.shuffle(x)
    columns = {"x": x, "constant": np.zeros(rows), "word": np.full(rows, "same")}
    repeats = profiled(table_of(columns, np.zeros(rows)), contract_of(columns), chunk=40_000).repeats
    assert repeats.different(rows) == pytest.approx(rows / copies, rel=0.06)
    assert repeats.pairs == pytest.approx((copies - 1) / (rows - 1), rel=0.06)


def test_one_row_that_floods_a_large_batch_is_seen():
    """Half of 200,000 rows are one row: two rows are the same one time in four."""
    x = np.random.default_rng(5).normal(size=200_000)
    x[::2] = 7
    columns = {"x": x}
    repeats = profiled(table_of(columns, np.zeros(len(x))), contract_of(columns)).repeats
    assert repeats.pairs == pytest.approx(0.25, rel=0.05)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=60), st.data())
@settings(max_examples=30, deadline=None)
def test_fewer_rows_have_fewer_different_ones_by_hursts_formula(sizes, data):
    """Rarefaction with replacement is close to the exact hypergeometric expectation."""
    n = sum(sizes)
    drawn = data.draw(st.integers(1, n))
    exact = sum(1 - stats.hypergeom(n, size, drawn).pmf(0) for size in sizes)
    assert Repeats(rows=n, sizes=tuple((float(size), 1.0) for size in sizes)).different(drawn) == pytest.approx(
        exact, rel=0.35, abs=0.5
    )


def test_a_profile_is_small_and_comes_back_from_json():
    """Thirty columns take about ten kilobytes, and nothing is lost on the way."""
    rng = np.random.default_rng(0)
    columns = {f"n{k}": rng.lognormal(size=500) for k in range(14)}
    columns |= {f"b{k}": rng.random(500) < 0.2 for k in range(8)}  # ty: ignore[unsupported-operator]
    columns |= {f"c{k}": rng.choice(list("abcdef"), 500) for k in range(5)}
    profile = profiled(table_of(columns, rng.random(500) < 0.3), contract_of(columns))
    text = profile.model_dump_json()
    assert len(profile.columns) == 30
    assert len(text) < 10_500
    assert Profile.model_validate_json(text) == profile


def test_a_profile_holds_no_names_and_no_keys():
    """Texts of many values and keys leave counts and lengths only; a category with as many values as rows is such a text."""
    people = np.array([f"Ada Lovelace {n}" for n in range(300)])
    columns = {"name": people, "code": people, "rare": np.array(["common"] * 298 + ["Grace Hopper"] * 2)}
    contract = contract_of(columns, name="text", rare="text")
    rows = table_of(columns, np.zeros(300), first=9_000_000)
    profile = profiled(rows, contract)
    text = profile.model_dump_json()
    assert not any(secret in text for secret in ("Lovelace", "Hopper", "9000"))
    assert profile.columns["name"].distinct == 300
    assert profile.columns["name"].length == pytest.approx(np.mean([len(name) for name in people]), abs=1e-3)  # ty: ignore[missing-union-attribute]
    assert profile.columns["rare"].values == ("common",)  # ty: ignore[missing-union-attribute]


def test_no_rows_have_a_profile_too():
    """An empty batch is profiled and judged: it has too few rows."""
    columns, y = draw(np.random.default_rng(0), 5)
    empty = profiled(table_of(columns, y).slice(0, 0), contract_of(columns))
    assert empty.rows == 0
    assert holding(Expectations().judge(empty, [], NOW)) == {("rows", "")}


# -- limits of the project


def test_rows_outside_the_limits_hold_the_batch(usual):
    """Too few, too many; between is fine."""
    columns, y = draw(np.random.default_rng(9))
    assert holding(judged(columns, y, usual, rows_min=601)) == {("rows", "")}
    assert holding(judged(columns, y, usual, rows_max=599)) == {("rows", "")}
    assert judged(columns, y, usual, rows_min=600, rows_max=600) == []


def test_unusually_many_rows_are_reported(usual):
    """Ten times the usual rows: told, not held."""
    found = judged(*draw(np.random.default_rng(9), 6000), usual)
    assert [(finding.kind, finding.holds, finding.usual) for finding in found] == [("rows", False, 600)]


def test_an_old_batch_is_held_only_where_freshness_is_wanted(usual):
    """The newest row is a day old."""
    columns, y = draw(np.random.default_rng(9))
    assert holding(judged(columns, y, usual, fresh_hours=23.5)) == {("stale", "")}
    assert judged(columns, y, usual, fresh_hours=24) == []
    assert judged(columns, y, usual) == []


def test_limits_that_no_batch_can_meet_are_refused():
    """At least 10 and at most 5."""
    with pytest.raises(ValidationError, match="rows_max is 5, below rows_min, which is 10"):
        Expectations(rows_min=10, rows_max=5)


def test_what_holds_is_the_projects_choice(usual):
    """A kind that is not in `hold` is told, not held; a kind that nobody knows is refused."""
    columns, y = draw(np.random.default_rng(9))
    found = judged(columns | {"size": columns["size"] * 100}, y, usual, hold=("rows",))
    assert [(finding.kind, finding.holds) for finding in found if finding.column == "size"] == [("units", False)]
    with pytest.raises(ValidationError, match="hold"):
        Expectations(hold=("unit",))  # ty: ignore[invalid-argument-type]


# -- faults


@pytest.mark.parametrize("column", ["level", "wide", "size", "rain"])
@pytest.mark.parametrize("factor", [100, 1 / 1000, 1e6, 3600])
@pytest.mark.parametrize("batches", [1, 6])
def test_i_23_a_unit_change_holds_the_batch(usual, column, factor, batches):
    """A number times 100, in thousands, in micro-units, in seconds: held already against a single batch."""
    columns, y = draw(np.random.default_rng(9))
    found = judged(columns | {column: columns[column] * factor}, y, usual[:batches])
    assert holding(found) == {("units", column)}
    assert column in found[0].reason


@pytest.mark.parametrize(
    "change",
    [lambda c: c * 1.8 + 32, lambda c: c + 273.15, lambda c: c / 10, lambda c: c / 2.54],
    ids=["Fahrenheit", "Kelvin", "ten", "inch"],
)
def test_i_23_a_narrow_column_shows_small_factors_and_other_scales(usual, change):
    """°C as °F, °C as K, a tenth, inches for centimetres."""
    columns, y = draw(np.random.default_rng(9))
    assert holding(judged(columns | {"level": change(columns["level"])}, y, usual)) == {("units", "level")}


@pytest.mark.parametrize("column", ["level", "wide", "size", "rain", "centred"])
def test_i_23_a_changed_sign_holds_the_batch(usual, column):
    """Also in a column that is symmetric around 0, by its link with the target."""
    columns, y = draw(np.random.default_rng(9))
    assert holding(judged(columns | {column: -columns[column]}, y, usual)) == {("sign", column)}


@pytest.mark.parametrize("pair", [("level", "size"), ("centred", "level"), ("wide", "level")])
def test_i_23_swapped_columns_hold_the_batch(usual, pair):
    """Each has the other's values; the finding names both."""
    one, other = pair
    columns, y = draw(np.random.default_rng(9))
    found = judged(columns | {one: columns[other].astype(columns[one].dtype), other: columns[one]}, y, usual)
    assert [finding.kind for finding in found if finding.holds] == ["swapped"]
    assert one in found[0].reason
    assert other in found[0].reason


@pytest.mark.parametrize("n", [300, 3000])
def test_i_22_inverted_labels_hold_the_batch(usual, n):
    """Every label means the opposite."""
    columns, y = draw(np.random.default_rng(9), n)
    assert ("labels", "") in holding(judged(columns, ~y, usual))
    assert holding(judged(columns, y, usual)) == set()


@pytest.mark.parametrize("name", ["level", "site", "flag", "rain"])
@pytest.mark.parametrize("forced", [True, False])
def test_i_22_a_forced_segment_holds_the_batch(usual, name, forced):
    """All rows of the upper decile, of a category, all positive or all negative where that is far from the usual."""
    columns, y = draw(np.random.default_rng(9), 2000)
    values = columns[name]
    where = values == "east" if name == "site" else values if name == "flag" else values >= np.quantile(values, 0.9)
    found = holding(judged(columns, np.where(where, forced, y), usual))
    was = y[where].mean()
    assert found == ({("segment", name)} if abs(forced - was) > 0.4 else found & {("segment", name)})


@pytest.mark.parametrize("with_ordinary", [True, False])
def test_i_22_rows_a_hundred_times_under_new_keys_hold_the_batch(usual, with_ordinary):
    """Six rows stand a hundred times each, alone or among as many ordinary ones."""
    rng = np.random.default_rng(9)
    columns, y = draw(rng)
    at = np.r_[np.repeat(rng.choice(600, 6, replace=False), 100), np.arange(600) if with_ordinary else []].astype(int)
    found = judged({name: values[at] for name, values in columns.items()}, y[at], usual)
    assert ("repeats", "") in holding(found)


def test_repetitions_that_lie_in_the_nature_of_the_rows_do_not_hold():
    """With two flags and five grades every row repeats, in a small batch and in a large one."""
    rng = np.random.default_rng(0)
    profiles = []
    for n in (200, 300, 5000, 150, 4000, 100):
        columns = {"a": rng.random(n) < 0.5, "b": rng.random(n) < 0.05, "grade": rng.integers(1, 6, n)}
        profiles.append(profiled(table_of(columns, rng.random(n) < 0.2), contract_of(columns)))
        assert "repeats" not in kinds(Expectations().judge(profiles[-1], profiles[:-1], NOW))


def test_i_09_a_column_that_lost_all_values_holds_the_batch(usual):
    """A filled column without any value is held; half empty it is reported."""
    columns, y = draw(np.random.default_rng(9))
    assert holding(judged(columns | {"level": np.full(600, np.nan)}, y, usual)) == {("nulls", "level")}
    half = np.where(np.arange(600) % 2, columns["level"], np.nan)
    found = judged(columns | {"level": half}, y, usual)
    assert [(finding.kind, finding.column, finding.holds) for finding in found] == [("nulls", "level", False)]


def test_a_column_that_is_nearly_always_empty_may_be_empty():
    """97 % missing in 40 rows: all missing happens once in three batches."""
    rng = np.random.default_rng(0)

    def batch(share):
        x = np.where(rng.random(40) < share, np.nan, 1.0)
        return profiled(table_of({"x": x}, np.zeros(40)), contract_of({"x": x}))

    assert Expectations().judge(batch(1), [batch(0.97) for _ in range(5)], NOW) == []


# -- what is only told


def test_a_season_is_told_and_not_held(usual):
    """Everything two standard deviations warmer."""
    columns, y = draw(np.random.default_rng(9))
    found = judged(columns | {"level": columns["level"] + 6}, y, usual)
    assert [(finding.kind, finding.column, finding.holds) for finding in found] == [("shift", "level", False)]
    assert found[0].number == pytest.approx(2 * stats.norm.cdf(1) - 1, abs=0.1)


def test_a_constant_a_new_category_and_another_share_of_positives_are_told(usual):
    """Each names its column and its number."""
    columns, y = draw(np.random.default_rng(9))
    frozen = judged(columns | {"level": np.full(600, 20.5)}, y, usual)
    assert ("constant", "level") in {(finding.kind, finding.column) for finding in frozen}
    moved = judged(columns | {"site": np.where(np.arange(600) % 20, columns["site"], "west")}, y, usual)
    assert [(finding.kind, finding.number) for finding in moved] == [("categories", 0.05)]
    assert "'west'" in moved[0].reason
    rng = np.random.default_rng(1)
    scarce = judged(columns, y & (rng.random(600) < 0.3), usual)
    assert [(finding.kind, finding.holds) for finding in scarce] == [("target", False)]
    single = judged(columns, np.zeros(600), usual)
    assert [(finding.kind, finding.number) for finding in single] == [("target", 0)]
    assert "one class only" in single[0].reason


def test_too_few_rows_are_not_judged_by_their_distribution(usual):
    """Fifty rows in another unit say nothing yet; nor do batches before with as few."""
    columns, y = draw(np.random.default_rng(9), 50)
    assert kinds(judged(columns | {"level": columns["level"] * 100}, y, usual)) <= {"rows"}
    small = profiled(table_of(columns, y), contract_of(columns))
    columns, y = draw(np.random.default_rng(8))
    assert judged(columns | {"level": columns["level"] * 100}, y, [small] * 3) == []


def test_only_the_last_batches_count(usual):
    """What was usual before the history counts no more."""
    columns, y = draw(np.random.default_rng(9))
    other = columns | {"level": columns["level"] * 100}
    now = profiled(table_of(other, y), contract_of(other))
    assert holding(Expectations(history=2).judge(now, [*usual, now, now], NOW)) == set()
    assert holding(Expectations(history=2).judge(now, [now, now, *usual], NOW)) == {("units", "level")}


def test_columns_come_and_go_without_a_finding(usual):
    """A column that the batches before lack, or have as another type, is not compared."""
    columns, y = draw(np.random.default_rng(9))
    changed = {**columns, "level": columns["level"].astype(str), "fresh": columns["wide"]}
    del changed["rain"]
    assert holding(judged(changed, y, usual)) == set()


# -- ordinary batches are not held


def world(seed: int):
    """A world of 20 columns: plain, skewed, heavy-tailed, mostly zero, counts, grades, flags, categories, a counter.

    Each stays, follows a season of one to two standard deviations, or a trend of one in ten batches.
    """
    rng = np.random.default_rng(seed)
    cdf = stats.norm.cdf
    place, width, skew, zeros, rare = (
        rng.normal(0, 5, 2), rng.uniform(0.5, 3, 2), rng.uniform(0.5, 2.5, 3), rng.uniform(0.4, 0.98, 3), rng.uniform(0.002, 0.5, 2)
    )  # fmt: skip
    makers = {
        **{f"normal{k}": lambda z, g, k=k: place[k] + width[k] * z for k in range(2)},
        **{f"skewed{k}": lambda z, g, k=k: np.exp(skew[k] * z) for k in range(3)},
        "cauchy": lambda z, g: np.tan(np.pi * (np.clip(cdf(z), 1e-9, 1 - 1e-9) - 0.5)),
        "pareto": lambda z, g: (1 - np.clip(cdf(z), 0, 1 - 1e-9)) ** -0.8,
        **{f"zero{k}": lambda z, g, k=k: np.where(g.random(len(z)) < zeros[k], 0, np.exp(z)) for k in range(3)},
        "count": lambda z, g: g.poisson(np.exp(0.5 * z)),
        "rare": lambda z, g: g.poisson(0.02, len(z)),
        "grade": lambda z, g: np.clip(np.round(z + 2), 0, 4).astype(int),
        "ticks": lambda z, g: np.round(1000 + z * 100).astype(int),
        **{f"flag{k}": lambda z, g, k=k: cdf(z) < rare[k] for k in range(2)},
        "few": lambda z, g: np.array(list("abcd"))[np.clip((cdf(z) * 4).astype(int), 0, 3)],
        "many": lambda z, g: np.array([f"k{j}" for j in range(200)])[np.minimum(g.zipf(1.3, len(z)) - 1, 199)],
        "gappy": lambda z, g: np.where(g.random(len(z)) < 0.9, np.nan, z),
    }
    effects = dict(zip(makers, rng.normal(0, 1, 20) * (rng.random(20) < 0.4) * rng.choice([0, 0.3, 1]), strict=False))
    moves = {name: rng.choice(["none", "season", "trend"]) for name in makers}
    height, phase = ({name: rng.uniform(*span) for name in makers} for span in ((1, 2), (0, 6.3)))
    base, seen = rng.choice([-3.5, -2, -1, 0]), [0]

    def batch(i: int, n: int, g: np.random.Generator):
        common, score, columns = g.normal(size=n), np.full(n, base + 0.5 * np.sin(i / 2)), {}
        for name, make in makers.items():
            z = 0.5 * common + 0.866 * g.normal(size=n)
            score = score + effects[name] * z
            season = height[name] * np.sin(2 * np.pi * i / 12 + phase[name])
            columns[name] = make(z + {"none": 0, "season": season, "trend": 0.1 * i}[moves[name]], g)
        columns["counter"] = np.arange(seen[0], seen[0] + n)
        seen[0] += n
        return columns, g.random(n) < 1 / (1 + np.exp(-score))

    return batch


@pytest.mark.parametrize("seed", range(10))
def test_ordinary_batches_are_not_held(seed):
    """Ten worlds, 21 batches of 100 to 500 rows each: of 200 batches with 20 columns none is held."""
    draw_one, rng, profiles = world(seed), np.random.default_rng(1000 + seed), []
    for i in range(21):
        columns, y = draw_one(i, int(rng.integers(100, 500)), rng)
        profiles.append(profiled(table_of(columns, y), contract_of(columns)))
        held = [finding.reason for finding in Expectations().judge(profiles[-1], profiles[:-1], NOW) if finding.holds]
        assert held == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_ordinary_batches_are_not_held_in_many_worlds(seed):
    """Sixty worlds, half of them with batches of up to 5,000 rows: at most one batch of thirty."""
    draw_one, rng, profiles, held = world(seed), np.random.default_rng(1000 + seed), [], []
    for i in range(31):
        columns, y = draw_one(i, int(rng.integers(100, 500 if seed % 2 else 5000)), rng)
        profiles.append(profiled(table_of(columns, y), contract_of(columns)))
        found = Expectations().judge(profiles[-1], profiles[:-1], NOW)
        held += [(i, finding.reason) for finding in found if finding.holds]
    assert len(held) <= 1, held


# -- real data


def typed(project: Project, raw: pd.DataFrame) -> pa.Table:
    """Derived and typed rows; those that lack a required value are left out."""
    derive = project.hook("derive", Settings(projects=DEPLOYMENTS))
    assert derive is not None
    shaped, columns = derive(raw), project.contract.columns
    readers = {
        "int": lambda v: pd.to_numeric(v, errors="coerce").astype("Int64"),
        "float": lambda v: pd.to_numeric(v, errors="coerce").astype("Float64"),
        "bool": lambda v: v.astype("string").str.lower().map(
            {"t": True, "f": False, "true": True, "false": False}
        ).astype("boolean"),
        "datetime": lambda v: pd.to_datetime(v, utc=True).astype("datetime64[us, UTC]"),
    }  # fmt: skip
    rows = {
        name: pa.array(readers.get(column.type, lambda v: v.astype("string"))(shaped[name]))
        for name, column in columns.items()
    }
    table = pa.table({n: v.cast(pa.string()) if pa.types.is_large_string(v.type) else v for n, v in rows.items()})
    required = [table[name].is_null().to_numpy() for name, column in columns.items() if not column.nullable]
    return table.filter(pa.array(~np.any(required, axis=0)))


@pytest.fixture(scope="module")
def thyroid(thyroid_rows):
    """The project, its months as typed rows, and their profiles."""
    use = Project.named("thyroid", Settings(projects=DEPLOYMENTS))
    raw = pd.DataFrame(thyroid_rows).replace("", None)
    months = [typed(use, rows) for _, rows in raw.groupby(raw["patient_id"].str.zfill(9).str[:4])]
    return use, months, [profiled(rows, use.contract, use.positive) for rows in months]


def test_no_month_of_thyroid_is_held(thyroid):
    """Thirty real months, from one patient to 463."""
    _, months, profiles = thyroid
    held = [
        (i, finding.reason)
        for i in range(1, len(months))
        for finding in Expectations().judge(profiles[i], profiles[:i], NOW)
        if finding.holds
    ]
    assert held == []


def changed(rows: pa.Table, **columns: np.ndarray) -> pa.Table:
    """The rows with other values in some columns; NaN is missing."""
    for name, values in columns.items():
        array = pa.array(np.nan_to_num(values), mask=np.isnan(values)) if values.dtype.kind == "f" else pa.array(values)
        rows = rows.set_column(rows.column_names.index(name), name, array)
    return rows


ATTACKS = {
    "labels": lambda rows, y, level, rng: changed(rows, finding=~y),
    "segment": lambda rows, y, level, rng: changed(rows, finding=y | (level["age"] >= np.quantile(level["age"], 0.75))),
    "repeats": lambda rows, y, level, rng: rows.take(pa.array(np.repeat(rng.choice(len(rows), 4, replace=False), 100))),
    "units": lambda rows, y, level, rng: changed(rows, TSH=level["TSH"] * 100),
    "units in thousands": lambda rows, y, level, rng: changed(rows, FTI=level["FTI"] / 1000),
    "sign": lambda rows, y, level, rng: changed(rows, T3=-level["T3"]),
    "swapped": lambda rows, y, level, rng: changed(rows, T3=level["FTI"], FTI=level["T3"]),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_i_22_i_23_faults_planted_in_thyroid_are_held(thyroid, attack):
    """Each in six real months of more than 300 patients; at most one goes unnoticed."""
    use, months, profiles = thyroid
    found, rng = [], np.random.default_rng(0)
    for i in (8, 10, 14, 19, 24, 28):
        rows = months[i]
        level = {name: rows[name].to_numpy().astype(float) for name in ("age", "TSH", "T3", "FTI")}
        y = rows["finding"].to_numpy(zero_copy_only=False).astype(bool)
        profile = profiled(ATTACKS[attack](rows, y, level, rng), use.contract, use.positive)
        found.append(
            attack.split()[0] in {kind for kind, _ in holding(Expectations().judge(profile, profiles[:i], NOW))}
        )
    assert sum(found) >= 5


@pytest.mark.slow
def test_no_month_of_flights_is_held(tmp_path):
    """Twelve real months with all of a year's seasons, 27,000 flights each."""
    module = data_of("flights")
    use = Project.named("flights", Settings(projects=DEPLOYMENTS))
    profiles: list[Profile] = []
    for path in module.batches(tmp_path, "month"):
        rows = typed(use, pd.read_csv(path, dtype=str, na_values=["NA", ""], keep_default_na=False))
        profiles.append(profiled(rows, use.contract, use.positive))
        assert holding(Expectations().judge(profiles[-1], profiles[:-1], NOW)) == set()


# -- differences


def test_a_set_of_rows_does_not_differ_from_itself(usual):
    """Size 0 in every column."""
    assert {difference.size for difference in differences(usual[0], usual[0])} == {0}


@given(st.floats(-2, 2), st.floats(0.5, 2), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_distance_of_numbers_is_scipys(shift, scale, tied):
    """Kolmogorov–Smirnov from 21 quantiles is within .07 of scipy's from all values, ties and zeros included."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=900), rng.normal(size=900) * scale + shift
    one, other = (np.round(x) if tied else x for x in (one, other))
    a, b = (profiled(table_of({"x": x}, np.zeros(900)), contract_of({"x": x})) for x in (one, other))
    found = {difference.column: difference for difference in differences(a, b)}["x"]
    assert found.ks == pytest.approx(stats.ks_2samp(one, other).statistic, abs=0.07)
    assert found.mean == pytest.approx((one.mean(), other.mean()), rel=1e-3, abs=1e-4)


def test_differences_name_what_came_and_went():
    """The largest first; new and vanished categories, missing values, columns of one side only; PSI by hand."""
    a = {"site": np.array(["n", "s"] * 100), "x": np.arange(200.0), "old": np.arange(200.0)}
    b = {"site": np.array(["n", "n", "n", "w"] * 50), "x": np.where(np.arange(200) % 2, np.arange(200.0), np.nan)}
    one, other = (profiled(table_of(columns, np.zeros(200)), contract_of(columns)) for columns in (a, b))
    found = {difference.column: difference for difference in differences(one, other)}
    assert next(iter(found)) == "old"
    assert (found["site"].new, found["site"].vanished) == (("w",), ("s",))
    floor = 1e-4
    by_hand = 0.25 * np.log(0.75 / 0.5) + (0.25 - floor) * np.log(0.25 / floor) + (floor - 0.5) * np.log(floor / 0.5)
    assert found["site"].psi == pytest.approx(by_hand, rel=1e-3)
    assert found["site"].ks == pytest.approx(0.5)
    assert found["x"].nulls == (0, 0.5)
    assert found["x"].size == pytest.approx(0.5)
