"""The bookkeeping of batches: what may begin, what counts as finished, what is read again."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from stream.faust_patches.delivery import (
    CROWDED_POLL_S,
    GATHERED_BYTES,
    IN_FLIGHT,
    POLL_S,
    Batch,
    BatchConsumer,
    Source,
)
from stream.source.record_batches import Stretch

TOPIC = "interactions"
A, B, C = TP(TOPIC, 0), TP(TOPIC, 1), TP(TOPIC, 2)


class Books(BatchConsumer):
    """A consumer without a broker: its positions, and the seeks that it would have made."""

    def __init__(self, at: dict[TP, int]) -> None:
        self.sought: list[tuple[TP, int]] = []
        self.app = SimpleNamespace(  # type: ignore[assignment]
            consumer_generation_id=1,
            rebalancing=False,
            conf=SimpleNamespace(broker_session_timeout=10.0, broker_max_poll_records=512),
            crashed=False,
        )
        self.client, self.member = SimpleNamespace(_max_poll_records=512), SimpleNamespace(heartbeat_at=0.0)
        self._thread = SimpleNamespace(member=self.member, _ensure_consumer=lambda: self.client)  # type: ignore[assignment]
        self.reset_positions()
        self._assigned_at = time.monotonic()
        for books in (self.expected, self.next_to_begin, self.next_to_finish, self.committed):
            books.update(at)

    async def _seek(self, partition: TP, offset: int) -> None:
        self.sought.append((partition, offset))


def batch(*stretches: tuple[TP, int, int], generation: int = 1, age_s: float = 0.0) -> Batch:
    """A batch of the offsets [first, end) of each partition."""
    records: dict[TP, Any] = {
        tp: [SimpleNamespace(offset=offset, timestamp=0) for offset in range(first, end)]
        for tp, first, end in stretches
    }
    starts = {tp: first for tp, first, _ in stretches}
    return Batch(TOPIC, generation, time.monotonic() - age_s, starts, records)


async def test_batches_in_line_begin_and_finish_one_after_the_other() -> None:
    books = Books({A: 0})
    first, second = batch((A, 0, 5)), batch((A, 5, 9))
    assert await books.begin(first)
    assert await books.begin(second)
    assert books._in_process
    assert books.next_to_finish == {A: 0}
    books.finished(first)
    assert books.next_to_finish == {A: 5}
    books.finished(second)
    assert books.next_to_finish == {A: 9}
    assert not books._in_process


async def test_a_batch_out_of_line_does_not_begin_and_is_read_from_where_the_line_ends() -> None:
    books = Books({A: 0, B: 3})
    books.expected = {A: 9, B: 6}
    assert not await books.begin(batch((A, 5, 9), (B, 3, 6)))
    assert books.sought == [(A, 0), (B, 3)]
    assert books.expected == {A: 0, B: 3}


async def test_a_requeued_batch_and_all_later_ones_are_read_again() -> None:
    books = Books({A: 0, B: 0, C: 0})
    first, second = batch((A, 0, 5)), batch((A, 5, 9), (B, 0, 4))
    third, apart = batch((B, 4, 6)), batch((C, 0, 3))
    for one in (first, second, third, apart):
        assert await books.begin(one)
    await books.requeue(first)
    assert sorted(books.sought) == [(A, 0), (B, 0)], "what follows through a batch of both partitions, too"
    assert [books.may_send(one) for one in (second, third, apart)] == [False, False, True]
    await books.requeue(second)
    books.finished(third)
    books.finished(apart)
    assert books.next_to_finish == {A: 0, B: 0, C: 3}
    assert sorted(books.sought) == [(A, 0), (B, 0)], "they were read again already"
    assert await books.begin(batch((A, 0, 9), (B, 0, 6)))


async def test_a_batch_before_a_requeued_one_continues() -> None:
    books = Books({A: 0})
    first, second = batch((A, 0, 5)), batch((A, 5, 9))
    assert await books.begin(first)
    assert await books.begin(second)
    await books.requeue(second)
    assert books.sought == [(A, 5)]
    assert books.may_send(first)
    again = batch((A, 5, 7))
    assert await books.begin(again)
    books.finished(first)
    books.finished(again)
    assert books.next_to_finish == {A: 7}


async def test_a_requeued_batch_is_read_again_in_smaller_batches() -> None:
    books = Books({A: 0})
    for size in (256, 128):
        given = batch((A, 0, 5))
        assert await books.begin(given)
        await books.requeue(given)
        assert books.client._max_poll_records == size
    for size in (256, 512, 512):
        start = books.next_to_finish[A]
        done = batch((A, start, start + 5))
        assert await books.begin(done)
        books.finished(done)
        assert books.client._max_poll_records == size


async def test_nothing_begins_amid_a_rebalance_or_from_before_one() -> None:
    books = Books({A: 0})
    assert not await books.begin(batch((A, 0, 5), generation=0))
    books.app.rebalancing = True
    assert not await books.begin(batch((A, 0, 5)))
    assert books.sought == [], "the rebalance seeks"


async def test_what_an_earlier_generation_finished_is_not_committed() -> None:
    books = Books({A: 0})
    old = batch((A, 0, 5))
    assert await books.begin(old)
    books.app.consumer_generation_id = 2
    books.finished(old)
    assert books.next_to_finish == {A: 0}
    assert not books._in_process


async def test_an_old_batch_is_sent_while_heartbeats_are_answered() -> None:
    books = Books({A: 0})
    given = batch((A, 0, 5), age_s=1000.0)
    assert await books.begin(given)
    assert books.may_send(given)
    books._assigned_at -= 1000.0
    books.member.heartbeat_at = time.monotonic() - 9.0
    assert books.may_send(given)
    books.member.heartbeat_at = time.monotonic() - 11.0
    assert not books.may_send(given), "we were paused: another worker may have our partitions"


async def test_a_restore_within_a_generation_ends_what_was_in_process() -> None:
    class Assigned(Books):
        def assignment(self) -> set[TP]:
            return set()

    books = Assigned({A: 0})
    given = batch((A, 0, 5))
    assert await books.begin(given)
    await books.perform_seek()
    assert not books.may_send(given)


async def test_a_hole_begins_where_the_line_ends() -> None:
    books = Books({A: 5})
    records: dict[TP, Any] = {A: [SimpleNamespace(offset=8, timestamp=0)]}
    assert await books.begin(Batch(TOPIC, 1, time.monotonic(), {A: 5}, records))
    assert books.next_to_begin == {A: 9}


async def test_a_worker_that_finishes_nothing_lags_from_its_assignment_on() -> None:
    class Assigned(Books):
        def assignment(self) -> set[TP]:
            return {A}

        def highwater(self, tp: TP) -> int:
            return 9

    books = Assigned({})
    books.app.sources = {A.topic: None}  # type: ignore[dict-item]

    async def starts_of(assigned: set[TP]) -> dict[TP, int]:
        return dict.fromkeys(assigned, 5)

    books.app.starts_of = starts_of
    began = time.time()
    await books.perform_seek()
    [(records, seconds)] = books.lag(began + 100.0).values()
    assert records == 4
    assert seconds == pytest.approx(100.0, abs=2.0)


async def test_a_topic_that_is_due_and_has_no_room_is_not_asked_for_without_a_pause() -> None:
    waited: list[float] = []

    class Asked(Books):
        async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
            waited.append(timeout)
            assert active_partitions == {A}
            return {}

    books = Asked({A: 0})
    books.app.sources = {TOPIC: Source(cast(Any, None)), "transitions": Source(cast(Any, None), gathered_s=1.0)}
    await books._fetch_prompt({A, TP("transitions", 0)})
    books._queued["transitions"] = IN_FLIGHT
    await books._fetch_prompt({A, TP("transitions", 0)})
    books._queued["transitions"], books._gather_from["transitions"] = 0, time.monotonic() + 100.0
    await books._fetch_prompt({A, TP("transitions", 0)})
    assert waited == [0.0, CROWDED_POLL_S, POLL_S]


async def test_what_is_gathered_is_bounded_by_its_bytes() -> None:
    handed: list[int] = []

    class Endless(Books):
        read_to = 0

        async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
            fetched = {}
            for tp in active_partitions:
                fetched[tp] = Stretch(self.read_to)
                fetched[tp].append(cast(Any, SimpleNamespace(value=bytes(GATHERED_BYTES // 3))))
                fetched[tp].end = self.read_to = self.read_to + 1
            return fetched

        async def _hand_over(self, fetched: Any) -> None:
            handed.extend(len(records) for records in fetched.values())

    books = Endless({A: 0})
    books.app.sources = {TOPIC: Source(cast(Any, None), gathered_s=1.0)}
    await books._gather({A})
    assert handed == [3]


class Reading(Books):
    """A consumer that is handed fetches, with its batches and the holes it believed."""

    def __init__(self, at: dict[TP, int], end: int = 100) -> None:
        super().__init__(at)
        self.batches: list[Batch] = []
        self.holes = 0
        self.end = end
        queue = SimpleNamespace(put_nowait=self.batches.append)
        channel = SimpleNamespace(_subscribers=[SimpleNamespace(queue=queue)])
        self.app.sources = {TOPIC: Source(cast(Any, channel))}
        self.app.on_hole = self._count_hole
        self.flow_active = True

    def _count_hole(self) -> None:
        self.holes += 1

    def highwater(self, tp: TP) -> int:
        return self.end

    def assignment(self) -> set[TP]:
        return {A}

    async def _commit(self, offsets: dict[TP, int]) -> bool:
        return True

    async def fetched(self, begin: int, end: int, *offsets: int, holes: tuple[tuple[int, int], ...] = ()) -> None:
        stretch = Stretch(begin)
        stretch.extend(cast(Any, SimpleNamespace(offset=offset, timestamp=0)) for offset in offsets)
        stretch.end = end
        stretch.holes = list(holes)
        await self._hand_over({A: stretch})

    async def finish_all(self) -> None:
        for one in self.batches:
            assert await self.begin(one)
            self.finished(one)
        self.batches.clear()


async def test_markers_of_transactions_are_passed_without_a_seek_or_a_hole() -> None:
    books = Reading({A: 0}, end=11)
    await books.fetched(0, 3, 0, 1)  # a marker at 2
    await books.fetched(3, 4)  # a marker alone
    await books.fetched(4, 5)
    await books.fetched(5, 9, 6, 7)  # markers around records
    await books.fetched(9, 11)  # aborted records and their marker
    assert [(given.starts[A], given.ends[A]) for given in books.batches] == [(0, 3), (3, 9)]
    assert books.lag(0.0)[A][0] == 11
    await books.finish_all()
    assert books.lag(0.0)[A] == (0, 0.0)
    assert await books.force_commit()
    assert books.committed == {A: 11}
    assert (books.sought, books.holes) == ([], 0)


async def test_markers_behind_a_batch_that_is_not_finished_are_not_committed() -> None:
    books = Reading({A: 0}, end=11)
    await books.fetched(0, 3, 0, 1)
    await books.fetched(3, 11)
    assert not await books.force_commit()
    assert books.lag(0.0)[A][0] == 11
    (given,) = books.batches
    assert await books.begin(given)
    await books.requeue(given)
    assert books.sought == [(A, 0)]
    books.batches.clear()
    await books.fetched(0, 3, 0, 1)
    await books.fetched(3, 11)
    await books.finish_all()
    assert books.lag(0.0)[A] == (0, 0.0)


async def test_an_open_transaction_is_lag() -> None:
    books = Reading({A: 0}, end=20)
    await books.fetched(0, 3, 0, 1)
    await books.finish_all()
    assert books.lag(0.0)[A][0] == 17


async def test_what_the_broker_had_nothing_for_is_counted_and_passed() -> None:
    books = Reading({A: 0})
    await books.fetched(0, 9, 4, 8, holes=((0, 3), (5, 7)))
    assert books.holes == 2
    await books.finish_all()
    assert books.next_to_finish == {A: 9}


async def test_a_fetch_that_does_not_follow_is_sought_again() -> None:
    books = Reading({A: 0})
    await books.fetched(0, 3, 0, 1)
    await books.fetched(3, 5)
    await books.fetched(7, 9, 7, 8)
    assert books.sought == [(A, 5)]
    await books.fetched(5, 9, 5, 6, 7, 8)
    await books.fetched(0, 3, 0, 1)  # of before a seek
    assert books.sought == [(A, 5), (A, 9)]
    assert [given.ends[A] for given in books.batches] == [3, 9]
