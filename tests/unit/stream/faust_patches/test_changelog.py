"""Merging a changelog into a store, and telling our own appends from another worker's."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.faust_patches.changelog import Changelog
from tests.unit.stream.made import Producer, made_changelog, records, value


@pytest.fixture
def foreign() -> list[int]:
    """The numbers of records of another worker that were found, one each time."""
    return []


@pytest.fixture
def changelog(tmp_path: Path, foreign: list[int]) -> Iterator[Changelog]:
    made = made_changelog(tmp_path, foreign.append)
    yield made
    made.table.data.close()


KEYS = [b"ann", b"bob", b"cy"]
orders = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 6)), max_size=24)


@given(orders, st.lists(st.integers(1, 5), max_size=24))
@settings(deadline=None)  # it opens a store each time: a busy disk is no failure
def test_any_order_merges_to_the_highest_applied_offset(order: list[tuple[bytes, int]], sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        changelog = made_changelog(Path(folder))
        overwritten: dict[bytes, bytes] = {}
        rest = iter(records(*((key, value(applied)) for key, applied in order)))
        for size in itertools.chain(sizes, itertools.repeat(100)):  # as fetches cut it
            if not (fetched := list(itertools.islice(rest, size))):
                break
            changelog.merge(0, fetched, overwritten)
        highest: dict[bytes, int] = {}
        last: dict[bytes, int] = {}
        for key, applied in order:
            highest[key] = max(applied, highest.get(key, -1))
            last[key] = applied
        held = changelog.read(0, KEYS)
        assert held == [value(highest[key]) if key in highest else None for key in KEYS]
        # what compaction would leave of these keys is not the newest: they have to be written again
        assert overwritten == {key: value(highest[key]) for key in last if last[key] < highest[key]}
        changelog.table.data.close()


def test_what_the_store_has_already_counts_too(changelog: Changelog) -> None:
    changelog.merge(0, records((b"ann", value(9)), (b"bob", value(1))), {})
    overwritten: dict[bytes, bytes] = {}
    changelog.merge(0, records((b"ann", value(3)), (b"bob", value(2))), overwritten)
    assert changelog.read(0, [b"ann", b"bob"]) == [value(9), value(2)]
    assert overwritten == {b"ann": value(9)}


def test_of_two_of_one_offset_the_later_is_kept(changelog: Changelog) -> None:
    """Written twice after a redelivery: the same events, perhaps under newer weights."""
    overwritten: dict[bytes, bytes] = {}
    changelog.merge(0, records((b"ann", value(5, 1)), (b"ann", value(5, 2))), overwritten)
    assert changelog.read(0, [b"ann"]) == [value(5, 2)]
    assert overwritten == {}


def test_a_republished_value_is_not_republished_again(changelog: Changelog) -> None:
    overwritten: dict[bytes, bytes] = {}
    changelog.merge(0, records((b"ann", value(5)), (b"ann", value(2))), overwritten)
    assert overwritten == {b"ann": value(5)}
    changelog.merge(0, records((b"ann", value(5))), overwritten)
    assert overwritten == {}


def test_a_null_value_erases(changelog: Changelog) -> None:
    overwritten: dict[bytes, bytes] = {}
    changelog.merge(0, records((b"ann", value(5)), (b"ann", value(2)), (b"ann", None)), overwritten)
    assert changelog.read(0, [b"ann"]) == [None]
    assert overwritten == {}
    changelog.merge(0, records((b"ann", value(1))), overwritten)
    assert changelog.read(0, [b"ann"]) == [value(1)], "whoever comes back begins anew"


def test_partitions_have_stores_of_their_own(changelog: Changelog) -> None:
    changelog.merge(0, records((b"ann", value(5))), {})
    changelog.merge(1, records((b"ann", value(7))), {})
    assert changelog.read(0, [b"ann", b"bob"]) == [value(5), None]
    assert changelog.read(1, [b"ann"]) == [value(7)]


def test_how_far_a_store_reaches_is_remembered_in_it(changelog: Changelog) -> None:
    changelog.advance(2, 41)
    assert changelog.last_known == {2: 41}
    assert changelog.stores.offset(2) == 41


class Log:
    """The changelog as another reader finds it: what a test says lies at each offset."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records: dict[int, tuple[bytes, bytes]] = {}
        self.read: list[tuple[int, int]] = []
        monkeypatch.setattr("stream.faust_patches.changelog.log_reader", self.reader)
        monkeypatch.setattr("stream.faust_patches.changelog.read_stretch", self.stretch)

    @asynccontextmanager
    async def reader(self, options: Mapping[str, Any]) -> AsyncIterator[Log]:
        yield self

    async def end_offsets(self, tps: Sequence[Any]) -> dict[Any, int]:
        return {tp: max(self.records, default=-1) + 1 for tp in tps}

    async def stretch(self, reader: Log, stretches: Mapping[Any, tuple[int, int]]) -> AsyncIterator[tuple[Any, Any]]:
        for tp, (first, end) in stretches.items():
            self.read.append((first, end))
            yield tp, records(*(self.records[n] for n in range(first, end)))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


async def test_appends_that_follow_each_other_advance_the_offset(changelog: Changelog) -> None:
    producer: Any = Producer(10, 13)
    changelog.last_known[0] = 9
    states = {f"user-{n}".encode(): value(n) for n in range(5)}
    appends = await changelog.write(producer, 0, states)
    assert [sent.records for sent in appends] == [3, 2]
    assert [pair for batch in producer.sent for pair in batch] == list(states.items())
    assert changelog.read(0, list(states)) == list(states.values()), "stored before it is acked"
    assert changelog.last_known == {0: 9}
    await changelog.confirm(producer, appends)
    assert changelog.last_known == {0: 14}


async def test_foreign_records_between_appends_are_merged_and_hidden_values_republished(
    changelog: Changelog, log: Log, foreign: list[int]
) -> None:
    producer: Any = Producer(9, 12, 13)
    changelog.last_known[0] = 8
    await changelog.confirm(producer, await changelog.write(producer, 0, {b"ann": value(5)}))
    log.records = {10: (b"ann", value(1)), 11: (b"bob", value(8))}
    await changelog.confirm(producer, await changelog.write(producer, 0, {b"cy": value(6)}))
    assert producer.sent == [[(b"ann", value(5))], [(b"cy", value(6))], [(b"ann", value(5))]]
    assert changelog.read(0, [b"ann", b"bob"]) == [value(5), value(8)]
    assert log.read == [(10, 12)]
    assert foreign == [2]
    assert changelog.last_known == {0: 13}, "what was put back is ours, and acked"


async def test_a_value_that_a_later_append_carries_is_not_republished(
    changelog: Changelog, log: Log, foreign: list[int]
) -> None:
    producer: Any = Producer(11, 12)
    changelog.last_known[0] = 9
    log.records = {10: (b"ann", value(1))}
    first = await changelog.write(producer, 0, {b"bob": value(5)})
    second = await changelog.write(producer, 0, {b"ann": value(5)})
    await changelog.confirm(producer, first)
    await changelog.confirm(producer, second)
    assert len(producer.sent) == 2
    assert foreign == [1]
    assert changelog.last_known == {0: 12}


async def test_appends_of_a_requeued_batch_are_ours(changelog: Changelog, log: Log, foreign: list[int]) -> None:
    """A batch stopped between two of its slices: nobody awaits the acks of the first one."""
    producer: Any = Producer(10, 11)
    changelog.last_known[0] = 9
    await changelog.write(producer, 0, {b"ann": value(1)})
    await changelog.confirm(producer, await changelog.write(producer, 0, {b"ann": value(2)}))
    assert changelog.last_known == {0: 11}
    assert (log.read, foreign) == ([], [])


async def test_appends_that_nobody_awaits_are_not_looked_for(
    changelog: Changelog, log: Log, foreign: list[int]
) -> None:
    producer: Any = Producer(10, None)
    changelog.last_known[0] = 9
    log.records = {10: (b"ann", value(1)), 11: (b"ann", value(2))}
    await changelog.write(producer, 0, {b"ann": value(1)})
    await changelog.write(producer, 0, {b"ann": value(2)})
    await changelog.check_foreign(producer)
    assert changelog.last_known == {0: 9}, "one is on its way: its ack will tell"
    producer.ack(producer.futures[1], 11)
    await changelog.check_foreign(producer)
    assert changelog.last_known == {0: 11}
    assert (log.read, foreign) == ([], [])


async def test_an_append_without_an_ack_that_arrived_is_ours(
    changelog: Changelog, log: Log, foreign: list[int]
) -> None:
    producer: Any = Producer(KafkaTimeoutError(), 12)
    changelog.last_known[0] = 9
    log.records = {10: (b"ann", value(1)), 11: (b"bob", value(2))}
    lost = await changelog.write(producer, 0, {b"ann": value(1), b"bob": value(2)})
    with pytest.raises(KafkaTimeoutError):
        await changelog.confirm(producer, lost)
    assert changelog.last_known == {0: 9}
    await changelog.confirm(producer, await changelog.write(producer, 0, {b"ann": value(3)}))
    assert changelog.last_known == {0: 12}
    assert log.read == [(10, 12)]
    assert foreign == []
    assert len(producer.sent) == 2, "nothing to put back: ann is behind it, bob is the newest"


async def test_an_append_decided_again_under_newer_weights_stays(changelog: Changelog, log: Log) -> None:
    producer: Any = Producer(KafkaTimeoutError(), 11)
    changelog.last_known[0] = 9
    log.records = {10: (b"ann", value(5, 1))}
    await changelog.write(producer, 0, {b"ann": value(5, 1)})
    await changelog.confirm(producer, await changelog.write(producer, 0, {b"ann": value(5, 2)}))
    assert changelog.read(0, [b"ann"]) == [value(5, 2)]
    assert len(producer.sent) == 2


async def test_an_append_without_an_ack_that_arrives_late_hides_nothing(
    changelog: Changelog, log: Log, foreign: list[int]
) -> None:
    producer: Any = Producer(KafkaTimeoutError(), 10, 12)
    changelog.last_known[0] = 9
    await changelog.write(producer, 0, {b"ann": value(1)})
    await changelog.confirm(producer, await changelog.write(producer, 0, {b"ann": value(3)}))
    log.records = {11: (b"ann", value(1))}
    await changelog.check_foreign(producer)
    assert producer.sent[-1] == [(b"ann", value(3))], "else compaction would keep the older one"
    assert foreign == []
    log.records[12] = (b"ann", value(3))
    await changelog.check_foreign(producer)
    assert changelog.last_known == {0: 12}
    assert log.read == [(11, 12)]


async def test_a_write_decided_before_a_merge_keeps_the_newer_value(
    changelog: Changelog, log: Log, foreign: list[int]
) -> None:
    producer: Any = Producer(11, 12)
    changelog.last_known[0] = 9
    log.records = {10: (b"ann", value(7))}
    await changelog.check_foreign(producer)
    assert foreign == [1]
    appends = await changelog.write(producer, 0, {b"ann": value(5), b"bob": value(5)})
    assert changelog.read(0, [b"ann", b"bob"]) == [value(7), value(5)]
    assert producer.sent == [[(b"bob", value(5))]]
    await changelog.confirm(producer, appends)
    await changelog.write(producer, 0, {b"ann": value(8)})
    assert changelog.read(0, [b"ann"]) == [value(8)]


async def test_acks_for_a_partition_that_was_taken_away_mean_nothing(changelog: Changelog, log: Log) -> None:
    producer: Any = Producer(50)
    changelog.last_known[0] = 9
    appends = await changelog.write(producer, 0, {b"ann": value(5)})
    changelog.forget(0)
    await changelog.confirm(producer, appends)
    assert log.read == []
    assert changelog.last_known == {}
