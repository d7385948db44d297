"""Upkeep: each declared project is tidied once a day, beside the looks of the recovery and in a process of its own.

Context: logs grow and small data files gather whether or not anybody thinks of `keepfit data tidy`; a look of the recovery must not wait
for it, nor share its memory. Choice: the recovery's process begins that command, one project at a time, and goes on looking. When it began
stands in a file first, so that what fails or is killed is tried on the next day and not at every look. Price: it does so while the stack runs.

What is removed goes by the clock, which may be wrong (faults: S-10). After more days than a stack rests the clock is not believed before it has
gone on for another one. Price: a stack that was down for so long is tidied a day later; and a clock that is wrong for more than a day is believed.
"""

import datetime as dt
import logging
import subprocess
import sys
from collections.abc import Callable

from tasks.config.errors import ConflictError
from tasks.config.settings import Settings
from tasks.stores import durable
from tasks.stores.journal import Journal

LOG = logging.getLogger("keepfit.recover")
DAY = dt.timedelta(days=1)
MOST = 3 * DAY  # between two tidyings: a weekend
COMMAND = (sys.executable, "-P", "-m", "flows.cli", "data", "tidy")


class Upkeep:
    """Tidies what is due, look by look."""

    def __init__(
        self, settings: Settings, clock: Callable[[], dt.datetime], command: tuple[str, ...] = COMMAND
    ) -> None:
        """Over the projects of an installation.

        Args:
            settings: where things are.
            clock: says whether a day has passed.
            command: what tidies a project, whose name comes last.
        """
        self._settings, self._clock, self._command = settings, clock, command
        self._journal = Journal(settings.journal())
        self._running: tuple[str, subprocess.Popen[bytes]] | None = None

    def look(self) -> None:
        """Says how a tidying ended, and begins the next one that is due; returns at once."""
        if self._running is not None:
            project, process = self._running
            code = process.poll()
            if code is None:
                return
            self._running = None
            if code:
                LOG.warning(
                    "tidying %s ended with exit code %s; it is tried again tomorrow. See: keepfit data tidy %s",
                    project,
                    code,
                    project,
                )
        due = next((project for project in self._settings.project_names() if self._begins(project)), None)
        if due is not None:
            self._running = due, subprocess.Popen([*self._command, due])

    def end(self) -> None:
        """Ends a tidying that is under way; whoever changes the rows next finishes what it had begun."""
        if self._running is not None:
            self._running[1].terminate()
            self._running[1].wait()

    def _begins(self, project: str) -> bool:
        """Whether a project is due, which is on record from now on; a day after it was first met."""
        try:
            with self._journal.alone(f"tidy {project}", patience=0):
                return self._is_due(project)
        except ConflictError:  # another recovery asks the same
            return False

    def _is_due(self, project: str) -> bool:
        began, now = self._settings.home / "tidied" / project, self._clock()
        passed = now - dt.datetime.fromisoformat(began.read_text()) if began.exists() else None
        # a record that lies further ahead is of a clock that was wrong
        if passed is not None and abs(passed) < DAY:
            return False
        durable.write(began, now.isoformat().encode())
        if passed is None or passed <= MOST:
            return passed is not None
        LOG.warning(
            "%s is tidied tomorrow: the last time was %d days ago by the clock, and one that has jumped would remove what is young. If it is right: keepfit data tidy %s",
            project,
            passed.days,
            project,
        )
        return False
