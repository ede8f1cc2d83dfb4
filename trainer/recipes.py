"""The recipes by name, and the model without one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.signals import DAY_S, HOUR_S
from trainer.protocol import Recipe
from trainer.recipes_counting import Counting, Sims, popularity, recent_popularity
from trainer.recipes_hrnn import Hrnn, without_signals
from trainer.recipes_vsknn import vsknn
from trainer.settings import FittingSettings

SIGNALS: dict[str, Any] = {
    "half_lives_s": (1800.0, 3 * HOUR_S, DAY_S, 7 * DAY_S, 60 * DAY_S),  # news live for hours, films for weeks
    "successor_half_life_s": 3 * 365 * DAY_S,  # a week's was half as good on ratings of years, as good on news
    "repeats": True,
    "hidden_dimension": 64,
    "tied": True,  # with little data an item's two meanings are one
    "dropout": 0.2,
    "item_dropout": 0.05,  # new items' perplexity on news 1 % better, and the others' too
    "recency_mask": False,  # the trends say what is recent
    "lanes": 32,
    "learning_rate": 2e-3,
    "epochs": 4,
}
"""What `hrnn` is here, where the environment does not say otherwise.

One set for all logs, chosen on the first 30 to 60 % of three of them, never on a slice that is reported.
"""

RECIPES: dict[str, Callable[[FittingSettings], Recipe]] = {
    "hrnn": lambda settings: Hrnn(with_signals(settings)),
    "rnn": lambda settings: Hrnn(_but(without_signals(settings), control=False)),
    "popularity": lambda _: popularity(),
    "recent-popularity": lambda _: recent_popularity(),
    "sims": lambda _: Counting(Sims),
    "vsknn": lambda _: vsknn(),
}

ABLATIONS: dict[str, Callable[[FittingSettings], Recipe]] = {
    "hrnn": RECIPES["hrnn"],
    "no control": lambda settings: Hrnn(_but(with_signals(settings), control=False)),
    "no trends": lambda settings: Hrnn(_but(with_signals(settings), half_lives_s=())),
    "no successors": lambda settings: Hrnn(_but(with_signals(settings), successor_half_life_s=0.0)),
    "no repeats": lambda settings: Hrnn(_but(with_signals(settings), repeats=False)),
    "no signals": lambda settings: Hrnn(without_signals(with_signals(settings))),
    "no net": lambda settings: Hrnn(_but(with_signals(settings), net=False)),
    "frozen signals": lambda settings: Hrnn(with_signals(settings), frozen=True),
}


def with_signals(settings: FittingSettings) -> FittingSettings:
    """Turn on what the settings leave to their defaults."""
    return _but(settings, **{name: v for name, v in SIGNALS.items() if name not in settings.model_fields_set})


def _but(settings: FittingSettings, **changes: Any) -> FittingSettings:
    return settings.model_copy(update=changes)
