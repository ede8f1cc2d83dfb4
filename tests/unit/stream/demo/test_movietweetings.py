"""The bundled data."""

import itertools

from stream.demo.movietweetings import load_events, load_titles


def test_all_events_come_in_time_order_with_a_title_each() -> None:
    events, titles = load_events(), load_titles()
    assert len(events) == 100_000
    assert all(before.timestamp <= after.timestamp for before, after in itertools.pairwise(events))
    assert len({event.user_id for event in events}) == 16_554
    assert {event.item_id for event in events} <= titles.keys()
    assert titles["0005078"] == "The Cheat (1915)"
