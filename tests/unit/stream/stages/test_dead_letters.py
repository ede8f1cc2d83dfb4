from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from models.records import BROKER_MAX_BYTES, BadRecord
from stream.stages.dead_letters import KEPT_BYTES, MAX_LETTER_BYTES, headers_of, kept, send_dead_letters
from stream.stages.headers import MAX_HEADERS_BYTES


def record(**more: Any) -> Any:
    given = {"topic": "interactions", "partition": 3, "offset": 77, "timestamp": 1_700_000_000_123}
    return SimpleNamespace(**(given | {"key": b"k", "value": b"v", "headers": ()} | more))


class Producer:
    """Takes what is sent, and keeps it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    async def send(self, topic: str, **more: Any) -> asyncio.Future[object]:
        self.sent.append((topic, more))
        return asyncio.get_running_loop().create_future()


def size_on_the_wire(sent: dict[str, Any]) -> int:
    """Count a record batch of this record alone, as aiokafka's producer does."""
    return DefaultRecordBatchBuilder.estimate_size_in_bytes(sent["key"], sent["value"], sent["headers"])


def test_headers_say_why_and_where() -> None:
    assert dict(headers_of(record(), kept(record()), BadRecord("late", "a day before ‘now’"))) == {
        "reason": b"late",
        "detail": "a day before ‘now’".encode(),
        "source-topic": b"interactions",
        "source-partition": b"3",
        "source-offset": b"77",
        "source-timestamp": b"1700000000123",
    }


def test_a_records_own_headers_are_kept_and_cannot_pass_for_ours() -> None:
    forged = (("trace", b"7"), ("reason", b"forged"), ("source-offset", b"0"))
    refused = record(headers=forged)
    headers = headers_of(refused, kept(refused), BadRecord("late", "x"))
    assert headers[:3] == list(forged)
    assert dict(headers)["reason"] == b"late", "readers take the last of a name"
    assert dict(headers)["source-offset"] == b"77"
    assert dict(headers)["trace"] == b"7"


def test_a_long_detail_is_cut() -> None:
    detail = dict(headers_of(record(), kept(record()), BadRecord("not_json", "x" * 5000)))["detail"]
    assert len(detail) == 1000


def test_what_is_no_utf_8_is_replaced_in_what_a_producer_sends() -> None:
    refused = record(headers=(("\udcff", None), ("null", None)))
    headers = headers_of(refused, kept(refused), BadRecord("not_json", "quotes \udc80"))
    assert headers[:2] == [("?", None), ("null", None)]
    assert dict(headers)["detail"] == b"quotes ?"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"value": b"v" * 8_388_608}, b"value 8388608 bytes, kept 65536"),
        ({"key": b"k" * 1_000_000}, b"key 1000000 bytes, kept 65536"),
        ({"headers": (("a", b"1"), ("b", b"h" * 1_000_000), ("c", b"3"))}, b"headers 3 of 1000035 bytes, kept 1"),
        ({"headers": (("", None),) * 100_000}, b"headers 100000 of 1000000 bytes, kept 1638"),
        (
            {"key": b"k" * 500_000, "value": b"v" * 500_000},
            b"value 500000 bytes, kept 65536; key 500000 bytes, kept 65536",
        ),
    ],
)
async def test_a_record_that_is_too_large_for_a_broker_is_cut_and_says_so(part: dict[str, Any], said: bytes) -> None:
    producer = Producer()
    await send_dead_letters(producer, "dead", [(record(**part), BadRecord("too_large", ""))])  # type: ignore[arg-type]
    ((_, sent),) = producer.sent
    assert dict(sent["headers"])["truncated"] == said
    assert sent["value"] == part.get("value", b"v")[:KEPT_BYTES]
    assert sent["key"] == part.get("key", b"k")[:KEPT_BYTES]
    assert size_on_the_wire(sent) < 2 * KEPT_BYTES + MAX_HEADERS_BYTES + 8192


async def test_the_largest_record_that_is_not_cut_still_fits() -> None:
    producer = Producer()
    largest = record(topic="t" * 249, value=b"v" * (MAX_LETTER_BYTES - 1))
    await send_dead_letters(producer, "dead", [(largest, BadRecord("x" * 20, "\U0001f600" * 1000))])  # type: ignore[arg-type]
    ((_, sent),) = producer.sent
    assert sent["value"] == largest.value
    assert "truncated" not in dict(sent["headers"])
    assert size_on_the_wire(sent) < BROKER_MAX_BYTES


@given(
    key=st.none() | st.integers(0, 2**21).map(bytes),
    value=st.none() | st.integers(0, 2**21).map(bytes),
    headers=st.lists(
        st.tuples(st.text(max_size=5) | st.just("\udc80"), st.none() | st.integers(0, 2**20).map(bytes)), max_size=5
    ),
    often=st.sampled_from([1, 1, 1000, 50_000]),
    detail=st.text(max_size=1000) | st.just("\udc80" * 2000),
)
async def test_every_dead_letter_fits_a_broker_of_default_limits(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], often: int, detail: str
) -> None:
    producer = Producer()
    refused = record(key=key, value=value, headers=(headers * often)[:100_000])
    await send_dead_letters(producer, "dead", [(refused, BadRecord("too_large", detail))])  # type: ignore[arg-type]
    ((_, sent),) = producer.sent
    assert size_on_the_wire(sent) < BROKER_MAX_BYTES
    assert sent["key"] is not None or sent["value"] is not None
    whole = (sent["key"], sent["value"] or None) == (key, value or None)
    whole = whole and len(sent["headers"]) == len(refused.headers) + 6
    assert whole or "truncated" in dict(sent["headers"])
    for name, said in sent["headers"][-6:]:
        assert said.decode() or name == "detail"


async def test_records_go_as_they_came() -> None:
    producer = Producer()
    rejects = [
        (record(), BadRecord("late", "")),
        (record(value=None), BadRecord("null_value", "")),
        (record(key=None), BadRecord("late", "")),
        (record(key=None, value=None), BadRecord("null_value", "")),
    ]
    futures = await send_dead_letters(producer, "dead", rejects)  # type: ignore[arg-type]
    assert len(futures) == len(rejects)
    assert [(topic, more["key"], more["value"]) for topic, more in producer.sent] == [
        ("dead", b"k", b"v"),
        ("dead", b"k", None),
        ("dead", None, b"v"),
        ("dead", None, b""),  # Kafka's clients send no record of nothing
    ]
