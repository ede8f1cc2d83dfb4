"""The events of the log, replayed: what each record must have caused, and what each user must have come to."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from models.oracle import Outcome, Replay, replay
from models.records import BadRecord, rec_id
from models.sessions import SessionRules
from models.users.state import HISTORY_EVENTS, UserState
from models.users.walk import SourcedEvent
from stream.audit.lists import Lists, Place, User
from stream.audit.reading import Cut, Log
from stream.audit.report import AuditReport
from stream.source.log_reader import Record
from stream.stages.intake import event_of, home_of, sourced
from stream.stages.origins import Origins

FAILED = "failed"  # the reason of a dead letter
COMPACTED = (
    "compaction has taken lists of users who have newer ones: audit within a day, or raise min.compaction.lag.ms"
)


@dataclass
class Replayed:
    """The whole log by partition; of some users it has not everything (see `known`)."""

    rules: SessionRules
    origins: Origins
    kept_by: int
    """How many partitions states are kept by: a user's home is one of them."""
    by_partition: dict[int, Replay] = field(default_factory=dict)
    by_user: dict[User, list[SourcedEvent]] = field(default_factory=dict)
    landed: dict[tuple[int, int], int] = field(default_factory=dict)
    """Events that were sent on, by where they came in first: their offset in their user's own partition."""
    ends: dict[int, int] = field(default_factory=dict)
    """By partition: the first offset that is not judged."""
    outcomes: dict[tuple[int, int], tuple[SourcedEvent, Outcome]] = field(default_factory=dict)
    """By partition and offset, of every event that stands where its user is at home."""
    failed: set[tuple[int, int]] = field(default_factory=set)
    """Events that no worker could decide, by partition and offset."""
    trimmed: set[int] = field(default_factory=set)
    erased: set[User] = field(default_factory=set)

    def known(self, user: User) -> bool:
        """Tell whether all that a user ever did is in the log, and none of it was erased."""
        return user[0] not in self.trimmed and user not in self.erased

    def judged(self, user: User) -> int:
        """Count the user's applied events that lie before the cut."""
        end, history = self.ends.get(user[0], 0), self.by_partition[user[0]].histories.get(user[1], [])
        return sum(event.offset < end for event in history)

    def up_to(self, user: User, offset: int) -> tuple[UserState | None, Replay]:
        """Replay one user's events up to an offset, which need not be the last one."""
        events = [sourced for sourced in self.by_user.get(user, []) if sourced.offset <= offset]
        alone = replay(self.rules, HISTORY_EVENTS, events)
        return alone.states.get(user[1]), alone


def replay_log(
    log: Log,
    rules: SessionRules,
    origins: Origins,
    ends: Mapping[int, int],
    kept_by: int,
    failed: Container[Place] = frozenset(),
) -> Replayed:
    """Replay every partition, each user's events where the user is at home, but those that no worker could decide."""
    result = Replayed(rules, origins, kept_by, ends=dict(ends), trimmed=log.trimmed)
    for partition, records in log.records.items():
        events: list[SourcedEvent] = []
        places: list[tuple[int, int]] = []
        epoch = log.epochs.get(partition, 0)
        for record in records:
            origin = origins.of(record)
            if origin:
                result.landed.setdefault((origin.source.partition, origin.source.offset), record.offset)
            try:
                event = event_of(record)
            except BadRecord:
                continue
            if origin is None and home_of(event.user_id, kept_by) != partition:
                continue  # it was sent on, and is replayed where it landed
            if (record.topic, partition, record.offset) in failed:
                result.failed.add((partition, record.offset))
                continue
            given = sourced(record, event, origins, epoch)
            events.append(given)
            places.append((partition, record.offset))
            result.by_user.setdefault((partition, event.user_id), []).append(given)
        result.by_partition[partition] = replay(rules, HISTORY_EVENTS, events)
        for place, given, outcome in zip(places, events, result.by_partition[partition].outcomes, strict=True):
            result.outcomes[place] = given, outcome
    return result


def check_events(
    log: Log, cut: Cut, replayed: Replayed, lists: Lists, dead: Mapping[Place, str], report: AuditReport
) -> None:
    """See that each judged record has led to a list, a dead letter or a copy elsewhere."""
    for partition, records in log.records.items():
        for record in records:
            if not cut.before(record):
                continue
            report.events += replayed.origins.of(record) is None
            place = record.topic, partition, record.offset
            try:
                event = event_of(record)
            except BadRecord as error:
                if dead.get(place) != error.reason:
                    report.lost += 1
                    found = dead.get(place)
                    report.note(f"record {partition}/{record.offset} ({error.reason}) is a dead letter for {found}")
                continue
            if (partition, record.offset) in replayed.failed:
                report.failed += 1
                continue
            if (partition, record.offset) not in replayed.outcomes:
                _check_landing(record, event.user_id, replayed, report)
                continue
            _check_outcome(place, replayed, lists, dead, report)


def _check_landing(record: Record, user_id: str, replayed: Replayed, report: AuditReport) -> None:
    report.forwarded += 1
    if (record.partition, record.offset) not in replayed.landed:
        report.lost += 1
        report.note(f"event {record.partition}/{record.offset} of user {user_id} never arrived at its home")


def _check_outcome(
    place: Place,
    replayed: Replayed,
    lists: Lists,
    dead: Mapping[Place, str],
    report: AuditReport,
) -> None:
    _, partition, offset = place
    given, outcome = replayed.outcomes[partition, offset]
    user, origin = (partition, given.event.user_id), given.origin
    # where a log got shorter, what stands before the loss was applied in an earlier epoch
    has_list = any(
        rec_id(origin.topic, origin.partition, origin.offset, epoch) in lists.of_events
        for epoch in range(origin.epoch + 1)
    )
    if partition in replayed.trimmed:  # whether it is late hangs on events that are gone
        report.applied += has_list
        report.late += not has_list
        if not has_list and place not in dead:
            _lose(
                user,
                f"event {partition}/{offset} of user {user[1]} has neither a list nor a dead letter",
                replayed,
                lists,
                report,
            )
        return
    if outcome in (Outcome.LATE, Outcome.FUTURE):
        report.late += outcome is Outcome.LATE
        if place not in dead and user not in replayed.erased:
            report.lost += 1
            report.note(f"{outcome.value} event {partition}/{offset} is not among the dead letters")
        return
    report.applied += outcome is Outcome.APPLIED
    if place in dead:
        report.refused_too += 1
        report.note(f"event {partition}/{offset} is applied and a dead letter: {dead[place]}")
    if not has_list:
        _lose(user, f"event {origin.partition}/{origin.offset} of user {user[1]} has no list", replayed, lists, report)


def _lose(user: User, what: str, replayed: Replayed, lists: Lists, report: AuditReport) -> None:
    """Count a list as lost, unless an erasure or compaction may have taken it."""
    if user in replayed.erased:
        return
    if user in lists.compacted:
        report.skip("lists", COMPACTED)
        return
    report.lost += 1
    report.note(what)


def dead_letters(log: Log) -> dict[Place, str]:
    """Read which records were refused, and for what reason; other headers may hold anything, or nothing."""
    dead: dict[Place, str] = {}
    for records in log.records.values():
        for record in records:
            headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
            partition, offset = headers.get("source-partition", ""), headers.get("source-offset", "")
            if partition.isdecimal() and offset.isdecimal():
                place = headers.get("source-topic", ""), int(partition), int(offset)
                dead[place] = headers.get("reason", "")
    return dead


def failed_events(dead: Mapping[Place, str], lists: Lists) -> set[Place]:
    """Find the events that are dead letters since the decision failed at them, unless it did not at another time."""
    return {place for place, reason in dead.items() if reason == FAILED and rec_id(*place) not in lists.of_events}
