from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from models.records import BadRecord, Event, position
from stream.faust_patches.delivery import Batch
from stream.stages.headers import MAX_HEADERS_BYTES
from stream.stages.intake import Intake, home_of, request_of, sourced, strays, take_in
from stream.stages.origins import Origins

ORIGINS = Origins(b"a secret of sixteen bytes")
EVENT = b'{"user_id":"u","item_id":"i","timestamp":1}'


def record(partition: int = 0, offset: int = 5, value: bytes | None = EVENT, **more: Any) -> Any:
    given = {"topic": "interactions", "key": None, "headers": [], "timestamp": 1_700_000_000_123}
    return SimpleNamespace(partition=partition, offset=offset, value=value, **(given | more))


def event(user_id: str) -> Event:
    return Event(user_id, "i", 1.0)


# what Kafka's own default partitioner gives: toPositive(murmur2(key)) % 8, by the JVM's code
@pytest.mark.parametrize(("user_id", "home"), [("21", 3), ("foobar", 2), ("a-little-bit-long-string", 4)])
def test_home_is_where_kafkas_own_clients_put_a_key(user_id: str, home: int) -> None:
    murmur2 = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}[user_id]
    assert (murmur2 & 0x7FFFFFFF) % 8 == home_of(user_id, 8)


def test_a_batch_is_decoded_in_order_and_what_is_wrong_is_set_apart() -> None:
    records = [record(offset=5), record(offset=6, value=b"junk"), record(offset=7, value=None), record(offset=8)]
    intake = take_in(Batch("interactions", 1, 0.0, {TP("interactions", 0): 5}, {TP("interactions", 0): records}))
    assert [r.offset for r, _ in intake.events] == [5, 8]
    assert [(r.offset, error.reason) for r, error in intake.rejects] == [(6, "not_json"), (7, "null_value")]


def test_a_request_of_an_unknown_recipe_is_refused_before_it_is_answered() -> None:
    assert request_of(record(value=b'{"request_id":"r","user_id":"u","recipe":"popular"}')).recipe == "popular"
    with pytest.raises(BadRecord, match="ask for one of next, popular, trending"):
        request_of(record(value=b'{"request_id":"r","user_id":"u","recipe":"similar"}'))


def test_each_user_is_read_once_per_partition() -> None:
    intake = Intake(
        [(record(1), event("a")), (record(1), event("b")), (record(1), event("a")), (record(2), event("a"))]
    )
    assert intake.users() == {1: [b"a", b"b"], 2: [b"a"]}


def test_only_users_without_a_state_here_and_at_home_elsewhere_are_sent_on() -> None:
    home = home_of("u", 8)
    elsewhere = (home + 1) % 8
    intake = Intake([(record(home), event("u")), (record(elsewhere), event("u"))])
    assert strays(intake, {}, 8, ORIGINS) == {1: home}
    assert strays(intake, {(elsewhere, "u"): b"state"}, 8, ORIGINS) == {}


def test_an_event_that_was_sent_on_keeps_its_first_place_and_time() -> None:
    first = record(3, 77)
    headers = ORIGINS.forwarded(first, "u", 6)
    arrived = record(6, 900, key=b"u", headers=headers, timestamp=1_700_000_999_000)
    given = sourced(arrived, event("u"), ORIGINS)
    assert (given.partition, given.offset, given.now) == (6, 900, 1_700_000_000.123)
    assert (given.origin.partition, given.origin.offset) == (3, 77)
    assert strays(Intake([(arrived, event("u"))]), {}, 8, ORIGINS) == {}


def test_an_event_of_a_log_that_began_again_comes_after_all_of_the_old_one() -> None:
    last_of_old = sourced(record(2, 10**9), event("u"), ORIGINS)
    first_of_new = sourced(record(2, 0), event("u"), ORIGINS, epoch=1)
    assert last_of_old.offset < first_of_new.offset
    assert (first_of_new.origin.offset, first_of_new.origin.epoch) == (0, 1)


def test_a_forwarded_event_tells_the_epoch_of_its_first_place() -> None:
    headers = ORIGINS.forwarded(record(3, 77), "u", 6, epoch=5)
    given = sourced(record(6, 900, key=b"u", headers=headers), event("u"), ORIGINS, epoch=2)
    assert given.offset == position(2, 900)
    assert (given.origin.offset, given.origin.epoch, given.origin.position) == (77, 5, position(5, 77))


def test_what_comes_on_an_added_partition_is_always_sent_on() -> None:
    home = home_of("u", 4)
    added = record(5, key=b"u", headers=ORIGINS.forwarded(record(home), "u", 5))
    assert ORIGINS.of(added)
    assert strays(Intake([(added, event("u")), (record(home), event("u"))]), {}, 4, ORIGINS) == {0: home}


def test_headers_that_are_too_large_are_refused_whatever_the_event() -> None:
    """Few and large, or many and empty."""
    large = record(headers=[("trace", b"x" * MAX_HEADERS_BYTES)])
    many = record(headers=[("", None)] * (MAX_HEADERS_BYTES // 10 + 1))
    good = record(headers=[("trace", b"x" * (MAX_HEADERS_BYTES - 100)), ("null", None), ("\udcff", b"odd")])
    intake = take_in(
        Batch("interactions", 1, 0.0, {TP("interactions", 0): 5}, {TP("interactions", 0): [large, many, good]})
    )
    assert [error.reason for _, error in intake.rejects] == ["too_large", "too_large"]
    assert [taken for taken, _ in intake.events] == [good]
