"""Running: what a command needs before a flow runs, and its run, on the stack or in this process."""

from typing import Any

from flows import stack
from flows.commands.terminal import say
from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings


def connect(project: str | None = None) -> Settings:
    """Settings, with the environment of the stack (or of a temporary server) set before Prefect is imported.

    Raises:
        KeepfitError: there is no such project, where one is given.
    """
    settings = Settings()
    stack.connect(settings)
    if project is not None:
        from tasks.config.project import Project

        Project.named(project, settings)
    return settings


def run(flow: str, settings: Settings, **parameters: Any) -> dict[str, Any]:
    """What came of a flow's run, after each of its states was said."""
    from flows import runs

    return runs.run(flow, parameters, settings, say)


def deployed() -> dict[str, list[str]]:
    """The names of all deployments, after they were brought to what the project files say, and what was removed for that; says each project.

    Raises:
        KeepfitError: no stack runs.
    """
    settings = connect()
    if not settings.prefect():
        raise KeepfitError("No stack is running, so there is nowhere to deploy to. Say `keepfit up`.")
    from flows.deployments import deploy

    return dict(zip(("deployments", "removed"), deploy(settings, say=say), strict=True))
