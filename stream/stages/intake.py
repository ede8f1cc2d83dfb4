"""From records to events: decoded, refused, or sent on to the partition where their user is at home."""

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
    """What the records of one batch are, before any state is known."""

    events: list[tuple[Record, Event]] = field(default_factory=list)
    rejects: list[tuple[Record, BadRecord]] = field(default_factory=list)

    def users(self) -> dict[int, list[bytes]]:
        """List each partition's users, each once, as keys of its store."""
        users: dict[int, dict[bytes, None]] = {}
        for record, event in self.events:
            users.setdefault(record.partition, {})[event.user_id.encode()] = None
        return {partition: list(of_partition) for partition, of_partition in users.items()}


def event_of(record: Record) -> Event:
    """Read a record of `interactions`; raises BadRecord with a reason that says what is wrong with it."""
    require_readable(record)
    check_headers(record.headers)
    return decode_event(record.value)


def request_of(record: Record) -> Request:
    """Read a record of `requests`; raises BadRecord with a reason that says what is wrong with it."""
    require_readable(record)
    check_headers(record.headers)
    request = decode_request(record.value)
    recipe_of(request)
    return request


def take_in(batch: Batch) -> Intake:
    """Decode a batch, partition by partition, in the order of the log."""
    intake = Intake()
    for records in batch.records.values():
        for record in records:
            try:
                intake.events.append((record, event_of(record)))
            except BadRecord as error:
                intake.rejects.append((record, error))
    return intake


def home_of(user_id: str, partitions: int) -> int:
    """Return the partition that Kafka's own default partitioner gives a user (murmur2 of the key)."""
    numbers = list(range(partitions))
    return int(_partitioner(user_id.encode(), numbers, numbers))


def strays(
    intake: Intake, held: Mapping[tuple[int, str], UserState], partitions: int, origins: Origins
) -> dict[int, int]:
    """Find the events of users without a state here whose home is another partition: index -> home.

    A producer without keys, or with another partitioner (librdkafka's default), would split a user in two. `partitions`
    is how many states are kept by: partitions beyond were added to the topic later, and are no user's home.
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
    """Return the place and time of a record that no other partition sent on: its own."""
    return Origin(Source(record.topic, record.partition, record.offset, epoch), record.timestamp / 1000)


def sourced(record: Record, event: Event, origins: Origins, epoch: int = 0) -> SourcedEvent:
    """Give an event its position in the log, whose epoch is given, and its first place if it was forwarded."""
    origin = origins.of(record) or came_first(record, epoch)
    # the time of the first place: sent on twice, an event must not be from the future once and then no more
    return SourcedEvent(event, record.partition, position(epoch, record.offset), origin.time, origin.source)
