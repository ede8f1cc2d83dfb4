from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.errors import KafkaError as ClientError
from faust.types import TP

from models.items import signals
from models.records import MAX_EPOCH, Topics
from models.users import state
from stream.source import log_epochs
from stream.source.log_epochs import (
    LOG_KEY,
    REQUESTS_KEY,
    LogEpochs,
    LogMark,
    Verdict,
    decode_mark,
    encode_mark,
    is_mark,
    judge,
)
from stream.source.topic_check import TopicFacts, TopicsNotReady

OLD, NEW = b"o" * 16, b"n" * 16
TOPICS = Topics()
EVENTS, REQUESTS, TRANSITIONS = TOPICS.interactions, TOPICS.requests, TOPICS.transitions


@pytest.mark.parametrize("mark", [LogMark(0, b"", 4), LogMark(7, OLD, 8), LogMark(MAX_EPOCH, NEW, 1)])
def test_a_mark_survives_its_bytes_and_is_merged_by_its_epoch(mark: LogMark) -> None:
    value = encode_mark(mark)
    assert decode_mark(value) == mark
    # what a restore compares, in this release and in those that know nothing of marks
    assert state.applied_offset(value) == signals.applied_offset(value) == mark.epoch


def test_no_user_and_no_item_has_the_key_of_a_mark() -> None:
    assert is_mark(LOG_KEY)
    assert is_mark(REQUESTS_KEY + b"/9")
    assert not is_mark(b"u")


@pytest.mark.parametrize(
    ("topic_id", "reached", "end", "verdict"),
    [
        (OLD, 5, 5, Verdict.THE_SAME),
        (OLD, 0, 5, Verdict.THE_SAME),
        (OLD, 6, 5, Verdict.SHORTER),
        (NEW, 6, 5, Verdict.RECREATED),
        (NEW, 5, 500, Verdict.RECREATED),
        (b"", 5, 5, Verdict.THE_SAME),  # a broker that tells no ids
        (b"", 6, 5, Verdict.SHORTER),
    ],
)
def test_a_log_is_judged_by_its_topics_id_and_its_end(
    topic_id: bytes, reached: int, end: int, verdict: Verdict
) -> None:
    assert judge(LogMark(3, OLD, 4), topic_id, reached, end) is verdict


def test_a_log_whose_id_was_not_known_is_the_same_one() -> None:
    assert judge(LogMark(0, b"", 4), NEW, 5, 5) is Verdict.THE_SAME


class Log:
    """Stands for the group's offsets, a broker's facts and changelogs; says in which order it was told."""

    def __init__(self, ids: dict[str, bytes], *, earliest: int = 0, end: int = 10, committed: int | None = 10) -> None:
        self.facts = TopicFacts("c", ids, dict.fromkeys(_needed(), 4) | {TOPICS.models: 1}, 4)
        self.earliest, self.end, self.committed = earliest, end, committed
        self.stores: dict[str, dict[int, dict[bytes, bytes]]] = {"users": {}, "items": {}}
        self.told: list[str] = []
        self.expected: dict[TP, int] = {}
        self.refuse: Exception | None = None
        self.assigned: set[TP] = set()

    # the consumer
    async def seek_to_committed(self) -> dict[TP, int | None]:
        return dict.fromkeys(self.assigned, self.committed)

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, self.earliest)

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, self.end)

    async def set_back(self, offsets: dict[TP, int]) -> None:
        if self.refuse:
            error, self.refuse = self.refuse, None
            raise error
        self.told += [f"commit {tp.topic}/{tp.partition}={offset}" for tp, offset in sorted(offsets.items())]

    # the reader
    def read(self) -> TopicFacts:
        return self.facts

    def changelog(self, name: str) -> Any:
        stores = self.stores[name]
        told = self.told

        class Held:
            lock = asyncio.Lock()
            last_known = dict.fromkeys(range(4), 0)

            def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
                return [stores.get(partition, {}).get(key) for key in keys]

            async def write(self, producer: object, partition: int, values: dict[bytes, bytes]) -> list[str]:
                stores.setdefault(partition, {}).update(values)
                told.append(f"keep {name}/{partition} {[(k, decode_mark(v).epoch) for k, v in values.items()]}")
                return []

            async def confirm(self, producer: object, appends: Iterable[str]) -> None: ...

        return Held()

    def epochs(self) -> LogEpochs:
        holes: list[int] = []
        app = SimpleNamespace(
            batch_consumer=self, kafka_producer=lambda: None, on_hole=lambda: holes.append(1), client_options={}
        )
        self.holes = holes
        count = SimpleNamespace(inc=lambda: None, set=lambda value: None)
        telemetry = SimpleNamespace(topic_recreated=count, log_shorter=count, topics_missing=count)
        return LogEpochs(
            app=cast(Any, app),
            topics=TOPICS,
            facts=self.facts,
            reader=cast(Any, self),
            telemetry=cast(Any, telemetry),
            user_states=self.changelog("users"),
            item_states=self.changelog("items"),
        )

    async def starts(self, epochs: LogEpochs, *tps: TP) -> dict[TP, int]:
        self.assigned = set(tps)
        return await epochs.starts(set(tps))


def kept(store: str, *marks: tuple[bytes, int]) -> str:
    return f"keep {store} {list(marks)}"


def _needed() -> list[str]:
    return [
        *(EVENTS, REQUESTS, TRANSITIONS, TOPICS.recommendations, TOPICS.sessions, TOPICS.user_states),
        *(TOPICS.signals, TOPICS.item_states, TOPICS.items, TOPICS.dead_letters),
    ]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_epochs, "CONFIRM_S", 0.0)
    monkeypatch.setattr(log_epochs, "RETRY_S", 0.0)
    monkeypatch.setattr(log_epochs, "set_back", lambda consumer, offsets: consumer.set_back(offsets))


async def test_the_first_time_the_epoch_is_0_and_reading_goes_on_at_what_is_committed() -> None:
    log = Log({EVENTS: OLD, TRANSITIONS: OLD})
    epochs = log.epochs()
    assert await log.starts(epochs, TP(EVENTS, 2), TP(TRANSITIONS, 2)) == {TP(EVENTS, 2): 10, TP(TRANSITIONS, 2): 10}
    assert (epochs.of(EVENTS, 2), epochs.of(TRANSITIONS, 2)) == (0, 0)
    assert log.told == [kept("users/2", (LOG_KEY, 0)), kept("items/2", (LOG_KEY, 0))]
    log.told.clear()
    await log.starts(log.epochs(), TP(EVENTS, 2), TP(TRANSITIONS, 2))
    assert log.told == []  # what is kept already is not written again at each rebalance


async def test_a_recreated_topic_is_read_from_its_beginning_and_the_offset_is_set_back_first() -> None:
    log = Log({EVENTS: OLD, REQUESTS: OLD})
    await log.starts(log.epochs(), TP(EVENTS, 1), TP(REQUESTS, 1))
    log.told.clear()
    log.facts = TopicFacts("c", {EVENTS: NEW, REQUESTS: NEW}, log.facts.partitions_of, 4)
    epochs = log.epochs()  # with a stale committed offset, inside of the new log
    assert await log.starts(epochs, TP(EVENTS, 1), TP(REQUESTS, 1)) == {TP(EVENTS, 1): 0, TP(REQUESTS, 1): 0}
    assert epochs.of(EVENTS, 1) == epochs.of(REQUESTS, 1) == 1
    commits = [f"commit {EVENTS}/1=0", f"commit {REQUESTS}/1=0"]
    assert log.told == [*commits, kept("users/1", (LOG_KEY, 1), (REQUESTS_KEY, 1))]
    log.committed = 0
    assert await log.starts(log.epochs(), TP(EVENTS, 1)) == {TP(EVENTS, 1): 0}
    assert decode_mark(log.stores["users"][1][b"\0log"]) == LogMark(1, NEW, 4)


async def test_a_shorter_log_of_transitions_is_read_from_its_beginning_and_the_epoch_is_kept_first() -> None:
    log = Log({TRANSITIONS: OLD}, earliest=3, end=8, committed=10)
    epochs = log.epochs()
    assert await log.starts(epochs, TP(TRANSITIONS, 0)) == {TP(TRANSITIONS, 0): 3}
    assert epochs.of(TRANSITIONS, 0) == 1
    assert log.told == [kept("items/0", (LOG_KEY, 1)), f"commit {TRANSITIONS}/0=3"]


async def test_what_this_worker_has_read_and_not_committed_counts_as_reached() -> None:
    log = Log({REQUESTS: OLD}, end=10, committed=7)
    epochs = log.epochs()
    assert await log.starts(epochs, TP(REQUESTS, 0)) == {TP(REQUESTS, 0): 7}
    log.expected = {TP(REQUESTS, 0): 10}
    log.end = 8
    assert await log.starts(epochs, TP(REQUESTS, 0)) == {TP(REQUESTS, 0): 8}
    assert epochs.of(REQUESTS, 0) == 1


async def test_what_retention_took_before_it_was_read_is_a_hole() -> None:
    log = Log({EVENTS: OLD}, earliest=9, end=9, committed=5)
    assert await log.starts(log.epochs(), TP(EVENTS, 0)) == {TP(EVENTS, 0): 9}
    assert log.holes == [1]


async def test_an_added_partition_keeps_its_epoch_with_the_states_of_its_owner() -> None:
    log = Log({EVENTS: OLD})
    await log.starts(log.epochs(), TP(EVENTS, 6))
    assert list(log.stores["users"][2]) == [b"\0log/6"]
    log.facts = TopicFacts("c", {EVENTS: NEW}, log.facts.partitions_of, 4)
    epochs = log.epochs()
    await log.starts(epochs, TP(EVENTS, 6), TP(EVENTS, 2))
    assert (epochs.of(EVENTS, 6), epochs.of(EVENTS, 2)) == (1, 0)


async def test_states_that_were_kept_by_fewer_partitions_are_refused() -> None:
    log = Log({EVENTS: OLD})
    await log.starts(log.epochs(), TP(EVENTS, 0))
    log.facts = TopicFacts("c", {EVENTS: OLD}, dict.fromkeys(_needed(), 6) | {TOPICS.models: 1}, 6)
    with pytest.raises(TopicsNotReady, match="has 6 partitions, but its states were stored with 4"):
        await log.starts(log.epochs(), TP(EVENTS, 0))


async def test_a_broker_that_does_not_answer_is_asked_again_and_a_rebalance_is_passed_on() -> None:
    log = Log({TRANSITIONS: OLD}, end=8)
    log.refuse = ClientError("gone")
    assert await log.starts(log.epochs(), TP(TRANSITIONS, 0)) == {TP(TRANSITIONS, 0): 0}
    log.end, log.refuse = 5, CommitFailedError("moved on")
    with pytest.raises(IllegalStateError):
        await log.starts(log.epochs(), TP(TRANSITIONS, 0))
