"""What a worker can be told, read from the environment (`HRNN_…`)."""

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

MIN_KEY_BYTES = 16  # fewer could be guessed


class KafkaSettings(KafkaAccess):
    """Where Kafka is, how long a member of the group may be silent, and what the facts on the topics look like."""

    model_config = SettingsConfigDict(env_prefix="HRNN_", frozen=True, extra="forbid")

    kafka_bootstrap: str = Field("127.0.0.1:9092", description="brokers to begin with, host:port[,host:port…]")
    topic_prefix: str = Field("", description="lets several deployments share one Kafka")
    session_timeout_s: float = Field(
        10.0,
        gt=0,
        description="a worker silent for so long is taken for dead: short, as its users wait for it",
    )
    heartbeat_interval_s: float = Field(2.0, gt=0, description="a fifth of the session timeout survives lost beats")
    rebalance_timeout_s: float = Field(20.0, gt=0, description="a batch takes under a second; a pause may take longer")
    instance_id: str | None = Field(
        None,
        description="static membership (a pod's name): a restart within the session timeout moves nothing",
    )

    origin_key: SecretStr | None = Field(
        None, description="for trying out, as HRNN_ORIGIN_KEY_FILE: a file is seen by fewer"
    )
    origin_key_file: FilePath | None = Field(
        None,
        description="holds the secret that forwarded records are signed by, the same for all workers and the audit; "
        "none: derived from the cluster's id, which keeps accidents out but no attacker",
    )

    items_schema: FilePath | None = Field(
        None, description="names the attributes of items, in Amazon Personalize's form; none: any are taken"
    )
    users_schema: FilePath | None = Field(None, description="likewise of users")

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
                "make one with `openssl rand -hex 32`"
            )
        return self

    @property
    def signing_key(self) -> bytes | None:
        """Read the secret that forwarded records are signed by; None if none is set."""
        if self.origin_key_file is not None:
            return self.origin_key_file.read_bytes().rstrip(b"\r\n")
        return self.origin_key.get_secret_value().encode() if self.origin_key is not None else None

    @property
    def topics(self) -> Topics:
        """Return this deployment's topics."""
        return Topics(self.topic_prefix)

    def client_options(self) -> dict[str, Any]:
        """Return what every group-less aiokafka client of the worker is made with."""
        return {
            "bootstrap_servers": self.kafka_bootstrap.split(","),
            "client_id": f"hrnn-{socket.gethostname()}",
            **self.access_options(),
        }


class WorkerSettings(KafkaSettings):
    """One worker: its folder, its lists, its rules of time."""

    data_dir: Path = Field(Path("hrnn-data"), description="RocksDB's folder; one worker each, kept over restarts")
    top_k: int = Field(20, ge=1, le=500, description="places in a list: recall@20 is the widest measure reported")
    exclude_seen: bool = Field(True, description="a list of what one has had is no advice; turn off for groceries")
    asking_gap_s: float = Field(
        0.0,
        ge=0,
        description="how long after an event its list is looked at: at once, unless people come back later",
    )
    gap_s: float = Field(1800.0, gt=0, description="silence that ends a session: 30 minutes, the web's convention")
    grace_s: float = Field(300.0, ge=0, description="how late an event may come and still be applied")
    future_s: float = Field(600.0, ge=0, description="how far a producer's clock may run ahead of the broker's")
    signal_interval_s: float = Field(
        1.0,
        gt=0,
        description="how often items' signals are counted, sent and taken over: fresh to a second, at a bounded cost",
    )
    half_lives_s: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        SignalRules.half_lives_s, description="of the items' counts, seconds; must include those of the models"
    )
    successor_half_life_s: float = Field(
        SignalRules.successor_half_life_s, gt=0, description="of what follows what, seconds; must be the models'"
    )
    max_poll_records: int = Field(
        512,
        ge=1,
        description="events in a batch: scoring gains little beyond, and a batch's lists wait for its last",
    )
    block_cache_bytes: int = Field(16 * 2**20, ge=2**20, description="per partition; RocksDB's own default is 2 GiB")
    write_buffer_bytes: int = Field(8 * 2**20, ge=2**20, description="per partition, up to three of them at once")
    metrics_bind: str = Field("127.0.0.1", description="metrics are for the operator: not every interface by default")
    metrics_port: int = Field(9108, ge=0, le=65535, description="0: any free port, said in the log")
    stop_timeout_s: float = Field(20.0, gt=0, description="a stop takes a second; past this the process just ends")
    torch_threads: int = Field(1, ge=1, description="one process a core scales better than one process on all")

    @property
    def session_rules(self) -> SessionRules:
        """Return the rules that events are placed by."""
        return SessionRules(gap_s=self.gap_s, grace_s=self.grace_s, future_s=self.future_s)

    @property
    def signal_rules(self) -> SignalRules:
        """Return the rules that items' signals are counted by; raises ValueError for half-lives that can't be."""
        return SignalRules(self.half_lives_s, self.successor_half_life_s)
