"""The audit on a real Kafka: beside a running load, and after what operators do to topics."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kafka import KafkaProducer, TopicPartition

from models.items.signals import SignalRules
from stream.clients.connection import administration
from stream.stages.intake import home_of
from tests.running import Deployment, answers_more, assert_passes, made_events, under_load, wait_until


async def test_while_workers_are_at_work_then_after_an_erasure_and_a_trim(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    with Deployment(kafka, topic_prefix, tmp_path) as deployment:
        await asyncio.to_thread(deployment.publish, "v1", rules=SignalRules())
        worker = await asyncio.to_thread(deployment.ready_worker, HRNN_SIGNAL_INTERVAL_S="0.2")
        async with under_load(deployment, rate=80.0) as client:
            await answers_more(client, 300)
            report = await deployment.audited()
            assert_passes(report)
            assert report.events < client.sent, "more came while it compared"
        assert report.not_checked == [], report
        assert report.lists_with_signals_checked > 250, report
        whole = await deployment.audited()
        assert_passes(whole)
        assert whole.events == client.sent
        assert whole.transitions_behind == 0

        newest = max(given.event_time for given in deployment.lists())
        user = "user-3"
        await asyncio.to_thread(erase, deployment, user)
        home = home_of(user, deployment.partitions)
        kept = await deployment.audited()
        assert_passes(kept)
        assert kept.exit_status == 2
        assert {part for part, _ in kept.not_checked} >= {"states", "sessions", "lists"}, kept
        assert whole.lists_checked > kept.lists_checked > whole.lists_checked * 0.9

        trimmed = next(partition for partition in range(deployment.partitions) if partition != home)
        await asyncio.to_thread(trim, deployment, trimmed, 5)
        await deployment.play(made_events(20, users=20, start=newest + 1.0))
        await asyncio.to_thread(wait_until, lambda: worker.metric("rec_consumer_lag_records") == 0)
        rest = await deployment.audited()
        assert_passes(rest)
        assert rest.exit_status == 2
        assert kept.lists_checked > rest.lists_checked > kept.lists_checked * 0.5
        assert await asyncio.to_thread(worker.stop) == 0


def erase(deployment: Deployment, user: str) -> None:
    """Write the tombstones that the runbook writes."""
    topics, key = deployment.topics, user.encode()
    partition = home_of(user, deployment.partitions)
    producer = KafkaProducer(bootstrap_servers=deployment.bootstrap)
    for topic in (topics.recommendations, topics.user_states):
        producer.send(topic, key=key, value=None, partition=partition).get(30)
    for session in {each.key for each in deployment.records(topics.sessions) if each.key.startswith(key + b"|")}:
        producer.send(topics.sessions, key=session, value=None, partition=partition).get(30)
    producer.close()


def trim(deployment: Deployment, partition: int, offset: int) -> None:
    """Take the first events of a partition away, as a retention time does."""
    with administration(deployment.bootstrap) as admin:
        admin.delete_records({TopicPartition(deployment.topics.interactions, partition): offset})
