"""Proofs: whether the gates of a configuration stop what they must."""

import datetime as dt
import json
from typing import Any

import sqlalchemy as sa

from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import PROOFS


class Proofs(Database):
    """What is on record of proofs."""

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
