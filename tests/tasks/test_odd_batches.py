"""Batches that keep the contract row by row and are wrong as a whole, through a real landing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks import ingest
from tasks.config.project import Project
from tasks.config.settings import Settings

WARD = """
project: ward
positive: true
contract:
  key: [id]
  time: at
  target: sick
  columns:
    id: {type: int}
    at: {type: datetime}
    heart_rate: {type: float}
    temperature: {type: float}
    lactate: {type: float}
    ward: {type: category}
    sick: {type: bool}
split: {kind: time, column: at}
"""
ROWS = 800


def batch(number: int) -> pd.DataFrame:
    """Rows of one week: the sick have a faster heart, a higher temperature and more lactate."""
    rng = np.random.default_rng(number)
    sick = rng.random(ROWS) < 0.25
    return pd.DataFrame({
        "id": np.arange(ROWS) + number * ROWS,
        "at": pd.date_range("2026-01-01", periods=ROWS, freq="12min", tz="UTC") + pd.Timedelta(days=7 * number),
        "heart_rate": rng.normal(75 + 20 * sick, 10).round(1), "temperature": rng.normal(36.8 + sick, 0.4).round(2),
        "lactate": rng.lognormal(0.2 + 0.9 * sick, 0.4).round(3), "ward": rng.choice(["north", "south", "east"], ROWS), "sick": sick,
    })  # fmt: skip


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> Path:
    """A home in which six honest batches have landed."""
    folder = tmp_path_factory.mktemp("ward")
    (folder / "projects" / "ward").mkdir(parents=True)
    (folder / "projects" / "ward" / "project.yaml").write_text(WARD)
    landings = at(folder)
    for number in range(6):
        assert land(landings, folder, batch(number)).state == "landed"
    return folder


def at(folder: Path) -> ingest.Landings:
    settings = Settings(home=folder / "home", projects=folder / "projects")
    return ingest.Landings(Project.named("ward", settings), settings)


def land(landings: ingest.Landings, folder: Path, rows: pd.DataFrame) -> ingest.Landing:
    file = folder / f"{rows['id'].iloc[0]}-{abs(hash(rows.to_csv()))}.csv"
    rows.to_csv(file, index=False)
    return landings.land(file)


def inverted(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(sick=~rows["sick"])


def forced(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(sick=rows["sick"].where(rows["ward"] != "east", other=True))


def repeated(rows: pd.DataFrame) -> pd.DataFrame:
    """The same eight sick rows a hundred times, under new keys."""
    chosen = rows[rows["sick"]].head(8)
    many = pd.concat([chosen] * 100, ignore_index=True)
    return many.assign(id=rows["id"].to_numpy()[: len(many)] if len(many) <= len(rows) else rows["id"])


def hundredfold(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(lactate=rows["lactate"] * 100)


def mirrored(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(temperature=-rows["temperature"])


def swapped(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(heart_rate=rows["temperature"], temperature=rows["heart_rate"])


def refused(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame], word: str) -> None:
    """The batch is held whole with a reason that names what is odd, and nothing about the table or the next training changes."""
    landings = at(folder)
    before = landings.lake.snapshot()
    landing = land(landings, folder, change(batch(6)))
    assert (landing.state, landing.landed, landing.quarantined) == ("held", 0, landing.arrived)
    assert word in landing.reason
    assert landing.findings
    assert landings.lake.snapshot() == before


@pytest.mark.parametrize(("attack", "word"), [(inverted, "inverted"), (forced, "east"), (repeated, "repeat")])
def test_i_22_a_poisoned_batch_is_held(history: Path, attack, word):
    """Labels inverted, one segment forced to sick, eight rows a hundred times: each is held, and the snapshot stays."""
    refused(history, attack, word)


@pytest.mark.parametrize(
    ("change", "word"), [(hundredfold, "lactate"), (mirrored, "temperature"), (swapped, "heart_rate")]
)
def test_i_23_changed_units_signs_and_columns_hold_the_batch(history: Path, change, word):
    """A hundredfold, another sign, two columns swapped: held before any training, the column named."""
    refused(history, change, word)


def test_i_22_an_honest_batch_still_lands_and_a_held_one_when_a_person_says_why(history: Path):
    """What refuses the poisoned ones lets the next honest batch in; a held one lands with a reason on record."""
    landings = at(history)
    held = land(landings, history, hundredfold(batch(7)))
    assert held.state == "held"
    assert land(landings, history, batch(8)).state == "landed"
    taken = landings.replay(held.batch, accept="the laboratory reports in other units from today on (ward physician)")
    assert (taken.state, taken.landed) == ("landed", ROWS)
