"""How the commands reach Kafka: plain answers for a person when they can't."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from stream.cli.broker import wait_until_serving
from stream.cli.failures import Failure


def require_broker(bootstrap: str, *, timeout_s: float = 3.0) -> None:
    """Raise Failure unless a broker answers; the clients themselves would try for half a minute."""
    wait_until_serving(bootstrap, timeout_s=timeout_s)


@contextmanager
def explained(bootstrap: str) -> Iterator[None]:
    """Turn what Kafka's client raises inside into a Failure that names the broker."""
    try:
        yield
    except KafkaError as error:
        raise Failure(
            f"Kafka at {bootstrap}: {type(error).__name__}: {error}", "see what `hrnn doctor` says"
        ) from error


@contextmanager
def administration(bootstrap: str) -> Iterator[KafkaAdminClient]:
    """Open an administrative connection for the time of the block; raises Failure if no broker answers."""
    require_broker(bootstrap)
    with explained(bootstrap):
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap.split(","), client_id="hrnn-admin", bootstrap_timeout_ms=10_000
        )
        try:
            yield admin
        finally:
            admin.close()


def missing_topic(bootstrap: str, topic: str) -> Failure:
    """Say that a topic is not there."""
    return Failure(f"there is no topic {topic} at {bootstrap}", "run `hrnn topics create`")


def require_topic(bootstrap: str, topic: str) -> None:
    """Raise Failure unless the topic exists: a producer would wait a minute for it."""
    with administration(bootstrap) as admin:
        if topic not in admin.list_topics():
            raise missing_topic(bootstrap, topic)
