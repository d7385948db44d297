"""What only this project knows: how the hospital's export becomes rows of the contract."""

import pandas as pd


def derive(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `date` (first six digits of `patient_id`) and `finding` (any diagnosis but '-') to the raw columns.

    Raises:
        KeyError: the batch has neither `patient_id` nor `target`; keepfit says so.
    """
    day = rows["patient_id"].astype("string").str.zfill(9).str[:6]
    return rows.assign(
        date=pd.to_datetime(day, format="%y%m%d", errors="coerce", utc=True),
        finding=(rows["target"] != "-").where(rows["target"].notna()).astype("boolean"),
    )
