"""Read the ids of the cluster and its topics. A re-created topic keeps its name but gets a new id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

log = logging.getLogger(__name__)

NO_ID = "00000000-0000-0000-0000-000000000000"


class TopicIdentities(NamedTuple):
    """The ids of a cluster and of some topics; "" if the broker has none."""

    cluster_id: str
    topic_ids: dict[str, str]

    def topic_id(self, topic: str) -> str:
        """Return a topic's id, "" if unknown."""
        return self.topic_ids.get(topic, "")


async def read_topic_identities(topics: Iterable[str], client_options: Mapping[str, Any]) -> TopicIdentities:
    """Return the ids of the cluster and of topics. After an error all are "", which contradicts no store."""
    return await asyncio.to_thread(_read, list(topics), dict(client_options))


def _read(topics: list[str], client_options: dict[str, Any]) -> TopicIdentities:
    try:
        admin = KafkaAdminClient(**client_options)
        try:
            cluster_id = admin.describe_cluster().get("cluster_id") or ""
            described = admin.describe_topics(topics)
        finally:
            admin.close()
    except (KafkaError, OSError) as error:
        log.warning("read of topic ids failed, check of the stores' identity skipped: %s", error)
        return TopicIdentities("", {})
    ids = {str(topic["name"]): str(topic.get("topic_id") or "") for topic in described}
    return TopicIdentities(cluster_id, {topic: "" if id_ == NO_ID else id_ for topic, id_ in ids.items()})
