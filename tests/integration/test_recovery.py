"""Stores lost, damaged or left behind: each is brought up to its changelog, and lists go on as if nothing had been."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rocksdict

from models import state
from models.replay import list_for
from models.weights import unpack
from tests.made import made_model
from tests.running import (
    ITEMS,
    READY_S,
    Deployment,
    answers_more,
    assert_passes,
    log_of,
    made_events,
    restored,
    under_load,
    wait_until,
)

OTHERS_SERVE_WITHIN_S = 30.0
OFFSET_KEY = b"__faust\0offset__"  # under which Faust's store keeps how far of its changelog it holds


@pytest.fixture
def deployment(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, topic_prefix, tmp_path) as made:
        made.publish("v1")
        yield made


def stores(deployment: Deployment, table: str = "users") -> list[Path]:
    """Find the worker's stores of a table, one a partition."""
    found = sorted(path.parent for path in deployment.data_dir().rglob(f"{table}-*.db/CURRENT"))
    assert len(found) == deployment.partitions
    return found


def held(deployment: Deployment) -> dict[bytes, bytes]:
    """Read all states out of the stores of a worker that does not run."""
    states: dict[bytes, bytes] = {}
    for path in stores(deployment):
        db = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        states |= {bytes(key): bytes(value) for key, value in db.items() if key != OFFSET_KEY}
        db.close()
    return states


async def test_an_empty_folder_is_restored_and_the_lists_go_on(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    events = made_events(900)
    await deployment.play(events[:800])
    assert await asyncio.to_thread(worker.stop) == 0
    before = held(deployment)
    shutil.rmtree(deployment.data_dir())
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert restored(worker) >= len(before) == 40
    await deployment.play(events[800:])
    assert await asyncio.to_thread(worker.stop) == 0
    assert held(deployment).keys() == before.keys()
    assert_passes(report := await deployment.audited())
    assert report.lists_checked == 900

    # one list by hand, beside the audit: the model over all that the user ever did
    user = events[-1].user_id
    model = unpack(*made_model(ITEMS, version="v1"))
    history = state.decode(held(deployment)[user.encode()]).history
    assert [(e.item_id, e.timestamp) for e in history] == [
        (e.item_id, e.timestamp) for e in events if e.user_id == user
    ]
    given = [r for r in await asyncio.to_thread(deployment.lists) if r.user_id == user][-1]
    expected = list_for(model, history, 20)
    assert [item.score for item in given.items] == pytest.approx([item.score for item in expected], abs=1e-4)
    assert {item.item_id for item in given.items} == {item.item_id for item in expected}


async def test_a_damaged_store_is_deleted_and_restored(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(300))
    assert await asyncio.to_thread(worker.stop) == 0
    for path in (stores(deployment)[0], stores(deployment, "items")[1]):
        (path / "CURRENT").write_bytes(b"\0not a manifest\xff")
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert log_of(worker).count("store is damaged and will be restored") == 2
    assert restored(worker) > 0
    await deployment.play(made_events(100, seed=1, start=time.time()))
    assert_passes(await deployment.audited())


async def test_damage_that_shows_while_serving_costs_one_restart(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(400))
    assert await asyncio.to_thread(worker.stop) == 0
    (path, *_) = stores(deployment)
    db = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    offset = db[OFFSET_KEY]
    db.flush()
    db[OFFSET_KEY] = offset  # in a file of its own, so that opening the store sees nothing wrong
    db.flush()
    db.close()
    largest = max(path.glob("*.sst"), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    largest.write_bytes(content)
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert restored(worker) == 0
    async with deployment.client() as client:
        await client.send(made_events(100, seed=1, start=time.time()))
        await asyncio.to_thread(wait_until, lambda: not worker.running, READY_S)
        assert worker.exit_code == 1
        worker.start()
        assert await client.drained(60), f"{client.outstanding} events have no list {worker.log_tail()}"
    assert "Corruption: " in log_of(worker)
    assert restored(worker) > 0
    assert_passes(await deployment.audited())


async def test_a_store_ahead_of_its_changelog_is_not_believed(deployment: Deployment) -> None:
    """As when the topics were made anew and the folder was not emptied."""
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(300))
    assert await asyncio.to_thread(worker.stop) == 0
    for path in stores(deployment):
        db = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        db[OFFSET_KEY] = b"1000000"
        db[b"user-of-another-life"] = state.encode(state.UserState(10**9, {}, [], 0.0, 0, 0, b"", 0, "", [], 1))
        db.close()
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert log_of(worker).count("store is ahead of its changelog and will be restored") == deployment.partitions
    await deployment.play(made_events(100, seed=1, start=time.time()))
    assert await asyncio.to_thread(worker.stop) == 0
    assert b"user-of-another-life" not in held(deployment)
    assert_passes(await deployment.audited())


async def test_a_kept_folder_is_not_restored_again(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(300))
    for _ in range(2):
        assert await asyncio.to_thread(worker.stop) == 0
        worker.start()
        await asyncio.to_thread(worker.wait_ready, READY_S)
        assert restored(worker) == 0
    assert_passes(report := await deployment.audited())
    assert report.duplicates == 0


async def test_when_one_of_two_workers_is_killed_the_other_serves_its_users(deployment: Deployment) -> None:
    one = await asyncio.to_thread(deployment.ready_worker, "one")
    other = await asyncio.to_thread(deployment.ready_worker, "other")
    async with under_load(deployment) as client:
        client.measuring = True
        await answers_more(client, 800)
        shares = [w.metric("rec_events_total", 'result="applied"') for w in (one, other)]
        assert all(shares), f"events of the two workers: {shares}"
        at = time.perf_counter()
        one.kill()

        def partitions_served() -> set[int]:
            return {partition for partition, sent_at, _ in list(client.answered) if sent_at > at}

        await asyncio.to_thread(
            wait_until, lambda: len(partitions_served()) == deployment.partitions, OTHERS_SERVE_WITHIN_S
        )
        took_s = time.perf_counter() - at
        await answers_more(client, 800)
    assert took_s < OTHERS_SERVE_WITHIN_S
    assert restored(other) > 0
    assert one.exit_code is not None
    assert_passes(report := await deployment.audited())
    assert report.recommendations == report.events == client.sent
