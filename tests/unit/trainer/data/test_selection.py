"""What a window and a sample leave of the copied sessions."""

import random

import numpy as np
import pytest

from models.records import session_key
from tests.unit.trainer.data.test_session_copy import Log
from tests.unit.trainer.made import Row, session
from trainer.data.histories import Histories, from_sessions
from trainer.data.selection import Limits, Selection, sample, user_hash, user_of_key
from trainer.data.session_copy import SessionCopy


def filled(users: range, begin: float = 0.0, length: int = 10, copy: SessionCopy | None = None) -> SessionCopy:
    log = Log(partitions=1)
    for user in users:
        events: list[Row] = [(f"i{n}", begin + 100.0 * n + user % 7, None, None) for n in range(length)]
        log.add(0, *session(f"u{user:05d}", events))
    copy = copy or SessionCopy()
    log.id = f"{begin}"
    copy._apply([record for records, _ in log.read({0: (0, len(log.records[0]))}) for record in records], {}, now=1e9)
    return copy


def loaded(copy: SessionCopy, limits: Limits) -> tuple[Histories, Selection]:
    selection = copy.select(limits)
    return from_sessions(copy.sessions(selection), {}, selection.since), selection


def test_without_limits_all_is_taken() -> None:
    histories, selection = loaded(filled(range(50)), Limits())
    assert histories.n_events == 500
    assert selection.metrics() == {"users": 50.0, "users_share": 1.0}


def test_a_window_takes_what_is_newer_than_its_beginning_event_by_event() -> None:
    copy = filled(range(7), length=10)  # the newest event is at 906
    histories, selection = loaded(copy, Limits(window_s=250.0))
    assert selection.since == 656.0
    assert histories.times.min() > 656.0
    assert histories.n_events == 7 * 3
    assert histories.n_users == 7
    older = filled(range(7), length=2)
    assert loaded(older, Limits(window_s=10.0))[0].n_events == 7, "each user's last event"


def test_a_sample_is_of_whole_users_within_the_limit_and_the_same_each_time() -> None:
    copy = filled(range(500))
    half, selection = loaded(copy, Limits(max_events=2500))
    assert 2400 <= half.n_events <= 2500
    assert set(np.diff(half.bounds)) == {10}
    assert selection.metrics()["users_share"] == selection.users_taken / 500 == half.n_users / 500
    assert loaded(copy, Limits(max_events=2500))[0].user_ids == half.user_ids
    # twice the users: those who stay were all in the sample before
    more, _ = loaded(filled(range(500, 1000), copy=copy), Limits(max_events=2500))
    assert {user for user in more.user_ids if user < "u00500"} < set(half.user_ids)
    assert 2400 <= more.n_events <= 2500


def test_a_machine_does_not_fill_the_sample() -> None:
    copy = filled(range(500))
    filled(range(90_000, 90_001), length=4000, copy=copy)
    histories, selection = loaded(copy, Limits(max_events=2000))
    assert "u90000" not in histories.user_ids
    assert histories.n_users == selection.users_taken >= 190


def test_within_the_limit_even_machines_stay() -> None:
    copy = filled(range(5))
    filled(range(90_000, 90_001), length=4000, copy=copy)
    assert loaded(copy, Limits(max_events=5000))[0].n_users == 6


@pytest.mark.parametrize("max_events", [1, 50, 999, 5000])
def test_a_sample_never_exceeds_its_limit(max_events: int) -> None:
    rng = random.Random(max_events)
    counted = sorted((rng.randrange(1 << 32), rng.choice((1, 3, 20, 500))) for _ in range(300))
    taken = sample(counted, 0.0, max_events)
    held = [n for hashed, n in counted if hashed < taken.hash_below and hashed not in taken.machines]
    assert len(held) == taken.users_taken
    assert sum(held) <= max_events


@pytest.mark.parametrize("user_id", ["u", "a|b", "a#1|2#3", "|", "ü|"])
def test_a_key_tells_its_user(user_id: str) -> None:
    for part in (0, 3):
        assert user_of_key(session_key(user_id, 12.5, part).encode()) == user_id.encode()


def test_hashes_are_the_same_in_every_release() -> None:
    assert user_hash(b"u00001") == 4209456748
