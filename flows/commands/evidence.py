"""Evidence: why something was decided, whether a version can be made again, whether the gates hold."""

import os
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.commands.running import connect
from flows.commands.terminal import DONE, REFUSED, Json, Words, say, show, table
from tasks.config.errors import MisuseError, suggestion
from tasks.config.settings import Settings


def why(project: str, version: int | None = None, *, as_json: Json = False) -> int:
    """Say what was decided last, about a training or a batch that was held, and what every gate answered.

    Args:
        project: The project.
        version: The decision that made this version in place of the newest.
    """
    from flows import looking

    found = looking.why(project, version, Settings())
    show(found, as_json=as_json, page=_why(found))
    return DONE  # the question was answered, whatever was decided


def _why(found: dict[str, Any]) -> RenderableType:
    """What was decided, the numbers of every gate, and under them the reasons."""
    from tasks.ml.gates import Verdict
    from tasks.ml.pages import VERDICT, verdict_cells

    name = f"version {found['version']}" if found.get("version") is not None else found["decision"]
    rows = [verdict_cells(Verdict.model_validate(verdict)) for verdict in found["verdicts"]]
    title = Text(f"{found['project']} {name}, {found['at'][:19]}: {found['state']}", style="bold")
    if not rows:
        return Group(title, Text(found["reason"]))
    numbers = table(VERDICT[:-1], (cells[:-1] for cells in rows))
    reasons = (Text(f"{cells[0]}: {cells[-1]}", style="" if cells[1] == "yes" else "bold") for cells in rows)
    return Group(title, numbers, Text(found["reason"]), "", *reasons)


def reproduce(project: str, version: int, *, as_recorded: bool = False, as_json: Json = False) -> int:
    """Make a registered version again: EXACT, NUMERIC, or DIFFERENT with the first step that diverges, and why.

    Rows, recipe, seed and threads are those of then; code, packages and project.yaml are those of this installation. Nothing
    is registered or released. The search is not done again.

    Args:
        project: The project.
        version: The registered version.
        as_recorded: With the configuration of then in place of today's project.yaml.
    """
    settings = connect()
    from flows.reproduce import reproduce as flow
    from tasks.reproduce import on_record

    on_record(project, version, settings)
    if not settings.prefect():
        say("no stack is running: a temporary Prefect server starts, which takes a while")
    found = flow(project, version, as_recorded)
    show(found, as_json=as_json, page=_reproduced(found))
    return REFUSED if found["verdict"] == "DIFFERENT" else DONE


def _reproduced(found: dict[str, Any]) -> Table:
    """The steps with what is different, under the verdict."""
    title = f"{found['project']} version {found['version']}: {found['verdict']}"
    heads = ("step", "", "recorded", "not as recorded")
    return table(heads, map(_step, found["steps"]), title=title, caption=found["reason"])


def _step(step: dict[str, Any]) -> tuple[str, ...]:
    more = [f"and {step['more']} more"] if step["more"] else []
    same = {True: "same", False: "DIFFERS", None: "not reached"}[step["same"]]
    return step["step"], same, step["recorded"], "\n".join([*step["differences"], *more])


def prove(project: str, *, without: Words = (), as_json: Json = False) -> int:
    """Put bad challengers and a good model through a project's gates; exit code 1 when a bad one gets through or the good one does not.

    Each bad one must be stopped by the gate that was named in advance. The work is done here, on the rows that have landed: it is this
    installation that is put to the proof. What came of it goes on record; with --without nothing does.

    Args:
        project: The project.
        without: Gates to leave out, to see what they hold back.
    """
    settings = Settings()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small models: threads that wait for each other are slower
    from tasks import prove as proving
    from tasks.config.project import Project

    use = Project.named(project, settings)
    known = [gate.kind for gate in use.gates]
    if unknown := next((name for name in without if name not in known), None):
        raise MisuseError(f"--without is '{unknown}', which is no gate of {project}. Gates: {', '.join(known)}.{suggestion(unknown, known)}")  # fmt: skip
    proof = proving.proven(use, settings, say, without)
    if not without:
        proving.keep(proof, settings)
    return show(proof.told, as_json=as_json, page=_proof(proof.told))


def _proof(proof: dict[str, Any]) -> RenderableType:
    """A row for each bad challenger, under the whole in a sentence."""
    title = f"{proof['project']}: {'proven' if proof['ok'] else 'NOT PROVEN'}"
    if proof["refused"]:
        return f"{title}: {proof['reason']}"
    heads = ("", "bad challenger", "stopped by", "because")
    rows = (
        ("ok" if put["ok"] else "NO", put["name"], ", ".join(put["killed_by"]) or "nothing", put["reason"])
        for put in proof["challengers"]
    )
    return table(heads, rows, title=title, caption=f"The good model: {proof['good']}")
