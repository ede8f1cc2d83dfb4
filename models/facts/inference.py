"""Inferring a schema from data: the narrowest type that every value of a field has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.facts.schema import ID_OF, MAX_CATEGORY_CHARS, RESERVED, Field, Kind, Schema, Value, categories

SURELY_CATEGORIES = 100
"""Distinct values up to which a string field is categorical; beyond, each must occur twice on the average."""

_INT = re.compile(r"-?(0|[1-9]\d{0,18})")  # a number with leading zeros is an id or a postcode
_FLOAT = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


@dataclass
class _Seen:
    """What one field has held so far."""

    present: int = 0
    types: set[str] = field(default_factory=set)
    values: int = 0
    distinct: set[str] = field(default_factory=set)
    longest: int = 0
    listed: bool = False


class Inference:
    """Takes rows in, one after the other, and returns the schema that they have."""

    def __init__(self, kind: Kind) -> None:
        """Begin without rows."""
        self._kind = kind
        self._rows = 0
        self._seen: dict[str, _Seen] = {}

    def see(self, attributes: Mapping[str, Value | None], *, is_text: bool) -> None:
        """Take a row in; `is_text`: numbers and booleans are written as strings, as in a CSV file. "" is missing."""
        self._rows += 1
        for name, value in attributes.items():
            seen = self._seen.setdefault(name, _Seen())
            if value is None or value == "":
                continue
            seen.present += 1
            seen.types.add(_type_of_text(value) if is_text and isinstance(value, str) else _type_of(value))
            if isinstance(value, str | list):
                each = categories(value)
                seen.values += len(each)
                seen.distinct.update(each)
                seen.longest = max(seen.longest, len("|".join(each)))
                seen.listed |= isinstance(value, list)

    def schema(self) -> Schema:
        """Return the schema of all rows so far."""
        reserved = RESERVED[self._kind]
        fields = [Field(ID_OF[self._kind], "string")]
        for name, seen in self._seen.items():
            nullable = seen.present < self._rows
            if name in reserved:
                fields.append(Field(name, reserved[name], nullable))
                continue
            kind = _common(seen.types)
            categorical = kind == "string" and _is_categorical(seen)
            fields.append(Field(name, kind, nullable, categorical, kind == "string" and not categorical))
        return Schema(self._kind, tuple(fields))


def _type_of(value: Value) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "int" if -(2**31) <= value < 2**31 else "long"
    return "float" if isinstance(value, float) else "string"


def _type_of_text(text: str) -> str:
    text = text.strip()
    if text.lower() in ("true", "false"):
        return "boolean"
    if _INT.fullmatch(text):
        return _type_of(int(text))
    return "float" if _FLOAT.fullmatch(text) else "string"


def _common(types: set[str]) -> str:
    """Return the narrowest type that holds values of all of these."""
    if len(types) == 1:
        return next(iter(types))
    if types and types <= {"int", "long"}:
        return "long"
    return "float" if types and types <= {"int", "long", "float"} else "string"


def _is_categorical(seen: _Seen) -> bool:
    """Return whether values are names rather than text: names repeat."""
    few = len(seen.distinct) <= max(SURELY_CATEGORIES, seen.values // 2)
    return seen.listed or (few and seen.longest <= MAX_CATEGORY_CHARS)
