"""A stage for the serving process: a home with a journal and small constant models, the process itself, and clients."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tasks.config.settings import Settings
from tasks.serving.app import Door
from tasks.stores import bundles
from tasks.stores.journal import Journal, Release
from tests.samples import free_port

GOOD = {"age": 30.0, "new": True}
FEATURES = [{"name": "age", "type": "float", "nullable": False}, {"name": "new", "type": "bool", "nullable": False}]


def constant(chance):
    """A pipeline that gives every row nearly the same probability."""
    rows = pd.DataFrame({"age": [0.0, 1.0] * 50, "new": [0.0, 0.0, 1.0, 1.0] * 25})
    model = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())]).fit(rows, np.arange(100) % 3 == 0)
    model[-1].coef_ *= 0
    model[-1].intercept_[:] = np.log(chance / (1 - chance))
    return model


def until(happens, seconds=120.0):
    """What `happens` gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if met := happens():
            return met
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen in time")


class Stage:
    """A home with a journal and bundles, and the serving process over it."""

    def __init__(self, home):
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.journal = Journal(f"sqlite:///{home / 'keepfit.db'}")
        self.generation = 0
        self.digests = {}
        self.process = None

    def write(self, version, chance):
        """Writes the bundle of a constant model."""
        manifest = {
            "project": "flights", "version": version, "kind": "binary", "classes": [False, True], "positive": True,
            "target": "late", "features": FEATURES, "ignored": ["id"], "threshold": 0.5, "usual": {"means": [0.0, 0.0]},
        }  # fmt: skip
        folder = self.home / "bundles" / "flights" / str(version)
        self.digests[version] = bundles.write(folder, constant(chance), manifest)

    def release(self, version):
        """Makes a written version champion in the journal."""
        self.generation += 1
        at = "2026-01-01T00:00:00+00:00"
        row = ("flights", self.generation, version, self.digests[version], "test", "test", at, "roc_auc")
        self.journal.release(Release(*row, value=0.9, low=0.8, high=0.95))

    def start(self, files=None, **told):
        """Starts the process with Prefect and MLflow at addresses where nothing listens, further settings, and so many files at most."""
        settings = {
            "KEEPFIT_HOME": str(self.home), "KEEPFIT_SERVING_PORT": str(self.port), "KEEPFIT_DRAIN_SECONDS": "0.1",
            "KEEPFIT_PREFECT_URL": "http://127.0.0.1:9", "KEEPFIT_MLFLOW_URL": "http://127.0.0.1:9",
        } | {f"KEEPFIT_{name}": str(value) for name, value in told.items()}  # fmt: skip
        with (self.home / "serving.log").open("ab") as log:
            command = [sys.executable, "-m", "tasks.serving.app"]
            if files:
                command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
            self.process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)

    def stop(self, how=signal.SIGTERM):
        """Ends the process and gives its exit code."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30) if self.process else None

    def answers(self, path="/readyz"):
        """The answer to a GET, or None when nobody listens or it is none."""
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(self.url + path)
            return answer if answer.status_code == 200 else None
        return None

    def version(self):
        """The version that answers."""
        answer = self.answers("/readyz")
        return answer and answer.json()["projects"].get("flights")

    def predict(self, *rows, **how):
        """The answer to a request for predictions."""
        return httpx.post(f"{self.url}/projects/flights/predict", json={"rows": rows or [GOOD]}, **how)

    def log(self):
        """What the process has logged."""
        return (self.home / "serving.log").read_text()


def released(home):
    """A home in which version 1 of flights is released; no process."""
    stage = Stage(home)
    stage.write(1, 0.2)
    stage.release(1)
    return stage


def door(home, **limits):
    """A door over a home, and a client that reaches it without a network."""
    door = Door(Settings(home=home), **limits)
    return door, httpx.AsyncClient(transport=httpx.ASGITransport(door.app()), base_url="http://localhost")
