from __future__ import annotations

from models.records import Event
from tests.unit.trainer.logs import drawn
from trainer.data.histories import from_events


def test_events_of_one_second_keep_the_order_of_the_file() -> None:
    events = [Event("b", "1", 5.0), Event("a", "2", 5.0), Event("b", "3", 5.0), Event("a", "4", 1.0)]
    histories = from_events(events)
    names = [(histories.user_ids[histories.users[n]], histories.item_ids[histories.items[n]]) for n in histories.order]
    assert names == [("a", "4"), ("b", "1"), ("a", "2"), ("b", "3")]
    assert histories.times.tolist() == [1.0, 5.0, 5.0, 5.0]


def test_a_part_is_what_the_part_alone_would_have_made() -> None:
    events = drawn(0, 100)
    whole, alone = from_events(events), from_events(events[:60])
    part = whole.part(whole.order[:60])
    assert part.user_ids == alone.user_ids
    assert part.item_ids == alone.item_ids
    for name in ("bounds", "items", "times", "order"):
        assert getattr(part, name).tolist() == getattr(alone, name).tolist()
