"""Read the Kafka cluster's unique id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream.source.topic_check import KafkaAway, TopicsNotReady


async def cluster_id(client_options: Mapping[str, Any]) -> str:
    """Return the cluster's id; raises TopicsNotReady if Kafka is unreachable or has none."""
    bootstrap = ",".join(client_options["bootstrap_servers"])
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        found = (await admin.describe_cluster()).get("cluster_id")
    except (KafkaError, OSError) as error:
        raise KafkaAway(f"reading the cluster id from Kafka at {bootstrap} failed ({error})") from None
    finally:
        await admin.close()
    if not found:
        raise TopicsNotReady(f"Kafka at {bootstrap} has no cluster id; set HRNN_ORIGIN_KEY_FILE instead")
    return str(found)
