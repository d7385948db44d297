"""Change plans on file: `change_plan.yaml` beside `project.yaml`, and `change_plan.sig`, by which a person answers for it.

A signature is Ed25519 (RFC 8032) over who signed, when, for which project, and the SHA-256 of the plan's bytes. The key pair is made at the
first signature, under KEEPFIT_HOME/keys; keys of other people are trusted when they lie in KEEPFIT_HOME/keys/trusted, one NAME.pub each.
They lie there and not beside the plan, because whoever may change a plan in the repository could put a key beside it, too.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from tasks.config import signing, written
from tasks.config.errors import ProjectError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.config.signing import KeyFileError
from tasks.ml.gates import ChangePlan, Envelope
from tasks.ml.metrics import metrics_of

FILE, SIGNATURE = "change_plan.yaml", "change_plan.sig"
OWN = "plan.pem"  # the key of this home
LIMITS = ", ".join(ChangePlan.model_fields)


class Signature(BaseModel, frozen=True, extra="forbid"):
    """What stands in `change_plan.sig`.

    Attributes:
        by: who signed; at: when, ISO 8601.
        sha256: of the plan's bytes.
        key, signature: the public key and the signature, in hexadecimal digits.
    """

    by: str
    at: str
    sha256: str
    key: str
    signature: str = ""

    def message(self, project: str) -> bytes:
        """What is signed: everything but the signature itself, and the project, so that no other project can use it."""
        said = self.model_dump(exclude={"signature"}) | {"keepfit": "change plan", "project": project}
        return json.dumps(said, sort_keys=True).encode()

    @property
    def told(self) -> str:
        """Who and when."""
        return f"{self.by} signed it on {self.at[:10]}"


def load(use: Project, settings: Settings) -> ChangePlan | None:
    """The plan of a project, or None where it has none.

    Raises:
        ProjectError: the file is not one; names file, line and key.
    """
    path = settings.projects / use.project / FILE
    if not path.is_file():
        return None
    known = {"features": list(use.features), "floors": list(metrics_of(use.kind))}
    return written.read(path, ChangePlan, f"A plan limits at least one of: {LIMITS}.", known)


def sign(use: Project, settings: Settings, by: str, now: dt.datetime) -> Signature:
    """Signs the plan as it stands, in place of an older signature.

    Raises:
        ProjectError: there is no plan, or it does not load.
        KeyFileError: others may know the key.
    """
    folder = settings.projects / use.project
    if load(use, settings) is None:
        raise ProjectError(
            f"{folder / FILE} is not there, so there is nothing to sign. Write one that limits at least one of: {LIMITS}."
        )
    key = signing.own(settings.home / "keys" / OWN)
    digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    bare = Signature(by=by, at=now.isoformat(timespec="seconds"), sha256=digest, key=signing.public_of(key))
    signed = bare.model_copy(update={"signature": key.sign(bare.message(use.project)).hex()})
    partial = folder / f".{SIGNATURE}.part"
    partial.write_text(signed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / SIGNATURE)
    return signed


def envelope(use: Project, settings: Settings) -> Envelope:
    """The plan, and why it does not count where it does not; a plan that cannot be read does not."""
    try:
        plan = load(use, settings)
    except ProjectError as error:
        return Envelope(objection=str(error))
    signed = signature(use, settings)
    if plan is None:
        return Envelope(objection=f"{SIGNATURE} is there, {FILE} is not. Restore it, or remove both." if signed else "")
    return Envelope(plan=plan, objection=objection(use, settings, signed), signed=signed.told if signed else "")


def bars(use: Project, settings: Settings) -> dict[str, str]:
    """What a challenger is asked, by name, each as its digest: the project's bars, and the plan as it is on file."""
    path = settings.projects / use.project / FILE
    return use.bars | {FILE: hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()[:16]}


def signature(use: Project, settings: Settings) -> Signature | None:
    """The signature beside the plan, or None where there is none that can be read."""
    try:
        return Signature.model_validate_json((settings.projects / use.project / SIGNATURE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def objection(use: Project, settings: Settings, signed: Signature | None) -> str:
    """Why a plan counts as unsigned, a sentence with the next move; nothing when it is signed by somebody who is trusted."""
    again = f"Read it, then say `keepfit plan sign {use.project}`."
    if signed is None:
        return f"{FILE} has no signature that can be read. {again}"
    if not signing.is_genuine(signed.key, signed.signature, signed.message(use.project)):
        return f"{SIGNATURE} was altered: it is not what the key {signed.key[:12]} signed. {again}"
    if hashlib.sha256((settings.projects / use.project / FILE).read_bytes()).hexdigest() != signed.sha256:
        return f"{FILE} was changed after {signed.told}. {again}"
    try:
        known = set(_trusted(settings))
    except KeyFileError as error:
        return str(error)
    if signed.key not in known:
        return f"{signed.told} with the key {signed.key[:12]}, which nobody here trusts. Put it into {settings.home / 'keys' / 'trusted'} as NAME.pub, or sign it yourself."
    return ""


def told(use: Project, settings: Settings) -> dict[str, Any]:
    """The plan with who signed it, or why it counts as unsigned.

    Raises:
        ProjectError: the plan does not load.
    """
    plan, signed = load(use, settings), signature(use, settings)
    if plan is None:
        return {
            "project": use.project,
            "plan": None,
            "signed": False,
            "reason": f"no {FILE}: nothing limits what changes by itself",
        }
    against = objection(use, settings, signed)
    who = signed.model_dump(include={"by", "at", "sha256", "key"}) if signed else {}
    said = {"project": use.project, "plan": plan.model_dump(mode="json", exclude_defaults=True), "signed": not against}
    return said | who | {"reason": against or (signed.told if signed else "")}


# -- keys --------------------------------------------------------------------------------------------------------------
def _trusted(settings: Settings) -> Iterator[str]:
    """Every public key that is trusted here: the own one, and those that were put here."""
    folder = settings.home / "keys"
    if (folder / OWN).exists():
        yield signing.public_of(signing.read(folder / OWN))
    yield from signing.trusted(folder / "trusted")
