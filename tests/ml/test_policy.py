"""Policies: when a training may start."""

import datetime as dt

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import TypeAdapter, ValidationError

from tasks.ml.policy import OnBatch, OnSchedule, Policy

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
