"""Told: how a value that came true may be written. Without pandas, so that a serving process may ask."""

import json
from typing import Any


def words(value: Any) -> tuple[str, ...]:
    """A told value as text: as JSON writes it, of whole numbers with and without a point.

    >>> words("late"), words(True), words(1), words(1.0), words(2.5)
    (('late',), ('true',), ('1', '1.0'), ('1', '1.0'), ('2.5',))
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return (f"{value}", f"{value}.0") if whole else (json.dumps(value),)
