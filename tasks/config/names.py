"""Names that outside systems see, and rely on: events' resources, artifacts' keys, the words of a command."""

import re

ARRIVED, SENT, LANDED, HELD = (
    ".arrived",
    ".sent",
    ".landed",
    ".held",
)  # in an inbox: the watcher's, the command's, done, refused
KEPT = (ARRIVED, SENT, LANDED, HELD)  # in the order in which a file may move

PROJECT = r"[a-z][a-z0-9_-]{0,39}"  # the whole name of a project, which is a folder's, too


def is_project(name: str) -> bool:
    r"""Whether a text may be a project's name: nothing that leads elsewhere, nothing that only looks alike.

    >>> is_project("card-fraud"), is_project("../thyroid"), is_project("thyr\u043eid"), is_project("thyroid\n")
    (True, False, False, False)
    """
    return re.fullmatch(PROJECT, name) is not None


# labels of an event's resource, because triggers cannot match a payload
CLASS = "keepfit.class"  # of an alarm: retrain | mend | ignore
KIND = "keepfit.kind"  # of a batch: rows | outcomes


def resource(project: str, what: str | None = None) -> dict[str, str]:
    """What an event of a project is about, for `emit_event`; of an alarm, also what is to be done about it.

    >>> resource("thyroid")["prefect.resource.id"]
    'keepfit.project.thyroid'
    >>> resource("thyroid", "retrain")["keepfit.class"]
    'retrain'
    """
    named = {"prefect.resource.id": f"keepfit.project.{project}", "prefect.resource.name": project}
    return named | ({CLASS: what} if what else {})


def artifact_key(project: str, what: str) -> str:
    """The stable key of a project's artifact; Prefect allows no underscore in it.

    >>> artifact_key("card_fraud", "report")
    'card-fraud-report'
    """
    return f"{project.replace('_', '-')}-{what}"


def approval(project: str, version: int) -> str:
    """What a person says who approves a version that waits; `reject` in its place says the opposite.

    >>> approval("thyroid", 4)
    'keepfit approve thyroid 4 --reason TEXT'
    """
    return f"keepfit approve {project} {version} --reason TEXT"
