from pathlib import Path

import pandas as pd
import pytest

from tasks.config.errors import ArtifactError
from tasks.stores.lake import BATCH, ROW, Lake, snapshot_named


def rows(*numbers: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": pd.array(numbers, dtype="Int64"),
            "at": pd.to_datetime([f"2026-01-{number:02d}" for number in numbers], utc=True).astype(
                "datetime64[us, UTC]"
            ),
            "x": [number / 7 if number % 2 else None for number in numbers],
            "c": pd.array([None if number == 3 else f"c{number}" for number in numbers], dtype="string"),
            "b": pd.array([number % 2 == 0 for number in numbers], dtype="boolean"),
        }
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake("p", str(tmp_path))


def test_a_batch_that_is_landed_twice_is_there_once(lake: Lake):
    """The same batch appended again changes neither rows nor version."""
    first = lake.land("a" * 64, rows(1, 2))
    assert lake.land("a" * 64, rows(1, 2)) == first
    assert lake.holds("a" * 64)
    assert not lake.holds("b" * 64)
    assert sorted(lake.rows()["id"]) == [1, 2]


def test_a_snapshot_reads_back_the_rows_that_landed(lake: Lake):
    """Every value, missing ones too, comes back in its type, and a later batch does not change an older snapshot."""
    lake.land("a", rows(1, 2, 3))
    snapshot = lake.snapshot("at")
    assert snapshot is not None
    lake.land("b", rows(4))
    read = lake.read(snapshot).drop(columns=[ROW, BATCH]).sort_values("id").reset_index(drop=True)
    pd.testing.assert_frame_equal(read, rows(1, 2, 3), check_dtype=False)
    assert (snapshot.rows, snapshot.since[:10], snapshot.until[:10]) == (3, "2026-01-01", "2026-01-03")


def test_any_order_of_files_gives_the_same_digest(tmp_path: Path):
    """I-07: the digest names the set of rows, not the order in which they came."""
    one, two = Lake("p", str(tmp_path / "1")), Lake("p", str(tmp_path / "2"))
    for batch in (rows(1, 2), rows(3)):
        one.land(str(len(batch)), batch)
    for batch in (rows(3), rows(2, 1)):
        two.land(str(len(batch)), batch)
    first, second = one.snapshot("at"), two.snapshot("at")
    assert first is not None
    assert second is not None
    assert first.digest == second.digest


def test_an_altered_file_is_not_read(lake: Lake):
    """I-02: rows on disk that are not the rows that landed raise, and the message names the snapshot."""
    lake.land("a", rows(1, 2))
    snapshot = lake.snapshot("at")
    assert snapshot is not None
    file = next(Path(lake.root).glob("rows/*.parquet"))
    table = pd.read_parquet(file)
    table.loc[0, "x"] = 99.0
    table.to_parquet(file)
    with pytest.raises(ArtifactError, match="was altered or damaged"):
        lake.read(snapshot)


def test_quarantined_rows_keep_rule_value_and_content(lake: Lake):
    """What broke the contract can be looked up and sent again."""
    lake.quarantine(
        "a", pd.DataFrame({"age": ["455"], "_rule": ["age is above 120"], "_column": ["age"], "_value": ["455"]})
    )
    kept = lake.quarantined()
    assert kept[["_rule", "_value"]].iloc[0].tolist() == ["age is above 120", "455"]
    assert '"455"' in kept["_raw"].iloc[0]


def test_a_snapshot_has_a_name_that_leads_back_to_it(lake: Lake):
    """`v0-…` finds the snapshot; a number that is not there, or another digest, says what is."""
    lake.land("a", rows(1, 2))
    snapshot = lake.snapshot("at")
    assert snapshot is not None
    assert snapshot_named(lake, "at", snapshot.name) == snapshot
    assert snapshot_named(lake, "at", None) == snapshot
    with pytest.raises(ArtifactError, match="There is no snapshot 'v7'"):
        snapshot_named(lake, "at", "v7")
    with pytest.raises(ArtifactError, match="is not what the table holds"):
        snapshot_named(lake, "at", "v0-00000000")


def test_an_empty_lake_has_no_snapshot(lake: Lake):
    """Before the first batch there is nothing to train on."""
    assert lake.snapshot("at") is None
    assert lake.rows(["id"]).empty
