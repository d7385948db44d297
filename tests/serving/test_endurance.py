"""The serving process under load and ill will: swaps, overload, slow and vanished clients, a jumping clock, long runs."""

import asyncio
import contextlib
import datetime as dt
import json
import logging
import threading
import time

import httpx
import psutil
import pytest

from tasks.serving.champion import Champion
from tasks.stores.predictions import Predictions
from tests.stage import GOOD, Stage, door, released, until

BODY = json.dumps({"rows": [GOOD]}).encode()
HEAD = b"POST /projects/flights/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(BODY)
CHANCES = {1: 0.2, 2: 0.8}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A running process with two constant models; version 1 is champion."""
    stage = Stage(tmp_path_factory.mktemp("endurance"))
    for version, chance in CHANCES.items():
        stage.write(version, chance)
    stage.release(1)
    stage.start()
    until(stage.version, 60)
    yield stage
    stage.stop()


async def load(stage, stop):
    """Asks with eight clients until told to stop; gives every answer, and raises when a request fails."""

    async def ask(client):
        answers = []
        while not stop.is_set():
            answer = await client.post("/projects/flights/predict", json={"rows": [GOOD, GOOD]})
            answers.append((answer.status_code, answer.json()))
        return answers

    async with httpx.AsyncClient(base_url=stage.url, timeout=30) as client:
        return [answer for answers in await asyncio.gather(*(ask(client) for _ in range(8))) for answer in answers]


def swapped(stage, swaps):
    """Swaps champions under load so often; nothing fails, each score is that of its version, and everything is on record."""
    stop, answers = threading.Event(), []
    crowd = threading.Thread(target=lambda: answers.extend(asyncio.run(load(stage, stop))))
    crowd.start()
    try:
        for swap in range(swaps):
            stage.release(2 - swap % 2)
            until(lambda wanted=2 - swap % 2: stage.version() == wanted)
    finally:
        stop.set()
        crowd.join()
    assert {status for status, _ in answers} == {200}
    assert {body["version"] for _, body in answers} == {1, 2}
    for _, body in answers:
        for prediction in body["predictions"]:
            assert prediction["probabilities"]["true"] == pytest.approx(CHANCES[body["version"]])
    logged = {record["id"] for record in Predictions(stage.home).read("flights")}
    assert {prediction["id"] for _, body in answers for prediction in body["predictions"]} <= logged


def test_v_01_hot_swap_under_load_fails_no_request(stage):
    """While champions change eight times, every request is answered, and each score is that of its version (V-01)."""
    swapped(stage, 8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_v_01_fifty_hot_swaps_under_load_fail_no_request(stage):
    """The same with fifty swaps (V-01)."""
    swapped(stage, 50)


async def line(stage):
    """A connection to the process."""
    return await asyncio.open_connection("127.0.0.1", stage.port)


async def hang_up(writer):
    """Closes a connection without a word."""
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("start", [HEAD[:20], HEAD + b"X-Slow: ", HEAD + b"\r\n" + BODY[:5]])
def test_v_06_slow_clients_hold_up_nobody(stage, start):
    """Four hundred clients that never finish a head or a body: others are answered, each on a new connection, and afterwards no file stays open (V-06)."""
    process = psutil.Process(stage.process.pid)
    before = process.num_fds()

    async def scene():
        slow = [await line(stage) for _ in range(400)]
        for _, writer in slow:
            writer.write(start)
            await writer.drain()
        await asyncio.to_thread(until, lambda: process.num_fds() >= before + 400)
        answers = [await asyncio.to_thread(stage.predict) for _ in range(20)]
        for _, writer in slow:
            await hang_up(writer)
        return answers

    assert {answer.status_code for answer in asyncio.run(scene())} == {200}
    until(lambda: process.num_fds() <= before + 4)
    assert stage.predict().status_code == 200


def test_v_06_clients_that_vanish_leave_nothing_behind(stage):
    """A thousand clients hang up amid their request: files and requests in flight go back to where they were (V-06)."""
    process = psutil.Process(stage.process.pid)
    before, log = process.num_fds(), stage.log()

    async def scene():
        for start in range(0, 1000, 50):
            gone = [await line(stage) for _ in range(50)]
            for number, (_, writer) in enumerate(gone, start):
                writer.write((HEAD + b"\r\n" + BODY)[: -(number % 3) or None])
                await writer.drain()
            for _, writer in gone:
                await hang_up(writer)

    asyncio.run(scene())
    until(lambda: process.num_fds() <= before + 4)
    until(lambda: "keepfit_requests_in_flight 0.0" in stage.answers("/metrics").text)
    assert stage.predict().status_code == 200
    assert stage.log() == log


async def burst(stage, count, rows):
    """So many requests at once, each on a connection of its own, whatever the server does meanwhile; their statuses and waits."""

    async def ask(client):
        answer = await client.post("/projects/flights/predict", json={"rows": [GOOD] * rows})
        return answer.status_code, answer.headers.get("retry-after")

    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=stage.url, timeout=60, limits=limits) as client:
        return await asyncio.gather(*(ask(client) for _ in range(count)))


def test_v_07_an_overload_is_refused_and_passes(stage):
    """Three times as many requests as are let in: some are answered, the others told when to come again; then all is as before (V-07)."""
    answers = asyncio.run(burst(stage, 200, 1000))
    assert {status for status, _ in answers} == {200, 429}
    assert sum(status == 200 for status, _ in answers) >= 64
    assert {wait for status, wait in answers if status == 429} == {"1"}
    until(lambda: stage.predict().status_code == 200)
    assert {status for status, _ in asyncio.run(burst(stage, 8, 1))} == {200}


def memory(stage):
    """Bytes that the process holds."""
    return psutil.Process(stage.process.pid).memory_info().rss


async def many(stage, count):
    """So many requests, sixteen at a time."""
    left = iter(range(count))

    async def ask(client):
        for _ in left:
            (await client.post("/projects/flights/predict", content=BODY)).raise_for_status()

    async with httpx.AsyncClient(base_url=stage.url, timeout=60) as client:
        await asyncio.gather(*(ask(client) for _ in range(16)))


def grown(stage, requests, swaps):
    """How many times the memory of after warming up the process holds after requests and swaps."""
    asyncio.run(many(stage, 200))
    for version in (2, 1):
        stage.release(version)
        until(lambda wanted=version: stage.version() == wanted)
    before = memory(stage)
    for swap in range(swaps):
        asyncio.run(many(stage, requests // swaps))
        stage.release(2 - swap % 2)
        until(lambda wanted=2 - swap % 2: stage.version() == wanted)
    return memory(stage) / before


def test_v_16_memory_does_not_grow(stage):
    """After 500 requests and 10 swaps the process holds at most 15 % more (V-16)."""
    assert grown(stage, 500, 10) < 1.15


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_v_16_memory_does_not_grow_for_long(stage):
    """After 50,000 requests and 50 swaps the process holds at most 15 % more (V-16)."""
    assert grown(stage, 50_000, 50) < 1.15


# -- in this process --------------------------------------------------------------------------------------------------
@pytest.fixture
def small(tmp_path):
    """A home in which version 1 of flights is released; no process."""
    return released(tmp_path)


def test_v_17_a_jumping_clock_changes_no_duration(small, monkeypatch):
    """While the wall clock jumps by years both ways, durations stay what they are, and each prediction is logged on its day (V-17)."""
    moments = [dt.datetime(year, 5, 1, tzinfo=dt.UTC) for year in (2026, 2019, 2031, 2026)]

    async def scene():
        opened, client = door(small.home)
        opened.succession.look()
        left = iter(moments)
        monkeypatch.setattr(opened.predicting, "_now", lambda: next(left))
        monkeypatch.setattr(time, "time", lambda: -1e9)
        answers = [await client.post("/projects/flights/predict", json={"rows": [GOOD]}) for _ in moments]
        return answers, (await client.get("/metrics")).text

    answers, metrics = asyncio.run(scene())
    assert {answer.status_code for answer in answers} == {200}
    records = list(Predictions(small.home).read("flights"))
    assert [record["at"] for record in records] == sorted(moment.isoformat() for moment in moments)
    assert all(0 < record["ms"] < 60_000 for record in records)
    sums = [float(each.split()[1]) for each in metrics.splitlines() if "_seconds_sum" in each]
    assert len(sums) == 2
    assert all(0 < each < 60 for each in sums)


def test_v_14_nothing_that_is_sent_comes_into_the_log_or_the_metrics(small, monkeypatch, caplog):
    """Line breaks, escapes and quotation marks in paths, headers and rows forge no line and no series (V-14)."""
    evil = 'flights%0aERROR keepfit.serving forged%1b[31m"} 1'

    def fail(_champion, _rows):
        raise RuntimeError(f"forged\n{evil}")

    async def scene():
        opened, client = door(small.home)
        opened.succession.look()
        monkeypatch.setattr(Champion, "score", fail)
        headers = {"X-Forwarded-For": "forged", "User-Agent": "forged\t\x1b[31m", "Authorization": "Bearer forged"}
        answers = [
            await client.get(f"/projects/{evil}", headers=headers),
            await client.post(f"/v2/models/{evil}/infer", headers=headers, json={}),
            await client.post("/projects/flights/predict", headers=headers, json={"rows": [GOOD]}),
            await client.get("/healthz", headers={"Host": "forged.example"}),
        ]
        return answers, (await client.get("/metrics")).text

    with caplog.at_level(logging.DEBUG, logger="keepfit"):
        answers, metrics = asyncio.run(scene())
    assert [answer.status_code for answer in answers] == [404, 404, 500, 400]
    assert "forged" not in metrics + caplog.text + "".join(answer.text for answer in answers)
    assert "RuntimeError at fail:" in caplog.text


def test_v_15_ten_thousand_invented_names_make_no_series_and_keep_nothing(small):
    """Paths, projects, hosts and protocols that nobody released are counted together, and nothing remembers them all (V-15)."""

    async def scene():
        opened, client = door(small.home)
        opened.succession.look()
        counts = []
        for number in range(10_000):
            if number in {20, 9_999}:
                counts.append(len((await client.get("/metrics")).text.splitlines()))
            path = ("/invented/{}", "/projects/invented-{}", "/v2/models/invented-{}/ready")[number % 3]
            await client.get(path.format(number), headers={"Host": f"host-{number}.example"} if number % 4 else {})
        return counts, (await client.get("/metrics")).text

    counts, metrics = asyncio.run(scene())
    assert counts[1] - counts[0] <= 40  # /metrics itself
    assert "invented" not in metrics


def test_quick_answers_are_given_in_the_loop_and_are_the_same(small, monkeypatch):
    """Where a project answers within a millisecond no thread is asked; answer, log and refusal are those of a thread."""
    asked = {"rows": [GOOD]}

    async def scene():
        opened, client = door(small.home)
        opened.succession.look()
        champion = opened.succession.champions["flights"]
        (said,) = champion.predict([GOOD])
        monkeypatch.setattr(Champion, "score", lambda _champion, rows: [said] * len(rows))
        threads = []
        checked = Champion.check

        def check(champion, rows):
            threads.append(threading.current_thread())
            return checked(champion, rows)

        monkeypatch.setattr(Champion, "check", check)
        answers = [await client.post("/projects/flights/predict", json=asked) for _ in range(3)]
        wrong = await client.post("/projects/flights/predict", json={"rows": [{"age": "x", "new": True}]})
        return said, answers, wrong, threads

    said, answers, wrong, threads = asyncio.run(scene())
    assert threads[0] is not threading.main_thread()
    assert threads[-1] is threading.main_thread()
    for answer in answers:
        (prediction,) = answer.json()["predictions"]
        assert prediction == {"id": prediction["id"], **said}
    assert wrong.status_code == 422
    assert len(list(Predictions(small.home).read("flights"))) == 3
