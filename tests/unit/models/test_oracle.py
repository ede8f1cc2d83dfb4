from __future__ import annotations

import numpy as np
import pytest
import torch

from models.encoders.encoder import StepInputs
from models.oracle import Outcome, forward_state, list_for, replay
from models.sessions import SessionRules
from models.users.state import HistoryEvent
from tests.unit.models.made import history, serving, sourced

MODEL = serving()


def test_a_log_by_hand() -> None:
    result = replay(
        SessionRules(),
        2,
        [
            sourced(0),
            sourced(1, timestamp=900.0),
            sourced(2, timestamp=100.0),
            sourced(3, timestamp=9999.0, now=1000.0),
            sourced(1, timestamp=900.0),
            sourced(4, timestamp=5000.0),
            sourced(5, user_id="v", origin=(2, 9)),
            sourced(6, user_id="v", origin=(2, 9)),
        ],
    )
    assert [outcome.value for outcome in result.outcomes] == [
        "applied", "applied", "late", "future", "duplicate", "applied", "applied", "duplicate",
    ]  # fmt: skip
    assert result.outcomes.count(Outcome.APPLIED) == 4
    state = result.states["u"]
    assert [(e.offset, e.timestamp) for e in state.history] == [(1, 1000.0), (4, 5000.0)]
    assert (state.events, state.applied_offset, state.session_start, state.session_len) == (3, 4, 5000.0, 1)
    assert [e.offset for e in result.histories["u"]] == [0, 1, 4]
    assert result.states["v"].origins == {2: 9}


def test_forward_state_is_forward() -> None:
    events = [
        HistoryEvent("item-3", 0.0, "click", 1.0, 0),
        HistoryEvent("?", 60.0, None, None, 1),
        HistoryEvent("item-5", 90_000.0, "buy", 9.0, 2),
    ]
    encoder = MODEL.model.encoder
    gaps = np.array([60.0, 90_000.0])
    inputs = encoder.spec.step_inputs(np.array([4, 0]), gaps, [1, 0], [-1.0, 0.0])
    one_user = StepInputs(*(given[None] for given in inputs))
    hs = encoder(encoder.initial(1), one_user, torch.zeros(1, 2, dtype=torch.bool))
    assert torch.allclose(forward_state(MODEL, events, 2), hs[0, 1], atol=1e-6)
    assert torch.equal(forward_state(MODEL, events, 0), torch.zeros(7))
    with pytest.raises(ValueError, match="3 events"):
        forward_state(MODEL, events, 3)


def test_lists_name_nothing_that_was_seen() -> None:
    events = history(0, 1, 2)
    everything = list_for(MODEL, events, 100, exclude_seen=False)
    assert len(everything) == 30
    assert [item.score for item in everything] == sorted((item.score for item in everything), reverse=True)
    unseen = list_for(MODEL, events, 100)
    assert unseen == [item for item in everything if item.item_id not in {"item-0", "item-1", "item-2"}]
    assert len(list_for(MODEL, events, 100, history_events=1)) == 29
    assert list_for(MODEL, events, 3) == unseen[:3]
