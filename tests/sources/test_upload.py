"""Uploads as programs meet them: a real serving process on a free port, and an inbox that holds whole files only."""

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tasks.config.settings import Settings
from tasks.sources import upload
from tasks.sources.upload import AT_ONCE, UploadError, Uploads
from tests.samples import free_port, until

TOKEN = "canary-of-the-uploads"
ROWS = b"x,y\n1,2\n"
BYTES = 300 << 20  # this server's limit
QUICK = "import tasks.sources.upload as u; u.STALL = 0.5; from tasks.serving.app import main; main()"


class Server:
    """A serving process over a home with one project and no champion."""

    def __init__(self, home, **settings):
        self.home, self.port = home, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.inbox = home / "state" / "inbox" / "shop"
        (home / "projects" / "shop").mkdir(parents=True)
        (home / "projects" / "shop" / "project.yaml").write_text("project: shop\n")
        told = {
            "HOME": home / "state",
            "PROJECTS": home / "projects",
            "SERVING_PORT": self.port,
            "UPLOAD_BYTES": BYTES,
        } | settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KEEPFIT_")}
        environment |= {f"KEEPFIT_{name}": str(value) for name, value in told.items()}
        with (home / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", QUICK], env=environment, stdout=log, stderr=log)

    def log(self):
        """What the process has logged."""
        return (self.home / "log").read_text()

    def is_up(self):
        """Whether it answers."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/healthz").status_code == 200

    def send(self, content=ROWS, name="a.csv", project="shop", token=TOKEN, **headers):
        """The answer to an upload."""
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        said |= {"Authorization": f"Bearer {token}"} if token else {}
        asked = {"name": name} if name is not None else {}
        return httpx.post(
            f"{self.url}/projects/{project}/batches", params=asked, content=content, headers=said, timeout=60
        )

    def raw(self, head, *pieces, hang=False):
        """The status of an upload that is sent byte by byte, None when the sender hangs up before an answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
            start = f"POST /projects/shop/batches?name=raw.csv HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            line.sendall(f"{start}{head}\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    line.sendall(piece)
            if hang:
                until(self.drafts, 20, "the upload's start")
                return None
            answer = line.recv(65536)
        return int(answer.split()[1])

    def drafts(self):
        """What is still arriving."""
        return list(self.inbox.glob(".*"))

    def files(self):
        """What stands in the inbox, as content by name."""
        return {path.name: path.read_bytes() for path in self.inbox.iterdir()} if self.inbox.is_dir() else {}

    def memory(self):
        """The most memory that the process has ever held, in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM"))


@contextlib.contextmanager
def serving(home, **settings):
    server = Server(home, **settings)
    try:
        until(server.is_up, 60, "the server")
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("uploads"), TOKEN=TOKEN) as server:
        yield server


@pytest.fixture(autouse=True)
def empty(request):
    """Each test meets an empty inbox."""
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        for path in server.inbox.glob("*"):
            path.unlink()


def test_an_upload_stands_in_the_inbox(server):
    """The answer names the batch by its content; the file is there when it is out; sent again it is the same one."""
    digest = hashlib.sha256(ROWS).hexdigest()
    for _ in range(2):
        answer = server.send(name="rows of May.csv")
        assert answer.status_code == 202
        name = f"rows_of_May-{digest[:12]}.csv"
        assert answer.json() == {"project": "shop", "batch": digest, "name": name, "bytes": 8, "state": "arrived"}
        assert server.files() == {name: ROWS}


def test_two_files_of_one_name_do_not_meet(server):
    """Other content under a name that waits replaces nothing."""
    server.send(b"x\n1\n")
    server.send(b"x\n2\n")
    assert sorted(server.files().values()) == [b"x\n1\n", b"x\n2\n"]


def test_the_name_may_come_in_a_header(server):
    """Content-Disposition in both spellings, and PUT as `curl -T` does."""
    for said in ('attachment; filename="a b.csv"', "attachment; filename*=UTF-8''a%20b.csv"):
        answer = server.send(name=None, Content_Disposition=said)
        assert answer.json()["name"].startswith("a_b-"), said
    put = httpx.put(
        f"{server.url}/projects/shop/batches?name=p.jsonl", content=b"{}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert put.status_code == 202


@pytest.mark.parametrize(
    "name",
    [
        "../../../x.csv",
        "/etc/x.csv",
        "..\\x.csv",
        "a\nb.csv",
        "$(reboot).csv",
        "x" * 300 + ".csv",
        ".csv",
        "\x00.csv",
        "é.CSV",
    ],
)
def test_i_13_a_hostile_name_stays_in_the_inbox(server, name):
    """I-13: the file lands in the inbox of its project under plain letters, and nowhere else."""
    answer = server.send(name=name)
    assert answer.status_code == 202
    assert server.files() == {answer.json()["name"]: ROWS}
    everywhere = [path for path in server.home.rglob("*.[cC][sS][vV]") if path.is_file()]
    assert [path.parent for path in everywhere] == [server.inbox]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": None}, 422), ({"name": "x.exe"}, 422), ({"name": "csv"}, 422), ({"content": b""}, 422), ({"project": "nowhere"}, 404),
        ({"project": "..%2fshop"}, 404), ({"project": "shop%00"}, 404), ({"Content_Encoding": "gzip"}, 415),
        ({"Content_Type": "multipart/form-data; boundary=x"}, 415), ({"Content_Digest": "sha-256=:nonsense:"}, 422), ({"X_Content_SHA256": "12"}, 422),
    ],
)  # fmt: skip
def test_what_is_not_taken_leaves_nothing(server, change, status):
    """A short sentence, a closed line, an empty inbox."""
    answer = server.send(**change)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert server.files() == {}


def test_i_02_an_altered_body_is_refused(server):
    """I-02: with a digest in either header the right content is taken, and one flipped bit is not."""
    digest = hashlib.sha256(ROWS)
    headers = [
        {"X_Content_SHA256": digest.hexdigest()}, {"X_Content_SHA256": digest.hexdigest().upper()},
        {"Content_Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"},
        {"Content_Digest": f"sha-512=:AAAA:, sha-256=:{base64.b64encode(digest.digest()).decode()}:"},
    ]  # fmt: skip
    flipped = bytes([ROWS[0] ^ 1]) + ROWS[1:]
    for said in headers:
        refused = server.send(flipped, **said)
        assert refused.status_code == 422
        assert "SHA-256" in refused.json()["error"]
    assert server.files() == {}
    assert [server.send(**said).status_code for said in headers] == [202] * 4


def test_only_who_shows_the_token_may_upload(server):
    """Missing, wrong, longer, of another scheme: 401 before anything else is said; it is never in the log."""
    for shown in (None, "wrong", TOKEN + "x", TOKEN[:-1], ""):
        for project in ("shop", "nowhere"):
            answer = server.send(token=shown, project=project)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in answer.text
    basic = base64.b64encode(f"x:{TOKEN}".encode()).decode()
    assert server.send(token=None, Authorization=f"Basic {basic}").status_code == 401
    assert server.files() == {}
    assert server.send(token=TOKEN).status_code == 202
    assert TOKEN not in server.log()


def test_i_10_a_big_body_is_streamed(server):
    """I-10: 200 MB of generated rows pass through a process that grows by no more than a few pieces."""
    piece = bytes(range(256)) * 4096
    server.send()
    before = server.memory()
    answer = server.send(piece for _ in range(200))
    assert answer.status_code == 202
    wanted = hashlib.sha256()
    for _ in range(200):
        wanted.update(piece)
    assert (answer.json()["bytes"], answer.json()["batch"]) == (200 << 20, wanted.hexdigest())
    assert server.memory() - before < 24


def test_v_05_a_body_beyond_the_limit_is_refused(server):
    """V-05: by its length before a byte of it is read, or where it passes the limit; nothing of it is left."""
    assert server.raw(f"Content-Length: {BYTES + 1}") == 413
    assert server.raw("Content-Length: 99999999999999999999") in {400, 413}
    assert server.raw("Content-Length: -1") == 400
    limited = Uploads(Settings(home=server.home / "other", projects=server.home / "projects", upload_bytes=1000))
    with pytest.raises(UploadError, match="more than 1,000 bytes") as refused:
        asyncio.run(limited.receive("shop", "a.csv", {}, "127.0.0.1", pieces([b"x" * 600] * 3)))
    assert refused.value.status == 413
    assert list((server.home / "other" / "inbox" / "shop").iterdir()) == []


async def pieces(content, then=None):
    """A body."""
    for piece in content:
        yield piece
    if then:
        await then.wait()


def test_i_01_an_upload_that_ends_early_leaves_nothing(server):
    """I-01: a sender that hangs up amid its body, whether it announced a length or not, was never there."""
    server.raw("Content-Length: 5000000", b"x" * 2_000_000, hang=True)
    until(lambda: not server.drafts(), 20, "the end of the draft")
    server.raw("Transfer-Encoding: chunked", b"1e8480\r\n" + b"x" * 2_000_000 + b"\r\n", hang=True)
    until(lambda: not server.drafts(), 20, "the end of the draft")
    assert server.files() == {}
    assert "Traceback" not in server.log()


def test_a_sender_that_stalls_is_sent_away(server):
    """A body that stops coming is answered 408 and leaves nothing; the server goes on."""
    assert server.raw("Content-Length: 5000", b"x" * 2000) == 408
    assert server.files() == {}
    assert server.send().status_code == 202


def test_a_length_that_lies_takes_no_more_than_it_says(server):
    """Bytes behind the announced length are no part of the file."""
    status = server.raw("Content-Length: 8", ROWS + b"GARBAGE" * 100)
    assert status in {202, 400}  # 400: the rest is no second request
    until(lambda: not server.drafts(), 20, "the end of the draft")
    assert set(server.files().values()) <= {ROWS}


def test_a_drip_is_sent_away_although_it_never_stops(tmp_path, monkeypatch):
    """A sender below the least speed holds its place only so long, however regularly it sends."""
    monkeypatch.setattr(upload, "STALL", 0.05)
    uploads = at_home(tmp_path)

    async def drip():
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    with pytest.raises(UploadError) as refused:
        asyncio.run(uploads.receive("shop", "a.csv", {}, "127.0.0.1", drip()))
    assert refused.value.status == 408
    assert list((tmp_path / "state" / "inbox" / "shop").iterdir()) == []


def at_home(home, **told):
    """Uploads without a server."""
    (home / "projects" / "shop").mkdir(parents=True)
    (home / "projects" / "shop" / "project.yaml").write_text("project: shop\n")
    return Uploads(Settings(home=home / "state", projects=home / "projects", **told))


def test_v_07_so_many_at_once_and_no_more(tmp_path):
    """V-07: while the places are taken the next one is told to come back; afterwards it is taken."""
    uploads = at_home(tmp_path)

    async def scene():
        hold = asyncio.Event()
        running = [
            asyncio.create_task(uploads.receive("shop", f"{n}.csv", {}, "::1", pieces([b"%d" % n], hold)))
            for n in range(AT_ONCE)
        ]
        await asyncio.sleep(0)
        with pytest.raises(UploadError) as refused:
            await uploads.receive("shop", "a.csv", {}, "::1", pieces([ROWS]))
        hold.set()
        taken = await asyncio.gather(*running)
        return refused.value, taken, await uploads.receive("shop", "a.csv", {}, "::1", pieces([ROWS]))

    refused, taken, later = asyncio.run(scene())
    assert (refused.status, refused.headers) == (429, {"Retry_After": "5"})
    assert {one["state"] for one in [*taken, later]} == {"arrived"}
    assert len(list((tmp_path / "state" / "inbox" / "shop").iterdir())) == AT_ONCE + 1


@pytest.mark.parametrize(
    ("host", "peer", "headers", "may"),
    [
        ("127.0.0.1", "127.0.0.1", {}, True), ("localhost", "::1", {}, True), ("127.0.0.1", "192.0.2.1", {}, False), ("0.0.0.0", "127.0.0.1", {}, False),  # noqa: S104
        ("127.0.0.1", None, {}, False), ("127.0.0.1", "127.0.0.1", {"origin": "http://127.0.0.1"}, False),
        ("127.0.0.1", "127.0.0.1", {"x-forwarded-for": "192.0.2.1"}, False), ("example.org", "127.0.0.1", {}, False),
    ],
)  # fmt: skip
def test_without_a_token_only_programs_on_this_machine_may(tmp_path, host, peer, headers, may):
    """No page of a browser, no proxy's client, nobody from elsewhere, and not when the server listens wider."""
    uploads = at_home(tmp_path, host=host)
    sent = uploads.receive("shop", "a.csv", headers, peer, pieces([ROWS]))
    if may:
        assert asyncio.run(sent)["bytes"] == 8
    else:
        with pytest.raises(UploadError) as refused:
            asyncio.run(sent)
        assert refused.value.status == 403


def test_without_a_token_the_real_server_takes_this_machine_s_files(tmp_path):
    """The default needs no set-up."""
    with serving(tmp_path) as server:
        assert server.send(token=None).status_code == 202
        assert server.send(token=None, Origin=server.url).status_code == 403


def test_of_a_crowd_each_is_taken_whole_or_told_to_come_back(server):
    """Twenty files from twenty senders: each is taken or told to come back, and what was taken is there whole."""
    answers = []

    def ask(number):
        answers.append(server.send(b"%d\n" % number * 300_000, name=f"{number}.csv"))

    crowd = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    taken = [answer.json() for answer in answers if answer.status_code == 202]
    assert {answer.status_code for answer in answers} <= {202, 429}
    assert len(answers) == 20
    assert taken
    assert {name: hashlib.sha256(content).hexdigest() for name, content in server.files().items()} == {
        one["name"]: one["batch"] for one in taken
    }
