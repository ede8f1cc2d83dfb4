"""Batches: the records of one fetch of one topic, with each partition's start and end offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faust.types import TP, ChannelT

from stream.source.record_batches import Record, end_of


class Source(NamedTuple):
    """A source topic's channel to its agent."""

    channel: ChannelT[Batch]
    gathered_s: float = 0.0  # 0: each fetch is a batch; otherwise the records of this interval are one batch


class Batch(NamedTuple):
    """The records of one fetch of one source topic."""

    topic: str
    generation: int
    fetched_at: float  # time.monotonic(), which continues while the process is stopped by SIGSTOP
    starts: dict[TP, int]  # the offset that each partition was read from: below its first record after a hole
    records: dict[TP, Sequence[Record]]
    round: int = 0  # of `BatchConsumer.perform_seek`: there may be several restores within a generation

    @property
    def ends(self) -> dict[TP, int]:
        """Return the offsets where the next batch begins: after the transaction markers that follow the last record."""
        return {tp: end_of(records) for tp, records in self.records.items()}
