"""The two builders of UserBatch, from states and from a log: each term must read the same from both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoders.hrnn import HRNNConfig
from models.items.item_table import ItemTable
from models.items.signal_table import NEIGHBOUR_ITEMS, Floats, LookedUp, SignalTable
from models.recommending.popularity import Popularity
from models.recommending.recommender import Recommender
from models.records import Source
from models.sessions import SessionRules
from models.terms.registry import TERMS
from models.terms.term import DenseTerm, SparseFeatures, SparseTerm, UserSignals
from models.users.batch import JobHistories
from models.users.state import UserState
from models.users.walk import Ask, SourcedEvent, Walk
from tests.unit.trainer.logs import drawn
from trainer.data.histories import from_events
from trainer.data.user_batches import LoggedUsers
from trainer.fitting.encoding import build_catalogue
from trainer.fitting.signal_replay import SignalReplay


def by_row(features: SparseFeatures, user: int, n_rows: int) -> Floats:
    """All that a term says of each item to one user: (n_rows, width), row 0 left out."""
    summed = np.zeros((n_rows, features.values.shape[2]), np.float32)
    np.add.at(summed, features.rows[user], features.values[user])
    assert not summed[0].any(), "nothing is said in row 0"
    return summed


@pytest.mark.parametrize("name", [name for name in TERMS if name != "taste"])
@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([(100, 500), (10, 4), (12, 500)]))
def test_a_term_reads_the_same_from_states_and_from_a_log(name: str, seed: int, n: int, kept: tuple[int, int]) -> None:
    events = drawn(seed, n, users=3)
    histories = from_events(events)
    catalogue = build_catalogue(histories, histories.order)
    config = HRNNConfig(
        len(catalogue.item_ids), half_lives_s=(3600.0, 86400.0), successor_half_life_s=86400.0, terms=(name,)
    )
    term = TERMS[name](config)
    rules = config.signal_rules
    assert rules is not None
    table, history_events = SignalTable(rules, catalogue.item_ids), kept[0]
    worker = Recommender(SessionRules(max_session_events=min(history_events, 100)), 5, False, *kept[:1], 0.0, kept[1])
    states: dict[tuple[int, str], UserState] = {}
    last: dict[str, list[int]] = {}
    looked_up, from_states = [], []
    if isinstance(term, DenseTerm):
        replay = SignalReplay(histories, catalogue, config, torch.device("cpu"))
        dense = replay.read(torch.from_numpy(histories.order)).dense.numpy()
    for number, event in enumerate(events):
        at, before = event.timestamp, last.setdefault(event.user_id, [])
        if isinstance(term, DenseTerm):
            assert term.dense(table, at)[:, 1:] == pytest.approx(dense[number], abs=1e-5)
        else:
            assert isinstance(term, SparseTerm)
            walk = Walk(event.user_id, states.get((0, event.user_id)))
            walk.rows = catalogue.rows([past.item_id for past in walk.history])
            ask = Ask(0, walk, 0, len(walk.history), walk.earlier, None, "")  # type: ignore[arg-type]
            users = JobHistories.of([ask], [at], ItemTable(catalogue)).users()
            looked_up.append(table.look_up(users.last_rows(NEIGHBOUR_ITEMS), [at]))
            assert users.last_rows(NEIGHBOUR_ITEMS) == [before[-NEIGHBOUR_ITEMS:]]
            signals = UserSignals(table, looked_up[-1]) if term.reads_signals else None
            from_states.append(by_row(term.sparse(users, signals), 0, table.n_rows))
        sourced = SourcedEvent(event, 0, number, at, Source("interactions", 0, number))
        states |= worker.decide(None, Popularity(), states, [sourced], 0.0).states
        row = catalogue.row(event.item_id)
        table.follow(before[-3:], row, at)
        table.occur(row, at)
        before.append(row)
    if isinstance(term, SparseTerm):
        rows = catalogue.rows(histories.item_ids)[histories.items]
        logged = LoggedUsers(histories, rows, *kept).before(histories.order)
        features = term.sparse(logged, UserSignals(table, LookedUp.joined(looked_up)) if term.reads_signals else None)
        for number, expected in enumerate(from_states):
            assert by_row(features, number, table.n_rows) == pytest.approx(expected, abs=1e-5)
