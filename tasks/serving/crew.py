"""Several processes that answer at one address: this one binds it and watches over the others, `python -m tasks.serving.crew FD NUMBER` is one of them.

They share one listening socket: whoever is free takes the next connection, and when one dies, those that wait in the socket's queue are the
others'. (With a socket each, by SO_REUSEPORT, they would be lost.) Each follows the journal for itself.
"""

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from tasks.config.settings import Settings
from tasks.serving import counters

LOG = logging.getLogger("keepfit.serving")

LOOK_SECONDS = 0.05
BACK_OFF = (0.1, 10.0)  # seconds before one that died is started again; doubled each time that it dies young
YOUNG_SECONDS = 10.0
GRACE_SECONDS = 7.0  # after the drain, that they have to end by themselves


@dataclass
class _Member:
    """One place in the crew: its number, the process in it, when that began, and how long to wait after its death."""

    number: int
    process: subprocess.Popen[bytes]
    began: float
    delay: float = BACK_OFF[0]
    again: float | None = None  # when it is started anew; None while it lives


class Crew:
    """The processes of one address."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counters = settings.home / "metrics" / str(settings.serving_port)
        self._shared: dict[str, str] = {}  # the environment of processes that count together
        self._stop = threading.Event()

    def run(self) -> None:
        """Serves until it is told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)
        self._make_room()
        family = socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
        with socket.create_server(
            (self._settings.host, self._settings.serving_port), family=family, backlog=2048
        ) as door:
            members = [self._start(door, number) for number in range(self._settings.serving_workers)]
            while not self._stop.wait(LOOK_SECONDS):
                members = [self._looked_after(member, door) for member in members]
            self._end(members)

    def _make_room(self) -> None:
        """An empty folder to count in; without one each process counts for itself."""
        shutil.rmtree(self._counters, ignore_errors=True)
        try:
            self._counters.mkdir(parents=True)
            self._shared = {"PROMETHEUS_MULTIPROC_DIR": str(self._counters)}
        except OSError as error:
            LOG.warning("%s: no room to count in (%s); each process counts for itself", self._counters, error.strerror)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _start(self, door: socket.socket, number: int, delay: float = BACK_OFF[0]) -> _Member:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.serving.crew", str(door.fileno()), str(number)],
            env=os.environ | self._shared | {"OMP_NUM_THREADS": "1"},
            pass_fds=[door.fileno()], stdin=subprocess.PIPE,
        )  # fmt: skip
        return _Member(number, process, time.monotonic(), delay)

    def _looked_after(self, member: _Member, door: socket.socket) -> _Member:
        """The same one while it lives, else, after a pause, a new one."""
        if member.again is None:
            if member.process.poll() is None:
                return member
            self._bury(member)
            LOG.error(
                "process %d ended with %s; another one takes its place", member.process.pid, member.process.returncode
            )
            is_young = time.monotonic() - member.began < YOUNG_SECONDS
            member.delay = min(member.delay * 2, BACK_OFF[1]) if is_young else BACK_OFF[0]
            member.again = time.monotonic() + member.delay
        return self._start(door, member.number, member.delay) if time.monotonic() >= member.again else member

    def _bury(self, member: _Member) -> None:
        """What it counted stays, and whoever takes its place counts on; what it said of the moment does not."""
        mark_process_dead(member.number, str(self._counters))  # the number is what its files have in their names
        if member.process.stdin:
            member.process.stdin.close()

    def _end(self, members: list[_Member]) -> None:
        for member in members:
            member.process.terminate()
        end = time.monotonic() + self._settings.drain_seconds + GRACE_SECONDS
        for member in members:
            try:
                member.process.wait(max(end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()


def main() -> None:
    """One of the processes: serves on the socket that it was given, and ends when whoever started it has gone."""
    from tasks.serving import app

    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        counters.install(sys.argv[2])
    app.serve(Settings(), [socket.socket(fileno=int(sys.argv[1]))], loads_first=True)


def _end_with_the_starter() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
