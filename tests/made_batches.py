"""Record batches as clients make them, and as only a broken or hostile one does."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEAD_BYTES = 61
Headers = Sequence[tuple[str, bytes | None]]


class Given(NamedTuple):
    """A record before it is in a batch."""

    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int = 1_700_000_000_000


def batch(
    records: Sequence[Given],
    *,
    codec: str = "none",
    base_offset: int = 0,
    transactional: bool = False,
    producer_id: int = -1,
) -> bytes:
    """Build a batch with aiokafka's own builder, as its producer does."""
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], int(transactional), producer_id, 0, 0, 2**30)
    for number, record in enumerate(records):
        assert builder.append(number, record.timestamp_ms, record.key, record.value, list(record.headers)) is not None
    return moved(bytes(builder.build()), base_offset)


def control(*, aborts: bool, base_offset: int, producer_id: int) -> bytes:
    """Build the marker that a broker writes at the end of a transaction."""
    key = struct.pack(">hh", 0, 0 if aborts else 1)
    made = batch([Given(key, b"\0" * 6)], base_offset=base_offset, transactional=True, producer_id=producer_id)
    return changed(made, attributes=lambda attributes: attributes | 0x20)


def moved(data: bytes, base_offset: int) -> bytes:
    """Give a batch another place, as the broker does: this is outside its checksum."""
    return struct.pack(">q", base_offset) + data[8:]


def changed(
    data: bytes,
    *,
    attributes: Callable[[int], int] = lambda attributes: attributes,
    records: Callable[[bytes], bytes] = lambda records: records,
) -> bytes:
    """Change a batch's attributes or the bytes of its records, with the right length and checksum."""
    head = bytearray(data[:HEAD_BYTES])
    struct.pack_into(">h", head, 21, attributes(struct.unpack_from(">h", head, 21)[0]))
    made = bytes(head) + records(data[HEAD_BYTES:])
    made = made[:8] + struct.pack(">i", len(made) - 12) + made[12:]
    return made[:17] + struct.pack(">I", calc_crc32c(made[21:])) + made[21:]


def with_latin_header(data: bytes, name: bytes = b"plain") -> bytes:
    """Replace a header's name in an uncompressed batch by bytes of the same length that are not UTF-8."""
    assert name in data
    return changed(data, records=lambda records: records.replace(name, b"\xff" * len(name)))


def same(read: Any, given: Given) -> bool:
    """Compare what was read with what was given."""
    return (read.key, read.value, tuple(read.headers), read.timestamp) == (
        given.key,
        given.value,
        tuple(given.headers),
        given.timestamp_ms,
    )


class Raw:
    """Bytes that a producer of aiokafka's sends as a batch: `producer.send_batch(Raw(data), topic, partition=0)`."""

    def __init__(self, data: bytes, records: int = 1) -> None:
        self._data = data
        self._records = records

    def close(self) -> None:
        """Be as closed as ever."""

    def closed(self) -> bool:
        return True

    def record_count(self) -> int:
        return self._records

    def size(self) -> int:
        return len(self._data)

    def append(self, **record: Any) -> None:
        """Take no record."""

    def _build(self) -> bytes:
        return self._data
