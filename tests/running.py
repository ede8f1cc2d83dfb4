"""A deployment for a test: topics of its own, workers as processes, and what a client can see of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from kafka import KafkaProducer

from models.items.signals import SignalRules
from models.records import Event, Recommendation, Topics, decode_recommendation
from stream.audit import AuditReport, audit
from stream.clients import topics as topic_table
from stream.clients.connection import administration
from stream.clients.reading import read_to_end
from stream.demo.processes import Process, free_port
from stream.demo.replay_client import ReplayClient
from tests.made import made_model, publish_model

ITEMS = 300
SESSION_TIMEOUT_S = 4.0  # the broker of the tests allows 2; a busy machine can hold up a heartbeat for 1
READY_S = 90.0


class Deployment:
    """Topics under a prefix of their own and the workers that were started on them; all end with the block."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, partitions: int = 4, *, replication: int = 1) -> None:
        self.bootstrap = bootstrap
        self.topics = Topics(prefix)
        self.partitions = partitions
        self.folder = folder
        self.workers: list[Process] = []
        with administration(bootstrap) as admin:
            topic_table.create(
                admin, topic_table.topic_table(self.topics, partitions=partitions, replication=replication)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.kill()

    def worker(
        self,
        name: str = "worker",
        *,
        module: str = "stream.commands.main",
        process_type: type[Process] = Process,
        **environ: str,
    ) -> Process:
        """Make a worker with a data folder of its name, and start it."""
        settings = {
            "HRNN_KAFKA_BOOTSTRAP": self.bootstrap,
            "HRNN_TOPIC_PREFIX": self.topics.prefix,
            "HRNN_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            "HRNN_HEARTBEAT_INTERVAL_S": "1",
            "HRNN_DATA_DIR": str(self.data_dir(name)),
        }
        arguments = ["worker"] if module == "stream.commands.main" else []
        process = process_type(name, arguments, self.folder, settings | environ, free_port(), module)
        self.workers.append(process)
        process.start()
        return process

    def ready_worker(self, name: str = "worker", **more: Any) -> Process:
        """Start a worker and wait until it says that it is ready."""
        process = self.worker(name, **more)
        process.wait_ready(READY_S)
        return process

    def data_dir(self, name: str = "worker") -> Path:
        """Name a worker's data folder."""
        return self.folder / f"{name}-data"

    def publish(
        self,
        version: str,
        *,
        seed: int = 0,
        tear: int | None = None,
        hidden: int = 43,
        rules: SignalRules | None = None,
    ) -> None:
        """Publish a model of random weights for `item-0` to `item-299`; with rules, one that looks at signals."""
        manifest, blob = made_model(ITEMS, seed=seed, version=version, hidden=hidden, rules=rules)
        publish_model(self.bootstrap, self.topics, manifest, blob, tear=tear)

    def client(self, window: int = 512) -> ReplayClient:
        """Make a client that sends events and awaits their lists."""
        return ReplayClient(self.bootstrap, self.topics, self.partitions, window=window)

    async def play(self, events: list[Event], timeout_s: float = 60.0, rate: float | None = None) -> None:
        """Send events and wait until each has its list."""
        async with self.client() as client:
            await client.send(events, rate=rate)
            assert await client.drained(timeout_s), f"{client.outstanding} events have no list"

    def request(self, request_id: str, user_id: str) -> None:
        """Ask for a list, as a service does when a user comes back."""
        producer = KafkaProducer(bootstrap_servers=self.bootstrap)
        try:
            value = msgspec.json.encode({"request_id": request_id, "user_id": user_id})
            producer.send(self.topics.requests, value=value, key=user_id.encode()).get(30)
        finally:
            producer.close()

    def produce(self, value: bytes | None, *, key: bytes | None = None, **more: Any) -> tuple[int, int]:
        """Send one record to `interactions`, as any client would; returns its partition and offset."""
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=4 * 2**20)
        try:
            sent = producer.send(self.topics.interactions, value=value, key=key, **more).get(30)
            return sent.partition, sent.offset
        finally:
            producer.close()

    def records(self, topic: str) -> list[Any]:
        """Read what a topic holds now."""
        return list(read_to_end(self.bootstrap, topic))

    def lists(self) -> list[Recommendation]:
        """Read all lists given so far."""
        return [decode_recommendation(record.value) for record in self.records(self.topics.recommendations)]

    def audit(self, **settings: Any) -> AuditReport:
        """Compare everything with a replay of the log; settings are those of the workers that are no defaults."""
        return asyncio.run(self.audited(**settings))

    async def audited(self, **settings: Any) -> AuditReport:
        """Compare everything with a replay of the log."""
        return await audit(self.bootstrap, self.topics, **settings)


@contextlib.asynccontextmanager
async def under_load(deployment: Deployment, rate: float = 250.0) -> AsyncIterator[ReplayClient]:
    """Send events for as long as the block takes; at its end each of them must have its list within a minute."""
    ended = asyncio.Event()

    async def load(client: ReplayClient) -> None:
        start, seed = time.time() - 3 * 86_400, 0
        while not ended.is_set():
            await client.send(made_events(int(rate), users=200, seed=seed, start=start + seed * 3600), rate=rate)
            seed += 1

    async with deployment.client(window=10**9) as client:
        task = asyncio.create_task(load(client))
        try:
            yield client
        finally:
            ended.set()
            await task
        assert await client.drained(60.0), f"{client.outstanding} of {client.sent} events have no list"


async def answers_more(client: ReplayClient, count: int, timeout_s: float = 60.0) -> None:
    """Wait until a client has been given so many further lists."""
    before = client.answers
    await asyncio.to_thread(wait_until, lambda: client.answers >= before + count, timeout_s)


def made_events(count: int, *, users: int = 40, seed: int = 0, start: float | None = None) -> list[Event]:
    """Make events whose own times rise over the last three days up to now, or from `start` on."""
    rnd = random.Random(seed)
    begin = time.time() - 3 * 86_400 if start is None else start
    return [
        Event(
            f"user-{rnd.randrange(users)}",
            f"item-{rnd.randrange(ITEMS + 3)}",  # a few that no model knows
            round(begin + 3 * 86_400 * n / count, 3) if start is None else round(begin + n * 0.01, 3),
            "click",
            float(rnd.randrange(5)),
        )
        for n in range(count)
    ]


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0, every_s: float = 0.05) -> Any:
    """Return the condition's first true value; raises AssertionError if none comes in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{condition} did not come true within {timeout_s:.0f} s"
        time.sleep(every_s)
    return value


def log_of(worker: Process) -> str:
    """Read all that a worker has logged."""
    return worker.log_path.read_text(errors="replace")


def restored(worker: Process) -> int:
    """Tell how many changelog records a worker restored at its last rebalance."""
    return int(re.findall(r"ready generation=\d+ partitions=\[[^]]*\] restored=(\d+)", log_of(worker))[-1])


def assert_passes(report: AuditReport) -> None:
    """Fail with the audit's own examples if anything is lost or wrong."""
    assert report.passed, "\n".join([str(report), *report.examples])
