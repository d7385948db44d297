"""What only this project knows: how the hospital's export becomes rows of the contract."""

import pandas as pd

from tasks.ml.behaviour import Expectation, Invariance, Test

NOTHING_SAID = dict.fromkeys(
    (
        "on_thyroxine", "query_on_thyroxine", "on_antithyroid_meds", "sick", "pregnant", "thyroid_surgery", "I131_treatment",
        "query_hypothyroid", "query_hyperthyroid", "lithium", "goitre", "tumor", "hypopituitary", "psych",
    ),
    False,
)  # fmt: skip
WOMAN = NOTHING_SAID | {"sex": "F", "age": 50, "referral_source": "other"}
HEALTHY = WOMAN | {"TSH": 1.5, "T3": 2.0, "TT4": 105.0, "T4U": 1.0, "FTI": 105.0}  # the middle of every range
FAILING = WOMAN | {"TSH": 60.0, "T3": 0.8, "TT4": 20.0, "T4U": 1.0, "FTI": 20.0}  # overt primary hypothyroidism


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


def behaviour() -> list[Test]:
    """What any physician knows: a textbook failure is found, a healthy patient is let go, and who sent the patient does not decide."""
    return [
        Expectation(rows=(FAILING, FAILING | {"sex": "M"}), low=0.5, about="a failing thyroid"),
        Expectation(rows=(HEALTHY, HEALTHY | {"sex": "M"}), high=0.5, about="a healthy patient"),
        Invariance(column="referral_source", within=0.3, most=0.05),
    ]
