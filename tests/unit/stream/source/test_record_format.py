"""The lenient parser: what aiokafka's can read it reads alike, and what nobody can it says so."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from stream.source.record_format import HEAD_BYTES, BatchHead, Broken, parse
from tests.made_batches import Given, batch

texts = st.text(st.characters(codec="utf-8"), max_size=8)
contents = st.none() | st.binary(max_size=200)
givens = st.builds(
    Given, contents, contents, st.lists(st.tuples(texts, contents), max_size=4).map(tuple), st.integers(-1, 2**50)
)


def parsed(data: bytes) -> list[Any]:
    made = DefaultRecordBatch(data)
    head = BatchHead(
        made.base_offset, made.first_timestamp, made.max_timestamp, made.timestamp_type, made.last_offset_delta + 1
    )
    return list(parse(head, data[HEAD_BYTES:]))


@given(st.lists(givens, min_size=1, max_size=6), st.integers(0, 2**40))
def test_it_reads_as_aiokafka_does(records: list[Given], base: int) -> None:
    data = batch(records, base_offset=base)
    fields = ("offset", "timestamp", "timestamp_type", "key", "value", "headers", "checksum")

    def of(found: Any) -> list[tuple[Any, ...]]:
        return [tuple(getattr(record, field) for field in fields) for record in found]

    assert of(parsed(data)) == of(DefaultRecordBatch(data))


@given(st.binary(max_size=200), st.integers(1, 3))
def test_any_bytes_are_records_or_broken(data: bytes, count: int) -> None:
    try:
        found = list(parse(BatchHead(0, 0, 0, 0, count), data))
    except Broken:
        return
    assert len(found) == count


@pytest.mark.parametrize("cut", range(1, 20))
def test_records_that_end_too_soon_are_broken(cut: int) -> None:
    data = batch([Given(b"key", b"value", [("name", b"content")])])
    with pytest.raises(Broken):
        parsed(data[:-cut])


def test_bytes_after_the_last_record_are_broken() -> None:
    with pytest.raises(Broken):
        parsed(batch([Given(b"key", b"value")]) + b"more")
