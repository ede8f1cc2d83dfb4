"""A worker that ends at each marked point of a batch, and goes on after it."""

from __future__ import annotations

import shutil

from tests.system.faults.crashing_worker import POINTS
from tests.system.faults.result import FaultResult
from tests.system.faults.scene import Setup, scene

CRASHES = 2  # at each point: the second one hits the batch that the first one left
BURST = 1400
REACHED_S = 60.0
RESTORE = "restore-midway"
SHORT_POINTS = ("after-outputs-sent", "after-put-before-changelog", "items-before-signals-ack")


async def crash_points(setup: Setup) -> None:
    """Visit each point with topics of its own, so that what is found names the point."""
    for number, point in enumerate(SHORT_POINTS if setup.short else POINTS):
        part = FaultResult(setup.result.name, setup.seed + number)
        await crash_at(Setup(setup.bootstrap, setup.folder, part.seed, part, short=setup.short, say=setup.say), point)
        if part.violations:
            part.failures.append(f"{point} (seed {part.seed}): {part.violations} violations")
        setup.result.add(part)
        setup.say(f"{point}: {part.line()}")


async def crash_at(setup: Setup, point: str) -> None:
    """Crash one worker at a point while one user makes half of the traffic."""
    async with scene(setup) as run:
        await run.send_burst("hot-user", BURST)
        if point == RESTORE:  # there must be something to restore
            (first,) = await run.start_ready("worker")
            await run.drained()
            await run.stop(first)
            run.workers.remove(first)
        for _ in range(CRASHES):
            if point == RESTORE:  # else the store has all of the changelog already
                shutil.rmtree(run.deployment.data_dir("worker"))
            at = str(run.random.randrange(1, 4))
            crashing = await run.start(
                "worker", module="tests.system.faults.crashing_worker", CRASH_POINT=point, CRASH_AT=at
            )
            run.expect_end(crashing)
            run.result.faults += 1
            async with run.load(rate=20.0):  # a worker that has read all commits nothing more, and restores no more
                await run.ended(crashing, REACHED_S, f"{point} is reached")
            if crashing.running:
                await run.kill(crashing)
            run.workers.remove(crashing)
            await run.send(200)
        run.watch_again(await run.start("worker"))
        await run.check()
