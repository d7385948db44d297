"""The warm start: flow runs are forked from a process that has imported everything, instead of importing for seconds each.

`python -m flows.warm serve` is that process. `python -m flows.warm` is what the worker starts for each flow run: it hands its
environment, folder and output over a socket, waits, and ends as the run ended. When the warm process is away, or the code has
changed since it was loaded, the run starts cold in the ordinary way; nothing but time depends on it.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

ENGINE = "prefect.engine"  # what Prefect itself would start
ROOMS = ("flows", "tasks")
LIMIT = 1 << 20  # bytes of an environment
REPOSITORY = Path(__file__).resolve().parents[1]


def address() -> Path | None:
    """The socket beside the supervisor's, inside a folder that only its owner may enter."""
    control = os.environ.get("KEEPFIT_SOCKET")
    return Path(control).with_name("warm.sock") if control else None


def stamp() -> float:
    """When the code was last changed, in seconds."""
    return max(path.stat().st_mtime for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))


# -- what the worker starts ----------------------------------------------------------------------------------------------
def request() -> int:
    """Runs the flow run that the environment names, forked from the warm process; gives its exit code."""
    place = address()
    link = socket.socket(socket.AF_UNIX)
    try:
        if place is None:
            return _cold()
        link.connect(str(place))
        message = json.dumps({"env": dict(os.environ), "cwd": str(Path.cwd()), "stamp": stamp()}).encode()
        socket.send_fds(link, [len(message).to_bytes(4, "big")], [1, 2])
        link.sendall(message)
    except OSError:
        return _cold()

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # the warm process is gone, and this one is about to notice
            link.sendall(bytes([number]))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    if _received(link, 1) != b"y":
        return _cold()
    ended = _received(link, 2)
    return int.from_bytes(ended, "big", signed=True) if ended else 1


def _received(link: socket.socket, size: int) -> bytes:
    """What the other side sends; nothing when it is gone."""
    try:
        return link.recv(size)
    except OSError:
        return b""


def _cold() -> int:
    """Becomes the ordinary process of a flow run."""
    os.execv(sys.executable, [sys.executable, "-m", ENGINE])  # noqa: S606 -- the same program in the same environment


# -- the warm process ----------------------------------------------------------------------------------------------------
def serve() -> None:
    """Loads everything once, then forks a child for each request until it is told to stop or the code changes."""
    place = address()
    if place is None:
        sys.exit("KEEPFIT_SOCKET is not set; this process is started by `keepfit up`.")
    loaded = stamp()
    _load()
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        place.chmod(0o600)
        listener.listen(16)
        sys.stdout.write(f"warm: {len(sys.modules)} modules loaded\n")
        Nursery(listener, loaded).keep()
    sys.stdout.write("the code has changed; the next process loads it anew\n")


def _load() -> None:
    """Imports what a run needs, and moves it out of the garbage collector's sight so that children share the memory."""
    for module in (
        "mlflow.sklearn",
        "optuna",
        "prefect.engine",
        "skops.io",
        "sklearn.ensemble",
        "sklearn.linear_model",
        "matplotlib.backends.backend_agg",
        "mlflow.data",
        "flows.approve",
        "flows.fetch",
        "flows.land",
        "flows.train",
    ):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


class Nursery:
    """The children that run flows, each bound to the request that asked for it."""

    def __init__(self, listener: socket.socket, loaded: float) -> None:
        self.listener, self.loaded, self.children = listener, loaded, 0
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self.accept)

    def keep(self) -> None:
        """Serves until the code on disk is newer than what was loaded and no child is left."""
        while self.children or stamp() == self.loaded:
            for key, _ in self.selector.select(timeout=5):
                key.data()

    def accept(self) -> None:
        """Takes one request and forks its child; one for other code is sent away to start cold."""
        link, _ = self.listener.accept()
        outputs: list[int] = []
        with contextlib.suppress(OSError, ValueError):
            head, outputs, _, _ = socket.recv_fds(link, 4, 2)
            wanted = json.loads(_exactly(link, int.from_bytes(head, "big")))
            if wanted["stamp"] != self.loaded:
                link.sendall(b"c")
            else:
                link.sendall(b"y")
                self._bear(wanted, outputs, link)
        for output in outputs:
            os.close(output)

    def _bear(self, wanted: dict[str, Any], outputs: list[int], link: socket.socket) -> None:
        child = os.fork()
        if child == 0:
            self.listener.close()
            self.selector.close()
            link.close()
            _become(wanted, outputs)
        self.children += 1
        exit_ = os.pidfd_open(child)
        self.selector.register(link, selectors.EVENT_READ, functools.partial(self._told, child, link))
        self.selector.register(exit_, selectors.EVENT_READ, functools.partial(self._ended, child, exit_, link))

    def _told(self, child: int, link: socket.socket) -> None:
        """Passes a signal on to the child; whoever asked being gone, the child goes too."""
        number = _received(link, 1)
        with contextlib.suppress(ProcessLookupError):
            if number:
                os.kill(child, number[0])
            else:
                os.kill(child, signal.SIGKILL)  # it may not have a group of its own yet
                os.killpg(child, signal.SIGKILL)
        if not number:
            self.selector.unregister(link)

    def _ended(self, child: int, exit_: int, link: socket.socket) -> None:
        """Tells the request how the child ended; nothing that the child started outlives it."""
        _, status = os.waitpid(child, 0)
        self.children -= 1
        self.selector.unregister(exit_)
        os.close(exit_)
        with contextlib.suppress(KeyError):
            self.selector.unregister(link)
        with contextlib.suppress(OSError):
            link.sendall(os.waitstatus_to_exitcode(status).to_bytes(2, "big", signed=True))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        link.close()


def _exactly(link: socket.socket, size: int) -> bytes:
    if size > LIMIT:
        raise ValueError("the environment is too large")
    parts = bytearray()
    while len(parts) < size:
        piece = link.recv(size - len(parts))
        if not piece:
            raise OSError("the request broke off")
        parts += piece
    return bytes(parts)


def _become(wanted: dict[str, Any], outputs: list[int]) -> None:
    """In the child: takes over environment, folder and output of the request and runs Prefect's engine."""
    code = 1
    try:
        # A group of its own, so that it ends with all that it has started; no session of its own, because between sessions Linux
        # shares processors equally (autogroup), whatever the niceness.
        os.setpgid(0, 0)
        gc.unfreeze()
        for target, output in zip((1, 2), outputs, strict=True):
            os.dup2(output, target)
        os.environ.clear()
        os.environ.update(wanted["env"])
        os.chdir(str(wanted["cwd"]))
        sys.argv = [ENGINE]
        sys.modules.pop(ENGINE, None)
        runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:  # noqa: BLE001 -- a forked child must never go on in its parent's loop
        traceback.print_exception(error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code & 0xFF)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    sys.exit(request())
