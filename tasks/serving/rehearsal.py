"""A rehearsal: the real serving process, as a child of this one, answers with a candidate before anybody releases it.

It is the process that serves champions, unaltered. Its home is a folder of its own whose journal names the candidate as the only
champion, so that neither the project's journal nor its prediction log learn of it.
"""

import contextlib
import datetime as dt
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pandas as pd
import psutil

from tasks.ml.gates.facts import Rehearsed
from tasks.ml.kinds import Kind
from tasks.serving.bodies import BODY_BYTES, ROWS
from tasks.serving.champion import BLANK, Feature
from tasks.stores import bundles
from tasks.stores.journal import Journal, Release

MIB = 1 << 20
TIMED = 30  # requests for one row
ROUNDS = 3  # so often they are sent: what else the machine does only adds, so the calmest round counts
PAUSE, GRACE = 0.02, 5.0  # seconds between two looks; that the process has to end by itself
ELSEWHERE = {  # where the project's own server is, and who may ask it
    "KEEPFIT_DATABASE_URL", "KEEPFIT_HOST", "KEEPFIT_SERVING_URL", "KEEPFIT_TOKEN", "KEEPFIT_TLS_CERT", "KEEPFIT_TLS_KEY",
    "KEEPFIT_BEHIND_PROXY",
}  # fmt: skip


class UnservedError(Exception):
    """The process did not answer as it must; the message is a sentence for the verdict."""


@dataclass(frozen=True)
class Heard:
    """What came of a rehearsal.

    Attributes:
        served: how the process bore itself.
        answers: what it said of each row, as the problem's kind has answers; None when it failed.
        decided: the label that it gave out for each row, or what stands in its place.
    """

    served: Rehearsed
    answers: np.ndarray | None = None
    decided: tuple[Any, ...] = ()


class Rehearsal:
    """A candidate's bundle in a serving process of its own; use it as a context, so that the process ends."""

    def __init__(self, folder: Path, digest: str, beside: Path | None = None) -> None:
        """Of the bundle in a folder.

        Args:
            folder: where it lies.
            digest: names it.
            beside: where the process has its home; by default beside the bundle.
        """
        self._folder, self._digest, self._beside = folder, digest, beside or folder.parent
        manifest = bundles.manifest_of(folder, digest)
        self._project, self._version = str(manifest["project"]), int(manifest["version"])
        self._features = msgspec.convert(manifest["features"], tuple[Feature, ...])

    def __enter__(self) -> Self:
        """Starts the process and does not wait for it: it imports while this process has other things to do."""
        self._place = tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=self._beside)
        home = Path(self._place.name)
        (home / "bundles" / self._project).mkdir(parents=True)
        (home / "bundles" / self._project / str(self._version)).symlink_to(self._folder.resolve())
        self._journal, self._log = Journal(f"sqlite:///{home / 'keepfit.db'}"), home / "serving.log"
        with socket.create_server(("127.0.0.1", 0)) as door, self._log.open("wb") as log:
            self._port = int(door.getsockname()[1])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.serving.candidate", str(door.fileno())],
                env=_environment(home), pass_fds=[door.fileno()], stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process, by force when it does not end by itself, and removes what it wrote."""
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
        self._place.cleanup()

    def ask(self, kind: Kind, rows: pd.DataFrame, seconds: float) -> Heard:
        """Loads the candidate, times requests for one row, then asks about every row.

        Args:
            kind: the problem, which knows what predictions mean.
            rows: of the features that the manifest names, as `features.matrix` gives them.
            seconds: after so many the process is killed, and the rehearsal has failed.
        """
        began, size = time.monotonic(), sum(file.stat().st_size for file in self._folder.iterdir()) / MIB
        try:
            with self._within(seconds), _connected(self._port) as line:
                memory = self._load(line)
                calmest, requests = self._timed(line, rows)
                answers, decided = self._every(line, kind, rows)
        except UnservedError as error:
            return Heard(Rehearsed(failed=str(error), size=size))
        p50, p95 = np.percentile(calmest, [50, 95]).tolist()
        served = Rehearsed(
            p50=p50, p95=p95, requests=requests, size=size, memory=memory, rows=len(answers), seconds=time.monotonic() - began
        )  # fmt: skip
        return Heard(served, answers, decided)

    def answer(self, seconds: float) -> None:
        """Loads the candidate and asks it about one row, in which everything is missing that may be.

        Raises:
            UnservedError: it does not load or answer, or not within so many seconds.
        """
        row = {feature.name: None if feature.nullable else BLANK[feature.type] for feature in self._features}
        with self._within(seconds), _connected(self._port) as line:
            self._load(line)
            _answer(
                line, "POST", self._path, _body([msgspec.json.encode(row)]), wanted=(200, 422)
            )  # no real row: it may have no answer

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Generator[None]:
        """Kills the process after so many seconds; whatever breaks off is one kind of error, with a sentence why."""
        late = threading.Event()
        watch = threading.Timer(seconds, self._kill, [late])
        watch.start()
        try:
            yield
        except (UnservedError, OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise UnservedError(self._reason(error, seconds, late=late.is_set())) from error
        finally:
            watch.cancel()

    def _load(self, line: http.client.HTTPConnection) -> float:
        """Releases the candidate in the process's own journal and waits until it answers: MiB that its memory grew by."""
        _answer(line, "GET", "/healthz")
        process = psutil.Process(self._process.pid)
        before, now = process.memory_info().rss, dt.datetime.now(dt.UTC).isoformat()
        self._journal.release(
            Release(self._project, 1, self._version, self._digest, "rehearsal", "rehearsal", now, "none", value=0.0, low=0.0, high=0.0)
        )  # fmt: skip
        while True:
            state = msgspec.json.decode(_answer(line, "GET", "/readyz", wanted=(200, 503)))
            if self._project in state["projects"]:
                return (process.memory_info().rss - before) / MIB
            if refused := state["refused"].get(self._project):
                raise UnservedError(f"the serving process does not load the candidate: {refused['reason']}")
            time.sleep(PAUSE)

    def _timed(self, line: http.client.HTTPConnection, rows: pd.DataFrame) -> tuple[list[float], int]:
        """Milliseconds of each request for one row in the calmest round, and the number of requests of all rounds."""
        chosen = rows.iloc[np.linspace(0, len(rows) - 1, min(TIMED, len(rows))).astype(int)]
        bodies = [_body([row]) for row in encoded(chosen, self._features)]
        rounds = [[self._took(line, body) for body in bodies] for _ in range(ROUNDS)]
        return min(rounds, key=lambda times: float(np.percentile(times, 95))), ROUNDS * len(bodies)

    def _took(self, line: http.client.HTTPConnection, body: bytes) -> float:
        began = time.perf_counter()
        _answer(line, "POST", self._path, body)
        return (time.perf_counter() - began) * 1000

    def _every(
        self, line: http.client.HTTPConnection, kind: Kind, rows: pd.DataFrame
    ) -> tuple[np.ndarray, tuple[Any, ...]]:
        """What is answered to all rows, in requests as large as the server takes them; only numbers and labels are kept."""
        answers, decided = [], []
        for body in _bodies(rows, self._features):
            said = msgspec.json.decode(_answer(line, "POST", self._path, body))["predictions"]
            answers.append(kind.heard(said))
            decided += [each["prediction"] for each in said]
        return np.concatenate(answers), tuple(decided)

    @property
    def _path(self) -> str:
        return f"/projects/{self._project}/predict"

    def _kill(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def _reason(self, error: Exception, seconds: float, *, late: bool) -> str:
        """Why there are no answers, in a sentence."""
        if late:
            return f"the serving process had not answered every row after {seconds:g} s (gate serving, `seconds`)"
        if isinstance(error, UnservedError):
            return str(error)
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        return f"the serving process broke off ({type(error).__name__}): {' '.join(last)[:300] or 'it logged nothing'}"


def encoded(rows: pd.DataFrame, features: tuple[Feature, ...]) -> list[bytes]:
    """Each row as the JSON object that a client sends, with what is missing as null."""
    columns = {feature.name: _plain(rows[feature.name], feature.type) for feature in features}
    encode = msgspec.json.Encoder().encode
    return [encode(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _plain(column: pd.Series, kind: str) -> list[Any]:
    """The values of a column as JSON has them."""
    empty = column.isna()
    if kind == "datetime":
        return [None if gone else at.isoformat() for at, gone in zip(column, empty, strict=True)]
    if kind in {"int", "bool"}:
        column = column.fillna(0).astype("int64" if kind == "int" else "bool")
    return column.astype(object).where(~empty, None).tolist()


def _environment(home: Path) -> dict[str, str]:
    """This process's environment, but for where things are."""
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    return kept | {"KEEPFIT_HOME": str(home), "KEEPFIT_DRAIN_SECONDS": "0", "OMP_NUM_THREADS": "1"}


def _bodies(rows: pd.DataFrame, features: tuple[Feature, ...]) -> Iterator[bytes]:
    """Bodies of requests with all rows, each as large as the server takes them."""
    for start in range(0, len(rows), ROWS):
        batch, size = [], 0
        for row in encoded(rows.iloc[start : start + ROWS], features):
            if batch and size + len(row) > BODY_BYTES - 100:
                yield _body(batch)
                batch, size = [], 0
            batch.append(row)
            size += len(row) + 1
        yield _body(batch)


def _body(rows: list[bytes]) -> bytes:
    return b'{"rows":[' + b",".join(rows) + b"]}"


@contextlib.contextmanager
def _connected(port: int) -> Generator[http.client.HTTPConnection]:
    """One connection for all requests, as a client's pool holds it; what is asked early waits in the socket's queue."""
    line = http.client.HTTPConnection("127.0.0.1", port)
    try:
        yield line
    finally:
        line.close()


def _answer(
    line: http.client.HTTPConnection, verb: str, path: str, body: bytes | None = None, wanted: tuple[int, ...] = (200,)
) -> bytes:
    """The body of an answer.

    Raises:
        UnservedError: it is an error; the message repeats what the server said, which never repeats a row.
    """
    line.request(verb, path, body)
    answer = line.getresponse()
    content = answer.read()
    if answer.status not in wanted:
        said = msgspec.json.decode(content, type=dict).get("error", "")
        raise UnservedError(f"the serving process answers {answer.status} to rows of the holdout: {said}")
    return content
