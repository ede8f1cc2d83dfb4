from __future__ import annotations

import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.records import (
    MAX_EPOCH,
    MAX_EVENT_VALUE,
    OFFSET_BITS,
    BadRecord,
    Event,
    RankedItem,
    Recommendation,
    Request,
    SessionRecord,
    Source,
    Topics,
    count_session_events,
    decode_event,
    decode_recommendation,
    decode_request,
    decode_session,
    encode,
    place_of,
    position,
    rec_id,
    session_key,
)

JUNK = {
    "not json": ("not_json", b"\x00\xff\x80"),
    "invalid UTF-8 in a text": ("not_json", b'{"user_id":"\xff","item_id":"i","timestamp":1}'),
    "cut off": ("not_json", b'{"user_id":"u","item_id":"i","timest'),
    "NaN": ("not_json", b'{"user_id":"u","item_id":"i","timestamp":NaN}'),
    "nested too deep": ("not_json", b'{"user_id":"u","item_id":"i","timestamp":1,"properties":' + b"[" * 50_000),
    "empty": ("not_json", b""),
    "an array": ("wrong_type", b"[1]"),
    "a number for a user": ("wrong_type", b'{"user_id":5,"item_id":"i","timestamp":1}'),
    "a text for a time": ("wrong_type", b'{"user_id":"u","item_id":"i","timestamp":"now"}'),
    "a time that overflows": ("wrong_type", b'{"user_id":"u","item_id":"i","timestamp":1e999}'),
    "no time": ("missing_field", b'{"user_id":"u","item_id":"i"}'),
    "an empty user": ("bad_id", b'{"user_id":"","item_id":"i","timestamp":1}'),
    "a user with a NUL": ("bad_id", b'{"user_id":"__faust\\u0000offset__","item_id":"i","timestamp":1}'),
    "an endless item": ("bad_id", b'{"user_id":"u","item_id":"%s","timestamp":1}' % (b"i" * 257)),
    "before 1970": ("bad_timestamp", b'{"user_id":"u","item_id":"i","timestamp":-1}'),
    "milliseconds": ("bad_timestamp", b'{"user_id":"u","item_id":"i","timestamp":1700000000000}'),
    "an endless event type": (
        "bad_value",
        b'{"user_id":"u","item_id":"i","timestamp":1,"event_type":"%s"}' % (b"t" * 257),
    ),
    "an endless event id": ("bad_id", b'{"user_id":"u","item_id":"i","timestamp":1,"event_id":"%s"}' % (b"e" * 257)),
    "a value whose square is not finite": (
        "bad_value",
        b'{"user_id":"u","item_id":"i","timestamp":1,"event_value":1e200}',
    ),
    "no value": ("null_value", None),
    "too large": (
        "too_large",
        b'{"user_id":"u","item_id":"i","timestamp":1,"properties":"%s"}' % (b"x" * 65_536),
    ),
}


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_refused_for_its_reason(kind: str) -> None:
    reason, value = JUNK[kind]
    with pytest.raises(BadRecord) as refused:
        decode_event(value)
    assert refused.value.reason == reason
    assert refused.value.detail


@pytest.mark.parametrize(
    ("timestamp", "said"),
    [
        ("1700000000000", "looks like milliseconds: divide by 1000"),
        ("1700000000000000", "looks like microseconds: divide by 1000000"),
        ("1700000000000000000", "looks like nanoseconds: divide by 1000000000"),
        ('"2023-11-14T22:13:20Z"', "send a number, Unix seconds"),
        ("null", "send a number, Unix seconds"),
    ],
)
def test_a_time_in_another_form_is_refused_with_the_remedy(timestamp: str, said: str) -> None:
    with pytest.raises(BadRecord, match=said):
        decode_event(f'{{"user_id":"u","item_id":"i","timestamp":{timestamp}}}'.encode())
    if timestamp != "null":
        with pytest.raises(BadRecord, match=said):
            decode_request(f'{{"request_id":"r","user_id":"u","at":{timestamp}}}'.encode())


def test_a_time_in_the_far_future_is_left_to_the_clock() -> None:
    assert decode_event(b'{"user_id":"u","item_id":"i","timestamp":32503680000}').timestamp == 32_503_680_000


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    try:
        decode_event(value)
    except BadRecord as refused:
        assert refused.reason  # noqa: PT017


ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=256)


@given(
    st.builds(
        Event,
        user_id=ids,
        item_id=ids,
        timestamp=st.floats(0, 4e9),
        event_type=st.none() | st.text(max_size=20),
        event_value=st.none() | st.floats(-MAX_EVENT_VALUE, MAX_EVENT_VALUE),
    )
)
def test_an_event_survives_its_bytes(event: Event) -> None:
    assert decode_event(encode(event)) == event


def test_unknown_fields_are_ignored() -> None:
    value = b'{"user_id":"u","item_id":"i","timestamp":1,"properties":{"a":[1]},"colour":"red"}'
    assert decode_event(value) == Event("u", "i", 1.0)


@pytest.mark.parametrize("text", ["1e400", "-1e400", "NaN", "Infinity", '"5"', "[5]", "1e13", "-1e200"])
def test_an_event_value_is_a_number_of_moderate_size(text: str) -> None:
    with pytest.raises(BadRecord):
        decode_event(f'{{"user_id":"u","item_id":"i","timestamp":1,"event_value":{text}}}'.encode())


JUNK_REQUESTS = {
    "not json": ("not_json", b"\x00\xff\x80"),
    "a time that is NaN": ("not_json", b'{"request_id":"r","user_id":"u","at":NaN}'),
    "nested too deep": ("not_json", b'{"request_id":"r","user_id":"u","context":' + b"[" * 50_000),
    "an array": ("wrong_type", b"[1]"),
    "a number for a user": ("wrong_type", b'{"request_id":"r","user_id":5}'),
    "a text for a time": ("wrong_type", b'{"request_id":"r","user_id":"u","at":"now"}'),
    "a time that overflows": ("wrong_type", b'{"request_id":"r","user_id":"u","at":1e999}'),
    "half an item": ("wrong_type", b'{"request_id":"r","user_id":"u","k":0.5}'),
    "no name": ("missing_field", b'{"user_id":"u"}'),
    "no user": ("missing_field", b'{"request_id":"r"}'),
    "an empty name": ("bad_id", b'{"request_id":"","user_id":"u"}'),
    "a user with a NUL": ("bad_id", b'{"request_id":"r","user_id":"__faust\\u0000offset__"}'),
    "an endless user": ("bad_id", b'{"request_id":"r","user_id":"%s"}' % (b"u" * 257)),
    "before 1970": ("bad_timestamp", b'{"request_id":"r","user_id":"u","at":-1}'),
    "microseconds": ("bad_timestamp", b'{"request_id":"r","user_id":"u","at":1700000000000000}'),
    "nothing": ("bad_value", b'{"request_id":"r","user_id":"u","k":0}'),
    "everything": ("bad_value", b'{"request_id":"r","user_id":"u","k":501}'),
    "more than there is": ("bad_value", b'{"request_id":"r","user_id":"u","k":%d}' % 10**30),
    "no value": ("null_value", None),
    "too large": ("too_large", b'{"request_id":"r","user_id":"u","context":"%s"}' % (b"x" * 65_536)),
}


@pytest.mark.parametrize("kind", JUNK_REQUESTS)
def test_a_junk_request_is_refused_for_its_reason(kind: str) -> None:
    reason, value = JUNK_REQUESTS[kind]
    with pytest.raises(BadRecord) as refused:
        decode_request(value)
    assert refused.value.reason == reason
    assert "interaction" not in refused.value.detail


@given(st.binary(max_size=200))
def test_no_bytes_of_a_request_raise_anything_else(value: bytes) -> None:
    try:
        decode_request(value)
    except BadRecord as refused:
        assert refused.reason  # noqa: PT017


@given(
    st.builds(
        Request,
        ids,
        ids,
        at=st.none() | st.floats(0, 4e9),
        k=st.none() | st.integers(1, 500),
        recipe=st.none() | ids,
        window=st.none() | ids,
    )
)
def test_a_request_survives_its_bytes(request: Request) -> None:
    assert decode_request(encode(request)) == request


def test_unknown_fields_of_a_request_are_ignored() -> None:
    value = b'{"request_id":"r","user_id":"u","at":null,"similar_to":"i","candidates":["i"],"context":{"a":[1]}}'
    assert decode_request(value) == Request("r", "u")


def test_lists_and_sessions_survive_their_bytes() -> None:
    listed = Recommendation("r", "u", [RankedItem("i", 1.5)], "v", "u|1", 1.0, 2.0, Source("t", 0, 7))
    assert decode_recommendation(encode(listed)) == listed
    assert not any(name in encode(listed) for name in (b"request_id", b"recipe", b"half_life_s"))
    record = SessionRecord("u", "u|1", 1.0, 2.0, [("i", 1.0, None, None), ("j", 2.0, "buy", 3.0)])
    assert decode_session(encode(record)) == record
    assert count_session_events(encode(record)) == 2
    with pytest.raises(msgspec.DecodeError):
        decode_session(b"{}")
    with pytest.raises(msgspec.DecodeError):
        count_session_events(b"{}")


@given(st.text("abc-.", max_size=12), st.integers(0, 2**31), st.integers(0, 2**63))
def test_a_rec_id_is_the_uuid5_of_the_source(topic: str, partition: int, offset: int) -> None:
    expected = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{topic}/{partition}/{offset}"))
    assert rec_id(topic, partition, offset) == expected


@given(st.integers(0, 2**31), st.integers(0, 2**40), st.integers(1, MAX_EPOCH))
def test_a_rec_id_of_a_later_epoch_repeats_none(partition: int, offset: int, epoch: int) -> None:
    expected = str(uuid.uuid5(uuid.NAMESPACE_URL, f"interactions@{epoch}/{partition}/{offset}"))
    assert rec_id("interactions", partition, offset, epoch) == expected
    assert rec_id("interactions", partition, offset, 0) == rec_id("interactions", partition, offset) != expected


_places = st.tuples(st.integers(0, MAX_EPOCH), st.integers(0, 2**OFFSET_BITS - 1))


@given(_places, _places)
def test_positions_order_records_by_epoch_and_then_by_offset(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (position(*one) < position(*other)) is (one < other)
    assert place_of(position(*one)) == one
    assert 0 <= position(*one) < 2**63 - 1  # what states and transitions can hold


def test_a_source_says_its_epoch_only_when_there_was_another() -> None:
    assert encode(Source("interactions", 1, 2)) == b'{"topic":"interactions","partition":1,"offset":2}'
    assert encode(Source("interactions", 1, 2, 3)) == b'{"topic":"interactions","partition":1,"offset":2,"epoch":3}'


def test_session_keys_tell_starts_and_parts_apart() -> None:
    assert session_key("u", 1700000000.25) == "u|1700000000.25"
    assert session_key("u", 1700000000.0, 2) == "u|1700000000#2"


def test_a_prefix_is_before_every_topic() -> None:
    plain, prefixed = Topics(), Topics("a-")
    for name in ("interactions", "sessions", "models", "dead_letters", "app_id", "recommendations"):
        assert getattr(prefixed, name) == "a-" + getattr(plain, name)
    assert prefixed.user_states == "a-hrnn-users-changelog"
