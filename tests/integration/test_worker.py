"""One worker on real Kafka: what it makes of each kind of record, in what shape it answers, and how soon."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import aiokafka
import pytest

from models.records import rec_id
from stream.demo.processes import Process
from stream.stages.dead_letters import KEPT_BYTES, MAX_LETTER_BYTES
from stream.stages.intake import home_of
from stream.stages.sending import append
from tests.made import junk_values
from tests.running import ITEMS, Deployment, assert_passes, made_events, wait_until


@pytest.fixture(scope="module")
def running(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One worker with a model for all tests here; none of them harms it."""
    folder: Path = tmp_path_factory.mktemp("worker")
    with Deployment(kafka, f"worker-{os.getpid()}-", folder) as deployment:
        deployment.publish("v1")
        deployment.ready_worker()
        yield deployment
        assert_passes(deployment.audit())
        assert deployment.workers[0].stop() == 0


@pytest.fixture
def worker(running: Deployment) -> Process:
    return running.workers[0]


def event(user_id: str, item_id: str = "item-1", **more: object) -> bytes:
    return json.dumps({"user_id": user_id, "item_id": item_id, "timestamp": time.time(), **more}).encode()


def answers(running: Deployment, user_id: str, count: int) -> list[dict[str, object]]:
    """Wait until a user has so many lists, and a second more to see that no further one comes."""

    def found() -> list[dict[str, object]]:
        records = running.records(running.topics.recommendations)
        return [json.loads(r.value) for r in records if r.key == user_id.encode()]

    wait_until(lambda: len(found()) >= count, every_s=0.3)
    time.sleep(1.0)
    assert len(found()) == count
    return found()


@pytest.mark.parametrize("name", list(junk_values()))
def test_junk_becomes_a_dead_letter_and_the_worker_goes_on(running: Deployment, worker: Process, name: str) -> None:
    reason, value = name.partition(":")[0], junk_values()[name]
    applied = worker.metric("rec_events_total", 'result="applied"')
    partition, offset = running.produce(value, key=b"u", headers=[("trace", b"7")])

    def dead_letter() -> object:
        for record in running.records(running.topics.dead_letters):
            headers = dict(record.headers)
            if (headers["source-partition"], headers["source-offset"]) == (b"%d" % partition, b"%d" % offset):
                return record
        return None

    letter = wait_until(dead_letter, every_s=0.2)
    headers = dict(letter.headers)
    assert headers["reason"].decode() == reason
    assert headers["source-topic"].decode() == running.topics.interactions
    assert headers["detail"]
    assert headers["trace"] == b"7"
    if value is not None and len(value) > MAX_LETTER_BYTES:
        assert headers["truncated"] == b"value %d bytes, kept %d" % (len(value), KEPT_BYTES)
        assert letter.value == value[:KEPT_BYTES]
    else:
        assert letter.value == value
    assert worker.metric("rec_dead_letters_total", f'reason="{reason}"') >= 1
    running.produce(event("after-junk", "item-2"), key=b"after-junk")
    wait_until(lambda: worker.metric("rec_events_total", 'result="applied"') > applied)
    assert worker.running


def test_a_null_value_keeps_its_key(running: Deployment) -> None:
    running.produce(None, key=b"gone")
    wait_until(
        lambda: any(r.key == b"gone" and r.value is None for r in running.records(running.topics.dead_letters)),
        every_s=0.2,
    )


async def test_a_record_of_nothing_becomes_a_dead_letter(running: Deployment) -> None:
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=running.bootstrap) as producer:
        # send() takes none, other clients do
        (sent,) = await append(producer, running.topics.interactions, 0, [(None, None)])  # type: ignore[list-item]
        offset = (await sent.acked).offset

    def found() -> bool:
        letters = running.records(running.topics.dead_letters)
        return any(r.key is None and dict(r.headers)["source-offset"] == b"%d" % offset for r in letters)

    await asyncio.to_thread(wait_until, found, every_s=0.2)


def test_no_user_can_name_a_record_of_the_store_itself(running: Deployment, worker: Process) -> None:
    running.produce(event("__faust\0offset__"), partition=0)
    running.produce(event("__faust\0offset__"), partition=1)
    running.produce(event("after-offset"), key=b"after-offset")
    answers(running, "after-offset", 1)
    assert worker.running


def test_a_list_has_the_fields_of_the_contract(running: Deployment) -> None:
    at = time.time()
    place = running.produce(event("contract", timestamp=at), key=b"contract")
    (answer,) = answers(running, "contract", 1)
    assert set(answer) == {
        "rec_id", "user_id", "items", "model_version", "session_id", "event_time", "generated_at", "source",
    }  # fmt: skip
    assert answer["rec_id"] == rec_id(running.topics.interactions, *place)
    assert answer["user_id"] == "contract"
    assert answer["model_version"] == "v1"
    assert answer["event_time"] == pytest.approx(at)
    assert at - 60 < answer["generated_at"] < time.time()
    assert answer["source"] == {"topic": running.topics.interactions, "partition": place[0], "offset": place[1]}
    items = answer["items"]
    assert len(items) == 20
    assert all(set(item) == {"item_id", "score"} for item in items)
    assert all(type(item["item_id"]) is str and type(item["score"]) is float for item in items)
    assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)
    assert len({item["item_id"] for item in items}) == 20
    assert "item-1" not in {item["item_id"] for item in items}


def test_a_session_is_written_as_the_contract_says(running: Deployment) -> None:
    at = float(int(time.time()))
    for number in range(2):
        value = event("shopper", f"item-{number}", timestamp=at + number, event_type="click", event_value=2.0)
        running.produce(value, key=b"shopper")
    answers(running, "shopper", 2)
    newest = {r.key: json.loads(r.value) for r in running.records(running.topics.sessions)}
    key = f"shopper|{at:.15g}"
    assert newest[key.encode()] == {
        "user_id": "shopper", "session_id": key, "start": at, "end": at + 1,
        "events": [["item-0", at, "click", 2.0], ["item-1", at + 1, "click", 2.0]],
    }  # fmt: skip


@pytest.mark.parametrize("keyed", [False, True], ids=["without a key", "with a key, to any partition"])
def test_a_users_events_end_in_one_state_wherever_they_came_in(running: Deployment, keyed: bool) -> None:
    user, at = f"stray-{keyed}", time.time()
    places = []
    for number in range(3 * running.partitions):
        value = event(user, f"item-{number}", timestamp=at + number)
        places.append(
            running.produce(value, key=user.encode() if keyed else None, partition=number % running.partitions)
        )
        # one at a time: between partitions Kafka knows no order
        wait_until(lambda n=number: sum(a.user_id == user for a in running.lists()) > n, every_s=0.1)
    given = answers(running, user, len(places))
    assert [(a["source"]["partition"], a["source"]["offset"]) for a in given] == places
    assert {r.partition for r in running.records(running.topics.user_states) if r.key == user.encode()} == {
        home_of(user, running.partitions)
    }
    # the last list knows all of the user's items, so all are in the one state
    assert not {f"item-{n}" for n in range(len(places))} & {item["item_id"] for item in given[-1]["items"]}
    newest = {r.key: json.loads(r.value) for r in running.records(running.topics.sessions)}
    (session,) = [s for s in newest.values() if s["user_id"] == user]
    assert len(session["events"]) == len(places)


async def test_an_idle_worker_answers_within_200_ms(running: Deployment, record_property: pytest.Function) -> None:
    async with running.client() as client:
        await client.send(made_events(20, seed=1))  # whoever is slow the first time
        assert await client.drained(30)
        client.measuring = True
        for one in made_events(50, seed=2, start=time.time()):
            await client.send([one])
            assert await client.drained(10)
            await asyncio.sleep(0.05)
    latencies = sorted(client.latencies_s)
    p50, p99 = statistics.median(latencies), latencies[-1]
    record_property("latency", f"p50 {p50 * 1000:.0f} ms, worst {p99 * 1000:.0f} ms")
    assert len(latencies) == 50
    assert p50 < 0.2, f"p50 {p50:.3f} s, worst {p99:.3f} s"


def test_the_pages_say_that_it_is_well(running: Deployment, worker: Process) -> None:
    assert worker.get("/healthz") == (200, "ok\n")
    assert worker.get("/readyz") == (200, "ok\n")
    assert worker.metric("rec_recovery_state", 'state="running"') == 1
    assert worker.metric("rec_model_info", 'version="v1"') == 1
    # a gauge of some seconds ago: the last event may have been under way then
    wait_until(lambda: worker.metric("rec_consumer_lag_records", f'topic="{running.topics.interactions}"') == 0)
    assert worker.metric("rec_batch_size_count") > 0


def test_items_that_no_model_knows_are_counted(running: Deployment, worker: Process) -> None:
    before = worker.metric("rec_unknown_item_total")
    running.produce(event("explorer", f"item-{ITEMS}"), key=b"explorer")
    answers(running, "explorer", 1)
    assert worker.metric("rec_unknown_item_total") == before + 1
