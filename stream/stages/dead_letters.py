"""Dead letters: refused records in their original form, with source and reason in the headers.

A record that exceeds a broker's default limits is truncated, and the header `truncated` says what was cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import aiokafka

from models.records import BadRecord
from stream.source.log_reader import Record
from stream.source.record_batches import UnreadableBatch
from stream.stages.headers import MAX_HEADERS_BYTES, Headers, first_within, sendable, size_of

MAX_LETTER_BYTES = 960 * 1024
"""Of key, value and the record's own headers. The 64 KiB up to a broker's limit are for our headers and framing."""

KEPT_BYTES = 64 * 1024  # of a truncated value or key: the size of the largest valid event
MAX_DETAIL_CHARS = 1000


class Kept(NamedTuple):
    """The parts of a record that its dead letter carries."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    truncated: str
    """What was cut off; "" if nothing was."""


def kept(record: Record) -> Kept:
    """Return all of a record, or truncated parts if it is too large for a broker."""
    key, value = record.key, record.value
    headers: Headers = record.headers
    if len(key or b"") + len(value or b"") + size_of(headers) <= MAX_LETTER_BYTES:
        return Kept(key, value, headers, "")
    cut = []
    if value is not None and len(value) > KEPT_BYTES:
        cut.append(f"value {len(value)} bytes, kept {KEPT_BYTES}")
        value = value[:KEPT_BYTES]
    if key is not None and len(key) > KEPT_BYTES:
        cut.append(f"key {len(key)} bytes, kept {KEPT_BYTES}")
        key = key[:KEPT_BYTES]
    if (size := size_of(headers)) > MAX_HEADERS_BYTES:
        first = first_within(headers, MAX_HEADERS_BYTES)
        cut.append(f"headers {len(headers)} of {size} bytes, kept {len(first)}")
        headers = first
    return Kept(key, value, headers, "; ".join(cut))


def headers_of(record: Record, carried: Kept, error: BadRecord) -> list[tuple[str, bytes | None]]:
    """Return a record's own headers with the reason, the source and what was cut off."""
    ours = {
        "reason": error.reason,
        "detail": error.detail[:MAX_DETAIL_CHARS],
        "source-topic": record.topic,
        "source-partition": str(record.partition),
        "source-offset": str(record.offset),
        "source-timestamp": str(record.timestamp),
    }
    if carried.truncated:
        ours["truncated"] = carried.truncated
    if isinstance(record, UnreadableBatch):
        ours["source-first-offset"] = str(record.first_offset)
    # a detail may quote text that is not UTF-8
    return sendable([*carried.headers, *((name, value.encode("utf-8", "replace")) for name, value in ours.items())])


async def send_dead_letters(
    producer: aiokafka.AIOKafkaProducer, topic: str, rejects: Iterable[tuple[Record, BadRecord]]
) -> list[asyncio.Future[object]]:
    """Queue refused records for the dead-letter topic. Await the futures before the commit."""
    futures: list[asyncio.Future[object]] = []
    for record, error in rejects:
        carried = kept(record)
        futures.append(
            await producer.send(
                topic,
                # Kafka's clients send no record without key and value
                value=b"" if carried.value is None and carried.key is None else carried.value,
                key=carried.key,
                headers=headers_of(record, carried, error),
            )
        )
    return futures
