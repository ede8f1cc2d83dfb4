"""What is taken over of `signals`, and how far a list can say that it has come."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiokafka import TopicPartition

from models.items import signals
from models.items.signals import SignalRecord, SignalRules
from stream.feeds.signals import SLICE, SignalFeed
from stream.source.log_reader import Record
from stream.source.stream_clock import StreamClock
from stream.telemetry import Telemetry
from tests.unit.stream.audit.made_logs import record

RULES = SignalRules((3600.0,), 3600.0)


@pytest.fixture
def feed() -> Iterator[SignalFeed]:
    with ThreadPoolExecutor(1) as thread:
        yield SignalFeed("signals", 2, {}, RULES, 1.0, StreamClock(), Telemetry(), thread)


def signal_record(offset: int, item_id: str, count: float, partition: int = 0) -> Record:
    value = signals.encode_record(SignalRecord(item_id, 0.0, [count, count], [], RULES.all_half_lives_s))
    return record("signals", partition, offset, item_id.encode(), value, 0.0)


def count_of(feed: SignalFeed, item_id: str) -> float:
    return float(2.718281828459045 ** feed._table._levels[0, feed._table.row(item_id)])


async def test_a_table_says_up_to_where_it_has_every_record(feed: SignalFeed) -> None:
    assert feed._table.offsets == (0, 0)
    many = [signal_record(n, f"i{n}", 1.0) for n in range(SLICE + 10)]
    await feed._update(
        {TopicPartition("signals", 0): many, TopicPartition("signals", 1): [signal_record(4, "j", 2.0, 1)]}
    )
    assert feed._table.offsets == (SLICE + 10, 5)
    await feed._update({TopicPartition("signals", 0): [record("signals", 0, SLICE + 10, b"x", b"junk", 0.0)]})
    assert feed._table.offsets == (SLICE + 11, 5)


async def test_what_is_read_again_does_not_go_back(feed: SignalFeed) -> None:
    tp = TopicPartition("signals", 0)
    await feed._update({tp: [signal_record(0, "i", 1.0), signal_record(1, "i", 2.0)]})
    await feed._update({tp: [signal_record(0, "i", 1.0)]})
    assert feed._table.offsets == (2, 0)
    assert count_of(feed, "i") == pytest.approx(2.0)
    await feed._update({tp: [signal_record(1, "i", 2.0), signal_record(2, "i", 3.0)]})
    assert count_of(feed, "i") == pytest.approx(3.0)
