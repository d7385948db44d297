"""Provenance: the code that a process began with, and where it runs."""

import hashlib
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from tasks import gate
from tasks.config import provenance
from tasks.config.settings import REPOSITORY


def test_o_18_code_that_changed_while_a_training_ran_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The digest that is recorded is that of the start; when the files are others at the end, a verdict says so and refuses (O-18)."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "a.py").write_text("x = 1")
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    provenance.code.cache_clear()
    try:
        began = provenance.code()
        assert began == hashlib.sha256(b"flows/a.pyx = 1").hexdigest()
        with disable_run_logger():
            assert gate._one_code() == []
            (tmp_path / "flows" / "a.py").write_text("x = 2")
            (verdict,) = gate._one_code()
        assert provenance.code() == began
    finally:
        monkeypatch.undo()
        provenance.code.cache_clear()
    assert (verdict.gate, verdict.passed) == ("code", False)
    assert verdict.reason.startswith(f"the code changed while this ran: it began with {began[:12]}")


@pytest.mark.parametrize(
    ("name", "counts"), [("tasks/a.py", True), ("deployments/new/project.yaml", True), ("deployments/new/hooks.py", True), ("notes.txt", False)]
)  # fmt: skip
def test_code_and_projects_that_are_in_no_commit_are_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, counts
):
    """A project that was just made is the usual case; what lies about elsewhere is none of the code."""
    git = ["git", "-c", "user.name=anna", "-c", "user.email=anna@example.org"]
    (tmp_path / "README.md").write_text("A project.")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    clean = provenance.commit.__wrapped__()
    assert len(clean) == 40
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("x")
    assert provenance.commit.__wrapped__() == clean + "+changes" * counts


def test_o_18_a_plan_with_this_code_is_no_reason_to_refuse():
    """A run that was planned with the code that is here, or that nobody planned, goes on (O-18)."""
    assert provenance.other_than(provenance.code()) == provenance.other_than(None) == ""
    assert "0123456789ab" in provenance.other_than("0123456789abcdef")


@pytest.mark.parametrize(
    ("mark", "name"), [(".dockerenv", "docker"), ("run/.containerenv", "podman"), ("etc/hosts", "none")]
)
def test_a_container_is_known_by_what_it_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark, name):
    """Docker and Podman leave a file each, Kubernetes a variable."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).touch()
    assert provenance.container(tmp_path) == name
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert provenance.container(tmp_path) == "kubernetes"


def test_the_environment_names_every_file_of_code():
    """Each file of `flows` and `tasks` is there with its digest, what is nearest to a model first."""
    listed = provenance.environment()["code"]
    assert next(iter(listed)).startswith("tasks/ml/")
    assert set(listed) == {
        path.relative_to(REPOSITORY).as_posix()
        for path in [*(REPOSITORY / "flows").glob("*.py"), *(REPOSITORY / "tasks").rglob("*.py")]
    }
    path = "tasks/ml/recipe.py"
    assert listed[path] == hashlib.sha256((REPOSITORY / path).read_bytes()).hexdigest()[:16]


# -- the lock ----------------------------------------------------------------------------------------------------------
def test_the_environment_of_these_tests_is_the_locked_one():
    """Every package that is installed here has the version of the lock, however many versions the lock has for other machines."""
    assert provenance.astray() == ()
    assert (REPOSITORY / "requirements.lock").read_text().count("\nnumpy==") > 1
    assert provenance.pinned("numpy", "pandas", "no-such-package") == [
        f"{name}=={version(name)}" for name in ("numpy", "pandas")
    ]


def test_names_and_versions_of_what_is_installed_are_importlibs():
    """They are read from the heads of the packages' descriptions, which say what a parser of the whole finds."""
    wanted = {(provenance._canonical(found.name), found.version) for found in distributions()}
    assert {provenance._told(found) for found in distributions()} == wanted


def test_a_package_at_another_version_or_missing_is_astray():
    """Of what is needed everything must be there and locked; of the rest only what is there counts. Names are compared as pip does."""
    locked = provenance.pins(
        "Num_Py==1.0 \\\n    --hash=sha256:00\nscipy==2 ; sys_platform == 'nowhere'\nruff==3\nty==4\n"
    )
    assert locked == {"num-py": "1.0", "ruff": "3", "ty": "4"}
    found = provenance.strays(locked, {"num-py": "1.1", "scipy": "2", "ruff": "3"}, ["num-py", "scipy"])
    assert found == ("num-py 1.1, locked is 1.0", "scipy 2, locked is none")
    assert provenance.strays(locked, {"num-py": "1.0"}, ["num-py"]) == ()
