"""Every item's signals against the log: what its events mean to items, counted once, in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.items import signals
from models.items.signals import (
    LAST_ITEMS,
    NOTHING,
    BadSignals,
    ItemSignals,
    SignalRecord,
    SignalRules,
    Transition,
    transitions,
)
from stream.audit.events import Replayed
from stream.audit.reading import Cut, Log
from stream.audit.report import AuditReport
from stream.audit.states import merged
from stream.stages.intake import home_of

Mark = tuple[int, int, bool]
"""Source partition, source offset, and whether it says what follows: what tells an item's transitions apart."""


@dataclass
class Delivered:
    """Transitions as they stand on their topic, by item, in its order."""

    offsets: dict[str, dict[Mark, int]] = field(default_factory=dict)
    made: dict[str, dict[Mark, Transition]] = field(default_factory=dict)


def expected_transitions(replayed: Replayed) -> dict[str, dict[Mark, Transition]]:
    """Say what the events of a log mean to each item."""
    expected: dict[str, dict[Mark, Transition]] = {}
    for partition, replay in replayed.by_partition.items():
        for user_id, history in replay.histories.items():
            if not replayed.known((partition, user_id)):
                continue
            for place, event in enumerate(history):
                last = [before.item_id for before in history[max(0, place - len(LAST_ITEMS)) : place]]
                for item_id, one in transitions(last, event.item_id, event.timestamp, partition, event.offset):
                    expected.setdefault(item_id, {})[_mark(one)] = one
    return expected


def delivered(log: Log) -> Delivered:
    """Read the transitions of a topic; what can't be read is a dead letter of the item stage's."""
    result = Delivered()
    for records in log.records.values():
        for record in records:
            try:
                made = signals.decode_transitions(record.value or b"")
            except BadSignals:
                continue
            for item_id, one in made:
                result.offsets.setdefault(item_id, {}).setdefault(_mark(one), record.offset)
                result.made.setdefault(item_id, {}).setdefault(_mark(one), one)
    return result


class SignalCheck:
    """Compares transitions, states and records of items, as far as the item stage has come."""

    def __init__(
        self,
        replayed: Replayed,
        transition_log: Log,
        changelog: Log,
        signal_log: Log,
        cut: Cut,
        rules: SignalRules,
        report: AuditReport,
    ) -> None:
        """`cut` is of the topic of transitions; the logs are read in the order signals, changelog, transitions."""
        self._replayed = replayed
        self._transitions = transition_log
        self._expected = expected_transitions(replayed)
        self._delivered = delivered(transition_log)
        self._held = self._read_held(changelog)
        self._told = self._read_told(signal_log)
        self._cut = cut
        self._rules = rules
        self._report = report
        self._whole = not (replayed.trimmed or replayed.erased)

    def check(self) -> None:
        """Compare every item that any of the topics names."""
        report = self._report
        report.items = len(self._expected)
        if not self._whole:
            report.skip("transitions", "of users whose events are gone, or who were erased")
        if self._transitions.trimmed:
            report.skip("signals", "the first transitions are gone: what they counted is not known")
        for item_id in {**self._expected, **self._delivered.made, **self._held, **self._told}:
            if why := self._why_wrong(item_id):
                report.wrong_signals += 1
                report.note(f"item {item_id}: {why}")
        if report.transitions_behind and not self._cut.running:
            report.skip(
                "signals", f"{report.transitions_behind} transitions are not counted, and no worker is there to"
            )

    def _why_wrong(self, item_id: str) -> str:
        wanted, made = self._expected.get(item_id, {}), self._delivered.made.get(item_id, {})
        state, told = self._held.get(item_id), self._told.get(item_id)
        self._report.transitions += len(wanted)
        partition = home_of(item_id, self._replayed.kept_by)
        if self._transitions.trimmed:
            return self._why_told_wrong(item_id, partition, state, told, [])
        if not made and (state or told):
            return "it has signals, and never occurred"
        if why := self._why_transitions_wrong(wanted, made):
            return why
        applied = -1 if state is None else state.applied_offset
        offsets = self._delivered.offsets.get(item_id, {})
        # in the order of the topic: sums differ in their last bits by the order of their terms
        given = [made[mark] for mark, offset in offsets.items() if offset <= applied]
        left = [offset for offset in offsets.values() if offset > applied]
        behind = [offset for offset in left if offset < self._cut.end(self._transitions_topic, partition)]
        self._report.transitions_behind += len(behind)
        if behind and self._overdue(partition, behind[0]):
            return f"transition {partition}/{behind[0]} is not counted"
        if state is None:
            return "its record on `signals` is of no state" if told else ""
        counted = signals.apply(self._rules, NOTHING, given)
        if _without_offset(state) != _without_offset(counted):
            return f"signals are {str(state)[:300]}, not {str(counted)[:300]}"
        return self._why_told_wrong(item_id, partition, state, told, given)

    @property
    def _transitions_topic(self) -> str:
        return next((record.topic for records in self._transitions.records.values() for record in records), "")

    def _overdue(self, partition: int, offset: int) -> bool:
        """Tell whether the item stage says that it has counted a transition, or has had time to."""
        committed = self._cut.committed_of(self._transitions_topic)
        return offset < committed.get(partition, 0) or self._cut.running

    def _why_transitions_wrong(self, wanted: Mapping[Mark, Transition], made: Mapping[Mark, Transition]) -> str:
        """Compare what stands on the topic with what the log means; what is not judged may be missing."""
        odd = []
        for mark in {**wanted, **made}:
            partition, offset, _ = mark
            if mark in wanted and mark not in made and offset >= self._replayed.ends.get(partition, 0):
                continue
            if mark not in wanted and not self._known(partition, offset):
                continue
            if wanted.get(mark) != made.get(mark):
                odd.append(mark)
        return f"transitions of {odd[:3]} are not what the log says" if odd else ""

    def _known(self, partition: int, offset: int) -> bool:
        """Tell whether the log says what an event means; of a user who was erased, or whose events are gone, not."""
        if partition in self._replayed.trimmed:
            return False
        found = self._replayed.outcomes.get((partition, offset))
        return found is None or self._replayed.known((partition, found[0].event.user_id))

    def _why_told_wrong(
        self,
        item_id: str,
        partition: int,
        state: ItemSignals | None,
        told: SignalRecord | None,
        given: Sequence[Transition],
    ) -> str:
        """Compare what was sent to all workers with what was counted, or was before if more was counted meanwhile."""
        if state is None or told == signals.record(self._rules, item_id, state):
            return ""
        if self._cut.running and self._transitions.ends[partition] > self._cut.end(self._transitions_topic, partition):
            if told is None:
                return ""
            for count in range(len(given), 0, -1):
                before = signals.apply(self._rules, NOTHING, given[:count])
                if told == signals.record(self._rules, item_id, before):
                    return ""
        return "what was sent out is not what was counted"

    def _read_held(self, changelog: Log) -> dict[str, ItemSignals]:
        found: dict[str, ItemSignals] = {}
        for records in changelog.records.values():
            for key, value in merged(records, applied_offset).items():
                if value is None:
                    continue
                try:
                    found[key.decode()] = signals.decode(value)
                except (BadSignals, UnicodeDecodeError) as error:
                    self._unreadable(f"state of item {key!r}: {error}")
        return found

    def _read_told(self, log: Log) -> dict[str, SignalRecord]:
        newest = {record.key or b"": record.value for records in log.records.values() for record in records}
        found: dict[str, SignalRecord] = {}
        for key, value in newest.items():
            if value is None:
                continue
            try:
                found[key.decode()] = signals.decode_record(value)
            except (BadSignals, UnicodeDecodeError) as error:
                self._unreadable(f"record of item {key!r}: {error}")
        return found

    def _unreadable(self, what: str) -> None:
        self._report.wrong_signals += 1
        self._report.note(what)


def applied_offset(value: bytes) -> int:
    """Read which offset an item's state has applied; -1 of what is no state."""
    try:
        return signals.applied_offset(value)
    except BadSignals:
        return -1


def _without_offset(state: ItemSignals) -> tuple[object, ...]:
    """Leave out what hangs on how often transitions were delivered; successors count in their order, too."""
    return (
        *(state.occurrences, state.follows, state.at, state.counts, state.landmark, list(state.successors.items())),
        state.half_lives_s,
    )


def _mark(transition: Transition) -> Mark:
    return transition.partition, transition.offset, transition.successor is not None
