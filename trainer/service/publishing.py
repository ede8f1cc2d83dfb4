"""The `models` topic: publish a version, list, read and roll back. No reader can see an incomplete version.

Chunks are written first, then the manifest, then the pointer `current`, each acknowledged before the next. The topic
has one partition, so a reader of the pointer can read everything it points to.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer

from models.records import encode
from models.weights import (
    POINTER_KEY,
    BadWeights,
    Manifest,
    Pointer,
    ServingModel,
    chunk_key,
    decode_manifest,
    decode_pointer,
    join,
    manifest_key,
    parse_key,
    split,
    unpack,
)
from trainer.data.log_reader import LogReader, TopicMissing

PARTITION = 0
ACK_S = 60.0  # a broker that restarts acknowledges within this
CLOSE_S = 5.0
MAX_REQUEST_BYTES = 1024 * 1024  # Kafka's own default for a record; a chunk is half of it

log = logging.getLogger(__name__)


class Overtaken(RuntimeError):
    """Another process has published or rolled back since this run began."""


class NoSuchVersion(LookupError):
    """A version that is not on `models`, or no longer."""


@dataclass(frozen=True)
class Listed:
    """One version on the topic."""

    manifest: Manifest
    current: bool


@dataclass(frozen=True)
class Serving:
    """The pointer and its offset, which identifies it."""

    offset: int = -1
    version: str = ""  # empty: there is no pointer yet


def version_name(blob: bytes, trained_at: float) -> str:
    """Return a version's name, which sorts by time: 20261121T143301Z-<first 8 hex digits of its sha256>."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(trained_at))
    return f"{stamp}-{hashlib.sha256(blob).hexdigest()[:8]}"


class ModelTopic:
    """The content of `models` that was read so far. Of chunks only the numbers are kept."""

    def __init__(self, topic: str, client_options: Mapping[str, Any]) -> None:
        """Connect for reading; a producer connects at the first write. Raises kafka.errors.KafkaError."""
        self._topic = topic
        self._client_options = client_options
        self._reader = LogReader(topic, client_options)
        self._opened: KafkaProducer | None = None
        self._identity = ""
        self._next_offset = 0
        self._manifests: dict[str, Manifest] = {}
        self._chunks: dict[str, set[int]] = {}
        self._serving = Serving()

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()
        if self._opened is not None:
            # unacknowledged records belong to a failed run; the next run writes another version
            self._opened.close(timeout=CLOSE_S)

    def serving(self) -> Serving:
        """Read the new records and return the pointer; raises TopicMissing."""
        self._forget_another_topic()
        for record in self._records(self._next_offset):
            self._take(record.offset, record.key, record.value)
            self._next_offset = record.offset + 1
        return self._serving

    def versions(self) -> list[Listed]:
        """Return the complete versions, newest first; raises TopicMissing."""
        current = self.serving().version
        return [
            Listed(self._manifests[version], version == current)
            for version in self._newest_first()
            if self._complete(version)
        ]

    def read_model(self, version: str) -> ServingModel:
        """Read and verify a version; raises NoSuchVersion, BadWeights."""
        self.serving()
        manifest = self._manifests.get(version)
        if manifest is None:
            raise NoSuchVersion(f"{self._topic!r} has no version {version!r}")
        chunks: dict[int, bytes] = {}
        for record in self._records(0):
            key = parse_key(record.key)
            if key is not None and key.kind == "chunk" and key.version == version and record.value is not None:
                chunks[key.chunk] = record.value
        return unpack(manifest, join(manifest, chunks))

    def publish(self, blob: bytes, manifest: Manifest, since: Serving, now: float) -> None:
        """Publish a version; raises BadWeights before anything is written, Overtaken if the pointer is not `since`.

        Before it raises Overtaken, it removes the version. Two trainers that publish within one round trip can both
        succeed: the last pointer in the log counts, and both versions are complete.
        """
        unpack(manifest, blob)  # never publish a model that a worker would refuse
        version = manifest.version
        self._write({chunk_key(version, n): chunk for n, chunk in enumerate(split(blob))})
        self._write({manifest_key(version): encode(manifest)})
        found = self.serving()
        if found != since:
            self._remove(version)
            raise Overtaken(f"{found.version!r} was published at the same time, so {version!r} was withdrawn")
        self._write({POINTER_KEY: encode(Pointer(version, now))})
        log.info("published version=%s bytes=%d chunks=%d", version, len(blob), manifest.chunks)

    def rollback(self, version: str, now: float) -> None:
        """Verify a version on the topic and point to it; raises like read_model."""
        self.read_model(version)
        self._write({POINTER_KEY: encode(Pointer(version, now))})
        log.info("rolled back version=%s", version)

    def retain(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` versions and the serving one; returns the removed versions.

        Chunks without a manifest are removed, too, if there is a newer version: they will never be completed.
        """
        current = self.serving().version
        versions = self._newest_first()
        kept = {current, *versions[:keep]}
        newest = versions[0] if versions else ""
        removed = sorted(
            v for v in {*versions, *self._chunks} if v not in kept and (v in self._manifests or v < newest)
        )
        for version in removed:
            self._remove(version)
        return removed

    def _forget_another_topic(self) -> None:
        """Forget everything if the topic was re-created."""
        (_, end), identity = self._bounds(), self._reader.identity()
        created = bool(identity and self._identity and identity != self._identity)
        if created or end < self._next_offset:
            log.warning(
                "topic re-created, earlier versions are gone: topic=%s offset=%d end=%d id=%s",
                self._topic,
                self._next_offset,
                end,
                identity,
            )
            self._next_offset, self._serving = 0, Serving()
            self._manifests.clear()
            self._chunks.clear()
        self._identity = identity or self._identity

    def _newest_first(self) -> list[str]:
        # by the manifest's time: names have it in seconds only, and two quick runs may share one
        return sorted(self._manifests, key=lambda version: (self._manifests[version].trained_at, version), reverse=True)

    def _remove(self, version: str) -> None:
        # the manifest first: a reader must not find one whose chunks are being removed
        self._write({manifest_key(version): None})
        self._write({chunk_key(version, number): None for number in self._chunks.get(version, ())})

    def _complete(self, version: str) -> bool:
        return self._chunks.get(version, set()) >= set(range(self._manifests[version].chunks))

    def _records(self, start: int) -> Iterable[Any]:
        first, end = self._bounds()
        for records, _ in self._reader.read({PARTITION: (max(first, start), end)}):
            yield from records

    def _bounds(self) -> tuple[int, int]:
        bounds = self._reader.bounds()
        if bounds.keys() != {PARTITION}:
            raise TopicMissing(f"topic {self._topic!r} has {len(bounds)} partitions; it must have one")
        return bounds[PARTITION]

    def _take(self, offset: int, raw_key: bytes | None, value: bytes | None) -> None:
        key = parse_key(raw_key)
        if key is None:
            log.warning("unknown key skipped topic=%s offset=%d", self._topic, offset)
        elif key.kind == "chunk":
            numbers = self._chunks.setdefault(key.version, set())
            (numbers.discard if value is None else numbers.add)(key.chunk)
            if not numbers:
                del self._chunks[key.version]
        elif value is None:
            self._manifests.pop(key.version, None)
        else:
            try:
                if key.kind == "manifest":
                    self._manifests[key.version] = decode_manifest(value)
                else:
                    self._serving = Serving(offset, decode_pointer(value).version)
            except BadWeights as error:
                log.warning("bad record skipped topic=%s offset=%d: %s", self._topic, offset, error)

    def _write(self, records: Mapping[bytes, bytes | None]) -> None:
        """Write records and wait until all in-sync replicas have them; raises kafka.errors.KafkaError."""
        if self._opened is None:
            self._opened = KafkaProducer(
                **self._client_options,
                acks="all",
                enable_idempotence=True,  # a retried chunk must not follow the pointer
                max_request_size=MAX_REQUEST_BYTES,
                compression_type=None,  # weights do not compress
            )
        sent = [
            self._opened.send(self._topic, key=key, value=value, partition=PARTITION) for key, value in records.items()
        ]
        self._opened.flush(timeout=ACK_S)
        for future in sent:
            future.get(timeout=ACK_S)
