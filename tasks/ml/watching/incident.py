"""Incidents: one record for what belongs together, however many alarms tell of it, with a text that a tired person understands.

A record holds no row and no personal data: names of columns, conditions on those that are not private, statistics, versions, times. It is
all that leaves the machine, and all that a language model sees.

`after` says what the alarms of a look open, join or end; `described` writes the text. tasks/incident.py puts both on record.
"""

import datetime as dt
import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, Field

from tasks.ml.watching.alarm import Alarm, Class, Kind

MOST = 20  # alarms, and features, that a record keeps; of the others it keeps the number
LONGEST = 1_200  # characters of a summary
NAME, SAID, CONDITION = 60, 300, 100  # characters of a name, of an alarm's sentence, of a condition on a feature
SOURCE = Literal["watch", "heartbeat", "disk"]
PRESSING: tuple[Class, ...] = ("retrain", "mend")  # an alarm to ignore opens nothing
MARKDOWN = re.compile(r"\[([^\[\]]*)\]\([^()]*\)")  # a link with a text, which stays
LINK = re.compile(
    r"\b[a-z][a-z0-9+.-]*://\S+|\b(?:mailto|javascript|data):\S+|\bwww\.\S+"
    r"|\b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,24}(?::\d+)?/\S*",
    re.IGNORECASE,
)
NO_LINK = "(link removed)"
CALLS = str.maketrans({"<": "‹", ">": "›", "@": "＠"})  # what chats read as a tag or as a call to everybody


class IncidentPlan(BaseModel, frozen=True, extra="forbid"):
    """When alarms belong together, when an incident is over, and what its record keeps to itself."""

    join_hours: float = Field(
        default=72, gt=0, description="an alarm joins an open incident that was seen at most so long ago"
    )
    quiet_hours: float = Field(default=12, ge=0, description="without an alarm for so long an incident ends")
    private: tuple[str, ...] = Field(
        default=(),
        description="columns of which an incident tells the name alone; those of the gate `fairness` always are",
    )


class Window(BaseModel, frozen=True):
    """What was looked at.

    Attributes:
        start, end: when the rows were served, UTC; None where none was.
        rows: how many.
    """

    start: dt.datetime | None = None
    end: dt.datetime | None = None
    rows: int = 0


class Deed(BaseModel, frozen=True):
    """What keepfit did meanwhile.

    Attributes:
        kind: training, release or rollback.
        at: when.
        state: what became of it, in the journal's words.
        version: that it made or moved; None where there is none.
    """

    kind: Literal["training", "release", "rollback"]
    at: dt.datetime
    state: str
    version: int | None = None


class Incident(BaseModel, frozen=True, populate_by_name=True, extra="forbid"):
    """What belongs together: one project, one class, one time.

    Attributes:
        id: the same for the same project, class, source and beginning.
        version: that answered when it was seen last; None where nobody answered.
        source: the watch, or the look for a watch that is silent.
        what: retrain the model, or mend the data or the service; `class` in JSON.
        first_seen, last_seen: of its alarms, UTC.
        ended: when it was over.
        count: its alarms so far, each as often as it was found; one that stands between is not found again.
        looks: the watches that found some.
        window: of the last of them.
        alarms: the strongest, at most 20, each kind, check and leading feature once.
        metric, effect: the project's metric, and the worst expected change of it; None where nothing can be said.
        features: what explains it, the strongest first, at most 20.
        more: features beyond those.
        done: trainings, releases and rollbacks since it began.
        summary: what it means, in plain language.
        written_by: who wrote that, keepfit itself or a language model.
        note: why it is not the language model's where one was asked.
    """

    id: str
    project: str
    version: int | None = None
    source: SOURCE = "watch"
    what: Class = Field(alias="class")
    state: Literal["open", "closed"] = "open"
    first_seen: dt.datetime
    last_seen: dt.datetime
    ended: dt.datetime | None = None
    count: int = 0
    looks: int = 0
    window: Window = Window()
    alarms: tuple[Alarm, ...] = ()
    metric: str = ""
    effect: float | None = None
    features: tuple[str, ...] = ()
    more: int = 0
    done: tuple[Deed, ...] = ()
    summary: str = ""
    written_by: Literal["keepfit", "assistant"] = "keepfit"
    note: str = ""

    def with_done(self, done: Iterable[Deed]) -> Self:
        """The same with what was done since it began, in order, the newest 20."""
        since = sorted((deed for deed in done if deed.at >= self.first_seen), key=lambda deed: deed.at)
        return self.model_copy(update={"done": tuple(since[-MOST:])})

    def told(self) -> dict[str, Any]:
        """As JSON; of the same form whoever wrote the summary."""
        return self.model_dump(mode="json", by_alias=True)


class Seen(NamedTuple):
    """What one look saw.

    Attributes:
        project, version, metric, window: as in `Incident`.
        private: columns of which the name alone is told.
        source: who looked.
        repeated: kinds of which the alarms were found by an earlier look: they say that it goes on, and count no more.
    """

    project: str
    version: int | None = None
    metric: str = ""
    window: Window = Window()
    private: Collection[str] = ()
    source: SOURCE = "watch"
    repeated: Collection[Kind] = ()


class Step(NamedTuple):
    """An incident after a look, and what is told of it; None: nothing."""

    incident: Incident
    event: Literal["opened", "ended"] | None


class Joined(NamedTuple):
    """An incident after a look, and whether it is new."""

    incident: Incident
    is_new: bool


def joined(
    known: Sequence[Incident], alarms: Sequence[Alarm], seen: Seen, now: dt.datetime, plan: IncidentPlan | None = None
) -> list[Joined]:
    """The incidents that the alarms of one look open or join: at most one of each class, however many alarms there are.

    Args:
        known: the project's open incidents.
        alarms: of this look; those to ignore open nothing.
        seen: what was looked at.
        now: UTC.
        plan: when alarms belong together.
    """
    plan, found = plan or IncidentPlan(), []
    for what in PRESSING:
        if some := [alarm for alarm in alarms if alarm.what == what]:
            before = _open(known, seen, what, now - dt.timedelta(hours=plan.join_hours))
            found.append(Joined(_grown(before or _begun(seen, what, now), some, seen, now), before is None))
    return found


def after(
    known: Sequence[Incident],
    alarms: Sequence[Alarm],
    judged: Collection[str],
    seen: Seen,
    now: dt.datetime,
    plan: IncidentPlan | None = None,
) -> list[Step]:
    """What one look makes of a project's incidents: those that end, then those that begin or go on.

    One ends when a look that could judge all that it is about found it calm for long enough; one that was not seen for too long gives way to a new
    one; that nobody watches ends with any watch. A look with too few rows judges nothing, and ends nothing (faults: M-01).

    Args:
        known: the project's open incidents.
        alarms: of this look.
        judged: the kinds of alarms of which the look had enough to judge, and the checks that had.
        seen: what was looked at.
        now: UTC.
        plan: when alarms belong together, and when they are over.
    """
    plan = plan or IncidentPlan()
    found = joined(known, alarms, seen, now, plan)
    going_on = {one.incident.id for one in found}
    replaced = {one.incident.what for one in found if one.is_new}
    quiet = now - dt.timedelta(hours=plan.quiet_hours)

    def is_over(one: Incident) -> bool:
        if one.source != seen.source:
            return (one.source, seen.source) == ("heartbeat", "watch")
        is_calm = {alarm.judged_by for alarm in one.alarms} <= {*judged} and one.last_seen <= quiet
        return one.what in replaced or is_calm

    over = [Step(closed(one, now), "ended") for one in known if one.id not in going_on and is_over(one)]
    return over + [Step(one.incident, "opened" if one.is_new else None) for one in found]


def closed(incident: Incident, now: dt.datetime) -> Incident:
    """The same, over."""
    return incident.model_copy(update={"state": "closed", "ended": now})


def silent(
    last: dt.datetime, interval: dt.timedelta, now: dt.datetime, intervals: float = 2, *, since: str = "the last one came {} ago"
) -> Alarm | None:  # fmt: skip
    """The alarm that nobody watches: no report for so many intervals; None while that is not so (faults: M-06).

    Args:
        last: when the last report came, or the first was waited for, UTC.
        interval: the longest usual time between two.
        now: UTC.
        intervals: how many are waited for.
        since: says what came then, around how long ago that is.

    >>> start, day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.timedelta(days=1)
    >>> silent(start, day, start + 2 * day)
    >>> silent(start, day, start + 3 * day).says
    'no watch report for 3 intervals: the last one came 3.0 days ago, one every 1.0 days is due'
    """
    waited = now - last
    if waited <= intervals * interval:
        return None
    level = waited / interval
    says = (
        f"no watch report for {level:.3g} intervals: {since.format(_span(waited))}, one every {_span(interval)} is due"
    )
    return Alarm(kind="freshness", what="mend", level=level, threshold=intervals, says=says)


def plain(text: str, longest: int = NAME) -> str:
    r"""A text of others as one line that leads nowhere and calls nobody: no control characters, links, tags or mentions.

    >>> plain("amount\x1b[2J see https://evil.example/x @channel <b>")
    'amount [2J see (link removed) ＠channel ‹b›'
    """
    text = unicodedata.normalize("NFKC", text[: 20 * longest])
    shown = "".join(sign if unicodedata.category(sign)[0] != "C" else " " for sign in text)
    shown = LINK.sub(NO_LINK, MARKDOWN.sub(r"\1", " ".join(shown.split()))).translate(CALLS)
    return shown if len(shown) <= longest else shown[: longest - 1].rstrip() + "…"


# -- a record -----------------------------------------------------------------------------------------------------------
def _open(known: Sequence[Incident], seen: Seen, what: Class, since: dt.datetime) -> Incident | None:
    """The open incident that an alarm of that class joins."""
    same = (one for one in known if (one.project, one.source, one.what) == (seen.project, seen.source, what))
    return next((one for one in same if one.state == "open" and one.last_seen >= since), None)


def _begun(seen: Seen, what: Class, now: dt.datetime) -> Incident:
    name = hashlib.sha256(f"{seen.project} {seen.source} {what} {now.isoformat()}".encode()).hexdigest()[:12]
    return Incident(
        id=name, project=seen.project, source=seen.source, what=what, metric=seen.metric, first_seen=now, last_seen=now
    )


def _grown(incident: Incident, alarms: Sequence[Alarm], seen: Seen, now: dt.datetime) -> Incident:
    """The incident with more alarms; of each kind, check and leading feature the strongest stays."""
    strongest: dict[tuple[str, str, str], Alarm] = {}
    for alarm in sorted((*alarms, *incident.alarms), key=_strength, reverse=True):
        strongest.setdefault((alarm.kind, alarm.check, alarm.features[0] if alarm.features else ""), alarm)
    kept = tuple(cleaned(alarm, seen.private) for alarm in list(strongest.values())[:MOST])
    met = [*(name for alarm in strongest.values() for name in alarm.features), *incident.features]
    features = list(dict.fromkeys(met))
    found = [alarm for alarm in alarms if alarm.kind not in seen.repeated] if incident.looks else alarms
    effects = [effect for effect in (incident.effect, *(alarm.effect for alarm in alarms)) if effect is not None]
    return incident.model_copy(update={
        "version": seen.version, "window": seen.window if found else incident.window, "metric": seen.metric or incident.metric, "last_seen": max(now, incident.last_seen),
        "count": incident.count + len(found), "looks": incident.looks + bool(found), "alarms": kept, "effect": min(effects, default=None),
        "features": tuple(dict.fromkeys(plain(name) for name in features[:MOST])), "more": max(len(features) - MOST, incident.more),
    })  # fmt: skip


def _strength(alarm: Alarm) -> float:
    """How far beyond its threshold an alarm is, as a ratio, whichever side counts."""
    level, bar = abs(alarm.level), abs(alarm.threshold)
    return max(level, bar) / max(min(level, bar), 1e-12)


def cleaned(alarm: Alarm, private: Collection[str]) -> Alarm:
    """The alarm with nothing but names of the private columns, and no text that leads anywhere."""
    hidden = [segment for segment in alarm.segments if _column(segment) in private]
    segments = (_column(segment) if segment in hidden else segment for segment in alarm.segments)
    says = alarm.says
    for secret in sorted(
        {part for segment in hidden for part in (segment, _value(segment)) if part}, key=len, reverse=True
    ):
        says = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "…", says)
    return alarm.model_copy(update={
        "features": tuple(plain(name) for name in alarm.features[:MOST]),
        "segments": tuple(dict.fromkeys(plain(segment, CONDITION) for segment in segments))[:MOST],
        "says": plain(says, SAID),
    })  # fmt: skip


CONDITIONS = re.compile(r"\s*(?:[=≠<>≤≥]|\bin\b|\bis\b)=?\s*")  # what parts a column from its values in a segment


def _column(segment: str) -> str:
    return CONDITIONS.split(segment, maxsplit=1)[0].strip()


def _value(segment: str) -> str:
    return CONDITIONS.split(segment, maxsplit=1)[-1].strip().strip("'\"")


# -- its text -----------------------------------------------------------------------------------------------------------
MOVED: dict[Kind, str] = {
    "inputs": "what comes in", "predictions": "what is predicted", "performance": "the measured performance",
    "estimate": "the estimated performance", "values": "the values of what landed", "volume": "how many rows come",
    "freshness": "when data comes", "latency": "how fast the service answers", "errors": "how often the service fails",
    "labels": "what is known of outcomes", "files": "what lies of the champion on disk",
}  # fmt: skip
NEXT: dict[Class, str] = {
    "retrain": "`keepfit watch {project}` shows the curve; a training starts when the policy allows it, `keepfit train {project}` starts one now.",
    "mend": "Mend the source or the service before you retrain: a model that learns from broken data learns the fault. `keepfit quarantine "
    "list {project}` and `keepfit data list {project}` show what came.",
    "ignore": "Nothing needs to be done.",
}


def described(incident: Incident) -> Incident:
    """The incident with keepfit's own text: what moved, what it costs, why we think so, what was done, what comes next."""
    return incident.model_copy(update={"summary": sentences(incident), "written_by": "keepfit", "note": ""})


def sentences(incident: Incident) -> str:
    """The text, always the same for the same record; the sentences of at most three alarms, the strongest first."""
    if incident.source == "heartbeat":
        return _of_silence(incident)
    if incident.source == "disk":
        return _of_files(incident)
    parts = [_what(incident), _cost(incident), _why(incident), _done(incident)]
    next_move = "It is over: nothing needs to be done." if incident.state == "closed" else NEXT[incident.what]
    return " ".join([*(part for part in parts if part), next_move.format(project=incident.project)])


def _of_silence(incident: Incident) -> str:
    project, why = incident.project, incident.alarms[0].says if incident.alarms else "no watch report came"
    if incident.state == "closed":
        return f"{project} is watched again since {_moment(incident.ended)}."
    return (
        f"Nobody watches {project}: {why}. Until it is, drift and decay go unseen. `keepfit status` shows whether the worker runs; "
        f"`keepfit watch {project}` looks now."
    )


def _of_files(incident: Incident) -> str:
    which = f"version {incident.version} of {incident.project}"
    if incident.state == "closed":
        return f"What lies of {which} on disk is what was released again, or it is champion no more, since {_moment(incident.ended)}."
    return (
        f"What lies of {which}, the champion, is not what was released, first seen {_moment(incident.first_seen)}: {incident.alarms[0].says} "
        "Servers answer with what they have verified, or not at all. `keepfit doctor` looks anew and says what to restore."
    )


def _what(incident: Incident) -> str:
    kinds = [kind for kind in get_args(Kind) if any(alarm.kind == kind for alarm in incident.alarms)]
    what = _listed([MOVED[kind] for kind in kinds]) or "something"
    where = f" (version {incident.version})" if incident.version else ""
    until = f", over since {_moment(incident.ended)}" if incident.state == "closed" else ""
    named = [f"'{name}'" for name in incident.features[:5]]
    rest = len(incident.features) + incident.more - len(named)
    most = f" Most of it is explained by {_listed([*named, *([f'{rest} more'] if rest else [])])}." if named else ""
    return f"{incident.project}{where}: {what} moved, first seen {_moment(incident.first_seen)}{until}.{most}"


def _cost(incident: Incident) -> str:
    if incident.effect is None:
        return "What it costs cannot be told yet."
    if incident.effect >= 0:
        return f"No loss of {incident.metric or 'the metric'} is expected."
    return f"Expected cost: {incident.metric or 'the metric'} worse by {-incident.effect:.3g}."


def _why(incident: Incident) -> str:
    said = "; ".join(alarm.says.rstrip(".") for alarm in incident.alarms[:3])
    if not said:
        return ""
    looks = f"{incident.looks} look{'s' if incident.looks != 1 else ''}"
    return f"Why we think so: {said} ({incident.count:,} alarm{'s' if incident.count != 1 else ''} in {looks})."


def _done(incident: Incident) -> str:
    told = [
        f"{deed.kind}{f' of version {deed.version}' if deed.version else ''} {deed.state}"
        for deed in incident.done[-3:]
    ]
    return f"keepfit did: {_listed(told)}." if told else "keepfit has done nothing about it yet."


def _listed(words: Sequence[str]) -> str:
    """Words with commas and an `and`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _moment(at: dt.datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "now"


def _span(time: dt.timedelta) -> str:
    """A length of time in the greatest unit that fits.

    >>> _span(dt.timedelta(minutes=90))
    '1.5 hours'
    """
    seconds = time.total_seconds()
    units = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0))
    name, size = next(((name, size) for name, size in units if seconds >= size), ("seconds", 1.0))
    return f"{seconds / size:.1f} {name}"
