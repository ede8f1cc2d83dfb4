from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models.oracle import forward_state
from models.recommending.popularity import Popularity
from models.recommending.recommender import Decision, Moved, Observation, Recommender, Trial, UserKey
from models.records import POPULARITY
from models.sessions import SessionRules
from models.users.state import UserState, decode, encode
from models.users.walk import SourcedEvent
from models.weights import ServingModel
from tests.unit.models.made import serving, sourced

MODEL = serving()
OTHER = serving(version="v2", hidden=9, seed=3)
HERE = (0, "u")


def decided(
    *events: SourcedEvent,
    model: ServingModel | None = MODEL,
    states: dict[UserKey, UserState] | None = None,
    popularity: Popularity | None = None,
    recommender: Recommender | None = None,
) -> Decision:
    recommender = recommender or Recommender(SessionRules(), top_k=5)
    return recommender.decide(model, popularity or Popularity(), states or {}, events, generated_at=9.0)


def listed(decision: Decision, number: int = 0) -> list[str]:
    return [item.item_id for item in decision.recommendations[number][1].items]


def test_nothing_comes_of_nothing() -> None:
    assert decided() == Decision()


def test_before_any_model_the_popular_is_listed() -> None:
    popularity = Popularity()
    for item_id in ("a", "a", "b", "item-1"):
        popularity.add(item_id)
    decision = decided(sourced(0), model=None, popularity=popularity)
    [(number, recommendation)] = decision.recommendations
    assert (number, recommendation.model_version, recommendation.generated_at) == (0, POPULARITY, 9.0)
    assert listed(decision) == ["a", "b"]  # not item-1, which was just seen
    state = decision.states[HERE]
    assert (state.h, state.h_events, state.model_version) == (b"", 0, "")
    assert state.emitted == ["a", "b"]


def test_every_applied_event_is_observed_once_and_nothing_given_is_changed() -> None:
    popularity = Popularity()
    first = decided(sourced(0), sourced(1, timestamp=0.0), popularity=popularity)
    assert first.outcomes.observations == [Observation("item-1", 1000.0, first.states[HERE].emitted)]
    assert decided(sourced(0), states=first.states).outcomes.observations == []
    assert popularity.top(5) == []


def test_what_a_batch_takes_is_popular_within_it() -> None:
    events = [sourced(0, "ann", "a"), sourced(1, "bob", "b"), sourced(2, "cem", "a"), sourced(3, "dan", "c")]
    decision = decided(*events, model=None)
    assert [listed(decision, number) for number in range(4)] == [[], ["a"], ["b"], ["a", "b"]]
    assert [item.score for item in decision.recommendations[3][1].items] == [2.0, 1.0]


def test_states_survive_their_bytes_between_batches() -> None:
    first = decided(sourced(0), sourced(1, item_id="item-2", timestamp=1001.0))
    stored = {key: decode(encode(state)) for key, state in first.states.items()}
    event = sourced(2, item_id="item-3", timestamp=1002.0)
    assert decided(event, states=stored).states == decided(event, states=first.states).states


def test_the_first_model_takes_up_what_was_before_it() -> None:
    before = decided(sourced(0), sourced(1, item_id="item-2", timestamp=1100.0), model=None)
    after = decided(sourced(2, item_id="item-3", timestamp=1200.0), states=before.states)
    state = after.states[HERE]
    assert (state.model_version, state.h_events, after.outcomes.rebuilt_users) == ("v1", 2, 1)
    assert np.allclose(np.frombuffer(state.h, "<f4"), forward_state(MODEL, state.history, 2), atol=1e-6)


def test_without_a_model_the_hidden_state_is_given_up() -> None:
    before = decided(sourced(0), sourced(1, timestamp=1001.0))
    state = decided(sourced(2, timestamp=1002.0), model=None, states=before.states).states[HERE]
    assert (state.h, state.h_events, state.model_version) == (b"", 0, "")


def test_a_hidden_state_of_another_width_is_replayed() -> None:
    before = decided(sourced(0), sourced(1, timestamp=1001.0))
    broken = {HERE: msgspec.structs.replace(before.states[HERE], h=b"\0" * 12)}
    event = sourced(2, timestamp=1002.0)
    assert decided(event, states=broken).states == decided(event, states=before.states).states


def test_what_was_seen_is_listed_only_if_wanted() -> None:
    events = [sourced(n, item_id=f"item-{n}", timestamp=1000.0 + n) for n in range(10)]
    everything = Recommender(SessionRules(), top_k=30, exclude_seen=False)
    assert len(listed(decided(*events, recommender=everything), 9)) == 30
    unseen = Recommender(SessionRules(), top_k=30)
    assert set(listed(decided(*events, recommender=unseen), 9)) == {f"item-{n}" for n in range(10, 30)}


def test_what_left_the_retained_history_is_not_listed_again_until_it_is_forgotten() -> None:
    events = [sourced(n, item_id=f"item-{n}", timestamp=1000.0 + n) for n in range(10)]
    short = Recommender(SessionRules(max_session_events=4), top_k=30, history_events=4, earlier_items=3)
    decision = decided(*events, recommender=short)
    assert {f"item-{n}" for n in range(30)} - set(listed(decision, 9)) == {f"item-{n}" for n in range(3, 10)}
    assert {f"item-{n}" for n in range(30)} - set(listed(decision, 5)) == {f"item-{n}" for n in range(6)}
    state = decision.states[HERE]
    assert [event.offset for event in state.history] == [6, 7, 8, 9]
    assert (state.earlier, state.earlier_events) == ({"item-3": 1, "item-4": 1, "item-5": 1}, 6)
    popular = decided(sourced(10, item_id="item-9", timestamp=1010.0), model=None, states=decision.states)
    assert popular.states[HERE].earlier == state.earlier  # a longer setting finds nothing more


def test_a_state_of_an_older_release_keeps_what_falls_out_from_now_on() -> None:
    events = [sourced(n, item_id=f"item-{n % 5}", timestamp=1000.0 + n) for n in range(10)]
    short = Recommender(SessionRules(max_session_events=4), top_k=30, history_events=4)
    before = decided(*events, recommender=short).states[HERE]
    older = msgspec.structs.replace(before, earlier={}, earlier_events=0)
    after = decided(sourced(10, timestamp=1010.0), states={HERE: older}, recommender=short).states[HERE]
    assert (after.earlier, after.earlier_events) == ({"item-1": 1}, 1)


def test_the_time_of_asking_changes_the_list() -> None:
    scores = [
        [item.score for item in decided(sourced(0), recommender=Recommender(SessionRules(), asking_gap_s=gap_s))
         .recommendations[0][1].items]
        for gap_s in (0.0, 59.0, 60.0, 90_000.0)
    ]  # fmt: skip
    assert scores[0] == scores[1]
    assert len({tuple(s) for s in scores}) == 3


def test_an_item_that_the_model_never_saw_is_counted_and_answered() -> None:
    decision = decided(sourced(0, item_id="news of today"))
    assert decision.outcomes.unknown_items == 1
    assert len(listed(decision)) == 5


def test_a_hit_is_an_item_of_the_list_before() -> None:
    first = decided(sourced(0))
    third_place = listed(first)[2]
    taken = sourced(1, item_id=third_place, timestamp=1001.0)
    apart = decided(taken, states=first.states).outcomes
    assert apart.trials == [Trial(MODEL.version, False, 3, 0, 0)]
    together = decided(sourced(0), taken).outcomes
    assert together.trials == apart.trials
    missed = decided(sourced(1, timestamp=1001.0), states=first.states).outcomes
    assert missed.trials == [Trial(MODEL.version, False, 0, 0, 0)]


def test_a_list_of_the_popular_is_tried_as_such_and_an_opened_session_told() -> None:
    first = decided(sourced(0), model=None)
    later = decided(sourced(1, timestamp=5000.0, now=5000.0), states=first.states).outcomes
    assert later.trials == []  # nobody else had taken anything, so the list was empty
    popularity = Popularity()
    popularity.add("item-7")
    first = decided(sourced(0), model=None, popularity=popularity)
    later = decided(sourced(1, item_id="item-7", timestamp=5000.0, now=5000.0), states=first.states).outcomes
    assert later.trials == [Trial(POPULARITY, True, 1, 0, 0)]


def test_users_are_told_with_their_newest_event_and_the_one_before_the_batch() -> None:
    first = decided(sourced(0), sourced(1, timestamp=1001.0))
    assert first.outcomes.moved == [Moved(0, 0.0, 1001.0)]
    assert decided(sourced(2, timestamp=1005.0), states=first.states).outcomes.moved == [Moved(0, 1001.0, 1005.0)]
    assert decided(sourced(1, timestamp=1001.0), states=first.states).outcomes.moved == []


def test_late_and_future_events_are_rejected_with_their_distance() -> None:
    decision = decided(
        sourced(0),
        sourced(1, timestamp=600.0, now=1000.0),
        sourced(2, timestamp=5000.0, now=1000.0),
        sourced(3, timestamp=1001.0),
    )
    assert [(number, reason) for number, reason, _ in decision.rejects] == [(1, "late"), (2, "future")]
    assert "400 s" in decision.rejects[0][2]
    assert "4000 s" in decision.rejects[1][2]
    assert [number for number, _ in decision.recommendations] == [0, 3]
    assert (decision.outcomes.late, decision.outcomes.future, decision.outcomes.applied) == (1, 1, 2)


def test_a_user_whose_only_event_is_rejected_gets_no_state() -> None:
    decision = decided(sourced(0, timestamp=5000.0, now=1000.0))
    assert decision.states == {}
    assert decision.sessions == {}


def test_out_of_order_within_the_grace_has_a_gap_of_nothing() -> None:
    decision = decided(sourced(0), sourced(1, item_id="item-2", timestamp=900.0))
    assert [event.timestamp for event in decision.states[HERE].history] == [1000.0, 1000.0]
    assert decision.recommendations[1][1].event_time == 900.0


def test_sessions_are_written_as_they_grow() -> None:
    decision = decided(sourced(0), sourced(1, timestamp=2800.0), sourced(2, timestamp=4600.5))
    assert list(decision.sessions) == ["u|1000", "u|4600.5"]
    first, second = decision.sessions.values()
    assert (first.start, first.end, len(first.events)) == (1000.0, 2800.0, 2)
    assert second.events == [("item-1", 4600.5, None, None)]
    assert decision.outcomes.sessions_opened == 2
    assert decision.outcomes.sessions_closed == 1
    assert [r.session_id for _, r in decision.recommendations] == ["u|1000", "u|1000", "u|4600.5"]


def test_a_long_session_is_written_in_parts() -> None:
    events = [sourced(n, timestamp=1000.0 + n) for n in range(5)]
    decision = decided(*events, recommender=Recommender(SessionRules(max_session_events=2)))
    assert {key: len(record.events) for key, record in decision.sessions.items()} == {
        "u|1000": 2,
        "u|1000#1": 2,
        "u|1000#2": 1,
    }
    assert decision.outcomes.sessions_opened == 1


def test_a_redelivered_event_leads_to_nothing_but_its_state_to_be_stored() -> None:
    events = [sourced(0), sourced(1, timestamp=600.0), sourced(2, item_id="item-2", timestamp=1002.0)]
    first = decided(*events)
    assert [reason for _, reason, _ in first.rejects] == ["late"]
    again = decided(*events, states=first.states)
    assert again.states[HERE] is first.states[HERE]
    assert (again.recommendations, again.sessions, again.transitions, again.rejects) == ([], {}, [], [])
    assert (again.outcomes.duplicates, again.outcomes.applied) == (3, 0)


def test_a_redelivery_goes_on_with_what_is_new() -> None:
    events = [sourced(n, item_id=f"item-{n}", timestamp=1000.0 + n) for n in range(4)]
    first, whole = decided(*events[:2]), decided(*events)
    again = decided(*events, states=first.states)
    assert again.states == whole.states
    assert again.sessions == whole.sessions
    assert [number for number, _ in again.recommendations] == [2, 3]


def test_what_is_forwarded_twice_is_applied_once() -> None:
    forwarded = sourced(7, partition=3, origin=(1, 50))
    first = decided(forwarded)
    assert first.states[3, "u"].origins == {1: 50}
    again = decided(forwarded._replace(offset=8), states=first.states)
    assert again.states[3, "u"] is first.states[3, "u"]
    assert again.recommendations == []
    later = decided(sourced(9, partition=3, origin=(1, 51), timestamp=1001.0), states=first.states)
    assert later.states[3, "u"].origins == {1: 51}
    assert first.states[3, "u"].origins == {1: 50}


def test_the_same_user_in_two_partitions_is_two_states() -> None:
    decision = decided(sourced(5), sourced(2, partition=1))
    assert decision.states.keys() == {(0, "u"), (1, "u")}
    assert decision.outcomes.applied == 2


def test_a_swap_replays_each_user_once() -> None:
    users = [f"u{n}" for n in range(4)]
    before = decided(*(sourced(n, users[n % 4], timestamp=1000.0 + n) for n in range(12)))
    events = [sourced(20 + n, users[n % 3], timestamp=1020.0 + n) for n in range(6)]
    after = decided(*events, model=OTHER, states=before.states)
    assert after.outcomes.rebuilt_users == 3
    assert {state.model_version for state in after.states.values()} == {"v2"}
    assert {len(state.h) for state in after.states.values()} == {36}


def test_settings_that_lose_sessions_are_refused() -> None:
    with pytest.raises(ValueError, match="sessions of 100"):
        Recommender(SessionRules(), history_events=99)
    with pytest.raises(ValueError, match="top_k"):
        Recommender(SessionRules(), top_k=0)


def test_settings_may_become_smaller() -> None:
    events = [sourced(n, timestamp=1000.0 + n) for n in range(6)]
    first = decided(*events)
    short = Recommender(SessionRules(max_session_events=2), history_events=2)
    after = decided(sourced(6, timestamp=1006.0), states=first.states, recommender=short)
    assert {key: len(record.events) for key, record in after.sessions.items()} == {"u|1000#1": 1}
    assert len(after.states[HERE].history) == 2


def test_a_session_longer_than_its_history_never_overwrites_a_whole_record() -> None:
    events = [sourced(n, timestamp=1000.0 + n) for n in range(6)]
    state = decided(*events).states[HERE]
    cut = msgspec.structs.replace(state, history=state.history[-3:])  # session_len is still 6
    after = decided(sourced(6, timestamp=1006.0), states={HERE: cut})
    assert {key: len(record.events) for key, record in after.sessions.items()} == {"u|1000#1": 1}
