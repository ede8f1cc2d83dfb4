from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ModelConfig
from models.encoders.hgru import HGRUConfig
from models.encoders.hrnn import HRNNConfig
from models.encoders.rnn import RNNConfig
from models.model import Model
from models.terms.registry import TERMS
from tests.unit.trainer.logs import drawn
from tests.unit.trainer.served import scored
from trainer.data import user_batches
from trainer.data.histories import from_events
from trainer.evaluation.protocol import split_at
from trainer.fitting.encoding import build_catalogue
from trainer.fitting.fit import Fitted


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.integers(12, 70),
    st.integers(1, 2),
    st.sampled_from([(100, 500), (10, 4), (12, 500)]),
    st.sampled_from([HRNNConfig, HRNNConfig, HGRUConfig, RNNConfig]),
)
def test_what_an_evaluation_scores_is_what_a_worker_lists_and_an_audit_expects(
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user_batches, "HISTORY_EVENTS", kept[0])
        patch.setattr(user_batches, "EARLIER_ITEMS", kept[1])
        for one in scored(learned, split, events, *kept):
            torch.testing.assert_close(one.listed, one.evaluated, atol=2e-4, rtol=1e-4)
            torch.testing.assert_close(one.listed, one.audited, atol=2e-4, rtol=1e-4)
