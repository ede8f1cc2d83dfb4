"""Dead letters: what could not be applied, as it came, with where it stood and why in the headers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiokafka

from models.contracts import BadRecord
from stream.log_reader import Record


def headers_of(record: Record, error: BadRecord) -> list[tuple[str, bytes]]:
    """Keep a record's own headers and say why and where it was refused."""
    ours = {
        "reason": error.reason,
        "detail": error.detail[:1000],
        "source-topic": record.topic,
        "source-partition": str(record.partition),
        "source-offset": str(record.offset),
        "source-timestamp": str(record.timestamp),
    }
    return [*record.headers, *((name, value.encode()) for name, value in ours.items())]


async def send_dead_letters(
    producer: aiokafka.AIOKafkaProducer, topic: str, rejects: Iterable[tuple[Record, BadRecord]]
) -> list[asyncio.Future[object]]:
    """Queue refused records for the dead-letter topic; the futures are to be awaited before the commit."""
    return [
        await producer.send(
            topic,
            # Kafka's clients send no record that has neither key nor value
            value=b"" if record.value is None and record.key is None else record.value,
            key=record.key,
            headers=headers_of(record, error),
        )
        for record, error in rejects
    ]
