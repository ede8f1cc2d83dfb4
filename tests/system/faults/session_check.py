"""The `sessions` topic against a replay of the log: every session of every user, whole and in its last version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.contracts import BadRecord, SessionRecord, Topics, decode_event, decode_session, session_key
from models.replay import replay
from models.sessions import SessionRules
from models.state import HISTORY_EVENTS, HistoryEvent
from stream.cli.audit import _read
from stream.cli.connection import client_options
from stream.intake import home_of, sourced
from stream.log_reader import Record
from stream.origins import Origins, origins_for


async def wrong_sessions(bootstrap: str, topics: Topics) -> list[str]:
    """Say of each session that is missing, wrong or unexpected, how."""
    options, rules = client_options(bootstrap, "hrnn-faults"), SessionRules()
    log = await _read(options, topics.interactions)
    origins = await origins_for(None, topics, options)
    expected: dict[str, SessionRecord] = {}
    for partition, records in log.items():
        for user_id, history in _histories(rules, partition, records, len(log), origins).items():
            expected |= dict(_sessions(rules, user_id, history))
    found = _newest(await _read(options, topics.sessions))
    wrong = [
        f"session {key}: {'missing' if key not in found else _difference(record, found[key])}"
        for key, record in expected.items()
        if found.get(key) != record
    ]
    return wrong + [f"session {key}: no event of the log makes it" for key in found.keys() - expected.keys()]


def _difference(expected: SessionRecord, found: SessionRecord) -> str:
    return f"{len(found.events)} events up to {found.end}, not {len(expected.events)} up to {expected.end}"


def _histories(
    rules: SessionRules, partition: int, records: Sequence[Record], partitions: int, origins: Origins
) -> Mapping[str, list[HistoryEvent]]:
    events = []
    for record in records:
        try:
            event = decode_event(record.value)
        except BadRecord:
            continue
        if origins.of(record) is not None or home_of(event.user_id, partitions) == partition:
            events.append(sourced(record, event, origins))
    return replay(rules, HISTORY_EVENTS, events).histories


def _sessions(rules: SessionRules, user_id: str, history: Sequence[HistoryEvent]) -> list[tuple[str, SessionRecord]]:
    """Cut a history where more than the gap lies between two events, and after so many events."""
    found: list[tuple[str, SessionRecord]] = []
    begin = start = part = 0
    for end in range(1, len(history) + 1):
        ends = end == len(history) or history[end].timestamp - history[end - 1].timestamp > rules.gap_s
        if not ends and end - begin < rules.max_session_events:
            continue
        events = [(e.item_id, e.timestamp, e.event_type, e.event_value) for e in history[begin:end]]
        key = session_key(user_id, history[start].timestamp, part)
        found.append((key, SessionRecord(user_id, key, history[start].timestamp, events[-1][1], events)))
        part = 0 if ends else part + 1
        begin = end
        start = end if ends else start
    return found


def _newest(topic: Mapping[int, Sequence[Record]]) -> dict[str, SessionRecord]:
    return {
        (record.key or b"").decode(): decode_session(record.value)
        for records in topic.values()
        for record in records
        if record.value is not None
    }
