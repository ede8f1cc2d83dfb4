"""Parse the records of a batch of format v2, including records that aiokafka's parser refuses.

The format: https://kafka.apache.org/documentation/#recordbatch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

HEAD_BYTES = 61  # the batch header
VARINT_BYTES = 10


class Broken(ValueError):
    """Bytes that are no records of format v2; the text says where."""


class PlainRecord(NamedTuple):
    """One record, with the fields of aiokafka's record."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class BatchHead(NamedTuple):
    """The fields of a batch header that its records need."""

    base_offset: int
    first_timestamp: int
    max_timestamp: int
    timestamp_type: int  # 0: the producer's, 1: the broker's
    records: int


def parse(head: BatchHead, data: bytes) -> Iterator[PlainRecord]:
    """Yield the records of uncompressed bytes. Invalid UTF-8 in a header name is written as `\\xff`."""
    at = 0
    for _ in range(head.records):
        length, at = _varint(data, at)
        end = at + length
        if length < 0 or end > len(data):
            raise Broken(f"a record of {length} bytes at {at} of {len(data)}")
        record, stopped = _record(head, data, at, end)
        if stopped != end:
            raise Broken(f"a record of length {length} has {stopped - at} bytes")
        yield record
        at = end
    if at != len(data):
        raise Broken(f"{len(data) - at} bytes follow the last record")


def _record(head: BatchHead, data: bytes, at: int, end: int) -> tuple[PlainRecord, int]:
    at += 1  # attributes: none are in use
    timestamp_delta, at = _varint(data, at)
    offset_delta, at = _varint(data, at)
    key, at = _nullable(data, at, end)
    value, at = _nullable(data, at, end)
    count, at = _varint(data, at)
    if not 0 <= count <= end - at:  # each takes two bytes at least
        raise Broken(f"{count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        name, at = _nullable(data, at, end)
        if name is None:
            raise Broken("a header without a name")
        content, at = _nullable(data, at, end)
        headers.append((name.decode(errors="backslashreplace"), content))
    timestamp = head.max_timestamp if head.timestamp_type else head.first_timestamp + timestamp_delta
    return PlainRecord(head.base_offset + offset_delta, timestamp, head.timestamp_type, key, value, headers), at


def _nullable(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    if length < 0:
        return None, at
    if at + length > end:
        raise Broken(f"a field of {length} bytes at {at} of {end}")
    return data[at : at + length], at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a zigzag varint; returns its value and its end."""
    value = 0
    for shift in range(0, 7 * VARINT_BYTES, 7):
        if at >= len(data):
            raise Broken("the bytes end within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
    raise Broken(f"a number of more than {VARINT_BYTES} bytes")
