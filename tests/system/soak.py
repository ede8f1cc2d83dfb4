"""A worker under a steady load for long: memory and descriptors must level off, and the log must stay short.

python -m tests.system.soak --minutes 30 --rate 300 --users 20000 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from models.items.signals import SignalRules
from models.records import Event
from stream.demo.broker import LocalKafka
from stream.demo.processes import Process
from tests.running import ITEMS, Deployment, log_of

SAMPLE_S = 10.0
SWAP_EVERY_S = 120.0  # a new model: what was kept of the one before must go
DRAIN_S = 60.0
MIB = 2**20
SPAN_S = 20 * 86_400.0


@dataclass
class Soak:
    """The figures of a run; rates are per hour, from medians of the last two thirds."""

    minutes: float
    rate: float
    users: int
    events: int = 0
    lists: int = 0
    swaps: int = 0
    rss_mib: list[float] = field(default_factory=list)
    """The median of each tenth of the run."""
    descriptors: list[float] = field(default_factory=list)
    rss_growth_mib_per_h: float = 0.0
    descriptor_growth_per_h: float = 0.0
    log_lines_per_minute: float = 0.0
    lost: int = 0
    wrong: int = 0
    exits: int = 0


def tenths(values: list[float]) -> list[float]:
    """Give the median of each tenth of a series."""
    size = max(1, len(values) // 10)
    starts = range(0, min(len(values), 10 * size), size)
    return [round(statistics.median(values[start : start + size]), 1) for start in starts]


def growth_per_h(values: list[float]) -> float:
    """Fit a line through the last two thirds of a series of samples, SAMPLE_S apart."""
    last = values[len(values) // 3 :]
    if len(last) < 2:
        return 0.0
    slope = statistics.linear_regression(range(len(last)), last).slope
    return round(slope * 3600 / SAMPLE_S, 1)


def traffic(count: int, users: int, rnd: random.Random, at: list[float], step_s: float) -> list[Event]:
    """Make events of many equal users whose own times rise over weeks, so that sessions end and histories fill."""
    events = []
    for _ in range(count):
        at[0] += step_s
        item = f"item-{min(int(rnd.expovariate(1 / 60)), ITEMS + 2)}"
        events.append(Event(f"user-{rnd.randrange(users)}", item, round(at[0], 3), "click", float(rnd.randrange(5))))
    return events


async def soak(bootstrap: str, folder: Path, given: Soak, seed: int, say: Callable[[str], None]) -> Soak:
    """Play events at a steady rate and watch the worker."""
    rnd, until = random.Random(seed), time.monotonic() + given.minutes * 60
    step_s = SPAN_S / max(1.0, given.rate * given.minutes * 60)
    at = [time.time() - SPAN_S]
    with Deployment(bootstrap, f"soak-{seed}-", folder) as deployment:
        deployment.publish("v000", rules=SignalRules())
        worker = await asyncio.to_thread(deployment.ready_worker)
        async with deployment.client(window=10**9) as client:
            watching = asyncio.create_task(_watch(worker, given, say))
            swapped_at = time.monotonic()
            while time.monotonic() < until and worker.running:
                events = traffic(int(given.rate), given.users, rnd, at, step_s)
                await client.send(events, rate=given.rate)
                client.answered.clear()
                client.latencies_s.clear()
                if time.monotonic() - swapped_at > SWAP_EVERY_S:
                    swapped_at, given.swaps = time.monotonic(), given.swaps + 1
                    version = f"v{given.swaps:03}"
                    await asyncio.to_thread(deployment.publish, version, seed=given.swaps, rules=SignalRules())
            drained = await client.drained(DRAIN_S)
            if watching.done():
                watching.result()  # raises what ended it
            watching.cancel()
            given.events, given.lists = client.sent, client.answers
            if not drained:
                say(f"{client.outstanding} events have no list")
        given.exits = int(not worker.running)
        given.log_lines_per_minute = round(len(log_of(worker).splitlines()) / given.minutes, 1)
        await asyncio.to_thread(worker.stop)
        report = await deployment.audited()
        given.lost = report.lost
        given.wrong = report.wrong_states + report.wrong_lists + report.wrong_sessions + report.wrong_signals
        for example in report.examples:
            say(example)
    return given


async def _watch(worker: Process, given: Soak, say: Callable[[str], None]) -> None:
    rss: list[float] = []
    descriptors: list[float] = []
    assert worker.popen is not None
    process = psutil.Process(worker.popen.pid)
    while True:
        await asyncio.sleep(SAMPLE_S)
        rss.append(process.memory_info().rss / MIB)
        descriptors.append(float(process.num_fds()))
        given.rss_mib, given.descriptors = tenths(rss), tenths(descriptors)
        given.rss_growth_mib_per_h, given.descriptor_growth_per_h = growth_per_h(rss), growth_per_h(descriptors)
        if len(rss) % 12 == 0:
            say(f"rss {rss[-1]:.0f} MiB, {descriptors[-1]:.0f} descriptors")


def main() -> int:
    """Read the arguments, run, print; 0 only if nothing was lost, wrong or ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=300.0, help="events a second")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:7.1f} s  {text}\n")

    given = Soak(arguments.minutes, arguments.rate, arguments.users)
    with tempfile.TemporaryDirectory(prefix="hrnn-soak-") as folder, LocalKafka() as kafka:
        asyncio.run(soak(kafka.bootstrap, Path(folder), given, arguments.seed, say))
    for name, value in asdict(given).items():
        say(f"{name:<26} {value}")
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(given)) + "\n")
    return 1 if given.lost or given.wrong or given.exits else 0


if __name__ == "__main__":
    sys.exit(main())
