"""One writer a changelog partition: what somebody else wrote there is found, merged, and put right."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import aiokafka
import pytest

from models.records import Event
from models.users import state
from stream.demo.processes import Process
from stream.stages.sending import append
from tests.running import READY_S, Deployment, assert_passes, log_of, made_events, restored, wait_until


@pytest.fixture
def deployment(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, topic_prefix, tmp_path) as made:
        made.publish("v1")
        yield made


def written(deployment: Deployment) -> list[tuple[int, bytes, bytes]]:
    """Read the changelog as it stands: partition, key, value."""
    return [(r.partition, r.key, r.value) for r in deployment.records(deployment.topics.user_states)]


async def play_in_parts(deployment: Deployment, events: list[Event]) -> None:
    """Send events so that each user's state is written more than once: a slow worker may take all in one batch."""
    half = len(events) // 2
    await deployment.play(events[:half])
    await deployment.play(events[half:])


async def write_old_states_again(deployment: Deployment) -> int:
    """Write each user's first state behind the newest, as a worker does that slept and does not know it."""
    first: dict[tuple[int, bytes], bytes] = {}
    newest: dict[tuple[int, bytes], bytes] = {}
    for partition, key, value in await asyncio.to_thread(written, deployment):
        first.setdefault((partition, key), value)
        newest[partition, key] = value
    stale = 0
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=deployment.bootstrap) as producer:
        for (partition, key), value in first.items():
            if state.applied_offset(value) < state.applied_offset(newest[partition, key]):
                (sent,) = await append(producer, deployment.topics.user_states, partition, [(key, value)])
                await sent.acked
                stale += 1
    assert stale > 10
    return stale


def last_are_newest(deployment: Deployment) -> bool:
    """Tell whether each user's last record, which is what compaction keeps, is the one that has applied most."""
    last: dict[bytes, int] = {}
    most: dict[bytes, int] = {}
    for _, key, value in written(deployment):
        last[key] = state.applied_offset(value)
        most[key] = max(most.get(key, -1), last[key])
    return last == most


def foreign(worker: Process) -> float:
    return worker.metric("rec_foreign_changelog_records_total")


async def test_anothers_writes_are_found_by_the_next_write(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await play_in_parts(deployment, made_events(400))
    stale = await write_old_states_again(deployment)
    await deployment.play(made_events(100, seed=1, start=time.time()))  # every partition is written to
    await asyncio.to_thread(wait_until, lambda: foreign(worker) >= stale)
    await asyncio.to_thread(wait_until, lambda: last_are_newest(deployment), every_s=0.3)
    assert "another worker wrote to our changelog" in log_of(worker)
    assert_passes(await deployment.audited())


async def test_anothers_writes_are_found_though_nothing_is_written(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await play_in_parts(deployment, made_events(400))
    stale = await write_old_states_again(deployment)
    await asyncio.to_thread(wait_until, lambda: foreign(worker) >= stale)
    await asyncio.to_thread(wait_until, lambda: last_are_newest(deployment), every_s=0.3)
    assert foreign(worker) == stale, "what was put back is ours"
    assert_passes(await deployment.audited())


async def test_a_restore_takes_the_newest_state_and_not_the_last(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    events = made_events(500)
    await play_in_parts(deployment, events[:400])
    assert await asyncio.to_thread(worker.stop) == 0
    await write_old_states_again(deployment)
    assert not await asyncio.to_thread(last_are_newest, deployment)
    shutil.rmtree(deployment.data_dir())
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert restored(worker) > 400 / 4
    assert await asyncio.to_thread(last_are_newest, deployment), "what the stale ones hid was not put back"
    await deployment.play(events[400:])
    assert_passes(await deployment.audited())
