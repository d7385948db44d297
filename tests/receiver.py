"""A receiver on this machine: an HTTP server that keeps what it is sent and answers as it is told; and a project whose incidents are told."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.samples import PROJECT


@dataclass
class Got:
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Where it listens, what came, and what it answers: status, body, headers."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answer: Callable[[Got], tuple[int, bytes, dict[str, str]]] = lambda _got: (200, b"", {})


@contextmanager
def receiving() -> Generator[Receiver]:
    """A receiver for the time of a test."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers.get("content-length") or 0)
            got = Got(self.path, {name.lower(): value for name, value in self.headers.items()}, self.rfile.read(size))
            receiver.got.append(got)
            status, body, headers = receiver.answer(got)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name that it has there
            pass

        def handle(self):
            with suppress(ConnectionError):  # whoever asked had no patience
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def declare(folder: Path, name: str, more: str = "") -> None:
    """A small project of that name, with more lines in its project.yaml."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "project.yaml").write_text(PROJECT.format(name=name) + more)
