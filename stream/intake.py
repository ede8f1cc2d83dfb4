"""From records to events: decoded, refused, or sent on to the partition where their user is at home."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka.partitioner import DefaultPartitioner

from models.contracts import BadRecord, Event, Source, decode_event
from models.state import UserState
from models.walk import SourcedEvent
from stream.delivery import Batch
from stream.log_reader import Record

ORIGIN_HEADER = "hrnn-origin"
_ORIGIN = re.compile(rb"(\d{1,9})/(\d{1,18})/(\d{1,15})")
_partitioner = DefaultPartitioner()


class Origin(NamedTuple):
    """Where an event came in first, and when the broker took it there (Unix seconds)."""

    source: Source
    time: float


@dataclass
class Intake:
    """What the records of one batch are, before any state is known."""

    events: list[tuple[Record, Event]] = field(default_factory=list)
    rejects: list[tuple[Record, BadRecord]] = field(default_factory=list)

    def users(self) -> dict[int, list[bytes]]:
        """List each partition's users, each once, as keys of its store."""
        users: dict[int, dict[bytes, None]] = {}
        for record, event in self.events:
            users.setdefault(record.partition, {})[event.user_id.encode()] = None
        return {partition: list(of_partition) for partition, of_partition in users.items()}


def take_in(batch: Batch) -> Intake:
    """Decode a batch, partition by partition, in the order of the log."""
    intake = Intake()
    for records in batch.records.values():
        for record in records:
            try:
                intake.events.append((record, decode_event(record.value)))
            except BadRecord as error:
                intake.rejects.append((record, error))
    return intake


def home_of(user_id: str, partitions: int) -> int:
    """Name the partition that Kafka's own default partitioner gives a user (murmur2 of the key)."""
    numbers = list(range(partitions))
    return int(_partitioner(user_id.encode(), numbers, numbers))


def strays(intake: Intake, held: Mapping[tuple[int, str], UserState], partitions: int) -> dict[int, int]:
    """Find the events of users without a state here whose home is another partition: index -> home.

    A producer without keys, or with another partitioner (librdkafka's default), would split a user in two.
    """
    homes: dict[str, int] = {}
    found: dict[int, int] = {}
    for index, (record, event) in enumerate(intake.events):
        if (record.partition, event.user_id) in held or origin_of(record):
            continue
        home = homes.get(event.user_id)
        if home is None:
            home = homes[event.user_id] = home_of(event.user_id, partitions)
        if home != record.partition:
            found[index] = home
    return found


def origin_header_of(record: Record) -> tuple[str, bytes]:
    """Make the header that tells a forwarded record's first place in the log, and the time that it came there."""
    return ORIGIN_HEADER, f"{record.partition}/{record.offset}/{record.timestamp}".encode()


def origin_of(record: Record) -> Origin | None:
    """Read where a record came in first, if another partition sent it on."""
    for name, value in record.headers:
        if name == ORIGIN_HEADER and (found := _ORIGIN.fullmatch(value)) and int(found[1]) != record.partition:
            return Origin(Source(record.topic, int(found[1]), int(found[2])), int(found[3]) / 1000)
    return None


def sourced(record: Record, event: Event) -> SourcedEvent:
    """Give an event its place in the log, and its first place if it was forwarded."""
    origin = origin_of(record) or Origin(Source(record.topic, record.partition, record.offset), record.timestamp / 1000)
    # the time of the first place: sent on twice, an event must not be from the future once and then no more
    return SourcedEvent(event, record.partition, record.offset, origin.time, origin.source)
