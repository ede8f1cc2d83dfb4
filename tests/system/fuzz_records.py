"""Random whole records on a real worker: keys, values, headers, codecs, times, transactions, broken batches.

python -m tests.system.fuzz_records --seconds 600 --seed 7 --json

Each record that the broker acked must end as a list or as a dead letter, once its transaction is committed; what was
aborted as neither; and the worker must be alive.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from kafka.admin import ConfigResource, ConfigResourceType

from models.records import Event, decode_recommendation
from stream.clients.connection import administration
from stream.clients.produce import value_of
from stream.demo.broker import LocalKafka
from stream.demo.processes import Process
from stream.source.log_reader import Record, log_reader, read_stretch
from stream.source.record_batches import UNPACKED_BYTES
from tests.made import junk_values
from tests.made_batches import CODECS, Given, Raw, batch, changed
from tests.running import ITEMS, Deployment

PARTITIONS = 4
USERS = 30
SETTLE_S = 60.0
REFUSED_S = 3  # a broker's refusal of a broken batch is tried again for so long
BROKEN, BOMB, TRANSACTION, NEW_TIMESTAMP_TYPE = 0.05, 0.01, 0.15, 0.02  # shares of the rounds
Place = tuple[int, int]
EXAMPLES = 20


@dataclass
class Fuzz:
    """The one line of figures of a run."""

    seed: int
    records: int = 0  # acked, and committed if in a transaction
    aborted: int = 0
    refused: int = 0  # by the broker
    applied: int = 0
    dead_letters: int = 0
    unreadable: int = 0
    missing: int = 0
    resurrected: int = 0  # aborted, and applied or refused for all that
    process_exits: int = 0
    lost: int = 0
    wrong_states: int = 0
    wrong_lists: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Tell whether nothing is missing, wrong or dead."""
        wrong = self.missing + self.resurrected + self.lost + self.wrong_states + self.wrong_lists
        return not (wrong or self.process_exits)


class RandomRecords:
    """Records as clients make them, and as none should."""

    def __init__(self, rnd: random.Random) -> None:
        self._random = rnd

    def some(self, most: int) -> list[Given]:
        """Make up to so many."""
        return [self.one() for _ in range(self._random.randint(1, most))]

    def one(self) -> Given:
        """Make a record of any kind."""
        rnd = self._random
        event = Event(
            f"user-{rnd.randrange(USERS)}", f"item-{rnd.randrange(ITEMS)}", round(time.time(), 3), "click", 1.0
        )
        value: bytes | None = value_of(event)
        match rnd.randrange(8):
            case 0:
                value = rnd.choice(list(junk_values().values()))
            case 1:
                value = self._mutated(value or b"")
            case 2:
                value = rnd.choice([None, b"", rnd.randbytes(rnd.randrange(200)), b"x" * rnd.randrange(900_000)])
        key = rnd.choice([event.user_id.encode(), event.user_id.encode(), None, b"", rnd.randbytes(8)])
        headers = [self._header() for _ in range(rnd.choice([0, 0, 0, 1, 2, 30]))]
        return Given(key, value, headers, self._time_ms())

    def _mutated(self, value: bytes) -> bytes:
        rnd, held = self._random, bytearray(value)
        for _ in range(rnd.randint(1, 3)):
            at = rnd.randrange(len(held))
            match rnd.randrange(3):
                case 0:
                    held[at] = rnd.randrange(256)
                case 1:
                    del held[at]
                case 2:
                    held[at:at] = rnd.randbytes(rnd.randint(1, 4))
        return bytes(held)

    def _header(self) -> tuple[str, bytes | None]:
        rnd = self._random
        name = rnd.choice(["trace", "hrnn-origin", "reason", "source-offset", "", "ü" * rnd.randrange(9), "\x00"])
        return name, rnd.choice([None, b"", b"1/2", b"0/1/1700000000000", rnd.randbytes(20)])

    def _time_ms(self) -> int:
        return self._random.choice([int(time.time() * 1000), 0, 1, int(time.time() * 1000) - 10**9])

    def batch(self, records: list[Given]) -> bytes:
        """Put records in a batch of any codec; some headers' names are no UTF-8."""
        if self._random.random() < 0.2:
            return changed(batch(records), records=lambda held: held.replace(b"trace", b"\xfftr\xfe\xff"))
        return batch(records, codec=self._random.choice(list(CODECS)))

    def broken(self) -> bytes:
        """Make a batch with wrong bytes under a right checksum."""
        rnd = self._random

        def damage(held: bytes) -> bytes:
            at = rnd.randrange(len(held))
            return held[:at] + rnd.randbytes(rnd.randint(1, 4)) + held[at + 1 :]

        return changed(batch(self.some(3), codec=rnd.choice(list(CODECS))), records=damage)

    def bomb(self) -> bytes:
        """Make a batch of some KB that decompresses to more than a worker takes."""
        codec = self._random.choice(["gzip", "zstd"])
        return batch([Given(b"bomb", bytes(UNPACKED_BYTES // 2))] * 3, codec=codec)


class Run:
    """One seeded sequence of records on one worker."""

    def __init__(self, deployment: Deployment, fuzz: Fuzz, say: Callable[[str], None]) -> None:
        self._deployment = deployment
        self._topic = deployment.topics.interactions
        self._fuzz = fuzz
        self._say = say
        self._random = random.Random(fuzz.seed)
        self._records = RandomRecords(self._random)
        self._committed: set[Place] = set()
        self._aborted: set[Place] = set()

    async def send(self, seconds: float) -> None:
        """Send for so long, then bring the transaction to its end."""
        options = {"bootstrap_servers": self._deployment.bootstrap, "max_request_size": 16 * 2**20}
        async with AsyncExitStack() as stack:

            async def producer(**more: Any) -> aiokafka.AIOKafkaProducer:
                return await stack.enter_async_context(aiokafka.AIOKafkaProducer(**options, **more))

            plain = await producer()
            hasty = await producer(request_timeout_ms=REFUSED_S * 1000)
            transactional = await producer(transactional_id=f"{self._deployment.topics.prefix}fuzz")
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                dice = self._random.random()
                if dice < BROKEN:
                    await self._send_batch(hasty, self._records.broken(), 3)
                elif (dice := dice - BROKEN) < BOMB:
                    await self._send_batch(plain, self._records.bomb(), 3)
                elif (dice := dice - BOMB) < TRANSACTION:
                    await self._send_transaction(transactional)
                elif (dice := dice - TRANSACTION) < NEW_TIMESTAMP_TYPE:
                    await asyncio.to_thread(self._set_timestamp_type)
                else:
                    records = self._records.some(5)
                    await self._send_batch(plain, self._records.batch(records), len(records))

    async def _send_batch(self, producer: aiokafka.AIOKafkaProducer, data: bytes, records: int) -> None:
        partition = self._random.randrange(PARTITIONS)
        # of a broken batch the head alone says how many records it has
        records = int.from_bytes(data[57:61], "big", signed=True) or records
        try:
            sent = await (await producer.send_batch(Raw(data, records), self._topic, partition=partition))
        except KafkaError:
            self._fuzz.refused += records
            return
        self._committed |= {(partition, sent.offset + n) for n in range(records)}

    async def _send_transaction(self, producer: aiokafka.AIOKafkaProducer) -> None:
        places: set[Place] = set()
        await producer.begin_transaction()
        for record in self._records.some(6):
            if (record.key is None and record.value is None) or len(record.value or b"") > 900_000:
                continue  # aiokafka's producer sends neither
            sent = await producer.send_and_wait(
                self._topic,
                record.value,
                key=record.key,
                partition=self._random.randrange(PARTITIONS),
                timestamp_ms=record.timestamp_ms,
                headers=list(record.headers),
            )
            places.add((sent.partition, sent.offset))
        if self._random.random() < 0.5:
            await producer.abort_transaction()
            self._aborted |= places
        else:
            await producer.commit_transaction()
            self._committed |= places

    def _set_timestamp_type(self) -> None:
        kind = self._random.choice(["CreateTime", "LogAppendTime"])
        with administration(self._deployment.bootstrap) as admin:
            configs = {"message.timestamp.type": kind}
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self._topic, configs)])

    async def check(self, worker: Process) -> None:
        """Wait until each record has come to something, and say which have not."""
        fuzz, deadline = self._fuzz, time.monotonic() + SETTLE_S
        while True:
            applied, refused = await self._landed()
            missing = self._committed - applied - refused
            if not missing or time.monotonic() > deadline or not worker.running:
                break
            await asyncio.sleep(0.5)
        fuzz.records, fuzz.aborted = len(self._committed), len(self._aborted)
        fuzz.applied, fuzz.dead_letters = len(applied), len(refused)
        fuzz.missing = len(missing)
        fuzz.unreadable = int(worker.metric("rec_unreadable_records_total")) if worker.running else 0
        risen = self._aborted & (applied | refused)
        fuzz.resurrected = len(risen)
        fuzz.process_exits = int(not worker.running)
        for what, places in (("missing", missing), ("resurrected", risen)):
            fuzz.examples += [f"{what} {partition}/{offset}" for partition, offset in sorted(places)[:EXAMPLES]]
        if not worker.running:
            fuzz.examples.append(worker.log_tail(20))
            return
        report = await self._deployment.audited()
        fuzz.lost, fuzz.wrong_states, fuzz.wrong_lists = report.lost, report.wrong_states, report.wrong_lists
        fuzz.examples += report.examples

    async def _landed(self) -> tuple[set[Place], set[Place]]:
        """Read where the events of lists, and those of dead letters, came in."""
        topics = self._deployment.topics
        applied: set[Place] = set()
        async for record in self._read(topics.recommendations):
            source = decode_recommendation(record.value or b"").source
            if source.topic == self._topic:
                applied.add((source.partition, source.offset))
        refused: set[Place] = set()
        async for record in self._read(topics.dead_letters):
            # the last of each name: a client may have given its own
            said = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
            if said["source-topic"] != self._topic:
                continue
            last = int(said["source-offset"])
            unreadable = said["reason"] == "unreadable"
            first = int(said["source-first-offset"]) if unreadable else last
            places = {(int(said["source-partition"]), offset) for offset in range(first, last + 1)}
            if not places & (self._committed | self._aborted):
                # a copy that was sent on to its user's partition, and refused there: it names where it came in
                partition, offset = said["hrnn-origin"].split("/")[:2]
                places = {(int(partition), int(offset))}
            refused |= places
        return applied, refused

    async def _read(self, topic: str) -> AsyncIterator[Record]:
        async with log_reader({"bootstrap_servers": self._deployment.bootstrap}) as reader:
            tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
            ends = await reader.end_offsets(tps)
            async for _, records in read_stretch(reader, {tp: (0, ends[tp]) for tp in tps}):
                for record in records:
                    yield record


async def fuzz_records(
    bootstrap: str, folder: Path, *, seconds: float, seed: int, say: Callable[[str], None] = lambda text: None
) -> Fuzz:
    """Send random records to a worker of its own for so long, and check what became of each."""
    fuzz = Fuzz(seed)
    with Deployment(bootstrap, f"fuzz{seed}-", folder, partitions=PARTITIONS) as deployment:
        deployment.publish("v1")
        worker = await asyncio.to_thread(deployment.ready_worker)
        run = Run(deployment, fuzz, say)
        say(f"sending for {seconds:.0f} s, seed {seed}")
        await run.send(seconds)
        say("checking")
        await run.check(worker)
    return fuzz


def main() -> int:
    """Run it with a Kafka of its own; exit 1 if something is missing or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    with LocalKafka() as broker, tempfile.TemporaryDirectory() as folder:
        fuzz = asyncio.run(
            fuzz_records(broker.bootstrap, Path(folder), seconds=asked.seconds, seed=asked.seed, say=say)
        )
    found = asdict(fuzz)
    print(json.dumps(found) if asked.json else "\n".join(f"{name}: {value}" for name, value in found.items()))  # noqa: T201
    return int(not fuzz.passed)


if __name__ == "__main__":
    sys.exit(main())
