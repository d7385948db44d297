"""The password of the Prefect server: random, made once, read by its owner only."""

import base64
import secrets
from pathlib import Path

from tasks.config import private
from tasks.config.errors import StackError
from tasks.config.settings import Settings


def fresh() -> str:
    """A new password in the form that Prefect's API and its login page take."""
    return f"keepfit:{secrets.token_urlsafe(32)}"


def make(settings: Settings) -> str:
    """The password of the Prefect server, made at the first call."""
    private.make(settings.secret_file, fresh().encode())
    return read(settings)


def read(settings: Settings) -> str:
    """The password of the Prefect server; refuses one that somebody else may know or have written."""
    if wrong := fault(settings.secret_file):
        raise StackError(f"{wrong[0]} {wrong[1]}")
    return settings.secret_file.read_text().strip()


def fault(path: Path) -> tuple[str, str] | None:
    """What is wrong with a secret file and the next move, or nothing."""
    renew = f"Delete it and run `keepfit down` and `keepfit up`, which makes a new one: rm '{path}'"
    return (found, renew) if (found := private.fault(path)) else None


def header(settings: Settings) -> dict[str, str]:
    """The header that opens the Prefect server."""
    return {"Authorization": "Basic " + base64.b64encode(read(settings).encode()).decode()}
