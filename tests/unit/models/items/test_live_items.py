from __future__ import annotations

import math
import random
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest

from models.items.live_items import (
    COVERAGE_LISTS,
    HOUR_S,
    PSI_LEAST_EVENTS,
    REFRESH_AT_LEAST,
    REFRESH_EVERY,
    WINDOW_HOURS,
    K,
    LiveItems,
    stability_index,
)
from models.users.state import HistoryEvent


def history(*item_ids: str) -> list[HistoryEvent]:
    return [HistoryEvent(item_id, 0.0, None, None, n) for n, item_id in enumerate(item_ids)]


def take(live: LiveItems, **counts: int) -> None:
    """Have items taken in hour 0, then so many more that the ranks are made anew; those tie for the last places."""
    for item_id, count in counts.items():
        for _ in range(count):
            live.take(item_id, 10.0)
    for n in range(REFRESH_EVERY):
        live.take(f"other-{n}", 10.0)


NO_COUNTS: Mapping[str, int] = MappingProxyType({})


def place(live: LiveItems, item_id: str, *had: str, earlier: Mapping[str, int] = NO_COUNTS) -> tuple[int, int]:
    return live.places(item_id, history(*had), earlier)


def test_places_are_by_count_without_what_the_user_has_had() -> None:
    live = LiveItems()
    assert place(live, "a") == (0, 0)
    take(live, a=9, b=8, c=7)
    assert [place(live, item_id) for item_id in ("a", "b", "c", "never")] == [(1, 1), (2, 2), (3, 3), (0, 0)]
    assert place(live, "c", "a", "a", "z") == (2, 2)
    assert place(live, "b", "b") == (0, 0)
    assert place(live, "c", "b", earlier={"a": 2, "z": 1}) == (1, 1)
    assert place(live, "b", earlier={"b": 1}) == (0, 0)


def test_the_tenth_place_is_the_last() -> None:
    live = LiveItems()
    take(live, **{f"i{n}": 40 - n for n in range(15)})
    assert [place(live, f"i{n}")[0] for n in range(15)] == [*range(1, K + 1), 0, 0, 0, 0, 0]
    assert place(live, "i10", "i3") == (K, K)


def test_the_places_are_those_of_plain_counts() -> None:
    """Held against counting everything anew at each event, with the ranks' delay allowed for."""
    rnd, live = random.Random(4), LiveItems()
    times = sorted(rnd.uniform(0, 60 * HOUR_S) for _ in range(6000))
    events = [(f"i{int(60 * rnd.random() ** 2)}", t) for t in times]
    wrong = asked = 0
    for n, (item_id, t) in enumerate(events):
        if n % 97 == 0 and n > 3000:
            had = [events[rnd.randrange(n)][0] for _ in range(5)]
            oldest = (int(t // HOUR_S) - WINDOW_HOURS + 1) * HOUR_S
            expected = []
            for since in (0.0, oldest):
                counts: dict[str, int] = {}
                for other, at in events[:n]:
                    counts[other] = counts.get(other, 0) + (at >= since)
                better = sum(c > counts[item_id] for other, c in counts.items() if other not in had)
                expected.append(0 if item_id in had or better >= K else better + 1)
            asked += 2
            wrong += sum(abs(a - b) > 1 for a, b in zip(place(live, item_id, *had), expected, strict=True))
        live.take(item_id, t)
    assert asked > 50
    assert wrong / asked < 0.1, f"{wrong} of {asked} places are off by more than one"


def test_what_is_older_than_the_window_counts_for_all_time_only() -> None:
    live = LiveItems()
    take(live, a=50)
    for n in range(REFRESH_EVERY):
        live.take("b" if n < 20 else f"new-{n}", (WINDOW_HOURS + 1) * HOUR_S)
    assert place(live, "a") == (1, 0)
    assert place(live, "b") == (2, 1)
    live.take("a", 10.0)  # late, as of another partition: it does not bring the old window back
    for n in range(REFRESH_EVERY):
        live.take(f"more-{n}", (WINDOW_HOURS + 1) * HOUR_S)
    assert place(live, "a") == (1, 0)


def test_a_model_brings_the_counts_that_it_was_trained_on() -> None:
    live = LiveItems()
    take(live, a=30, gone=20)
    live.learn("v1", ["x", "y", "a"], [500, 400, 3])
    assert [place(live, item_id)[0] for item_id in ("x", "y", "a")] == [1, 2, 3]
    assert [place(live, item_id)[1] for item_id in ("a", "gone", "x")] == [1, 2, 0]
    live.learn("v2", ["y", "a"], [])  # of an earlier release: what is known goes on
    assert [place(live, item_id)[0] for item_id in ("y", "a")] == [1, 2]
    for n in range(REFRESH_EVERY):  # a day later nothing of the first hour is left, wherever its rows had moved
        live.take("later" if n < 20 else f"more-{n}", (WINDOW_HOURS + 1) * HOUR_S)
    assert [place(live, item_id)[1] for item_id in ("later", "a", "gone")] == [1, 0, 0]


def test_the_memory_is_bounded_by_the_catalogue_and_a_day() -> None:
    live = LiveItems()
    for day in range(5):
        for n in range(REFRESH_EVERY):
            live.take(f"once-{day}-{n}", day * 2 * WINDOW_HOURS * HOUR_S)
        live.learn(f"v{day}", ["a", "b"], [1, 1])
    assert len(live._rows) == len(live._ids) <= 2 + REFRESH_EVERY


def test_drift_is_told_once_there_are_enough_events() -> None:
    ids = [f"i{n}" for n in range(1000)]
    counts = [int(10_000 / (n + 1)) + 1 for n in range(1000)]
    drawn = random.Random(1).choices(ids, counts, k=5000)
    same, other = LiveItems(), LiveItems()
    same.learn("v1", ids, counts)
    other.learn("v1", ids, counts)
    for n, item_id in enumerate(drawn):
        same.take(item_id, 1.0)
        other.take(ids[-1 - ids.index(item_id)], 1.0)
        if n < PSI_LEAST_EVENTS - 1:
            assert math.isnan(same.psi)
    assert 0 <= same.psi < 0.02
    assert other.psi > 1
    same.learn("v2", ids, [])
    assert math.isnan(same.psi)


def test_the_index_is_the_formula() -> None:
    e, a = np.array([100.0, 300.0, 0.0, 0.0]), np.array([200.0, 200.0, 1.0, 0.0])
    se, sa = (e[:3] + 0.5) / (e[:3] + 0.5).sum(), (a[:3] + 0.5) / (a[:3] + 0.5).sum()
    expected = sum((q - p) * math.log(q / p) for p, q in zip(se, sa, strict=True))
    assert stability_index(e, a) == pytest.approx(expected)
    assert stability_index(e, e * 7) == pytest.approx(0.0, abs=1e-5)


def test_coverage_is_of_the_last_whole_block_of_lists() -> None:
    live = LiveItems()
    assert math.isnan(live.coverage)
    live.learn("v1", [f"i{n}" for n in range(100)], [])
    live.show(["i1", "i2"])
    assert live.coverage == 0.02
    for _ in range(COVERAGE_LISTS - 1):
        live.show(["i3"])
    assert live.coverage == 0.03
    for _ in range(COVERAGE_LISTS):
        assert live.coverage == 0.03
        live.show(["i3"])
    assert live.coverage == 0.01


def test_few_events_are_ranked_soon() -> None:
    live = LiveItems()
    for _ in range(REFRESH_AT_LEAST // 10):
        live.take("a", 0.0)
    assert place(live, "a") == (1, 1)
