"""Check the health of the process. An unhealthy worker ends, so that its supervisor restarts it.

An unreachable broker is not a failure: the worker waits for it. A restart is needed when the group membership is lost,
when a Kafka client's task has ended, or when nothing was assigned for a long time although the brokers answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stream.faust_patches.delivery import BatchApp
from stream.faust_patches.group_member import GroupMember

SILENT_S = 60.0  # a large model or a slow disk may block the loop, but never for so long
UNASSIGNED_ROUNDS = 10  # rebalance timeouts without an assignment: each member may take one of them


class Unwell(Exception):
    """The worker cannot continue. The text gives the reason."""


class Health:
    """The health of the process. The loop checks it four times a second, the HTTP server's threads read it."""

    def __init__(self, app: BatchApp, clock: Callable[[], float] = time.monotonic) -> None:
        """`app` need not have started."""
        self._app = app
        self._clock = clock
        self._beat = self._joined_at = clock()
        self._wrong = ""
        self._unassigned_s = UNASSIGNED_ROUNDS * float(app.conf.broker_rebalance_timeout)

    def verdict(self) -> str:
        """Return what is wrong, "" if nothing is."""
        silent_s = self._clock() - self._beat
        if silent_s >= SILENT_S:
            return f"the event loop has not run for {silent_s:.0f} s"
        return self._wrong

    def beat(self) -> str:
        """Record that the loop runs, and check its tasks; returns the reason for a restart, or ""."""
        self._beat = self._clock()
        self._wrong = self._wrong or self._check()
        return self._wrong

    def _check(self) -> str:
        thread = self._app.batch_consumer.thread
        member = thread.member
        if member is None or self._app.should_stop:
            self._joined_at = self._clock()
            return ""
        if thread.crashed:
            return f"the consumer's thread has crashed: {thread.crash_reason!r}"
        if member.ended:
            return f"the membership in the consumer group has ended: {member.ended}"
        fetcher = thread._consumer._fetcher if thread._consumer is not None else None
        if fetcher is not None and fetcher._fetch_task.done():
            return "the consumer's fetching has ended"
        sender = self._app.kafka_producer()._sender.sender_task  # the producer starts before the consumer
        if sender is not None and sender.done():
            return "the producer's sending has ended"
        return self._unassigned(member)

    def _unassigned(self, member: GroupMember) -> str:
        # a member with an empty assignment counts as joined: there are more workers than partitions
        if member.is_joined or not member.broker_answers:
            self._joined_at = self._clock()
        waited_s = self._clock() - self._joined_at
        if waited_s < self._unassigned_s:
            return ""
        return f"nothing was assigned for {waited_s:.0f} s although the group's broker answers"
