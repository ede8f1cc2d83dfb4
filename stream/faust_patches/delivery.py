"""Whole fetches to agents, in order, without holes; only what is finished is committed.

What it mends, and where Faust 0.15.3 has it:

- four asyncio tasks a record (`Consumer._drain_messages` and `Service.wait_first`, transport/consumer.py): a fetch goes
  as one item through a channel to an ordinary agent, 40 times the throughput;
- acks out of order lose events (`Consumer._new_offset`, transport/consumer.py): here a partition has one number, the
  offset after the last finished batch;
- acks are forgotten before the commit at a revocation (`Consumer.on_partitions_revoked`): here they wait for it;
- `Consumer.wait_empty` has no bound in time: here it has;
- a stop amid a rebalance ends as a crash (`Fetcher._fetcher`, transport/consumer.py): here in good order.
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
from stream.source.batches import Batch as Batch  # for all who have it from here
from stream.source.batches import Source as Source
from stream.source.continuity import Continuity
from stream.source.record_batches import Stretch, end_of

log = logging.getLogger(__name__)

IN_FLIGHT = 3  # one awaits its acks, one is decided, one waits: more would only grow what a rebalance throws away
GATHERED_BYTES = 2 * 2**20  # of a topic that is gathered: 40,000 transitions, folded in a second or so
RECORD_BYTES = 256  # of a record beside its value, in Python: one without a value counts, too
SMALLEST_SHARE = 1 / 512  # of a batch that is read again and again: some single events
GATHER_REST = 1.0  # such a topic rests for so many times as long as its last batch took: it is not what is waited for
COMMIT_TIMEOUT_S = 3.0  # aiokafka tries for ever, even when it has given up its group in order to stop
POLL_S = 0.5  # an idle fetch ends after so long, which is also how long parking may take
CROWDED_POLL_S = 0.02  # as long as one topic has no room: it is not asked for, and must not wait long for the others


class BatchConsumer(MemberConsumer):
    """A Faust consumer that hands whole fetches to the channels of `BatchApp.sources`."""

    # what Faust says of it is Faust's, not ours; by a name that mode has not marked as its own, which it would replace
    logger = logging.getLogger("faust.transport.consumer.batches")

    app: BatchApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keep_books()

    def keep_books(self) -> None:
        """Begin without any position: the first restore says where to read from."""
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
        self._share: dict[str, float] = {}  # by topic: of a full batch, after batches that had to be read again
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
                raise  # else the end of this task, not an error: Faust would call it a crash amid a rebalance
        finally:
            self.parked.set()

    async def _fetch_prompt(self, active: set[TP]) -> None:
        """Fetch what is to come at once, from the topics that have room for it."""
        prompt = {topic for topic, source in self.app.sources.items() if not source.gathered_s}
        roomy = {topic for topic in prompt if self._has_room(topic)}
        if not roomy:
            await self._wait_for_change(POLL_S)
            return
        due_s = [
            # one that is due and has no room is looked at again soon, not at once and for ever
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
        """Fetch all there is of the topics that are gathered, where it is time to."""
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
                    # what does not follow, after a seek, is left out; the next fetch then does not follow either
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
            return  # a rebalance began while a hole was looked into; it will seek
        for topic, batch in batches.items():
            self._queued[topic] += 1
            # not put(): that waits while the flow is suspended, and the restore that resumes it waits for this loop
            for subscriber in cast(Any, self.app.sources[topic].channel)._subscribers:
                subscriber.queue.put_nowait(batch)

    async def _seek_to(self, tp: TP, offset: int) -> None:
        try:
            await self._seek(tp, offset)
        except IllegalStateError:
            log.info("partition was taken away before a seek topic=%s partition=%d", *tp)

    # -- what the agent says ----------------------------------------------------------------------------------------

    async def begin(self, batch: Batch) -> bool:
        """Tell whether a batch may be processed: it is of this assignment, and next in line."""
        self._queued[batch.topic] = max(0, self._queued[batch.topic] - 1)
        self._changed.set()
        if self._draining or self.app.rebalancing or not self.valid(batch):
            return False  # a seek follows, or has been
        if any(self.next_to_begin.get(tp) != start for tp, start in batch.starts.items()):
            await self._read_again(batch.starts)  # one before it was given back
            return False
        self._in_process.append(batch)
        self.next_to_begin.update(batch.ends)
        return True

    def valid(self, batch: Batch) -> bool:
        """Tell whether what a batch comes to counts: it is of this assignment, and is not read again; any thread."""
        current = batch.generation == self.app.consumer_generation_id and batch.round == self._round
        return current and id(batch) not in self._void

    def may_send(self, batch: Batch) -> bool:
        """Tell whether a batch is valid and the group still takes us for alive.

        After a long pause somebody else may write these partitions. How old the batch is says nothing: a slow worker
        goes on, as its heartbeats do.
        """
        heard_at = max(self._assigned_at, self._heartbeat_at())
        return self.valid(batch) and time.monotonic() - heard_at < self.app.conf.broker_session_timeout

    def _heartbeat_at(self) -> float:
        member = self.thread.member
        return member.heard_at if member else 0.0

    def finished(self, batch: Batch) -> None:
        """Take note that a batch is stored and acked: its offsets may be committed where none before it is missing."""
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

    async def give_back(self, batch: Batch) -> None:
        """Have a batch that was not done read again, and all after it; in smaller pieces, as it may be too much."""
        valid = self.valid(batch)
        self._leave(batch)
        if not valid:
            return  # a rebalance seeks, or one before it was given back and both are read again
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
        """Bound a fetch's records by the smallest share of all topics."""
        full: int = self.app.conf.broker_max_poll_records
        self.thread._ensure_consumer()._max_poll_records = max(1, int(full * min(self._share.values(), default=1.0)))

    def _leave(self, batch: Batch) -> None:
        # also those of an earlier generation: a rebalance, and a stop, wait for them
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
        """Begin again at what is committed, with nothing on its way; IllegalStateError if the assignment moved.

        Where the log is not the one that was committed of, `BatchApp.starts_of` says where to begin.
        """
        assigned = {tp for tp in self.assignment() if tp.topic in self.app.sources}
        starts = await self.app.starts_of(assigned) if assigned else {}
        for tp in assigned:
            await self._seek(tp, starts[tp])
        self.expected = dict(starts)
        self.next_to_begin = dict(starts)
        self.next_to_finish = dict(starts)
        self.committed = dict(starts)
        # a worker that never finishes a batch lags as well: from now on
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
        """Take no further batch into process; Faust then calls `wait_empty`."""
        self._begin_to_drain()
        await super().on_partitions_revoked(revoked)

    async def wait_empty(self) -> None:
        """Wait until the batches in process are finished, for at most the drain timeout; then commit."""
        self._begin_to_drain()  # unless it has: Faust calls this twice at a stop
        while self._in_process and not self.app.crashed and time.monotonic() < self._drain_until:
            await self._wait_for_change(0.1)
        if self._in_process:
            log.warning("%d batches are not finished, they will be delivered again", len(self._in_process))
        await self.commit()

    def _begin_to_drain(self) -> None:
        if not self._draining:
            self._draining = True
            self._drain_until = time.monotonic() + self.app.drain_timeout_s

    def busy(self, topic: str) -> bool:
        """Tell whether some batch of a topic has begun and is not finished."""
        return any(batch.topic == topic for batch in self._in_process)

    def lag(self, now: float) -> dict[TP, tuple[int, float]]:
        """Give each assigned partition's records not finished, and the age in s of the last finished (0: no lag)."""
        lags: dict[TP, tuple[int, float]] = {}
        for tp in self.next_to_finish:
            try:
                highwater = self.highwater(tp)
            except AssertionError:  # aiokafka's way to say that the partition was taken away a moment ago
                continue
            records = max(0, (highwater or 0) - self._done_up_to(tp))
            lags[tp] = records, max(0.0, now - self._finished_at.get(tp, now)) if records else 0.0
        return lags

    def _done_up_to(self, tp: TP) -> int:
        """Give the offset after the last finished batch, and after the markers of transactions that follow it."""
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
            self.log.warning("a commit was not answered; what it was for will be delivered again")
            return False
        self.committed.update(offsets)
        return True


class Transport(driver.Transport):
    """Faust's aiokafka transport with our consumer and producer."""

    Consumer = BatchConsumer
    Producer = PatientProducer


class BatchApp(faust.App):
    """A Faust app some of whose source topics come as batches."""

    logger = logging.getLogger("faust.app")
    sources: dict[str, Source]
    on_hole: Callable[[], None]  # told of each hole in the log that is believed
    on_starting: Callable[[], None]
    starts_of: Callable[[set[TP]], Awaitable[dict[TP, int]]]  # where to read each assigned partition on
    epoch_of: Callable[[str, int], int]  # how often offsets of an assigned partition began again
    forwarding_topics: Collection[str] = ()  # sources that may have more partitions than states are kept by
    client_options: dict[str, Any]
    drain_timeout_s: float = 10.0

    @property
    def batch_consumer(self) -> BatchConsumer:
        """Give the consumer as what it is."""
        return cast(BatchConsumer, self.consumer)

    def kafka_producer(self) -> aiokafka.AIOKafkaProducer:
        """Give the client under Faust's producer: whole record batches pass Faust by."""
        return cast(aiokafka.AIOKafkaProducer, cast(Any, self.producer)._ensure_producer())

    async def on_start(self) -> None:
        """Begin to observe before anything waits for a broker."""
        self.on_starting()
        await super().on_start()

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    _new_producer_transport = _new_transport
