"""Where a forwarded record came in first: a header that only workers can write, as it is signed.

A record of a user who is at home in another partition is sent on with `hrnn-origin: partition/position/timestamp/mac`.
Clients write to the same topic, so the place alone would be theirs to invent: to move a clock, to take another event's
`rec_id`, to have others' events taken for duplicates, or to keep a user in two partitions.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from models.records import Source, Topics, place_of, position
from stream.source.cluster import cluster_id
from stream.source.log_reader import Record

ORIGIN_HEADER = "hrnn-origin"
MAC_BYTES = 16  # of SHA-256's 32: 2^128 forgeries to try, each a record
_ORIGIN = re.compile(rb"(\d{1,10})/(\d{1,19})/(-?\d{1,19})/([0-9a-f]{32})")


class Origin(NamedTuple):
    """Where an event came in first, and when the broker took it there (Unix seconds)."""

    source: Source
    time: float


class Origins:
    """Signs and verifies; all workers of a deployment, and its audit, need the same key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, record: Record) -> Origin | None:
        """Read where a record came in first; None if it came here first, whatever its client wrote in its headers."""
        for name, value in record.headers:
            if name != ORIGIN_HEADER or value is None or not (found := _ORIGIN.fullmatch(value)):
                continue
            partition, timestamp_ms = int(found[1]), int(found[3])
            if partition == record.partition:
                continue
            mac = self._mac(record.topic, record.partition, record.key, record.value, found[0].rpartition(b"/")[0])
            if hmac.compare_digest(mac, found[4]):
                # the log's own time bounds it: nothing can have come in after it was sent on
                epoch, offset = place_of(int(found[2]))
                source = Source(record.topic, partition, offset, epoch)
                return Origin(source, min(timestamp_ms, record.timestamp) / 1000)
        return None

    def forwarded(self, record: Record, user_id: str, home: int, epoch: int = 0) -> list[tuple[str, bytes | None]]:
        """Return the headers of a forwarded record: its own, and its signed first place."""
        place = f"{record.partition}/{position(epoch, record.offset)}/{record.timestamp}".encode()
        mac = self._mac(record.topic, home, user_id.encode(), record.value, place)
        others = [(name, value) for name, value in record.headers if name != ORIGIN_HEADER]
        return [*others, (ORIGIN_HEADER, place + b"/" + mac)]

    def _mac(self, topic: str, home: int, key: bytes | None, value: bytes | None, place: bytes) -> bytes:
        """Sign a record at home, in hexadecimal; each part with its length, so that none passes for another."""
        signed = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (topic.encode(), str(home).encode(), key or b"", place, value or b""):
            signed.update(struct.pack(">Q", len(part)))
            signed.update(part)
        return signed.digest()[:MAC_BYTES].hex().encode()


def derived_key(cluster_id: str, topics: Topics) -> bytes:
    """Make a key of what all workers know: it keeps out copied records and replay tools, but nobody who knows it too.

    Records that a tool copied from another cluster, or from another deployment's topic, do not verify.
    """
    return hashlib.sha256(f"hrnn-origin\0{cluster_id}\0{topics.app_id}".encode()).digest()


async def origins_for(key: bytes | None, topics: Topics, client_options: Mapping[str, Any]) -> Origins:
    """Sign by the key that was set, else by one derived from the cluster's id; raises TopicsNotReady."""
    return Origins(key if key is not None else derived_key(await cluster_id(client_options), topics))
