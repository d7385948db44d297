"""Train: fit the best recipe on train, calibrate it on validation, where it may be fit it once more on both, keep it as a candidate bundle."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.compiled.parity import compiled
from tasks.ml.contract import Column
from tasks.ml.fitted import Fitted
from tasks.ml.recipe import Recipe
from tasks.stores import bundles, candidates, footprints
from tasks.stores.lake import Lake, parts
from tasks.stores.references import Candidate, Snapshot


@task(name="fit", cache_policy=NO_CACHE)
def fit(project: str, snapshot: Snapshot, recipe: Recipe, run: str) -> Candidate:
    """Fits on train, and where the model may learn from them on validation rows, too; of the holdout nothing but the rows' names is read."""
    settings = Settings()
    use = Project.named(project, settings)
    split, lake = parts(use, snapshot, settings.lake(project)), Lake(project, settings.lake(project), use.contract)
    fitted = Fitted.of(recipe, use.task, use.features, use.contract.time, split, seed=use.search.seed)
    if use.search.refit:
        fitted = fitted.refitted(split)
    made = compiled(use.task, fitted.model, fitted.asked, fitted.operates)
    folder = candidates.folder(settings, project, run)
    with split.kept():
        about = manifest(use, snapshot, recipe, fitted.operates, fitted.calibration, use.split.seen_until(split))
        footprint = footprints.taken(use, snapshot, split, recipe, fitted, lake)
    files = footprint.files() | bundles.compiled(made.form, made.graph)
    try:
        digest = bundles.write(folder, fitted.model, about | {"usual": fitted.usual} | made.described(), files)
    except bundles.OversizedError as error:  # the search cannot see it: it learns from fewer rows
        refused = f"{error}: name the families under `search`, and leave out {recipe.family.kind}"
        return Candidate(run=run, folder=str(folder), digest="", operates=fitted.operates, refused=refused)
    get_run_logger().info(
        "%s fitted on %s rows, %s; calibration %s%s; %s", recipe.name, fitted.rows, f"and not on validation: {fitted.once}" if fitted.once else "validation among them",
        fitted.calibration, "".join(f"; {name} {value:.4g}" for name, value in fitted.operates.items()), made,
    )  # fmt: skip
    return Candidate(run=run, folder=str(folder), digest=digest, operates=fitted.operates)


def manifest(
    use: Project, snapshot: Snapshot, recipe: Recipe, operates: dict[str, float], calibration: str, seen_until: str
) -> dict[str, object]:
    """What a server must know about a model, and what it was made of."""
    contract, read = use.contract, recipe.columns(use.features)
    made = computed(use, recipe)
    sent = {name: contract.columns[name] for name in contract.features} if made else read
    return {
        "project": use.project, "version": 0, "kind": use.kind, **use.task.described(), "target": contract.target,
        "features": [_feature(name, column) for name, column in sent.items()],
        "ignored": [name for name in contract.columns if name not in sent],
        "key": {name: contract.columns[name].type for name in contract.key}, **operates, "metric": use.metric,
        "recipe": recipe.model_dump(mode="json"), "calibration": calibration, "seed": use.search.seed, "snapshot": snapshot.name,
        "snapshot_sha256": snapshot.digest, "seen_until": seen_until, "split": use.split.model_dump(mode="json"), "contract": contract.digest,
        "trusted": snapshot.trusted, **({"computed": made} if made else {}),
    }  # fmt: skip


def _feature(name: str, column: Column) -> dict[str, object]:
    """How a row holds a column; a server reads a time without an offset as UTC and no other."""
    zoned = {"offset": True} if column.type == "datetime" and column.timezone != "UTC" else {}
    return {"name": name, "type": column.type, "nullable": column.nullable, **zoned}


def computed(use: Project, recipe: Recipe) -> dict[str, str]:
    """The types of the computed columns by name, all of them when the model reads any: `features` then needs every column of the contract."""
    made: dict[str, str] = {name: each.type for name, each in use.computed.items()}
    return made if made.keys() & recipe.columns(use.features).keys() else {}
