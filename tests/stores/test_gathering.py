"""The logs of the door go into the lake: every record once, whatever is killed, and what is erased is gone there, too."""

import datetime as dt

import pytest

from tasks.config.settings import Settings
from tasks.erase import Erasing
from tasks.stores import durable
from tasks.stores.journal import Release, Rollout
from tasks.stores.predictions import Predictions, Told
from tasks.stores.reading import Reading
from tasks.stores.served import Serving
from tasks.stores.shadows import Shadows
from tasks.stores.tables import DataFile
from tasks.tidy import Tidying
from tests.tasks.test_ingest import small

__all__ = ["small"]
DAY = dt.timedelta(days=1)
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def predict(settings, at, *names):
    """Logs a prediction for each name, of the row with that key."""
    records = [{"id": f"p{name}", "at": at.isoformat(), "version": 1, "prediction": True, "row": {"id": name}} for name in names]  # fmt: skip
    assert Predictions(settings.home).append("small", at, records) == 0
    Told(settings.home).tell("small", at, [(f"p{name}", True, None) for name in names])


def tidy(landings, settings, at=NOON, keep_days=30):
    return Tidying(landings.use, settings, lambda: at).tidy(keep_days)


def ids(settings, kind="predictions"):
    return [name for rows in Serving("small", settings).tables(kind) for name in rows["id"].to_pylist()]


def in_table(settings, kind="predictions"):
    table = Serving("small", settings).lake.table(kind)
    return sorted(name for file in table.files(table.open()) for name in table.read(file)["id"].to_pylist())


def logs(settings):
    return sorted(f"{path.parents[1].name} {path.stem}" for path in settings.home.glob("*/small/*.jsonl"))


def test_the_open_log_goes_into_the_table_up_to_a_mark(small):
    """Tidying twice brings each record once; a line that is being written stays in the log until it is whole."""
    settings = Settings()
    predict(settings, NOON, 1, 2)
    path = settings.home / "predictions" / "small" / "2026-03-01.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert tidy(small, settings)["gathered"] == {"predictions": 1, "told": 2}
    assert in_table(settings) == ["p1"]
    path.write_bytes(whole)
    assert (tidy(small, settings)["gathered"], tidy(small, settings)["gathered"]) == ({"predictions": 1}, {})
    assert (in_table(settings), sorted(ids(settings)), sorted(ids(settings, "told"))) == (["p1", "p2"],) * 3
    predict(settings, NOON, 3)
    assert sorted(ids(settings)) == ["p1", "p2", "p3"]
    assert Serving("small", settings).known().counts()["waiting"] == 0


def test_a_log_leaves_the_disk_when_it_is_old_and_wholly_in_the_table(small):
    """After the days to keep, and not before, a log goes; a torn last line does not keep it; every record stays once."""
    settings = Settings()
    predict(settings, NOON, 1)
    predict(settings, NOON + DAY, 2)
    for path in settings.home.glob("*/small/2026-03-01.jsonl"):
        with path.open("ab") as file:
            file.write(b'{"id": "torn')
    assert tidy(small, settings, NOON + 2 * DAY)["logs"] == []
    assert len(logs(settings)) == 4
    done = tidy(small, settings, NOON + 31 * DAY)
    assert done["logs"] == ["predictions/2026-03-01.jsonl", "told/2026-03-01.jsonl"]
    assert logs(settings) == ["predictions 2026-03-02", "told 2026-03-02"]
    predict(settings, NOON + 31 * DAY, 3)
    assert sorted(ids(settings)) == sorted(ids(settings, "told")) == ["p1", "p2", "p3"]


def test_a_log_that_was_removed_by_hand_is_begun_anew(small):
    """What stands in the table stays, and the shorter new file is read from its beginning."""
    settings = Settings()
    predict(settings, NOON, 1, 2)
    tidy(small, settings)
    (settings.home / "predictions" / "small" / "2026-03-01.jsonl").unlink()
    predict(settings, NOON, 3)
    assert sorted(ids(settings)) == ["p1", "p2", "p3"]
    assert tidy(small, settings)["gathered"] == {"predictions": 1, "told": 1}
    assert in_table(settings) == ["p1", "p2", "p3"]


def test_s_10_a_log_that_is_made_anew_after_the_clock_went_back_is_read_from_its_beginning(small):
    """A clock that stood a year ahead had the log of today removed; what comes when it is right again is known, and goes into the table once (S-10)."""
    settings = Settings()
    predict(settings, NOON, 1, 2)
    assert len(tidy(small, settings, NOON + 365 * DAY)["logs"]) == 2
    predict(settings, NOON, 3, 4, 5)
    names = ["p1", "p2", "p3", "p4", "p5"]
    assert sorted(ids(settings)) == sorted(ids(settings, "told")) == names
    assert tidy(small, settings)["gathered"] == {"predictions": 3, "told": 3}
    assert tidy(small, settings)["gathered"] == {}
    assert in_table(settings) == in_table(settings, "told") == names


def compare(settings, at):
    """Logs a request that two models scored."""
    record = {
        "at": at.isoformat(),
        "answered": 2,
        "beside": 1,
        "ids": ["p1"],
        "said": [{}],
        "thought": [{}],
        "ms": None,
    }
    assert Shadows(settings.home).append("small", at, [record]) == 0


def rolling(landings, began, version=2, phase="probation", instead=None, **more):
    """Version 2 is on probation since then, or another one in another phase."""
    return landings.journal.begin_rollout(
        Rollout("small", version, "", 1, "", {}, "test", "test", began=began.isoformat(), phase=phase, since=began.isoformat(), **more), instead=instead
    )  # fmt: skip


def test_a_shadow_log_leaves_the_disk_when_it_is_old(small):
    """After the days to keep, and not before; a rehearsal removes none."""
    settings = Settings()
    compare(settings, NOON)
    compare(settings, NOON + DAY)
    assert tidy(small, settings, NOON + 30 * DAY)["logs"] == []
    assert Tidying(small.use, settings, lambda: NOON + 31 * DAY).tidy(30, dry_run=True)["logs"] == []
    assert tidy(small, settings, NOON + 31 * DAY)["logs"] == ["shadows/2026-03-01.jsonl"]
    assert logs(settings) == ["shadows 2026-03-02"]
    assert tidy(small, settings, NOON + 31 * DAY, 0)["logs"] == ["shadows/2026-03-02.jsonl"]


def test_what_a_rollout_compares_is_not_removed(small):
    """However old, the shadow log stays from the day on which the rollout that goes on began; when it has ended that goes, too."""
    settings = Settings()
    for day in range(4):
        compare(settings, NOON + day * DAY)
    rollout = rolling(small, NOON + 2 * DAY)
    assert tidy(small, settings, NOON + 90 * DAY)["logs"] == ["shadows/2026-03-01.jsonl", "shadows/2026-03-02.jsonl"]
    assert [len(some) for some in Reading("small", NOON + 2 * DAY, settings).compared()] == [1, 1]
    small.journal.move_rollout(rollout, phase="passed")
    assert tidy(small, settings, NOON + 90 * DAY)["logs"] == ["shadows/2026-03-03.jsonl", "shadows/2026-03-04.jsonl"]


def test_what_a_probation_that_rests_has_compared_is_not_removed(small):
    """While another challenger is tried, and until the probation goes on; when it has ended, or the champion is another one, the log goes, too."""
    settings = Settings()
    for day in range(6):
        compare(settings, NOON + day * DAY)
    for version in (1, 2):
        at = (NOON + version * DAY).isoformat()
        small.journal.release(
            Release("small", version, version, "", "test", "test", at, "m", value=0.9, low=0.8, high=1.0)
        )
    probation = rolling(small, NOON + 2 * DAY, generation=2)
    challenger = rolling(small, NOON + 4 * DAY, 3, "shadow", instead=probation)
    assert tidy(small, settings, NOON + 90 * DAY)["logs"] == ["shadows/2026-03-01.jsonl", "shadows/2026-03-02.jsonl"]
    small.journal.move_rollout(challenger, phase="undone")
    assert tidy(small, settings, NOON + 90 * DAY)["logs"] == []
    goes_on = rolling(small, NOON + 3 * DAY, generation=2)
    assert tidy(small, settings, NOON + 90 * DAY)["logs"] == ["shadows/2026-03-03.jsonl"]
    challenger = rolling(small, NOON + 5 * DAY, 4, "canary", instead=goes_on)
    small.journal.release(Release("small", 3, 4, "", "test", "test", at, "m", value=0.9, low=0.8, high=1.0))
    assert tidy(small, settings, NOON + 90 * DAY)["logs"] == ["shadows/2026-03-04.jsonl", "shadows/2026-03-05.jsonl"]
    assert logs(settings) == ["shadows 2026-03-06"]


@pytest.mark.parametrize("when", ["before", "after", "between"])
def test_r_12_an_erasure_reaches_predictions_and_what_was_told_of_them(small, when):
    """Whether in the log, in the table or in both, an erased row's predictions and outcomes are in no file any more."""
    settings = Settings()
    predict(settings, NOON, 7_770_777, 8)
    if when != "before":
        tidy(small, settings)
    if when == "between":
        predict(settings, NOON + DAY, 7_770_777, 9)
    done = Erasing(small.use, settings).erase(("7770777",), {}, actor="test", reason="asked for")
    assert (done.state, done.predictions, done.told) == ("erased", 2 if when == "between" else 1, 1)
    tidy(small, settings, NOON + 40 * DAY)
    assert "p7770777" not in {*ids(settings), *ids(settings, "told")}
    assert {"p8"} <= {*ids(settings)} & {*ids(settings, "told")}
    for path in settings.home.rglob("*.jsonl"):
        assert b"7770777" not in path.read_bytes()
    for kind in ("predictions", "told"):  # whatever version a file belongs to
        table = Serving("small", settings).lake.table(kind)
        stored = [table.peek(DataFile(path=path, size=0, rows=0), ["id"])["id"].to_pylist() for path in table.stored()]
        assert stored
        assert "p7770777" not in {name for names in stored for name in names}


@pytest.mark.parametrize("fault", [KeyboardInterrupt, pytest.param(OSError, marks=pytest.mark.slow)])
def test_v_11_gathering_survives_a_fault_at_every_durable_step(small, tmp_path, monkeypatch, fault):
    """A kill before the n-th step, for every n: nothing is lost, nothing stands twice, and the logs go in the end (V-11)."""
    step, done = 0, False
    while not done:
        settings, left = Settings(home=tmp_path / f"home{step}"), iter(range(step))
        predict(settings, NOON, 1, 2)
        predict(settings, NOON + DAY, 3)
        compare(settings, NOON)

        def seam(what: str, left=left) -> None:
            if next(left, None) is None:
                raise fault(f"at {what}")

        monkeypatch.setattr(durable, "seam", seam)
        try:
            tidy(small, settings, NOON + 2 * DAY, 0)
            done = True
        except fault:
            pass
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        predict(settings, NOON + 2 * DAY, 4)
        for kind in ("predictions", "told"):
            assert sorted(ids(settings, kind)) == ["p1", "p2", "p3", "p4"], step
        tidy(small, settings, NOON + 3 * DAY + DAY, 0)
        for kind in ("predictions", "told"):
            assert in_table(settings, kind) == ["p1", "p2", "p3", "p4"], step
        assert logs(settings) == []
        step += 1
    assert step > 8
