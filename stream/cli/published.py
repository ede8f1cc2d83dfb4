"""What the `models` topic holds: versions, the one that serves, and the way back to an older one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from kafka import KafkaProducer

from models.contracts import encode
from models.weights import (
    POINTER_KEY,
    BadWeights,
    Manifest,
    Pointer,
    ServingModel,
    decode_manifest,
    decode_pointer,
    join,
    parse_key,
    unpack,
)
from stream.cli.connection import explained
from stream.cli.failures import Failure
from stream.cli.reading import read_to_end


@dataclass
class PublishedModels:
    """The topic's content, oldest version first; a manifest that can't be read is kept as the reason why."""

    topic: str
    pointer: Pointer | None = None
    manifests: dict[str, Manifest | BadWeights] = field(default_factory=dict)
    chunks: dict[str, dict[int, bytes]] = field(default_factory=dict)

    @property
    def serving(self) -> str:
        """The version that the pointer names; raises Failure if none does."""
        if self.pointer is None:
            raise Failure(
                f"no model is published on {self.topic}",
                "run `hrnn trainer --once` when the stream has written some sessions; until then lists are by "
                "popularity",
            )
        return self.pointer.version

    def manifest(self, version: str) -> Manifest:
        """Look up a version's manifest; raises Failure if there is none that can be read."""
        manifest = self.manifests.get(version)
        if manifest is None:
            raise Failure(f"{self.topic} has no version {version}", "`hrnn models list` shows those it has")
        if isinstance(manifest, BadWeights):
            raise Failure(f"the manifest of {version} is bad: {manifest}", "roll back: `hrnn models rollback`")
        return manifest

    def verify(self, version: str) -> ServingModel:
        """Make every check that a worker makes before it serves a version; raises Failure."""
        manifest = self.manifest(version)
        try:
            return unpack(manifest, join(manifest, self.chunks.get(version, {})))
        except BadWeights as bad:
            remedy = "workers refuse it and keep the version before; train again: `hrnn trainer --once`"
            raise Failure(f"version {version} does not verify: {bad}", remedy) from None

    def before(self, version: str) -> str:
        """Name the version published before another, the newest one that verifies; raises Failure."""
        versions = list(self.manifests)
        older = versions[: versions.index(version)] if version in versions else versions
        for candidate in reversed(older):
            try:
                self.verify(candidate)
            except Failure:
                continue
            return candidate
        raise Failure(f"{self.topic} holds no sound version older than {version}", "`hrnn models list` shows them")


def read_models(bootstrap: str, topic: str) -> PublishedModels:
    """Read the topic as it is now; raises Failure."""
    models = PublishedModels(topic)
    for record in read_to_end(bootstrap, topic):
        key = parse_key(record.key)
        if key is None:
            continue
        if key.kind == "chunk":
            parts = models.chunks.setdefault(key.version, {})
            if record.value is None:
                parts.pop(key.chunk, None)
            else:
                parts[key.chunk] = record.value
        elif key.kind == "manifest":
            models.manifests.pop(key.version, None)  # published again: now the newest
            if record.value is not None:
                models.manifests[key.version] = _manifest(record.value)
        elif record.value is not None:
            try:
                models.pointer = decode_pointer(record.value)
            except BadWeights:
                models.pointer = None
        else:
            models.pointer = None
    return models


def _manifest(value: bytes) -> Manifest | BadWeights:
    try:
        return decode_manifest(value)
    except BadWeights as bad:
        return bad


def point_to(bootstrap: str, topic: str, version: str) -> None:
    """Make a version the one that serves: the same one record that a trainer publishes last."""
    with explained(bootstrap):
        producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","), client_id="hrnn-models", acks="all", enable_idempotence=True
        )
        try:
            pointer = Pointer(version, published_at=time.time())
            producer.send(topic, key=POINTER_KEY, value=encode(pointer)).get(timeout=30)
        finally:
            producer.close()
