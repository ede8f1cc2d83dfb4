"""Kafka connections of the commands, with clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from stream.commands.environment import load
from stream.commands.failures import Failure
from stream.demo.broker import wait_until_serving
from stream.kafka_access import KafkaAccess


def require_broker(bootstrap: str, *, timeout_s: float = 3.0) -> None:
    """Raise Failure unless a broker answers. Kafka's clients would retry for half a minute."""
    access = load(KafkaAccess)
    try:
        wait_until_serving(bootstrap, timeout_s=timeout_s, tls=access.access_options().get("ssl_context"))
    except Failure as failure:
        remedy = f"{failure.remedy}; its listener must speak {access.security_protocol} (HRNN_SECURITY_PROTOCOL)"
        raise Failure(failure.what, remedy) from None


def client_options(bootstrap: str, client_id: str) -> dict[str, Any]:
    """Return the options of a command's Kafka client, with TLS and SASL from the environment."""
    return {
        "bootstrap_servers": bootstrap.split(","),
        "client_id": client_id,
        **load(KafkaAccess).access_options(),
    }


@contextmanager
def explained(bootstrap: str) -> Iterator[None]:
    """Turn a KafkaError inside into a Failure that names the broker."""
    try:
        yield
    except KafkaError as error:
        remedy = "run `hrnn doctor`"
        if user := load(KafkaAccess).sasl_username:
            # the client sees a refused login as a closed connection, and retries until its timeout
            remedy += f"; is the password of HRNN_SASL_USERNAME={user} right, and is that user allowed to do this?"
        raise Failure(f"Kafka at {bootstrap}: {type(error).__name__}: {error}", remedy) from error


@contextmanager
def administration(bootstrap: str) -> Iterator[KafkaAdminClient]:
    """Open an administrative connection; raises Failure if no broker answers."""
    require_broker(bootstrap)
    with explained(bootstrap):
        admin = KafkaAdminClient(**client_options(bootstrap, "hrnn-admin"), bootstrap_timeout_ms=10_000)
        try:
            yield admin
        finally:
            admin.close()


def missing_topic(bootstrap: str, topic: str) -> Failure:
    """Return the Failure for a missing topic."""
    return Failure(f"there is no topic {topic} at {bootstrap}", "run `hrnn topics create`")


def require_topic(bootstrap: str, topic: str) -> None:
    """Raise Failure unless the topic exists: a producer would wait a minute for it."""
    with administration(bootstrap) as admin:
        if topic not in admin.list_topics():
            raise missing_topic(bootstrap, topic)
