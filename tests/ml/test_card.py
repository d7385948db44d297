import base64
import re
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tasks.ml.card import Before, CardFacts, Window, card
from tasks.ml.contract import Column, Contract
from tasks.ml.gates import Verdict
from tasks.ml.metrics import Estimate
from tasks.ml.pages import contract_table, decision, escaped, progress

EVIL = "# a|b\n<script>alert(1)</script> [x](javascript:y) `code` https://evil.example *b* _i_"
PASSED = Verdict(
    gate="champion", passed=True, reason="gain +0.0200", value=0.02, bar=0.0, low=0.01, high=0.03, before=0.9, after=0.92, alpha=0.03,
    power=0.013,
)  # fmt: skip
FAILED = Verdict(
    gate="calibration",
    passed=False,
    reason="calibration error is 0.080 (bar 0.05)",
    value=0.08,
    bar=0.05,
    wanted="below",
)
CONTRACT = Contract(
    columns={
        "id": Column(type="int"),
        "at": Column(type="datetime"),
        "age": Column(type="float", nullable=True, min=0, max=120, about="years | at visit"),
        "sex": Column(type="category", categories=("F", "M|x")),
        "sick": Column(type="bool"),
    },
    key=("id",),
    time="at",
    target="sick",
)
OBSERVED = pd.DataFrame(
    {
        "id": [1, 2, 3, 4],
        "at": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03", "2020-02-01"], utc=True),
        "age": [30.0, None, 12.5, 80.0],
        "sex": ["M|x", "M|x", "F", "M|x"],
        "sick": [True, False, False, False],
    }
)


def facts(**changes):
    """What is known of a good challenger, with changes."""
    day = [datetime(2013, month, 1, tzinfo=UTC) for month in (1, 2, 3, 4)]
    known: dict[str, Any] = {
        "project": "flights",
        "about": "Whether a departure is late",
        "labels": ("on time", "late"),
        "metric_label": "ROC AUC",
        "version": 4,
        "snapshot": "ab" * 32,
        "delta_version": 7,
        "parts": {
            "train": Window(rows=68_000, start=day[0], end=day[1]),
            "validation": Window(rows=12_000, start=day[1], end=day[2]),
            "holdout": Window(rows=20_000, start=day[2], end=day[3]),
        },
        "family": "hist_gradient_boosting",
        "params": {"learning_rate": 0.061234, "max_iter": 150},
        "seed": 3,
        "metric": Estimate(value=0.7312, low=0.7251, high=0.7374),
        "verdicts": (PASSED,),
        "baselines": {"class rate": 0.5},
        "champion": Before(version=3, value=0.7112),
        "operates": {"threshold": 0.31},
        "panels": {
            "confusion": {"true positive": 1622, "false positive": 1751, "false negative": 903, "true negative": 4724},
            "calibration": [{"predicted": 0.2, "observed": 0.25, "rows": 10.0}],
        },
        "commit": "0123abcd",
        "lock": "cd" * 32,
        "trigger": "a batch landed",
        "created_at": day[3],
    }
    return CardFacts(**(known | changes))


def header(text):
    """The card's metadata."""
    _, yaml, _ = text.split("---\n", 2)
    return YAML(typ="safe").load(yaml)


def cells(line):
    """The cells of one row of a markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_header_has_what_the_hub_requires():
    """The card begins with YAML metadata and a model index in Hugging Face's layout."""
    found = header(card(facts()))
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert found["library_name"] == "sklearn"
    assert found["license"] == "unknown"
    assert found["metrics"] == ["roc_auc"]
    assert "tabular-classification" in found["tags"]
    assert model["name"] == "flights version 4"
    assert result["task"]["type"] == "tabular-classification"
    assert result["dataset"] == {"type": "flights", "name": "flights", "split": "holdout", "revision": "ab" * 32}
    assert result["metrics"][0]["type"] == "roc_auc"
    assert result["metrics"][0]["value"] == pytest.approx(0.7312)


def test_metric_that_does_not_exist_is_left_out_of_the_header():
    """A NaN metric gives a header without a model index, which the hub would refuse, and a card all the same."""
    nan = float("nan")
    text = card(facts(metric=Estimate(value=nan, low=nan, high=nan)))
    assert "model-index" not in header(text)
    assert "## Evaluation" in text


def test_card_has_every_section_in_order():
    """A reader finds the sections of a model card, from details to reproduction."""
    assert re.findall(r"^## (.+)$", card(facts()), re.MULTILINE) == [
        "Model details",
        "Intended use",
        "Training data",
        "Evaluation",
        "Verdicts",
        "Calibration",
        "How answers become decisions",
        "Limitations",
        "How to reproduce",
    ]


def test_card_names_everything_that_makes_the_model_again():
    """Snapshot, commit, lock, seed and parameters stand in the card."""
    text = card(facts(reproduce="keepfit reproduce flights 4"))
    for wanted in ("ab" * 32, "cd" * 32, "0123abcd", "learning_rate=0.06123", "keepfit reproduce flights 4"):
        assert wanted in text
    assert "| seed | 3 |" in text


def test_card_holds_the_numbers_of_the_decision():
    """Metric with interval, champion before, baselines, windows and decisions are tables."""
    text = card(facts())
    assert "| **flights version 4** | **0.7312** | 0.7251 … 0.7374 |" in text
    assert "| champion before, version 3 | 0.7112 | – |" in text
    assert "| baseline: class rate | 0.5000 | – |" in text
    assert "| holdout | 20,000 | 2013-03-01 00:00 UTC | 2013-04-01 00:00 UTC |" in text
    assert "| **late** | 1,622 | 903 |" in text


@pytest.mark.parametrize(
    ("refit", "learned", "by"),
    [
        (True, "all rows of the train and validation parts", "part (before it learned from it)"),
        (False, "all rows of the train part", "part,"),
    ],
)
def test_card_says_which_rows_taught_and_which_set_the_threshold(refit, learned, by):
    """A model that was fitted once more learned from both parts; its threshold is from before."""
    text = card(facts(refit=refit))
    assert f"| {learned} |" in text
    assert f"the cheapest threshold on the validation {by}" in text


def test_a_threshold_of_an_alert_budget_is_not_called_the_cheapest():
    """It was chosen by how many rows reach it, and no cost was asked."""
    text = card(facts(alerts=0.015))
    assert "as the alert budget of 1.50% allows" in text
    assert "cheapest" not in text


def test_refused_challenger_has_a_card_without_a_version():
    """A refused challenger's card has no number, and warns."""
    text = card(facts(version=None, champion=None, verdicts=(PASSED, FAILED)))
    assert "# flights challenger\n" in text
    assert "It did not pass: calibration. It must not answer in production." in text
    assert "There was no champion before." in text


def test_the_same_facts_give_the_same_card():
    """Nothing but the facts enters a card."""
    assert card(facts()) == card(facts())


def test_card_escapes_what_came_from_outside():
    """Neither the project's sentence nor a label, trigger or reason opens markup in a card."""
    bad = Verdict(gate="sound", passed=False, reason=EVIL)
    text = card(
        facts(about=EVIL, labels=(EVIL, EVIL), trigger=EVIL, commit=EVIL, verdicts=(bad,), baselines={EVIL: 0.5})
    )
    body = text.split("---\n", 2)[2]
    assert header(text)["library_name"] == "sklearn"
    assert len(re.findall(r"^# ", body, re.MULTILINE)) == 1
    assert len(re.findall(r"^## ", body, re.MULTILINE)) == 9
    prose = re.sub(r"(?<!\\)`[^`\n]*(?<!\\)`", "", body)  # code spans show their text as it is
    assert "<script" not in prose
    assert "](javascript" not in re.sub(r"\\.", "", prose)


def test_hostile_yaml_stays_a_value():
    """A project's name cannot add a key to the header."""
    found = header(card(facts(project="x\nlicense: evil\n---\n")))
    assert found["license"] == "unknown"


@pytest.mark.parametrize("text", [EVIL, "a\\|b", "\\", "|", "tab\there", "zero\u200bwidth \u202eturned", "x" * 2000])
def test_escaped_text_stays_one_cell(text):
    """Escaped text is one line, and a table row that holds it has as many cells as before."""
    safe = escaped(text)
    assert "\n" not in safe
    assert "\u202e" not in safe
    assert len(safe) < 1200
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", f"| {safe} |")) == 2


def test_decision_says_what_happened_and_why():
    """The page has a headline, the reason, how many gates passed and one row a verdict."""
    page = decision("refused", "a tie keeps the champion", [PASSED, FAILED], project="flights")
    assert page.startswith("## Refused: flights\n\nA tie keeps the champion. 1 of 2 gates passed.\n")
    rows = [cells(line) for line in page.splitlines() if line.startswith("|")]
    assert rows[0] == ["gate", "passed", "before", "after", "value", "interval", "bar", "power", "reason"]
    assert rows[2] == [
        "champion",
        "yes",
        "0.9000",
        "0.9200",
        "0.0200",
        "0.0100 … 0.0300 (α 0.03)",
        "&gt; 0",
        "0.0130",
        "gain +0.0200",
    ]
    assert rows[3][:7] == ["calibration", "**no**", "–", "–", "0.0800", "–", "≤ 0.0500"]


def test_decision_without_verdicts_is_a_page():
    """A run that ended before the gates says so."""
    assert "No gate was asked." in decision("refused", "only 12 rows", [])


def test_decision_shows_its_picture_and_links():
    """The picture is inside the markdown, so that it lives as long as the page."""
    page = decision(
        "released", "better", [PASSED], project="flights", version=4, picture=b"png", links={"run": "http://l/1"}
    )
    assert f"](data:image/png;base64,{base64.b64encode(b'png').decode()})" in page
    assert "[run](http://l/1)" in page
    assert page.startswith("## Released: flights version 4\n")


def test_decision_escapes_reasons():
    """A reason that holds a pipe, a line break and HTML stays in its cell."""
    page = decision("refused", EVIL, [Verdict(gate="sound", passed=False, reason=EVIL)])
    assert "<script" not in page
    assert "https://" not in page
    assert {len(cells(line)) for line in page.splitlines() if line.startswith("|")} == {9}
    assert not re.search(r"^# ", page, re.MULTILINE)


def test_contract_table_shows_rules_beside_what_was_observed():
    """Each column has one row with its rules, missing share and range or most frequent value."""
    rows = {row["column"]: row for row in contract_table(CONTRACT, OBSERVED.get)}
    assert list(rows) == list(CONTRACT.columns)
    assert rows["age"]["may be"] == "empty; 0 to 120"
    assert rows["age"]["missing"] == "25.0 %"
    assert rows["age"]["holds"] == "12.5 to 80"
    assert rows["at"]["holds"] == "2020-01-01 00:00 to 2020-02-01 00:00"
    assert rows["sex"]["may be"] == "F, M\\|x"
    assert rows["sex"]["holds"] == "mostly M\\|x (75.0 %), 2 different"
    assert rows["sick"]["holds"] == "mostly False (75.0 %), 2 different"
    assert len({tuple(row) for row in rows.values()}) == 1


@pytest.mark.parametrize("observed", [pd.DataFrame(), OBSERVED.iloc[:0], OBSERVED.assign(age=None), OBSERVED[["id"]]])
def test_contract_table_needs_no_rows(observed):
    """Without rows, or without values, the table still has one row a column."""
    assert len(contract_table(CONTRACT, observed.get)) == 5


def test_progress_shows_the_five_best_trials():
    """The least loss is on top, unfinished trials are not ranked, and parameters go without their family's name."""
    tried = {"state": "complete", "family": "logistic", "params": {"family": "logistic", "logistic.C": 0.12345}}
    trials: list[dict[str, Any]] = [{"number": i, "value": 0.5 - i / 100, **tried} for i in range(7)]
    trials += [{"number": 7, "value": 0.1, "state": "pruned"}, {"number": 8, "value": None, "state": "running"}]
    page = progress(trials, budget_seconds=60, elapsed=30, total=40)
    rows = [cells(line) for line in page.splitlines() if line.startswith("|")][2:]
    assert "50 % · 8 of at most 40 trials (1 pruned), 30 of 60 seconds" in page
    assert "**Best loss so far: 0.4400**, by trial 6." in page
    assert [row[0] for row in rows] == ["6", "5", "4", "3", "2"]
    assert rows[0][3] == "C=0.1235"


def test_progress_before_the_first_trial():
    """A search that has just begun says so; one past its budget is full, not more."""
    assert "No trial has finished yet." in progress([], 60, 0, 40)
    assert " 100 % " in progress([], 60, 75, 40)


def test_progress_follows_the_direction():
    """Where more is better, the largest value is on top."""
    trials = [{"number": i, "value": i / 10, "state": "complete", "family": "a|b", "params": {}} for i in range(3)]
    page = progress(trials, 60, 1, 40, "ROC AUC", greater_is_better=True)
    assert "**Best ROC AUC so far: 0.2000**, by trial 2." in page
    assert "a\\|b" in page
