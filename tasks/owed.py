"""Owed: trainings and looks for what landed, orders that nobody has obeyed, silence that nobody has noticed, trainings that hang.

Each is found by what is, at every look of the recovery, so that a lost event or a killed server costs seconds and nothing else.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from prefect.exceptions import ObjectNotFound

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.policy import ALARMED, By, Fresh, OnSilence, owing
from tasks.stores import alarms, processes
from tasks.stores.journal import KEPT, UNDER_WAY, Journal, Order, unanswered
from tasks.stores.lake import named
from tasks.stores.predictions import Told
from tasks.stores.served import Serving
from tasks.trigger import CRASHES, DONE, alert, caps

OWED = "landed and was not trained on"  # why a training began that no event started
TEACHES = "landed: more of what an alarm was about may teach now than the champion knew"  # why one follows an alarm's
ASKED = 0.0  # since when something is so that was seen to
AGAIN = 30.0  # seconds until a training that failed or crashed is tried again; the next time four times as many

Apart = Callable[[], AbstractContextManager[object]]


class Owed:
    """What is owed, look by look; it remembers since when, by a clock that does not jump."""

    def __init__(self, settings: Settings, journal: Journal, grace: float, clock: Callable[[], dt.datetime]) -> None:
        """Over a journal.

        Args:
            settings: where things are.
            journal: what is.
            grace: seconds that an event has to start a training or a look before it counts as lost.
            clock: what is late, and what a month may cost.
        """
        self._settings, self._journal, self._grace, self._clock = settings, journal, grace, clock
        self._since: dict[str, tuple[object, float]] = {}  # by name: what is so, and since when
        self._newest: dict[str, list[dt.datetime]] = {}  # by project: when the newest outcome of a prediction came
        self._projects: dict[str, tuple[str, Project]] = {}

    def look(self, project: str, apart: Apart = nullcontext) -> list[str]:
        """One look at a project that is declared; a line for each run that was started and each event that was told.

        Args:
            project: its name.
            apart: a context for each part of the look; one that keeps an error to itself has the other parts go on.
        """
        if project not in self._settings.project_names():
            return []
        done: list[str] = []
        for part in self._parts(project):
            with apart():
                done += part()
        return done

    def _parts(self, project: str) -> Iterator[Callable[[], list[str]]]:
        """What a look consists of, in its order; what cannot be done of one part is no matter of another's."""
        yield partial(self.listen, project)
        yield partial(self.register, project)
        yield partial(self.train, project)
        yield from self._orders(project)
        yield partial(self.watch, project)

    # -- what MLflow was away for -------------------------------------------------------------------------------------
    def register(self, project: str) -> list[str]:
        """Starts the registering of a training that is kept, once MLflow answers; a line when it did."""
        waiting = self._journal.kept(project)
        if not waiting or not self._answers(project):
            return []
        newest = waiting[-1]
        reason, by = "MLflow answers: what was finished is registered", newest["by"] or "hand"
        return self._plan(project, reason, f"kept {project} {newest['id']}", 0.0, by, snapshot=newest["rows"])

    # -- what landed --------------------------------------------------------------------------------------------------
    def train(self, project: str) -> list[str]:
        """Starts the training that is owed for what landed, once its event has had time to do so; a line when it did."""
        owed = owes(self._use(project), self._journal)
        if owed is None:
            self._since.pop(project, None)
            return []
        if self._is_unanswered(project):
            return []
        by: By = "batch" if owed.policy == "batch" else "rows"
        if by == "batch" and self._lasted(project, owed.what) < self._grace:
            return []
        past, now = self._journal.trainings(project), self._clock()
        answer = caps(self._use(project), self._journal, past, by, now)
        if answer.cap:  # it is owed until the cap opens; no event starts a run of `rows` that would say so
            alert(self._journal, project, answer.cap, past, now)
            return []
        delay = max(_delay(min(owed.tries, CRASHES)), answer.wait)
        reason = f"{owed.what} {TEACHES if owed.policy in ALARMED else OWED}"
        return self._plan(project, reason, f"owed {project} {owed.what} {owed.tries}", delay, by)

    def watch(self, project: str) -> list[str]:
        """Starts the look that is owed for what landed since the last one began, once an event has had time to do so; once a batch, but for kills."""
        unwatched = self._unwatched(project)
        if unwatched is None:
            return []
        landed, last = unwatched
        name, asked = f"{project} look", f"{project} look asked for"
        if self._since.get(asked) == (landed, ASKED) or self._lasted(name, last) < self._grace:
            return []
        said = self._look(project, landed)
        del self._since[name]  # what comes next has its time, too: another batch's event, a look that was killed
        if said is None:
            self._since[asked] = (landed, ASKED)
        return said or []

    def _look(self, project: str, landed: str) -> list[str] | None:
        """A look is under way, or coming; a line when this began it. None when one has ended that is not tried again: it was not killed, or too often."""
        from tasks.stores import runs

        reason = "what landed was not looked at"
        for tries in range(CRASHES):
            run = runs.watch(project, reason, f"owed look {project} {landed} {tries}")
            if run is None:
                return []  # whether it saw the batch is asked again after it
            if run.state is not None and not run.state.is_crashed():
                return None if run.state.is_final() else [f"{project}: {reason}: '{run.name}'"]
        return None

    def _unwatched(self, project: str) -> tuple[str, str | None] | None:
        """What has landed, and what had when the last look began, where landing starts a look, there is a champion to look at, and more has since."""
        if not self._use(project).watch.on_batch or self._journal.champion(project) is None:
            return None
        landed, watched = self._journal.landed(project), self._journal.watched(project)
        return None if landed in {"v0.0", watched} else (landed, watched)

    def _answers(self, project: str) -> bool:
        from tasks.stores.registry import Registry

        return Registry(project, self._settings.mlflow(), self._settings.artifacts).answers()

    def _plan(
        self, project: str, reason: str, key: str, delay: float, by: str, snapshot: str | None = None
    ) -> list[str]:
        from tasks.stores import runs

        run = runs.train(project, reason, key, delay, by, snapshot)
        if run is None or run.state is None or run.state.is_final():
            return []
        return [f"{project}: {reason}: '{run.name}'"]

    # -- orders -------------------------------------------------------------------------------------------------------
    def _orders(self, project: str) -> Iterator[Callable[[], list[str]]]:
        """Sees to it that every open order has a run, or is told; a part for all that are for the same."""
        ordered = sorted(
            self._journal.orders(project, "open"), key=lambda order: (order.does, _source(order), order.id)
        )
        for (does, source), group in groupby(ordered, key=lambda order: (order.does, _source(order))):
            if does == "tell":
                yield partial(alarms.send, self._journal, [*group])
            else:
                yield partial(self._run, project, source, [*group])

    def _run(self, project: str, source: str, orders: list[Order]) -> list[str]:
        """One flow run for all orders of the same; while one of them is under way, what comes meanwhile waits together."""
        self._settle(orders)
        numbers = {order.id for order in orders}
        left = [order for order in self._journal.orders(project, "open") if order.id in numbers]
        waiting = [order for order in left if not order.run]
        if not any(self._is_due(order) for order in waiting):
            return []
        if not source:
            return self._order(project, waiting)
        return self._fetch(project, source, waiting) if len(waiting) == len(left) else []

    def _settle(self, orders: list[Order]) -> None:
        """Puts on record what came of the runs that were to obey them."""
        from tasks.stores import runs

        for run in sorted({order.run for order in orders} - {""}):
            mine = [order for order in orders if order.run == run]
            state, name = runs.came_of(run)
            if state == "obeyed":
                self._journal.answer(mine, "done", f"by the run '{name}'", run=run)
            elif state == "lost":
                self._journal.lost(mine, run, f"the run '{name}' did not end well, {CRASHES} times", most=CRASHES)

    def _is_due(self, order: Order) -> bool:
        """At once, but an alarm's event is quicker, and what failed is tried again after a while."""
        patience = max(self._grace if order.by in ALARMED else 0.0, _delay(order.tries))
        return not patience or self._lasted(f"order {order.id}", order.tries) >= patience

    def _order(self, project: str, orders: list[Order]) -> list[str]:
        """A training for them, as soon as it may begin, but for those that a cap refuses."""
        from tasks.stores import runs

        if self._is_unanswered(project):
            return []
        waits = self._waits(project, orders)
        left = sorted((order for order in orders if order.by in waits), key=lambda order: (waits[order.by], order.id))
        if not left:
            return []
        first = left[0]
        run = runs.train(project, first.reason, f"order {first.id} {first.tries}", waits[first.by], first.by)
        if run is None:
            return []  # another one is coming, and obeys these, too, if it has not begun
        self._journal.run_for(left, str(run.id))
        return [f"{project}: {first.reason}: '{run.name}'"]

    def _is_unanswered(self, project: str) -> bool:
        """Whether MLflow was away when the last training wanted it, and is so still: another one would only end as that did."""
        last = self._journal.tried(project)[-1:]
        if not last or not unanswered(*last[0][1:]):
            return False
        return not self._answers(project)

    def _waits(self, project: str, orders: list[Order]) -> dict[str, float]:
        """Seconds of cool-down by kind of start, without the kinds that a cap refuses: their orders are answered as a run would."""
        past, now, waits = self._journal.trainings(project), self._clock(), dict[str, float]()
        for by in sorted({order.by for order in orders}):
            answer = caps(self._use(project), self._journal, past, by, now)
            if answer.cap:
                alert(self._journal, project, answer.cap, past, now)
                self._journal.answer([order for order in orders if order.by == by], "refused", answer.refused)
            else:
                waits[by] = answer.wait
        return waits

    def _fetch(self, project: str, source: str, orders: list[Order]) -> list[str]:
        """A fetch for them; where nobody could make it they are tried again, and answered with the reason at last."""
        from tasks.stores import runs

        try:
            run = runs.fetch(project, source, f"order {orders[0].id} {orders[0].tries}")
        except ObjectNotFound as error:
            self._journal.lost(orders, "", str(error), most=CRASHES)
            return []
        self._journal.run_for(orders, str(run.id))
        return [f"{project}: {orders[0].reason}: '{run.name}'"]

    # -- silence ------------------------------------------------------------------------------------------------------
    def listen(self, project: str) -> list[str]:
        """Puts on record, once, that what is expected has not come; a training is ordered where the policy wants one. What was begun: nothing."""
        now = self._clock()
        for policy in self._use(project).retrain:
            if not isinstance(policy, OnSilence):
                continue
            last = self._came(project, policy.of)
            key = f"silence {policy.of} since {last.isoformat() if last else None}"
            said = policy.late(last, now)
            if said and self._since.get(f"{project} {policy.of}") != (key, ASKED):
                self._notice(project, policy, key, said, now)
                self._since[f"{project} {policy.of}"] = (key, ASKED)
        return []

    def _came(self, project: str, of: str) -> dt.datetime | None:
        """When the newest rows, or outcomes, came; outcomes land, or are told of predictions."""
        landed = self._journal.last_landed(project, of)
        told = self._told(project) if of == "outcomes" else []
        return max([*told, *([dt.datetime.fromisoformat(landed)] if landed else [])], default=None)

    def _told(self, project: str) -> list[dt.datetime]:
        """When the newest outcome of a prediction came; the lake is asked once, because what goes there has been seen in a log."""
        known = self._newest.get(project)
        known = Serving(project, self._settings).gathered() if known is None else known
        came = [*known, *Told(self._settings.home).came(project, 1)]
        self._newest[project] = [max(came)] if came else []
        return self._newest[project]

    def _notice(self, project: str, policy: OnSilence, key: str, said: str, now: dt.datetime) -> None:
        if policy.retrain:
            self._journal.order(project=project, key=f"train {key}", does="train", by="silence", reason=said, at=now)
        payload = {"class": "retrain" if policy.retrain else "mend", "reason": said, "of": policy.of}
        alarms.told(self._journal, project, "silence", key=f"tell {key}", payload=payload, at=now)

    # -- trainings that hang ------------------------------------------------------------------------------------------
    def hanging(self, training: dict[str, Any]) -> str:
        """Why a training of this machine is ended, with all that it started; nothing when it may go on."""
        limit = self._use(training["project"]).budget.hours
        if self._lasted(f"training {training['id']}", training["process"]) < limit * 3600:
            return ""
        processes.end(training["process"])
        return f"ended with all its processes after {limit:g} hours, the limit of budget.hours; the champion stays"

    # -- what is asked at each look -----------------------------------------------------------------------------------
    def _lasted(self, name: str, what: object) -> float:
        """Seconds since the first look at which it was so."""
        known, since = self._since.setdefault(name, (what, time.monotonic()))
        if known != what:
            self._since[name] = (what, time.monotonic())
            return 0.0
        return time.monotonic() - since

    def _use(self, project: str) -> Project:
        """The project, read anew after a change of its files."""
        digest = self._settings.declared(project)
        if self._projects.get(project, ("",))[0] != digest:
            self._projects[project] = (digest, Project.named(project, self._settings))
        return self._projects[project][1]


class Debt(NamedTuple):
    """A training that is owed.

    Attributes:
        what: landed.
        tries: how many trainings there were on it.
        policy: the kind of the policy that wants it.
    """

    what: str
    tries: int
    policy: str


def owes(use: Project, journal: Journal) -> Debt | None:
    """The training that a project owes for what landed and was not trained on; None when it owes none."""
    landed, tried = journal.newest(use.project), journal.tried(use.project)
    on_it = [(state, reason) for rows, state, reason in tried if rows and _covers(rows, landed)]
    vain = sum(not unanswered(*how) for how in on_it)
    if landed == (0, 0) or (DONE | UNDER_WAY | {KEPT}) & {state for state, _ in on_it} or vain >= CRASHES:
        return None
    had = [_versions(rows) for rows, state, _ in tried if rows and state in DONE]
    seen = max((version for version, _ in had), default=0), max((outcomes for _, outcomes in had), default=0)
    fresh = Fresh(changed=True, rows=journal.landed_since(use.project, seen[0]), **_since_the_alarm(use, journal, seen))
    policy = owing(use.retrain, fresh)
    return Debt(f"v{landed[0]}.{landed[1]}", len(on_it), policy.kind) if policy else None


def _since_the_alarm(use: Project, journal: Journal, seen: tuple[int, int]) -> dict[str, Any]:
    """Where an alarm led to the champion: of which kind, how many rows judged it, and how many came since; else nothing.

    Nothing, too, once a training has had as many more: there is one follow-up, whatever else was trained before it.
    """
    champion = journal.champion(use.project)
    if champion is None or not use.split.by_time or not ALARMED & {policy.kind for policy in use.retrain}:
        return {}
    made = journal.made(use.project, champion.version)
    judged = made["detail"].get("judged", 0) if made else 0
    if not made or not judged:
        return {}
    new = journal.new_since(use.project, *_versions(made["rows"]))
    had = new - journal.new_since(use.project, *seen)
    if had >= judged:
        return {}
    return {"answered": _answered(journal, made), "judged": judged, "new": new}


def _answered(journal: Journal, training: dict[str, Any]) -> str:
    """The kind of alarm that a training answered: it started it, or ordered one that this one took; empty where none did."""
    if training["by"] in ALARMED:
        return training["by"]
    took = {
        order.by
        for order in journal.orders(training["project"])
        if order.run and order.run in (training["runner"] or "")
    }
    return min(took & ALARMED, default="")


def _delay(tries: int) -> float:
    return AGAIN * 4 ** (tries - 1) if tries else 0.0


def _source(order: Order) -> str:
    return order.what if order.does == "fetch" else ""


def _versions(rows: str) -> tuple[int, int]:
    """The versions of the tables of rows and of outcomes that a snapshot holds whole; 0 when it holds a window only."""
    version, outcomes, _, until = named(rows)
    return (0, 0) if until else (version, outcomes or 0)


def _covers(rows: str, landed: tuple[int, int]) -> bool:
    """Whether a snapshot of that name holds what had landed."""
    version, outcomes, _, until = named(rows)
    return (version, outcomes or 0) >= landed and version >= landed[0] and (outcomes or 0) >= landed[1] and not until
