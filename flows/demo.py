"""The demo: thyroid from nothing to a served champion that was replaced because the data moved, on the real stack."""

import datetime as dt
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import httpx
from rich.console import Group
from rich.table import Table
from rich.text import Text

from flows import stack
from flows.saying import Say
from tasks.config.errors import StackError
from tasks.config.settings import Settings
from tasks.stores.journal import Journal

PROJECT = "thyroid"
DROPS = (("1984-08", "1984-12"), ("1985-01", "1985-06"), ("1985-07", "1986-06"), ("1986-07", "1987-01"))
FEWEST = 30  # rows of a month that an AUC is given for
PATIENCE = 240.0
ENDED = {"released", "registered", "held", "refused", "kept", "failed", "crashed"}


@dataclass(frozen=True)
class Drop:
    """One file that is dropped into the inbox: the months that it holds."""

    path: Path
    digest: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """The drop of a file."""
        from tasks.stores.files import fingerprint

        return cls(path, fingerprint(path))

    @property
    def name(self) -> str:
        """How the journal calls it."""
        return self.path.name


def play(settings: Settings, say: Say) -> dict[str, Any]:
    """Brings the stack up, drops one file after another, waits for what each leads to, and tells the story.

    Said again after a Ctrl-C or at its end, it goes on where the journal says that it is.

    Raises:
        StackError: something did not happen in time; the message says what to look at.
    """
    start = time.monotonic()
    tell = clocked(say, start)
    stack.up(settings, tell)
    stack.connect(settings)
    from flows.deployments import deploy

    tell(f"deployed {', '.join(deploy(settings, [PROJECT]).names)}")
    journal = Journal(settings.journal())
    others = [name for name in settings.project_names() if name != PROJECT]
    with tempfile.TemporaryDirectory() as folder:
        for drop in list(drops(Path(folder))):
            batch = landed(drop, PROJECT, settings, journal, tell)
            if others:  # while the first training runs: the story is of one project
                tell(f"  meanwhile deployed {', '.join(deploy(settings, others).names)}")
                others = []
            training = _trained(drop, batch["at"], settings, journal, tell)
            tell(f"  {training['state']}: {training['reason']}")
    rows = months(settings, journal)
    return {
        "project": PROJECT, "state": "done", "months": rows, "prediction": _predict(settings, journal, tell), "links": links(settings),
        "picture": _picture(settings, rows), "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def drops(folder: Path) -> Iterator[Drop]:
    """The demo's files: the project's monthly batches, joined so that the story fits into two minutes."""
    written = data_of(Settings().projects / PROJECT).batches(folder / "months")
    for first, last in DROPS:
        chosen = [file for file in written if first <= file.stem <= last]
        joined = folder / f"{first}_to_{last}.csv"
        texts = [file.read_text().splitlines(keepends=True) for file in chosen]
        joined.write_text("".join([texts[0][0], *(line for text in texts for line in text[1:])]))
        yield Drop.of(joined)


def data_of(folder: Path) -> ModuleType:
    """The data.py of a project's folder, which belongs to no package.

    Raises:
        StackError: there is none.
    """
    path = folder / "data.py"
    spec = importlib.util.spec_from_file_location(f"data_of_{folder.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise StackError(
            f"{path} is not there; the demo takes its data from it. Restore the folder from the repository."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def landed(drop: Drop, project: str, settings: Settings, journal: Journal, say: Say) -> dict[str, Any]:
    """Drops a file, if it has not landed already, and waits until it has; gives what became of it."""
    if not journal.batch(project, drop.digest):
        say(f"dropped {drop.name} into the inbox")
        inbox = settings.inbox(project)
        inbox.mkdir(parents=True, exist_ok=True)
        partial = inbox / f".{drop.name}.part"
        partial.write_bytes(drop.path.read_bytes())
        partial.rename(inbox / drop.name)
    batch = awaited(lambda: journal.batch(project, drop.digest), f"{drop.name} has not landed", settings)
    say(f"  {batch['reason']}")
    return batch


def _trained(drop: Drop, since: str, settings: Settings, journal: Journal, say: Say) -> dict[str, Any]:
    """The training that a drop led to, or that the recovery found owed, once it has ended; one that a kill took away is started again by hand."""
    from flows.runs import start
    from tasks.owed import OWED

    def found() -> dict[str, Any] | None:
        rows = journal.trainings(PROJECT)
        named = next((row for row in reversed(rows) if drop.name in row["trigger"]), None)
        return named or next((row for row in rows if OWED in row["trigger"] and row["started"] >= since), None)

    def ended() -> dict[str, Any] | None:
        row = found()
        return row if row and row["state"] in ENDED else None

    begun = time.monotonic()
    while found() is None and time.monotonic() - begun < 30:
        time.sleep(0.1)
    if found() is None:
        say(f"  no training came of {drop.name} within 30 s; starting it by hand")
        start("train", {"project": PROJECT, "reason": f"{drop.name} landed, its event was lost"})
    row = awaited(found, f"no training of {drop.name} began", settings)
    say(f"  training began: {row['trigger']}")
    return awaited(ended, f"the training of {drop.name} has not ended", settings)


def awaited(ask: Callable[[], dict[str, Any] | None], complaint: str, settings: Settings) -> dict[str, Any]:
    """Asks until there is an answer.

    Raises:
        StackError: there is none in time.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        answer = ask()
        if answer is not None:
            return answer
        time.sleep(0.1)
    raise StackError(
        f"{complaint} after {PATIENCE:g} s. Look at `keepfit status` and at {settings.logs}; saying `make demo` again goes on from here."
    )


def months(settings: Settings, journal: Journal) -> list[dict[str, Any]]:
    """One row a month: what the frozen first model and the champion of the time were worth on rows that neither had seen.

    The champion of the time is the one that answered when the month's batch landed, before anything was trained on it.
    """
    from tasks.config.project import Project
    from tasks.ml.features import matrix
    from tasks.ml.metrics import METRICS
    from tasks.stores import bundles
    from tasks.stores.lake import BATCH, Lake

    use, releases = Project.named(PROJECT, settings), journal.releases(PROJECT)
    rows = Lake(PROJECT, settings.lake(PROJECT)).rows()
    types = use.sent
    made = {
        release.version: bundles.read(settings.bundles(PROJECT) / str(release.version), release.digest)
        for release in releases
    }
    models = {version: model for version, (_, model) in made.items()}
    reads = {version: [feature["name"] for feature in manifest["features"]] for version, (manifest, _) in made.items()}
    told = []
    for batch in journal.batches(PROJECT):
        came = rows[rows[BATCH] == batch["batch"]]
        live = [release.version for release in releases if release.at <= batch["at"]]
        decided = next(
            (row for row in journal.trainings(PROJECT) if batch["name"] in row["trigger"] and row["state"] in ENDED),
            None,
        )
        periods = sorted(set(came[use.contract.time].dt.strftime("%Y-%m")))
        for period in periods:
            of_month = came[came[use.contract.time].dt.strftime("%Y-%m") == period]
            truth = use.task.truth(of_month)
            auc = {}
            if live and len(of_month) >= FEWEST and 0 < truth.sum() < len(truth):
                features = matrix(of_month, types)
                auc = {
                    version: METRICS["roc_auc"].of(truth, use.task.answers(models[version], features[reads[version]]))
                    for version in {live[0], live[-1]}
                }
            last = period == periods[-1]
            told.append(
                {
                    "month": period, "rows": len(of_month), "frozen": auc.get(live[0]) if live else None,
                    "champion": auc.get(live[-1]) if live else None, "version": live[-1] if live else None,
                    "decision": decided["state"] if last and decided else None, "reason": decided["reason"] if last and decided else None,
                }
            )  # fmt: skip
    return told


def _predict(settings: Settings, journal: Journal, say: Say) -> dict[str, Any]:
    """One prediction over HTTP, for the newest row that landed."""
    from tasks.config.project import Project
    from tasks.stores.lake import Lake

    use = Project.named(PROJECT, settings)
    rows = Lake(PROJECT, settings.lake(PROJECT)).rows()
    newest = rows.sort_values(use.contract.time).tail(1)[list(use.contract.features)]
    row = json.loads(newest.to_json(orient="records"))[0]
    answer = (
        httpx.post(
            f"{settings.serving()}/projects/{PROJECT}/predict",
            json={"rows": [row]},
            headers=settings.bearer(),
            timeout=30,
        )
        .raise_for_status()
        .json()
    )
    champion = journal.champion(PROJECT)
    say(
        f"POST /projects/{PROJECT}/predict answers with version {answer['version']} (champion: {champion.version if champion else 'none'})"
    )
    return {"row": row, "answer": answer}


def links(settings: Settings) -> dict[str, str]:
    """Where to look next."""
    urls = settings.stack()
    return {
        "Prefect": f"{urls.get('prefect', '')}/runs", "MLflow": f"{urls.get('mlflow', '')}/#/experiments?workflowType=machine_learning",
        "predictions": f"{urls.get('serving', '')}/docs", "password for Prefect": str(settings.secret_file),
    }  # fmt: skip


def _picture(settings: Settings, rows: list[dict[str, Any]]) -> str:
    from tasks.ml import pictures

    shown = [
        {"period": row["month"], "frozen": row["frozen"], "champion": row["champion"], "event": row["decision"], "version": row["version"]}
        for row in rows if row["frozen"] is not None
    ]  # fmt: skip
    path = settings.home / "demo.png"
    path.write_bytes(pictures.months(shown, "ROC AUC", 0.98))
    return str(path)


def page(result: dict[str, Any]) -> Group:
    """The story for a terminal."""
    table = Table(
        "month",
        "rows",
        "frozen first model",
        "champion",
        "",
        "decided",
        box=None,
        title="ROC AUC on each month before it was learned from",
    )
    for row in result["months"]:
        decided = f"{row['decision']}: {row['reason']}" if row["decision"] else ""
        version = f"v{row['version']}" if row["version"] else ""
        table.add_row(
            row["month"], str(row["rows"]), _number(row["frozen"]), _number(row["champion"]), version, decided
        )
    answer = result["prediction"]["answer"]
    lines = [
        f"\nOne prediction over HTTP: {json.dumps(answer)}\n",
        *(f"{name:>22}  {place}" for name, place in result["links"].items()),
    ]
    lines += [
        f"{'picture':>22}  {result['picture']}",
        f"\n{result['seconds']} s in all; `keepfit status` shows it, `keepfit down` stops it.",
    ]
    return Group(table, Text("\n".join(lines)))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def clocked(say: Say, start: float) -> Say:
    """Puts the elapsed time in front of each line."""

    def tell(line: str) -> None:
        say(f"{dt.timedelta(seconds=int(time.monotonic() - start))!s:>8}  {line}")

    return tell
