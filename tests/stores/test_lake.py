import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import Landings
from tasks.ml.identity import key_hashes, row_ids
from tasks.stores.keys import Keys
from tasks.stores.lake import BATCH, ROW, Lake, snapshot_named
from tasks.stores.tables import Table
from tests.samples import write_rows


@pytest.fixture
def landings(settings: Settings, thyroid_rows, tmp_path: Path) -> Landings:
    landings = Landings(Project.named("thyroid", settings), settings)
    landings.land(write_rows(tmp_path / "a.csv", thyroid_rows[:80]))
    return landings


def test_a_snapshot_reads_back_the_rows_that_landed(landings, thyroid_rows, tmp_path: Path):
    """Every value, missing ones too, comes back in its type, and a later batch does not change an older snapshot."""
    snapshot = landings.lake.snapshot()
    landings.land(write_rows(tmp_path / "b.csv", thyroid_rows[80:120]))
    read = landings.lake.read(snapshot).sort_values("patient_id").reset_index(drop=True)
    assert read["patient_id"].tolist() == [int(row["patient_id"]) for row in thyroid_rows[:80]]
    assert read["TSH"].isna().tolist() == [row["TSH"] == "" for row in thyroid_rows[:80]]
    assert read["sex"].dropna().tolist() == [row["sex"] for row in thyroid_rows[:80] if row["sex"]]
    assert str(read["date"].dtype) == "datetime64[us, UTC]"
    assert (snapshot.name[:3], snapshot.rows, len(landings.lake.rows())) == ("v1-", 80, 120)
    days = sorted(row["patient_id"].zfill(9)[:6] for row in thyroid_rows[:80])
    assert (snapshot.since[2:10].replace("-", ""), snapshot.until[2:10].replace("-", "")) == (days[0], days[-1])


def test_the_rows_of_a_snapshot_come_in_the_order_of_time_and_of_their_names(landings):
    """No file's order can leak into a training; of the batches nothing can be learned."""
    read = landings.lake.read(landings.lake.snapshot())
    ordered = sorted(zip(read["date"], read[ROW], strict=True))
    assert list(zip(read["date"], read[ROW], strict=True)) == ordered
    assert len({date for date, _ in ordered}) < len(ordered)  # names decide somewhere
    assert BATCH not in read


def test_a_snapshot_has_a_name_that_leads_back_to_it(landings):
    """`v1-…` finds the snapshot; a number that is not there, or another digest, says what is."""
    snapshot = landings.lake.snapshot()
    assert snapshot_named(landings.lake, snapshot.name) == snapshot
    assert snapshot_named(landings.lake, None) == snapshot
    with pytest.raises(ArtifactError, match="There is no snapshot 'v7'"):
        snapshot_named(landings.lake, "v7")
    with pytest.raises(ArtifactError, match="is not what the table holds"):
        snapshot_named(landings.lake, "v1-00000000")


def test_a_missing_data_file_is_named(landings):
    """A file that is gone is an error that names it, not fewer rows."""
    snapshot = landings.lake.snapshot()
    file = next(Path(landings.lake.landed.root).glob("*.parquet"))
    file.unlink()
    with pytest.raises(ArtifactError, match=file.name):
        landings.lake.read(snapshot)


def test_an_empty_lake_has_no_snapshot(tmp_path: Path):
    """Before the first batch there is nothing to train on."""
    lake = Lake("p", str(tmp_path))
    assert lake.snapshot() is None
    assert lake.rows(["id"]).empty


def test_the_index_finds_every_key_and_no_other(tmp_path: Path):
    """Over 100 runs, merged as they come, each key leads to its row, and unknown keys to none."""
    rng, keys = np.random.default_rng(3), Keys(tmp_path)
    numbers = rng.permutation(40_000)
    for piece in np.split(numbers[:30_000], 100):
        rows = pa.table({"id": piece, "x": piece / 7})
        keys.add(key_hashes(rows, ("id",)), row_ids(rows), [f"{piece[0]}.parquet"])
    keys.save()
    asked = pa.table({"id": numbers, "x": numbers / 7})
    here, names = Keys(tmp_path).find(key_hashes(asked, ("id",)))
    assert here.tolist() == [True] * 30_000 + [False] * 10_000
    assert (names[:30_000] == row_ids(asked)[:30_000]).all()
    assert len(Keys(tmp_path).runs) < 20


def test_an_index_that_is_gone_or_damaged_is_made_anew(landings, thyroid_rows, tmp_path: Path):
    """The same rows in another file are known after the index was deleted, and after it was cut."""
    for n, harm in enumerate((lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:100]))):
        for path in landings.indexes.rglob("*.npy"):
            harm(path)
        again = landings.land(write_rows(tmp_path / f"again{n}.csv", thyroid_rows[: 70 + n]))
        assert (again.landed, again.known) == (0, 70 + n)


def test_how_new_the_rows_are_is_known_without_reading_one(landings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From what the table says of its files; a window is counted back from there."""
    assert Lake("thyroid", str(tmp_path / "none"), landings.contract).recent(None) is None
    whole = landings.lake.snapshot()
    assert whole is not None
    with monkeypatch.context() as patched:
        for name in ("read", "peek", "opened"):
            patched.setattr(Table, name, None)
        every, newest = (landings.lake.recent(back) for back in (None, dt.timedelta(hours=1)))
    assert every is not None
    assert newest is not None
    assert (every.until, every.version, every.outcomes) == (whole.until, whole.version, whole.outcomes)
    counts = [sum(map(len, landings.lake.content(snapshot))) for snapshot in (every, newest)]
    times = landings.lake.read(whole)[landings.contract.time]
    assert counts == [whole.rows, (times >= times.max() - pd.Timedelta(hours=1)).sum()]
    assert 0 < counts[1] < counts[0]
