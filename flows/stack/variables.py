"""Every environment variable that Prefect, MLflow and our own processes need."""

import os
import socket
import sys
from urllib.parse import urlsplit

from flows.stack import password, supervisor
from flows.stack.processes import MARK
from flows.stack.record import Record, recorded
from tasks.config import access
from tasks.config.errors import StackError
from tasks.config.settings import Settings


def environment(settings: Settings, urls: dict[str, str] | None = None) -> dict[str, str]:
    """Every environment variable that Prefect, MLflow and our own processes need, to be set before Prefect is imported.

    Args:
        settings: where things are.
        urls: addresses of the services by name; by default those of the running stack.

    Returns:
        Variables for the stack when there is one, else for a temporary Prefect server of this process, whose folder
        is made, because that server dies without it and Prefect then tries again for two minutes.

    Raises:
        StackError: the file with the server's password can be read by others, or the recorded stack is gone.
    """
    local = _living(settings) if urls is None else urls
    prefect = local.get("prefect") if urls is not None else settings.prefect()
    tracking = local.get("mlflow") if urls is not None else settings.mlflow()
    return {
        "KEEPFIT_HOME": str(settings.home),
        "KEEPFIT_PROJECTS": str(settings.projects),
        "DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
        **_prefect_common(settings),
        **_mlflow_common(tracking or settings.mlflow_database()),
        **(
            _prefect_server(settings, prefect, local=prefect == local.get("prefect"))
            if prefect is not None
            else _prefect_temporary(settings)
        ),
    }


def connect(settings: Settings) -> None:
    """Gives this process the environment of the stack, or of a temporary server; to be called before Prefect is imported.

    Raises:
        StackError: as `environment` does.
    """
    os.environ.update(environment(settings))


def supervised(settings: Settings, record: Record) -> dict[str, str]:
    """The environment of supervisord and of everything below it; infra/supervisord.conf refers to it."""
    urls = record["urls"]
    ports = {f"KEEPFIT_{name.upper()}_PORT": str(urlsplit(urls[name]).port) for name in urls}
    names = {urlsplit(urls["mlflow"]).hostname or "", settings.host, socket.gethostname()}
    hosts = {"localhost", "127.0.0.1", "[::1]"} | (set() if access.is_loopback(settings.host) else names)
    port = ports["KEEPFIT_MLFLOW_PORT"]
    elsewhere = {f"KEEPFIT_{name.upper()}_URL" for name in urls}
    files = {"KEEPFIT_TLS_CERT": settings.tls_cert, "KEEPFIT_TLS_KEY": settings.tls_key}
    return {
        **{key: value for key, value in os.environ.items() if key not in elsewhere},
        **{name: str(path) for name, path in files.items() if path},
        **environment(settings, urls),
        **ports,
        MARK: str(settings.home),
        "KEEPFIT_HOST": settings.host,
        "KEEPFIT_NICE": str(settings.nice),
        "KEEPFIT_PYTHON": sys.executable,
        "KEEPFIT_SOCKET": record["socket"],
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(sorted(f"{host}:{port}" for host in hosts)),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(_origins(urls["mlflow"])),
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_CLI_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
    }


def _living(settings: Settings) -> dict[str, str]:
    """The addresses of the local stack; raises when it is recorded but gone, since every call to it would only wait."""
    record = recorded(settings)
    if record and supervisor.states(record) is None:
        raise StackError(
            f"{settings.stack_file} names a stack that no longer runs.\n"
            "Run `keepfit up` to start it again, or `keepfit down` to work without it."
        )
    return settings.stack()


def _prefect_common(settings: Settings) -> dict[str, str]:
    """Prefect's settings that hold with and without a running stack."""
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_PROMPT": "false",
        # The defaults of 10 s and 30 s were most of the wait from a trigger to its run, and until a dead worker shows.
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }


def _mlflow_common(tracking: str) -> dict[str, str]:
    """MLflow's settings: where it is, and everything off that keepfit does not use."""
    return {
        "MLFLOW_TRACKING_URI": tracking,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }


def _prefect_server(settings: Settings, url: str, *, local: bool) -> dict[str, str]:
    """Settings for a Prefect server at an address; the password goes to the local stack's server only."""
    found = {
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(_origins(url)),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    }
    return found | _both_ends(password.read(settings)) if local and settings.secret_file.exists() else found


def _prefect_temporary(settings: Settings) -> dict[str, str]:
    """Settings for a Prefect server that lives as long as this process and answers to it alone."""
    (settings.home / "prefect").mkdir(parents=True, exist_ok=True)
    return {
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
        **_both_ends(password.fresh()),
    }


def _both_ends(secret: str) -> dict[str, str]:
    """The password for both ends of Prefect's API."""
    return {"PREFECT_API_AUTH_STRING": secret, "PREFECT_SERVER_API_AUTH_STRING": secret}


def _origins(url: str) -> list[str]:
    """The origins under which a browser on this machine reaches a server, and no others."""
    port = urlsplit(url).port
    return (
        list(dict.fromkeys([url, f"http://localhost:{port}"]))
        if access.is_loopback(urlsplit(url).hostname or "")
        else [url]
    )
