"""Change plans on file: who signed what, and that nothing but an unchanged plan under a trusted key counts."""

import datetime as dt
import json
import shutil
import stat
from pathlib import Path

import pytest

from tasks.config import plans
from tasks.config.errors import ProjectError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tests.samples import light_projects

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
TEXT = "families: [logistic]\nfloors: {roc_auc: 0.9}\n"


@pytest.fixture
def use(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Thyroid in a folder of its own, with a plan that nobody has signed."""
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(light_projects(tmp_path / "projects")))
    (tmp_path / "projects" / "thyroid" / plans.FILE).write_text(TEXT)
    return Project.named("thyroid", Settings())


def objection(use: Project) -> str:
    """Why the plan does not count now."""
    return plans.envelope(use, Settings()).objection


def beside(use: Project, name: str) -> Path:
    return Settings().projects / use.project / name


def test_a_signed_plan_counts_and_says_by_whom(use: Project):
    """The key is made at the first signature, readable by its owner alone; the second uses the same."""
    assert "has no signature that can be read" in objection(use)
    signed = plans.sign(use, Settings(), "Ada", NOW)
    found = plans.envelope(use, Settings())
    assert (found.objection, found.signed) == ("", "Ada signed it on 2026-03-04")
    assert found.plan is not None
    assert found.plan.families == ("logistic",)
    key = Settings().home / "keys" / "plan.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert set(json.loads(beside(use, plans.SIGNATURE).read_text())) == {"by", "at", "sha256", "key", "signature"}
    assert plans.sign(use, Settings(), "Bob", NOW).key == signed.key


def test_without_a_plan_nothing_is_limited_and_nothing_signed(use: Project):
    """No file is no objection; a signature that stands alone is one."""
    beside(use, plans.FILE).unlink()
    assert plans.envelope(use, Settings()) == plans.Envelope()
    with pytest.raises(ProjectError, match="there is nothing to sign"):
        plans.sign(use, Settings(), "Ada", NOW)
    beside(use, plans.FILE).write_text(TEXT)
    plans.sign(use, Settings(), "Ada", NOW)
    beside(use, plans.FILE).unlink()
    assert "change_plan.sig is there, change_plan.yaml is not" in objection(use)


def test_x_08_a_plan_that_was_changed_after_it_was_signed_does_not_count(use: Project):
    """One character is enough, even in a comment (X-08)."""
    plans.sign(use, Settings(), "Ada", NOW)
    beside(use, plans.FILE).write_text(TEXT + "#")
    assert objection(use).startswith(
        "change_plan.yaml was changed after Ada signed it on 2026-03-04. Read it, then say `keepfit plan sign thyroid`"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("by", "Eve"), ("at", "2027-01-01T00:00:00+00:00"), ("sha256", "0" * 64), ("key", "0" * 64), ("key", "no key"), ("signature", "0" * 128), ("signature", "")],
)  # fmt: skip
def test_x_08_an_altered_signature_does_not_count(use: Project, name, value):
    """Whatever is altered in it, the name of who signed too, it is nobody's signature any more (X-08)."""
    plans.sign(use, Settings(), "Ada", NOW)
    path = beside(use, plans.SIGNATURE)
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    assert objection(use).startswith("change_plan.sig was altered: ")


@pytest.mark.parametrize("text", ["", "{", '{"by": "Ada"}', "[]", "\xff"])
def test_what_is_no_signature_does_not_count(use: Project, text):
    """Nothing is raised: the plan is unsigned."""
    beside(use, plans.SIGNATURE).write_bytes(text.encode("latin-1"))
    assert "has no signature that can be read" in objection(use)


def test_a_signature_is_of_one_project(use: Project):
    """The same plan and signature in the folder of another project do not count there."""
    plans.sign(use, Settings(), "Ada", NOW)
    other = Settings().projects / "other"
    shutil.copytree(Settings().projects / "thyroid", other)
    path = other / "project.yaml"
    path.write_text(path.read_text().replace("project: thyroid", "project: other"))
    assert objection(Project.named("other", Settings())).startswith("change_plan.sig was altered: ")


def test_a_key_of_another_home_counts_once_it_is_trusted(use: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Signed elsewhere: held until somebody here puts the public key among the trusted ones."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("KEEPFIT_HOME", str(tmp_path / "elsewhere"))
        plans.sign(use, Settings(), "Ada", NOW)
        assert objection(use) == ""
    assert "which nobody here trusts" in objection(use)
    trusted = Settings().home / "keys" / "trusted"
    trusted.mkdir(parents=True)
    shutil.copyfile(tmp_path / "elsewhere" / "keys" / "plan.pub", trusted / "ada.pub")
    (trusted / "ada.pub").chmod(0o644)
    assert objection(use) == ""
    (trusted / "ada.pub").chmod(0o666)
    assert "ada.pub has mode 0666; only its owner may write it" in objection(use)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_x_06_a_key_that_others_may_read_is_refused(use: Project, mode):
    """It signs nothing any more, and what it signed does not count (X-06)."""
    plans.sign(use, Settings(), "Ada", NOW)
    (Settings().home / "keys" / "plan.pem").chmod(mode)
    with pytest.raises(plans.KeyFileError, match=f"plan.pem has mode {mode:04o}; only its owner may read it"):
        plans.sign(use, Settings(), "Ada", NOW)
    assert f"plan.pem has mode {mode:04o}" in objection(use)


def test_a_file_that_is_no_key_is_refused(use: Project):
    """Neither text nor a link to another file is taken for a key."""
    plans.sign(use, Settings(), "Ada", NOW)
    path = Settings().home / "keys" / "plan.pem"
    path.rename(path.with_name("moved.pem"))
    path.symlink_to(path.with_name("moved.pem"))
    assert "is not a file of the current user" in objection(use)
    path.unlink()
    path.write_text("nonsense")
    path.chmod(0o600)
    assert "holds no Ed25519 key" in objection(use)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("families: [logistic\n", "is no readable YAML"),
        ("# nothing\n", "holds no keys. A plan limits at least one of: families, windows"),
        ("families: [logistic]\ndirft: 1\n", ":2: dirft is no key here. Did you mean 'drift'?"),
        ("\nfeatures: [age, TSHH]\n", ":2: features names 'TSHH', which the project does not have"),
        ("floors: {mae: 1}\n", ":1: floors names 'mae', which the project does not have. Wanted: roc_auc"),
    ],
)
def test_a_plan_that_does_not_load_says_where_and_allows_nothing(use: Project, text, said):
    """File, line and key; in a training it is a reason to wait, not a crash."""
    beside(use, plans.FILE).write_text(text)
    with pytest.raises(ProjectError) as met:
        plans.load(use, Settings())
    assert str(met.value).startswith(str(beside(use, plans.FILE)))
    assert said in str(met.value)
    assert objection(use) == str(met.value)
