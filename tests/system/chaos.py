"""Workers under load, killed, stopped and paused at random; then every state and every list is checked.

python -m tests.system.chaos --seconds 240 --workers 3 --seed 7 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from models.items.signals import SignalRules
from models.records import Event, Topics
from stream.audit import audit
from stream.clients import topics as topic_table
from stream.clients.connection import administration
from stream.demo.broker import LocalKafka
from stream.demo.processes import Process, free_port
from stream.demo.replay_client import ReplayClient
from tests.made import junk_values, made_model, publish_model

USERS, ITEMS, PARTITIONS = 2000, 500, 8
SESSION_TIMEOUT_S = 6.0
SETTLE_S = 60.0
WEIGHTS = [int(w) for w in os.environ.get("WEIGHTS", "5,3,2").split(",")]
HISTORY_S = 30 * 86_400.0  # the events' own times span a month, so that sessions open and close
SWAP_EVERY_S = 30.0


@dataclass
class Run:
    """The one line of figures of a run."""

    seed: int
    events: int = 0
    applied: int = 0
    dead_letters: int = 0
    late: int = 0
    refused_too: int = 0
    lost: int = 0
    wrong_states: int = 0
    wrong_lists: int = 0
    wrong_sessions: int = 0
    wrong_signals: int = 0
    items: int = 0
    transitions: int = 0
    transitions_behind: int = 0
    duplicates: int = 0
    kills: int = 0
    terms: int = 0
    pauses: int = 0
    swaps: int = 0
    died: int = 0
    slow_stops: int = 0
    foreign_records: int = 0
    recovery_p50_s: float = 0.0
    recovery_p99_s: float = 0.0
    examples: list[str] = field(default_factory=list)


class Faults:
    """One seeded sequence of faults."""

    def __init__(self, workers: list[Process], rnd: random.Random, run: Run, say: Callable[[str], None]) -> None:
        self._workers = workers
        self._random = rnd
        self._run = run
        self._say = say
        self.at: list[float] = []

    async def rage(self, until: float) -> None:
        """Do harm until the given time."""
        while time.monotonic() < until:
            await asyncio.sleep(self._random.uniform(3, 10))
            worker = self._random.choice(self._workers)
            if not worker.running:
                self._died(worker)
                worker.start()
                continue
            kind = self._random.choices(["kill", "term", "pause"], WEIGHTS)[0]
            self._say(f"{kind} {worker.name}")
            self.at.append(time.perf_counter())
            await getattr(self, f"_{kind}")(worker)

    def _died(self, worker: Process) -> None:
        self._run.died += 1
        self._say(f"{worker.name} had ended by itself with status {worker.exit_code}: {worker.log_tail(40)}")

    async def _kill(self, worker: Process) -> None:
        self._run.kills += 1
        worker.kill()
        await asyncio.sleep(self._random.uniform(0, 5))
        worker.start()

    async def _term(self, worker: Process) -> None:
        self._run.terms += 1
        began = time.monotonic()
        code = await asyncio.to_thread(worker.stop, 30.0)
        # -SIGTERM: it had not come so far as to handle the signal, and had nothing to finish
        if code not in (0, -signal.SIGTERM) or time.monotonic() - began > 15.0:
            self._run.slow_stops += 1
            self._say(f"{worker.name} took {time.monotonic() - began:.1f} s to stop, status {code}")
        worker.start()

    async def _pause(self, worker: Process) -> None:
        self._run.pauses += 1
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(SESSION_TIMEOUT_S + self._random.uniform(1, 5))
        worker.signal(signal.SIGCONT)


def synthetic_events(rnd: random.Random, count: int, seconds: float) -> list[Event]:
    """Make events whose own times move through a month; one in 50 comes late, half of them too late."""
    start, users = time.time() - HISTORY_S, [f"user-{n}" for n in range(USERS)]
    events = []
    for n in range(count):
        at = start + HISTORY_S * n / count
        if rnd.random() < 0.02:
            at -= rnd.choice([120.0, 86_400.0 * 3])
        item = min(int(rnd.expovariate(1 / 60)), ITEMS + 5)  # some that no model knows
        events.append(Event(rnd.choice(users), f"item-{item}", round(at, 3), "click", float(rnd.randrange(5))))
    return events


async def chaos(
    bootstrap: str,
    folder: Path,
    *,
    seconds: float,
    workers: int,
    seed: int,
    rate: float = 400.0,
    plain: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Run:
    """Run one; the broker and the topics' prefix are the caller's."""
    rnd, run, topics = random.Random(seed), Run(seed), Topics(f"chaos-{seed}-{os.getpid()}.")
    with administration(bootstrap) as admin:
        topic_table.create(admin, topic_table.topic_table(topics, partitions=PARTITIONS))
    publish_model(bootstrap, topics, *made_model(ITEMS, seed=seed, version="v000"))
    environ = {
        "HRNN_KAFKA_BOOTSTRAP": bootstrap,
        "HRNN_TOPIC_PREFIX": topics.prefix,
        "HRNN_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
        "HRNN_HEARTBEAT_INTERVAL_S": "1.5",
    }
    module = "tests.benchmarks.plain_worker" if plain else "stream.commands.main"
    processes = [
        Process(
            f"worker-{n}", [] if plain else ["worker"], folder,
            {**environ, "HRNN_DATA_DIR": str(folder / f"worker-{n}")}, free_port(), module,
        )
        for n in range(workers)
    ]  # fmt: skip
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.wait_ready)

    faults = Faults(processes, rnd, run, say)
    events = synthetic_events(rnd, int(seconds * rate), seconds)
    async with ReplayClient(bootstrap, topics, PARTITIONS, window=10**9) as client:
        client.measuring = True
        until = time.monotonic() + seconds
        load = asyncio.create_task(client.send(events, rate=rate))
        others = [
            asyncio.create_task(_publish_often(bootstrap, topics, seed, until, run)),
            asyncio.create_task(_send_junk(client, rnd, until)),
        ]
        await faults.rage(until)
        await load
        await asyncio.gather(*others)
        for process in processes:
            process.signal(signal.SIGCONT)
            if not process.running:
                faults._died(process)
                process.start()
        for process in processes:
            await asyncio.to_thread(process.wait_ready)
        await _settled(processes, client)
        await asyncio.sleep(12.0)  # a worker looks for another's writes every ten seconds
        run.foreign_records = sum(int(p.metric("rec_foreign_changelog_records_total")) for p in processes)
        recoveries = sorted(_recovery_s(client, at) for at in faults.at)
    for process in processes:
        if process.stop() != 0:
            run.slow_stops += 1
    report = await audit(bootstrap, topics)
    for name in (
        "events",
        "applied",
        "dead_letters",
        "late",
        "lost",
        "wrong_states",
        "wrong_lists",
        "wrong_sessions",
        "wrong_signals",
        "items",
        "transitions",
        "transitions_behind",
        "duplicates",
        "refused_too",
    ):
        setattr(run, name, getattr(report, name))
    run.examples = report.examples[:10]
    if recoveries:
        run.recovery_p50_s = round(recoveries[len(recoveries) // 2], 2)
        run.recovery_p99_s = round(recoveries[min(len(recoveries) - 1, int(len(recoveries) * 0.99))], 2)
    return run


async def _settled(processes: list[Process], client: ReplayClient) -> None:
    """Wait until no worker has lag and no list comes, for eight looks a second apart: not every event gets a list."""
    quiet, answers, deadline = 0, -1, time.monotonic() + SETTLE_S
    while quiet < 8 and time.monotonic() < deadline:
        await asyncio.sleep(1.0)
        lags = [await asyncio.to_thread(process.metric, "rec_consumer_lag_records") for process in processes]
        quiet = quiet + 1 if sum(lags) == 0 and client.answers == answers else 0
        answers = client.answers


def _recovery_s(client: ReplayClient, at: float) -> float:
    """Tell how long after a fault each partition had answered an event that was sent after it."""
    first: dict[int, float] = {}
    for partition, sent_at, answered_at in client.answered:
        if sent_at >= at and answered_at - at < first.get(partition, 1e9):
            first[partition] = answered_at - at
    return max(first.values(), default=0.0)


async def _publish_often(bootstrap: str, topics: Topics, seed: int, until: float, run: Run) -> None:
    number = 1
    while time.monotonic() + SWAP_EVERY_S < until:
        await asyncio.sleep(SWAP_EVERY_S)
        # every other one looks at the items' signals; the lists of the rest can be checked to the last score
        rules = SignalRules() if number % 2 else None
        manifest, blob = made_model(ITEMS, seed=seed + number, version=f"v{number:03}", rules=rules)
        await asyncio.to_thread(publish_model, bootstrap, topics, manifest, blob)
        number += 1
        run.swaps += 1


async def _send_junk(client: ReplayClient, rnd: random.Random, until: float) -> None:
    values = [value for value in junk_values().values() if value is None or len(value) < 100_000]
    while time.monotonic() < until:
        await asyncio.sleep(0.5)
        await client.send_raw(rnd.randrange(PARTITIONS), b"junk", rnd.choice(values))


def main() -> int:
    """Read the arguments, run, print; 0 only if nothing was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=400.0, help="events a second")
    parser.add_argument("--seed", type=int, default=None, help="of the faults and events; printed if not given")
    parser.add_argument("--plain", action="store_true", help="a plain Faust worker on Faust's own recovery instead")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="hrnn-chaos-"))
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {text}\n")

    say(f"seed {seed}, logs in {folder}")
    with LocalKafka() as kafka:
        run = asyncio.run(
            chaos(
                kafka.bootstrap, folder, seconds=given.seconds, workers=given.workers, seed=seed, rate=given.rate,
                plain=given.plain, say=say,
            )
        )  # fmt: skip
    for name, value in asdict(run).items():
        say(f"{name:<16} {value}")
    if given.json:
        sys.stdout.write(json.dumps(asdict(run)) + "\n")
    wrong = run.wrong_states + run.wrong_lists + run.wrong_sessions + run.wrong_signals
    passed = not (run.lost or wrong or run.transitions_behind)
    if passed:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
