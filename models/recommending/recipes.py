"""Recipes: what a request can ask for. A recipe is candidates, terms and rules.

| recipe | candidates | terms | rules |
|---|---|---|---|
| `next` | the catalogue and new items | all that the model has, weighed by the user's state | not had |
| `popular` | items with signals | the trend of the longest counted half-life | not had |
| `trending` | items with signals | one trend, by the request's window | not had |

A window such as 3h stands for the counted half-life nearest to it; the answer says which, as `half_life_s`. A trend is
log(count / 0.05) of the item's decayed count; items whose count is below 0.05 are no candidates. `popular` and
`trending` need no model. To add a recipe: a function that scores, and a line in RECIPES.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.durations import duration_s
from models.items.item_table import ItemTable
from models.items.signal_reading import SignalReading
from models.items.signals import SignalRules
from models.recommending.mask import ListBatch, MaskRule, mask_of, not_had
from models.recommending.top_k import ranked_lists
from models.records import BadRecord, RankedItem, Request

NEXT = "next"
DEFAULT_WINDOW = "3h"  # a trend that most visitors have not seen yet, on counts that are not yet noise
LISTS_AT_ONCE = 32  # as in scoring

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class RecipeInputs(NamedTuple):
    """What a recipe scores B lists by."""

    lists: ListBatch
    signals: SignalReading
    half_lives_s: Sequence[float]  # (B), by the recipe's own `half_life_s`; empty if it has none


@dataclass(frozen=True)
class Recipe:
    """How lists are made."""

    name: str
    scores: Callable[[RecipeInputs], Scores] | None = None
    """Scores every item: (B, rows), -inf for what is no candidate; None: the model's scores, from all of its terms."""
    rules: tuple[MaskRule, ...] = (not_had,)
    half_life_s: Callable[[SignalRules, str | None], float] | None = None
    """Chooses the half-life of the counts to read, by the request's window."""
    takes_window: bool = False

    def rules_for(self, exclude_seen: bool) -> tuple[MaskRule, ...]:
        """Give the rules in a deployment, which may list what users have had."""
        return self.rules if exclude_seen else tuple(rule for rule in self.rules if rule is not not_had)

    def half_lives_for(self, rules: SignalRules, requests: Sequence[Request]) -> list[float]:
        """Choose the half-lives of answers (B); none for a recipe that reads no single trend."""
        choose = self.half_life_s
        return [] if choose is None else [choose(rules, request.window) for request in requests]


def by_trend(inputs: RecipeInputs) -> Scores:
    """Score items by one trend for each list; what has not occurred, or not for long, is no candidate."""
    trends = {half_life_s: inputs.signals.trend(half_life_s) for half_life_s in inputs.half_lives_s}
    scores = np.stack([trends[half_life_s] for half_life_s in inputs.half_lives_s])
    scores[scores <= 0] = -math.inf
    return scores


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(NEXT),
        Recipe("popular", by_trend, half_life_s=lambda rules, _: max(rules.counted_half_lives_s)),
        Recipe(
            "trending",
            by_trend,
            half_life_s=lambda rules, window: rules.nearest_half_life_s(duration_s(window or DEFAULT_WINDOW)),
            takes_window=True,
        ),
    )
}


def recipe_of(request: Request) -> Recipe:
    """Look up the recipe that a request asks for; raises BadRecord for one that is unknown, or a window that is."""
    name = NEXT if request.recipe is None else request.recipe
    recipe = RECIPES.get(name)
    if recipe is None:
        known = ", ".join(RECIPES)
        raise BadRecord("bad_value", f"recipe {name[:40]!r} is unknown: ask for one of {known}, or leave it out")
    if request.window is None:
        return recipe
    if not recipe.takes_window:
        takers = ", ".join(name for name, other in RECIPES.items() if other.takes_window)
        raise BadRecord("bad_value", f"window: the recipe {recipe.name} has none; leave it out, or ask for {takers}")
    try:
        duration_s(request.window)
    except ValueError as error:
        raise BadRecord("bad_value", f"window: {error}") from None
    return recipe


def batch_of(had: Sequence[Collection[str]], items: ItemTable) -> ListBatch:
    """Describe B lists by what each one's user has had, item ids."""
    rows = items.rows([item_id for of_user in had for item_id in of_user])
    return ListBatch(len(had), items, np.repeat(np.arange(len(had)), list(map(len, had))), items.scored(rows))


def lists_by(
    recipe: Recipe,
    requests: Sequence[Request],
    had: Sequence[Collection[str]],
    places: Sequence[int],
    *,
    signals: SignalReading,
    rules: Sequence[MaskRule],
) -> list[list[RankedItem]]:
    """Rank B lists of `places` items, by a recipe that scores itself; `had` are the items that each user has had."""
    items = ItemTable(None, signals.table)
    half_lives_s = recipe.half_lives_for(signals.table.rules, requests)
    assert recipe.scores is not None, "the model's own lists are made by Scoring"
    lists: list[list[RankedItem]] = []
    for start in range(0, len(requests), LISTS_AT_ONCE):
        part = slice(start, start + LISTS_AT_ONCE)
        batch = batch_of(had[part], items)
        scores = recipe.scores(RecipeInputs(batch, signals, half_lives_s[part]))
        lists += ranked_lists(torch.from_numpy(scores), mask_of(rules, batch), np.array(places[part]), items)
    return lists
