"""The user stage: a batch of events becomes states, lists, sessions and dead letters, all acked before it is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiokafka

from models import contracts, state
from models.contracts import POPULARITY, BadRecord
from models.live_items import LiveItems
from models.popularity import Popularity
from models.recommender import Decision, Recommender
from models.signals import Transition, encode_transitions
from stream.changelog import Changelog
from stream.delivery import Batch, BatchApp
from stream.intake import Intake, home_of, sourced, strays, take_in
from stream.open_sessions import OpenSessions
from stream.rejects import send_dead_letters
from stream.sending import PAUSED, Append, NotSent, append, or_not_sent, send_on
from stream.signal_feed import SignalFeed
from stream.stream_clock import StreamClock
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

ITEM_PARTITIONS = 1 << 18  # items whose partition is remembered: some 30 MB
REFUSED_EVERY_S = 10.0


class Sending(NamedTuple):
    """A batch whose states are stored and whose records are on their way."""

    batch: Batch
    intake: Intake
    decision: Decision
    forwards: Mapping[int, int]
    transitions: Mapping[int, list[bytes]]  # records, by partition of their topic
    appends: list[Append]
    others: list[asyncio.Future[Any]]


class UserStage:
    """All that happens to a batch of interactions."""

    def __init__(
        self,
        app: BatchApp,
        changelog: Changelog,
        recommender: Recommender,
        signal_feed: SignalFeed,
        clock: StreamClock,
        telemetry: Telemetry,
        topics: contracts.Topics,
        partitions: int,
        thread: Executor,
    ) -> None:
        self._app = app
        self._changelog = changelog
        self._recommender = recommender
        self._signal_feed = signal_feed
        self._clock = clock
        self._telemetry = telemetry
        self._topics = topics
        self._partitions = partitions
        self.popularity = Popularity()  # the lists of the time before the first model
        self._live = LiveItems()
        self._open_sessions = open_sessions = OpenSessions(recommender.rules.gap_s)
        telemetry.sessions_active.set_function(lambda: float(open_sessions.count(time.time())))
        self._counted: set[int] = set()
        self._thread = thread
        self._item_partitions: dict[str, int] = {}  # murmur2 in Python costs as much as the rest of a transition
        self._refused: Counter[str] = Counter()  # since they were last told
        self._tell_refused_from = 0.0  # time.monotonic()

    async def decide_and_send(self, batch: Batch) -> Sending:
        """Decide a batch, store it, queue what it sends; raises NotSent if another worker may own its partitions."""
        producer = self._app.kafka_producer()
        async with self._changelog.lock:
            with self._timed("decide"):
                loop = asyncio.get_running_loop()
                intake, decision, forwards, transitions = await loop.run_in_executor(self._thread, self._decide, batch)
            if not self._app.batch_consumer.may_send(batch):
                raise NotSent(PAUSED)
            with self._timed("send"):
                appends, others = await self._send(producer, intake, decision, forwards)
        return Sending(batch, intake, decision, forwards, transitions, appends, others)

    async def confirm(self, sending: Sending) -> None:
        """Send the transitions, and await the acks of all that a batch sent; raises NotSent if some did not come.

        Transitions wait for those of the batch before to be acked: of each source partition they must be on their
        topic in order, or the item stage takes the earlier ones for delivered again.
        """
        if not self._app.batch_consumer.may_send(sending.batch):
            raise NotSent(PAUSED)
        producer = self._app.kafka_producer()
        with or_not_sent(self._telemetry), self._timed("ack"):
            transitions: list[Append] = []
            for partition, values in sending.transitions.items():
                records = [(None, value) for value in values]
                transitions += await append(producer, self._topics.transitions, partition, records)
            for sent in (*sending.others, *(each.acked for each in transitions)):
                await sent
            await self._changelog.confirm(producer, sending.appends)
        self._count(sending.intake, sending.decision, sending.forwards)

    # -- deciding (in the thread) -----------------------------------------------------------------------------------

    def _decide(self, batch: Batch) -> tuple[Intake, Decision, dict[int, int], dict[int, list[bytes]]]:
        model, moment = self._signal_feed.serving or (None, None)  # read once: a batch has one set of weights
        intake = take_in(batch)
        held: dict[tuple[int, str], bytes] = {}
        for partition, keys in intake.users().items():
            if model is None:
                self._count_popularity(partition)
            for key, value in zip(keys, self._changelog.read(partition, keys), strict=True):
                if value is not None:
                    held[partition, key.decode()] = value
        forwards = strays(intake, held, self._partitions)
        here = [pair for index, pair in enumerate(intake.events) if index not in forwards]
        decision = self._recommender.decide(
            model,
            self.popularity,
            {user: state.decode(value) for user, value in held.items()},
            [sourced(record, event) for record, event in here],
            time.time(),
            moment,
            live=self._live,
        )
        for index, reason, detail in decision.rejects:
            intake.rejects.append((here[index][0], BadRecord(reason, detail)))
        newest = max((transition.timestamp for _, transition in decision.transitions), default=0.0)
        self._clock.saw(newest)
        return intake, decision, forwards, self._by_partition(decision)

    def _by_partition(self, decision: Decision) -> dict[int, list[bytes]]:
        """Write transitions for the partitions where their items are at home, one record each unless they are many."""
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
        """Count what is kept of what the users of a partition have had, once, as long as no model is there."""
        if partition in self._counted:
            return
        self._counted.add(partition)
        store = self._changelog.table.data
        for value in store._visible_values(store._db_for_partition(partition)):
            known = state.decode(value)
            for event in known.history:
                self.popularity.add(event.item_id)
            for item_id, count in known.earlier.items():
                self.popularity.add(item_id, count)

    # -- sending ----------------------------------------------------------------------------------------------------

    async def _send(
        self,
        producer: aiokafka.AIOKafkaProducer,
        intake: Intake,
        decision: Decision,
        forwards: Mapping[int, int],
    ) -> tuple[list[Append], list[asyncio.Future[Any]]]:
        """Store the states and queue every record; returns the changelog's appends and all other futures."""
        values: dict[int, dict[bytes, bytes]] = {}
        for (partition, user_id), user_state in decision.states.items():
            values.setdefault(partition, {})[user_id.encode()] = encoded = state.encode(user_state)
            self._telemetry.state_bytes.observe(len(encoded))
        outputs: dict[tuple[str, int], list[tuple[bytes, bytes]]] = {}
        partition_of = {user_id: partition for partition, user_id in decision.states}
        for _, recommendation in decision.recommendations:
            place = self._topics.recommendations, partition_of[recommendation.user_id]
            outputs.setdefault(place, []).append((recommendation.user_id.encode(), contracts.encode(recommendation)))
        for key, session in decision.sessions.items():
            place = self._topics.sessions, partition_of[session.user_id]
            outputs.setdefault(place, []).append((key.encode(), contracts.encode(session)))

        appends: list[Append] = []
        for partition, of_partition in values.items():
            appends += await self._changelog.write(producer, partition, of_partition)
        others: list[asyncio.Future[Any]] = []
        for (topic, partition), records in outputs.items():
            others += [sent.acked for sent in await append(producer, topic, partition, records)]
        others += await send_dead_letters(producer, self._topics.dead_letters, intake.rejects)
        for index, home in forwards.items():
            record, event = intake.events[index]
            others.append(await send_on(producer, record, event.user_id, home))
        return appends, others

    # -- counting ---------------------------------------------------------------------------------------------------

    def _count(self, intake: Intake, decision: Decision, forwards: Mapping[int, int]) -> None:
        telemetry, outcomes = self._telemetry, decision.outcomes
        telemetry.batch_size.observe(len(intake.events) + len(intake.rejects))
        telemetry.events.labels("applied").inc(outcomes.applied)
        telemetry.events.labels("duplicate").inc(outcomes.duplicates)
        telemetry.events.labels("late").inc(outcomes.late)
        telemetry.events.labels("invalid").inc(len(intake.rejects) - outcomes.late)
        telemetry.forwarded.inc(len(forwards))
        telemetry.refused(error for _, error in intake.rejects)
        self._tell_refused(error.reason for _, error in intake.rejects)
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
            telemetry.end_to_end.observe(now - record.timestamp / 1000)

    def _tell_refused(self, reasons: Iterable[str]) -> None:
        """Say at once that events are refused, then again every ten seconds: junk may come as fast as events do."""
        self._refused.update(reasons)
        if self._refused and time.monotonic() >= self._tell_refused_from:
            log.warning(
                "events refused, see dead letters count=%d reasons=%s", self._refused.total(), dict(self._refused)
            )
            self._refused.clear()
            self._tell_refused_from = time.monotonic() + REFUSED_EVERY_S

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._telemetry.stage.labels(stage).observe(time.perf_counter() - started)
