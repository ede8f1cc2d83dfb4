"""A backlog drained by one worker, beside a plain Faust worker doing the same, in one run.

python -m tests.benchmarks.throughput --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiokafka
import psutil

from models.items.signals import SignalRules
from models.records import Event, Topics
from stream.clients import topics as topic_table
from stream.clients.connection import administration
from stream.clients.produce import value_of
from stream.demo.broker import LocalKafka
from stream.demo.processes import Process, free_port
from stream.stages.intake import home_of
from stream.stages.sending import append
from tests.made import made_model, publish_model

DEMO_ITEMS, LARGE_ITEMS = 10_506, 27_000
USERS, PARTITIONS = 16_554, 8
LOOK_EVERY_S = 0.2  # twenty scrapes a second took 7 % of a worker's time
WARM_SHARE = 0.15  # of the backlog: read before the clock starts, so that start-up is not measured


@dataclass(frozen=True)
class Case:
    """One worker on one backlog."""

    name: str
    module: str
    arguments: tuple[str, ...]
    n_items: int  # 0: no model
    backlog: int
    environ: tuple[tuple[str, str], ...] = ()
    signals: bool = False  # whether the lists follow live signals; workers count them in any case


WORKER, PLAIN = ("stream.commands.main", ("worker",)), ("tests.benchmarks.plain_worker", ())
CASES = (
    Case("worker_demo_items", *WORKER, DEMO_ITEMS, 60_000),
    Case("signals_demo_items", *WORKER, DEMO_ITEMS, 60_000, signals=True),
    Case("plain_demo_items", *PLAIN, DEMO_ITEMS, 6_000),
    Case("worker_27k_items", *WORKER, LARGE_ITEMS, 40_000),
    Case("plain_27k_items", *PLAIN, LARGE_ITEMS, 4_000),
    Case("spine", "tests.benchmarks.spine_worker", (), 0, 200_000),
    Case("noop", *PLAIN, 0, 20_000, (("HRNN_PLAIN", "noop"),)),
)
RATIOS = {
    "ratio_demo_items": ("worker_demo_items", "plain_demo_items", 10.0),
    "ratio_demo_items_signals": ("signals_demo_items", "plain_demo_items", 10.0),
    "ratio_27k_items": ("worker_27k_items", "plain_27k_items", 6.0),
    "ratio_spine": ("spine", "noop", 10.0),
}


def backlog_of(case: Case, seed: int = 1) -> list[Event]:
    """Make a backlog: users at random, items by a falling law, a second between events."""
    rnd, start = random.Random(seed), time.time() - case.backlog - 3600
    n_items = case.n_items or DEMO_ITEMS
    return [
        Event(str(rnd.randrange(USERS)), f"item-{int(n_items * rnd.random() ** 3)}", round(start + n, 3), "click", 1.0)
        for n in range(case.backlog)
    ]


async def fill(bootstrap: str, topics: Topics, events: list[Event]) -> None:
    """Write a backlog to the interactions."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=2**19)
    await producer.start()
    by_partition: dict[int, list[tuple[bytes, bytes]]] = {}
    for event in events:
        home = home_of(event.user_id, PARTITIONS)
        by_partition.setdefault(home, []).append((event.user_id.encode(), value_of(event)))
    for partition, records in by_partition.items():
        for sent in await append(producer, topics.interactions, partition, records):
            await sent.acked
    await producer.stop()


def drain(bootstrap: str, case: Case, folder: Path, repeat: int) -> tuple[float, float]:
    """Drain one case's backlog by a fresh worker; returns its events/s, and its CPU time in µs per event."""
    topics = Topics(f"bench-{case.name}-{os.getpid()}-{repeat}.".replace("_", "-"))
    with administration(bootstrap) as admin:
        topic_table.create(admin, topic_table.topic_table(topics, partitions=PARTITIONS))
    if case.n_items:
        publish_model(bootstrap, topics, *made_model(case.n_items, rules=SignalRules() if case.signals else None))
    asyncio.run(fill(bootstrap, topics, backlog_of(case)))
    environ = {
        "HRNN_KAFKA_BOOTSTRAP": bootstrap,
        "HRNN_TOPIC_PREFIX": topics.prefix,
        "HRNN_DATA_DIR": str(folder / f"{case.name}-{repeat}"),
        **dict(case.environ),
    }
    worker = Process(f"{case.name}-{repeat}", list(case.arguments), folder, environ, free_port(), case.module)
    worker.start()
    try:
        began, counted, cpu_s = 0.0, 0.0, 0.0
        deadline = time.monotonic() + 240.0
        while time.monotonic() < deadline:
            if not worker.running:
                raise SystemExit(f"{case.name} ended: {worker.log_tail()}")
            done, now = worker.metric("rec_events_total", 'result="applied"'), time.monotonic()
            if not began and done >= case.backlog * WARM_SHARE:
                began, counted, cpu_s = now, done, _cpu_s(worker)
            if done >= case.backlog:
                events = done - counted
                return events / (now - began), (_cpu_s(worker) - cpu_s) / events * 1e6
            time.sleep(LOOK_EVERY_S)
        raise SystemExit(f"{case.name} did not finish: {worker.log_tail()}")
    finally:
        worker.stop()


def _cpu_s(worker: Process) -> float:
    times = psutil.Process(worker.popen.pid).cpu_times() if worker.popen else None
    return times.user + times.system if times else 0.0


def main() -> int:
    """Run every case, `--repeat` times in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1, help="rounds over all cases; medians are printed")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    given = parser.parse_args()
    cases = [case for case in CASES if not given.only or case.name in given.only]
    figures: dict[str, list[float]] = {case.name: [] for case in cases}
    cpu_us: dict[str, list[float]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory(prefix="hrnn-bench-") as folder, LocalKafka() as kafka:
        for repeat in range(given.repeat):
            for case in cases:
                speed, cpu = drain(kafka.bootstrap, case, Path(folder), repeat)
                figures[case.name].append(speed)
                cpu_us[case.name].append(cpu)
                sys.stderr.write(f"{case.name:<20} {speed:>10,.0f} events/s {cpu:>8,.0f} µs of CPU per event\n")
    medians = {name: sorted(values)[len(values) // 2] for name, values in figures.items()}
    line = {name: round(value, 1) for name, value in medians.items()}
    line |= {f"{name}_cpu_us": round(sorted(values)[len(values) // 2], 1) for name, values in cpu_us.items()}
    for name, (ours, theirs, aim) in RATIOS.items():
        if ours in medians and theirs in medians:
            line[name] = round(medians[ours] / medians[theirs], 2)
            sys.stderr.write(f"{name:<20} {line[name]:>10.2f} (aim {aim:.0f})\n")
    if given.json:
        sys.stdout.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
