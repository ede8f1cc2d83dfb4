"""The log of events itself: deleted and made again, or shorter than what was committed."""

from __future__ import annotations

import asyncio

from kafka.structs import OffsetAndMetadata, TopicPartition

from stream.clients.connection import administration
from stream.clients.topics import create, topic_table
from tests.running import log_of, wait_until
from tests.system.faults.scene import Scene, Setup, scene

BEYOND = 500
WORDS = ("recreated", "re-created", "created again", "made again", "topic id", "topic_id")


async def topic_recreated(setup: Setup) -> None:
    """Delete `interactions` and make it again, while the worker is down, then while it runs.

    Afterwards the log lacks what the states know, so that there is nothing to replay: each event of the new topic must
    have its list, and the worker must say what it noticed.
    """
    async with scene(setup) as run:
        (worker,) = await run.start_ready()
        await run.send(300)
        await run.drained()
        for running in (False, True):
            if not running:
                await run.stop(worker)
            run.result.faults += 1
            await asyncio.to_thread(_recreate, run)
            if not running:
                await run.restart(worker)
                await run.ready()
            await run.send(100, 50.0)
            drained = await run.drained(60.0)
            run.note(f"while {'running' if running else 'down'}: all events of the new topic have lists: {drained}")
        text = log_of(worker).lower()
        if not any(word in text for word in WORDS):
            run.fail("no line of the log says that the topic was made again")
        run.result.events += run.client.sent
        run.result.lost += run.client.outstanding
        await run.settle()


def _recreate(run: Scene) -> None:
    deployment = run.deployment
    name = deployment.topics.interactions
    with administration(deployment.bootstrap) as admin:
        admin.delete_topics([name])
        wait_until(lambda: name not in admin.list_topics())
        create(admin, topic_table(deployment.topics, partitions=deployment.partitions))


async def truncated_log(setup: Setup) -> None:
    """Commit offsets beyond the end of the log while the worker is down: nothing is skipped."""
    async with scene(setup) as run:
        (worker,) = await run.start_ready()
        await run.send(300)
        await run.drained()
        await run.stop(worker)
        run.result.faults += 1
        await asyncio.to_thread(_commit_beyond, run)
        await run.send(100)
        await run.restart(worker)
        await run.ready()
        await run.send(100)
        if await run.drained(45.0):
            await run.check()
        else:
            await run.stop(worker)
            await run.audit()


def _commit_beyond(run: Scene) -> None:
    topics, partitions = run.deployment.topics, range(run.deployment.partitions)
    offsets = {TopicPartition(topics.interactions, p): OffsetAndMetadata(10**6 + BEYOND, "", -1) for p in partitions}
    with administration(run.deployment.bootstrap) as admin:
        admin.alter_group_offsets(topics.app_id, offsets)
