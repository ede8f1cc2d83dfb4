"""Reading record batches: all that clients and disks may make of them, and what is then said of it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from hypothesis import given
from hypothesis import strategies as st

from stream.source import record_batches
from stream.source.record_batches import (
    STRETCH_BYTES,
    TRIES,
    UNPACKED_BYTES,
    Batches,
    LenientRecords,
    Stretch,
    StretchFetch,
    UnreadableBatch,
    end_of,
)
from tests.made_batches import CODECS, Given, batch, changed, control, moved, same, with_latin_header

TP = TopicPartition("interactions", 0)
EVENT = Given(b"user", b'{"user_id": "user"}', [("trace", b"7"), ("none", None)])


def reading(*batches: bytes, begin: int = 0, aborted: list[tuple[int, int]] | None = None, **more: Any) -> Any:
    isolation = more.pop("isolation", READ_COMMITTED)
    return LenientRecords(TP, Batches(b"".join(batches)), aborted, begin, None, None, True, isolation)


class Partition:
    """A consumer's position in one partition, as aiokafka keeps it, and fetches from there."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(position=0, paused=False, highwater=100, consumed_to=self.consumed_to)
        self.active = True

    def consumed_to(self, offset: int) -> None:
        self.state.position = offset

    def state_value(self, tp: TopicPartition) -> Any:
        return self.state

    def fetch(self, *batches: bytes) -> StretchFetch:
        records = reading(*batches, begin=self.state.position)
        return StretchFetch(TP, assignment=self, partition_records=records, backoff=0.0)


@pytest.mark.parametrize("codec", CODECS)
def test_all_codecs_are_read(codec: str) -> None:
    events = [EVENT._replace(value=b"%d" % n) for n in range(50)]
    found = list(reading(batch(events, codec=codec, base_offset=7), begin=7))
    assert all(map(same, found, events))
    assert [record.offset for record in found] == list(range(7, 57))


texts = st.text(st.characters(codec="utf-8"), max_size=8)
contents = st.none() | st.binary(max_size=40)
givens = st.builds(
    Given,
    contents,
    contents,
    st.lists(st.tuples(texts, contents), max_size=4).map(tuple),
    st.integers(0, 2**50),  # -1 is aiokafka's builder's mark for the first record
)


@given(st.lists(givens, min_size=1, max_size=6), st.sampled_from(list(CODECS)), st.integers(0, 2**40))
def test_whatever_aiokafka_builds_is_read_as_it_was_given(records: list[Given], codec: str, base: int) -> None:
    found = list(reading(batch(records, codec=codec, base_offset=base), begin=base))
    assert len(found) == len(records)
    assert all(map(same, found, records))


@given(st.lists(givens, min_size=1, max_size=6), st.data())
def test_no_bytes_end_the_reading_and_no_offset_is_left_out(records: list[Given], data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(list(CODECS)))
    place, byte = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 255))

    def damage(held: bytes) -> bytes:
        at = place % len(held)
        return held[:at] + bytes([byte]) + held[at + 1 :]

    damaged = changed(batch(records, codec=codec), records=damage)
    after = batch([EVENT], base_offset=len(records))
    source = reading(damaged, after)
    found = list(source)
    covered: list[int] = []
    for record in found:
        first = record.first_offset if isinstance(record, UnreadableBatch) else record.offset
        covered.extend(range(first, record.offset + 1))
    covered += [offset for first, last in source.holes for offset in range(first, last + 1)]
    assert len(covered) == len(set(covered))
    assert same(found[-1], EVENT)
    assert source.next_fetch_offset == len(records) + 1


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_s_name_that_is_not_utf_8_costs_no_record(codec: str) -> None:
    odd = EVENT._replace(headers=[("plain", b"x")])
    plain = with_latin_header(batch([EVENT, odd, EVENT]))
    if codec != "none":
        from aiokafka import codec as codecs

        encode = getattr(codecs, f"{codec}_encode")
        plain = changed(plain, attributes=lambda a: a | CODECS[codec], records=encode)
    found = list(reading(plain))
    assert [record.offset for record in found] == [0, 1, 2]
    assert same(found[0], EVENT)
    assert found[1].headers == (("\\xff" * 5, b"x"),)
    assert same(found[2], EVENT)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_a_batch_that_becomes_too_large_is_not_held_and_not_silent(codec: str, caplog: Any) -> None:
    bomb = batch([Given(b"a", bytes(UNPACKED_BYTES // 4))] * 5, codec=codec, base_offset=1)
    assert len(bomb) < UNPACKED_BYTES / 10
    source = reading(batch([EVENT]), bomb, batch([EVENT], base_offset=6))
    before, refused, after = list(source)
    assert same(before, EVENT)
    assert same(after, EVENT)
    assert isinstance(refused, UnreadableBatch)
    assert (refused.first_offset, refused.offset, refused.records) == (1, 5, 5)
    assert "64 MiB" in refused.why
    assert "from=1 to=5" in caplog.text


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_compressed_data_that_are_none_are_skipped_by_name(codec: str) -> None:
    broken = changed(batch([EVENT] * 3, codec=codec), records=lambda held: b"\x01" * len(held))
    refused, after = list(reading(broken, batch([EVENT], base_offset=3)))
    assert (refused.first_offset, refused.offset) == (0, 2)
    assert refused.value is None
    assert same(after, EVENT)


def test_an_unknown_codec_is_skipped_by_name() -> None:
    refused, _ = list(reading(changed(batch([EVENT]), attributes=lambda a: a | 6), batch([EVENT], base_offset=1)))
    assert "codec 6" in refused.why


def test_markers_and_aborted_records_are_passed_and_are_no_holes() -> None:
    stretch = [
        batch([EVENT, EVENT], transactional=True, producer_id=5),
        batch([EVENT], base_offset=2),
        control(aborts=True, base_offset=3, producer_id=5),
        batch([EVENT], base_offset=4, transactional=True, producer_id=5),
        control(aborts=False, base_offset=5, producer_id=5),
    ]
    source = reading(*stretch, aborted=[(5, 0)])
    assert [record.offset for record in source] == [2, 4]
    assert source.next_fetch_offset == 6
    assert source.holes == []
    source = reading(*stretch, isolation=READ_UNCOMMITTED)
    assert [record.offset for record in source] == [0, 1, 2, 4]


def test_what_the_broker_has_not_is_a_hole() -> None:
    source = reading(batch([EVENT], base_offset=2), batch([EVENT], base_offset=8))
    assert [record.offset for record in source] == [2, 8]
    assert source.holes == [(0, 1), (3, 7)]


def test_a_fetch_from_within_a_batch_begins_there() -> None:
    source = reading(batch([EVENT] * 5, codec="zstd"), begin=3)
    assert [record.offset for record in source] == [3, 4]
    assert source.holes == []


def test_a_wrong_checksum_is_fetched_again_and_then_skipped(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(record_batches, "REST_S", 0.01)
    good, after = batch([EVENT]), batch([EVENT], base_offset=4)
    bad = moved(batch([EVENT] * 3), 1)
    bad = bad[:-1] + bytes([bad[-1] ^ 1])
    partition = Partition()
    first = partition.fetch(good, bad, after).getall()
    assert [record.offset for record in first] == [0]
    for _ in range(TRIES - 2):
        fetched = partition.fetch(bad, after)
        assert not fetched.getall()
        assert fetched.has_more(), "it rests, and is not asked for meanwhile"
        time.sleep(0.05)
        assert not fetched.getall()
        assert not fetched.has_more(), "it is fetched again"
    refused, event = partition.fetch(bad, after).getall()
    assert isinstance(refused, UnreadableBatch)
    assert (refused.first_offset, refused.offset) == (1, 3)
    assert event.offset == 4
    assert caplog.text.count("retry") == TRIES - 1


def test_a_checksum_that_is_right_the_next_time_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_batches, "REST_S", 0.0)
    good = batch([EVENT] * 3)
    partition = Partition()
    assert not partition.fetch(good[:-1] + bytes([good[-1] ^ 1])).getall()
    assert [record.offset for record in partition.fetch(good).getall()] == [0, 1, 2]


@pytest.mark.parametrize("claimed", [2**31 - 1, -5])
def test_a_damaged_head_does_not_take_more_offsets_with_it_than_the_log_has(claimed: int) -> None:
    bad = batch([EVENT] * 3)
    bad = bad[:23] + claimed.to_bytes(4, "big", signed=True) + bad[27:]
    partition = Partition()
    for _ in range(TRIES - 1):
        partition.fetch(bad).getall()
    stretch = partition.fetch(bad).getall()
    assert stretch.end == 1


@pytest.mark.parametrize("length", [-1, 0, 13, 10**6])
def test_a_batch_of_a_length_that_cannot_be_ends_nothing(length: int) -> None:
    bad = batch([EVENT])
    bad = bad[:8] + length.to_bytes(4, "big", signed=True) + bad[12:]
    partition = Partition()
    for _ in range(TRIES - 1):
        assert not partition.fetch(bad).getall()
    (refused,) = partition.fetch(bad).getall()
    assert (refused.first_offset, refused.offset) == (0, 0)


def test_what_is_cut_off_at_the_end_of_a_fetch_is_left_for_the_next() -> None:
    first, second = batch([EVENT]), batch([EVENT], base_offset=1)
    source = reading(first, second[:-1])
    assert [record.offset for record in source] == [0]
    assert source.next_fetch_offset == 1


def test_a_fetch_is_given_out_in_stretches_of_bounded_size() -> None:
    large = Given(b"k", bytes(STRETCH_BYTES // 2))
    fetched = Partition().fetch(*(batch([large], base_offset=n, codec="zstd") for n in range(5)))
    stretches = []
    while fetched.has_more():
        stretches.append(fetched.getall(512))
    assert [(s.begin, s.end) for s in stretches] == [(0, 2), (2, 4), (4, 5)]
    fetched = Partition().fetch(batch([EVENT] * 5))
    assert [len(fetched.getall(2)) for _ in range(3)] == [2, 2, 1]


def test_a_stretch_of_markers_alone_is_not_dropped() -> None:
    partition = Partition()
    stretch = partition.fetch(control(aborts=False, base_offset=0, producer_id=5)).getall(512)
    assert stretch
    assert len(stretch) == 0
    assert (stretch.begin, stretch.end, stretch.first_offset, end_of(stretch)) == (0, 1, 1, 1)
    assert partition.state.position == 1


def test_only_what_follows_is_appended() -> None:
    stretch = Stretch(0)
    for begin, end in ((0, 2), (5, 6), (2, 4)):
        other = Stretch(begin)
        other.end = end
        stretch.append_stretch(other)
    assert stretch.end == 4
