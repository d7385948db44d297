"""Scaffolding: what is written for a draft loads again as that draft, wholly or not at all."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tasks.config import scaffold
from tasks.config.errors import ProjectError
from tasks.config.project import load
from tasks.config.settings import REPOSITORY
from tasks.ml.gates import ChangePlan
from tasks.ml.infer import Draft, infer
from tasks.ml.kinds import KINDS
from tasks.ml.reading import Reading

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROWS = 300


def draft(target: str | None = "late", kind: str | None = None, **columns: Any) -> Draft:
    """A draft of a small table, with further columns."""
    usual = {
        "order_id": [f"A{i}" for i in range(ROWS)],
        "at": [f"2024-01-{1 + i % 28:02d}" for i in range(ROWS)],
        "amount": [i % 17 for i in range(ROWS)],
        "late": [i % 9 == 0 for i in range(ROWS)],
    }
    return infer(
        pa.table({name: values for name, values in {**usual, **columns}.items() if values is not None}),
        target,
        now=NOW,
        kind=kind,
    )


def written(folder: Path, made: Draft, reading: Reading | None = None, source: str = "any.csv"):
    return scaffold.write("demo", scaffold.files("demo", made, source, reading or Reading()), folder)


def test_what_is_written_loads_as_what_was_drafted(tmp_path):
    """Contract, positive class, labels and reading come back as they went in, and no temporary folder stays."""
    made = draft(mail=[f"u{i}@example.org" for i in range(ROWS)], colour=[("no", "red")[i % 2] for i in range(ROWS)])
    use = written(tmp_path, made, Reading(encoding="latin-1", delimiter="\t", decimal=","))
    again = load(tmp_path / "demo")
    assert use == again
    assert again.contract == made.contract
    assert (again.kind, again.positive, again.labels) == ("binary", made.question.positive, made.question.labels)
    assert again.reads == Reading(encoding="latin-1", delimiter="\t", decimal=",")
    assert sorted(path.name for path in tmp_path.iterdir()) == [scaffold.PLAN_SCHEMA, "demo", scaffold.SCHEMA]


WISHES: dict[str, dict[str, Any]] = {
    "binary": {},
    "multiclass": {"late": [("never", "often", "no")[i % 3] for i in range(ROWS)]},
    "regression": {"late": [i * 1.25 for i in range(ROWS)]},
    "anomaly": {"late": None, "target": None, "kind": "anomaly"},
}
SAYS = {
    "binary": ("cost: {false_positive", "alerts:", "Which rows have late = yes?"),
    "multiclass": ("categories: [never, ", "cost:", "Which late is it: never, no or often?"),
    "regression": ("metric: mae", "cost:", "How much is late?"),
    "anomaly": ("alerts: 0.01", "target:", "Which rows are unlike the others?"),
}


@pytest.mark.parametrize("kind", WISHES)
def test_a_project_of_every_kind_loads_with_what_its_kind_usually_has(kind, tmp_path):
    """The kind stands in the file with its reason; contract, metric and gates are the kind's; lines of other kinds are left out."""
    made = draft(**WISHES[kind])
    use = written(tmp_path, made)
    assert (use.kind, use.contract) == (kind, made.contract)
    assert (use.metric, tuple(gate.kind for gate in use.gates)) == (KINDS[kind].metric, KINDS[kind].gates)
    assert use.task.name == kind
    if kind == "multiclass":
        assert use.labels == made.question.labels
    text, readme = ((tmp_path / "demo" / name).read_text() for name in ("project.yaml", "README.md"))
    assert f"kind: {kind}   # {made.notes['kind']}" in text
    there, gone, asked = SAYS[kind]
    assert there in text
    assert gone not in text
    assert asked in readme
    assert len(text.splitlines()) <= 26


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1e9, 1e9, allow_subnormal=False) | st.integers(-50, 50), min_size=3, max_size=60).filter(
        lambda values: len({float(value) for value in values}) > 2
    ),
    st.sampled_from([None, "regression"]),
)
def test_any_column_of_numbers_gives_a_project_that_loads(tmp_path_factory, values, kind):
    """Whatever numbers the target has, more than two: the written project is of the kind that was drafted, with its contract."""
    numbers = [float(values[i % len(values)]) for i in range(ROWS)]
    made = draft(kind=kind, late=numbers)
    use = written(tmp_path_factory.mktemp("any"), made)
    assert (use.kind, use.contract) == (made.question.kind, made.contract)
    assert use.kind in {"regression", kind or "multiclass"}


def test_the_file_is_short_and_speaks(tmp_path):
    """Ten columns are about 25 lines; the first names the schema; the left-out column stands there with its reason."""
    more: dict[str, Any] = {f"extra{n}": [i % (n + 3) for i in range(ROWS)] for n in range(6)}
    written(tmp_path, draft(**more, mail=[f"u{i}@example.org" for i in range(ROWS)]))
    lines = (tmp_path / "demo" / "project.yaml").read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=../project.schema.json"
    assert (tmp_path / "demo" / lines[0].split("=")[1]).resolve() == tmp_path / scaffold.SCHEMA
    assert len(lines) <= 32
    assert sum("#" in line for line in lines) >= 15
    assert any(re.search(r"mail: looks like e-mail addresses", line) for line in lines)


def test_i_26_no_value_of_a_personal_column_is_written(tmp_path):
    """The three files name the column and its kind, and hold none of its values."""
    written(tmp_path, draft(order_id=None, mail=[f"u{i}@example.org" for i in range(ROWS)]))
    texts = "".join(path.read_text() for path in (tmp_path / "demo").iterdir())
    assert "e-mail addresses" in texts
    assert "@example.org" not in texts


awkward = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12
).filter(lambda name: not name.startswith("_") and name not in {"order_id", "at", "late", "amount"})


@settings(max_examples=40, deadline=None)
@given(awkward, st.lists(awkward, min_size=2, max_size=4, unique=True))
def test_names_and_categories_of_any_signs_come_back(name, categories):
    """Colons, quotes, line breaks, emoji, YAML's own words: as a column's name and as a category they stay what they are."""
    texts = (categories * ROWS)[:ROWS]
    made = draft(**{name: texts})
    text = scaffold.project_yaml("demo", made, "any.csv", Reading())
    plain = YAML(typ="safe", pure=True).load(text)
    assert list(plain["contract"]["columns"]) == list(made.contract.columns)
    for column, spec in made.contract.columns.items():
        assert tuple(plain["contract"]["columns"][column].get("categories", ())) == (spec.categories or ())


@pytest.mark.parametrize("name", ["", "Churn", "a b", "9lives", "../evil", "a" * 41, "x/y", "$(date)", "a\n"])
def test_a_bad_name_is_refused_with_a_good_one(tmp_path, name):
    """What cannot be a folder, an experiment and a deployment at once is refused; the proposal could be one."""
    with pytest.raises(ProjectError) as error:
        scaffold.free_name(name, tmp_path)
    proposal = str(error.value).rsplit("'", 2)[1]
    scaffold.free_name(proposal, tmp_path)


def test_a_taken_name_is_refused(tmp_path):
    """A folder that is there stays as it is."""
    (tmp_path / "demo").mkdir()
    with pytest.raises(ProjectError, match="is not overwritten"):
        scaffold.free_name("demo", tmp_path)
    with pytest.raises(ProjectError, match="somebody else"):
        written(tmp_path, draft())
    assert list((tmp_path / "demo").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_left_of_files_that_do_not_load(tmp_path):
    """A text that is no project leaves no folder behind."""
    with pytest.raises(ProjectError, match="contract"):
        scaffold.write("demo", {"project.yaml": "project: demo\n"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    """Where a file stands in the way of the folder of projects, the message says which."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ProjectError, match="cannot be written"):
        written(tmp_path / "file", draft())


def test_the_committed_schema_is_what_the_code_says():
    """`deployments/project.schema.json` is current; any `keepfit new` writes it anew, and so does `write_schema`."""
    again = "from tasks.config import scaffold, settings; scaffold.write_schema(settings.REPOSITORY / 'deployments')"
    committed = (REPOSITORY / "deployments" / scaffold.SCHEMA).read_text(encoding="utf-8")
    assert committed == scaffold.schema_text(), f'Project changed. Run: .venv/bin/python -c "{again}"'
    of_plans = (REPOSITORY / "deployments" / scaffold.PLAN_SCHEMA).read_text(encoding="utf-8")
    assert of_plans == scaffold.schema_text(ChangePlan), f'ChangePlan changed. Run: .venv/bin/python -c "{again}"'


def test_an_editor_finds_the_shipped_projects_valid_and_a_mistyped_key_not():
    """The schema, under the rules of JSON Schema itself, accepts every project of the repository and refuses an unknown key."""
    schema = json.loads((REPOSITORY / "deployments" / scaffold.SCHEMA).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    shipped = sorted((REPOSITORY / "deployments").glob("*/project.yaml"))
    assert shipped
    for path in shipped:
        project = YAML(typ="safe", pure=True).load(path.read_text())
        assert list(check.iter_errors(project)) == [], path
        assert list(check.iter_errors({**project, "targett": "y"})) != []


def test_an_outdated_schema_is_brought_up_to_date(tmp_path):
    """Writing a project renews the schema beside it."""
    (tmp_path / scaffold.SCHEMA).write_text("{}")
    written(tmp_path, draft())
    assert (tmp_path / scaffold.SCHEMA).read_text() == scaffold.schema_text()
