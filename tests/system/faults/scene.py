"""What every row is made of: a deployment, its workers watched, a load of events, and the check at the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka.errors import KafkaError

from stream.commands.failures import Failure
from stream.demo.processes import Process
from stream.demo.replay_client import ReplayClient
from tests.running import Deployment
from tests.system.faults.forking import ForkedProcess
from tests.system.faults.load import Traffic
from tests.system.faults.result import FaultResult

SESSION_TIMEOUT_S = 3.0  # short, since each killed worker's partitions wait for it
HEARTBEAT_S = 0.5
READY_S = 60.0
SETTLE_S = 90.0
MOST_STARTS = 5  # of a worker that ends by itself: an orchestrator starts it again, a harness not for ever
STOP_STATUSES = (0, -signal.SIGTERM)  # the latter: it had not come so far as to handle the signal


@dataclass
class Setup:
    """What the command line gives a row."""

    bootstrap: str  # of a broker that the row must leave as it is
    folder: Path
    seed: int
    result: FaultResult
    kills: int | None = None
    short: bool = False  # for the test suite: fewer rounds of the same
    say: Callable[[str], None] = lambda text: None

    @property
    def random(self) -> random.Random:
        """Give a sequence of random numbers that the seed and the row's name determine."""
        return random.Random(f"{self.seed} {self.result.name}")


class Scene:
    """A deployment under load. Whoever ends without being killed here is counted, noted and started again."""

    def __init__(self, setup: Setup, deployment: Deployment, client: ReplayClient) -> None:
        self.setup = setup
        self.result = setup.result
        self.random = setup.random
        self.deployment = deployment
        self.client = client
        self.traffic = Traffic(self.random)
        self.workers: list[Process] = []
        self.given_up = False  # a worker ends again and again: whatever waits for it is over
        self.settings: dict[str, str] = {}  # of every worker
        self._expected: set[str] = set()  # names of workers that are down by the row's own doing
        self._starts: dict[str, int] = {}
        self._sending = asyncio.Lock()  # events go in the order of their own times: of two senders some would be late

    # -- workers ----------------------------------------------------------------------------------------------------

    async def start(
        self, name: str = "worker", *, forked: bool = True, instance_id: str | None = None, **environ: str
    ) -> Process:
        """Make a worker and start it; with an instance id it is a static member of the group."""
        settings = {
            "HRNN_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            "HRNN_HEARTBEAT_INTERVAL_S": str(HEARTBEAT_S),
            **self.settings,
        }
        kind = ForkedProcess if forked else Process
        more: dict[str, Any] = settings | environ | ({"HRNN_INSTANCE_ID": instance_id} if instance_id else {})
        worker = await asyncio.to_thread(lambda: self.deployment.worker(name, process_type=kind, **more))
        self.workers.append(worker)
        return worker

    async def start_ready(self, *names: str, **more: Any) -> list[Process]:
        """Start workers and wait until all are ready."""
        workers = [await self.start(name, **more) for name in names or ("worker",)]
        await self.ready()
        return workers

    async def ready(self) -> None:
        """Wait until every worker that runs is ready; what does not become ready is a failure of the row."""
        for worker in self.workers:
            if worker.name not in self._expected:
                await self._ready(worker)

    async def _ready(self, worker: Process) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and not self.given_up:
            if (await asyncio.to_thread(worker.get, "/readyz"))[0] == 200:
                return
            await asyncio.sleep(0.1)
        self.fail(f"{worker.name} was not ready within {READY_S:.0f} s: {last_error(worker)}")

    async def kill(self, worker: Process) -> None:
        """End a worker by kill -9."""
        self.result.faults += 1
        self.expect_end(worker)
        await asyncio.to_thread(worker.kill)

    async def restart(self, worker: Process) -> None:
        """Start a worker again that was killed."""
        await asyncio.to_thread(worker.start)
        self._expected.discard(worker.name)

    async def stop(self, worker: Process) -> None:
        """End a worker in good order."""
        self.expect_end(worker)
        code = await asyncio.to_thread(worker.stop)
        if code not in STOP_STATUSES:
            self._note_exit(worker, code)

    def expect_end(self, worker: Process) -> None:
        """Say that a worker's end is the row's own doing, until it is started again."""
        self._expected.add(worker.name)

    def watch_again(self, worker: Process) -> None:
        """Say that a worker's end is no more the row's own doing."""
        self._expected.discard(worker.name)

    async def watch(self) -> None:
        """Look for workers that ended by themselves, for ever."""
        while True:
            await asyncio.sleep(0.1)
            for worker in self.workers:
                code = worker.exit_code
                if code is None or worker.name in self._expected:
                    continue
                self._note_exit(worker, code)
                starts = self._starts[worker.name] = self._starts.get(worker.name, 0) + 1
                if starts > MOST_STARTS:
                    self.expect_end(worker)
                    self.given_up = True
                    self.fail(f"{worker.name} ended {starts} times and was not started again")
                    continue
                await asyncio.to_thread(worker.start)

    def _note_exit(self, worker: Process, code: int) -> None:
        self.result.process_exits += 1
        self.note(f"{worker.name} ended with status {code}: {last_error(worker)}")

    # -- load -------------------------------------------------------------------------------------------------------

    async def send(self, count: int, rate: float | None = None) -> None:
        """Send the next events of the traffic."""
        async with self._sending:
            await self.client.send(self.traffic.events(count), rate=rate)

    async def send_burst(self, user_id: str, count: int) -> None:
        """Send events of which one user makes half."""
        async with self._sending:
            await self.client.send(self.traffic.burst(user_id, count))

    @contextlib.asynccontextmanager
    async def load(self, rate: float = 120.0) -> AsyncIterator[None]:
        """Send events for as long as the block takes."""
        ended = asyncio.Event()

        async def send() -> None:
            while not ended.is_set():
                await self.send(max(1, int(rate / 2)), rate)

        task = asyncio.create_task(send())
        try:
            yield
        finally:
            ended.set()
            try:
                await task
            except KafkaError as error:
                self.fail(f"the producer of the load gave up: {type(error).__name__}: {error}")

    async def drained(self, timeout_s: float = SETTLE_S) -> bool:
        """Wait until every event has its list; if some have not in time, that is a failure of the row."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not self.given_up:
            if await self.client.drained(0.5):
                return True
        self.fail(f"{self.client.outstanding} of {self.client.sent} events have no list after {timeout_s:.0f} s")
        return False

    def outstanding_at_most(self, count: int) -> Callable[[], bool]:
        """Make the condition that no more than so many events have no list."""
        return lambda: self.client.outstanding <= count

    async def ended(self, worker: Process, timeout_s: float, what: str) -> bool:
        """Wait until a worker has ended."""
        return await self.until(lambda: not worker.running, what, timeout_s)

    async def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> bool:
        """Wait for a condition; one that does not come true in time is a failure of the row."""
        deadline = time.monotonic() + timeout_s
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline or self.given_up:
                self.fail(f"not within {timeout_s:.0f} s: {what}")
                return False
            await asyncio.sleep(0.1)
        return True

    # -- the end ----------------------------------------------------------------------------------------------------

    def lag(self) -> float:
        """Sum what the workers say they have yet to read, of all topics."""
        return sum(worker.metric("rec_consumer_lag_records") for worker in self.workers if worker.running)

    async def settle(self) -> None:
        """Wait until every event has its list and no worker has lag, then stop the workers."""
        await self.ready()
        drained = await self.drained()
        quiet = 0

        def at_rest() -> bool:
            nonlocal quiet
            quiet = quiet + 1 if self.lag() == 0 else 0
            # looks, 0.1 s apart: a worker that has just begun does not know the lag of what it has not fetched yet
            return quiet >= 50

        if drained:
            await self.until(at_rest, "no lag", 45.0)
        for worker in self.workers:
            if worker.running:
                worker.signal(signal.SIGCONT)
                await self.stop(worker)

    async def check(self) -> None:
        """Settle, then compare everything with a replay of the log."""
        await self.settle()
        await self.audit()

    async def audit(self) -> None:
        """Compare everything with a replay of the log; the workers must be at rest."""
        result = self.result
        # stores, too: what a worker holds and what the changelog says are two things
        stores = [data for worker in self.workers if (data := self.deployment.data_dir(worker.name)).is_dir()]
        report = await self.deployment.audited(data_dirs=list(dict.fromkeys(stores)))
        result.events += report.events
        result.lost += report.lost
        result.wrong_states += report.wrong_states
        result.wrong_lists += report.wrong_lists
        result.wrong_signals += report.wrong_signals + report.transitions_behind
        result.wrong_sessions += report.wrong_sessions
        result.wrong_stores += report.wrong_stores
        if report.late:
            self.note(f"{report.late} events were late")
        for example in report.examples[:8]:
            self.note(example)
        for part, why in report.not_checked:
            self.note(f"not checked: {part}: {why}")

    def unavailable_s(self) -> float:
        """Tell the longest time that an event waited for its list."""
        waited = [answered - sent for _, sent, answered in self.client.answered]
        now = time.perf_counter()
        waited += [now - sent.at for sent in self.client._outstanding.values()]
        return max(waited, default=0.0)

    def note(self, text: str) -> None:
        """Keep something to read."""
        self.setup.say(f"{self.result.name}: {text}")
        self.result.notes.append(text)

    def fail(self, text: str) -> None:
        """Keep what the row expected and did not see."""
        self.setup.say(f"{self.result.name}: FAILED {text}")
        self.result.failures.append(text)


@contextlib.asynccontextmanager
async def scene(
    setup: Setup,
    *,
    bootstrap: str = "",
    partitions: int = 4,
    replication: int = 1,
    model: bool = True,
) -> AsyncIterator[Scene]:
    """Make topics under a prefix of their own, publish a model, connect a client; all processes end with the block."""
    prefix = f"{setup.result.name}-{secrets.token_hex(3)}-"
    folder = setup.folder / prefix
    folder.mkdir(parents=True)
    bootstrap = bootstrap or setup.bootstrap
    with Deployment(bootstrap, prefix, folder, partitions, replication=replication) as deployment:
        if model:
            await asyncio.to_thread(deployment.publish, "v1", seed=1)
        async with deployment.client(window=10**9) as client:
            client.measuring = True
            made = Scene(setup, deployment, client)
            watching = asyncio.create_task(made.watch())
            try:
                yield made
            except Failure as failure:
                made.fail(failure.what)
            finally:
                watching.cancel()
                setup.result.unavailable_s = max(setup.result.unavailable_s, made.unavailable_s())


def last_error(worker: Process) -> str:
    """Find the last line of a worker's log that says what went wrong."""
    lines = worker.log_tail(400).splitlines()
    named = [line for line in lines if "Error" in line or "Corruption" in line]
    wrong = [line for line in lines if "rror" in line or "xception" in line]
    return (named or wrong or lines or [""])[-1][-300:]
