import datetime as dt
import json
from pathlib import Path

import pytest

from tasks import ingest
from tasks.config.errors import ArtifactError, BatchError
from tasks.config.settings import Settings
from tasks.erase import Erased, Erasing
from tasks.stores import candidates, durable
from tasks.stores.journal import KEPT
from tasks.stores.predictions import Predictions
from tests.samples import write_rows
from tests.tasks.test_ingest import counts, land, rows, small
from tests.tasks.test_outcomes import newest, outcomes
from tests.tasks.test_tidy import trained

__all__ = ["small"]
WHO = {"actor": "auditor", "reason": "asked for by letter 7"}


def erase(
    landings: ingest.Landings, *keys: str, settings: Settings | None = None, dry_run: bool = False, **where: str
) -> Erased:
    erasing = Erasing(landings.use, settings or Settings())
    return erasing.erase(keys, where, dry_run=dry_run, **WHO)


def everywhere(landings: ingest.Landings, settings: Settings) -> None:
    """Key 7 in two versions of the rows, in quarantine, in outcomes, in three kept files and in the prediction log."""
    for name, content in (("a", rows(*range(20))), ("b", rows(*range(20, 40)))):
        landings.land(ingest.keep("small", write_rows(settings.home.parent / f"{name}.csv", content), settings))
    kept = ingest.keep(
        "small", write_rows(settings.home.parent / "c.csv", [*rows(7, age="999"), *rows(*range(50, 70))]), settings
    )
    landings.land(kept)
    folder = settings.home.parent / "corrected"
    folder.mkdir()
    landings.land(ingest.keep("small", write_rows(folder / "a.csv", rows(7, age="70")), settings))
    land(outcomes(landings), settings.home.parent, "late.csv", [{"id": "7", "y": "t"}, {"id": "8", "y": "t"}])
    at = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    Predictions(settings.home).append("small", at, [{"id": f"p{n}", "row": {"id": n, "age": 5}} for n in (6, 7, 8)])


def traces(settings: Settings, key: str = "7") -> set[str]:
    """Files under the home that still hold rows of a key, as text or in a Parquet file."""
    import pyarrow.parquet as pq

    found = set()
    for path in settings.home.rglob("*"):
        if path.is_file() and path.suffix == ".parquet":
            table = pq.read_table(path)
            ids = (
                table["id"].to_pylist()
                if "id" in table.column_names
                else [json.loads(raw)["id"] for raw in table["_raw"].to_pylist()]
            )
            found |= {path.name} if key in {str(value) for value in ids} else set()
        elif path.is_file() and path.suffix in {".csv", ".jsonl"}:
            text = path.read_text()
            found |= {path.name} if f"\n{key}," in text or f'"id":{key},' in text else set()
    return found


def test_i_26_an_erased_row_is_gone_from_every_place(small, settings):
    """Rows of every version, outcome, quarantined row, kept files, prediction: all gone; all others are still there."""
    settings = Settings()
    everywhere(small, settings)
    assert len(traces(settings)) >= 6
    before = newest(small.lake)
    planned = erase(small, "7", dry_run=True)
    assert len(traces(settings)) >= 6
    done = erase(small, "7")
    assert planned.model_dump(exclude={"state", "reason"}) == done.model_dump(exclude={"state", "reason"})
    assert (done.rows, done.outcomes, done.quarantined, done.predictions, len(done.kept)) == (2, 1, 1, 1, 3)
    assert traces(settings) == set()
    now = small.lake.read(newest(small.lake))
    assert sorted(now["id"]) == [n for n in (*range(40), *range(50, 70)) if n != 7]
    assert now.set_index("id").loc[8, "y"] is True or bool(now.set_index("id").loc[8, "y"])
    assert [record["id"] for record in Predictions(settings.home).read("small")] == ["p6", "p8"]
    with pytest.raises(ArtifactError, match="rows were erased: asked for by letter 7"):
        small.lake.read(before)
    totals = small.journal.totals("small")
    assert (totals["rows"], totals["quarantined"], totals["erased"]) == (len(now), 0, 2)
    assert totals["arrived"] == totals["rows"] + totals["quarantined"] + totals["known"] + totals["erased"] + 1, (
        "one was corrected"
    )
    assert erase(small, "7").state == "nothing"


def test_i_26_the_models_that_learned_from_it_are_named(small, tmp_path: Path):
    """Versions whose snapshot held the row, and no other; the record names who and why, never the key."""
    land(small, tmp_path, "a.csv", rows(*range(5)))
    without = trained(small)
    land(small, tmp_path, "b.csv", rows(4242, 6))
    affected = trained(small)
    done = erase(small, "4242")
    assert [model["snapshot"] for model in done.models] == [affected] != [without]
    assert done.snapshots == 1
    (record,) = small.journal.erasures("small")
    assert (record["actor"], record["reason"], record["rows"]) == ("auditor", "asked for by letter 7", 1)
    assert "4242" not in json.dumps(record)


def test_a_version_that_waits_is_offered_no_more_when_rows_of_it_are_erased(small, tmp_path: Path):
    """Its proposal is void, with who and why; another version, which never saw the rows, waits on."""
    for version, batch in ((1, range(5)), (2, [4242, 6])):
        land(small, tmp_path, f"{version}.csv", rows(*batch))
        number = len(small.journal.trainings("small")) + 1
        trained(small)
        small.journal.end_training(
            number, state="held", reason="", at=dt.datetime.now(dt.UTC), version=version, digests={"bundle": "b"}
        )
    erase(small, "4242", dry_run=True)
    assert [each.version for each in small.journal.proposals("small", state="open")] == [1, 2]
    erase(small, "4242")
    assert [each.version for each in small.journal.proposals("small", state="open")] == [1]
    (void,) = small.journal.proposals("small", state="void")
    assert (void.version, void.actor, void.reason) == (2, "auditor", "rows that it was made from were erased")


def test_i_26_what_a_training_keeps_while_mlflow_is_away_goes_with_the_rows(small, settings):
    """Its candidate, and the rows that MLflow is to be shown; what else MLflow is to be told stays, as does a training under way."""
    settings = Settings()
    everywhere(small, settings)
    number = small.journal.start_training(
        project="small", trigger="t", event=False, snapshot="s", config="c", at=dt.datetime.now(dt.UTC)
    )
    small.journal.end_training(
        number, state=KEPT, reason="so", at=dt.datetime.now(dt.UTC), detail={"run": "1-aa", "kept": True}
    )
    for name in ("1-aa/model.skops", "1-aa-answers.parquet", "2-bb/model.skops"):
        durable.write(settings.home / "candidates" / "small" / name, b"7")
    for name in ("0001-start.json", "0002-log_rows.json"):
        durable.write(settings.home / "minutes" / "small" / "1-aa" / name, b"7")
    erase(small, "7")
    left = {
        path.name for room in ("candidates", "minutes") for path in (settings.home / room).rglob("*") if path.is_file()
    }
    assert left == {"model.skops", "0001-start.json"}
    assert candidates.files(settings, "small", ["1-aa"]) == []


def test_i_26_the_same_bytes_do_not_come_back_and_a_new_batch_lands(small, tmp_path: Path):
    """The batch that brought the row is known; a row of the same key in another batch is a new one."""
    file = write_rows(tmp_path / "a.csv", rows(*range(5)))
    small.land(file)
    small.journal.announced("small")
    erase(small, "3")
    assert counts(small.land(file)) == (5, 0, 0, 5)
    assert 3 not in set(small.lake.rows()["id"])
    assert counts(land(small, tmp_path, "b.csv", rows(3, 9))) == (2, 2, 0, 0)


def test_i_26_rows_are_found_by_value_and_with_them_all_of_their_key(small, tmp_path: Path):
    """A value that only an older version of the row had leads to its key, and so to every version of it."""
    land(small, tmp_path, "a.csv", [*rows(1, age="33"), *rows(2, age="44")])
    land(small, tmp_path, "a.csv", rows(1, age="34"))
    assert erase(small, age="33").rows == 2
    assert small.lake.rows()["id"].tolist() == [2]


@pytest.mark.parametrize(
    ("keys", "where", "said"),
    [
        ((), {}, "needs a --key"),
        (("x",), {}, "'x' is no int"),
        ((), {"agee": "3"}, "Did you mean 'age'"),
        (("3",), {"id": "9"}, "'id' is named by --key and by --where"),
    ],
)
def test_i_26_a_request_that_names_nobody_is_refused(small, keys, where, said):
    """No key, a key that cannot be one, a column that is not there: nothing is changed."""
    with pytest.raises(BatchError, match=said):
        erase(small, *keys, **where)


def test_i_26_what_has_not_landed_or_cannot_be_read_is_named(small):
    """A waiting file and a broken one are told, for nobody looked into them."""
    settings = Settings()
    kept = ingest.keep("small", write_rows(settings.home.parent / "a.csv", rows(*range(3))), settings)
    broken = settings.home.parent / "b.parquet"
    broken.write_bytes(b"PAR1 and no more")
    held = ingest.keep("small", broken, settings)
    assert small.land(held).state == "held"
    done = erase(small, "1")
    assert (done.waiting, done.unread) == ((kept.name,), (held.name,))


@pytest.mark.parametrize("fault", [KeyboardInterrupt, pytest.param(OSError, marks=pytest.mark.slow)])
def test_s_01_an_erasure_survives_a_fault_at_every_durable_step(small, tmp_path: Path, monkeypatch, swept, fault):
    """A kill or an I/O error before the n-th step, for every n: what was begun is finished by whoever comes next."""
    step, done = 0, False
    while not done:
        folder = tmp_path / f"{fault.__name__}{step}"
        folder.mkdir()
        settings, left = Settings(home=folder / "home"), iter(range(step))
        landings = ingest.Landings(small.use, settings)
        monkeypatch.setenv("KEEPFIT_HOME", str(settings.home))
        everywhere(landings, settings)

        def seam(what: str, left=left) -> None:
            if next(left, None) is None:
                raise fault(f"at {what}")

        monkeypatch.setattr(durable, "seam", seam)
        try:
            erase(landings, "7", settings=settings)
            done = True
        except fault:
            pass
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        begun = landings.journal.intent("small") is not None
        again = erase(landings, "7", settings=settings)
        assert traces(settings) == set(), step
        assert not begun or again.state == "nothing"
        assert (landings.journal.intent("small"), landings.staging.exists()) == (None, False)
        assert len(landings.journal.erasures("small")) == 1, step
        step += 1
    swept(step - 1)
    assert step > 15
