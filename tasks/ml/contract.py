"""The contract: what a row of a project may be, and which rows break it."""

from typing import Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, Field, model_validator

from tasks.config.errors import suggestion

Type = Literal["int", "float", "text", "category", "bool", "datetime"]

NUMERIC: frozenset[str] = frozenset({"int", "float", "bool"})
EXACT = 2**53  # from here on float64 skips whole numbers
TRUE, FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")


class Column(BaseModel, frozen=True, extra="forbid"):
    """One column: its type, and the values that it may hold."""

    type: Type
    nullable: bool = Field(default=False, description="may be empty")
    min: float | None = Field(default=None, description="smallest allowed value")
    max: float | None = Field(default=None, description="largest allowed value")
    categories: tuple[str, ...] | None = Field(default=None, description="the only allowed texts; any text when absent")
    about: str = Field(default="", description="what it means, with its unit")

    @model_validator(mode="after")
    def _bounds_fit_the_type(self) -> Self:
        if self.type not in NUMERIC and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max are for numbers; this column is of type {self.type}")
        if self.categories is not None and self.type not in {"category", "text"}:
            raise ValueError(f"categories are for texts; this column is of type {self.type}")
        return self

    def parse(self, values: pd.Series) -> pd.Series:
        """The values in this column's type; what cannot be read becomes missing.

        Types: int and float → float64 or Int64, bool → boolean, text and category → string, datetime → UTC timestamps.
        """
        if self.type == "datetime":
            return pd.to_datetime(values, utc=True, errors="coerce", format="ISO8601").astype("datetime64[us, UTC]")
        if self.type == "bool":
            words = values.astype("string").str.lower()
            return words.map({**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}).astype("boolean")
        if self.type in NUMERIC:
            numbers = pd.to_numeric(values, errors="coerce").astype("Float64").astype("float64")
            finite = numbers.where(numbers.abs() != float("inf"))
            return finite if self.type == "float" else _whole(values, finite)
        return values.astype("string")

    def broken_rules(self, raw: pd.Series, parsed: pd.Series) -> dict[str, pd.Series]:
        """For each rule of this column, which rows break it (boolean, same index)."""
        missing = parsed.isna()
        rules = {f"is no {self.type}": missing & raw.notna()}
        if not self.nullable:
            rules["is empty"] = missing & raw.isna()
        if self.min is not None:
            rules[f"is below {self.min:g}"] = (parsed < self.min).fillna(value=False).astype(bool)
        if self.max is not None:
            rules[f"is above {self.max:g}"] = (parsed > self.max).fillna(value=False).astype(bool)
        if self.categories is not None:
            rules["is none of the categories"] = ~missing & ~parsed.isin(self.categories)
        return rules


class Checked(BaseModel, frozen=True, arbitrary_types_allowed=True):
    """A batch after the contract: the rows that may land, and those that may not with the reason.

    Attributes:
        rows: typed contract columns, in the contract's order.
        quarantined: the raw rows as text, with `_rule`, `_column`, `_value`.
        extra: columns that the contract does not know; recorded, not used.
        counts: quarantined rows by rule.
    """

    rows: pd.DataFrame
    quarantined: pd.DataFrame
    extra: tuple[str, ...]
    counts: dict[str, int]


class Contract(BaseModel, frozen=True, extra="forbid"):
    """What a row of the project may be."""

    columns: dict[str, Column] = Field(min_length=2, description="every column of a row, by name")
    key: tuple[str, ...] = Field(min_length=1, description="the columns that name a row")
    time: str = Field(description="the column that says when a row happened")
    target: str = Field(description="the column to predict")
    hold_above: float = Field(
        default=0.2, gt=0, le=1, description="share of quarantined rows above which nothing lands"
    )

    @model_validator(mode="after")
    def _roles_name_columns(self) -> Self:
        for role, name in [*(("key", name) for name in self.key), ("time", self.time), ("target", self.target)]:
            if name not in self.columns:
                raise ValueError(f"{role} is '{name}', which is not among the columns.{suggestion(name, self.columns)}")
        for role, name in [*(("key", name) for name in self.key), ("time", self.time), ("target", self.target)]:
            if self.columns[name].nullable:
                raise ValueError(
                    f"{role} is '{name}', which is nullable. A row without it can be neither named, ordered nor "
                    "learned from: take `nullable` away"
                )
        if self.columns[self.time].type != "datetime":
            times = [name for name, column in self.columns.items() if column.type == "datetime"]
            raise ValueError(
                f"time is '{self.time}', which is of type {self.columns[self.time].type}. "
                f"Columns of type datetime: {times}"
            )
        return self

    @property
    def features(self) -> tuple[str, ...]:
        """Every column that is neither key, time nor target."""
        return tuple(name for name in self.columns if name not in {*self.key, self.time, self.target})

    def missing(self, rows: pd.DataFrame) -> list[str]:
        """The contract's columns that the batch does not have."""
        return [name for name in self.columns if name not in rows.columns]

    def check(self, rows: pd.DataFrame) -> Checked:
        """Parts a batch (all contract columns present) into rows that may land and rows that may not, losing none.

        >>> contract = Contract(
        ...     columns={
        ...         "id": Column(type="int"), "at": Column(type="datetime"),
        ...         "age": Column(type="int", max=120), "y": Column(type="bool")},
        ...     key=("id",), time="at", target="y")
        >>> batch = pd.DataFrame({"id": ["1", "2"], "at": ["2020-01-01"] * 2, "age": ["30", "455"], "y": ["t", "f"]})
        >>> checked = contract.check(batch)
        >>> len(checked.rows), checked.counts
        (1, {'age is above 120': 1})
        """
        raw = rows.reset_index(drop=True)
        parsed = pd.DataFrame({name: column.parse(raw[name]) for name, column in self.columns.items()})
        rule = pd.Series(pd.NA, index=raw.index, dtype="string")
        culprit, value = rule.copy(), rule.copy()
        broken = [
            (name, text, where)
            for name, column in self.columns.items()
            for text, where in column.broken_rules(raw[name], parsed[name]).items()
        ]
        broken.append((self.key[0], "names a row twice in one batch", _conflicting(parsed, list(self.key))))
        for name, text, where in broken:
            first = where & rule.isna()  # a row is reported under the first rule that it breaks
            rule[first], culprit[first] = f"{name} {text}", name
            value[first] = raw.loc[first, name].astype("string")
        bad = rule.notna()
        quarantined = raw[bad].astype("string").assign(_rule=rule[bad], _column=culprit[bad], _value=value[bad])
        counts = {str(text): int(n) for text, n in rule[bad].value_counts(sort=False).items()}
        extra = tuple(str(name) for name in raw.columns if name not in self.columns)
        return Checked(
            rows=parsed[~bad].reset_index(drop=True),
            quarantined=quarantined.reset_index(drop=True),
            extra=extra,
            counts=counts,
        )

    def describe(self) -> list[dict[str, Any]]:
        """One row a column: name, type, role and rules, for tables."""
        roles = {**dict.fromkeys(self.key, "key"), self.time: "time", self.target: "target"}
        return [
            {"column": name, "role": roles.get(name, "feature"), **column.model_dump(exclude_none=True)}
            for name, column in self.columns.items()
        ]


def _whole(values: pd.Series, numbers: pd.Series) -> pd.Series:
    """Int64 from values and their float64 reading; what float64 cannot hold is read digit by digit, or missing."""
    whole = numbers.where((numbers % 1 == 0) & (numbers.abs() < EXACT)).astype("Int64")
    large = numbers.abs() >= EXACT
    if large.any():
        texts = values[large].astype("string").str.strip()
        whole[large] = texts.where(texts.str.fullmatch(r"[+-]?\d{1,18}")).astype(
            "Int64"
        )  # 18 digits always fit in 64 bits
    return whole


def _conflicting(rows: pd.DataFrame, key: list[str]) -> pd.Series:
    """Rows with other content than the first row of their key; exact repeats of that first row are no conflict."""
    shared = rows[rows.duplicated(key, keep=False) & rows[key].notna().all(axis=1)]
    content = shared.groupby(list(rows.columns), dropna=False, sort=False).ngroup()
    first = content.groupby([shared[name] for name in key]).transform("first")
    return (content != first).reindex(rows.index, fill_value=False)
