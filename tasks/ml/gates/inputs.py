"""The gate that looks at what a challenger was made of: can somebody else make it again?"""

from typing import Literal

from pydantic import BaseModel, Field

from tasks.ml.gates.evidence import Evidence
from tasks.ml.gates.facts import Made
from tasks.ml.gates.verdict import Verdict


class Inputs(BaseModel, frozen=True, extra="forbid"):
    """Can the challenger be made again: are its rows, packages and code on record and still to be had?

    Rows that cannot be read as they were refuse it: nobody can vouch for what nobody can look at. Packages that are not the locked ones,
    and code that is in no commit where that is wanted, leave it to a person, who can know where they come from and answers for it
    by name.
    """

    kind: Literal["inputs"] = "inputs"
    committed: bool = Field(
        default=False, description="true: a model of code that is in no git commit waits for a person, too"
    )

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when the snapshot verifies, the lock is known and installed, and the code is on record as it is wanted."""
        made = evidence.made
        if made is None:
            return Verdict(
                gate=self.kind, passed=False, reason="nothing says what the challenger was made of; train again"
            )
        if made.altered:
            return Verdict(
                gate=self.kind, passed=False, reason=f"snapshot {made.snapshot} cannot be had again: {made.altered}"
            )
        doubts = [*_packages(made), *self._code(made)]
        return Verdict(
            gate=self.kind, passed=not doubts, hold=bool(doubts), value=len(made.astray), bar=0, wanted="below",
            reason=f"a person must answer for it: {'; '.join(doubts)}" if doubts else _told(made),
        )  # fmt: skip

    def _code(self, made: Made) -> list[str]:
        if not self.committed or _is_committed(made):
            return []
        where = "outside of a git checkout" if made.commit == "unknown" else "with changes that are in no commit"
        return [f"the code ran {where}. Commit it and train again"]


def _packages(made: Made) -> list[str]:
    if made.lock == "unknown":
        return ["there is no requirements.lock, so nobody knows which packages made it. Restore it and train again"]
    if not made.astray:
        return []
    more = f" and {len(made.astray) - 3} more" if len(made.astray) > 3 else ""
    return [
        f"packages are not what requirements.lock says: {', '.join(made.astray[:3])}{more}. Install the locked ones, or lock those (make lock)"
    ]


def _is_committed(made: Made) -> bool:
    return made.commit != "unknown" and not made.commit.endswith("+changes")


def _told(made: Made) -> str:
    code = f"code {made.code[:12]} is in commit {made.commit[:12]}"
    if not _is_committed(made):
        code = f"code {made.code[:12]} is in no commit, only its digest is on record"
    return f"snapshot {made.snapshot} verifies; what is installed is what the lock {made.lock[:12]} says; {code}"
