"""Send records: whole record batches, forwarded records, and the error for unconfirmed sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError

from stream.process.retrying import is_transient, named
from stream.source.log_reader import Record
from stream.stages.headers import sendable
from stream.stages.origins import Origins
from stream.telemetry import Telemetry

PAUSED = "the worker paused for longer than the session timeout"


class NotSent(Exception):
    """A batch may not be written and must be requeued; the text says why."""


@contextmanager
def or_not_sent(telemetry: Telemetry) -> Iterator[None]:
    """Await acks inside; raises NotSent if one does not come in time."""
    try:
        yield
    except KafkaError as error:
        if not is_transient(error):
            raise
        # expired in the producer during a pause; records that did arrive are idempotent
        telemetry.producer_errors.inc()
        raise _not_sent(error) from None


@contextmanager
def queueing() -> Iterator[None]:
    """Queue records inside; raises NotSent if the producer is full or a partition has no leader for too long."""
    try:
        yield
    except KafkaError as error:
        if not is_transient(error):
            raise
        raise _not_sent(error) from None


def _not_sent(error: KafkaError) -> NotSent:
    return NotSent(named(error))


async def send_on(
    producer: aiokafka.AIOKafkaProducer, record: Record, user_id: str, home: int, origins: Origins, epoch: int
) -> asyncio.Future[Any]:
    """Forward a record to its user's own partition, with its signed origin in a header."""
    with queueing():
        sent: asyncio.Future[Any] = await producer.send(
            record.topic,
            value=record.value,
            key=user_id.encode(),
            partition=home,
            headers=sendable(origins.forwarded(record, user_id, home, epoch)),
        )
    return sent


@dataclass(frozen=True)
class Append:
    """One record batch in flight to a partition."""

    partition: int
    records: int
    acked: asyncio.Future[Any]


async def append(
    producer: aiokafka.AIOKafkaProducer, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes]]
) -> list[Append]:
    """Queue key-value records for one partition in as few record batches as possible. Acks come in order."""
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
    with queueing():
        return Append(partition, records, await producer.send_batch(builder, topic, partition=partition))
