"""Written: a YAML file that a person wrote, as the frozen object that it describes, or what is wrong with it: file, line, key."""

import functools
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.config.errors import ProjectError, suggestion

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
        raise ProjectError(_explained(path, text, error, model)) from error


@functools.lru_cache(maxsize=16)
def _loaded(text: str) -> Any:
    """What a text says, with the line of each key; every step of a run reads the same file, which takes longest. Nobody changes it."""
    return YAML(typ="rt").load(text)


def _plain(node: Any) -> Any:
    """Ruamel's nodes as plain Python, so that pydantic sees what it knows."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _explained(path: Path, text: Any, error: ValidationError, model: type[BaseModel]) -> str:
    """The first three problems, each with line and key."""
    problems = []
    for problem in error.errors()[:3]:
        keys = [part for part in problem["loc"] if _stands(text, part, problem["loc"])]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"is no key here.{suggestion(str(keys[-1]), _known_keys(problem['loc'], model))}"
        elif problem["type"] == "missing":
            keys, message = list(problem["loc"]), "is missing"
        name = ".".join(str(key) for key in keys)
        problems.append(f"{path}{_line(text, keys)}: {name + ' ' if name else ''}{message}".rstrip(". "))
    return " ".join(problem if problem.endswith("?") else f"{problem}." for problem in problems)


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
