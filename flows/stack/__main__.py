"""The two programs of the stack that are ours to start: `python -m flows.stack worker` and `python -m flows.stack mlflow`.

`infra/supervisord.conf` runs them; both read their settings from the environment.
"""

import http
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from flows.stack.probes import POOL, answers
from flows.stack.waiting import PATIENCE, until
from tasks.config.errors import StackError


def work() -> None:
    """Runs the worker in this process once the Prefect server answers.

    The worker's imports take as long as the server's, so both load at the same time; started too early, the worker
    would give up and pay for its imports again.
    """
    import prefect.workers.process  # noqa: F401 - loaded while the server starts

    url = os.environ["PREFECT_API_URL"].removesuffix("/api")
    until(lambda: answers(url, "/api/health"), PATIENCE, "The Prefect server does not answer.")
    sys.argv = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "local", "--limit", "2"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def track() -> None:
    """Runs MLflow's server in this process, as `mlflow server --workers 1 --no-serve-artifacts` does in two.

    The command imports MLflow twice, once to start the process that serves: 4 s of the start and 250 MB for nothing.
    MLflow's own names of the two variables are compared below, so that a release that renames them is noticed.
    """
    home = Path(os.environ["KEEPFIT_HOME"])
    database, artifacts = f"sqlite:///{home / 'mlflow.db'}", str(home / "artifacts")
    # MLflow reads them while it is imported: without a database in sight it leaves its security middleware out.
    os.environ.update({"_MLFLOW_SERVER_FILE_STORE": database, "_MLFLOW_SERVER_ARTIFACT_ROOT": artifacts})
    import uvicorn
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
    from mlflow.server.handlers import initialize_backend_stores

    if os.environ.get(BACKEND_STORE_URI_ENV_VAR) != database or os.environ.get(ARTIFACT_ROOT_ENV_VAR) != artifacts:
        raise StackError(f"This MLflow reads its places from {BACKEND_STORE_URI_ENV_VAR} and {ARTIFACT_ROOT_ENV_VAR}.")
    initialize_backend_stores(database, default_artifact_root=artifacts)
    from mlflow.server.fastapi_app import app

    uvicorn.run(
        _without_uploads(app),
        host=os.environ["KEEPFIT_HOST"],
        port=int(os.environ["KEEPFIT_MLFLOW_PORT"]),
        log_level="warning",
    )


def _without_uploads(app: Any) -> Any:
    """MLflow's application with its last anonymous way to overwrite an artifact shut.

    Without --serve-artifacts the proxy answers 503, but this call of the UI (for tables of prompts) still wrote files.
    """

    async def guarded(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/mlflow/upload-artifact"):
            await send({"type": "http.response.start", "status": http.HTTPStatus.FORBIDDEN, "headers": []})
            await send({"type": "http.response.body", "body": b"Artifacts are written by runs, not over HTTP."})
        else:
            await app(scope, receive, send)

    return guarded


if __name__ == "__main__":
    {"worker": work, "mlflow": track}[sys.argv[1]]()
