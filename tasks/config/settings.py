"""Where things are: `KEEPFIT_*` environment variables, with defaults that work on one machine."""

import getpass
import hashlib
import json
import socket
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Network = IPv4Network | IPv6Network
REPOSITORY = Path(__file__).resolve().parents[2]


def _login() -> str:
    """Who is logged in, by the environment or by the system's list of users."""
    try:
        return getpass.getuser()
    except (
        OSError,
        KeyError,
    ):  # a container may run under a number that has no name; the kind of error depends on Python
        return "somebody"


class Settings(BaseSettings):
    """Every place that keepfit reads or writes; nothing else in the project reads the environment.

    Attributes:
        home: folder of all state.
        projects: folder with one folder a project.
        host: address that the services listen on. Nothing listens beyond this machine unless this says so.
        prefect_port, mlflow_port, serving_port: ports that are tried first; a busy one is replaced by a free one.
        serving_workers: processes that answer on the serving port.
        nice: how far flow runs stand back behind the stack's services, the serving process among them, where processors are short, as `nice`
            counts; 0 makes them its equals.
        drain_seconds: how long a server that is told to stop still answers, not ready any more, so that a balancer looks elsewhere first.
        prefect_url, mlflow_url, serving_url: services that run elsewhere; by default those of the local stack, when it runs.
        database_url, studies_url: SQLAlchemy URLs of the journal and of Optuna's studies.
        lake_url: folder or object-store URL of the Delta tables.
        dask: address of a Dask scheduler, like tcp://host:8786, whose workers search; they need the same environment as this process.
        token: what every program must show the serving process; without one, only programs on this machine are answered. More tokens,
            that open less, are in `serving.tokens` (tasks/config/access.py).
        tls_cert, tls_key: files of a certificate and its key, with which the serving process encrypts.
        behind_proxy: a proxy in front of the serving process encrypts; nobody else reaches its port.
        upload_bytes: the biggest batch that may be uploaded.
        library_skew: `accept` reads models that other versions of scikit-learn, skops or numpy wrote; each is logged, and a
            release says so.
        unlogged: what becomes of predictions that the log does not take: `serve` answers and counts them; `refuse` answers 503, where a
            prediction without a record is not allowed.
        bundle_key: file of the private key that signs models here; by default `keys/bundle.pem` of home, made at the first signature.
        bundle_keys: folder of the public keys, NAME.pub, whose models are loaded; by default `keys/bundles` of home. A server needs no more.
        actor: who is recorded as the person behind a command.
        notify: apprise URLs, apart by blanks, that are told of every project's incidents; more are in a project's `notify`.
        allow_private: networks that messages may be sent to beside public addresses, apart by commas: 127.0.0.1,10.1.2.0/24.
        assistant_url, assistant_model, assistant_key: a language model that writes the summaries of incidents, behind the base URL of an
            OpenAI-compatible server, like https://…/v1. It sees the record of the incident and nothing else; without a URL nobody is asked.
    """

    model_config = SettingsConfigDict(env_prefix="KEEPFIT_", frozen=True)

    home: Path = REPOSITORY / ".keepfit"
    projects: Path = REPOSITORY / "deployments"
    host: str = "127.0.0.1"
    prefect_port: int = Field(default=4200, ge=1, le=65535)
    mlflow_port: int = Field(default=5000, ge=1, le=65535)
    serving_port: int = Field(default=8080, ge=1, le=65535)
    serving_workers: int = Field(default=1, ge=1, le=256)
    nice: int = Field(default=10, ge=0, le=19)
    drain_seconds: float = Field(default=0.5, ge=0, le=300)
    prefect_url: str | None = None
    mlflow_url: str | None = None
    serving_url: str | None = None
    database_url: str | None = None
    studies_url: str | None = None
    lake_url: str | None = None
    dask: str | None = None
    token: SecretStr | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    upload_bytes: int = Field(default=1 << 30, ge=1)
    library_skew: Literal["refuse", "accept"] = "refuse"
    unlogged: Literal["serve", "refuse"] = "serve"
    bundle_key: Path | None = None
    bundle_keys: Path | None = None
    notify: SecretStr | None = None
    allow_private: Annotated[tuple[Network, ...], NoDecode] = ()
    assistant_url: str | None = None
    assistant_model: str = "default"
    assistant_key: SecretStr | None = None
    actor: str = Field(default_factory=lambda: f"{_login()}@{socket.gethostname()}")

    @field_validator("allow_private", mode="before")
    @classmethod
    def _networks(cls, given: object) -> object:
        """Networks as an environment variable says them; an address is a network of one."""
        words = given.replace(",", " ").split() if isinstance(given, str) else given
        return (
            tuple(ip_network(str(word), strict=False) for word in words) if isinstance(words, list | tuple) else words
        )

    def model_post_init(self, _context: object, /) -> None:
        """Makes the folders absolute, so that child processes with another working folder mean the same."""
        object.__setattr__(self, "home", self.home.absolute())
        object.__setattr__(self, "projects", self.projects.absolute())
        object.__setattr__(self, "bundle_key", self.bundle_key and self.bundle_key.absolute())
        object.__setattr__(self, "bundle_keys", self.bundle_keys and self.bundle_keys.absolute())
        object.__setattr__(self, "tls_cert", self.tls_cert and self.tls_cert.absolute())
        object.__setattr__(self, "tls_key", self.tls_key and self.tls_key.absolute())

    # -- folders and files --------------------------------------------------------------------------------------------
    @property
    def stack_file(self) -> Path:
        """JSON with the addresses of the local stack; exists while it runs."""
        return self.home / "stack.json"

    @property
    def secret_file(self) -> Path:
        """The password of the Prefect server, readable by its owner only."""
        return self.home / "prefect.auth"

    @property
    def signer(self) -> Path:
        """The private key that signs models here."""
        return self.bundle_key or self.home / "keys" / "bundle.pem"

    @property
    def signers(self) -> Path:
        """Folder of the public keys whose models are loaded."""
        return self.bundle_keys or self.home / "keys" / "bundles"

    @property
    def tokens_file(self) -> Path:
        """Roles and tokens of who may ask the serving process, readable by its owner only."""
        return self.home / "serving.tokens"

    @property
    def logs(self) -> Path:
        """Folder of the services' log files."""
        return self.home / "logs"

    @property
    def artifacts(self) -> Path:
        """Folder of MLflow's artifacts."""
        return self.home / "artifacts"

    def inbox(self, project: str, kind: str = "rows") -> Path:
        """Folder that a project's files are dropped into; `outcomes/` inside it is for what came true later."""
        folder = self.home / "inbox" / project
        return folder if kind == "rows" else folder / kind

    def staging(self, project: str) -> Path:
        """Folder of a landing's data files before the table knows of them."""
        return self.home / "staging" / project

    def index(self, project: str) -> Path:
        """Folder of the index of landed keys; it is made anew when it is gone."""
        return self.home / "index" / project

    def scores(self, project: str) -> Path:
        """Folder in which the relative paths begin of what a project has scored by the clock."""
        return self.home / "scores" / project

    def bundles(self, project: str) -> Path:
        """Folder of a project's releasable models, one folder a version."""
        return self.home / "bundles" / project

    def project_names(self) -> list[str]:
        """Every folder under `deployments/` that holds a `project.yaml`."""
        return (
            sorted(path.parent.name for path in self.projects.glob("*/project.yaml")) if self.projects.is_dir() else []
        )

    def declared(self, project: str) -> str:
        """SHA-256 of the files that say what a project is: another one after any change of them."""
        files = (self.projects / project / name for name in ("project.yaml", "hooks.py"))
        return hashlib.sha256(b"\0".join(file.read_bytes() if file.is_file() else b"" for file in files)).hexdigest()

    # -- URLs ---------------------------------------------------------------------------------------------------------
    def journal(self) -> str:
        """SQLAlchemy URL of the journal."""
        return self.database_url or f"sqlite:///{self.home / 'keepfit.db'}"

    def studies(self) -> str:
        """SQLAlchemy URL of Optuna's storage."""
        return self.studies_url or f"sqlite:///{self.home / 'studies.db'}"

    def lake(self, project: str) -> str:
        """Folder or URL of a project's Delta tables."""
        return f"{self.lake_url or self.home / 'lake'}/{project}"

    def stack(self) -> dict[str, str]:
        """Addresses of the local stack by service, or nothing when none was started."""
        try:
            return json.loads(self.stack_file.read_text())["urls"]
        except (FileNotFoundError, ValueError, KeyError):
            return {}

    def prefect(self) -> str | None:
        """Address of the Prefect server (without /api), if there is one."""
        return self.prefect_url or self.stack().get("prefect")

    def serving(self) -> str | None:
        """Address of the serving process, if there is one."""
        return self.serving_url or self.stack().get("serving")

    def bearer(self) -> dict[str, str]:
        """The header that shows the serving process the token of these settings."""
        return {"Authorization": f"Bearer {self.token.get_secret_value()}"} if self.token else {}

    def mlflow(self) -> str:
        """MLflow tracking URI: a server when there is one, else the local database itself."""
        return self.mlflow_url or self.stack().get("mlflow") or self.mlflow_database()

    def mlflow_database(self) -> str:
        """SQLAlchemy URL of the local stack's MLflow database."""
        return f"sqlite:///{self.home / 'mlflow.db'}"
