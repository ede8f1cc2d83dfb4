from __future__ import annotations

from typing import Any

import pytest
import torch

from models.encoders.encoder import StepInputs
from models.encoders.hgru import HGRU, HGRUConfig
from tests.unit.models.encoders.test_encoder import drawn


def made(**fields: Any) -> HGRU:
    torch.manual_seed(0)
    return HGRUConfig(20, 2, hidden_dimension=5, **fields).encoder().eval()


@pytest.mark.parametrize("user_state", ["init", "all"])
@torch.inference_mode()
def test_a_history_is_walked_by_the_equations_of_the_paper(user_state: str) -> None:
    encoder = made(user_state=user_state)
    inputs, _ = drawn(1, 12, 3)
    user, session = torch.zeros(1, 5), torch.zeros(1, 5)
    h = encoder.initial(1)
    for t in range(12):
        now = StepInputs(*(given[:, t] for given in inputs))
        given = encoder.embedded(now)
        session = encoder.cell(torch.cat((given, user), 1) if user_state == "all" else given, session)
        if now.opens_session.item():  # the last event of its session: c_m = GRU(s_m, c_m-1), s_m+1,0 = tanh(W c_m + b)
            user = encoder.user(session, user)
            session = torch.tanh(encoder.start(user))
        h = encoder.step(h, now)
        assert torch.allclose(h, torch.cat((user, session), 1), atol=1e-6)
    assert torch.equal(encoder.output(h), h[:, 5:])


@torch.inference_mode()
def test_of_the_sessions_before_only_the_user_s_state_is_left() -> None:
    encoder = made()
    inputs, _ = drawn(1, 1, 0)
    now = StepInputs(*(given[:, 0] for given in inputs))
    opens, stays = (now._replace(opens_session=torch.tensor([opens])) for opens in (True, False))
    one, other = torch.randn(2, 1, 10)
    assert torch.equal(encoder.step(one, stays)[:, :5], one[:, :5])
    user = encoder.step(one, opens)[:, :5]
    assert not torch.equal(user, one[:, :5])
    other[:, :5] = one[:, :5]
    assert not torch.allclose(encoder.step(other, opens)[:, :5], user)


@pytest.mark.parametrize(
    "fields", [{"user_state": "some"}, {"session_gap_s": 0.0}, {"session_gap_s": "30"}, {"layers": 0}]
)
def test_an_impossible_shape_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        HGRUConfig.from_dict({"n_items": 5, **fields})
    config = HGRUConfig(5, user_state="all", session_gap_s=60.0)
    assert HGRUConfig.from_dict(config.to_dict()) == config
