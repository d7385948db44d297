"""The `keepfit` command: every command in its group, and how each ends."""

import os
import sys
from collections.abc import Callable

from cyclopts import App, CycloptsError, Group

from flows.commands import answers, evidence, landing, loop, projects, releases, rows, simulate, stack, status
from flows.commands.terminal import DONE, MISUSE, REFUSED, STOPPED, explained, fail, is_read
from tasks.config.errors import KeepfitError, MisuseError, ProjectError

COMMANDS: dict[str, tuple[Callable[..., int] | App, ...]] = {
    "Stack": (stack.up, stack.down, status.status, stack.env, stack.doctor, stack.recover),
    "Projects": (projects.new, projects.check, projects.deploy, projects.contract, projects.plan),
    "The loop": (
        landing.land, landing.outcomes, landing.fetch, rows.data, rows.quarantine, rows.erase,
        loop.train, answers.score, loop.watch, loop.incidents, loop.demo,
    ),
    "Models": (
        answers.predict, releases.release, releases.approve, releases.reject, releases.rollout, releases.rollback, releases.history,
        evidence.why, evidence.reproduce, evidence.prove, simulate.simulate,
    ),
}  # fmt: skip


def assembled() -> App:
    """The command with all of its commands, in groups."""
    app = App(
        name="keepfit", help="Keeps models fit: lands new data, retrains, proves that the new model is better, releases it, serves it.",
        version_flags=["--version"], suppress_keyboard_interrupt=False,  # else it ends the command without a word
    )  # fmt: skip
    for name, commands in COMMANDS.items():
        group = Group.create_ordered(name)
        for command in commands:
            if isinstance(command, App):
                command.group = (group,)
                app.command(command)
            else:
                app.command(command, group=group)
    return app


def main() -> None:
    """Entry point: exit code 0 done, 1 refused, failed, or done but not read to its end (`| head`), 2 misuse, 130 stopped by hand."""
    words = sys.argv[1:]
    try:
        try:
            code = _ended(words)
        finally:
            sys.stdout.flush()  # else Python meets a closed pipe when nobody can say anything any more
    except BrokenPipeError as error:
        if is_read():
            fail(explained(error), words, REFUSED)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = REFUSED  # as rich ends where it meets the pipe first
    sys.exit(code)


def _ended(words: list[str]) -> int:
    """The exit code of a command that ended well; any other says why and exits."""
    try:
        return assembled()(words, exit_on_error=False, print_error=False) or DONE
    except CycloptsError as error:
        fail(f"{' '.join(str(error).split())} See `keepfit --help`.", words, MISUSE)
    except MisuseError as error:
        fail(str(error), words, MISUSE)
    except ProjectError as error:
        fail(str(error), words, REFUSED, error.faults)
    except KeepfitError as error:
        fail(str(error), words, REFUSED)
    except KeyboardInterrupt as stop:
        said = str(stop) or "what was landed or released stands. Say it again to go on."
        fail(f"Stopped by hand; {said}", words, STOPPED)
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("KEEPFIT_DEBUG"):
            raise
        fail(explained(error), words, REFUSED)


if __name__ == "__main__":
    main()
