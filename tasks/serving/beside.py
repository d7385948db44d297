"""What goes on beside the champion: a challenger's share of the answers before it is scored, the shadow's work after it is out."""

import asyncio
import datetime as dt
import functools
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

from starlette.datastructures import Headers

from tasks.config.settings import Settings
from tasks.serving.canary import HEADER, Canary, Part, say
from tasks.serving.champion import Champion
from tasks.serving.metrics import Metrics
from tasks.serving.others import Others, Pair
from tasks.serving.protocols import Answered, Protocol, Question
from tasks.serving.shadow import Seen, Shadow
from tasks.serving.succession import Succession
from tasks.stores.shadows import Shadows


class Own(NamedTuple):
    """The challenger's share of a request.

    Attributes:
        pair: champion and other model; None where there is no rollout.
        part: what the challenger says of its share; None where it has none, failed, or had no turn.
        failed: whether it failed, so that the champion answers in its place.
    """

    pair: Pair | None = None
    part: Part | None = None
    failed: bool = False

    def completed(self, champion: Champion, asked: Question) -> list[Part]:
        """The champion's part, where it has one, and this one.

        Raises:
            RowError: the champion cannot score a row.
        """
        everything = [*range(len(asked.rows))]
        if self.part is None:
            return [say(champion, asked, everything)]
        taken = set(self.part.places)
        rest = [place for place in everything if place not in taken]
        return [say(champion, asked, rest), self.part] if rest else [self.part]

    def seen(self, at: dt.datetime, asked: Question, parts: list[Part], ids: list[str]) -> list[Seen]:
        """What the shadow is to score of an answered request: each part by the other model."""
        if (pair := self.pair) is None:
            return []
        whole = ids[0] if len(parts) > 1 else None
        return [
            Seen(
                pair, part.model, at, [asked.rows[n] for n in part.places], [ids[n] for n in part.places], part.answers, failed=self.failed, asked=whole
            )
            for part in parts
            if part.places
        ]  # fmt: skip


def merged(parts: list[Part], ids: list[str]) -> Answered:
    """What all say, in order of the rows. Of several versions the first part's stands over the answer, the others' beside their predictions."""
    first = parts[0]
    told: dict[int, dict[str, Any]] = {}
    for part in parts:
        more: dict[str, Any] = {} if part is first else {"version": part.model.release.version}
        more |= {"explained": part.explained} if part.explained != first.explained else {}
        for place, answer, each in zip(part.places, part.answers, part.parts, strict=True):
            told[place] = {"id": ids[place], **answer, **each, **more}
    return Answered(first.model, [told[place] for place in sorted(told)], first.explained)


class Beside:
    """The other models of one process.

    Attributes:
        others: which they are.
        shadow: where they score what was answered.
    """

    def __init__(self, succession: Succession, settings: Settings, metrics: Metrics) -> None:
        self.others = Others(succession, settings.journal(), settings.bundles)
        self.shadow = Shadow(Shadows(settings.home), metrics)
        self._canary = Canary(metrics)

    def splits(self, champion: Champion) -> bool:
        """Whether a challenger answers a share of this one's rows."""
        pair = self.others.of(champion)
        return pair is not None and pair.is_canary

    async def own(self, champion: Champion, protocol: Protocol, body: bytes, headers: Headers, *, small: bool) -> Own:
        """The challenger's share of a request, answered; a body that is not small is read in a thread."""
        pair = self.others.of(champion)
        if pair is None or not pair.is_canary:
            return Own(pair)
        split = functools.partial(self._split, pair, protocol, body, headers.get(HEADER))
        asked, places = split() if small else await asyncio.to_thread(split)
        if not places:
            return Own(pair)
        return Own(pair, *await self._canary.ask(pair, asked, places))

    def _split(self, pair: Pair, protocol: Protocol, body: bytes, header: str | None) -> tuple[Question, list[int]]:
        """What is asked, and the places of the challenger's rows."""
        asked = protocol.read(body, pair.champion)
        return asked, self._canary.chosen(pair, asked, header)

    @contextmanager
    def watched(self, own: Own, at: dt.datetime, asked: Question) -> Generator[None]:
        """Lets the other model try what the champion fails at."""
        try:
            yield
        except Exception:
            if own.pair:
                self.shadow.offer(Seen(own.pair, own.pair.champion, at, asked.rows, [], None, failed=own.failed))
            raise

    def close(self) -> None:
        """Ends what goes on, without waiting long."""
        self._canary.close()
        self.shadow.close()
