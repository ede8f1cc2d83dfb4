"""A client that sends events, reads their lists, and measures latency and quality."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError

from models.records import Event, Request, Topics, decode_recommendation, encode
from stream.clients.connection import client_options
from stream.clients.produce import value_of
from stream.demo.live_quality import LiveQuality
from stream.stages.intake import home_of
from stream.stages.sending import append

ASKING_CHUNK = 16  # chunk size with requests: small, as its lists are requested before its first event
CHUNK = 128  # events sent at once: small compared with the window, so that the load is even
COMES_BACK_S = 1800.0  # a user who returns after this gap requests a list; otherwise the last event's list counts
ASKING_S = 30.0  # timeout of a request: the worker may have been stopped
DEFAULT_WINDOW = 512  # events without a list, at most: a full batch in process and one waiting


@dataclass(frozen=True)
class Sent:
    """One event without a list yet."""

    index: int
    event: Event
    at: float


class ReplayClient:
    """Sends events in order and reads `recommendations`. At most `window` events are without a list."""

    def __init__(self, bootstrap: str, topics: Topics, partitions: int, *, window: int = DEFAULT_WINDOW) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._partitions = partitions
        self._window = window
        self._homes: dict[str, int] = {}
        self._outstanding: dict[tuple[int, int], Sent] = {}
        self._early: dict[tuple[int, int], list[str]] = {}
        self._progress = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._requested: dict[str, tuple[Event, float]] = {}
        self._last_at: dict[str, float] = {}  # user -> time of the newest event
        self.asking = False  # whether returning users request a list before their event
        self.quality = LiveQuality()
        self.asked = 0
        self.latencies_s: list[float] = []
        self.request_latencies_s: list[float] = []
        self.answered: list[tuple[int, float, float]] = []  # partition, sent at, answered at (time.perf_counter)
        self.sent = 0
        self.answers = 0
        self.versions: Counter[str] = Counter()
        self.latest: dict[str, list[str]] = {}
        self.last_version = ""
        self.measuring = False

    async def __aenter__(self) -> ReplayClient:
        """Connect a producer and a reader of all partitions."""
        self._producer = aiokafka.AIOKafkaProducer(
            **client_options(self._bootstrap, "hrnn-replay"), max_batch_size=256 * 1024, max_request_size=6 * 2**20
        )
        self._consumer = aiokafka.AIOKafkaConsumer(
            **client_options(self._bootstrap, "hrnn-replay"), enable_auto_commit=False, auto_offset_reset="latest"
        )
        await self._producer.start()
        await self._consumer.start()
        tps = [TopicPartition(self._topics.recommendations, p) for p in range(self._partitions)]
        self._consumer.assign(tps)
        await self._consumer.seek_to_end(*tps)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close both."""
        await self._consumer.stop()
        await self._producer.stop()
        if self._reader is not None:
            self._reader.cancel()

    @property
    def outstanding(self) -> int:
        """Return the number of events without a list."""
        return len(self._outstanding)

    async def send(self, events: Sequence[Event], *, rate: float | None = None) -> None:
        """Send events in order, at a rate (events/s) or as fast as answers come."""
        began, done = time.monotonic(), 0
        while done < len(events):
            while self.outstanding >= self._window:
                await self._wait()
            size = min(ASKING_CHUNK if self.asking else CHUNK, len(events) - done)
            if rate is not None:
                ahead = done / rate - (time.monotonic() - began)
                if ahead > 0:
                    await asyncio.sleep(ahead)
                size = min(size, max(1, int(rate * 0.02)))
            chunk = events[done : done + size]
            if self.asking:
                chunk = await self._ask(chunk)
            await self._send_chunk(chunk)
            done += len(chunk)

    async def _ask(self, events: Sequence[Event]) -> Sequence[Event]:
        """Request lists for the returning users of a chunk and wait for them; returns the events to send now.

        The chunk ends before a user returns for the second time.
        """
        here: set[str] = set()
        requests: list[tuple[int, str, bytes]] = []
        for number, event in enumerate(events):
            user_id, before = event.user_id, self._last_at.get(event.user_id)
            if before is not None and event.timestamp - before >= COMES_BACK_S:
                if user_id in here:
                    events = events[:number]
                    break
                request = Request(f"replay-{self.sent + number}", user_id, event.timestamp)
                requests.append((self._home(user_id), user_id, encode(request)))
                self._requested[request.request_id] = event, time.perf_counter()
            here.add(user_id)
            self._last_at[user_id] = event.timestamp
        asking = {user_id for _, user_id, _ in requests}
        deadline = time.monotonic() + ASKING_S
        while any(sent.event.user_id in asking for sent in self._outstanding.values()) and time.monotonic() < deadline:
            await self._wait()  # their last events must be in their states
        for partition, user_id, value in requests:
            await self._producer.send(self._topics.requests, key=user_id.encode(), value=value, partition=partition)
        await self._producer.flush()
        while self._requested and time.monotonic() < deadline:
            await self._wait()
        self._requested.clear()
        return events

    def _home(self, user_id: str) -> int:
        home = self._homes.get(user_id)
        if home is None:
            home = self._homes[user_id] = home_of(user_id, self._partitions)
        return home

    async def send_raw(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Send any bytes, without expecting a list."""
        await self._producer.send_and_wait(self._topics.interactions, key=key, value=value, partition=partition)

    async def drained(self, timeout_s: float) -> bool:
        """Wait until every event has its list; returns False after a timeout."""
        deadline = time.monotonic() + timeout_s
        while self._outstanding and time.monotonic() < deadline:
            await self._wait()
        return not self._outstanding

    async def _wait(self) -> None:
        self._progress.clear()
        try:
            async with asyncio.timeout(0.2):
                await self._progress.wait()
        except TimeoutError:
            pass

    async def _send_chunk(self, events: Sequence[Event]) -> None:
        by_partition: dict[int, list[tuple[int, Event]]] = {}
        for event in events:
            home = self._home(event.user_id)
            self._last_at[event.user_id] = event.timestamp
            self.quality.sent(self.sent, event, counted=self.measuring)
            by_partition.setdefault(home, []).append((self.sent, event))
            self.sent += 1
        at, topic = time.perf_counter(), self._topics.interactions
        pending = [
            (partition, indexed, await append(self._producer, topic, partition, _records(indexed)))
            for partition, indexed in by_partition.items()
        ]
        for partition, indexed, appends in pending:
            rest = iter(indexed)
            for sent in appends:
                base = (await sent.acked).offset
                for offset in range(base, base + sent.records):
                    index, event = next(rest)
                    place, record = (partition, offset), Sent(index, event, at)
                    if place in self._early:
                        self._answer(record, self._early.pop(place), time.perf_counter())
                    else:
                        self._outstanding[place] = record

    async def _read(self) -> None:
        try:
            while True:
                fetched = await self._consumer.getmany(timeout_ms=200)
                now = time.perf_counter()
                for records in fetched.values():
                    for record in records:
                        self._take(record.value or b"", now)
                if fetched:
                    self._progress.set()
        except ConsumerStoppedError:
            return

    def _take(self, value: bytes, now: float) -> None:
        recommendation = decode_recommendation(value)
        items = [item.item_id for item in recommendation.items]
        if recommendation.request_id is not None:
            asked = self._requested.pop(recommendation.request_id, None)
            if asked is not None:
                self._answer_request(*asked, items, now)
            return
        self.last_version = recommendation.model_version
        self.versions[self.last_version] += 1
        place = recommendation.source.partition, recommendation.source.offset
        sent = self._outstanding.pop(place, None)
        if sent is None:
            self._early[place] = items  # the list came before our ack, or is a second one
        else:
            self._answer(sent, items, now)

    def _answer_request(self, event: Event, at: float, items: list[str], now: float) -> None:
        self.asked += 1
        if self.measuring:
            self.request_latencies_s.append(now - at)
        self.latest[event.user_id] = items
        self.quality.requested(event.user_id, items)

    def _answer(self, sent: Sent, items: list[str], now: float) -> None:
        self.answers += 1
        if self.measuring:
            self.latencies_s.append(now - sent.at)
            self.answered.append((self._homes[sent.event.user_id], sent.at, now))
        self.latest[sent.event.user_id] = items
        self.quality.answered(sent.index, sent.event, items)


def _records(indexed: Sequence[tuple[int, Event]]) -> list[tuple[bytes, bytes]]:
    return [(event.user_id.encode(), value_of(event)) for _, event in indexed]
