"""Lists on request on a real Kafka: those of the user's state as it is, at the time that is asked for."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from models.items.signals import DAY_S, HOUR_S, SignalRecord, decode_record
from models.oracle import trend_list_for
from models.records import POPULARITY, Event, Recommendation
from stream.stages.intake import home_of
from tests.running import Deployment, assert_passes, made_events, wait_until


@pytest.fixture(scope="module")
def running(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("requests")
    with Deployment(kafka, f"requests-{os.getpid()}-", folder) as deployment:
        deployment.publish("v1")
        deployment.ready_worker()
        yield deployment
        report = deployment.audit()
        assert_passes(report)
        assert report.requests > 0


def request(running: Deployment, value: bytes | None, key: bytes | None, **more: Any) -> tuple[int, int]:
    producer = KafkaProducer(bootstrap_servers=running.bootstrap)
    try:
        sent = producer.send(running.topics.requests, value=value, key=key, **more).get(30)
        return sent.partition, sent.offset
    finally:
        producer.close()


def answer(running: Deployment, request_id: str) -> Recommendation:
    def found() -> list[Recommendation]:
        return [given for given in running.lists() if given.request_id == request_id]

    given: list[Recommendation] = wait_until(found, every_s=0.2)
    assert len(given) == 1
    return given[0]


def test_asked_at_the_time_of_the_last_event_the_list_is_that_event_s(running: Deployment) -> None:
    at = time.time() - 100
    asyncio.run(running.play([Event("returner", f"item-{n}", at + n) for n in range(5)]))
    (last,) = [given for given in running.lists() if given.user_id == "returner" and given.event_time == at + 4]
    asked = {"request_id": "r1", "user_id": "returner", "at": at + 4, "page": "home"}
    place = request(running, json.dumps(asked).encode(), b"returner")
    given = answer(running, "r1")
    assert given.items == last.items
    assert (given.user_id, given.model_version, given.event_time) == ("returner", "v1", at + 4)
    assert given.session_id == last.session_id
    assert (given.source.topic, given.source.partition, given.source.offset) == (running.topics.requests, *place)


def test_without_a_time_it_is_now_and_k_is_how_many(running: Deployment) -> None:
    asyncio.run(running.play([Event("brief", "item-1", time.time() - 86_400)]))
    request(running, b'{"request_id":"r2","user_id":"brief","k":3}', b"brief")
    given = answer(running, "r2")
    assert len(given.items) == 3
    assert given.event_time == pytest.approx(time.time(), abs=60)
    assert given.session_id == ""


def same_as_the_oracle(running: Deployment, given: Recommendation, places: int = 20) -> None:
    """Hold an answer against the records of `signals` that it names, in plain loops."""
    assert given.snapshot is not None
    assert given.half_life_s is not None
    newest: dict[str, SignalRecord] = {}
    for record in running.records(running.topics.signals):
        if record.offset < given.snapshot.offsets[record.partition]:
            newest[record.key.decode()] = decode_record(record.value)
    had = {event.item_id for event in EVENTS if event.user_id == given.user_id}
    everything = trend_list_for(newest, given.half_life_s, given.snapshot.at, 1000, had)
    scores = {item.item_id: item.score for item in everything}
    assert given.items
    assert [item.score for item in given.items] == pytest.approx([item.score for item in everything[:places]], abs=1e-4)
    assert [item.score for item in given.items] == pytest.approx(
        [scores[item.item_id] for item in given.items], abs=1e-4
    )


EVENTS = [
    Event(f"fan-{n % 7}", f"item-{n * n % 23}" if n % 5 else "item-unheard-of", time.time() - 40_000 + 600 * n)
    for n in range(60)
]
RECIPES = [
    ({"recipe": "popular"}, 3 * 365 * DAY_S),
    ({"recipe": "trending"}, 3 * HOUR_S),
    ({"recipe": "trending", "window": "30m"}, 0.5 * HOUR_S),
    ({"recipe": "trending", "window": "1h"}, 0.5 * HOUR_S),
    ({"recipe": "trending", "window": "1d", "k": 3}, DAY_S),
]


def ask_each_recipe(running: Deployment, user_id: str) -> list[Recommendation]:
    """Ask for a list of each recipe, once the signals of all events are in the lists."""

    items = {event.item_id for event in EVENTS}

    def last_is_counted() -> bool:
        name = f"{user_id} {time.time()}"
        ask = {"request_id": name, "user_id": "nobody", "recipe": "popular", "k": 500}
        request(running, json.dumps(ask).encode(), b"nobody")
        return items <= {item.item_id for item in answer(running, name).items}

    wait_until(last_is_counted, every_s=0.5)
    for number, (asked, _) in enumerate(RECIPES):
        value = json.dumps({"request_id": f"{user_id} {number}", "user_id": user_id, **asked}).encode()
        request(running, value, user_id.encode())
    return [answer(running, f"{user_id} {number}") for number in range(len(RECIPES))]


def test_each_recipe_is_answered_as_plain_loops_would(running: Deployment) -> None:
    asyncio.run(running.play(EVENTS))
    for user_id in ("fan-3", "stranger"):
        for given, (asked, half_life_s) in zip(ask_each_recipe(running, user_id), RECIPES, strict=True):
            assert (given.recipe, given.half_life_s) == (asked["recipe"], half_life_s)
            assert (given.model_version, given.error) == (POPULARITY, None)
            same_as_the_oracle(running, given, int(asked.get("k", 20)))
    request(running, b'{"request_id":"r-next","user_id":"fan-3","recipe":"next"}', b"fan-3")
    given = answer(running, "r-next")
    assert (given.recipe, given.half_life_s, given.model_version) == (None, None, "v1")


def test_recipes_are_answered_without_a_model(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(kafka, topic_prefix, tmp_path) as running:
        running.ready_worker()
        asyncio.run(running.play(EVENTS))
        for given, (asked, half_life_s) in zip(ask_each_recipe(running, "fan-1"), RECIPES, strict=True):
            assert (given.recipe, given.half_life_s) == (asked["recipe"], half_life_s)
            same_as_the_oracle(running, given, int(asked.get("k", 20)))
        report = running.audit()
        assert_passes(report)
        assert report.lists_with_signals_checked >= len(RECIPES)


def test_a_user_without_events_gets_a_list_too(running: Deployment) -> None:
    request(running, b'{"request_id":"r3","user_id":"nobody"}', b"nobody")
    assert len(answer(running, "r3").items) == 20


def test_a_request_on_another_partition_is_answered_at_home(running: Deployment) -> None:
    asyncio.run(running.play([Event("wanderer", "item-2", time.time() - 50)]))
    elsewhere = (home_of("wanderer", running.partitions) + 1) % running.partitions
    request(running, b'{"request_id":"r4","user_id":"wanderer"}', None, partition=elsewhere)
    given = answer(running, "r4")
    assert given.source.partition == elsewhere
    assert "item-2" not in [item.item_id for item in given.items]


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("not_json", b"?"),
        ("missing_field", b'{"user_id":"u"}'),
        ("wrong_type", b'{"request_id":1,"user_id":"u"}'),
        ("bad_value", b'{"request_id":"r","user_id":"u","k":0}'),
        ("bad_value", b'{"request_id":"r","user_id":"u","recipe":"similar"}'),
        ("null_value", None),
    ],
)
def test_a_bad_request_becomes_a_dead_letter(running: Deployment, reason: str, value: bytes | None) -> None:
    place = request(running, value, b"junk")

    def found() -> list[dict[str, bytes]]:
        heads = [dict(record.headers) for record in running.records(running.topics.dead_letters)]
        return [h for h in heads if (int(h["source-partition"]), int(h["source-offset"])) == place]

    (head,) = wait_until(found, every_s=0.2)
    assert head["reason"].decode() == reason
    assert head["source-topic"].decode() == running.topics.requests


def test_events_and_requests_side_by_side(running: Deployment) -> None:
    async def both() -> int:
        async with running.client() as client:
            await client.send(made_events(300, users=30, seed=5, start=time.time() - 2 * 86_400))
            assert await client.drained(60.0)
            client.asking = True
            await client.send(made_events(200, users=30, seed=6, start=time.time() - 86_400))
            assert await client.drained(60.0)
            return client.asked

    assert asyncio.run(both()) >= 20
    assert running.workers[0].metric("rec_requests_total", 'result="answered"') >= 20


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"k": 100_000}, "bad_value: k is 100000"),
        ({"at": "soon"}, "wrong_type: "),
        ({"recipe": "similar"}, "bad_value: recipe 'similar' is unknown: ask for one of next, popular, trending"),
        ({"recipe": "trending", "window": "soon"}, "bad_value: window: 'soon' is no duration such as 30m"),
        ({"window": "3h"}, "bad_value: window: the recipe next has none"),
        ({"at": 1_700_000_000_000}, "bad_timestamp: "),
    ],
)
def test_a_request_that_is_refused_is_answered_with_the_reason(
    running: Deployment, wrong: dict[str, object], said: str
) -> None:
    name = f"refused {said}"
    request(running, json.dumps({"request_id": name, "user_id": "asker", **wrong}).encode(), b"asker")
    given = answer(running, name)
    assert given.error is not None
    assert given.error.startswith(said)
    assert (given.user_id, given.items, given.model_version) == ("asker", [], "")
