"""Decode records into events. Bad records are refused, misrouted ones are forwarded to their user's own partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka.partitioner import DefaultPartitioner

from models.recommending.recipes import recipe_of
from models.records import BadRecord, Event, Request, Source, decode_event, decode_request, position
from models.users.state import UserState
from models.users.walk import SourcedEvent
from stream.faust_patches.delivery import Batch
from stream.source.log_reader import Record
from stream.source.record_batches import require_readable
from stream.stages.headers import check_headers
from stream.stages.origins import Origin, Origins

_partitioner = DefaultPartitioner()


@dataclass
class Intake:
    """The decoded records of one batch."""

    events: list[tuple[Record, Event]] = field(default_factory=list)
    rejects: list[tuple[Record, BadRecord]] = field(default_factory=list)

    def users(self) -> dict[int, list[bytes]]:
        """Return each partition's distinct users, as keys of its store."""
        users: dict[int, dict[bytes, None]] = {}
        for record, event in self.events:
            users.setdefault(record.partition, {})[event.user_id.encode()] = None
        return {partition: list(of_partition) for partition, of_partition in users.items()}


def event_of(record: Record) -> Event:
    """Decode a record of `interactions`; raises BadRecord with the reason."""
    require_readable(record)
    check_headers(record.headers)
    return decode_event(record.value)


def request_of(record: Record) -> Request:
    """Decode a record of `requests`; raises BadRecord with the reason."""
    require_readable(record)
    check_headers(record.headers)
    request = decode_request(record.value)
    recipe_of(request)
    return request


def take_in(batch: Batch) -> Intake:
    """Decode a batch, partition by partition, in log order."""
    intake = Intake()
    for records in batch.records.values():
        for record in records:
            try:
                intake.events.append((record, event_of(record)))
            except BadRecord as error:
                intake.rejects.append((record, error))
    return intake


def home_of(user_id: str, partitions: int) -> int:
    """Return a user's own partition: that of Kafka's default partitioner (murmur2 of the key)."""
    numbers = list(range(partitions))
    return int(_partitioner(user_id.encode(), numbers, numbers))


def strays(
    intake: Intake, held: Mapping[tuple[int, str], UserState], partitions: int, origins: Origins
) -> dict[int, int]:
    """Find misrouted events: those of users without a state here whose own partition is another; index -> partition.

    A producer without keys, or with another partitioner (librdkafka's default), would split a user's events.
    `partitions` is the users' changelog's number: later partitions were added to the topic and are no user's own.
    """
    homes: dict[str, int] = {}
    found: dict[int, int] = {}
    for index, (record, event) in enumerate(intake.events):
        at_home_here = (record.partition, event.user_id) in held or origins.of(record)
        if at_home_here and record.partition < partitions:
            continue
        home = homes.get(event.user_id)
        if home is None:
            home = homes[event.user_id] = home_of(event.user_id, partitions)
        if home != record.partition:
            found[index] = home
    return found


def came_first(record: Record, epoch: int) -> Origin:
    """Return the origin of a record that was not forwarded: its own place and time."""
    return Origin(Source(record.topic, record.partition, record.offset, epoch), record.timestamp / 1000)


def sourced(record: Record, event: Event, origins: Origins, epoch: int = 0) -> SourcedEvent:
    """Return an event with its position in the log and, if it was forwarded, its origin."""
    origin = origins.of(record) or came_first(record, epoch)
    # the origin's time: the check for future events must not change when an event is forwarded twice
    return SourcedEvent(event, record.partition, position(epoch, record.offset), origin.time, origin.source)
