"""Items' signals: what is counted of transitions, and how it is written."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.items import signals
from models.items.signals import (
    DAY_S,
    HOUR_S,
    NOTHING,
    BadSignals,
    ItemSignals,
    SignalRules,
    Transition,
    apply,
    counts_at,
    decode,
    encode,
    record,
    successors_at,
    transitions,
)
from tests.unit.models.transition_logs import RULES, YEAR_S, logs


def naive(log: list[Transition], successor: str | None, half_life_s: float, t: float) -> float:
    """A decayed count by its definition."""
    kept = [one for one in log if one.successor == successor]
    return sum((1.0 if successor is None else one.weight) * 0.5 ** ((t - one.timestamp) / half_life_s) for one in kept)


@given(logs())
def test_counts_are_what_their_definition_says(log: list[Transition]) -> None:
    state = apply(RULES, NOTHING, log)
    end = max((one.timestamp for one in log), default=0.0) + HOUR_S
    for half_life_s, count in zip(RULES.counted_half_lives_s, counts_at(RULES, state, end), strict=False):
        assert count == pytest.approx(naive(log, None, half_life_s, end), rel=1e-9)
    for other, count in successors_at(RULES, state, end).items():
        expected = naive(log, other, RULES.successor_half_life_s, end)
        assert count == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert {one.successor for one in log} - {None} == set(state.successors)


@given(logs(), st.data())
def test_how_a_log_is_cut_and_what_is_delivered_again_change_nothing(
    log: list[Transition], data: st.DataObject
) -> None:
    whole = apply(RULES, NOTHING, log)
    state, done = apply(RULES, NOTHING, []), 0
    while done < len(log):
        again = data.draw(st.integers(0, done))
        upto = data.draw(st.integers(done + 1, len(log)))
        state = apply(RULES, state, log[again:upto])
        done = upto
    assert state == whole


@given(logs(), st.randoms(use_true_random=False))
def test_how_partitions_interleave_changes_the_last_bits_at_most(log: list[Transition], random: object) -> None:
    by_partition = [[one for one in log if one.partition == n] for n in range(3)]
    merged: list[Transition] = []
    heads = [list(part) for part in by_partition]
    while any(heads):
        merged.append(random.choice([part for part in heads if part]).pop(0))  # type: ignore[attr-defined]
    one, other = apply(RULES, NOTHING, log), apply(RULES, NOTHING, merged)
    assert (one.occurrences, one.follows) == (other.occurrences, other.follows)
    assert one.at == other.at
    assert one.counts == pytest.approx(other.counts, rel=1e-12)
    assert one.landmark == other.landmark
    assert one.successors.keys() == other.successors.keys()
    for item, weight in one.successors.items():
        assert weight == pytest.approx(other.successors[item], rel=1e-12, abs=1e-300)


@given(logs(), st.integers(-1, 2**62))
def test_the_codec_gives_back_what_it_was_given(log: list[Transition], offset: int) -> None:
    state = apply(RULES, NOTHING, log, offset)
    value = signals.encode(state)
    assert signals.decode(value) == state
    assert signals.applied_offset(value) == state.applied_offset == offset


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x09" + bytes(8), signals.encode(NOTHING)[:-3], b"\xff" * 60])
def test_other_bytes_are_refused(value: bytes) -> None:
    with pytest.raises(BadSignals):
        signals.decode(value)
    with pytest.raises(BadSignals):
        signals.decode_transitions(value)


@given(st.lists(st.tuples(st.text(min_size=1), logs()), max_size=5), st.integers(3, 400))
def test_records_of_transitions_say_all_in_order(of_items: list[tuple[str, list[Transition]]], most_bytes: int) -> None:
    made = [(item_id, one) for item_id, log in of_items for one in log]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "TRANSITIONS_BYTES", most_bytes)
        values = signals.encode_transitions(made)
    read = [signals.decode_transitions(value) for value in values]
    assert [one for of_record in read for one in of_record] == made
    assert all(len(value) <= most_bytes or len(one) <= 1 for value, one in zip(values, read, strict=True))


@given(st.binary(max_size=60))
def test_bytes_are_transitions_or_refused(value: bytes) -> None:
    for given_bytes in (value, bytes([signals.TRANSITIONS_VERSION]) + value):
        try:
            read = signals.decode_transitions(given_bytes)
        except BadSignals:
            continue
        [again] = signals.encode_transitions(read)
        assert signals.decode_transitions(again) == read


@pytest.mark.parametrize(
    "one",
    [
        Transition(math.nan, 0, 0),
        Transition(math.inf, 0, 0),
        Transition(-1.0, 0, 0),
        Transition(1.0, -1, 0),
        Transition(1.0, 2**31, 0),
        Transition(1.0, 0, -1),
        Transition(1.0, 0, 2**63),
        Transition(1.0, 0, 0, ""),
        Transition(1.0, 0, 0, "a", math.nan),
        Transition(1.0, 0, 0, "a", -math.inf),
    ],
)
def test_a_transition_that_no_event_makes_is_refused(one: Transition) -> None:
    [value] = signals.encode_transitions([("a", one)])
    with pytest.raises(BadSignals, match="can't be read"):
        signals.decode_transitions(value)


def test_transitions_of_another_version_are_named() -> None:
    for kind in (2, 3):  # a record of one transition, as it was: no successor, or one
        with pytest.raises(BadSignals, match=f"transitions of version {kind}; this code reads version 4"):
            signals.decode_transitions(bytes([kind]) + bytes(28))


def test_given_states_stay_as_they_are() -> None:
    state = apply(RULES, NOTHING, [Transition(1.0, 0, 0), Transition(1.0, 0, 0, "x")])
    before = signals.encode(state)
    apply(RULES, state, [Transition(2.0, 0, 1), Transition(2.0, 0, 1, "y")])
    assert signals.encode(state) == before
    assert ItemSignals(-1, {}, {}, 0.0, [], 0.0, {}, []) == NOTHING


def test_successors_are_bounded_and_the_best_stay() -> None:
    rules = SignalRules(max_successors=10)
    log = [Transition(float(n), 0, n, f"often-{n % 5}" if n % 2 else f"once-{n}") for n in range(400)]
    state = apply(rules, NOTHING, log)
    assert len(state.successors) <= 15
    listed = record(rules, "x", state).successors
    assert len(listed) == 10
    assert {item for item, _ in listed[:5]} == {f"often-{n}" for n in range(5)}
    assert [weight for _, weight in listed] == sorted((weight for _, weight in listed), reverse=True)


def test_an_item_left_long_before_it_was_followed_can_be_written() -> None:
    rules = SignalRules(successor_half_life_s=60.0)
    state = apply(rules, NOTHING, [Transition(0.0, 0, 0), Transition(10 * YEAR_S, 0, 1, "y")])
    assert record(rules, "x", state).successors == [("y", pytest.approx(1.0, abs=1.0))]


def test_an_event_says_one_thing_of_an_item_at_most() -> None:
    made = transitions(["a", "b", "a"], "a", 5.0, 1, 7)
    assert made == [
        ("a", Transition(5.0, 1, 7)),
        ("a", Transition(5.0, 1, 7, "a", 1.25)),
        ("b", Transition(5.0, 1, 7, "a", 0.5)),
    ]
    assert transitions([], "a", 5.0, 1, 7) == [("a", Transition(5.0, 1, 7))]
    assert len(transitions(["z", "a", "b", "c"], "d", 5.0, 1, 7)) == 4


@pytest.mark.parametrize(
    "fields", [{"half_lives_s": (0.0,)}, {"successor_half_life_s": math.inf}, {"max_successors": 0}]
)
def test_rules_that_count_nothing_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not positive|max_successors"):
        SignalRules(**fields)  # type: ignore[arg-type]


def test_all_orders_of_a_few_events_agree() -> None:
    log = [Transition(t, n, 0, s) for n, (t, s) in enumerate([(0.0, None), (1e6, "a"), (5e7, "a"), (2e7, None)])]
    states = [apply(RULES, NOTHING, order) for order in itertools.permutations(log)]
    for state in states:
        assert state.counts == pytest.approx(states[0].counts, rel=1e-12)
        assert state.successors == pytest.approx(states[0].successors, rel=1e-12)


def test_other_half_lives_begin_with_the_count_of_the_nearest() -> None:
    log = [Transition(0.0, 0, 0), Transition(3600.0, 0, 1), Transition(3600.0, 0, 2, "b", 0.5)]
    before = apply(SignalRules((HOUR_S, DAY_S), DAY_S), NOTHING, log)
    rules = SignalRules((2 * HOUR_S, HOUR_S, 30 * DAY_S), 7 * DAY_S)
    after = apply(rules, before, [])
    assert after.counts == [before.counts[0], before.counts[0], before.counts[1], before.counts[1]]
    assert successors_at(rules, after, 3600.0)["b"] == pytest.approx(0.5)
    assert after.half_lives_s == rules.all_half_lives_s
    assert (after.occurrences, after.follows) == (before.occurrences, before.follows)
    assert apply(rules, after, log) == after


def test_a_state_of_an_earlier_release_goes_on_with_the_count_that_it_did_not_have() -> None:
    rules = SignalRules((HOUR_S, DAY_S), 7 * DAY_S)
    before = ItemSignals(5, {0: 1}, {0: 2}, 100.0, [1.5, 2.0], 0.0, {"b": 1.0}, [HOUR_S, DAY_S, 7 * DAY_S])
    state = apply(rules, decode(encode(before)), [Transition(100.0, 0, 3)], 6)
    assert state.counts == [2.5, 3.0, 3.0]
    assert state.successors == before.successors
    sent = record(rules, "a", before)
    assert (sent.counts, sent.half_lives_s) == ([1.5, 2.0, 2.0], [HOUR_S, DAY_S, 7 * DAY_S, 7 * DAY_S])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b'{"item_id":"a","at":1,"counts":[1],"successors":[],"half_lives_s":[1]}',
        b'{"item_id":"a","at":1,"counts":[-1],"successors":[],"half_lives_s":[1,2]}',
        b'{"item_id":"a","at":1,"counts":[1],"successors":[["b",-2]],"half_lives_s":[1,2]}',
    ],
)
def test_bytes_that_are_no_record_of_signals_are_refused(value: bytes) -> None:
    with pytest.raises(BadSignals):
        signals.decode_record(value)
