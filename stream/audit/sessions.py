"""Sessions, as training reads them, against those of the replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from models.records import SessionRecord, count_session_events, decode_session, session_key
from models.users.state import HistoryEvent
from stream.audit.events import Replayed
from stream.audit.lists import User
from stream.audit.reading import Log
from stream.audit.report import AuditReport
from stream.source.log_reader import Record


@dataclass
class Expected:
    """One session, or part of a long one, as the log has it."""

    user: User
    start: float
    events: list[HistoryEvent] = field(default_factory=list)
    judged: int = 0  # how many of them must be there


def expected_sessions(replayed: Replayed) -> dict[tuple[int, str], Expected]:
    """Say which sessions the log makes, by partition and key."""
    expected: dict[tuple[int, str], Expected] = {}
    for partition, replay in replayed.by_partition.items():
        end = replayed.ends.get(partition, 0)
        for user_id, history in replay.histories.items():
            for event, (start, part) in zip(history, replay.pieces.get(user_id, ()), strict=True):
                key = partition, session_key(user_id, start, part)
                session = expected.setdefault(key, Expected((partition, user_id), start))
                session.events.append(event)
                session.judged += event.offset < end
    return expected


def check_sessions(log: Log, replayed: Replayed, report: AuditReport) -> None:
    """Compare the record that counts of each session with the events that went to it."""
    expected = expected_sessions(replayed)
    found: dict[tuple[int, str], bytes | None] = {}
    for partition, records in log.records.items():
        for name, value in longest(records).items():
            found[partition, name] = value
    report.sessions = len(expected)
    for key in {**expected, **found}:
        why = _why_wrong(key, expected.get(key), found, replayed, report)
        if why:
            report.wrong_sessions += 1
            report.note(f"session {key[1]} in partition {key[0]}: {why}")


def longest(records: Iterable[Record]) -> dict[str, bytes | None]:
    """Say which record counts under each key: the one with most events since the last null, or the null."""
    values: dict[str, bytes | None] = {}
    counts: dict[str, int] = {}
    for record in records:
        name = (record.key or b"").decode(errors="replace")
        count = _count(record.value)
        # what can't be read is to be seen, unless a session follows
        if count == 0 or count >= counts.get(name, 0):
            values[name], counts[name] = record.value, count
    return values


def _count(value: bytes | None) -> int:
    try:
        return 0 if value is None else count_session_events(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


def _why_wrong(
    key: tuple[int, str],
    wanted: Expected | None,
    records: Mapping[tuple[int, str], bytes | None],
    replayed: Replayed,
    report: AuditReport,
) -> str:
    if key[0] in replayed.trimmed:
        report.skip("sessions", "the first events of their partition are gone from the log")
        return ""
    if key in records and records[key] is None:
        report.skip("sessions", "some were erased")
        return ""
    if (wanted and wanted.user in replayed.erased) or (wanted is None and _user_of(key) in replayed.erased):
        report.skip("sessions", "some were erased")
        return ""
    value = records.get(key)
    if value is None:
        return f"missing, of {wanted.judged} events" if wanted and wanted.judged else ""
    if wanted is None:
        return "no event of the log makes it"
    try:
        found = decode_session(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"can't be read: {error}"
    return difference(key[1], wanted, found)


def difference(name: str, wanted: Expected, found: SessionRecord) -> str:
    """Say how a session differs; it may be behind by the events that are not judged."""
    count = len(found.events)
    if count < wanted.judged:
        return f"{count} events, not {wanted.judged}"
    events = wanted.events[:count]
    if count > len(events):
        return f"{count} events, not {len(events)}"
    right = SessionRecord(
        wanted.user[1],
        name,
        wanted.start,
        events[-1].timestamp if events else wanted.start,
        [(e.item_id, e.timestamp, e.event_type, e.event_value) for e in events],
    )
    return "" if found == right else f"{str(found)[:300]}, not {str(right)[:300]}"


def _user_of(key: tuple[int, str]) -> User:
    return key[0], key[1].rpartition("|")[0]
