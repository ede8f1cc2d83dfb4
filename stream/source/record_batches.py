"""Read record batches robustly: no batch that a client wrote can stop a worker.

The defects in aiokafka 0.14.0, consumer/fetcher.py (`install` replaces its classes `PartitionRecords` and
`FetchResult`, and `MemoryRecords` of record/memory_records.py):

- `getmany` raises any error of unpacking a batch (a header name that is not UTF-8, broken compression, a wrong
  checksum), again after each restart. Here `record_format` parses a batch that aiokafka can't parse, and a batch that
  can't be read at all becomes an `UnreadableBatch` among the records;
- a batch is decompressed as a whole, and all requested records are unpacked at once. Here both sizes are limited;
- offsets without records (transaction markers, aborted batches) are skipped silently and look like a loss. Here a fetch
  is a `Stretch` with the offsets that it covers and the offsets that the broker had no records for.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiokafka import ConsumerRecord
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from models.records import BadRecord
from stream.source import record_format
from stream.source.decompression import decompress

log = logging.getLogger(__name__)
fetcher: Any = aiokafka_fetcher  # untyped, and some of its names are replaced

Record: TypeAlias = "ConsumerRecord[bytes, bytes]"
"""A raw record: key and value are bytes or None."""

# Limit of a decompressed batch. Real batches of 1 MiB, Kafka's own limit, decompress to 5 to 20 MiB.
UNPACKED_BYTES = 64 * 2**20
# Limit of the keys and values in a stretch: 512 events have 100 KB, 512 records of 8 MiB would have 4 GiB.
STRETCH_BYTES = 8 * 2**20
TRIES = 3  # a wrong checksum may come from the network; after three fetches it is the broker's disk
REST_S = 0.2  # before the second fetch of a batch, and twice that before the third

_OFFSET_AND_LENGTH = struct.Struct(">qi")
_MAGIC_AT = 16
_ATTRIBUTES_AT = 21
_SMALLEST_BYTES = 26  # of a message of the oldest format
_RECORD_COUNT = struct.Struct(">i")
_CODEC = 7


@dataclass
class UnreadableBatch(ConsumerRecord[bytes, bytes]):
    """Stands for records that can't be read: one record without key and value, at the last one's `offset`."""

    first_offset: int
    why: str

    @property
    def records(self) -> int:
        """The number of offsets that it stands for."""
        return self.offset - self.first_offset + 1


class Unreadable(BadRecord):
    """The reason why an unreadable batch is refused, and its number of records."""

    def __init__(self, batch: UnreadableBatch) -> None:
        super().__init__(
            "unreadable", f"offsets {batch.first_offset} to {batch.offset} ({batch.records} records): {batch.why}"
        )
        self.records = batch.records


def require_readable(record: Record) -> None:
    """Raise Unreadable for an UnreadableBatch."""
    if isinstance(record, UnreadableBatch):
        raise Unreadable(record)


class Stretch(list[Record]):
    """A fetch's records of one partition. It is true if it covers any offset, even without a record."""

    def __init__(self, begin: int) -> None:
        super().__init__()
        self.begin = begin
        self.end = begin  # not included
        self.holes: list[tuple[int, int]] = []  # first and last offsets that the broker had no records for

    def __bool__(self) -> bool:
        """Return whether it covers any offset: aiokafka drops false results, and their position with them."""
        return self.end > self.begin

    @property
    def first_offset(self) -> int:
        """Return the offset of the first record; the end if there is none."""
        if not len(self):
            return self.end
        return self[0].first_offset if isinstance(self[0], UnreadableBatch) else self[0].offset

    def append_stretch(self, other: Stretch) -> None:
        """Append a stretch if it follows directly."""
        if other.begin == self.end:
            self.extend(other)
            self.holes += other.holes
            self.end = other.end


def end_of(records: Sequence[Record]) -> int:
    """Return the offset after a fetch's records: a stretch may cover more than its last record."""
    return records.end if isinstance(records, Stretch) else records[-1].offset + 1


class Batches:
    """The record batches in a fetch's bytes, with the interface of aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def size_in_bytes(self) -> int:
        """Return the number of bytes."""
        return len(self._data)

    def has_next(self) -> bool:
        """Return whether a complete batch is left. The first one must be complete: a broker cuts only later ones."""
        return self._at == 0 < len(self._data) or self._end() is not None

    def next_batch(self) -> tuple[Any, bytes]:
        """Return aiokafka's batch and its bytes; raises CorruptRecordException."""
        end = self._end()
        if end is None or end - self._at < _SMALLEST_BYTES:
            raise CorruptRecordException("the batch header has an impossible length")
        data = bytes(self._data[self._at : end])
        self._at = end
        magic = data[_MAGIC_AT]
        if magic >= 2 and len(data) < record_format.HEAD_BYTES:
            raise CorruptRecordException("the batch is shorter than its header")
        return (DefaultRecordBatch(data) if magic >= 2 else LegacyRecordBatch(data, magic)), data

    def following_offset(self) -> int | None:
        """Return the base offset of the next batch; None if there is none."""
        if len(self._data) - self._at < _OFFSET_AND_LENGTH.size:
            return None
        return int(_OFFSET_AND_LENGTH.unpack_from(self._data, self._at)[0])

    def _end(self) -> int | None:
        """Return the end of the next batch in the bytes; None if it is incomplete."""
        if len(self._data) - self._at < _OFFSET_AND_LENGTH.size:
            return None
        _, length = _OFFSET_AND_LENGTH.unpack_from(self._data, self._at)
        end = self._at + _OFFSET_AND_LENGTH.size + int(length)
        return end if length >= 0 and end <= len(self._data) else None


class LenientRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition's share of a fetch. Unreadable ones are skipped."""

    next_fetch_offset: int
    tries: dict[int, int]  # by offset of an unreadable batch; kept over fetches
    highwater: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tries = {}
        self.holes: list[tuple[int, int]] = []
        self.rest_s = 0.0  # pause before the remaining records are fetched again

    def _unpack_records(self) -> Iterator[Record]:
        while self._records.has_next():
            first = self.next_fetch_offset
            try:
                batch, data = self._records.next_batch()
            except CorruptRecordException as error:
                if not self._retry(first):
                    yield self._unreadable(first, first, str(error))
                return
            if self._check_crcs and not batch.validate_crc():
                if self._retry(first):
                    return
                yield self._unreadable(first, self._last_offset(batch, first), "its checksum is wrong")
                continue
            end, base = batch.next_offset, first if data[_MAGIC_AT] < 2 else batch.base_offset
            if base > first:
                self.holes.append((first, base - 1))
                self.next_fetch_offset = base
            try:
                if self._holds_events(batch):
                    yield from self._records_of(batch, data)
            except Exception as error:  # any error of a library on unexpected bytes
                if self.next_fetch_offset < end:  # otherwise the error is after the last record
                    why = str(error) or type(error).__name__
                    time_ms = batch.max_timestamp if data[_MAGIC_AT] >= 2 else _now_ms()
                    yield self._unreadable(self.next_fetch_offset, end - 1, why, time_ms)
            self.next_fetch_offset = max(end, self.next_fetch_offset)

    def _holds_events(self, batch: Any) -> bool:
        """Return whether a batch has records to read: it is no marker, and not aborted under read_committed."""
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch:
                if self._contains_abort_marker(batch):
                    self._aborted_producers.discard(batch.producer_id)
            elif batch.is_transactional and batch.producer_id in self._aborted_producers:
                return False
        return not batch.is_control_batch

    def _records_of(self, batch: Any, data: bytes) -> Iterator[Record]:
        end = batch.next_offset
        if data[_MAGIC_AT] >= 2:
            data = _uncompressed(batch, data)
            try:
                yield from self._from_position(DefaultRecordBatch(data), end)
            except (CorruptRecordException, ValueError, IndexError, OverflowError):
                # continues at the record that failed: earlier ones have moved next_fetch_offset
                records = record_format.parse(_head(batch, data), data[record_format.HEAD_BYTES :])
                yield from self._from_position(records, end)
        else:
            _refuse_bombs(data)
            yield from self._from_position(batch, end)

    def _from_position(self, records: Any, end: int) -> Iterator[Record]:
        """Yield the records from `next_fetch_offset` on."""
        for record in records:
            offset = record.offset
            if offset < self.next_fetch_offset:
                continue  # the fetch began inside the batch
            if offset >= end:
                raise record_format.Broken(f"a record at offset {offset} in a batch that ends before {end}")
            if offset > self.next_fetch_offset:
                self.holes.append((self.next_fetch_offset, offset - 1))
            self.next_fetch_offset = offset + 1
            yield self._consumer_record(self._tp, record)

    def _retry(self, offset: int) -> bool:
        """Count a failed try; returns whether the batch is fetched again."""
        tries = self.tries.get(offset, 0) + 1
        if tries >= TRIES:
            self.tries.pop(offset, None)
            return False
        self.tries[offset] = tries
        self.rest_s = REST_S * tries
        log.warning(
            "batch could not be read, retry %d of %d topic=%s partition=%d offset=%d",
            *(tries, TRIES - 1, self._tp.topic, self._tp.partition, offset),
        )
        return True

    def _last_offset(self, batch: Any, first: int) -> int:
        """Return the last offset of a batch whose header may be wrong: below the next batch or the log's end."""
        following = self._records.following_offset()
        limit = self.highwater if following is None or following <= first else following
        last = batch.next_offset - 1
        return last if first <= last < (limit or 0) else first

    def _unreadable(self, first: int, last: int, why: str, time_ms: int | None = None) -> UnreadableBatch:
        topic, partition = self._tp.topic, self._tp.partition
        log.error(
            "records can't be read and are skipped topic=%s partition=%d from=%d to=%d: %s",
            *(topic, partition, first, last, why),
        )
        self.next_fetch_offset = last + 1
        return UnreadableBatch(
            topic=topic,
            partition=partition,
            offset=last,
            timestamp=_now_ms() if time_ms is None else time_ms,
            timestamp_type=1,
            key=None,
            value=None,
            checksum=None,
            serialized_key_size=-1,
            serialized_value_size=-1,
            headers=(),
            first_offset=first,
            why=why,
        )


class StretchFetch(fetcher.FetchResult):  # type: ignore[misc]
    """One partition's share of a fetch, returned in stretches of limited size."""

    _partition_records: LenientRecords | None

    def __init__(self, tp: Any, *, assignment: Any, partition_records: LenientRecords, backoff: float) -> None:
        super().__init__(tp, assignment=assignment, partition_records=partition_records, backoff=backoff)
        # kept with the consumer's position: a rebalance resets the count
        state = assignment.state_value(tp)
        if not hasattr(state, "tries_to_read"):
            state.tries_to_read = {}
        partition_records.tries = state.tries_to_read
        partition_records.highwater = state.highwater
        self._rest_until = 0.0
        self._exhausted = False

    def getall(self, max_records: int | None = None) -> Stretch:
        """Return the next records: at most `max_records`, and about STRETCH_BYTES."""
        source = self._partition_records
        if source is None or time.monotonic() < self._rest_until:
            return Stretch(0)
        if self._exhausted:  # the pause is over: fetch again
            self._partition_records = None
            return Stretch(0)
        if not self.check_assignment(self._topic_partition):
            return Stretch(0)
        stretch = Stretch(source.next_fetch_offset)
        held_bytes = 0
        for record in source:
            stretch.append(record)
            held_bytes += len(record.key or b"") + len(record.value or b"")
            if len(stretch) == max_records or held_bytes >= STRETCH_BYTES:
                break
        else:
            self._exhausted = True
        self._update_position()
        stretch.end = source.next_fetch_offset
        stretch.holes, source.holes = source.holes, []
        if self._exhausted:
            if source.rest_s:
                self._rest_until = time.monotonic() + source.rest_s
            else:
                self._partition_records = None
        return stretch


def install() -> None:
    """Install these classes for all aiokafka consumers of this process."""
    fetcher.MemoryRecords = Batches
    fetcher.PartitionRecords = LenientRecords
    fetcher.FetchResult = StretchFetch


def _now_ms() -> int:
    """Return the current time, for a batch whose own timestamp may be wrong."""
    return int(time.time() * 1000)


def _uncompressed(batch: Any, data: bytes) -> bytes:
    """Return an uncompressed copy of a batch. Its checksum is not updated."""
    if not batch.compression_type:
        return data
    (attributes,) = struct.unpack_from(">h", data, _ATTRIBUTES_AT)
    head = bytearray(data[: record_format.HEAD_BYTES])
    struct.pack_into(">h", head, _ATTRIBUTES_AT, attributes & ~_CODEC)
    return bytes(head) + decompress(batch.compression_type, data[record_format.HEAD_BYTES :], UNPACKED_BYTES)


def _head(batch: Any, data: bytes) -> record_format.BatchHead:
    (count,) = _RECORD_COUNT.unpack_from(data, record_format.HEAD_BYTES - _RECORD_COUNT.size)
    return record_format.BatchHead(
        base_offset=batch.base_offset,
        first_timestamp=batch.first_timestamp,
        max_timestamp=batch.max_timestamp,
        timestamp_type=batch.timestamp_type,
        records=count,
    )


def _refuse_bombs(message: bytes) -> None:
    """Raise CannotDecompress for a compressed message of format v0 or v1 that decompresses to too many bytes."""
    magic, attributes = message[_MAGIC_AT], message[_MAGIC_AT + 1]
    codec = attributes & _CODEC
    if not codec:
        return
    at = _MAGIC_AT + 2 + (8 if magic == 1 else 0)
    (key_bytes,) = _RECORD_COUNT.unpack_from(message, at)
    at += 4 + max(0, key_bytes) + 4
    decompress(codec, message[at:], UNPACKED_BYTES)
