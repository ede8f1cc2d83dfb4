"""Each part of the audit finds its own fault: one record of a right run is changed, and one count says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from models.config import ModelConfig
from models.encoders.registry import ENCODERS
from models.items import signals
from models.items.signals import SignalRules
from models.records import RankedItem, SignalSnapshot, decode_recommendation, decode_session, encode, snapshot_id
from models.users import state
from stream.audit import AuditReport
from stream.stages.intake import home_of
from tests.unit.stream.audit.made_logs import PARTITIONS, TOPICS, Made, made, record

RULES = SignalRules()


def wrong(report: AuditReport) -> dict[str, int]:
    """Name the counts that are not 0."""
    names = ("lost", "wrong_states", "wrong_lists", "wrong_sessions", "wrong_signals", "wrong_stores")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


@pytest.fixture
def plain() -> Made:
    return made()


@pytest.fixture
def with_signals() -> Made:
    return made(RULES)


@pytest.fixture
def popular() -> Made:
    return made(popular=True)


def index_of_list(run: Made, *, request: bool = False, snapshot: bool | None = None, after: int = 20) -> int:
    """Find a list of partition 0, past the first ones."""
    for index, each in enumerate(run.records["recommendations"][0]):
        given = decode_recommendation(each.value)
        fits = snapshot is None or (given.snapshot is not None) == snapshot
        if index >= after and (given.request_id is not None) == request and fits and given.items:
            return index
    raise AssertionError("there is no such list")


def test_what_is_right_passes_and_all_is_checked(plain: Made) -> None:
    report = plain.compared()
    assert wrong(report) == {}, report.examples
    assert report.not_checked == []
    assert report.exit_status == 0
    assert report.events == report.applied == report.lists_checked == report.recommendations == 240
    assert report.requests == report.answers_checked == 30
    assert report.sessions > 5
    assert report.transitions > 240


def test_lists_with_signals_are_made_again_from_the_records_that_they_name(with_signals: Made) -> None:
    report = with_signals.compared()
    assert wrong(report) == {}, report.examples
    assert report.not_checked == []
    assert report.lists_with_signals == report.lists_with_signals_checked == 240 + 30
    named = [decode_recommendation(each.value) for each in with_signals.records["recommendations"][0]]
    assert any(given.snapshot and given.snapshot.newer_offsets for given in named), "no list was between two readings"


@pytest.mark.parametrize("kind", [*ENCODERS.values()])
def test_states_and_lists_of_every_encoder_are_made_again(kind: type[ModelConfig]) -> None:
    run = made(RULES, kind=kind)
    report = run.compared()
    assert wrong(report) == {}, report.examples
    assert report.lists_with_signals_checked == 240 + 30
    value = run.records["user_states"][0][-1].value
    held = state.decode(value)
    run.change("user_states", 0, -1, value=state.encode(msgspec.structs.replace(held, h=bytes(len(held.h)))))
    assert wrong(run.compared()) == {"wrong_states": 1}


def test_popularity_lists_are_checked_as_far_as_they_can_be(popular: Made) -> None:
    report = popular.compared()
    assert wrong(report) == {}, report.examples
    assert report.popularity_lists == 240 + 30
    assert report.lists_checked == 0


# -- lists ----


def test_a_list_under_a_stale_snapshot_is_found(with_signals: Made) -> None:
    snapshots = {
        given.signals: (given.model_version, given.snapshot)
        for each in with_signals.records["recommendations"][0]
        if (given := decode_recommendation(each.value)).snapshot is not None
    }
    index = index_of_list(with_signals, snapshot=False)
    now = decode_recommendation(with_signals.records["recommendations"][0][index].value).signals
    with_signals.change_list(index, signals=next(name for name in snapshots if name != now))
    assert wrong(with_signals.compared()) == {"wrong_lists": 1}


def test_a_snapshot_that_is_not_the_named_one_is_found(with_signals: Made) -> None:
    index = index_of_list(with_signals, snapshot=True)
    given = decode_recommendation(with_signals.records["recommendations"][0][index].value)
    assert given.snapshot is not None
    with_signals.change_list(index, snapshot=msgspec.structs.replace(given.snapshot, at=given.snapshot.at + 1.0))
    assert wrong(with_signals.compared())["wrong_lists"] == 1


def test_a_list_of_signals_that_never_were_is_not_checkable(with_signals: Made) -> None:
    index = index_of_list(with_signals, snapshot=True)
    beyond = SignalSnapshot(1.0, [10**6] * PARTITIONS)
    with_signals.change_list(index, snapshot=beyond, signals=snapshot_id("v1", beyond))
    report = with_signals.compared()
    assert wrong(report) == {}
    assert report.exit_status == 2
    assert {part for part, _ in report.not_checked} == {"lists with signals"}


def test_a_list_of_an_earlier_release_is_not_checkable(with_signals: Made) -> None:
    with_signals.change_list(index_of_list(with_signals, snapshot=False), signals=None, snapshot=None)
    report = with_signals.compared()
    assert (wrong(report), report.exit_status) == ({}, 2)
    assert "earlier release" in report.not_checked[0][1]


@pytest.mark.parametrize("kind", ["plain", "with_signals", "popular"])
@pytest.mark.parametrize("request_too", [False, True])
def test_a_list_that_names_what_was_had_is_found(kind: str, request_too: bool, request: pytest.FixtureRequest) -> None:
    run: Made = request.getfixturevalue(kind)
    index = index_of_list(run, request=request_too)
    given = decode_recommendation(run.records["recommendations"][0][index].value)
    events = [msgspec.json.decode(each.value) for each in run.records["interactions"][0]]
    had = next(event["item_id"] for event in events if event["user_id"] == given.user_id)
    run.change_list(index, items=[RankedItem(had, given.items[0].score), *given.items[1:]])
    assert wrong(run.compared()) == {"wrong_lists": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda items: [RankedItem("item-never", items[0].score), *items[1:]],
        lambda items: [RankedItem(items[0].item_id, items[0].score + 0.5), *items[1:]],
        lambda items: items[::-1],
        lambda items: [items[0], *items],
    ],
    ids=["an item that never occurred", "half a count", "rising", "twice"],
)
def test_a_popularity_list_that_can_not_be_is_found(popular: Made, change: Callable[..., list[RankedItem]]) -> None:
    index = index_of_list(popular, after=60)
    given = decode_recommendation(popular.records["recommendations"][0][index].value)
    assert given.items[0].score > given.items[-1].score
    popular.change_list(index, items=change(given.items))
    assert wrong(popular.compared()) == {"wrong_lists": 1}


@pytest.mark.parametrize(
    "more",
    [
        {"session_id": "of-another"},
        {"event_time": 1.0},
        {"user_id": "another"},
        {"rec_id": "another"},
        {"model_version": "v0"},
        {"request_id": "r"},
    ],
    ids=str,
)
def test_a_list_that_says_something_else_of_itself_is_found(plain: Made, more: dict[str, object]) -> None:
    plain.change_list(index_of_list(plain), **more)
    assert wrong(plain.compared())["wrong_lists"] == 1


def test_two_different_lists_under_one_rec_id_are_found(plain: Made) -> None:
    index = index_of_list(plain)
    given = decode_recommendation(plain.records["recommendations"][0][index].value)
    key = given.user_id.encode()
    plain.append("recommendations", 0, key, encode(given), 0.0)
    assert wrong(plain.compared()) == {}, "a copy is harmless"
    plain.append("recommendations", 0, key, encode(msgspec.structs.replace(given, items=given.items[::-1])), 0.0)
    report = plain.compared()
    assert wrong(report) == {"wrong_lists": 1}
    assert report.duplicates == 2


def test_lists_of_a_user_in_another_order_are_found(plain: Made) -> None:
    held = plain.records["recommendations"][0]
    one = index_of_list(plain)
    user = held[one].key
    other = next(n for n in range(one + 1, len(held)) if held[n].key == user and b"request_id" not in held[n].value)
    held[one], held[other] = replace(held[other], offset=one), replace(held[one], offset=other)
    assert wrong(plain.compared()) == {"wrong_lists": 1}


def test_an_answer_for_another_request_or_too_long_is_found(plain: Made) -> None:
    index = index_of_list(plain, request=True)
    given = plain.change_list(index, request_id="another")
    assert wrong(plain.compared()) == {"wrong_lists": 1}
    plain.change_list(index, request_id=given.request_id, items=[*given.items, RankedItem("item-29", -1e9)])
    assert wrong(plain.compared()) == {"wrong_lists": 1}


def test_a_list_and_an_answer_that_are_missing_are_found(plain: Made) -> None:
    for asked in (False, True):
        del plain.records["recommendations"][0][index_of_list(plain, request=asked)]
    plain.ends["recommendations", 0] -= 2  # no holes: compaction has not been there
    for number, each in enumerate(plain.records["recommendations"][0]):
        plain.records["recommendations"][0][number] = replace(each, offset=number)
    assert wrong(plain.compared()) == {"lost": 2}


def test_lists_that_compaction_may_have_taken_are_not_lost(plain: Made) -> None:
    del plain.records["recommendations"][0][index_of_list(plain)]
    report = plain.compared()
    assert (wrong(report), report.exit_status) == ({}, 2)


# -- sessions, states ----


def test_sessions_that_are_missing_or_wrong_are_found(plain: Made) -> None:
    assert len(plain.change_session(10).events) > 0
    found = plain.change_session(10, end=1.0)
    assert wrong(plain.compared()) == {"wrong_sessions": 1}
    plain.change_session(10, end=found.end, events=found.events[:-1])
    assert wrong(plain.compared()) == {"wrong_sessions": 1}
    key = found.session_id.encode()
    plain.records["sessions"][0] = [each for each in plain.records["sessions"][0] if each.key != key]
    assert wrong(plain.compared()) == {"wrong_sessions": 1}


def test_a_session_counts_by_its_longest_record(plain: Made) -> None:
    """As records of a worker that was cut off may come last."""
    records = plain.records["sessions"][0]
    key = next(each.key for each in records if len(decode_session(each.value).events) >= 3)
    versions = [each.value for each in records if each.key == key]
    shorter = decode_session(versions[-1])
    shorter = msgspec.structs.replace(shorter, end=shorter.events[-2][1], events=shorter.events[:-1])
    plain.append("sessions", 0, key, encode(shorter), 0.0)
    assert wrong(plain.compared()) == {}
    plain.append("sessions", 0, key, None, 0.0)
    plain.append("sessions", 0, key, encode(shorter), 0.0)
    assert wrong(plain.compared()) == {"wrong_sessions": 1}  # what is before a null does not count
    plain.append("sessions", 0, key, versions[-1], 0.0)
    plain.append("sessions", 0, key, b"{", 0.0)
    assert wrong(plain.compared()) == {"wrong_sessions": 1}


def test_a_session_of_no_event_is_found(plain: Made) -> None:
    session = decode_session(plain.records["sessions"][0][0].value)
    plain.append("sessions", 0, b"u|5", encode(msgspec.structs.replace(session, session_id="u|5")), 0.0)
    assert wrong(plain.compared()) == {"wrong_sessions": 1}


def test_a_state_that_is_missing_or_wrong_is_found(plain: Made) -> None:
    newest = plain.records["user_states"][0][-1]
    held = state.decode(newest.value)
    assert held.history
    value = state.encode(msgspec.structs.replace(held, session_len=held.session_len + 1))
    plain.change("user_states", 0, -1, value=value)
    assert wrong(plain.compared()) == {"wrong_states": 1}
    plain.records["user_states"][0] = [each for each in plain.records["user_states"][0] if each.key != newest.key]
    assert wrong(plain.compared()) == {"wrong_states": 1}


def test_what_stores_keep_beside_the_states_is_no_state(plain: Made) -> None:
    plain.append("user_states", 0, b"\0log", b"whose store this is", 0.0)
    plain.append("item_states", 0, b"\0log", b"whose store this is", 0.0)
    assert wrong(plain.compared()) == {}


# -- signals ----


def test_signals_of_an_item_that_never_occurred_are_found(plain: Made) -> None:
    told = signals.decode_record(plain.records["signals"][0][0].value)
    ghost = next(f"ghost-{n}" for n in range(9) if home_of(f"ghost-{n}", PARTITIONS) == 0)
    value = signals.encode_record(msgspec.structs.replace(told, item_id=ghost))
    plain.append("signals", 0, ghost.encode(), value, 0.0)
    assert wrong(plain.compared()) == {"wrong_signals": 1}


def test_transitions_that_are_committed_and_not_counted_are_found(plain: Made) -> None:
    newest = plain.records["item_states"][0].pop()
    name = newest.key
    plain.records["signals"][0] = [each for each in plain.records["signals"][0] if each is not None]
    last = max(n for n, each in enumerate(plain.records["signals"][0]) if each.key == name)
    del plain.records["signals"][0][last]
    report = plain.compared()
    assert wrong(report) == {"wrong_signals": 1}, report.examples
    assert report.transitions_behind > 0
    plain.uncommitted = True  # by workers that were stopped: they will be
    report = plain.compared()
    assert (wrong(report), report.exit_status) == ({}, 2)
    plain.running = True  # and had all the time that they need
    assert wrong(plain.compared()) == {"wrong_signals": 1}


def test_signals_that_are_not_those_of_the_state_are_found(plain: Made) -> None:
    held = plain.records["signals"][0]
    first = {each.key: each for each in reversed(held)}
    stale = next(each for each in first.values() if each.value != {e.key: e.value for e in held}[each.key])
    plain.append("signals", 0, stale.key, stale.value, 0.0)
    assert wrong(plain.compared()) == {"wrong_signals": 1}
    plain.running = True  # at rest, though
    assert wrong(plain.compared()) == {"wrong_signals": 1}


# -- what can't be checked ----


def test_after_a_trim_the_rest_is_checked(plain: Made) -> None:
    plain.take_out("interactions", 0, 10)
    report = plain.compared()
    assert (wrong(report), report.exit_status) == ({}, 2), report.examples
    parts = {part for part, _ in report.not_checked}
    assert parts >= {"states", "sessions", "lists", "transitions"}
    assert report.lists_checked > 50, "those of the other partition"
    del plain.records["recommendations"][0][-6:]  # a missing list is found, too
    plain.ends["recommendations", 0] -= 6
    assert plain.compared().lost > 0


def test_after_a_trim_of_transitions_the_rest_is_checked(plain: Made) -> None:
    plain.take_out("transitions", 0)
    report = plain.compared()
    assert (wrong(report), report.exit_status) == ({}, 2), report.examples
    assert {part for part, _ in report.not_checked} == {"signals"}
    assert report.lists_checked == 240


def test_an_erased_user_is_left_out_and_the_rest_is_checked(plain: Made) -> None:
    user = plain.records["user_states"][0][-1].key
    for name in ("user_states", "recommendations"):
        plain.append(name, 0, user, None, 0.0)
    for key in {each.key for each in plain.records["sessions"][0] if each.key.startswith(user + b"|")}:
        plain.append("sessions", 0, key, None, 0.0)
    report = plain.compared()
    assert (wrong(report), report.exit_status) == ({}, 2), report.examples
    assert 0 < report.lists_checked < 240


def test_headers_of_dead_letters_and_events_may_be_null(plain: Made) -> None:
    place = ("source-topic", b"interactions"), ("source-partition", b"0"), ("source-offset", b"0")
    plain.append("dead_letters", 0, b"k", b"v", 0.0, [*place, ("reason", b"late"), ("trace", None)])
    plain.append("dead_letters", 0, b"k", b"v", 0.0, [("trace", None)])
    plain.change("interactions", 0, 0, headers=(("trace", None), ("x", b"\xff")))
    report = plain.compared()
    assert (report.dead_letters, report.refused_too) == (1, 1)


# -- a running system ----


def test_what_comes_after_the_cut_may_be_half_done(plain: Made) -> None:
    """As if the last events of partition 0 had come while the audit read: their states and sessions are behind."""
    last = plain.records["interactions"][0][-1]
    user = last.key
    states = [each for each in plain.records["user_states"][0] if each.key == user]
    cut_to = state.applied_offset(states[-2].value) + 1

    class Later(Made):
        def cut(self, *names: str):  # type: ignore[no-untyped-def]
            cut = super().cut(*names)
            for tp in cut.ends:
                if tp.topic == TOPICS.interactions and tp.partition == 0:
                    cut.ends[tp] = cut_to
            return cut

    run = Later(plain.records, plain.begins, plain.ends, running=True)
    newest = max(n for n, each in enumerate(run.records["user_states"][0]) if each.key == user)
    del run.records["user_states"][0][newest]
    sessions = [n for n, each in enumerate(run.records["sessions"][0]) if each.key.startswith(user + b"|")]
    del run.records["sessions"][0][sessions[-1]]
    assert wrong(run.compared()) == {}, run.compared().examples
    cut_to = last.offset + 1
    assert set(wrong(run.compared())) == {"wrong_states", "wrong_sessions"}


def test_the_report_says_how_it_ended() -> None:
    report = AuditReport()
    assert report.exit_status == 0
    report.skip("lists", "gone")
    report.skip("lists", "gone")
    assert (report.exit_status, report.not_checked) == (2, [("lists", "gone")])
    report.lost = 1
    assert report.exit_status == 1
    assert math.isfinite(report.lost)
    assert record("t", 0, 0, None, None, 0.0).headers == ()
