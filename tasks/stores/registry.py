"""The registry: what MLflow remembers of trainings and versions. Its aliases mirror the journal, nothing more."""

import contextlib
import json
import math
import os
import secrets
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.config.errors import StackError
from tasks.stores import durable
from tasks.stores.journal import NO_MLFLOW

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

ABSENT = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})  # how MLflow says that there is none
PASSING = frozenset({"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"})  # no answer, or none now
TRIES = 3
PASSED_OVER = "passed over"  # in place of the digest of a version whose number is taken
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}  # for whoever comes again anyway
Made = TypeVar("Made")
UI = "?workflowType=machine_learning"  # without it the pages open in another mode


class Registry:
    """One project's experiment and registered model, both called like the project."""

    def __init__(self, project: str, uri: str, artifacts: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault(
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"
        )  # a training whose terminal is gone failed on it
        import mlflow

        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        self.project, self.uri, self.artifacts = project, uri, artifacts
        self.client: MlflowClient = mlflow.MlflowClient()

    def experiment(self) -> str:
        """The experiment's id; made when it is not there, restored when somebody has deleted it. Files go straight to the artifact folder, past the server."""
        if found := self._experiment():
            return found
        self.artifacts.mkdir(parents=True, exist_ok=True)
        place = (self.artifacts / self.project).as_uri()
        return _once(lambda: self.client.create_experiment(self.project, artifact_location=place), self._experiment)

    def _experiment(self) -> str | None:
        found = self.client.get_experiment_by_name(self.project)
        if found is None:
            return None
        if found.lifecycle_stage == "deleted":  # it keeps its name, and takes no run
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def answers(self) -> bool:
        """Whether MLflow answers now; seconds are waited for it at most."""
        try:
            with answering():
                self._experiment()
        except StackError:
            return False
        return True

    def start(self, name: str, tags: Mapping[str, str], own: str = "") -> str:
        """A new parent run; gives its id. `own`: a name by which `started` finds it."""
        experiment, own = self.experiment(), own or secrets.token_hex(16)
        marked = {**tags, "keepfit.start": own}
        return _once(
            lambda: self.client.create_run(experiment, run_name=name, tags=marked).info.run_id,
            lambda: self.started(own),
        )

    def started(self, own: str) -> str | None:
        """The run that was started under a name of our own; None where there is none."""
        found = self.client.search_runs([self.experiment()], f"tags.`keepfit.start` = '{own}'")
        return next((run.info.run_id for run in found), None)

    def log(
        self,
        run: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Logs all of it in one call."""
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(
            run,
            metrics=[Metric(name, float(value), 0, 0) for name, value in (metrics or {}).items()],
            params=[Param(name, str(value)) for name, value in (params or {}).items()],
            tags=[RunTag(name, str(value)) for name, value in (tags or {}).items()],
        )

    def log_series(self, run: str, name: str, values: list[tuple[int, int, float]]) -> None:
        """Logs (milliseconds, step, value) of one metric in one call."""
        from mlflow.entities import Metric

        self.client.log_batch(run, metrics=[Metric(name, value, at, step) for at, step, value in values])

    def log_rows(self, run: str, snapshot: str, digest: str, sample: "pd.DataFrame", context: str, rows: int) -> None:
        """Names the dataset of a run by our own digest (MLflow's looks at 10,000 rows only)."""
        import mlflow.data
        from mlflow.entities import DatasetInput, InputTag

        data = mlflow.data.from_pandas(sample, name=f"{self.project} {snapshot}", digest=digest[:32])  # ty: ignore[missing-attribute]
        entity = data._to_mlflow_entity()
        tags = [InputTag("mlflow.data.context", context), InputTag("rows", str(rows)), InputTag("sha256", digest)]
        self.client.log_inputs(run, [DatasetInput(entity, tags)])

    def log_table(self, run: str, name: str, columns: Mapping[str, list[Any]]) -> None:
        """Puts a table beside the run, which MLflow shows beside those of other runs; again, it replaces the one that is there."""
        content = {
            "columns": list(columns),
            "data": [[_known(value) for value in row] for row in zip(*columns.values(), strict=True)],
        }
        self.log_files(run, {f"{name}.json": json.dumps(content, allow_nan=False)})
        table = json.dumps([*self._tables(run, f"{name}.json"), {"path": f"{name}.json", "type": "table"}])
        self.log(run, tags={"mlflow.loggedArtifacts": table})

    def _tables(self, run: str, other_than: str) -> list[dict[str, str]]:
        """The tables that the run has, as MLflow's tag names them."""
        known = json.loads(self.client.get_run(run).data.tags.get("mlflow.loggedArtifacts", "[]"))
        return [one for one in known if one["path"] != other_than]

    def log_files(self, run: str, files: Mapping[str, bytes | str]) -> None:
        """Puts files beside the run; a name with a slash makes a folder."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            self.client.log_artifacts(run, folder)

    def log_model(
        self, run: str, model: Any, sample: "pd.DataFrame", answers: Any, trusted: tuple[str, ...], requirements: list[str]
    ) -> str:  # fmt: skip
        """Logs a fitted pipeline with the signature of these rows and its answers, as skops, never as a pickle.

        Gives the logged model's id.
        """
        import mlflow
        import mlflow.sklearn

        signature = mlflow.models.infer_signature(sample, answers)
        with mlflow.start_run(run_id=run, experiment_id=self.experiment()):
            logged = mlflow.sklearn.log_model(
                model,
                name="model",
                serialization_format="skops",
                skops_trusted_types=list(trusted),
                pip_requirements=requirements,
                signature=signature,
            )
        return str(logged.model_id)

    def register(
        self, run: str, model: str, digest: str, tags: Mapping[str, str], description: str, *, above: int = 0
    ) -> int:
        """A version for a logged model; the same digest again gives the version that it has.

        Args:
            run: where the model was made.
            model: id of the logged model.
            digest: of the model.
            tags: of the version.
            description: of the version.
            above: the highest number that a version is known to have had; an MLflow that was restored from a backup would give it again.
        """
        if known := self._version(digest):
            return known
        _once(lambda: self.client.create_registered_model(self.project, tags={"keepfit": "project"}), self._model)
        self._pass_over(f"models:/{model}", above)
        told: dict[str, Any] = {
            "run_id": run,
            "model_id": model,
            "tags": {"keepfit.model_digest": digest, **tags},
            "description": description,
        }
        return _once(
            lambda: int(self.client.create_model_version(self.project, source=f"models:/{model}", **told).version),
            lambda: self._version(digest),
        )

    def _pass_over(self, source: str, taken: int) -> None:
        """Makes versions and deletes them until the next one has a number above: MLflow gives none a second time."""
        found = self.client.search_model_versions(f"name='{self.project}'")
        newest = max((int(each.version) for each in found), default=0)
        marked = {"keepfit.model_digest": PASSED_OVER}
        while newest < taken:
            newest = _once(
                lambda: int(self.client.create_model_version(self.project, source=source, tags=marked).version),
                lambda: self._version(PASSED_OVER),
            )
            self.client.delete_model_version(self.project, str(newest))

    def _version(self, digest: str) -> int | None:
        """The version of a model's digest; of several, which a repeated call has made, the first."""
        found = self.client.search_model_versions(f"name='{self.project}'")
        return min(
            (int(each.version) for each in found if each.tags.get("keepfit.model_digest") == digest), default=None
        )

    def _model(self) -> "RegisteredModel | None":
        found = self.client.search_registered_models(f"name='{self.project}'")
        return found[0] if found else None

    def point(self, alias: str, version: int) -> None:
        """Moves an alias; it follows the journal."""
        durable.step(f"alias {alias}")
        self.client.set_registered_model_alias(self.project, alias, str(version))

    def pointed(self, alias: str) -> int | None:
        """The version that an alias names; None where there is no such alias."""
        from mlflow.exceptions import MlflowException

        try:
            return int(self.client.get_model_version_by_alias(self.project, alias).version)
        except MlflowException as error:
            if error.error_code in ABSENT:
                return None
            raise

    def has(self, version: int) -> bool:
        """Whether a version is registered."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version(self.project, str(version)).current_stage != "Deleted_Internal"
        except MlflowException as error:
            if error.error_code in ABSENT:
                return False
            raise

    def end(self, run: str, *, failed: bool = False) -> None:
        """Closes a run."""
        self.client.set_terminated(run, status="FAILED" if failed else "FINISHED")

    def abandon(self, training: int | str, *, failed: bool = False) -> None:
        """Closes the run of a training that was killed or failed, also one that MLflow closed itself when the model was logged."""
        mine = f"tags.`keepfit.training` = '{training}'"
        newest = ["attributes.start_time DESC"]  # an older one is of a journal that was wiped
        for run in self.client.search_runs([self.experiment()], mine, max_results=1, order_by=newest):
            self.client.set_terminated(run.info.run_id, status="FAILED" if failed else "KILLED")

    def link(self, run: str) -> str | None:
        """The run's page, when a server runs."""
        return f"{self.uri}/#/experiments/{self.experiment()}/runs/{run}{UI}" if self.uri.startswith("http") else None

    def read(self, run: str, name: str) -> bytes | None:
        """A file of a run; None where the run has none of that name any more."""
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as folder:
            try:
                return Path(self.client.download_artifacts(run, name, folder)).read_bytes()
            except (MlflowException, OSError):
                return None

    def read_text(self, run: str, name: str) -> str:
        """A text file of a run."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run, name, folder)).read_text(encoding="utf-8")


def _once(make: Callable[[], Made], find: Callable[[], Made | None]) -> Made:
    """What a call creates: one that was carried out though its answer was lost is found, and not repeated.

    Raises:
        MlflowException: it was refused, or nothing came of it three times.
    """
    from mlflow.exceptions import MlflowException

    for left in reversed(range(TRIES)):
        try:
            with _unrepeated():
                return make()
        except MlflowException as error:
            if (found := find()) is not None:
                return found
            if error.error_code not in PASSING or not left:
                raise
    raise AssertionError("the last try gives or raises")


@contextlib.contextmanager
def answering() -> Generator[None]:
    """For whoever holds something that others wait for: a server that is away is waited for seconds, and told in our words.

    Raises:
        StackError: MLflow does not answer now.
    """
    from mlflow.exceptions import MlflowException

    try:
        with impatient():
            yield
    except MlflowException as error:
        if error.error_code not in PASSING:
            raise
        raise StackError(f"{NO_MLFLOW}: {' '.join(str(error).split())[:160]}") from error


@contextlib.contextmanager
def impatient() -> Generator[None]:
    """MLflow's client waits for a server that is down for seconds, not for minutes."""
    with _environment(IMPATIENT):
        yield


@contextlib.contextmanager
def _unrepeated() -> Generator[None]:
    """MLflow's client repeats any call whose answer does not come, and would create a second one; here it does not."""
    with _environment({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}):
        yield


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Generator[None]:
    """These variables are so meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}


def _known(value: Any) -> Any:
    """The value, or None for a number that is none: JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(value: Any) -> str:
    """Readable JSON for files beside a run."""
    return json.dumps(value, indent=1, default=str)
