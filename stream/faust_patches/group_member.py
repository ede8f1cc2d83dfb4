"""The membership in the consumer group: it survives broker outages and ends when it is fenced.

The defects in aiokafka 0.14.0 and Faust 0.15.3:

- an unexpected error of the coordination task is kept for the next call of the consumer, and the task waits for that
  call (`GroupCoordinator._push_error_to_user`). Faust never calls, so the worker stays alive and serves nothing. Here
  a transient error leads to a new join, any other ends the worker (`fatal_error`);
- a static member that another process replaced gets "unknown member", joins as a new one and replaces the other in
  turn, forever. Here it joins again with its old member id, and the broker answers that it was fenced;
- a returning static member gets its old assignment with its old URL. Faust's assignor asserts that this is the current
  URL, so a new host name ends the coordination task (`PartitionAssignor.on_assignment`);
- any commit error crashes the worker (`AIOKafkaConsumerThread._commit`). Here a commit with a transient error is
  skipped, and the next commit covers it;
- an abandoned commit holds one of the thread's two slots, and two of them stop the fetching. Here it has a timeout;
- a client that finds no broker at its start crashes the worker. Here it waits.
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
from stream.process.retrying import Retries, is_transient, retried

log = logging.getLogger(__name__)

COMMIT_ANSWER_S = 2.5  # below the worker's own commit timeout: an abandoned commit must not stay in the thread
FENCED_INSTANCE_ID = 82  # an error code without a name in aiokafka


class Fenced(Exception):
    """Another process joined the group with our instance id and replaced this one."""


class GroupMember(GroupCoordinator):
    """aiokafka's coordinator of one consumer. `join_as_member` turns a new coordinator into one."""

    fatal_error: BaseException | None = None
    heartbeat_at = 0.0  # time.monotonic() of the last answered heartbeat, which aiokafka does not expose
    retries: Retries
    _member_id_before = ""
    _rejoining_as_before = False
    _fenced = False

    @property
    def ended(self) -> str:
        """Why this member will never get an assignment again, "" if it may."""
        if self.fatal_error is not None:
            return f"{type(self.fatal_error).__name__}: {self.fatal_error}"
        task = self._coordination_task
        if task.done() and not self._closing.done():
            return f"the group coordination task ended: {task.exception() if not task.cancelled() else 'cancelled'}"
        return ""

    @property
    def is_joined(self) -> bool:
        """Whether it is a valid member with an assignment, which may be empty."""
        subscription = self._subscription.subscription
        return (
            subscription is not None
            and self.coordinator_id is not None
            and not cast(Any, self).need_rejoin(subscription)
        )

    @property
    def broker_answers(self) -> bool:
        """Whether the group's coordinator is known and reachable."""
        return self.coordinator_id is not None

    async def _send_req(self, request: Any) -> Any:
        answer = await cast(Any, super())._send_req(request)
        if getattr(answer, "error_code", 0) == FENCED_INSTANCE_ID:
            self._fenced = True
        return answer

    async def _do_heartbeat(self) -> Any:
        answered = await cast(Any, super())._do_heartbeat()
        if answered:
            self.heartbeat_at = time.monotonic()
        return answered

    async def _push_error_to_user(self, exc: BaseException) -> None:
        # otherwise the coordination task would find their error again in a busy loop
        for name in ("_heartbeat_task", "_commit_refresh_task"):
            task = getattr(self, name)
            if task is not None and task.done():
                setattr(self, name, None)
        if self._fenced:
            exc = Fenced(f"another process runs under the instance id {self._group_instance_id}")
        if self._fenced or not is_transient(exc):
            self.fatal_error = exc
            await asyncio.wait([self._closing])
            return
        cast(Any, self).request_rejoin()
        await asyncio.wait([self._closing], timeout=self.retries.failed(exc))

    async def _on_join_complete(self, *arguments: Any) -> None:
        await cast(Any, super())._on_join_complete(*arguments)
        self.retries.succeeded()

    def reset_generation(self) -> None:
        """Forget the membership. A static member first tries to join with its old member id."""
        # a heartbeat and several commits may each get "unknown member": only the first still has the id
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
    """Turn a coordinator that has not joined yet into a GroupMember. aiokafka's consumer accepts no other class."""
    coordinator.__class__ = GroupMember
    member = cast(GroupMember, coordinator)
    member.retries = Retries("joining the consumer group")
    return member


class MemberThread(CommittedConsumerThread):
    """Faust's consumer thread around a `GroupMember`."""

    logger = logging.getLogger("faust.transport.consumer.thread")

    member: GroupMember | None = None

    async def on_start(self) -> None:
        """Start the consumer once a broker answers."""
        await retried(Retries("start of the consumer"), self._start_consumer, self.sleep)

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
            log.info("commit skipped, rebalancing: %s", error)
            return False
        except (KafkaError, TimeoutError) as error:
            if not is_transient(error):
                self.log.error("commit failed: %r", error)
                await self.crash(error)
            return False
        return True

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Log a crash of the thread. mode would print it to standard error."""
        log.exception("%s", msg.format(*fmt))


class MemberConsumer(driver.Consumer):
    """Faust's consumer with a `MemberThread`."""

    def _new_consumer_thread(self) -> MemberThread:
        return MemberThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread(self) -> MemberThread:
        """Return the client's thread."""
        return cast(MemberThread, self._thread)

    def assignment(self) -> set[TP]:
        """Return the assigned partitions; none while the thread waits for a broker, where Faust raises."""
        return super().assignment() if self.thread._consumer is not None else set()

    async def verify_all_partitions_active(self) -> None:
        """Do nothing: Faust's check covers its own event path only and would warn forever."""


class PatientProducer(driver.Producer):
    """Faust's producer. Its start waits for a broker."""

    logger = logging.getLogger("faust.transport.producer.patient")

    async def on_start(self) -> None:
        """Start the client once a broker answers."""
        await self.add_runtime_dependency(self.buffer)
        await retried(Retries("start of the producer"), self._start_client, self.sleep)

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
    """Faust's assignor for a member whose URL may differ from the one in its assignment."""

    _assigned_url: str | None = None

    @property
    def _url(self) -> Any:
        return self._assigned_url or self.app.conf.canonical_url

    def on_assignment(self, assignment: Any) -> None:  # type: ignore[override]  # as Faust's own
        """Accept an assignment with any URL."""
        self._assigned_url = cast(Any, ClientMetadata.loads(self._decompress(assignment.user_data))).url
        try:
            super().on_assignment(assignment)
        finally:
            self._assigned_url = None
