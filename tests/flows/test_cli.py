"""The command: light to start, one line for what went wrong, an exit code for each kind of end."""

import datetime as dt
import errno
import io
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flows import runs
from flows.commands import landing
from flows.commands.projects import page_of_deployed
from flows.commands.terminal import confirmed, explained, put, show, table
from tasks.config.errors import BatchError, MisuseError
from tasks.config.settings import Settings
from tasks.ml.watching.alarm import Alarm
from tasks.ml.watching.incident import Seen, described, joined
from tasks.stores.journal import Journal, Release
from tests.samples import SHIPPED, light_projects

HEAVY = ["mlflow", "pandas", "prefect", "sklearn"]
WATCHED = """
import sys
from flows import cli
try:
    cli.main()
finally:
    print("heavy:", *sorted({"mlflow", "pandas", "prefect", "sklearn"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """An environment with a home in which nothing is and nothing runs."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("KEEPFIT_", "PREFECT_", "MLFLOW_"))
    }
    return kept | {"KEEPFIT_HOME": str(tmp_path / "state"), "COLUMNS": "200"}


def command(environment: dict[str, str], *words: str, before: tuple[str, ...] = ("-m", "flows.cli")):
    """Runs the command as a person would."""
    return subprocess.run(
        [sys.executable, *before, *words], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that failed with --json: one object on one line of stdout."""
    assert done.stdout.count("\n") == 1, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert set(said) == {"error"}
    return said["error"]


@pytest.mark.parametrize("words", [("status", "--json"), ("status",), ("predict", "--json"), ("--help",)])
def test_nobody_reads_to_the_end(alone, words):
    """A reader that has seen enough, as `head` has, ends the command without a word."""
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=alone,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(120) in {1, 2}
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


# -- what is asked and answered --------------------------------------------------------------------------------------
def test_a_question_is_asked_on_stderr_and_nobody_is_no_answer(monkeypatch, capsys):
    """Stdout is for the result; only yes is yes; without anybody there the option that answers is named."""
    for answer, said in (("yes\n", True), ("no\n", False), ("\n", False)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert confirmed("Sure?") is said
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(MisuseError, match="say --yes"):
        confirmed("Sure?")


def test_an_erasure_that_names_a_column_twice_erases_nothing(alone):
    """Only the last value would count, and the person would be told that all are gone."""
    done = command(
        alone, "erase", "thyroid", "--where", "age=7", "--where", "age=9", "--why", "a letter", "--yes", "--json"
    )
    assert done.returncode == 1
    assert "names 'age' twice" in failure(done)


@pytest.mark.parametrize(
    ("states", "code"), [(["landed", "known"], 0), (["landed", "refused"], 1), (["held", "landed"], 1)]
)
def test_the_worst_of_several_files_decides(monkeypatch, capsys, states, code):
    """Whatever became of one of them, in whichever place, is in the exit code."""
    left = iter(states)
    monkeypatch.setattr(landing, "connect", Settings)
    monkeypatch.setattr(runs, "land", lambda *_: {"state": next(left), "reason": "so"})
    assert landing.outcomes("thyroid", [Path(state) for state in states], as_json=True) == code
    assert [each["state"] for each in json.loads(capsys.readouterr().out)["batches"]] == states


def test_a_file_that_cannot_be_read_hides_none_that_landed(monkeypatch, capsys):
    """Its reason stands in its place, and the others are landed and told."""

    def land(_use, file, *_):
        if file.name == "b.csv":
            raise BatchError("b.csv is no file")
        return {"state": "landed", "name": file.name, "reason": "so"}

    monkeypatch.setattr(landing, "connect", Settings)
    monkeypatch.setattr(runs, "land", land)
    assert landing.land("thyroid", [Path("a.csv"), Path("b.csv"), Path("c.csv")], as_json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], [each["state"] for each in said["batches"]]) == ("failed", ["landed", "failed", "landed"])
    assert said["batches"][1]["reason"] == "b.csv is no file"


# -- how light it is --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["status", "--json"], ["train", "--help"]], ids=" ".join)
def test_help_and_status_import_nothing_heavy(alone, words):
    """Help and status answer without MLflow, pandas, Prefect and scikit-learn."""
    done = command(alone, *words, before=("-c", WATCHED))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "heavy:"


def test_status_imports_nothing_heavy_beside_a_journal(alone, tmp_path):
    """Status that has something to tell is as light: it reads the journal, not the stores."""
    Journal(f"sqlite:///{tmp_path / 'state' / 'keepfit.db'}")
    done = command(alone, "status", "--json", before=("-c", WATCHED))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "heavy:"


def test_status_lists_what_waits_for_a_person(alone, tmp_path):
    """Version, age in seconds, why, and both commands, for a person too; as light as before, also for a project whose folder is gone."""
    journal, begun = Journal(f"sqlite:///{tmp_path / 'state' / 'keepfit.db'}"), dt.datetime.now(dt.UTC)
    number = journal.start_training(project="gone", trigger="t", event=False, snapshot="s", config="c", at=begun)
    since = begun - dt.timedelta(days=2)
    journal.end_training(number, state="held", reason="the sets disagree", at=since, version=4, digests={"bundle": "b"})
    done = command(alone, "status", "--json", before=("-c", WATCHED))
    assert done.stderr.splitlines()[-1] == "heavy:"
    (waiting,) = (row["proposals"] for row in json.loads(done.stdout)["projects"] if row["project"] == "gone")
    assert 2 * 86400 <= waiting[0].pop("age") < 2 * 86400 + 600
    assert waiting == [
        {
            "version": 4, "since": since.isoformat(), "why": "the sets disagree",
            "approve": "keepfit approve gone 4 --reason TEXT", "reject": "keepfit reject gone 4 --reason TEXT",
        }
    ]  # fmt: skip
    lines = command(alone, "status").stdout.splitlines()
    (line,) = (line for line in lines if "keepfit approve gone 4 --reason TEXT" in line)
    assert "2 days" in line


def test_status_fits_into_a_terminal_of_80_columns(alone, tmp_path):
    """No name, number or head of the tables of projects is cut or folded; what is long, why the last training ended so, stands in the last column."""
    journal, at = Journal(f"sqlite:///{tmp_path / 'state' / 'keepfit.db'}"), dt.datetime.now(dt.UTC)
    journal.release(
        Release("thyroid", 1, 12, "d", "a", "r", at.isoformat(), "roc_auc", value=0.98765, low=0.98, high=0.99)
    )
    number = journal.start_training(project="thyroid", trigger="t", event=False, snapshot="s", config="c", at=at)
    journal.end_training(number, state="refused", reason="it is no better. " * 9, at=at)
    lines = [line.split() for line in command(alone | {"COLUMNS": "80"}, "status").stdout.splitlines()]
    assert ["thyroid", "12", "roc_auc", "0.9877", "[0.9800,", "0.9900]", "nobody", "not", "proven"] in lines
    assert any(line[:6] == ["thyroid", "0", "0", "0", "0", "refused:"] for line in lines)
    assert any(line[:5] == ["project", "rows", "batches", "waiting", "quarantined"] for line in lines)


def test_history_fits_into_a_terminal_of_80_columns(alone, tmp_path):
    """No time or version is cut or folded; by whom and why stand on lines of their own. A time without a champion is told as that."""
    journal, at = Journal(f"sqlite:///{tmp_path / 'state' / 'keepfit.db'}"), "2026-11-27T12:30:05+00:00"
    journal.release(Release("thyroid", 1, 12, "d", "train: drift", "it is better. " * 9, at, "roc_auc", 0.9, 0.8, 1))
    narrow = alone | {"COLUMNS": "80"}
    lines = command(narrow, "history", "thyroid").stdout.splitlines()
    assert lines[1].split() == ["1", "12", "2026-11-27T12:30:05", "now", "release"]
    assert lines[3].startswith("1, by train: drift: it is better. it is better.")
    early = command(narrow, "history", "thyroid", "--at", "2025-01-01")
    assert early.stdout == "thyroid had no champion at 2025-01-01\n"


def test_numbers_have_four_digits_for_a_person_and_all_for_a_program(capsys):
    """Also inside of what is nested; what is whole, no number, or large enough loses nothing before the point."""
    result = {
        "value": 0.9123456789012345,
        "rows": 123456,
        "old": {"low": [0.000123456, 98765.4321]},
        "name": "1.23456789",
    }
    show(result, as_json=True)
    assert json.loads(capsys.readouterr().out) == result
    show(result, as_json=False)
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["value", "0.9123"], ["rows", "123456"], ["old", "{'low': [0.0001235, 98765]}"], ["name", "1.23456789"]
    ]  # fmt: skip


def test_what_is_deployed_has_a_line_for_each_project():
    """And what was removed one for each."""
    done = {"deployments": ["land/a", "train/a", "land/b"], "removed": ["fetch/a"]}
    assert page_of_deployed(done).splitlines() == ["a: land, train", "b: land", "removed: fetch/a"]


def test_what_looks_like_markup_is_shown_as_it_was_said(capsys):
    """A reason with brackets in it neither ends a table nor loses a word."""
    put(table(("why",), [("[/b] a column [red] moved",)]))
    assert "[/b] a column [red] moved" in capsys.readouterr().out


def test_a_path_in_a_narrow_table_is_whole(monkeypatch, capsys):
    """It is broken where the column ends, and nothing of it is left out: a reader has to find the file."""
    monkeypatch.setenv("COLUMNS", "40")
    path = "/var/lib/keepfit/bundles/thyroid/17/model.onnx"
    put(table(("file", "why"), [(path, "was altered or damaged: restore it from a copy")]))
    firsts = [line[:20].split()[0] for line in capsys.readouterr().out.splitlines()[1:] if line[:20].strip()]
    assert "".join(firsts).startswith(path)


def test_the_watch_would_notice(alone):
    """What looks for heavy modules finds one that was imported: `check` reads projects with pandas."""
    done = command(alone, "check", "--json", before=("-c", WATCHED))
    assert "pandas" in done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize("with_journal", [False, True])
def test_status_has_the_same_keys_before_and_after_the_first_batch(alone, tmp_path, with_journal):
    """An empty home and an empty journal give the same status, project by project."""
    if with_journal:
        Journal(f"sqlite:///{tmp_path / 'state' / 'keepfit.db'}")
    said = json.loads(command(alone, "status", "--json").stdout)
    assert [service["healthy"] for service in said["services"]] == [False] * 6
    nothing = {
        "champion": None,
        "serving": None,
        "batches": {
            "landed": 0,
            "held": 0,
            "arrived": 0,
            "rows": 0,
            "quarantined": 0,
            "known": 0,
            "outcomes": 0,
            "erased": 0,
        },
        "last_train": None,
        "incidents": 0,
        "proposals": [],
        "proof": None,
        "waiting": 0,
    }
    assert said["projects"] == [{"project": name, **nothing} for name in SHIPPED]
    assert said["unsent"] == []


def test_incidents_are_listed_newest_first_and_one_is_shown_with_its_text(alone, tmp_path):
    """All, those of a project, one by the beginning of its id; a misspelt one is told with those that there are; status counts and shows."""
    journal, at = Journal(f"sqlite:///{tmp_path / 'state' / 'keepfit.db'}"), dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    moved = Alarm(kind="inputs", what="retrain", features=("amount",), level=0.4, threshold=0.1, says="amount moved")
    ids = []
    for day, project in enumerate(("fraud", "thyroid")):
        one = described(joined((), [moved], Seen(project, 7), at + day * dt.timedelta(days=1))[0].incident)
        journal.record_incident(one, at, "opened", ["webhook ops"])
        ids.append(one.id)
    assert [one["id"] for one in json.loads(command(alone, "incidents", "--json").stdout)["incidents"]] == ids[::-1]
    shown = command(alone, "incidents", "fraud", ids[0][:6])
    assert shown.returncode == 0, shown.stderr
    assert "fraud (version 7): what comes in moved" in shown.stdout
    as_json = json.loads(command(alone, "incidents", "fraud", ids[0], "--json").stdout)
    assert (as_json["id"], as_json["class"], as_json["written_by"]) == (ids[0], "retrain", "keepfit")
    assert ids[0] in failure(command(alone, "incidents", "fraud", "zz", "--json"))
    said = json.loads(command(alone, "status", "--json").stdout)
    assert [row["incidents"] for row in said["projects"] if row["project"] in {"fraud", "thyroid"}] == [1, 1]
    assert [(one["project"], one["destination"], one["tries"]) for one in said["unsent"]] == [
        ("fraud", "webhook ops", 0), ("thyroid", "webhook ops", 0),
    ]  # fmt: skip
    assert "webhook ops" in command(alone, "status").stdout
    first, second = journal.notices()
    journal.move_notice(first, "dropped", "given up after 3 tries: it answered 422", dt.datetime.now(dt.UTC))
    journal.move_notice(second, "dropped", "given up long ago", dt.datetime.now(dt.UTC) - dt.timedelta(days=8))
    shown = command(alone, "status").stdout
    assert [each in shown for each in ("never", "it answered 422", "long ago")] == [True, True, False]


def test_status_counts_the_files_that_wait(alone, tmp_path):
    """A file in the inbox, one in its folder for outcomes, and one that was taken wait; one that landed does not."""
    inbox = tmp_path / "state" / "inbox" / "thyroid"
    for place in ("a.csv", "outcomes/b.csv", ".arrived/0-2 files/c.csv", ".landed/d.csv", ".hidden"):
        (inbox / place).parent.mkdir(parents=True, exist_ok=True)
        (inbox / place).touch()
    said = json.loads(command(alone, "status", "--json").stdout)
    waiting = {project["project"]: project["waiting"] for project in said["projects"]}
    assert waiting == dict.fromkeys(SHIPPED, 0) | {"thyroid": 3}


# -- misuse: exit code 2 ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trian", "thyroid"], 'Did you mean "train"?'),
        (["train"], "project"),
        (["predict", "thyroid"], "--row"),
        (["release", "thyroid", "newest"], "newest"),
        (["status", "--loud"], "--loud"),
        (["approve", "thyroid", "4"], "--reason"),
        (["reject", "thyroid", "4", "--reason", " "], "--reason. Say something"),
        (["reject", "thyroid", "4", "--reason", "why", "--by", ""], "--by. Say something"),
    ],
    ids=["command", "argument", "option", "number", "flag", "no reason", "empty reason", "empty name"],
)
def test_misuse_ends_with_2_and_names_what_is_wrong(alone, words, named):
    """An unknown word or option, a missing or unreadable argument: exit code 2, one line, the way to the help."""
    done = command(alone, *words, "--json")
    assert done.returncode == 2
    message = failure(done)
    assert named in message
    assert message.endswith("See `keepfit --help`.")
    assert "\n" not in message
    assert done.stderr.strip() == message


def test_misuse_for_a_person_leaves_stdout_empty(alone):
    """Without --json the message goes to stderr only, and says once what may have been meant."""
    done = command(alone, "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("Did you mean") == done.stderr.count('Did you mean "train"?') == 1


# -- refusals: exit code 1 --------------------------------------------------------------------------------------------
def test_an_unknown_project_is_named_beside_the_known_ones(alone):
    """Checking a project that is not there names those that are."""
    done = command(alone, "check", "nope", "--json")
    assert done.returncode == 1
    message = failure(done)
    assert "no project 'nope'" in message
    assert ", ".join(SHIPPED) in message


def test_a_nearly_right_project_is_suggested(alone):
    """A slip of the finger is answered with the project that was meant."""
    assert failure(command(alone, "check", "thyriod", "--json")).endswith("Did you mean 'thyroid'?")


def test_a_broken_project_file_is_named_with_line_and_key(alone, tmp_path):
    """A key that is no key: file, line, key and the one that was meant."""
    folder = light_projects(tmp_path / "projects")
    path = folder / "thyroid" / "project.yaml"
    lines = path.read_text().splitlines()
    at = lines.index("metric: roc_auc")
    lines[at] = "metrik: roc_auc"
    path.write_text("\n".join(lines) + "\n")
    done = command(alone | {"KEEPFIT_PROJECTS": str(folder)}, "check", "thyroid", "--json")
    assert done.returncode == 1
    assert failure(done) == f"{path}:{at + 1}: metrik is no key here. Did you mean 'metric'?"


def test_every_fault_of_every_project_is_told_on_a_line(alone, tmp_path):
    """With --json the lines are a list beside the message, which has them all."""
    folder = light_projects(tmp_path / "projects")
    path = folder / "thyroid" / "project.yaml"
    path.write_text(path.read_text().replace("metric: roc_auc", "metrik: roc_auc") + "trusted: {share: 2}\n")
    (folder / "zebra").mkdir()
    (folder / "zebra" / "project.yaml").write_text("")
    done = command(alone | {"KEEPFIT_PROJECTS": str(folder)}, "check", "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["error"].splitlines() == said["faults"] == done.stderr.splitlines()
    assert len(said["faults"]) == 3
    for told in ("metrik is no key here", "trusted.share is 2; wanted less than or equal to", "holds no keys"):
        assert told in said["error"]


@pytest.mark.parametrize(
    ("row", "named"), [("{age: 41}", "--row is no JSON"), ("[41]", "--row is a list"), ('{"age": 41}', "no champion")]
)
def test_a_question_without_an_answer_is_refused(alone, row, named):
    """No JSON, no object, or nobody to answer: exit code 1, one line with the next move."""
    done = command(alone, "predict", "thyroid", "--row", row, "--json")
    assert done.returncode == 1
    message = failure(done)
    assert named in message
    assert "\n" not in message
    assert "wanted" in message.lower() or "keepfit train thyroid" in message


def test_a_file_that_is_not_there_is_not_scored(alone, tmp_path):
    """It is said before a run is made, which would take a while."""
    done = command(alone, "score", "thyroid", str(tmp_path / "none.csv"), str(tmp_path / "out.csv"), "--json")
    assert done.returncode == 1
    assert failure(done).startswith("'none.csv': cannot be opened")
    assert "no stack is running" not in done.stderr


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ("Flow run encountered an exception: BatchError: a.csv: is empty.\nSend it again.", "a.csv: is empty.\nSend it again."),
        ("Flow run encountered an exception: ValueError: a bug.", "The run 'x' ended as Failed: Flow run encountered an exception: ValueError: a bug. Its log is in Prefect."),
        ("the worker died", "The run 'x' ended as Crashed: the worker died. Its log is in Prefect."),
    ],
)  # fmt: skip
def test_what_a_run_refuses_is_said_as_without_a_stack(ended, said):
    """The sentence that tells what to mend stands alone; whatever else a run fails with is told with the run and where its log is."""
    assert runs._failed("x", "Crashed" if "died" in ended else "Failed", ended) == said


@pytest.mark.parametrize("source", [(), ("drop",)])
def test_nothing_is_fetched_where_no_source_is_declared(alone, source):
    """The block of project.yaml that would declare one is named, before a run is made."""
    done = command(alone, "fetch", "thyroid", *source, "--json")
    assert done.returncode == 1
    assert failure(done).startswith(
        "thyroid declares no sources, so there is nothing to fetch from. Declare one under `sources:`"
    )
    assert "no stack is running" not in done.stderr


@pytest.mark.parametrize(("asked", "lacks"), [("deploy", "nowhere to deploy to"), ("env", "nothing to reach")])
def test_what_wants_a_stack_says_what_to_do(alone, asked, lacks):
    """Without one there is nowhere to deploy to and nobody to ask, and the next move is `keepfit up`."""
    done = command(alone, asked, "--json")
    assert done.returncode == 1
    assert failure(done) == f"No stack is running, so there is {lacks}. Say `keepfit up`."


# -- what goes well: exit code 0 --------------------------------------------------------------------------------------
def test_every_project_of_the_repository_loads(alone):
    """Every folder under deployments is a project that loads, with features, gates and a digest."""
    done = command(alone, "check", "--json")
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout)
    assert said["ok"] is True
    assert [row["project"] for row in said["projects"]] == SHIPPED
    assert all(row["features"] and row["gates"] and len(row["digest"]) == 64 for row in said["projects"])


def test_stopping_nothing_is_harmless(alone, tmp_path):
    """`keepfit down` twice with nothing running stops nothing, deletes nothing and is content."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "keepfit.db").write_bytes(b"precious")
    for _ in range(2):
        done = command(alone, "down", "--json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["state"], said["stopped"], said["wiped"]) == ("down", 0, False)
    assert (tmp_path / "state" / "keepfit.db").read_bytes() == b"precious"


# -- other people's errors in the user's words ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "met", "move"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/rows"), "The disk is full: ", "free some space under {home}"),
        (sqlite3.OperationalError("database or disk is full"), "The disk is full: ", "free some space under {home}"),
        (httpx.ConnectError("[Errno 111] Connection refused"), "does not answer: ", "say `keepfit up`"),
        (RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/"), "does not answer: ", "say `keepfit up`"),
    ],
    ids=["disk", "database", "connection", "api"],
)  # fmt: skip
def test_a_foreign_error_becomes_one_line_with_the_next_move(settings: Settings, error, met, move):
    """A full disk and a server that is away are told in one line: what was met, and what to do."""
    said = explained(error)
    assert met in said
    assert move.format(home=settings.home) in said
    assert "\n" not in said


def test_any_other_error_keeps_its_name_on_one_short_line():
    """An error that nobody foresaw keeps its type; its text is one line of at most 500 characters."""
    said = explained(ValueError("first\n  second " + "x" * 1000))
    assert said.startswith("ValueError: first second x")
    assert len(said) == len("ValueError: ") + 500


# -- the change plan ---------------------------------------------------------------------------------------------------
def test_a_plan_is_signed_and_verified_by_command(alone, tmp_path):
    """Exit code 1 and one object while nobody has signed or a byte was changed since; 0 when it is signed; 2 for misuse."""
    at = alone | {"KEEPFIT_PROJECTS": str(light_projects(tmp_path / "projects"))}
    path = tmp_path / "projects" / "thyroid" / "change_plan.yaml"
    said = command(at, "plan", "show", "thyroid", "--json")
    assert (said.returncode, json.loads(said.stdout)["plan"]) == (0, None)
    assert "there is nothing to sign" in failure(command(at, "plan", "sign", "thyroid", "--json"))
    path.write_text("floors: {roc_auc: 0.9}\n")
    unsigned = command(at, "plan", "verify", "thyroid", "--json")
    assert (unsigned.returncode, json.loads(unsigned.stdout)["ok"]) == (1, False)
    signed = json.loads(command(at, "plan", "sign", "thyroid", "--by", "Ada", "--json").stdout)
    assert (signed["signed"], signed["by"], signed["plan"]) == (True, "Ada", {"floors": {"roc_auc": 0.9}})
    verified = command(at, "plan", "verify", "thyroid", "--json")
    assert (verified.returncode, json.loads(verified.stdout)["ok"]) == (0, True)
    path.write_text("floors: {roc_auc: 0.8}\n")
    changed = command(at, "plan", "verify", "thyroid")
    assert changed.returncode == 1
    assert "was changed after Ada signed it" in changed.stdout
    path.write_text("flors: {}\n")
    assert "change_plan.yaml:1: flors is no key here. Did you mean 'floors'?" in failure(
        command(at, "check", "thyroid", "--json")
    )
    assert command(at, "plan", "verify").returncode == 2
