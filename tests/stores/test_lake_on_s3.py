import os
from pathlib import Path

import pytest

from tasks import ingest
from tasks.config.errors import ArtifactError
from tasks.config.settings import Settings
from tasks.erase import Erasing
from tasks.tidy import Tidying
from tests.tasks.test_ingest import counts, land, rows, small
from tests.tasks.test_outcomes import outcomes

__all__ = ["small"]


@pytest.fixture
def remote(small: ingest.Landings, store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ingest.Landings:
    """The project with its lake in a bucket."""
    monkeypatch.setenv("KEEPFIT_LAKE_URL", f"s3://drop/lake-{tmp_path.name}")
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
    assert store.exists("drop")
    return ingest.Landings(small.use, Settings())


def test_batches_land_in_an_object_store_as_on_a_disk(remote, tmp_path: Path):
    """Landing, correcting, labelling and reading back verified, with the lake at an s3:// URL; the disk holds no row."""
    assert counts(land(remote, tmp_path, "a.csv", [*rows(*range(60)), *rows(99, age="455")])) == (61, 60, 1, 0)
    before = remote.lake.snapshot()
    assert counts(land(remote, tmp_path, "a.csv", rows(3, age="77"))) == (1, 1, 0, 0)
    land(outcomes(remote), tmp_path, "late.csv", [{"id": "0", "y": "f"}])
    newest = remote.lake.read(remote.lake.snapshot()).set_index("id")
    assert (len(newest), newest.loc[3, "age"], newest.loc[0, "y"]) == (60, 77, False)
    assert remote.lake.read(before).set_index("id").loc[3, "age"] == 3
    assert not (Settings().home / "lake").exists()


def test_i_26_rows_are_erased_from_an_object_store_and_nothing_old_is_left(remote, store, tmp_path: Path):
    """Objects with the row are deleted in whatever version they stood; tidying removes what no version needs."""
    land(remote, tmp_path, "a.csv", [*rows(*range(60)), *rows(99, age="455")])
    before = remote.lake.snapshot()
    land(remote, tmp_path, "a.csv", rows(3, age="77"))
    done = Erasing(remote.use, Settings()).erase(("3",), {}, actor="auditor", reason="letter 7")
    assert (done.rows, done.snapshots) == (2, 2)
    with pytest.raises(ArtifactError, match="rows were erased: letter 7"):
        remote.lake.read(before)
    assert sorted(remote.lake.read(remote.lake.snapshot())["id"]) == [n for n in range(60) if n != 3]
    land(remote, tmp_path, "b.csv", rows(60))
    found = Tidying(remote.use, Settings()).tidy(0)
    assert found["compacted"] == {"rows": 2}
    assert Tidying(remote.use, Settings()).tidy(0)["removed"] == {"rows": 2}
    place = remote.lake.landed.root.removeprefix("s3://")
    assert [path for path in store.ls(place, refresh=True) if path.endswith(".parquet")] == [
        f"{place}/{name}" for name in remote.lake.landed.stored()
    ]
    assert len(remote.lake.landed.stored()) == 1


def test_i_02_a_flipped_bit_in_an_object_is_noticed(remote, store, tmp_path: Path):
    """An object whose bytes changed is refused by name, and its neighbours still read."""
    land(remote, tmp_path, "a.csv", rows(*range(60)))
    land(remote, tmp_path, "b.csv", rows(*range(60, 90)))
    first, second = remote.lake.landed.stored()
    place = f"{remote.lake.landed.root.removeprefix('s3://')}/{first}"
    content = bytearray(store.cat(place))
    content[len(content) // 2] ^= 1
    store.pipe(place, bytes(content))
    with pytest.raises(ArtifactError, match=first):
        remote.lake.read(remote.lake.snapshot())
    table = remote.lake.landed
    assert list(table.verify(table.files(table.open()))) == [first]
    assert [len(table.read(file)) for file in table.files(table.open()) if file.path == second] in ([60], [30])
