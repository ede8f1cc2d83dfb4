from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import signals
from models.signal_table import FLOOR, GAIN, LISTED, SignalTable, padded, side_by_side
from models.signals import (
    DAY_S,
    HOUR_S,
    NOTHING,
    BadSignals,
    ItemSignals,
    SignalRecord,
    SignalRules,
    Transition,
    apply,
    counts_at,
    record,
    successors_at,
    transitions,
)

RULES = SignalRules((HOUR_S, 6 * HOUR_S, DAY_S, 7 * DAY_S), 7 * DAY_S)
YEAR_S = 365 * DAY_S
ITEMS = ["a", "b", "c", "d", "e"]

times = st.floats(0, 20 * YEAR_S, allow_nan=False)


@st.composite
def logs(draw: st.DrawFn) -> list[Transition]:
    """Transitions of one item from three partitions, each partition's offsets rising, times in any order."""
    offsets = {0: 0, 1: 0, 2: 0}
    made = []
    for _ in range(draw(st.integers(0, 40))):
        partition = draw(st.integers(0, 2))
        offsets[partition] += draw(st.integers(1, 3))
        successor = draw(st.sampled_from([None, *ITEMS]))
        weight = draw(st.sampled_from([1.0, 0.5, 0.25, 1.5]))
        made.append(Transition(draw(times), partition, offsets[partition], successor, weight))
    return made


def naive(log: list[Transition], successor: str | None, half_life_s: float, t: float) -> float:
    """A decayed count by its definition."""
    kept = [one for one in log if one.successor == successor]
    return sum((1.0 if successor is None else one.weight) * 0.5 ** ((t - one.timestamp) / half_life_s) for one in kept)


@given(logs())
def test_counts_are_what_their_definition_says(log: list[Transition]) -> None:
    state = apply(RULES, NOTHING, log)
    end = max((one.timestamp for one in log), default=0.0) + HOUR_S
    for half_life_s, count in zip(RULES.half_lives_s, counts_at(RULES, state, end), strict=False):
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


def test_twenty_years_of_silence_and_clicks_overflow_nothing() -> None:
    rules = SignalRules(half_lives_s=(60.0,), successor_half_life_s=60.0)
    log = [Transition(n * YEAR_S, 0, 2 * n + k, s) for n in range(20) for k, s in enumerate((None, "next"))]
    state = apply(rules, NOTHING, log)
    assert state.counts == [1.0]
    read = record(rules, "x", state)
    assert read.successors == [("next", pytest.approx(1.0))]
    table = SignalTable(rules, ["x", "next"])
    table.put([read])
    assert table.trends(19 * YEAR_S)[0, 1] == pytest.approx(math.log(1 / FLOOR), abs=1e-5)
    assert table.trends(40 * YEAR_S).tolist() == [[0.0, 0.0, 0.0]]
    assert np.isfinite(table.successors([1], 40 * YEAR_S)[1]).all()


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


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ITEMS), st.floats(0, 3 * DAY_S)), max_size=40),
    st.floats(0, 30 * DAY_S),
)
def test_what_workers_read_is_what_replays_count(events: list[tuple[int, str, float]], later: float) -> None:
    live, read = SignalTable(RULES, ITEMS), SignalTable(RULES, ITEMS[:2])
    states: dict[str, ItemSignals] = {}
    last: dict[int, list[str]] = {}
    t = 0.0
    for offset, (user, item, passed) in enumerate(events):
        t += passed
        before = last.setdefault(user, [])
        for key, transition in transitions(before, item, t, 0, offset):
            states[key] = apply(RULES, states.get(key, NOTHING), [transition])
        live.occur(live.row(item), t)
        live.follow([live.row(one) for one in before], live.row(item), t)
        before.append(item)
        del before[:-3]
    for item, state in states.items():
        read.put([record(RULES, item, state)])
    now = t + later
    for item in states:
        shown = read.trends(now)[:, read.row(item)]
        assert shown == pytest.approx(live.trends(now)[:, live.row(item)], abs=1e-4)
    for user_items in last.values():
        one, other = (
            {table.item_of_row[row]: float(value) for row, value in zip(*table.successors(rows, now), strict=True)}
            for table in (live, read)
            for rows in [[table.row(item) for item in user_items]]
        )
        assert one == pytest.approx(other, abs=1e-5)


def test_trends_are_the_logarithms_of_decayed_counts() -> None:
    table = SignalTable(RULES, ["a"])
    for n in range(10):
        table.occur(1, 1e9 + n)
    expected = [math.log(10 * 0.5 ** (HOUR_S / s) / FLOOR) for s in RULES.half_lives_s]
    assert table.trends(1e9 + HOUR_S)[:, 1] == pytest.approx(expected, abs=1e-2)
    assert table.trends(1e9)[:, 0].tolist() == [0.0] * 4


def test_new_items_get_rows_after_the_catalogue() -> None:
    table = SignalTable(RULES, ["a"])
    assert [table.add(item) for item in ("b", "a", "c", "b")] == [2, 1, 3, 2]
    assert table.row("zzz") == 0
    table.occur(3, 0.0)
    assert table.trends(0.0).shape == (4, 4)
    assert table.trends(0.0)[0, 3] > 2.9


def test_the_nearest_item_leads_the_most() -> None:
    table = SignalTable(RULES, ["a", "b", "x", "y"])
    table.follow([1], 3, 0.0)
    table.follow([2], 4, 0.0)
    rows, scores = table.successors([1, 2], 0.0)
    assert dict(zip(rows.tolist(), scores.tolist(), strict=True)) == pytest.approx(
        {3: math.log1p(GAIN * 0.5), 4: math.log1p(GAIN)}
    )


def test_sparse_scores_are_padded_with_nothing() -> None:
    rows, values = padded(
        [(np.array([3, 4]), np.array([1.0, 2.0], np.float32)), (np.array([], np.int64), np.array([]))]
    )
    assert rows.tolist() == [[3, 4], [0, 0]]
    assert values.tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert padded([])[0].shape == (0, 0)


def test_places_are_laid_as_parts_of_lists_are_padded() -> None:
    parts = [(np.array([3, 4]), np.array([1.0, 2.0], np.float32)), (np.array([], np.int64), np.array([]))]
    laid = side_by_side(np.array([3, 4]), np.array([1.0, 2.0], np.float32), 2, 5)
    for one, other in zip(laid, padded(parts), strict=True):
        assert one.tolist() == other.tolist()
    assert side_by_side(np.array([2, 6]), np.ones(2, np.float32), 2, 5)[0].tolist() == [[2], [1]]


@given(logs(), st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=4), times), max_size=40))
def test_what_follows_many_users_items_is_read_as_for_each_alone(
    log: list[Transition], users: list[tuple[list[int], float]]
) -> None:
    table = SignalTable(RULES, ITEMS)
    table.put([record(RULES, item_id, apply(RULES, NOTHING, log[n:])) for n, item_id in enumerate(ITEMS[:3])])
    rows, values = table.successors_of([last for last, _ in users], [t for _, t in users])
    for number, (last, t) in enumerate(users):
        alone_rows, alone = table.successors(last, t)
        together = {
            row: value for row, value in zip(rows[number].tolist(), values[number].tolist(), strict=True) if row
        }
        assert together == dict(zip(alone_rows.tolist(), alone.tolist(), strict=True))


def test_the_best_successors_of_many_are_listed() -> None:
    table = SignalTable(RULES, ["a", "b"])
    successors = [(f"after-{n}", float(n + 1)) for n in range(LISTED + 40)]
    table.put([SignalRecord("a", 0.0, [1.0] * 4, successors, RULES.all_half_lives_s)])
    rows, values = table.successors_of([[1], [2], [1, 2]], [0.0] * 3)
    assert rows.shape == values.shape == (3, LISTED)
    assert {table.item_of_row[row] for row in rows[0].tolist()} == {item_id for item_id, _ in successors[40:]}
    assert not values[1].any()
    assert sorted(values[2].tolist()) == pytest.approx(sorted(math.log1p(GAIN * 0.5 * w) for _, w in successors[40:]))


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


@given(logs(), st.lists(st.sampled_from([0, 1, 2, 3, 4, 5]), max_size=3), times)
def test_a_table_that_takes_records_over_reads_as_one_that_counts(
    log: list[Transition], last: list[int], t: float
) -> None:
    states = {"a": apply(RULES, NOTHING, log), "b": apply(RULES, NOTHING, log[::2])}
    taken = SignalTable(RULES, ITEMS[:3])
    for item_id, state in states.items():
        taken.put([signals.decode_record(signals.encode_record(record(RULES, item_id, state)))])
    other = SignalTable(RULES, ["e", "a"])
    for item_id, state in states.items():
        other.put([record(RULES, item_id, state)])
    moved = other.for_catalogue(ITEMS[:3])
    assert moved.item_of_row[:4] == ["", *ITEMS[:3]]
    end = max([t, *(one.timestamp for one in log)])
    np.testing.assert_allclose(
        moved.trends(end)[:, : moved.n_rows],
        np.stack([taken.trends(end)[:, taken.row(item_id)] for item_id in moved.item_of_row], 1),
        atol=1e-5,
    )
    expected: dict[str, float] = {}
    ids = [["", *ITEMS][row] for row in last]
    for weight, before in zip((1.0, 0.5, 0.25), reversed(ids), strict=False):
        if before in states:
            for item_id, count in successors_at(RULES, states[before], end).items():
                expected[item_id] = expected.get(item_id, 0.0) + weight * count
    for table in (taken, moved):
        rows, values = table.successors([table.row(item_id) for item_id in ids], end)
        found = {table.item_of_row[row]: value for row, value in zip(rows.tolist(), values.tolist(), strict=True)}
        wanted = {item_id: math.log1p(GAIN * count) for item_id, count in expected.items()}
        for item_id in {*found, *wanted}:
            assert found.get(item_id, 0.0) == pytest.approx(wanted.get(item_id, 0.0), rel=1e-4, abs=1e-6)


def test_other_half_lives_begin_with_the_count_of_the_nearest() -> None:
    log = [Transition(0.0, 0, 0), Transition(3600.0, 0, 1), Transition(3600.0, 0, 2, "b", 0.5)]
    before = apply(SignalRules((HOUR_S, DAY_S), DAY_S), NOTHING, log)
    rules = SignalRules((2 * HOUR_S, HOUR_S, 30 * DAY_S), 7 * DAY_S)
    after = apply(rules, before, [])
    assert after.counts == [before.counts[0], before.counts[0], before.counts[1]]
    assert successors_at(rules, after, 3600.0)["b"] == pytest.approx(0.5)
    assert after.half_lives_s == rules.all_half_lives_s
    assert (after.occurrences, after.follows) == (before.occurrences, before.follows)
    assert apply(rules, after, log) == after


def test_a_record_of_other_half_lives_tells_what_both_know() -> None:
    state = apply(SignalRules((HOUR_S, DAY_S), DAY_S), NOTHING, [Transition(0.0, 0, 0), Transition(1.0, 0, 1, "b")])
    table = SignalTable(SignalRules((DAY_S, 7 * DAY_S), 7 * DAY_S), ["a", "b"])
    table.put([record(SignalRules((HOUR_S, DAY_S), DAY_S), "a", state)])
    day, week = table.trends(0.0)[:, 1]
    assert day == pytest.approx(math.log(1 / FLOOR), rel=1e-4)
    assert week == 0.0
    assert len(table.successors([1], 1.0)[0]) == 0


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
