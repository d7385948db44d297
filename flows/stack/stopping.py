"""Stopping the stack until no process of it is left: `keepfit down`."""

import contextlib
import http.client
import shutil
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

from flows.saying import Say, quiet
from flows.stack import processes, supervisor
from flows.stack.record import control_folder, lock, recorded
from tasks.config.errors import StackError
from tasks.config.settings import REPOSITORY, Settings


def down(settings: Settings, wipe: bool = False, say: Say = quiet) -> dict[str, Any]:
    """Stops the stack and waits until no process of it is left; harmless when nothing runs.

    Args:
        settings: where things are.
        wipe: removes KEEPFIT_HOME too, with all data, models and decisions in it. The caller asks first.
        say: is told of progress.

    Returns:
        `stopped` (number of processes that were ended), `wiped`, `seconds`.
    """
    begun = time.monotonic()
    if wipe:
        _refuse_to_wipe(settings.home)
    with lock(settings):
        stopped = halt(settings)
        say(f"Stopped {stopped} processes." if stopped else "Nothing was running.")
        if wipe and settings.home.exists():
            shutil.rmtree(settings.home)
            say(f"Removed {settings.home}.")
        shutil.rmtree(control_folder(settings))
    return {"stopped": stopped, "wiped": wipe, "seconds": round(time.monotonic() - begun, 1)}


def _refuse_to_wipe(home: Path) -> None:
    """Raises when KEEPFIT_HOME names a folder that holds more than keepfit's state."""
    home = home.resolve()
    for precious in (REPOSITORY.resolve(), Path.home().resolve(), Path.cwd().resolve()):
        if precious.is_relative_to(home):
            raise StackError(
                f"KEEPFIT_HOME is {home}, which holds {precious}; only a folder of keepfit's own may be wiped.\n"
                "Remove the state by hand, or point KEEPFIT_HOME at the folder that was meant."
            )


def halt(settings: Settings) -> int:
    """Ends every process of the stack: politely through supervisord, then whatever is left. Gives their number."""
    members = processes.members(settings)
    record = recorded(settings)
    with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error, KeyError):
        supervisor.ask(record, "shutdown")
        # Jobs get 8 s and then the servers get 8 s, as infra/supervisord.conf says.
        processes.gone([member for member in members if member.pid == record["pid"]], 20)
    processes.end(settings)
    settings.stack_file.unlink(missing_ok=True)
    return len(members)
