"""What tests share: rows as files, a light project, a free port, and waiting for a thing to happen."""

import csv
import datetime as dt
import importlib.util
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.stores.journal import Journal

SHIPPED = sorted(path.parent.name for path in (REPOSITORY / "deployments").glob("*/project.yaml"))
LIGHT = "search: {seconds: 60, trials: 2, folds: 2, seed: 7}"
Answer = TypeVar("Answer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(ask: Callable[[], Answer | None], seconds: float = 120, what: str = "it") -> Answer:
    """Polls until there is an answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {seconds:g} s")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A CSV file of rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def light_projects(folder: Path) -> Path:
    """A copy of the thyroid project with a search of two trials, in a folder of its own."""
    shutil.copytree(
        REPOSITORY / "deployments" / "thyroid", folder / "thyroid", ignore=shutil.ignore_patterns("__pycache__")
    )
    text = (folder / "thyroid" / "project.yaml").read_text()
    lines = [LIGHT if line.startswith("search:") else line for line in text.splitlines()]
    (folder / "thyroid" / "project.yaml").write_text("\n".join(lines) + "\n")
    return folder


def data_of(project: str, folder: Path = REPOSITORY / "deployments") -> ModuleType:
    """A project's data.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location(f"data_of_{project}", folder / project / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def mark_proven(settings: Settings, project: str, *, ok: bool = True, digest: str | None = None) -> None:
    """Records a proof of a project's present configuration, where it is not the subject; or of another one, by its digest."""
    Journal(settings.journal()).record_proof(
        project=project, digest=digest or Project.named(project, settings).digest, files=settings.declared(project), ok=ok,
        at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), detail={"reason": "a test says so"},
    )  # fmt: skip


MEMORY = '''
from pathlib import Path

def memory(name):
    """Bytes of this process, VmRSS: now, VmHWM: at most until now. In ru_maxrss stands what the process that started it had taken."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

'''  # code for the beginning of a process whose memory is measured
PROJECT = """
project: {name}
positive: true
contract:
  key: [id]
  time: at
  target: y
  columns:
    id: {{type: int}}
    at: {{type: datetime}}
    y: {{type: bool}}
    amount: {{type: float}}
    kind: {{type: category}}
split: {{kind: time, column: at}}
"""  # a project called {name} with a number and a category; what it searches and asks is added
