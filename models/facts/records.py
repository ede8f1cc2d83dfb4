"""What the topics `items` and `users` hold: what is known of an item and of a user."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from models.decoding import BadRecord, check_id, check_time, decoded
from models.facts.schema import MAX_FIELDS, Kind, Schema, Value

MAX_FACTS_BYTES = 64 * 1024  # as an event's; a description of 20,000 characters fits
MAX_TITLE_CHARS = 1000
MAX_NAME_CHARS = 128

Attributes = dict[str, Value | None]


class Item(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is known of an item; a null in its place withdraws the item."""

    item_id: str
    available: bool = True
    """Whether lists may name it."""
    created_at: float | None = None
    title: str | None = None
    attributes: Attributes = {}


class User(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is known of a user; a null in its place erases the user."""

    user_id: str
    attributes: Attributes = {}


_item_decoder = msgspec.json.Decoder(Item)
_user_decoder = msgspec.json.Decoder(User)


def decode_item(value: bytes, schema: Schema | None = None) -> Item:
    """Read an item's facts; raises BadRecord with a reason that says what is wrong, with a schema also of its types."""
    item = decoded(_item_decoder, value, "an item", MAX_FACTS_BYTES)
    check_id("item_id", item.item_id)
    if item.created_at is not None:
        check_time("created_at", item.created_at)
    if item.title is not None and len(item.title) > MAX_TITLE_CHARS:
        raise BadRecord("bad_value", f"title has {len(item.title)} characters; at most {MAX_TITLE_CHARS} are allowed")
    _check_attributes(item.attributes, "items", schema)
    return item


def decode_user(value: bytes, schema: Schema | None = None) -> User:
    """Read a user's facts, as `decode_item` does."""
    user = decoded(_user_decoder, value, "a user", MAX_FACTS_BYTES)
    check_id("user_id", user.user_id)
    _check_attributes(user.attributes, "users", schema)
    return user


def _check_attributes(attributes: Mapping[str, Value | None], kind: Kind, schema: Schema | None) -> None:
    """Raise BadRecord for attributes that are not as the schema says; those that it does not name are ignored."""
    if len(attributes) > MAX_FIELDS[kind]:
        raise BadRecord("bad_value", f"{len(attributes)} attributes; at most {MAX_FIELDS[kind]} are allowed")
    for name in attributes:
        if not 0 < len(name) <= MAX_NAME_CHARS:
            raise BadRecord("bad_value", f"an attribute's name has {len(name)} characters, not 1 to {MAX_NAME_CHARS}")
    for field in schema.attributes if schema is not None else ():
        value = attributes.get(field.name)
        if value is None:
            if not field.nullable:
                raise BadRecord("missing_field", f"attribute {field.name}: send it, or allow null in the schema")
        elif why := field.why_not(value):
            raise BadRecord("wrong_type", f"attribute {field.name}: {why}; send the schema's {field.type}")
