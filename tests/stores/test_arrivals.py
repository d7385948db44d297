"""What came to a project, as anomalies are found in it: of real landings."""

import datetime as dt

from tasks.config.settings import Settings
from tasks.ingest import Landings
from tasks.ml.watching.anomalies import find
from tasks.ml.watching.oddness import AnomalyPlan, History
from tasks.stores.arrivals import arrivals
from tasks.stores.predictions import Told
from tasks.stores.served import Serving
from tasks.tidy import Tidying
from tests.samples import write_rows
from tests.tasks.test_ingest import land, rows, small

__all__ = ["small"]
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def test_landed_batches_are_read_in_order_with_the_profiles_of_the_newest_and_outcomes_apart(small, tmp_path):
    """Three batches of rows, one of outcomes; the oldest batch counts as an arrival alone."""
    for day, size in enumerate((5, 40, 60)):
        at = NOON + day * DAY
        landing = Landings(small.use, Settings(), clock=lambda at=at: at)
        land(landing, tmp_path, f"{day}.csv", rows(*range(100 * day, 100 * day + size)))
    late = Landings(small.use, Settings(), kind="outcomes", clock=lambda: NOON + 9 * DAY)
    late.land(write_rows(tmp_path / "came.csv", [{"id": "1", "y": "t", "outcome_at": "2026-03-05T00:00:00Z"}]))
    batches, outcomes = arrivals(small.journal, Serving("small", Settings()), 2)
    assert [(one.at, one.rows) for one in batches] == [(NOON, 5), (NOON + DAY, 40), (NOON + 2 * DAY, 60)]
    assert [one.profile and one.profile.rows for one in batches] == [None, 40, 60]
    assert outcomes == [NOON + 9 * DAY]
    found = find(History(batches=batches, outcomes=outcomes, target="y"), NOON + 10 * DAY)
    assert ({one.state for one in found.checks}, found.alarms) == ({"too few", "no data"}, ())


def test_outcomes_that_were_told_of_predictions_came_too(small, tmp_path):
    """Every hour of twelve days, by prediction id: a day later it is said that they ended; while they come, it is not."""
    told = Told(Settings().home)
    for hour in range(12 * 24):
        told.tell("small", NOON + hour * DAY / 24, [(f"p{hour}", True, None)])
    _, outcomes = arrivals(small.journal, Serving("small", Settings()), 60)
    last = NOON + 12 * DAY - DAY / 24
    assert max(outcomes) == last
    assert len(outcomes) == 13, "the last of each UTC day"
    plan = AnomalyPlan(at_least=5)

    def alarmed(at: dt.datetime) -> list[str]:
        return [one.says for one in find(History(outcomes=outcomes, target="y"), at, plan).alarms]

    assert alarmed(last + DAY / 24) == []
    (said,) = alarmed(last + 9 * DAY)
    assert said.startswith("no outcomes came for 216.0 hours")


def test_outcomes_whose_logs_went_into_the_lake_came_as_well(small, tmp_path):
    """The end of what was gathered is known from the table's own log, when the door's is removed."""
    told, at = Told(Settings().home), NOON + 40 * DAY
    told.tell("small", NOON, [("a", True, None)])
    told.tell("small", at, [("b", True, None)])
    Tidying(small.use, Settings(), lambda: at).tidy(30)
    assert [path.stem for path in told.files("small")] == [f"{at.date()}"]
    told.tell("small", at + DAY / 24, [("c", True, None)])
    _, outcomes = arrivals(small.journal, Serving("small", Settings()), 60)
    assert {*outcomes} == {at, at + DAY / 24}
