"""Lists, states and hidden states do not depend on how a log is cut into batches, nor on redeliveries.

The log of every example is driven through `Recommender.decide` in batches that go back now and then, as a consumer
does whose commit was lost, with the weights swapped in the middle; and through plain loops, event by event.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoders.hgru import HGRUConfig
from models.items.signals import NOTHING, ItemSignals, SignalRules, apply, transitions
from models.oracle import Outcome, Replay, fell_out, forward_state, list_for, replay
from models.recommending.popularity import Popularity
from models.recommending.recommender import Recommender, UserKey
from models.records import POPULARITY, RankedItem, Recommendation, SessionRecord, rec_id, session_key
from models.sessions import SessionRules
from models.users.state import HistoryEvent, UserState
from models.users.walk import SourcedEvent
from models.weights import ServingModel
from tests.unit.models.made import serving, sourced

OLD = serving(25, version="old", seed=1)
NEW = serving(30, version="new", seed=2)  # other weights of the same width, more items
TALL = serving(30, version="tall", seed=3, layers=2)  # of another width
HGRU = serving(30, version="hgru", seed=4, kind=HGRUConfig)  # of another encoder
HGRU_ALL = serving(30, version="hgru-all", seed=5, kind=HGRUConfig, user_state="all", layers=2, session_gap_s=600.0)
MODELS = {"": None, **{model.version: model for model in (OLD, NEW, TALL, HGRU, HGRU_ALL)}}
SIGNAL_RULES = SignalRules()
TOLERANCE = 1e-5
PLACES = 6

# seconds between one event and the next of the log: simultaneous, out of order, late, and every level and session bound
STEPS = [0.0, 1.0, 59.0, 60.0, 600.0, 1800.0, 1800.5, 3600.0, 86400.0, -1.0, -300.0, -301.0, -5000.0]


@dataclass
class Case:
    log: list[SourcedEvent]
    model_from: int  # the offset that the first weights serve from
    swap_from: int
    new: ServingModel
    cuts: list[int]  # batches' ends, rising
    rewinds: list[int]  # for each batch, how many events before it come again
    history_events: int
    earlier_items: int
    session_events: int
    asking_gap_s: float


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 40))
    log, timestamp = [], 1_000_000.0
    forwarded = defaultdict(int)
    for offset in range(size):
        timestamp = max(0.0, timestamp + draw(st.sampled_from(STEPS)))
        origin = None
        if draw(st.integers(0, 5)) == 0:
            partition = draw(st.integers(1, 2))
            forwarded[partition] += 1
            origin = (partition, forwarded[partition] - draw(st.sampled_from([0, 0, 1])))  # 1: forwarded twice
        log.append(
            sourced(
                offset,
                draw(st.sampled_from(["ann", "bob", "cem"])),
                f"item-{draw(st.integers(0, 32))}",  # 30 to 32 no model knows, 25 to 29 only the new one
                timestamp,
                event_type=draw(st.sampled_from([None, "click", "buy", "?"])),
                event_value=draw(st.sampled_from([None, 1.0, 5.0, 1e9])),
                now=timestamp - draw(st.sampled_from([0.0, 0.0, 0.0, 0.0, 700.0])),  # 700 s: from the future
                origin=origin,
            )
        )
    model_from = draw(st.integers(0, size))
    swap_from = draw(st.integers(model_from, size))
    cuts = sorted({*draw(st.lists(st.integers(1, size), max_size=6)), model_from, swap_from, size} - {0})
    rewinds = [draw(st.sampled_from([0, 0, 1, 3, 20])) for _ in cuts]
    history_events = draw(st.sampled_from([3, 5, 100]))
    session_events = draw(st.sampled_from([n for n in (2, 3, 100) if n <= history_events]))
    gap = draw(st.sampled_from([0.0, 60.0, 1e6]))
    new = draw(st.sampled_from([NEW, NEW, TALL, HGRU, HGRU_ALL]))
    earlier_items = draw(st.sampled_from([1, 4, 500]))
    return Case(log, model_from, swap_from, new, cuts, rewinds, history_events, earlier_items, session_events, gap)


@dataclass
class Run:
    states: dict[UserKey, UserState] = field(default_factory=dict)
    lists: dict[int, list[Recommendation]] = field(default_factory=lambda: defaultdict(list))
    """By offset, one for each delivery."""
    rejects: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    sessions: dict[str, SessionRecord] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    items: dict[str, ItemSignals] = field(default_factory=lambda: defaultdict(lambda: NOTHING))


def run(case: Case, cuts: list[int], rewinds: list[int]) -> Run:
    rules = SessionRules(max_session_events=case.session_events)
    recommender = Recommender(rules, PLACES, True, case.history_events, case.asking_gap_s, case.earlier_items)
    popularity, result, begin = Popularity(), Run(), 0
    for end, rewind in zip(cuts, rewinds, strict=True):
        batch = case.log[max(0, begin - rewind) : end]
        model = serving_at(case, begin)
        before = {key: msgspec.msgpack.encode(state) for key, state in result.states.items()}
        decision = recommender.decide(model, popularity, result.states, batch, 5.0)
        assert before == {key: msgspec.msgpack.encode(state) for key, state in result.states.items()}
        for event in batch:  # a redelivered one has its state put again, that the changelog may have missed
            key = (event.partition, event.event.user_id)
            if key in result.states and event.offset <= result.states[key].applied_offset:
                assert key in decision.states
        result.states.update(decision.states)
        result.sessions.update(decision.sessions)
        for item_id, transition in decision.transitions:
            result.items[item_id] = apply(SIGNAL_RULES, result.items[item_id], [transition])
        for seen in decision.outcomes.observations:  # as the worker does, once a batch is confirmed
            popularity.add(seen.item_id)
        for number, listed in decision.recommendations:
            result.lists[batch[number].offset].append(listed)
        for number, reason, detail in decision.rejects:
            assert detail
            result.rejects[batch[number].offset].append(reason)
        assert len(decision.recommendations) + len(decision.rejects) + decision.outcomes.duplicates == len(batch)
        for name in ("applied", "sessions_opened", "unknown_items"):
            result.counts[name] += getattr(decision.outcomes, name)
        result.counts["trials"] += len(decision.outcomes.trials)
        result.counts["hits"] += sum(trial.place > 0 for trial in decision.outcomes.trials)
        begin = end
    return result


def same_list(listed: list[RankedItem], ranked: list[RankedItem]) -> None:
    """Hold a list against the oracle's ranking of everything; near ties may stand in either order."""
    scores = {item.item_id: item.score for item in ranked}
    assert len(listed) == min(PLACES, len(ranked))
    for item, expected in zip(listed, ranked, strict=False):
        assert item.score == pytest.approx(expected.score, abs=TOLERANCE)
        assert item.score == pytest.approx(scores[item.item_id], abs=TOLERANCE)


def expected_sessions(case: Case, histories: dict[str, list[HistoryEvent]]) -> dict[str, SessionRecord]:
    records: dict[str, SessionRecord] = {}
    for user_id, history in histories.items():
        start, part, events = 0.0, 0, []
        for number, event in enumerate(history):
            if number == 0 or event.timestamp - history[number - 1].timestamp > 1800:
                start, part, events = event.timestamp, 0, []
            elif len(events) == case.session_events:
                part, events = part + 1, []
            events = [*events, (event.item_id, event.timestamp, event.event_type, event.event_value)]
            key = session_key(user_id, start, part)
            records[key] = SessionRecord(user_id, key, start, event.timestamp, events)
    return records


def walked(case: Case) -> Replay:
    rules = SessionRules(max_session_events=case.session_events)
    return replay(rules, case.history_events, case.log, case.earlier_items)


@settings(max_examples=120, deadline=None)
@given(cases())
def test_any_batching_makes_the_states_of_plain_loops(case: Case) -> None:
    streamed, plain = run(case, case.cuts, case.rewinds), walked(case)
    assert {user_id for _, user_id in streamed.states} == plain.states.keys()
    for (_, user_id), state in streamed.states.items():
        model = MODELS[state.model_version]
        expected = plain.states[user_id]
        assert expected == msgspec.structs.replace(state, h=b"", h_events=0, model_version="", emitted=[])
        assert list(expected.earlier.items()) == list(state.earlier.items())  # equal dicts may differ in order
        if model is None:
            assert (state.h, state.h_events) == (b"", 0)
        else:
            h = np.frombuffer(state.h, "<f4")
            assert np.abs(h - forward_state(model, plain.histories[user_id], state.h_events).numpy()).max() <= TOLERANCE
    assert streamed.sessions == expected_sessions(case, {u: h for u, h in plain.histories.items() if h})


@settings(max_examples=120, deadline=None)
@given(cases())
def test_any_batching_counts_each_event_once_for_its_items(case: Case) -> None:
    streamed, plain = run(case, case.cuts, case.rewinds), walked(case)
    applied = [
        (event.offset, [before.item_id for before in history[max(0, place - 3) : place]], event)
        for history in plain.histories.values()
        for place, event in enumerate(history)
    ]
    expected: dict[str, ItemSignals] = defaultdict(lambda: NOTHING)
    for offset, last, event in sorted(applied, key=lambda one: one[0]):
        for item_id, transition in transitions(last, event.item_id, event.timestamp, case.log[0].partition, offset):
            expected[item_id] = apply(SIGNAL_RULES, expected[item_id], [transition])
    assert streamed.items == expected


@settings(max_examples=80, deadline=None)
@given(cases())
def test_any_batching_makes_what_single_events_make(case: Case) -> None:
    streamed = run(case, case.cuts, case.rewinds)
    singles = run(case, list(range(1, len(case.log) + 1)), [0] * len(case.log))
    assert streamed.sessions == singles.sessions
    assert streamed.states.keys() == singles.states.keys()
    for key, state in streamed.states.items():
        single = singles.states[key]
        assert np.allclose(np.frombuffer(state.h, "<f4"), np.frombuffer(single.h, "<f4"), atol=TOLERANCE)
        blank = {"h": b"", "emitted": []}
        assert msgspec.structs.replace(state, **blank) == msgspec.structs.replace(single, **blank)
    for name in ("applied", "sessions_opened", "trials", "unknown_items"):
        assert streamed.counts[name] == singles.counts[name]
    assert {offset: reasons[0] for offset, reasons in streamed.rejects.items()} == {
        offset: reasons[0] for offset, reasons in singles.rejects.items()
    }


@settings(max_examples=80, deadline=None)
@given(cases())
def test_every_event_makes_the_list_of_plain_loops_once(case: Case) -> None:
    streamed, outcomes = run(case, case.cuts, case.rewinds), walked(case).outcomes
    histories: dict[str, list[HistoryEvent]] = defaultdict(list)
    in_h: dict[str, tuple[str, int]] = {}  # by user: the weights of h and how many events are in it
    for event, outcome in zip(case.log, outcomes, strict=True):
        user_id, history = event.event.user_id, histories[event.event.user_id]
        lists = streamed.lists[event.offset]
        if outcome in (Outcome.LATE, Outcome.FUTURE):
            assert streamed.rejects[event.offset][0] == outcome.value
            continue
        if outcome is Outcome.DUPLICATE:  # forwarded twice: the first copy has its list
            assert not lists
            continue
        [first] = lists
        assert first.rec_id == rec_id(event.origin.topic, event.origin.partition, event.origin.offset)
        assert (first.user_id, first.event_time, first.source) == (user_id, event.event.timestamp, event.origin)
        timestamp = max([event.event.timestamp, *(known.timestamp for known in history[-1:])])
        retained = min(len(history), case.history_events)
        history.append(
            HistoryEvent(event.event.item_id, timestamp, event.event.event_type, event.event.event_value, event.offset)
        )
        model = serving_at(case, event.offset)
        assert first.model_version == (POPULARITY if model is None else model.version)
        if model is None:
            in_h[user_id] = ("", 0)
            seen = {known.item_id for known in history[-case.history_events :]}
            seen.update(fell_out(history, case.history_events, case.earlier_items))
            assert not seen & {item.item_id for item in first.items}
            continue
        version, count = in_h.get(user_id, ("", 0))
        count = (count + 1 if retained else 0) if version == model.version else retained
        in_h[user_id] = (model.version, count)
        same_list(first.items, listed_by_loops(case, model, history, count))


def serving_at(case: Case, offset: int) -> ServingModel | None:
    return None if offset < case.model_from else OLD if offset < case.swap_from else case.new


def listed_by_loops(case: Case, model: ServingModel, history: list[HistoryEvent], h_events: int) -> list[RankedItem]:
    earlier = fell_out(history, case.history_events, case.earlier_items)
    return list_for(model, history, 10**6, case.asking_gap_s, True, case.history_events, h_events, earlier)


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_a_redelivery_changes_nothing_and_leads_to_nothing(case: Case, data: st.DataObject) -> None:
    streamed = run(case, case.cuts, case.rewinds)
    rules = SessionRules(max_session_events=case.session_events)
    recommender = Recommender(rules, PLACES, True, case.history_events, case.asking_gap_s, case.earlier_items)
    again = case.log[data.draw(st.integers(0, len(case.log) - 1)) :]
    decision = recommender.decide(case.new, Popularity(), streamed.states, again, 6.0)
    for key, state in decision.states.items():
        assert state is streamed.states[key]
    assert (decision.recommendations, decision.sessions, decision.transitions) == ([], {}, [])
    assert decision.outcomes.applied == len(decision.outcomes.trials) == len(decision.outcomes.observations) == 0
    assert decision.outcomes.rebuilt_users == 0
