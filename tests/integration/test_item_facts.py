"""Items' facts on a real Kafka: known to every worker at once, and refused with a dead letter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

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
