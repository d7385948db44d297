"""What stands of drift: judged once in a time, repeated between, and an alarm until its window has passed."""

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ml.watching.alarm import Alarm
from tasks.ml.watching.calibration import DriftPlan
from tasks.ml.watching.incident import Seen
from tasks.ml.watching.incident import after as incidents
from tasks.ml.watching.standing import MONDAY, Standing

PLAN = DriftPlan()
HOUR = dt.timedelta(hours=1)


def alarm(kind: str = "inputs", says: str = "moved", what: str = "retrain") -> Alarm:
    return Alarm.model_validate({"kind": kind, "class": what, "level": 1.0, "threshold": 0.5, "says": says})


def at(hours: float) -> dt.datetime:
    """So many hours after a Monday."""
    return MONDAY + hours * HOUR


def after(*looks: tuple[float, tuple[Alarm, ...]], plan: DriftPlan = PLAN, rows: float | None = None) -> list[Standing]:
    """What stands after each of these looks: its hour, and what it found; its window ends then, or in the hour of the newest row."""
    found: list[Standing] = []
    for hours, alarms in looks:
        until = at(hours if rows is None else rows)
        found.append(Standing.after(found[-1] if found else None, alarms, until, at(hours), plan))
    return found


def test_looks_of_one_day_repeat_its_first():
    """Whether they would find more, or nothing any more."""
    calm, still, next_day, gone = after((1, ()), (20, (alarm(),)), (25, (alarm(),)), (47, ()))
    assert (calm.alarms, still) == ((), calm)
    assert still.says(at(20)) == "Drift is as it was judged at 1970-01-05 01:00."
    assert (next_day.alarms, gone) == ((alarm(),), next_day)


def test_an_alarm_stands_until_its_window_has_passed():
    """Six calm days later it does, seven days later it does not; one that is found again stands longer, and is the newer one."""
    (_, *days) = after(*((24 * day, (alarm(says="a"),) if day in {1, 3} else ()) for day in range(12)))
    assert [bool(each.alarms) for each in days] == [True] * 9 + [False] * 2
    assert days[4].says(at(24 * 5)) == "The alarm of 1970-01-08 00:00 stands until its window has passed."
    assert (days[2].says(at(24 * 3)), days[-1].says(at(24 * 11))) == ("", "")


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ("retrain", "ignore", ["retrain"] * 7 + ["ignore"]), ("mend", "retrain", ["mend"] * 7 + ["retrain"]), ("mend", "ignore", ["mend"] * 7 + ["ignore"]),
        ("ignore", "retrain", ["ignore"] + ["retrain"] * 7), ("retrain", "mend", ["retrain"] + ["mend"] * 7),
    ],
)  # fmt: skip
def test_what_is_less_grave_does_not_take_the_place_of_what_stands(first, then, told):
    """One class on the first day, another one on each day after it: the graver one is told until the first one's window has passed."""
    days = after(*((24 * day, (alarm(what=then if day else first),)) for day in range(8)))
    assert [each.alarms[0].what for each in days] == told


def test_a_class_that_comes_and_goes_opens_one_incident():
    """Predictions are beyond their bar every other day, without them nobody need do anything: one incident in the week, not one every other day."""
    days = after(*((24 * day, (alarm(what="ignore" if day % 2 else "retrain"),)) for day in range(7)))
    known, events = {}, []
    for day, stood in enumerate(days):
        open_ = [one for one in known.values() if one.state == "open"]
        steps = incidents(open_, stood.alarms, ("inputs", "predictions"), Seen("small"), at(24 * day))
        known |= {step.incident.id: step.incident for step in steps}
        events += [step.event for step in steps if step.event]
    assert events == ["opened"]


def test_an_alarm_ends_where_the_clock_of_the_rows_went_back():
    """It was of what was served on Tuesday; the next look is at rows that landed for days before that, and is calm."""
    first, back = after((24, (alarm(),)), (-24 * 3, ()))
    assert (first.alarms, back.alarms) == ((alarm(),), ())


def test_windows_pass_by_the_day():
    """The newest row of one weekly file is some minutes before midnight, that of the next one some minutes earlier: the week has passed."""
    late = 24 - 2 / 60
    _, same, over = after((late, (alarm(),)), (late + 6 * 24, ()), (late + 7 * 24 - 17 / 60, ()))
    assert (same.alarms, over.alarms) == ((alarm(),), ())


def test_rows_that_land_under_a_time_that_stays_are_judged_too():
    """All rows of a month say its first day: each day's looks judge what has landed by then, and an alarm stands as long as the newest row does."""
    first, again, next_week, later = after((0, ()), (5, (alarm(),)), (24 * 7, (alarm(),)), (24 * 14, ()), rows=0)
    assert (again, next_week.alarms, later.alarms) == (first, (alarm(),), (alarm(),))
    assert [stood.repeated(at(hours)) for stood, hours in ((next_week, 24 * 7), (later, 24 * 14))] == [(), ("inputs",)]
    assert later.says(at(24 * 14)) == "The alarm of 1970-01-05 00:00 stands until its window has passed."


def test_what_an_older_keepfit_recorded_is_judged_anew():
    """It does not say when it looked; an alarm of its stands as ever."""
    old = Standing.model_validate({"judged": at(24), "alarmed": at(1), "alarms": [alarm()]})
    now = Standing.after(old, (), at(25), at(25), PLAN)
    assert (now.looked, now.alarms, now.repeated(at(25))) == (at(25), (alarm(),), ("inputs",))


def test_other_alarms_come_and_go_with_each_look():
    """What fell, or is expected to, is told at once, and does not stand."""
    fell = alarm("performance")
    first, second = after((1, (alarm(), fell)), (2, (fell,)))
    assert first.alarms == (alarm(),)
    assert second.told((fell,)) == (alarm(), fell)
    assert second.told(()) == (alarm(),)


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=60), st.sampled_from([1, 2, 7]))
def test_two_alarms_begin_at_least_a_window_apart(looks, every):
    """However often is looked, and whatever is found."""
    hours, plan, begun, before = 0, DriftPlan(every=every), [], None
    for wait, found in looks:
        hours += wait
        now = Standing.after(before, (alarm(),) if found else (), at(hours), at(hours), plan)
        if now.alarms and not (before and before.alarms):
            begun.append(hours)
        before = now
    assert all(later // 24 - earlier // 24 >= 7 for earlier, later in pairwise(begun))
