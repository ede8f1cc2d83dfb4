"""What clients send: every codec and every kind of junk, transactions, forged headers."""

from __future__ import annotations

import asyncio
import gzip
import json
import time

import aiokafka
from kafka import KafkaProducer

from models.records import Event, rec_id
from stream.stages.intake import home_of
from tests.made import junk_values
from tests.system.faults.scene import Scene, Setup, scene

CODECS = ("gzip", "lz4", "snappy", "zstd")
EVENTS_A_CODEC = 20
LARGE_EVENT_TYPES = 40
LARGE_REQUEST_BYTES = 16 * 2**20
AFTER_S = 30.0


class RawName(str):
    """A header's name whose bytes are not UTF-8."""

    def encode(self, *_: object, **__: object) -> bytes:
        """Give the bytes."""
        return b"\xff\xfe\xfd"


def value_of(user_id: str, item_id: str, **more: object) -> bytes:
    """Write an event."""
    return json.dumps({"user_id": user_id, "item_id": item_id, "timestamp": time.time(), **more}).encode()


async def poison(setup: Setup) -> None:
    """Send junk between events of plain users: the worker lives, and each event has its list."""
    async with scene(setup) as run:
        await run.start_ready()
        await run.send(100)
        await asyncio.to_thread(_send_poison, run)
        await _send_null_headers(run)
        await run.send(100)
        for codec in CODECS:
            await _send_compressed(run, codec)
            await run.send(20)
            if not await run.drained(AFTER_S):
                run.note(f"stopped after codec {codec}")
                break
        await run.check()


def _send_poison(run: Scene) -> None:
    """Send each kind of junk, and what is no junk but large or strange."""
    topic, partitions = run.deployment.topics.interactions, run.deployment.partitions
    producer = KafkaProducer(
        bootstrap_servers=run.deployment.bootstrap, max_request_size=LARGE_REQUEST_BYTES, compression_type="gzip"
    )

    def send(user_id: str, value: bytes | None, **more: object) -> None:
        run.result.faults += 1
        producer.send(topic, key=user_id.encode(), value=value, partition=home_of(user_id, partitions), **more).get(30)

    try:
        for number, value in enumerate(junk_values().values()):
            send(f"junk-{number}", value)
        send("one-letter", b"a" * (8 * 2**20))
        send("one-letter-event", value_of("one-letter-event", "item-1", properties="a" * (8 * 2**20 - 200)))
        send("raw-header", value_of("raw-header", "item-1"), headers=[(RawName("x"), b"1")])
        send("junk-header", b"no event", headers=[(RawName("x"), b"1")])
        send("many-headers", b"no event", headers=[(f"h{n}", b"x" * 1000) for n in range(900)])
        for number in range(LARGE_EVENT_TYPES):
            large = f"{number:03d}" + "t" * 60_000
            send("large-type", value_of("large-type", f"item-{number}", event_type=large))
        for huge in (1e200, -1e200, 1e308):
            send("large-value", value_of("large-value", "item-1", event_value=huge))
        send("gzip-in-gzip", gzip.compress(b"a" * 10**6))
    finally:
        producer.close()


async def _send_null_headers(run: Scene) -> None:
    """Send headers without a value, on an event and on junk; not every client can."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=run.deployment.bootstrap)
    await producer.start()
    try:
        user_id = "null-header"
        for header in ("hrnn-origin", "other"):
            for value in (value_of(user_id, "item-1"), b"no event"):
                run.result.faults += 1
                await producer.send_and_wait(
                    run.deployment.topics.interactions,
                    key=user_id.encode(),
                    value=value,
                    partition=home_of(user_id, run.deployment.partitions),
                    headers=[(header, None)],
                )
    finally:
        await producer.stop()


async def _send_compressed(run: Scene, codec: str) -> None:
    """Send events as a client with that `compression.type` does; the audit sees whether each has its list."""
    topics, partitions = run.deployment.topics, run.deployment.partitions
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=run.deployment.bootstrap, compression_type=codec, linger_ms=50
    )
    await producer.start()
    run.result.faults += 1
    try:
        sent = []
        for number in range(EVENTS_A_CODEC):
            user_id = f"{codec}-{number % 4}"
            home = home_of(user_id, partitions)
            value = value_of(user_id, f"item-{number}")
            sent.append(await producer.send(topics.interactions, key=user_id.encode(), value=value, partition=home))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def transactions(setup: Setup) -> None:
    """Commit, abort, then silence: what was aborted is never applied, and no lag remains."""
    async with scene(setup) as run:
        (worker,) = await run.start_ready()
        await run.send(100)
        await run.drained()
        topic, partitions = run.deployment.topics.interactions, run.deployment.partitions
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=run.deployment.bootstrap, transactional_id=run.deployment.topics.prefix + "client"
        )
        await producer.start()
        places: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        try:
            for commits in (True, False, True, False):
                run.result.faults += not commits
                await producer.begin_transaction()
                for number in range(20):
                    user_id = f"user-{number}"
                    sent = await producer.send_and_wait(
                        topic,
                        key=user_id.encode(),
                        value=value_of(user_id, f"item-{number}" if commits else "item-aborted"),
                        partition=home_of(user_id, partitions),
                    )
                    places[commits].append((sent.partition, sent.offset))
                await (producer.commit_transaction() if commits else producer.abort_transaction())
        finally:
            await producer.stop()
        await run.until(lambda: _has_lists(run, places[True]), "each committed event has its list", AFTER_S)
        await run.until(
            lambda: worker.metric("rec_consumer_lag_records") == 0, "lag 0 after the markers of transactions", 15.0
        )
        # silence in between: it is the end of the log that a marker stands at
        await asyncio.sleep(2.0)
        if lag := await asyncio.to_thread(worker.metric, "rec_consumer_lag_records"):
            run.fail(f"lag is {lag:.0f} records in silence")
        aborted = {rec_id(topic, *place) for place in places[False]}
        applied = [given for given in await asyncio.to_thread(run.deployment.lists) if given.rec_id in aborted]
        run.result.wrong_lists += len(applied)
        if applied:
            run.note(f"{len(applied)} of {len(aborted)} aborted events were applied")
        await run.stop(worker)
        await run.audit()


def _has_lists(run: Scene, places: list[tuple[int, int]]) -> bool:
    given = {one.rec_id for one in run.deployment.lists()}
    return all(rec_id(run.deployment.topics.interactions, *place) in given for place in places)


async def forged_origin(setup: Setup) -> None:
    """Send events with the header of forwarded ones: each is taken for what it is, an event of its own place."""
    async with scene(setup) as run:
        await run.start_ready()
        await run.send(200)
        await run.drained()
        places = await asyncio.to_thread(_send_forged, run)
        await run.send(100)
        await run.drained()
        await run.until(lambda: _has_lists(run, places), "each event with a forged header has its own list", AFTER_S)
        given = {one.rec_id for one in await asyncio.to_thread(run.deployment.lists)}
        missing = [place for place in places if rec_id(run.deployment.topics.interactions, *place) not in given]
        run.result.lost += len(missing)
        if missing:
            run.note(f"{len(missing)} of {len(places)} events with a forged header have no list of their own")
        await run.check()


def _send_forged(run: Scene) -> list[tuple[int, int]]:
    """Send events with forged headers; returns where they landed."""
    topic, partitions = run.deployment.topics.interactions, run.deployment.partitions
    producer = KafkaProducer(bootstrap_servers=run.deployment.bootstrap)
    now_ms = int(time.time() * 1000)
    places: list[tuple[int, int]] = []
    try:
        for number, user_id in enumerate([f"forger-{n}" for n in range(6)]):
            home = home_of(user_id, partitions)
            other = (home + 1) % partitions
            headers = [
                f"{other}/0/{now_ms}",  # steals the list of the event that stands there
                f"{other}/999999999999/{now_ms}",  # later origins of that partition are taken for repeats
                f"{other}/5/{now_ms}",
                f"{other}/{number + 1}/1000",  # 1970: the event is then from the future
                f"{other}/{number + 9}/999999999999999",  # the year 33658: moves a clock
                f"{other}/{number}/{now_ms}",
            ]
            for count, header in enumerate(headers):
                run.result.faults += 1
                forged = [("hrnn-origin", header.encode())]
                value = value_of(user_id, f"item-{count}")
                sent = producer.send(topic, key=user_id.encode(), value=value, partition=home, headers=forged).get(30)
                places.append((sent.partition, sent.offset))
            # a user that is at home elsewhere: forged, it would have a state in two partitions
            stray = Event(f"stray-{number}", "item-1", time.time())
            wrong = (home_of(stray.user_id, partitions) + 1) % partitions
            forged = [("hrnn-origin", f"{(wrong + 2) % partitions}/{number}/{now_ms}".encode())]
            value = value_of(stray.user_id, stray.item_id)
            sent = producer.send(topic, key=stray.user_id.encode(), value=value, partition=wrong, headers=forged).get(
                30
            )
            places.append((sent.partition, sent.offset))
    finally:
        producer.close()
    return places
