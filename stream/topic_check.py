"""Before anything starts: are the topics there, with partition counts that fit each other?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from models.contracts import Topics

REMEDY = "make them with `hrnn topics create`"


class TopicsNotReady(Exception):
    """The topics are not as a worker needs them, or Kafka can't be reached; the text says what to do."""


class KafkaAway(TopicsNotReady):
    """No broker answers now; one may later."""


async def check_topics(topics: Topics, client_options: Mapping[str, Any]) -> int:
    """Return the number of partitions of the topics keyed by user, and by item; raises TopicsNotReady."""
    alike = [
        *(topics.interactions, topics.requests, topics.recommendations, topics.sessions, topics.user_states),
        *(topics.transitions, topics.signals, topics.item_states),
    ]
    needed = [*alike, topics.models, topics.dead_letters]
    bootstrap = ",".join(client_options["bootstrap_servers"])
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        described = await admin.describe_topics(needed)
    except (KafkaError, OSError) as error:
        raise KafkaAway(f"Kafka at {bootstrap} does not answer ({error}); is HRNN_KAFKA_BOOTSTRAP right?") from None
    finally:
        await admin.close()
    partitions = {d["topic"]: len(d["partitions"]) for d in described if d["error_code"] == 0}
    missing = [topic for topic in needed if not partitions.get(topic)]
    if missing:
        raise TopicsNotReady(f"topics {', '.join(missing)} are missing at {bootstrap}; {REMEDY}")
    counts = {topic: partitions[topic] for topic in alike}
    if len(set(counts.values())) > 1:
        raise TopicsNotReady(f"topics keyed by user or item differ in partitions {counts}; they must not: {REMEDY}")
    if partitions[topics.models] != 1:
        raise TopicsNotReady(f"{topics.models} has {partitions[topics.models]} partitions; it must have 1: {REMEDY}")
    return counts[topics.interactions]
