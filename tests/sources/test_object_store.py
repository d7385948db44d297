"""A listing of a real object store: SeaweedFS, whose S3 gateway asks for a key."""

import datetime as dt
import os

import psutil
import pytest

from tasks.sources.delivery import Delivered, Left, Mark, UnreachableError
from tasks.sources.listing import Listing

NOW = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)


def fetch(source, mark, inbox):
    """What was delivered, as content by name, and the new mark."""
    found = {}
    for step in source.fetch(mark, inbox, NOW):
        assert not isinstance(step, Left), step
        if isinstance(step, Mark):
            mark = step.text
        else:
            found[step.name] = (inbox / step.name).read_bytes()
    return found, mark


def test_objects_come_once_and_again_when_they_changed(store, tmp_path):
    """New, late with an older name, overwritten with other bytes of the same size: each is delivered, and then nothing."""
    source = Listing(name="s", url="s3://drop/days/**/*.csv")
    store.pipe({"drop/days/02/b.csv": b"x\n2\n", "drop/days/02/c.csv": b"x\n3\n", "drop/days/02/c.log": b"no"})
    first, mark = fetch(source, None, tmp_path)
    assert sorted(first.values()) == [b"x\n2\n", b"x\n3\n"]
    store.pipe({"drop/days/01/a.csv": b"x\n1\n", "drop/days/02/c.csv": b"x\n9\n"})
    second, mark = fetch(source, mark, tmp_path)
    assert sorted(second.values()) == [b"x\n1\n", b"x\n9\n"]
    assert fetch(source, mark, tmp_path) == ({}, mark)
    assert len(list(tmp_path.iterdir())) == 4


def test_i_10_a_big_object_streams(store, tmp_path):
    """I-10: an object of many blocks, written in parts, arrives byte by byte."""
    content = os.urandom(1 << 20) * 24
    with store.open("drop/big/rows.parquet", "wb", block_size=5 << 20) as file:
        file.write(content)
    found, _ = fetch(Listing(name="s", url="s3://drop/big/"), None, tmp_path)
    assert list(found.values()) == [content]


def test_i_13_odd_object_names_stay_in_the_inbox(store, tmp_path):
    """I-13: names that are tricks elsewhere are objects like others here."""
    names = ["$(reboot) ; x.csv", "..%2f..%2fx.csv", "n" * 200 + ".csv", "ü☃.csv", "a+b=c&d.csv"]
    for number, name in enumerate(names):
        store.pipe(f"drop/odd/{name}", f"x\n{number}\n".encode())
    inbox = tmp_path / "inbox"
    found, _ = fetch(Listing(name="s", url="s3://drop/odd/*"), None, inbox)
    assert sorted(found.values()) == sorted(f"x\n{number}\n".encode() for number in range(len(names)))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(found)


def test_i_25_an_object_that_vanishes_holds_up_no_other(store, tmp_path):
    """I-25: deleted between listing and reading, it is named; the next one comes."""
    store.pipe({"drop/gone/a.csv": b"x\n1\n", "drop/gone/b.csv": b"x\n2\n", "drop/gone/c.csv": b"x\n3\n"})
    steps = Listing(name="s", url="s3://drop/gone/*.csv").fetch(None, tmp_path, NOW)
    first = next(steps)
    assert isinstance(first, Delivered)
    second = next(name for name in ("b.csv", "a.csv") if not first.name.startswith(name[0]))
    store.rm_file(f"drop/gone/{second}")
    rest = [step for step in steps if not isinstance(step, Mark)]
    assert [(type(step), getattr(step, "fault", None)) for step in rest if isinstance(step, Left)] == [(Left, False)]
    assert sum(isinstance(step, Delivered) for step in rest) == 1


@pytest.mark.parametrize(
    "change", [{"AWS_SECRET_ACCESS_KEY": "canary-that-is-wrong"}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}]
)
def test_o_20_a_store_that_refuses_is_an_error_without_secrets(store, tmp_path, monkeypatch, change):
    """O-20: with a wrong key or a wrong address the source says so, in one line that holds neither key nor secret."""
    store.pipe("drop/locked/a.csv", b"x\n1\n")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnreachableError) as refused:
        list(Listing(name="s", url="s3://drop/locked/*.csv").fetch(None, tmp_path, NOW))
    assert "cannot be listed" in str(refused.value)
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_nothing_of_the_store_listens_beyond_this_machine(store, weed):
    """The tests open no door to others."""
    family = [psutil.Process(weed.pid), *psutil.Process(weed.pid).children(recursive=True)]
    listening = [
        link.laddr.ip
        for process in family
        for link in process.net_connections("inet")
        if link.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) == {"127.0.0.1"}
