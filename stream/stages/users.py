"""The user stage: a batch of events becomes lists, sessions, transitions and dead letters, then states.

The order makes a crash harmless. All outputs of a batch are acked before its states are stored. So an event that a
stored state has applied has all its outputs, and any other event is decided again from the state before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiokafka

from models.items.live_items import LiveItems
from models.items.signals import Transition, encode_transitions
from models.recommending.popularity import Popularity
from models.recommending.recommender import Decision, Recommender, UserKey
from models.records import POPULARITY, BadRecord, Topics, encode
from models.users import state
from models.users.state import UserState
from models.users.walk import SourcedEvent
from models.weights import ServingModel
from stream.faust_patches.changelog import Changelog
from stream.faust_patches.delivery import Batch, BatchApp
from stream.faust_patches.pending_states import PendingStates
from stream.feeds.items import ItemFeed
from stream.feeds.signals import SignalFeed
from stream.source.stream_clock import StreamClock
from stream.stages.dead_letters import send_dead_letters
from stream.stages.intake import Intake, home_of, sourced, strays, take_in
from stream.stages.open_sessions import OpenSessions
from stream.stages.origins import Origins
from stream.stages.poison import decide_without_poison
from stream.stages.sending import PAUSED, Append, NotSent, append, or_not_sent, send_on
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

ITEM_PARTITIONS = 1 << 18  # items whose partition is cached: about 30 MB
REFUSED_EVERY_S = 10.0


class Decided(NamedTuple):
    """A decided batch, of which nothing is sent yet."""

    batch: Batch
    intake: Intake
    decision: Decision
    forwards: Mapping[int, int]
    transitions: Mapping[int, list[bytes]]  # records, by partition of their topic
    model: ServingModel | None


class Sending(NamedTuple):
    """A batch whose lists, sessions and dead letters are in flight."""

    decided: Decided
    sent: list[asyncio.Future[Any]]


class UserStage:
    """Processes batches of interactions."""

    def __init__(
        self,
        app: BatchApp,
        changelog: Changelog,
        recommender: Recommender,
        signal_feed: SignalFeed,
        item_feed: ItemFeed,
        clock: StreamClock,
        telemetry: Telemetry,
        topics: Topics,
        partitions: int,
        thread: Executor,
        origins: Origins,
    ) -> None:
        self._app = app
        self._changelog = changelog
        self._recommender = recommender
        self._signal_feed = signal_feed
        self._item_feed = item_feed
        self._clock = clock
        self._telemetry = telemetry
        self._topics = topics
        self._partitions = partitions
        self.popularity = Popularity()  # for lists before the first model
        self._live = LiveItems()
        self._open_sessions = open_sessions = OpenSessions(recommender.rules.gap_s)
        telemetry.sessions_active.set_function(lambda: float(open_sessions.count(time.time())))
        self._counted: set[int] = set()
        self._pending = PendingStates(lambda batch: app.batch_consumer.valid(batch))
        self._thread = thread
        self._origins = origins
        self._item_partitions: dict[str, int] = {}  # murmur2 in Python costs as much as the rest of a transition
        self._refused: Counter[str] = Counter()  # since the last log line
        self._log_refused_from = 0.0  # time.monotonic()

    async def decide_and_send(self, batch: Batch) -> Sending:
        """Decide a batch and queue its lists; raises NotSent if another worker may own its partitions."""
        async with self._changelog.lock:  # a restore may close the stores that are read here
            with self._timed("decide"):
                decided = await asyncio.get_running_loop().run_in_executor(self._thread, self._decide, batch)
        if not self._app.batch_consumer.may_send(batch):
            raise NotSent(PAUSED)
        with or_not_sent(self._telemetry), self._timed("send"):
            sent = await self._send(self._app.kafka_producer(), decided)
        self._pending.add(batch, decided.decision.states)
        return Sending(decided, sent)

    async def confirm(self, sending: Sending) -> None:
        """Send the ordered outputs, await all acks and store the states; raises NotSent on failure.

        Transitions and forwarded events are sent after those of the previous batch were acked. They must be in the
        order of their source partition, or the earlier ones count as redelivered.
        """
        decided, consumer = sending.decided, self._app.batch_consumer
        producer = self._app.kafka_producer()
        try:
            if not consumer.may_send(decided.batch):
                raise NotSent(PAUSED)
            with or_not_sent(self._telemetry), self._timed("ack"):
                in_order = await self._send_in_order(producer, decided)
                for sent in sending.sent:
                    await sent
                answered_at = time.time()
                for sent in in_order:
                    await sent
            with or_not_sent(self._telemetry), self._timed("store"):
                async with self._changelog.lock:
                    if not consumer.may_send(decided.batch):
                        raise NotSent(PAUSED)
                    appends = await self._store(producer, decided.decision)
                await self._changelog.confirm(producer, appends)
        finally:
            self._pending.remove(decided.batch, decided.decision.states)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._observe, decided)
        self._count(decided, answered_at)

    # -- deciding (in the thread) -----------------------------------------------------------------------------------

    def _decide(self, batch: Batch) -> Decided:
        model, moment = self._signal_feed.serving or (None, None)  # read once: a batch has one set of weights
        availability = self._item_feed.availability
        intake = take_in(batch)
        # partitions that were added to the topic have no states
        users = {partition: keys for partition, keys in intake.users().items() if partition < self._partitions}
        if model is None:
            for partition in users:
                self._count_popularity(partition)
        held = self.states_of(users)
        forwards = strays(intake, held, self._partitions, self._origins)
        here = [pair for index, pair in enumerate(intake.events) if index not in forwards]

        def decide(events: Sequence[SourcedEvent]) -> Decision:
            return self._recommender.decide(
                *(model, self.popularity, held, events, time.time(), moment),
                live=self._live,
                availability=availability,
            )

        epoch_of = self._app.epoch_of
        events = [
            sourced(record, event, self._origins, epoch_of(record.topic, record.partition)) for record, event in here
        ]
        decision, numbers, failed = decide_without_poison(decide, events)
        for number, error in failed:
            intake.rejects.append((here[number][0], error))
        for number, reason, detail in decision.rejects:
            intake.rejects.append((here[numbers[number]][0], BadRecord(reason, detail)))
        newest = max((transition.timestamp for _, transition in decision.transitions), default=0.0)
        self._clock.advance(newest)
        return Decided(batch, intake, decision, forwards, self._by_partition(decision), model)

    def states_of(self, users: Mapping[int, Iterable[bytes]]) -> dict[UserKey, UserState]:
        """Return users' newest states, by partition: from pending batches, otherwise from the store."""
        held: dict[UserKey, UserState] = {}
        for partition, keys in users.items():
            stored: list[bytes] = []
            for key in keys:
                user = partition, key.decode()
                if (pending := self._pending.newest(user)) is None:
                    stored.append(key)
                else:
                    held[user] = pending
            for key, value in zip(stored, self._changelog.read(partition, stored), strict=True):
                if value is not None:
                    held[partition, key.decode()] = state.decode(value)
        return held

    def _observe(self, decided: Decided) -> None:
        """Count what a confirmed batch showed and what its users took; in the thread, whose lists read it."""
        model, live = decided.model, self._live
        if model is not None and live.version != model.version:
            live.learn(model.version, model.catalogue.item_ids, model.catalogue.item_counts)
        for seen in decided.decision.outcomes.observations:
            self.popularity.add(seen.item_id)
            live.take(seen.item_id, seen.timestamp)
            live.show(seen.listed)

    def _by_partition(self, decision: Decision) -> dict[int, list[bytes]]:
        """Encode transitions for their items' partitions, usually one record each."""
        partitions: dict[int, list[tuple[str, Transition]]] = {}
        known = self._item_partitions
        for one in decision.transitions:
            item_id, _ = one
            partition = known.get(item_id)
            if partition is None:
                if len(known) >= ITEM_PARTITIONS:
                    known.clear()
                partition = known[item_id] = home_of(item_id, self._partitions)
            partitions.setdefault(partition, []).append(one)
        return {partition: encode_transitions(made) for partition, made in partitions.items()}

    def _count_popularity(self, partition: int) -> None:
        """Count the items in the states of a partition's users, once, while there is no model."""
        if partition in self._counted:
            return
        kept: Counter[str] = Counter()
        for value in self._changelog.stores.values(partition):
            known = state.decode(value)
            kept.update(event.item_id for event in known.history)
            kept.update(known.earlier)
        self._counted.add(partition)  # only now: a damaged store is counted after its restore
        for item_id, count in kept.items():
            self.popularity.add(item_id, count)

    # -- sending ----------------------------------------------------------------------------------------------------

    async def _send(self, producer: aiokafka.AIOKafkaProducer, decided: Decided) -> list[asyncio.Future[Any]]:
        """Queue lists, sessions and dead letters; returns what to await."""
        decision = decided.decision
        outputs: dict[tuple[str, int], list[tuple[bytes, bytes]]] = {}
        partition_of = {user_id: partition for partition, user_id in decision.states}
        for _, recommendation in decision.recommendations:
            place = self._topics.recommendations, partition_of[recommendation.user_id]
            outputs.setdefault(place, []).append((recommendation.user_id.encode(), encode(recommendation)))
        for key, session in decision.sessions.items():
            place = self._topics.sessions, partition_of[session.user_id]
            outputs.setdefault(place, []).append((key.encode(), encode(session)))
        sent: list[asyncio.Future[Any]] = []
        for (topic, partition), records in outputs.items():
            sent += [each.acked for each in await append(producer, topic, partition, records)]
        return sent + await send_dead_letters(producer, self._topics.dead_letters, decided.intake.rejects)

    async def _send_in_order(self, producer: aiokafka.AIOKafkaProducer, decided: Decided) -> list[asyncio.Future[Any]]:
        """Queue transitions and forwarded events; returns what to await."""
        sent: list[asyncio.Future[Any]] = []
        for partition, values in decided.transitions.items():
            records = [(None, value) for value in values]
            sent += [each.acked for each in await append(producer, self._topics.transitions, partition, records)]
        for index, home in decided.forwards.items():
            record, event = decided.intake.events[index]
            epoch = self._app.epoch_of(record.topic, record.partition)
            sent.append(await send_on(producer, record, event.user_id, home, self._origins, epoch))
        return sent

    async def _store(self, producer: aiokafka.AIOKafkaProducer, decision: Decision) -> list[Append]:
        """Write the states to the store and queue them for the changelog."""
        values: dict[int, dict[bytes, bytes]] = {}
        for (partition, user_id), user_state in decision.states.items():
            values.setdefault(partition, {})[user_id.encode()] = encoded = state.encode(user_state)
            self._telemetry.state_bytes.observe(len(encoded))
        appends: list[Append] = []
        for partition, of_partition in values.items():
            appends += await self._changelog.write(producer, partition, of_partition)
        return appends

    # -- counting ---------------------------------------------------------------------------------------------------

    def _count(self, decided: Decided, answered_at: float) -> None:
        intake, decision, forwards = decided.intake, decided.decision, decided.forwards
        telemetry, outcomes = self._telemetry, decision.outcomes
        telemetry.batch_size.observe(len(intake.events) + len(intake.rejects))
        telemetry.events.labels("applied").inc(outcomes.applied)
        telemetry.events.labels("duplicate").inc(outcomes.duplicates)
        telemetry.events.labels("late").inc(outcomes.late)
        telemetry.events.labels("invalid").inc(len(intake.rejects) - outcomes.late)
        telemetry.forwarded.inc(len(forwards))
        telemetry.refused(error for _, error in intake.rejects)
        self._log_refused(error.reason for _, error in intake.rejects)
        by_popularity = sum(r.model_version == POPULARITY for _, r in decision.recommendations)
        telemetry.recommendations.labels("fallback").inc(by_popularity)
        telemetry.recommendations.labels("model").inc(len(decision.recommendations) - by_popularity)
        telemetry.judge(outcomes.trials)
        telemetry.watch_items(self._live)
        now = time.time()
        self._open_sessions.move(outcomes.moved, self._changelog.last_known)
        self._open_sessions.forget(now)
        telemetry.stored(outcomes.moved, max((record.timestamp for record, _ in intake.events), default=0) / 1000)
        telemetry.sessions_closed.labels("gap").inc(outcomes.sessions_closed)
        telemetry.unknown_items.inc(outcomes.unknown_items)
        telemetry.rebuilt.inc(outcomes.rebuilt_users)
        for record, _ in intake.events:
            telemetry.end_to_end.observe(answered_at - record.timestamp / 1000)

    def _log_refused(self, reasons: Iterable[str]) -> None:
        """Log refused events at once, then at most every ten seconds."""
        self._refused.update(reasons)
        if self._refused and time.monotonic() >= self._log_refused_from:
            log.warning(
                "events refused, see dead letters count=%d reasons=%s", self._refused.total(), dict(self._refused)
            )
            self._refused.clear()
            self._log_refused_from = time.monotonic() + REFUSED_EVERY_S

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._telemetry.stage.labels(stage).observe(time.perf_counter() - started)
