"""From the shadow to all rows and back: the watcher over a real journal, the shadow log and late outcomes; the server's part is written by hand."""

import contextlib
import datetime as dt
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows.commands import releases
from tasks import deploy, releasing, rollout
from tasks.config import plans
from tasks.config.errors import ConflictError, KeepfitError, ProjectError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.rollout import Outcome
from tasks.recover import Recovery
from tasks.releasing import Plan, Releasing
from tasks.rollback import Rollback
from tasks.rollout import BY_EVIDENCE, ROLLING, Watch
from tasks.stores import bundles, durable
from tasks.stores.journal import BY_ITSELF, Journal, Rollout, Rollouts
from tasks.stores.predictions import Told
from tasks.stores.reading import Reading
from tasks.stores.served import Serving
from tasks.stores.shadows import Shadows
from tests.released import NAME, YAML, crowned, either, place, template
from tests.tasks.test_releasing import InProcess

__all__ = ["either", "place", "template"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
STAGED = "release: {rollout: {shadow: {rows: 30, seconds: 60}, canary: {share: 0.5, rows: 20}, probation: {rows: 200, seconds: 1000}}}\n"
START = dt.datetime(2026, 3, 3, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are loaded in this process."""
    monkeypatch.setattr(releasing, "Rehearsal", InProcess)


class Clock:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now

    def on(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += dt.timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Looks:
    """Looks whenever it is asked to: an hour lies between two looks beside what the clock says, and a look takes no time."""

    def __init__(self, settings: Settings, clock: Callable[[], dt.datetime]) -> None:
        self.now = 0.0
        self._watch = Watch(settings, clock, timer=lambda: self.now + clock().timestamp())

    def look(self, project: str) -> str | None:
        """The next one."""
        self.now += 3600
        return self._watch.look(project)


def watch(settings: Settings, clock: Callable[[], dt.datetime]) -> Looks:
    """A new one, which has read nothing yet."""
    return Looks(settings, clock)


def staged(settings: Settings, text: str = STAGED) -> Journal:
    """Version 1 is champion, and the project wants its next one rolled out in stages."""
    (settings.projects / NAME / "project.yaml").write_text(YAML + text)
    return crowned(settings, 1)


def release(settings: Settings, version: int, clock: Clock, actor: str = "anna", proposal: int | None = None) -> dict:
    """As the flow does, without Prefect."""
    chosen = Releasing(NAME, settings, clock)
    with chosen.alone():
        plan = chosen.plan(version, actor=actor, reason="better", proposal=proposal)
        if plan.refused:
            return {"state": "refused", "reason": plan.refused}
        if begun := rollout.begin(plan, settings, clock):
            return begun
        chosen.commit(plan)
    return {"state": "released"}


def chance(yes: float) -> dict:
    return {"prediction": "yes", "probabilities": {"no": 1 - yes, "yes": yes}}


def serve(
    settings: Settings,
    clock: Clock,
    count: int,
    answered: int,
    beside: int,
    *,
    said: float = 0.3,
    thought: float | None = 0.3,
) -> list[str]:
    """Writes what a server would have logged of so many requests of a row; gives the ids."""
    log = Shadows(settings.home)
    ids = [f"{clock.now.timestamp():.0f}-{answered}-{number}" for number in range(count)]
    other = None if thought is None else [chance(thought)]
    log.append(NAME, clock.now, [
        {"at": clock.now.isoformat(), "answered": answered, "beside": beside, "ids": [name], "said": [chance(said)], "thought": other, "ms": [1.0, 1.0]}
        for name in ids
    ])  # fmt: skip
    log.close()
    return ids


def come_true(settings: Settings, ids: list[str], *values: bool) -> None:
    """Late outcomes."""
    told = Told(settings.home)
    told.tell(NAME, dt.datetime(2026, 3, 4, tzinfo=dt.UTC), [(name, value, None) for name in ids for value in values])
    told.close()


def phases(journal: Journal) -> list[tuple[int, str]]:
    return [(each.version, each.phase) for each in journal.rollouts(NAME)]


def test_a_release_goes_through_shadow_and_canary_to_all_rows(either: Settings, clock: Clock):
    """Each phase ends when what it asks for is there; champion is the challenger only after the last, by a release with the evidence in it."""
    journal = staged(either)
    begun = release(either, 2, clock)
    assert (begun["state"], begun["version"], begun["from"]) == (ROLLING, 2, 1)
    assert [each.phase for each in journal.release_intents(NAME)] == ["undone"]
    looks = watch(either, clock)
    serve(either, clock, 30, 1, 2)
    assert looks.look(NAME) is None
    assert rollout.shown(NAME, either).items() >= {"phase": "shadow", "rows": 30, "next": "canary", "said": "30 of 30 rows, 0 of 60 s"}.items()  # fmt: skip
    clock.on(60)
    assert "version 2 is in its canary: shadow of 30 rows in 60 s" in str(looks.look(NAME))
    clock.on(1)
    serve(either, clock, 19, 2, 1)
    assert looks.look(NAME) is None
    assert [each.version for each in journal.releases(NAME)] == [1]  # P3
    clock.on(1)
    serve(either, clock, 1, 2, 1)
    assert looks.look(NAME) == "version 2 is champion; version 1 goes on scoring"
    champion = journal.releases(NAME)[-1]
    assert (champion.version, champion.generation, champion.actor, champion.kind) == (2, 2, "anna", "release")
    assert champion.reason.startswith("better; canary of 20 rows in 2 s: loss e-value 1 of 60")
    going = journal.rollout(NAME)
    assert going is not None
    assert (going.phase, going.generation, going.scores) == ("probation", 2, True)
    clock.on(1000)
    assert "passed in its probation" in str(looks.look(NAME))
    assert phases(journal) == [(2, "passed")]
    assert looks.look(NAME) is None


def test_a_project_that_says_nothing_releases_at_once_and_has_a_probation(place: Settings, clock: Clock):
    """The watcher begins it for a release that has none, beside the champion before; not for a rollback, nor for an old release."""
    journal = crowned(place, 1)
    assert watch(place, clock).look(NAME) is None  # nobody was champion before
    assert release(place, 2, clock) == {"state": "released"}
    assert watch(place, clock).look(NAME) == "version 2 is on probation; version 1 goes on scoring"
    begun = journal.rollout(NAME)
    assert begun is not None
    assert (begun.version, begun.against, begun.generation, begun.began) == (2, 1, 2, START.isoformat())
    assert begun.plan["canary"]["key"] == ["id"]
    assert Rollback(NAME, "bert", "worse", clock=clock).do(place)["to"] == 1
    assert "version 2 undone in its probation: brought back by bert: worse" in str(watch(place, clock).look(NAME))
    assert watch(place, clock).look(NAME) is None
    release(place, 3, clock)
    clock.on(7 * 86_400)
    assert watch(place, clock).look(NAME) is None
    assert phases(journal) == [(2, "undone")]


def test_v_13_a_worse_champion_comes_back_by_itself_once(place: Settings, clock: Clock):
    """Late outcomes speak against it: the old one is champion again, with the numbers on record; no automation releases the worse one again."""
    journal = crowned(place, 1)
    release(place, 2, clock)
    looks = watch(place, clock)
    looks.look(NAME)
    ids = serve(place, clock, 60, 2, 1, said=0.9, thought=0.3)
    assert looks.look(NAME) is None
    going = journal.rollout(NAME)
    assert going is not None
    assert going.evidence["warning"].startswith("it is expected to lose more: by 0.36 on 60 requests")
    come_true(place, ids, False)
    said = "it loses more: by 0.72 on 60 requests; the e-value"
    assert said in str(looks.look(NAME))
    back = journal.releases(NAME)[-1]
    assert (back.version, back.kind, back.actor, back.generation) == (1, "rollback", BY_EVIDENCE, 3)
    assert f"probation of version 2 beside version 1: {said}" in back.reason
    ended = journal.rollouts(NAME)[-1]
    assert (ended.phase, ended.scores, ended.evidence["tests"]["loss"]["against"]) == ("undone", False, True)
    assert ended.said.startswith(said)
    refused = release(place, 2, clock, actor=f"{BY_ITSELF}new data")
    assert "version 2 was rolled back by rollout: evidence" in refused["reason"]
    assert release(place, 2, clock)["state"] == "released"


def test_s_10_a_clock_that_jumps_a_year_ahead_ends_no_phase(place: Settings, clock: Clock):
    """Whoever looks on counts what went by: the probation goes on, and ends when its seconds are over (S-10)."""
    journal, timer = crowned(place, 1), [0.0]
    release(place, 2, clock)
    looks = Watch(place, clock, timer=lambda: timer[0])
    assert "is on probation" in str(looks.look(NAME))
    assert looks.look(NAME) is None
    clock.on(365 * 86_400)
    timer[0] += 7 * 86_400 - 1
    assert looks.look(NAME) is None
    assert phases(journal) == [(2, "probation")]
    timer[0] += 3600
    assert "version 2 passed in its probation: 0 rows in 608399 s" in str(looks.look(NAME))


def test_s_10_a_clock_that_is_put_right_after_a_start_holds_up_no_phase(place: Settings, clock: Clock):
    """Whoever began to look by a clock of long ago counts from then on (S-10)."""
    journal, timer = crowned(place, 1), [0.0]
    release(place, 2, clock)
    watch(place, clock).look(NAME)
    clock.on(-365 * 86_400)
    looks = Watch(place, clock, timer=lambda: timer[0])
    assert looks.look(NAME) is None
    clock.on(375 * 86_400)
    timer[0] += 7 * 86_400
    assert "version 2 passed in its probation" in str(looks.look(NAME))
    assert phases(journal) == [(2, "passed")]


def test_v_13_a_challenger_that_fails_is_undone_in_its_shadow(place: Settings, clock: Clock):
    """Nobody was ever answered by it, and no automation tries it again; a person may."""
    journal = staged(place)
    release(place, 2, clock, actor=f"{BY_ITSELF}new data")
    serve(place, clock, 12, 1, 2, thought=None)
    assert "version 2 undone in its shadow: it fails more often: by 1 on 12 requests" in str(watch(place, clock).look(NAME))  # fmt: skip
    assert [each.version for each in journal.releases(NAME)] == [1]
    refused = release(place, 2, clock, actor=f"{BY_ITSELF}new data")
    assert "version 2 was undone in its rollout on 2026-03-03T00:00:00: it fails more often" in refused["reason"]
    assert release(place, 2, clock)["state"] == ROLLING


def test_outcomes_may_be_late_repeated_and_corrected(place: Settings, clock: Clock):
    """Each row counts once, with what became known first, and others' rows not at all."""
    journal = crowned(place, 1)
    release(place, 2, clock)
    looks = watch(place, clock)
    looks.look(NAME)
    ids = serve(place, clock, 5, 2, 1, said=0.5, thought=0.3)
    come_true(place, [*reversed(ids), "nobody's"], True, False, True)
    assert [name for name, _ in Serving(NAME, place).told(ids[:2])] == [ids[1]] * 3 + [ids[0]] * 3
    looks.look(NAME)
    going = journal.rollout(NAME)
    assert going is not None
    assert going.evidence["judged"] == 5
    assert going.evidence["tests"]["loss"]["mean"] == pytest.approx(0.25 - 0.49)


def waits(settings: Settings, clock: Clock, probation: str) -> tuple[Journal, Looks]:
    """Version 2 is on probation in a project whose outcomes are final after two days."""
    text = YAML.replace("split: {", "split: {matures: 2, ") + f"release: {{rollout: {{probation: {probation}}}}}\n"
    (settings.projects / NAME / "project.yaml").write_text(text)
    assert Project.named(NAME, settings).split.matures == 2
    journal = crowned(settings, 1)
    release(settings, 2, clock)
    looks = watch(settings, clock)
    looks.look(NAME)
    return journal, looks


def test_i_19_outcomes_that_are_told_first_wait_for_the_others(place: Settings, clock: Clock):
    """A better model whose misses become known at once, and its hits later: nothing is judged before both may be known, and it stays."""
    journal, looks = waits(place, clock, "{rows: 200, seconds: 100000}")
    ids = serve(place, clock, 100, 2, 1, said=0.1, thought=0.3)
    come_true(place, ids[:20], True)
    clock.on(47 * 3600)
    assert looks.look(NAME) is None
    come_true(place, ids[20:], False)
    going = journal.rollout(NAME)
    assert going is not None
    assert (going.evidence["judged"], going.scores) == (0, False)
    clock.on(3600)
    assert looks.look(NAME) is None
    going = journal.rollout(NAME)
    assert going is not None
    assert going.evidence["tests"]["loss"]["mean"] == pytest.approx((20 * 0.32 - 80 * 0.08) / 100)


def test_a_probation_waits_for_what_is_final_later(place: Settings, clock: Clock):
    """The old champion scores for as long as is said; the probation lasts until what it scored last is final."""
    journal, looks = waits(place, clock, "{rows: 20, seconds: 100}")
    ids = serve(place, clock, 19, 2, 1, said=0.9)
    clock.on(99)
    looks.look(NAME)
    going = journal.rollout(NAME)
    assert going is not None
    assert going.scores
    ids += serve(place, clock, 11, 2, 1, said=0.9)
    come_true(place, ids, False)
    clock.on(2 * 86400)
    assert "version 2 undone in its probation: it loses more: by 0.72 on 30 requests" in str(looks.look(NAME))


def test_what_does_not_change_is_not_written(place: Settings, clock: Clock):
    """A look at the same evidence leaves the journal as it is, and one that comes too soon does not read it."""
    journal = crowned(place, 1)
    release(place, 2, clock)
    now = 0.0
    looks = Watch(place, clock, timer=lambda: now)
    looks.look(NAME)
    serve(place, clock, 5, 2, 1)
    looks.look(NAME)
    before = journal.rollout(NAME)
    serve(place, clock, 5, 2, 1)
    now = 9.9  # it is not time yet
    looks.look(NAME)
    assert journal.rollout(NAME) == before
    now = 10.0
    looks.look(NAME)
    after = journal.rollout(NAME)
    assert after is not None
    assert (after.revision, after.evidence["requests"]) == (2, 10)
    watch(place, clock).look(NAME)
    assert journal.rollout(NAME) == after


def test_a_look_reads_on_from_where_the_last_one_ended(place: Settings, clock: Clock):
    """What was read is not read again, and whoever begins anew finds the same in the logs."""
    journal = crowned(place, 1)
    release(place, 2, clock)
    looks = watch(place, clock)
    looks.look(NAME)
    logs, kept = [], {}
    for count in (5, 7, 9):
        clock.on(1)
        ids = serve(place, clock, count, 2, 1, said=0.5)
        come_true(place, ids[1:], True)
        looks.look(NAME)
        logs = [path for name in ("shadows", "told") for path in (place.home / name / NAME).iterdir()]
        kept = {path: kept.get(path, b"") + path.read_bytes()[len(kept.get(path, b"")) :] for path in logs}
        for path in logs:
            path.write_bytes(b"\n" * path.stat().st_size)  # nobody could read it now
    before = journal.rollout(NAME)
    assert before is not None
    assert (before.evidence["requests"], before.evidence["judged"]) == (21, 18)
    for path in logs:
        path.write_bytes(kept[path])
    watch(place, clock).look(NAME)
    assert journal.rollout(NAME) == before


def test_a_look_does_not_hold_up_others(place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """It leaves when its time is over and reads on at the next; until all was read nothing is judged and nothing moves."""
    monkeypatch.setattr("tasks.stores.reading.PART", 1000)
    journal = crowned(place, 1)
    release(place, 2, clock)
    slow = Watch(place, clock, patience=0)
    slow.look(NAME)
    come_true(place, serve(place, clock, 60, 2, 1, said=0.9), False)
    looks = 0
    while (said := slow.look(NAME)) is None:
        looks += 1
        assert phases(journal) == [(2, "probation")]
        assert not journal.rollouts(NAME)[-1].evidence
    assert looks >= 10
    assert "it loses more: by 0.72 on 60 requests" in said


def test_who_looks_once_reads_all(place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """`keepfit recover` has no next look; the stack, which has, leaves the rest to it."""
    monkeypatch.setattr("tasks.stores.reading.PART", 1000)
    monkeypatch.setattr("tasks.recover.PATIENCE", 0)
    crowned(place, 1)
    release(place, 2, clock)
    stack = Recovery(place, clock=clock)
    assert stack.look().rollouts == ["small: version 2 is on probation; version 1 goes on scoring"]
    come_true(place, serve(place, clock, 60, 2, 1, said=0.9), False)
    assert stack.look().rollouts == []
    (said,) = Recovery(place, grace=0.0, clock=clock).look().rollouts
    assert "it loses more: by 0.72 on 60 requests" in said


def test_what_could_not_be_weighed_is_read_anew(place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """A look that fails in the middle says so, and leaves no half of a part behind."""
    journal = crowned(place, 1)
    release(place, 2, clock)
    looks = watch(place, clock)
    looks.look(NAME)
    come_true(place, serve(place, clock, 5, 2, 1), True)
    told = Reading.told
    monkeypatch.setattr(Reading, "told", _away)
    with pytest.raises(OSError, match="away"):
        looks.look(NAME)
    monkeypatch.setattr(Reading, "told", told)
    looks.look(NAME)
    going = journal.rollout(NAME)
    assert going is not None
    assert (going.evidence["requests"], going.evidence["judged"]) == (5, 5)


def _away(_reading: Reading) -> Iterator[list[Outcome]]:
    raise OSError("away")


def test_a_shadow_keeps_no_more_than_it_may(place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """The challenger is put away when it has scored as much as is kept, and comes back for the canary when the time is over."""
    monkeypatch.setattr("tasks.ml.rollout.MOST", 40)
    journal = staged(place)
    release(place, 2, clock)
    looks = watch(place, clock)
    for count, scores in ((39, True), (1, False)):
        clock.on(1)
        serve(place, clock, count, 1, 2)
        looks.look(NAME)
        going = journal.rollout(NAME)
        assert going is not None
        assert (going.phase, going.scores) == ("shadow", scores)
    clock.on(60)
    looks.look(NAME)
    going = journal.rollout(NAME)
    assert going is not None
    assert (going.phase, going.scores) == ("canary", True)


def test_the_old_one_scores_no_more_than_it_is_asked_to(place: Settings, clock: Clock):
    """Then it is put away, and outcomes are waited for."""
    (place.projects / NAME / "project.yaml").write_text(YAML + "release: {rollout: {probation: {rows: 20}}}\n")
    journal = crowned(place, 1)
    release(place, 2, clock)
    looks = watch(place, clock)
    looks.look(NAME)
    ids = serve(place, clock, 20, 2, 1)
    looks.look(NAME)
    going = journal.rollout(NAME)
    assert going is not None
    assert (going.phase, going.scores) == ("probation", False)
    come_true(place, ids, True)
    assert "passed in its probation: 20 rows in 0 s, 20 with an outcome" in str(looks.look(NAME))


def test_a_probation_after_a_shadow_is_as_long_as_any(place: Settings, clock: Clock):
    """The shadow scored more rows than the probation wants, all with outcomes: the old champion scores as many again, also after a restart."""
    journal = staged(place, STAGED.replace("probation: {rows: 200", "probation: {rows: 20"))
    release(place, 2, clock)
    looks = watch(place, clock)
    come_true(place, serve(place, clock, 30, 1, 2), True)
    for count in (0, 20):
        clock.on(60)
        come_true(place, serve(place, clock, count, 2, 1), True)
        clock.on(1)
        looks.look(NAME)
    ids, read = [], []
    for count in (19, 1):
        clock.on(1)
        ids += serve(place, clock, count, 2, 1)
        for watcher in (looks, watch(place, clock)):
            assert watcher.look(NAME) is None
            going = journal.rollout(NAME)
            assert going is not None
            read.append((going.phase, going.evidence["rows"], going.evidence["judged"], going.scores))
    assert read == [("probation", 69, 50, True)] * 2 + [("probation", 70, 50, False)] * 2
    come_true(place, ids, True)
    assert "passed in its probation: 20 rows in 2 s, 20 with an outcome" in str(looks.look(NAME))


@pytest.mark.parametrize("phase", ["shadow", "probation"])
def test_labels_that_are_changed_end_a_rollout(place: Settings, clock: Clock, phase: str):
    """What was answered before names others: nothing can be compared any more, which is said, once; the champion stays, the way is free."""
    journal, looks = staged(place), watch(place, clock)
    release(place, 2, clock)
    if phase == "probation":
        release(place, 2, clock)
        looks.look(NAME)
    serve(place, clock, 5, 1, 2)
    assert looks.look(NAME) is None
    file = place.projects / NAME / "project.yaml"
    file.write_text(file.read_text() + "labels: [fair, fraud]\n")
    said = f"version 2 overtaken in its {phase}: the project has changed, and what both versions answered cannot be compared any more: they name 'no'"
    for watcher in (looks, watch(place, clock)):
        assert str(watcher.look(NAME)).startswith(said) == (watcher is looks)
        assert watcher.look(NAME) is None
    assert phases(journal) == [(2, "overtaken")]
    assert [each.version for each in journal.releases(NAME)] == ([1] if phase == "shadow" else [1, 2])
    assert release(place, 3, clock, actor=f"{BY_ITSELF}new data")["state"] == ROLLING


# -- at the same time, and cut off ----------------------------------------------------------------------------------------
def test_o_08_a_person_who_releases_meanwhile_wins(place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Between the evidence and the rollback somebody makes version 3 champion: it stays, and the rollout is overtaken."""
    journal = crowned(place, 1)
    release(place, 2, clock)
    looks = watch(place, clock)
    looks.look(NAME)
    serve(place, clock, 12, 2, 1)
    serve(place, clock, 60, 2, 1, said=0.9, thought=0.1)
    come_true(place, serve(place, clock, 60, 2, 1, said=0.9, thought=0.1), False)
    done = Rollback.do

    def raced(self: Rollback, settings: Settings) -> dict:
        crowned(settings, 3)
        return done(self, settings)

    monkeypatch.setattr(Rollback, "do", raced)
    with pytest.raises(KeepfitError, match="version 2 is not the champion any more; version 3 is"):
        looks.look(NAME)
    assert [each.version for each in journal.releases(NAME)] == [1, 2, 3]
    assert "version 2 overtaken in its probation: version 3 is champion" in str(looks.look(NAME))


def test_o_08_of_two_that_look_at_once_one_moves_it(place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """The slower one gets a conflict and changes nothing; its next look is like any other."""
    journal = staged(place)
    release(place, 2, clock)
    serve(place, clock, 12, 1, 2, thought=None)
    first, second = watch(place, clock), watch(place, clock)
    move = Rollouts.move_rollout

    def overtaken(self: Rollouts, seen: Rollout, **changes: object) -> Rollout:
        monkeypatch.setattr(Rollouts, "move_rollout", move)
        second.look(NAME)
        return move(self, seen, **changes)

    monkeypatch.setattr(Rollouts, "move_rollout", overtaken)
    with pytest.raises(ConflictError, match="was moved in between"):
        first.look(NAME)
    assert phases(journal) == [(2, "undone")]
    assert first.look(NAME) is None


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_s_01_a_kill_at_any_step_is_settled_by_the_next_look(
    place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch, swept: Callable[[int], None], stride: int
):
    """At each durable step of the way from the shadow to all rows and back: one champion, one record, and the same end."""
    (place.projects / NAME / "project.yaml").write_text(YAML + STAGED)
    for reached in range(1, 60, stride):
        journal = _from_the_start(place)
        steps = itertools.count()

        def dies(_what: str, at: int = reached, steps: itertools.count = steps) -> None:
            if next(steps) == at:
                raise KeyboardInterrupt

        clock.now = START
        monkeypatch.setattr(durable, "seam", dies)
        died = True
        try:
            _whole_way(place, clock)
            died = False
        except KeyboardInterrupt:
            monkeypatch.setattr(durable, "seam", lambda _what: None)
            Recovery(place, clock=clock).look()
            assert len({each.generation for each in journal.releases(NAME)}) == len(journal.releases(NAME))
            assert bool(journal.rollouts(NAME)) == any("goes through" in each.said for each in journal.release_intents(NAME))  # fmt: skip
            _whole_way(place, clock)
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        assert phases(journal)[-1] == (2, "undone"), reached
        assert [each.version for each in journal.releases(NAME)] == [1, 2, 1], reached
        if not died:
            assert reached > 10
            swept(len(range(1, reached, stride)))
            return
    raise AssertionError("it never came to its end")


def test_s_01_a_kill_where_a_shadow_begins_leaves_the_one_before_or_the_new_one(
    place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """The release says that it goes through the shadow first exactly where it does; the shadow that it overtakes is never lost."""
    journal = staged(place)
    release(place, 2, clock)
    chosen = Releasing(NAME, place, clock)
    begun = []
    for reached in itertools.count():
        with chosen.alone():
            plan = chosen.plan(3, actor="anna", reason="better")
            steps = itertools.count()
            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                patch.setattr(durable, "seam", lambda _what, at=reached, steps=steps: _die(next(steps) == at))
                begun.append(rollout.begin(plan, place, clock))
        Recovery(place, clock=clock).look()
        going, said = journal.rollout(NAME), journal.release_intents(NAME)[-1].said
        assert going is not None
        if begun:
            assert (going.version, said) == (3, "it goes through the shadow first")
            assert phases(journal) == [(2, "overtaken"), (3, "shadow")]
            return
        assert (going.version, said.startswith("its process was gone")) == (2, True), reached


def _die(now: bool) -> None:
    if now:
        raise KeyboardInterrupt


def test_o_08_of_two_rollouts_that_begin_at_once_one_does(
    place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """The shadow that version 3 is to overtake was ended meanwhile: nothing begins, and the release says why."""
    journal = staged(place)
    release(place, 2, clock)
    begin = Rollouts.begin_rollout

    def raced(self: Rollouts, *what: Rollout, **how: Any) -> Rollout:
        rollout.stop(NAME, place, "in between", clock)
        return begin(self, *what, **how)

    monkeypatch.setattr(Rollouts, "begin_rollout", raced)
    with pytest.raises(ConflictError, match="version 2 was moved in between"):
        release(place, 3, clock)
    assert phases(journal) == [(2, "undone")]
    assert "was moved in between" in journal.release_intents(NAME)[-1].said


def test_o_08_who_stops_it_while_it_is_rehearsed_wins(place: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """The evidence was enough and the release is being rehearsed; the stop was said to have worked: version 1 stays champion."""
    journal, looks = staged(place), watch(place, clock)
    release(place, 2, clock)
    serve(place, clock, 30, 1, 2)
    clock.on(60)
    assert "is in its canary" in str(looks.look(NAME))
    clock.on(2)
    serve(place, clock, 20, 2, 1)
    answered = Releasing._answered

    def stopped(self: Releasing, intent: Any, digest: str) -> Any:
        assert rollout.stop(NAME, place, "in between", clock)["state"] == "undone"
        return answered(self, intent, digest)

    monkeypatch.setattr(Releasing, "_answered", stopped)
    with pytest.raises(ConflictError, match="version 2 was moved in between"):
        looks.look(NAME)
    assert [each.version for each in journal.releases(NAME)] == [1]
    assert phases(journal) == [(2, "undone")]
    assert "was moved in between" in journal.release_intents(NAME)[-1].said


def test_an_approval_counts_once(place: Settings, clock: Clock):
    """Two persons approve version 2, or one sends the form twice: its shadow goes on, and the second one is told who approved it."""
    journal = staged(place)
    for actor in ("anna", "bert"):
        with (chosen := Releasing(NAME, place, clock)).alone():
            plan = chosen.plan(2, actor=actor, reason="better").model_copy(update={"proposal": 7})
            begun = rollout.begin(plan, place, clock)
    assert begun is not None
    assert begun["state"] == "refused"
    assert "version 2 was approved by anna" in begun["reason"]
    assert phases(journal) == [(2, "shadow")]
    assert [each.version for each in journal.releases(NAME)] == [1]


def _from_the_start(settings: Settings) -> Journal:
    """Version 1 is champion, and nothing else is on record."""
    import shutil

    journal = Journal(settings.journal())
    with journal.engine.begin() as connection:
        for table in ("rollouts", "releases", "release_intents"):
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 -- names of our own
    for folder in ("shadows", "told"):
        shutil.rmtree(settings.home / folder, ignore_errors=True)
    return crowned(settings, 1)


def _whole_way(settings: Settings, clock: Clock) -> None:
    """Asks for version 2 where nobody has yet, serves, and looks until nothing moves: it does well until its probation, then it fails."""
    journal, looks = Journal(settings.journal()), watch(settings, clock)
    if not journal.rollouts(NAME):
        release(settings, 2, clock)
    serve(settings, clock, 30, 1, 2)
    serve(settings, clock, 20, 2, 1)
    for _ in range(10):
        clock.on(61)
        looks.look(NAME)
        going = journal.rollout(NAME)
        if going is None:
            return
        if going.phase == "probation":
            serve(settings, clock, 80, 1, 2, thought=None)  # as if it had been asked in the shadow


def test_a_second_challenger_waits_unless_a_person_brings_it(place: Settings, clock: Clock):
    """One at a time: the automation is refused, a person's release takes the place."""
    journal = staged(place)
    release(place, 2, clock)
    refused = release(place, 3, clock, actor=f"{BY_ITSELF}new data")
    assert (refused["state"], refused["reason"]) == (
        "refused",
        "version 2 is in its shadow since 2026-03-03T00:00:00; one at a time",
    )
    assert release(place, 3, clock)["state"] == ROLLING
    assert phases(journal) == [(2, "overtaken"), (3, "shadow")]
    assert {each.phase for each in journal.release_intents(NAME)} == {"undone"}


def on_probation(settings: Settings, clock: Clock) -> tuple[Journal, Looks]:
    """Version 2 is champion and on probation beside version 1, of a project that wants a shadow first."""
    journal, looks = staged(settings), watch(settings, clock)
    release(settings, 2, clock)
    release(settings, 2, clock)
    looks.look(NAME)
    return journal, looks


@pytest.mark.parametrize("actor", ["anna", f"{BY_ITSELF}new data"])
def test_v_13_a_probation_rests_while_another_challenger_is_tried(place: Settings, clock: Clock, actor: str):
    """When that one is gone and the champion is the same, its probation goes on: with what it had seen, and with the time that it had left."""
    journal, looks = on_probation(place, clock)
    ids = serve(place, clock, 6, 2, 1, thought=None)  # nothing follows from six yet
    clock.on(400)
    assert looks.look(NAME) is None
    for who in (actor, "bert"):
        assert release(place, 3, clock, actor=who)["state"] == ROLLING
        assert looks.look(NAME) is None
        clock.on(5000)
        rollout.stop(NAME, place, "not this one", clock)
        assert looks.look(NAME) == "version 2 is on probation; version 1 goes on scoring"
    assert phases(journal) == [(2, "overtaken"), (3, "undone"), (2, "overtaken"), (3, "undone"), (2, "probation")]
    clock.on(599)
    assert looks.look(NAME) is None
    going = journal.rollout(NAME)
    assert going is not None
    assert (going.evidence["requests"], going.said) == (len(ids), "it rested while version 3 was tried")
    clock.on(1)
    assert "passed in its probation" in str(looks.look(NAME))
    assert watch(place, clock).look(NAME) is None


def test_v_13_a_probation_that_rested_brings_back(place: Settings, clock: Clock):
    """What was compared before and after counts together: six failures on either side are the twelve that it takes."""
    journal, looks = on_probation(place, clock)
    serve(place, clock, 6, 1, 2, thought=None)
    release(place, 3, clock)
    clock.on(60)
    rollout.stop(NAME, place, "not this one", clock)
    looks.look(NAME)
    serve(place, clock, 6, 1, 2, thought=None)
    assert "version 2 undone in its probation: it fails more often: by 1 on 12 requests" in str(looks.look(NAME))
    assert [each.version for each in journal.releases(NAME)] == [1, 2, 1]


def test_a_version_that_is_released_again_is_compared_with_the_one_that_it_replaces(place: Settings, clock: Clock):
    """1, 2, 3, and 2 once more: beside it scores version 3, which answered until then."""
    journal = crowned(place, 1, 2, 3)
    assert release(place, 2, clock) == {"state": "released"}
    assert watch(place, clock).look(NAME) == "version 2 is on probation; version 3 goes on scoring"
    serve(place, clock, 12, 3, 2, thought=None)
    assert "version 2 undone in its probation" in str(watch(place, clock).look(NAME))
    assert [each.version for each in journal.releases(NAME)] == [1, 2, 3, 2, 3]


def test_a_challenger_that_becomes_champion_ends_the_probation_before_it(place: Settings, clock: Clock):
    """Its own begins; that of the one before it does not come again."""
    journal, looks = on_probation(place, clock)
    release(place, 3, clock)
    release(place, 3, clock)
    assert looks.look(NAME) == "version 3 is champion; version 2 goes on scoring"
    clock.on(1000)
    looks.look(NAME)
    assert looks.look(NAME) is None
    assert phases(journal) == [(2, "overtaken"), (3, "passed")]


def test_a_person_who_says_it_again_releases_at_once(place: Settings, clock: Clock):
    """In the middle of the shadow: champion is the challenger, and its probation begins with the same record."""
    journal = staged(place)
    assert release(place, 2, clock)["state"] == ROLLING
    assert release(place, 2, clock)["state"] == "released"
    assert watch(place, clock).look(NAME) == "version 2 is champion; version 1 goes on scoring"
    assert phases(journal) == [(2, "probation")]


def test_a_challenger_may_not_be_released_any_more_when_its_turn_comes(place: Settings, clock: Clock):
    """A verdict is gone, a floor was raised, or its bundle was altered meanwhile: the release that the evidence allows is refused, or fails, and nothing is champion."""
    journal = staged(place, STAGED.replace("rows: 30, seconds: 60", "rows: 1").replace("share: 0.5", "share: 0"))
    release(place, 2, clock)
    serve(place, clock, 1, 1, 2)
    (trained,) = (row for row in journal.trainings(NAME) if row["version"] == 2)
    journal.end_training(
        trained["id"], state="registered", reason="a test", at=START, detail={**trained["detail"], "verdicts": []}
    )
    said = watch(place, clock).look(NAME)
    assert "version 2 undone in its shadow: not released: version 2 has no verdict of" in str(said)
    (asked,) = (row for row in journal.trainings(NAME) if row["version"] == 3)
    bars = plans.bars(Project.named(NAME, place), place)
    journal.end_training(
        asked["id"],
        state="registered",
        reason="a test",
        at=START,
        detail={**asked["detail"], "bars": bars, "against": 1},
    )
    release(place, 3, clock)
    serve(place, clock, 1, 1, 3)
    text = (place.projects / NAME / "project.yaml").read_text()
    (place.projects / NAME / "project.yaml").write_text(f"{text}floor: 0.999\n")
    said = watch(place, clock).look(NAME)
    assert "version 3 undone in its shadow: not released: version 3 was judged before this was changed: floor" in str(
        said
    )
    (place.projects / NAME / "project.yaml").write_text(text)
    release(place, 3, clock)
    serve(place, clock, 1, 1, 3)
    (place.bundles(NAME) / "3" / bundles.MODEL).write_bytes(b"another")
    with pytest.raises(KeepfitError, match="was altered or damaged"):
        watch(place, clock).look(NAME)
    assert [each.version for each in journal.releases(NAME)] == [1]


def test_an_old_champion_that_cannot_come_back_is_trouble_that_is_said(place: Settings, clock: Clock):
    """Its files are gone: the look says what should be done and why it cannot be; the champion stays, and the rollout goes on."""
    journal = crowned(place, 1)
    release(place, 2, clock)
    looks = watch(place, clock)
    looks.look(NAME)
    ids = serve(place, clock, 60, 2, 1, said=0.9)
    come_true(place, ids, False)
    (place.bundles(NAME) / "1" / bundles.MODEL).unlink()
    with pytest.raises(KeepfitError, match=r"should be brought back \(it loses more.*cannot come back"):
        looks.look(NAME)
    assert [each.version for each in journal.releases(NAME)] == [1, 2]
    assert phases(journal) == [(2, "probation")]


def test_what_cannot_be_done_is_tried_less_and_less_often(place: Settings, clock: Clock):
    """Each try leaves a record: in an hour of looks there are few, ten minutes apart at last; and it is done when it can be."""
    journal, now = crowned(place, 1), [0.0]
    release(place, 2, clock)
    looks = Watch(place, clock, timer=lambda: now[0])
    looks.look(NAME)
    come_true(place, serve(place, clock, 60, 2, 1, said=0.9), False)
    model = place.bundles(NAME) / "1" / bundles.MODEL
    kept, tries = model.read_bytes(), []
    model.unlink()
    while now[0] < 3600:
        now[0] += 5
        try:
            looks.look(NAME)
        except KeepfitError:
            tries.append(now[0])
    assert 8 <= len(tries) <= 14
    assert tries[-1] - tries[-2] == rollout.MOST_REST
    model.write_bytes(kept)
    now[0] += rollout.MOST_REST
    assert "undone in its probation" in str(looks.look(NAME))
    assert [each.version for each in journal.releases(NAME)] == [1, 2, 1]


def test_a_new_champion_does_not_rest_for_what_could_not_be_done_before(place: Settings, clock: Clock):
    """The one before could not be taken back, and was tried each ten minutes at last; what the next one does is weighed at once."""
    journal, now = crowned(place, 1), [0.0]
    release(place, 2, clock)
    looks = Watch(place, clock, timer=lambda: now[0])
    looks.look(NAME)
    come_true(place, serve(place, clock, 60, 2, 1, said=0.9), False)
    (place.bundles(NAME) / "1" / bundles.MODEL).unlink()
    while now[0] < 700:
        now[0] += 5
        with contextlib.suppress(KeepfitError):
            looks.look(NAME)
    clock.on(1)
    release(place, 3, clock)
    for said in ("overtaken", "version 3 is on probation"):
        assert said in str(looks.look(NAME))
    come_true(place, serve(place, clock, 60, 3, 2, said=0.9), False)
    assert "version 3 undone in its probation" in str(looks.look(NAME))
    assert [each.version for each in journal.releases(NAME)] == [1, 2, 3, 2]


def test_a_bar_that_was_reached_stays_reached_after_a_restart(place: Settings, clock: Clock):
    """The old champion cannot come back yet. Then earlier requests turn out well: in the order of the requests the bar would not be reached."""
    journal = crowned(place, 1)
    release(place, 2, clock)
    looks = watch(place, clock)
    looks.look(NAME)
    early = serve(place, clock, 100, 2, 1, said=0.9)
    clock.on(1)
    come_true(place, serve(place, clock, 60, 2, 1, said=0.9), False)
    model = place.bundles(NAME) / "1" / bundles.MODEL
    kept = model.read_bytes()
    model.unlink()
    with pytest.raises(KeepfitError, match="should be brought back"):
        looks.look(NAME)
    come_true(place, early, True)
    model.write_bytes(kept)
    before = journal.rollouts(NAME)[-1].evidence["tests"]["loss"]
    assert "undone in its probation: it loses more: by -0.03 on 160 requests" in str(watch(place, clock).look(NAME))
    after = journal.rollouts(NAME)[-1].evidence["tests"]["loss"]
    assert (after["crossed"], after["peak"], after["e"] < 1) == (before["crossed"], before["peak"], True)


# -- people ---------------------------------------------------------------------------------------------------------------
def test_a_person_stops_a_challenger(place: Settings, clock: Clock):
    """In its shadow; a champion on probation is a matter of a rollback, and what has ended is over."""
    journal = staged(place)
    release(place, 2, clock)
    assert rollout.stop(NAME, place, "not now", clock)["state"] == "undone"
    assert phases(journal) == [(2, "undone")]
    assert "no rollout goes on: version 2 undone, stopped by" in rollout.stop(NAME, place, "again")["reason"]
    crowned(place, 3)
    journal.begin_rollout(Rollout(NAME, 3, "d", 1, "d", {}, "a", "r", began="b", phase="probation", since="s"))
    assert "keepfit rollback small" in rollout.stop(NAME, place, "again")["reason"]
    for strange in ("nobody", "../small"):
        with pytest.raises(KeepfitError, match="had no rollout yet"):
            rollout.shown(strange, place)


def test_the_command_shows_what_stands(place: Settings, clock: Clock, capsys: pytest.CaptureFixture[str]):
    """Phase, rows, each test with its e-value and bar, the early warning, and what comes next; or all of it as JSON."""
    staged(place)
    release(place, 2, clock)
    serve(place, clock, 40, 1, 2, said=0.1, thought=0.9)
    watch(place, clock).look(NAME)
    assert releases.rollout(NAME, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["phase"], told["next"], told["rows"], told["tests"]["errors"]["bar"]) == ("shadow", "canary", 40, 60.0)
    assert releases.rollout(NAME) == 0
    page = capsys.readouterr().out
    for line in (
        "small: version 2 beside version 1, shadow since",
        "40 rows, 0 answered",
        "errors",
        "early warning: it is expected",
        "next: canary",
    ):
        assert line in page
    assert releases.rollout(NAME, stop=True, reason="no need", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "undone"


def test_the_stack_looks_by_itself(place: Settings):
    """What `recover` does every two seconds begins the probation, and its report says so."""
    journal = crowned(place, 1)
    chosen = Releasing(NAME, place)
    chosen.release(2, actor="anna", reason="better")
    with chosen.alone():
        chosen.follow()
    assert Recovery(place).look().rollouts == ["small: version 2 is on probation; version 1 goes on scoring"]
    assert Recovery(place).look().rollouts == []
    assert phases(journal) == [(2, "probation")]


def test_the_flow_ends_with_the_shadow(place: Settings, monkeypatch: pytest.MonkeyPatch, clock: Clock):
    """The step gives the run's result where a shadow begins, and nothing where the release goes on at once."""
    staged(place)
    chosen = Releasing(NAME, place, clock)
    with chosen.alone():
        plan = chosen.plan(2, actor="anna", reason="better")
        monkeypatch.setattr(deploy, "get_run_logger", lambda: releasing.LOG)
        begun = deploy.roll_out.fn(plan)
    assert begun is not None
    assert begun["reason"] == "version 2 is in its shadow beside version 1; `keepfit rollout small` shows how it does"
    assert rollout.begin(Plan(project=NAME, refused="no"), place) is None


def test_the_key_of_a_canary_is_columns_of_the_contract(place: Settings):
    """A misspelt one is named with the one that was meant; how a release is rolled out decides nothing about a model."""
    file = place.projects / NAME / "project.yaml"
    before = Project.named(NAME, place).digest
    file.write_text(YAML + STAGED)
    assert Project.named(NAME, place).digest == before
    file.write_text(YAML + "release: {rollout: {canary: {share: 0.1, key: [ids]}}}\n")
    with pytest.raises(ProjectError, match=r"names 'ids', which is no column of the contract.*Did you mean 'id'"):
        Project.named(NAME, place)
