"""Follow the `signals` topic: keep items' signals in arrays, and compute the model's signal snapshot from them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from models.items import signals
from models.items.signal_reading import SignalReading
from models.items.signal_table import SignalTable
from models.items.signals import BadSignals, SignalRules
from models.recommending.scoring import Moment
from models.weights import BadWeights, ServingModel
from stream.process.retrying import Retries, retried
from stream.source.log_reader import Record, log_reader, read_stretch
from stream.source.stream_clock import StreamClock
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

REST = 1.0  # pause, in durations of the last update: batches of events come first
SLICE = 256  # records added at a time, about 10 ms: a batch of events waits no longer


class Serving(NamedTuple):
    """The model and the signal snapshot that a batch is decided with, in one reference."""

    model: ServingModel
    moment: Moment | None  # None for a model without signals


class SignalFeed:
    """All items' signals, updated once per interval.

    The deciding thread writes and reads the table, in slices between its batches. `serving` is replaced as a whole and
    read once per batch.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        client_options: Mapping[str, Any],
        rules: SignalRules,
        interval_s: float,
        clock: StreamClock,
        telemetry: Telemetry,
        thread: Executor,
    ) -> None:
        self.serving: Serving | None = None
        self._tps = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._client_options = client_options
        self._rules = rules
        self._interval_s = interval_s
        self._clock = clock
        self._telemetry = telemetry
        self._thread = thread
        self._table = SignalTable(rules, ())
        self._table.offsets = (0,) * partitions
        self._changing = asyncio.Lock()  # of the table and the model whose rows it has
        self._caught_up = asyncio.Event()
        self._at_end = time.monotonic()
        self.retries = Retries("reading the signals topic")

    async def caught_up(self) -> None:
        """Wait until the records that the topic had at the worker's start are in the table."""
        await self._caught_up.wait()

    @property
    def is_caught_up(self) -> bool:
        """Return whether the start of the topic has been read."""
        return self._caught_up.is_set()

    @property
    def age_s(self) -> float:
        """Return the time since lists last had all signals of the topic."""
        return time.monotonic() - self._at_end

    def reading(self) -> SignalReading:
        """Give the signals as they are now, for lists that no model makes; to be used by the thread that decides."""
        return SignalReading(self._table, self._clock.now())

    async def adopt(self, model: ServingModel) -> None:
        """Put a model into use; raises BadWeights if it reads signals that this worker does not count."""
        config = model.model.config
        uncounted = set(config.half_lives_s) - set(self._rules.half_lives_s)
        if uncounted:
            raise BadWeights(
                "signal_rules",
                f"the model reads counts of half-lives {sorted(uncounted)} s, the worker counts "
                f"{list(self._rules.half_lives_s)}: set the same HRNN_HALF_LIVES_S for workers and trainer",
            )
        if config.successor_half_life_s not in (0, self._rules.successor_half_life_s):
            raise BadWeights(
                "signal_rules",
                f"the model reads successors of half-life {config.successor_half_life_s} s, the worker counts "
                f"{self._rules.successor_half_life_s}: set the same HRNN_SUCCESSOR_HALF_LIFE_S for workers and trainer",
            )
        if not config.term_set.n_mixed:
            self.serving = Serving(model, None)
            return
        async with self._changing:
            # in another thread: batches still read the old table
            table = await asyncio.to_thread(self._table.for_catalogue, model.catalogue.item_ids)
            moment = await asyncio.to_thread(Moment.of, model, table, self._clock.now())
            self._table = table
            self.serving = Serving(model, moment)

    async def follow(self) -> None:
        """Read the topic forever. Transient errors are retried; raises any other error."""
        await retried(self.retries, self._follow)

    async def _follow(self) -> None:
        async with log_reader(self._client_options) as reader:
            ends = await reader.end_offsets(self._tps)
            begins = await reader.beginning_offsets(self._tps)
            held = self._table.offsets  # too high after the topic was re-created
            self._table.offsets = tuple(0 if held[tp.partition] > ends[tp] else held[tp.partition] for tp in self._tps)
            async for tp, records in read_stretch(reader, {tp: (begins[tp], ends[tp]) for tp in self._tps}):
                await self._update({tp: records})
            await self._refresh()
            self._caught_up.set()
            self.retries.succeeded()
            log.info("signals read items=%d", self._table.n_rows - 1)
            reader.assign(self._tps)
            for tp in self._tps:
                reader.seek(tp, ends[tp])
            rest_until = time.monotonic() + self._interval_s
            while True:
                waiting: dict[TopicPartition, list[Record]] = {}
                while (left_s := rest_until - time.monotonic()) > 0:
                    fetched = await reader.getmany(timeout_ms=max(1, int(left_s * 1000)))
                    for tp, records in fetched.items():
                        waiting.setdefault(tp, []).extend(records)
                began = time.monotonic()
                at_end = [await reader.position(tp) >= (reader.highwater(tp) or 0) for tp in self._tps]
                await self._update(waiting)
                await self._refresh()
                now = time.monotonic()
                rest_until = now + max(self._interval_s, REST * (now - began))
                if all(at_end):
                    self._at_end = now

    async def _update(self, waiting: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Add records to the table, each partition's in order: a list names its signals by the table's offsets."""
        loop = asyncio.get_running_loop()
        async with self._changing:
            for tp, fetched in waiting.items():
                # after an error the topic is read again from its start: skip records that the table already has
                records = [record for record in fetched if record.offset >= self._table.offsets[tp.partition]]
                for begin in range(0, len(records), SLICE):
                    some = records[begin : begin + SLICE]
                    self._clock.advance(await loop.run_in_executor(self._thread, self._put, tp.partition, some))
            self._telemetry.items_tracked.set(self._table.n_rows - 1)

    async def _refresh(self) -> None:
        async with self._changing:
            serving = self.serving
            if serving is not None and serving.moment is not None:
                moment = await asyncio.get_running_loop().run_in_executor(
                    self._thread, Moment.of, serving.model, self._table, self._clock.now()
                )
                self.serving = Serving(serving.model, moment)

    def _put(self, partition: int, taken: Sequence[Record]) -> float:
        table, records = self._table, []
        for value in _newest(taken).values():
            try:
                records.append(signals.decode_record(value))
            except BadSignals as error:
                log.error("record of signals skipped: %s", error)
        table.put(records)
        table.offsets = (*table.offsets[:partition], taken[-1].offset + 1, *table.offsets[partition + 1 :])
        return max((record.at for record in records), default=0.0)


def _newest(records: Iterable[Record]) -> dict[bytes, bytes]:
    return {record.key: record.value for record in records if record.key and record.value}
