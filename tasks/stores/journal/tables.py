"""The tables: what the journal keeps, each row and column with its meaning."""

import sqlalchemy as sa

METADATA = sa.MetaData()


BATCHES = sa.Table(
    "batches",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("batch", sa.Text, primary_key=True, comment="SHA-256 of the content"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, comment="landed | known | held"),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("arrived", sa.Integer, nullable=False),
    sa.Column("landed", sa.Integer, nullable=False),
    sa.Column("quarantined", sa.Integer, nullable=False),
    sa.Column("known", sa.Integer, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("replaced", sa.Integer, comment="older rows that it corrected"),
    sa.Column("replays", sa.Integer, comment="how often its quarantined rows were tried again"),
    sa.Column("version", sa.Integer, comment="of the table `rows` after it"),
    sa.Column("outcomes", sa.Integer, comment="version of the table `outcomes` after it"),
    sa.Column("kind", sa.Text, comment="rows | outcomes"),
    sa.Column("contract", sa.Text, comment="digest of the contract that it was checked under"),
    sa.Column("announced", sa.Boolean, comment="its event went out"),
    sa.Column("detail", sa.Text, comment="JSON: rules, extra, findings, supersedes"),
    sa.Column(
        "profile", sa.Text, comment="JSON: what its rows look like as a whole; one for batches that landed together"
    ),
    sa.Column("number", sa.Integer, comment="counts the project's arrivals; batches that came together share one"),
)


CONTRACTS = sa.Table(
    "contracts",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False, comment="when a batch was first checked under it"),
    sa.Column("contract", sa.Text, nullable=False, comment="JSON"),
    sa.Column("number", sa.Integer, comment="counts the project's contracts"),
)

INTENTS = sa.Table(
    "intents",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("plan", sa.Text, nullable=False, comment="JSON: the change of the lake that was begun"),
    sa.Column("at", sa.Text, nullable=False),
)

ERASURES = sa.Table(
    "erasures",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False, comment="erased from the newest version of the table `rows`"),
    sa.Column("quarantined", sa.Integer, nullable=False, comment="erased from the newest version of the quarantine"),
    sa.Column("request", sa.Text, nullable=False, comment="SHA-256 of what was asked for, which is personal itself"),
    sa.Column(
        "detail", sa.Text, nullable=False, comment="JSON: how much was erased where, which models had learned from it"
    ),
)

WATERMARKS = sa.Table(
    "watermarks",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("mark", sa.Text, nullable=False, comment="how far it was read, in the source's own words"),
    sa.Column("at", sa.Text, nullable=False),
)

TRAININGS = sa.Table(
    "trainings",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("trigger", sa.Text, nullable=False, comment="why it ran"),
    sa.Column("event", sa.Boolean, nullable=False, comment="started by an event, so that the cool-down holds"),
    sa.Column("snapshot", sa.Text, nullable=False, comment="digest of the snapshot"),
    sa.Column("rows", sa.Text, comment="name of the snapshot"),
    sa.Column(
        "trusted",
        sa.Integer,
        comment="version of the table `trusted` that judged; 0, which has no row, where nothing was set apart; empty in older trainings",
    ),
    sa.Column("config", sa.Text, nullable=False, comment="digest of project and code"),
    sa.Column(
        "state",
        sa.Text,
        nullable=False,
        comment="running | releasing | released | registered | held | refused | failed | crashed",
    ),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("started", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False, comment="JSON: metric, value, low, high, verdicts, run id"),
    sa.Column("runner", sa.Text, comment="who runs it: flow run, process and machine"),
    sa.Column("process", sa.Text, comment="the process that runs it, as tasks/stores/processes.py names one"),
    sa.Column("by", sa.Text, comment="hand | schedule | batch | rows | drift | decay | silence | hook"),
)

ORDERS = sa.Table(
    "orders",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("key", sa.Text, nullable=False, comment="whoever orders the same twice says the same"),
    sa.Column("does", sa.Text, nullable=False, comment="train | fetch | tell"),
    sa.Column("by", sa.Text, nullable=False, comment="what ordered it: see trainings.by"),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False, comment="fetch: the source; tell: the event as JSON"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, comment="open | done | refused | failed"),
    sa.Column("said", sa.Text, nullable=False, comment="what came of it"),
    sa.Column("run", sa.Text, nullable=False, comment="the flow run that is to obey it; empty before there is one"),
    sa.Column("tries", sa.Integer, nullable=False, comment="flow runs that ended without obeying it"),
    sa.UniqueConstraint("project", "key", name="ordered_once"),
)

RELEASES = sa.Table(
    "releases",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False, comment="SHA-256 of the bundle's manifest"),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("low", sa.Float, nullable=False),
    sa.Column("high", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, comment="release | rollback; empty in an older home, which knew releases only"),
)

RELEASE_INTENTS = sa.Table(
    "release_intents",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False, comment="release | rollback"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("runner", sa.Text, nullable=False, comment="the process that began it"),
    sa.Column(
        "phase",
        sa.Text,
        nullable=False,
        comment="intended | verified | answered | committed | aliased | confirmed | undone",
    ),
    sa.Column("said", sa.Text, nullable=False, comment="why it was undone, or how the servers confirmed it"),
    sa.Column("announced", sa.Boolean, nullable=False, comment="its event went out"),
    sa.Column("generation", sa.Integer, comment="of the release that it became"),
)

HAND_MADE = sa.Table(
    "hand_made",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Text, nullable=False, comment="when it was noticed"),
    sa.Column("generation", sa.Integer, nullable=False, comment="of the release in force"),
    sa.Column("wanted", sa.Integer, nullable=False, comment="the champion's version by the journal"),
    sa.Column("met", sa.Text, nullable=False, comment="what MLflow said in its place"),
    sa.Column("answer", sa.Text, nullable=False, comment="put back | accepted | cannot be put back"),
    sa.Column("reason", sa.Text, nullable=False),
)

PROPOSALS = sa.Table(
    "proposals",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("training", sa.Integer, nullable=False, comment="whose challenger it is"),
    sa.Column("since", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False, comment="why a person decides"),
    sa.Column("digests", sa.Text, nullable=False, comment="JSON: what the person decides about, by name"),
    sa.Column("state", sa.Text, nullable=False, comment="open | approved | rejected | void"),
    sa.Column("actor", sa.Text, comment="who decided, or what made it void"),
    sa.Column("at", sa.Text, comment="when"),
    sa.Column("reason", sa.Text),
)


PROOFS = sa.Table(
    "proofs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("digest", sa.Text, nullable=False, comment="of the configuration that was proven"),
    sa.Column("files", sa.Text, nullable=False, comment="SHA-256 of the files that said it"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("ok", sa.Boolean, nullable=False),
    sa.Column("detail", sa.Text, nullable=False, comment="JSON: each bad challenger and what stopped it"),
)

OPEN = ("shadow", "canary", "probation")  # phases of a rollout that goes on
ROLLOUTS = sa.Table(
    "rollouts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("version", sa.Integer, nullable=False, comment="the challenger; champion from its release on"),
    sa.Column("digest", sa.Text, nullable=False, comment="SHA-256 of its bundle's manifest"),
    sa.Column("against", sa.Integer, nullable=False, comment="the champion before it"),
    sa.Column("against_digest", sa.Text, nullable=False),
    sa.Column(
        "plan",
        sa.Text,
        nullable=False,
        comment="JSON: release.rollout as configured at the beginning, key columns named",
    ),
    sa.Column("actor", sa.Text, nullable=False, comment="who asked for the release"),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("proposal", sa.Integer, comment="that the release approves"),
    sa.Column("generation", sa.Integer, comment="of the release that it became"),
    sa.Column("began", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False, comment="shadow | canary | probation | passed | undone | overtaken"),
    sa.Column("since", sa.Text, nullable=False, comment="when the phase began"),
    sa.Column("revision", sa.Integer, nullable=False, comment="counts the changes of this row"),
    sa.Column("scores", sa.Boolean, nullable=False, comment="the model that does not answer scores"),
    sa.Column("looked", sa.Text, nullable=False, comment="when the evidence was looked at last"),
    sa.Column("evidence", sa.Text, nullable=False, comment="JSON: rows, tests, and what was said of them"),
    sa.Column("said", sa.Text, nullable=False, comment="why it is where it is"),
)
_GOES_ON = ROLLOUTS.c.phase.in_(OPEN)
sa.Index(
    "one_rollout", ROLLOUTS.c.project, unique=True, sqlite_where=_GOES_ON, postgresql_where=_GOES_ON
)  # a project has one at a time

WATCHES = sa.Table(
    "watches",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Text, nullable=False, comment="when it looked"),
    sa.Column("version", sa.Integer, nullable=False, comment="the champion that it looked at; 0: there was none"),
    sa.Column("verdict", sa.Text, nullable=False, comment="ok | alarm | too few rows | no data | no champion"),
    sa.Column("until", sa.Text, nullable=False, comment="end of the newest window; the same one alarms once"),
    sa.Column("interval", sa.Float, comment="seconds until the next look is due; empty where none is"),
    sa.Column("detail", sa.Text, nullable=False, comment="JSON: window, rows, drift, performance, alarms"),
    sa.Column("landed", sa.Text, comment="versions of rows and outcomes when it began, as v12.3"),
)

INCIDENTS = sa.Table(
    "incidents",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("class", sa.Text, nullable=False, comment="retrain | mend"),
    sa.Column("source", sa.Text, nullable=False, comment="watch | heartbeat | disk"),
    sa.Column("state", sa.Text, nullable=False, comment="open | closed"),
    sa.Column("first_seen", sa.Text, nullable=False),
    sa.Column("last_seen", sa.Text, nullable=False),
    sa.Column(
        "record", sa.Text, nullable=False, comment="JSON: no row, no personal data; see tasks/ml/watching/incident.py"
    ),
)
_IS_OPEN = INCIDENTS.c.state == "open"
sa.Index(
    "one_incident", INCIDENTS.c.project, INCIDENTS.c["class"], INCIDENTS.c.source,
    unique=True, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN,
)  # of a class at a time  # fmt: skip

NOTICES = sa.Table(
    "notices",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("incident", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False, comment="opened | ended"),
    sa.Column(
        "destination", sa.Text, nullable=False, comment="its name in the configuration; its URL stands there alone"
    ),
    sa.Column("at", sa.Text, nullable=False, comment="when it was put here"),
    sa.Column("record", sa.Text, nullable=False, comment="JSON: the incident as it was then"),
    sa.Column("state", sa.Text, nullable=False, comment="waiting | sent | dropped"),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due", sa.Text, nullable=False, comment="when it is tried next"),
    sa.Column("said", sa.Text, nullable=False, comment="how the last try ended"),
    sa.UniqueConstraint("incident", "event", "destination"),
)


def _numbered(table: sa.Table) -> sa.Update:
    """Numbers the rows of each project by their times, the only order that an older home knows."""
    own = list(table.primary_key)
    counted = sa.func.dense_rank().over(partition_by=table.c.project, order_by=table.c.at).label("counted")
    old = sa.select(*own, counted).subquery()
    return table.update().values(number=old.c.counted).where(*(column == old.c[column.name] for column in own))


def _seen() -> sa.Update:
    """Says of each look what had landed by its time, the only order that an older home knows."""
    rows, outcomes = (
        sa.cast(sa.func.coalesce(sa.func.max(BATCHES.c[name]), 0), sa.Text) for name in ("version", "outcomes")
    )
    before = BATCHES.c.project == WATCHES.c.project, BATCHES.c.landed > 0, BATCHES.c.at <= WATCHES.c.at
    landed = sa.select(sa.literal("v") + rows + sa.literal(".") + outcomes).where(*before)
    return WATCHES.update().values(landed=landed.scalar_subquery())


# what the rows of an older home get in a column that came since; in others they have nothing
OLDER = {table.c.number: _numbered(table) for table in (BATCHES, CONTRACTS)} | {WATCHES.c.landed: _seen()}
