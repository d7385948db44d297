"""What only this project knows: what an engineer computes from the controller's numbers."""

import numpy as np
import pandas as pd


def features(rows: pd.DataFrame) -> pd.DataFrame:
    """`power` (W), `difference` of the temperatures (K) and `strain` (wear times torque, minNm) of each part."""
    return pd.DataFrame(
        {
            "power": rows["torque"] * rows["speed"] * 2 * np.pi / 60,
            "difference": (rows["process"] - rows["air"]).round(1),
            "strain": (rows["wear"] * rows["torque"]).round(2),
        }
    )
