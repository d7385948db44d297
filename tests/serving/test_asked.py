"""What a command learns of a running server: that it is there, and that all of it has followed."""

import itertools
import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tasks.config.errors import KeepfitError
from tasks.serving import asked
from tasks.serving.counters import GENERATION
from tasks.stores.journal import Release
from tests.samples import free_port
from tests.serving.test_guard import certificate

CHAMPION = Release("small", 5, 2, "d", "anna", "better", "2026-01-01T00:00:00+00:00", "roc_auc", 0.9, 0.8, 0.95)


@contextmanager
def serving(answers, tls=None):
    """A server that gives these texts by path, and its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = answers(self.path).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class calls it so
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # ty: ignore[invalid-assignment] -- a handshake that fails is what is tried
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_is_not_believed_is_no_server_that_is_down(tmp_path):
    """Nobody listens: it is down. Somebody speaks TLS with a certificate that is not known: it is there, and the error says why."""
    assert not asked.is_up(f"http://127.0.0.1:{free_port()}")
    with serving(lambda _path: "{}") as address:
        assert asked.is_up(address)
    with serving(lambda _path: "{}", certificate(tmp_path)) as address:
        assert asked.is_up(address)
        with pytest.raises(KeepfitError, match=r"no answer: .*CERTIFICATE_VERIFY_FAILED"):
            asked.confirm(address, CHAMPION, 0)


@pytest.mark.parametrize(("metrics", "follows"), [("4.0", False), ("5.0", True), ("0.0", False), (None, True)])
def test_the_process_that_is_furthest_behind_decides(metrics, follows):
    """The version is the new one whoever is met; what the counters say of all of them counts, where they say it."""
    page = f'{GENERATION}{{project="small"}} {metrics}\n' if metrics else "nothing\n"
    with serving(lambda path: page if path == "/metrics" else json.dumps({"version": 2, "refused": {}})) as address:
        if follows:
            assert asked.confirm(address, CHAMPION, 0).startswith("the server answers with it")
        else:
            with pytest.raises(KeepfitError, match=f"one of its processes is at generation {metrics[0]} of 5"):
                asked.confirm(address, CHAMPION, 0)


def test_the_process_that_refuses_is_found():
    """Only every other one says why it does not follow."""
    turns = itertools.cycle([{}, {"small": {"generation": 5, "reason": "it was altered"}}])
    with serving(lambda _path: json.dumps({"version": 1, "refused": next(turns)})) as address, pytest.raises(KeepfitError, match="it was altered"):  # fmt: skip
        asked.confirm(address, CHAMPION, 0)
