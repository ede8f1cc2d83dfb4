"""The oracle: what a log of events must come to, in loops too plain to be wrong.

Audits and tests hold the stream against this. Nothing is shared with the recommender but the definitions: where an
event is placed, what one step of the model is, and what the terms of a score say to one user. It is some thousand
times slower.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.items.signal_table import FLOOR
from models.items.signals import SignalRecord
from models.recommending.scoring import Moment
from models.records import RankedItem
from models.sessions import Placement, SessionRules, place
from models.users.batch import UserBatch
from models.users.earlier import EARLIER_ITEMS
from models.users.state import HistoryEvent, UserState
from models.users.walk import SourcedEvent
from models.weights import ServingModel


class Outcome(Enum):
    """What one event of a log came to."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    FUTURE = "future"


@dataclass
class Replay:
    """What a log of one partition came to."""

    states: dict[str, UserState] = field(default_factory=dict)
    """By user: as the stream has it but for the hidden state and what was emitted, which take a model."""
    histories: dict[str, list[HistoryEvent]] = field(default_factory=dict)
    """By user: every event that was applied, not only those that a state retains."""
    pieces: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """By user, for each of these events: the start and the part of the session that it went to."""
    outcomes: list[Outcome] = field(default_factory=list)
    """By event."""


def replay(
    rules: SessionRules, history_events: int, events: Iterable[SourcedEvent], earlier_items: int = EARLIER_ITEMS
) -> Replay:
    """Apply the events of one partition in the order of its log, one by one."""
    result = Replay()
    for sourced in events:
        user_id = sourced.event.user_id
        history = result.histories.setdefault(user_id, [])
        state = result.states.get(user_id)
        outcome, following = _apply(rules, history_events, earlier_items, state, history, sourced)
        result.outcomes.append(outcome)
        if following is not None:
            history.append(following.history[-1])
            result.pieces.setdefault(user_id, []).append((following.session_start, following.session_part))
            result.states[user_id] = following
    return result


def _apply(
    rules: SessionRules,
    history_events: int,
    earlier_items: int,
    state: UserState | None,
    history: list[HistoryEvent],
    sourced: SourcedEvent,
) -> tuple[Outcome, UserState | None]:
    event, origin = sourced.event, sourced.origin
    forwarded = origin.partition != sourced.partition
    if state is not None:
        if sourced.offset <= state.applied_offset:
            return Outcome.DUPLICATE, None
        if forwarded and origin.position <= state.origins.get(origin.partition, -1):
            return Outcome.DUPLICATE, None
    last = history[-1].timestamp if history else None
    placement = place(rules, last, event.timestamp, sourced.now)
    if placement is Placement.LATE:
        return Outcome.LATE, None
    if placement is Placement.FUTURE:
        return Outcome.FUTURE, None
    timestamp = event.timestamp if last is None else max(last, event.timestamp)
    applied = HistoryEvent(event.item_id, timestamp, event.event_type, event.event_value, sourced.offset)
    if state is None or placement is Placement.NEW_SESSION:
        start, part, length = timestamp, 0, 1
    elif state.session_len == rules.max_session_events:
        start, part, length = state.session_start, state.session_part + 1, 1
    else:
        start, part, length = state.session_start, state.session_part, state.session_len + 1
    origins = dict(state.origins) if state is not None else {}
    if forwarded:
        origins[origin.partition] = origin.position
    earlier = dict(state.earlier) if state is not None else {}
    fallen = len(history) - history_events
    if fallen >= 0:
        item_id = history[fallen].item_id
        count = earlier.pop(item_id, 0) + 1
        earlier = dict([*earlier.items(), (item_id, count)][-earlier_items:])
    return Outcome.APPLIED, UserState(
        applied_offset=sourced.offset,
        origins=origins,
        history=[*history[max(0, len(history) + 1 - history_events) :], applied],
        session_start=start,
        session_part=part,
        session_len=length,
        h=b"",
        h_events=0,
        model_version="",
        emitted=[],
        events=len(history) + 1,
        earlier=earlier,
        earlier_events=max(0, fallen + 1),
    )


def fell_out(history: Sequence[HistoryEvent], history_events: int, earlier_items: int = EARLIER_ITEMS) -> list[str]:
    """Name the items that are kept of a whole history beyond its newest events, the one that fell out last first."""
    newest_first = dict.fromkeys(event.item_id for event in reversed(history[:-history_events]))
    return list(newest_first)[:earlier_items]


def forward_state(model: ServingModel, history: Sequence[HistoryEvent], h_events: int) -> Tensor:
    """Compute the h (S) that a state must have whose history ends with `history` and whose h has `h_events` events.

    From zeros, over the `h_events` events before the newest; raises ValueError if the history is shorter.
    """
    if not 0 <= h_events < max(1, len(history)):
        raise ValueError(f"{h_events} events before the newest of {len(history)}")
    h = model.model.encoder.initial(1)
    for index in range(len(history) - 1 - h_events, len(history) - 1):
        gap_s = history[index + 1].timestamp - history[index].timestamp
        h = _step(model, h, history[index], gap_s)
    return h[0]


def list_for(
    model: ServingModel,
    history: Sequence[HistoryEvent],
    places: int,
    asking_gap_s: float = 0.0,
    exclude_seen: bool = True,
    history_events: int | None = None,
    h_events: int | None = None,
    earlier: Collection[str] = (),
) -> list[RankedItem]:
    """Make the list that follows the newest event of `history`.

    `h_events` of the events before it are in the hidden state (all, unless said otherwise), and the newest
    `history_events` are not named (again all), nor are those of `earlier`. Scores are not rounded, as they are
    for the stream.
    """
    before = len(history) - 1 if h_events is None else h_events
    h = forward_state(model, history, before).unsqueeze(0)
    scores = model.model.scores(_step(model, h, history[-1], asking_gap_s))[0].numpy().astype(np.float64)
    if exclude_seen:
        retained = history if history_events is None else history[-history_events:]
        for event in retained:
            scores[model.catalogue.row(event.item_id)] = -math.inf
        for item_id in earlier:
            scores[model.catalogue.row(item_id)] = -math.inf
    return _ranked(model, scores, places)


@torch.inference_mode()
def scores_for(
    model: ServingModel,
    h: Tensor,
    history: Sequence[HistoryEvent],
    gap_s: float,
    moment: Moment | None = None,
    earlier: Mapping[str, int] | None = None,
    exclude_seen: bool = True,
) -> npt.NDArray[np.float64]:
    """Score all items for one user, with the signals of a moment -> by row of its table, or of the catalogue without.

    `h` (S) is the state before the newest event of `history`, the retained one, after which `gap_s` pass; without
    events no step is taken. `earlier` counts what fell out of it. Excluded items score -inf.
    """
    table, counts = None if moment is None else moment.table, earlier or {}
    row_of = model.catalogue.row if table is None else table.row
    asked = _step(model, h.unsqueeze(0), history[-1], gap_s) if history else h.unsqueeze(0)
    had = np.array([[row_of(event.item_id) for event in history]], np.int64)
    before = np.array([[row_of(item_id) for item_id in counts]], np.int64)
    sparse: list[tuple[Tensor, Tensor]] = []
    if table is not None and moment is not None:
        users = UserBatch(
            at=np.array([(history[-1].timestamp if history else 0.0) + gap_s]),
            rows=had,
            times=np.array([[event.timestamp for event in history]]),
            lengths=np.array([len(history)]),
            evicted_rows=before,
            evicted_counts=np.array([list(counts.values())], np.float64),
        )
        sparse = model.model.config.term_set.sparse_features(users, table, len(moment.decoder.bias))
    scores = model.model.scores(asked, moment.decoder if moment is not None else None, sparse)[0].numpy()
    if exclude_seen:
        seen = np.concatenate((had[0], before[0]))
        scores[seen[seen < len(scores)]] = -math.inf
    return scores.astype(np.float64)


def answer_for(
    model: ServingModel,
    history: Sequence[HistoryEvent],
    at: float,
    places: int,
    exclude_seen: bool = True,
    history_events: int | None = None,
    h_events: int | None = None,
    earlier: Collection[str] = (),
) -> list[RankedItem]:
    """Make the list that a request for the time `at` is answered with; `history` may be empty, else as in `list_for`.

    If other weights made the user's hidden state, `h_events` are those of the retained history before the newest.
    """
    if history:
        gap_s = max(0.0, at - history[-1].timestamp)
        return list_for(model, history, places, gap_s, exclude_seen, history_events, h_events, earlier)
    with torch.inference_mode():
        return _ranked(model, model.model.scores(model.model.encoder.initial(1))[0].numpy().astype(np.float64), places)


def trend_list_for(
    records: Mapping[str, SignalRecord], half_life_s: float, at: float, places: int, had: Collection[str] = ()
) -> list[RankedItem]:
    """Make the list of a recipe that ranks by one trend, of items' newest signals, without what the user has `had`."""
    scored = []
    for item_id, record in records.items():
        count = record.counts[record.half_lives_s.index(half_life_s)] * 0.5 ** ((at - record.at) / half_life_s)
        if count > FLOOR and item_id not in had:
            scored.append(RankedItem(item_id, math.log(count / FLOOR)))
    return sorted(scored, key=lambda item: -item.score)[:places]


def _ranked(model: ServingModel, scores: npt.NDArray[np.float64], places: int) -> list[RankedItem]:
    ranked = [row for row in np.argsort(-scores, kind="stable") if scores[row] > -math.inf]
    return [RankedItem(model.catalogue.item_ids[row - 1], float(scores[row])) for row in ranked[:places]]


@torch.inference_mode()
def _step(model: ServingModel, h: Tensor, event: HistoryEvent, gap_s: float) -> Tensor:
    """Take one user's step: h (1, S) -> (1, S)."""
    encoder, catalogue = model.model.encoder, model.catalogue
    row, type_row = catalogue.row(event.item_id), catalogue.type_row(event.event_type)
    value = catalogue.standardized(event.event_value)
    return encoder.step(h, encoder.spec.step_inputs(np.array([row]), np.array([gap_s]), [type_row], [value]))
