"""Policies: when a training may start."""

import datetime as dt

import hypothesis.strategies as st
import pytest
from hypothesis import given
from prefect.client.schemas.schedules import CronSchedule
from pydantic import TypeAdapter, ValidationError

from tasks.ml.policy import Fresh, OnBatch, OnRows, OnSchedule, OnSilence, Policies, Policy, owing

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_the_first_training_waits_for_nobody():
    """Without a training before there is nothing to cool down from."""
    assert OnBatch(cooldown=3600).wait(None, START) == 0


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_event_waits_for_the_rest_of_the_cooldown(cooldown, elapsed):
    """Time since the last start and time left make up the cool-down, never more, never less than nothing."""
    wait = OnBatch(cooldown=cooldown).wait(START, START + dt.timedelta(seconds=elapsed))
    assert wait == pytest.approx(max(0.0, cooldown - elapsed), abs=1e-5)


def test_time_zones_are_compared_as_instants():
    """The clock on another wall does not lengthen the wait."""
    now = (START + dt.timedelta(seconds=20)).astimezone(dt.timezone(dt.timedelta(hours=9)))
    assert OnBatch(cooldown=60).wait(START, now) == 40


@pytest.mark.parametrize("cron", ["0 3 * *", "0 3 * * 1 2026", "", "daily"])
def test_a_cron_line_has_five_fields(cron):
    """A line with fewer or more fields is refused with the names of the five."""
    with pytest.raises(ValidationError, match="minute hour day month weekday"):
        OnSchedule(cron=cron)


@pytest.mark.parametrize("cron", ["0 0 LW * *", "0 0 1,LW * *", "0 0 * * 5L", "0 0 * * FRIL", "0 0 * * 1,5L,3"])
def test_a_cron_line_names_times_that_prefect_knows(cron):
    """What only the other library reads is refused with the file, not at the deploy of all projects."""
    with pytest.raises(ValidationError, match="Prefect's schedules do not know"):
        OnSchedule(cron=cron)


@pytest.mark.parametrize(
    "cron", ["0 0 L * *", "0 0 * JUL *", "*/5 8-18 * APR,JUL 1-5", "0 0 1,15 * SUN", "0 0 * * 5#2"]
)
def test_prefect_takes_every_cron_line_that_is_taken_here(cron):
    """Names of months and days, the last day, steps and lists."""
    assert CronSchedule(cron=OnSchedule(cron=cron).cron).cron == cron


@pytest.mark.parametrize("cron", ["99 * * * *", "0 25 * * *", "0 4 31 2 *", "a b c d e"])
def test_a_cron_line_names_times_that_come(cron):
    """An hour or a day that no calendar has is an error with the field's name, not a schedule that never runs."""
    with pytest.raises(ValidationError, match="names no time"):
        OnSchedule(cron=cron)


@pytest.mark.parametrize("zone", ["Sydney", "Mars/Phobos", "../etc/passwd", ""])
def test_a_time_zone_must_exist(zone):
    """A zone that the calendar does not know is refused with examples."""
    with pytest.raises(ValidationError, match="Europe/Berlin"):
        OnSchedule(cron="0 3 * * 1", timezone=zone)


def test_a_policy_is_told_by_its_kind():
    """`kind` chooses the policy; a key of the other kind is refused."""
    policies = TypeAdapter(Policy)
    assert policies.validate_python({"kind": "batch"}) == OnBatch(cooldown=60)
    assert policies.validate_python({"kind": "cron", "cron": "0 3 * * 1"}) == OnSchedule(
        cron="0 3 * * 1", timezone="UTC"
    )
    with pytest.raises(ValidationError, match="cron"):
        policies.validate_python({"kind": "batch", "cron": "0 3 * * 1"})


def test_a_negative_cooldown_is_refused():
    """Nobody waits less than nothing."""
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        OnBatch(cooldown=-1)


@pytest.mark.parametrize(
    ("fresh", "owed"),
    [(Fresh(), None), (Fresh(changed=True), "batch"), (Fresh(changed=True, rows=5000), "rows")],
)
def test_what_landed_owes_a_training(fresh, owed):
    """Anything new does for the policy of batches, outcomes alone too; the first policy that wants it is the reason."""
    found = owing((OnRows(rows=1000), OnBatch()), fresh)
    assert (found and found.kind) == owed


@pytest.mark.parametrize(("rows", "owed"), [(999, False), (1000, True), (10_000, True)])
def test_rows_are_counted_up_to_a_training(rows, owed):
    """Fewer than the policy wants owe nothing, that many do."""
    assert (owing((OnRows(rows=1000),), Fresh(changed=True, rows=rows)) is not None) == owed


@given(st.floats(0.01, 1000), st.floats(0, 2000))
def test_silence_is_late_after_its_hours_and_not_before(hours, since):
    """Before anything has landed nothing is late; a clock that was put back makes nothing late."""
    policy = OnSilence(hours=hours)
    late = policy.late(START, START + dt.timedelta(hours=since))
    assert bool(late) == (dt.timedelta(hours=since) > dt.timedelta(hours=hours))
    assert policy.late(None, START) == policy.late(START, START - dt.timedelta(hours=since)) == ""


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ([{"kind": "drift"}], "Add a floor"),
        ([{"kind": "decay"}, {"kind": "silence", "hours": 1}], "Add a floor"),
        ([{"kind": "batch"}, {"kind": "batch", "cooldown": 5}], "'batch' twice"),
        ([{"kind": "silence", "hours": 1}, {"kind": "silence", "hours": 2}], "'silence' twice"),
        ([{"kind": "rows"}], "Field required"),
    ],
)
def test_policies_that_do_not_fit_together_are_refused(policies, said):
    """An alarm without a floor, and two of a kind that would each have a cool-down."""
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(Policies).validate_python(policies)


def test_two_silences_and_several_schedules_may_stand_together():
    """Rows and outcomes are each awaited; a schedule on weekdays and one on Sundays are two."""
    told = [
        {"kind": "cron", "cron": "0 3 * * 1-5"}, {"kind": "cron", "cron": "0 9 * * 0"}, {"kind": "drift"},
        {"kind": "silence", "hours": 26}, {"kind": "silence", "of": "outcomes", "hours": 90},
    ]  # fmt: skip
    assert len(TypeAdapter(Policies).validate_python(told)) == 5
