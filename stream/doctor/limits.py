"""Check the topics' size limits and the key of forwarded records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from models.records import BROKER_MAX_BYTES
from stream.clients.topics import topic_table
from stream.commands.environment import CommandSettings
from stream.doctor.finding import Finding

NEEDED_BYTES = 2**20
"""The largest batch that is written: a record of MAX_RECORD_BYTES or a dead letter, with headers and framing."""


def limits(admin: KafkaAdminClient, settings: CommandSettings) -> Iterator[Finding]:
    """Compare each topic's size limit with the largest batch that is written to it."""
    names = [spec.name for spec in topic_table(settings.topics)]
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": ""}) for name in names]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    # the topic's own setting, else the brokers' message.max.bytes
    yield from compared({name: int(values["max.message.bytes"]["value"]) for name, values in configs.items()})


def compared(limit_bytes: Mapping[str, int]) -> Iterator[Finding]:
    """Check each topic's limit in bytes."""
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
    """Report which key signs forwarded records."""
    if settings.signing_key is not None:
        return Finding("origin key", True, "forwarded records are signed by your own key")
    return Finding(
        "origin key",
        True,
        "forwarded records are signed by a key derived from the cluster's id: it stops accidents such as copied "
        "records, but no attacker who may write events and knows the id",
        "if clients are not trusted, set HRNN_ORIGIN_KEY_FILE to a secret (openssl rand -hex 32), the same for all "
        "workers and the audit",
    )
