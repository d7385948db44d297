"""Open connections: a client that keeps one waiting is cut off after a while, and never keeps the others out."""

import asyncio
import contextlib
import json
import resource
import selectors
import socket
import ssl
import threading
from functools import partial

import httpx
import psutil
import pytest

from tasks.serving import connections
from tasks.serving.connections import AT_ONCE, MOST, OTHER_FILES, Connections, room
from tests.serving.test_crew import counted
from tests.serving.test_guard import TOKEN, certificate, shown
from tests.stage import GOOD, released, until

BODY = json.dumps({"rows": [GOOD]}).encode()
HEAD = b"POST /projects/flights/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(BODY)
NOWHERE = HEAD.replace(b"/projects/flights/predict", b"/nowhere")
IDLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
FILES = 256
SLOW = FILES + 44  # clients, more than the process has files


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A running process with as many files as it likes; version 1 is champion."""
    stage = released(tmp_path_factory.mktemp("connections"))
    stage.start()
    until(stage.version, 60)
    yield stage
    stage.stop()


@pytest.fixture
def narrow(tmp_path):
    """A running process with few files; version 1 is champion, and version 2 is written."""
    stage = released(tmp_path)
    stage.write(2, 0.8)
    stage.start(files=FILES)
    until(stage.version, 60)
    yield stage
    stage.stop()


@contextlib.contextmanager
def clients(stage, count, says):
    """So many connections that stay; each says this much, where there is something to say, and no more."""
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(count):
            lines.append(stack.enter_context(socket.create_connection(("127.0.0.1", stage.port), timeout=20)))
            if says:
                with contextlib.suppress(ConnectionError):  # it may be closed already, to make room
                    lines[-1].sendall(says)
        yield lines


def rest(line):
    """What still comes on a connection before the server closes it."""
    with contextlib.suppress(ConnectionError):
        return b"".join(iter(lambda: line.recv(65536), b""))
    return b""


class Asking:
    """Asks for predictions again and again, each time on a new connection, as long as it is entered."""

    def __init__(self, stage):
        self.stage, self.statuses = stage, []
        self._stop, self._crowd = threading.Event(), threading.Thread(target=self._ask)

    def _ask(self):
        while not self._stop.is_set():
            try:
                self.statuses.append(self.stage.predict(timeout=20).status_code)
            except httpx.TransportError as error:
                self.statuses.append(type(error).__name__)

    def __enter__(self):
        self._crowd.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._crowd.join()


def test_v_06_half_a_head_is_not_waited_for_for_ever(stage):
    """Four hundred clients that never finish their head and never leave are told so and closed, and others are answered all along (V-06)."""
    process = psutil.Process(stage.process.pid)
    before, late = process.num_fds(), counted(stage, "keepfit_connections_closed_total", '{why="late"}')
    with Asking(stage) as asking, clients(stage, 400, HEAD + b"X-Slow: ") as lines:
        assert all(rest(line).startswith(b"HTTP/1.1 408 Request Timeout\r\n") for line in lines)
        until(lambda: process.num_fds() <= before + 4)
    assert len(asking.statuses) > 1
    assert set(asking.statuses) == {200}
    assert counted(stage, "keepfit_connections_closed_total", '{why="late"}') == late + 400


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b""),
        (HEAD + b"X-Slow: ", b"x"),
        (b"\r\n", b"\r\n"),
        (IDLE + HEAD, b"x"),
        (NOWHERE.replace(b"Length: ", b"Length: 9") + b"\r\n", b"x"),
        (NOWHERE + b"\r\n" + BODY, b"\r\n"),
    ],
    ids=["nothing", "a head", "empty lines", "the next head", "a body that nobody wants", "empty lines afterwards"],
)
def test_v_06_what_trickles_in_gains_no_time(stage, start, drop):
    """Whatever a client sends byte by byte that is no whole request, or nothing at all, its connection is closed (V-06)."""
    with (
        clients(stage, 1, start) as (line,),
        contextlib.suppress(ConnectionError),
        selectors.DefaultSelector() as ready,
    ):
        ready.register(line, selectors.EVENT_READ)
        while True:
            if not ready.select(0.5):
                line.sendall(drop)
            elif not line.recv(65536):
                break


def test_v_06_who_does_not_read_the_answers_is_cut_off(stage):
    """A client that asks for much at once and reads nothing is closed when it has taken nothing for a while, whatever is still to be sent (V-06)."""
    late = counted(stage, "keepfit_connections_closed_total", '{why="late"}')
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", stage.port))
        line.sendall(IDLE.replace(b"/healthz", b"/openapi.json") * 500)  # whole requests, so that no head is waited for
        until(lambda: counted(stage, "keepfit_connections_closed_total", '{why="late"}') == late + 1, 60)


def test_v_05_a_head_without_end_is_refused(stage):
    """Headers that go on and on are refused at 64 KiB, long before their time is over (V-05)."""
    with clients(stage, 1, HEAD) as (line,):
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                line.sendall(b"X-More: %b\r\n" % (b"x" * 1000))
        with contextlib.suppress(ConnectionError):
            assert line.recv(65536).startswith(b"HTTP/1.1 431 ")
    assert stage.predict().status_code == 200


@pytest.mark.parametrize(
    "start", [HEAD + b"X-Slow: ", HEAD + b"\r\n" + BODY[:5], IDLE, b""], ids=["head", "body", "idle", "nothing"]
)
def test_v_06_slow_clients_take_no_file_that_others_need(narrow, start):
    """More slow clients than the process has files: others are answered, the next champion comes, and the log says once what happened (V-06)."""
    process = psutil.Process(narrow.process.pid)
    with clients(narrow, SLOW, start):
        assert process.num_fds() < FILES - OTHER_FILES // 2
        assert {narrow.predict(timeout=20).status_code for _ in range(20)} == {200}
        narrow.release(2)
        until(lambda: narrow.version() == 2)
        assert counted(narrow, "keepfit_connections_closed_total", '{why="room"}') >= SLOW - (FILES - OTHER_FILES)
    assert narrow.log().count("as many as may be") == 1
    assert "unreadable" not in narrow.log()


# -- encrypted --------------------------------------------------------------------------------------------------------
@pytest.fixture
def sealed(tmp_path):
    """A running process that encrypts and has few files, and a client of it."""
    stage = released(tmp_path)
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(cert))
    stage.start(files=FILES, TLS_CERT=cert, TLS_KEY=key, TOKEN=TOKEN)

    def ready():
        with contextlib.suppress(httpx.TransportError):
            return asked(stage, context).status_code == 200

    until(ready, 60)
    yield stage, context
    stage.stop()


def asked(stage, context):
    """The answer to a request for predictions, on a connection of its own."""
    url = f"{stage.url.replace('http', 'https')}/projects/flights/predict"
    return httpx.post(url, json={"rows": [GOOD]}, headers=shown(TOKEN), verify=context, timeout=20)


def test_v_06_who_never_ends_the_handshake_keeps_nobody_out(sealed):
    """More clients that never encrypt than the process has files: others are answered over TLS, and in the end all are closed (V-06)."""
    stage, context = sealed
    with clients(stage, SLOW, b"\x16\x03\x01") as lines:
        assert {asked(stage, context).status_code for _ in range(20)} == {200}
        for line in lines:
            rest(line)
    assert asked(stage, context).status_code == 200
    assert "Traceback" not in stage.log()


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(sealed):
    """What a client sends in one piece with its last word of the handshake is not lost, each of many times."""
    stage, context = sealed
    for _ in range(20):
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(received, sent, server_hostname="127.0.0.1")
        with clients(stage, 1, b"") as (line,):
            exchanged(line, received, sent, tls.do_handshake)
            tls.write(IDLE)
            assert exchanged(line, received, sent, partial(tls.read, 65536)).startswith(b"HTTP/1.1 200 ")


def exchanged(line, received, sent, step):
    """What a step of a TLS connection gives, once the server has answered what it needs to."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            line.sendall(sent.read())
            received.write(line.recv(65536) or pytest.fail("the server has closed the connection"))


# -- in this process --------------------------------------------------------------------------------------------------
class Client:
    """A connection that is looked at."""

    def __init__(self, since: float | None = None, again: int = 0) -> None:
        self.since, self.again, self.met = since, again, []

    def quiet_since(self):
        """Since when nothing came; None while it is answered."""
        return self.since

    def hurry(self):
        """Is to be looked at again so many times."""
        self.met.append("hurried")
        self.again -= 1
        return self.again >= 0

    def drop(self):
        """Leaves."""
        self.met.append("dropped")


def test_the_time_of_each_client_runs_by_itself(monkeypatch):
    """Who was waited for first is hurried first and, where that does not end it, again; whose request has come is not."""
    monkeypatch.setattr(connections, "SECONDS", 0.05)

    async def scene():
        some = Connections()
        first, second, third = Client(again=1), Client(), Client()
        for client in (first, second, third):
            some.enter(client)
        some.has_come(second)
        some.leave(third)
        some.wait_for(third)
        while first.again >= 0:
            await asyncio.sleep(0.01)
        some.wait_for(second)
        while not second.met:
            await asyncio.sleep(0.01)
        return [client.met for client in (first, second, third)]

    assert asyncio.run(scene()) == [["hurried", "hurried"], ["hurried"], []]


def test_room_is_made_by_who_is_waited_for_then_by_the_idlest_and_never_by_who_is_answered():
    """Of those whose request has not come the first leaves, else a few that are idle longest, and a newcomer only where all are being answered."""

    async def scene():
        told = []
        some = Connections(2 * AT_ONCE, told.append)
        answered, idle = [Client() for _ in range(AT_ONCE)], [Client(since=-n) for n in range(AT_ONCE)]
        for client in [*answered, *idle]:
            some.enter(client)
            some.has_come(client)
        late, waiting = Client(), Client()
        some.enter(late)
        assert [client.met for client in idle[-4:]] == [[], ["dropped"], ["dropped"], ["dropped"]]
        for client in (*(Client(since=1) for _ in range(2)), waiting):
            some.enter(client)
        assert late.met == ["dropped"]
        assert waiting.met == []
        full = Connections(AT_ONCE, told.append)
        for client in answered:
            full.enter(client)
            full.has_come(client)
        full.enter(newcomer := Client(since=0))
        assert newcomer.met == ["dropped"]
        assert not any(client.met for client in answered)
        return told

    assert asyncio.run(scene()) == ["room"] * 5


@pytest.mark.parametrize(
    ("soft", "hard", "asked_for", "granted"),
    [
        (1024, 1 << 20, MOST + OTHER_FILES, MOST),
        (1024, resource.RLIM_INFINITY, MOST + OTHER_FILES, MOST),
        (1024, 1024, 1024, 1024 - OTHER_FILES),
        (128, 128, 128, 64),
        (1 << 20, 1 << 20, None, MOST),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, MOST),
    ],
)
def test_files_for_everything_else_are_left(monkeypatch, soft, hard, asked_for, granted):
    """A process asks for the files that it can use, takes what it gets, and has connections for what the rest leaves."""
    told = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    assert room() == granted
    assert told == ([(asked_for, hard)] if asked_for else [])
