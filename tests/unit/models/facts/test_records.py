"""Records of facts: decoded, and refused with a reason."""

from __future__ import annotations

import json

import pytest

from models.facts.records import MAX_FACTS_BYTES, Item, User, decode_item, decode_user
from models.facts.schema import Field, Schema
from models.records import BadRecord, encode

SCHEMA = Schema(
    "items",
    (
        Field("ITEM_ID", "string"),
        Field("CREATION_TIMESTAMP", "long"),
        Field("GENRES", "string", categorical=True),
        Field("YEAR", "int", nullable=True),
    ),
)


def test_all_that_an_item_may_say_is_read() -> None:
    value = b"""{"item_id":"i","available":false,"created_at":1.5e9,"title":"T","more":1,
                 "attributes":{"GENRES":"Drama|War","TAGS":["a","b"],"YEAR":1999,"PRICE":2.5,"NEW":true,"X":null}}"""
    item = decode_item(value, SCHEMA)
    assert (item.item_id, item.available, item.created_at, item.title) == ("i", False, 1.5e9, "T")
    assert item.attributes["TAGS"] == ["a", "b"]
    assert decode_item(b'{"item_id":"i"}') == Item("i")
    assert decode_item(encode(item)) == item
    assert decode_user(b'{"user_id":"u","attributes":{"AGE":30}}') == User("u", {"AGE": 30})


WRONG = {
    b"?": "not_json",
    b"{}": "missing_field",
    b'{"item_id":5}': "wrong_type",
    b'{"item_id":""}': "bad_id",
    b'{"item_id":"i","available":"no"}': "wrong_type",
    b'{"item_id":"i","created_at":1700000000000}': "bad_timestamp",
    b'{"item_id":"i","attributes":{"A":{"nested":1}}}': "wrong_type",
    b'{"item_id":"i","attributes":{"":1}}': "bad_value",
    json.dumps({"item_id": "i", "title": "x" * 1001}).encode(): "bad_value",
    json.dumps({"item_id": "i", "attributes": {f"a{n}": n for n in range(101)}}).encode(): "bad_value",
    b'{"item_id":"' + b"x" * MAX_FACTS_BYTES + b'"}': "too_large",
}


@pytest.mark.parametrize("value", WRONG, ids=lambda value: value[:40].decode())
def test_a_bad_item_is_refused_with_a_reason(value: bytes) -> None:
    with pytest.raises(BadRecord) as error:
        decode_item(value)
    assert error.value.reason == WRONG[value]


def test_a_user_has_fewer_attributes() -> None:
    with pytest.raises(BadRecord, match="at most 25"):
        decode_user(json.dumps({"user_id": "u", "attributes": {f"a{n}": n for n in range(26)}}).encode())


@pytest.mark.parametrize(
    ("attributes", "reason", "said"),
    [
        (
            {"GENRES": "Drama", "YEAR": "1999"},
            "wrong_type",
            "attribute YEAR: '1999' is not of type int; send",
        ),
        ({"GENRES": 5}, "wrong_type", "GENRES"),
        ({"YEAR": 1999}, "missing_field", "attribute GENRES: send it, or allow null"),
        ({"GENRES": None}, "missing_field", "GENRES"),
    ],
)
def test_a_schema_is_kept_to(attributes: dict[str, object], reason: str, said: str) -> None:
    value = json.dumps({"item_id": "i", "attributes": attributes}).encode()
    with pytest.raises(BadRecord, match=said) as error:
        decode_item(value, SCHEMA)
    assert error.value.reason == reason
    decode_item(value)


def test_null_where_the_schema_allows_it_and_what_it_does_not_name_are_let_through() -> None:
    decode_item(b'{"item_id":"i","attributes":{"GENRES":"War","YEAR":null,"OTHER":[]}}', SCHEMA)
