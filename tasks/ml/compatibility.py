"""Compatibility: what changed between two contracts, how bad it is, and which features and models it touches.

| change | level | why |
|---|---|---|
| target, key or time is another column | breaking | rows get other names, places or labels; a model answers another question |
| a feature becomes key, time or target / the other way | breaking / risky | models cannot learn from it any more / never did |
| column removed | breaking | models that learned from it can be asked about older rows alone |
| column renamed (the same rules, a similar name) | breaking | files and models know the old name |
| column added, may be empty / must be filled | benign / risky | landed rows are empty there |
| type int → float | risky | models never saw fractions |
| type text ↔ category | benign | both are texts |
| any other type | breaking | values that landed no longer read |
| nullable → required, narrower range or list | breaking | rows that landed before would be refused |
| required → nullable, wider range or list | risky | models never saw such values |
| time zone given / taken away or another | risky / breaking | refused times land / times mean another moment |
| a limit of holding raised / lowered | risky / benign | worse batches land / fewer do |
| hooks.py changed | risky | derived and computed columns may mean something else |
| order of columns or of the key, `about` | benign | nothing depends on it |
| anything else | risky | nobody has said yet what it means |
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import BaseModel

from tasks.ml.contract import Column, Contract

Level = Literal["benign", "risky", "breaking"]
LEVELS: tuple[Level, ...] = ("benign", "risky", "breaking")
ALIKE = 0.6  # similarity of two names, by difflib, from which on one may be the other's new name
LIMITS = ("hold_above", "hold_bad_target", "ahead")
TYPES: dict[tuple[str, str], Level] = {
    ("int", "float"): "risky",
    ("text", "category"): "benign",
    ("category", "text"): "benign",
}


class Difference(BaseModel, frozen=True):
    """One change from an old contract to a new one.

    Attributes:
        kind: what changed: added, removed, renamed, type, nullable, range, categories, timezone, key, time, target, …
        column: the column it is about (a renamed one by its old name), or None.
        level: breaking, risky or benign.
        what: a sentence with both values.
        features: columns of the old contract's features whose meaning it touches.
    """

    kind: str
    column: str | None
    level: Level
    what: str
    features: tuple[str, ...] = ()


class Model(BaseModel, frozen=True):
    """A registered version: the digest of the contract that it was trained under, where that is known, and its features."""

    version: int
    features: tuple[str, ...]
    contract: str | None = None
    champion: bool = False


def compare(old: Contract, new: Contract, *, hooks_changed: bool = False) -> list[Difference]:
    """Every difference of two contracts, the worst first.

    >>> before = Contract(
    ...     columns={"id": Column(type="int"), "at": Column(type="datetime"), "y": Column(type="bool"),
    ...              "age": Column(type="int", min=0, max=150)}, key=("id",), time="at", target="y")
    >>> after = before.model_copy(update={"columns": {**before.columns, "age": Column(type="int", min=0, max=120)}})
    >>> [(each.level, each.what) for each in compare(before, after)]
    [('breaking', 'age: the largest allowed value is 120, was 150')]
    >>> compare(before, before)
    []
    """
    renamed = renames(old, new)
    found = [
        *_roles(old, new, renamed),
        *_columns(old, new, renamed),
        *_limits(old, new),
        *([_hooks(old)] if hooks_changed else []),
        *_order(old, new),
    ]
    return sorted(found, key=lambda each: -LEVELS.index(each.level))


def renames(old: Contract, new: Contract) -> dict[str, str]:
    """Columns that went and came under a similar name with the same rules: new names by old ones.

    >>> columns = {"id": Column(type="int"), "at": Column(type="datetime"), "y": Column(type="bool")}
    >>> old = Contract(columns={**columns, "custAge": Column(type="int")}, key=("id",), time="at", target="y")
    >>> new = Contract(columns={**columns, "cust_age": Column(type="int")}, key=("id",), time="at", target="y")
    >>> renames(old, new)
    {'custAge': 'cust_age'}
    """
    gone = [name for name in old.columns if name not in new.columns]
    come = [name for name in new.columns if name not in old.columns]
    pairs = sorted(
        (
            (_alike(before, after), before, after)
            for before in gone
            for after in come
            if _rules(old.columns[before]) == _rules(new.columns[after])
        ),
        reverse=True,
    )
    found: dict[str, str] = {}
    for likeness, before, after in pairs:
        if likeness >= ALIKE and before not in found and after not in found.values():
            found[before] = after
    return found


def report(differences: Iterable[Difference], models: Iterable[Model] = ()) -> dict[str, Any]:
    """The verdict, the differences, the features that are touched, and the models that learned from one of them.

    Benign differences touch nothing. `verdict` is the worst level, or "same".
    """
    listed = list(differences)
    touching = [each for each in listed if each.level != "benign"]
    features = list(dict.fromkeys(name for each in touching for name in each.features))
    touched = []
    for model in models:
        hit = [each for each in touching if set(each.features) & set(model.features)]
        if hit:
            names = [name for name in features if name in model.features]
            touched.append({**model.model_dump(), "features": names, "level": _worst(hit)})
    return {
        "verdict": _worst(listed),
        "differences": [each.model_dump() for each in listed],
        "features": features,
        "models": touched,
    }


# -- the rules --------------------------------------------------------------------------------------------------------
def _roles(old: Contract, new: Contract, renamed: dict[str, str]) -> Iterator[Difference]:
    before = tuple(renamed.get(name, name) for name in old.key)
    if set(before) != set(new.key):
        yield _of(
            "key",
            None,
            "breaking",
            f"key is {', '.join(new.key)}, was {', '.join(old.key)}: every row gets another name",
        )
    elif before != new.key:
        yield _of("key", None, "benign", f"the key's columns stand in another order: {', '.join(new.key)}")
    if renamed.get(old.time, old.time) != new.time:
        yield _of("time", new.time, "breaking", f"time is {new.time}, was {old.time}: rows happened at other moments")
    if (renamed.get(old.target, old.target) if old.target else None) != new.target:
        what = f"target is {new.target or 'none'}, was {old.target or 'none'}: every model answers another question"
        yield _of("target", new.target, "breaking", what, *old.features)
    for name in sorted(set(old.features) & new.roles.keys()):
        yield _of("role", name, "breaking", f"{name} was a feature and is none any more", name)
    for name in sorted(set(new.features) & old.roles.keys()):
        yield _of("role", name, "risky", f"{name} is a feature now; it was key, time or target")


def _columns(old: Contract, new: Contract, renamed: dict[str, str]) -> Iterator[Difference]:
    features = {*old.features}
    for name, before in old.columns.items():
        touched = (name,) if name in features else ()
        if name in renamed:
            yield _of(
                "renamed", name, "breaking", f"{name} is called {renamed[name]} now, with the same rules", *touched
            )
        elif name not in new.columns:
            yield _of("removed", name, "breaking", f"{name} is gone ({before.type})", *touched)
        else:
            yield from (
                each.model_copy(update={"features": touched}) for each in _column(name, before, new.columns[name])
            )
    for name, after in new.columns.items():
        if name not in old.columns and name not in renamed.values():
            filled = "may be empty" if after.nullable else "must be filled, and landed rows are empty there"
            level: Level = "benign" if after.nullable else "risky"
            yield _of("added", name, level, f"{name} is new ({after.type}, {filled}); files must have the column")


def _column(name: str, old: Column, new: Column) -> Iterator[Difference]:
    known = {"type", "nullable", "min", "max", "categories", "timezone", "ambiguous", "about"}
    if old.type != new.type:
        yield _of(
            "type", name, TYPES.get((old.type, new.type), "breaking"), f"{name}: type is {new.type}, was {old.type}"
        )
    if old.nullable != new.nullable:
        what = "may be empty now" if new.nullable else "must be filled now"
        yield _of("nullable", name, "risky" if new.nullable else "breaking", f"{name}: {what}")
    yield from _range(name, old, new)
    yield from _categories(name, old.categories, new.categories)
    if old.timezone != new.timezone:
        given = old.timezone is None
        what = f"{name}: times without an offset are of {new.timezone or 'no zone, and refused'}, were of {old.timezone or 'none, and refused'}"
        yield _of("timezone", name, "risky" if given else "breaking", what)
    if old.ambiguous != new.ambiguous:
        level: Level = "breaking" if new.ambiguous == "refuse" else "risky"
        yield _of("timezone", name, level, f"{name}: an ambiguous time is {new.ambiguous}, was {old.ambiguous}")
    if old.about != new.about:
        yield _of("about", name, "benign", f"{name}: its description reads {new.about!r}")
    for field in sorted(set(Column.model_fields) - known):
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield _of(field, name, "risky", f"{name}: {field} is {after!r}, was {before!r}")


def _range(name: str, old: Column, new: Column) -> Iterator[Difference]:
    for called, before, after, sign in (
        ("the smallest allowed value", old.min, new.min, 1),
        ("the largest allowed value", old.max, new.max, -1),
    ):
        if before == after:
            continue
        narrower = after is not None and (before is None or (after - before) * sign > 0)
        what = f"{name}: {called} is {_number(after)}, was {_number(before)}"
        yield _of("range", name, "breaking" if narrower else "risky", what)


def _categories(name: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> Iterator[Difference]:
    if old is None and new is not None:
        yield _of("categories", name, "breaking", f"{name}: only {_quoted(new)} are allowed, was any text")
    elif new is None and old is not None:
        yield _of("categories", name, "risky", f"{name}: any text is allowed, was {_quoted(old)}")
    elif old is not None and new is not None:
        gone = [text for text in old if text not in new]
        come = [text for text in new if text not in old]
        if gone:
            yield _of("categories", name, "breaking", f"{name}: no longer allowed: {_quoted(gone)}")
        if come:
            yield _of("categories", name, "risky", f"{name}: allowed now: {_quoted(come)}")


def _limits(old: Contract, new: Contract) -> Iterator[Difference]:
    for field in LIMITS:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield _of(field, None, "risky" if after > before else "benign", f"{field} is {after:g}, was {before:g}")
    for field in sorted(set(Contract.model_fields) - {*LIMITS, "columns", "key", "time", "target"}):
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield _of(field, None, "risky", f"{field} is {_said(after)}, was {_said(before)}")


def _hooks(old: Contract) -> Difference:
    return _of(
        "hooks",
        None,
        "risky",
        "hooks.py changed: what it derives or computes may mean something else; versions keep the computing that they were trained with",
        *old.features,
    )


def _order(old: Contract, new: Contract) -> Iterator[Difference]:
    shared = [name for name in old.columns if name in new.columns]
    if shared != [name for name in new.columns if name in old.columns]:
        yield _of("order", None, "benign", "the columns stand in another order")


def _of(kind: str, column: str | None, level: Level, what: str, *features: str) -> Difference:
    return Difference(kind=kind, column=column, level=level, what=what, features=features)


def _worst(differences: Iterable[Difference]) -> str:
    return max((each.level for each in differences), key=LEVELS.index, default="same")


def _rules(column: Column) -> dict[str, Any]:
    return column.model_dump(exclude={"about"})


def _alike(one: str, other: str) -> float:
    """Similarity from 0 to 1 of two names, whatever their case and signs."""
    plain = [re.sub(r"[^0-9a-z]", "", name.lower()) for name in (one, other)]
    return difflib.SequenceMatcher(None, plain[0], plain[1]).ratio() if all(plain) else 0.0


def _number(bound: float | None) -> str:
    return "not set" if bound is None else f"{bound:g}"


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _quoted(texts: Iterable[str]) -> str:
    listed = list(texts)
    return ", ".join(repr(text) for text in listed[:10]) + (", …" if len(listed) > 10 else "")
