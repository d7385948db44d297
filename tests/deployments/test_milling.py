"""The milling simulation: every rule of AI4I 2020 found again in its rows, its changes at their dates, its batches landed."""

import datetime as dt
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.config.errors import KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import Landings
from tasks.ml.features import matrix
from tasks.ml.leaks import Stacked
from tests.samples import data_of

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
MANY = 150_000
LIMITS = {"L": 11_000, "M": 12_000, "H": 13_000}
ADDS = {"L": 2, "M": 3, "H": 5}


@pytest.fixture(scope="module")
def data() -> ModuleType:
    """The project's data.py."""
    return data_of("milling")


@pytest.fixture(scope="module")
def plain(data) -> pd.DataFrame:
    """The published rules alone."""
    return data.simulate(MANY, seed=1)


@pytest.fixture(scope="module")
def year(data) -> pd.DataFrame:
    """The year with its three changes, as the batches hold it."""
    return data.simulate(changes=data.CHANGES)


@pytest.fixture(scope="module")
def files(data, tmp_path_factory) -> list[Path]:
    """The monthly batches."""
    return data.batches(tmp_path_factory.mktemp("milling"))


def test_types_come_as_in_the_published_rows(plain):
    """60 % low, 30 % medium, 10 % high; the serial starts with the type and stands once."""
    shares = plain["type"].value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"L": 0.6, "M": 0.3, "H": 0.1}, abs=0.005)
    assert (plain["serial"].str[0] == plain["type"]).all()
    assert plain["serial"].is_unique


def test_temperatures_walk_as_documented(plain):
    """Air has mean 300 K and sd 2 K; process minus air has mean 10 K and sd 1 K; both walk instead of jumping."""
    difference = plain["process"] - plain["air"]
    assert (plain["air"].mean(), plain["air"].std()) == pytest.approx((300, 2), abs=0.01)
    assert (difference.mean(), difference.std()) == pytest.approx((10, 1), abs=0.01)
    for walk in (plain["air"], difference):
        assert walk.autocorr(1) > 0.98
        assert abs(walk.autocorr(5000)) < 0.1


def test_torque_and_speed_have_the_published_moments(plain):
    """Torque is normal about 40 Nm with sd 10 and positive; speed is near the published 1,539 rpm, sd 179, correlation -.875."""
    torque, speed = plain["torque"], plain["speed"]
    assert (torque.mean(), torque.std()) == pytest.approx((40, 10), abs=0.1)
    assert np.quantile(torque, [0.1587, 0.8413]) == pytest.approx([30, 50], abs=0.2)
    assert torque.min() > 0
    assert speed.mean() == pytest.approx(1539, rel=0.03)
    assert np.subtract(*np.quantile(speed, [0.75, 0.25])) == pytest.approx(1612 - 1423, rel=0.35)
    assert torque.corr(speed) == pytest.approx(-0.875, abs=0.03)
    assert speed.max() <= 2886


def test_speed_is_what_a_power_of_2860_watts_gives_above_idle(plain):
    """Away from the top speed, speed minus idle times torque is 2,860 W on average, with normal noise of 60 rpm."""
    inner = plain[plain["torque"].between(30, 60)]
    noise = inner["speed"] - 830 - 2860 / inner["torque"] * 30 / math.pi
    assert (noise.mean(), noise.std()) == pytest.approx((0, 60), abs=1)
    assert abs(noise.skew()) < 0.05


def test_every_part_wears_the_tool(plain):
    """Within one tool the wear grows by 2, 3 or 5 minutes as the type of the part before says; a new tool starts at 0."""
    wear, ended = plain["wear"].to_numpy(), plain["ended"].to_numpy()
    added = plain["type"].map(ADDS).to_numpy()
    expected = np.where(ended[:-1], 0, wear[:-1] + added[:-1])
    assert wear[0] == 0
    np.testing.assert_array_equal(wear[1:], expected)


def test_a_tool_ends_between_200_and_240_minutes(plain):
    """Every tool ends at a wear from 200 to less than a part above 240, evenly spread, and 51 of 120 ends are failures."""
    at = plain.loc[plain["ended"], "wear"]
    assert at.between(200, 245).all()
    assert plain.loc[~plain["ended"], "wear"].max() <= 240
    assert np.quantile(at, [0.25, 0.5, 0.75]) == pytest.approx([211, 221, 231], abs=2)
    assert not (plain["twf"] & ~plain["ended"]).any()
    assert plain.loc[plain["ended"], "twf"].mean() == pytest.approx(51 / 120, abs=0.04)


def test_heat_power_and_strain_fail_exactly_by_their_rules(plain):
    """Row by row, in plain Python from the numbers that are sent, the three rules give the modes and nothing else does."""
    for row in plain.head(30_000).itertuples():
        tenths = round(row.process * 10) - round(row.air * 10)
        watts = row.torque * row.speed * math.tau / 60
        assert row.hdf == (tenths < 86 and row.speed < 1380)
        assert row.pwf == (not 3500 <= watts <= 9000)
        assert row.osf == (row.wear * row.torque > LIMITS[row.type])
        assert row.failure == (row.twf or row.hdf or row.pwf or row.osf or row.rnf)


def test_random_failures_come_once_in_a_thousand(plain):
    """Random failures have a rate of 0.1 % and do not depend on wear."""
    assert plain["rnf"].mean() == pytest.approx(0.001, abs=0.0003)
    assert abs(plain["rnf"].astype(float).corr(plain["wear"])) < 0.02


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_failures_are_as_frequent_as_published(data, seed):
    """339 of the 10,000 published rows failed; the plain simulation is within 0.5 percentage points, whatever the seed."""
    assert data.simulate(MANY, seed)["failure"].mean() == pytest.approx(0.0339, abs=0.005)


def test_a_seed_makes_the_same_rows(data):
    """The same seed gives the same rows, another one others, and the size is what was asked for."""
    first, again, other = (data.simulate(2000, seed, data.CHANGES) for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(first, again)
    assert len(first) == 2000
    assert not first["torque"].equals(other["torque"])


@pytest.mark.parametrize(
    ("change", "first"), [(0, "2024-04-15"), (1, "2024-06-10"), (2, "2024-09-16")], ids=["tool", "ambient", "supplier"]
)
def test_a_change_shows_only_after_its_date(data, change, first):
    """With one change the rows before its date are those of the plain history, and within two days they are not."""
    plain, changed = data.simulate(), data.simulate(changes=(data.CHANGES[change],))
    date = pd.Timestamp(first, tz="UTC")
    before = plain["time"] < date
    pd.testing.assert_frame_equal(plain[before], changed[before])
    soon = (plain["time"] >= date) & (plain["time"] < date + pd.Timedelta(days=2))
    assert not plain[soon].equals(changed[soon])


def test_a_hot_season_ends(data):
    """After the summer the air is the plain history's again; at its height it is 6 K warmer and the difference half a degree smaller."""
    plain, hot = data.simulate(), data.simulate(changes=(data.CHANGES[1],))
    after = plain["time"] >= pd.Timestamp("2024-09-05", tz="UTC")
    pd.testing.assert_frame_equal(plain[after], hot[after])
    height = plain["time"].between("2024-07-23 12:00+00:00", "2024-07-23 18:00+00:00")
    assert (hot["air"] - plain["air"])[height].to_numpy() == pytest.approx(6, abs=0.11)
    less = (plain["process"] - plain["air"]) - (hot["process"] - hot["air"])
    assert less[height].to_numpy() == pytest.approx(0.5, abs=0.21)


def test_the_supplier_moves_mix_and_limits(year):
    """From 16 September the mix is 45/35/20 and each type bears 1,500 minNm less; before it bears what is documented."""
    later = year["time"] >= pd.Timestamp("2024-09-16", tz="UTC")
    limits = year["type"].map(LIMITS) - 1500 * later
    np.testing.assert_array_equal(year["osf"], year["wear"] * year["torque"] > limits)
    shares = year.loc[later, "type"].value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"L": 0.45, "M": 0.35, "H": 0.2}, abs=0.02)


def test_the_tool_lasts_longer(year):
    """From 15 April parts add 1.5, 2.5 or 4 minutes, tools that were put in since end from 230 to 270 minutes, at 2 Nm less."""
    later = year[year["time"] >= pd.Timestamp("2024-04-15", tz="UTC")].reset_index(drop=True)
    added = later["wear"].diff().shift(-1)[~later["ended"]].dropna()
    assert added.groupby(later["type"]).agg(["min", "max"]).to_numpy().tolist() == [[4, 4], [1.5, 1.5], [2.5, 2.5]]
    assert later.loc[later["ended"], "wear"].iloc[1:].between(230, 274).all()
    assert later["torque"].mean() == pytest.approx(38, abs=0.1)


def test_batches_hold_the_year_and_no_mode_of_failure(files, year):
    """Twelve months with a row every five minutes; the controller's columns only, since the modes would give the answer away."""
    assert [path.stem for path in files] == [f"2024-{month:02}" for month in range(1, 13)]
    together = pd.concat([pd.read_csv(path) for path in files], ignore_index=True)
    assert list(together) == ["serial", "time", "type", "air", "process", "speed", "torque", "wear", "failure"]
    assert (pd.to_datetime(together["time"]).diff().dropna() == pd.Timedelta(minutes=5)).all()
    assert len(together) == 366 * 288
    for name in ("serial", "air", "speed", "wear", "failure"):
        assert together[name].tolist() == year[name].tolist()


def test_milling_batches_are_written_again_alike(data, files, tmp_path):
    """A second writing gives the same bytes; an unknown period is answered with those that are."""
    assert [path.read_bytes() for path in data.batches(tmp_path)] == [path.read_bytes() for path in files]
    with pytest.raises(KeepfitError, match="Did you mean 'month'"):
        data.batches(tmp_path, every="months")


def landed(files: list[Path]) -> tuple[Project, pd.DataFrame]:
    """The project and its rows as they land, with what its hook computes of them."""
    use = Project.named("milling", Settings(projects=DEPLOYMENTS))
    rows = pd.concat([pd.read_csv(path, dtype=str) for path in files], ignore_index=True)
    checked = use.contract.check(pa.Table.from_pandas(rows, preserve_index=False), NOW)
    assert not checked.broken.any()
    return use, use.completed(checked.rows.to_pandas())


def test_the_hook_computes_what_an_engineer_does(files):
    """Power, difference and strain by hand, of the first part and of all; none of them stands in the files."""
    _, rows = landed(files[:1])
    assert not {"power", "difference", "strain"} & set(pd.read_csv(files[0], nrows=1).columns)
    first = rows.iloc[0]
    assert first["power"] == pytest.approx(first["torque"] * first["speed"] * 0.10471975512)
    assert first["difference"] == pytest.approx(first["process"] - first["air"], abs=1e-6)
    assert (rows["strain"] - rows["wear"] * rows["torque"]).abs().max() < 0.006


def test_the_year_breaks_no_rule_and_leaks_nothing(files):
    """Every row keeps the contract, no column of train and validation tells the failure by itself, and each row is computed alone."""
    use, rows = landed(files)
    assert int(use.task.truth(rows).sum()) == sum(pd.read_csv(path)["failure"].sum() for path in files)
    cut = int(len(rows) * (1 - use.split.holdout))
    leaks = use.leaks.find(Stacked((rows[:cut],)), {"failure": use.task.truth(rows)[:cut]}, rows[cut:], use.whole)
    assert [leak.reason for leak in leaks if leak.blocks] == []
    assert use.computing is not None
    raw = {name: use.types[name] for name in use.contract.features}
    assert use.computing.entangled(matrix(rows[:cut], raw), seed=1) == ""


def test_two_months_land(files, settings, monkeypatch):
    """The first two batches land whole."""
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(DEPLOYMENTS))
    own = Settings()
    assert own.home == settings.home
    landings = Landings(Project.named("milling", own), own)
    landed = [landings.land(path) for path in files[:2]]
    assert [(one.state, one.landed, one.quarantined) for one in landed] == [
        ("landed", 31 * 288, 0),
        ("landed", 29 * 288, 0),
    ]
