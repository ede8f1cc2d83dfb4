"""Following the `items` topic: what every worker knows of items, one reference that is replaced as a whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition

from models.items.facts import FactTable
from models.recommending.availability import Availability
from stream.feeds.item_topic import ItemTopic, changes_of
from stream.process.retrying import Retries, retried
from stream.source.log_reader import Record, log_reader, read_stretch
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

REST_S = 0.1  # many changes a second are taken over together: each time the table is copied


class ItemFeed:
    """All items' facts, taken over as they come; `availability`, which is theirs, is read once a batch."""

    def __init__(self, topic: ItemTopic, telemetry: Telemetry) -> None:
        self.facts = FactTable()
        self.availability = Availability()
        self._topic = topic
        self._telemetry = telemetry
        self._caught_up = asyncio.Event()
        self.retries = Retries("reading the items topic")

    async def caught_up(self) -> None:
        """Wait until what the topic held when the worker started is taken over."""
        await self._caught_up.wait()

    @property
    def is_caught_up(self) -> bool:
        """Return whether the start of the topic has been read."""
        return self._caught_up.is_set()

    async def follow(self) -> None:
        """Read the topic for ever, over again after an error that passes; raises only what a worker can't survive."""
        await retried(self.retries, self._follow)

    async def _follow(self) -> None:
        # clients write here, so what their transactions aborted does not count
        tps = self._topic.tps
        async with log_reader(self._topic.client_options, committed=True) as reader:
            begins, ends = await reader.beginning_offsets(tps), await reader.end_offsets(tps)
            # from the start, also after an error: the topic may be another one of the same name
            facts = FactTable(offsets=tuple(begins[tp] for tp in tps))
            stretches = {tp: (begins[tp], ends[tp]) for tp in tps}
            async for tp, records in read_stretch(reader, stretches, unreadable=True):
                facts = await asyncio.to_thread(self._with, facts, {tp: records})
            self._adopt(facts)
            self._caught_up.set()
            self.retries.succeeded()
            log.info("items are taken over items=%d unavailable=%d", len(facts.row_of_item), len(facts.unavailable))
            reader.assign(tps)
            for tp in tps:
                reader.seek(tp, facts.offsets[tp.partition])
            while True:
                if fetched := await reader.getmany(timeout_ms=1000):
                    facts = await asyncio.to_thread(self._with, facts, fetched)
                    self._adopt(facts)
                    await asyncio.sleep(REST_S)

    def _with(self, facts: FactTable, fetched: Mapping[TopicPartition, Sequence[Record]]) -> FactTable:
        offsets = list(facts.offsets)
        for tp, records in fetched.items():
            if records:
                offsets[tp.partition] = records[-1].offset + 1
        records = [record for of_partition in fetched.values() for record in of_partition]
        return facts.updated(changes_of(records, self._topic.schema), tuple(offsets))

    def _adopt(self, facts: FactTable) -> None:
        self.facts, self.availability = facts, Availability(facts.unavailable, facts.offsets)
        self._telemetry.items_known.set(len(facts.row_of_item))
        self._telemetry.items_unavailable.set(len(facts.unavailable))
