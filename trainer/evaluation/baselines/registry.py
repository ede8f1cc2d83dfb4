"""What an evaluation can ask, by name: the model, its baselines, and the model without one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.evaluation.baselines.counting import Counting, Sims, popularity, recent_popularity
from trainer.evaluation.baselines.vsknn import vsknn
from trainer.evaluation.hrnn import Hrnn, without_signals
from trainer.evaluation.protocol import Predictor
from trainer.settings import FittingSettings

WITHOUT_SIGNALS: dict[str, Any] = {
    "recency_mask": True,  # nothing else tells it what is recent
    "tied": False,
    "lanes": 64,
    "learning_rate": 5e-3,
    "dropout": 0.1,
}
"""What suits a net that knows no signals, where the environment does not say otherwise."""

PREDICTORS: dict[str, Callable[[FittingSettings], Predictor]] = {
    "hrnn": lambda settings: Hrnn(settings),
    "rnn": lambda settings: Hrnn(_unless_set(without_signals(_but(settings, encoder="rnn")), WITHOUT_SIGNALS)),
    "popularity": lambda _: popularity(),
    "recent-popularity": lambda _: recent_popularity(),
    "sims": lambda _: Counting(Sims),
    "vsknn": lambda _: vsknn(),
}

ABLATIONS: dict[str, Callable[[FittingSettings], Predictor]] = {
    "hrnn": PREDICTORS["hrnn"],
    "no control": lambda settings: Hrnn(_but(settings, control=False)),
    "no trends": lambda settings: Hrnn(_but(settings, half_lives_s=())),
    "no successors": lambda settings: Hrnn(_but(settings, successor_half_life_s=0.0)),
    "no neighbours": lambda settings: Hrnn(_but(settings, neighbours=False)),
    "no repeats": lambda settings: Hrnn(_but(settings, repeats=False)),
    "no signals": lambda settings: Hrnn(without_signals(settings)),
    "no net": lambda settings: Hrnn(_but(settings, net=False)),
    "frozen signals": lambda settings: Hrnn(settings, frozen=True),
}


def _unless_set(settings: FittingSettings, values: dict[str, Any]) -> FittingSettings:
    return _but(settings, **{name: value for name, value in values.items() if name not in settings.model_fields_set})


def _but(settings: FittingSettings, **changes: Any) -> FittingSettings:
    return settings.model_copy(update=changes)
