"""All items' signals as arrays: counted here or taken over, read for lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.items import signals
from models.items.signal_table import (
    FLOOR,
    GAIN,
    LISTED,
    NEIGHBOUR_GAIN,
    NEIGHBOURS_EACH,
    SHRINKAGE,
    Floats,
    LookedUp,
    Rows,
    SignalTable,
)
from models.items.signals import (
    DAY_S,
    HOUR_S,
    NOTHING,
    ItemSignals,
    SignalRecord,
    SignalRules,
    Transition,
    apply,
    record,
    successors_at,
    transitions,
)
from tests.unit.models.transition_logs import ITEMS, RULES, YEAR_S, logs, times


def successors(table: SignalTable, last: list[int], t: float) -> tuple[Rows, Floats]:
    rows, scores = table.successors(table.look_up([last], [t]))
    return rows[0], scores[0]


def neighbours(table: SignalTable, last: list[int], t: float) -> tuple[Rows, Floats]:
    rows, scores = table.neighbours(table.look_up([last], [t]))
    return rows[0], scores[0]


def test_twenty_years_of_silence_and_clicks_overflow_nothing() -> None:
    rules = SignalRules(half_lives_s=(60.0,), successor_half_life_s=60.0)
    log = [Transition(n * YEAR_S, 0, 2 * n + k, s) for n in range(20) for k, s in enumerate((None, "next"))]
    state = apply(rules, NOTHING, log)
    assert state.counts == [1.0, 1.0]
    read = record(rules, "x", state)
    assert read.successors == [("next", pytest.approx(1.0))]
    table = SignalTable(rules, ["x", "next"])
    table.put([read])
    assert table.trends(19 * YEAR_S)[0, 1] == pytest.approx(math.log(1 / FLOOR), abs=1e-5)
    assert table.trends(40 * YEAR_S).tolist() == [[0.0, 0.0, 0.0]]
    assert np.isfinite(successors(table, [1], 40 * YEAR_S)[1]).all()


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
            {
                (table.item_of_row[row], kind, part): float(value)
                for kind, found in enumerate((successors(table, rows, now), neighbours(table, rows, now)))
                for row, values in zip(*found, strict=True)
                for part, value in enumerate(values)
            }
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
    assert (table.trends(1e9 + HOUR_S, 1) == table.trends(1e9 + HOUR_S)[:, 1]).all()


def test_new_items_get_rows_after_the_catalogue() -> None:
    table = SignalTable(RULES, ["a"])
    assert [table.add(item) for item in ("b", "a", "c", "b")] == [2, 1, 3, 2]
    assert table.row("zzz") == 0
    table.occur(3, 0.0)
    assert table.trends(0.0).shape == (4, 4)
    assert table.trends(0.0)[0, 3] > 2.9


def test_what_follows_the_newest_item_is_told_from_what_follows_those_before() -> None:
    table = SignalTable(RULES, ["a", "b", "x", "y"])
    for before, row in [(1, 3), (2, 4), (2, 3)]:
        table.follow([before], row, 0.0)
    rows, scores = successors(table, [1, 1, 2], 0.0)
    said = dict(zip(rows.tolist(), scores.tolist(), strict=True))
    assert said.keys() == {3, 4}
    assert said[3] == pytest.approx([math.log1p(GAIN), math.log1p(GAIN * 0.75)])
    assert said[4] == pytest.approx([math.log1p(GAIN), 0.0])


def test_neighbours_are_what_follows_by_how_often_both_occur() -> None:
    table = SignalTable(RULES, ["a", "b", "x", "y"])
    for before, row in [(1, 3), (1, 3), (2, 3), (1, 4)]:
        table.follow([before], row, 0.0)
    for row, often in [(1, 4), (3, 11), (4, 1)]:
        for _ in range(often):
            table.occur(row, 0.0)
    root_a, root_b, root_x, root_y = (math.sqrt(often + SHRINKAGE) for often in (4, 0, 11, 1))
    sums = {3: 2 / root_a / root_x + 1 / root_b / root_x, 4: 1 / root_a / root_y}
    rows, scores = neighbours(table, [1, 2, 0], 0.0)
    expected = {row: math.log1p(NEIGHBOUR_GAIN * of) for row, of in sums.items()}
    assert dict(zip(rows.tolist(), scores[:, 0].tolist(), strict=True)) == pytest.approx(expected)
    later, of_later = neighbours(table, [1, 2, 0], 365 * DAY_S)  # all has decayed alike, but for what is granted
    assert later.tolist() == rows.tolist()
    assert (of_later < scores).all()
    assert neighbours(table, [1, 1], 0.0)[1].sum() > neighbours(table, [1], 0.0)[1].sum()
    assert neighbours(table, [], 0.0)[1].shape == (0, 1)


@given(logs(), st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=4), times), max_size=40))
def test_what_follows_many_users_items_is_read_as_for_each_alone(
    log: list[Transition], users: list[tuple[list[int], float]]
) -> None:
    table = SignalTable(RULES, ITEMS)
    table.put([record(RULES, item_id, apply(RULES, NOTHING, log[n:])) for n, item_id in enumerate(ITEMS[:3])])
    looked_up = table.look_up([last for last, _ in users], [t for _, t in users])
    for of_many, of_one in [(table.successors, successors), (table.neighbours, neighbours)]:
        rows, values = of_many(looked_up)
        for number, (last, t) in enumerate(users):
            alone_rows, alone = of_one(table, last, t)
            together = {
                row: value for row, value in zip(rows[number].tolist(), values[number].tolist(), strict=True) if row
            }
            assert together == dict(zip(alone_rows.tolist(), alone.tolist(), strict=True))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.floats(0, 3 * DAY_S)), max_size=40),
    st.lists(st.tuples(st.integers(1, 5), st.floats(0, 3 * DAY_S)), min_size=1, max_size=5),
)
def test_what_was_looked_up_stays_as_it_was_whatever_is_counted_after(
    events: list[tuple[int, int, float]], later: list[tuple[int, float]]
) -> None:
    table, t = SignalTable(RULES, ITEMS), 0.0
    last: dict[int, list[int]] = {}

    def count(user: int, row: int) -> None:
        table.follow(last.setdefault(user, []), row, t)
        table.occur(row, t)
        last[user].append(row)

    for user, row, passed in events:
        t += passed
        count(user, row)
    looked_up = [table.look_up([of_user], [t]) for of_user in [[], *last.values()]]
    together = table.look_up([[], *last.values()], [t] * len(looked_up))
    then = [values for read in (table.successors, table.neighbours) for values in read(together)]
    for user in last:
        for row, passed in later:
            t += passed
            count(user, row)
    for one in (together, LookedUp.joined(looked_up)):
        now = [values for read in (table.successors, table.neighbours) for values in read(one)]
        for before, after in zip(then, now, strict=True):
            np.testing.assert_array_equal(before, after)


def test_the_best_successors_of_many_are_listed() -> None:
    table = SignalTable(RULES, ["a", "b"])
    successors = [(f"after-{n}", float(n + 1)) for n in range(LISTED + 40)]
    table.put([SignalRecord("a", 0.0, [1.0] * 5, successors, RULES.all_half_lives_s)])
    rows, values = table.successors(table.look_up([[1], [2], [1, 2]], [0.0] * 3))
    assert (*rows.shape, 2) == values.shape == (3, LISTED, 2)
    assert {table.item_of_row[row] for row in rows[0].tolist()} == {item_id for item_id, _ in successors[40:]}
    assert not values[1].any()
    assert not values[2, :, 0].any()
    expected = sorted(math.log1p(GAIN * 0.5 * weight) for _, weight in successors[40:])
    assert sorted(values[2, :, 1].tolist()) == pytest.approx(expected)


def test_the_best_neighbours_of_many_are_listed_of_the_best_of_each_item() -> None:
    table = SignalTable(RULES, ["a", "b", "c"])
    for item_id, best in (("a", 7.0), ("b", 9.0)):
        successors = [(f"after-{item_id}-{n}", best - n / 100) for n in range(NEIGHBOURS_EACH + 10)]
        table.put([SignalRecord(item_id, 0.0, [1.0] * 5, successors, RULES.all_half_lives_s)])
    rows, values = table.neighbours(table.look_up([[1], [3], [1, 2]], [0.0] * 3))
    assert (*rows.shape, 1) == values.shape == (3, LISTED, 1)
    said = [{table.item_of_row[row] for row in of if row} for of in rows.tolist()]
    assert said[0] == {f"after-a-{n}" for n in range(NEIGHBOURS_EACH)}
    assert said[1] == set()
    rest = LISTED - NEIGHBOURS_EACH
    assert said[2] == {*(f"after-b-{n}" for n in range(NEIGHBOURS_EACH)), *(f"after-a-{n}" for n in range(rest))}
    assert not values[1].any()
    assert {*neighbours(table, [1, 2], 0.0)[0].tolist()} == {*rows[2].tolist()}


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
    expected: dict[tuple[str, int], float] = {}
    ids = [["", *ITEMS][row] for row in last]
    for part, weight, before in zip((0, 1, 1), (1.0, 0.5, 0.25), reversed(ids), strict=False):
        if before in states:
            for item_id, count in successors_at(RULES, states[before], end).items():
                expected[item_id, part] = expected.get((item_id, part), 0.0) + weight * count
    for table in (taken, moved):
        rows, values = successors(table, [table.row(item_id) for item_id in ids], end)
        found = {
            (table.item_of_row[row], part): value
            for row, of in zip(rows.tolist(), values.tolist(), strict=True)
            for part, value in enumerate(of)
        }
        wanted = {said: math.log1p(GAIN * count) for said, count in expected.items()}
        for said in {*found, *wanted}:
            assert found.get(said, 0.0) == pytest.approx(wanted.get(said, 0.0), rel=1e-4, abs=1e-6)


def test_a_record_of_other_half_lives_tells_what_both_know() -> None:
    state = apply(SignalRules((HOUR_S, DAY_S), DAY_S), NOTHING, [Transition(0.0, 0, 0), Transition(1.0, 0, 1, "b")])
    table = SignalTable(SignalRules((DAY_S, 7 * DAY_S), 7 * DAY_S), ["a", "b"])
    table.put([record(SignalRules((HOUR_S, DAY_S), DAY_S), "a", state)])
    day, week = table.trends(0.0)[:, 1]
    assert day == pytest.approx(math.log(1 / FLOOR), rel=1e-4)
    assert week == 0.0
    assert len(successors(table, [1], 1.0)[0]) == 0


def test_a_record_of_an_earlier_release_tells_how_often_by_its_longest_half_life() -> None:
    rules = SignalRules((HOUR_S, DAY_S), 7 * DAY_S)
    now, before = SignalTable(rules, ["a", "b"]), SignalTable(rules, ["a", "b"])
    now.put([SignalRecord("a", 0.0, [1.0, 2.0, 2.0], [("b", 1.0)], [HOUR_S, DAY_S, 7 * DAY_S, 7 * DAY_S])])
    before.put([SignalRecord("a", 0.0, [1.0, 2.0], [("b", 1.0)], [HOUR_S, DAY_S, 7 * DAY_S])])
    assert neighbours(before, [1], 0.0)[1].tolist() == neighbours(now, [1], 0.0)[1].tolist()


def test_a_time_long_before_the_first_occurrence_overflows_nothing() -> None:
    table = SignalTable(SignalRules((60.0,), 60.0), ["a", "b"])
    table.occur(1, 20 * YEAR_S)
    table.follow([1], 2, 20 * YEAR_S)
    assert np.isfinite(neighbours(table, [1], 0.0)[1]).all()
    assert np.isfinite(table.neighbours(table.look_up([[1], [1]], [0.0, 1.0]))[1]).all()
