"""Workers killed, frozen, replaced: the rows about a worker's own life and death."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from stream.demo.processes import Process
from tests.running import log_of
from tests.system.faults.result import FaultResult
from tests.system.faults.scene import SESSION_TIMEOUT_S, Scene, Setup, scene

KILLS = 15
KILLS_A_ROUND = 60  # then everything is checked, and new topics begin: a replay of a long log takes long
HOT_EVENTS = 700
BURSTS = 4


async def kill9(setup: Setup) -> None:
    """Kill one of three workers, or two or all together, at random moments, hot and equal users together."""
    left, kills, number = setup.kills or KILLS, 0, 0
    while left > 0:
        some = min(left, KILLS_A_ROUND)
        part = FaultResult(setup.result.name, setup.seed + number)
        static = number % 2 == 1  # every other round: a member that comes back at once keeps its partitions
        await _kill_some(Setup(setup.bootstrap, setup.folder, part.seed, part, say=setup.say), some, static)
        left, kills, number = left - some, kills + part.faults, number + 1
        setup.result.add(part)
        setup.say(f"kill9: {kills} kills, {setup.result.violations} violations")
    if setup.result.clean:
        bound = 3 / kills  # the rule of three: no failure in n trials
        setup.result.notes.append(f"0 violations in {kills} kills: <= 3/n = {bound:.4f} a kill at 95 %")


async def _kill_some(setup: Setup, kills: int, static: bool) -> None:
    async with scene(setup) as run:
        workers = [
            await run.start(name, instance_id=name if static else None) for name in ("worker-1", "worker-2", "worker-3")
        ]
        await run.ready()
        async with run.load(rate=100.0):
            while run.result.faults < kills:
                await asyncio.sleep(run.random.uniform(0.1, 3.0))
                together = run.random.choices((1, 2, 3), (6, 2, 1))[0]
                some = run.random.sample(workers, min(together, kills - run.result.faults))
                if run.random.random() < 0.2:
                    await run.send_burst(f"robot-{run.result.faults}", 2 * HOT_EVENTS)
                for worker in some:
                    await run.kill(worker)
                await asyncio.sleep(run.random.choice((0.0, 0.0, run.random.uniform(0, SESSION_TIMEOUT_S + 1))))
                for worker in some:
                    await run.restart(worker)
                if run.random.random() < 0.7:  # else the next kill may hit a worker that starts or restores
                    await run.until(lambda: any(_is_ready(w) for w in workers), "a worker is ready", 30.0)
        await run.check()


def _is_ready(worker: Process) -> bool:
    return worker.get("/readyz")[0] == 200


async def hot_user(setup: Setup) -> None:
    """Send bursts of which one user makes half, and kill the worker while they are on their way."""
    async with scene(setup) as run:
        (worker,) = await run.start_ready()
        await run.send(200)
        await run.drained()
        for number in range(2 if setup.short else BURSTS):
            await run.send_burst("hot-user", 2 * HOT_EVENTS)
            given = run.random.randrange(1, HOT_EVENTS)
            await run.until(run.outstanding_at_most(2 * HOT_EVENTS - given), f"{given} lists", 30.0)
            run.note(f"burst {number}: killed with {run.client.outstanding} of {2 * HOT_EVENTS} events without a list")
            await run.kill(worker)
            await run.restart(worker)
            await run.ready()
            await run.drained()
        await run.check()


async def pause(setup: Setup) -> None:
    """Freeze one of two workers for longer than the session timeout, and let it go on."""
    async with scene(setup) as run:
        workers = await run.start_ready("worker-1", "worker-2")
        async with run.load():
            for worker in workers:
                await asyncio.sleep(run.random.uniform(1.0, 2.0))
                run.result.faults += 1
                worker.signal(signal.SIGSTOP)
                await asyncio.sleep(SESSION_TIMEOUT_S + run.random.uniform(2.0, 4.0))
                worker.signal(signal.SIGCONT)
                await asyncio.sleep(1.0)
                await run.ready()
        await run.check()


async def new_hostname(setup: Setup) -> None:
    """Kill a worker with a static membership and start it again as if on another host."""
    async with scene(setup) as run:
        run.settings = {"HRNN_INSTANCE_ID": "worker-0", "HRNN_SESSION_TIMEOUT_S": "20"}
        renamed: dict[str, Any] = {"forked": False, "module": "tests.system.faults.renamed_worker"}
        (before,) = await run.start_ready("before", FAULT_HOSTNAME="host-a", **renamed)
        await run.send(200, 200.0)
        await run.drained()
        await run.kill(before)
        await run.send(100)
        after = await run.start("after", FAULT_HOSTNAME="host-b", **renamed)
        after_ready = await run.until(lambda: _is_ready(after), "the worker on the other host is ready", 45.0)
        if after_ready:
            await run.send(200, 200.0)
        await _check_if_served(run)


async def two_instances(setup: Setup) -> None:
    """Start a second worker under the same instance id: the older one is fenced and ends, the newer one serves."""
    async with scene(setup) as run:
        run.settings = {"HRNN_INSTANCE_ID": "worker-0"}
        (older,) = await run.start_ready("older")
        async with run.load():
            await asyncio.sleep(1.0)
            run.result.faults += 1
            run.expect_end(older)
            newer = await run.start("newer")
            await run.until(lambda: not older.running, "the older worker, fenced, has ended", 40.0)
            if older.exit_code is not None and "ence" not in log_of(older):
                run.fail("the older worker's log does not say that it was fenced")
            await run.until(lambda: _is_ready(newer), "the newer worker is ready", 40.0)
        await run.check()


async def _check_if_served(run: Scene) -> None:
    """Check everything, at once where nobody serves: that would take as long as all events wait."""
    if run.result.failures:
        await run.audit()
    else:
        await run.check()
