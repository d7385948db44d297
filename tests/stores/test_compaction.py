from pathlib import Path

import pytest

from tasks import ingest
from tasks.config.settings import Settings
from tasks.stores import durable
from tasks.stores.keys import Keys
from tests.tasks.test_ingest import counts, land, rows, small
from tests.tasks.test_outcomes import outcomes

__all__ = ["small"]


def files(landings: ingest.Landings, kind: str = "rows") -> int:
    table = landings.lake.table(kind)
    return len(table.files(table.open()))


def test_many_small_batches_stay_few_files_with_the_same_content(small, tmp_path: Path, monkeypatch):
    """Small data files are compacted as they come; digest, older snapshots, known keys and quarantine do not change."""
    monkeypatch.setattr(ingest, "CROWD", 4)
    kept = {}
    for n in range(10):
        land(small, tmp_path, f"{n}.csv", [*rows(*range(n * 5, n * 5 + 5)), *rows(1000 + n, age="455")])
        land(outcomes(small), tmp_path, f"late{n}.csv", [{"id": str(n), "y": "t"}])
        kept[n] = small.lake.snapshot()
        assert files(small) < 4
        assert files(small, "outcomes") < 4
        assert files(small, "quarantine") < 4
    for n, snapshot in kept.items():
        assert sorted(small.lake.read(snapshot)["id"]) == list(range(n * 5 + 5))
    assert len(small.lake.quarantined()) == 10
    small.journal.announced("small")
    assert counts(land(small, tmp_path, "again.csv", rows(*range(50)))) == (50, 0, 0, 50)
    assert counts(land(outcomes(small), tmp_path, "again2.csv", [{"id": "3", "y": "t"}])) == (1, 0, 0, 1)


def test_compaction_does_not_read_the_index_of_keys_anew(small, tmp_path: Path, monkeypatch):
    """The index follows a compaction by name alone, so that landing does not cost more the more has landed."""
    monkeypatch.setattr(ingest, "CROWD", 3)
    for n in range(3):
        land(small, tmp_path, f"{n}.csv", rows(*range(n * 5, n * 5 + 5)))
    assert files(small) == 1
    keys = small.index("rows")
    assert keys.files == {file.path for file in small.lake.landed.files(small.lake.landed.open())}

    def unread(*_arguments: object) -> None:
        raise AssertionError("a data file was read for its keys")

    monkeypatch.setattr(Keys, "add", unread)
    small.lake.follow(keys, small.lake.landed, ("id",))


def test_i_02_a_damaged_small_file_keeps_no_batch_from_landing(small, tmp_path: Path, monkeypatch, caplog):
    """What cannot be compacted stays as it is and is told; the batch that came has landed, and says so."""
    monkeypatch.setattr(ingest, "CROWD", 3)
    land(small, tmp_path, "a.csv", rows(*range(10)))
    file = next(Path(small.lake.landed.root).glob("*.parquet"))
    land(small, tmp_path, "b.csv", rows(*range(10, 20)))
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert land(small, tmp_path, "c.csv", rows(*range(20, 30))).landed == 10
    assert file.name in caplog.text
    file.write_bytes(whole)
    assert land(small, tmp_path, "d.csv", rows(*range(30, 40))).landed == 10
    assert files(small) == 1
    assert len(small.lake.read(small.lake.snapshot())) == 40


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_s_01_a_compaction_survives_a_fault_at_every_durable_step(small, tmp_path: Path, monkeypatch, swept, fault):
    """A kill or an I/O error before the n-th durable step, for every n: the next landing finds every row once."""
    monkeypatch.setattr(ingest, "CROWD", 3)
    step, done = 0, False
    while not done:
        landings = ingest.Landings(small.use, Settings(home=tmp_path / f"home{fault.__name__}{step}"))
        for n in range(2):
            land(landings, tmp_path, f"{n}.csv", rows(*range(n * 5, n * 5 + 5)))
        left = iter(range(step))

        def seam(what: str, left=left) -> None:
            if next(left, None) is None:
                raise fault(f"at {what}")

        monkeypatch.setattr(durable, "seam", seam)
        try:
            land(landings, tmp_path, "2.csv", rows(*range(10, 15)))
            done = True
        except fault:
            pass
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        land(landings, tmp_path, "2.csv", rows(*range(10, 15)))
        land(landings, tmp_path, "3.csv", rows(15))
        assert sorted(landings.lake.rows()["id"]) == list(range(16)), step
        assert landings.journal.totals("small")["rows"] == 16
        assert landings.journal.intent("small") is None
        assert not landings.staging.exists()
        step += 1
    swept(step - 1)
    assert step > 12
