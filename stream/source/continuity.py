"""Check that each fetch directly follows the previous one. A gap leads to a seek back, or is counted as a log hole.

Faust 0.15.3 treats each hole between two fetched records as acked (`Consumer._add_gap`, transport/consumer.py), so a
commit skips events that nobody processed. Here the consumer seeks back. A hole is confirmed when the broker's answer
shows it, or when a second reader finds it. Transaction markers and aborted records are no holes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiokafka import TopicPartition
from faust.types import TP

from stream.source.log_reader import is_hole
from stream.source.record_batches import Stretch

log = logging.getLogger(__name__)


class Continuity:
    """The offset that each partition's next fetch must begin at. Offsets without records are skipped."""

    def __init__(
        self,
        seek: Callable[[TP, int], Awaitable[None]],
        on_hole: Callable[[], None],
        client_options: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._seek = seek
        self._on_hole = on_hole
        self._client_options = client_options
        self._empty: dict[TP, tuple[int, int]] = {}  # [begin, end) that holds no record, read after the last batch
        self._suspects: dict[TP, int] = {}

    def forget(self) -> None:
        """Forget all partitions, after the positions changed."""
        self._empty.clear()
        self._suspects.clear()

    def passed(self, tp: TP, expected: int, end: int) -> None:
        """Record that [expected, end) has only transaction markers and aborted records."""
        self._empty[tp] = expected, end

    def after_empty(self, tp: TP, offset: int) -> int:
        """Return the offset after the empty range that begins at `offset`, if there is one."""
        begin, end = self._empty.get(tp, (-1, -1))
        return end if begin == offset else offset

    async def follows(self, tp: TP, expected: int | None, stretch: Stretch) -> bool:
        """Return whether a fetch begins where the previous one ended; if not, seek there."""
        if expected is None:
            return False  # fetched before the restore set the position
        reached = self.after_empty(tp, expected)
        if stretch.begin not in (expected, reached):
            first = stretch.first_offset
            suspect = stretch.begin > reached and self._suspects.get(tp) == first
            if not suspect or not await is_hole(self._client_options(), TopicPartition(*tp), reached, first):
                self._suspects[tp] = first
                await self._seek(tp, reached)
                return False
            self._count_hole(tp, reached, first - 1)
        self._suspects.pop(tp, None)
        for hole in stretch.holes:
            self._count_hole(tp, *hole)
        return True

    def _count_hole(self, tp: TP, first: int, last: int) -> None:
        log.warning("log has no records topic=%s partition=%d from=%d to=%d", *tp, first, last)
        self._on_hole()
