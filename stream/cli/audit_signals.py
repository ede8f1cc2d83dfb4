"""Every item's signals against the log: what its events mean to items, counted once, in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from models import signals
from models.contracts import Topics
from models.replay import Replay
from models.signals import LAST_ITEMS, NOTHING, ItemSignals, SignalRecord, SignalRules, Transition, transitions
from stream.log_reader import Record

Mark = tuple[int, int, bool]
"""Source partition, source offset, and whether it says what follows: what tells an item's transitions apart."""

STILL_S = 4.0  # the item stage is a signal interval behind the events: if nothing changes for longer, it is at rest
EVERY_S = 0.5


@dataclass
class SignalReport:
    """What was found."""

    transitions: int = 0
    redelivered: int = 0
    items: int = 0
    behind: int = 0  # on the topic, and not counted yet
    wrong: int = 0
    checked: bool = True  # False: the first transitions are gone already
    examples: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Count what is wrong, and keep an example."""
        self.wrong += 1
        self.examples.append(text)


async def audit_signals(
    read: Callable[[str], Awaitable[Mapping[int, list[Record]]]],
    topics: Topics,
    replays: Mapping[int, Replay],
    rules: SignalRules,
) -> SignalReport:
    """Compare, as far as the item stage has come, once it is at rest."""
    expected = expected_transitions(replays)
    before, since = (-1, -1), time.monotonic()
    while True:
        report = _compare(
            expected,
            await read(topics.transitions),
            await read(topics.item_states),
            await read(topics.signals),
            rules,
        )
        now = report.wrong, report.behind
        if now == (0, 0) or (now == before and time.monotonic() - since > STILL_S):
            return report
        if now != before:
            before, since = now, time.monotonic()
        await asyncio.sleep(EVERY_S)


def expected_transitions(replays: Mapping[int, Replay]) -> dict[str, dict[Mark, Transition]]:
    """Say what the events of a log mean to each item."""
    expected: dict[str, dict[Mark, Transition]] = {}
    for partition, replay in replays.items():
        for history in replay.histories.values():
            for place, event in enumerate(history):
                last = [before.item_id for before in history[max(0, place - len(LAST_ITEMS)) : place]]
                for item_id, one in transitions(last, event.item_id, event.timestamp, partition, event.offset):
                    expected.setdefault(item_id, {})[_mark(one)] = one
    return expected


def _compare(
    expected: Mapping[str, Mapping[Mark, Transition]],
    topic: Mapping[int, list[Record]],
    changelog: Mapping[int, list[Record]],
    sent: Mapping[int, list[Record]],
    rules: SignalRules,
) -> SignalReport:
    report = SignalReport(items=len(expected))
    if any(records and records[0].offset > 0 for records in topic.values()):
        report.checked = False
        return report
    order: dict[str, dict[Mark, tuple[int, Transition]]] = {}  # with the place on the topic
    for records in topic.values():
        for record in records:
            for item_id, one in signals.decode_transitions(record.value or b""):
                of_item = order.setdefault(item_id, {})
                report.redelivered += _mark(one) in of_item
                of_item.setdefault(_mark(one), (record.offset, one))
    held, told = _held(changelog), _told(sent)
    for item_id in {**expected, **order, **held}:
        wanted = expected.get(item_id, {})
        found = {mark: one for mark, (_, one) in order.get(item_id, {}).items()}
        report.transitions += len(wanted)
        if wanted != found:
            odd = [mark for mark in {**wanted, **found} if wanted.get(mark) != found.get(mark)]
            report.note(f"item {item_id}: transitions of {odd[:3]} are not what the log says")
            continue
        state = held.get(item_id)
        applied = -1 if state is None else state.applied_offset
        # in the order of the topic: sums differ in their last bits by the order of their terms
        given = [wanted[mark] for mark, (offset, _) in order[item_id].items() if offset <= applied]
        report.behind += len(wanted) - len(given)
        if state is None:
            continue
        counted = signals.apply(rules, NOTHING, given)
        if _without_offset(state) != _without_offset(counted):
            report.note(f"item {item_id}: signals are {str(state)[:300]}, not {str(counted)[:300]}")
        elif told.get(item_id) != signals.record(rules, item_id, state):
            report.note(f"item {item_id}: what was sent out is not what was counted")
    return report


def _held(changelog: Mapping[int, list[Record]]) -> dict[str, ItemSignals]:
    """Merge a changelog as a restore does: by applied offset, whatever the order."""
    newest: dict[bytes, bytes] = {}
    for records in changelog.values():
        for record in records:
            key, value = record.key or b"", record.value or b""
            if key not in newest or signals.applied_offset(newest[key]) <= signals.applied_offset(value):
                newest[key] = value
    return {key.decode(): signals.decode(value) for key, value in newest.items()}


def _told(topic: Mapping[int, list[Record]]) -> dict[str, SignalRecord]:
    newest = {record.key or b"": record.value or b"" for records in topic.values() for record in records}
    return {key.decode(): signals.decode_record(value) for key, value in newest.items()}


def _without_offset(state: ItemSignals) -> tuple[object, ...]:
    """Leave out what hangs on how often transitions were delivered; successors count in their order, too."""
    return (
        *(state.occurrences, state.follows, state.at, state.counts, state.landmark, list(state.successors.items())),
        state.half_lives_s,
    )


def _mark(transition: Transition) -> Mark:
    return transition.partition, transition.offset, transition.successor is not None
