"""What records of `items` say, and which of them become dead letters."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from models.decoding import BadRecord
from models.facts.records import Item
from models.facts.schema import Field, Schema
from models.items.facts import FactTable
from stream.feeds.item_topic import ItemTopic, changes_of, item_of
from stream.feeds.items import ItemFeed
from stream.source.log_reader import Record
from stream.telemetry import Telemetry
from tests.unit.stream.audit.made_logs import record

SCHEMA = Schema("items", (Field("ITEM_ID", "string"), Field("YEAR", "int", nullable=True)))


def made(value: bytes | None, key: bytes | None = b"i", offset: int = 0, partition: int = 0) -> Record:
    return record("items", partition, offset, key, value, 0.0)


def test_a_record_says_what_is_known_of_its_key_and_a_null_withdraws_it() -> None:
    assert item_of(made(b'{"item_id":"i","title":"T"}'), SCHEMA) == Item("i", title="T")
    assert item_of(made(None), SCHEMA) is None


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (b"?", b"i", "not_json"),
        (b'{"item_id":"i"}', b"j", "bad_id"),
        (b'{"item_id":"i"}', None, "bad_id"),
        (b'{"item_id":"i"}', b"\xff", "bad_id"),
        (None, b"x" * 257, "bad_id"),
        (b'{"item_id":"i","attributes":{"YEAR":"1999"}}', b"i", "wrong_type"),
    ],
)
def test_a_bad_record_is_refused_with_its_reason(value: bytes | None, key: bytes | None, reason: str) -> None:
    with pytest.raises(BadRecord) as error:
        item_of(made(value, key), SCHEMA)
    assert error.value.reason == reason


def test_the_last_record_of_an_item_counts_and_a_bad_one_says_nothing() -> None:
    good, bad = b'{"item_id":"i","available":false}', b"?"
    assert changes_of([made(good), made(bad)], None) == {"i": Item("i")}
    assert changes_of([made(bad), made(good)], None) == {"i": Item("i", available=False)}
    assert changes_of([made(good), made(None)], None) == {"i": None}
    assert changes_of([made(good, b"\xff")], None) == {}


def test_a_feed_s_table_says_up_to_where_it_has_every_record() -> None:
    feed = ItemFeed(ItemTopic("items", 2, {}, None), Telemetry())
    first = feed._with(FactTable(offsets=(0, 7)), {TopicPartition("items", 0): [made(None, offset=4)]})
    assert (first.offsets, first.unavailable) == ((5, 7), {"i"})
    second = feed._with(
        first,
        {
            TopicPartition("items", 0): [made(b'{"item_id":"i"}', offset=5)],
            TopicPartition("items", 1): [made(None, b"j", 9, 1), made(b"?", b"j", 10, 1)],
        },
    )
    assert (second.offsets, second.unavailable) == ((6, 11), frozenset())
    assert first.unavailable == {"i"}
