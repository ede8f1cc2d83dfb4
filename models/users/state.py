"""A user's state and its bytes: all that the stream keeps of a user, in one value.

Item ids, not rows, so that a state outlives a vocabulary. The header can be read alone: restores compare the applied
offsets of millions of states and decode none.
"""

from __future__ import annotations

import struct

import msgspec

from models.records import MAX_EVENT_TYPE_CHARS

STATE_VERSION = 1
HISTORY_EVENTS = 100
"""How many events of a user are retained: what own histories and the replay after a model swap are made of."""

EMITTED_ITEMS = 10
"""How many places of the last list are kept, to count the live hit-rate at 10."""

_HEADER = struct.Struct("<Bq")


_LARGE_BYTES = 64 * 1024
"""A state up to here can't hold event types so long that its next record, however it grows, is too large to write."""


class BadState(ValueError):
    """Bytes that hold no state, or one of a version that this code does not know."""


class HistoryEvent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One event as it was applied; `timestamp` is never before the one of the event before."""

    item_id: str
    timestamp: float
    event_type: str | None
    event_value: float | None
    offset: int
    """Its position: offset and epoch of the log, see `contracts.position`."""


class UserState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One user, up to the event at `applied_offset` of the user's own partition; its offsets are positions."""

    applied_offset: int
    origins: dict[int, int]
    """Partition that forwarded events of this user here -> the highest offset of it that was applied."""
    history: list[HistoryEvent]
    """The newest last: it is the pending item, whose following gap is not known yet."""
    session_start: float
    session_part: int
    session_len: int
    """The open session's record is `history[-session_len:]`."""
    h: bytes
    """float32, little-endian: the hidden state after all events but the pending one; b"" is zeros."""
    h_events: int
    """How many events are in `h`; more than are retained once the history has been cut."""
    model_version: str
    """The weights that `h` belongs to; "" for none."""
    emitted: list[str]
    events: int
    """How many events were ever applied."""
    earlier: dict[str, int] = {}
    """What fell out of `history`: how often each item was had (see models/users/earlier.py)."""
    earlier_events: int = 0
    """How many events fell into `earlier`: fewer than are missing from `history` in what older releases have cut."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UserState)


def encode(state: UserState) -> bytes:
    """Write a state: its version, its applied offset (both to be read alone), itself."""
    buffer = bytearray(_HEADER.pack(STATE_VERSION, state.applied_offset))
    _encoder.encode_into(state, buffer, _HEADER.size)
    return bytes(buffer)


def decode(value: bytes) -> UserState:
    """Read a state back; raises BadState for anything else."""
    offset = applied_offset(value)
    try:
        state = _decoder.decode(memoryview(value)[_HEADER.size :])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadState(f"a state of {len(value)} bytes can't be read: {error}") from None
    if state.applied_offset != offset:
        raise BadState(f"the header says offset {offset}, the state {state.applied_offset}")
    return state if len(value) <= _LARGE_BYTES else _within_limits(state)


def applied_offset(value: bytes) -> int:
    """Read a state's applied offset without decoding it; raises BadState for other versions."""
    if len(value) < _HEADER.size:
        raise BadState(f"{len(value)} bytes are no state")
    version, offset = _HEADER.unpack_from(value)
    if version != STATE_VERSION:
        raise BadState(f"a state of version {version}; this code reads version {STATE_VERSION}")
    return int(offset)


def _within_limits(state: UserState) -> UserState:
    """Cut event types of older releases, which had no limit, so that the state's next record fits a broker's."""
    if all(len(event.event_type or "") <= MAX_EVENT_TYPE_CHARS for event in state.history):
        return state
    history = [
        msgspec.structs.replace(event, event_type=event.event_type and event.event_type[:MAX_EVENT_TYPE_CHARS])
        for event in state.history
    ]
    return msgspec.structs.replace(state, history=history)
