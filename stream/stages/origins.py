"""The origin of a forwarded record: a signed header that only workers can write.

A misrouted record is forwarded to its user's own partition with `hrnn-origin: partition/position/timestamp/mac`.
Clients write to the same topic. Without the signature they could invent an origin: to shift a clock, to use another
event's `rec_id`, to make others' events duplicates, or to keep a user in two partitions.
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
MAC_BYTES = 16  # of SHA-256's 32: a forgery needs 2^128 records
_ORIGIN = re.compile(rb"(\d{1,10})/(\d{1,19})/(-?\d{1,19})/([0-9a-f]{32})")


class Origin(NamedTuple):
    """The first place of an event, and the broker's time there (Unix seconds)."""

    source: Source
    time: float


class Origins:
    """Signs and verifies origins. All workers of a deployment, and its audit, need the same key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, record: Record) -> Origin | None:
        """Return a forwarded record's origin; None if it has no valid signature of another partition."""
        for name, value in record.headers:
            if name != ORIGIN_HEADER or value is None or not (found := _ORIGIN.fullmatch(value)):
                continue
            partition, timestamp_ms = int(found[1]), int(found[3])
            if partition == record.partition:
                continue
            mac = self._mac(record.topic, record.partition, record.key, record.value, found[0].rpartition(b"/")[0])
            if hmac.compare_digest(mac, found[4]):
                # at most the record's own time: an event cannot arrive after it was forwarded
                epoch, offset = place_of(int(found[2]))
                source = Source(record.topic, partition, offset, epoch)
                return Origin(source, min(timestamp_ms, record.timestamp) / 1000)
        return None

    def forwarded(self, record: Record, user_id: str, home: int, epoch: int = 0) -> list[tuple[str, bytes | None]]:
        """Return the headers of a forwarded record: its own, and its signed origin."""
        place = f"{record.partition}/{position(epoch, record.offset)}/{record.timestamp}".encode()
        mac = self._mac(record.topic, home, user_id.encode(), record.value, place)
        others = [(name, value) for name, value in record.headers if name != ORIGIN_HEADER]
        return [*others, (ORIGIN_HEADER, place + b"/" + mac)]

    def _mac(self, topic: str, home: int, key: bytes | None, value: bytes | None, place: bytes) -> bytes:
        """Return a record's signature in hexadecimal. Each part has its length, so that parts cannot be shifted."""
        signed = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (topic.encode(), str(home).encode(), key or b"", place, value or b""):
            signed.update(struct.pack(">Q", len(part)))
            signed.update(part)
        return signed.digest()[:MAC_BYTES].hex().encode()


def derived_key(cluster_id: str, topics: Topics) -> bytes:
    """Derive a key from the cluster's id: it protects from copied records, not from an attacker who knows the id.

    Records that were copied from another cluster, or from another deployment's topic, do not verify.
    """
    return hashlib.sha256(f"hrnn-origin\0{cluster_id}\0{topics.app_id}".encode()).digest()


async def origins_for(key: bytes | None, topics: Topics, client_options: Mapping[str, Any]) -> Origins:
    """Return a signer with the given key, or one derived from the cluster's id; raises TopicsNotReady."""
    return Origins(key if key is not None else derived_key(await cluster_id(client_options), topics))
