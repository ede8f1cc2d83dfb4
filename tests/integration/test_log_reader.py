"""Readers outside the group: opened and closed at once, and reading a stretch that ends before the log does."""

from __future__ import annotations

from aiokafka import TopicPartition
from kafka import KafkaProducer

from models.records import Topics
from stream.clients import topics as topic_table
from stream.clients.connection import administration
from stream.source.log_reader import log_reader, read_stretch


async def test_a_reader_that_reads_nothing_closes_in_good_order(kafka: str) -> None:
    for _ in range(20):
        async with log_reader({"bootstrap_servers": kafka}) as reader:
            stretches = {TopicPartition("none", 0): (5, 5)}
            assert [records async for _, records in read_stretch(reader, stretches)] == []


async def test_a_stretch_ends_where_it_was_said_to(kafka: str, topic_prefix: str) -> None:
    topics = Topics(topic_prefix)
    with administration(kafka) as admin:
        topic_table.create(admin, topic_table.topic_table(topics, partitions=1))
    producer = KafkaProducer(bootstrap_servers=kafka)  # it waits for the new topic's leader
    for n in range(10):
        producer.send(topics.sessions, b"%d" % n, b"key-%d" % n, partition=0).get(30)
    producer.close()
    tp = TopicPartition(topics.sessions, 0)
    async with log_reader({"bootstrap_servers": kafka}) as reader:
        values = [r.value async for _, records in read_stretch(reader, {tp: (3, 7)}) for r in records]
    assert values == [b"3", b"4", b"5", b"6"]
