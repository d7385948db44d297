"""What a project may have scored by the clock, and what an entry that cannot be says."""

import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.sources.scores import Score, Scores

GOOD = {"name": "nightly", "source": "in.parquet", "target": "out.parquet", "schedule": {"cron": "0 2 * * *"}}
QUERY = GOOD | {"source": "env:CRM_URL", "sql": "select * from patients ;\n"}


@pytest.mark.parametrize(
    "source", ["in.parquet", "/data/table", "s3://bucket/table", "abfss://box@account.dfs.core.windows.net/table"]
)
def test_a_file_and_a_table_are_sources(source):
    """A path, and the URL of a Delta table, whose secrets are in the environment."""
    assert Score.model_validate(GOOD | {"source": source}).source == source


def test_a_query_names_the_variable_that_holds_its_url():
    """The statement loses what ends it."""
    assert Score.model_validate(QUERY).sql == "select * from patients"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": ""}, "at least 1 character"),
        ({"target": "out.xlsx"}, "'out.xlsx' is no file that is written; wanted a path .* ends in .csv or .parquet"),
        ({"target": "s3://bucket/out.csv"}, "wanted a path on a disk that the worker sees"),
        ({"sql": "select 1"}, "source is not env:NAME.*Put the URL into an environment variable"),
        ({"sql": "select 1", "source": "postgresql://me:SECRET@host/db"}, "source is not env:NAME"),
        ({"source": "env:CRM_URL"}, "is 'env:CRM_URL', a database, but there is no sql. Add the SELECT"),
        ({"source": "s3://key:SECRET@bucket/table"}, "source holds a password.*give them by environment"),
        ({"sql": "delete from patients", "source": "env:CRM_URL"}, "neither SELECT nor WITH"),
        ({"schedule": {"cron": "0 2 * *"}}, "a cron line has five"),
        ({"schedule": None}, "schedule"),
        ({"name": "Nightly run"}, "name"),
    ],
)
def test_an_entry_that_cannot_be_says_what_was_wanted(changes, says):
    """No run is planned that could not end well, and no secret stands in the file."""
    with pytest.raises(ValidationError, match=says):
        Score.model_validate(GOOD | changes)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"target": "other.csv"}, "each entry needs a name of its own"),
        ({"name": "weekly"}, "two entries write 'out.parquet'.*Give each a target"),
        ({"name": "weekly", "target": "./out.csv"}, "two entries write 'out.rejects.csv'"),
    ],
)
def test_entries_do_not_write_over_each_other(other, says):
    """Neither answers nor rejects; names are apart, too."""
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(Scores).validate_python([GOOD, GOOD | other])
    apart = TypeAdapter(Scores).validate_python([GOOD, GOOD | {"name": "weekly", "target": "old/out.parquet"}])
    assert [each.name for each in apart] == ["nightly", "weekly"]
