"""Items' facts on a real Kafka: known to every worker and kept to in all lists at once; bad ones are dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer

from models.items.signals import SignalRules
from models.records import Event
from stream.app import FOREIGN_CHECK_S
from stream.demo.processes import Process
from tests.running import Deployment, assert_passes, wait_until

LETTER_S = 30.0  # workers look every 10 s


@pytest.fixture
def running(kafka: str, tmp_path: Path, topic_prefix: str) -> Iterator[Deployment]:
    with Deployment(kafka, topic_prefix, tmp_path) as deployment:
        yield deployment


def announce(running: Deployment, value: bytes | None, key: bytes) -> tuple[int, int]:
    """Send one record to `items` -> its partition and offset."""
    producer = KafkaProducer(bootstrap_servers=running.bootstrap)
    try:
        sent = producer.send(running.topics.items, value=value, key=key).get(30)
        return sent.partition, sent.offset
    finally:
        producer.close()


def known(worker: Process) -> tuple[float, float]:
    """Return how many items a worker knows of, and how many of these are unavailable."""
    return worker.metric("rec_items_known"), worker.metric("rec_items_unavailable")


def letters(running: Deployment) -> list[tuple[str, int, int, str]]:
    """Return where each dead letter stood, and why it is one."""
    heads = [{name: value.decode() for name, value in r.headers} for r in running.records(running.topics.dead_letters)]
    return [
        (head["source-topic"], int(head["source-partition"]), int(head["source-offset"]), head["reason"])
        for head in heads
    ]


def test_every_worker_knows_all_items_from_the_start_and_as_they_change(running: Deployment) -> None:
    for n in range(20):
        announce(running, b'{"item_id":"i%d"}' % n, b"i%d" % n)
    announce(running, None, b"i0")
    one, two = running.ready_worker("one"), running.ready_worker("two")
    assert known(one) == known(two) == (20.0, 1.0)
    announce(running, b'{"item_id":"new","available":false}', b"new")
    announce(running, b'{"item_id":"i0"}', b"i0")
    began = time.monotonic()
    wait_until(lambda: known(one) == known(two) == (21.0, 1.0), every_s=0.02)
    assert time.monotonic() - began < 1.0


def test_a_bad_record_is_a_dead_letter_once_whoever_owns_its_partition(running: Deployment) -> None:
    expected = [(running.topics.items, *announce(running, b"?", b"a"), "not_json")]
    workers = [running.ready_worker("one"), running.ready_worker("two")]
    wait_until(lambda: letters(running) == expected, LETTER_S, every_s=0.5)
    assert workers[0].stop() == 0
    for value, reason in ((b'{"item_id":"b"}', "bad_id"), (b'{"item_id":"c","available":"no"}', "wrong_type")):
        expected.append((running.topics.items, *announce(running, value, b"c"), reason))
    wait_until(lambda: sorted(letters(running)) == sorted(expected), LETTER_S, every_s=0.5)
    time.sleep(FOREIGN_CHECK_S + 1.0)
    assert sorted(letters(running)) == sorted(expected)
    assert_passes(running.audit())


@pytest.mark.parametrize("kind", ["popularity", "model", "model with signals"])
def test_lists_follow_withdrawals_and_returns_within_a_second(running: Deployment, kind: str) -> None:
    """Announced, withdrawn, returned, not available, available again: in the lists of a second later."""
    if kind != "popularity":
        running.publish("v1", rules=SignalRules() if kind == "model with signals" else None)
    running.ready_worker(HRNN_TOP_K="500", HRNN_SIGNAL_INTERVAL_S="0.2")
    asyncio.run(running.play([Event(f"fan-{n}", f"item-{n % 9}", time.time()) for n in range(40)]))
    time.sleep(2.0)
    available, gone = b'{"item_id":"item-7"}', b'{"item_id":"item-7","available":false}'
    for number, (value, listed) in enumerate([(available, True), (None, False), (available, True), (gone, False)] * 2):
        announce(running, value, b"item-7")
        time.sleep(1.0)
        user, recipes = f"user-{number}", [None, "popular"]
        asked = [f"{user} {recipe}" for recipe in recipes]
        asyncio.run(running.play([Event(user, "item-1", time.time())]))
        for name, recipe in zip(asked, recipes, strict=True):
            request(running, {"request_id": name, "user_id": user, "k": 500, "recipe": recipe})
        lists = wait_until(lambda: lists_for(running, user, asked), every_s=0.2)  # noqa: B023 - called at once
        assert [("item-7" in given) for given in lists] == [listed] * 3, number
    assert_passes(report := running.audit(top_k=500))
    assert report.not_checked == []


def request(running: Deployment, value: dict[str, object]) -> None:
    producer = KafkaProducer(bootstrap_servers=running.bootstrap)
    try:
        sent = msgspec.json.encode({name: one for name, one in value.items() if one is not None})
        producer.send(running.topics.requests, value=sent, key=str(value["user_id"]).encode()).get(30)
    finally:
        producer.close()


def lists_for(running: Deployment, user: str, asked: list[str]) -> list[set[str]]:
    """Return what each list of a user names, once there is one of the event and one of each request; else nothing."""
    lists = [given for given in running.lists() if given.user_id == user]
    found = [{item.item_id for item in given.items} for given in lists]
    return found if {given.request_id for given in lists} == {None, *asked} else []
