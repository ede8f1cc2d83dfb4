"""The largest record of each kind that intake's limits let come about, as bytes: each fits a broker's default limit."""

from __future__ import annotations

import msgspec
import pytest

from models.items import signals
from models.items.signals import SLACK, ItemSignals, SignalRecord, SignalRules, Transition
from models.records import (
    BROKER_MAX_BYTES,
    MAX_EVENT_TYPE_CHARS,
    MAX_EVENT_VALUE,
    MAX_ID_CHARS,
    MAX_RECORD_BYTES,
    MAX_REQUESTED_ITEMS,
    RankedItem,
    Recommendation,
    SessionRecord,
    Source,
    encode,
    session_key,
)
from models.sessions import SessionRules
from models.users import state
from models.users.earlier import EARLIER_ITEMS
from models.users.state import EMITTED_ITEMS, HISTORY_EVENTS, HistoryEvent, UserState

ESCAPED = "\x01"  # 6 bytes in JSON, \u0001: the most that a character takes there
WIDE = "\U0001f600"  # 4 bytes in UTF-8, which MessagePack keeps
LAST_OFFSET = 2**63 - 2
PARTITIONS = 1000  # the most that HRNN_PARTITIONS takes
TIME = 99_999_999_999.99997
VALUE = -MAX_EVENT_VALUE * (1 - 2**-53)
WEIGHT = 1.2345678901234567e-300
HIDDEN_BYTES = 4 * 4096
RULES = SignalRules()


def ids(character: str, count: int) -> list[str]:
    """Make ids of the greatest length, each another."""
    return [f"{number:04}" + character * (MAX_ID_CHARS - 4) for number in range(count)]


def largest_state(character: str) -> UserState:
    event_type = character * MAX_EVENT_TYPE_CHARS
    return UserState(
        LAST_OFFSET,
        dict.fromkeys(range(2**31 - PARTITIONS, 2**31), LAST_OFFSET),
        [HistoryEvent(item_id, TIME, event_type, VALUE, LAST_OFFSET) for item_id in ids(character, HISTORY_EVENTS)],
        TIME,
        2**31,
        HISTORY_EVENTS,
        b"\xff" * HIDDEN_BYTES,
        2**31,
        "v" * MAX_ID_CHARS,
        ids(character, EMITTED_ITEMS),
        2**62,
        dict.fromkeys(ids(character, EARLIER_ITEMS), 2**62),
        2**62,
    )


def largest_session(character: str) -> SessionRecord:
    user_id, event_type = character * MAX_ID_CHARS, character * MAX_EVENT_TYPE_CHARS
    return SessionRecord(
        user_id,
        session_key(user_id, TIME, 2**31),
        TIME,
        TIME,
        [(item_id, TIME, event_type, VALUE) for item_id in ids(character, SessionRules().max_session_events)],
    )


def largest_list(character: str) -> Recommendation:
    user_id = character * MAX_ID_CHARS
    return Recommendation(
        "r" * 36,
        user_id,
        [RankedItem(item_id, -1.2345678901234567e-300) for item_id in ids(character, MAX_REQUESTED_ITEMS)],
        "v" * MAX_ID_CHARS,
        session_key(user_id, TIME, 2**31),
        TIME,
        TIME,
        Source("t" * 249, 2**31, LAST_OFFSET),
        character * MAX_ID_CHARS,
    )


def largest_item(character: str) -> ItemSignals:
    successors = dict.fromkeys(ids(character, int(SLACK * RULES.max_successors) + 1), WEIGHT)
    applied = dict.fromkeys(range(2**31 - PARTITIONS, 2**31), LAST_OFFSET)
    counts = [WEIGHT] * len(RULES.counted_half_lives_s)
    return ItemSignals(LAST_OFFSET, applied, applied, TIME, counts, TIME, successors, RULES.all_half_lives_s)


def largest_signals(character: str) -> SignalRecord:
    successors = [(item_id, WEIGHT) for item_id in ids(character, RULES.max_successors)]
    counts = [WEIGHT] * len(RULES.counted_half_lives_s)
    return SignalRecord(character * MAX_ID_CHARS, TIME, counts, successors, RULES.all_half_lives_s)


def largest_transitions(character: str) -> list[bytes]:
    (other,) = ids(character, 1)
    one = Transition(TIME, 2**31 - 1, LAST_OFFSET, other, WEIGHT)
    return signals.encode_transitions([(item_id, one) for item_id in ids(character, 2000)])


@pytest.mark.parametrize("character", [ESCAPED, WIDE, "\\"], ids=["escaped", "wide", "backslash"])
def test_each_record_fits_a_broker_of_default_limits(character: str) -> None:
    sizes = {
        "state": len(state.encode(largest_state(character))),
        "session": len(encode(largest_session(character))),
        "list": len(encode(largest_list(character))),
        "item": len(signals.encode(largest_item(character))),
        "signals": len(signals.encode_record(largest_signals(character))),
        "transitions": max(map(len, largest_transitions(character))),
    }
    # a key is a user's, an item's or a session's
    longest_key = len(session_key(character * MAX_ID_CHARS, TIME, 2**31).encode())
    assert max(sizes.values()) + longest_key < MAX_RECORD_BYTES, sizes
    assert MAX_RECORD_BYTES < BROKER_MAX_BYTES


def test_no_character_takes_more_bytes_than_those_tried_here() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert max(len(msgspec.json.encode(character)) - 2 for character in characters) == 6
    assert len(msgspec.json.encode(ESCAPED)) - 2 == 6
    assert max(len(character.encode()) for character in characters) == len(WIDE.encode()) == 4


def test_a_state_with_endless_event_types_of_older_releases_fits_again() -> None:
    event = HistoryEvent("i", TIME, "t" * 60_000, VALUE, 7)
    old = msgspec.structs.replace(largest_state("x"), history=[event] * 12)
    read = state.decode(state.encode(old))
    assert {one.event_type for one in read.history} == {"t" * MAX_EVENT_TYPE_CHARS}
    assert msgspec.structs.replace(read, history=old.history) == old
    within = largest_state(WIDE)
    assert state.decode(state.encode(within)) == within
