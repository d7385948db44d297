"""Provenance: which code, which packages and which machine made a model."""

import functools
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Collection, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from tasks.config.settings import REPOSITORY
from tasks.ml.identity import digest

# What decides about the numbers in a model, or about the rows that come out of the lake.
MATTER = (
    "numpy", "scipy", "pandas", "pyarrow", "deltalake", "scikit-learn", "joblib", "threadpoolctl", "skops", "optuna",
)  # fmt: skip


CODE = ("flows/", "tasks/", "deployments/")  # where a file that no commit has is a change, too


@functools.cache
def commit() -> str:
    """The code's git commit, with `+changes` when files of it differ, or files of code or projects are in none; `unknown` outside a checkout."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=all"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    changed = [line for line in status if not line.startswith("??") or line[3:].strip('"').startswith(CODE)]
    return f"{head}{'+changes' if changed else ''}"


@functools.cache
def code() -> str:
    """SHA-256 over the source of `flows` and `tasks` as this process met it first: what a training's result may depend on."""
    return source()


def conditions(config: str, trusted: int | None) -> str:
    """Digest of all that a training depends on beside its rows.

    Args:
        config: of the project, `Project.digest`.
        trusted: version of the rows that judge and never teach.
    """
    return digest([config, code(), lock(), trusted])


def source() -> str:
    """The same of the files as they are now."""
    total = hashlib.sha256()
    for path in _sources():
        total.update(path.relative_to(REPOSITORY).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def other_than(planned: str | None) -> str:
    """What is wrong when a run was planned with other code than this process has, or nothing; None: nobody planned it.

    >>> other_than(None), other_than(code())
    ('', '')
    """
    return (
        f"the run was planned with the code {planned[:12]}, which is not the code here ({code()[:12]}): say `keepfit deploy`, then train again"
        if planned and planned != code()
        else ""
    )


def changed() -> str:
    """What is wrong when the code on the disk is not the code that this process began with, or nothing."""
    now = source()
    return (
        f"the code changed while this ran: it began with {code()[:12]}, the files are {now[:12]} now; start it again"
        if now != code()
        else ""
    )


def _remoteness(path: Path) -> tuple[int, Path]:
    """How far code is from a model's numbers: what is nearest is named first."""
    rooms = ("tasks/ml/", "tasks/stores/", "tasks/config/", "tasks/serving/", "tasks/sources/", "tasks/", "flows/")
    name = path.relative_to(REPOSITORY).as_posix()
    return next(place for place, room in enumerate(rooms) if name.startswith(room)), path


def _sources() -> list[Path]:
    return sorted([*REPOSITORY.glob("flows/*.py"), *REPOSITORY.glob("tasks/**/*.py")])


@functools.cache
def environment() -> dict[str, Any]:
    """What a fitted model may depend on beside rows and configuration: Python, machine, BLAS, packages, lock, code file by file."""
    return {
        "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}", "blas": _blas(),
        "packages": packages(), "lock": lock(), "commit": commit(),
        "code": {path.relative_to(REPOSITORY).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(_sources(), key=_remoteness)},
    }  # fmt: skip


@functools.cache
def packages() -> dict[str, str]:
    """The installed versions of the packages that matter."""
    return {name: _installed(name) for name in MATTER}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _blas() -> str:
    """Kind, version and kernels of each BLAS that numpy and scipy have loaded: other kernels, other last digits."""
    import sklearn.linear_model  # noqa: F401 -- brings both libraries into the process
    from threadpoolctl import threadpool_info

    found = {
        f"{info['internal_api']} {info['version']} {info.get('architecture', '')}".strip()
        for info in threadpool_info()
        if info["user_api"] == "blas"
    }
    return ", ".join(sorted(found)) or "none"


@functools.cache
def machine() -> dict[str, str]:
    """Where this runs: system, cores, memory, and whether in a container."""
    import psutil

    return {
        "platform": platform.platform(), "cores": str(os.cpu_count() or 1),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}", "container": container(),
    }  # fmt: skip


def cpu_seconds() -> float:
    """CPU time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def container(root: Path = Path("/")) -> str:
    """`kubernetes`, `docker`, `podman`, or `none`, by what each leaves in its containers."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    marks = {"docker": root / ".dockerenv", "podman": root / "run/.containerenv"}
    return next((name for name, mark in marks.items() if mark.exists()), "none")


@functools.cache
def lock() -> str:
    """SHA-256 of `requirements.lock`."""
    path = REPOSITORY / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "unknown"


def pinned(*packages: str) -> list[str]:
    """The lock's pins of some packages, as `name==version`."""
    found = pins(_locked())
    return [f"{name}=={found[name]}" for name in packages if name in found]


@functools.cache
def astray() -> tuple[str, ...]:
    """Every package of this process's environment that is not what `requirements.lock` says."""
    return strays(pins(_locked()), dict(map(_told, distributions())), MATTER)


def _told(found: Distribution) -> tuple[str, str]:
    """Name and version of a package; from the head of what it says of itself, because a parser of the whole takes long for all packages."""
    head = (found.read_text("METADATA") or "").partition("\n\n")[0]
    name, version = (re.search(rf"^{field}: *(.+)$", head, re.MULTILINE) for field in ("Name", "Version"))
    return (_canonical(name[1]), version[1].strip()) if name and version else (_canonical(found.name), found.version)


def pins(text: str) -> dict[str, str]:
    r"""The version of each package that a lock pins for this Python on this machine.

    >>> pins("a==1 ; python_version < '3' \\\n    --hash=sha256:00\na==2 ; python_version >= '3'\nb==3\n    # via a")
    {'a': '2', 'b': '3'}
    """
    lines = (line.rstrip(" \\") for line in text.splitlines() if line and not line.startswith((" ", "#", "-")))
    wanted = (Requirement(line) for line in lines)
    return {
        _canonical(pin.name): next(iter(pin.specifier)).version
        for pin in wanted
        if pin.marker is None or pin.marker.evaluate()
    }


def strays(locked: Mapping[str, str], installed: Mapping[str, str], needed: Collection[str]) -> tuple[str, ...]:
    """What is installed at another version than the lock's, and what is needed but not installed or not locked.

    Extras of the lock that are not installed are nobody's fault.

    >>> strays({"numpy": "2", "ruff": "1"}, {"numpy": "3"}, ["numpy", "scipy"])
    ('numpy 3, locked is 2', 'scipy none, locked is none')
    """
    asked = sorted({*needed, *(name for name in locked if name in installed)})
    pairs = ((name, installed.get(name, "none"), locked.get(name, "none")) for name in asked)
    return tuple(
        f"{name} {is_there}, locked is {wanted}"
        for name, is_there, wanted in pairs
        if is_there != wanted or wanted == "none"
    )


def _locked() -> str:
    path = REPOSITORY / "requirements.lock"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
