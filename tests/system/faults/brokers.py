"""Brokers that are killed or frozen, and networks that are cut: workers wait, their processes alive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from stream.clients.connection import administration
from stream.demo.broker import LocalKafka
from stream.demo.broker_cluster import BROKERS, LocalCluster
from stream.demo.processes import Process, free_port
from tests.running import log_of
from tests.system.faults.forking import ForkedProcess
from tests.system.faults.proxy import Proxy
from tests.system.faults.scene import SESSION_TIMEOUT_S, Scene, Setup, scene

QUICK = {"broker.session.timeout.ms": "3000"}  # how long the controller believes a killed broker alive
MOST_LINES_A_S = 5.0  # of log, from one process, while it has no broker


async def broker_kill(setup: Setup) -> None:
    """Kill the only broker and start it again; two workers and a trainer live through it."""
    async with own_broker() as kafka, scene(setup, bootstrap=kafka.bootstrap) as run:
        await run.start_ready("worker-1", "worker-2")
        await _start_trainer(run)
        async with run.load(50.0):
            await asyncio.sleep(2.0)
            async with _bounded_logs(run):
                run.result.faults += 1
                await asyncio.to_thread(kafka.kill)
                await asyncio.sleep(run.random.uniform(5.0, 8.0))
                await asyncio.to_thread(kafka.restart)
            await asyncio.sleep(2.0)
        await run.check()


async def broker_pause(setup: Setup) -> None:
    """Freeze the only broker for longer than the session timeout, and let it go on."""
    async with own_broker() as kafka, scene(setup, bootstrap=kafka.bootstrap) as run:
        await run.start_ready("worker-1", "worker-2")
        async with run.load(50.0):
            await asyncio.sleep(2.0)
            async with _bounded_logs(run):
                run.result.faults += 1
                await asyncio.to_thread(kafka.pause)
                await asyncio.sleep(SESSION_TIMEOUT_S * run.random.uniform(3.0, 5.0))
                await asyncio.to_thread(kafka.resume)
            await asyncio.sleep(2.0)
        await run.check()


async def broker_kill_rf3(setup: Setup) -> None:
    """Kill each of three brokers in turn, with three copies of all topics."""
    cluster = LocalCluster(settings=QUICK)
    try:
        await asyncio.to_thread(cluster.start)
        async with scene(setup, bootstrap=cluster.bootstrap, replication=3) as run:
            await run.start_ready("worker-1", "worker-2")
            async with run.load(50.0), _bounded_logs(run):
                for number in run.random.sample(range(1, BROKERS + 1), BROKERS):
                    await asyncio.sleep(2.0)
                    run.result.faults += 1
                    await asyncio.to_thread(cluster.kill, number)
                    await asyncio.sleep(run.random.uniform(3.0, 5.0))
                    await asyncio.to_thread(cluster.restart, number)
                    await run.until(_all_in_sync(cluster, run), f"broker {number} has caught up", 60.0)
            await run.check()
    finally:
        await asyncio.to_thread(cluster.stop)


async def network_cut(setup: Setup) -> None:
    """Cut one of two workers off its broker: in both directions, in one, for short and for long."""
    async with Proxy(free_port()) as proxy, own_broker(advertised={"PROXIED": proxy.address}) as kafka:
        await proxy.start(kafka.addresses["PROXIED"])
        async with scene(setup, bootstrap=kafka.bootstrap) as run:
            await run.start("near")
            await run.start("far", HRNN_KAFKA_BOOTSTRAP=proxy.address)
            await run.ready()
            async with run.load(50.0):
                for directions in ({}, {"requests": False}, {"answers": False}):
                    long = run.random.random() < 0.7
                    run.result.faults += 1
                    proxy.cut(**directions)
                    factor = run.random.uniform(2.0, 3.0) if long else run.random.uniform(0.2, 0.8)
                    await asyncio.sleep(SESSION_TIMEOUT_S * factor)
                    proxy.heal()
                    if run.random.random() < 0.5:
                        proxy.reset()
                    await asyncio.sleep(1.0)
                    await run.ready()
            await run.check()


@contextlib.asynccontextmanager
async def own_broker(advertised: Mapping[str, str] | None = None) -> AsyncIterator[LocalKafka]:
    """Start a broker that a row may harm."""
    kafka = LocalKafka(own=True, settings=QUICK, advertised=advertised)
    try:
        await asyncio.to_thread(kafka.start)
        yield kafka
    finally:
        await asyncio.to_thread(kafka.stop)


async def _start_trainer(run: Scene) -> None:
    """Start a trainer that polls, and has too few events to fit."""
    environ = {
        "HRNN_KAFKA_BOOTSTRAP": run.deployment.bootstrap,
        "HRNN_TOPIC_PREFIX": run.deployment.topics.prefix,
        "HRNN_TRAIN_POLL_S": "0.5",
        "HRNN_TRAIN_MIN_NEW_EVENTS": "1000000",
    }
    trainer = ForkedProcess("trainer", ["trainer"], run.deployment.folder, environ, free_port())
    run.deployment.workers.append(trainer)  # it ends with them
    run.workers.append(trainer)
    await asyncio.to_thread(trainer.start)
    await run.ready()


@contextlib.asynccontextmanager
async def _bounded_logs(run: Scene) -> AsyncIterator[None]:
    """Count the lines that each process logs within the block."""
    before, began = {worker: _lines(worker) for worker in run.workers}, asyncio.get_running_loop().time()
    yield
    spent_s = asyncio.get_running_loop().time() - began
    for worker, lines in before.items():
        more = _lines(worker) - lines
        if more > 50 + MOST_LINES_A_S * spent_s:
            run.fail(f"{worker.name} logged {more} lines in {spent_s:.0f} s without a broker")


def _lines(worker: Process) -> int:
    return log_of(worker).count("\n")


def _all_in_sync(cluster: LocalCluster, run: Scene) -> Callable[[], bool]:
    topics = run.deployment.topics
    names = [topics.interactions, topics.user_states, topics.recommendations, topics.transitions]

    def all_in_sync() -> bool:
        with administration(cluster.bootstrap) as admin:
            described = admin.describe_topics(names)
        return all(len(partition["isr_nodes"]) == BROKERS for topic in described for partition in topic["partitions"])

    return all_in_sync
