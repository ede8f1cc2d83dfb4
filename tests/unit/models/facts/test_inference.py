"""Schemas inferred from data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from models.facts.inference import Inference
from models.facts.schema import Field, Schema, Value, parse_schema


def inferred(rows: Sequence[Mapping[str, Value | None]], *, is_text: bool = True) -> Schema:
    inference = Inference("items")
    for row in rows:
        inference.see(row, is_text=is_text)
    return inference.schema()


def field_of(*values: Value | None, is_text: bool = True) -> Field:
    field = inferred([{"F": value} for value in values], is_text=is_text).field("F")
    assert field is not None
    return field


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-20", "0"], "int"),
        (["1", str(2**40)], "long"),
        (["1", "2.5", "1e3"], "float"),
        (["true", "False"], "boolean"),
        (["true", "1"], "string"),
        (["00501", "10001"], "string"),
        (["1", "two"], "string"),
        (["", ""], "string"),
    ],
)
def test_the_narrowest_type_that_all_values_have(values: list[str], kind: str) -> None:
    assert field_of(*values).type == kind


def test_what_is_missing_somewhere_may_be_null() -> None:
    assert not field_of("1", "2").nullable
    assert field_of("1", "").nullable
    assert inferred([{"A": "1"}, {"B": "2"}]).field("A") == Field("A", "int", nullable=True)


def test_names_that_come_again_are_categories_and_text_is_not() -> None:
    assert field_of(*(f"g{n % 7}|g{n % 5}" for n in range(1000))).categorical
    assert field_of("Drama", "War").categorical, "of few values nothing else is known"
    text = field_of(*(f"A story of the number {n}" for n in range(1000)))
    assert (text.categorical, text.textual) == (False, True)


def test_values_of_json_are_of_their_own_types() -> None:
    assert field_of("1", "2", is_text=False).type == "string"
    assert field_of(1, 2.5, is_text=False).type == "float"
    assert field_of(True, False, is_text=False).type == "boolean"
    listed = field_of(*([f"unique {n}"] for n in range(1000)), is_text=False)
    assert (listed.type, listed.categorical) == ("string", True)


def test_the_reserved_names_have_their_types_and_the_whole_is_a_schema() -> None:
    schema = inferred([{"TITLE": "1917", "CREATION_TIMESTAMP": "1.5", "AVAILABLE": "true", "GENRES": "War"}])
    assert schema.fields == (
        Field("ITEM_ID", "string"),
        Field("TITLE", "string"),
        Field("CREATION_TIMESTAMP", "long"),
        Field("AVAILABLE", "boolean"),
        Field("GENRES", "string", categorical=True),
    )
    assert parse_schema(schema.written().encode(), "items") == schema
