"""Detect that a source topic was re-created or lost records, and continue with its new log.

A state holds the offset of the last applied event, and an event at or below it counts as redelivered. When a topic is
re-created, or its log got shorter, offsets repeat. So each partition has an epoch: it begins at 0 and increases by one
whenever offsets restart. States hold positions (`models.records.position`), which increase over all epochs. A mark with
the epoch and the topic's id is stored with the states, in their changelog, under keys that no user or item can have.

Where reading continues:

- nothing changed: at the committed offset. Records that retention deleted before they were read are logged as a hole;
- the topic has another id: at the beginning of the new log. The group's offset is reset before the new epoch is stored.
  Otherwise a crash in between would leave an old offset for the new log;
- the log ends before an offset that was read (a broker lost records, or was restored from a backup): after the last
  record that the states have applied. `transitions` restart at the beginning: redelivered ones are not counted twice.
  Here the epoch is stored first. Otherwise a crash in between would hide that the log was shorter.

Records of a new log that were read before the change was detected are applied twice if the new log is already longer
than the old position. The topic's id is checked every two seconds (stream/source/topic_watch.py).
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.errors import KafkaError as ClientError
from faust.types import TP
from kafka.errors import KafkaError

from models.records import MAX_EPOCH, BadRecord, Topics, decode_event, position
from models.users import state
from stream.faust_patches.changelog import Changelog
from stream.faust_patches.consumer_client import set_back
from stream.faust_patches.delivery import BatchApp
from stream.source.log_reader import Record, log_reader, read_stretch
from stream.source.topic_check import TopicFacts, TopicReader, TopicsNotReady, complaints
from stream.stages.sending import Append
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

LOG_KEY = b"\0log"
REQUESTS_KEY = b"\0requests"
RETRY_S = 1.0
CONFIRM_S = 1.0  # a shorter log is checked twice: a new leader may not know its end at once
LOOK_BACK = 1000  # records of a shorter log that are compared with the states at once
_HEADER = struct.Struct("<Bq")  # like a state's header: a restore keeps the value with the higher number
_PARTITIONS = struct.Struct("<I")
_VERSION = 1


class LogMark(NamedTuple):
    """The stored identity of a partition's log."""

    epoch: int
    topic_id: bytes  # b"" from a broker without topic ids
    partitions: int  # of the changelog at that time


class Verdict(Enum):
    """How a partition's log compares with its mark."""

    THE_SAME = "the same"
    RECREATED = "re-created"
    SHORTER = "shorter"


class Bounds(NamedTuple):
    """Offsets of one partition: the begin and end of its log, and the group's committed offset (0: none)."""

    earliest: int
    end: int
    committed: int


class Plan(NamedTuple):
    """How to continue with a partition."""

    tp: TP
    verdict: Verdict
    before: LogMark
    mark: LogMark
    reached: int
    start: int


def encode_mark(mark: LogMark) -> bytes:
    """Encode a mark so that a changelog's merge by applied offset keeps the higher epoch."""
    return _HEADER.pack(_VERSION, mark.epoch) + mark.topic_id + _PARTITIONS.pack(mark.partitions)


def decode_mark(value: bytes) -> LogMark:
    """Decode a mark; raises ValueError for another version."""
    version, epoch = _HEADER.unpack_from(value)
    if version != _VERSION:
        raise ValueError(f"a log mark of version {version}; this code reads version {_VERSION}")
    middle = len(value) - _PARTITIONS.size
    return LogMark(epoch, value[_HEADER.size : middle], _PARTITIONS.unpack_from(value, middle)[0])


def is_mark(key: bytes) -> bool:
    """Return whether a key of a store or changelog is a mark's, not a user's or an item's."""
    return key.startswith(b"\0")


def judge(mark: LogMark, topic_id: bytes, reached: int, end: int) -> Verdict:
    """Compare a log with its mark. Records were read up to `reached`, and the log now ends at `end`."""
    if mark.topic_id and topic_id and mark.topic_id != topic_id:
        return Verdict.RECREATED
    return Verdict.SHORTER if reached > end else Verdict.THE_SAME


class LogEpochs:
    """The epochs of the assigned partitions, determined between a restore and the first fetch."""

    def __init__(
        self,
        app: BatchApp,
        topics: Topics,
        facts: TopicFacts,
        reader: TopicReader,
        telemetry: Telemetry,
        user_states: Changelog,
        item_states: Changelog,
    ) -> None:
        """`facts` are those at the worker's start: the changelog's number of partitions must not change."""
        self._app = app
        self._topics = topics
        self._partitions = facts.partitions
        self._reader = reader
        self._telemetry = telemetry
        self._user_states = user_states
        self._kept_in = {
            topics.interactions: (user_states, LOG_KEY),
            topics.requests: (user_states, REQUESTS_KEY),
            topics.transitions: (item_states, LOG_KEY),
        }
        self._epochs: dict[tuple[str, int], int] = {}  # replaced as a whole: another thread reads it
        self.topic_ids: dict[str, bytes] = {}  # at the last start of reading
        self._reading = asyncio.Lock()

    def of(self, topic: str, partition: int) -> int:
        """Return the epoch of an assigned partition. Any thread may call this."""
        return self._epochs.get((topic, partition), 0)

    async def read_facts(self) -> TopicFacts:
        """Read the topics' facts from the broker; raises KafkaError or OSError."""
        async with self._reading:
            return await asyncio.to_thread(self._reader.read)

    async def starts(self, assigned: set[TP]) -> dict[TP, int]:
        """Return the offset to read each partition from; waits for brokers and topics, raises TopicsNotReady."""
        while True:
            try:
                return await self._starts(assigned)
            except CommitFailedError as error:
                raise IllegalStateError(f"the group rebalanced: {error}") from None
            except IllegalStateError:
                raise
            except (KafkaError, ClientError, OSError) as error:
                log.warning("check of the source topics failed, retrying: %s: %s", type(error).__name__, error)
                await asyncio.sleep(RETRY_S)

    async def _starts(self, assigned: set[TP]) -> dict[TP, int]:
        facts = await self._facts({tp.topic for tp in assigned})
        bounds = await self._bounds(assigned)
        if any(self._verdict(tp, facts, bounds[tp]) is Verdict.SHORTER for tp in assigned):
            await asyncio.sleep(CONFIRM_S)
            bounds = await self._bounds(assigned)
        plans = [await self._plan(tp, facts, bounds[tp]) for tp in sorted(assigned)]
        restarted = {plan.tp: plan.start for plan in plans if plan.verdict is Verdict.RECREATED}
        shorter = {plan.tp: plan.start for plan in plans if plan.verdict is Verdict.SHORTER}
        await self._commit(restarted)
        await self._store_marks(plans)
        await self._commit(shorter)
        self._epochs = {(plan.tp.topic, plan.tp.partition): plan.mark.epoch for plan in plans}
        self.topic_ids = {topic: facts.ids[topic] for topic in {tp.topic for tp in assigned}}
        self._report(plans, bounds)
        return {plan.tp: plan.start for plan in plans}

    async def _facts(self, wanted: set[str]) -> TopicFacts:
        """Wait until the topics exist; raises TopicsNotReady if the states do not fit them."""
        while True:
            facts = await self.read_facts()
            if missing := sorted(wanted - facts.partitions_of.keys()):
                self._telemetry.topics_missing.set(len(missing))
                log.error("source topics are missing, waiting for them topics=%s", missing)
                await asyncio.sleep(RETRY_S)
                continue
            if facts.partitions != self._partitions:
                raise TopicsNotReady(self._partitions_changed(self._partitions, facts.partitions))
            for complaint in complaints(facts, self._topics):
                raise TopicsNotReady(complaint)
            self._telemetry.topics_missing.set(0)
            return facts

    async def _bounds(self, assigned: set[TP]) -> dict[TP, Bounds]:
        consumer = self._app.batch_consumer
        known = await consumer.seek_to_committed()
        committed = {TP(tp.topic, tp.partition): offset for tp, offset in known.items()}
        begins, ends = await consumer.earliest_offsets(*assigned), await consumer.highwaters(*assigned)
        earliest = {TP(tp.topic, tp.partition): offset for tp, offset in begins.items()}
        end = {TP(tp.topic, tp.partition): offset for tp, offset in ends.items()}
        return {tp: Bounds(earliest[tp], end[tp], committed.get(tp) or 0) for tp in assigned}

    def _verdict(self, tp: TP, facts: TopicFacts, bounds: Bounds) -> Verdict:
        mark = self._held(tp)
        return judge(mark, facts.ids[tp.topic], self._reached(tp, mark, facts, bounds), bounds.end)

    def _reached(self, tp: TP, mark: LogMark, facts: TopicFacts, bounds: Bounds) -> int:
        """Return the offset read so far: beyond the committed one if this worker read more."""
        same_log = self.topic_ids.get(tp.topic) == facts.ids[tp.topic] and self._epochs.get(tp) == mark.epoch
        return max(bounds.committed, self._app.batch_consumer.expected.get(tp, 0) if same_log else 0)

    async def _plan(self, tp: TP, facts: TopicFacts, bounds: Bounds) -> Plan:
        before, topic_id = self._held(tp), facts.ids[tp.topic]
        verdict, reached = self._verdict(tp, facts, bounds), self._reached(tp, before, facts, bounds)
        if before.partitions != self._partitions:
            raise TopicsNotReady(self._partitions_changed(before.partitions, self._partitions))
        mark = LogMark(before.epoch, topic_id or before.topic_id, before.partitions)
        start = max(bounds.committed, bounds.earliest)
        if verdict is not Verdict.THE_SAME:
            if before.epoch >= MAX_EPOCH:
                raise TopicsNotReady(f"{tp.topic} was re-created {MAX_EPOCH} times; use another HRNN_TOPIC_PREFIX")
            mark = mark._replace(epoch=before.epoch + 1)
            start = bounds.earliest
        if verdict is Verdict.SHORTER and tp.topic != self._topics.transitions:
            start = await self._after_last_applied(tp, before.epoch, bounds)
        return Plan(tp, verdict, before, mark, reached, start)

    def _partitions_changed(self, before: int, now: int) -> str:
        return (
            f"{self._topics.user_states} has {now} partitions, but its states were stored with {before}: users would "
            "lose their states. Partitions can't be removed: create new topics under another HRNN_TOPIC_PREFIX"
        )

    # -- marks ------------------------------------------------------------------------------------------------------

    def _place(self, tp: TP) -> tuple[Changelog, int, bytes]:
        """Return a mark's store partition and key. See stream/faust_patches/assignor.py for added partitions."""
        changelog, key = self._kept_in[tp.topic]
        added = tp.partition >= self._partitions
        return changelog, tp.partition % self._partitions, key + b"/%d" % tp.partition if added else key

    def _held(self, tp: TP) -> LogMark:
        changelog, partition, key = self._place(tp)
        (value,) = changelog.read(partition, [key]) if partition in changelog.last_known else (None,)
        return LogMark(0, b"", self._partitions) if value is None else decode_mark(value)

    async def _store_marks(self, plans: Iterable[Plan]) -> None:
        """Write the changed marks to stores and changelogs, and await their acks."""
        wanted: dict[Changelog, dict[int, dict[bytes, bytes]]] = {}
        for plan in plans:
            changelog, partition, key = self._place(plan.tp)
            if partition in changelog.last_known and plan.mark != self._stored(plan.tp):
                of_store = wanted.setdefault(changelog, {}).setdefault(partition, {})
                of_store[key] = encode_mark(plan.mark)
        producer = self._app.kafka_producer()
        for changelog, of_partitions in wanted.items():
            appends: list[Append] = []
            async with changelog.lock:
                for partition, values in of_partitions.items():
                    appends += await changelog.write(producer, partition, values)
            await changelog.confirm(producer, appends)

    def _stored(self, tp: TP) -> LogMark | None:
        changelog, partition, key = self._place(tp)
        (value,) = changelog.read(partition, [key])
        return None if value is None else decode_mark(value)

    async def _commit(self, offsets: dict[TP, int]) -> None:
        """Reset the group's offsets, so that none of an older log remains after a crash."""
        if offsets:
            await set_back(self._app.batch_consumer, offsets)

    # -- a log that got shorter -------------------------------------------------------------------------------------

    async def _after_last_applied(self, tp: TP, epoch: int, bounds: Bounds) -> int:
        """Return the offset after the last record that the states have applied: later records are new."""
        if tp.topic != self._topics.interactions or tp.partition >= self._partitions:
            return bounds.end  # no states to compare with
        last, aio_tp = bounds.end, TopicPartition(*tp)
        async with log_reader(self._app.client_options) as reader:
            while last > bounds.earliest:
                first = max(bounds.earliest, last - LOOK_BACK)
                records: list[Record] = []
                async for _, some in read_stretch(reader, {aio_tp: (first, last)}):
                    records += some
                found = await asyncio.to_thread(self._last_applied, tp.partition, epoch, records)
                if found >= 0:
                    return found + 1
                last = first
        return bounds.earliest

    def _last_applied(self, partition: int, epoch: int, records: Sequence[Record]) -> int:
        """Return the offset of the last record that is in its user's state; -1 if none is."""
        for record in reversed(records):
            try:
                event = decode_event(record.value)
            except BadRecord:
                continue
            (value,) = self._user_states.read(partition, [event.user_id.encode()])
            if value is None:
                continue
            at = position(epoch, record.offset)
            if any(e.offset == at and e.item_id == event.item_id for e in state.decode(value).history):
                return record.offset
        return -1

    # -- reports ----------------------------------------------------------------------------------------------------

    def _report(self, plans: Sequence[Plan], bounds: dict[TP, Bounds]) -> None:
        """Log and count what changed."""
        recreated: dict[str, list[Plan]] = {}
        for plan in plans:
            if plan.verdict is Verdict.RECREATED:
                recreated.setdefault(plan.tp.topic, []).append(plan)
            elif plan.verdict is Verdict.SHORTER:
                self._telemetry.log_shorter.inc()
                log.error(
                    "log is shorter than what was read, the broker lost records topic=%s partition=%d end=%d "
                    "read_up_to=%d lost=%d: states continue, offsets restart epoch=%d from=%d",
                    *(plan.tp.topic, plan.tp.partition, bounds[plan.tp].end, plan.reached),
                    *(plan.reached - bounds[plan.tp].end, plan.mark.epoch, plan.start),
                )
            elif 0 < bounds[plan.tp].committed < plan.start:
                log.warning(
                    "log has no records topic=%s partition=%d from=%d to=%d",
                    *(*plan.tp, bounds[plan.tp].committed, plan.start - 1),
                )
                self._app.on_hole()
        for topic, of_topic in recreated.items():
            self._telemetry.topic_recreated.inc()
            log.error(
                "topic re-created topic=%s old_id=%s new_id=%s partitions=%s: states continue, offsets restart",
                *(topic, of_topic[0].before.topic_id.hex(), of_topic[0].mark.topic_id.hex()),
                [plan.tp.partition for plan in of_topic],
            )
