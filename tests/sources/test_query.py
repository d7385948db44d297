"""Rows of a query, on SQLite and on a real PostgreSQL: what is new comes, late commits too, and nothing when nothing is new."""

import datetime as dt
import itertools
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.sources.delivery import Delivered, Mark, SourceError, UnreachableError
from tasks.sources.query import Position, Query, Rows
from tests.postgres import PASSWORD
from tests.samples import MEMORY

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
ENV = "KEEPFIT_TEST_DATABASE"


class Shop:
    """A database with a table of orders, an inbox, and a source between them that remembers its mark."""

    def __init__(self, url, home, **config):
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.inbox, self.mark, self.files = home / "inbox", None, []
        kind = "text" if self.is_sqlite else "timestamptz"
        self.do("drop table if exists orders")
        self.do(f"create table orders (id bigint, at {kind}, amount double precision)")
        asked = {
            "name": "orders", "url_env": ENV, "sql": "select * from orders where at > :mark or at is null order by at", "mark": "at",
            "start": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        }  # fmt: skip
        self.source = Query.model_validate(asked | config)

    def do(self, sql, **values):
        """Writes to the database."""
        with self.engine.begin() as connection:
            connection.execute(sa.text(sql), values)

    def add(self, *orders):
        """Inserts orders as (id, seconds after noon or None)."""
        for number, seconds in orders:
            at = None if seconds is None else self.stamp(NOON + dt.timedelta(seconds=seconds))
            self.do("insert into orders values (:id, :at, 1.5)", id=number, at=at)

    def stamp(self, at):
        """A time as the database keeps it."""
        return at.replace(tzinfo=None).isoformat(" ") if self.is_sqlite else at

    def steps(self):
        """The files of a fetch, keeping each mark as the task does."""
        for step in self.source.fetch(self.mark, self.inbox, NOW):
            if isinstance(step, Mark):
                self.mark = step.text
            else:
                yield step

    def fetch(self):
        """The ids that were delivered, file by file."""
        return [self.ids(step) for step in self.steps()]

    def ids(self, delivered):
        """The ids in a file."""
        assert isinstance(delivered, Delivered)
        return pq.read_table(self.inbox / delivered.name)["id"].to_pylist()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path, monkeypatch):
    """A database of each kind, named by the environment."""
    url = f"sqlite:///{tmp_path / 'shop.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    monkeypatch.setenv(ENV, url)
    return url


@pytest.fixture
def shop(url, tmp_path):
    return Shop(url, tmp_path)


def test_new_rows_come_and_then_nothing(shop):
    """The first fetch takes everything from the start on; one over unchanged rows delivers nothing and keeps the mark."""
    assert shop.fetch() == []
    assert shop.mark is None
    shop.add((1, 0), (2, 1), (3, 2))
    assert shop.fetch() == [[1, 2, 3]]
    shop.fetch()  # looks once more at the stretch before the mark, and knows it from then on
    settled = shop.mark
    assert shop.fetch() == []
    assert shop.mark == settled
    shop.add((4, 1000))
    assert shop.fetch() == [[4]]


def test_rows_at_the_mark_are_not_lost(shop):
    """A row that was committed later with the very time of the mark comes, although the query says `>`."""
    shop.source = shop.source.model_copy(update={"overlap_seconds": 0})
    shop.add((1, 0), (2, 5))
    shop.fetch()
    shop.add((3, 5))
    assert 3 in itertools.chain(*shop.fetch())
    assert shop.fetch() == []


def test_a_late_commit_with_an_older_time_is_caught_by_the_overlap(shop):
    """Within the overlap a row that appears behind the mark comes; the stretch comes with it, and then is known."""
    shop.source = shop.source.model_copy(update={"overlap_seconds": 60})
    shop.add((1, 0), (2, 100))
    shop.fetch()
    shop.fetch()
    shop.add((3, 45))
    assert shop.fetch() == [[3, 2]]
    assert shop.fetch() == []
    shop.add((4, 39))
    assert shop.fetch() == []  # 61 seconds: that is what the overlap is for


def test_i_04_a_corrected_row_within_the_overlap_comes_again(shop):
    """I-04: other values under the same time are news."""
    shop.add((1, 0), (2, 1))
    shop.fetch()
    shop.fetch()
    shop.do("update orders set amount = 2.5 where id = 2")
    assert shop.fetch() == [[1, 2]]


def test_rows_without_a_mark_come_when_the_query_gives_them(shop):
    """They do not move the mark, come once, and again only when they change."""
    shop.add((1, None), (2, 0))
    assert sorted(itertools.chain(*shop.fetch())) == [1, 2]
    shop.fetch()
    assert shop.fetch() == []
    shop.add((3, None))
    assert 3 in itertools.chain(*shop.fetch())
    assert shop.fetch() == []


def test_ten_thousand_rows_come_in_files_of_bounded_size_and_order(url, tmp_path):
    """Each file holds so many rows, the mark moves with each, and a bound on files lets the next fetch go on."""
    shop = Shop(url, tmp_path, rows_per_file=1000, at_most=4, overlap_seconds=0)
    times = [NOON + dt.timedelta(seconds=n * 7919 % 10_000) for n in range(10_000)]
    rows = [{"id": n, "at": shop.stamp(at)} for n, at in enumerate(times)]
    with shop.engine.begin() as connection:
        connection.execute(sa.text("insert into orders values (:id, :at, 1)"), rows)
    first = shop.fetch()
    assert [len(file) for file in first] == [1000] * 4
    assert [n * 7919 % 10_000 for n in itertools.chain(*first)] == list(range(4000))
    rest = [shop.fetch() for _ in range(3)]
    assert set(itertools.chain(*first, *itertools.chain(*rest))) == set(range(10_000))


def test_s_01_a_kill_after_any_file_leaves_no_row_out(url, tmp_path):
    """S-01: killed after the k-th file, with many rows of one time across the files' borders, every row comes in the end."""
    for k in range(1, 5):
        shop = Shop(url, tmp_path / str(k), rows_per_file=3, overlap_seconds=0)
        shop.add(*((n, n // 5) for n in range(12)))
        killed = list(itertools.islice(shop.steps(), k))  # the k-th file is there, its mark is not
        came = [shop.ids(step) for step in killed] + shop.fetch() + shop.fetch()
        assert set(itertools.chain(*came)) == set(range(12)), k


@pytest.mark.parametrize("killer", ["first", "second"])
def test_s_01_a_killed_process_delivers_again_under_the_same_name(url, tmp_path, killer):
    """S-01: SIGKILL between delivery and mark: the next fetch writes the very same file."""
    shop = Shop(url, tmp_path)
    shop.add((1, 0), (2, 1))
    if killer == "second":
        shop.fetch()
    code = (
        "import os, sys, datetime as dt, pathlib\n"
        "from tasks.sources.query import Query\n"
        "for step in Query.model_validate_json(sys.argv[1]).fetch(sys.argv[3] or None, pathlib.Path(sys.argv[2]), dt.datetime.now(dt.UTC)):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", code, shop.source.model_dump_json(), str(shop.inbox), shop.mark or ""], check=False
    )
    assert died.returncode == -9
    before = {path.name for path in shop.inbox.iterdir()}
    assert shop.fetch() == [[1, 2]]
    assert {path.name for path in shop.inbox.iterdir()} == before


def test_whole_numbers_are_marks_too(url, tmp_path):
    """An id as mark: its overlap is counted in steps."""
    shop = Shop(url, tmp_path, sql="select * from orders where id > :mark", mark="id", start=0, overlap_steps=10)
    shop.add((0, 0), (3, 0), (9, 0))
    assert shop.fetch() == [[0, 3, 9]]
    shop.fetch()
    shop.add((5, 0))
    assert shop.fetch() == [[0, 3, 5, 9]]
    shop.add((20, 0))
    assert shop.fetch() == [[20]]


def test_the_parameter_may_be_left_out_and_a_with_may_begin(url, tmp_path):
    """The bounds and the order are ours; `:mark` only spares the database work."""
    shop = Shop(
        url, tmp_path, sql="with o as (select id, at from orders) select * from o -- newest last\n;", overlap_seconds=0
    )
    shop.add((2, 5), (1, 0))
    assert shop.fetch() == [[1, 2]]
    shop.fetch()
    shop.add((3, 9))
    assert shop.fetch() == [[3]]


def test_i_13_a_value_is_never_part_of_the_sql(url, tmp_path):
    """I-13: a mark that reads like SQL is bound as a value."""
    shop = Shop(url, tmp_path)
    shop.add((1, 0))
    with pytest.raises(ValueError, match="wanted a time"):
        Position("2026-01-01'; drop table orders; --")
    shop.fetch()
    shop.mark = str(shop.mark).replace("2026-01-01", "2026-01-01'; drop table orders; --")
    with pytest.raises(ValueError, match=r"wanted a time|Invalid isoformat"):
        shop.fetch()
    with shop.engine.connect() as connection:
        assert connection.scalar(sa.text("select count(*) from orders")) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mark": "nowhere"}, "nowhere"),
        ({"sql": "select id, 'noon' as at from orders"}, "wanted a time|operator does not exist"),
        ({"sql": "select id, id, at from orders where"}, "syntax|incomplete"),
        ({"sql": "select * from nowhere"}, "nowhere"),
    ],
)
def test_a_query_that_does_not_fit_says_why(url, tmp_path, change, said):
    """Nothing is delivered, and the reason is the database's own or names the column."""
    shop = Shop(url, tmp_path, **change)
    shop.add((1, 0))
    with pytest.raises(SourceError, match=said):
        shop.fetch()
    assert shop.mark is None


# -- PostgreSQL alone -------------------------------------------------------------------------------------------------
def test_types_are_the_database_s_whatever_the_rows_hold(postgres, tmp_path, monkeypatch):
    """A column that is empty in one file and full in the next has the same type in both; times are UTC, numbers exact."""
    monkeypatch.setenv(ENV, postgres)
    sql = (
        "select n as id, timestamptz '2026-01-01 12:00+02' + n * interval '1 second' as at, timestamp '2026-01-01 12:00' as naive,"
        " date '2026-01-01' as day, n = 1 as flag, case when n = 2 then n end as small, case when n = 2 then 0.5::real end as half,"
        " case when n = 2 then 'x' end as label, 12345678901234567890.10::numeric as money, '{\"a\": 1}'::jsonb as more,"
        " gen_random_uuid() as key, '\\x00ff'::bytea as raw from generate_series(1, 2) n"
    )
    shop = Shop(postgres, tmp_path, sql=sql, rows_per_file=1)
    one, two = (pq.read_table(shop.inbox / step.name) for step in shop.steps())
    assert one.schema == two.schema
    wanted = {
        "id": pa.int64(), "at": pa.timestamp("us", "UTC"), "naive": pa.timestamp("us"), "day": pa.date32(), "flag": pa.bool_(),
        "small": pa.int64(), "half": pa.float64(), "label": pa.string(), "money": pa.decimal128(22, 2), "more": pa.string(),
        "key": pa.string(), "raw": pa.string(),
    }  # fmt: skip
    assert {field.name: field.type for field in one.schema} == wanted
    assert one["at"].to_pylist() == [dt.datetime(2026, 1, 1, 10, 0, 1, tzinfo=dt.UTC)]
    assert one["money"].to_pylist() == [Decimal("12345678901234567890.10")]
    assert (one["more"].to_pylist(), one["raw"].to_pylist()) == (['{"a": 1}'], ["00ff"])


def test_a_column_that_comes_twice_is_refused(postgres, tmp_path, monkeypatch):
    """Two columns of one name would be one in the file."""
    monkeypatch.setenv(ENV, postgres)
    shop = Shop(postgres, tmp_path, sql="select id, id, at from orders")
    with pytest.raises(SourceError, match="column 'id' twice"):
        shop.fetch()


def test_a_query_cannot_write(postgres, tmp_path, monkeypatch):
    """The transaction only reads, whatever the SELECT calls."""
    monkeypatch.setenv(ENV, postgres)
    shop = Shop(postgres, tmp_path, sql="select id, at, nextval('s') from orders")
    shop.do("drop sequence if exists s")
    shop.do("create sequence s")
    shop.add((1, 0))
    with pytest.raises(SourceError, match="read-only transaction"):
        shop.fetch()


def test_i_10_a_big_result_is_streamed(postgres, tmp_path, monkeypatch):
    """I-10: of a million rows the first file comes without the memory for all of them."""
    monkeypatch.setenv(ENV, postgres)
    code = (
        f"{MEMORY}import sys, pathlib, datetime as dt, pyarrow.parquet, sqlalchemy, psycopg\n"
        "from tasks.sources.query import Query\n"
        "before = memory('VmRSS:')\n"
        "steps = Query.model_validate_json(sys.argv[1]).fetch(None, pathlib.Path(sys.argv[2]), dt.datetime.now(dt.UTC))\n"
        "files = [next(steps) for _ in range(6)]\n"
        "print((memory('VmHWM:') - before) >> 20)\n"
    )
    sql = "select n as id, repeat('x', 200) || n as label from generate_series(1, 1000000) n"
    source = Query(name="big", url_env=ENV, sql=sql, mark="id", start=0, rows_per_file=10_000)
    grown = subprocess.run(
        [sys.executable, "-c", code, source.model_dump_json(), str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(grown.stdout) < 150  # MiB, most of them what the first query loads; all rows are more than 200


def test_o_20_no_password_in_any_error(postgres, tmp_path, monkeypatch):
    """O-20: refused, unreachable, unreadable: no error holds the password, nor drags another one along that does."""
    source = Query(name="q", url_env=ENV, sql="select 1 as id", mark="id", start=0)
    wrong = "canary/of@the:database"
    urls = {
        postgres.replace(PASSWORD, "canary-that-is-wrong"): UnreachableError,
        postgres.replace("?host=", "?host=/nowhere"): UnreachableError,
        f"postgresql+psycopg://keepfit:{wrong}@localhost/x": SourceError,
        f"nodriver://keepfit:{PASSWORD}@localhost/x": SourceError,
        f"postgresql+asyncpg://keepfit:{PASSWORD}@localhost/x": SourceError,
        PASSWORD: SourceError,
    }
    for url, kind in urls.items():
        monkeypatch.setenv(ENV, url)
        with pytest.raises(kind) as refused:
            list(source.fetch(None, tmp_path, NOW))
        assert "canary" not in str(refused.value), url
        assert refused.value.__suppress_context__
    monkeypatch.delenv(ENV)
    with pytest.raises(SourceError, match=f"{ENV} is not set"):
        list(source.fetch(None, tmp_path, NOW))


# -- no database ------------------------------------------------------------------------------------------------------
naive = st.datetimes(dt.datetime(1900, 1, 1))  # noqa: DTZ001 – a column without a zone
days = st.dates(dt.date(1900, 1, 1))
moments = st.one_of(
    st.integers(-(2**62), 2**62),
    days,
    days.map(str),
    naive,
    naive.map(lambda at: at.replace(tzinfo=dt.UTC)),
    naive.map(lambda at: at.isoformat(" ")),
)


@given(moments, st.floats(1e-6, 1e6), st.integers(1, 10**6))
@settings(max_examples=300)
def test_a_mark_reads_as_it_was_written_and_before_is_before(value, seconds, steps):
    """Every kind of mark survives its text, and the start of its stretch lies before it in the database's order."""
    position = Position(value)
    assert Position.read(position.write("ff")) == (position, "ff")
    assert position.before(seconds, steps).value < value


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None], pa.int64()), ([1, 2.5], pa.float64()), ([1, "x"], pa.string()), ([True, None], pa.bool_()), ([None, None], pa.string()),
        ([1 << 70], pa.string()), ([Decimal("1.5"), Decimal("NaN")], pa.string()), ([dt.date(2026, 1, 1)], pa.date32()), ([b"x"], pa.string()),
    ],
)  # fmt: skip
def test_where_the_database_says_no_type_the_values_do(values, kind):
    """Whole, broken, mixed, none at all: nothing raises and nothing is rounded away."""
    column = Rows(("a",), {"a": None}, [(value,) for value in values]).table()["a"]
    assert column.type == kind
    assert column.null_count == values.count(None)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sql": "delete from orders"}, "neither SELECT nor WITH"),
        ({"url_env": "postgresql://u:p@h/d"}, "should match pattern"),
        ({"start": "the beginning"}, "wanted a time"),
        ({"rows_per_file": 0}, "greater than or equal"),
    ],
)
def test_a_query_is_checked_when_the_project_loads(config, said):
    """Before anything runs."""
    with pytest.raises(ValidationError, match=said):
        Query.model_validate({"name": "q", "url_env": "X", "sql": "select 1 as id", "mark": "id", "start": 0} | config)
