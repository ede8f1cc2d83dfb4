"""What comes to an agent: a fetch's records of one topic, with where each partition was read from and to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faust.types import TP, ChannelT

from stream.source.record_batches import Record, end_of


class Source(NamedTuple):
    """How a source topic comes to its agent."""

    channel: ChannelT[Batch]
    gathered_s: float = 0.0  # 0: each fetch as it comes; else what came in so long is one batch


class Batch(NamedTuple):
    """What one fetch brought of one source topic."""

    topic: str
    generation: int
    fetched_at: float  # time.monotonic(), which runs on while the process is stopped by SIGSTOP
    starts: dict[TP, int]  # where each partition was read from: below its first record where the log has a hole
    records: dict[TP, Sequence[Record]]
    round: int = 0  # of `BatchConsumer.perform_seek`: a restore may begin again within a generation

    @property
    def ends(self) -> dict[TP, int]:
        """Give where the next batch begins: beyond the last record where markers of transactions follow it."""
        return {tp: end_of(records) for tp, records in self.records.items()}
