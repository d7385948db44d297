"""Orders over HTTP: hooks that other programs call, and trainings that one asks for; on record when they are acknowledged, no more.

Nothing is done here: the stack's recovery makes runs of orders, so that it does not matter whether Prefect is there at the moment.
"""

import datetime as dt
import logging
import os
import uuid
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from tasks.config import written
from tasks.config.access import is_from_here
from tasks.config.errors import KeepfitError, ProjectError
from tasks.config.settings import Settings
from tasks.serving.answers import Refusal, as_json
from tasks.serving.bodies import Bodies
from tasks.serving.line import Line
from tasks.sources.hook import SHORTEST, Hook, HookError, Hooks
from tasks.stores.journal import Journal

LOG = logging.getLogger("keepfit.serving")
KEY = "idempotency-key"
HIGHEST = 2**31 - 1  # number of an order that every database takes
SHAPE = '{"reason": text of at most 200 characters}, or nothing'


class Listening(BaseModel, frozen=True):
    """What the door reads of a project.yaml; the whole of it is checked where it is deployed, with what a server does not load."""

    hooks: Hooks = ()


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a training."""

    reason: Annotated[str, msgspec.Meta(max_length=200)] = "asked for over HTTP"


class Ordering:
    """The orders that one process takes."""

    def __init__(
        self, settings: Settings, line: Line, now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    ) -> None:
        self._settings, self._line, self._now = settings, line, now
        self._bodies = Bodies()
        self._hooks: dict[str, tuple[str, tuple[Hook, ...]]] = {}  # by project: the digest of its files, its hooks

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self._settings.journal())

    # -- hooks --------------------------------------------------------------------------------------------------------
    async def hook(self, request: Request) -> Response:
        """Takes one message; 202 when it is on record, however often it comes."""
        self._line.admit()
        body = await self._bodies.read(request)
        name, headers = request.path_params["name"], request.headers
        return as_json(await self._line.run(lambda: self._take(name, headers, body), quick=False), 202)

    def _take(self, name: str, headers: Any, body: bytes) -> dict[str, Any]:
        project, hook = self._named(name)
        secret, now = os.environ.get(hook.secret, "").encode(), self._now()
        if len(secret) < SHORTEST:
            LOG.error("hook %s: %s is not set, or is shorter than %d bytes", name, hook.secret, SHORTEST)
            raise Refusal(503, "This hook has no secret here. Whoever runs this server sets it.")
        try:
            hook.admit(secret, headers, body, now)
            same = hook.read(headers, body)
        except HookError as error:
            raise Refusal(error.status, str(error)) from None
        does = "fetch" if hook.does == "land" else "train"
        taken = [
            self._order(
                project=project, key=f"hook {name} {each}", does=does, reason=f"hook {name}", what=hook.source or "", at=now
            )
            for each in same
        ]  # fmt: skip
        state = "recorded" if any(is_new for _, is_new in taken) else "known" if taken else "ignored"
        LOG.info("hook %s: %d events, %s", name, len(taken), state)
        return {
            "hook": name, "project": project, "does": hook.does, "state": state, "orders": [number for number, _ in taken]
        }  # fmt: skip

    def _named(self, name: str) -> tuple[str, Hook]:
        """The hook of that name and its project; a name that two projects use is nobody's."""
        found = [
            (project, hook)
            for project in self._settings.project_names()
            for hook in self._declared(project)
            if hook.name == name
        ]
        if len(found) > 1:
            LOG.error("hook %s is declared by %s; give each a name of its own", name, [project for project, _ in found])
        if len(found) != 1:
            raise Refusal(
                404, "There is no hook of this name. It is declared in a project's project.yaml, under `hooks`."
            )
        return found[0]

    def _declared(self, project: str) -> tuple[Hook, ...]:
        """The hooks of a project, read anew after a change of its files."""
        digest = self._settings.declared(project)
        if self._hooks.get(project, ("",))[0] != digest:
            try:
                file = self._settings.projects / project / "project.yaml"
                hooks = written.read(file, Listening, "A project needs at least: project, contract, split.").hooks
            except ProjectError as error:
                LOG.error("the hooks of %s are out of order: %s", project, error)  # noqa: TRY400 – the sentence is the whole matter
                hooks = ()
            self._hooks[project] = (digest, hooks)
        return self._hooks[project][1]

    # -- trainings ----------------------------------------------------------------------------------------------------
    async def training(self, request: Request) -> Response:
        """Takes an order for a training; 202 with its number, the same one for the same Idempotency-Key."""
        peer = request.client.host if request.client else None
        if not request.scope["is_known"] and not is_from_here(self._settings.host, request.headers, peer):
            raise Refusal(
                403,
                "Without a token only programs on this machine may order. Whoever runs this server sets KEEPFIT_TOKEN.",
                Connection="close",
            )
        project = request.path_params["project"]
        self._line.admit()
        body = await self._bodies.read(request)
        key = request.headers.get(KEY) or uuid.uuid4().hex
        return as_json(await self._line.run(lambda: self._ask(project, key, body), quick=False), 202)

    def _ask(self, project: str, key: str, body: bytes) -> dict[str, Any]:
        self._known(project)
        if len(key) > 100 or not key.isprintable():
            raise Refusal(422, f"{KEY} has {len(key)} characters; wanted at most 100, all printable.")
        reason = _reason(body)
        number, _ = self._order(project=project, key=f"rest {key}", does="train", reason=reason, at=self._now())
        return self._told(project, number)

    async def ordered(self, request: Request) -> Response:
        """What came of an order."""
        project, number = request.path_params["project"], request.path_params["id"]
        return as_json(await self._line.run(lambda: self._look(project, number), quick=False))

    def _look(self, project: str, number: str) -> dict[str, Any]:
        """What came of the order whose number stands in an address; a text that is no number, or one without end, is no order's."""
        self._known(project)
        is_number = number.isascii() and number.isdigit() and len(number) <= len(str(HIGHEST))
        return self._told(project, int(number) if is_number else HIGHEST + 1)

    def _told(self, project: str, number: int) -> dict[str, Any]:
        found = self._journal.ordered(project, number) if number <= HIGHEST else None
        if found is None:
            raise Refusal(404, "There is no order of this number.")
        return {"id": number, **found.model_dump(include={"project", "does", "reason", "at", "state", "said"})}

    def _known(self, project: str) -> None:
        if project not in self._settings.project_names():
            raise Refusal(404, "There is no project of this name. Correct it; `keepfit status` lists them.")

    def _order(self, **order: Any) -> tuple[int, bool]:
        try:
            return self._journal.order(by="hook", **order)
        except (KeepfitError, SQLAlchemyError, OSError) as error:
            LOG.error("an order could not be recorded: %s", type(error).__name__)  # noqa: TRY400 – its text may repeat what was sent
            raise Refusal(
                503, "The order could not be recorded; it does not count. Send it again later.", Retry_After="5"
            ) from None


def _reason(body: bytes) -> str:
    try:
        asked = msgspec.json.decode(body, type=Asked) if body else Asked()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Refusal(422, f"The body has another shape; wanted {SHAPE}.") from None
    if not asked.reason.isprintable():
        raise Refusal(422, f"The reason has signs that do not print; wanted {SHAPE}.")
    return asked.reason
