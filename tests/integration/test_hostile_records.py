"""One worker and a broker of Kafka's own limits: records of any size, with any headers, and headers that were forged.

The audit at the end sees that every event that is valid was applied, in one place, with the list that is its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from kafka import KafkaProducer

from models.records import BROKER_MAX_BYTES, Recommendation
from stream.demo.broker import LocalKafka
from stream.demo.processes import Process
from stream.stages.intake import home_of
from stream.stages.origins import ORIGIN_HEADER
from tests.running import Deployment, assert_passes, log_of, wait_until

KAFKAS_DEFAULTS = {"message.max.bytes": str(BROKER_MAX_BYTES), "replica.fetch.max.bytes": str(2**20)}
MAC = b"0" * 32


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    with (
        LocalKafka(settings=KAFKAS_DEFAULTS) as kafka,
        Deployment(kafka.bootstrap, f"hostile-{os.getpid()}-", folder) as deployment,
    ):
        deployment.publish("v1")
        worker = deployment.ready_worker()
        yield deployment
        assert_passes(deployment.audit())
        assert worker.stop() == 0


@pytest.fixture(autouse=True)
def worker(running: Deployment) -> Iterator[Process]:
    """The one worker, which goes on whatever a test sends: an ordinary event after it gets its list."""
    (process,) = running.workers
    yield process
    user_id = f"after-{time.monotonic_ns()}"
    running.produce(event(user_id), key=user_id.encode())
    given(running, user_id, 1)
    assert process.running
    assert log_of(process).count("worker starting") == 1


def event(user_id: str, item_id: str = "item-1", **more: object) -> bytes:
    return json.dumps({"user_id": user_id, "item_id": item_id, "timestamp": time.time(), **more}).encode()


def send(running: Deployment, value: bytes | None, **more: Any) -> tuple[int, int]:
    """Send one record as a client does that bounds nothing, compresses and has headers without values."""

    async def sent() -> Any:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=running.bootstrap, compression_type="gzip", max_request_size=2**25
        ) as producer:
            return await producer.send_and_wait(running.topics.interactions, value=value, **more)

    place = asyncio.run(sent())
    return place.partition, place.offset


def given(running: Deployment, user_id: str, count: int) -> list[Recommendation]:
    """Wait until a user has so many lists."""

    def found() -> list[Recommendation]:
        return [one for one in running.lists() if one.user_id == user_id]

    wait_until(lambda: len(found()) >= count, every_s=0.2)
    assert len(found()) == count
    return found()


def letter(running: Deployment, place: tuple[int, int]) -> tuple[Any, dict[str, Any]]:
    """Wait for a record's dead letter -> the letter, its headers."""
    where = b"%d" % place[0], b"%d" % place[1]

    def found() -> Any:
        for record in running.records(running.topics.dead_letters):
            headers = dict(record.headers)
            if (headers["source-partition"], headers["source-offset"]) == where:
                return record, headers
        return None

    record, headers = wait_until(found, every_s=0.2)
    return record, headers


def elsewhere(running: Deployment, user_id: str) -> int:
    """Name a partition that is not a user's own."""
    return (home_of(user_id, running.partitions) + 1) % running.partitions


# -- sizes and headers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ORIGIN_HEADER, "trace", ""])
def test_a_header_without_a_value_is_none_of_ours(running: Deployment, name: str) -> None:
    user_id = f"null-header-{name}"
    send(running, event(user_id), key=user_id.encode(), headers=[(name, None)])
    given(running, user_id, 1)
    # sent on to its user's own partition, it keeps the header
    send(running, event(user_id, "item-2"), partition=elsewhere(running, user_id), headers=[(name, None)])
    given(running, user_id, 2)


def test_of_what_unpacks_to_eight_mib_the_dead_letter_carries_the_beginning(running: Deployment) -> None:
    record, headers = letter(running, send(running, b"x" * 2**23, key=b"k", headers=[("trace", b"7")]))
    assert headers["reason"] == b"too_large"
    assert headers["truncated"] == b"value 8388608 bytes, kept 65536"
    assert headers["trace"] == b"7"
    assert (record.key, record.value) == (b"k", b"x" * 65_536)


def test_of_a_key_or_headers_that_are_too_large_likewise(running: Deployment) -> None:
    record, headers = letter(running, send(running, b"junk" * 25_000, key=b"k" * 900 * 1024))
    assert headers["reason"] == b"too_large"
    assert headers["truncated"] == b"value 100000 bytes, kept 65536; key 921600 bytes, kept 65536"
    assert record.key == b"k" * 65_536
    value = event("headers")
    many: list[tuple[str, bytes | None]] = [("trace", b"x" * 1000)] * 2000
    record, headers = letter(running, send(running, value, key=b"headers", headers=many))
    assert headers["reason"] == b"too_large"
    assert headers["truncated"].startswith(b"headers 2000 of 2030000 bytes")
    assert record.value == value


def test_a_large_key_alone_is_no_fault(running: Deployment) -> None:
    send(running, event("large-key"), key=b"k" * 900 * 1024, partition=home_of("large-key", running.partitions))
    given(running, "large-key", 1)


def test_no_users_events_outgrow_the_state(running: Deployment) -> None:
    """Forty with a type of 60 KB were a state of 2.4 MB."""
    for number in range(40):
        place = send(running, event("talker", f"item-{number}", event_type="t" * 60_000), key=b"talker")
    _, headers = letter(running, place)
    assert headers["reason"] == b"bad_value"
    assert b"event_type has 60000 characters; at most 256" in headers["detail"]
    widest = "\U0001f600" * 252
    for number in range(40):
        running.produce(event("talker", f"{number:04}{widest}", event_type="t" * 256), key=b"talker")
    assert given(running, "talker", 40)[-1].model_version == "v1"


def test_a_value_that_no_sum_of_squares_survives_is_refused(running: Deployment) -> None:
    _, headers = letter(running, running.produce(event("rich", event_value=1e200), key=b"rich"))
    assert headers["reason"] == b"bad_value"
    assert headers["detail"].startswith(b"event_value 1e+200 is not between")


def test_milliseconds_are_refused_with_the_remedy(running: Deployment) -> None:
    _, headers = letter(running, running.produce(event("ms", timestamp=int(time.time() * 1000)), key=b"ms"))
    assert headers["reason"] == b"bad_timestamp"
    assert headers["detail"].endswith(b"looks like milliseconds: divide by 1000")


# -- forged origins -------------------------------------------------------------------------------------------------


def forged(partition: int, offset: int, timestamp_ms: int) -> list[list[tuple[str, bytes]]]:
    """Name a place as workers do, with a signature that is none, and as they did before they signed."""
    place = f"{partition}/{offset}/{timestamp_ms}".encode()
    return [[(ORIGIN_HEADER, place)], [(ORIGIN_HEADER, place + b"/" + MAC)]]


def test_a_forged_origin_moves_no_clock(running: Deployment) -> None:
    """An event of tomorrow says that the broker took it tomorrow, too."""
    tomorrow = time.time() + 86_400
    for headers in forged(elsewhere(running, "clock"), 7, int(tomorrow * 1000)):
        value = event("clock", timestamp=tomorrow)
        _, said = letter(running, running.produce(value, key=b"clock", headers=headers))
        assert said["reason"] == b"future"


def test_a_forged_origin_takes_no_other_events_list(running: Deployment) -> None:
    place = running.produce(event("victim"), partition=home_of("victim", running.partitions))
    (answer,) = given(running, "victim", 1)
    thief = next(f"thief-{n}" for n in range(99) if home_of(f"thief-{n}", running.partitions) != place[0])
    for number, headers in enumerate(forged(*place, int(time.time() * 1000))):
        mine = running.produce(event(thief), key=thief.encode(), headers=headers)
        stolen = given(running, thief, number + 1)[-1]
        assert (stolen.source.partition, stolen.source.offset) == mine
        assert stolen.rec_id != answer.rec_id


def test_a_forged_origin_swallows_no_event_that_is_sent_on_later(running: Deployment) -> None:
    away = elsewhere(running, "swallowed")
    for headers in forged(away, 10**15, int(time.time() * 1000)):
        running.produce(event("swallowed"), key=b"swallowed", headers=headers)
    given(running, "swallowed", 2)
    running.produce(event("swallowed", "item-2"), partition=away)
    assert given(running, "swallowed", 3)[-1].source.partition == away


def test_a_forged_origin_keeps_no_user_in_two_partitions(running: Deployment) -> None:
    away = elsewhere(running, "double")
    for number, headers in enumerate(forged(home_of("double", running.partitions), 0, int(time.time() * 1000))):
        place = running.produce(event("double"), key=b"double", partition=away, headers=headers)
        answer = given(running, "double", number + 1)[-1]
        assert (answer.source.partition, answer.source.offset) == place
    states = [record for record in running.records(running.topics.user_states) if record.key == b"double"]
    assert {record.partition for record in states} == {home_of("double", running.partitions)}
    landed = [record for record in running.records(running.topics.interactions) if record.key == b"double"]
    assert {len(record.headers) for record in landed if record.partition != away} == {1}, "the client's does not go on"


def test_what_was_sent_on_can_not_be_copied_for_another_user(running: Deployment) -> None:
    """A header that workers signed is valid of its own record alone: of one user, at one place."""
    away = elsewhere(running, "signed")
    running.produce(event("signed"), partition=away)
    given(running, "signed", 1)
    records = running.records(running.topics.interactions)
    (landed,) = [record for record in records if record.key == b"signed" and record.partition != away]
    copier = next(n for n in range(99) if home_of(f"copier-{n}", running.partitions) == landed.partition)
    mine = running.produce(event(f"copier-{copier}"), key=f"copier-{copier}".encode(), headers=list(landed.headers))
    (answer,) = given(running, f"copier-{copier}", 1)
    assert (answer.source.partition, answer.source.offset) == mine
    # the very record again is a duplicate, as it is when a worker sends it twice
    applied = running.workers[0].metric("rec_events_total", 'result="duplicate"')
    running.produce(landed.value, key=landed.key, partition=landed.partition, headers=list(landed.headers))
    wait_until(lambda: running.workers[0].metric("rec_events_total", 'result="duplicate"') > applied)


def test_a_request_with_a_forged_origin_is_answered_as_its_own(running: Deployment) -> None:
    producer = KafkaProducer(bootstrap_servers=running.bootstrap)
    away = elsewhere(running, "asker")
    for number, headers in enumerate(forged(home_of("asker", running.partitions), 5, int(time.time() * 1000))):
        value = json.dumps({"request_id": f"r{number}", "user_id": "asker"}).encode()
        sent = producer.send(running.topics.requests, value=value, key=b"asker", partition=away, headers=headers).get(
            30
        )
        answer = given(running, "asker", number + 1)[-1]
        assert answer.request_id == f"r{number}"
        assert (answer.source.partition, answer.source.offset) == (away, sent.offset)
    producer.close()
