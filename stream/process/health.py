"""Whether the process itself is well, and its end when it can't become well by itself.

A broker that is away is no reason to end: everything waits for it. What only a new process mends is: the membership in
the group is gone, a client's task has ended, or nothing was assigned for long although the brokers answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stream.faust_patches.delivery import BatchApp
from stream.faust_patches.group_member import GroupMember

SILENT_S = 60.0  # the loop may be held up by a large model or a slow disk, never for so long
UNASSIGNED_ROUNDS = 10  # rebalance timeouts without an assignment: each member may use up one of them


class Unwell(Exception):
    """The worker can't go on; the text says why."""


class Health:
    """What is wrong with the process, asked by the loop four times a second and by the HTTP server's threads."""

    def __init__(self, app: BatchApp, clock: Callable[[], float] = time.monotonic) -> None:
        """`app` may be one that has not started."""
        self._app = app
        self._clock = clock
        self._beat = self._joined_at = clock()
        self._wrong = ""
        self._unassigned_s = UNASSIGNED_ROUNDS * float(app.conf.broker_rebalance_timeout)

    def verdict(self) -> str:
        """Say what is wrong, "" if nothing is."""
        silent_s = self._clock() - self._beat
        if silent_s >= SILENT_S:
            return f"the event loop has not run for {silent_s:.0f} s"
        return self._wrong

    def beat(self) -> str:
        """Note that the loop runs, and look at what runs in it; returns what only a new process mends, or ""."""
        self._beat = self._clock()
        self._wrong = self._wrong or self._look()
        return self._wrong

    def _look(self) -> str:
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
        # a member whose assignment is empty has joined all the same: there are more workers than partitions
        if member.is_joined or not member.broker_answers:
            self._joined_at = self._clock()
        waited_s = self._clock() - self._joined_at
        if waited_s < self._unassigned_s:
            return ""
        return f"nothing was assigned for {waited_s:.0f} s although the group's broker answers"
