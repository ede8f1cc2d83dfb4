"""Compare this machine's clock with the brokers', by the newest event."""

from __future__ import annotations

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec

from models.records import Topics
from stream.doctor.finding import Finding

TOLERATED_S = 5.0  # for a request's duration and clocks under NTP


def clock(admin: KafkaAdminClient, topics: Topics, now: float) -> Finding:
    """Check that no event's broker time is in this machine's future."""
    (topic,) = admin.describe_topics([topics.interactions])
    partitions = [TopicPartition(topics.interactions, number) for number in range(len(topic["partitions"]))]
    newest = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.MAX_TIMESTAMP))
    return compared(max((found.timestamp for found in newest.values()), default=-1) / 1000, now)


def compared(newest: float, now: float) -> Finding:
    """Compare the newest event's broker time (below 0: there is none) with this machine's."""
    if newest < 0:
        return Finding("clock", True, "there are no events yet to compare clocks by")
    ahead_s = newest - now
    if ahead_s <= TOLERATED_S:
        return Finding("clock", True, f"the newest event is {max(0.0, -ahead_s):.0f} s old by the broker's clock")
    return Finding(
        "clock",
        False,
        f"the newest event is {ahead_s:.0f} s in this machine's future: the clocks differ",
        "synchronise both clocks (NTP, chrony); a worker measures latency and the age of models by its own clock",
    )
