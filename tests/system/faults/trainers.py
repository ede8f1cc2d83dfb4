"""A trainer that ends at each step of publishing: readers see the old model or the new one, the next one publishes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from kafka import KafkaProducer

from models.records import encode
from models.weights import BadWeights
from stream.clients.connection import client_options
from stream.demo.processes import Process, free_port
from tests.made import made_model, publish_model
from tests.system.faults.crashing_trainer import STEPS
from tests.system.faults.forking import ForkedProcess
from tests.system.faults.result import FaultResult
from tests.system.faults.scene import Scene, Setup, last_error, scene
from tests.unit.trainer.made import session
from trainer.service.publishing import ModelTopic, NoSuchVersion

ITEMS = 12
READ_EVERY_S = 0.1
SETTINGS = {
    "HRNN_TRAIN_INTERVAL_S": "0",
    "HRNN_TRAIN_MIN_NEW_EVENTS": "100",
    "HRNN_TRAIN_POLL_S": "0.2",
    "HRNN_KEEP_VERSIONS": "1",
    "HRNN_HIDDEN_DIMENSION": "16",
    "HRNN_EPOCHS": "3",
    "HRNN_LANES": "8",
    "HRNN_TRAIN_THREADS": "1",
    "HRNN_LEARNING_RATE": "0.02",
}


class Reader:
    """Follows the pointer as a worker does, and counts the models that it points to and that can't be read."""

    def __init__(self, run: Scene) -> None:
        self.versions: list[str] = []
        self.torn: list[str] = []
        self._run = run
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Reader:
        """Begin to follow."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _read(self) -> None:
        deployment = self._run.deployment
        topic = ModelTopic(deployment.topics.models, client_options(deployment.bootstrap, "hrnn-faults"))
        while not self._stopping.wait(READ_EVERY_S):
            serving = topic.serving()
            if serving.version and serving.version not in self.versions:
                try:
                    topic.read_model(serving.version)
                    self.versions.append(serving.version)
                except (BadWeights, NoSuchVersion) as error:
                    if topic.serving() == serving:  # else it was removed meanwhile, after the next one's pointer
                        self.torn.append(f"{serving.version}: {error}")
        topic.close()


async def trainer_crash(setup: Setup) -> None:
    """Kill a trainer at each step of publishing, with topics of its own for each."""
    for number, step in enumerate(STEPS):
        part = FaultResult(setup.result.name, setup.seed + number)
        await _crash_at(Setup(setup.bootstrap, setup.folder, part.seed, part, say=setup.say), step)
        part.failures = [f"{step}: {failure}" for failure in part.failures]
        setup.result.add(part)
        setup.say(f"{step}: {part.line()}")


async def _crash_at(setup: Setup, step: str) -> None:
    async with scene(setup, model=False) as run:
        names = [f"i{number:02d}" for number in range(ITEMS)]
        model = made_model(ITEMS, seed=setup.seed, version="v000", names=names)
        await asyncio.to_thread(publish_model, run.deployment.bootstrap, run.deployment.topics, *model)
        (worker,) = await run.start_ready()
        await asyncio.to_thread(_send_circles, run, range(60))
        with Reader(run) as reader:
            await run.until(lambda: reader.versions, "a reader has the first model")
            trainer = _trainer(run, "crashing-trainer", CRASH_STEP=step)
            await asyncio.to_thread(trainer.start)
            run.result.faults += 1
            await run.until(lambda: not trainer.running, f"the trainer ends {step}", 60.0)
            if trainer.running or trainer.exit_code != -9:
                run.fail(f"the trainer did not end {step}: {trainer.exit_code} {last_error(trainer)}")
                await asyncio.to_thread(trainer.kill)
            await asyncio.sleep(0.5)
            old = step not in ("after-pointer", "amid-removal")
            if old != (reader.versions[-1] == "v000"):
                run.fail(f"after the crash the pointer is at {reader.versions[-1]}")
            before = reader.versions[-1]
            await asyncio.to_thread(_send_circles, run, range(60, 120))
            following = _trainer(run, "next-trainer")
            run.workers.append(following)
            await asyncio.to_thread(following.start)
            published = await run.until(
                lambda: reader.versions[-1] != before and following.metric("rec_models_published_total") >= 1,
                "the next trainer publishes",
                60.0,
            )
            if published:
                newest = reader.versions[-1]
                await run.until(
                    lambda: worker.metric("rec_model_info", f'version="{newest}"') == 1,
                    "the worker takes it over",
                    20.0,
                )
            await run.stop(following)
        for torn in reader.torn:
            run.fail(f"a reader saw a torn model: {torn}")
        await run.stop(worker)


def _trainer(run: Scene, name: str, **environ: str) -> Process:
    settings: dict[str, Any] = {
        "HRNN_KAFKA_BOOTSTRAP": run.deployment.bootstrap,
        "HRNN_TOPIC_PREFIX": run.deployment.topics.prefix,
        **SETTINGS,
        **environ,
    }
    process = ForkedProcess(
        name, [], run.deployment.folder, settings, free_port(), "tests.system.faults.crashing_trainer"
    )
    run.deployment.workers.append(process)  # it ends with them
    return process


def _send_circles(run: Scene, users: range) -> None:
    """Write sessions of users who walk round a circle of items: what comes next is sure."""
    producer = KafkaProducer(bootstrap_servers=run.deployment.bootstrap)
    for user in users:
        events: list[Any] = [(f"i{(user + n) % ITEMS:02d}", user + 100.0 * n, "click", None) for n in range(10)]
        key, record = session(f"u{user:03d}", events)
        producer.send(run.deployment.topics.sessions, key=key, value=encode(record))
    producer.flush()
    producer.close()
