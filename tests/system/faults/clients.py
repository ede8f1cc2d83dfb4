"""Ordinary clients in three languages, each codec at the producer and at the topic: each event has its list.

python -m tests.system.faults.clients

By hand and not in the suite: it fetches kafkajs (npm) and confluent-kafka (pip) into a temporary folder.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kafka.admin import ConfigResource, ConfigResourceType

from stream.clients.connection import administration
from stream.demo.broker import LocalKafka
from stream.demo.kafka_jars import java_command, resolve_jars
from tests.system.faults.result import FaultResult
from tests.system.faults.scene import Scene, Setup, scene

CODECS = ("gzip", "lz4", "snappy", "zstd")
EVENTS = 60
LISTS_S = 40.0
PROGRAMS = Path(__file__).parent / "client_programs"
NPM_PACKAGES = ("kafkajs@2.2.4", "kafkajs-snappy@1.1.0", "lz4-napi@2.10.0", "zstd-codec@0.1.5")
PYTHON_PACKAGE = "confluent-kafka==2.16.1"


class Client(NamedTuple):
    """How a client is started; arguments of what to send follow."""

    command: list[str]
    environ: dict[str, str]


def java(folder: Path) -> Client:
    """Kafka's own client."""
    return Client([java_command(), "-cp", f"{resolve_jars()}/*", str(PROGRAMS / "Produce.java")], {})


def kafkajs(folder: Path) -> Client:
    """The client in JavaScript."""
    subprocess.run(["npm", "install", "--no-fund", "--no-audit", *NPM_PACKAGES], cwd=folder, check=True)
    return Client(["node", str(PROGRAMS / "produce.js")], {"NODE_PATH": str(folder / "node_modules")})


def librdkafka(folder: Path) -> Client:
    """The client in C that most other languages wrap."""
    packages = folder / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), PYTHON_PACKAGE]
    subprocess.run(pip, check=True)
    return Client([sys.executable, str(PROGRAMS / "produce_librdkafka.py")], {"PYTHONPATH": str(packages)})


CLIENTS: dict[str, Callable[[Path], Client]] = {"librdkafka": librdkafka, "java": java, "kafkajs": kafkajs}


async def clients(setup: Setup) -> Counter[str]:
    """Send from each client with each codec -> lists, by client, codec and where the codec was set."""
    made = {name: make(setup.folder) for name, make in CLIENTS.items()}
    expected: list[str] = []
    async with scene(setup) as run:
        await run.start_ready()
        for codec in CODECS:
            # first the producer's own codec, then the topic's, that the broker recompresses by
            for where, of_producer, of_topic in (("producer", codec, "producer"), ("topic", "none", codec)):
                await asyncio.to_thread(_set_codec, run, of_topic)
                for name, client in made.items():
                    user = f"{name}-{codec}-{where}"
                    expected.append(user)
                    await asyncio.to_thread(_produce, client, run, of_producer, user)
        found: Counter[str] = Counter()
        deadline = time.monotonic() + LISTS_S
        while time.monotonic() < deadline and any(found[user] < EVENTS for user in expected):
            await asyncio.sleep(1.0)
            lists = await asyncio.to_thread(run.deployment.lists)
            found = Counter(one.user_id.rpartition("-")[0] for one in {one.rec_id: one for one in lists}.values())
        await run.check()
    return Counter({user: found[user] for user in expected})


def _set_codec(run: Scene, codec: str) -> None:
    resource = ConfigResource(ConfigResourceType.TOPIC, run.deployment.topics.interactions, {"compression.type": codec})
    with administration(run.deployment.bootstrap) as admin:
        admin.alter_configs([resource])


def _produce(client: Client, run: Scene, codec: str, user: str) -> None:
    run.result.faults += 1
    arguments = [run.deployment.bootstrap, run.deployment.topics.interactions, codec, user, str(EVENTS)]
    answer = subprocess.run(
        [*client.command, *arguments],
        env={**os.environ, **client.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    if answer.returncode != 0:
        run.fail(f"{user} could not send: {(answer.stderr or answer.stdout).strip()[-300:]}")


def main() -> int:
    """Run all clients and print how many lists each had."""
    with tempfile.TemporaryDirectory(prefix="hrnn-clients-") as folder, LocalKafka() as kafka:
        result = FaultResult("clients", 0)
        setup = Setup(kafka.bootstrap, Path(folder), 0, result, say=lambda text: print(text, file=sys.stderr))  # noqa: T201
        found = asyncio.run(clients(setup))
    for user, lists in found.items():
        sys.stdout.write(f"{user:<28} {lists} of {EVENTS} lists\n")
    sys.stdout.write(result.line() + "\n")
    return 0 if result.clean and all(lists == EVENTS for lists in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
