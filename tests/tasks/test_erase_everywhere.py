"""Erasure where it could miss something, or take too much."""

import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tasks import ingest
from tasks.config.errors import ArtifactError
from tasks.config.names import ARRIVED, LANDED, SENT
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.pages import contract_table
from tasks.stores import durable, marks
from tasks.stores.lake import BATCH
from tasks.stores.predictions import Predictions
from tasks.tidy import Tidying
from tests.samples import write_rows
from tests.tasks.test_erase import erase, traces
from tests.tasks.test_ingest import SMALL, land, rows, small
from tests.tasks.test_outcomes import newest, outcomes

__all__ = ["small"]

DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HISTORY = st.lists(
    st.one_of(
        st.tuples(st.just("land"), st.integers(0, 2), st.integers(0, 12), st.integers(1, 8)),
        st.tuples(st.just("broken"), st.integers(0, 12)),
        st.tuples(st.just("outcomes"), st.integers(0, 12), st.sampled_from(["t", "f", "maybe"])),
        st.tuples(st.just("erase"), st.integers(0, 12)),
        st.tuples(st.just("mend")),
        st.tuples(st.just("tidy")),
    ),
    min_size=3, max_size=12,
)  # fmt: skip


def logged(settings: Settings, *served: dict[str, object]) -> Path:
    """The prediction log of one day, a line for each row."""
    log = Predictions(settings.home)
    log.append("small", DAY, [{"id": f"p{n}", "row": row, "prediction": True} for n, row in enumerate(served)])
    log.close()
    return settings.home / "predictions" / "small" / "2026-03-01.jsonl"


def mended(landings: ingest.Landings) -> ingest.Landings:
    """The project after its contract allows every age."""
    use = landings.use.model_dump(mode="json")
    use["contract"]["columns"]["age"]["max"] = 5000
    return ingest.Landings(Project.model_validate(use), Settings())


def accounts(landings: ingest.Landings) -> dict[str, int]:
    """The project's account, after it was compared with what is there."""
    totals, batches = landings.journal.totals("small"), landings.journal.batches("small")
    late = {row["batch"] for row in batches if row["kind"] == "outcomes"}
    quarantined = [batch for batch in landings.lake.quarantined()[BATCH] if batch not in late]
    assert (totals["rows"], totals["quarantined"]) == (len(landings.lake.rows(["id"])), len(quarantined))
    corrected = sum(row["replaced"] or 0 for row in batches if row["kind"] != "outcomes")
    assert totals["arrived"] == sum(totals[what] for what in ("rows", "quarantined", "known", "erased")) + corrected
    return totals


@hypothesis_settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(history=[("broken", 7), ("broken", 8), ("erase", 7), ("mend",)])
@example(history=[("outcomes", 7, "maybe"), ("erase", 7)])
@given(history=HISTORY)
def test_i_26_in_any_history_an_erasure_takes_what_it_announced_and_no_other_row(
    small, tmp_path_factory, monkeypatch, history
):
    """The dry run equals the real one, no trace is left, every other row is there, a second one finds nothing, accounts add up."""
    folder = tmp_path_factory.mktemp("any")
    monkeypatch.setenv("KEEPFIT_HOME", str(folder / "state"))
    settings = Settings()
    landings = ingest.Landings(small.use, settings)
    for n, (what, *how) in enumerate(history):
        match what, how:
            case "land", (name, start, count):
                landings.land(write_rows(folder / f"{name}.csv", rows(*range(start, start + count), age=str(n))))
            case "broken", (key,):
                content = [*rows(key, age=str(999 + n)), *rows(100 + 2 * n, 101 + 2 * n)]
                landings.land(ingest.keep("small", write_rows(folder / f"broken{n}.csv", content), settings))
            case "outcomes", (key, label):
                land(
                    outcomes(landings), folder, f"late{n}.csv", [{"id": str(key), "y": label}, {"id": "200", "y": "t"}]
                )
            case "mend", _:
                for row in landings.journal.batches("small"):
                    if row["quarantined"] and row["kind"] != "outcomes":
                        mended(landings).replay(row["batch"])
            case "tidy", _:
                Tidying(landings.use, settings).tidy(0)
            case "erase", (key,):
                before = set(landings.lake.rows(["id"])["id"])
                planned, done = erase(landings, str(key), dry_run=True), erase(landings, str(key))
                assert planned.model_dump(exclude={"state", "reason"}) == done.model_dump(exclude={"state", "reason"})
                assert set(landings.lake.rows(["id"])["id"]) == before - {key}
                assert traces(settings, str(key)) == set()
                assert erase(landings, str(key)).state == "nothing"
        accounts(landings)


def test_i_26_a_quarantined_row_without_a_readable_key_leads_to_no_other_row(small, tmp_path: Path):
    """A missing key is not key 0: what is found by another value takes its own row only."""
    land(small, tmp_path, "a.csv", [*rows(*range(10)), *rows(5, id="x", age="99")])
    done = erase(small, age="99")
    assert (done.rows, done.quarantined) == (0, 1)
    assert sorted(small.lake.rows()["id"]) == list(range(10))


def test_i_26_a_quarantined_row_whose_key_looks_like_a_time_is_erased(small, tmp_path: Path):
    """The text is compared as it came."""
    coded = small.use.model_dump(mode="json")
    coded["contract"]["columns"]["code"] = {"type": "text"}
    coded["contract"]["key"] = ["code"]
    landings = ingest.Landings(Project.model_validate(coded), Settings())
    content = [*rows(*range(10)), *rows(10, age="455")]
    land(landings, tmp_path, "a.csv", [row | {"code": f"2026-01-{n + 1:02d}"} for n, row in enumerate(content)])
    done = erase(landings, code="2026-01-11")
    assert (done.rows, done.quarantined) == (0, 1)
    assert len(landings.lake.quarantined()) == 0


def test_i_26_rows_and_outcomes_of_before_the_key_was_wider_are_erased(small, tmp_path: Path):
    """A data file that is older than a column of the key has no whole key: its rows are found by what it has of it."""
    land(small, tmp_path, "a.csv", rows(*range(10)))
    land(outcomes(small), tmp_path, "late.csv", [{"id": "5", "y": "t"}, {"id": "6", "y": "f"}])
    wider = small.use.model_dump(mode="json")
    wider["contract"]["columns"]["site"] = {"type": "int"}
    wider["contract"]["key"] = ["id", "site"]
    landings = ingest.Landings(Project.model_validate(wider), Settings())
    land(landings, tmp_path, "b.csv", [row | {"site": "1"} for row in rows(5, 20)])
    done = erase(landings, id="5")
    assert (done.rows, done.outcomes) == (2, 1)
    assert sorted(landings.lake.rows(["id"])["id"]) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 20]
    assert erase(landings, id="5").state == "nothing"


def test_i_26_a_key_that_is_named_twice_is_one_key(small, tmp_path: Path):
    """Two ways to write a key are the same request."""
    land(small, tmp_path, "a.csv", rows(*range(10)))
    assert erase(small, "7", "07", "7").rows == 1


def test_i_26_keys_beyond_the_exact_floats_are_told_apart(small, tmp_path: Path):
    """A row of key 2**53 in quarantine, beside one without a key, is not the row of key 2**53 + 1."""
    land(small, tmp_path, "a.csv", [*rows(1, 2, 3, 2**53 + 1), *rows(2**53, age="455"), *rows(4, id="")])
    done = erase(small, str(2**53 + 1))
    assert (done.rows, done.quarantined) == (1, 0)
    assert sorted(small.lake.rows()["id"]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        ("csv", "raw.assign(id=raw['id'].str.removeprefix('no. '))"),
        ("jsonl", "raw.assign(id=raw['year'] * 100 + raw['number'])"),
        ("parquet", "raw.assign(id=raw['year'] * 100 + raw['number'])"),
    ],
    ids=["csv", "jsonl", "parquet"],
)
def test_i_26_a_key_that_the_project_derives_is_found_in_rows_as_they_came(
    small, tmp_path: Path, monkeypatch, kind, hook
):
    """Quarantined rows and kept files hold what the key was made of; the project's hook leads from there to the key."""
    folder = tmp_path / "derived" / "small"
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text(SMALL)
    (folder / "hooks.py").write_text(f"def derive(raw):\n    return {hook}\n")
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(folder.parent))
    settings, file = Settings(), tmp_path / f"a.{kind}"
    landings = ingest.Landings(Project.named("small", settings), settings)
    raw = [{**row, "id": f"no. {2000 + n}", "year": 20, "number": n} for n, row in enumerate(rows(*range(6)))]
    raw[3]["age"] = "455"
    if kind == "csv":
        write_rows(file, raw)
    elif kind == "jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in raw))
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(raw), file)
    kept = ingest.keep("small", file, settings)
    assert landings.land(kept).quarantined == 1
    done = erase(landings, "2003")
    assert (done.rows, done.quarantined, len(done.kept)) == (0, 1, 1)
    assert not kept.exists()
    assert erase(landings, "2004").rows == 1


@pytest.mark.parametrize("place", [LANDED, SENT])
def test_i_26_a_kept_file_that_moves_meanwhile_is_deleted_where_it_is(small, tmp_path: Path, monkeypatch, place):
    """The end of a landing moves its file after the lock is free; an erasure that has begun finds it there."""
    settings = Settings()
    kept = ingest.keep("small", write_rows(tmp_path / "a.csv", rows(*range(10))), settings)
    together = settings.inbox("small") / ARRIVED / "0123456789abcdef-2 files" / kept.name
    together.parent.mkdir(parents=True)
    kept.replace(together)
    small.land(together.parent)
    moved = settings.inbox("small") / place / together.parent.name / together.name

    def seam(what: str) -> None:
        if what == "intend":
            moved.parent.parent.mkdir(parents=True, exist_ok=True)
            together.parent.replace(moved.parent)

    monkeypatch.setattr(durable, "seam", seam)
    erase(small, "7")
    assert not moved.exists()
    assert not together.exists()


def test_i_26_predictions_are_found_however_their_key_is_written(small):
    """A number, a float, a text; a torn line that may be meant; no other line, and the log reads on."""
    settings = Settings()
    path = logged(settings, {"id": 7}, {"id": 7.0}, {"id": "7"}, {"id": 70}, {"age": 7}, {"id": 7, "name": "Zoe"})
    whole = path.read_bytes().lstrip().splitlines(keepends=True)
    path.write_bytes(b"".join([*whole[:5], whole[5][:-20], b"\n", b'{"id": "p9", "row": {"id": 8\n']))
    done = erase(small, "7")
    assert done.predictions == 4
    assert [record["id"] for record in Predictions(settings.home).read("small")] == ["p3", "p4"]
    assert b"Zoe" not in path.read_bytes()
    assert b'{"id": "p9"' in path.read_bytes()


def test_i_26_predictions_are_found_by_the_marks_of_rows_that_a_value_names(small, tmp_path: Path):
    """The key is learned from the rows that have the value; a torn line with the mark goes, too."""
    land(small, tmp_path, "a.csv", [*rows(7, age="33"), *rows(8, age="44")])
    made = marks.Marks(marks.secret(Settings().home, make=True) or b"", "small", {"id": "int"})
    mine, other = ({marks.MARK: made.of({"id": n}), "age": 1} for n in (7, 8))
    served = [
        {"id": f"p{n}", "at": DAY.isoformat(), "version": 1, "prediction": True, "row": row}
        for n, row in enumerate((mine, other, {"age": 1}, mine))
    ]
    assert Predictions(Settings().home).append("small", DAY, served) == 0
    path = Settings().home / "predictions" / "small" / "2026-03-01.jsonl"
    whole = path.read_bytes().lstrip().splitlines(keepends=True)
    path.write_bytes(b"".join([*whole[:3], whole[3][:-5], b"\n"]))
    done = erase(small, age="33")
    assert (done.rows, done.predictions, done.unattributed) == (1, 2, 1)
    assert [record["id"] for record in Predictions(Settings().home).read("small")] == ["p1", "p2"]
    assert str(mine[marks.MARK]).encode() not in path.read_bytes()


def test_i_26_a_log_that_somebody_removed_does_not_stop_the_erasure(small, tmp_path: Path, monkeypatch):
    """Killed before the log was blanked, the log removed since: whoever comes next finishes, and batches land again."""
    land(small, tmp_path, "a.csv", rows(*range(10)))
    path = logged(Settings(), {"id": 7, "age": 3})

    def seam(what: str) -> None:
        if what.startswith("blank"):
            raise KeyboardInterrupt

    monkeypatch.setattr(durable, "seam", seam)
    with pytest.raises(KeyboardInterrupt):
        erase(small, "7")
    monkeypatch.setattr(durable, "seam", lambda _what: None)
    path.unlink()
    assert land(small, tmp_path, "b.csv", rows(20)).landed == 1
    assert (len(small.journal.erasures("small")), small.journal.intent("small")) == (1, None)


def test_i_26_a_damaged_file_is_named_and_nothing_is_erased(small, tmp_path: Path):
    """What cannot be looked into may hold the row: the request is refused by name, before anything is changed."""
    land(small, tmp_path, "a.csv", rows(*range(400)))
    land(small, tmp_path, "b.csv", rows(500))
    table = small.lake.landed
    file = max(
        (Path(table.root) / file.path for file in table.files(table.open())), key=lambda path: path.stat().st_size
    )
    whole, before = file.read_bytes(), newest(small.lake)
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(ArtifactError, match=file.name):
        erase(small, "500")
    file.write_bytes(whole)
    assert newest(small.lake) == before


def test_i_26_no_profile_and_no_page_holds_a_key_or_a_text_that_one_row_has(tmp_path: Path, monkeypatch):
    """What outlives an erasure – the journal's profiles, the contract's page – says how many there are, not who."""
    folder = tmp_path / "projects" / "small"
    folder.mkdir(parents=True)
    text = SMALL.replace("id: {type: int}", "id: {type: text}\n    note: {type: text, nullable: true}")
    (folder / "project.yaml").write_text(text)
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(folder.parent))
    settings = Settings()
    landings = ingest.Landings(Project.named("small", settings), settings)
    people = [{**row, "id": f"person{n}", "note": f"about{n % 59}"} for n, row in enumerate(rows(*range(60)))]
    land(landings, tmp_path, "a.csv", people)
    told = json.dumps(
        [landings.journal.profiles("small", 9), contract_table(landings.use.contract, landings.lake.rows().get)]
    )
    assert "60 different" in told
    assert "person" not in told
    assert "about" not in told.replace('"about"', "")
