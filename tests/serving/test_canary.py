"""Who answers a row in a canary, and who is waited for: with models written by hand."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.config.settings import Settings
from tasks.rollout import Watch
from tasks.serving import shadow
from tasks.serving.beside import Own
from tasks.serving.canary import Canary, is_chosen
from tasks.serving.champion import Champion
from tasks.serving.protocols import Question
from tasks.stores.journal import Rollout
from tasks.stores.shadows import Shadows
from tests.samples import PROJECT
from tests.stage import GOOD, door, released, until

NOW = "2026-01-01T00:00:00+00:00"
ASKED = Question([{"id": 1}, {"id": 2}])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_v_13_the_share_is_the_share(share):
    """Of 20,000 keys, within four standard deviations; all of them at 1, none at 0."""
    chosen = sum(is_chosen(share, "p 2", ["id"], {"id": n, "x": n % 3}, None) for n in range(20_000))
    assert abs(chosen - 20_000 * share) <= 4 * (20_000 * share * (1 - share)) ** 0.5


def test_v_13_only_the_key_decides():
    """Other columns, the header, and how a number is written do not; another rollout splits in another way."""
    sides = [is_chosen(0.5, "p 2", ["id", "day"], {"id": n, "day": "a", "x": 1}, None) for n in range(200)]
    again = [is_chosen(0.5, "p 2", ["id", "day"], {"x": 2.5, "day": "a", "id": float(n)}, "who") for n in range(200)]
    other = [is_chosen(0.5, "p 3", ["id", "day"], {"id": n, "day": "a", "x": 1}, None) for n in range(200)]
    assert sides == again
    assert 60 < sum(a == b for a, b in zip(sides, other, strict=True)) < 140


def test_where_the_key_is_missing_the_header_decides_and_then_the_row():
    """A key of which one column is missing or empty is none; the order of a row's columns does not matter."""
    key = ["id", "day"]
    for n in range(50):
        by_header = {is_chosen(0.5, "p", key, row, f"h{n}") for row in ({"id": n}, {"id": n, "day": None}, {"x": 9})}
        assert len(by_header) == 1
        assert is_chosen(0.5, "p", key, {"x": n, "y": 1}, None) == is_chosen(0.5, "p", key, {"y": 1.0, "x": n}, None)
    assert len({is_chosen(0.5, "p", [], {"x": n}, None) for n in range(50)}) == 2


class Model:
    """Answers once its gate is open; with a fault when it has one."""

    def __init__(self, fault=None):
        self.gate = threading.Event()
        self.fault = fault
        self.asked = 0

    def check(self, rows):
        """As it is."""
        return rows

    def marked(self, rows, _sent):
        """Without marks."""
        return rows

    def score(self, rows):
        """After the gate."""
        self.asked += 1
        assert self.gate.wait(30)
        if self.fault:
            raise self.fault
        return [{"prediction": 1}] * len(rows)


def scene(model, play, hangs=5.0):
    counted: Any = SimpleNamespace(what=[])
    counted.rolled = lambda _project, what, count: counted.what.append((what, count))
    canary = Canary(counted, patience=0.05, hangs=hangs)
    pair: Any = SimpleNamespace(rollout=SimpleNamespace(project="p"), other=model)
    try:
        return asyncio.run(play(lambda: canary.ask(pair, ASKED, [1]))), counted.what
    finally:
        if model:
            model.gate.set()
        canary.close()


@pytest.mark.parametrize("fault", [ArithmeticError(), ValueError(), TimeoutError()])
def test_v_12_a_fault_is_no_answer(fault):
    """Whatever it raises; the champion answers in its place, and that is counted."""
    model = Model(fault)
    model.gate.set()
    assert scene(model, lambda ask: ask()) == ((None, True), [("fallback", 1)])
    assert scene(None, lambda ask: ask()) == ((None, True), [("fallback", 1)])


async def several(ask, count):
    """The answers to so many, one after the other."""
    return [await ask() for _ in range(count)]


def test_v_12_two_that_hang_are_enough():
    """Then nobody is waited for, until one of them has ended. That it is late is no failure; what is asked meanwhile is one once it has hung for long."""
    model = Model()
    for hangs, blamed in ((5.0, False), (0.0, True)):
        found, _ = scene(Model(), lambda ask: several(ask, 3), hangs)
        assert found == [(None, False), (None, False), (None, blamed)]

    async def play(ask):
        late = [await ask() for _ in range(5)]
        asked = model.asked
        model.gate.set()
        while (part := (await ask())[0]) is None:
            await asyncio.sleep(0.01)
        return late, asked, part.places, part.answers

    (late, asked, places, answers), counted = scene(model, play)
    assert (late, asked) == ([(None, False)] * 5, 2)
    assert (places, answers) == ([1], [{"prediction": 1}])
    assert (counted[0], counted[-1]) == (("fallback", 1), ("canary", 1))


def test_v_12_whoever_waits_behind_others_is_not_blamed():
    """Of four that come at once two are begun, and are late; the two behind them had no turn, and are not begun later."""
    model = Model()

    async def play(ask):
        found = await asyncio.gather(*(ask() for _ in range(4)))
        model.gate.set()
        while (await ask())[0] is None:
            await asyncio.sleep(0.01)
        return found

    found, counted = scene(model, play)
    assert found == [(None, False)] * 4
    assert model.asked == 2 + sum(what == "canary" for what, _ in counted)


def canary(home):
    """A home in which version 2 is in its canary, of all rows, beside version 1."""
    stage = released(home)
    stage.write(2, 0.8)
    plan = {"canary": {"share": 1.0, "key": ["age"]}}
    stage.journal.begin_rollout(
        Rollout(
            "flights", 2, stage.digests[2], 1, stage.digests[1], plan, "a", "r", began=NOW, phase="canary", since=NOW
        )
    )
    return stage


@pytest.mark.parametrize(
    ("thinks", "said"), [(1.5, "version 2 undone in its canary: it is slow more often"), (0.0, None)]
)
def test_v_13_a_challenger_that_is_always_late_is_undone_where_the_champion_is_quick(
    tmp_path, monkeypatch, thinks, said
):
    """It has failed at nothing; the shadow asks it again, and times both. One that is as quick as the champion, when asked in turn, goes on."""
    stage, gate, score, now = canary(tmp_path), threading.Event(), Champion.score, SimpleNamespace(seconds=0.0)
    project = tmp_path / "projects" / "flights" / "project.yaml"
    project.parent.mkdir(parents=True)
    project.write_text(PROJECT.format(name="flights") + 'labels: ["false", "true"]\n')

    def scored(model, checked):
        if model.release.version == 2 and threading.current_thread().name == "shadow":
            now.seconds += thinks
        elif model.release.version == 2:
            assert gate.wait(30)
        return score(model, checked)

    async def play():
        opened, client = door(tmp_path)
        opened.succession.look()
        opened.beside.others.look()
        monkeypatch.setattr(opened.beside, "_canary", Canary(opened.meter, patience=0.01, hangs=1e9))
        monkeypatch.setattr(Champion, "score", scored)
        for number in range(150):
            answer = await client.post("/projects/flights/predict", json={"rows": [GOOD | {"age": number}]})
            assert (answer.status_code, answer.json()["version"]) == (200, 1)
        await asyncio.to_thread(until, lambda: len(list(Shadows(tmp_path).read("flights"))) == 150)
        gate.set()
        opened.predicting.close()

    monkeypatch.setattr(shadow, "TIMED", 1)
    monkeypatch.setattr(shadow, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    asyncio.run(play())
    found = Watch(Settings(home=tmp_path, projects=tmp_path / "projects")).look("flights")
    assert (found and found[: len(said or "")]) == said
    assert stage.journal.rollouts("flights")[-1].evidence["tests"]["errors"]["mean"] == 0


def test_v_12_a_slow_challenger_takes_no_place_from_the_champion(tmp_path, monkeypatch):
    """Eight requests wait for it, in a line of ten; whoever comes then is answered by the champion at once, one after the other, and nobody is refused."""
    canary(tmp_path)
    gate, score = threading.Event(), Champion.score

    def scored(model, checked):
        assert model.release.version == 1 or gate.wait(30)
        return score(model, checked)

    monkeypatch.setattr(Champion, "score", scored)

    async def play():
        opened, client = door(tmp_path, in_flight=10)
        opened.succession.look()
        opened.beside.others.look()
        monkeypatch.setattr(opened.beside, "_canary", Canary(opened.meter, patience=30))
        send = lambda: client.post("/projects/flights/predict", json={"rows": [GOOD]})  # noqa: E731 -- short
        eight = [asyncio.create_task(send()) for _ in range(8)]
        while opened.predicting.line.count < 8:
            await asyncio.sleep(0)
        more = [await asyncio.wait_for(send(), 10) for _ in range(20)]
        gate.set()
        waited = await asyncio.gather(*eight)
        opened.predicting.close()
        return [[(answer.status_code, answer.json().get("version")) for answer in each] for each in (more, waited)]

    assert asyncio.run(play()) == [[(200, 1)] * 20, [(200, 2)] * 8]


def test_v_07_who_waits_for_a_challenger_has_a_place_in_the_line(tmp_path, monkeypatch):
    """While two wait the third is told 429 before anybody is asked, so that none is refused after a challenger has answered (V-07)."""
    home, asked = released(tmp_path).home, []

    async def play():
        opened, client = door(home, in_flight=2)
        opened.succession.look()
        gate, send = asyncio.Event(), lambda: client.post("/projects/flights/predict", json={"rows": [GOOD]})

        async def own(*_args, **_how):
            asked.append(1)
            await gate.wait()
            return Own()

        monkeypatch.setattr(opened.predicting._beside, "own", own)
        monkeypatch.setattr(opened.predicting._beside, "splits", lambda _champion: True)
        two = [asyncio.create_task(send()) for _ in range(2)]
        while len(asked) < 2:
            await asyncio.sleep(0)
        third = await asyncio.wait_for(send(), 30)
        gate.set()
        return [
            third.status_code,
            *[answer.status_code for answer in await asyncio.gather(*two)],
        ], opened.predicting.line.count

    assert (asyncio.run(play()), len(asked)) == (([429, 200, 200], 0), 2)
