"""The fraud story: simulated weeks through the real stack; on a dated day a new pattern appears, and with no hand on it recall comes back.

The first champion is asked for. From then on only files are dropped, one a week, as a bank would send them: landing, watching, the alarm, the
training that it starts, the gates and the release follow by themselves. The same weeks with the first model alone stand beside it.
"""

import datetime as dt
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from ruamel.yaml import YAML

from flows import stack
from flows.demo import ENDED, Drop, awaited, clocked, data_of, landed
from flows.saying import Say
from tasks.config.errors import StackError
from tasks.config.settings import Settings
from tasks.stores.journal import Journal

PROJECT = "fraud"
CUSTOMERS = 1_000
FIRST, BEGINS, WEEKS = 8, 9, 16  # weeks: of the first file, before the new pattern, in all
BUDGET = 0.03  # share of the payments that the analysts look at; as many are frauds while the new pattern lasts
FRESH = 0.8  # recall has come back when it is this share of what it was before the pattern, on average of the last two weeks
SAID: dict[str, Any] = {  # what the story's project file says otherwise than the shipped one: a lighter search, and no training by batch
    "alerts": BUDGET,
    "split": {"kind": "time", "column": "time", "matures": 7, "holdout": 0.07, "validation": 0.08},
    "search": {"families": ["hist_gradient_boosting"], "seconds": 10, "trials": 2, "folds": 2, "rows": 60_000, "seed": 7},
    "retrain": [{"kind": "decay", "cooldown": 0}, {"kind": "drift", "cooldown": 0}, {"kind": "cron", "cron": "0 3 1 1 *"}],
    "prove": {"rows": 70_000},  # with fewer the trusted rows hold too few frauds to tell a poisoned batch
    "breaker": {"runs": 10, "soon_hours": 0},  # its weeks pass in seconds
}  # fmt: skip


def settings_of(settings: Settings) -> Settings:
    """Where the story is played: in a home of its own inside of the given one, with a project folder of its own.

    Sets the environment, so that the processes of its stack see the same.
    """
    home = settings.home / "story"
    os.environ |= {"KEEPFIT_HOME": str(home), "KEEPFIT_PROJECTS": str(home / "projects")}
    folder = home / "projects" / PROJECT
    if not folder.is_dir():
        _declare(settings.projects / PROJECT, folder)
    return Settings()


def _declare(shipped: Path, folder: Path) -> None:
    """A copy of the shipped project that says what the story says."""
    shutil.copytree(shipped, folder, ignore=shutil.ignore_patterns("__pycache__"))
    yaml = YAML(typ="safe")
    yaml.dump(yaml.load(shipped / "project.yaml") | SAID, folder / "project.yaml")


def play(settings: Settings, say: Say) -> dict[str, Any]:
    """Plays the story on a stack of its own, which is stopped at the end; what it made stays to be looked at.

    Said again after a Ctrl-C, it goes on where the journal says that it is.

    Raises:
        StackError: something did not happen in time; the message says what to look at.
    """
    start = time.monotonic()
    tell = clocked(say, start)
    stack.up(settings, tell)
    stack.connect(settings)
    from flows.deployments import deploy

    try:
        tell(f"deployed {', '.join(deploy(settings).names)}")
        journal = Journal(settings.journal())
        with tempfile.TemporaryDirectory() as folder:
            for number, drop in enumerate(_drops(data_of(settings.projects / PROJECT), Path(folder))):
                _through(drop, settings, journal, tell, is_first=number == 0)
        weeks = _weeks(settings, journal)
    finally:
        stack.down(settings)
    return {"project": PROJECT, **_ended(weeks), "weeks": weeks, "picture": _picture(settings, weeks), "seconds": round(time.monotonic() - start, 1)}  # fmt: skip


def _drops(data: ModuleType, folder: Path) -> Iterator[Drop]:
    """What the bank sends: the first weeks in one file, then one a week."""
    pattern = data.Cloned(data.START + dt.timedelta(weeks=BEGINS), a_day=15.0, share=0.7)
    world = data.World(customers=CUSTOMERS, changes=(pattern,))
    from tasks.config.demos import write

    days = data.days(world, 0, 7 * WEEKS)
    made, week = data.sent(days), (days["time"] - data.START).dt.days // 7
    yield Drop.of(write(made[week < FIRST], folder / f"weeks_01_to_{FIRST:02}.csv"))
    for number in range(FIRST, WEEKS):
        yield Drop.of(write(made[week == number], folder / f"week_{number + 1:02}.csv"))


def _through(drop: Drop, settings: Settings, journal: Journal, say: Say, *, is_first: bool) -> None:
    """Drops a file, and waits for what follows: the first champion, which is asked for; later the watch, and what its alarm leads to."""
    came = landed(drop, PROJECT, settings, journal, say)["at"]
    if is_first:
        if journal.champion(PROJECT) is None:
            _asked_for(journal, say)
        return
    from tasks.config.project import Project
    from tasks.owed import owes

    owed = owes(Project.named(PROJECT, settings), journal)
    seen = awaited(lambda: _watched(journal, came), f"nobody has watched {drop.name}", settings)
    say(f"  {seen['verdict']}: {seen['detail']['reason']}")
    if owed or _asking(seen):
        training = awaited(lambda: _trained(journal, came), f"{drop.name} has led to no training", settings)
        say(f"  {training['trigger']}")
        say(f"  {training['state']}: {training['reason']}")


def _asked_for(journal: Journal, say: Say) -> None:
    """The first training.

    Raises:
        StackError: it ended without a champion.
    """
    from flows.runs import start, wait

    done = wait(start("train", {"project": PROJECT, "reason": "the first champion"}), lambda _: None)
    say(f"  {done['state']}: {done['reason']}")
    if journal.champion(PROJECT) is None:
        raise StackError(f"The first training of the story made no champion: {done['reason']}")


def _watched(journal: Journal, since: str) -> dict[str, Any] | None:
    """The first look after that moment (ISO 8601)."""
    return next((row for row in journal.watches(PROJECT) if row["at"] > since), None)


def _asking(seen: dict[str, Any]) -> list[str]:
    """The kinds of a look's alarms that ask for a training; those that an earlier look had found do not."""
    detail = seen["detail"]
    return [
        alarm["kind"]
        for alarm in detail["alarms"]
        if alarm["class"] == "retrain" and alarm["kind"] not in detail.get("repeated", ())
    ]


def _trained(journal: Journal, since: str, until: str = "9") -> dict[str, Any] | None:
    """The first training that began in this time (ISO 8601), once it has ended."""
    within = [row for row in journal.trainings(PROJECT) if since < row["started"] < until]
    return next((row for row in within if row["state"] in ENDED), None)


def _weeks(settings: Settings, journal: Journal) -> list[dict[str, Any]]:
    """One row a week: which share of the frauds the first model and the champion of the time caught, before either had seen them."""
    from tasks.config.project import Project
    from tasks.ml.features import matrix
    from tasks.stores import bundles
    from tasks.stores.observed import landed as observed

    use, releases = Project.named(PROJECT, settings), journal.releases(PROJECT)
    seen = observed(use, settings, None, dt.datetime.now(dt.UTC))
    features, truth = matrix(seen.rows, use.sent), use.task.truth(seen.rows)
    said = {}
    for release in releases:
        manifest, model = bundles.read(settings.bundles(PROJECT) / str(release.version), release.digest)
        said[release.version] = use.task.answers(model, features[[each["name"] for each in manifest["features"]]])
    week = ((seen.at - seen.at.min().astype("datetime64[D]")).astype("timedelta64[D]").astype(int)) // 7
    events = _events(journal)
    told = []
    for number in range(FIRST, WEEKS):
        here = week == number
        version = int(seen.version[here].max(initial=0))
        told.append({
            "week": number + 1, "payments": int(here.sum()), "frauds": int(truth[here].sum()), "version": version,
            "frozen": _caught(truth[here], said[releases[0].version][here]), "champion": _caught(truth[here], said[version][here]),
            **events.get(number + 1, {"alarm": None, "decision": None, "made": None, "reason": None}),
        })  # fmt: skip
    return told


def _caught(truth: Any, answers: Any) -> float:
    """Recall at the alert budget: the share of the frauds among those payments of a week that look worst."""
    worst = (-answers).argsort(kind="stable")[: round(BUDGET * len(truth))]
    return float(truth[worst].sum() / truth.sum())


def _events(journal: Journal) -> dict[int, dict[str, Any]]:
    """By week: what the watch said after it had landed, and what that, or the week's rows, led to."""
    found = {}
    batches = journal.batches(PROJECT)
    for batch, following in zip(batches, [*[later["at"] for later in batches[1:]], "9"], strict=True):
        seen = _watched(journal, batch["at"])
        if seen is None or not batch["name"].startswith("week_"):
            continue
        led = _trained(journal, batch["at"], following)
        found[int(batch["name"][5:7])] = {
            "alarm": ", ".join(_asking(seen)) or None, "decision": led["state"] if led else None, "made": led["version"] if led else None, "reason": led["reason"] if led else None,
        }  # fmt: skip
    return found


def _ended(weeks: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether recall came back by itself, in a sentence."""
    calm = [week["champion"] for week in weeks if week["week"] <= BEGINS]
    last, frozen = ([week[who] for week in weeks[-2:]] for who in ("champion", "frozen"))
    before, after, without = (sum(some) / len(some) for some in (calm, last, frozen))
    came_back = after >= FRESH * before
    said = (
        f"recall at {BUDGET:.0%} alerts was {before:.2f} before the new pattern, is {after:.2f} in the last two weeks, "
        f"and would be {without:.2f} with the first model"
    )
    return {"state": "done" if came_back else "failed", "reason": said, "before": before, "after": after, "without": without}  # fmt: skip


def _picture(settings: Settings, weeks: list[dict[str, Any]]) -> str:
    from tasks.ml import pictures

    shown = [
        {"period": f"week {week['week']}", "event": week["decision"], "version": week["made"] or week["version"], "frozen": week["frozen"], "champion": week["champion"]}
        for week in weeks
    ]  # fmt: skip
    path = settings.home / "story.png"
    path.write_bytes(pictures.months(shown, f"recall at {BUDGET:.0%} alerts", None))
    return str(path)


def page(result: dict[str, Any]) -> Group:
    """The story for a terminal."""
    table = Table("week", "payments", "frauds", "first model alone", "champion", "", "alarm", "then", box=None, title=f"Caught of the frauds, when {BUDGET:.0%} of the payments are looked at")  # fmt: skip
    for week in result["weeks"]:
        made = f"v{week['made']} " if week["made"] else ""
        numbers = (f"{week['payments']:,}", str(week["frauds"]), f"{week['frozen']:.2f}", f"{week['champion']:.2f}")
        then = f"{made}{week['decision']}" if week["decision"] else ""
        table.add_row(
            str(week["week"]), *numbers, f"v{week['version']}", week["alarm"] or ("follow-up" if then else ""), then
        )
    lines = [
        f"\nEach week before anything was learned from it; the new pattern begins in week {BEGINS + 1}, and a fraud is known a week later."
    ]
    lines += [
        f"After week {week['week']}, {week['decision']}: {week['reason']}"
        for week in result["weeks"]
        if week["decision"]
    ]
    lines += [f"\n{result['reason']}\n", f"{'picture':>12}  {result['picture']}", f"{result['seconds']} s in all"]
    return Group(table, Text("\n".join(lines)))
