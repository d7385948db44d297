"""The processes of the stack, known by one variable that each inherits; so grandchildren and orphans are found, too."""

import contextlib
import os
import signal

import psutil

from flows.stack.waiting import within
from tasks.config.errors import StackError
from tasks.config.settings import Settings

MARK = "KEEPFIT_STACK"
"""The variable; it names the KEEPFIT_HOME whose stack a process belongs to."""


def members(settings: Settings) -> list[psutil.Process]:
    """Every process below the stack of this KEEPFIT_HOME, however deep, except this one and its parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        # Other users' processes and those that have just ended tell nothing and are not ours.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(MARK) == str(settings.home):
                found.append(process)
    return found


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether all processes have ended within some seconds; one that only waits to be reaped has ended."""
    return within(seconds, lambda: not any(lives(process) for process in processes))


def lives(process: psutil.Process) -> bool:
    """Whether a process still runs."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end(settings: Settings) -> int:
    """Ends whatever still carries the stack's mark, supervisord first, and gives how many that were."""
    ended = 0
    # A process may start another one between the look and the signal; so look again until nothing is left.
    for _round in range(5):
        found = sorted(members(settings), key=lambda member: member.create_time())
        if not found:
            return ended
        ended += len(found)
        _send(signal.SIGTERM, found)
        if not gone(found, 5):
            _send(signal.SIGKILL, found)
            gone(found, 5)
    left = ", ".join(str(member.pid) for member in members(settings))
    if left:
        raise StackError(
            f"Processes {left} of the stack do not end, not even when killed.\nLook at them with `ps -fp {left}`."
        )
    return ended


def _send(what: signal.Signals, processes: list[psutil.Process]) -> None:
    """Sends a signal to processes, some of which may have ended."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(what)
