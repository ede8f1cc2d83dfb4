"""Schemas of facts in Amazon Personalize's form: an Avro record whose fields have a name and a type.

    {"type": "record", "name": "Items", "fields": [
        {"name": "ITEM_ID", "type": "string"},
        {"name": "GENRES", "type": ["null", "string"], "categorical": true},
        {"name": "CREATION_TIMESTAMP", "type": "long"}]}

A categorical string may hold several values, separated by `|`: "Drama|War".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec

Kind = Literal["items", "users"]
Value = str | int | float | bool | list[str]
"""Of an attribute. A list of strings is a multi-valued field's other form."""

MAX_CATEGORY_CHARS = 1000  # this and the next two are Amazon Personalize's own limits
MAX_TEXT_CHARS = 20_000
MAX_FIELDS: dict[Kind, int] = {"items": 100, "users": 25}
MAX_FLOAT = 3.4e38  # float32 holds no more

ID_OF: dict[Kind, str] = {"items": "ITEM_ID", "users": "USER_ID"}
RESERVED: dict[Kind, dict[str, str]] = {
    # TITLE and AVAILABLE are ours: a record has fields of its own for them
    "items": {"ITEM_ID": "string", "CREATION_TIMESTAMP": "long", "TITLE": "string", "AVAILABLE": "boolean"},
    "users": {"USER_ID": "string"},
}
_OF_EVENTS = ("USER_ID", "ITEM_ID", "TIMESTAMP", "EVENT_TYPE", "EVENT_VALUE", "IMPRESSION", "RECOMMENDATION_ID")
_RANGES = {"int": 2**31, "long": 2**63}
TYPES = ("string", "int", "long", "float", "double", "boolean")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BadSchema(ValueError):
    """A schema that can't be used: the field ("" for the schema as a whole), why, and what to do about it."""

    def __init__(self, field: str, why: str, remedy: str) -> None:
        """Name the field and the remedy."""
        super().__init__(f"field {field}: {why}; {remedy}" if field else f"{why}; {remedy}")
        self.field = field
        self.why = why
        self.remedy = remedy


@dataclass(frozen=True)
class Field:
    """One field of a schema."""

    name: str
    type: str
    """One of TYPES."""
    nullable: bool = False
    categorical: bool = False
    textual: bool = False

    def parsed(self, text: str) -> Value:
        """Read a value as a CSV file writes it; raises ValueError that says why it is not of the field's type."""
        value: Value = text
        if self.type == "boolean":
            if text.strip().lower() not in ("true", "false"):
                raise ValueError(f"{_shown(text)} is neither true nor false")
            value = text.strip().lower() == "true"
        elif self.type != "string":
            try:
                value = int(text) if self.type in _RANGES else float(text)
            except ValueError:
                raise ValueError(f"{_shown(text)} is not of type {self.type}") from None
        if why := self.why_not(value):
            raise ValueError(why)
        return value

    def why_not(self, value: Value) -> str:
        """Return why a value is not of the field's type, "" if it is."""
        if self.type == "string":
            return self._why_no_string(value)
        if self.type == "boolean":
            return "" if isinstance(value, bool) else f"{_shown(value)} is neither true nor false"
        if isinstance(value, bool) or not isinstance(value, int if self.type in _RANGES else (int, float)):
            return f"{_shown(value)} is not of type {self.type}"
        if self.type in _RANGES and not -_RANGES[self.type] <= value < _RANGES[self.type]:
            return f"{_shown(value)} is too large for {self.type}"
        # written so that NaN is refused, too
        if (self.type == "float" and not abs(value) <= MAX_FLOAT) or not abs(value) < float("inf"):
            return f"{_shown(value)} is not of type {self.type}: it is not finite, or too large"
        return ""

    def _why_no_string(self, value: Value) -> str:
        if isinstance(value, list) and not self.categorical:
            return "a list of strings, and the field is not categorical"
        if not isinstance(value, str | list):
            return f"{_shown(value)} is not a string"
        length = len(value) if isinstance(value, str) else len("|".join(value))
        most = MAX_CATEGORY_CHARS if self.categorical else MAX_TEXT_CHARS
        return f"{length} characters; at most {most} are allowed" if length > most else ""


@dataclass(frozen=True)
class Schema:
    """The fields of items or of users, the id among them."""

    kind: Kind
    fields: tuple[Field, ...]

    @property
    def attributes(self) -> tuple[Field, ...]:
        """Return the fields that a record has among its attributes."""
        return tuple(field for field in self.fields if field.name not in RESERVED[self.kind])

    def field(self, name: str) -> Field | None:
        """Return a field by its name; None if there is none."""
        return next((field for field in self.fields if field.name == name), None)

    def written(self) -> str:
        """Write the schema in Amazon Personalize's form."""
        fields = []
        for field in self.fields:
            written: dict[str, Any] = {"name": field.name, "type": field.type}
            if field.nullable:
                written["type"] = ["null", field.type]
            written |= {name: True for name in ("categorical", "textual") if getattr(field, name)}
            fields.append(written)
        record = {
            "type": "record",
            "name": self.kind.capitalize(),
            "namespace": "com.amazonaws.personalize.schema",
            "fields": fields,
            "version": "1.0",
        }
        return msgspec.json.format(msgspec.json.encode(record), indent=2).decode()


def categories(value: str | list[str]) -> list[str]:
    """Split a categorical value into its values: "Drama|War" -> ["Drama", "War"]."""
    parts = value.split("|") if isinstance(value, str) else value
    return [part.strip() for part in parts if part.strip()]


def parse_schema(text: bytes, kind: Kind) -> Schema:
    """Read a schema; raises BadSchema, which names the field and the remedy."""
    try:
        record = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSchema("", f"the schema is not JSON: {error}", "write it as Amazon Personalize's are") from None
    listed = record.get("fields") if isinstance(record, dict) else None
    if not isinstance(listed, list) or record.get("type") != "record":
        raise BadSchema("", "the schema is not an Avro record", 'it needs "type": "record" and a list of "fields"')
    fields = tuple(_field(written, kind) for written in listed)
    names = [field.name for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise BadSchema(name, "it is there twice", "remove one")
    if ID_OF[kind] not in names:
        raise BadSchema(ID_OF[kind], "it is missing", f'add {{"name": "{ID_OF[kind]}", "type": "string"}}')
    schema = Schema(kind, fields)
    if len(schema.attributes) > MAX_FIELDS[kind]:
        raise BadSchema(
            "", f"{len(schema.attributes)} fields beside the reserved ones", f"{MAX_FIELDS[kind]} are allowed"
        )
    return schema


def _field(written: Any, kind: Kind) -> Field:
    if not isinstance(written, dict) or not isinstance(written.get("name"), str):
        raise BadSchema("", f"a field without a name: {_shown(written)}", 'give it a "name"')
    name = written["name"]
    if not _NAME.fullmatch(name):
        raise BadSchema(name, "it is not a name", "use letters, digits and _, and no digit first")
    plain, nullable = _type(name, written.get("type"))
    marks = {mark: written.get(mark, False) for mark in ("categorical", "textual")}
    for mark, value in marks.items():
        if not isinstance(value, bool):
            raise BadSchema(name, f'"{mark}" is {_shown(value)}', "write true or false")
        if value and plain != "string":
            raise BadSchema(name, f"{mark}, and of type {plain}", f'make its type "string", or leave "{mark}" out')
    if all(marks.values()):
        raise BadSchema(name, "categorical and textual at once", "leave one of them out")
    wanted = RESERVED[kind].get(name)
    if wanted is not None and (plain != wanted or any(marks.values())):
        raise BadSchema(name, "the name is reserved", f'make its type "{wanted}", neither categorical nor textual')
    if name == ID_OF[kind] and nullable:
        raise BadSchema(name, "an id is never null", 'make its type "string"')
    if wanted is None and name in _OF_EVENTS:
        raise BadSchema(name, f"the name is reserved, and not for {kind}", "give the field another name")
    return Field(name, plain, nullable, **marks)


def _type(name: str, written: Any) -> tuple[str, bool]:
    """Read a type, or a union of one type and null -> the type, and whether null is allowed."""
    union = written if isinstance(written, list) else [written]
    plain = [one for one in union if one != "null"]
    if len(plain) != 1:
        raise BadSchema(name, f"its type is {_shown(written)}", "name one type, and null beside it if you like")
    if plain[0] not in TYPES:
        raise BadSchema(name, f"its type is {_shown(plain[0])}", f"use one of {', '.join(TYPES)}")
    return cast(str, plain[0]), len(union) > 1


def _shown(value: object) -> str:
    text = f"{value!a}"
    return text if len(text) <= 60 else f"{text[:60]}…"
