"""The worker's settings, read from the environment (`HRNN_…`)."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, FilePath, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from models.facts.schema import ID_OF, BadSchema, Kind, Schema, parse_schema
from models.items.signals import SignalRules
from models.records import Topics
from models.sessions import SessionRules
from stream.kafka_access import KafkaAccess

MIN_KEY_BYTES = 16  # a shorter key could be guessed


class KafkaSettings(KafkaAccess):
    """Kafka's address, the timeouts of the consumer group, and the schemas of facts."""

    model_config = SettingsConfigDict(env_prefix="HRNN_", frozen=True, extra="forbid")

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="Kafka's bootstrap brokers, host:port[,host:port…]")
    topic_prefix: str = Field("", description="prefix of all topics; lets several deployments share one Kafka")
    session_timeout_s: float = Field(
        10.0,
        gt=0,
        description="a worker without heartbeats for so long loses its partitions; short, as its users wait",
    )
    heartbeat_interval_s: float = Field(
        2.0, gt=0, description="a fifth of the session timeout, so that lost heartbeats do no harm"
    )
    rebalance_timeout_s: float = Field(
        20.0, gt=0, description="limit of a rebalance; a batch takes under a second, a pause may take longer"
    )
    instance_id: str | None = Field(
        None,
        description="static membership (a pod's name): a restart within the session timeout moves no partition",
    )

    origin_key: SecretStr | None = Field(
        None, description="like HRNN_ORIGIN_KEY_FILE, for tests; a file is safer than a variable"
    )
    origin_key_file: FilePath | None = Field(
        None,
        description="file with the secret that signs forwarded records, the same for all workers and the audit; "
        "none: a key derived from the cluster's id, which stops accidents but no attacker",
    )

    items_schema: FilePath | None = Field(
        None, description="file with the schema of items, in Amazon Personalize's form; none: any attributes"
    )
    users_schema: FilePath | None = Field(None, description="file with the schema of users; none: any attributes")

    @model_validator(mode="after")
    def _schemas(self) -> Self:
        for kind in ID_OF:
            self.schema_of(kind)
        return self

    def schema_of(self, kind: Kind) -> Schema | None:
        """Read the schema of items or of users; None if none is set. Raises ValueError naming the setting."""
        path: Path | None = getattr(self, f"{kind}_schema")
        if path is None:
            return None
        try:
            return parse_schema(path.read_bytes(), kind)
        except (BadSchema, OSError) as error:
            raise ValueError(f"HRNN_{kind.upper()}_SCHEMA={path}: {error}") from None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.origin_key is not None and self.origin_key_file is not None:
            raise ValueError("set HRNN_ORIGIN_KEY_FILE or HRNN_ORIGIN_KEY, not both")
        try:
            key = self.signing_key
        except OSError as error:
            raise ValueError(f"HRNN_ORIGIN_KEY_FILE={self.origin_key_file} can't be read: {error}") from None
        if key is not None and len(key) < MIN_KEY_BYTES:
            raise ValueError(
                f"the key of HRNN_ORIGIN_KEY_FILE or HRNN_ORIGIN_KEY has {len(key)} bytes and needs {MIN_KEY_BYTES}: "
                "create one with `openssl rand -hex 32`"
            )
        return self

    @property
    def signing_key(self) -> bytes | None:
        """Return the secret that signs forwarded records; None if none is set."""
        if self.origin_key_file is not None:
            return self.origin_key_file.read_bytes().rstrip(b"\r\n")
        return self.origin_key.get_secret_value().encode() if self.origin_key is not None else None

    @property
    def topics(self) -> Topics:
        """Return this deployment's topics."""
        return Topics(self.topic_prefix)

    def client_options(self) -> dict[str, Any]:
        """Return the options of the worker's aiokafka clients without a group."""
        return {
            "bootstrap_servers": self.kafka_bootstrap.split(","),
            "client_id": f"hrnn-{socket.gethostname()}",
            **self.access_options(),
        }


class WorkerSettings(KafkaSettings):
    """The settings of one worker."""

    data_dir: Path = Field(Path("hrnn-data"), description="folder of the RocksDB stores; one per worker, kept on disk")
    top_k: int = Field(20, ge=1, le=500, description="items in a list; recall@20 is the widest measure reported")
    exclude_seen: bool = Field(True, description="leave a user's history out of lists; turn off for groceries")
    asking_gap_s: float = Field(
        0.0,
        ge=0,
        description="time from an event to the use of its list; 0: at once, higher if users return later",
    )
    gap_s: float = Field(1800.0, gt=0, description="a session ends after this gap; 30 minutes is the web's convention")
    grace_s: float = Field(300.0, ge=0, description="an event that is at most so late is still applied")
    future_s: float = Field(600.0, ge=0, description="an event's time may be so far ahead of the broker's clock")
    signal_interval_s: float = Field(
        1.0,
        gt=0,
        description="interval of counting, sending and reading item signals; shorter is fresher and costs more",
    )
    half_lives_s: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        SignalRules.half_lives_s, description="half-lives of the item counts in s; must include those of the models"
    )
    successor_half_life_s: float = Field(
        SignalRules.successor_half_life_s, gt=0, description="half-life of the successor counts in s; as the models'"
    )
    max_poll_records: int = Field(
        512,
        ge=1,
        description="events in a batch; larger ones score little faster, and their lists wait for the last event",
    )
    block_cache_bytes: int = Field(16 * 2**20, ge=2**20, description="RocksDB block cache per partition")
    write_buffer_bytes: int = Field(
        8 * 2**20, ge=2**20, description="RocksDB write buffer per partition, up to three at a time"
    )
    metrics_bind: str = Field("127.0.0.1", description="address of the metrics server; loopback unless set")
    metrics_port: int = Field(9108, ge=0, le=65535, description="port of the metrics server; 0: any free one, logged")
    stop_timeout_s: float = Field(20.0, gt=0, description="a stop takes a second; after this time the process exits")
    torch_threads: int = Field(1, ge=1, description="one process per core scales better than threads")

    @property
    def session_rules(self) -> SessionRules:
        """Return the rules of sessions and lateness."""
        return SessionRules(gap_s=self.gap_s, grace_s=self.grace_s, future_s=self.future_s)

    @property
    def signal_rules(self) -> SignalRules:
        """Return the rules of item signals; raises ValueError for invalid half-lives."""
        return SignalRules(self.half_lives_s, self.successor_half_life_s)
