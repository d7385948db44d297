"""The doctor: what on this machine could stand in the way, each finding with its next move."""

import importlib.metadata
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from flows.stack import addresses, password
from flows.stack.probes import in_the_way
from flows.stack.starting import DATABASES
from tasks.config import access
from tasks.config.errors import StackError
from tasks.config.settings import Settings
from tasks.stores.sqlite import damage

if TYPE_CHECKING:
    from tasks.stores.journal import Journal, Release

PACKAGES = ("prefect", "whenever", "sqlalchemy", "mlflow", "fastapi")
"""Those of which some versions are known not to work here; pyproject.toml says which do, and why."""


def diagnose(settings: Settings) -> list[dict[str, Any]]:
    """What on this machine could stand in the way, each finding with its next move.

    Returns:
        One `check`, `ok`, `detail`, `next` (empty when ok) for each thing looked at.
    """
    return [
        _check_python(),
        _check_disk(settings),
        *map(_check_package, PACKAGES),
        *_check_ports(settings),
        _check_secret(settings),
        _check_databases(settings),
        _check_inbox(settings),
        *_check_champions(settings),
        _check_access(settings),
        _check_sockets(settings),
        _check_clock(),
        _check_browser(),
    ]


def _finding(check: str, ok: bool, detail: str, move: str) -> dict[str, Any]:
    """One line of the doctor's answer."""
    return {"check": check, "ok": ok, "detail": detail, "next": "" if ok else move}


def _check_python() -> dict[str, Any]:
    """Whether the interpreter is new enough."""
    return _finding(
        "python",
        sys.version_info >= (3, 11),
        sys.version.split()[0],
        "Make the environment anew with Python 3.11 or newer.",
    )


def _check_disk(settings: Settings) -> dict[str, Any]:
    """Whether there is room for a database to grow."""
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    return _finding(
        "disk", free > 1, f"{free:.1f} GiB free at {settings.home}", "Free some space, or set KEEPFIT_HOME."
    )


def _check_package(name: str) -> dict[str, Any]:
    """Whether a package is within the bounds that keepfit was installed with; does not import it."""
    needs = map(Requirement, importlib.metadata.requires("keepfit") or [])
    wanted = next(need for need in needs if need.name == name and need.marker is None)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _finding(name, False, f"not installed; wanted {wanted}", "Run `make`.")
    return _finding(name, wanted.specifier.contains(version), f"{version}; wanted {wanted}", "Run `make`.")


def _check_ports(settings: Settings) -> list[dict[str, Any]]:
    """Whether each port is free, or used by the stack itself."""
    urls = settings.stack()
    found = []
    for name, port in addresses.wished(settings).items():
        used = urls.get(name)
        ok = bool(used) or addresses.bindable(settings.host, port) is not None
        detail = (
            f"in use by the stack: {used}"
            if used is not None
            else f"{port} is {'free' if ok else 'used by another program'}"
        )
        move = f"`keepfit up` will take a free port; to choose one, set KEEPFIT_{name.upper()}_PORT."
        found.append(_finding(f"port of {name}", ok, detail, move))
    return found


def _check_inbox(settings: Settings) -> dict[str, Any]:
    """Whether the watcher of the inbox can take what lies there."""
    met = in_the_way(settings)
    detail = " ".join(met) or "nothing is in the way"
    return _finding("inbox", not met, detail, "Do what the finding says; what waits lands by itself then.")


def _check_champions(settings: Settings) -> list[dict[str, Any]]:
    """Whether the bundle of each champion is what was released, signed by somebody who is trusted, and what MLflow has of it what was logged."""
    from tasks.stores.journal import Journal

    journal = Journal.existing(settings)
    if journal is None:
        return []
    return [_check_champion(settings, journal, release) for release in journal.champions().values()]


def _check_champion(settings: Settings, journal: "Journal", release: "Release") -> dict[str, Any]:
    from tasks.stores.holding import Holding

    holding = Holding.of(settings, journal, release)
    fault = holding.fault()
    return _finding(
        f"champion of {release.project}",
        not fault,
        fault or f"version {release.version}, bundle {release.digest[:12]} as it was released",
        f"Servers that hold a verified copy answer from it meanwhile; others refuse. Restore {holding.folder} and MLflow's files from a copy, or release another version.",
    )


def _check_secret(settings: Settings) -> dict[str, Any]:
    """Whether only its owner can read the Prefect server's password."""
    if not settings.secret_file.exists():
        return _finding("secret", True, "none yet; `keepfit up` makes it", "")
    fault = password.fault(settings.secret_file)
    return _finding(
        "secret", fault is None, fault[0] if fault else "readable by its owner only", fault[1] if fault else ""
    )


def _check_databases(settings: Settings) -> dict[str, Any]:
    """Whether every page of our SQLite files is as it was written."""
    paths = [path for name in DATABASES if (path := settings.home / name).is_file()]
    bad = [f"{path}: {found}" for path in paths if (found := damage(path))]
    detail = "; ".join(bad) or f"{len(paths)} files are whole"
    return _finding("databases", not bad, detail, "Run `keepfit down`, and `keepfit up`, which says how to restore it.")


def _check_access(settings: Settings) -> dict[str, Any]:
    """Whether others could write the state or read a secret, or reach what they should not."""
    try:
        addresses.may_listen(settings)
    except StackError as error:
        return _finding("access", False, str(error), "Do what it says, then run this again.")
    return _finding("access", True, "the state and its secrets are the current user's alone", "")


def _check_sockets(settings: Settings) -> dict[str, Any]:
    """Whether every socket that the stack listens on is reached from this machine only."""
    sockets = addresses.listening(settings)
    wide = [f"{name} on {host}:{port}" for name, host, port in sockets if not access.is_loopback(host)]
    if wide and not access.is_loopback(settings.host):
        return _finding(
            "sockets", True, f"open to the network, as KEEPFIT_HOST={settings.host} asks: {', '.join(wide)}", ""
        )
    detail = (
        f"open to the network: {', '.join(wide)}" if wide else f"{len(sockets)} listening, all on this machine only"
    )
    return _finding(
        "sockets", not wide, detail, "Run `keepfit down`, and find out what opened it before starting again."
    )


def _check_clock() -> dict[str, Any]:
    """Whether the clock is at least not behind the installed code."""
    now = datetime.now(UTC)
    sane = now.timestamp() > Path(__file__).stat().st_mtime - 86400
    return _finding(
        "clock", sane, f"{now:%Y-%m-%d %H:%M:%S} UTC", "The clock is behind the installed code; set it by NTP."
    )


def _check_browser() -> dict[str, Any]:
    """Which browser the tests of the pages would use; none is needed otherwise."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    return _finding("browser (optional)", True, path or "no Chromium found; only the browser tests need one", "")
