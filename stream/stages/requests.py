"""The request stage: a user who comes back asks, and gets a list of now without an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from models.recommending.recommender import Recommender
from models.records import BadRecord, Recommendation, Request, Topics, decode_asker, encode, rec_id
from models.users.walk import SourcedRequest
from stream.faust_patches.delivery import Batch, BatchApp
from stream.feeds.items import ItemFeed
from stream.feeds.signals import SignalFeed
from stream.source.log_reader import Record
from stream.stages.dead_letters import send_dead_letters
from stream.stages.intake import came_first, home_of, request_of
from stream.stages.origins import Origins
from stream.stages.sending import PAUSED, NotSent, append, or_not_sent, send_on
from stream.stages.users import UserStage
from stream.telemetry import Telemetry


@dataclass
class Asked:
    """A batch of requests, decoded and answered."""

    here: list[tuple[Record, SourcedRequest]] = field(default_factory=list)
    elsewhere: list[tuple[Record, Request, int]] = field(default_factory=list)
    """Requests whose user is at home in another partition."""
    rejects: list[tuple[Record, BadRecord]] = field(default_factory=list)
    answers: list[Recommendation] = field(default_factory=list)
    refusals: list[Recommendation] = field(default_factory=list)
    """Answers that say why there is no list, to rejects that say who asked."""


class RequestStage:
    """All that happens to a batch of requests; no state is changed by it.

    An answer is made with the user's state as it is when the request comes: an event that was sent before the request
    and has no list yet may not be in it.
    """

    def __init__(
        self,
        app: BatchApp,
        users: UserStage,
        recommender: Recommender,
        signal_feed: SignalFeed,
        item_feed: ItemFeed,
        telemetry: Telemetry,
        topics: Topics,
        partitions: int,
        thread: Executor,
        origins: Origins,
    ) -> None:
        self._app = app
        self._users = users
        self._recommender = recommender
        self._signal_feed = signal_feed
        self._item_feed = item_feed
        self._telemetry = telemetry
        self._topics = topics
        self._partitions = partitions
        self._thread = thread
        self._origins = origins

    async def answer_and_confirm(self, batch: Batch) -> None:
        """Answer a batch and await the acks of what it sends; raises NotSent if they may not have come about."""
        started, loop = time.perf_counter(), asyncio.get_running_loop()
        asked = await loop.run_in_executor(self._thread, self._answer, batch)
        if not self._app.batch_consumer.may_send(batch):
            raise NotSent(PAUSED)
        producer = self._app.kafka_producer()
        outputs: dict[int, list[tuple[bytes, bytes]]] = {}
        for (_, sourced), answer in zip(asked.here, asked.answers, strict=True):
            outputs.setdefault(sourced.partition, []).append((answer.user_id.encode(), encode(answer)))
        for answer in asked.refusals:
            home = home_of(answer.user_id, self._partitions)
            outputs.setdefault(home, []).append((answer.user_id.encode(), encode(answer)))
        sent: list[asyncio.Future[Any]] = []
        for partition, records in outputs.items():
            sent += [each.acked for each in await append(producer, self._topics.recommendations, partition, records)]
        sent += await send_dead_letters(producer, self._topics.dead_letters, asked.rejects)
        for record, request, home in asked.elsewhere:
            epoch = self._app.epoch_of(record.topic, record.partition)
            sent.append(await send_on(producer, record, request.user_id, home, self._origins, epoch))
        with or_not_sent(self._telemetry):
            for each in sent:
                await each
        self._telemetry.stage.labels("answer").observe(time.perf_counter() - started)
        self._count(asked)

    def _answer(self, batch: Batch) -> Asked:
        asked = self._take_in(batch.records.values())
        wanted: dict[int, dict[bytes, None]] = {}
        for record, sourced in asked.here:
            wanted.setdefault(record.partition, {})[sourced.request.user_id.encode()] = None
        states = self._users.states_of(wanted)
        model, moment = self._signal_feed.serving or (None, None)
        requests = [sourced for _, sourced in asked.here]
        asked.answers = self._recommender.answer(
            *(model, self._users.popularity, states, requests, time.time(), moment),
            signals=self._signal_feed.reading(),
            availability=self._item_feed.availability,
        )
        return asked

    def _take_in(self, partitions: Iterable[Sequence[Record]]) -> Asked:
        asked = Asked()
        for records in partitions:
            for record in records:
                try:
                    request = request_of(record)
                except BadRecord as error:
                    asked.rejects.append((record, error))
                    epoch = self._app.epoch_of(record.topic, record.partition)
                    if refusal := refusal_of(record, error, epoch, time.time()):
                        asked.refusals.append(refusal)
                    continue
                came = self._origins.of(record)
                home = home_of(request.user_id, self._partitions)
                if record.partition != home and (came is None or record.partition >= self._partitions):
                    asked.elsewhere.append((record, request, home))
                    continue
                came = came or came_first(record, self._app.epoch_of(record.topic, record.partition))
                asked.here.append((record, SourcedRequest(request, record.partition, came.time, came.source)))
        return asked

    def _count(self, asked: Asked) -> None:
        telemetry = self._telemetry
        telemetry.requests.labels("answered").inc(len(asked.here))
        telemetry.requests.labels("forwarded").inc(len(asked.elsewhere))
        telemetry.requests.labels("invalid").inc(len(asked.rejects))
        telemetry.refused(error for _, error in asked.rejects)
        now = time.time()
        for _, sourced in asked.here:
            telemetry.request_latency.observe(now - sourced.now)


def refusal_of(record: Record, error: BadRecord, epoch: int, generated_at: float) -> Recommendation | None:
    """Answer a request that is refused with the reason; None if it does not say who asks."""
    asker = decode_asker(record.value)
    if asker is None:
        return None
    source = came_first(record, epoch).source
    return Recommendation(
        rec_id=rec_id(source.topic, source.partition, source.offset, source.epoch),
        user_id=asker.user_id,
        items=[],
        model_version="",
        session_id="",
        event_time=record.timestamp / 1000,
        generated_at=generated_at,
        source=source,
        request_id=asker.request_id,
        error=str(error),
    )
