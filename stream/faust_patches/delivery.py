"""Deliver whole fetches to agents, in order and without holes. Only finished batches are committed.

The defects in Faust 0.15.3:

- each record costs four asyncio tasks (`Consumer._drain_messages` and `Service.wait_first`, transport/consumer.py).
  Here a fetch passes as one item through a channel to an ordinary agent: 40 times the throughput;
- out-of-order acks lose events (`Consumer._new_offset`, transport/consumer.py). Here a partition has one number, the
  offset after the last finished batch;
- a revocation drops the acks before the commit (`Consumer.on_partitions_revoked`). Here they are kept for it;
- `Consumer.wait_empty` has no timeout. Here it has one;
- a stop during a rebalance ends as a crash (`Fetcher._fetcher`, transport/consumer.py). Here it is a clean stop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, cast

import aiokafka
import faust
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.faust_patches.group_member import MemberConsumer, PatientProducer
from stream.source.batches import Batch as Batch
from stream.source.batches import Source as Source
from stream.source.continuity import Continuity
from stream.source.record_batches import Stretch, end_of

log = logging.getLogger(__name__)

IN_FLIGHT = 3  # batches: one awaits acks, one is decided, one waits. A rebalance discards them
GATHERED_BYTES = 2 * 2**20  # of one batch of a gathered topic: 40,000 transitions, folded in about a second
RECORD_BYTES = 256  # Python's overhead per record beside its value
SMALLEST_SHARE = 1 / 512  # of a full batch, after many requeues: single events
GATHER_REST = 1.0  # a gathered topic rests this many times as long as its last batch took: events come first
COMMIT_TIMEOUT_S = 3.0  # aiokafka retries forever, even after it has left the group for a stop
POLL_S = 0.5  # an idle fetch ends after this time; parking takes as long
CROWDED_POLL_S = 0.02  # timeout of a fetch while one topic has no room, so that it is soon read again


class BatchConsumer(MemberConsumer):
    """A Faust consumer that hands whole fetches to the channels of `BatchApp.sources`."""

    # a logger of Faust's, so that its lines are not ours. mode replaces loggers by the names that it knows
    logger = logging.getLogger("faust.transport.consumer.batches")

    app: BatchApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reset_positions()

    def reset_positions(self) -> None:
        """Start without positions. The first restore sets them."""
        self.expected: dict[TP, int] = {}
        self.next_to_begin: dict[TP, int] = {}
        self.next_to_finish: dict[TP, int] = {}
        self.committed: dict[TP, int] = {}
        self.continuity = Continuity(self._seek_to, lambda: self.app.on_hole(), lambda: self.app.client_options)
        self._finished_at: dict[TP, float] = {}  # the broker's time of the last finished record
        self._queued: Counter[str] = Counter()  # by topic
        self._gather_from: dict[str, float] = {}  # time.monotonic()
        self._in_process: list[Batch] = []
        self._round = 0
        self._void: set[int] = set()  # ids of batches in process that will be read again
        self._share: dict[str, float] = {}  # by topic: of a full batch, reduced after requeues
        self._assigned_at = 0.0  # time.monotonic()
        self._draining = False
        self._drain_until = 0.0
        self._changed = asyncio.Event()
        self.parked = asyncio.Event()
        self.parked.set()

    # -- fetching ---------------------------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                if not self.flow_active:
                    self.parked.set()
                    await self.wait(cast(Any, self.can_resume_flow))
                    continue
                self.parked.clear()
                active = self._get_active_partitions()
                if not active:
                    await self.sleep(0.05)
                    continue
                await self._fetch_prompt(active)
                await self._gather(active)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not fetcher.should_stop:
                raise  # otherwise the end of this task, which Faust would treat as a crash during a rebalance
        finally:
            self.parked.set()

    async def _fetch_prompt(self, active: set[TP]) -> None:
        """Fetch from the topics that are not gathered and have room for a batch."""
        prompt = {topic for topic, source in self.app.sources.items() if not source.gathered_s}
        roomy = {topic for topic in prompt if self._has_room(topic)}
        if not roomy:
            await self._wait_for_change(POLL_S)
            return
        due_s = [
            # a due topic without room is checked again soon, not in a busy loop
            self._gather_from.get(topic, 0.0) - time.monotonic() if self._has_room(topic) else CROWDED_POLL_S
            for topic, source in self.app.sources.items()
            if source.gathered_s
        ]
        timeout_s = max(0.0, min([POLL_S if roomy == prompt else CROWDED_POLL_S, *due_s]))
        wanted = {tp for tp in active if tp.topic in roomy}
        if not wanted:
            await self.sleep(timeout_s)
            return
        fetched = await self._fetch(wanted, timeout_s)
        if fetched and self.flow_active:
            await self._hand_over(fetched)

    async def _gather(self, active: set[TP]) -> None:
        """Fetch all available records of each gathered topic whose interval has passed."""
        for topic, source in self.app.sources.items():
            now = time.monotonic()
            if not source.gathered_s or now < self._gather_from.get(topic, 0.0):
                continue
            wanted = {tp for tp in active if tp.topic == topic}
            if not wanted or not self._has_room(topic):
                continue
            self._gather_from[topic] = now + source.gathered_s
            gathered: dict[TP, Stretch] = {}
            held = 0
            while held < GATHERED_BYTES * self._share.get(topic, 1.0) and self.flow_active:
                fetched = await self._fetch(wanted, 0.0)
                if not fetched:
                    break
                for tp, records in fetched.items():
                    # after a seek, records that do not follow are skipped, and so is the next fetch
                    gathered.setdefault(tp, Stretch(records.begin)).append_stretch(records)
                    held += sum(RECORD_BYTES + len(record.value or b"") for record in records)
            if gathered and self.flow_active:
                await self._hand_over(gathered)

    async def _fetch(self, wanted: set[TP], timeout_s: float) -> Mapping[Any, Stretch]:
        return cast(Mapping[Any, Stretch], await self._getmany(active_partitions=wanted, timeout=timeout_s))

    def _has_room(self, topic: str) -> bool:
        return self._queued[topic] + sum(batch.topic == topic for batch in self._in_process) < IN_FLIGHT

    async def _hand_over(self, fetched: Mapping[Any, Stretch]) -> None:
        generation = self.app.consumer_generation_id
        batches: dict[str, Batch] = {}
        for aio_tp, stretch in fetched.items():
            tp = TP(aio_tp.topic, aio_tp.partition)
            expected = self.expected.get(tp)
            if tp.topic not in self.app.sources or not await self.continuity.follows(tp, expected, stretch):
                continue
            if not len(stretch):
                self.continuity.passed(tp, self.expected[tp], stretch.end)
                continue
            batch = batches.setdefault(tp.topic, Batch(tp.topic, generation, time.monotonic(), {}, {}, self._round))
            batch.starts[tp], batch.records[tp] = self.expected[tp], stretch
            self.expected[tp] = stretch.end
        if not self.flow_active:
            return  # a rebalance began while a hole was checked; it will seek
        for topic, batch in batches.items():
            self._queued[topic] += 1
            # not put(): it waits while the flow is suspended, and the restore that resumes it waits for this loop
            for subscriber in cast(Any, self.app.sources[topic].channel)._subscribers:
                subscriber.queue.put_nowait(batch)

    async def _seek_to(self, tp: TP, offset: int) -> None:
        try:
            await self._seek(tp, offset)
        except IllegalStateError:
            log.info("seek skipped, partition was revoked topic=%s partition=%d", *tp)

    # -- batches of the agents --------------------------------------------------------------------------------------

    async def begin(self, batch: Batch) -> bool:
        """Return whether a batch may be processed: it belongs to this assignment and is the next one."""
        self._queued[batch.topic] = max(0, self._queued[batch.topic] - 1)
        self._changed.set()
        if self._draining or self.app.rebalancing or not self.valid(batch):
            return False  # a seek follows, or was done
        if any(self.next_to_begin.get(tp) != start for tp, start in batch.starts.items()):
            await self._read_again(batch.starts)  # an earlier batch was requeued
            return False
        self._in_process.append(batch)
        self.next_to_begin.update(batch.ends)
        return True

    def valid(self, batch: Batch) -> bool:
        """Return whether a batch belongs to this assignment and is not read again. Any thread may call this."""
        current = batch.generation == self.app.consumer_generation_id and batch.round == self._round
        return current and id(batch) not in self._void

    def may_send(self, batch: Batch) -> bool:
        """Return whether a batch is valid and this member's session has not timed out.

        After a long pause another worker may own these partitions. The batch's age does not count: a slow worker whose
        heartbeats arrive continues.
        """
        alive_at = max(self._assigned_at, self._heartbeat_at())
        return self.valid(batch) and time.monotonic() - alive_at < self.app.conf.broker_session_timeout

    def _heartbeat_at(self) -> float:
        member = self.thread.member
        return member.heartbeat_at if member else 0.0

    def finished(self, batch: Batch) -> None:
        """Record that a batch is stored and acked. Its offsets are committed once all earlier ones are finished."""
        valid = self.valid(batch)
        self._leave(batch)
        if batch.topic in self._gather_from:
            now = time.monotonic()
            rested = now + GATHER_REST * (now - batch.fetched_at)
            self._gather_from[batch.topic] = max(self._gather_from[batch.topic], rested)
        if not valid:
            return
        self._share[batch.topic] = min(1.0, 2 * self._share.get(batch.topic, 1.0))
        self._bound_fetches()
        for tp, records in batch.records.items():
            if self.next_to_finish[tp] == batch.starts[tp]:
                self.next_to_finish[tp] = end_of(records)
                self._finished_at[tp] = records[-1].timestamp / 1000

    async def requeue(self, batch: Batch) -> None:
        """Read an unfinished batch and all later ones again, in smaller batches in case it was too large."""
        valid = self.valid(batch)
        self._leave(batch)
        if not valid:
            return  # a rebalance seeks, or an earlier batch was requeued and both are read again
        again = dict(batch.starts)
        for other in self._in_process:  # in the order that they began in
            if any(start >= again[tp] for tp, start in other.starts.items() if tp in again):
                self._void.add(id(other))
                again = {**other.starts, **again}
        self._share[batch.topic] = max(SMALLEST_SHARE, self._share.get(batch.topic, 1.0) / 2)
        self._bound_fetches()
        self.next_to_begin.update(again)
        await self._read_again(again)

    def _bound_fetches(self) -> None:
        """Limit a fetch's records by the smallest share of all topics."""
        full: int = self.app.conf.broker_max_poll_records
        self.thread._ensure_consumer()._max_poll_records = max(1, int(full * min(self._share.values(), default=1.0)))

    def _leave(self, batch: Batch) -> None:
        # also batches of an earlier generation: a rebalance and a stop wait for them
        self._in_process = [other for other in self._in_process if other is not batch]
        self._void.discard(id(batch))
        self._changed.set()

    async def _read_again(self, tps: Iterable[TP]) -> None:
        for tp in tps:
            self.expected[tp] = self.next_to_begin[tp]
            await self._seek_to(tp, self.expected[tp])

    async def _wait_for_change(self, timeout_s: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    # -- positions and commits --------------------------------------------------------------------------------------

    async def perform_seek(self) -> None:
        """Seek to the committed offsets and discard all batches; raises IllegalStateError if the assignment moved.

        `BatchApp.starts_of` returns the offsets, since the log may not be the one that was committed.
        """
        assigned = {tp for tp in self.assignment() if tp.topic in self.app.sources}
        starts = await self.app.starts_of(assigned) if assigned else {}
        for tp in assigned:
            await self._seek(tp, starts[tp])
        self.expected = dict(starts)
        self.next_to_begin = dict(starts)
        self.next_to_finish = dict(starts)
        self.committed = dict(starts)
        # a worker that never finishes a batch lags, too: from now on
        self._finished_at = {tp: self._finished_at.get(tp, time.time()) for tp in starts}
        self.continuity.forget()
        self._queued.clear()
        self._in_process.clear()
        self._void.clear()
        self._round += 1
        self._assigned_at = time.monotonic()
        self._draining = False
        self._changed.set()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Accept no further batch. Faust then calls `wait_empty`."""
        self._begin_to_drain()
        await super().on_partitions_revoked(revoked)

    async def wait_empty(self) -> None:
        """Wait until the batches in process are finished, at most the drain timeout, then commit."""
        self._begin_to_drain()  # Faust calls this twice at a stop
        while self._in_process and not self.app.crashed and time.monotonic() < self._drain_until:
            await self._wait_for_change(0.1)
        if self._in_process:
            log.warning("drain timeout, %d unfinished batches will be delivered again", len(self._in_process))
        await self.commit()

    def _begin_to_drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._drain_until = time.monotonic() + self.app.drain_timeout_s

    def lag(self, now: float) -> dict[TP, tuple[int, float]]:
        """Return each partition's unfinished records and the age of the last finished one in s (0 without lag)."""
        lags: dict[TP, tuple[int, float]] = {}
        for tp in self.next_to_finish:
            try:
                highwater = self.highwater(tp)
            except AssertionError:  # aiokafka raises this for a partition that was just revoked
                continue
            records = max(0, (highwater or 0) - self._done_up_to(tp))
            lags[tp] = records, max(0.0, now - self._finished_at.get(tp, now)) if records else 0.0
        return lags

    def _done_up_to(self, tp: TP) -> int:
        """Return the offset after the last finished batch and the transaction markers that follow it."""
        return self.continuity.after_empty(tp, self.next_to_finish[tp])

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit the offset after the last finished batch of each partition."""
        assigned = self.assignment()
        offsets = {
            tp: offset
            for tp in self.next_to_finish
            if tp in assigned and (offset := self._done_up_to(tp)) > self.committed.get(tp, -1)
        }
        if not offsets:
            return False
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                if not await self._commit(offsets):
                    return False
        except TimeoutError:
            self.log.warning("commit timeout, its events will be delivered again")
            return False
        self.committed.update(offsets)
        return True


class Transport(driver.Transport):
    """Faust's aiokafka transport with our consumer and producer."""

    Consumer = BatchConsumer
    Producer = PatientProducer


class BatchApp(faust.App):
    """A Faust app whose source topics are delivered in batches."""

    logger = logging.getLogger("faust.app")
    sources: dict[str, Source]
    on_hole: Callable[[], None]  # called for each confirmed hole in the log
    on_starting: Callable[[], None]
    starts_of: Callable[[set[TP]], Awaitable[dict[TP, int]]]  # the offset to read each assigned partition from
    epoch_of: Callable[[str, int], int]  # how often the offsets of an assigned partition restarted
    forwarding_topics: Collection[str] = ()  # source topics that may have more partitions than the changelogs
    client_options: dict[str, Any]
    drain_timeout_s: float = 10.0

    @property
    def batch_consumer(self) -> BatchConsumer:
        """Return the consumer with its type."""
        return cast(BatchConsumer, self.consumer)

    def kafka_producer(self) -> aiokafka.AIOKafkaProducer:
        """Return the client under Faust's producer, for whole record batches."""
        return cast(aiokafka.AIOKafkaProducer, cast(Any, self.producer)._ensure_producer())

    async def on_start(self) -> None:
        """Call `on_starting` before anything waits for a broker."""
        self.on_starting()
        await super().on_start()

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    _new_producer_transport = _new_transport
