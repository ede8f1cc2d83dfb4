"""Models published while workers serve: swapped as a whole, or refused as a whole, and never a list between two."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
from kafka import KafkaProducer

from models import weights
from models.records import POPULARITY
from models.weights import Manifest
from stream.demo.processes import Process
from tests.made import made_model, publish_model
from tests.running import (
    ITEMS,
    READY_S,
    Deployment,
    answers_more,
    assert_passes,
    log_of,
    made_events,
    under_load,
    wait_until,
)

WIDE = 400  # a hidden dimension that takes more than one chunk at 300 items


@pytest.fixture
def deployment(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, topic_prefix, tmp_path) as made:
        yield made


def swaps(worker: Process, result: str) -> float:
    return worker.metric("rec_model_swaps_total", f'result="{result}"')


def serving(worker: Process) -> str:
    """Name the version that a worker says it serves."""
    versions = [v for v in ("v1", "v2", "v3") if worker.metric("rec_model_info", f'version="{v}"')]
    return ",".join(versions)


async def test_a_swap_under_load_mixes_nothing_and_misses_nothing(deployment: Deployment) -> None:
    deployment.publish("v1", hidden=WIDE)
    worker = await asyncio.to_thread(deployment.ready_worker)
    async with under_load(deployment) as client:
        for number, width in ((2, WIDE), (3, 20)):  # other weights, then another shape too
            await answers_more(client, 500)
            await asyncio.to_thread(deployment.publish, f"v{number}", seed=number, hidden=width)
            await asyncio.to_thread(wait_until, lambda n=number: client.last_version == f"v{n}")
        await answers_more(client, 500)
    assert client.versions.keys() == {"v1", "v2", "v3"}
    assert min(client.versions.values()) >= 300
    assert (swaps(worker, "swapped"), swaps(worker, "refused")) == (3, 0)
    assert serving(worker) == "v3"
    assert worker.metric("rec_states_rebuilt_total") >= 200  # each of the users, at least once
    assert_passes(report := await deployment.audited())
    assert report.model_versions == 3
    assert report.lists_checked == report.recommendations == report.events == client.sent
    assert report.duplicates == 0

    # once a partition's lists are of the new version none is of the old one
    order: dict[int, list[str]] = {}
    for given in await asyncio.to_thread(deployment.lists):
        order.setdefault(given.source.partition, []).append(given.model_version)
    assert all(versions == sorted(versions) for versions in order.values())


async def test_popularity_serves_until_there_is_a_model_and_says_so(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    assert serving(worker) == ""
    await deployment.play(made_events(200))
    # counted once acked, which may be a moment after the client has read the last of them
    await asyncio.to_thread(wait_until, lambda: worker.metric("rec_recommendations_total", 'source="fallback"') == 200)
    assert await asyncio.to_thread(worker.stop) == 0
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    await deployment.play(made_events(1, seed=5, start=time.time()))
    given = await asyncio.to_thread(deployment.lists)
    assert {one.model_version for one in given} == {POPULARITY}
    # the restarted worker counts what its users' histories hold
    newest = max(given, key=lambda one: one.generated_at)
    counts = Counter(event.item_id for event in made_events(200))
    assert newest.items[0].score >= 2
    assert all(counts[item.item_id] >= item.score - 1 for item in newest.items)

    await asyncio.to_thread(deployment.publish, "v1")
    await asyncio.to_thread(wait_until, lambda: serving(worker) == "v1")
    await deployment.play(made_events(100, seed=6, start=time.time() + 60))
    await asyncio.to_thread(wait_until, lambda: worker.metric("rec_recommendations_total", 'source="model"') == 100)
    assert_passes(await deployment.audited())


def with_nan(manifest: Manifest, blob: bytes) -> tuple[Manifest, bytes]:
    """Put one NaN among the weights, and describe the bytes truthfully."""
    tensors = safetensors.torch.load(blob)
    tensors["out.weight"] = tensors["out.weight"].clone()
    tensors["out.weight"][0, 0] = math.nan
    spoilt = safetensors.torch.save(tensors)
    config, catalogue = weights.unpack(manifest, blob).model.config, weights.unpack(manifest, blob).catalogue
    described = weights.describe(
        spoilt, version=manifest.version, config=config, catalogue=catalogue, metrics={}, trained_at=1.0,
        data_watermark=1.0, data_offsets={},
    )  # fmt: skip
    return described, spoilt


def with_wrong_sha256(manifest: Manifest, blob: bytes) -> tuple[Manifest, bytes]:
    return msgspec.structs.replace(manifest, sha256="0" * 64), blob


def with_halves_of_two(manifest: Manifest, blob: bytes) -> tuple[Manifest, bytes]:
    """Join the first half of one model's bytes to the second of another's, under the first's manifest."""
    _, other = made_model(ITEMS, seed=99, version=manifest.version, hidden=WIDE)
    assert len(other) == len(blob)
    return manifest, blob[: len(blob) // 2] + other[len(blob) // 2 :]


def of_another_schema(manifest: Manifest, blob: bytes) -> tuple[Manifest, bytes]:
    return msgspec.structs.replace(manifest, schema=manifest.schema + 1), blob


SPOILT = {
    "not_finite": with_nan,
    "sha256: wrong": with_wrong_sha256,
    "sha256: torn": with_halves_of_two,
    "schema": of_another_schema,
}


async def test_models_that_do_not_verify_are_refused_and_the_old_one_serves_on(deployment: Deployment) -> None:
    deployment.publish("v1", hidden=WIDE)
    worker = await asyncio.to_thread(deployment.ready_worker)
    refused = 0

    async def refuses(version: str, reason: str) -> None:
        nonlocal refused
        refused += 1
        await asyncio.to_thread(wait_until, lambda: swaps(worker, "refused") == refused)
        line = next(line for line in log_of(worker).splitlines() if f"version={version} reason=" in line)
        assert f"reason={reason}:" in line
        assert serving(worker) == "v1"
        await deployment.play(made_events(20, seed=refused, start=time.time() + refused))

    def publish(version: str, spoil: object) -> None:
        made = made_model(ITEMS, seed=7, version=version, hidden=WIDE)
        publish_model(deployment.bootstrap, deployment.topics, *spoil(*made))  # type: ignore[operator]

    for number, (name, spoil) in enumerate(SPOILT.items()):
        await asyncio.to_thread(publish, f"bad{number}", spoil)
        await refuses(f"bad{number}", name.partition(":")[0])

    for tear in (0, 1):  # the first chunk never came, or the second
        assert len(weights.split(made_model(ITEMS, hidden=WIDE)[1])) > tear
        await asyncio.to_thread(deployment.publish, f"torn{tear}", tear=tear, hidden=WIDE)
        await refuses(f"torn{tear}", "missing_chunk")

    write(deployment, weights.POINTER_KEY, msgspec.json.encode(weights.Pointer("nowhere", 1.0)))
    await refuses("nowhere", "no_manifest")

    # a pointer that nobody can read, and a manifest and chunks that nobody points to, change nothing
    write(deployment, weights.POINTER_KEY, b"\xff not JSON")
    write(deployment, weights.manifest_key("v9"), b"{}")
    write(deployment, b"chunk/v9/0", b"x")
    write(deployment, b"\xff/what/is/this", b"x")
    await asyncio.to_thread(deployment.publish, "v2", seed=2, hidden=WIDE)
    await asyncio.to_thread(wait_until, lambda: serving(worker) == "v2")
    assert (swaps(worker, "swapped"), swaps(worker, "refused")) == (2, refused)
    await deployment.play(made_events(100, seed=50, start=time.time() + 60))
    assert worker.running
    assert_passes(report := await deployment.audited())
    assert {given.model_version for given in await asyncio.to_thread(deployment.lists)} == {"v1", "v2"}
    assert report.model_versions == 2


async def test_a_worker_that_starts_on_a_bad_model_serves_by_popularity(deployment: Deployment) -> None:
    deployment.publish("torn", tear=0)
    worker = await asyncio.to_thread(deployment.ready_worker)
    assert swaps(worker, "refused") == 1
    await deployment.play(made_events(20))
    assert {given.model_version for given in await asyncio.to_thread(deployment.lists)} == {POPULARITY}
    await asyncio.to_thread(deployment.publish, "v1")
    await asyncio.to_thread(wait_until, lambda: serving(worker) == "v1")
    assert_passes(await deployment.audited())


async def test_a_rollback_serves_the_version_before(deployment: Deployment) -> None:
    deployment.publish("v1")
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(60))
    await asyncio.to_thread(deployment.publish, "v2", seed=2)
    await asyncio.to_thread(wait_until, lambda: serving(worker) == "v2")
    await deployment.play(made_events(60, seed=1, start=time.time()))
    write(deployment, weights.POINTER_KEY, msgspec.json.encode(weights.Pointer("v1", 2.0)))
    await asyncio.to_thread(wait_until, lambda: serving(worker) == "v1")
    await deployment.play(made_events(60, seed=2, start=time.time() + 60))
    versions = Counter(given.model_version for given in await asyncio.to_thread(deployment.lists))
    assert versions == {"v1": 120, "v2": 60}
    assert_passes(await deployment.audited())


def write(deployment: Deployment, key: bytes, value: bytes) -> None:
    """Write one record to `models`."""
    producer = KafkaProducer(bootstrap_servers=deployment.bootstrap)
    producer.send(deployment.topics.models, key=key, value=value).get(30)
    producer.close()
