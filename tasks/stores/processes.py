"""Processes: a name for this one that no other ever has, and whether the one of a name is gone. No clock is asked, which may jump."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import psutil

GOING = 10.0  # seconds that a killed process has to be gone
BOOT = Path("/proc/sys/kernel/random/boot_id")


def this() -> str:
    """This process: machine, boot of it, number, and when it began, in ticks since the boot."""
    return f"{socket.gethostname()} {_boot()} {os.getpid()} {_began(os.getpid())}"


def is_gone(process: str) -> bool | None:
    """Whether a process has ended; None where that cannot be known here, because it is another machine's, or of no name."""
    parts = process.split()
    if len(parts) != 4 or parts[0] != socket.gethostname():
        return None
    _, boot, number, began = parts
    return boot != _boot() or _began(int(number)) != began


def end(process: str) -> None:
    """Kills a process of this machine with all that it started, and returns when they are gone; nothing when it has ended."""
    if is_gone(process) is not False:
        return
    number = int(process.split()[2])
    try:
        family = psutil.Process(number).children(recursive=True)
        if os.getpgid(number) == number:  # else its group is that of whoever started it
            os.killpg(number, signal.SIGKILL)
        else:
            os.kill(number, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(family, timeout=GOING)
    until = time.monotonic() + GOING
    while is_gone(process) is False and time.monotonic() < until:
        time.sleep(0.02)


def _boot() -> str:
    """Which boot of this machine this is; where the system gives it no name, when it was."""
    return BOOT.read_text().strip() if BOOT.exists() else f"{psutil.boot_time():.0f}"


def _began(number: int) -> str:
    """When a process began, or nothing when there is none of that number that still runs."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in {"Z", "X"} else fields[19]  # a zombie has ended; its parent has only not asked yet
    except (FileNotFoundError, ProcessLookupError):
        return (
            f"{psutil.Process(number).create_time():.2f}"
            if not Path("/proc/self").exists() and psutil.pid_exists(number)
            else ""
        )
