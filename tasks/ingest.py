"""Ingest: files become batches; their rows land, go to quarantine, or are known already. None is lost in silence."""

import datetime as dt
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from tasks.config.errors import ArtifactError, BatchError, suggestion
from tasks.config.names import ARRIVED, HELD, KIND, LANDED, SENT, artifact_key, resource
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.identity import digest
from tasks.ml.outcomes import AT, outcome_contract
from tasks.ml.profile import Finding, Profile
from tasks.stores import durable, files
from tasks.stores.changes import Change, Edit, Workplace, places, utc
from tasks.stores.compaction import compact, without_rows
from tasks.stores.intake import CUT, Account, Intake
from tasks.stores.journal import Journal
from tasks.stores.keys import Keys
from tasks.stores.lake import BATCH, OUTCOMES, ROW
from tasks.stores.references import Landing
from tasks.stores.tables import DataFile

LOG = logging.getLogger("keepfit.ingest")
UNFINISHED = (
    "ends inside a line: whoever wrote it may have died. Nothing landed. Send it whole; or, if it is whole, say "
    "`keepfit quarantine replay` with --accept and why"
)
ALTERED = "is not what arrived: its content has changed while it waited. Send it again"
Kind = Literal["rows", "outcomes"]
CROWD = 64  # small data files of a table that are worth a compaction
LONGEST = 100  # characters of a name that are kept
MOMENT = dt.timedelta(microseconds=1)  # what a time is told to
MANY = 20  # files that come together, from which on the journal is read as a whole


# -- files ------------------------------------------------------------------------------------------------------------
class Arrival(NamedTuple):
    """A file whose content cannot change any more, under the name of that content; `altered` when it did."""

    path: Path
    batch: str
    name: str
    altered: bool = False


def keep(project: str, path: Path, settings: Settings, kind: Kind = "rows") -> Path:
    """A copy of a file under the name of its content, so that what arrived cannot change while it lands.

    Raises:
        BatchError: there is no such file, or it is a link, pipe or device.
    """
    if not path.exists() and not path.is_symlink():
        raise BatchError(f"{path}: is no file. Give CSV, Parquet or JSON lines ({', '.join(files.SUFFIXES)}).")
    content = files.fingerprint(path)
    kept = settings.inbox(project, kind) / SENT / kept_name(content, path.name)
    if path != kept and not (kept.exists() and files.fingerprint(kept) == content):  # what was damaged is made good
        with files.regular(path) as source:
            durable.copy(source, kept)
    return kept


def kept_name(content: str, name: str) -> str:
    """A name that says the content, and that is harmless as a path, in a log and on a page."""
    stem, dot, suffix = name.rpartition(".")
    harmless = "".join(sign if sign.isprintable() and sign not in "/\\" else "_" for sign in (stem or name))
    return f"{content[:16]}-{harmless[:LONGEST]}{dot}{suffix[:10]}"


def original_name(path: Path) -> str:
    """The name that a kept file arrived with."""
    head, _, name = path.name.partition("-")
    return name if len(head) == 16 and name else path.name


def _arrivals(path: Path) -> list[Arrival]:
    """The file, or the files of a folder, whose rows land together.

    Raises:
        BatchError: nothing is there, or the only file's content is not the one that its name says.
    """
    found = sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else [path]
    arrivals = []
    for file in found:
        batch, name = files.fingerprint(file), original_name(file)
        arrivals.append(Arrival(file, batch, name, file.name != name and not file.name.startswith(batch[:16])))
    if len(arrivals) == 1 and arrivals[0].altered:
        raise BatchError(f"{arrivals[0].name}: {ALTERED}; nothing was changed.")
    return list({arrival.batch: arrival for arrival in arrivals}.values())


# -- landing ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _profile(text: str) -> Profile:
    """A batch's profile; it is asked again by every batch of the next few."""
    return Profile.model_validate_json(text)


class Landings(Workplace):
    """Lands the batches of one project, one change of the lake at a time.

    Args:
        use: the project.
        clock: the time of arrival.
        kind: `rows`, or `outcomes`: what came true later, under the outcomes' contract and into their own table. Whether
            a batch of outcomes looks odd as a whole is not asked: which labels come first is no property of the world.
    """

    def __init__(
        self, use: Project, settings: Settings, clock: Callable[[], dt.datetime] = utc, kind: Kind = "rows"
    ) -> None:  # fmt: skip
        super().__init__(use, settings)
        self._derive = use.hook("derive", settings)
        if kind == "outcomes":
            if use.contract.target is None:
                raise BatchError(
                    f"{use.project} has no target, so nothing can come true of its rows. Name the column as `contract.target`, nullable, "
                    "and land the outcomes again. Nothing was changed."
                )
            use = use.model_copy(update={"contract": outcome_contract(use.contract)})
            self._derive = self._stamped
        self.use, self.kind, self._clock = use, kind, clock
        self.table = self.lake.table(kind)

    def land(self, path: Path, supersedes: str = "", accept: str = "") -> Landing:
        """Lands the file at `path`, or the files of the folder, exactly once. May be repeated.

        Args:
            path: where it is kept.
            supersedes: name, or beginning of the digest, of a batch that these rows correct; one of the same name is
                corrected anyway.
            accept: why a batch that looks odd as a whole may land; empty when nobody said so.

        Raises:
            BatchError: the file is not there, or not what arrived, or there is no batch `supersedes`.
        """
        with self.alone():
            arrivals = _arrivals(next((place for place in places(path) if place.exists()), path))
            before = self._recorded(arrivals)
            fresh = [arrival for arrival in arrivals if arrival.batch not in before]
            landings = self._fresh(fresh, supersedes, accept) if fresh else []
            stands = {
                row["name"]: row["number"]
                for row in self._named_as({row["name"] for row in before.values()})
                if row["landed"]
            }
            again = (
                self._again(row, accept, stands.get(row["name"], row["number"]) > row["number"])
                for row in before.values()
            )
            return _total([*landings, *again])

    def replay(self, batch: str, accept: str = "") -> Landing:
        """Tries the quarantined rows of a batch, by name or beginning of its digest, again under the contract of today.

        Raises:
            BatchError: there is no such batch.
        """
        with self.alone():
            return self._replay(self.named(batch), accept)

    def _recorded(self, arrivals: list[Arrival]) -> dict[str, dict[str, Any]]:
        """What the journal knows of them, by batch: asked for each, or, where they are many, in one go."""
        wanted = [arrival.batch for arrival in arrivals]
        if len(wanted) > MANY:
            known = {row["batch"]: row for row in self.journal.batches(self.project)}
            return {batch: known[batch] for batch in wanted if batch in known}
        return {batch: row for batch in wanted if (row := self.journal.batch(self.project, batch))}

    def named(self, batch: str) -> dict[str, Any]:
        """The journal's row of a batch, by name or beginning of its digest.

        Raises:
            BatchError: no such batch ever came.
        """
        rows = self.journal.batches(self.project)
        found = [row for row in rows if row["name"] == batch or (len(batch) >= 6 and row["batch"].startswith(batch))]
        if not found:
            hint = suggestion(batch, {row["name"] for row in rows})
            raise BatchError(
                f"No batch '{batch}' of {self.project} ever came.{hint} `keepfit quarantine list` shows those with quarantined rows."
            )
        return found[-1]

    def _again(self, row: dict[str, Any], accept: str, is_corrected: bool) -> Landing:
        """The same bytes once more: every row is known, those in quarantine too; a batch that was held is tried again.

        `is_corrected` when other content landed under its name since.
        """
        if (row["kind"] or "rows") != self.kind:
            raise BatchError(
                f"{row['name']}: came as {row['kind'] or 'rows'} before. A file holds rows or outcomes, not both; nothing was changed."
            )
        if row["state"] == "held" and row["arrived"]:
            return self._replay(row, accept)
        if not row["announced"]:  # recorded by a run that died before it could say so
            return _landing(self.project, row)
        reason = f"{row['name']}: {row['arrived']:,} arrived, all known: the same content {'landed' if row['landed'] else 'came'} before"
        if row["state"] == "held":
            return _landing(self.project, row)
        if is_corrected:
            reason += "; other content came under this name since, and stands. To go back to this one, send a file that differs from it by a line break at its end"
        known = {
            "landed": 0,
            "quarantined": 0,
            "replaced": 0,
            "known": row["arrived"],
            "state": "known",
            "reason": reason,
        }
        return _landing(self.project, {**row, **known, "detail": "{}"})

    # -- new batches --------------------------------------------------------------------------------------------------
    def _fresh(self, arrivals: list[Arrival], supersedes: str, accept: str) -> list[Landing]:
        """One change for all of them; a batch that may not land is held, and the pass is begun anew without it."""
        superseded = self.named(supersedes)["batch"] if supersedes else ""
        corrected = self._corrected({arrival.name for arrival in arrivals}, superseded)
        replaceable, keys = self._replaceable(corrected), self._keys()
        held = {each.batch: Account(problem=ALTERED, readable=False) for each in arrivals if each.altered}
        odd: dict[str, list[Finding]] = {}  # of a held batch: what the pass that it was in found
        while True:
            intake = self._intake([arrival.batch for arrival in arrivals], keys, replaceable)
            for n, arrival in enumerate(arrivals):
                if arrival.batch not in held:
                    intake.take(n, self._chunks(arrival.path), cut=not files.has_last_line_break(arrival.path))
            profile = intake.profile()
            findings = self._findings(profile)
            unfinished = (
                UNFINISHED
                if arrivals[0].path.parent.name == ARRIVED or arrivals[0].path.parent.parent.name == ARRIVED
                else ""
            )
            problems = self._problems(intake, held, findings, accept, unfinished)
            if not problems:
                break
            held |= problems
            odd |= dict.fromkeys(problems, findings)
            intake.abandon()
            durable.remove(self.staging)
        for n, arrival in enumerate(arrivals):
            if arrival.batch in held and held[arrival.batch].readable:
                intake.hold(n, self._chunks(arrival.path), f"held: {held[arrival.batch].problem}")
        at = self._clock()
        rows = [
            self._row(
                arrival,
                at,
                account,
                held.get(arrival.batch),
                self._told(intake, odd.get(arrival.batch, findings), accept) | {"supersedes": superseded},
            )
            for arrival, account in zip(arrivals, intake.accounts, strict=True)
        ]
        landing = [n for n, arrival in enumerate(arrivals) if arrival.batch not in held]
        if landing:
            rows[landing[0]]["profile"] = profile.model_dump_json()  # what came, for the batches after it
        why = {
            "keepfit.why": "land",
            "keepfit.batch": arrivals[0].batch,
            "keepfit.name": arrivals[0].name,
            "keepfit.files": str(len(arrivals)),
        }
        self._change(
            digest(sorted(arrival.batch for arrival in arrivals)), at, why, intake, rows,
            names=tuple(arrivals[n].batch for n in landing),
        )  # fmt: skip
        return [_landing(self.project, row) for row in self._recorded(arrivals).values()]

    def _problems(
        self,
        intake: Intake,
        held: dict[str, Account],
        findings: list[Finding],
        accept: str,
        unfinished: str = "",
    ) -> dict[str, Account]:
        """The accounts of those batches that may not land, each with its problem."""
        found = {}
        for name, account in zip(intake.batches, intake.accounts, strict=True):
            if name not in held:
                account.problem = account.problem or ("" if accept else self._too_bad(account, unfinished))
                if account.problem:
                    found[name] = account
        odd = [finding.reason for finding in findings if finding.holds]
        if odd and not found and not accept:
            for name, account in zip(intake.batches, intake.accounts, strict=True):
                if name not in held:
                    account.problem = f"as a whole it is odd: {'; '.join(odd[:3])}. Nothing landed. If it is right, say `keepfit quarantine replay` with --accept and why"
                    found[name] = account
        return found

    def _too_bad(self, account: Account, unfinished: str) -> str:
        contract, rows = self.use.contract, account.arrived
        if unfinished and any(rule.endswith(CUT) for rule in account.rules):
            return unfinished
        if account.broken > contract.hold_above * rows:
            worst = account.rules.most_common(1)[0][0]
            return f"{account.broken:,} of {rows:,} rows break the contract, more than {contract.hold_above:.0%} (most: {worst}). Nothing landed"
        if account.bad_target > max(1, contract.hold_bad_target * rows):
            return f"{account.bad_target:,} of {rows:,} rows have no usable {contract.target}, more than {contract.hold_bad_target:.1%}. Nothing landed"
        return ""

    def _findings(self, profile: Profile) -> list[Finding]:
        if not profile.rows or self.kind == OUTCOMES:
            return []
        before = [_profile(text) for text in self.journal.profiles(self.project, self.use.expects.history)]
        return self.use.expects.judge(profile, before, self._clock())

    # -- quarantined rows once more -----------------------------------------------------------------------------------
    def _replay(self, row: dict[str, Any], accept: str) -> Landing:
        """The quarantined rows of a batch under the contract of today; what is still broken stays, with today's rule."""
        batch, keys = row["batch"], self._keys()
        count = self._quarantined(batch)
        superseded = json.loads(row["detail"] or "{}").get("supersedes") or ""
        corrected = self._corrected({row["name"]}, superseded, before=row["number"])
        intake = self._intake([batch], keys, self._replaceable(corrected))
        intake.take(0, self._raw(batch))
        account, profile = intake.accounts[0], intake.profile()
        findings = self._findings(profile) if row["state"] == "held" else []
        if row["state"] == "held":
            self._problems(intake, {}, findings, accept)
        if not count or account.problem or account.broken == count:
            intake.abandon()
            durable.remove(self.staging)
            told = account.problem or (
                f"all of them still break the contract (most: {account.rules.most_common(1)[0][0]})"
                if count
                else "it has none"
            )
            state = "held" if row["state"] == "held" else "known"
            same = {
                "arrived": count,
                "landed": 0,
                "quarantined": count,
                "known": 0,
                "state": state,
                "reason": f"{row['name']}: {count:,} quarantined rows tried again: {told.removesuffix('. Nothing landed')}. Nothing changed",
            }
            return _landing(self.project, {**row, **same})
        replays, at = (row["replays"] or 0) + 1, self._clock()
        landed, known, erased = row["landed"] + account.landed, row["known"] + account.known, row["quarantined"] - count
        quarantined, gone = account.broken + erased, f" (of which {erased:,} were erased)" if erased else ""
        reason = f"{row['name']}: {row['arrived']:,} arrived = {landed:,} landed + {quarantined:,} quarantined{gone} + {known:,} known, after {count:,} quarantined rows were tried again"
        detail = (
            json.loads(row["detail"] or "{}") | self._told(intake, findings, accept) | {"rules": dict(account.rules)}
        )
        updated = {
            **row, "landed": landed, "quarantined": quarantined, "known": known, "replays": replays, "announced": False,
            "replaced": (row["replaced"] or 0) + account.replaced, "state": "landed" if landed else "known", "reason": reason,
            "profile": profile.model_dump_json(), "detail": json.dumps(detail),
        }  # fmt: skip
        why = {"keepfit.why": "replay", "keepfit.batch": batch, "keepfit.name": row["name"]}
        self._change(f"{batch} replay {replays}", at, why, intake, [updated], without=batch)
        mine = {"arrived": count, "landed": account.landed, "quarantined": account.broken, "known": account.known}
        return _landing(self.project, {**(self.journal.batch(self.project, batch) or updated), **mine})

    def _quarantined(self, batch: str) -> int:
        table = self.lake.quarantine
        return sum(table.peek(file, [BATCH])[BATCH].to_pylist().count(batch) for file in table.files(table.open()))

    def _raw(self, batch: str) -> Iterator[pa.Table]:
        """The quarantined rows of a batch as they came."""
        table = self.lake.quarantine
        for file in table.files(table.open()):
            kept = table.read(file)
            lines = kept.filter(pc.equal(kept[BATCH], batch))["_raw"].to_pylist()  # ty: ignore[missing-attribute]
            if lines:
                yield files.lines(lines)

    # -- the change ---------------------------------------------------------------------------------------------------
    def _change(
        self, name: str, at: dt.datetime, why: dict[str, str], intake: Intake, batches: list[dict[str, Any]], *,
        names: tuple[str, ...] = (), without: str = "",
    ) -> None:  # fmt: skip
        """Writes down what the pass has prepared, and does it.

        `names` are the batches that the table shall know, `without` is one whose older rows leave the quarantine.
        """
        rows, broken = intake.close()
        replaced, stays = self._rewritten(self.kind, ROW, {bytes(name) for name in intake.replaced})
        emptied, refilled = self._rewritten("quarantine", BATCH, {without} - {""})
        change = Change(
            project=self.project, id=name, at=at, why=why, contract=self.contract, staging=str(self.staging), batches=tuple(batches),
            edits=(
                Edit(table=self.kind, add=(*rows, *stays), remove=replaced, names=names),
                Edit(table="quarantine", add=(*broken, *refilled), remove=emptied),
            ),
        )  # fmt: skip
        self.do(change, (self.index(self.kind), intake.seen) if rows and not replaced else None)
        try:
            compact(self, self._clock(), at_least=CROWD)
        except (
            ArtifactError
        ) as error:  # the batch has landed; a damaged file of another one is no reason to say otherwise
            LOG.warning("%s: small data files stay as they are: %s", self.project, error)

    def _rewritten(
        self, kind: Kind | Literal["quarantine"], column: str, gone: set[Any]
    ) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:
        """The data files that hold rows which go, and those that hold what stays of them."""
        table = self.lake.table(kind)

        def goes(file: DataFile) -> np.ndarray:
            return np.array([value in gone for value in table.peek(file, [column])[column].to_pylist()], dtype=bool)

        return without_rows(table, table.files(table.open()) if gone else [], goes, self.staging)

    # -- what a pass needs --------------------------------------------------------------------------------------------
    def _intake(self, batches: list[str], keys: Keys, replaceable: Callable[[np.ndarray], np.ndarray]) -> Intake:
        return Intake(self.use, batches, keys, self.staging, self._today(), replaceable, self._derive)

    def _today(self) -> dt.datetime:
        """The time of arrival, by which rows are too far in the future or not.

        Where outcomes stand that could not come now, the clock was ahead when they came: others may follow them at once.
        """
        now, ahead = self._clock(), dt.timedelta(hours=self.use.contract.ahead)
        ends = [file.until for file in self.table.files(self.table.open())] if self.kind == OUTCOMES else []
        newest = dt.datetime.fromisoformat(max(filter(None, ends), default=now.isoformat()))
        return newest - ahead + MOMENT if newest > now + ahead else now

    def _keys(self) -> Keys:
        keys = self.index(self.kind)
        self.lake.follow(keys, self.table, self.use.contract.key)
        return keys

    def _chunks(self, path: Path) -> Iterator[pa.Table]:
        """The raw rows of a file: only the contract's columns, unless the project derives its columns from others."""
        wanted = None if self._derive else tuple(self.use.contract.columns)
        return files.chunks(path, self.use.reads, wanted)

    def _corrected(self, names: set[str], superseded: str, before: int | None = None) -> list[str]:
        """The batches whose rows files of these names may replace: those of the same names, come before, and the one that was named."""
        earlier = [row for row in self._named_as(names) if before is None or row["number"] < before]
        same = {row["batch"] for row in earlier if row["name"] in names and row["landed"]}
        return sorted(same | ({superseded} - {""}))

    def _named_as(self, names: set[str]) -> list[dict[str, Any]]:
        """The journal's rows of this kind's batches of these names, oldest first; where the names are many those of all."""
        known = self.journal.batches(self.project, names if len(names) <= MANY else None) if names else []
        return [row for row in known if (row["kind"] or "rows") == self.kind]

    def _replaceable(self, batches: list[str]) -> Callable[[np.ndarray], np.ndarray]:
        """Which row names, (n, 16) bytes, belong to these batches: (n,) bool. The table is looked at when somebody asks of any."""

        @cache
        def names() -> set[bytes]:
            found, table = set[bytes](), self.table
            for file in table.files(table.open()) if batches else ():
                rows = table.peek(file, [ROW, BATCH])
                found.update(rows.filter(pc.is_in(rows[BATCH], pa.array(batches)))[ROW].to_pylist())  # ty: ignore[missing-attribute]
            return found

        return lambda ids: np.array([bytes(row) in names() for row in ids], dtype=bool)

    def _stamped(self, raw: pd.DataFrame) -> pd.DataFrame:
        """Outcomes without a time became known when they came; those that are known already keep their time, and so stay known.

        One that says otherwise than what is known is the newer of the two, also where the clock went back in between (faults: S-10).
        """
        contract, now = self.use.contract, self._clock()
        if AT in raw or contract.target is None or contract.missing([*raw.columns, AT]):
            return raw
        stamped = raw.assign(**{AT: pd.Timestamp(now)})
        labels = self.lake.labels()
        if labels is None:
            return stamped
        rows = contract.check(pa.Table.from_pandas(stamped, preserve_index=False), now, self.use.reads.decimal).rows
        found = labels.of(rows)
        place = pa.array(found, mask=found < 0)
        before = labels.outcomes[contract.target].combine_chunks().take(place)
        same = pc.fill_null(pc.equal(before, rows[contract.target].combine_chunks()), False)  # ty: ignore[missing-attribute]
        at = labels.outcomes[AT].combine_chunks().take(place).to_pandas()
        later = (at + MOMENT).where(at >= now, pd.Timestamp(now))
        return stamped.assign(**{AT: at.where(same.to_numpy(zero_copy_only=False), later)})

    # -- accounts -----------------------------------------------------------------------------------------------------
    def _told(self, intake: Intake, findings: list[Finding], accept: str) -> dict[str, Any]:
        return {
            "findings": [finding.model_dump() for finding in findings], "extra": sorted(intake.extra), "accepted": accept,
            "private": {name: what for name, what in intake.private.items() if what},
        }  # fmt: skip

    def _row(
        self, arrival: Arrival, at: dt.datetime, account: Account, held: Account | None, told: dict[str, Any]
    ) -> dict[str, Any]:
        """The journal's row of a batch."""
        if held:
            kept = held.arrived if held.readable else 0
            account = Account(arrived=kept, broken=kept, rules=held.rules)
        counts = {
            "arrived": account.arrived,
            "landed": account.landed,
            "quarantined": account.broken,
            "known": account.known,
        }
        reason = (
            f"{held.problem}"
            if held
            else f"{account.arrived:,} arrived = {account.landed:,} landed + {account.broken:,} quarantined + {account.known:,} known"
        )
        corrections = f", of which {account.replaced:,} correct older rows" if account.replaced else ""
        return {
            "project": self.project, "batch": arrival.batch, "name": arrival.name, **counts, "replaced": account.replaced, "kind": self.kind,
            "state": "held" if held else "landed" if account.landed else "known", "reason": reason + corrections if reason.startswith(f"{arrival.name}:") else f"{arrival.name}: {reason}{corrections}",
            "at": at.isoformat(), "replays": 0, "contract": self.contract.digest, "announced": False,
            "detail": json.dumps(told | {"rules": dict(account.rules)}), "profile": None,
        }  # fmt: skip


def _landing(project: str, row: dict[str, Any]) -> Landing:
    """What the journal knows of a batch."""
    detail = json.loads(row["detail"] or "{}")
    return Landing(
        **{name: row[name] for name in ("batch", "name", "state", "reason", "arrived", "landed", "quarantined", "known")},
        project=project, replaced=row["replaced"] or 0, rules=detail.get("rules", {}), extra=tuple(detail.get("extra", ())),
        findings=tuple(finding["reason"] for finding in detail.get("findings", ())),
        kind=row["kind"] or "rows", snapshot=_snapshot(row),
    )  # fmt: skip


def _snapshot(row: dict[str, Any]) -> str | None:
    """`v12`, or `v12.4` with outcomes, after a batch."""
    labelled = "" if row["outcomes"] is None else f".{row['outcomes']}"
    return f"v{row['version']}{labelled}" if row["version"] is not None else None


def _total(landings: list[Landing]) -> Landing:
    """One account for files that came together."""
    if len(landings) == 1:
        return landings[0]
    counts = {
        name: sum(getattr(each, name) for each in landings)
        for name in ("arrived", "landed", "quarantined", "known", "replaced")
    }
    states, rules = {each.state for each in landings}, Counter[str]()
    for each in landings:
        rules.update(each.rules)
    held = [each for each in landings if each.state == "held"]
    name = f"{len(landings):,} files"
    told = f"{name}: {counts['arrived']:,} arrived = {counts['landed']:,} landed + {counts['quarantined']:,} quarantined + {counts['known']:,} known"
    return Landing(
        project=landings[0].project, batch=digest(sorted(each.batch for each in landings)), name=name, **counts,
        state=next(state for state in ("landed", "held", "known") if state in states), files=len(landings), rules=dict(rules), kind=landings[0].kind,
        reason=told + (f"; {len(held)} held (first: {held[0].reason})" if held else ""),
        extra=tuple(sorted({column for each in landings for column in each.extra})),
        findings=landings[0].findings, snapshot=max((each.snapshot for each in landings if each.snapshot), key=lambda name: [int(number) for number in name[1:].split(".")], default=None),
    )  # fmt: skip


@task(name="ingest", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
def ingest(project: str, path: str, supersedes: str = "", accept: str = "", kind: Kind = "rows") -> Landing:
    """Lands a kept file, or a folder of them, under the contract in one change of the lake. May be repeated: it lands once."""
    settings = Settings()
    landing = Landings(Project.named(project, settings), settings, kind=kind).land(Path(path), supersedes, accept)
    get_run_logger().info("%s", landing.reason)
    return landing


@task(name="hand on", cache_policy=NO_CACHE)
def hand_on(landing: Landing, path: str) -> None:
    """Shows what became of every row, announces it, and moves the kept file out of the way. May be repeated."""
    create_table_artifact(
        _account(landing),
        key=artifact_key(landing.project, "batch"),
        description=f"**{landing.project}** {landing.reason}",
    )
    landed, held = landing.landed > 0, landing.state == "held"
    if landed or held:
        emit_event(
            event=f"keepfit.batch.{'landed' if landed else 'refused'}", payload=landing.model_dump(mode="json"),
            resource=resource(landing.project) | {KIND: landing.kind},
        )  # fmt: skip
    settings = Settings()
    Journal(settings.journal()).announced(landing.project)
    file = Path(path)
    if file.parent.name in {ARRIVED, SENT} and file.exists():
        folder = file.parent.with_name(HELD if held else LANDED)
        folder.mkdir(parents=True, exist_ok=True)
        if file.is_dir() and (folder / file.name).exists():  # named by content: the same files, which came again
            shutil.rmtree(file)
        else:
            file.replace(folder / file.name)


def _account(landing: Landing) -> list[dict[str, Any]]:
    """Rows arrived = landed + quarantined + known, a line each, and the broken rules."""
    counts = [
        ("arrived", landing.arrived),
        ("landed", landing.landed),
        ("quarantined", landing.quarantined),
        ("known", landing.known),
    ]
    return [{"rows": name, "count": count} for name, count in counts] + [
        {"rows": f"quarantined: {rule}", "count": n} for rule, n in landing.rules.items()
    ]
