"""Written: a YAML file that a person wrote, as the frozen object that it describes, or what is wrong with it: file, line, key."""

import functools
import re
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.config.errors import ProjectError, suggestion

SHOWN = 10  # faults of one file; a file of another kind has one in every line
LONGEST = 60  # characters of a value that are repeated
Described = TypeVar("Described", bound=BaseModel)


def read(path: Path, model: type[Described], empty: str, context: dict[str, Any] | None = None) -> Described:
    """The object that a file describes.

    Args:
        path: the file.
        model: what it describes.
        empty: what to say when the file holds no keys.
        context: what the model's validators must know beside the file.

    Raises:
        ProjectError: names file, line and key, what was met and what was wanted.
    """
    try:
        text = _loaded(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ProjectError(f"{path}: is no readable YAML: {problem}. Mend that line.") from error
    if not isinstance(text, dict):
        raise ProjectError(f"{path}: holds no keys. {empty}")
    try:
        return model.model_validate(_plain(text), context=context)
    except ValidationError as error:
        raise ProjectError(*_explained(path, text, error, model)) from error


@functools.lru_cache(maxsize=16)
def _loaded(text: str) -> Any:
    """What a text says, with the line of each key; every step of a run reads the same file, which takes longest. Nobody changes it."""
    return YAML(typ="rt").load(text)


def _plain(node: Any) -> Any:
    """Ruamel's nodes as plain Python, so that pydantic sees what it knows."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _explained(path: Path, text: Any, error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Each problem with line and key, what was met and what was wanted; of a file that is wrong all over the first ones."""
    problems, found = [], error.errors()
    for problem in found[:SHOWN]:
        keys = [part for part in problem["loc"] if _stands(text, part, problem["loc"])]
        message = _said(problem["type"], problem["msg"], problem.get("input"))
        if problem["type"] == "extra_forbidden":
            message = f"is no key here.{suggestion(str(keys[-1]), _known_keys(problem['loc'], model))}"
        elif problem["type"] == "missing":
            keys, message = list(problem["loc"]), "is missing"
        name = ".".join(str(key) for key in keys)
        problems.append(f"{path}{_line(text, keys)}: {name + ' ' if name else ''}{message}".rstrip(". "))
    more = [f"{path}: and {len(found) - SHOWN} more faults"] if len(found) > SHOWN else []
    return [problem if problem.endswith("?") else f"{problem}." for problem in (*problems, *more)]


def _said(kind: str, message: str, met: Any) -> str:
    """A problem in words; pydantic's own leave out what was met. A text that may hold a password is not repeated."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    wanted = re.sub("^Input should be ", "wanted ", message)
    is_short = isinstance(met, (int, float, str, NoneType)) and len(str(met)) <= LONGEST and "://" not in str(met)
    if not is_short or repr(met) in message:
        return wanted
    return f"is {met!r}; {wanted[0].lower()}{wanted[1:]}"


def _stands(text: Any, part: Any, location: tuple[Any, ...]) -> bool:
    """Whether a part of pydantic's location is a key of the file (it also names the member of a union)."""
    node = text
    for key in location:
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            if key == part:
                return False
            continue
        if key == part:
            return True
    return False


def _line(text: Any, keys: list[Any]) -> str:
    """`:12`, the line of the innermost key that stands in the file."""
    node, line = text, None
    for key in keys:
        try:
            line = (node.lc.key(key) if isinstance(node, dict) else node.lc.item(key))[0] + 1
            node = node[key]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return f":{line}" if line else ""


def _known_keys(location: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """The keys that could stand where an unknown one was met."""
    schema = model.model_json_schema()
    sections = [schema, *schema.get("$defs", {}).values()]
    if len(location) == 1:
        return list(schema["properties"])
    return [name for section in sections[1:] for name in section.get("properties", {})]
