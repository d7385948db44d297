"""The shadow's line and thread, with models written by hand: what waits, what is dropped, and who hangs."""

import datetime as dt
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.serving import shadow
from tasks.serving.shadow import Seen, Shadow
from tasks.stores.shadows import Shadows
from tests.stage import until

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROLLOUT = SimpleNamespace(project="p", version=2, against=1)


class Model:
    """Says its version for every row; waits at the gate before."""

    def __init__(self, version, gate=None):
        self.release = SimpleNamespace(version=version)
        self.gate = gate
        self.asked = 0

    def predict(self, rows):
        """Fails for a row that says so."""
        self.asked += 1
        if self.gate:
            assert self.gate.wait(30)
        if any(row.get("fail") for row in rows):
            raise ArithmeticError
        return [{"prediction": self.release.version}] * len(rows)


class Counted(dict):
    """What was counted, by its name."""

    def rolled(self, _project, what, count):
        """As the metrics do."""
        self[what] = self.get(what, 0) + count


@pytest.fixture
def stage(tmp_path):
    """A shadow of champion 1 and challenger 2, whose gate is shut; time stands until it is told."""
    gate, time = threading.Event(), SimpleNamespace(now=0.0)
    pair = SimpleNamespace(rollout=ROLLOUT, champion=Model(1), other=Model(2, gate))
    counted: Any = Counted()
    made = Shadow(Shadows(tmp_path), counted, waiting=10, patience=5.0, timer=lambda: time.now)
    yield SimpleNamespace(
        shadow=made, gate=gate, time=time, pair=pair, counted=counted, log=lambda: list(Shadows(tmp_path).read("p"))
    )
    gate.set()
    made.close()


def seen(stage, name="1", count=1, row=None, *, failed=False):
    rows, ids = [row or {"x": 1}] * count, [f"{name}{n}" for n in range(count)]
    return Seen(stage.pair, stage.pair.champion, NOW, rows, ids, [{"prediction": 1}] * count, failed=failed)


@pytest.mark.parametrize("name", ["0", "1"], ids=["the champion first", "the other first"])
def test_both_are_timed_where_nobody_waits(stage, name):
    """One request: what each says, and what each took."""
    stage.gate.set()
    stage.shadow.offer(seen(stage, name))
    (record,) = until(stage.log)
    assert (record["answered"], record["beside"], record["ids"]) == (1, 2, [f"{name}0"])
    assert (record["said"], record["thought"]) == ([{"prediction": 1}], [{"prediction": 2}])
    assert len(record["ms"]) == 2
    assert (stage.pair.champion.asked, stage.pair.other.asked) == (1, 1)


def test_some_are_timed_however_many_wait(stage, tmp_path):
    """Else nothing would ever tell of a model that is so slow that some wait at all times: of forty that came at once each sixteenth is timed."""
    gate = threading.Event()
    pair: Any = SimpleNamespace(rollout=ROLLOUT, champion=Model(1), other=Model(2, gate))
    made = Shadow(Shadows(tmp_path / "many"), stage.counted, waiting=100)
    for number in range(40):
        made.offer(Seen(pair, pair.champion, NOW, [{"x": 1}], [f"{number:032x}"], [{"prediction": 1}]))
    gate.set()
    records = until(lambda: len(found := list(Shadows(tmp_path / "many").read("p"))) == 40 and found)
    made.close()
    timed = [place for place, record in enumerate(records) if record["ms"]]
    first = timed[0] % 16  # 0 where it was taken before the second came
    assert timed == [first + 16 * n for n in range(3) if first + 16 * n < 39] + [39]


def test_v_12_what_finds_no_room_is_dropped_and_counted(stage):
    """Ten rows have room, however they come; one more is not waited for."""
    for name in "13579":
        stage.shadow.offer(seen(stage, name, count=2))
    stage.shadow.offer(seen(stage, "b"))
    assert stage.counted == {"dropped": 1}
    stage.gate.set()
    until(lambda: len(stage.log()) == 5)
    assert stage.counted == {"dropped": 1, "scored": 10}
    stage.shadow.offer(seen(stage, "d", count=10))
    until(lambda: stage.counted["scored"] == 20)


def test_v_12_what_fails_is_on_record(stage):
    """A model that throws, and one that failed in the canary already, which is not asked again."""
    stage.gate.set()
    stage.shadow.offer(seen(stage, row={"fail": True}))
    (record,) = until(stage.log)
    assert (record["thought"], record["ms"]) == (None, None)
    asked = stage.pair.other.asked
    stage.shadow.offer(seen(stage, failed=True))
    assert [each["thought"] for each in stage.log()] == [None, None]
    assert stage.pair.other.asked == asked
    assert stage.counted == {"failed": 2}


@pytest.mark.parametrize("name", ["0", "1"], ids=["the champion first", "the other first"])
def test_v_12_a_model_that_hangs_is_left_alone_until_its_end(stage, name):
    """After the patience what it hangs on, what waits and what comes counts as failed, and it is not asked; then it scores again."""
    stage.shadow.offer(seen(stage, name))
    until(lambda: stage.pair.other.asked)
    stage.shadow.offer(seen(stage, "3"))
    assert stage.log() == []
    stage.time.now = 5.0
    stage.shadow.offer(seen(stage, "5"))
    until(lambda: len(stage.log()) == 3)
    assert [record["thought"] for record in stage.log()] == [None] * 3
    assert stage.pair.other.asked == 1
    stage.gate.set()
    until(lambda: stage.shadow.offer(seen(stage, "7")) or stage.log()[-1]["thought"])
    stage.time.now = 500.0
    stage.shadow.offer(seen(stage, "9"))
    until(lambda: stage.log()[-1]["ids"] == ["90"] and stage.log()[-1]["thought"])


def test_a_challenger_that_does_not_load_fails_at_everything(stage):
    """Nothing is waited for."""
    stage.pair.other = None
    stage.shadow.offer(seen(stage))
    assert [record["thought"] for record in stage.log()] == [None]


def test_its_end_does_not_wait_for_a_model_that_hangs(stage, monkeypatch):
    """The thread is left."""
    monkeypatch.setattr(shadow, "LEAVE", 0.01)
    stage.shadow.offer(seen(stage))
    until(lambda: stage.pair.other.asked)
    stage.shadow.close()
    assert stage.log() == []


def test_after_its_end_nothing_is_taken(stage):
    """What comes late is dropped."""
    stage.gate.set()
    stage.shadow.close()
    stage.shadow.offer(seen(stage))
    assert stage.counted == {"dropped": 1}
