"""Restore the stores after a rebalance, then resume without losing events in between.

The defects in Faust 0.15.3 (`Recovery`, tables/recovery.py):

- `on_recovery_completed` resumes the source partitions while the flow runs, seeks, and then clears every stream queue.
  Records that were fetched in between are lost, and the next commit skips them. Here the drain loop is parked first,
  and the flow resumes last;
- `Consumer.wait_for_stopped_flow` does not wait (`_wait_next_records`, transport/consumer.py, sets its event instead of
  clearing it). Here `BatchConsumer.parked` is awaited;
- the assignor may assign source partitions to a new worker without their changelog partitions. It then starts with an
  empty store and reports "ready". Here the source partitions determine what is restored;
- records are restored one by one in Python, about 4,000/s. Here whole fetches are restored, about 100,000/s;
- the last record of a key wins, even if a worker wrote it that had lost the partition. Here values are merged by their
  applied offset;
- a damaged store crashes the worker at every start. Here it is deleted and restored, also during a restore and while
  the worker serves. So is a store of another changelog: a copied folder, or a changelog that was re-created.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.types import TP
from mode import Service

from stream.faust_patches.changelog import Changelog
from stream.faust_patches.delivery import BatchApp
from stream.faust_patches.stores import StoreDamaged, StoreFailed, StoreIdentity, StoreNotWritable
from stream.process.retrying import Retries, is_transient
from stream.source.log_reader import log_reader, read_stretch
from stream.source.topic_identity import TopicIdentities, read_topic_identities
from stream.stages.sending import NotSent

log = logging.getLogger(__name__)
RESTORE_ATTEMPTS = 3  # of one partition whose store is damaged each time: then the disk is broken, not the store
STORE_RETRY_S = 5.0  # a full disk takes a while to clear
T = TypeVar("T")


class BatchRecovery(Recovery):
    """Faust's recovery service with its one task replaced."""

    logger = logging.getLogger("faust.tables.recovery.batches")

    app: BatchApp
    tables: BatchTableManager
    _drain_first = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.retries = Retries("restore")

    def restore_again(self) -> None:
        """Start another restore without a rebalance, after a store failed."""
        self._drain_first = True
        self.signal_recovery_start.set()

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(cast(Any, self.signal_recovery_start)):
                break
            self.signal_recovery_start.clear()
            try:
                await self._restore_and_resume(self._generation_id)
            except RebalanceAgain:
                log.info("rebalanced again generation=%d", self._generation_id)
            except IllegalStateError as error:
                # the assignment changed; that rebalance starts the next restore
                log.info("rebalanced again while seeking: %s", error)
            except StoreNotWritable as failure:
                self.tables.store_failure = str(failure)
                log.error("restore failed, retrying: %s", failure)
                await self._pause(STORE_RETRY_S)
                self.restore_again()
            except ServiceStopped:
                break
            except Exception as error:
                unsent = isinstance(error, NotSent) and not isinstance(error, StoreFailed)
                if not (unsent or is_transient(error)):
                    raise
                # retry, unless a rebalance starts a restore: a worker cannot serve without one
                await self._pause(self.retries.failed(error))
                self.signal_recovery_start.set()

    async def _pause(self, seconds: float) -> None:
        """Wait, unless a rebalance starts the next restore or the service ends."""
        # not wait_for_stopped with a timeout: after it that returns "stopped", and no restore would follow
        await self.wait_first(asyncio.ensure_future(asyncio.sleep(seconds)), cast(Any, self.signal_recovery_start))

    async def start_over(self) -> None:
        """Restore, seek and resume without a rebalance. Batches in process are finished first."""
        await self.app.batch_consumer.wait_empty()
        self._generation_id = self.app.consumer_generation_id
        self.signal_recovery_start.set()

    async def _restore_and_resume(self, generation: int) -> None:
        app, started = self.app, time.monotonic()
        consumer = app.batch_consumer
        consumer.stop_flow()
        app.flow_control.suspend()
        await self._unless_interrupted(consumer.parked.wait())
        if self._drain_first:  # otherwise Faust did, at the revocation
            self._drain_first = False
            await self._unless_interrupted(consumer.wait_empty())
        self._set_recovery_started()
        self.completed.clear()
        topics = [changelog.topic for changelog, _ in self.tables.changelogs]
        identities = await self._unless_interrupted(read_topic_identities(topics, app.client_options))
        restored = 0
        for changelog, source in self.tables.changelogs:
            async with changelog.lock:
                restored += await self._unless_interrupted(self._restore(changelog, source, identities))
        self.tables.store_failure = ""
        self._set_recovery_ended()
        if app.consumer_generation_id != generation:
            raise RebalanceAgain
        await self._unless_interrupted(consumer.perform_seek())
        assigned = consumer.assignment()
        consumer.resume_partitions({tp for tp in assigned if tp.topic not in self.tables.changelog_topics})
        app.flow_control.resume()
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        if app.rebalancing:  # not after a topic change or a failed store
            app.on_rebalance_end()
        self.completed.set()
        self.retries.succeeded()
        self.tables.on_ready(time.monotonic() - started)
        log.info(
            "ready generation=%d partitions=%s restored=%d duration_s=%.2f",
            *(generation, sorted({tp.partition for tp in assigned if tp.topic in app.sources})),
            *(restored, time.monotonic() - started),
        )

    async def _unless_interrupted(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a step, unless another rebalance or the end of the service comes first."""
        task = asyncio.ensure_future(coroutine)
        result = await self.wait_first(task, cast(Any, self.signal_recovery_start))
        if task.done() and not task.cancelled():
            return task.result()
        task.cancel()
        raise ServiceStopped() if result.stopped else RebalanceAgain()

    async def _restore(self, changelog: Changelog, source: str, identities: TopicIdentities) -> int:
        """Restore the stores of all assigned partitions of a source to the end of their changelog."""
        state_partitions = changelog.table.partitions  # the source may have more, which have no states
        assigned = self.app.consumer.assignment()
        partitions = sorted(tp.partition for tp in assigned if tp.topic == source and tp.partition < state_partitions)
        for gone in set(changelog.last_known) - set(partitions):
            changelog.forget(gone)
        if not partitions:
            return 0
        await changelog.settled(partitions)  # records that arrive after the ends are read would be missing in the store
        attempts: Counter[int] = Counter()
        overwritten: dict[int, dict[bytes, bytes]] = {p: {} for p in partitions}
        while True:
            try:
                restored = await self._restore_partitions(changelog, overwritten, identities)
            except StoreDamaged as damage:
                attempts[damage.partition] += 1
                if attempts[damage.partition] >= RESTORE_ATTEMPTS:
                    raise
                _delete(changelog, damage)
                overwritten[damage.partition] = {}
            else:
                self.tables.restore_remaining = 0
                return restored

    async def _restore_partitions(
        self, changelog: Changelog, overwritten: dict[int, dict[bytes, bytes]], identities: TopicIdentities
    ) -> int:
        """Merge each partition's changelog into its store; adds the values to republish to `overwritten`."""
        partitions = list(overwritten)
        restored = 0
        tps = [TopicPartition(changelog.topic, p) for p in partitions]
        async with log_reader(self.app.client_options) as reader:
            ends, begins = await reader.end_offsets(tps), await reader.beginning_offsets(tps)
            stretches = {}
            for tp in tps:
                held = held_up_to(changelog, tp.partition, ends[tp], identities)
                stretches[tp] = (max(held + 1, begins[tp]), ends[tp])
            self.tables.restore_remaining = sum(end - first for first, end in stretches.values())
            async for tp, records in read_stretch(reader, stretches):
                changelog.merge(tp.partition, records, overwritten[tp.partition])
                changelog.advance(tp.partition, records[-1].offset)
                restored += len(records)
                self.tables.restore_remaining -= len(records)
        producer = self.app.kafka_producer()
        republished = []
        for tp in tps:
            changelog.restored(tp.partition, ends[tp])
            # otherwise compaction would keep the stale record
            republished += await changelog.republish(producer, tp.partition, overwritten[tp.partition])
        for sent in republished:
            await sent.acked
        return restored


def held_up_to(changelog: Changelog, partition: int, end: int, identities: TopicIdentities) -> int:
    """Return the last changelog offset in a store, -1 if it is new or was of another changelog and is now deleted.

    Raises StoreDamaged, or StoreNotWritable while the disk is full.
    """
    stores, topic = changelog.stores, changelog.topic
    if isinstance(stores.failed.get(partition), StoreNotWritable):
        stores.reopen(partition)  # a failed handle stays failed even after space was freed
    expected = StoreIdentity(identities.cluster_id, topic, identities.topic_id(topic), partition)
    known, held = stores.identity(partition), stores.offset(partition)
    wrong = ""
    if known is not None and known.contradicts(expected):
        wrong = f"store is of another changelog and will be restored is_of={known} expected={expected}"
    elif held is not None and held >= end:
        wrong = f"store is ahead of its changelog and will be restored at={held} end={end}"
    if wrong:
        log.error("%s topic=%s partition=%d", wrong, topic, partition)
        stores.delete(partition)
        known = held = None
    if known is None or known.knows_less_than(expected):
        stores.set_identity(partition, expected)  # the first entry of a new store; older releases wrote none
    return -1 if held is None else held


def _delete(changelog: Changelog, damage: StoreDamaged) -> None:
    log.error(
        "store is damaged and will be restored topic=%s partition=%d error=%s",
        changelog.topic,
        damage.partition,
        damage,
    )
    changelog.stores.delete(damage.partition)


class BatchTableManager(TableManager):
    """Faust's table manager with BatchRecovery. `changelogs` are the tables' changelogs and their source topics."""

    logger = logging.getLogger("faust.tables.manager.batches")

    app: BatchApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.changelogs: list[tuple[Changelog, str]] = []
        self.restore_remaining = 0  # records that a restore has not read yet
        self.store_failure = ""  # why a store can't be written
        self.on_ready: Callable[[float], None] = lambda seconds: None  # called with a rebalance's duration
        self._source_topics: list[Any] = []

    @property
    def recovery(self) -> BatchRecovery:
        """Return the recovery service, created once."""
        if self._recovery is None:
            self._recovery = BatchRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast(BatchRecovery, self._recovery)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Delete damaged stores before Faust opens them: it would crash the worker."""
        log.info(
            "assigned generation=%d partitions=%s gained=%s lost=%s",
            *(generation_id, *(self._of_sources(tps) for tps in (assigned, newly_assigned, revoked))),
        )
        for changelog, source in self.changelogs:
            gained = {tp.partition for tp in newly_assigned if tp.topic in (changelog.topic, source)}
            for partition in (p for p in gained if p < changelog.table.partitions):
                try:
                    changelog.stores.offset(partition)
                except StoreDamaged as damage:
                    _delete(changelog, damage)
                except Exception as error:
                    # a full disk, or a lock of a process that is about to end, which Faust waits for
                    log.warning("store open failed, retrying topic=%s error=%s", changelog.topic, error)
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    def _of_sources(self, tps: set[TP]) -> list[int]:
        return sorted({tp.partition for tp in tps if tp.topic in self.app.sources})

    async def _update_channels(self) -> None:
        if not self._source_topics:
            # before the tables' topics: the assignor must see source and changelog in the first subscription
            self._source_topics = [
                self.app.topic(topic, key_type=bytes, value_type=bytes, value_serializer="raw")
                for topic in self.app.sources
            ]
            for topic in self._source_topics:
                self.app.topics.add(topic)
        await super()._update_channels()
