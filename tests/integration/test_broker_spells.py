"""Brokers come and go: workers wait, retry and go on, and their logs stay short."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.demo.broker import LocalKafka
from stream.demo.processes import Process
from tests.running import Deployment, answers_more, assert_passes, log_of, under_load, wait_until

LINES_PER_MINUTE = 100  # one worker wrote 6,500


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalKafka]:
    with LocalKafka(own=True) as own:
        yield own


@pytest.fixture
def deployment(broker: LocalKafka, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(broker.bootstrap, topic_prefix, tmp_path, partitions=2) as made:
        yield made


def lines(worker: Process) -> list[dict[str, str]]:
    """Read a worker's log: each line is a JSON object."""
    return [json.loads(line) for line in log_of(worker).splitlines()]


async def test_a_worker_outlives_its_broker(broker: LocalKafka, deployment: Deployment) -> None:
    worker = deployment.ready_worker()
    async with under_load(deployment, rate=100.0) as client:
        await answers_more(client, 100)
        before = len(lines(worker))
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(wait_until, lambda: worker.get("/readyz")[0] == 503)
        await asyncio.sleep(5.0)  # longer than the session timeout
        status, why = worker.get("/readyz")
        assert (status, worker.get("/healthz")[0]) == (503, 200), why
        assert "broker" in why
        await asyncio.to_thread(broker.restart)
        await answers_more(client, 200)
    assert worker.running
    assert len(lines(worker)) - before < LINES_PER_MINUTE, "all of it takes less than a minute"
    assert_passes(await deployment.audited())
    assert worker.stop() == 0


async def test_a_worker_waits_for_a_broker_at_its_start_and_in_a_restore(
    broker: LocalKafka, deployment: Deployment
) -> None:
    async with under_load(deployment, rate=100.0) as client:
        first = await asyncio.to_thread(deployment.ready_worker, "first")
        await answers_more(client, 100)
        await asyncio.to_thread(first.stop)
        await asyncio.to_thread(broker.kill)
        worker = deployment.worker("second")  # with an empty store
        await asyncio.to_thread(wait_until, lambda: "does not answer" in worker.get("/readyz")[1], 60.0)
        assert worker.get("/healthz")[0] == 200
        assert await asyncio.to_thread(worker.stop) == 0, "it stops when asked, though it waits"
        assert any(line["event"].startswith("worker stopped status=0") for line in lines(worker))
        worker.start()
        await asyncio.to_thread(broker.restart)
        # it has been waiting for the topics; now the clients of Faust are to find nobody
        await asyncio.to_thread(wait_until, lambda: "worker starting" in log_of(worker), 60.0, 0.01)
        before = log_of(worker).count("failed, retrying")
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(wait_until, lambda: log_of(worker).count("failed, retrying") > before)
        await asyncio.to_thread(broker.restart)
        await answers_more(client, 100)
    assert worker.running
    assert_passes(await deployment.audited())
    lines(worker)
