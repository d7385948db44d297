"""Train: fit the best found on train, set the threshold by cost on validation, keep it as a candidate bundle."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import models
from tasks.ml.features import matrix
from tasks.stores import bundles
from tasks.stores.lake import parts
from tasks.stores.references import Candidate, Snapshot


@task(name="fit", cache_policy=NO_CACHE)
def fit(project: str, snapshot: Snapshot, family: models.Family, run: str) -> Candidate:
    """Fits on train only; the holdout is not read."""
    settings = Settings()
    use = Project.named(project, settings)
    split = parts(use, snapshot, settings.lake(project))
    columns = {name: use.contract.columns[name] for name in use.contract.features}
    types = {name: column.type for name, column in columns.items()}
    labels = use.truth(split.train).map(dict(enumerate(use.labels))).to_numpy(dtype=str)
    features = matrix(split.train, types)
    model = models.pipeline(family, models.observed(columns, features), use.search.seed).fit(features, labels)
    chances = models.probabilities(model, matrix(split.validation, types), use.labels[1])
    threshold = use.cost.threshold(use.truth(split.validation).to_numpy(), chances)
    folder = settings.home / "candidates" / project / run
    digest = bundles.write(
        folder, model, manifest(use, snapshot, threshold, str(split.validation[use.split.column].max()))
    )
    get_run_logger().info("%s fitted on %s rows; positive from %.3f on", family.kind, len(split.train), threshold)
    return Candidate(run=run, folder=str(folder), digest=digest, threshold=threshold)


def manifest(use: Project, snapshot: Snapshot, threshold: float, seen_until: str) -> dict[str, object]:
    """What a server must know about a model, and what it was made of."""
    contract = use.contract
    return {
        "project": use.project, "version": 0, "kind": use.kind, "classes": sorted(use.labels), "positive": use.labels[1], "target": contract.target,
        "features": [{"name": name, "type": contract.columns[name].type, "nullable": contract.columns[name].nullable} for name in contract.features],
        "ignored": [*contract.key, contract.time, contract.target], "threshold": threshold, "metric": use.metric, "snapshot": snapshot.name,
        "snapshot_sha256": snapshot.digest, "seen_until": seen_until, "contract": contract.digest,
    }  # fmt: skip
