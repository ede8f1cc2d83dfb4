"""Our membership in the consumer group: it outlives brokers, moves with its instance id, and ends when it is fenced.

What it mends, and where aiokafka 0.14.0 and Faust 0.15.3 have it:

- an error that the coordination task does not expect is kept for whoever calls the consumer next, and the task waits
  for that call (`GroupCoordinator._push_error_to_user`); Faust never makes it, so the worker lives on and never
  serves. Here errors that pass are retried by a new join, others end the worker (`unmended`);
- a static member that another process has replaced hears "unknown member", joins as a new one and replaces the other
  in turn, for ever. Here it joins again under its old member id, and the broker answers that it was fenced;
- a static member that comes back gets its old assignment, with the URL that it had then; Faust's assignor asserts that
  this is its URL of now, so a new host name ends the coordination task (`PartitionAssignor.on_assignment`);
- any error of a commit crashes the worker (`AIOKafkaConsumerThread._commit`). Here one that passes is a commit that
  did not happen; the next one covers it;
- a commit that nobody awaits any longer holds one of the thread's two slots, and two of them stop the fetching: here
  it is bounded in time;
- a client that finds no broker when it starts crashes the worker: here it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any, cast

from aiokafka import OffsetAndMetadata, TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.protocol.group import JoinGroupRequest
from faust.assignor.client_assignment import ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.faust_patches.consumer_thread import CommittedConsumerThread
from stream.process.retrying import Spell, is_transient, retried

log = logging.getLogger(__name__)

COMMIT_ANSWER_S = 2.5  # below what the worker waits for a commit: one that is given up must not run on in the thread
FENCED_INSTANCE_ID = 82  # aiokafka has no name for it


class Fenced(Exception):
    """Another process has joined the group under our instance id, and replaced us."""


class GroupMember(GroupCoordinator):
    """aiokafka's coordinator of one consumer; made from one that has just started, by `join_as_member`."""

    unmended: BaseException | None = None  # what this member can't live with
    heard_at = 0.0  # time.monotonic() of the last heartbeat that was answered: aiokafka keeps it to itself
    spell: Spell
    _member_id_before = ""
    _rejoining_as_before = False
    _fenced = False

    @property
    def ended(self) -> str:
        """Why this member will never be assigned anything again, "" if it may."""
        if self.unmended is not None:
            return f"{type(self.unmended).__name__}: {self.unmended}"
        task = self._coordination_task
        if task.done() and not self._closing.done():
            return f"the group coordination task ended: {task.exception() if not task.cancelled() else 'cancelled'}"
        return ""

    @property
    def is_joined(self) -> bool:
        """Whether it is a member in good standing, with an assignment, that may be empty."""
        subscription = self._subscription.subscription
        return (
            subscription is not None
            and self.coordinator_id is not None
            and not cast(Any, self).need_rejoin(subscription)
        )

    @property
    def broker_answers(self) -> bool:
        """Whether the broker that coordinates the group is known and reachable."""
        return self.coordinator_id is not None

    async def _send_req(self, request: Any) -> Any:
        answer = await cast(Any, super())._send_req(request)
        if getattr(answer, "error_code", 0) == FENCED_INSTANCE_ID:
            self._fenced = True
        return answer

    async def _do_heartbeat(self) -> Any:
        answered = await cast(Any, super())._do_heartbeat()
        if answered:
            self.heard_at = time.monotonic()
        return answered

    async def _push_error_to_user(self, exc: BaseException) -> None:
        # else the coordination task would find their error again at once, and for ever
        for name in ("_heartbeat_task", "_commit_refresh_task"):
            task = getattr(self, name)
            if task is not None and task.done():
                setattr(self, name, None)
        if self._fenced:
            exc = Fenced(f"another process runs under the instance id {self._group_instance_id}")
        if self._fenced or not is_transient(exc):
            self.unmended = exc
            await asyncio.wait([self._closing])
            return
        cast(Any, self).request_rejoin()
        await asyncio.wait([self._closing], timeout=self.spell.failed(exc))

    async def _on_join_complete(self, *arguments: Any) -> None:
        await cast(Any, super())._on_join_complete(*arguments)
        self.spell.over()

    def reset_generation(self) -> None:
        """Forget the membership; a static one first asks for it again, under its member id."""
        # a heartbeat and several commits may each hear that the member is unknown: only the first has its id still
        if self._group_instance_id and self.member_id and not self._rejoining_as_before:
            self._member_id_before = self.member_id
        cast(Any, super()).reset_generation()

    async def _do_rejoin_group(self, subscription: Any) -> bool:
        before, self._member_id_before = self._member_id_before, ""
        if before and self.member_id == JoinGroupRequest.UNKNOWN_MEMBER_ID:
            self.member_id, self._rejoining_as_before = before, True
        try:
            return bool(await cast(Any, super())._do_rejoin_group(subscription))
        finally:
            self._rejoining_as_before = False


def join_as_member(coordinator: GroupCoordinator) -> GroupMember:
    """Turn a coordinator that has not joined yet into ours: aiokafka's consumer takes no other class."""
    coordinator.__class__ = GroupMember
    member = cast(GroupMember, coordinator)
    member.spell = Spell("joining the consumer group")
    return member


class MemberThread(CommittedConsumerThread):
    """Faust's consumer thread around a `GroupMember`."""

    logger = logging.getLogger("faust.transport.consumer.thread")

    member: GroupMember | None = None

    async def on_start(self) -> None:
        """Start the consumer, as soon as a broker answers."""
        await retried(Spell("start of the consumer"), self._start_consumer, self.sleep)

    async def _start_consumer(self) -> None:
        if self.should_stop:
            return
        consumer = self._create_consumer(loop=self.thread_loop)
        try:
            await consumer.start()
        except BaseException:
            with contextlib.suppress(Exception):
                await consumer.stop()
            raise
        self.member = join_as_member(cast(GroupCoordinator, consumer._coordinator))
        self.time_started = self.thread_loop.time()
        self._consumer = consumer

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        assigned = self.assignment()
        commits = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in assigned
        }
        try:
            async with asyncio.timeout(COMMIT_ANSWER_S):
                await self._ensure_consumer().commit(commits)
        except (CommitFailedError, IllegalStateError) as error:
            log.info("commit skipped, the partitions moved: %s", error)
            return False
        except (KafkaError, TimeoutError) as error:
            if not is_transient(error):
                self.log.error("commit failed: %r", error)
                await self.crash(error)
            return False
        return True

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Log what ended the thread; mode prints it to standard error, beside the log."""
        log.exception("%s", msg.format(*fmt))


class MemberConsumer(driver.Consumer):
    """Faust's consumer with a `MemberThread`."""

    def _new_consumer_thread(self) -> MemberThread:
        return MemberThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread(self) -> MemberThread:
        """Give the thread that the client runs in."""
        return cast(MemberThread, self._thread)

    def assignment(self) -> set[TP]:
        """Give the assigned partitions: none as long as the thread waits for a broker, where Faust raises."""
        return super().assignment() if self.thread._consumer is not None else set()

    async def verify_all_partitions_active(self) -> None:
        """Do nothing: Faust's check of its event path knows nothing of batches and would warn for ever."""


class PatientProducer(driver.Producer):
    """Faust's producer, whose start waits for a broker."""

    logger = logging.getLogger("faust.transport.producer.patient")

    async def on_start(self) -> None:
        """Start the client, as soon as a broker answers."""
        await self.add_runtime_dependency(self.buffer)
        await retried(Spell("start of the producer"), self._start_client, self.sleep)

    async def _start_client(self) -> None:
        if self.should_stop:
            return
        client = self._new_producer()
        try:
            await client.start()
        except BaseException:
            with contextlib.suppress(Exception):
                await client.stop()
            raise
        self._producer = client


class MovedHostAssignor(PartitionAssignor):
    """Faust's assignor, for a member whose URL may have been another one when its assignment was made."""

    _url_then: str | None = None

    @property
    def _url(self) -> Any:
        return self._url_then or self.app.conf.canonical_url

    def on_assignment(self, assignment: Any) -> None:  # type: ignore[override]  # as Faust's own
        """Take over an assignment, whatever URL it names."""
        self._url_then = cast(Any, ClientMetadata.loads(self._decompress(assignment.user_data))).url
        try:
            super().on_assignment(assignment)
        finally:
            self._url_then = None
