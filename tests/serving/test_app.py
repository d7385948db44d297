"""The serving process as its clients meet it: a real process on a free port, a real journal, small real models."""

import asyncio
import contextlib
import gzip
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import numpy as np
import psutil
import pytest

from tasks.serving.answers import Refusal
from tasks.serving.bodies import BODY_BYTES, ROWS, question
from tasks.serving.champion import Champion
from tasks.stores import bundles
from tasks.stores.predictions import Predictions
from tests.stage import FEATURES, GOOD, Stage, door, released, until


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A running process whose champion of flights is version 1."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    stage.write(1, 0.2)
    stage.write(2, 0.8)
    stage.release(1)
    stage.start()
    until(stage.answers)
    yield stage
    stage.stop()


def test_a_prediction_is_answered_and_on_record(stage):
    """An answer names its project, version, ids, labels and probabilities, and each is in the log when it is out."""
    answer = stage.predict(GOOD, GOOD | {"id": 7})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["project"], body["version"], len(body["predictions"])) == ("flights", 1, 2)
    first, second = body["predictions"]
    assert first["prediction"] is False
    assert first["probabilities"] == pytest.approx({"false": 0.8, "true": 0.2})
    assert first["id"] != second["id"]
    records = {record["id"]: record for record in Predictions(stage.home).read("flights")}
    record = records[second["id"]]
    assert record.items() >= {"project": "flights", "version": 1, "row": GOOD, "prediction": False}.items()
    assert record["probability"] == second["probabilities"]["true"]
    assert record["at"].endswith("+00:00")
    assert record["ms"] > 0


def test_the_champions_are_listed(stage):
    """The list says who answers since when; one project says also what a row must hold; others are not found."""
    (listed,) = stage.answers("/projects").json()["projects"]
    wanted = {"project": "flights", "version": 1, "generation": 1, "digest": stage.digests[1], "metric": "roc_auc"}
    assert listed.items() >= wanted.items()
    assert stage.answers("/projects/flights").json()["features"] == FEATURES
    missing = httpx.get(f"{stage.url}/projects/SECRET")
    assert missing.status_code == 404
    assert "SECRET" not in missing.text
    assert stage.answers("/healthz")
    assert stage.answers().json() == {
        "ready": True, "projects": {"flights": 1}, "missing": [], "refused": {}, "degraded": {},
        "journal": "readable",
    }  # fmt: skip


def test_the_description_needs_nothing_from_elsewhere(stage):
    """The page and its JSON describe every route and feature, and load nothing over the network."""
    described = stage.answers("/openapi.json").json()
    body = described["paths"]["/projects/flights/predict"]["post"]["requestBody"]["content"]["application/json"]
    row = body["schema"]["properties"]["rows"]["items"]
    assert row["properties"].items() >= {"age": {"type": "number"}, "new": {"type": "boolean"}}.items()
    assert row["required"] == ["age", "new"]
    page = stage.answers("/docs")
    assert "age" in page.text
    assert not re.search(r"https?://|<script|src=", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def rows_text(row):
    """A body with one row, given as JSON text."""
    return b'{"rows":[' + row + b"]}"


HOSTILE = {
    "NaN": rows_text(b'{"age":NaN,"new":true}'),
    "infinity": rows_text(b'{"age":-Infinity,"new":true}'),
    "overflow": rows_text(b'{"age":1e999,"new":true}'),
    "400 digits": rows_text(b'{"age":' + b"9" * 400 + b',"new":true}'),
    "5000 digits": rows_text(b'{"age":' + b"9" * 5000 + b',"new":true}'),
    "a text": rows_text(b'{"age":"SECRET","new":true}'),
    "a bool": rows_text(b'{"age":true,"new":true}'),
    "null": rows_text(b'{"age":null,"new":true}'),
    "too narrow": rows_text(b'{"age":1}'),
    "too wide": rows_text(b'{"age":1,"new":true,"SECRET":1}'),
    "an object inside": rows_text(b'{"age":{"SECRET":1},"new":true}'),
    "a list inside": rows_text(b'{"age":[1],"new":true}'),
    "a row is a number": rows_text(b"1"),
    "a row is null": rows_text(b"null"),
    "rows are null": b'{"rows":null}',
    "rows are an object": b'{"rows":{}}',
    "no rows": b"{}",
    "another field": b'{"rows":[],"SECRET":1}',
    "a list": b"[]",
    "null body": b"null",
    "empty": b"",
    "not JSON": b"SECRET",
    "cut": b'{"rows":[{"age":',
    "trailing": b'{"rows":[]} SECRET',
    "deep": b'{"rows":' + b"[" * 200_000,
    "deep unknown": b'{"SECRET":' + b"[" * 200_000,
    "deep inside": rows_text(b'{"age":' + b'{"a":' * 200_000),
    "bad UTF-8": rows_text(b'{"age":"\xff","new":true}'),
    "bad UTF-8 name": rows_text(b'{"\xff":1,"new":true}'),
    "lone surrogate": rows_text(b'{"age":"\\ud800","new":true}'),
    "byte order mark": b"\xef\xbb\xbf" + rows_text(b'{"age":1,"new":true}'),
    "a name twice": rows_text(b'{"age":1,"age":2,"new":true}'),
    "a name twice, escaped": rows_text(b'{"age":1,"\\u0061ge":2,"new":true}'),
    "rows twice": b'{"rows":[{"age":1,"new":true}],"rows":[{"age":1,"new":true}]}',
    "a form": b"rows=SECRET",
    "too many rows": b'{"rows":[' + b'{"age":1,"new":true},' * ROWS + b'{"age":1,"new":true}]}',
}


def test_v_04_a_hostile_body_gets_a_short_refusal(stage):
    """No body makes the process fail, none is repeated, and it answers the next good one (V-04)."""
    before = stage.log()
    with httpx.Client(base_url=stage.url) as client:
        for name, body in HOSTILE.items():
            answer = client.post("/projects/flights/predict", content=body)
            assert answer.status_code in {400, 413, 422}, name
            assert set(answer.json()) == {"error"}, name
            assert len(answer.content) < 400, name
            assert "SECRET" not in answer.text, name
        for method, path in [("PUT", "/projects/flights/predict"), ("GET", "/SECRET"), ("GET", "/projects/%00%0a/x")]:
            answer = client.request(method, path)
            assert answer.status_code in {404, 405}
            assert "SECRET" not in answer.text
    assert stage.predict().status_code == 200
    assert stage.log() == before


def test_an_explanation_comes_when_it_is_asked_for(stage):
    """With `explain` a prediction has base and contributions, without it is as it was; the log holds neither; too many rows get 422."""
    plain = stage.predict().json()
    asked = httpx.post(f"{stage.url}/projects/flights/predict", json={"rows": [GOOD, GOOD], "explain": True})
    quiet = httpx.post(f"{stage.url}/projects/flights/predict", json={"rows": [GOOD], "explain": False})
    assert asked.status_code == quiet.status_code == 200
    assert set(quiet.json()) == set(plain) == {"project", "version", "predictions"}
    assert set(quiet.json()["predictions"][0]) == set(plain["predictions"][0]) == {"id", "prediction", "probabilities"}
    assert asked.json()["explained"] == {"adds up to": "log-odds of 'true'", "method": "linear"}
    for one in asked.json()["predictions"]:
        assert one["probabilities"] == plain["predictions"][0]["probabilities"]
        log_odds = np.log(one["probabilities"]["true"] / one["probabilities"]["false"])
        assert one["base"] + sum(one["contributions"].values()) == pytest.approx(log_odds)
        assert set(one["contributions"]) == {"age", "new"}
    many = httpx.post(f"{stage.url}/projects/flights/predict", json={"rows": [GOOD] * 101, "explain": True})
    assert many.status_code == 422
    assert "101 rows to explain" in many.json()["error"]
    wrong = httpx.post(f"{stage.url}/projects/flights/predict", json={"rows": [GOOD], "explain": "yes"})
    assert wrong.status_code == 422


def test_a_name_that_stands_twice_is_seen_behind_every_escape():
    """Quotation marks inside texts and names are no second name; a second name is one."""
    odd = {'a"b': '":\\', "c\\": '\\"', ":": "{}", "": None, "ü\n": "ü"}
    for ascii_only in (True, False):
        body = json.dumps({"rows": [odd, odd]}, ensure_ascii=ascii_only).encode()
        assert question(body).rows == [odd, odd]
        for said in (b"true", b"false"):
            explained = body[:-1] + b', "explain": ' + said + b"}"
            assert question(explained).rows == [odd, odd]
            with pytest.raises(Refusal, match="twice"):
                question(explained[:-1] + b', "explain": ' + said + b"}")
        with pytest.raises(Refusal, match="twice"):
            question(body.replace(b'"": null', b'"": null, "": null', 1))


def raw(stage, head, chunks=(), host=None):
    """The status that a raw request gets, and how many bytes of its chunks the server took."""
    taken = 0
    with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as line:
        host = f"127.0.0.1:{stage.port}" if host is None else host
        line.sendall(f"POST /projects/flights/predict HTTP/1.1\r\nHost: {host}\r\n{head}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                line.sendall(chunk)
                taken += len(chunk)
        answer = line.recv(65536)
    return int(answer.split()[1]), taken


def test_v_05_a_big_body_is_refused_without_being_read(stage):
    """A body beyond the limit is refused by its length, or at the limit when it comes in chunks (V-05)."""
    assert raw(stage, "Content-Length: 73000000") == (413, 0)
    assert raw(stage, "Content-Length: 99999999999999999999")[0] in {400, 413}
    assert raw(stage, "Content-Length: -1")[0] == 400
    megabyte = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    status, taken = raw(stage, "Transfer-Encoding: chunked", [megabyte] * 70)
    assert status == 413
    assert taken < BODY_BYTES + (16 << 20)
    assert raw(stage, "Content-Length: 2\r\nContent-Encoding: gzip", [b"{}"])[0] == 415
    assert raw(stage, "Content-Length: 2", [b"{}" + b"x" * 1000])[0] in {400, 422}
    assert stage.predict().status_code == 200


def test_v_05_hostile_sizes_take_no_memory(stage):
    """70 MB by their length, in chunks, or behind a length that lies, and 200 MB in a gzip bomb: the process holds less than 10 MB more afterwards (V-05)."""
    process = psutil.Process(stage.process.pid)
    bomb = gzip.compress(bytes(200 << 20), 1)
    megabyte = bytes(1 << 20)
    assert stage.predict().status_code == 200
    before, statuses = process.memory_info().rss, []
    for head, chunks in (
        ("Content-Length: 73000000", [megabyte] * 70),
        ("Transfer-Encoding: chunked", [b"100000\r\n" + megabyte + b"\r\n"] * 70),
        ("Content-Length: 2", [b"{}", *[megabyte] * 70]),
        (f"Content-Length: {len(bomb)}\r\nContent-Encoding: gzip", [bomb]),
    ):
        with contextlib.suppress(ConnectionError):
            statuses.append(raw(stage, head, chunks)[0])
        assert process.memory_info().rss < before + 10_000_000
    assert set(statuses) <= {400, 413, 415, 422}
    assert stage.predict().status_code == 200


def test_a_page_of_another_site_is_refused(stage):
    """Other Hosts and other Origins are refused: a web page cannot use its visitor's way to this server."""
    own = f"127.0.0.1:{stage.port}"
    for host in ("evil.example", f"evil.example:{stage.port}", "", "127.0.0.1@evil.example", "127.0.0.1.evil.example"):
        assert raw(stage, "Content-Length: 2", [b"{}"], host=host)[0] == 400, host
    for host in (own, f"localhost:{stage.port}", f"[::1]:{stage.port}", "LOCALHOST"):
        assert raw(stage, "Content-Length: 2", [b"{}"], host=host)[0] == 422, host
    others = ("http://evil.example", "null", "", "http://[", "http://127.0.0.1:4200", f"http://{own}.evil.example")
    for origin in others:
        assert stage.predict(headers={"Origin": origin}).status_code == 403, origin
        assert httpx.get(f"{stage.url}/projects", headers={"Origin": origin}).status_code == 403, origin
    assert stage.predict(headers={"Origin": f"http://{own}"}).status_code == 200


def test_v_15_invented_names_make_no_new_series(stage):
    """Requests for names that nobody released are counted together (V-15)."""
    with httpx.Client(base_url=stage.url) as client:
        client.get("/invented")
        client.get("/projects/invented")
        client.get("/metrics")
        before = len(client.get("/metrics").text.splitlines())
        for n in range(200):
            client.get(f"/invented/{n}")
            client.get(f"/projects/invented-{n}")
        metrics = client.get("/metrics").text
    assert abs(len(metrics.splitlines()) - before) <= 2  # the line that counts /metrics itself
    assert "invented" not in metrics
    assert 'keepfit_champion_version{project="flights"} 1.0' in metrics


def test_r_02_a_swapped_bundle_is_refused_and_the_old_champion_stays(stage):
    """Bytes that are not the released ones never answer; the old champion does, and two pages say why (R-02)."""
    version = stage.version()
    stage.write(3, 0.6)
    path = stage.home / "bundles" / "flights" / "3" / bundles.MODEL
    good = path.read_bytes()
    path.write_bytes((stage.home / "bundles" / "flights" / "2" / bundles.MODEL).read_bytes())
    stage.release(3)
    refused = until(lambda: stage.answers().json()["refused"].get("flights"))
    assert "altered or damaged" in refused["reason"]
    assert stage.answers("/projects").json()["projects"][0]["refused"] == refused
    assert stage.predict().json()["version"] == version
    assert 'keepfit_release_refused{project="flights"} 1.0' in stage.answers("/metrics").text
    path.write_bytes(good)
    until(lambda: stage.version() == 3)
    assert stage.answers().json()["refused"] == {}


def test_v_02_a_killed_server_answers_again_with_the_same_champion(stage):
    """After SIGKILL amid requests a new process answers with the last champion, and no answered prediction is lost."""
    version = stage.version()
    known = []

    def ask():
        with contextlib.suppress(httpx.TransportError):
            while True:
                known.extend(stage.predict().json()["predictions"])

    crowd = threading.Thread(target=ask)
    crowd.start()
    until(lambda: len(known) > 10)
    stage.stop(signal.SIGKILL)
    crowd.join()
    stage.start()
    assert until(stage.version) == version
    assert stage.predict().json()["version"] == version
    logged = {record["id"] for record in Predictions(stage.home).read("flights")}
    assert {prediction["id"] for prediction in known} <= logged


def test_v_08_a_stopped_server_finishes_what_it_has_begun(stage):
    """SIGTERM ends the process, and a request whose body was already arriving is answered before (V-08)."""
    body = json.dumps({"rows": [GOOD]}).encode()
    with socket.create_connection(("127.0.0.1", stage.port), timeout=20) as line:
        head = f"POST /projects/flights/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body[:5])
        until(lambda: stage.answers("/healthz"))
        stage.process.send_signal(signal.SIGTERM)
        until(lambda: not stage.answers("/healthz"))
        line.sendall(body[5:])
        assert line.recv(65536).startswith(b"HTTP/1.1 200")
    assert stage.process.wait(20) in {0, -signal.SIGTERM}
    assert "Traceback" not in stage.log()
    assert str(GOOD["age"]) not in stage.log()


def test_v_08_a_stopped_server_is_not_ready_first_and_answers_meanwhile(stage):
    """Told to stop under load it says at once that it is not ready and goes on answering; every request that has begun is answered, and it ends (V-08)."""
    if stage.process.poll() is None:
        stage.stop()
    stage.start(DRAIN_SECONDS=3)
    until(stage.version, 60)
    statuses, is_over = [], threading.Event()

    def ask():
        with httpx.Client(base_url=stage.url, timeout=30) as client:
            while not is_over.is_set():
                statuses.append(client.post("/projects/flights/predict", json={"rows": [GOOD]}).status_code)

    crowd = [threading.Thread(target=ask) for _ in range(4)]
    for one in crowd:
        one.start()
    body = json.dumps({"rows": [GOOD]}).encode()
    with socket.create_connection(("127.0.0.1", stage.port), timeout=30) as line:
        head = f"POST /projects/flights/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body[:5])
        until(lambda: len(statuses) > 20)
        stage.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{stage.url}/readyz").status_code == 503)
        assert {stage.predict().status_code for _ in range(5)} == {200}
        answered = len(statuses)
        until(lambda: len(statuses) > answered)
        is_over.set()  # a balancer sends nobody here any more
        for one in crowd:
            one.join()
        until(lambda: not stage.answers("/healthz"))
        line.sendall(body[5:])
        assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert stage.process.wait(10) in {0, -signal.SIGTERM}
    assert set(statuses) == {200}
    assert "Traceback" not in stage.log()


# -- in this process --------------------------------------------------------------------------------------------------
@pytest.fixture
def small(tmp_path):
    """A home in which version 1 of flights is released; no process."""
    return released(tmp_path)


def test_v_07_beyond_the_limit_requests_are_told_to_come_back(small):
    """Requests above the bound get 429 and a time to wait; when the others are done they are answered (V-07)."""

    async def scene():
        opened, client = door(small.home, in_flight=2)
        opened.succession.look()
        body = {"rows": [GOOD] * 2000}
        answers = await asyncio.gather(*(client.post("/projects/flights/predict", json=body) for _ in range(12)))
        later = await client.post("/projects/flights/predict", json=body)
        return answers, later

    answers, later = asyncio.run(scene())
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 2
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 429} == {"1"}
    assert later.status_code == 200


def test_a_project_without_a_whole_champion_makes_the_server_unready(small):
    """A released project that nobody answers for is 503 and named; before the journal is read nothing is ready."""
    (small.home / "bundles" / "flights" / "1" / bundles.MODEL).write_bytes(b"")

    async def scene():
        opened, client = door(small.home)
        before = [await client.get("/readyz"), await client.post("/projects/flights/predict", json={"rows": [GOOD]})]
        opened.succession.look()
        return before, await client.get("/readyz"), await client.post("/projects/flights/predict", json={"rows": []})

    before, ready, predicted = asyncio.run(scene())
    assert [answer.status_code for answer in before] == [503, 503]
    assert ready.status_code == 503
    assert ready.json()["missing"] == ["flights"]
    assert "altered or damaged" in ready.json()["refused"]["flights"]["reason"]
    assert predicted.status_code == 503
    assert predicted.headers["retry-after"] == "5"


def test_v_10_disk_trouble_costs_log_lines_and_no_answers(small, monkeypatch):
    """With a full disk requests are answered, and the metrics count what is missing in the log (V-10)."""

    def full(_handle, _content):
        raise OSError(28, "No space left on device")

    async def scene():
        opened, client = door(small.home)
        opened.succession.look()
        monkeypatch.setattr(os, "writev", full)
        answer = await client.post("/projects/flights/predict", json={"rows": [GOOD] * 3})
        return answer, await client.get("/metrics")

    answer, metrics = asyncio.run(scene())
    assert answer.status_code == 200
    assert 'keepfit_predictions_unlogged_total{project="flights"} 3.0' in metrics.text


def test_v_14_a_fault_is_one_sentence_outside_and_a_place_inside(small, monkeypatch, caplog):
    """A model that fails answers 500 without a trace; neither the answer nor the log repeats the input (V-14)."""

    def fail(_champion, rows):
        raise RuntimeError(f"SECRET {rows}")

    async def scene():
        opened, client = door(small.home)
        opened.succession.look()
        monkeypatch.setattr(Champion, "score", fail)
        return await client.post("/projects/flights/predict", json={"rows": [GOOD]})

    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(scene())
    assert answer.status_code == 500
    assert set(answer.json()) == {"error"}
    assert "SECRET" not in answer.text + caplog.text
    assert "RuntimeError at fail:" in caplog.text


def test_the_server_needs_neither_prefect_nor_mlflow():
    """Importing and building the door loads none of the big programs, and no learning library before a bundle does."""
    code = (
        "import sys, tempfile, pathlib; from tasks.config.settings import Settings; from tasks.serving.app import Door;"
        "Door(Settings(home=pathlib.Path(tempfile.mkdtemp()))).app();"
        "print([name for name in ('prefect', 'mlflow', 'optuna', 'fastapi', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
