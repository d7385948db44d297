"""What checking a contract costs: beside pandera on the same rows, and on a million typed rows. Nothing asserts a time."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.ml.contract import Checked, Column, Contract

NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
START = np.datetime64("2020-01-01", "us")
WORDS = ("alpha", "beta", "gamma", "delta")


def contract(floats: int, ints: int, categories: int, texts: int = 0) -> Contract:
    """A contract of 3 columns with a role and so many features of each type, each with a rule."""
    return Contract(
        columns={
            "id": Column(type="int", min=0),
            "at": Column(type="datetime"),
            "y": Column(type="bool"),
            **{f"float{number}": Column(type="float", nullable=True, min=-4, max=4) for number in range(floats)},
            **{f"int{number}": Column(type="int", min=0, max=999) for number in range(ints)},
            **{f"category{number}": Column(type="category", categories=WORDS) for number in range(categories)},
            **{f"text{number}": Column(type="text", nullable=True) for number in range(texts)},
        },
        key=("id",), time="at", target="y",
    )  # fmt: skip


def frame(which: Contract, size: int, bad: float, seed: int = 7) -> pd.DataFrame:
    """Typed rows, in which about that share of the values of each feature breaks its rule."""
    random = np.random.default_rng(seed)
    columns = {
        "id": np.arange(size),
        "at": START + np.arange(size) * np.timedelta64(1, "m"),
        "y": random.random(size) < 0.1,
    }
    for name in which.features:
        broken = random.random(size) < bad
        match which.columns[name].type:
            case "float":
                values = np.where(broken, 5.0, np.clip(random.normal(size=size), -4, 4))
                columns[name] = np.where(random.random(size) < 0.05, np.nan, values)
            case "int":
                columns[name] = np.where(broken, -1, random.integers(0, 1000, size))
            case _:
                columns[name] = pd.array(np.where(broken, "omega", random.choice(WORDS, size)), dtype="str")
    return pd.DataFrame(columns).assign(at=lambda rows: rows["at"].dt.tz_localize("UTC"))


def with_pandera(which: Contract) -> Callable[[pd.DataFrame], list[int]]:
    """The same rules in pandera: a function that gives the numbers of the bad rows."""
    import pandera.pandas as pandera

    types = {"int": "int64", "float": "float64", "bool": "bool", "category": "str", "datetime": "datetime64[us, UTC]"}
    schema = pandera.DataFrameSchema(
        {
            name: pandera.Column(
                types[column.type],
                [
                    *([pandera.Check.ge(column.min)] if column.min is not None else []),
                    *([pandera.Check.le(column.max)] if column.max is not None else []),
                    *([pandera.Check.isin(column.categories)] if column.categories is not None else []),
                    *([pandera.Check.le(pd.Timestamp(NOW) + pd.Timedelta(hours=24))] if name == which.time else []),
                ],
                nullable=column.nullable,
            )
            for name, column in which.columns.items()
        }
    )

    def bad_rows(rows: pd.DataFrame) -> list[int]:
        try:
            schema.validate(rows, lazy=True)
        except pandera.errors.SchemaErrors as error:
            return sorted(set(error.failure_cases["index"].astype(int)))
        return []

    return bad_rows


def timed(measured: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """The best of some runs in seconds, and the result."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = measured()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


@pytest.mark.slow
def test_the_contract_finds_what_pandera_finds():
    """On 300,000 rows of 16 columns both name the same bad rows; the ratio of their times is printed."""
    which = contract(floats=6, ints=4, categories=3)
    bad_rows = with_pandera(which)
    for bad in (0.0, 0.0001):
        rows = frame(which, 300_000, bad)
        table = pa.Table.from_pandas(rows, preserve_index=False)
        ours, checked = timed(lambda table=table: which.check(table, NOW))
        theirs, found = timed(lambda rows=rows: bad_rows(rows))
        print(  # noqa: T201
            f"\n300,000 × {len(which.columns)}, {len(found)} bad rows: contract {ours:.3f} s, pandera {theirs:.3f} s, ratio {theirs / ours:.1f}"
        )
        assert np.flatnonzero(checked.broken).tolist() == found
        assert (len(found) > 0) == (bad > 0)


@pytest.mark.slow
def test_a_million_typed_rows_are_checked_where_they_lie():
    """A million rows of 30 typed columns: the time is printed; every column that comes out is the memory that went in."""
    which = contract(floats=13, ints=6, categories=4, texts=4)
    assert len(which.columns) == 30
    table = pa.Table.from_pandas(frame(which, 1_000_000, 0.0), schema=which.schema, preserve_index=False)
    seconds, checked = timed(lambda: which.check(table, NOW))
    texts = pa.table({name: table[name].cast(pa.string()) for name in table.column_names})
    read, again = timed(lambda: which.check(texts, NOW), 1)
    print(f"\n1,000,000 × 30: typed {seconds:.3f} s, all of it text {read:.3f} s")  # noqa: T201
    assert not checked.broken.any()
    assert addresses(checked) == [chunk.buffers()[-1].address for column in table.columns for chunk in column.chunks]
    assert again.rows.equals(checked.rows)


def addresses(checked: Checked) -> list[int]:
    """Where the values of the rows lie in memory."""
    return [chunk.buffers()[-1].address for column in checked.rows.columns for chunk in column.chunks]
