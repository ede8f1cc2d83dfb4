"""What the watch makes of what a broker says, look by look."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from models.records import Topics
from stream.source import topic_watch
from stream.source.topic_check import TopicFacts, all_topics
from stream.source.topic_watch import TopicWatch
from stream.telemetry import Telemetry

TOPICS = Topics()
EVENTS, REQUESTS, TRANSITIONS = TOPICS.interactions, TOPICS.requests, TOPICS.transitions
SOURCES = (EVENTS, REQUESTS, TRANSITIONS)


class Broker:
    """What the broker says, what the worker has read, and what the client knows."""

    def __init__(self) -> None:
        self.ids = dict.fromkeys(SOURCES, b"a" * 16)
        self.counts = dict.fromkeys(all_topics(TOPICS), 4)
        self.expected = {TP(EVENTS, 0): 10}
        self.ends = {TP(EVENTS, 0): 10}
        self.refreshed = 0
        self.topic_ids: dict[str, bytes] = dict(self.ids)
        self.telemetry = Telemetry()
        self.app = SimpleNamespace(batch_consumer=self, sources=dict.fromkeys(SOURCES), rebalancing=False)

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return {tp: self.ends[tp] for tp in tps}

    async def read_facts(self) -> TopicFacts:
        return TopicFacts("c", dict(self.ids), dict(self.counts), 4)

    def watch(self) -> TopicWatch:
        tables = SimpleNamespace(recovery=SimpleNamespace(completed=SimpleNamespace(is_set=lambda: True)))
        return TopicWatch(cast(Any, self.app), cast(Any, tables), TOPICS, cast(Any, self), self.telemetry)

    def gauge(self, name: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()

    async def refresh(consumer: object) -> None:
        made.refreshed += 1

    monkeypatch.setattr(topic_watch, "known_partitions", lambda consumer, topic: 4)
    monkeypatch.setattr(topic_watch, "refresh_metadata", refresh)
    return made


async def test_nothing_is_started_over_while_the_topics_are_the_same(broker: Broker) -> None:
    watch = broker.watch()
    assert [await watch._why_start_over() for _ in range(3)] == ["", "", ""]
    assert broker.refreshed == 0


@pytest.mark.parametrize("topic", SOURCES)
async def test_another_id_of_any_source_starts_over_unless_a_rebalance_goes_on(broker: Broker, topic: str) -> None:
    watch = broker.watch()
    broker.ids[topic] = b"b" * 16
    assert await watch._why_start_over() == f"topic re-created topic={topic}"
    broker.app.rebalancing = True
    assert await watch._why_start_over() == ""


async def test_a_log_that_is_shorter_at_two_looks_starts_over(broker: Broker) -> None:
    watch = broker.watch()
    broker.ends = {TP(EVENTS, 0): 8}
    assert await watch._why_start_over() == ""
    assert "log is shorter" in await watch._why_start_over()
    broker.ends = {TP(EVENTS, 0): 10}
    assert await watch._why_start_over() == ""


async def test_a_missing_topic_is_told_and_waited_for(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    watch = broker.watch()
    del broker.ids[REQUESTS], broker.counts[REQUESTS]
    for _ in range(3):
        assert await watch._why_start_over() == ""
    assert broker.gauge("rec_source_topics_missing") == 1
    said = [r for r in caplog.records if r.name == "stream.source.topic_watch"]
    assert [(r.levelno, REQUESTS in r.getMessage()) for r in said] == [(logging.ERROR, True)]
    assert broker.refreshed == 3  # the client still thinks that it is there


async def test_added_partitions_are_told_and_the_client_is_made_to_look(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    watch = broker.watch()
    broker.counts[EVENTS] = 6
    for _ in range(3):
        assert await watch._why_start_over() == ""
    assert broker.gauge("rec_added_partitions") == 2
    assert sum("partitions were added" in r.getMessage() for r in caplog.records) == 1
    assert broker.refreshed == 3
