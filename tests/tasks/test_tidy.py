import datetime as dt
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tasks import ingest
from tasks.config.errors import ArtifactError
from tasks.config.settings import Settings
from tasks.ml.watching.plan import WatchPlan
from tasks.stores import durable
from tasks.stores.changes import Change, Edit
from tasks.stores.journal import Release, Rollout
from tasks.stores.staging import Stage
from tasks.tidy import Tidying
from tests.tasks.test_ingest import land, rows, small
from tests.tasks.test_outcomes import newest

__all__ = ["small"]
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def trained(landings: ingest.Landings, state: str = "registered") -> str:
    """Records a training on the newest snapshot; gives the snapshot's name."""
    snapshot, journal = newest(landings.lake), landings.journal
    number = journal.start_training(
        project="small", trigger="test", event=False, snapshot=snapshot.digest, config="", at=NOW, rows=snapshot.name, trusted=snapshot.trusted or 0
    )  # fmt: skip
    journal.end_training(number, state=state, reason="", at=NOW)
    return snapshot.name


def set_apart(landings: ingest.Landings, name: str) -> None:
    """Makes the newest rows the trusted set, in place of the one before, however few they are."""
    lake, stage = landings.lake, Stage(landings.staging, landings.lake.trusted.time)
    with landings.alone():
        stage.add(pa.concat_tables(list(lake.content(newest(lake))), promote_options="permissive"))
        edit = Edit(table="trusted", add=tuple(stage.close()), remove=tuple(lake.trusted.files(lake.trusted.open())))
        landings.do(Change(
            project="small", id=f"trust {name}", at=NOW, why={"keepfit.why": "trust"}, contract=landings.contract, edits=(edit,), staging=str(landings.staging),
        ))  # fmt: skip


def tidying(landings: ingest.Landings, settings: Settings | None = None) -> Tidying:
    return Tidying(landings.use, settings or Settings())


def read(landings: ingest.Landings, name: str) -> int:
    from tasks.stores.lake import snapshot_named

    found = snapshot_named(landings.lake, name)
    assert found is not None
    return len(landings.lake.read(found))


def test_s_11_what_a_model_was_trained_on_stays_and_the_rest_goes(small, tmp_path: Path):
    """Of three versions that corrections replaced, the one with a model reads on; the others say when they were removed."""
    names = []
    for n in range(4):
        land(small, tmp_path, "a.csv", rows(*range(60), age=str(n)))
        names.append(trained(small) if n == 1 else newest(small.lake).name)
    stored = len(small.lake.landed.stored())
    planned = tidying(small).tidy(0, dry_run=True)
    assert len(small.lake.landed.stored()) == stored
    done = tidying(small).tidy(0)
    assert planned["removed"] == done["removed"] == {"rows": 2}
    assert (planned["bytes"], planned["kept_for"]) == (done["bytes"], [names[1]])
    assert [read(small, names[1]), read(small, names[3])] == [60, 60]
    for gone in (names[0], names[2]):
        with pytest.raises(ArtifactError, match="no model was trained on it"):
            read(small, gone)


def test_s_11_a_recent_version_stays_for_so_many_days(small, tmp_path: Path):
    """Nothing that was the newest within the days to keep is removed; the clock of the log counts."""
    for n in range(3):
        land(small, tmp_path, "a.csv", rows(*range(20), age=str(n)))
    assert tidying(small).tidy(30)["removed"] == {}
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=31)
    assert Tidying(small.use, Settings(), lambda: later).tidy(30)["removed"] == {"rows": 2}


def test_s_11_the_trusted_set_by_which_a_version_was_judged_stays(small, tmp_path: Path):
    """Of three trusted sets the one that judged a model reads on, and the newest; the outcomes' own versions say nothing of them."""
    late = ingest.Landings(small.use, Settings(), kind="outcomes")
    sets = []
    for n in range(3):
        land(small, tmp_path, f"{n}.csv", rows(*range(20 * n, 20 * n + 20)))
        for key in range(3):
            land(late, tmp_path, f"late{n}{key}.csv", [{"id": str(key), "y": "tf"[n % 2]}])
        set_apart(small, str(n))
        sets.append(newest(small.lake).trusted)
        if n == 0:
            trained(small)
    assert tidying(small).tidy(0)["removed"]["trusted"] == 1
    assert [len(small.lake.apart(sets[n])) for n in (0, 2)] == [20, 60]
    with pytest.raises(ArtifactError, match="no model was trained on it"):
        small.lake.apart(sets[1])


def test_s_11_where_a_training_does_not_say_its_trusted_set_every_one_stays(small, tmp_path: Path):
    """A home from before trainings said so: none of its trusted sets is removed."""
    for n in range(3):
        land(small, tmp_path, f"{n}.csv", rows(*range(20 * n, 20 * n + 20)))
        set_apart(small, str(n))
    small.journal.start_training(
        project="small", trigger="test", event=False, snapshot="", config="", at=NOW, rows=newest(small.lake).name
    )
    assert "trusted" not in tidying(small).tidy(0)["removed"]


def test_what_any_version_since_one_has_is_what_each_of_them_has(small, tmp_path: Path):
    """Landings, corrections and a compaction: from whichever version on, the commits name the same data files as every version opened."""
    for n in range(4):
        land(small, tmp_path, "a.csv", rows(*range(9), age=str(n)))
        land(small, tmp_path, f"{n}.csv", rows(20 + n))
    tidying(small).tidy(30)
    table = small.lake.landed
    every = [{file.path for file in table.files(table.open(version))} for version in range((table.newest or 0) + 1)]
    assert len(every) == 10
    assert [table.since(version) for version in range(10)] == [set.union(*every[version:]) for version in range(10)]


def watched(settings: Settings, name: str, made: int) -> Path:
    """What a watch compares with, made then."""
    folder = settings.home / "watch" / "small" / name
    folder.mkdir(parents=True)
    for file in ("rows.parquet", "learned.json"):
        (folder / file).write_text("somebody's")
    os.utime(folder, (made, made))
    return folder


def test_what_the_watch_no_longer_compares_with_is_removed(small):
    """Of four champions and a challenger in its shadow: the champion's newest plan stays, the one before it, and the challenger."""
    settings = Settings()
    for generation, version in enumerate((1, 2, 3, 4), start=1):
        small.journal.release(
            Release("small", generation, version, f"d{version}", "a", "r", NOW.isoformat(), "roc_auc", 0.9, 0.8, 1.0)
        )
    small.journal.begin_rollout(
        Rollout("small", 15, "d15", 4, "d4", {}, "a", "r", NOW.isoformat(), "shadow", NOW.isoformat())
    )
    gone = [watched(settings, name, made) for name, made in (("1-aa", 9), ("2-bb", 9), ("4-cc", 1), ("4-dd", 2))]
    stays = [watched(settings, name, made) for name, made in (("3-ee", 1), ("4-ff", 3), ("15-ff", 1))]
    planned = tidying(small).tidy(30, dry_run=True)
    assert all(folder.exists() for folder in gone)
    done = tidying(small).tidy(30)
    assert planned["remembered"] == done["remembered"] == [folder.name for folder in gone]
    assert "0 looks and 4 folders of the watch removed" in done["reason"]
    assert sorted((settings.home / "watch" / "small").iterdir()) == sorted(stays)
    assert all((folder / "rows.parquet").read_text() == "somebody's" for folder in stays)
    assert tidying(small).tidy(30)["remembered"] == []


def test_old_looks_are_removed_but_for_those_that_the_next_one_reads(small):
    """Pictures of two windows read eight looks; younger ones than the days to keep stay whatever their number, and other projects' all."""
    days = dt.timedelta(days=1)
    use = small.use.model_copy(update={"watch": WatchPlan(history=2)})
    for project in ("small", "other"):
        for day in range(20):
            small.journal.record_watch(
                project=project, at=NOW + day * days, version=1, verdict="ok", detail={"day": day}
            )

    def tidied(keep_days: float, **more: bool) -> tuple[int, list[int]]:
        done = Tidying(use, Settings(), lambda: NOW + 20 * days).tidy(keep_days, **more)
        return done["looks"], [row["detail"]["day"] for row in small.journal.watches("small")]

    assert tidied(30) == (0, [*range(20)])
    assert tidied(15, dry_run=True) == (5, [*range(20)])
    assert tidied(15) == (5, [*range(5, 20)])
    assert tidied(1) == (7, [*range(12, 20)])
    assert len(small.journal.watches("other")) == 20


def test_tidy_compacts_whatever_small_files_there_are(small, tmp_path: Path):
    """Five small files become one, with the same digest; a second time there is nothing to do."""
    for n in range(5):
        land(small, tmp_path, f"{n}.csv", rows(n))
    before = newest(small.lake)
    assert tidying(small).tidy(30)["compacted"] == {"rows": 5}
    after = newest(small.lake)
    assert (after.digest, after.version, read(small, before.name)) == (before.digest, before.version + 1, 5)
    assert tidying(small).tidy(30)["compacted"] == {}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("land"), st.integers(0, 3), st.integers(0, 40), st.integers(1, 20)),
        st.tuples(st.just("outcomes"), st.integers(0, 40)),
        st.tuples(st.just("train"), st.sampled_from(["registered", "released", "running", "refused"])),
        st.tuples(st.just("trust")),
        st.tuples(st.just("tidy")),
    ),
    min_size=3, max_size=14,
)  # fmt: skip


@hypothesis_settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=STEPS)
def test_s_11_no_history_of_landings_makes_tidy_remove_what_is_needed(small, tmp_path_factory, history):
    """After any landings, corrections, outcomes, trusted sets, trainings and removals every snapshot of a model reads as it was."""
    folder = tmp_path_factory.mktemp("any")
    settings = Settings(home=folder / "state")
    landings = ingest.Landings(small.use, settings)
    late = ingest.Landings(small.use, settings, kind="outcomes")
    needed: dict[tuple[str, int | None], tuple[int, int]] = {}
    for n, (what, *how) in enumerate(history):
        match what, how:
            case "land", (name, start, count):
                land(landings, folder, f"{name}.csv", rows(*range(start, start + count), age=str(n)))
            case "outcomes", (key,):
                land(late, folder, f"late{n}.csv", [{"id": str(key), "y": "tf"[n % 2]}])
            case "train", (state,) if landings.lake.snapshot():
                name = trained(landings, state)
                if state != "refused":
                    judged = newest(landings.lake).trusted
                    needed[name, judged] = read(landings, name), len(landings.lake.apart(judged))
            case "trust", _ if landings.lake.snapshot():
                set_apart(landings, str(n))
            case "tidy", _:
                tidying(landings, settings).tidy(0)
    tidying(landings, settings).tidy(0)
    for (name, judged), counts in needed.items():
        assert (read(landings, name), len(landings.lake.apart(judged))) == counts
    if (whole := landings.lake.snapshot()) is not None:
        assert len(landings.lake.read(whole)) == landings.journal.totals("small")["rows"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, pytest.param(OSError, marks=pytest.mark.slow)])
def test_s_01_tidying_survives_a_fault_at_every_durable_step(small, tmp_path: Path, monkeypatch, swept, fault):
    """A kill or an I/O error before the n-th step, for every n: tidying again ends as an undisturbed one."""
    step, done = 0, False
    while not done:
        settings = Settings(home=tmp_path / f"home{fault.__name__}{step}")
        landings, left = ingest.Landings(small.use, settings), iter(range(step))
        for n in range(3):
            land(landings, tmp_path, "a.csv", rows(*range(9), age=str(n)))
            land(landings, tmp_path, f"{n}.csv", rows(20 + n))
        whole = newest(landings.lake)

        def seam(what: str, left=left) -> None:
            if next(left, None) is None:
                raise fault(f"at {what}")

        monkeypatch.setattr(durable, "seam", seam)
        try:
            tidying(landings, settings).tidy(0)
            done = True
        except fault:
            pass
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        tidying(landings, settings).tidy(0)
        tidying(landings, settings).tidy(0)
        assert newest(landings.lake).digest == whole.digest
        assert len(landings.lake.landed.stored()) == 1, step
        assert (landings.journal.intent("small"), landings.staging.exists()) == (None, False)
        step += 1
    swept(step - 1)
    assert step > 10
