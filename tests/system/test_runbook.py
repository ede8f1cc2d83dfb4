"""The runbook's upgrade, crash, scaling down and rollback, on processes that imitate pods, with the gaps in service."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

from models.records import Event
from stream.demo.processes import Process
from stream.demo.replay_client import ReplayClient
from tests.running import READY_S, Deployment, answers_more, log_of, wait_until

PARTITIONS = 4
SESSION_TIMEOUT_S = 40.0  # a busy machine takes half of it to start Python and torch; a pod has 45 s
POD = {
    "HRNN_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
    "HRNN_HEARTBEAT_INTERVAL_S": "3",
    "HRNN_REBALANCE_TIMEOUT_S": "60",
    "HRNN_STOP_TIMEOUT_S": "20",
}


def assignments(worker: Process) -> int:
    """Count how often a worker was given partitions."""
    return log_of(worker).count('"event": "assigned ')


def longest_gaps_s(client: ReplayClient, since: float) -> dict[int, float]:
    """Give, for each partition, the longest time that an event sent since then waited for its list."""
    gaps: dict[int, float] = defaultdict(float)
    for partition, sent_at, answered_at in client.answered:
        if sent_at >= since:
            gaps[partition] = max(gaps[partition], answered_at - sent_at)
    return gaps


@contextlib.asynccontextmanager
async def live(deployment: Deployment, rate: float) -> AsyncIterator[ReplayClient]:
    """Send events of now for as long as the block takes; at its end each of them must have its list."""
    ended = asyncio.Event()

    async def load(client: ReplayClient) -> None:
        numbers = itertools.count()
        while not ended.is_set():
            some = itertools.islice(numbers, int(rate))
            await client.send([Event(f"u{n % 200}", f"item-{n % 300}", time.time()) for n in some], rate=rate)

    async with deployment.client(window=10**9) as client:
        task = asyncio.create_task(load(client))
        try:
            yield client
        finally:
            ended.set()
            await task
        assert await client.drained(60.0), f"{client.outstanding} of {client.sent} events have no list"


async def ready(worker: Process) -> None:
    await asyncio.to_thread(worker.wait_ready, READY_S)


async def test_as_the_runbook_says(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    with Deployment(kafka, topic_prefix, tmp_path, PARTITIONS) as deployment:
        deployment.publish("20260101T000000Z-aaaaaaaa", seed=1)
        pods = [deployment.worker(f"pod-{n}", HRNN_INSTANCE_ID=f"pod-{n}", **POD) for n in range(2)]
        for pod in pods:
            await ready(pod)
        async with live(deployment, rate=80.0) as client:
            await answers_more(client, 200)
            client.measuring = True

            # upgrading: SIGTERM, the successor has the name and the folder
            for pod, other in (pods, reversed(pods)):
                before, at = assignments(other), time.perf_counter()
                assert await asyncio.to_thread(pod.stop) == 0
                drained_s = time.perf_counter() - at
                pod.start()
                await ready(pod)
                await answers_more(client, 200)
                assert assignments(other) == before, "nothing moved"
                tell("upgrade", f"drain {drained_s:.1f} s", client, at)

            # a crash: the pod comes back by itself
            pod, other = pods
            before, at = assignments(other), time.perf_counter()
            await asyncio.to_thread(pod.kill)
            pod.start()
            await ready(pod)
            await answers_more(client, 200)
            assert assignments(other) == before, "nothing moved"
            tell("kill -9", "", client, at)

            # scaling down: the partitions move when the session timeout has passed
            at = time.perf_counter()
            assert await asyncio.to_thread(pod.stop) == 0
            await asyncio.to_thread(wait_until, lambda: assignments(other) > before, SESSION_TIMEOUT_S + 60.0)
            await ready(other)
            await answers_more(client, 400)
            tell("one worker less", "", client, at)

            # rolling back a model
            deployment.publish("20260101T000001Z-bbbbbbbb", seed=2)
            await asyncio.to_thread(wait_until, lambda: serving(other) == "20260101T000001Z-bbbbbbbb")
            status = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "stream.commands.main", "models", "rollback"],
                env={**os.environ, "HRNN_KAFKA_BOOTSTRAP": kafka, "HRNN_TOPIC_PREFIX": topic_prefix},
                capture_output=True,
                text=True,
                check=False,
            )
            assert status.returncode == 0, status.stderr
            at = time.perf_counter()
            await asyncio.to_thread(wait_until, lambda: serving(other) == "20260101T000000Z-aaaaaaaa")
            tell("rollback", f"swapped {time.perf_counter() - at:.1f} s after the command", client, at)
    # `live` has seen to it that each event has its list


def serving(worker: Process) -> str:
    """Name the model that a worker serves."""
    page = worker.get("/metrics")[1]
    return next(
        (line.split('version="')[1].split('"')[0] for line in page.splitlines() if "rec_model_info{" in line), ""
    )


def tell(what: str, more: str, client: ReplayClient, since: float) -> None:
    """Say how long the users waited, for whoever runs this with -s."""
    gaps = longest_gaps_s(client, since)
    waited = ", ".join(f"{partition}: {gap:.1f} s" for partition, gap in sorted(gaps.items()))
    sys.stderr.write(f"{what}: longest wait by partition {waited} {more}\n")
