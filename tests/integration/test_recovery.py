"""Stores lost, damaged or left behind: each is brought up to its changelog, and lists go on as if nothing had been."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rocksdict

from models.oracle import list_for
from models.users import state
from models.weights import unpack
from stream.demo.processes import Process
from stream.faust_patches.stores import IDENTITY_KEY, OFFSET_KEY, is_of_user_or_item
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
        states |= {bytes(key): bytes(value) for key, value in db.items() if is_of_user_or_item(key)}
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


def into_files(path: Path) -> None:
    """Have a store's states in a table file, and what it keeps beside them in another: opening it reads no states."""
    db = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    beside = {bytes(key): bytes(value) for key, value in db.items() if not is_of_user_or_item(key)}
    assert OFFSET_KEY in beside
    db.flush()
    for key, value in beside.items():
        db[key] = value
    db.flush()
    db.close()


def largest(path: Path, pattern: str) -> Path:
    return max(path.glob(pattern), key=lambda file: file.stat().st_size)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    if content:  # a log of writes is empty after they went to a table
        content[len(content) // 3] ^= 0xFF
    file.write_bytes(content)


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "current": lambda path: (path / "CURRENT").write_bytes(b"\0not a manifest\xff"),
    "manifest": lambda path: flip(largest(path, "MANIFEST-*")),
    "table_flipped": lambda path: (into_files(path), flip(largest(path, "*.sst"))),
    "table_halved": lambda path: (into_files(path), halve(largest(path, "*.sst"))),
    "table_missing": lambda path: (into_files(path), largest(path, "*.sst").unlink()),
    "log_flipped": lambda path: flip(largest(path, "*.log")),
    "log_halved": lambda path: halve(largest(path, "*.log")),
    "log_missing": lambda path: largest(path, "*.log").unlink(),
}


def counted(worker: Process) -> float:
    """Tell how many transitions are in the items' stores: at least one an event."""
    return worker.metric("rec_transitions_total", 'result="applied"')


def newest(deployment: Deployment) -> dict[bytes, bytes]:
    """Read each user's last state in the changelog."""
    records = deployment.records(deployment.topics.user_states)
    return {record.key: record.value for record in records if is_of_user_or_item(record.key)}


@pytest.mark.parametrize("behind", [False, True])
async def test_damaged_stores_are_restored_by_a_process_that_stays_alive(deployment: Deployment, behind: bool) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(300))
    await asyncio.to_thread(wait_until, lambda: counted(worker) >= 300)
    if behind:
        assert await asyncio.to_thread(worker.stop) == 0
        older = deployment.folder / "older"
        shutil.copytree(deployment.data_dir(), older)
        worker.start()
        await asyncio.to_thread(worker.wait_ready, READY_S)
        await deployment.play(made_events(100, seed=1, start=time.time()))
    assert await asyncio.to_thread(worker.stop) == 0
    if behind:
        shutil.rmtree(deployment.data_dir())
        shutil.copytree(older, deployment.data_dir())
    paths = [path for pair in zip(stores(deployment), stores(deployment, "items"), strict=True) for path in pair]
    damages = list(DAMAGE.values())
    for path, damage in zip(paths, reversed(damages) if behind else damages, strict=True):
        damage(path)
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    pid = worker.popen.pid if worker.popen else 0
    await deployment.play(made_events(200, seed=2, start=time.time()))
    assert worker.running
    assert worker.popen
    assert worker.popen.pid == pid
    assert log_of(worker).count("store is damaged and will be restored") >= 4
    assert_passes(await deployment.audited())
    assert await asyncio.to_thread(worker.stop) == 0
    assert held(deployment) == newest(deployment)


async def test_damage_that_shows_while_serving_is_mended_by_the_process(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(400))
    await asyncio.to_thread(wait_until, lambda: counted(worker) >= 400)
    assert await asyncio.to_thread(worker.stop) == 0
    for path in (stores(deployment)[0], stores(deployment, "items")[1]):
        into_files(path)
        content = bytearray(largest(path, "*.sst").read_bytes())
        content[: len(content) // 2] = bytes(len(content) // 2)
        largest(path, "*.sst").write_bytes(content)
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert restored(worker) == 0
    await deployment.play(made_events(100, seed=1, start=time.time()))
    await asyncio.to_thread(wait_until, lambda: worker.metric("rec_store_failures_total", 'kind="damaged"') >= 2)
    damaged = "store is damaged and will be restored"
    await asyncio.to_thread(wait_until, lambda: log_of(worker).count(damaged) == 2)
    await asyncio.to_thread(
        wait_until, lambda: log_of(worker).rfind("ready generation=") > log_of(worker).rfind(damaged)
    )
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert worker.running
    assert restored(worker) > 0
    assert_passes(await deployment.audited())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_worker_waits_for_space_on_a_full_disk_and_goes_on(deployment: Deployment, small_disk: Path) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker, HRNN_DATA_DIR=str(small_disk / "data"))
    await deployment.play(made_events(200))
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    async with deployment.client() as client:
        await client.send(made_events(300, seed=1, start=time.time()))
        await asyncio.to_thread(
            wait_until, lambda: worker.metric("rec_store_failures_total", 'kind="not_writable"') >= 1
        )
        await asyncio.to_thread(wait_until, lambda: "No space left on device" in worker.get("/readyz")[1])
        filler.unlink()
        await asyncio.to_thread(worker.wait_ready, READY_S)
        assert await client.drained(60), f"{client.outstanding} events have no list {worker.log_tail()}"
    assert worker.running
    assert "Traceback" not in log_of(worker)
    assert_passes(await deployment.audited())


async def test_stores_of_another_partition_or_changelog_are_restored(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(400))
    assert await asyncio.to_thread(worker.stop) == 0
    first, second, third, fourth = stores(deployment)
    shutil.rmtree(first)
    shutil.copytree(second, first)  # as by a copied folder
    for path, change in ((third, "topic_id"), (fourth, "cluster_id")):
        db = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        identity = json.loads(db[IDENTITY_KEY])
        assert len(identity[change]) > 20
        db[IDENTITY_KEY] = json.dumps(identity | {change: "another"}).encode()
        db[b"user-of-another-life"] = state.encode(state.UserState(10**9, {}, [], 0.0, 0, 0, b"", 0, "", [], 1))
        db.close()
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert log_of(worker).count("store is of another changelog and will be restored") == 3
    await deployment.play(made_events(100, seed=1, start=time.time()))
    assert await asyncio.to_thread(worker.stop) == 0
    assert held(deployment) == newest(deployment)
    assert_passes(await deployment.audited())


async def test_a_store_of_an_earlier_release_is_adopted(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    await deployment.play(made_events(200))
    assert await asyncio.to_thread(worker.stop) == 0
    for path in stores(deployment):
        db = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        del db[IDENTITY_KEY]
        db.close()
    worker.start()
    await asyncio.to_thread(worker.wait_ready, READY_S)
    assert restored(worker) == 0
    assert await asyncio.to_thread(worker.stop) == 0
    for partition, path in enumerate(stores(deployment)):
        db = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        assert json.loads(db[IDENTITY_KEY])["partition"] == partition
        db.close()


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
