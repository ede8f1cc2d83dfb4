from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ModelConfig
from models.encoders.hgru import HGRUConfig
from models.encoders.hrnn import HRNNConfig
from models.encoders.rnn import RNNConfig
from models.items.signal_table import SignalTable
from models.model import Model
from models.recommending.popularity import Popularity
from models.recommending.recommender import Recommender
from models.recommending.scoring import Moment
from models.records import Request, Source
from models.sessions import SessionRules
from models.terms.registry import TERMS
from models.users.state import UserState
from models.users.walk import SourcedEvent, SourcedRequest
from tests.unit.trainer.logs import drawn
from tests.unit.trainer.made import served
from trainer.data import user_batches
from trainer.data.histories import from_events
from trainer.evaluation.hrnn import Asked, Live
from trainer.evaluation.protocol import split_at
from trainer.fitting.encoding import build_catalogue
from trainer.fitting.fit import Fitted

LAST = 3  # items that lead to the next one


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.integers(12, 70),
    st.integers(1, 2),
    st.sampled_from([(100, 500), (10, 4), (12, 500)]),
    st.sampled_from([HRNNConfig, HRNNConfig, HGRUConfig, RNNConfig]),
)
def test_what_an_evaluation_scores_is_what_a_worker_lists(
    seed: int, n: int, layers: int, kept: tuple[int, int], kind: type[RNNConfig]
) -> None:
    check_served_is_evaluated(kind, seed, n, kept, layers=layers)


def check_served_is_evaluated(
    kind: type[ModelConfig], seed: int, n: int, kept: tuple[int, int] = (100, 500), **fields: Any
) -> None:
    """Event by event: the worker's code with its states and a table, the evaluation's with its arrays."""
    events = drawn(seed, n, users=3)
    split = split_at(from_events(events), 0.5)
    catalogue = build_catalogue(split.training(), split.training().order)
    shape: dict[str, Any] = {"half_lives_s": (3600.0, 86400.0), "successor_half_life_s": 86400.0}
    shape |= {"terms": tuple(TERMS), "hidden_dimension": 6, **fields}
    torch.manual_seed(seed)
    model = Model(kind(len(catalogue.item_ids), len(catalogue.event_types), **shape)).eval()
    torch.nn.init.normal_(model.mixture.weight)
    torch.nn.init.normal_(model.bias)
    learned = Fitted(model.requires_grad_(False), catalogue, 0.0, 0.0, 0, 0.0, False)
    live = Live(split, model.config)
    history_events, earlier_items = kept
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_batches, "HISTORY_EVENTS", history_events)
        patch.setattr(user_batches, "EARLIER_ITEMS", earlier_items)
        evaluation = Asked(learned, split, live, split.asked)
        scored = {place: evaluation.answer(np.array([place])).scores[0].clone() for place in split.asked.tolist()}
    serving = served(learned, 0.0)
    assert model.config.signal_rules is not None
    table = SignalTable(model.config.signal_rules, serving.catalogue.item_ids)
    rules = SessionRules(max_session_events=min(history_events, 100))
    worker = Recommender(rules, 100, False, history_events, earlier_items=earlier_items)
    states: dict[tuple[int, str], UserState] = {}
    last: dict[str, list[int]] = {}
    asked = {split.histories.order.tolist().index(place): place for place in split.asked.tolist()}
    for number, event in enumerate(events):
        if number in asked:
            request = SourcedRequest(Request("r", event.user_id, event.timestamp), 0, 0.0, Source("requests", 0, 0))
            moment = Moment.of(serving, table, event.timestamp)
            [answer] = worker.answer(serving, Popularity(), states, [request], 0.0, moment)
            scores = scored[asked[number]]
            rows = {item_id: row for row, item_id in enumerate(split.item_ids, 1)}
            assert len(answer.items) == table.n_rows - 1
            listed = torch.tensor([item.score for item in answer.items])
            expected = torch.stack([scores[rows[item.item_id]] for item in answer.items])
            torch.testing.assert_close(listed, expected, atol=2e-4, rtol=1e-4)
        source = Source("interactions", 0, number)
        decision = worker.decide(
            serving, Popularity(), states, [SourcedEvent(event, 0, number, event.timestamp, source)], 0.0
        )
        states |= decision.states
        before = last.setdefault(event.user_id, [])
        row = table.add(event.item_id)
        table.follow(before[-LAST:], row, event.timestamp)
        table.occur(row, event.timestamp)
        before.append(row)
