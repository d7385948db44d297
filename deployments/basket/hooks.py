"""What only this project knows: how a purchase is named."""

import pandas as pd


def derive(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds the name of each row: a household takes a category once in a store week.

    Raises:
        KeyError: the batch lacks a raw column; keepfit says so.
    """
    household, week, category = (rows[name].astype("string") for name in ("household", "week", "category"))
    return rows.assign(purchase=household + " " + week.str.zfill(2) + " " + category)
