"""Whether this machine's clock and the brokers' agree, as far as the log tells."""

from __future__ import annotations

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec

from models.records import Topics
from stream.doctor.finding import Finding

TOLERATED_S = 5.0  # of a request's way, and of clocks that NTP holds


def clock(admin: KafkaAdminClient, topics: Topics, now: float) -> Finding:
    """Look for events that the broker took in the future of this machine: its clock is then behind the broker's."""
    (topic,) = admin.describe_topics([topics.interactions])
    partitions = [TopicPartition(topics.interactions, number) for number in range(len(topic["partitions"]))]
    newest = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.MAX_TIMESTAMP))
    return compared(max((found.timestamp for found in newest.values()), default=-1) / 1000, now)


def compared(newest: float, now: float) -> Finding:
    """Return what the time of the newest event tells; below 0: there is none."""
    if newest < 0:
        return Finding("clock", True, "there are no events yet to tell the brokers' clock by")
    ahead_s = newest - now
    if ahead_s <= TOLERATED_S:
        return Finding(
            "clock", True, f"the newest event was taken {max(0.0, -ahead_s):.0f} s ago by the broker's clock"
        )
    return Finding(
        "clock",
        False,
        f"the broker took an event {ahead_s:.0f} s in the future of this machine: their clocks differ",
        "set both right (NTP, chrony); a worker's latency and the age of models are measured by its own clock",
    )
