from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.users.state import BadState, HistoryEvent, UserState, applied_offset, decode, encode

int64 = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
texts = st.text(max_size=20)
events = st.builds(HistoryEvent, texts, floats, st.none() | texts, st.none() | floats, int64)
states = st.builds(
    UserState,
    applied_offset=int64,
    origins=st.dictionaries(st.integers(0, 2**31), int64, max_size=3),
    history=st.lists(events, max_size=5),
    session_start=floats,
    session_part=st.integers(0, 1000),
    session_len=st.integers(0, 100),
    h=st.binary(max_size=172),
    h_events=st.integers(0, 10**9),
    model_version=texts,
    emitted=st.lists(texts, max_size=10),
    events=st.integers(0, 2**60),
    earlier=st.dictionaries(texts, st.integers(1, 2**31), max_size=5),
    earlier_events=st.integers(0, 2**60),
)


@given(states)
def test_a_state_survives_its_bytes(state: UserState) -> None:
    value = encode(state)
    assert decode(value) == state
    assert applied_offset(value) == state.applied_offset
    assert encode(decode(value)) == value


@given(states, st.data())
def test_no_bytes_raise_anything_but_bad_state(state: UserState, data: st.DataObject) -> None:
    value = bytearray(encode(state))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    for junk in (bytes(value), bytes(value[: data.draw(st.integers(0, len(value)))])):
        with contextlib.suppress(BadState):
            decode(junk)


@given(states)
def test_a_state_of_before_anything_was_kept_of_what_fell_out_is_read(state: UserState) -> None:
    *older, _, _ = msgspec.msgpack.decode(encode(state)[9:])
    value = encode(state)[:9] + msgspec.msgpack.encode(older)
    assert decode(value) == msgspec.structs.replace(state, earlier={}, earlier_events=0)


def test_another_version_is_named() -> None:
    with pytest.raises(BadState, match="version 2"):
        decode(b"\x02" + bytes(20))
    with pytest.raises(BadState, match="no state"):
        applied_offset(b"\x01")
