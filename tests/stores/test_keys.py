from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tasks import ingest
from tasks.ml.identity import key_hashes, row_ids
from tasks.stores import keys as keys_module
from tasks.stores.keys import Keys
from tests.tasks.test_ingest import counts, land, rows, small
from tests.tasks.test_outcomes import outcomes

__all__ = ["small"]

CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("land"), st.lists(st.integers(1, 90), min_size=1, max_size=3)),
        st.tuples(st.just("write"), st.integers(1, 90)),
        st.tuples(st.just("replace"), st.integers(0, 30)),
        st.tuples(st.just("compact"), st.integers(2, 6)),
        st.tuples(st.just("follow")),
    ),
    min_size=2, max_size=20,
)  # fmt: skip


def named(numbers: range) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and names of rows."""
    rows = pa.table({"id": np.array(numbers, dtype=np.int64)})
    return key_hashes(rows, ("id",)), row_ids(rows)


@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(
    history=[("land", [1]), ("land", [1, 1, 3]), ("replace", 0)]
)  # a merged run falls, its sister must not stand alone
@given(history=CHANGES)
def test_an_index_that_follows_finds_every_key_after_any_history(tmp_path_factory, monkeypatch, history):
    """Landings of several runs, replaced and compacted files, in any order: the keys of all files, and no other, are found."""
    monkeypatch.setattr(keys_module, "TIER", 3)
    folder, table, next_id = tmp_path_factory.mktemp("index"), dict[str, list[range]](), 0

    def fresh(count: int) -> range:
        nonlocal next_id
        next_id += count
        return range(next_id - count, next_id)

    def read(file: str) -> tuple[np.ndarray, np.ndarray]:
        parts = [named(part) for part in table[file]]
        return np.concatenate([hashes for hashes, _ in parts]), np.concatenate([names for _, names in parts])

    for n, (what, *how) in enumerate(history):
        match what, how:
            case "land", (sizes,):  # a landing of some passes: the index adopts a run of each
                parts, staged = [fresh(size) for size in sizes], Keys(folder / f"staged{n}")
                for part in parts:
                    staged.add(*named(part))
                table[f"{n}"] = parts
                Keys(folder / "keys").adopt(staged, [f"{n}"])
            case "write", (size,):  # a landing with corrections: the index is not told
                table[f"{n}"] = [fresh(size)]
            case "replace", (which,) if table:
                old = sorted(table)[which % len(table)]
                kept = [part[1:] for part in table.pop(old) if len(part) > 1]
                table |= {f"{n}": kept} if kept else {}
            case "compact", (count,) if len(table) > 1:
                old = sorted(table)[:count]
                table[f"{n}"] = [part for file in old for part in table.pop(file)]
                Keys(folder / "keys").rename(old, [f"{n}"])
            case "follow", _:
                Keys(folder / "keys").follow(set(table), read)
    index = Keys(folder / "keys")
    index.follow(set(table), read)
    here, _ = index.find(named(range(next_id))[0])
    there = {number for parts in table.values() for part in parts for number in part}
    assert set(np.flatnonzero(here).tolist()) == there


@pytest.mark.parametrize("behind", ["correction", "kill"])
def test_rows_that_were_compacted_before_the_index_knew_them_are_known(small, tmp_path: Path, monkeypatch, behind):
    """A compaction right after a correction, or after a kill, leaves no key out: the rows do not land twice."""
    land(small, tmp_path, "a.csv", rows(*range(10)))
    land(small, tmp_path, "b.csv", rows(*range(10, 20)))
    if behind == "correction":
        monkeypatch.setattr(ingest, "CROWD", 3)
        land(small, tmp_path, "a.csv", [*rows(3, age="77"), *rows(50)])
    else:
        monkeypatch.setattr(Keys, "adopt", lambda *_given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            land(small, tmp_path, "new.csv", rows(50, 51))
        monkeypatch.undo()
        monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
        monkeypatch.setattr(ingest, "CROWD", 3)
        land(outcomes(small), tmp_path, "late.csv", [{"id": "3", "y": "t"}])
    table = small.lake.landed
    assert len(table.files(table.open())) == 1, "they were compacted"
    assert counts(land(small, tmp_path, "c.csv", rows(50))) == (1, 0, 0, 1)
