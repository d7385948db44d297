"""The journal: who was champion when, every batch, training and proposal; one database transaction each. The truth that all else follows."""

import datetime as dt
import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from tasks.config.errors import ConflictError
from tasks.stores import durable

METADATA = sa.MetaData()
UNDER_WAY = frozenset({"running", "releasing"})  # states of a training that has not ended
OUT_OF_MEMORY = "out of memory"  # how the reason of a training begins that was
FORGOTTEN = frozenset({"refused", "failed", "crashed"})  # states of trainings that may have made no version

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
)

IS_OUTCOMES = sa.func.coalesce(BATCHES.c.kind, "rows") == "outcomes"


def _of_rows(count: sa.ColumnElement[int]) -> sa.Case[int]:
    return sa.case((IS_OUTCOMES, 0), else_=count)


CONTRACTS = sa.Table(
    "contracts",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False, comment="when a batch was first checked under it"),
    sa.Column("contract", sa.Text, nullable=False, comment="JSON"),
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


@dataclass(frozen=True)
class Release:
    """One row of the journal: from `at` on, `version` of `project` answers."""

    project: str
    generation: int
    version: int
    digest: str
    actor: str
    reason: str
    at: str
    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Proposal:
    """A version that waits, or waited, for a person.

    Attributes:
        id: its number; a version that is held again is proposed again.
        training: the number of the training that made the version.
        since, why: when and why it began to wait.
        digests: what the person decides about, by name, as it was then.
        state: open, approved, rejected, or void: what it was about is not so any more.
        actor, at, reason: who ended it, when, why; None while it is open.
    """

    id: int
    project: str
    version: int
    training: int
    since: str
    why: str
    digests: dict[str, str]
    state: str = "open"
    actor: str | None = None
    at: str | None = None
    reason: str | None = None

    @property
    def ended(self) -> str:
        """How it ended, by whom, when and why, as a clause."""
        when = (self.at or "")[:19]
        if self.state == "void":
            return f"the proposal of version {self.version} is void since {when}: {self.reason}"
        return f"version {self.version} was {self.state} by {self.actor} on {when}: {self.reason}"


class Journal:
    """Batches, trainings, proposals and releases in one SQL database (SQLite in WAL mode, or any SQLAlchemy URL)."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        if parsed.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _careful)
        METADATA.create_all(self.engine)
        self._widen()

    @contextmanager
    def _write(self) -> Generator[sa.Connection]:
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # waits for the write lock instead of failing at commit
            yield connection

    def _widen(self) -> None:
        """Gives the tables of an older home the columns that came since; they may all be empty."""
        inspector = sa.inspect(self.engine)
        for table in METADATA.sorted_tables:
            there = {column["name"] for column in inspector.get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    kind = column.type.compile(self.engine.dialect)
                    with self._write() as connection:
                        connection.execute(sa.DDL(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))

    @contextmanager
    def alone(self, what: str, patience: float = 600) -> Generator[None]:
        """One at a time, over all processes and machines that share this database; a kill lets the next one in.

        Raises:
            ConflictError: somebody else has held it for longer than `patience` seconds.
        """
        with (
            self._server_lock(what, patience)
            if self.engine.dialect.name == "postgresql"
            else self._file_lock(what, patience)
        ):
            yield

    @contextmanager
    def _file_lock(self, what: str, patience: float) -> Generator[None]:
        name = "".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in what)
        folder = Path(self.engine.url.database or "keepfit.db").parent / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.lock").open("w") as file:
            _patiently(lambda: _flock(file), what, patience)
            yield

    @contextmanager
    def _server_lock(self, what: str, patience: float) -> Generator[None]:
        number = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)
        with self.engine.connect() as connection:  # its end, by a kill too, frees the lock
            connection.execution_options(isolation_level="AUTOCOMMIT")  # servers end transactions that stay idle
            ask = sa.select(sa.func.pg_try_advisory_lock(number))
            _patiently(lambda: bool(connection.scalar(ask)), what, patience)
            yield

    # -- releases -----------------------------------------------------------------------------------------------------
    def champion(self, project: str) -> Release | None:
        """The release that is in force, or None before the first one."""
        newest = (
            sa.select(RELEASES).where(RELEASES.c.project == project).order_by(RELEASES.c.generation.desc()).limit(1)
        )
        with self.engine.connect() as connection:
            row = connection.execute(newest).mappings().first()
        return Release(**row) if row else None

    def champions(self) -> dict[str, Release]:
        """The release in force of every project that has one."""
        newest = (
            sa.select(RELEASES.c.project, sa.func.max(RELEASES.c.generation).label("generation"))
            .group_by(RELEASES.c.project)
            .subquery()
        )
        query = sa.select(RELEASES).join(
            newest, (RELEASES.c.project == newest.c.project) & (RELEASES.c.generation == newest.c.generation)
        )
        with self.engine.connect() as connection:
            return {row["project"]: Release(**row) for row in connection.execute(query).mappings()}

    def releases(self, project: str) -> list[Release]:
        """Every release of a project, oldest first."""
        query = sa.select(RELEASES).where(RELEASES.c.project == project).order_by(RELEASES.c.generation)
        with self.engine.connect() as connection:
            return [Release(**row) for row in connection.execute(query).mappings()]

    def release(self, release: Release, proposal: int | None = None) -> Release:
        """Makes a version champion, if `release.generation` is the next one; other versions' open proposals are void from then on.

        With the number of a proposal this is its approval: decision and release are one transaction.

        Raises:
            ConflictError: somebody else released or decided in between; nothing was changed.
        """
        durable.step("release")
        try:
            with self._write() as connection:
                connection.execute(
                    RELEASES.insert().values(**release.__dict__)
                )  # first: of two releases one waits here
                if proposal is not None:
                    _decide(connection, proposal, "approved", actor=release.actor, at=release.at, reason=release.reason)
                _overtake(connection, release)
        except IntegrityError as error:
            (theirs,) = (each for each in self.releases(release.project) if each.generation == release.generation)
            raise ConflictError(
                f"{release.project}: generation {release.generation} was released in between: version {theirs.version}, by {theirs.actor} on "
                f"{theirs.at[:19]}. The champion is theirs; look at it and release again if it still should change."
            ) from error
        return release

    # -- proposals ----------------------------------------------------------------------------------------------------
    def proposals(
        self, project: str | None = None, *, version: int | None = None, state: str | None = None
    ) -> list[Proposal]:
        """Every proposal, oldest first; or those of a project, of a version, in a state."""
        wanted = {"project": project, "version": version, "state": state}
        met = [PROPOSALS.c[name] == value for name, value in wanted.items() if value is not None]
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(PROPOSALS).where(*met).order_by(PROPOSALS.c.id)).mappings().all()
        return [_proposal(row) for row in rows]

    def decide(self, proposal: int, state: str, *, actor: str, at: dt.datetime, reason: str) -> None:
        """Ends an open proposal without a release: `rejected` or `void`.

        Raises:
            ConflictError: it was decided in between; nothing was changed.
        """
        durable.step("decide")
        with self._write() as connection:
            _decide(connection, proposal, state, actor=actor, at=at.isoformat(), reason=reason)

    # -- batches ------------------------------------------------------------------------------------------------------
    def finish(
        self, project: str, batches: Sequence[dict[str, Any]], contract: dict[str, Any] | None, erasure: dict[str, Any] | None = None
    ) -> None:  # fmt: skip
        """Records what became of batches, the contract that they were checked under, an erasure, and that the intent is done, in one transaction.

        A second record of a batch replaces the first.
        """
        durable.step("finish")
        with self._write() as connection:
            for batch in batches:
                same = (BATCHES.c.project == project, BATCHES.c.batch == batch["batch"])
                connection.execute(BATCHES.delete().where(*same))
            if batches:
                connection.execute(BATCHES.insert(), list(batches))
            connection.execute(INTENTS.delete().where(INTENTS.c.project == project))
            if erasure is not None:
                connection.execute(ERASURES.insert().values(**erasure))
            if contract is None:
                return
            same = (CONTRACTS.c.project == project, CONTRACTS.c.digest == contract["digest"])
            if connection.execute(sa.select(CONTRACTS.c.digest).where(*same)).first() is None:
                connection.execute(CONTRACTS.insert().values(**contract))

    def announced(self, project: str) -> None:
        """Records that an event went out which tells of all batches so far."""
        silent = BATCHES.c.announced.is_(None) | ~BATCHES.c.announced
        with self._write() as connection:
            connection.execute(BATCHES.update().where(BATCHES.c.project == project, silent).values(announced=True))

    def erasures(self, project: str) -> list[dict[str, Any]]:
        """Every erasure of a project, oldest first; `detail` as an object."""
        query = sa.select(ERASURES).where(ERASURES.c.project == project).order_by(ERASURES.c.id)
        with self.engine.connect() as connection:
            return [{**row, "detail": json.loads(row["detail"])} for row in connection.execute(query).mappings()]

    def contracts(self, project: str) -> list[dict[str, Any]]:
        """Every contract that a batch was checked under, oldest first: digest, at, contract (JSON)."""
        query = sa.select(CONTRACTS).where(CONTRACTS.c.project == project).order_by(CONTRACTS.c.at)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def intend(self, project: str, plan: str, at: str) -> None:
        """Records a change of the lake before it begins; it stands until `finish`."""
        durable.step("intend")
        with self._write() as connection:
            connection.execute(INTENTS.delete().where(INTENTS.c.project == project))
            connection.execute(INTENTS.insert().values(project=project, plan=plan, at=at))

    def intent(self, project: str) -> str | None:
        """The change of the lake that was begun and not finished, or None."""
        with self.engine.connect() as connection:
            return connection.scalar(sa.select(INTENTS.c.plan).where(INTENTS.c.project == project))

    def batch(self, project: str, batch: str) -> dict[str, Any] | None:
        """What became of a batch, or None when it never came."""
        query = sa.select(BATCHES).where(BATCHES.c.project == project, BATCHES.c.batch == batch)
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return dict(row) if row else None

    def batches(self, project: str, names: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Every batch of a project in order of arrival, without its profile; or those of these names."""
        columns = [column for column in BATCHES.c if column.name != "profile"]
        query = sa.select(*columns).where(BATCHES.c.project == project).order_by(BATCHES.c.at)
        query = query if names is None else query.where(BATCHES.c.name.in_(names))
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def profiles(self, project: str, count: int) -> list[str]:
        """The profiles (JSON) of the newest landed batches of rows, oldest first."""
        newest = (
            sa.select(BATCHES.c.batch)
            .where(
                BATCHES.c.project == project, ~IS_OUTCOMES, BATCHES.c.state == "landed", BATCHES.c.profile.is_not(None)
            )
            .order_by(BATCHES.c.at.desc())
            .limit(count)
        )  # found first: a profile is long, and all of them would be sorted
        query = sa.select(BATCHES.c.profile).where(BATCHES.c.project == project, BATCHES.c.batch.in_(newest))
        with self.engine.connect() as connection:
            return list(connection.scalars(query.order_by(BATCHES.c.at)))

    def totals(self, project: str) -> dict[str, int]:
        """Batches landed and held, rows of a project: arrived, in the table, quarantined, known already, erased; outcomes landed."""
        is_landed, is_held = (sa.case((BATCHES.c.state == state, 1), else_=0) for state in ("landed", "held"))
        sums = {
            "landed": is_landed, "held": is_held, "arrived": _of_rows(BATCHES.c.arrived), "quarantined": _of_rows(BATCHES.c.quarantined),
            "rows": _of_rows(BATCHES.c.landed - sa.func.coalesce(BATCHES.c.replaced, 0)), "known": _of_rows(BATCHES.c.known),
            "outcomes": sa.case((IS_OUTCOMES, BATCHES.c.landed), else_=0),
        }  # fmt: skip
        query = sa.select(*(sa.func.coalesce(sa.func.sum(what), 0).label(name) for name, what in sums.items()))
        sums = {
            name: sa.func.coalesce(sa.func.sum(ERASURES.c[name]), 0).label(name) for name in ("rows", "quarantined")
        }
        erased = sa.select(*sums.values()).where(ERASURES.c.project == project)
        with self.engine.connect() as connection:
            totals = dict(connection.execute(query.where(BATCHES.c.project == project)).mappings().one())
            gone = connection.execute(erased).mappings().one()
        return {**totals, **{name: totals[name] - gone[name] for name in gone}, "erased": sum(gone.values())}

    # -- sources ------------------------------------------------------------------------------------------------------
    def watermark(self, project: str, source: str) -> str | None:
        """How far a source was read, or None before the first time."""
        query = sa.select(WATERMARKS.c.mark).where(WATERMARKS.c.project == project, WATERMARKS.c.source == source)
        with self.engine.connect() as connection:
            return connection.scalar(query)

    def move_watermark(self, project: str, source: str, before: str | None, after: str, at: dt.datetime) -> None:
        """Records how far a source was read, if it stood at `before`.

        Raises:
            ConflictError: somebody else read from it in between; nothing was changed.
        """
        stood = WATERMARKS.update().where(
            WATERMARKS.c.project == project, WATERMARKS.c.source == source, WATERMARKS.c.mark == before
        )
        first = WATERMARKS.insert().values(project=project, source=source, mark=after, at=at.isoformat())
        try:
            with self._write() as connection:
                if before is None:
                    moved = connection.execute(first).rowcount
                else:
                    moved = connection.execute(stood.values(mark=after, at=at.isoformat())).rowcount
        except IntegrityError:
            moved = 0
        if moved != 1:
            raise ConflictError(
                f"{project}: somebody else fetches from '{source}' at the same time. Theirs goes on; look again later."
            )

    # -- proofs -------------------------------------------------------------------------------------------------------
    def record_proof(
        self, *, project: str, digest: str, files: str, ok: bool, at: dt.datetime, detail: dict[str, Any]
    ) -> None:
        """Records what a proof of a configuration came to."""
        values = {"project": project, "digest": digest, "files": files, "ok": ok, "at": at.isoformat()}
        with self._write() as connection:
            connection.execute(PROOFS.insert().values(**values, detail=json.dumps(detail)))

    def proof(self, project: str) -> dict[str, Any] | None:
        """The newest proof of a project, or None; `detail` as an object."""
        newest = sa.select(PROOFS).where(PROOFS.c.project == project).order_by(PROOFS.c.id.desc()).limit(1)
        with self.engine.connect() as connection:
            row = connection.execute(newest).mappings().first()
        return {**row, "detail": json.loads(row["detail"])} if row else None

    def is_proven(self, project: str, digest: str) -> bool:
        """Whether the newest proof of a project is of this configuration, and holds."""
        proof = self.proof(project)
        return proof is not None and proof["digest"] == digest and proof["ok"]

    # -- trainings ----------------------------------------------------------------------------------------------------
    def start_training(
        self, *, project: str, trigger: str, event: bool, snapshot: str, config: str, at: dt.datetime, rows: str = "", runner: str = "",
    ) -> int:  # fmt: skip
        """Records that a training began; gives its number."""
        with self._write() as connection:
            done = connection.execute(
                TRAININGS.insert().values(
                    project=project,
                    trigger=trigger,
                    event=event,
                    snapshot=snapshot,
                    rows=rows,
                    config=config,
                    state="running",
                    reason="",
                    started=at.isoformat(),
                    at=at.isoformat(),
                    detail="{}",
                    runner=runner,
                )
            )
            return int((done.inserted_primary_key or (0,))[0])

    def end_training(
        self,
        training: int,
        *,
        state: str,
        reason: str,
        at: dt.datetime,
        version: int | None = None,
        detail: dict[str, Any] | None = None,
        digests: dict[str, str] | None = None,
    ) -> None:
        """Records how a training ended.

        With digests its version waits for a person from then on, in the same transaction: an open proposal about them.
        """
        values: dict[str, Any] = {"state": state, "reason": reason, "at": at.isoformat()}
        if version is not None:
            values["version"] = version
        if detail is not None:
            values["detail"] = json.dumps(detail)
        with self._write() as connection:
            connection.execute(TRAININGS.update().where(TRAININGS.c.id == training).values(**values))
            if digests is not None:
                _propose(connection, training, digests)

    def cut_off(self, training: dict[str, Any], *, state: str, reason: str, at: dt.datetime) -> None:
        """Records that a training ended before its time; one whose version was released by then was released."""
        live = training["version"] in {release.version for release in self.releases(training["project"])}
        self.end_training(training["id"], state="released" if live else state, reason=reason, at=at)

    def trainings(self, project: str) -> list[dict[str, Any]]:
        """Every training of a project, oldest first; `detail` as an object."""
        query = sa.select(TRAININGS).where(TRAININGS.c.project == project).order_by(TRAININGS.c.id)
        with self.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [{**row, "detail": json.loads(row["detail"])} for row in rows]


def _propose(connection: sa.Connection, training: int, digests: dict[str, str]) -> None:
    """Opens a proposal for a training's version; an open one of the same version gives way."""
    columns = (TRAININGS.c[name] for name in ("project", "version", "state", "reason", "at"))
    made = connection.execute(sa.select(*columns).where(TRAININGS.c.id == training)).mappings().one()
    why = made["reason"] if made["state"] == "held" else f"every gate passed: {made['reason']}"
    same = (PROPOSALS.c.project == made["project"], PROPOSALS.c.version == made["version"])
    _void(connection, *same, actor=f"training {training}", at=made["at"], reason="the version was proposed again")
    connection.execute(
        PROPOSALS.insert().values(
            project=made["project"], version=made["version"], training=training, since=made["at"], why=why,
            digests=json.dumps(digests), state="open",
        )
    )  # fmt: skip


def _decide(connection: sa.Connection, proposal: int, state: str, *, actor: str, at: str, reason: str) -> None:
    """Ends a proposal if it is open; what a person decided stands in the training's record, too."""
    mine = PROPOSALS.c.id == proposal
    if _end(connection, mine, state, actor=actor, at=at, reason=reason) != 1:
        found = connection.execute(sa.select(PROPOSALS).where(mine)).mappings().first()
        said = _proposal(found).ended if found else "there is no such proposal"
        raise ConflictError(f"Proposal {proposal} is not open: {said}. Nothing was changed; look at `keepfit status`.")
    if state == "void":
        return
    told = TRAININGS.c.reason + f"; {state} by {actor}: {reason}"
    values = {"reason": told} | ({"state": "released"} if state == "approved" else {})
    training = sa.select(PROPOSALS.c.training).where(mine).scalar_subquery()
    connection.execute(TRAININGS.update().where(TRAININGS.c.id == training).values(**values))


def _overtake(connection: sa.Connection, release: Release) -> None:
    """Open proposals were made against the champion of before."""
    _void(
        connection, PROPOSALS.c.project == release.project, actor=release.actor, at=release.at,
        reason=f"the champion is another one: version {release.version} was released",
    )  # fmt: skip


def _void(connection: sa.Connection, *which: sa.ColumnElement[bool], actor: str, at: str, reason: str) -> None:
    _end(connection, sa.and_(*which), "void", actor=actor, at=at, reason=reason)


def _end(
    connection: sa.Connection, which: sa.ColumnElement[bool], state: str, *, actor: str, at: str, reason: str
) -> int:
    """Ends those of the proposals that are open; gives how many were."""
    ended = PROPOSALS.update().where(which, PROPOSALS.c.state == "open")
    return connection.execute(ended.values(state=state, actor=actor, at=at, reason=reason)).rowcount


def _proposal(row: sa.RowMapping) -> Proposal:
    return Proposal(**{**row, "digests": json.loads(row["digests"])})


def made_nothing(training: dict[str, Any]) -> bool:
    """Whether a training ended without a version."""
    return training["state"] in FORGOTTEN and training["version"] is None


def _flock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _patiently(ask: Callable[[], bool], what: str, patience: float) -> None:
    """Asks until it is true."""
    end = time.monotonic() + patience
    while not ask():
        if time.monotonic() > end:
            raise ConflictError(
                f"'{what}' has been under way elsewhere for more than {patience:g} s. Nothing was changed; it is tried again."
            )
        time.sleep(0.02)


def _careful(connection: Any, _record: object) -> None:
    """SQLite: readers do not block the writer, a busy writer is waited for, a commit is on disk when it returns."""
    connection.isolation_level = None  # SQLAlchemy's own BEGIN counts, not the driver's late one
    for pragma in ("journal_mode=WAL", "busy_timeout=15000", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
