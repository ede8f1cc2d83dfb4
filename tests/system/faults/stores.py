"""Stores that are damaged, another's, or on a full disk."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from stream.demo.processes import Process
from tests.system.faults.scene import Scene, Setup, scene

DISK = "64m"
FULL_S = 8.0
BALLAST = "ballast"


def _garbage(path: Path, rnd: random.Random) -> None:
    path.write_bytes(rnd.randbytes(40))


def _flip(path: Path, rnd: random.Random) -> None:
    """Change some bytes in the middle of a file."""
    data = bytearray(path.read_bytes())
    if data:
        for _ in range(max(3, len(data) // 200)):
            data[rnd.randrange(len(data) // 4, len(data))] ^= rnd.randrange(1, 256)
        path.write_bytes(bytes(data))


def _cut(path: Path, rnd: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _remove(path: Path, rnd: random.Random) -> None:
    path.unlink()


DAMAGES: dict[str, tuple[str, Callable[[Path, random.Random], None]]] = {
    "CURRENT is garbage": ("CURRENT", _garbage),
    "MANIFEST has wrong bytes": ("MANIFEST-*", _flip),
    "SST has wrong bytes": ("*.sst", _flip),
    "SST is cut off": ("*.sst", _cut),
    "SST is missing": ("*.sst", _remove),
    "WAL has wrong bytes": ("*.log", _flip),
    "WAL is cut off": ("*.log", _cut),
}


async def corrupt_store(setup: Setup) -> None:
    """Damage each kind of file of a store that is up to date, then of one that is behind."""
    async with scene(setup) as run:
        (worker,) = await run.start_ready()
        await run.send(300)
        await run.drained()
        await run.kill(worker)
        await run.restart(worker)  # the log of writes becomes a table
        await run.ready()
        await run.kill(worker)
        data, old = run.deployment.data_dir(worker.name), run.deployment.folder / "old-data"
        shutil.copytree(data, old)
        for behind in (False, True):
            for what, (pattern, damage) in DAMAGES.items():
                await run.restart(worker)
                await run.ready()
                await run.send(60)
                if not await run.drained(45.0):
                    break
                await run.kill(worker)
                if behind:
                    shutil.rmtree(data)
                    shutil.copytree(old, data)
                files = [path for store in sorted(data.rglob("*.db")) for path in sorted(store.glob(pattern))]
                for path in files:
                    damage(path, run.random)
                if not files:
                    run.note(f"no file for: {what}")
                before = run.result.process_exits
                await run.restart(worker)
                await run.ready()
                await run.send(60)
                drained = await run.drained(45.0)
                if not drained or run.result.process_exits > before:
                    state = "behind" if behind else "up to date"
                    run.note(f"{what}, store {state}: drained={drained} exits={run.result.process_exits - before}")
                await run.kill(worker)
        await run.restart(worker)
        await run.check()


async def foreign_store(setup: Setup) -> None:
    """Put another partition's store in place, then another deployment's."""
    async with scene(setup) as run, scene(setup) as other:
        (worker,) = await run.start_ready()
        await run.send(400)
        await run.drained()
        (stranger,) = await other.start_ready("stranger")
        await other.send(200)
        await other.drained()
        await other.stop(stranger)
        data = run.deployment.data_dir(worker.name)

        await run.stop(worker)
        run.result.faults += 1
        for table in ("users", "items"):
            one, two = (next(data.rglob(f"{table}-{number}.db")) for number in (0, 1))
            swapped = one.with_name("swapped")
            one.rename(swapped)
            two.rename(one)
            swapped.rename(two)
        await _go_on(run, worker)

        await run.stop(worker)
        run.result.faults += 1
        shutil.rmtree(data)
        shutil.copytree(other.deployment.data_dir(stranger.name), data)
        await _go_on(run, worker)
        await run.check()


async def _go_on(run: Scene, worker: Process) -> None:
    await run.restart(worker)
    await run.ready()
    await run.send(100)
    await run.drained()


async def disk_full(setup: Setup) -> None:
    """Fill a worker's disk under load, then make room."""
    if os.geteuid() != 0:
        setup.result.skipped = "only root can mount a small disk"
        return
    async with scene(setup, partitions=2) as run:
        run.settings = {"HRNN_WRITE_BUFFER_BYTES": str(2**20)}
        data = run.deployment.data_dir("worker")
        data.mkdir()
        mounted = await asyncio.to_thread(_mount, data)
        if mounted:
            setup.result.skipped = mounted
            return
        try:
            (worker,) = await run.start_ready()
            await run.send(200)
            await run.drained()
            async with run.load(200.0):
                run.result.faults += 1
                run.expect_end(worker)  # a store whose disk is full stays failed: to end and come back is right
                await asyncio.to_thread(_fill, data / BALLAST)
                until, unready, ends = time.monotonic() + FULL_S, 0, 0
                while time.monotonic() < until:
                    await asyncio.sleep(0.3)
                    unready += (await asyncio.to_thread(worker.get, "/readyz"))[0] != 200
                    if not worker.running:
                        ends += 1
                        await asyncio.to_thread(worker.start)
                run.note(f"full for {FULL_S:.0f} s: not ready in {unready} looks, ended {ends} times")
                (data / BALLAST).unlink()
                await asyncio.sleep(1.0)
                # one that still runs must come back by itself, or end by itself
                if worker.running and await run.until(lambda: _ready_or_gone(worker), "ready again, or ended", 30.0):
                    run.note("went on by itself" if worker.running else "ended after there was room")
                if not worker.running:
                    await asyncio.to_thread(worker.start)
                run.watch_again(worker)
                await run.ready()
            await run.check()
        finally:
            for process in run.workers:
                await asyncio.to_thread(process.kill)
            await asyncio.to_thread(subprocess.run, ["umount", "-l", str(data)], check=False)


def _ready_or_gone(worker: Process) -> bool:
    return not worker.running or worker.get("/readyz")[0] == 200


def _mount(folder: Path) -> str:
    """Mount a small disk; returns why it could not."""
    answer = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stderr.strip()


def _fill(path: Path) -> None:
    """Write a file until nothing more fits."""
    with path.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError:
            return
