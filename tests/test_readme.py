"""The README stays true: what it names exists, and what it says to type works."""

import re
import subprocess
from pathlib import Path

import pytest

from tasks.config.settings import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/keepfit (\w+)", README, re.MULTILINE)


@pytest.mark.parametrize(
    "place", sorted({*re.findall(r"\]\(([^)#]+)\)", README), *re.findall(r"`((?:deployments|tasks)/[\w/.]+)`", README)})
)
def test_every_file_that_it_names_is_there(place: str):
    """Pictures, project pages and examples stand where the README says."""
    assert (REPOSITORY / place).is_file()


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_every_make_target_that_it_names_is_there(target: str):
    """`make -n` knows the target."""
    assert subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


@pytest.mark.stack
def test_its_commands_work_in_their_order(stack):
    """Typed as they stand, on the running stack; `down` is left to the end of the session."""
    assert COMMANDS == ["up", "status", "check", "doctor", "down"]
    for command in COMMANDS[:-1]:
        done = subprocess.run(
            [Path(REPOSITORY) / ".venv" / "bin" / "keepfit", command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=REPOSITORY,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.strip()


def test_the_tree_is_the_tree():
    """No top-level folder but those that it shows."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {path.split("/")[0] for path in listed if "/" in path} == {
        "flows",
        "tasks",
        "tests",
        "deployments",
        "infra",
        ".ci",
    }
