"""Live item signals on a real Kafka: counted once, known to every worker, in the lists a second later."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from models.items import signals
from models.items.signals import DAY_S, SignalRules
from models.records import Event
from stream.app import FOREIGN_CHECK_S
from stream.clients.produce import value_of
from stream.demo.processes import Process
from tests.running import Deployment, assert_passes, log_of, made_events, restored, wait_until

RULES = SignalRules()


@pytest.fixture
def running(kafka: str, tmp_path: Path, topic_prefix: str) -> Iterator[Deployment]:
    with Deployment(kafka, topic_prefix, tmp_path) as deployment:
        yield deployment


def lists_of(running: Deployment, user_id: str) -> list[list[str]]:
    return [[item.item_id for item in given.items] for given in running.lists() if given.user_id == user_id]


def ask(running: Deployment, user_id: str, item_id: str = "item-1") -> list[str]:
    """Send an event of a user, and give the list that it leads to."""
    before = len(lists_of(running, user_id))
    event = Event(user_id, item_id, time.time())
    running.produce(value_of(event), key=user_id.encode())
    return wait_until(lambda: lists_of(running, user_id)[before:], every_s=0.2)[0]  # type: ignore[no-any-return]


def later(step: int) -> list[Event]:
    return made_events(600, seed=step, start=time.time() - 3 * DAY_S + step * 3600)


def settled(worker: Process, items: int) -> None:
    """Wait until a worker knows so many items."""
    wait_until(lambda: worker.metric("rec_items_tracked") >= items, every_s=0.1)


def test_what_goes_out_on_signals_is_what_the_contract_says(running: Deployment) -> None:
    worker = running.ready_worker()
    now = time.time()
    for place, item_id in enumerate(["item-1", "item-2"]):
        running.produce(value_of(Event("u", item_id, now + place)), key=b"u")
    wait_until(lambda: len(running.records(running.topics.signals)) >= 2)
    settled(worker, 2)
    told = {}
    for record in running.records(running.topics.signals):
        told[record.key.decode()] = signals.decode_record(record.value)
    assert told["item-1"].successors == [("item-2", pytest.approx(1.0, rel=1e-3))]
    assert told["item-2"].successors == []
    for record in told.values():
        assert record.half_lives_s == RULES.all_half_lives_s
        assert record.counts == pytest.approx([1.0] * len(RULES.counted_half_lives_s))
    assert worker.metric("rec_signals_age_seconds") < 5.0
    assert_passes(running.audit())


def test_a_new_item_can_be_ranked_at_once_and_is_in_lists_after_ten_clicks(running: Deployment) -> None:
    running.publish("v1", rules=RULES)
    worker = running.ready_worker(HRNN_SIGNAL_INTERVAL_S="0.2", HRNN_TOP_K="300")
    assert "brand-new" not in ask(running, "before")
    ask(running, "first", "brand-new")
    settled(worker, 2)
    time.sleep(1.0)
    after_one = ask(running, "second")
    assert "brand-new" in after_one
    for n in range(10):
        running.produce(value_of(Event(f"clicker-{n}", "brand-new", time.time())), key=f"clicker-{n}".encode())
    wait_until(lambda: len(lists_of(running, "clicker-9")) == 1)
    time.sleep(1.0)
    assert "brand-new" in ask(running, "third")[:10]
    assert_passes(running.audit(top_k=300))


def test_workers_share_what_they_count_and_keep_it_over_kills(running: Deployment) -> None:
    running.publish("v1", rules=RULES)
    one, two = running.ready_worker("one"), running.ready_worker("two")
    asyncio.run(running.play(later(0)))
    wait_until(lambda: one.metric("rec_items_tracked") == two.metric("rec_items_tracked") > 200)
    one.kill()
    asyncio.run(running.play(later(1)))
    one.start()
    one.wait_ready()
    assert one.metric("rec_items_tracked") >= 250
    asyncio.run(running.play(later(2)))
    two.kill()
    three = running.ready_worker("three")
    asyncio.run(running.play(later(3)))
    assert restored(three) > 0
    report = running.audit()
    assert_passes(report)
    assert report.transitions > 5000
    assert report.transitions_behind == 0
    assert report.items > 250
    assert report.lists_with_signals > 0


@pytest.mark.parametrize("then", ["events", "nothing", "another owner"])
def test_what_another_worker_wrote_over_is_sent_anew(running: Deployment, then: str) -> None:
    """As a worker does that slept with records on their way, and does not know it."""
    worker = running.ready_worker()
    asyncio.run(running.play(made_events(300, start=time.time() - 7200.0)))
    settled(worker, 20)
    asyncio.run(running.play(made_events(300, seed=1, start=time.time() - 3600.0)))
    wait_until(lambda: not running.audit().transitions_behind, every_s=0.5)
    sent = running.records(running.topics.signals)
    first = {record.key: record for record in reversed(sent)}
    newest = {record.key: record.value for record in sent}
    stale = [record for record in first.values() if record.value != newest[record.key]]
    assert len(stale) > 10
    if then == "another owner":  # which has never written there, and finds no event that it has to count
        assert worker.stop() == 0
    producer = KafkaProducer(bootstrap_servers=running.bootstrap)
    for record in stale:
        producer.send(record.topic, key=record.key, value=record.value, partition=record.partition).get(30)
    producer.close()
    if then == "events":
        asyncio.run(running.play(made_events(200, seed=2, start=time.time())))
    if then == "another owner":
        assert running.audit().wrong_signals > 10
        worker = running.ready_worker("another")
    wait_until(lambda: "stale item signals republished" in log_of(worker), every_s=0.2)
    wait_until(lambda: not running.audit().wrong_signals, every_s=0.5)
    assert_passes(running.audit())
    if then == "another owner":
        sent_anew = len(running.records(running.topics.signals))
        time.sleep(FOREIGN_CHECK_S + 1.0)
        assert len(running.records(running.topics.signals)) == sent_anew, "what it has put right is right"


def test_a_model_that_counts_otherwise_is_refused_and_the_remedy_named(running: Deployment) -> None:
    running.publish("v1", rules=RULES)
    worker = running.ready_worker()
    running.publish("v2", rules=SignalRules(half_lives_s=(123.0, DAY_S)))
    wait_until(lambda: worker.metric("rec_model_swaps_total", 'result="refused"') == 1)
    assert worker.metric("rec_model_info", 'version="v1"') == 1
    assert "HRNN_HALF_LIVES_S" in log_of(worker)


def test_a_model_of_fewer_half_lives_serves(running: Deployment) -> None:
    few = SignalRules(half_lives_s=RULES.half_lives_s[1:3], successor_half_life_s=RULES.successor_half_life_s)
    running.publish("v1", rules=few)
    worker = running.ready_worker()
    assert worker.metric("rec_model_info", 'version="v1"') == 1
    assert len(ask(running, "u")) == 20


def test_junk_among_transitions_becomes_dead_letters(running: Deployment) -> None:
    worker = running.ready_worker()
    producer = KafkaProducer(bootstrap_servers=running.bootstrap)
    for key, value in ((b"item-1", b"junk"), (None, os.urandom(40)), (b"\xff", b"")):
        producer.send(running.topics.transitions, key=key, value=value, partition=0).get(30)
    producer.close()
    wait_until(lambda: worker.metric("rec_transitions_total", 'result="invalid"') == 3)
    dead = running.records(running.topics.dead_letters)
    assert [dict(record.headers)["reason"] for record in dead] == [b"bad_transition"] * 3
    assert len(ask(running, "u")) == 0  # nobody has had anything but item-1, which the user has just had
