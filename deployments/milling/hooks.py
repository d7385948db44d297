"""What only this project knows: what an engineer computes from the controller's numbers."""

import numpy as np
import pandas as pd


def derive(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `power` (W), `difference` of the temperatures (K) and `strain` (wear times torque, minNm) to the raw columns.

    Raises:
        KeyError: the batch lacks a raw column; keepfit says so.
    """
    air, process, speed, torque, wear = (
        pd.to_numeric(rows[name], errors="coerce") for name in ("air", "process", "speed", "torque", "wear")
    )
    return rows.assign(
        power=torque * speed * 2 * np.pi / 60, difference=(process - air).round(1), strain=(wear * torque).round(2)
    )
