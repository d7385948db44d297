"""Basket: every purchase of the source is in one batch, and the contract takes it."""

import datetime as dt
import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.config import demos
from tasks.config.errors import KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
SETTINGS = Settings(projects=DEPLOYMENTS)
TRIPLE = ["household", "week", "category"]


@pytest.fixture(scope="module")
def data() -> ModuleType:
    """The project's data.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("data_of_basket", DEPLOYMENTS / "basket" / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(data, tmp_path_factory) -> list[Path]:
    """The weekly batches."""
    return data.batches(tmp_path_factory.mktemp("basket"))


@pytest.fixture(scope="module")
def source(data) -> pd.DataFrame:
    """What the package holds, joined with arrow instead of pandas: household, week, category, time."""
    lines = pq.read_table(
        demos.source(data.PACKAGE, "data/transactions.parquet", data.TRANSACTIONS),
        columns=["household_id", "week", "product_id", "transaction_timestamp"],
    )
    products = pq.read_table(
        demos.source(data.PACKAGE, "data/products.parquet", data.PRODUCTS), columns=["product_id", "product_category"]
    )
    joined = lines.join(products, "product_id").drop_columns("product_id").to_pandas()
    return joined.set_axis(["household", "week", "time", "category"], axis=1)


def test_every_household_week_and_category_is_in_one_batch(files, source, data):
    """What was bought stands once with its first time; what has no category or is no goods does not stand at all."""
    together = pd.concat([pd.read_csv(path, keep_default_na=False) for path in files], ignore_index=True)
    bought = source[source["category"].notna() & ~source["category"].isin(data.NO_GOODS)]
    expected = bought.groupby(TRIPLE, as_index=False)["time"].min()
    assert len(together) == len(expected) == 966_961
    written = together.sort_values(TRIPLE, ignore_index=True)
    pd.testing.assert_frame_equal(written[TRIPLE], expected[TRIPLE], check_dtype=False)
    assert (written["time"] == expected["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).all()


def test_a_batch_is_a_week_of_the_store(files):
    """53 files, each with its own week only, ordered by time, none reaching back into the one before."""
    assert [path.name for path in files] == [f"week-{week:02}.csv" for week in range(1, 54)]
    last = ""
    for week, path in enumerate(files, 1):
        rows = pd.read_csv(path)
        assert set(rows["week"]) == {week}
        assert rows["time"].is_monotonic_increasing
        assert rows["time"].iloc[0] > last
        last = rows["time"].iloc[-1]


def test_months_hold_the_same_rows(data, files, tmp_path):
    """Four store weeks are a month; the rows are those of the weeks."""
    months = data.batches(tmp_path, "month")
    assert (len(months), months[-1].name) == (14, "month-14.csv")
    assert b"".join(path.read_bytes() for path in files[:4]).count(b"\n") - 4 == months[0].read_bytes().count(b"\n") - 1
    pd.testing.assert_frame_equal(
        pd.concat([pd.read_csv(path) for path in files[4:8]], ignore_index=True), pd.read_csv(months[1])
    )


def test_an_unknown_period_is_refused(data, tmp_path):
    """A period that is not offered is answered with those that are."""
    with pytest.raises(KeepfitError, match=r"every is 'weeks'\. Wanted: week, month\. Did you mean 'week'\?"):
        data.batches(tmp_path, "weeks")


def test_every_row_lands(files):
    """The contract refuses no row, and the name of each row is its own."""
    use = Project.named("basket", SETTINGS)
    derive = use.hook("derive", SETTINGS)
    assert derive is not None
    raw = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in files[8:12]], ignore_index=True)
    derived = derive(raw)
    checked = use.contract.check(pa.Table.from_pandas(derived, preserve_index=False), NOW)
    assert not checked.broken.any()
    assert derived["purchase"].is_unique
    assert derived["purchase"].iloc[0] == f"{raw['household'][0]} 09 {raw['category'][0]}"


def test_a_missing_raw_column_is_named(files):
    """A batch without a column that hooks.py derives from raises a KeyError with its name, which landing reports."""
    derive = Project.named("basket", SETTINGS).hook("derive", SETTINGS)
    assert derive is not None
    with pytest.raises(KeyError, match="week"):
        derive(pd.read_csv(files[0], dtype=str).drop(columns="week"))


def test_the_household_is_all_that_is_read():
    """What is recommended follows from who asks, and from nothing that is known only at the till."""
    use = Project.named("basket", SETTINGS)
    assert use.contract.features == ("household",)
    assert use.task.described() == {"user": "household", "k": 10}
