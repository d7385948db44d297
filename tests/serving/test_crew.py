"""Several processes at one address: each answers with the champion of the journal, their counts add up, a dead one is replaced."""

import concurrent.futures
import contextlib
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
from types import SimpleNamespace
from typing import cast

import httpx
import psutil
import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings
from tasks.serving import asked, counters
from tasks.serving.counters import Counters
from tasks.serving.crew import Crew, _Member
from tasks.serving.metrics import Metrics
from tasks.serving.succession import Succession
from tasks.stores.predictions import Predictions
from tests.stage import GOOD, Stage, until
from tests.tasks.test_landing_faults import disk

__all__ = ["disk"]
KILLS = 30


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Two processes whose champion of flights is version 1."""
    stage = Stage(tmp_path_factory.mktemp("crew"))
    stage.write(1, 0.2)
    stage.write(2, 0.8)
    stage.release(1)
    stage.start(SERVING_WORKERS=2)
    until(stage.answers, 60)
    until(lambda: counted(stage, "keepfit_swaps_total") == 2, 60)
    yield stage
    stage.stop()


def counted(stage, name, labels=""):
    """The number of a series in /metrics; 0 where there is none."""
    found = re.search(rf"^{name}{re.escape(labels)} (\S+)$", httpx.get(f"{stage.url}/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def filled(path):
    """A file that takes all the room that there is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    assert shutil.disk_usage(path.parent).free == 0


def members(stage):
    """The processes that answer."""
    return [child for child in psutil.Process(stage.process.pid).children() if alive(child)]


def many(stage, count):
    """The answers to requests on connections of their own, so that every process gets some."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return [answer.json() for answer in pool.map(lambda _: stage.predict(), range(count))]


def test_the_counts_of_all_processes_add_up(stage):
    """Whichever process is asked, /metrics has the sum: predictions, requests, histograms, swaps."""
    before = counted(stage, "keepfit_predictions_total", '{project="flights"}')
    many(stage, 40)
    labels = '{project="flights",route="predict"}'
    assert counted(stage, "keepfit_predictions_total", '{project="flights"}') == before + 40
    for _ in range(5):
        assert counted(stage, "keepfit_request_seconds_count", labels) == before + 40
    assert counted(stage, "keepfit_champion_version", '{project="flights"}') == 1
    text = httpx.get(f"{stage.url}/metrics").text
    assert text.count("# TYPE keepfit_requests_total") == 1
    assert 'keepfit_build_info{version="' in text


def test_a_release_reaches_every_process(stage):
    """Once a release is confirmed no process answers with the version before."""
    for version in (2, 1):
        stage.release(version)
        asked.confirm(stage.url, stage.journal.champion("flights"), 60)
        assert {answer["version"] for answer in many(stage, 16)} == {version}


def test_a_process_that_does_not_follow_is_not_passed_over(stage):
    """While one of two stands still nothing is confirmed, however often the other is met; when it has followed, it is."""
    halted = members(stage)[0]
    halted.suspend()
    try:
        stage.release(2)
        champion = stage.journal.champion("flights")
        until(lambda: version(stage) == 2)
        with pytest.raises(KeepfitError, match=f"one of its processes is at generation {champion.generation - 1} of"):
            asked.confirm(stage.url, champion, 0)
    finally:
        halted.resume()
    assert "answers with it" in asked.confirm(stage.url, champion, 60)
    stage.release(1)
    asked.confirm(stage.url, stage.journal.champion("flights"), 60)


def version(stage):
    """The version of one process; nothing where a connection fell to the one that stands still."""
    with contextlib.suppress(httpx.TransportError):
        return stage.predict(timeout=1).json()["version"]
    return None


def test_v_02_a_dead_process_is_replaced_and_nobody_notices_for_long(stage):
    """While one is killed, the other answers; its counts stay, its successor joins and counts on in its files, and no answered prediction is lost (V-02)."""
    before = counted(stage, "keepfit_predictions_total", '{project="flights"}')
    swaps = counted(stage, "keepfit_swaps_total")
    answers = many(stage, 20)
    first = members(stage)
    first[0].kill()
    until(lambda: len(members(stage)) == 2 and first[0].pid not in {one.pid for one in members(stage)})
    answers += many(stage, 20)
    until(lambda: counted(stage, "keepfit_swaps_total") == swaps + 1)
    assert counted(stage, "keepfit_predictions_total", '{project="flights"}') == before + 40
    assert kept(stage) == {"0", "1"}
    logged = {record["id"] for record in Predictions(stage.home).read("flights")}
    assert {one["id"] for answer in answers for one in answer["predictions"]} <= logged


def kept(stage):
    """The places of processes whose counts lie in files: each makes one of a kind when it has something to count."""
    return {path.stem.rpartition("_")[2] for path in (stage.home / "metrics" / str(stage.port)).iterdir()}


def test_a_process_that_dies_again_and_again_fills_no_disk(tmp_path, monkeypatch):
    """After fifty lives in one place there are the files of one, and the total has what each of them counted."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "MmapedDict", values.MmapedDict)
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # both are put back by this
    crew, nobody = Crew(Settings(home=tmp_path)), SimpleNamespace(swaps=1, champions={}, wanted={}, refused={})
    monkeypatch.setattr(crew, "_counters", tmp_path)
    process = cast("subprocess.Popen[bytes]", SimpleNamespace(pid=1, stdin=None))
    for life in range(1, 51):
        counters.install("0")
        meter = Metrics(cast("Succession", nobody))
        for _ in range(3):
            meter.turned_away()
        meter.predicted("small", 1, 0.01)
        lines = bytes(meter.page().body).decode().splitlines()
        found = dict(line.rsplit(maxsplit=1) for line in lines if not line.startswith("#"))
        assert float(found["keepfit_swaps_total"]) == life
        assert float(found['keepfit_requests_total{project="",route="turnstile",status="429"}']) == 3 * life
        values.ValueClass.close_all_files()
        crew._bury(_Member(0, process, 0.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter_0.db", "gauge_mostrecent_0.db", "histogram_0.db"]  # fmt: skip


def test_v_10_a_full_disk_costs_log_lines_and_no_process(disk, tmp_path):
    """With the disk full as many processes answer as before, by routes that they have not counted yet, too (S-02, V-10)."""
    home = disk(100_000) / "home"
    home.mkdir()
    stage = Stage(home)
    stage.write(1, 0.2)
    stage.release(1)
    (home / "serving.log").symlink_to(tmp_path / "serving.log")
    stage.start(SERVING_WORKERS=2)
    try:
        until(stage.answers, 60)
        before = until(lambda: members(stage) if counted(stage, "keepfit_swaps_total") == 2 else None)
        disk(shutil.disk_usage(home).used // 1024 + 200)
        filled(home / "rest")
        for path in ("/projects", "/projects/flights", "/v2", "/v2/models/flights", "/openapi.json", "/nothing"):
            assert {httpx.get(stage.url + path).status_code for _ in range(8)} <= {200, 404}
        assert {answer["version"] for answer in many(stage, 16)} == {1}
        assert counted(stage, "keepfit_predictions_unlogged_total", '{project="flights"}') > 0
        assert [one.pid for one in members(stage)] == [one.pid for one in before]
    finally:
        stage.stop()


def test_v_10_what_finds_no_room_to_count_in_counts_for_itself(disk):
    """Neither a new file nor one that must grow is written into a hole of a full disk; what was counted there before stays (V-10)."""
    place = disk(64)
    first = Counters(str(place / "counter_1.db"))
    for number in range(4000):  # far more than the file holds
        first.write_value(f"series {number}", float(number), 0.0)
    second = Counters(str(place / "counter_2.db"))
    second.write_value("another", 7.0, 0.0)
    assert [first.read_value(f"series {number}")[0] for number in range(4000)] == [*range(4000)]
    assert second.read_value("another")[0] == 7.0
    Counters(str(place / "counter_1.db")).write_value("series 0", 8.0, 0.0)  # whoever takes the place of the first
    assert [path.name for path in place.iterdir()] == ["counter_1.db"]
    shared = {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(place / "counter_1.db")}
    assert 1000 < len(shared) < 4000
    assert shared.pop("series 0") == 8.0
    assert all(key.strip() == f"series {value:.0f}" for key, value in shared.items())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_v_08_all_processes_end_with_the_first(stage, how):
    """SIGTERM ends them all, in good order; after SIGKILL of the first the others end by themselves, and the address is free (V-08)."""
    if stage.process.poll() is not None:
        stage.start(SERVING_WORKERS=2)
        until(stage.answers, 60)
    ending = members(stage)
    assert len(ending) == 2
    assert stage.stop(how) == (0 if how == signal.SIGTERM else -signal.SIGKILL)
    until(lambda: not any(alive(one) for one in ending))
    with socket.create_server(("127.0.0.1", stage.port)):
        assert "Traceback" not in stage.log()


def alive(process):
    """Whether it still runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_v_02_thirty_kills_amid_swaps(tmp_path):
    """Killed at random moments of swaps and of starts, with Prefect and MLflow down, the server comes back each time with the champion that the journal names by then (V-02)."""
    stage = Stage(tmp_path)
    stage.write(1, 0.2)
    stage.write(2, 0.8)
    stage.release(1)
    chance, known = random.Random(7), []  # noqa: S311 – which moment is killed at is no secret
    wanted = 1
    for kill in range(KILLS):
        stop = threading.Event()
        stage.start()
        if kill % 3 == 2:  # before it answers, or just when it does
            stop.wait(chance.uniform(0, 2))
            stage.stop(signal.SIGKILL)
            continue
        assert until(stage.version, 60) == wanted
        assert stage.predict().json()["version"] == wanted
        crowd = threading.Thread(target=ask, args=(stage, stop, known))
        crowd.start()
        wanted = 3 - wanted
        stage.release(wanted)
        stop.wait(chance.uniform(0, 0.3))
        stage.stop(signal.SIGKILL)
        stop.set()
        crowd.join()
    stage.start()
    assert until(stage.version, 60) == wanted
    stage.stop()
    logged = {record["id"] for record in Predictions(tmp_path).read("flights")}
    assert len(known) > KILLS
    assert set(known) <= logged


def ask(stage, stop, known):
    """Asks until the server is gone, and keeps the ids of what was answered."""
    with contextlib.suppress(httpx.TransportError):
        while not stop.is_set():
            known.extend(one["id"] for one in stage.predict(GOOD).json().get("predictions", []))
