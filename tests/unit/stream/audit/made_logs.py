"""The topics of a small deployment, made by the code that workers run, without a broker: then one record is changed."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from models import weights
from models.config import ModelConfig
from models.encoders.hrnn import HRNNConfig
from models.items import signals
from models.items.signal_reading import SignalReading
from models.items.signal_table import SignalTable
from models.items.signals import NOTHING, SignalRules
from models.recommending.availability import Availability
from models.recommending.popularity import Popularity
from models.recommending.recommender import Decision, Recommender
from models.recommending.scoring import Moment
from models.records import (
    Event,
    Recommendation,
    Request,
    SessionRecord,
    Source,
    Topics,
    decode_recommendation,
    decode_session,
    encode,
)
from models.sessions import SessionRules
from models.users import state
from models.users.state import UserState
from models.users.walk import SourcedEvent, SourcedRequest
from models.weights import ServingModel
from stream.audit import AuditReport
from stream.audit.reading import Cut, Log
from stream.audit.run import Logs, Settings, compare
from stream.source.log_reader import Record
from stream.stages.intake import home_of
from tests.made import made_model

TOPICS, PARTITIONS, ITEMS = Topics(), 2, 30
HOMES = {f"u{n}": home_of(f"u{n}", 2) for n in range(20)}
KNOWN = [[user for user, home in HOMES.items() if home == partition] for partition in (0, 1)]
NAMED = [*KNOWN[0][:4], *KNOWN[1][:2]]
STRANGER = KNOWN[0][4]  # who asks, and never does anything
START = 1_000_000.0
EVERY_S = 67.0  # between two events
BATCH = 8
NAMES = (
    *("interactions", "requests", "recommendations", "dead_letters", "sessions"),
    *("user_states", "item_states", "transitions", "signals", "models", "items"),
)


@dataclass
class Made:
    """Records by topic and partition; offsets are positions, until somebody takes records out."""

    records: dict[str, dict[int, list[Record]]] = field(default_factory=dict)
    begins: dict[tuple[str, int], int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    uncommitted: bool = False
    running: bool = False

    def __post_init__(self) -> None:
        if self.records:
            return
        for name in NAMES:
            count = 1 if name == "models" else PARTITIONS
            self.records[name] = {partition: [] for partition in range(count)}

    def append(
        self, name: str, partition: int, key: bytes | None, value: bytes | None, at: float, headers: Any = ()
    ) -> int:
        """Write a record at the end -> its offset."""
        place = name, partition
        offset = self.ends.get(place, 0)
        self.records[name][partition].append(record(getattr(TOPICS, name), partition, offset, key, value, at, headers))
        self.ends[place] = offset + 1
        return offset

    def take_out(self, name: str, partition: int, count: int = 1) -> list[Record]:
        """Take the first records away, as a retention time does."""
        gone = self.records[name][partition][:count]
        del self.records[name][partition][:count]
        self.begins[name, partition] = gone[-1].offset + 1
        return gone

    def change(self, name: str, partition: int, index: int, **more: Any) -> None:
        """Put other content in the place of a record."""
        held = self.records[name][partition]
        held[index] = replace(held[index], **more)

    def change_list(self, index: int, **more: Any) -> Recommendation:
        """Change fields of a list of partition 0 -> the list as it was."""
        given = decode_recommendation(self.records["recommendations"][0][index].value)
        self.change("recommendations", 0, index, value=encode(msgspec.structs.replace(given, **more)))
        return given

    def change_session(self, index: int, **more: Any) -> SessionRecord:
        """Change fields of a session's newest record in partition 0 -> the record as it was."""
        key = self.records["sessions"][0][index].key
        newest = max(n for n, each in enumerate(self.records["sessions"][0]) if each.key == key)
        found = decode_session(self.records["sessions"][0][newest].value)
        self.change("sessions", 0, newest, value=encode(msgspec.structs.replace(found, **more)))
        return found

    def compared(self, **settings: Any) -> AuditReport:
        """Audit."""
        logs = {
            name: Log(
                of_topic,
                {partition: self.begins.get((name, partition), 0) for partition in of_topic},
                {partition: self.ends.get((name, partition), 0) for partition in of_topic},
            )
            for name, of_topic in self.records.items()
        }
        cut, of_transitions = self.cut("interactions", "requests"), self.cut("transitions")
        return compare(Logs(**logs), TOPICS, cut, of_transitions, Settings(**settings))

    def cut(self, *names: str) -> Cut:
        """Judge everything."""
        ends = {
            TopicPartition(getattr(TOPICS, name), partition): self.ends.get((name, partition), 0)
            for name in names
            for partition in range(PARTITIONS)
        }
        return Cut(ends, {} if self.uncommitted else dict(ends), running=self.running)


def record(
    topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None, at: float, headers: Any = ()
) -> Record:
    """Make a record as aiokafka gives it."""
    sizes = len(key or b""), len(value or b"")
    return ConsumerRecord(topic, partition, offset, int(at * 1000), 0, key, value, None, *sizes, tuple(headers))


def model_of(
    version: str, rules: SignalRules | None, seed: int = 0, kind: type[ModelConfig] = HRNNConfig
) -> tuple[ServingModel, list[tuple[bytes, bytes]]]:
    """Make a model -> it, and its records of the models topic."""
    manifest, blob = made_model(ITEMS, version=version, rules=rules, seed=seed, hidden=7, kind=kind)
    records = [(weights.chunk_key(version, number), chunk) for number, chunk in enumerate(weights.split(blob))]
    return weights.unpack(manifest, blob), [*records, (weights.manifest_key(version), msgspec.json.encode(manifest))]


class Play:
    """Workers' code on events, batch by batch; signals are taken over after every second one, trends read later."""

    def __init__(
        self,
        rules: SignalRules | None = None,
        *,
        popular: bool = False,
        recipes: Sequence[tuple[str, str | None]] = (),
        items: str = "",
        kind: type[ModelConfig] = HRNNConfig,
    ) -> None:
        self.made = Made()
        self._item_records = items  # withdraw items and announce them again: "known" to the worker, or "ignored"
        self._availability = Availability()
        self._recipes = recipes  # and windows, that are asked for after every batch, beside `next`
        self.model: ServingModel | None = None
        self._recommender, self._popularity = Recommender(SessionRules()), Popularity()
        self._states: dict[tuple[int, str], UserState] = {}
        self._items: dict[str, signals.ItemSignals] = {}
        self._rules = rules or SignalRules()
        self._moment: Moment | None = None
        self._table = SignalTable(self._rules, [])
        if not popular:
            self.model, records = model_of("v1", rules, kind=kind)
            for key, value in records:
                self.made.append("models", 0, key, value, START)
            self._table = SignalTable(self._rules, self.model.catalogue.item_ids)
        self._table.offsets = (0,) * PARTITIONS
        self._with_signals = rules is not None
        self._read_trends(START)

    def _read_trends(self, at: float) -> None:
        if self.model is not None and self._with_signals:
            self._moment = Moment.of(self.model, self._table, at)

    def play(self, count: int, seed: int = 0) -> None:
        """Send events of some users, and decide each batch; a request comes after every batch, a minute later."""
        rnd, sent = random.Random(seed), 0
        for number in range(count // BATCH):
            events = []
            for _ in range(BATCH):
                at = START + sent * EVERY_S
                user = rnd.choice(NAMED)
                event = Event(user, f"item-{rnd.randrange(ITEMS + 2)}", at, "click", 1.0)
                events.append(self._send(event, at))
                sent += 1
            if self._item_records:
                self._change_item(number, at)
            self._decide(events, at + 1.0)
            if number % 2:
                self._take_over(at + 2.0, trends=number % 4 == 1)
            self._ask(rnd, at + 100.0)
            for recipe, window in self._recipes:
                self._ask(rnd, at + 100.0, recipe, window)

    def _send(self, event: Event, at: float) -> SourcedEvent:
        partition = home_of(event.user_id, PARTITIONS)
        offset = self.made.append("interactions", partition, event.user_id.encode(), encode(event), at)
        source = Source(TOPICS.interactions, partition, offset)
        return SourcedEvent(event, partition, offset, at, source)

    def _change_item(self, number: int, at: float) -> None:
        item_id = f"item-{number * 7 % 5}"
        value = [None, b'{"item_id":"%s"}' % item_id.encode(), b"?"][number % 3 if number > 5 else 0]
        self.made.append("items", home_of(item_id, PARTITIONS), item_id.encode(), value, at)
        if self._item_records == "known":
            unavailable = self._availability.unavailable - {item_id} | ({item_id} if value is None else set())
            offsets = tuple(self.made.ends.get(("items", partition), 0) for partition in range(PARTITIONS))
            self._availability = Availability(unavailable, offsets)

    def _decide(self, events: list[SourcedEvent], at: float) -> None:
        made = self.made
        decision = self._recommender.decide(
            *(self.model, self._popularity, self._states, events, at, self._moment), availability=self._availability
        )
        for item_id, times in Counter(each.event.item_id for each in events).items():
            self._popularity.add(item_id, times)
        self._states |= decision.states
        for _, given in decision.recommendations:
            made.append("recommendations", given.source.partition, given.user_id.encode(), encode(given), at)
        for key, session in decision.sessions.items():
            made.append("sessions", home_of(session.user_id, PARTITIONS), key.encode(), encode(session), at)
        for (partition, user_id), after in decision.states.items():
            made.append("user_states", partition, user_id.encode(), state.encode(after), at)
        self._count(decision, at)

    def _count(self, decision: Decision, at: float) -> None:
        by_partition: dict[int, list[tuple[str, signals.Transition]]] = {}
        for one in decision.transitions:
            by_partition.setdefault(home_of(one[0], PARTITIONS), []).append(one)
        for partition, ones in by_partition.items():
            for value in signals.encode_transitions(ones):
                offset = self.made.append("transitions", partition, None, value, at)
                of_items: dict[str, list[signals.Transition]] = {}
                for item_id, one in signals.decode_transitions(value):
                    of_items.setdefault(item_id, []).append(one)
                for item_id, given in of_items.items():
                    held = self._items.get(item_id, NOTHING)
                    after = self._items[item_id] = signals.apply(self._rules, held, given, offset)
                    told = signals.encode_record(signals.record(self._rules, item_id, after))
                    self.made.append("item_states", partition, item_id.encode(), signals.encode(after), at)
                    self.made.append("signals", partition, item_id.encode(), told, at)

    def _take_over(self, at: float, *, trends: bool) -> None:
        for partition, records in self.made.records["signals"].items():
            some = [each for each in records if each.offset >= self._table.offsets[partition]]
            self._table.put([signals.decode_record(each.value) for each in some])
            offsets = [*self._table.offsets]
            offsets[partition] = self.made.ends.get(("signals", partition), 0)
            self._table.offsets = tuple(offsets)
        if trends:
            self._read_trends(at)

    def _ask(self, rnd: random.Random, at: float, recipe: str | None = None, window: str | None = None) -> None:
        name = f"r{at}" if recipe is None else f"{recipe} {window} {at}"
        request = Request(name, rnd.choice([*NAMED, STRANGER]), None, 5, recipe, window)
        partition = home_of(request.user_id, PARTITIONS)
        offset = self.made.append("requests", partition, request.user_id.encode(), encode(request), at)
        sourced = SourcedRequest(request, partition, at, Source(TOPICS.requests, partition, offset))
        (answer,) = self._recommender.answer(
            *(self.model, self._popularity, self._states, [sourced], at + 0.1, self._moment),
            signals=SignalReading(self._table, at),
            availability=self._availability,
        )
        self.made.append("recommendations", partition, request.user_id.encode(), encode(answer), at)


def made(
    rules: SignalRules | None = None,
    *,
    popular: bool = False,
    recipes: tuple[tuple[str, str | None], ...] = (),
    items: str = "",
    kind: type[ModelConfig] = HRNNConfig,
) -> Made:
    """Give what became of 240 events under one model, or under none; each time for its own use."""
    right = _played(rules, popular, recipes, items, kind)
    records = {name: {p: list(held) for p, held in of_topic.items()} for name, of_topic in right.records.items()}
    return Made(records, dict(right.begins), dict(right.ends))


@functools.cache
def _played(
    rules: SignalRules | None,
    popular: bool,
    recipes: tuple[tuple[str, str | None], ...],
    items: str,
    kind: type[ModelConfig],
) -> Made:
    play = Play(rules, popular=popular, recipes=recipes, items=items, kind=kind)
    play.play(240)
    return play.made
