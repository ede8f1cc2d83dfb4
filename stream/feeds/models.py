"""Follow the `models` topic: fetch the version that the pointer names, verify it, swap one reference."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiokafka import TopicPartition

from models import weights
from models.weights import BadWeights, Manifest, ServingModel
from stream.process.retrying import Retries, is_transient, retried
from stream.source.log_reader import log_reader, read_stretch
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)


class ModelFeed:
    """The model in use, updated from the topic.

    `adopt` puts a model into use, or raises BadWeights. A model that does not verify is refused and counted, and the
    previous one stays in use.
    """

    def __init__(
        self,
        topic: str,
        client_options: Mapping[str, Any],
        telemetry: Telemetry,
        adopt: Callable[[ServingModel], Awaitable[None]],
    ) -> None:
        self.current: ServingModel | None = None
        self._adopt = adopt
        self._tp = TopicPartition(topic, 0)
        self._client_options = client_options
        self._telemetry = telemetry
        self._caught_up = asyncio.Event()
        self.retries = Retries("reading the models topic")
        self._fetching = Retries("model fetch")

    async def caught_up(self) -> None:
        """Wait until the model that was current at the worker's start is in use or refused, or there is none."""
        await self._caught_up.wait()

    @property
    def is_caught_up(self) -> bool:
        """Return whether the start of the topic has been read."""
        return self._caught_up.is_set()

    async def follow(self) -> None:
        """Read the topic forever. Transient errors are retried; raises any other error."""
        await retried(self.retries, self._follow)

    async def _follow(self) -> None:
        async with log_reader(self._client_options) as reader:
            reader.assign([self._tp])
            await reader.seek_to_beginning(self._tp)
            end = (await reader.end_offsets([self._tp]))[self._tp]
            wanted: str | None = None
            self.retries.succeeded()
            while True:
                if not self._caught_up.is_set() and await reader.position(self._tp) >= end:
                    # only now: compaction may leave several pointers, and only the last one counts
                    wanted = None if await self._take(wanted) else wanted
                    self._caught_up.set()
                fetched = await reader.getmany(self._tp, timeout_ms=1000)
                for records in fetched.values():
                    pointed = [r.value for r in records if r.key == weights.POINTER_KEY and r.value]
                    wanted = _version(pointed[-1]) if pointed else wanted
                if wanted and self._caught_up.is_set():
                    wanted = None if await self._take(wanted) else wanted

    async def _take(self, version: str | None) -> bool:
        """Swap a version in, or refuse it; returns False if the fetch must be retried."""
        if version is None or (self.current is not None and self.current.version == version):
            return True
        try:
            manifest, blob = await self._fetch(version)
            model = await asyncio.to_thread(weights.unpack, manifest, blob)
            await self._adopt(model)
        except BadWeights as error:
            self._telemetry.swaps.labels("refused").inc()
            log.error("model refused, the previous one stays in use version=%s reason=%s", version, error)
            return True
        except Exception as error:
            if not is_transient(error):
                raise
            await asyncio.sleep(self._fetching.failed(error))
            return False
        self._fetching.succeeded()
        before = self.current.version if self.current else None
        self.current = model
        self._telemetry.swapped(model)
        log.info("model swapped version=%s before=%s sha256=%s", version, before, manifest.sha256[:12])
        return True

    async def _fetch(self, version: str) -> tuple[Manifest, bytes]:
        """Read one version's manifest and chunks from the topic."""
        chunks: dict[int, bytes] = {}
        manifest: Manifest | None = None
        async with log_reader(self._client_options) as reader:
            begin = (await reader.beginning_offsets([self._tp]))[self._tp]
            end = (await reader.end_offsets([self._tp]))[self._tp]
            async for _, records in read_stretch(reader, {self._tp: (begin, end)}):
                for record in records:
                    key = weights.parse_key(record.key)
                    if key is None or key.version != version or record.value is None:
                        continue
                    if key.kind == "manifest":
                        manifest = weights.decode_manifest(record.value)
                    else:
                        chunks[key.chunk] = record.value
        if manifest is None:
            raise BadWeights("no_manifest", f"version {version} has none on {self._tp.topic}")
        return manifest, weights.join(manifest, chunks)


def _version(pointer: bytes) -> str | None:
    """Return the version that a pointer names; None for a pointer that can't be read."""
    try:
        return weights.decode_pointer(pointer).version
    except BadWeights as error:
        log.error("pointer to the current model skipped: %s", error)
        return None
