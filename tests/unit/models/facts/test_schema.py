"""Schemas of facts: read, written, refused by field, and what values they let through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.facts.schema import MAX_FIELDS, TYPES, BadSchema, Field, Kind, Schema, Value, categories, parse_schema

ITEM_ID = {"name": "ITEM_ID", "type": "string"}


def schema_text(*fields: Any, kind: str = "Items") -> bytes:
    return json.dumps({"type": "record", "name": kind, "fields": [ITEM_ID, *fields], "version": "1.0"}).encode()


def test_a_schema_of_amazon_personalize_is_read() -> None:
    schema = parse_schema(
        schema_text(
            {"name": "GENRES", "type": ["null", "string"], "categorical": True},
            {"name": "CREATION_TIMESTAMP", "type": "long"},
            {"name": "DESCRIPTION", "type": ["string", "null"], "textual": True},
            {"name": "PRICE", "type": "float"},
        ),
        "items",
    )
    assert schema.field("GENRES") == Field("GENRES", "string", nullable=True, categorical=True)
    assert schema.field("PRICE") == Field("PRICE", "float")
    assert [field.name for field in schema.attributes] == ["GENRES", "DESCRIPTION", "PRICE"]


field_names = st.from_regex(r"F[A-Z0-9_]{0,8}", fullmatch=True)


@given(st.lists(st.tuples(field_names, st.sampled_from(TYPES), st.booleans(), st.booleans()), unique_by=lambda f: f[0]))
def test_what_is_written_is_read_again(fields: list[tuple[str, str, bool, bool]]) -> None:
    made = [
        Field(name, kind, nullable, categorical and kind == "string") for name, kind, nullable, categorical in fields
    ]
    schema = Schema("items", (Field("ITEM_ID", "string"), *made[: MAX_FIELDS["items"]]))
    assert parse_schema(schema.written().encode(), "items") == schema


WRONG: dict[str, tuple[bytes, Kind, str, str]] = {  # text, kind, field, what is said
    "no JSON": (b"{", "items", "", "not JSON"),
    "not UTF-8": (b"\xff", "items", "", "not JSON"),
    "no record": (b'{"type":"enum","fields":[]}', "items", "", '"type": "record"'),
    "no list": (b'{"type":"record","fields":{}}', "items", "", "Avro record"),
    "no id": (b'{"type":"record","fields":[]}', "items", "ITEM_ID", 'add {"name": "ITEM_ID", "type": "string"}'),
    "no name": (schema_text({"type": "string"}), "items", "", 'give it a "name"'),
    "bad name": (schema_text({"name": "MY GENRES", "type": "string"}), "items", "MY GENRES", "letters, digits and _"),
    "no type": (schema_text({"name": "A"}), "items", "A", "use one of"),
    "unknown type": (schema_text({"name": "A", "type": "text"}), "items", "A", "use one of string, int, long"),
    "two types": (schema_text({"name": "A", "type": ["int", "string"]}), "items", "A", "name one type"),
    "null alone": (schema_text({"name": "A", "type": "null"}), "items", "A", "name one type"),
    "nested": (schema_text({"name": "A", "type": {"type": "array"}}), "items", "A", "use one of"),
    "categorical int": (schema_text({"name": "A", "type": "int", "categorical": True}), "items", "A", 'type "string"'),
    "categorical?": (schema_text({"name": "A", "type": "string", "categorical": "yes"}), "items", "A", "true or false"),
    "both": (
        schema_text({"name": "A", "type": "string", "categorical": True, "textual": True}),
        "items",
        "A",
        "leave one of them out",
    ),
    "twice": (schema_text({"name": "A", "type": "int"}, {"name": "A", "type": "int"}), "items", "A", "remove one"),
    "reserved": (schema_text({"name": "CREATION_TIMESTAMP", "type": "string"}), "items", "CREATION_TIMESTAMP", "long"),
    "of events": (schema_text({"name": "EVENT_TYPE", "type": "string"}), "items", "EVENT_TYPE", "another name"),
    "of the other": (schema_text(), "users", "ITEM_ID", "not for users; give the field another name"),
    "null id": (
        b'{"type":"record","fields":[{"name":"USER_ID","type":["null","string"]}]}',
        "users",
        "USER_ID",
        "an id is never null",
    ),
    "too many": (schema_text(*({"name": f"F{n}", "type": "int"} for n in range(101))), "items", "", "100 are allowed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_names_the_field_and_the_remedy(case: str) -> None:
    text, kind, field, said = WRONG[case]
    with pytest.raises(BadSchema) as error:
        parse_schema(text, kind)
    assert error.value.field == field
    assert said in str(error.value)
    assert error.value.remedy


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "a|b", "a|b"),
        ("int", "-5", -5),
        ("long", str(2**40), 2**40),
        ("float", "2.5", 2.5),
        ("double", "7", 7.0),
        ("boolean", "TRUE", True),
        ("boolean", "false", False),
    ],
)
def test_a_cell_becomes_a_value_of_the_field_s_type(kind: str, text: str, value: Value) -> None:
    assert Field("F", kind).parsed(text) == value
    assert Field("F", kind).why_not(value) == ""


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("int", "1.5", "'1.5' is not of type int"),
        ("int", str(2**31), "too large for int"),
        ("long", str(2**63), "too large for long"),
        ("float", "much", "'much' is not of type float"),
        ("float", "nan", "not finite"),
        ("float", "1e39", "too large"),
        ("double", "inf", "not finite"),
        ("boolean", "yes", "neither true nor false"),
        ("string", "x" * 20_001, "20001 characters"),
    ],
)
def test_a_cell_of_another_type_is_refused(kind: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Field("F", kind).parsed(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (Field("F", "string"), 5),
        (Field("F", "string"), ["a"]),
        (Field("F", "string", categorical=True), "x" * 1001),
        (Field("F", "int"), True),
        (Field("F", "int"), 2.0),
        (Field("F", "float"), "2"),
        (Field("F", "boolean"), 1),
    ],
)
def test_a_value_of_another_type_is_refused(field: Field, value: Value) -> None:
    assert field.why_not(value)


def test_a_categorical_string_holds_several_values() -> None:
    assert categories("Drama| War||") == categories(["Drama", "War"]) == ["Drama", "War"]
    assert Field("F", "string", categorical=True).why_not(["Drama", "War"]) == ""
