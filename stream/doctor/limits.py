"""Whether all that a worker and a trainer may write fits the topics, and who can write a worker's headers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from models.records import BROKER_MAX_BYTES
from stream.clients.topics import topic_table
from stream.commands.environment import CommandSettings
from stream.doctor.finding import Finding

NEEDED_BYTES = 2**20
"""What a batch of ours has at the most: a record of MAX_RECORD_BYTES or a dead letter, with headers and framing."""


def limits(admin: KafkaAdminClient, settings: CommandSettings) -> Iterator[Finding]:
    """Compare the largest batch that each topic takes with the largest that is written to it."""
    names = [spec.name for spec in topic_table(settings.topics)]
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": ""}) for name in names]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    # the topic's own setting, else the brokers' message.max.bytes
    yield from compared({name: int(values["max.message.bytes"]["value"]) for name, values in configs.items()})


def compared(limit_bytes: Mapping[str, int]) -> Iterator[Finding]:
    """Say of each topic whether its limit in bytes is high enough."""
    low = {name: limit for name, limit in sorted(limit_bytes.items()) if limit < NEEDED_BYTES}
    for name, limit in low.items():
        yield Finding(
            "limits",
            False,
            f"{name} takes batches of {limit} bytes; up to {NEEDED_BYTES} are written to it",
            f"set max.message.bytes={BROKER_MAX_BYTES} with kafka-configs.sh --alter --entity-type topics "
            f"--entity-name {name}, or the brokers' message.max.bytes to Kafka's default, {BROKER_MAX_BYTES}",
        )
    if not low:
        smallest = min(limit_bytes.values(), default=0)
        yield Finding("limits", True, f"each topic takes batches of {smallest} bytes, at least {NEEDED_BYTES} needed")


def origin_key(settings: CommandSettings) -> Finding:
    """Return who can write the header by which a forwarded event names its first place."""
    if settings.signing_key is not None:
        return Finding("origin key", True, "forwarded records are signed by a key of your own")
    return Finding(
        "origin key",
        True,
        "forwarded records are signed by a key derived from the cluster's id: that keeps accidents out, as copied "
        "records and replay tools, but no attacker who may write events and knows the id",
        "if clients are not trusted, set HRNN_ORIGIN_KEY_FILE to a secret (openssl rand -hex 32), the same for all "
        "workers and the audit",
    )
