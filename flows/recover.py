"""Recover: what must be so is made so again, at the start of the stack, while it runs, and when somebody asks."""

import logging
import os
import signal
import sys
import threading
from typing import Any

from prefect import flow

from flows.stack.probes import heartbeat
from flows.upkeep import Upkeep
from tasks.config.settings import Settings
from tasks.recover import Recovery
from tasks.releasing import utc
from tasks.stores.registry import IMPATIENT
from tasks.stores.sqlite import refuse_damaged

LOG = logging.getLogger("keepfit.recover")
LOOK = 2.0  # seconds between two looks


@flow(name="recover", flow_run_name="{project}: recover", persist_result=True, result_serializer="json")
def recover(project: str) -> dict[str, Any]:
    """Finishes or undoes releases that were cut off, puts alias and servers right, ends dead runs, starts trainings and looks that are owed.

    The stack does so by itself every two seconds; this is for whoever wants to see it done.

    Args:
        project: The project to look at.
    """
    return Recovery(Settings(), [project]).look().model_dump()


def once(settings: Settings, project: str | None = None) -> dict[str, Any]:
    """One look in this process, without waiting for events; `ok` is whether nothing is left to do.

    Raises:
        ArtifactError: the journal's database is damaged.
    """
    os.environ.update(IMPATIENT)
    if not settings.database_url:
        refuse_damaged(settings.home / "keepfit.db")
    report = Recovery(settings, None if project is None else [project], grace=0.0).look()
    return {"ok": not report.trouble, **report.model_dump()}


def main() -> None:
    """Looks until it is told to stop, and has each project tidied once a day; writes a heartbeat that `status` reads."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("keepfit").setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    os.environ.update(IMPATIENT)
    settings, stop = Settings(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    recovery, upkeep = Recovery(settings), Upkeep(settings, utc)
    while not stop.is_set():
        try:
            found = recovery.look().model_dump(exclude={"trouble"}, exclude_defaults=True)
            if found:
                LOG.info("%s", found)
            upkeep.look()
        except Exception:
            LOG.exception("a look failed; the next one is in %s s", LOOK)
        heartbeat(settings, "recover").touch()
        stop.wait(LOOK)
    upkeep.end()


if __name__ == "__main__":
    main()
