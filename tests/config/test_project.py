"""Projects: what loads, and what a folder that does not load says."""

import textwrap
from pathlib import Path

import pandas as pd
import pytest

from tasks.config.errors import ProjectError
from tasks.config.project import Project, load
from tasks.config.settings import Settings
from tasks.ml.gates import ALL
from tasks.ml.kinds import Binary

GOOD = textwrap.dedent(
    """\
    project: demo
    contract:
      key: [id]
      time: happened_at
      target: failed
      columns:
        id: {type: int}
        happened_at: {type: datetime}
        amount: {type: float, min: 0}
        failed: {type: bool}
    split: {kind: time, column: happened_at}
    search: {seconds: 5, trials: 3}
    gates:
      - {kind: sound}
      - {kind: champion, margin: 0.01}
    """
)
SHIPPED = Settings(projects=Path(__file__).parents[2] / "deployments")


@pytest.fixture
def projects(tmp_path: Path) -> Settings:
    """A folder of projects with one good project in it."""
    write(tmp_path, GOOD)
    return Settings(projects=tmp_path, home=tmp_path / "home")


def write(folder: Path, text: str, name: str = "demo") -> Path:
    """Writes a project folder."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "project.yaml").write_text(text, encoding="utf-8")
    return folder / name


def refusal(folder: Path, text: str) -> str:
    """What loading the text as a project says."""
    with pytest.raises(ProjectError) as error:
        load(write(folder, text))
    return str(error.value)


def test_a_good_project_loads(projects):
    """A project that says the least has defaults for all else."""
    use = Project.named("demo", projects)
    assert use.contract.features == ("amount",)
    assert use.metric == "roc_auc"
    assert [gate.kind for gate in use.gates] == ["sound", "champion"]
    assert [policy.kind for policy in use.retrain] == ["batch"]


@pytest.mark.parametrize("name", SHIPPED.project_names())
def test_every_shipped_project_loads(name):
    """Every folder under deployments/ loads, hooks included, and says something about itself."""
    use = Project.named(name, SHIPPED)
    assert use.about
    assert use.hook("no_such_hook", SHIPPED) is None
    assert (SHIPPED.projects / name / "README.md").is_file()


def test_shipped_projects_are_found():
    """The folders with a project.yaml are the projects."""
    assert {"flights", "thyroid"} <= set(SHIPPED.project_names())


CASES = {
    "a split column that is not in the contract": (
        ("column: happened_at}", "column: happend_at}"),
        ["split.column is 'happend_at'", "Columns of type datetime: ['happened_at']", "Did you mean 'happened_at'?"],
    ),
    "a split column that is no datetime": (
        ("column: happened_at}", "column: amount}"),
        ["split.column is 'amount'", "Columns of type datetime: ['happened_at']"],
    ),
    "an unknown key": (
        ("search: {seconds: 5,", "searches: {seconds: 5,"),
        [":12", "searches is no key here", "Did you mean 'search'?"],
    ),
    "an unknown key of a section": (
        ("trials: 3}", "trails: 3}"),
        [":12", "search.trails is no key here", "Did you mean 'trials'?"],
    ),
    "an unknown key of a column": (
        ("min: 0}", "mni: 0}"),
        [":9", "contract.columns.amount.mni", "Did you mean 'min'?"],
    ),
    "a word where a number belongs": (("seconds: 5", "seconds: soon"), [":12", "search.seconds", "valid number"]),
    "a number out of its range": (("trials: 3", "trials: 0"), [":12", "search.trials", "greater than or equal to 1"]),
    "a seed that nothing can be drawn by": (
        ("trials: 3", "seed: -1"),
        [":12", "search.seed", "greater than or equal to 0"],
    ),
    "a seed that is too large": (("trials: 3", "seed: 5000000000"), [":12", "search.seed", "less than or equal to"]),
    "an unknown type of column": (
        ("amount: {type: float", "amount: {type: money"),
        [":9", "contract.columns.amount.type", "'float'"],
    ),
    "an unknown gate": (("kind: champion", "kind: champ"), [":15", "gates.1", "'champion'"]),
    "a gate twice": (
        ("{kind: champion, margin: 0.01}", "{kind: sound}"),
        [":13", "gates", "once", "['sound', 'sound']"],
    ),
    "a missing section": (("split: {kind: time, column: happened_at}\n", ""), ["split is missing"]),
    "a missing key of a section": (("  time: happened_at\n", ""), [":2", "contract.time is missing"]),
    "no target for a kind that learns from one": (
        ("  target: failed\n", ""),
        [":2", "contract lacks a target", "kind 'binary'", "as `target`"],
    ),
    "a key column that is not there": (("key: [id]", "key: [idd]"), [":2", "key is 'idd'", "Did you mean 'id'?"]),
    "a time that is no datetime": (
        ("time: happened_at", "time: amount"),
        [":2", "time is 'amount'", "['happened_at']"],
    ),
    "a time that may be empty": (
        ("happened_at: {type: datetime}", "happened_at: {type: datetime, nullable: true}"),
        [":2", "time is 'happened_at'", "nullable"],
    ),
    "bounds on a text": (
        ("amount: {type: float, min: 0}", "amount: {type: text, min: 0}"),
        [":9", "contract.columns.amount", "for numbers"],
    ),
    "categories of a number": (("min: 0}", "categories: [a]}"), [":9", "contract.columns.amount", "for texts"]),
    "no feature": (("    amount: {type: float, min: 0}\n", ""), ["has no feature"]),
    "broken YAML": (("search: {seconds: 5", "search: {seconds: 5]"), ["no readable YAML", "line 12", "Mend that line"]),
    "a key twice": (("search: {", "project: other\nsearch: {"), ["no readable YAML", "line 12"]),
    "another name than the folder's": (
        ("project: demo", "project: other"),
        ["'other'", "'demo'", "Give both the same name"],
    ),
    "an alarm without a floor": (
        ("search: {", "retrain: [{kind: drift}]\nsearch: {"),
        [":12", "retrain has kind 'drift' alone", "Add a floor"],
    ),
    "a search that is longer than a training": (
        ("search: {", "budget: {hours: 0.001}\nsearch: {"),
        ["search.seconds is 5", "3.6 s", "Raise budget.hours"],
    ),
    "a hook that lands from nowhere": (
        ("search: {", "hooks: [{name: files, kind: s3, does: land, source: drop, secret: DROP}]\nsearch: {"),
        ["'files' lands from source 'drop'", "Sources: []"],
    ),
    "a secret in the file": (
        ("search: {", "hooks: [{name: files, kind: rest, does: train, secret: hunter2}]\nsearch: {"),
        [":12", "hooks.0.secret", "pattern"],
    ),
    "a name that no URL takes": (("project: demo", "project: De mo"), [":1", "project", "pattern"]),
}


@pytest.mark.parametrize(("change", "words"), CASES.values(), ids=CASES)
def test_a_refusal_names_file_line_and_key(tmp_path, change, words):
    """What does not load says which file, which line and key, what was met, and what was wanted."""
    assert GOOD.count(change[0]) >= 1
    said = refusal(tmp_path, GOOD.replace(*change, 1))
    assert said.startswith(str(tmp_path / "demo" / "project.yaml"))
    assert [word for word in words if word not in said] == []
    assert said.endswith((".", "?"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_a_file_without_keys_says_what_is_needed(tmp_path, text):
    """An empty file, a list and a word are no project."""
    assert "A project needs at least: project, contract, split." in refusal(tmp_path, text)


def test_each_fault_has_a_line_with_the_value_that_was_met(tmp_path):
    """Numbers, words and what is empty are repeated; what may hold a password is not. Of a file that is wrong all over ten are told."""
    searches = GOOD.replace("{seconds: 5, trials: 3}", "{trials: many, seed: null, folds: 'ftp://me:SECRET@host'}")
    said = refusal(tmp_path, f"{searches}trusted: {{share: 1.5}}\n")
    assert {line.partition(": ")[2] for line in said.splitlines()} == {
        "search.trials is 'many'; wanted a valid integer, unable to parse string as an integer.",
        "search.seed is None; wanted a valid integer.",
        "search.folds wanted a valid integer, unable to parse string as an integer.",
        "trusted.share is 1.5; wanted less than or equal to 0.5.",
    }
    long = refusal(tmp_path, GOOD + "".join(f"no{n}: 1\n" for n in range(12))).splitlines()
    assert (len(long), long[-1].partition(": ")[2]) == (11, "and 2 more faults.")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    """Bytes that are no UTF-8 are named as such."""
    folder = write(tmp_path, "")
    (folder / "project.yaml").write_bytes(b"project: \xff\xfe\n")
    with pytest.raises(ProjectError, match="no readable YAML"):
        load(folder)


def test_an_unknown_project_name_lists_the_known_ones(projects):
    """A mistyped name is answered with the projects that exist, and the nearest."""
    with pytest.raises(ProjectError) as error:
        Project.named("dmeo", projects)
    assert "There is no project 'dmeo'" in str(error.value)
    assert "Projects: demo." in str(error.value)
    assert str(error.value).endswith("Did you mean 'demo'?")


def test_an_empty_folder_of_projects_says_none(tmp_path):
    """Where there is no project, the answer says so."""
    with pytest.raises(ProjectError, match=r"Projects: none\."):
        Project.named("demo", Settings(projects=tmp_path / "nowhere"))


def test_hooks_that_do_not_import_are_named(projects):
    """A broken hooks.py is reported with file and reason, and nothing of the project runs before."""
    (projects.projects / "demo" / "hooks.py").write_text("import no_such_library_at_all\n")
    with pytest.raises(
        ProjectError, match=r"hooks\.py: does not import: ModuleNotFoundError: .*no_such_library_at_all"
    ):
        Project.named("demo", projects).hook("derive", projects)


def test_hooks_are_found_by_name(projects):
    """A function of hooks.py is given by its name, a name that is not there gives nothing."""
    (projects.projects / "demo" / "hooks.py").write_text("def derive(rows):\n    return rows.assign(amount=1.0)\n")
    use = Project.named("demo", projects)
    derive = use.hook("derive", projects)
    assert derive is not None
    assert derive(pd.DataFrame({"id": [1]}))["amount"].tolist() == [1.0]
    assert use.hook("label", projects) is None


def test_a_project_without_hooks_has_none(projects):
    """hooks.py may be absent."""
    assert Project.named("demo", projects).hook("derive", projects) is None


def test_the_digest_tells_what_decides(projects):
    """What decides about a model changes the digest; the sentence about it and the time to retrain do not."""
    use = Project.named("demo", projects)
    assert use.digest == use.model_copy(update={"about": "other", "retrain": (), "floor": 0.5}).digest
    assert use.digest != load(write(projects.projects, GOOD.replace("margin: 0.01", "margin: 0.02"))).digest


@pytest.mark.parametrize(
    ("positive", "target", "expected"),
    [
        ("true", pd.array([True, False, True], dtype="boolean"), [1, 0, 1]),
        ("ill", pd.array(["ill", "well", "ill"], dtype="string"), [1, 0, 1]),
        ("2", pd.array([2, 1, 0], dtype="Int64"), [1, 0, 0]),
    ],
)
def test_the_truth_is_one_where_the_target_is_positive(tmp_path, positive, target, expected):
    """The positive value, whatever its type, becomes 1, every other 0."""
    use = load(write(tmp_path, f"positive: {positive}\n{GOOD}"))
    assert use.task.truth(pd.DataFrame({"failed": target})).tolist() == expected


@pytest.mark.parametrize(("labels", "crossed"), [("[ill, well]", "ill"), ("[no, well]", "well")])
def test_a_label_that_is_the_other_classs_value_is_refused(tmp_path, labels, crossed):
    """Whoever tells it later could mean either."""
    text = f"positive: ill\nlabels: {labels}\n{GOOD}".replace(
        "failed: {type: bool}", "failed: {type: category, categories: [ill, well]}"
    )
    with pytest.raises(ProjectError, match=f"failed has '{crossed}' for the other one"):
        load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("column", "positive", "own"),
    [
        ("bool", "true", ((False, True), True)),
        ("int", "1", ((0, 1), False)),
        ("int", "7", ((7,), False)),
        ("category, categories: [ill, well]", "ill", (("ill", "well"), True)),
        ("text", "ill", (("ill",), False)),
    ],
)
def test_the_targets_own_values_are_known_as_far_as_the_contract_says_them(tmp_path, column, positive, own):
    """Of numbers and of open texts there may be others; they are negative, in rows and in what is told."""
    text = GOOD.replace("failed: {type: bool}", f"failed: {{type: {column}}}")
    kind = load(write(tmp_path, f"positive: {positive}\nlabels: [fine, failing]\n{text}")).task
    assert isinstance(kind, Binary)
    assert (kind.own, kind.are_all) == own
    assert kind.truth(pd.DataFrame({"failed": kind.meant(["failing", "fine", *own[0]])}))[:2].tolist() == [1, 0]


RECOMMENDS = textwrap.dedent(
    """\
    project: demo
    kind: recommendation
    user: who
    contract:
      key: [id]
      time: happened_at
      target: item
      columns:
        id: {type: int}
        happened_at: {type: datetime}
        who: {type: text}
        item: {type: text}
    split: {kind: time, column: happened_at}
    """
)


def test_a_recommendation_says_who_and_how_many(tmp_path):
    """Families, metric and gates follow from the kind, and columns are not searched for."""
    use = load(write(tmp_path, f"k: 3\n{RECOMMENDS}"))
    assert use.task.described() == {"user": "who", "k": 3}
    assert use.metric == "ndcg_at_k"
    assert {gate.kind for gate in ALL} - {gate.kind for gate in use.gates} == {"trusted", "calibration"}
    assert use.search.families == ("favourites", "item_neighbours", "factors")
    assert not use.search.columns


@pytest.mark.parametrize(
    ("met", "said", "wanted"),
    [
        ("user: who", "user: whom", r"user is 'whom'.*Features: \['who'\]\. Did you mean 'who'\?"),
        ("user: who\n", "", "user is None; kind 'recommendation' needs the feature column"),
        ("item: {type: text}", "item: {type: int}", "item is of type int; kind 'recommendation' names items: text or category"),
        ("split:", "search: {columns: true}\nsplit:", "search.columns asks which columns to leave out"),
        ("user: who", "user: who\nmetric: roc_auc", "cannot judge kind 'recommendation'. Wanted: ndcg_at_k, recall_at_k, mrr"),
    ],
)  # fmt: skip
def test_a_recommendation_that_cannot_be_is_explained(tmp_path, met, said, wanted):
    """What was met and what was wanted, with the next move."""
    with pytest.raises(ProjectError, match=wanted):
        load(write(tmp_path, RECOMMENDS.replace(met, said)))


COMPUTED = (
    GOOD + "computed:\n  double: {about: twice the amount}\nslices: {columns: [double]}\nleaks: {allow: [double]}\n"
)
HOOK = "def features(rows):\n    return rows[['amount']].mul(2).set_axis(['double'], axis=1)\n"


def test_computed_columns_are_features_behind_the_contracts(tmp_path):
    """What hooks.py makes is read by models, sliced and allowed by name; the contract of landed rows does not know it."""
    folder = write(tmp_path, COMPUTED)
    (folder / "hooks.py").write_text(HOOK)
    use = load(folder)
    assert list(use.features) == ["amount", "double"]
    assert use.types == {"amount": "float", "double": "float"}
    assert use.contract.features == ("amount",)
    rows = pd.DataFrame({"id": [1, 2], "amount": [1.5, 4.0]})
    assert use.completed(rows)["double"].tolist() == [3.0, 8.0]
    landed = rows.assign(double=[1.0, 1.0])  # as long as it was a column of the contract
    pd.testing.assert_frame_equal(use.completed(landed), use.completed(rows))
    assert "double" not in rows


def test_code_decides_about_a_model_where_it_makes_or_judges_it(tmp_path):
    """The project's digest moves with hooks.py when models are made with it or must behave by it, and not for what happens at landing alone."""
    folder = write(tmp_path, COMPUTED)
    (folder / "hooks.py").write_text(HOOK)
    computed = load(folder).digest
    (folder / "hooks.py").write_text(HOOK.replace("2", "3"))
    assert load(folder).digest != computed
    plain = write(tmp_path, GOOD.replace("demo", "plain"), "plain")
    before = load(plain).digest
    (plain / "hooks.py").write_text("def derive(rows):\n    return rows\n")
    assert load(plain).digest == before
    rules = "from tasks.ml.behaviour import Invariance\n\ndef behaviour():\n    return [Invariance(column='amount', within=0.1)]\n"
    told = []
    for text in (rules, rules.replace("0.1", "0.01"), "def behaviour():\n    return []\n"):
        (plain / "hooks.py").write_text(text)
        told.append(load(plain).digest)
    assert len({before, *told}) == 4


def test_declared_and_made_columns_belong_together(tmp_path):
    """Columns without a function, a function without columns, and a name that the contract has are refused with the next move."""
    assert "hooks.py: has no function features, but project.yaml declares computed columns: double" in refusal(
        tmp_path, COMPUTED
    )
    (tmp_path / "demo" / "hooks.py").write_text(HOOK)
    assert "declares no column that it makes. Name each one and its type under `computed`" in refusal(tmp_path, GOOD)
    assert "computed names 'amount', which is a column of the contract" in refusal(
        tmp_path, GOOD + "computed: {amount: {}}\n"
    )
    assert "slices.columns names 'duble', which is no feature column" in refusal(
        tmp_path, COMPUTED.replace("columns: [double]", "columns: [duble]")
    )
    anomaly = GOOD.replace("project: demo", "project: demo\nkind: anomaly").replace(
        "gates:", "computed: {double: {}}\ngates:"
    )
    assert "computed is for the kinds binary, multiclass, regression" in refusal(tmp_path, anomaly)


@pytest.mark.parametrize(("gate", "said"), [
    ("{kind: fairness, columns: [amuont]}", "fairness names 'amuont', which is no column of texts, numbers or bools beside key and target. Did you mean 'amount'?"),
    ("{kind: fairness, columns: [failed]}", "fairness names 'failed'"), ("{kind: fairness, columns: [id]}", "fairness names 'id'"),
    ("{kind: floors, floors: {mae: 3}}", "floors names 'mae', which cannot judge kind 'binary'. Wanted: roc_auc"),
])  # fmt: skip
def test_a_gate_that_asks_for_what_is_not_there_is_named(tmp_path, gate, said):
    """Before anything is trained."""
    assert said in refusal(tmp_path, GOOD + f"  - {gate}\n")


def test_a_protected_column_need_not_be_a_feature(tmp_path):
    """Models must not read it, and the gate may."""
    text = GOOD.replace("amount: {type: float, min: 0}", "amount: {type: float}\n    sex: {type: text, feature: false}")
    use = load(write(tmp_path, text + "  - {kind: fairness, columns: [sex]}\n"))
    assert "sex" not in use.features
    assert use.beside == {"happened_at": "datetime", "amount": "float", "sex": "text"}


def test_a_time_that_names_the_row_is_shown_to_the_gates(tmp_path):
    """An hourly series has no other key; how stable a model is over time is asked all the same."""
    keyed = GOOD.replace("key: [id]", "key: [happened_at]")
    assert keyed != GOOD
    assert load(write(tmp_path, keyed)).beside["happened_at"] == "datetime"


@pytest.mark.parametrize(("body", "said"), [
    ("[Invariance(column='amuont')]", "behaviour names 'amuont', which is no feature column of the contract. Did you mean 'amount'?"),
    ("['no test']", "behaviour gives a str; wanted Invariance, Direction or Expectation"),
])  # fmt: skip
def test_behaviour_that_cannot_be_asked_is_named(projects, body, said):
    """With the file; where hooks.py states none there is none."""
    use = Project.named("demo", projects)
    assert use.behaviour(projects) == ()
    hooks = projects.projects / "demo" / "hooks.py"
    hooks.write_text(f"from tasks.ml.behaviour import Invariance\n\ndef behaviour():\n    return {body}\n")
    with pytest.raises(ProjectError, match=r"demo/hooks\.py") as caught:
        use.behaviour(projects)
    assert said in str(caught.value)
