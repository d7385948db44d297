"""Demo data: finds a file inside an installed package without importing it, and cuts its rows into batches."""

import argparse
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.errors import KeepfitError, suggestion

if TYPE_CHECKING:
    import pandas as pd

PERIODS = {"week": ("W-SUN", "%G-W%V"), "month": ("M", "%Y-%m"), "quarter": ("Q", "%Y-Q%q")}


def source(package: str, file: str, sha256: str) -> Path:
    """The path of `file` inside an installed package, which need not be importable.

    Raises:
        KeepfitError: the package is not installed, has no such file, or the file's content is not the expected one.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise KeepfitError(
            f"The package '{package}' is not installed. Install the extra `demos`: uv pip install -e '.[demos]'."
        )
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        raise KeepfitError(
            f"{path}: is not there. Install the extra `demos` again: its pin of '{package}' has this file."
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise KeepfitError(
            f"{path}: differs from the file that was reviewed: SHA-256 {found[:12]}…, wanted {sha256[:12]}…. "
            f"Install the extra `demos` again: another version of '{package}' is here."
        )
    return path


def cut(rows: "pd.DataFrame", days: "pd.Series", folder: Path, every: str) -> list[Path]:
    """Writes the rows of each period as one CSV file, and gives the files in order of time.

    Args:
        rows: all rows, in the order in which they shall stand in the files.
        days: for each row the day that decides about its file (same index, no time zone).
        folder: where the files go; made when it is not there.
        every: 'week' (files `2013-W01.csv`, ISO 8601), 'month' (`2013-01.csv`) or 'quarter' (`2013-Q1.csv`).

    Raises:
        KeepfitError: `every` is none of them.
    """
    if every not in PERIODS:
        raise KeepfitError(f"every is '{every}'. Wanted: {', '.join(PERIODS)}.{suggestion(every, PERIODS)}")
    frequency, form = PERIODS[every]
    folder.mkdir(parents=True, exist_ok=True)
    periods = days.dt.to_period(frequency)
    stamps = {
        period: (period.start_time if every == "week" else period).strftime(form) for period in sorted(set(periods))
    }
    return [write(rows[periods == period], folder / f"{stamp}.csv") for period, stamp in stamps.items()]


def write(rows: "pd.DataFrame", path: Path) -> Path:
    """Writes a batch as CSV, under a hidden name first, so that whoever watches the folder never sees half a file."""
    partial = path.with_name(f".{path.name}.part")
    rows.to_csv(partial, index=False)
    return partial.replace(path)


def main(batches: Callable[[Path, str], list[Path]], about: str, periods: Sequence[str] = tuple(PERIODS)) -> None:
    """Reads folder and period (by default the first) from the command line, writes the batches, and says what was written."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the files go; made when it is not there")
    parser.add_argument(
        "--every", choices=periods, default=periods[0], help=f"how long a batch is (default: {periods[0]})"
    )
    asked = parser.parse_args()
    try:
        written = batches(asked.folder, asked.every)
    except KeepfitError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{len(written)} batches in {asked.folder}: {written[0].name} … {written[-1].name}\n")
