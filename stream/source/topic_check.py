"""Read the topics' facts from the broker, and check that a worker can use them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from models.records import Topics

REMEDY = "create them with `hrnn topics create`"
FEWER = "re-create the topics with at least as many partitions, or use another HRNN_TOPIC_PREFIX"
BOOTSTRAP_MS = 10_000


class TopicsNotReady(Exception):
    """The topics are not usable, or Kafka is unreachable; the text says what to do."""


class KafkaAway(TopicsNotReady):
    """No broker answers; a retry may succeed."""


@dataclass(frozen=True)
class TopicFacts:
    """The existing topics, as a broker described them."""

    cluster_id: str
    ids: Mapping[str, bytes]
    """By topic: 16 bytes, which change when a topic is re-created; b"" from a broker before 2.8."""
    partitions_of: Mapping[str, int]
    partitions: int
    """The number of partitions of the users' changelog. Each user's own partition is one of these."""

    def added(self, topics: Topics) -> dict[str, int]:
        """Return the number of partitions of `interactions` and `requests` that have no states."""
        more = {topic: self.partitions_of.get(topic, 0) - self.partitions for topic in read_by_users(topics)}
        return {topic: count for topic, count in more.items() if count > 0}


def read_by_users(topics: Topics) -> tuple[str, str]:
    """Return the topics with records keyed by user. They may have more partitions than the users' changelog."""
    return topics.interactions, topics.requests


class TopicReader:
    """Reads the topics' facts over one connection. Blocking; close it, or use it as a context."""

    def __init__(self, topics: Topics, client_options: Mapping[str, Any]) -> None:
        """Connects at the first read, and again after an error."""
        self._topics = topics
        self._options = client_options
        self._client: KafkaAdminClient | None = None

    def read(self) -> TopicFacts:
        """Return the facts of all topics; raises KafkaError or OSError."""
        try:
            if self._client is None:
                self._client = KafkaAdminClient(**self._options, bootstrap_timeout_ms=BOOTSTRAP_MS)
            cluster_id = self._client.describe_cluster()["cluster_id"]
            described = self._client.describe_topics(all_topics(self._topics))
        except (KafkaError, OSError):
            self.close()
            raise
        found = {topic["name"]: topic for topic in described if topic["error_code"] == 0 and topic["partitions"]}
        partitions_of = {name: len(topic["partitions"]) for name, topic in found.items()}
        ids = {name: _id_of(topic.get("topic_id")) for name, topic in found.items()}
        return TopicFacts(cluster_id, ids, partitions_of, partitions_of.get(self._topics.user_states, 0))

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()


def _id_of(text: str | uuid.UUID | None) -> bytes:
    topic_id = uuid.UUID(str(text)).bytes if text else b""
    return topic_id if any(topic_id) else b""


def all_topics(topics: Topics) -> list[str]:
    """Return the topics that a worker needs."""
    return [topics.user_states, *_at_least_as_many(topics), topics.items, topics.models, topics.dead_letters]


def _at_least_as_many(topics: Topics) -> list[str]:
    return [
        *(topics.interactions, topics.requests, topics.recommendations, topics.sessions),
        *(topics.transitions, topics.signals, topics.item_states),
    ]


def check_topics(topics: Topics, client_options: Mapping[str, Any]) -> TopicFacts:
    """Return the topics' facts; raises TopicsNotReady if a worker can't start with them."""
    bootstrap = ",".join(client_options["bootstrap_servers"])
    try:
        with TopicReader(topics, client_options) as reader:
            facts = reader.read()
    except (KafkaError, OSError) as error:
        raise KafkaAway(f"Kafka at {bootstrap} does not answer ({error}); is HRNN_KAFKA_BOOTSTRAP right?") from None
    for complaint in complaints(facts, topics):
        raise TopicsNotReady(f"{complaint} (at {bootstrap})")
    return facts


def complaints(facts: TopicFacts, topics: Topics) -> Iterable[str]:
    """Yield the reasons why a worker can't start, each with its remedy."""
    missing = [topic for topic in all_topics(topics) if topic not in facts.partitions_of]
    if missing:
        yield f"topics {', '.join(missing)} are missing; {REMEDY}"
        return
    needed = facts.partitions
    fewer = {t: n for t in _at_least_as_many(topics) if (n := facts.partitions_of[t]) < needed}
    if fewer:
        yield f"{topics.user_states} has {needed} partitions, but other topics have fewer: {fewer}; {FEWER}"
    if (models := facts.partitions_of[topics.models]) != 1:
        yield f"{topics.models} has {models} partitions; it must have 1: {REMEDY}"
