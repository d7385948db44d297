"""Provenance: which code and which packages made a model."""

import functools
import hashlib
import re
import subprocess

from tasks.config.settings import REPOSITORY


@functools.cache
def commit() -> str:
    """The code's git commit, with `+changes` when files differ from it; `unknown` outside a checkout."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}{'+changes' if changed else ''}"


@functools.cache
def code() -> str:
    """SHA-256 over the source of `flows` and `tasks`: what a training's result may depend on."""
    total = hashlib.sha256()
    for path in sorted([*REPOSITORY.glob("flows/*.py"), *REPOSITORY.glob("tasks/**/*.py")]):
        total.update(path.relative_to(REPOSITORY).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


@functools.cache
def lock() -> str:
    """SHA-256 of `requirements.lock`."""
    path = REPOSITORY / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "unknown"


def pinned(*packages: str) -> list[str]:
    """The lock's pins of some packages, as `name==version`."""
    path = REPOSITORY / "requirements.lock"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = {name: re.search(rf"^{re.escape(name)}==([^\s;\\]+)", text, re.MULTILINE) for name in packages}
    return [f"{name}=={match.group(1)}" for name, match in found.items() if match]
