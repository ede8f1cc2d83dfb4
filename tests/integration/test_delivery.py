"""Events on their way in: stops, pauses and holes in the log, with everything audited after each."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import aiokafka
import pytest

from stream.clients.produce import value_of
from stream.demo.processes import Process
from stream.stages.sending import append
from tests.running import (
    READY_S,
    SESSION_TIMEOUT_S,
    Deployment,
    answers_more,
    assert_passes,
    made_events,
    under_load,
    wait_until,
)

STOP_S = 15.0
STOP_AFTER_A_PAUSE_S = 25.0


@pytest.fixture
def deployment(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, topic_prefix, tmp_path) as made:
        made.publish("v1")
        yield made


def stopped_within(worker: Process, limit_s: float) -> int | None:
    """Ask a worker to stop, and give its exit status if it ended in time."""
    worker.signal(signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    while worker.running and time.monotonic() < deadline:
        time.sleep(0.02)
    return worker.exit_code


async def test_a_stop_under_load_loses_nothing_and_repeats_nothing(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    async with under_load(deployment) as client:
        await answers_more(client, 800)
        code = await asyncio.to_thread(stopped_within, worker, STOP_S)
        assert code == 0, f"status {code}: {worker.log_tail(40)}"
        worker.start()
        await answers_more(client, 800)
    assert await asyncio.to_thread(stopped_within, worker, STOP_S) == 0
    assert_passes(report := await deployment.audited())
    assert report.duplicates == 0
    assert report.events == report.recommendations == client.sent


async def test_a_stop_right_after_a_long_pause_ends_too(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    async with under_load(deployment) as client:
        await answers_more(client, 400)
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(SESSION_TIMEOUT_S + 2)
        worker.signal(signal.SIGCONT)
        code = await asyncio.to_thread(stopped_within, worker, STOP_AFTER_A_PAUSE_S)
        assert code == 0, f"status {code}: {worker.log_tail(40)}"
        worker.start()
        await asyncio.to_thread(worker.wait_ready, READY_S)
    assert_passes(await deployment.audited())


async def test_a_worker_that_slept_through_its_timeout_goes_on(deployment: Deployment) -> None:
    sleeper = await asyncio.to_thread(deployment.ready_worker, "sleeper")
    async with under_load(deployment) as client:
        await answers_more(client, 400)
        sleeper.signal(signal.SIGSTOP)
        other = await asyncio.to_thread(deployment.ready_worker, "other")  # once the sleeper is taken for dead
        await answers_more(client, 400)
        sleeper.signal(signal.SIGCONT)
        await answers_more(client, 1200)
        pages: list[tuple[int, str]] = []

        def both_ready() -> bool:
            pages[:] = [worker.get("/readyz") for worker in (sleeper, other)]
            return all(status == 200 for status, _ in pages)

        try:
            await asyncio.to_thread(wait_until, both_ready)
        except AssertionError:
            raise AssertionError(f"{pages} {sleeper.log_tail(40)}") from None
    assert sleeper.running, sleeper.log_tail(40)
    assert_passes(await deployment.audited())


async def test_a_kill_repeats_lists_only_under_their_own_ids(deployment: Deployment) -> None:
    worker = await asyncio.to_thread(deployment.ready_worker)
    async with under_load(deployment) as client:
        await answers_more(client, 700)
        worker.kill()
        worker.start()
        await answers_more(client, 700)
    assert_passes(report := await deployment.audited())
    assert report.recommendations == report.events == client.sent


async def test_the_markers_of_transactions_are_no_loss(deployment: Deployment) -> None:
    """A commit or an abort takes an offset that no reader is given a record for."""
    worker = await asyncio.to_thread(deployment.ready_worker)
    events = iter(made_events(400, users=12))

    async def send(producer: aiokafka.AIOKafkaProducer, count: int) -> int:
        sent = 0
        for partition in range(deployment.partitions):
            values = [(event.user_id.encode(), value_of(event)) for event, _ in zip(events, range(count), strict=False)]
            for each in await append(producer, deployment.topics.interactions, partition, values):
                await each.acked
            sent += len(values)
        return sent

    def bare() -> aiokafka.AIOKafkaProducer:
        return aiokafka.AIOKafkaProducer(bootstrap_servers=deployment.bootstrap)

    transactional = aiokafka.AIOKafkaProducer(
        bootstrap_servers=deployment.bootstrap, transactional_id=deployment.topics.prefix
    )
    sent = aborted = 0

    async def rest() -> None:
        await asyncio.to_thread(_until_at_rest, deployment, worker, aborted)

    async with bare() as plain, transactional as producer:
        # at rest around each step: the worker comes to each marker at the head of a fetch, and not within one
        for number in range(4):
            sent += await send(plain, 5)
            await rest()
            await producer.begin_transaction()
            in_transaction = await send(producer, 5)
            if number == 1:
                await producer.abort_transaction()
                aborted = in_transaction
            else:
                await producer.commit_transaction()
                sent += in_transaction
            await rest()
    assert worker.metric("rec_log_holes_total") == 0
    assert_passes(report := await deployment.audited())
    assert report.applied + report.late == sent
    assert worker.running


def _until_at_rest(deployment: Deployment, worker: Process, aborted: int) -> None:
    """Wait until the worker has finished all that can be read of the log, forwarded events and markers too."""

    def at_rest() -> bool:
        readable = len(deployment.records(deployment.topics.interactions)) - aborted
        taken = worker.metric("rec_events_total") + worker.metric("rec_forwarded_events_total")
        lag = worker.metric("rec_consumer_lag_records", f'topic="{deployment.topics.interactions}"')
        return taken >= readable and lag == 0

    wait_until(at_rest)
