"""Sending: few record batches instead of many records, records sent on, and what is not known to be written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiokafka
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError

from stream.headers import sendable
from stream.log_reader import Record
from stream.origins import Origins
from stream.telemetry import Telemetry

PAUSED = "the worker had paused for longer than the session timeout"


class NotSent(Exception):
    """A batch is not known to be written, and has to be read and decided again; the text says why."""


@contextmanager
def or_not_sent(telemetry: Telemetry) -> Iterator[None]:
    """Await acks inside; raises NotSent if some did not come in time."""
    try:
        yield
    except (KafkaTimeoutError, RequestTimedOutError, KafkaConnectionError) as error:
        # expired in the producer, through a pause of ours or the broker's: what did arrive is harmless twice
        telemetry.producer_errors.inc()
        raise NotSent(str(error) or type(error).__name__) from None


async def send_on(
    producer: aiokafka.AIOKafkaProducer, record: Record, user_id: str, home: int, origins: Origins
) -> asyncio.Future[Any]:
    """Queue a record for its user's own partition, with where it came in first in a signed header."""
    sent: asyncio.Future[Any] = await producer.send(
        record.topic,
        value=record.value,
        key=user_id.encode(),
        partition=home,
        headers=sendable(origins.forwarded(record, user_id, home)),
    )
    return sent


@dataclass(frozen=True)
class Append:
    """One record batch on its way to a partition."""

    partition: int
    records: int
    acked: asyncio.Future[Any]


async def append(
    producer: aiokafka.AIOKafkaProducer, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes]]
) -> list[Append]:
    """Queue key-value records for one partition as few record batches; the appends are acked in order."""
    appends: list[Append] = []
    builder = producer.create_batch()
    for key, value in records:
        if builder.append(key=key, value=value, timestamp=None) is None:
            appends.append(await _send(producer, builder, topic, partition))
            builder = producer.create_batch()
            builder.append(key=key, value=value, timestamp=None)
    if builder.record_count():
        appends.append(await _send(producer, builder, topic, partition))
    return appends


async def _send(producer: aiokafka.AIOKafkaProducer, builder: Any, topic: str, partition: int) -> Append:
    builder.close()
    records = builder.record_count()
    return Append(partition, records, await producer.send_batch(builder, topic, partition=partition))
