"""Check that each fetch follows the one before: after a race the consumer seeks back, a hole in the log is counted.

Faust 0.15.3 takes each hole between two fetched records for acked (`Consumer._add_gap`, transport/consumer.py), so
that a commit runs past events that nobody processed. Here the consumer seeks back, and a hole is believed
when the broker's own answer has it, or a second reader does. Markers of transactions and aborted records are none.
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
    """What each partition's next fetch must begin with: offsets without records are passed, others are read again."""

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
        """Forget what was read: the positions are others."""
        self._empty.clear()
        self._suspects.clear()

    def passed(self, tp: TP, expected: int, end: int) -> None:
        """Remember that up to an offset there are only markers of transactions and aborted records."""
        self._empty[tp] = expected, end

    def after_empty(self, tp: TP, offset: int) -> int:
        """Pass what has been read behind an offset and holds no record."""
        begin, end = self._empty.get(tp, (-1, -1))
        return end if begin == offset else offset

    async def follows(self, tp: TP, expected: int | None, stretch: Stretch) -> bool:
        """Tell whether a fetch begins where the one before it ended; if not, seek there."""
        if expected is None:
            return False  # fetched before the restore said where to begin
        reached = self.after_empty(tp, expected)
        if stretch.begin not in (expected, reached):
            first = stretch.first_offset
            suspect = stretch.begin > reached and self._suspects.get(tp) == first
            if not suspect or not await is_hole(self._client_options(), TopicPartition(*tp), reached, first):
                self._suspects[tp] = first
                await self._seek(tp, reached)
                return False
            self._believe(tp, reached, first - 1)
        self._suspects.pop(tp, None)
        for hole in stretch.holes:
            self._believe(tp, *hole)
        return True

    def _believe(self, tp: TP, first: int, last: int) -> None:
        log.warning("log has no records topic=%s partition=%d from=%d to=%d", *tp, first, last)
        self._on_hole()
