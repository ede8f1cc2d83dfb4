"""A batch's whole decision: weights, users' states and events in; new states, lists and session records out.

Or weights, states and requests in, and lists alone out.

Nothing is read or written here, and nothing given is changed. What a user gets depends on the user's events and the
weights, not on how the events were cut into batches: users are walked event by event first, in plain Python; then all
their steps are taken in waves, and all lists are scored together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from models.items.live_items import LiveItems
from models.items.signal_reading import SignalReading
from models.items.signal_table import SignalTable
from models.items.signals import SignalRules, Transition
from models.recommending.availability import Availability
from models.recommending.mask import MaskRule
from models.recommending.popularity import Popularity
from models.recommending.recipes import NEXT, RECIPES, Recipe, lists_by, recipe_of
from models.recommending.scoring import Moment, Scoring
from models.records import POPULARITY, RankedItem, Recommendation, SessionRecord, SignalSnapshot, rec_id
from models.sessions import Placement, SessionRules
from models.users.earlier import EARLIER_ITEMS
from models.users.state import EMITTED_ITEMS, HISTORY_EVENTS, HistoryEvent, UserState
from models.users.walk import Ask, SourcedEvent, SourcedRequest, Walk
from models.weights import ServingModel

UserKey = tuple[int, str]
"""The partition that a user's state is kept by, and the user."""

_item_id = attrgetter("item_id")
_NO_EVENT = HistoryEvent("", 0.0, None, None, -1)  # pending of users without any: no item has an empty id


class Trial(NamedTuple):
    """How an event's item stood in the list that its user had been given before, and in those of popularity then.

    Places are 1 to 10, 0 for an item that a list does not have; popularity's are 0 where it is not kept count of.
    """

    version: str  # of the weights that made the list
    opens_session: bool
    place: int
    all_time_place: int
    recent_place: int


class Moved(NamedTuple):
    """A user's newest event of a batch, by the event's own time, and the one before the batch (0: there was none)."""

    partition: int
    before: float
    after: float


class Observation(NamedTuple):
    """An applied event and the list that it led to, for what counts popularity once the batch is confirmed."""

    item_id: str
    timestamp: float
    listed: list[str]  # the first EMITTED_ITEMS places


@dataclass
class Outcomes:
    """What became of a batch's events, as numbers to add to counters."""

    applied: int = 0
    duplicates: int = 0
    late: int = 0
    future: int = 0
    sessions_opened: int = 0
    sessions_closed: int = 0  # shown to be over by an event that opened the user's next one
    unknown_items: int = 0  # applied, but the model has never seen the item
    rebuilt_users: int = 0  # whose hidden state was replayed under new weights
    trials: list[Trial] = field(default_factory=list)  # new events of users who had been given a list before
    moved: list[Moved] = field(default_factory=list)  # users with new events
    observations: list[Observation] = field(default_factory=list)  # of every applied event, in order


@dataclass
class Decision:
    """What a batch comes to; events are named by their position in the batch."""

    states: dict[UserKey, UserState] = field(default_factory=dict)
    """Every user with an applied or redelivered event; redelivered ones alone leave the state as it was."""
    recommendations: list[tuple[int, Recommendation]] = field(default_factory=list)
    sessions: dict[str, SessionRecord] = field(default_factory=dict)
    """By session key, each as far as it has come."""
    transitions: list[tuple[str, Transition]] = field(default_factory=list)
    """What the events mean to items, by item: each partition's in the order of its offsets."""
    rejects: list[tuple[int, str, str]] = field(default_factory=list)
    """Event, reason, detail."""
    outcomes: Outcomes = field(default_factory=Outcomes)


class Recommender:
    """The rules of a deployment; `decide` and `answer` are functions of them and of their arguments."""

    def __init__(
        self,
        rules: SessionRules,
        top_k: int = 20,
        exclude_seen: bool = True,
        history_events: int = HISTORY_EVENTS,
        asking_gap_s: float = 0.0,
        earlier_items: int = EARLIER_ITEMS,
    ) -> None:
        """Raise ValueError for empty lists, and if a session's record can't be made from the retained history."""
        if top_k < 1 or not 0 < rules.max_session_events <= history_events:
            raise ValueError(f"top_k {top_k}, sessions of {rules.max_session_events} in {history_events} events")
        self.rules = rules
        self._top_k = top_k
        self._exclude_seen = exclude_seen
        self._history_events = history_events
        self._asking_gap_s = asking_gap_s
        self._earlier_items = earlier_items

    def decide(
        self,
        model: ServingModel | None,
        popularity: Popularity,
        states: Mapping[UserKey, UserState],
        events: Sequence[SourcedEvent],
        generated_at: float,
        moment: Moment | None = None,
        live: LiveItems | None = None,
        availability: Availability | None = None,
    ) -> Decision:
        """Apply events, each user's in the order given, and list what each of them leads to.

        A redelivered event leads to nothing: a state is stored only when all that its events led to is acked. Its
        user's state is among those to be stored, as the changelog may have missed it.

        `moment` is what the live signals say, read for this very model; without it they count for nothing. `live` says
        what popularity would have listed; no list depends on it. Neither it nor `popularity` is changed: the caller
        counts `Outcomes.observations` once the batch is confirmed. No list names what is not available.
        """
        decision, availability = Decision(), availability or Availability()
        walks: dict[UserKey, Walk] = {}
        asks: list[Ask] = []
        lists: list[list[RankedItem]] = []
        taken: Counter[str] = Counter()  # by the batch so far, which `popularity` does not know yet
        for number, sourced in enumerate(events):
            key = (sourced.partition, sourced.event.user_id)
            walk = walks.get(key)
            if walk is None:
                walk = walks[key] = Walk(sourced.event.user_id, states.get(key))
            if walk.has_applied(sourced):
                decision.outcomes.duplicates += 1
                walk.redelivered = True
                continue
            ask = self._apply(number, sourced, walk, decision)
            if ask is None:
                continue
            asks.append(ask)
            decision.transitions += ask.transitions(sourced)
            if model is None:
                taken[ask.pending.item_id] += 1
                lists.append(self._popular(ask, popularity, self._top_k, availability, taken))
        if model is not None and asks:
            scoring = Scoring(model, [walk for walk in walks.values() if walk.applied], asks, self._history_events)
            rules = self._rules_of(RECIPES[NEXT], availability)
            lists = scoring.lists(self._top_k, rules, self._asking_gap_s, moment)
            decision.outcomes.rebuilt_users = scoring.rebuilt_users
            decision.outcomes.unknown_items = scoring.unknown_items
        version = POPULARITY if model is None else model.version
        named = availability.snapshot(version, moment)
        self._recommend(version, events, asks, lists, generated_at, decision, live, named)
        for key, walk in walks.items():
            if walk.applied:
                before = walk.history[walk.given - 1].timestamp if walk.given else 0.0
                decision.outcomes.moved.append(Moved(key[0], before, walk.history[-1].timestamp))
            if walk.applied or walk.redelivered:
                decision.states[key] = walk.state_after(self._history_events, self._earlier_items)
                for record in walk.records():
                    decision.sessions[record.session_id] = record
        return decision

    def answer(
        self,
        model: ServingModel | None,
        popularity: Popularity,
        states: Mapping[UserKey, UserState],
        requests: Sequence[SourcedRequest],
        generated_at: float,
        moment: Moment | None = None,
        signals: SignalReading | None = None,
        availability: Availability | None = None,
    ) -> list[Recommendation]:
        """List what each request asks for, in their order; no state is changed, and nothing is counted.

        A list of the recipe `next` is what `decide` would have made of the user's newest event, had the time of asking
        been the request's. If other weights made the user's hidden state, it is replayed for this answer alone. A user
        without a state gets the list of a user without events: what `moment` says of everyone, and nothing excluded.
        The other recipes read `signals`. Raises BadRecord for a recipe that is unknown.
        """
        availability = availability or Availability()
        walks: dict[UserKey, Walk] = {}
        asks: list[Ask] = []
        at = [sourced.now if sourced.request.at is None else sourced.request.at for sourced in requests]
        by_recipe: dict[str, list[int]] = {}
        for number, sourced in enumerate(requests):
            key = (sourced.partition, sourced.request.user_id)
            walk = walks.get(key)
            if walk is None:
                walk = walks[key] = Walk(sourced.request.user_id, states.get(key))
            asks.append(self._asked(number, walk, at[number]))
            by_recipe.setdefault(recipe_of(sourced.request).name, []).append(number)
        answers: dict[int, Recommendation] = {}
        named: set[str | None] = set()  # snapshots that an answer carries
        for name, numbers in by_recipe.items():
            some, recipe = [asks[number] for number in numbers], RECIPES[name]
            asked = [requests[number].request for number in numbers]
            places = [request.k or self._top_k for request in asked]
            half_lives_s: list[float] = []
            if recipe.scores is None:
                version = POPULARITY if model is None else model.version
                times = [at[number] for number in numbers]
                lists = self._next_lists(model, popularity, some, times, places, moment, availability)
                snapshot_id, snapshot = availability.snapshot(version, moment)
            else:
                version, reading = POPULARITY, signals or SignalReading(SignalTable(SignalRules(), ()), 0.0)
                had = [_had(ask) for ask in some]
                rules = self._rules_of(recipe, availability)
                lists = lists_by(recipe, asked, had, places, signals=reading, rules=rules)
                half_lives_s = recipe.half_lives_for(reading.table.rules, asked)
                snapshot_id, snapshot = availability.snapshot(version, reading)
            for place, (number, items) in enumerate(zip(numbers, lists, strict=True)):
                request, _, _, origin = requests[number]
                answers[number] = Recommendation(
                    rec_id(origin.topic, origin.partition, origin.offset, origin.epoch),
                    request.user_id,
                    items,
                    version,
                    asks[number].session_id,
                    at[number],
                    generated_at,
                    origin,
                    request.request_id,
                    snapshot_id,
                    snapshot if place == 0 and snapshot_id not in named else None,
                    recipe=None if name == NEXT else name,
                    half_life_s=half_lives_s[place] if half_lives_s else None,
                )
            named.add(snapshot_id)
        return [answers[number] for number in range(len(requests))]

    def _next_lists(
        self,
        model: ServingModel | None,
        popularity: Popularity,
        asks: Sequence[Ask],
        at: Sequence[float],
        places: Sequence[int],
        moment: Moment | None,
        availability: Availability,
    ) -> list[list[RankedItem]]:
        if model is None:
            return [self._popular(ask, popularity, k, availability) for ask, k in zip(asks, places, strict=True)]
        walks = list(dict.fromkeys(ask.walk for ask in asks if ask.walk.history))
        scoring = Scoring(model, walks, asks, self._history_events)
        gaps_s = np.array(at) - [ask.pending.timestamp for ask in asks]
        return scoring.lists(np.array(places), self._rules_of(RECIPES[NEXT], availability), gaps_s, moment)

    def _rules_of(self, recipe: Recipe, availability: Availability) -> tuple[MaskRule, ...]:
        return (*recipe.rules_for(self._exclude_seen), *availability.rules)

    def _asked(self, number: int, walk: Walk, at: float) -> Ask:
        """Ask without an event; the session is the one that an event at that time would go on with."""
        end = len(walk.history)
        if end == 0:
            return Ask(number, walk, 0, 0, {}, _NO_EVENT, "")
        pending = walk.history[-1]
        session_id = walk.session_id if at - pending.timestamp <= self.rules.gap_s else ""
        return Ask(number, walk, self._retained_from(walk), end, walk.earlier, pending, session_id)

    def _apply(self, number: int, sourced: SourcedEvent, walk: Walk, decision: Decision) -> Ask | None:
        outcomes = decision.outcomes
        placement = walk.apply(self.rules, sourced)
        if placement is Placement.LATE or placement is Placement.FUTURE:
            self._reject(number, sourced, walk, placement, decision)
            return None
        outcomes.applied += 1
        if placement is Placement.NEW_SESSION:
            outcomes.sessions_opened += 1
            outcomes.sessions_closed += len(walk.history) > 1
        begin, end, pending = self._retained_from(walk), len(walk.history), walk.history[-1]
        opens = placement is Placement.NEW_SESSION
        return Ask(number, walk, begin, end, walk.earlier, pending, walk.session_id, opens)

    def _retained_from(self, walk: Walk) -> int:
        return walk.retain(self._history_events, self._earlier_items)

    def _reject(self, number: int, sourced: SourcedEvent, walk: Walk, placement: Placement, decision: Decision) -> None:
        if placement is Placement.FUTURE:
            decision.outcomes.future += 1
            detail = f"{sourced.event.timestamp - sourced.now:.0f} s after the time that the broker took it at"
        else:
            decision.outcomes.late += 1
            detail = f"{walk.history[-1].timestamp - sourced.event.timestamp:.0f} s before the user's newest event"
        decision.rejects.append((number, placement.value, detail))

    def _popular(
        self,
        ask: Ask,
        popularity: Popularity,
        places: int,
        availability: Availability,
        taken: Mapping[str, int] | None = None,
    ) -> list[RankedItem]:
        left_out = availability.unavailable.union(_had(ask) if self._exclude_seen else ())
        return [RankedItem(item_id, float(count)) for item_id, count in popularity.top(places, left_out, taken)]

    def _recommend(
        self,
        version: str,
        events: Sequence[SourcedEvent],
        asks: Sequence[Ask],
        lists: Sequence[list[RankedItem]],
        generated_at: float,
        decision: Decision,
        live: LiveItems | None,
        named: tuple[str | None, SignalSnapshot | None],
    ) -> None:
        """Write the lists, and look whether users took what they had been given before."""
        outcomes, recommendations = decision.outcomes, decision.recommendations
        signals, snapshot = named
        for ask, items in zip(asks, lists, strict=True):
            event, _, _, _, origin = events[ask.number]
            walk = ask.walk
            if walk.emitted:
                outcomes.trials.append(self._trial(ask, event.item_id, live))
            walk.emitted = [item.item_id for item in items[:EMITTED_ITEMS]]
            walk.emitted_by = version
            outcomes.observations.append(Observation(event.item_id, ask.pending.timestamp, walk.emitted))
            recommendation = Recommendation(
                rec_id(origin.topic, origin.partition, origin.offset, origin.epoch),
                event.user_id,
                items,
                version,
                ask.session_id,
                event.timestamp,
                generated_at,
                origin,
                signals=signals,
                snapshot=snapshot if not recommendations else None,
            )
            recommendations.append((ask.number, recommendation))

    def _trial(self, ask: Ask, item_id: str, live: LiveItems | None) -> Trial:
        walk = ask.walk
        place = walk.emitted.index(item_id) + 1 if item_id in walk.emitted else 0
        all_time = recent = 0
        if live is not None:
            had = (walk.history[ask.begin : ask.end - 1], ask.earlier) if self._exclude_seen else ((), {})
            all_time, recent = live.places(item_id, *had)
        return Trial(walk.emitted_by or POPULARITY, ask.opens_session, place, all_time, recent)


def _had(ask: Ask) -> set[str]:
    """Name what the user of a list has had."""
    return {*map(_item_id, ask.walk.history[ask.begin : ask.end]), *ask.earlier}
