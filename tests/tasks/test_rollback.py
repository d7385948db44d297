"""A rollback brings a former champion back or changes nothing; it needs neither Prefect nor MLflow, and the automation minds it."""

import datetime as dt
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import looking
from tasks.config.errors import KeepfitError, MisuseError, ProjectError
from tasks.config.settings import Settings
from tasks.recover import Recovery
from tasks.releasing import Releasing
from tasks.rollback import Rollback
from tasks.stores import bundles
from tasks.stores.journal import BY_ITSELF, Journal, predecessor, reigns, rolled_back
from tasks.stores.registry import Registry
from tasks.stores.seals import SEAL, Seals
from tests.released import NAME, NOW, alias, champion, crowned, place, template
from tests.samples import free_port

__all__ = ["place", "template"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")


def back(settings: Settings, to: int | None = None) -> dict:
    return Rollback(NAME, "bert", "worse", to).do(settings)


def test_a_rollback_is_a_release_of_the_next_generation(place: Settings):
    """The champion before is champion again, with its digest and numbers; the alias follows by recover."""
    journal = champion(place, 1, 2)
    done = back(place)
    assert (done["project"], done["from"], done["to"], done["generation"]) == (NAME, 2, 1, 3)
    first, _, third = journal.releases(NAME)
    assert third == replace(first, generation=3, actor="bert", reason="worse", at=third.at, kind="rollback")
    assert alias(place) == 2
    assert [line.partition(":")[0] for line in Recovery(place).look().finished] == [
        "rollback of version 1 of small was committed"
    ]
    assert alias(place) == 1


@pytest.mark.parametrize(
    ("past", "wanted"), [((1, 2), 1), ((1, 2, 3), 2), ((1, 2, 3, 2), 1), ((1, 2, 3, 2, 1), None), ((1,), None), ((2, 1, 2, 3), 2)]
)  # fmt: skip
def test_without_a_version_the_one_before_comes_back(place: Settings, past: tuple[int, ...], wanted: int | None):
    """What was taken back meanwhile is passed over; before the first champion there is none, which is a refusal with the versions to choose from."""
    before = predecessor(crowned(place, *past).releases(NAME))
    assert (before.version if before else None) == wanted
    done = back(place)
    assert done.get("to") == wanted
    assert (wanted is None) == (done.get("state") == "refused")


def test_o_03_o_05_a_rollback_works_while_prefect_and_mlflow_are_down(place: Settings, monkeypatch: pytest.MonkeyPatch):
    """Nobody listens where they should be: the journal moves within seconds, and alias and event follow when they are back."""
    journal, mlflow = champion(place, 1, 2), place.mlflow()
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name in ("PREFECT", "MLFLOW"):
        monkeypatch.setenv(f"KEEPFIT_{name}_URL", nowhere)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert back(Settings())["to"] == 1
    with temporary_settings(updates={PREFECT_API_URL: f"{nowhere}/api"}):
        found = Recovery(Settings()).look()
    assert "follows by `keepfit recover`" in found.trouble[0]
    assert [line.partition(":")[0] for line in found.trouble] == [
        "rollback of version 1 of small was committed",
        "Prefect",
        NAME,
    ]
    assert [each.phase for each in journal.release_intents(NAME)] == ["committed"]
    monkeypatch.delenv("KEEPFIT_PREFECT_URL")
    monkeypatch.setenv("KEEPFIT_MLFLOW_URL", mlflow)
    assert Recovery(Settings()).look().trouble == []
    assert [each.phase for each in journal.release_intents(NAME)] == ["confirmed"]
    assert alias(Settings()) == 1


def test_a_rollback_imports_nothing_heavy(place: Settings):
    """The command's own code loads no learner, no server of others; it is the imports that would take the seconds."""
    program = (
        "import sys; from tasks.rollback import Rollback; from tasks.config.settings import Settings\n"
        f"Rollback('{NAME}', 'bert', 'worse').do(Settings())\n"
        "print(sorted({'sklearn', 'skops', 'mlflow', 'prefect', 'optuna', 'matplotlib', 'scipy', 'deltalake'} & {*sys.modules}))"
    )
    crowned(place, 1, 2)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert Journal(place.journal()).releases(NAME)[-1].version == 1


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("gone", "cannot be read"),
        ("altered", "was altered or damaged"),
        ("manifest", "was altered or damaged"),
        ("libraries", "was written by numpy 1.2.3"),
        ("unsigned", "nobody has signed the model"),
        ("untrusted", "which nobody here trusts"),
    ],
)
def test_o_19_a_version_that_cannot_be_served_stays_away(place: Settings, tmp_path: Path, harm: str, said: str):
    """Its files are gone or altered, other libraries wrote it, or nobody who is trusted signed it: the refusal says so, and the champion is as before."""
    journal = crowned(place, 1, 2)
    folder = place.bundles(NAME) / "1"
    if harm == "gone":
        shutil.rmtree(folder)
    elif harm == "altered":
        (folder / bundles.MODEL).write_bytes(b"another")
    elif harm == "unsigned":
        (folder / SEAL).unlink()
    elif harm == "untrusted":
        another = Seals(tmp_path / "another.pem", tmp_path / "another")
        (folder / SEAL).write_bytes(another.sign(journal.releases(NAME)[0].digest))
    else:
        manifest = json.loads((folder / bundles.MANIFEST).read_bytes())
        manifest["versions"]["numpy"] = "1.2.3"
        (folder / bundles.MANIFEST).write_text(text := json.dumps(manifest))
    if harm == "libraries":
        digest = bundles.hashlib.sha256(text.encode()).hexdigest()
        (folder / SEAL).write_bytes(Seals.of(place).sign(digest))
        journal.release(replace(journal.releases(NAME)[0], generation=3, digest=digest))
        journal.release(replace(journal.releases(NAME)[1], generation=4))
    before = journal.releases(NAME)
    done = back(place, 1)
    assert done["state"] == "refused"
    assert said in done["reason"]
    assert "Version 2 stays champion" in done["reason"]
    assert journal.releases(NAME) == before
    assert [(each.phase, each.generation) for each in journal.release_intents(NAME)] == [("undone", None)]


@pytest.mark.parametrize(
    ("to", "said"),
    [(2, "is the champion already"), (3, "was never champion. Those that were: 1"), (99, "was never champion")],
)
def test_a_rollback_goes_to_a_former_champion_only(place: Settings, to: int, said: str):
    """The champion itself, and what never was one, are refused with what there is."""
    journal = crowned(place, 1, 2)
    done = back(place, to)
    assert done["state"] == "refused"
    assert said in done["reason"]
    assert len(journal.releases(NAME)) == 2


@pytest.mark.parametrize(
    ("past", "said"),
    [
        ((1,), "version 1 is the only one that was ever champion of small, so there is nothing to roll back to. `keepfit train small --again` makes another challenger"),
        ((1, 1), "version 1 is the only one that was ever champion of small"),
        ((1, 2, 1), "nothing of small was champion before version 1; name a version with --to: 2"),
    ],
)  # fmt: skip
def test_without_an_earlier_champion_the_next_move_is_said(place: Settings, past: tuple[int, ...], said: str):
    """Another version is named only where one was champion."""
    crowned(place, *past)
    done = back(place)
    assert done["state"] == "refused"
    assert done["reason"].startswith(said)


@pytest.mark.parametrize("name", ["../small", "small/..", "smаll", "", "a" * 41, "small\n", ".locks", "Small"])
def test_r_12_a_name_that_is_none_is_refused(place: Settings, name: str):
    """Nothing that leads elsewhere, looks alike, or is too long reaches a path or the journal."""
    from tasks.config.project import Project

    with pytest.raises(ProjectError, match="is no name of a project"):
        Rollback(name, "bert", "worse").do(place)
    with pytest.raises(ProjectError, match="is no name of a project"):
        Project.named(name, place)


def test_a_rollback_to_a_version_that_was_deleted_in_mlflow_is_finished(place: Settings):
    """It answers from its bundle; there is no name to move, which is no reason to try for ever."""
    journal = champion(place, 1, 2)
    Registry(NAME, place.mlflow(), place.artifacts).client.delete_model_version(NAME, "1")
    back(place)
    assert Recovery(place).look().trouble == []
    assert journal.release_intents(NAME)[-1].phase == "confirmed"
    assert journal.hand_made(NAME)[-1]["answer"] == "cannot be put back"
    assert Recovery(place).look().model_dump(exclude_defaults=True) == {}


# -- the server ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that answers with version 2, whatever the journal says, and says why."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = {"version": 2, "refused": {NAME: {"version": 1, "generation": 3, "reason": "it does not load"}}}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class calls it so
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("KEEPFIT_SERVING_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("tasks.rollback.PATIENCE", 0.2)
        yield
        server.shutdown()


def test_a_server_that_does_not_follow_is_an_error_that_says_why(place: Settings, stubborn):
    """The rollback stands and is open until the server follows; its reason is told."""
    journal = crowned(place, 1, 2)
    with pytest.raises(KeepfitError, match=r"does not answer with version 1 of small after 0.2 s \(it does not load\)"):
        back(Settings())
    assert journal.releases(NAME)[-1].version == 1
    assert [each.phase for each in journal.release_intents(NAME)] == ["committed"]


def test_a_server_that_is_down_holds_no_rollback_up(place: Settings, monkeypatch: pytest.MonkeyPatch):
    """It has nothing to follow with, and loads the champion when it starts."""
    crowned(place, 1, 2)
    monkeypatch.setenv("KEEPFIT_SERVING_URL", f"http://127.0.0.1:{free_port()}")
    assert back(Settings())["reason"] == "worse; no server runs; it will load the champion when it starts"


# -- what the automation minds ------------------------------------------------------------------------------------------
def test_what_was_rolled_back_comes_back_only_when_a_person_says_so(place: Settings):
    """The automation's release is refused with what lifts it; a person's is not, and lifts it for good."""
    journal = crowned(place, 1, 2)
    back(place)
    refused = Releasing(NAME, place).plan(2, actor=f"{BY_ITSELF}new rows", reason="better")
    assert refused.refused.startswith("version 2 was rolled back by bert on ")
    assert "`keepfit release small 2 --reason TEXT`" in refused.refused
    assert journal.release_intents(NAME)[-1].kind == "rollback"
    crowned(place, 2, 1)
    releases = journal.releases(NAME)
    assert rolled_back(releases, 2) is None
    assert rolled_back(releases[:3], 2) == releases[2]
    assert rolled_back(releases[:3], 1) is None
    assert rolled_back(releases, 3) is None


# -- history ------------------------------------------------------------------------------------------------------------
def at(hours: float) -> str:
    return (NOW + dt.timedelta(hours=hours)).isoformat()


def test_history_lists_every_champion_and_finds_the_one_of_a_time(place: Settings):
    """From and to meet; a time at which one ends and the next begins is the next one's; before the first there is none."""
    journal = crowned(place, 1, 2)
    Rollback(NAME, "bert", "worse", clock=lambda: NOW + dt.timedelta(hours=2)).do(place)
    told = looking.history(NAME, None, place)
    assert [(row["generation"], row["version"], row["kind"], row["actor"], row["reason"]) for row in told["champions"]] == [
        (1, 1, "release", "a test", "a test"), (2, 2, "release", "a test", "a test"), (3, 1, "rollback", "bert", "worse")
    ]  # fmt: skip
    assert [(row["from"], row["to"]) for row in told["champions"]] == [(at(0), at(0)), (at(0), at(2)), (at(2), None)]
    found = {moment: [row["generation"] for row in looking.history(NAME, moment, place)["champions"]] for moment in
             (at(-1), at(1), at(2), at(9000), "2026-03-02", "2026-03-02T03:00:00+01:00")}  # fmt: skip
    assert list(found.values()) == [[], [2], [3], [3], [2], [3]]
    with pytest.raises(MisuseError, match="Wanted: a time like"):
        looking.history(NAME, "yesterday", place)
    assert journal.hand_made(NAME) == []


@pytest.mark.parametrize(
    ("stamps", "since"),
    [
        ((0, 1, 2), (0, 1, 2)),
        ((0, 2, 1), (0, 1, 1)),  # the clock was set back by an hour: the third is newer all the same
        ((0, 9000, 2), (0, 2, 2)),  # it was a year ahead for a while
    ],
)
def test_s_10_the_order_counts_where_clocks_jump(place: Settings, stamps, since):
    """Times of reigns never go back, and the newest release is the champion of now."""
    journal = crowned(place, 1, 2, 3)
    stamped = [replace(release, at=at(hours)) for release, hours in zip(journal.releases(NAME), stamps, strict=True)]
    found = reigns(stamped)
    assert [reign.since.isoformat() for reign in found] == [at(hours) for hours in since]
    assert found[-1].until is None
    assert all(reign.until is None or reign.since <= reign.until for reign in found)
