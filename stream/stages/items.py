"""The item stage: transitions are counted into items' signals, which are stored and sent to all workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from models.items import signals
from models.items.signals import NOTHING, BadSignals, SignalRules, Transition
from models.records import BadRecord, Topics, position
from stream.faust_patches.changelog import Changelog
from stream.faust_patches.delivery import Batch, BatchApp
from stream.feeds.signal_topic import SignalTopic
from stream.source.log_reader import Record
from stream.source.record_batches import require_readable
from stream.stages.dead_letters import send_dead_letters
from stream.stages.sending import PAUSED, Append, NotSent, or_not_sent
from stream.telemetry import Telemetry

SLICE = 128  # items folded at a time, about 10 ms: a batch of events waits no longer


@dataclass
class Fold:
    """A decoded batch of transitions, by partition and item."""

    of_items: dict[int, dict[str, list[Transition]]] = field(default_factory=dict)
    offsets: dict[tuple[int, str], int] = field(default_factory=dict)  # of an item's last record
    rejects: list[tuple[Record, BadRecord]] = field(default_factory=list)


class Folding(NamedTuple):
    """A batch whose signals are stored and whose records are in flight."""

    fold: Fold
    redelivered: int
    state_appends: list[Append]
    signal_appends: list[Append]
    dead_letters: list[asyncio.Future[Any]]


class ItemStage:
    """Processes batches of transitions.

    Each item's signals are sent once per batch, before the batch is committed. A batch has the transitions of one
    signal interval, so an item is sent at most once an interval, and a crash loses no signal.
    """

    def __init__(
        self,
        app: BatchApp,
        changelog: Changelog,
        rules: SignalRules,
        telemetry: Telemetry,
        topics: Topics,
        thread: Executor,
    ) -> None:
        self._app = app
        self._changelog = changelog
        self._rules = rules
        self._telemetry = telemetry
        self._topics = topics
        self._thread = thread
        self.signal_topic = SignalTopic(topics.signals, app.client_options, changelog, self._current)

    async def fold_and_confirm(self, batch: Batch) -> None:
        """Count a batch, store and send the signals, and await the acks; raises NotSent if a send may have failed."""
        await self._confirm(await self._fold_and_send(batch))

    async def _fold_and_send(self, batch: Batch) -> Folding:
        loop, producer = asyncio.get_running_loop(), self._app.kafka_producer()
        fold = await loop.run_in_executor(self._thread, take_in, batch.records.values())
        state_appends: list[Append] = []
        signal_appends: list[Append] = []
        redelivered = 0
        for partition, of_items in fold.of_items.items():
            items = list(of_items)
            for begin in range(0, len(items), SLICE):
                some = items[begin : begin + SLICE]
                async with self._changelog.lock:
                    values, records, again = await loop.run_in_executor(self._thread, self._fold, fold, partition, some)
                    if not self._app.batch_consumer.may_send(batch):
                        raise NotSent(PAUSED)
                    state_appends += await self._changelog.write(producer, partition, values)
                    signal_appends += await self.signal_topic.append(producer, partition, records)
                redelivered += again
        dead_letters = await send_dead_letters(producer, self._topics.dead_letters, fold.rejects)
        return Folding(fold, redelivered, state_appends, signal_appends, dead_letters)

    async def _confirm(self, folding: Folding) -> None:
        with or_not_sent(self._telemetry):
            for sent in folding.dead_letters:
                await sent
            await self._changelog.confirm(self._app.kafka_producer(), folding.state_appends)
            await self.signal_topic.confirm(folding.signal_appends)
        telemetry, fold = self._telemetry, folding.fold
        total = sum(len(given) for of_items in fold.of_items.values() for given in of_items.values())
        telemetry.transitions.labels("applied").inc(total - folding.redelivered)
        telemetry.transitions.labels("redelivered").inc(folding.redelivered)
        telemetry.transitions.labels("invalid").inc(len(fold.rejects))
        telemetry.signals_emitted.inc(sum(map(len, fold.of_items.values())))
        telemetry.refused(error for _, error in fold.rejects)

    def _fold(
        self, fold: Fold, partition: int, items: Sequence[str]
    ) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]], int]:
        """Count some items' transitions; returns their states, their records, and the number of redelivered ones."""
        values: dict[bytes, bytes] = {}
        records: list[tuple[bytes, bytes]] = []
        redelivered = 0
        keys = [item_id.encode() for item_id in items]
        epoch = self._app.epoch_of(self._topics.transitions, partition)
        for item_id, key, held in zip(items, keys, self._changelog.read(partition, keys), strict=True):
            before = NOTHING if held is None else signals.decode(held)
            given, offset = fold.of_items[partition][item_id], position(epoch, fold.offsets[partition, item_id])
            redelivered += counted_before(before, given)
            after = signals.apply(self._rules, before, given, offset)
            values[key] = signals.encode(after)
            records.append((key, self._record(item_id, after)))
        return values, records, redelivered

    async def _current(self, partition: int, keys: list[bytes]) -> list[tuple[bytes, bytes]]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._stored, partition, keys)

    def _stored(self, partition: int, keys: list[bytes]) -> list[tuple[bytes, bytes]]:
        """Return items' signal records from the store."""
        held = zip(keys, self._changelog.read(partition, keys), strict=True)
        return [(key, self._record(key.decode(), signals.decode(value))) for key, value in held if value is not None]

    def _record(self, item_id: str, state: signals.ItemSignals) -> bytes:
        return signals.encode_record(signals.record(self._rules, item_id, state))


def counted_before(state: signals.ItemSignals, given: Iterable[Transition]) -> int:
    """Return the number of transitions that an item's signals already include."""
    occurrences, follows = state.occurrences, state.follows
    return sum(
        one.offset <= (occurrences if one.successor is None else follows).get(one.partition, -1) for one in given
    )


def take_in(partitions: Iterable[Sequence[Record]]) -> Fold:
    """Decode records of transitions and group them by item, in log order."""
    fold = Fold()
    for records in partitions:
        for record in records:
            try:
                require_readable(record)
                made = signals.decode_transitions(record.value or b"")
            except BadRecord as error:
                fold.rejects.append((record, error))
                continue
            except BadSignals as error:
                fold.rejects.append((record, BadRecord("bad_transition", str(error))))
                continue
            of_items = fold.of_items.setdefault(record.partition, {})
            for item_id, transition in made:
                of_items.setdefault(item_id, []).append(transition)
                fold.offsets[record.partition, item_id] = record.offset
    return fold
