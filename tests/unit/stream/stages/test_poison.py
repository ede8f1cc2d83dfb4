from __future__ import annotations

from collections.abc import Sequence

import pytest

from models.recommending.recommender import Decision
from models.users.walk import SourcedEvent
from stream.stages.poison import MOST_POISON, decide_without_poison
from tests.unit.models.made import sourced


def decide(events: Sequence[SourcedEvent]) -> Decision:
    """Fail at events on an item "poison", and at any of a user that has had "trap" before."""
    trapped = set()
    for event in (one.event for one in events):
        if event.item_id == "poison" or event.user_id in trapped:
            raise ZeroDivisionError(event.item_id)
        if event.item_id == "trap":
            trapped.add(event.user_id)
    decision = Decision()
    decision.outcomes.applied = len(events)
    return decision


def test_a_batch_without_poison_is_decided_once() -> None:
    calls = []

    def counted(events: Sequence[SourcedEvent]) -> Decision:
        calls.append(len(events))
        return decide(events)

    decision, numbers, failed = decide_without_poison(counted, [sourced(0), sourced(1)])
    assert (decision.outcomes.applied, numbers, failed, calls) == (2, [0, 1], [], [2])


def test_the_events_that_fail_are_refused_and_the_others_decided() -> None:
    events = [sourced(0), sourced(1, item_id="poison"), sourced(2, "v", "trap"), sourced(3, "v"), sourced(4)]
    decision, numbers, failed = decide_without_poison(decide, events)
    assert (decision.outcomes.applied, numbers) == (3, [0, 2, 4])
    assert [(number, error.reason) for number, error in failed] == [(1, "failed"), (3, "failed")]
    assert "ZeroDivisionError: poison" in failed[0][1].detail


def test_what_fails_at_many_events_is_no_event_s_fault() -> None:
    events = [sourced(n, f"u{n}", "poison") for n in range(MOST_POISON + 1)]
    with pytest.raises(ZeroDivisionError):
        decide_without_poison(decide, events)


def test_what_fails_only_with_several_users_together_is_raised() -> None:
    def together(events: Sequence[SourcedEvent]) -> Decision:
        if len({one.event.user_id for one in events}) > 1:
            raise ZeroDivisionError
        return Decision()

    with pytest.raises(ZeroDivisionError):
        decide_without_poison(together, [sourced(0, "u"), sourced(1, "v")])


def test_short_memory_is_no_event_s_fault() -> None:
    def short(events: Sequence[SourcedEvent]) -> Decision:
        raise MemoryError

    with pytest.raises(MemoryError):
        decide_without_poison(short, [sourced(0)])
