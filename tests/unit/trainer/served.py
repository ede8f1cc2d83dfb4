"""A model's scores by the code that serves, by the code that evaluates, and by the oracle, at each event of a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from models.items.signal_table import SignalTable
from models.items.signals import SignalRules
from models.oracle import scores_for
from models.recommending.popularity import Popularity
from models.recommending.recommender import Recommender
from models.recommending.scoring import Moment
from models.records import Event, Request, Source
from models.sessions import SessionRules
from models.users.earlier import EARLIER_ITEMS
from models.users.state import HISTORY_EVENTS, UserState
from models.users.walk import SourcedEvent, SourcedRequest
from tests.unit.trainer.made import served
from trainer.evaluation.hrnn import Asked, Live
from trainer.evaluation.protocol import Split
from trainer.fitting.warm_start import Learned

LAST = 3  # items that lead to the next one


class Scored(NamedTuple):
    """Scores of the same items, in the same order."""

    listed: torch.Tensor
    evaluated: torch.Tensor
    audited: torch.Tensor


def evaluated_scores(learned: Learned, split: Split) -> dict[int, torch.Tensor]:
    """Score each event that the split asks about -> by event: (rows,)."""
    evaluation = Asked(learned, split, Live(split, learned.model.config), split.asked)
    return {place: evaluation.answer(np.array([place])).scores[0].clone() for place in split.asked.tolist()}


def scored(
    learned: Learned,
    split: Split,
    events: Sequence[Event],
    history_events: int = HISTORY_EVENTS,
    earlier_items: int = EARLIER_ITEMS,
) -> Iterator[Scored]:
    """Walk a log as a worker does, with states and a table, and score all items before each event that is asked."""
    by_event = evaluated_scores(learned, split)
    serving = served(learned, 0.0)
    table = SignalTable(serving.model.config.signal_rules or SignalRules(), serving.catalogue.item_ids)
    rules = SessionRules(max_session_events=min(history_events, 100))
    worker = Recommender(rules, 100, False, history_events, earlier_items=earlier_items)
    states: dict[tuple[int, str], UserState] = {}
    last: dict[str, list[int]] = {}
    place_of = dict(enumerate(split.histories.order.tolist()))
    rows = {item_id: row for row, item_id in enumerate(split.item_ids, 1)}
    for number, event in enumerate(events):
        place = place_of[number]
        if place in by_event:
            request = SourcedRequest(Request("r", event.user_id, event.timestamp), 0, 0.0, Source("requests", 0, 0))
            moment = Moment.of(serving, table, event.timestamp)
            [answer] = worker.answer(serving, Popularity(), states, [request], 0.0, moment)
            assert len(answer.items) == table.n_rows - 1
            state = states[0, event.user_id]
            h = torch.frombuffer(bytearray(state.h), dtype=torch.float32) if state.h else torch.zeros(0)
            h = h if len(h) else serving.model.encoder.initial(1)[0]
            gap_s = event.timestamp - state.history[-1].timestamp
            audited = scores_for(serving, h, state.history, gap_s, moment, state.earlier, False)
            items = [item.item_id for item in answer.items]
            yield Scored(
                torch.tensor([item.score for item in answer.items]),
                torch.stack([by_event[place][rows[item_id]] for item_id in items]),
                torch.from_numpy(audited[[table.row(item_id) for item_id in items]]).float(),
            )
        sourced = SourcedEvent(event, 0, number, event.timestamp, Source("interactions", 0, number))
        states |= worker.decide(serving, Popularity(), states, [sourced], 0.0).states
        before = last.setdefault(event.user_id, [])
        row = table.add(event.item_id)
        table.follow(before[-LAST:], row, event.timestamp)
        table.occur(row, event.timestamp)
        before.append(row)
