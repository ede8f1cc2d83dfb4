"""Which Kafka cluster this is: its id, which no other cluster has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream.source.topic_check import KafkaAway, TopicsNotReady


async def cluster_id(client_options: Mapping[str, Any]) -> str:
    """Ask Kafka for its cluster's id; raises TopicsNotReady if it can't be reached or tells none."""
    bootstrap = ",".join(client_options["bootstrap_servers"])
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        found = (await admin.describe_cluster()).get("cluster_id")
    except (KafkaError, OSError) as error:
        raise KafkaAway(f"Kafka at {bootstrap} does not tell its cluster id ({error})") from None
    finally:
        await admin.close()
    if not found:
        raise TopicsNotReady(f"Kafka at {bootstrap} tells no cluster id; set HRNN_ORIGIN_KEY_FILE instead")
    return str(found)
