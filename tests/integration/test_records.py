"""Whole records and batches of clients on a real worker: codecs, headers, bombs, damage, transactions."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from stream.clients.connection import administration
from stream.demo.broker import LocalKafka
from stream.demo.processes import Process
from stream.source.log_reader import log_reader, read_stretch
from stream.source.record_batches import UNPACKED_BYTES
from tests.made_batches import Given, Raw, batch, changed, with_latin_header
from tests.running import Deployment, assert_passes, log_of, wait_until

CODECS = ("gzip", "snappy", "lz4", "zstd")


@pytest.fixture(scope="module")
def running(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One worker for all tests here; none of them ends it."""
    folder: Path = tmp_path_factory.mktemp("records")
    with Deployment(kafka, f"records-{os.getpid()}-", folder) as deployment:
        deployment.publish("v1")
        worker = deployment.ready_worker()
        yield deployment
        assert worker.running, worker.log_tail(40)
        assert_passes(deployment.audit())


@pytest.fixture
def worker(running: Deployment) -> Process:
    return running.workers[0]


def event(user_id: str, item_id: str = "item-1") -> bytes:
    return json.dumps({"user_id": user_id, "item_id": item_id, "timestamp": time.time()}).encode()


@asynccontextmanager
async def producing(deployment: Deployment, **more: Any) -> AsyncIterator[aiokafka.AIOKafkaProducer]:
    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=deployment.bootstrap, max_request_size=32 * 2**20, **more
    ) as producer:
        yield producer


async def has_lists(deployment: Deployment, user_id: str, count: int) -> None:
    def found() -> bool:
        records = deployment.records(deployment.topics.recommendations)
        return sum(record.key == user_id.encode() for record in records) == count

    await asyncio.to_thread(wait_until, found, every_s=0.2)


async def has_dead_letter(deployment: Deployment, partition: int, offset: int) -> dict[str, str]:
    def found() -> dict[str, str] | None:
        for record in deployment.records(deployment.topics.dead_letters):
            headers = dict(record.headers)
            if (headers["source-partition"], headers["source-offset"]) == (b"%d" % partition, b"%d" % offset):
                return {name: value.decode() for name, value in headers.items()}
        return None

    headers: dict[str, str] = await asyncio.to_thread(wait_until, found, every_s=0.2)
    return headers


def lag(deployment: Deployment, worker: Process, metric: str = "records") -> float:
    topic = f'topic="{deployment.topics.interactions}"'
    return worker.metric(f"rec_consumer_lag_{metric}", topic)


async def no_lag(deployment: Deployment, worker: Process) -> None:
    await asyncio.to_thread(wait_until, lambda: lag(deployment, worker) == 0)


@pytest.mark.parametrize("where", ["producer", "topic"])
@pytest.mark.parametrize("codec", CODECS)
async def test_events_of_every_codec_are_applied(running: Deployment, codec: str, where: str) -> None:
    user, topic = f"{codec}-{where}", running.topics.interactions
    if where == "topic":
        set_compression(running, codec)
    try:
        async with producing(running, compression_type=codec if where == "producer" else None) as producer:
            sent = [await producer.send(topic, event(user, f"item-{n}"), key=user.encode()) for n in range(20)]
            for each in sent:
                await each
        await has_lists(running, user, 20)
    finally:
        if where == "topic":
            set_compression(running, "producer")


def set_compression(running: Deployment, codec: str) -> None:
    with administration(running.bootstrap) as admin:
        topic = ConfigResource(ConfigResourceType.TOPIC, running.topics.interactions, {"compression.type": codec})
        admin.alter_configs([topic])


async def test_a_header_s_name_that_is_not_utf_8_costs_nothing(running: Deployment) -> None:
    data = batch([Given(b"odd", event("odd", f"item-{n}"), [("plain", b"x")]) for n in range(3)])
    async with producing(running) as producer:
        sent = await producer.send_batch(Raw(with_latin_header(data), 3), running.topics.interactions, partition=0)
        await sent
        await producer.send_and_wait(running.topics.interactions, b"no event", partition=0)
    await has_lists(running, "odd", 3)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
async def test_a_bomb_is_skipped_by_name_and_what_is_around_it_is_applied(
    running: Deployment, worker: Process, codec: str
) -> None:
    user, topic = f"bombed-{codec}", running.topics.interactions
    before = worker.metric("rec_unreadable_records_total")
    data = batch([Given(b"bomb", bytes(UNPACKED_BYTES // 4))] * 5, codec=codec)
    async with producing(running) as producer:
        await producer.send_and_wait(topic, event(user), partition=1)
        sent = await (await producer.send_batch(Raw(data, 5), topic, partition=1))
        await producer.send_and_wait(topic, event(user), partition=1)
    await has_lists(running, user, 2)
    headers = await has_dead_letter(running, 1, sent.offset + 4)
    assert headers["reason"] == "unreadable"
    assert headers["source-first-offset"] == str(sent.offset)
    assert "64 MiB" in headers["detail"]
    await asyncio.to_thread(wait_until, lambda: worker.metric("rec_unreadable_records_total") == before + 5)


@pytest.mark.parametrize("codec", CODECS)
async def test_broken_compression_ends_nothing(running: Deployment, codec: str) -> None:
    user, topic = f"broken-{codec}", running.topics.interactions
    data = changed(batch([Given(b"k", event(user))] * 3, codec=codec), records=lambda held: held[:-9] + bytes(9))
    refused = False
    async with producing(running) as producer:
        try:
            offset = (await (await producer.send_batch(Raw(data, 3), topic, partition=1))).offset
        except Exception:  # Kafka 4 looks into what it stores; an older one may not
            refused = True
        await producer.send_and_wait(topic, event(user), partition=1)
    await has_lists(running, user, 1)
    if not refused:
        assert (await has_dead_letter(running, 1, offset + 2))["reason"] == "unreadable"


async def test_aborted_events_are_never_applied_and_markers_are_no_lag(running: Deployment, worker: Process) -> None:
    topic, holes = running.topics.interactions, worker.metric("rec_log_holes_total")
    async with producing(running, transactional_id=running.topics.prefix) as producer:
        for number in range(10):
            async with producer.transaction():
                for _ in range(3):
                    await producer.send(topic, event("committed"), key=b"committed")
            await producer.begin_transaction()
            await (await producer.send(topic, event("aborted"), key=b"aborted"))
            if number == 9:  # open, and nothing behind it is read
                await producer.send_and_wait(topic, event("committed"), key=b"committed")
                async with producing(running) as plain:
                    partition = (await plain.send_and_wait(topic, event("aborted"), key=b"waits")).partition
                assert partition is not None
                await asyncio.to_thread(wait_until, lambda: lag(running, worker) > 0)
            await producer.abort_transaction()
        await has_lists(running, "committed", 30)
        async with producer.transaction():
            await producer.send(topic, event("committed"), key=b"committed")
    # then silence: the log ends with markers
    await has_lists(running, "committed", 31)
    await no_lag(running, worker)
    assert lag(running, worker, "seconds") == 0
    assert not [given for given in running.lists() if given.user_id == "aborted" and given.source.offset < 0]
    assert worker.metric("rec_log_holes_total") == holes
    assert "log has no records" not in log_of(worker)


async def test_a_stretch_ends_before_an_open_transaction_and_behind_markers(running: Deployment) -> None:
    tp = TopicPartition(running.topics.requests, 0)
    request = b'{"request_id": "r", "user_id": "u"}'
    options = {"bootstrap_servers": running.bootstrap}

    async def values(end: int) -> list[bytes | None]:
        async with log_reader(options, committed=True) as reader:
            stretch = read_stretch(reader, {tp: (0, end)})
            return [record.value async for _, records in stretch for record in records]

    async with producing(running, transactional_id=f"{running.topics.prefix}r") as producer:
        async with producer.transaction():
            await producer.send(tp.topic, request, partition=0)
        await producer.begin_transaction()
        await producer.send_and_wait(tp.topic, b"open", partition=0)
        async with asyncio.timeout(20):
            assert await values(3) == [request]
        await producer.abort_transaction()
    async with asyncio.timeout(20):
        assert await values(4) == [request]


async def test_a_batch_damaged_on_the_brokers_disk_is_tried_again_and_skipped(tmp_path: Path) -> None:
    with LocalKafka() as broker, Deployment(broker.bootstrap, "damaged-", tmp_path, partitions=1) as deployment:
        deployment.publish("v1")
        topic = deployment.topics.interactions
        async with producing(deployment) as producer:
            for data in (event("a"), event("b"), b"x" * 50, event("c"), event("d")):
                await producer.send_and_wait(topic, data, partition=0)
        assert broker.folder is not None
        (log,) = broker.folder.glob(f"data/{topic}-0/*.log")
        held = log.read_bytes()
        place = held.index(b"x" * 50)
        with log.open("r+b") as file:
            file.seek(place)
            file.write(b"y")
        worker = await asyncio.to_thread(deployment.ready_worker)
        for user in "abcd":
            await has_lists(deployment, user, 1)
        headers = await has_dead_letter(deployment, 0, 2)
        assert (headers["reason"], headers["source-first-offset"]) == ("unreadable", "2")
        assert log_of(worker).count("could not be read, retry") == 2
        await no_lag(deployment, worker)
        assert_passes(await deployment.audited())
