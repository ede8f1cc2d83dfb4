"""A request is answered with the list that the user's newest event would get, had it been asked for at that time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.items.signal_table import SignalTable
from models.oracle import answer_for, list_for
from models.recommending.popularity import Popularity
from models.recommending.recommender import Recommender, UserKey
from models.recommending.scoring import Moment
from models.records import POPULARITY, RankedItem, Recommendation, Source, rec_id
from models.sessions import SessionRules
from models.terms.successors import PARTS, Successors
from models.users.state import UserState, encode
from models.users.walk import SourcedEvent, SourcedRequest
from models.weights import ServingModel
from tests.unit.models.made import asked, serving, sourced

MODEL = serving(signals=True)
OTHER = serving(33, version="v2", hidden=9, seed=3, signals=True)
PLACES = 6
TOLERANCE = 2e-5
START = 1_000_000.0
GAPS = [-7200.0, -1.0, 0.0, 59.0, 60.0, 1800.0, 3600.0, 86400.0, 1e7]

States = dict[UserKey, UserState]


def recommender(
    asking_gap_s: float = 0.0, history_events: int = 100, *, exclude_seen: bool = True, earlier_items: int = 4
) -> Recommender:
    rules = SessionRules(max_session_events=min(history_events, 3))
    return Recommender(rules, PLACES, exclude_seen, history_events, asking_gap_s, earlier_items)


def states_of(*events: SourcedEvent, model: ServingModel | None = MODEL) -> States:
    return recommender().decide(model, Popularity(), {}, events, 5.0).states


def answered(
    states: States,
    *requests: SourcedRequest,
    model: ServingModel | None = MODEL,
    moment: Moment | None = None,
    popularity: Popularity | None = None,
) -> list[Recommendation]:
    return recommender().answer(model, popularity or Popularity(), states, requests, 9.0, moment)


def moment_of(model: ServingModel, events: Sequence[SourcedEvent]) -> Moment:
    """What the events say of items, those included that the model does not know."""
    assert model.model.config.signal_rules is not None
    table = SignalTable(model.model.config.signal_rules, model.catalogue.item_ids)
    last: dict[str, list[int]] = {}
    for event, *_ in events:
        rows = last.setdefault(event.user_id, [])
        row = table.add(event.item_id)
        table.occur(row, event.timestamp)
        table.follow(rows, row, event.timestamp)
        rows.append(row)
    return Moment.of(model, table, events[-1].event.timestamp)


def same_list(listed: Sequence[RankedItem], ranked: Sequence[RankedItem], places: int) -> None:
    """Hold a list against a ranking of everything; near ties may stand in either order."""
    scores = {item.item_id: item.score for item in ranked}
    assert len(listed) == len({item.item_id for item in listed}) == min(places, len(ranked))
    for item, expected in zip(listed, ranked, strict=False):
        assert item.score == pytest.approx(expected.score, abs=TOLERANCE)
        assert item.score == pytest.approx(scores[item.item_id], abs=TOLERANCE)


def successor_weights(states: States, at: float) -> torch.Tensor:
    """How much user u's state follows what comes after the last item, and its neighbours, by the equations."""
    pending = states[0, "u"].history[-1]
    encoder, row = MODEL.model.encoder, MODEL.catalogue.row(pending.item_id)
    step = encoder.spec.step_inputs(np.array([row]), np.array([at - pending.timestamp]), [0], [0.0])
    with torch.inference_mode():
        return MODEL.model.mixture_of(encoder.step(encoder.initial(1), step))[1][0, : PARTS + 1]


def same_scores(one: Sequence[RankedItem], other: Sequence[RankedItem]) -> bool:
    return len(one) == len(other) and np.allclose([i.score for i in one], [i.score for i in other], atol=TOLERANCE)


@dataclass
class Case:
    log: list[SourcedEvent]
    asks: list[tuple[str, float, int | None]]  # user, gap, k
    history_events: int
    exclude_seen: bool
    with_moment: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    log, timestamp = [], START
    for offset in range(draw(st.integers(1, 30))):
        timestamp += draw(st.sampled_from([0.0, 1.0, 60.0, 1801.0, 90_000.0]))
        user_id, item_id = f"u{draw(st.integers(0, 4))}", f"item-{draw(st.integers(0, 35))}"  # the last, no model knows
        kind, value = draw(st.sampled_from([None, "click", "?"])), draw(st.sampled_from([None, 1.0, 9.0]))
        log.append(sourced(offset, user_id, item_id, timestamp, event_type=kind, event_value=value))
    users = st.sampled_from(sorted({event.event.user_id for event in log}))
    asks = draw(st.lists(st.tuples(users, st.sampled_from(GAPS), st.sampled_from([None, 1, 4, 40])), max_size=70))
    return Case(log, asks, draw(st.sampled_from([3, 100])), draw(st.booleans()), draw(st.booleans()))


@settings(max_examples=80, deadline=None)
@given(cases())
def test_an_answer_is_the_list_of_the_newest_event_at_another_time_of_asking(case: Case) -> None:
    moment = moment_of(MODEL, case.log) if case.with_moment else None
    decisions = {
        gap_s: Recommender(
            SessionRules(max_session_events=3), 40, case.exclude_seen, case.history_events, gap_s, 4
        ).decide(MODEL, Popularity(), {}, case.log, 5.0, moment)
        for gap_s in {gap_s for _, gap_s, _ in case.asks} | {0.0}
    }
    newest = {event.event.user_id: number for number, event in enumerate(case.log)}
    states = decisions[0.0].states
    before = {key: encode(state) for key, state in states.items()}
    requests = [
        asked(number, user_id, case.log[newest[user_id]].event.timestamp + gap_s, k=k)
        for number, (user_id, gap_s, k) in enumerate(case.asks)
    ]
    popularity = Popularity()
    answering = recommender(7.0, case.history_events, exclude_seen=case.exclude_seen)
    answers = answering.answer(MODEL, popularity, states, requests, 9.0, moment)
    assert {key: encode(state) for key, state in states.items()} == before
    assert popularity.top(1) == []
    assert len(answers) == len(requests)
    for (user_id, gap_s, k), request, answer in zip(case.asks, requests, answers, strict=True):
        expected = decisions[gap_s].recommendations[newest[user_id]][1]
        places = PLACES if k is None else k
        same_list(answer.items, expected.items, places)
        assert answer.event_time == request.request.at
        assert (answer.request_id, answer.source) == (request.request.request_id, request.origin)
        assert (answer.user_id, answer.model_version, answer.generated_at) == (user_id, "v1", 9.0)
        assert answer.session_id == (expected.session_id if gap_s <= 1800.0 else "")


@settings(max_examples=60, deadline=None)
@given(cases())
def test_answers_under_any_weights_are_those_of_plain_loops(case: Case) -> None:
    deciding = recommender(0.0, case.history_events, exclude_seen=case.exclude_seen)
    half = len(case.log) // 2
    states = deciding.decide(None, Popularity(), {}, case.log[:half], 5.0).states
    states |= deciding.decide(MODEL, Popularity(), states, case.log[half:], 5.0).states
    before = {key: encode(state) for key, state in states.items()}
    at = case.log[-1].event.timestamp
    requests = [asked(number, user_id, at + gap_s, k=k) for number, (user_id, gap_s, k) in enumerate(case.asks)]
    for model in (MODEL, OTHER):
        answers = deciding.answer(model, Popularity(), states, requests, 9.0)
        for request, answer in zip(requests, answers, strict=True):
            state = states[0, answer.user_id]
            assert request.request.at is not None
            history = [event.event for event in case.log if event.event.user_id == answer.user_id]
            assert [event.item_id for event in state.history] == [e.item_id for e in history[-case.history_events :]]
            if model is MODEL and state.h_events >= len(state.history):
                continue  # more is in h than the state retains: the test before this one holds these
            replayed = state.h_events if state.model_version == model.version else len(state.history) - 1
            ranked = answer_for(
                model,
                state.history,
                request.request.at,
                100,
                case.exclude_seen,
                case.history_events,
                replayed,
                state.earlier,
            )
            same_list(answer.items, ranked, request.request.k or PLACES)
            assert answer.model_version == model.version
    assert {key: encode(state) for key, state in states.items()} == before


def test_nobody_asks() -> None:
    assert answered({}) == []
    assert answered({}, model=None) == []


def test_a_request_is_for_the_time_that_the_broker_took_it_at() -> None:
    states = states_of(sourced(0))
    [now, later] = answered(states, asked(0, now=1000.0), asked(1, at=1000.0 + 86400.0, now=1000.0))
    assert (now.event_time, later.event_time) == (1000.0, 87_400.0)
    same_list(now.items, list_for(MODEL, states[0, "u"].history, 100, 0.0), PLACES)
    same_list(later.items, list_for(MODEL, states[0, "u"].history, 100, 86400.0), PLACES)
    assert not same_scores(now.items, later.items)


def test_an_answer_is_named_by_its_request() -> None:
    first, other, again = answered(states_of(sourced(7)), *(asked(number, at=1000.0) for number in (7, 8, 7)))
    same_list(first.items, again.items, PLACES)  # of another place in the batch: the last bits may differ
    assert (again.rec_id, again.source) == (first.rec_id, first.source)
    assert (first.rec_id, first.source, first.request_id) == (
        rec_id("requests", 0, 7),
        Source("requests", 0, 7),
        "r7",
    )
    assert other.rec_id == rec_id("requests", 0, 8)


@pytest.mark.parametrize(("at", "session_id"), [(0.0, "u|1000"), (3600.0, "u|1000"), (3600.5, "")])
def test_a_session_is_named_as_long_as_an_event_would_go_on_with_it(at: float, session_id: str) -> None:
    states = states_of(sourced(0), sourced(1, timestamp=1800.0))
    assert answered(states, asked(0, at=at))[0].session_id == session_id


def test_a_user_without_events_is_answered_by_the_initial_state() -> None:
    [known, unknown, again] = answered(
        states_of(sourced(0)), asked(0, at=2000.0), asked(1, "new", at=2000.0, k=30), asked(2, "new", at=9e9, k=30)
    )
    same_list(unknown.items, answer_for(MODEL, [], 2000.0, 100), 30)
    assert again.items == unknown.items  # there is no silence to measure
    assert (unknown.session_id, unknown.user_id, unknown.event_time) == ("", "new", 2000.0)
    assert not same_scores(known.items, unknown.items[:PLACES])
    assert len(unknown.items) == 30  # nothing is excluded


def test_a_user_without_events_gets_what_everyone_takes() -> None:
    moment = moment_of(MODEL, [sourced(n, f"u{n}", "brand new", 1000.0) for n in range(50)])
    [answer] = answered({}, asked(0, "new", at=1000.0, k=40), moment=moment)
    [without] = answered({}, asked(0, "new", at=1000.0, k=40))
    scores = {item.item_id: item.score for item in answer.items}
    assert scores.keys() == {f"item-{n}" for n in range(30)} | {"brand new"}
    for item in without.items:  # of which nothing is known yet
        assert scores[item.item_id] == pytest.approx(item.score, abs=TOLERANCE)
    trend_weight, unseen_bias = float(MODEL.model.mixture.bias[0]), float(MODEL.model.bias[0])
    query = MODEL.model.out.bias.detach()
    of_any_new_item = float(query @ MODEL.model.output_matrix[0].detach()) + unseen_bias
    assert scores["brand new"] == pytest.approx(of_any_new_item + trend_weight * np.log(50 / 0.05), abs=1e-4)


def test_the_same_user_in_another_partition_is_another_user() -> None:
    states = states_of(sourced(0))
    elsewhere = asked(0, at=1000.0)._replace(partition=1)
    assert answered(states, elsewhere)[0].items == answered({}, elsewhere)[0].items
    assert not same_scores(answered(states, asked(0, at=1000.0))[0].items, answered({}, elsewhere)[0].items)


def test_before_any_model_the_popular_is_the_answer() -> None:
    popularity = Popularity()
    for item_id in ("a", "a", "b", "item-1"):
        popularity.add(item_id)
    states = states_of(sourced(0), model=None)
    answers = answered(
        states,
        asked(0, at=1000.0),
        asked(1, "new", at=1000.0),
        asked(2, at=1000.0, k=1),
        model=None,
        popularity=popularity,
    )
    assert [[item.item_id for item in answer.items] for answer in answers] == [["a", "b"], ["a", "b", "item-1"], ["a"]]
    assert {answer.model_version for answer in answers} == {POPULARITY}
    assert [answer.session_id for answer in answers] == ["u|1000", "", "u|1000"]


def test_a_state_from_before_any_model_is_replayed_for_the_answer() -> None:
    states = states_of(sourced(0), sourced(1, item_id="item-2", timestamp=1100.0), model=None)
    state = states[0, "u"]
    bytes_before = encode(state)
    [answer] = answered(states, asked(0, at=1200.0))
    same_list(answer.items, answer_for(MODEL, state.history, 1200.0, 100), PLACES)
    assert encode(states[0, "u"]) == bytes_before
    assert (state.model_version, state.h) == ("", b"")


def test_a_hidden_state_of_another_width_is_replayed_for_the_answer() -> None:
    states = states_of(sourced(0), sourced(1, item_id="item-2", timestamp=1100.0))
    broken = {key: msgspec.structs.replace(state, h=b"\0" * 12) for key, state in states.items()}
    [expected], [answer] = answered(states, asked(0, at=1200.0)), answered(broken, asked(0, at=1200.0))
    assert same_scores(answer.items, expected.items)


def test_events_go_on_as_if_nobody_had_asked() -> None:
    events = [sourced(n, item_id=f"item-{n}", timestamp=1000.0 + n) for n in range(4)]
    states = states_of(*events[:3])
    following = recommender().decide(MODEL, Popularity(), states, events[3:], 5.0)
    answered(states, asked(0, at=5000.0), asked(1, at=5000.0))
    assert recommender().decide(MODEL, Popularity(), states, events[3:], 5.0) == following


def test_the_first_second_of_all_time_may_be_asked_for() -> None:
    assert answered(states_of(sourced(0)), asked(0, at=0.0, now=5000.0))[0].event_time == 0.0


def test_successors_count_as_much_as_they_do_at_the_time_asked_for() -> None:
    events = [sourced(n, f"u{n % 9}", f"item-{n // 9}", 1000.0) for n in range(18)]  # item-0, then item-1, nine times
    states, moment = states_of(sourced(0, item_id="item-0")), moment_of(MODEL, events)
    unrelated = Moment(SignalTable(moment.table.rules, MODEL.catalogue.item_ids), moment.decoder)
    differences = []
    for at in (1000.0, 1000.0 + 2 * 3600.0):  # at the second, a quarter is left; 7200 s and 3600 s are of one level
        [told], [untold] = (answered(states, asked(0, at=at, k=30), moment=signals) for signals in (moment, unrelated))
        scores, without = ({item.item_id: item.score for item in answer.items} for answer in (told, untold))
        assert scores["item-2"] == pytest.approx(without["item-2"], abs=TOLERANCE)
        differences.append((at, scores["item-1"] - without["item-1"]))
    for at, difference in differences:
        row = MODEL.catalogue.row("item-0")
        looked_up = moment.table.look_up([[row]], [at])
        rows, values = moment.table.successors(looked_up)
        assert rows.tolist() == [[MODEL.catalogue.row("item-1")]]
        beside = moment.table.neighbours(looked_up)[1]
        said = torch.from_numpy(np.append(Successors(MODEL.model.config).complete(values)[0, 0], beside))
        assert difference == pytest.approx(float(said @ successor_weights(states, at)), rel=1e-3)
    assert abs(differences[0][1]) > abs(differences[1][1]) > 0.01


def test_each_of_many_requests_has_its_own_time_and_length() -> None:
    events = [sourced(n, f"u{n % 20}", f"item-{n % 7}", 1000.0 + n) for n in range(60)]
    states, moment = states_of(*events), moment_of(MODEL, events)
    requests = [asked(n, f"u{n % 23}", 1000.0 + 1500.0 * n, k=1 + n % 11) for n in range(100)]  # u20 to u22 are new
    together = answered(states, *requests, moment=moment)
    for request, answer in zip(requests, together, strict=True):
        [alone] = answered(states, request, moment=moment)
        assert same_scores(answer.items, alone.items)
        assert msgspec.structs.replace(answer, items=[]) == msgspec.structs.replace(alone, items=[])


def test_what_smaller_settings_no_longer_keep_may_be_listed() -> None:
    states = states_of(*(sourced(n, item_id=f"item-{n}", timestamp=1000.0 + n) for n in range(9)))
    smaller = recommender(history_events=4, earlier_items=2)
    [answer] = smaller.answer(MODEL, Popularity(), states, [asked(0, at=1010.0, k=30)], 9.0)
    assert {f"item-{n}" for n in range(30)} - {item.item_id for item in answer.items} == {
        f"item-{n}" for n in range(3, 9)
    }
