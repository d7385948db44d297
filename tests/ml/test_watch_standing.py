"""What stands of drift: judged once in a time, repeated between, and an alarm until its window has passed."""

import datetime as dt
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tasks.ml.watching.alarm import Alarm
from tasks.ml.watching.calibration import DriftPlan
from tasks.ml.watching.standing import MONDAY, Standing

PLAN = DriftPlan()
HOUR = dt.timedelta(hours=1)


def alarm(kind: str = "inputs", says: str = "moved") -> Alarm:
    return Alarm.model_validate({"kind": kind, "class": "retrain", "level": 1.0, "threshold": 0.5, "says": says})


def at(hours: float) -> dt.datetime:
    """So many hours after a Monday."""
    return MONDAY + hours * HOUR


def after(*looks: tuple[float, tuple[Alarm, ...]], plan: DriftPlan = PLAN) -> list[Standing]:
    """What stands after each of these looks: the hour in which its window ends, and what it found."""
    found: list[Standing] = []
    for hours, alarms in looks:
        found.append(Standing.after(found[-1] if found else None, alarms, at(hours), plan))
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
        now = Standing.after(before, (alarm(),) if found else (), at(hours), plan)
        if now.alarms and not (before and before.alarms):
            begun.append(hours)
        before = now
    assert all(later - earlier >= 7 * 24 for earlier, later in pairwise(begun))
