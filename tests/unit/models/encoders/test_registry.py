"""An encoder is a config and a class with `step`: fits, blobs, workers, evaluations and audits do the rest by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import msgspec
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.config import ModelConfig
from models.encoders.encoder import Encoder, EncoderSpec, StepInputs
from models.encoders.registry import ENCODERS
from models.items.signals import SignalRules
from models.oracle import list_for
from models.recommending.popularity import Popularity
from models.recommending.recommender import Recommender, UserKey
from models.sessions import SessionRules
from models.users.state import UserState
from models.weights import BadWeights, decode_manifest
from tests.unit.models.made import serving, sourced
from tests.unit.stream.audit.made_logs import made
from tests.unit.trainer.logs import drawn
from tests.unit.trainer.made import circles, quick, served
from tests.unit.trainer.test_served_is_evaluated import check_served_is_evaluated
from trainer.data.histories import from_events
from trainer.evaluation.hrnn import Hrnn
from trainer.evaluation.protocol import evaluate, split_at
from trainer.fitting.fit import fit, newest_slice
from trainer.settings import FittingSettings


@dataclass(frozen=True)
class FadingConfig(ModelConfig):
    """Half of the state fades at each step."""

    architecture: ClassVar[str] = "fading"

    def encoder(self) -> Fading:
        return Fading(self, EncoderSpec(self.hidden_dimension))


class Fading(Encoder):
    def __init__(self, config: ModelConfig, spec: EncoderSpec) -> None:
        super().__init__(config, spec)
        self.mixed = nn.Linear(self.input_width, config.hidden_dimension)

    def step(self, h: Tensor, inputs: StepInputs) -> Tensor:
        return 0.5 * h + torch.tanh(self.mixed(self.embedded(inputs)))


@dataclass(frozen=True)
class LastConfig(ModelConfig):
    """Only the last event counts, so no state is kept."""

    architecture: ClassVar[str] = "last"

    def encoder(self) -> Last:
        return Last(self, EncoderSpec(self.hidden_dimension, kept=False))


class Last(Fading):
    def step(self, h: Tensor, inputs: StepInputs) -> Tensor:
        return super().step(torch.zeros_like(h), inputs)


ADDED = [FadingConfig, LastConfig]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ADDED:
        monkeypatch.setitem(ENCODERS, kind.architecture, kind)


@pytest.mark.parametrize("name", ["fading", "last", "rnn", "hgru"])
def test_an_encoder_is_fitted_packed_and_warm_started_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = circles()
    cutoff = newest_slice(histories, 0.1)
    settings = quick(encoder=name)
    fitted = fit(histories, cutoff, settings)
    assert fitted.valid_perplexity < 1.5  # of 12 items; 1 is certainty
    serving = served(fitted, cutoff)
    assert serving.manifest.architecture == name
    assert type(serving.model.config) is ENCODERS[name]
    assert fit(histories, cutoff, settings, (serving, cutoff)).warm
    assert not fit(histories, cutoff, quick(epochs=1), (serving, cutoff)).warm
    monkeypatch.delitem(ENCODERS, name)
    with pytest.raises(BadWeights, match=f"architecture: '{name}'; this reader knows hrnn"):
        decode_manifest(msgspec.json.encode(serving.manifest))


@pytest.mark.parametrize("kind", ADDED)
@pytest.mark.parametrize("seed", range(3))
def test_what_an_added_encoder_serves_is_what_is_evaluated(kind: type[ModelConfig], seed: int) -> None:
    check_served_is_evaluated(kind, seed, 50)


@pytest.mark.parametrize("kind", ADDED)
def test_an_added_encoder_is_audited(kind: type[ModelConfig]) -> None:
    report = made(SignalRules(), kind=kind).compared()
    assert (report.wrong_states, report.wrong_lists, report.lost) == (0, 0, 0), report.examples
    assert report.lists_with_signals_checked == report.lists_with_signals > 200


@pytest.mark.parametrize("name", ["fading", "last", "rnn", "hgru"])
def test_an_encoder_is_evaluated_under_the_settings_name(name: str) -> None:
    settings = FittingSettings(encoder=name, hidden_dimension=6, epochs=1, train_threads=1, lanes=8)
    figures = evaluate("added", Hrnn(settings), split_at(from_events(drawn(0, 200, items=25)), 0.8)).figures
    assert 1 < figures["perplexity"] < 100


def test_a_state_that_is_not_kept_is_replayed_in_any_batching() -> None:
    model = serving(kind=LastConfig)
    log = [sourced(offset, "ann", f"item-{offset % 7}", 1000.0 * offset) for offset in range(12)]
    recommender = Recommender(SessionRules(), 5, False)
    at_once = recommender.decide(model, Popularity(), {}, log, 0.0)
    states: dict[UserKey, UserState] = {}
    lists = []
    for event in log:
        decision = recommender.decide(model, Popularity(), states, [event], 0.0)
        states |= decision.states
        lists += [listed.items for _, listed in decision.recommendations]
        assert decision.outcomes.rebuilt_users == 0
        assert (states[0, "ann"].h, states[0, "ann"].h_events) == (b"", 0)
    for one, (_, other) in zip(lists, at_once.recommendations, strict=True):
        assert [item.item_id for item in one] == [item.item_id for item in other.items]
    oracle = list_for(model, states[0, "ann"].history, 5, exclude_seen=False)
    assert [item.item_id for item in lists[-1]] == [item.item_id for item in oracle]


def test_the_settings_name_of_no_encoder_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"encoder 'lstm' is none of hrnn, rnn, hgru"):
        FittingSettings(encoder="lstm")
