"""What only this project knows: how the schedule with its delays becomes rows of the contract."""

import pandas as pd

LATE = 15  # minutes after the scheduled arrival that still count as punctual


def derive(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds name, time and scheduled numbers of a flight, and whether it arrived late, to the raw columns.

    `late` stays empty where there is no arrival delay (cancelled or diverted), so the contract quarantines the row.

    Raises:
        KeyError: the batch lacks a raw column; keepfit says so.
    """
    date = _day(rows)
    delay, arrival, minute = (
        pd.to_numeric(rows[name], errors="coerce") for name in ("arr_delay", "sched_arr_time", "minute")
    )
    hour = pd.to_datetime(rows["time_hour"], utc=True, errors="coerce", format="ISO8601")
    return rows.assign(
        flight_id=date.dt.strftime("%Y-%m-%d")
        + " "
        + rows["origin"]
        + " "
        + rows["carrier"]
        + rows["flight"].astype("string"),
        departure=hour + pd.to_timedelta(minute, unit="min"),
        weekday=date.dt.day_of_week,
        minute_of_day=pd.to_numeric(rows["hour"], errors="coerce") * 60 + minute,
        arrival_hour=arrival // 100,
        late=(delay > LATE).where(delay.notna()).astype("boolean"),
    )


def _day(rows: pd.DataFrame) -> pd.Series:
    """The day on the airport's calendar."""
    year, month, day = (rows[name].astype("string") for name in ("year", "month", "day"))
    return pd.Series(pd.to_datetime(year + "-" + month + "-" + day, format="%Y-%m-%d", errors="coerce"))
