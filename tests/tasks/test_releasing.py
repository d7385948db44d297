"""A release, a rollback and what recovers them, killed or failing before each durable step, on both kinds of journal."""

import contextlib
import errno
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flows import looking
from tasks import releasing
from tasks.config import plans
from tasks.config.errors import ArtifactError, ConflictError
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.recover import Recovery
from tasks.releasing import Releasing
from tasks.rollback import Rollback
from tasks.stores import bundles, durable
from tasks.stores.journal import AFTER, BEFORE, Journal, Release
from tests.released import NAME, NOW, InProcess, alias, champion, crowned, either, place, template

__all__ = ["either", "place", "template"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
# Runs each act that it is asked for in a fork, so that the imports are paid once; the n-th durable step of the fork is its last.
DRIVER = """
import json, os, signal, sys
from tasks import releasing
from tasks.config.settings import Settings
from tasks.stores import durable
from tests.released import InProcess
from tests.tasks.test_releasing import ACTS
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store, skops.io, sklearn.linear_model

for line in sys.stdin:
    asked = json.loads(line)
    if os.fork() == 0:
        steps = []
        def seam(what):
            steps.append(what)
            if len(steps) == asked["at"]:
                print(what, file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        durable.seam, code = seam, 1
        if not asked["real"]:
            releasing.Rehearsal = InProcess
        try:
            ACTS[asked["act"]](Settings(), asked["version"])
            code = 0
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def release(settings: Settings, version: int) -> None:
    """As the flow does, without Prefect."""
    chosen = Releasing(NAME, settings)
    plan = chosen.release(version, actor="anna", reason="better")
    if plan.refused:
        raise AssertionError(plan.refused)
    with chosen.alone():
        chosen.follow()


def rollback(settings: Settings, version: int) -> None:
    """As the command does; alias and confirmation follow by the stack's own look."""
    done = Rollback(NAME, "bert", "worse", version).do(settings)
    if done.get("state") == "refused":
        raise AssertionError(done["reason"])
    Recovery(settings).look()


ACTS: dict[str, Callable[[Settings, int], None]] = {"release": release, "rollback": rollback}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are loaded in this process."""
    monkeypatch.setattr(releasing, "Rehearsal", InProcess)


def settled(settings: Settings, before: Release, wanted: int) -> bool:
    """Whether the act was done, after recovery; else nothing of it was. Either way all holds together."""
    journal = Journal(settings.journal())
    found = Recovery(settings).look()
    assert found.trouble == []
    releases = journal.releases(NAME)
    assert [each.generation for each in releases] == [*range(1, len(releases) + 1)]  # P4
    now = releases[-1]
    assert (now.version, now.generation) in {(before.version, before.generation), (wanted, before.generation + 1)}  # P3
    assert bundles.altered(settings.bundles(NAME) / str(now.version), now.digest) == ""
    assert alias(settings) == now.version
    assert journal.release_intents(NAME, (*BEFORE, *AFTER)) == []
    ended = [each for each in journal.release_intents(NAME) if each.generation is not None]
    assert [each.generation for each in ended] == [
        *range(3, len(releases) + 1)
    ]  # P7: each release has its intent, and no other has
    assert {each.phase for each in ended} <= {"confirmed"}
    assert not list(settings.home.rglob("*.part"))
    assert not list((settings.home / "rehearsals").rglob("*/.*"))
    assert (
        Recovery(settings).look().model_dump(exclude_defaults=True, exclude={"rollouts"}) == {}
    )  # one probation ended, the next begins
    assert Recovery(settings).look().model_dump(exclude_defaults=True) == {}
    return now.generation > before.generation


def sweep(settings: Settings, act: str, fail: Callable[[int, int], str]) -> int:
    """Fails before the n-th durable step, recovers, and does it again; n = 1, 2, … until it passes. Gives how many points there were."""
    journal = champion(settings, 2, 1)
    for point in range(1, 100):
        before = journal.releases(NAME)[-1]
        wanted = 3 - before.version
        ended = fail(point, wanted)
        done = settled(settings, before, wanted)
        if ended == "passed":
            assert done
            return point - 1
        if not done:
            ACTS[act](settings, wanted)
            assert settled(settings, before, wanted)
    raise AssertionError("it never passed")


@pytest.fixture
def killing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Does an act in a process that is killed before its n-th durable step; beside one of the homes."""
    assert {"either", "place"} & {*request.fixturenames}
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:

        def kill(act: str, at: int, version: int, *, real: bool = False) -> str:
            assert driver.stdin is not None
            assert driver.stdout is not None
            print(json.dumps({"act": act, "at": at, "version": version, "real": real}), file=driver.stdin, flush=True)
            code = int(driver.stdout.readline())
            assert code in {0, -9}
            return "passed" if code == 0 else "killed"

        yield kill


POINTS = {"release": 8, "rollback": 7}  # durable steps that there are at least


class Killed(BaseException):
    """In place of a kill, where a process of its own would take too long: no handler of errors sees it."""


EIO = OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("either", "fault"),
    [("sqlite", Killed()), ("sqlite", EIO), ("postgresql", Killed()), pytest.param("postgresql", EIO, marks=pytest.mark.slow)],
    indirect=["either"], ids=["sqlite killed", "sqlite EIO", "postgresql killed", "postgresql EIO"],
)  # fmt: skip
@pytest.mark.parametrize("act", ACTS)
def test_s_01_an_act_that_breaks_off_at_any_durable_step_is_finished_or_undone(
    either: Settings, quick, monkeypatch: pytest.MonkeyPatch, swept: Callable[[int], None], act: str, fault: BaseException
):  # fmt: skip
    """Before every durable step in turn it ends, or meets an input/output error that passes: after recovery there is one champion, old or
    new, whose bytes verify and that the alias names; each release has one intent, nothing is left over, and the same again succeeds."""  # noqa: D205, D209

    def fail(point: int, version: int) -> str:
        steps: list[str] = []

        def seam(what: str) -> None:
            steps.append(what)
            if len(steps) == point:
                raise fault

        with monkeypatch.context() as patch, contextlib.suppress(type(fault)):
            patch.setattr(durable, "seam", seam)
            ACTS[act](either, version)
        return "passed" if len(steps) < point else "broken off"

    swept(points := sweep(either, act, fail))
    assert points >= POINTS[act]


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("act", ACTS)
def test_s_01_an_act_that_is_killed_at_any_durable_step_is_finished_or_undone(
    either: Settings, killing, quick, swept: Callable[[int], None], act: str, real: bool
):
    """The same by SIGKILL in a process of its own, and with the candidate's real process, whose own journal is a step more."""
    swept(points := sweep(either, act, lambda point, version: killing(act, point, version, real=real)))
    assert points >= POINTS[act]


def test_o_09_a_release_whose_worker_dies_in_the_middle_is_old_or_new(place: Settings, killing, quick):
    """SIGKILL right before its commit leaves the old champion, right after it the new one; whoever comes next says so everywhere."""
    journal = champion(place, 2, 1)
    for at, wanted in ((4, 1), (5, 2)):
        before = journal.releases(NAME)[-1]
        assert killing("release", at, 2) == "killed"
        assert journal.releases(NAME)[-1].version == wanted
        assert settled(place, before, 2) == (wanted == 2)


def interleavings(first: int, second: int) -> Iterator[str]:
    """Every order in which two actors of so many steps can take them."""
    if not (first and second):
        yield "a" * first + "b" * second
        return
    for rest in interleavings(first - 1, second):
        yield f"a{rest}"
    for rest in interleavings(first, second - 1):
        yield f"b{rest}"


class Stepped:
    """Actors in threads, each of which takes its next durable step when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns: dict[str, threading.Semaphore] = {}
        self.rests: dict[str, threading.Semaphore] = {}
        self.ended: dict[str, Any] = {}
        monkeypatch.setattr(durable, "seam", self._seam)

    def _seam(self, _what: str) -> None:
        if (name := threading.current_thread().name) in self.turns:
            self.rests[name].release()
            assert self.turns[name].acquire(timeout=20)

    def run(self, acts: dict[str, Callable[[], object]], order: str) -> dict[str, Any]:
        """Takes steps in that order; whoever has ended takes no more. Gives how each ended: None, or its error."""

        def act(name: str) -> None:
            try:
                acts[name]()
                self.ended[name] = None
            except Exception as error:  # noqa: BLE001 -- whatever it is, the test looks at it
                self.ended[name] = error
            self.rests[name].release()

        self.ended = {}
        self.turns, self.rests = ({name: threading.Semaphore(0) for name in acts} for _ in range(2))
        threads = [threading.Thread(target=act, args=(name,), name=name) for name in acts]
        for thread in threads:
            thread.start()
            assert self.rests[thread.name].acquire(timeout=20)
        for name in [*order, *(name for name in acts for _ in range(20))]:
            if name not in self.ended:
                self.turns[name].release()
                assert self.rests[name].acquire(timeout=20)
        for thread in threads:
            thread.join()
        return self.ended


def commits(settings: Settings, version: int) -> None:
    """A release up to its commit."""
    plan = Releasing(NAME, settings).release(version, actor="anna", reason="better")
    if plan.refused:
        raise ConflictError(plan.refused)


def commits_unlocked(settings: Settings, version: int) -> None:
    """The same by somebody whose lock holds nobody up, as one that a lost connection took away."""
    chosen = Releasing(NAME, settings)
    plan = chosen.plan(version, actor="carl", reason="better")
    if plan.refused:
        raise ConflictError(plan.refused)
    chosen.commit(plan)


def goes_back(settings: Settings, version: int) -> None:
    """A rollback up to its commit."""
    Rollback(NAME, "bert", "worse", version).do(settings)


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [(commits, goes_back, (4, 3)), (commits_unlocked, commits_unlocked, (4, 4))],
    ids=["release and rollback", "two releases"],
)
def test_o_08_of_two_that_race_one_wins_and_the_other_conflicts(
    either: Settings, quick, monkeypatch: pytest.MonkeyPatch, first, second, steps: tuple[int, int]
):
    """In every order of their steps each of the two is done, or gets a conflict and changed nothing; the journal has both, and all ends on the last winner."""
    monkeypatch.setattr(InProcess, "answer", lambda *_: None)  # who loads is no matter of theirs
    journal = champion(either, 1, 2)
    stepped, lost = Stepped(monkeypatch), 0
    for order in interleavings(*steps):
        if first is second and order[0] == "b":
            continue  # as that which begins with the other
        before = journal.releases(NAME)
        acts: dict[str, Callable[[], object]] = {"a": lambda: first(either, 3), "b": lambda: second(either, 1)}
        ended = stepped.run(acts, order)
        conflicts = [error for error in ended.values() if error is not None]
        assert all(isinstance(error, ConflictError) for error in conflicts), ended
        now = journal.releases(NAME)
        assert len(now) == len(before) + 2 - len(conflicts)
        assert len(conflicts) < 2
        lost += len(conflicts)
        both = journal.release_intents(NAME)[-2:]
        assert {each.version for each in both} == {1, 3}
        assert [each.phase for each in both].count("undone") == len(conflicts)
        assert now[-1].version in {each.version for each in both if each.phase != "undone"}
        crowned(either, 2)
    assert lost > 0
    undone = looking.history(NAME, None, either)["undone"]
    assert len(undone) == lost
    assert all(row["said"] and row["actor"] in {"anna", "bert", "carl"} for row in undone)
    Releasing(NAME, either).follow()
    assert alias(either) == 2


def test_o_08_of_two_releases_at_once_the_second_follows_or_conflicts(either: Settings, quick):
    """They take turns: both are on record, one after the other, and none is lost in between."""
    journal = champion(either, 1)
    errors: list[Exception] = []

    def act(version: int) -> None:
        try:
            release(either, version)
        except ConflictError as error:
            errors.append(error)

    threads = [threading.Thread(target=act, args=(version,)) for version in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {each.version for each in journal.releases(NAME)[1:]} == {2, 3}
    assert alias(either) == journal.releases(NAME)[-1].version


def test_a_candidate_process_that_refuses_ends_the_release(place: Settings):
    """The real process says why; the champion stays, the intent is undone with the reason, nothing is left of the process."""
    journal = champion(place, 1)
    folder = place.bundles(NAME) / "2"
    (folder / bundles.MODEL).write_bytes(b"PK" + (folder / bundles.MODEL).read_bytes()[2:])
    release(place, 2)  # the same bytes: the real candidate answers
    assert journal.releases(NAME)[-1].version == 2
    (place.bundles(NAME) / "3" / bundles.MODEL).write_bytes(b"altered")
    with pytest.raises(ArtifactError, match="altered or damaged"):
        release(place, 3)
    undone = journal.release_intents(NAME)[-1]
    assert (undone.phase, undone.version, journal.releases(NAME)[-1].version) == ("undone", 3, 2)
    assert "altered or damaged" in undone.said
    assert not list((place.home / "rehearsals").rglob("*/.*"))


def test_r_04_only_the_next_generation_comes_into_force(either: Settings):
    """An old release, an older one again, and one from the future are refused; what is in force stays."""
    journal = champion(either, 1, 2)
    first, second = journal.releases(NAME)
    for generation in (1, 2, 4, 9):
        with pytest.raises(ConflictError, match=f"generation {generation}"):
            journal.release(replace(first, generation=generation))
    assert journal.releases(NAME) == [first, second]


def test_r_11_the_version_that_is_being_released_outlives_a_tidying(
    place: Settings, quick, monkeypatch: pytest.MonkeyPatch
):
    """Between intent and commit everything is cleaned that keepfit cleans by itself; the release goes on to its end."""
    from tasks.trigger import settle

    journal = champion(place, 1)

    def seam(what: str) -> None:
        if what in {"release verified", "release answered", "release"}:
            monkeypatch.setattr(durable, "seam", lambda _what: None)
            settle(NAME, journal, place, NOW)
            Recovery(place).look()
            monkeypatch.setattr(durable, "seam", seam)

    monkeypatch.setattr(durable, "seam", seam)
    release(place, 2)
    assert journal.releases(NAME)[-1].version == 2
    assert [each.phase for each in journal.release_intents(NAME)] == ["confirmed"]


# -- verdicts of another time ---------------------------------------------------------------------------------------------
def cut_off(settings: Settings, version: int, **detail: Any) -> Journal:
    """The version passed every gate, and its training was killed before the release; gives the journal."""
    journal = Journal(settings.journal())
    row = journal.made(NAME, version)
    assert row is not None
    bars = plans.bars(Project.named(NAME, settings), settings)
    known = {"bars": bars, **row["detail"], **detail}
    journal.end_training(row["id"], state="releasing", reason="better", at=NOW, detail=known)
    journal.cut_off(row, state="crashed", reason="cut off: its process was gone", at=NOW)
    return journal


def refusal(settings: Settings, version: int) -> str:
    """Why a person may not release the version; empty when it was released."""
    return Releasing(NAME, settings).release(version, actor="anna", reason="better").refused


def configure(settings: Settings, text: str) -> None:
    """Adds to project.yaml."""
    file = settings.projects / NAME / "project.yaml"
    file.write_text(file.read_text() + text)


def test_a_version_is_not_released_over_a_champion_that_it_was_never_compared_with(place: Settings, quick):
    """Cut off before its release, it lay there while another version was released: it was judged against the champion of before alone."""
    cut_off(place, 2, against=1)
    journal = crowned(place, 1, 3)
    assert refusal(place, 2) == (
        "version 2 was compared with version 1, but version 3 is champion since 2026-03-02T00:00:00: a challenger must be better than the "
        "champion of now. `keepfit train small --again` makes a new challenger"
    )
    assert [each.version for each in journal.releases(NAME)] == [1, 3]
    assert journal.release_intents(NAME) == []


def test_a_version_that_was_compared_with_nobody_is_not_released_over_the_first_champion(place: Settings, quick):
    """Two were made before there was a champion: the second one was held against naive baselines alone."""
    cut_off(place, 2, against=None, champion=None)
    crowned(place, 1)
    assert refusal(place, 2).startswith(
        "version 2 was judged when there was no champion, but version 1 is champion since 2026-03-02"
    )


def test_an_older_record_that_names_the_champion_by_its_worth_alone_counts(place: Settings, quick):
    """It says which version was measured beside the challenger."""
    cut_off(place, 2, champion={"version": 1, "value": 0.9, "low": 0.8, "high": 0.95})
    crowned(place, 1, 3)
    assert refusal(place, 2).startswith("version 2 was compared with version 1, but version 3 is champion")


def test_a_version_that_was_cut_off_is_released_while_all_is_as_it_was_judged(place: Settings, quick):
    """The champion is the one that it was compared with, for a second time even, and every gate asks the same."""
    cut_off(place, 2, against=1)
    crowned(place, 1, 3, 1)
    assert refusal(place, 2) == ""


def test_what_was_champion_comes_back_whomever_it_was_compared_with(place: Settings, quick):
    """By a release as by a rollback: other champions and another floor since then are nothing against it."""
    cut_off(place, 2, against=1)
    journal = crowned(place, 1, 2, 3)
    configure(place, "floor: 0.999\n")
    assert refusal(place, 2) == ""
    assert Rollback(NAME, "bert", "worse", 3).do(place)["to"] == 3
    assert [each.version for each in journal.releases(NAME)] == [1, 2, 3, 2, 3]


def plan(settings: Settings) -> None:
    """A plan that was not there."""
    (settings.projects / NAME / plans.FILE).write_text("families: [logistic]\n")


def rules(settings: Settings) -> None:
    """Tests of behaviour that were not stated."""
    (settings.projects / NAME / "hooks.py").write_text("def behaviour():\n    return ()\n")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda settings: configure(settings, "floor: 0.999\n"), "floor"),
        (lambda settings: configure(settings, "metric: log_loss\n"), "metric"),
        (lambda settings: configure(settings, "slices: {columns: [kind]}\n"), "slices"),
        (lambda settings: configure(settings, "gates: [{kind: sound}, {kind: champion, margin: 0.01}]\n"), "gate champion"),
        (plan, "change_plan.yaml"),
        (rules, "behaviour in hooks.py"),
    ],
    ids=["floor", "metric", "slices", "gate", "plan", "rules"],
)  # fmt: skip
def test_a_version_is_not_released_when_gates_ask_something_else_by_now(
    place: Settings, quick, change: Callable[[Settings], None], name: str
):
    """Every gate has its verdict, but under other parameters; the refusal names what was changed and the next move."""
    journal = cut_off(place, 2, against=1)
    crowned(place, 1)
    change(place)
    assert refusal(place, 2) == (
        f"version 2 was judged before this was changed: {name}. A challenger must pass every gate as it is configured now. "
        "`keepfit train small --again` makes a new challenger"
    )
    assert [each.version for each in journal.releases(NAME)] == [1]


def test_what_no_gate_asks_for_may_change_before_a_release(place: Settings, quick):
    """How much is searched, when is retrained and how is released changes no verdict; nor does a gate that is not asked any more."""
    cut_off(place, 2, against=1)
    crowned(place, 1)
    file = place.projects / NAME / "project.yaml"
    file.write_text(file.read_text().replace("trials: 2", "trials: 3"))
    configure(
        place, "retrain: []\nrelease: {by: person}\nabout: a sentence\ngates: [{kind: sound}, {kind: champion}]\n"
    )
    assert refusal(place, 2) == ""


def test_a_record_of_an_older_home_says_neither_and_is_released(place: Settings, quick):
    """What it does not say is not held against its version."""
    crowned(place, 1, 3)
    configure(place, "floor: 0.999\n")
    assert refusal(place, 2) == ""
