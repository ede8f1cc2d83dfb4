"""Source topics that change under a worker: re-created, shorter, with more partitions. Nothing is skipped silently."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from models.records import Event
from models.users import state
from models.users.state import UserState
from stream.clients import topics as topic_table
from stream.clients.connection import administration
from stream.clients.produce import value_of
from stream.demo.processes import Process
from stream.doctor.examine import beyond_the_end
from stream.stages.intake import home_of
from tests.running import READY_S, Deployment, answers_more, log_of, under_load, wait_until


@pytest.fixture
def deployment(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, topic_prefix, tmp_path) as made:
        made.publish("v1")
        yield made


def of_one_user(user_id: str, count: int) -> list[Event]:
    begin = time.time() - 1000
    return [Event(user_id, f"item-{n}", begin + n, "click") for n in range(count)]


def recreate(deployment: Deployment, topic: str, *, partitions: int = 0) -> None:
    """Delete a topic and make it again, as an operator may do."""
    specs = topic_table.topic_table(deployment.topics, partitions=partitions or deployment.partitions)
    with administration(deployment.bootstrap) as admin:
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics())
        topic_table.create(admin, [spec for spec in specs if spec.name == topic])


def commit(deployment: Deployment, offsets: dict[tuple[str, int], int]) -> None:
    """Set offsets of the workers' group, while none runs."""
    consumer = KafkaConsumer(
        bootstrap_servers=deployment.bootstrap, group_id=deployment.topics.app_id, enable_auto_commit=False
    )
    try:
        consumer.assign([TopicPartition(*tp) for tp in offsets])
        consumer.commit({TopicPartition(*tp): OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items()})
    finally:
        consumer.close()


def send_by_key(deployment: Deployment, events: list[Event]) -> set[tuple[int, int]]:
    """Send events as any client would, by the partitions that the topic has now; returns where they came to stand."""
    producer = KafkaProducer(bootstrap_servers=deployment.bootstrap)
    try:
        sent = [
            producer.send(deployment.topics.interactions, key=event.user_id.encode(), value=value_of(event))
            for event in events
        ]
        return {(each.get(30).partition, each.get(30).offset) for each in sent}
    finally:
        producer.close()


def states_of(deployment: Deployment, user_id: str) -> dict[int, UserState]:
    """Read a user's newest state of each partition of the changelog."""
    found: dict[int, UserState] = {}
    for record in deployment.records(deployment.topics.user_states):
        if record.key == user_id.encode():
            held = state.decode(record.value)
            if record.partition not in found or held.applied_offset >= found[record.partition].applied_offset:
                found[record.partition] = held
    return found


def lists_of(deployment: Deployment, user_id: str) -> set[str]:
    return {given.rec_id for given in deployment.lists() if given.user_id == user_id}


def applied(worker: Process) -> float:
    return worker.metric("rec_events_total", 'result="applied"')


async def go_on(deployment: Deployment, user_id: str, before: int, count: int = 10) -> None:
    """Send more events of a user and see that each has its list, and that the state goes on with all of them."""
    await deployment.play(of_one_user(user_id, before + count)[before:])
    lists = await asyncio.to_thread(lists_of, deployment, user_id)
    assert len(lists) == before + count
    (held,) = (await asyncio.to_thread(states_of, deployment, user_id)).values()
    assert held.events == before + count
    assert [e.item_id for e in held.history] == [f"item-{n}" for n in range(before + count)]
    offsets = [e.offset for e in held.history]
    assert offsets == sorted(set(offsets))


async def test_events_of_a_recreated_topic_are_applied_by_a_worker_that_runs(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(of_one_user("known", 30))
    await asyncio.to_thread(recreate, deployment, deployment.topics.interactions)
    await go_on(deployment, "known", 30)
    assert log_of(worker).count(f"topic re-created topic={deployment.topics.interactions} ") == 1
    assert worker.metric("rec_topic_recreated_total") == 1
    assert worker.running
    for topic in (deployment.topics.transitions, deployment.topics.requests):
        await asyncio.to_thread(recreate, deployment, topic)
        await asyncio.to_thread(wait_until, lambda topic=topic: f"topic re-created topic={topic} " in log_of(worker))
    await go_on(deployment, "known", 40)
    assert await asyncio.to_thread(worker.stop) == 0


async def test_events_on_added_partitions_are_forwarded_to_the_states_of_their_users(deployment: Deployment) -> None:
    workers = [await asyncio.to_thread(deployment.ready_worker, name) for name in ("one", "other")]
    # other users than those of the load, whose times are older
    begin = time.time() - 1000
    events = [Event(f"mine-{n % 20}", f"item-{n}", begin + n, "click") for n in range(240)]
    await deployment.play(events[:80])
    topics = deployment.topics
    async with under_load(deployment) as client:
        with administration(deployment.bootstrap) as admin:
            admin.create_partitions({topics.interactions: 7, topics.requests: 5})
        await answers_more(client, 500)
    more = [Event(f"new-{n % 20}", f"item-{n}", time.time(), "click") for n in range(80)]
    places = await asyncio.to_thread(send_by_key, deployment, [*events[80:160], *more])
    for worker in workers:  # what was added is still there after a start
        assert await asyncio.to_thread(worker.stop) == 0
        worker.start()
    places |= await asyncio.to_thread(send_by_key, deployment, events[160:])

    def all_listed() -> bool:
        return places <= {(one.source.partition, one.source.offset) for one in deployment.lists()}

    for worker in workers:
        await asyncio.to_thread(worker.wait_ready, READY_S)
    await asyncio.to_thread(wait_until, all_listed, 60.0)
    assert sum(worker.metric("rec_added_partitions") for worker in workers) == 2 * (3 + 1)
    assert "partitions were added" in log_of(workers[0])
    assert {partition for partition, _ in places} == set(range(7))
    for user_id in ("mine-1", "mine-2", "mine-3", "new-0", "new-1", "new-2"):
        (partition,) = await asyncio.to_thread(states_of, deployment, user_id)
        assert partition == home_of(user_id, deployment.partitions)
    deployment.request("asked", "new-1")
    await asyncio.to_thread(wait_until, lambda: any(one.request_id == "asked" for one in deployment.lists()), 30.0)


async def test_events_of_a_topic_recreated_while_no_worker_ran_are_applied(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(of_one_user("known", 30))
    assert await asyncio.to_thread(worker.stop) == 0
    topic, home = deployment.topics.interactions, home_of("known", deployment.partitions)
    for before in (30, 40):
        await asyncio.to_thread(recreate, deployment, topic)
        # as when a worker commits once more between the deletion and its end
        await asyncio.to_thread(commit, deployment, {(topic, home): 5})
        worker.start()
        await asyncio.to_thread(worker.wait_ready, READY_S)
        await go_on(deployment, "known", before)
        assert await asyncio.to_thread(worker.stop) == 0
    assert log_of(worker).count(f"topic re-created topic={topic} ") == 2


async def test_a_committed_offset_beyond_the_end_is_noticed_and_what_came_since_is_applied(
    deployment: Deployment,
) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(of_one_user("known", 30))
    assert await asyncio.to_thread(worker.stop) == 0
    topic, home = deployment.topics.interactions, home_of("known", deployment.partitions)
    await asyncio.to_thread(commit, deployment, {(topic, home): 1_000_000})
    with administration(deployment.bootstrap) as admin:
        assert beyond_the_end(admin, deployment.topics) == {TopicPartition(topic, home): (1_000_000, 30)}
    # came after the loss, at offsets that the group takes for read
    async with deployment.client() as client:
        await client.send(of_one_user("known", 35)[30:])
        worker.start()
        assert await client.drained(60), worker.log_tail()
    assert "log is shorter than what was read" in log_of(worker)
    assert worker.metric("rec_log_shorter_total") == 1
    await go_on(deployment, "known", 35)
    with administration(deployment.bootstrap) as admin:
        assert not beyond_the_end(admin, deployment.topics)
    assert await asyncio.to_thread(worker.stop) == 0
    # what retention takes before it was read is said and counted, once
    places = await asyncio.to_thread(send_by_key, deployment, of_one_user("known", 50)[45:])
    end = max(offset for _, offset in places) + 1
    with administration(deployment.bootstrap) as admin:
        admin.delete_records({TopicPartition(topic, home): end})
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert f"log has no records topic={topic} partition={home} from={end - 5} to={end - 1}" in log_of(worker)
    assert worker.metric("rec_log_holes_total") == 1
    await deployment.play(of_one_user("known", 60)[50:])
    assert worker.metric("rec_log_holes_total") == 1
