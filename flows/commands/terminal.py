"""The terminal: what parameters have in common, how a result is printed, and which exit code it deserves."""

import errno
import json
import select
import sys
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter
from rich.console import Console, RenderableType
from rich.table import Table

from tasks.config.errors import MisuseError
from tasks.config.settings import Settings

DONE, REFUSED, MISUSE, STOPPED = 0, 1, 2, 130
logs = Console(stderr=True, highlight=False)


def _something(text: str | None) -> None:
    """Refuses an empty text: what goes on record must say something; an option that was left out is another matter."""
    if text is not None and not text.strip():
        raise ValueError("Say something: it goes on record.")


Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON object on stdout; everything else goes to stderr.")
]
Flag = Annotated[bool, Parameter(negative="")]
Words = Annotated[tuple[str, ...], Parameter(negative="")]
Said = Annotated[str, Parameter(validator=lambda _type, text: _something(text))]


def say(line: str) -> None:
    """One line for a person, on stderr."""
    logs.print(line, markup=False, soft_wrap=True)


def confirmed(question: str) -> bool:
    """Whether somebody says yes; asked on stderr, because stdout is for the result.

    Raises:
        MisuseError: nobody is there to say anything.
    """
    say(f"{question} Type yes:")
    answer = sys.stdin.readline()
    if not answer:
        raise MisuseError("Nobody is there to answer; say --yes where it is meant. Nothing was changed.")
    return answer.strip() == "yes"


def show(result: dict[str, Any], *, as_json: bool, page: RenderableType | None = None) -> int:
    """Prints a result and gives the exit code that it deserves."""
    if as_json:
        print(json.dumps(result, default=str))
    else:
        put(page if page is not None else _lines(result))
    return REFUSED if result.get("state") in {"refused", "held", "failed"} or result.get("ok") is False else DONE


def put(page: RenderableType) -> None:
    """Prints something for a person, on stdout."""
    Console(highlight=False).print(page, markup=False, soft_wrap=isinstance(page, str))


def _lines(result: dict[str, Any]) -> str:
    return "\n".join(f"{name:>12}  {_short(value)}" for name, value in result.items() if value not in (None, {}, []))


def _short(value: Any) -> Any:
    """The same with four digits of each number that has more, for a person; large ones keep all before the point."""
    if isinstance(value, float) and isfinite(value):
        return float(f"{value:.4g}") if abs(value) < 1e4 else round(value)
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list) else value


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], **about: Any) -> Table:
    """A table without lines, in which a path is broken rather than cut; `about` is its title and caption."""
    made = Table(box=None, **about)
    for head in heads:
        made.add_column(head, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def explained(error: BaseException) -> str:
    """One sentence for what went wrong, in the user's words where the library's differ."""
    text = " ".join(str(error).split())
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "database or disk is full" in text:
        return (
            f"The disk is full: {text}. Nothing was changed; free some space under {Settings().home} and say it again."
        )
    if "Failed to reach API" in text or "ConnectError" in type(error).__name__ or "Connection refused" in text:
        return f"A server of the stack does not answer: {text[:200]}. Look at `keepfit status`, then say `keepfit up`."
    return f"{type(error).__name__}: {text[:500]}"


def is_read() -> bool:
    """Whether somebody still reads what is printed."""
    pipe = select.poll()
    pipe.register(sys.stdout, 0)
    return not any(said & select.POLLERR for _, said in pipe.poll(0))


def fail(message: str, words: list[str], code: int, faults: Sequence[str] = ()) -> NoReturn:
    """Ends the command: the message on stderr, with --json as one object on stdout, too; where it tells several faults, also one by one."""
    say(message)
    if "--json" in words:
        print(json.dumps({"error": message} | ({"faults": faults} if len(faults) > 1 else {})))
    sys.exit(code)
