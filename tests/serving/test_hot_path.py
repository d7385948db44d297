"""The hot path: a real serving process answers with a compiled model alone, and keeps what it has verified."""

import contextlib
import dataclasses
import hashlib
import math
import re
import shutil
import signal
import socket
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from flows.stack import doctor
from tasks.config.errors import ArtifactError
from tasks.config.settings import Settings
from tasks.ml import threads
from tasks.ml.compiled import parity
from tasks.ml.kinds import Binary
from tasks.ml.metrics import Cost
from tasks.serving import arrow
from tasks.serving.answers import Refusal
from tasks.serving.app import Door
from tasks.serving.beside import Own
from tasks.serving.champion import Champion, RowError
from tasks.serving.predicting import _said_at_once, _size
from tasks.serving.protocols import MLFLOW, OWN
from tasks.serving.quick import PATIENCE, QUICK_BYTES
from tasks.serving.reading import OWN_FIELD
from tasks.stores import artifacts, bundles
from tasks.stores.journal import Journal, Release
from tasks.stores.predictions import Predictions
from tests.serving.test_app import Stage, until
from tests.serving.test_champion import FEATURES, GOOD, fitted, manifest, release, table

KIND = Binary("late", positive=True, labels=("false", "true"), cost=Cost())
CLASSES = {"classes": ["false", "true"], "positive": "true"}
ID = re.compile(rb"[0-9a-f]{32}")
HEAVY = ("/pandas/", "/sklearn/")  # folders of their compiled parts


class Labelled:
    """The pipeline of test_champion, or another, taught with the labels as texts."""

    def __init__(self, model: Pipeline | None = None, names: list[str] | None = None) -> None:
        """`names` are the columns that the model sees; without any, all."""
        rows, target = table()
        rows = rows[names] if names else rows
        with threads.limited(1):
            self.model = model or fitted()
            self.model.fit(rows, KIND.taught(target.astype(int)))
        self.rows, self.made = rows, parity.compiled(KIND, self.model, rows, {"threshold": 0.3})

    def write(self, folder: Path, version: int = 1, beside: dict[str, bytes] | None = None, **changes: object) -> str:
        """The compiled bundle of a version, with more files; gives its digest."""
        files = bundles.compiled(self.made.form, self.made.graph) | (beside or {})
        return bundles.write(folder, self.model, manifest(version, **CLASSES, **self.made.described()) | changes, files)


@pytest.fixture(scope="module")
def labelled() -> Labelled:
    """One fitted and compiled pipeline for all tests."""
    return Labelled()


@pytest.fixture
def stage(tmp_path, labelled):
    """A running process whose champion of flights is version 1, compiled."""
    stage = Stage(tmp_path)
    stage.digests[1] = labelled.write(tmp_path / "bundles" / "flights" / "1")
    stage.release(1)
    stage.start()
    until(lambda: stage.version() == 1)
    yield stage
    stage.stop()


def loaded_parts(process) -> str:
    """Every compiled library that a process has loaded, pandas' and scikit-learn's among them once they are imported."""
    return Path(f"/proc/{process.pid}/maps").read_text()


def test_a_process_that_has_answered_holds_neither_pandas_nor_scikit_learn(stage, labelled):
    """One row and many, right ones and wrong ones are answered without either; an explanation imports them, and is right."""
    answer = stage.predict(GOOD, dict.fromkeys(["age", "sex"]) | {"visits": 1, "new": False, "id": 3}).json()
    assert stage.predict({"visits": 1}).status_code == 422
    assert len(stage.predict(*[GOOD] * 500).json()["predictions"]) == 500
    assert stage.answers("/projects/flights").json()["version"] == 1
    assert not [name for name in HEAVY if name in loaded_parts(stage.process)]
    assert "/onnxruntime/" in loaded_parts(stage.process)
    chances = labelled.model.predict_proba(table()[0].iloc[:1].assign(**GOOD | {"new": 1.0}))[0]
    assert list(answer["predictions"][0]["probabilities"].values()) == chances.tolist()
    asked = httpx.post(f"{stage.url}/projects/flights/predict", json={"rows": [GOOD], "explain": True}, timeout=60)
    assert asked.json()["predictions"][0]["contributions"].keys() == {"age", "visits", "sex", "new"}
    assert all(name in loaded_parts(stage.process) for name in HEAVY)


@pytest.mark.parametrize("removed", [False, True])
def test_r_05_a_file_that_no_server_reads_is_named_when_it_was_altered_before_the_load(tmp_path, labelled, removed):
    """The champion answers, and the page says what is amiss beside it, after a second start, too; when it is mended nothing is (R-05)."""
    settings = Settings(home=tmp_path, bundle_keys=Settings().signers)
    folder = settings.bundles("flights") / "1"
    digest = labelled.write(folder, beside={"footprint.json": b"{}"})
    Journal(settings.journal()).release(release(1, 1, digest))
    if removed:
        (folder / "footprint.json").unlink()
    else:
        (folder / "footprint.json").write_bytes(b"[]")
    for _ in range(2):
        succession = Door(settings).succession
        succession.look()
        assert succession.champions["flights"].release.version == 1
        assert "footprint.json" in succession.degraded["flights"]
    (folder / "footprint.json").write_bytes(b"{}")
    succession.look()
    assert succession.degraded == {}


@pytest.mark.parametrize("name", [bundles.FORM, bundles.GRAPH, bundles.MODEL, bundles.MANIFEST])
def test_r_05_an_overwritten_champion_is_answered_from_memory_and_after_a_kill_from_the_copy(stage, name):
    """Whichever file is overwritten, the answers stay, two pages and `doctor` name it; so after a restart (R-02, R-05)."""
    path = stage.home / "bundles" / "flights" / "1" / name
    before = stage.predict(GOOD).json()["predictions"][0]["probabilities"]
    path.write_bytes(b"another model")
    until(lambda: name in stage.answers().json()["degraded"].get("flights", ""))
    assert stage.predict(GOOD).json()["predictions"][0]["probabilities"] == before
    stage.stop(signal.SIGKILL)
    stage.start()
    until(lambda: name in stage.answers().json()["degraded"].get("flights", "") if stage.answers() else None)
    assert stage.predict(GOOD).json()["predictions"][0]["probabilities"] == before
    assert f"{name} has the SHA-256" in stage.log()
    found = {each["check"]: each for each in doctor._check_champions(Settings(home=stage.home))}
    assert not found["champion of flights"]["ok"]
    assert name in found["champion of flights"]["detail"]


def test_r_05_after_its_bundle_is_deleted_a_champion_comes_back_from_the_copy_and_the_next_one_comes(stage, labelled):
    """With the whole folder gone a killed process answers as before and says that it is degraded; the next promotion ends that (R-05)."""
    before = stage.predict(GOOD).json()["predictions"][0]["probabilities"]
    shutil.rmtree(stage.home / "bundles" / "flights" / "1")
    until(lambda: "flights" in stage.answers().json()["degraded"])
    stage.stop(signal.SIGKILL)
    stage.start()
    until(lambda: "flights" in _page(stage).get("degraded", {}))
    assert stage.version() == 1
    assert stage.predict(GOOD).json()["predictions"][0]["probabilities"] == before
    stage.digests[2] = labelled.write(stage.home / "bundles" / "flights" / "2", version=2)
    stage.release(2)
    until(lambda: stage.version() == 2)
    assert stage.predict(GOOD).json()["version"] == 2
    assert stage.answers().json()["degraded"] == {}


def test_r_02_without_a_copy_an_altered_bundle_is_refused_at_restart(stage):
    """A process that never had the released bytes does not answer with others; the page says which file, and what to do (R-02)."""
    stage.stop()
    shutil.rmtree(stage.home / "served")
    (stage.home / "bundles" / "flights" / "1" / bundles.GRAPH).write_bytes(b"another model")
    stage.start()
    refused = until(lambda: _page(stage).get("refused", {}).get("flights"))
    assert f"{bundles.GRAPH} has the SHA-256" in refused["reason"]
    assert "restore it from a copy, or release another version" in refused["reason"]
    assert stage.predict(GOOD).status_code == 503


def _page(stage):
    try:
        return httpx.get(f"{stage.url}/readyz").json()
    except httpx.TransportError:
        return {}


def test_the_doctor_finds_a_whole_champion_well(tmp_path, labelled):
    """A bundle as it was released, signed by somebody who is trusted, is no finding; before anything is released nothing is looked at."""
    settings = Settings(home=tmp_path, bundle_keys=Settings().signers)
    assert doctor._check_champions(settings) == []
    digest = labelled.write(settings.bundles("flights") / "1")
    Journal(settings.journal()).release(release(1, 1, digest))
    (found,) = doctor._check_champions(settings)
    assert (found["ok"], found["next"]) == (True, "")


def test_copies_of_champions_do_not_pile_up(tmp_path, labelled):
    """Of many releases the last few copies stay, the one that answers among them, after a way back, too (R-05)."""
    settings = Settings(home=tmp_path, bundle_keys=Settings().signers)
    journal, succession = Journal(settings.journal()), Door(settings).succession
    digests = {version: labelled.write(settings.bundles("flights") / str(version), version) for version in range(1, 6)}
    for generation, version in enumerate([1, 2, 3, 4, 5, 1], start=1):
        journal.release(release(generation, version, digests[version]))
        succession.look()
        assert succession.champions["flights"].release.version == version
        kept = [path.name for path in (tmp_path / "served" / "flights").iterdir()]
        assert any(name.startswith(f"{version}-") for name in kept)
        assert len(kept) <= 3
    assert succession.degraded == {}


def test_v_03_a_compiled_model_that_fails_its_warm_up_is_refused(tmp_path, labelled):
    """A form of another model, whose classes or columns are not the manifest's, and a graph that is none do not become champion (V-03)."""
    changes = {"classes": ["no", "yes"], "positive": "yes"}
    digest = labelled.write(tmp_path / "1", **changes)
    with pytest.raises(ArtifactError, match="classes"):
        Champion.load(tmp_path / "1", release(1, 1, digest))
    features = [*manifest()["features"][:3], {"name": "old", "type": "bool", "nullable": False}]
    digest = labelled.write(tmp_path / "2", features=features)
    with pytest.raises(ArtifactError, match="new, old"):
        Champion.load(tmp_path / "2", Release(*release(1, 1, digest).__dict__.values()))
    files = bundles.compiled(labelled.made.form, b"no graph")
    digest = bundles.write(tmp_path / "3", labelled.model, manifest(**CLASSES), files)
    with pytest.raises(ArtifactError, match=f"{bundles.GRAPH} does not load"):
        Champion.load(tmp_path / "3", release(1, 1, digest))
    digest = bundles.write(
        tmp_path / "4", labelled.model, manifest(**CLASSES), bundles.compiled(labelled.made.form, None)
    )
    with pytest.raises(ArtifactError, match=f"needs {bundles.GRAPH}"):
        Champion.load(tmp_path / "4", release(1, 1, digest))


def test_a_compiled_champion_answers_as_one_that_is_not(tmp_path, labelled):
    """Labels, probabilities and refusals are those of the same model served by scikit-learn, for every row."""
    quick = Champion.load(tmp_path / "1", release(1, 1, labelled.write(tmp_path / "1")))
    digest = bundles.write(tmp_path / "2", labelled.model, manifest(**CLASSES))
    slow = Champion.load(tmp_path / "2", release(1, 1, digest))
    assert quick.is_quick
    assert not slow.is_quick
    rows = [
        {
            "age": None if math.isnan(age) else age,
            "visits": visits,
            "sex": sex if isinstance(sex, str) else None,
            "new": bool(new),
        }
        for age, visits, sex, new in labelled.rows.itertuples(index=False)
    ]
    assert quick.predict(rows) == slow.predict(rows)
    assert quick.predict([]) == []


def test_a_file_of_mlflow_that_was_overwritten_is_named(tmp_path):
    """What MLflow keeps of the champion is compared with what was logged; the server does not read it, and goes on."""
    settings = Settings(home=tmp_path, bundle_keys=Settings().signers)
    kept = settings.artifacts / "1" / "models" / "m-7" / "artifacts" / "model.skops"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"as it was logged")
    files = artifacts.recorded(settings.artifacts, "m-7")
    assert files == {"1/models/m-7/artifacts/model.skops": hashlib.sha256(b"as it was logged").hexdigest()}
    assert artifacts.fault(settings.artifacts, files) == ""
    kept.write_bytes(b"another")
    assert f"{kept} is another file" in artifacts.fault(settings.artifacts, files)
    kept.unlink()
    assert f"{kept} is gone" in artifacts.fault(settings.artifacts, files)
    assert artifacts.recorded(settings.artifacts, "m-8") == {}


def test_v_06_a_small_body_that_comes_slowly_is_answered_all_the_same(stage):
    """Headers first and the body in pieces: what the quick way does not wait for is answered by the usual one, with every byte."""
    body = msgspec.json.encode({"rows": [GOOD]})
    with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as line:
        head = f"POST /projects/flights/predict HTTP/1.1\r\nHost: 127.0.0.1:{stage.port}\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode())
        line.settimeout(4 * PATIENCE)
        with pytest.raises(TimeoutError):  # nothing comes back before the body is there, and the quick way has given up
            line.recv(1)
        line.settimeout(20)
        line.sendall(body[:10])
        line.sendall(body[10:])
        answer = line.recv(65_536)
        while b'"prediction"' not in answer and (more := line.recv(65_536)):  # head and body may come apart
            answer += more
    assert b" 200 " in answer.split(b"\r\n")[0]
    assert b'"prediction"' in answer


def asking(body, **headers):
    """The bytes of a request."""
    lines = {"Host": "localhost", "Content-Length": str(len(body))} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /projects/flights/predict HTTP/1.1\r\n{head}\r\n".encode() + body


def heard(stream):
    """The status and the body of the next answer on a connection."""
    status = int(stream.readline().split(b" ")[1])
    lines = dict(line.lower().split(b": ") for line in iter(stream.readline, b"\r\n"))
    return status, msgspec.json.decode(stream.read(int(lines[b"content-length"])))


def told(line, body, **headers):
    """The status and the body of the answer to a request on an open connection."""
    line.sendall(asking(body, **headers))
    return heard(line.makefile("rb"))


def test_v_09_who_was_let_in_on_a_connection_is_let_in_again_with_the_same_head_and_no_other(stage):
    """What is answered past the guard is what the guard let in; another host or origin, a wrong row and an end are told so (V-09)."""
    rows = [GOOD | {"visits": visits} for visits in (1, 10, 100, 1000)]
    with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as line:
        found = [told(line, msgspec.json.encode({"rows": [row]})) for row in rows]
        assert [status for status, _ in found] == [200] * 4
        right = msgspec.json.encode({"rows": [GOOD]})
        assert told(line, right, Host="elsewhere.example")[0] == 400
        assert told(line, right, Origin="https://elsewhere.example")[0] == 403
        assert told(line, b'{"rows":[{"visits":1}]}')[0] == 422
        assert told(line, b"{")[0] == 400
        found.append(told(line, right))
        found += [told(line, right, Connection="close")]
        assert line.recv(1) == b""
    answered = [answer["predictions"][0] for _, answer in found]
    logged = {record["id"]: record for record in Predictions(stage.home).read("flights")}
    assert [logged[one["id"]]["row"]["visits"] for one in answered] == [
        1,
        10,
        100,
        1000,
        GOOD["visits"],
        GOOD["visits"],
    ]
    assert len(logged) == len(answered)
    page = stage.answers("/metrics").text
    assert 'keepfit_requests_total{project="flights",route="predict",status="200"} 6.0' in page
    assert 'keepfit_predictions_total{project="flights"} 6.0' in page


def test_v_01_an_open_connection_meets_the_next_champion(stage, labelled):
    """A head that was let in says nothing about who answers: after a release the same connection is answered by the new version (V-01)."""
    body = msgspec.json.encode({"rows": [GOOD]})
    with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as line:
        assert [told(line, body)[1]["version"] for _ in range(3)] == [1, 1, 1]
        stage.digests[2] = labelled.write(stage.home / "bundles" / "flights" / "2", 2)
        stage.release(2)
        until(lambda: told(line, body)[1]["version"] == 2)


def weighted():
    """A pipeline whose model is a weighted sum of the numbers."""
    prepare = ColumnTransformer([("numbers", SimpleImputer(), ["age", "visits", "new"])])
    return Pipeline([("prepare", prepare), ("model", LogisticRegression())])


def opened(home, made):
    """A door whose champion of flights is a compiled pipeline."""
    settings = Settings(home=home, bundle_keys=Settings().signers)
    features = [each for each in FEATURES if each["name"] in made.made.form.columns]
    digest = made.write(settings.bundles("flights") / "1", features=features)
    Journal(settings.journal()).release(release(1, 1, digest))
    door = Door(settings)
    door.succession.look()
    return door, [each["name"] for each in features]


@pytest.mark.parametrize("protocol", [OWN, MLFLOW], ids=["own", "mlflow"])
@pytest.mark.parametrize("kind", ["boosted", "forest", "weighted"])
def test_requests_that_are_answered_together_are_answered_as_each_alone(tmp_path, labelled, kind, protocol):
    """Many bodies at once have the answers, byte for byte but for the ids, that each has alone, and each row is logged once.

    What is no right body, or has no answer, goes the usual way, and leaves the others alone.
    """
    models = {"forest": Pipeline([fitted().steps[0], ("model", RandomForestClassifier(20, random_state=0))]), "weighted": weighted()}  # fmt: skip
    door, names = opened(tmp_path, Labelled(models[kind]) if kind in models else labelled)
    rows = [{name: (GOOD | {"age": 7.0 * n + 0.1, "visits": n})[name] for name in names} for n in range(9)]
    asked = [[*rows[: n % 3], rows[n]] for n in range(9)]
    asked[4:4] = [[rows[0] | {"age": 1e300}], [{}]]
    bodies = [msgspec.json.encode({protocol.field: some}) for some in asked]
    bodies.insert(4, b"{")
    together = door.at_once(("flights", protocol), bodies)
    alone = [door.at_once(("flights", protocol), [body])[0] for body in bodies]
    assert [each is None for each in together] == [n in {4, 6} or (n == 5 and kind == "forest") for n in range(12)]
    told = [msgspec.json.decode(each) for each in [*together, *alone] if each]
    ids = [one.get("ids") or [each["id"] for each in one["predictions"]] for one in told]
    logged = [record["id"] for record in Predictions(tmp_path).read("flights")]
    assert sorted(logged) == sorted(name for some in ids for name in some)
    assert [each and ID.sub(b"", each) for each in together] == [each and ID.sub(b"", each) for each in alone]


@pytest.mark.parametrize("asked", [[GOOD], [GOOD, GOOD | {"age": 70.0}, GOOD], []])
def test_mlflow_s_words_mean_the_same_on_the_quick_way(stage, asked):
    """A small body, again over the same connection, and with blanks, which goes the usual way: each has the predictions of keepfit's own words, and is counted under its name."""
    before, body = counted(stage), msgspec.json.encode({"dataframe_records": asked})
    with httpx.Client() as client:
        answers = [
            client.post(f"{stage.url}/invocations/flights", content=content)
            for content in (body, body, body + b" " * QUICK_BYTES)
        ]
    assert [each.status_code for each in answers] == [200] * 3
    told = [each.json() for each in answers]
    own = httpx.post(f"{stage.url}/projects/flights/predict", json={"rows": asked}).json()["predictions"]
    assert [list(each) for each in told] == [["predictions", "ids"]] * 3
    assert [each["predictions"] for each in told] == [[one["prediction"] for one in own]] * 3
    assert len({name for each in told for name in each["ids"]}) == 3 * len(asked)
    assert counted(stage) - before == 3


def counted(stage):
    """How many invocations were answered well."""
    name = 'keepfit_requests_total{project="flights",route="invocations",status="200"} '
    return sum(
        float(line.removeprefix(name)) for line in stage.answers("/metrics").text.splitlines() if line.startswith(name)
    )


@pytest.mark.parametrize("first", [True, False])
def test_v_06_a_connection_that_falls_silent_is_closed(stage, first):
    """Whether its head was known before it came or not, a client that says nothing more for five seconds costs nothing any more (V-06)."""
    body = msgspec.json.encode({"rows": [GOOD]})
    marked = f"X-Mark: {first}"
    head = (
        f"POST /projects/flights/predict HTTP/1.1\r\nHost: localhost\r\n{marked}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(1 if first else 2):
        with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as line:
            line.sendall(head.encode() + body)
            answer = b"".join(iter(lambda line=line: line.recv(65536), b""))  # until the server closes it
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b'"id"') == 1


def test_what_may_take_long_is_not_answered_in_the_loop(tmp_path, labelled):
    """A size says whether the last body of it was quick; explanations, however their name is written, columns, and code of a project's own have none."""
    door, names = opened(tmp_path, labelled)
    champion = door.succession.champions["flights"]
    row = {name: GOOD[name] for name in names}
    bodies = [msgspec.json.encode({"rows": [row] * count}) for count in (1, 100, 120)]
    sizes = [_size(champion, OWN, body) for body in bodies]
    assert sizes[0] != sizes[1] == sizes[2] is not None
    for name in (b'"explain"', b'"\\u0065xplain"'):
        assert _size(champion, OWN, bodies[0][:-1] + b"," + name + b":true}") is None
    assert _size(champion, arrow.ARROW, bodies[0]) is None
    assert _size(dataclasses.replace(champion, computing=cast(Any, object())), OWN, bodies[0]) is None
    assert _size(champion, OWN, bodies[0] + b" " * (64 << 10)) is None


def test_v_05_what_is_refused_slowly_is_refused_in_a_thread_the_next_time(tmp_path, labelled):
    """A refusal tells of the next body of its size, too (V-05)."""
    door, _ = opened(tmp_path, labelled)
    champion = door.succession.champions["flights"]
    body = msgspec.json.encode({"dataframe_split": {"columns": [f"c{n}" for n in range(3000)], "data": [[1] * 3000]}})
    size = _size(champion, MLFLOW, body)
    assert size is not None
    with pytest.raises(Refusal):
        door.predicting._answer(champion, MLFLOW, body, Own(), size, small=False)
    assert door.predicting._paces[size] > 0


def test_what_no_model_can_answer_leaves_those_beside_it_alone(tmp_path, monkeypatch):
    """A model that raises whatever it likes at one body: the others are answered and logged once; a number too large is refused with 422."""
    door, names = opened(tmp_path, Labelled(weighted()))
    bodies = [msgspec.json.encode({"rows": [{name: GOOD[name] for name in names} | {"visits": n}]}) for n in (1, 2, 3)]
    usual = Champion.answer

    def sometimes(champion, asked):
        if asked.values[0][names.index("visits")] == 3:
            raise ArithmeticError
        return usual(champion, asked)

    monkeypatch.setattr(Champion, "answer", sometimes)
    assert [each is None for each in door.at_once(("flights", OWN), bodies)] == [False, False, True]
    assert len(list(Predictions(tmp_path).read("flights"))) == 2
    champion = door.succession.champions["flights"]
    with pytest.raises(RowError, match="no answer for a value"):
        champion._holds(np.array([[np.nan, 1.0]]), 1)
    champion._holds(np.array([[1e308, 1e308]]), 1)  # each is a number, though their sum is none


def test_the_other_model_of_a_rollout_meets_what_was_sent(tmp_path):
    """Not what the champion reads of it and the log keeps: the challenger may read a column more."""
    door, names = opened(tmp_path, Labelled(weighted()))
    champion, sent = door.succession.champions["flights"], {name: GOOD[name] for name in names} | {"id": 7}
    body = msgspec.json.encode({"rows": [sent]})
    read = champion.read(body, OWN_FIELD)
    assert read is not None
    pair: Any = object()
    said = _said_at_once(champion, OWN, read, body, Own(pair), 0.0)
    assert said is not None
    assert said[0].rows == [sent]
    assert "id" not in msgspec.json.decode(read.rows[0])


def test_many_connections_at_once_get_each_its_own_answer(stage):
    """What arrives together is answered together: every connection has the answer to its own row, and what comes behind it in order."""
    bodies = [
        msgspec.json.encode({"rows": [GOOD | {"age": 35.0 + 10 * (n % 2), "sex": "fm"[n // 2 % 2]}]}) for n in range(12)
    ]
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(socket.create_connection(("127.0.0.1", stage.port), timeout=20)) for _ in range(12)
        ]
        chances = [told(lines[0], body)[1]["predictions"][0]["probabilities"] for body in bodies]
        assert chances != chances[::-1]
        for line in lines[1:]:
            told(line, bodies[0])
        for _ in range(5):
            for line, first, second in zip(lines, bodies, reversed(bodies), strict=True):
                line.sendall(asking(first))
                line.sendall(asking(second))
            for line, first, second in zip(lines, chances, reversed(chances), strict=True):
                stream = line.makefile("rb")
                assert [heard(stream)[1]["predictions"][0]["probabilities"] for _ in range(2)] == [first, second]
