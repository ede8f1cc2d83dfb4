"""Lists against `forward`: the user's whole history under the list's own weights, then one look ahead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.items.item_table import ItemTable
from models.items.signal_reading import SignalReading
from models.oracle import fell_out, scores_for
from models.recommending.mask import MaskRule, mask_of, not_had
from models.recommending.recipes import Recipe, RecipeInputs, batch_of
from models.recommending.scoring import Moment
from models.users.earlier import fold
from models.users.state import HISTORY_EVENTS, HistoryEvent
from models.weights import ServingModel
from stream.audit.events import Replayed
from stream.audit.lists import Given

SCORE_TOLERANCE = 1e-3  # scores travel with six digits, and float32 sums differ with the order of a product's terms
USERS_AT_ONCE, LISTS_AT_ONCE = 256, 256


class Job(NamedTuple):
    """One list to make again: after the first `events` of its user's events, for a time of asking."""

    given: Given
    events: int
    gap_s: float  # from the last of them
    places: int


class Asked(NamedTuple):
    """A job, with what its user had come to."""

    job: Job
    h: Tensor  # (S,) before the last of the events
    history: Sequence[HistoryEvent]  # up to and with it

    @property
    def retained(self) -> Sequence[HistoryEvent]:
        """Give the events that the user's state retained then."""
        return self.history[-HISTORY_EVENTS:]

    @property
    def earlier(self) -> dict[str, int]:
        """Count what had fallen out of them."""
        return fold({}, (event.item_id for event in self.history[:-HISTORY_EVENTS]))


def seen(history: Sequence[HistoryEvent]) -> set[str]:
    """Name what a list after a user's whole history leaves out."""
    return {*(event.item_id for event in history[-HISTORY_EVENTS:]), *fell_out(history, HISTORY_EVENTS)}


def asked_by(model: ServingModel, replayed: Replayed, jobs: Sequence[Job]) -> Iterator[list[Asked]]:
    """Replay the hidden states that jobs need, many users at a time."""
    by_user: dict[tuple[int, str], list[Job]] = {}
    for job in jobs:
        by_user.setdefault(job.given.user, []).append(job)

    def history_of(user: tuple[int, str]) -> Sequence[HistoryEvent]:
        return replayed.by_partition[user[0]].histories.get(user[1], [])

    users = sorted(by_user, key=lambda user: len(history_of(user)))
    for begin in range(0, len(users), USERS_AT_ONCE):
        some = users[begin : begin + USERS_AT_ONCE]
        firsts, chains = [], []
        for user in some:
            # a state made anew under new weights begins with what was retained then
            firsts.append(max(0, min(job.events for job in by_user[user]) - 1 - HISTORY_EVENTS))
            chains.append(history_of(user)[firsts[-1] :])
        asked: list[Asked] = []
        for user, first, hs in zip(some, firsts, _forward(model, chains), strict=True):
            for job in by_user[user]:
                steps = job.events - 1 - first
                before = hs[steps - 1] if steps > 0 else model.model.encoder.initial(1)[0]
                asked.append(Asked(job, before, history_of(user)[: job.events]))
        for start in range(0, len(asked), LISTS_AT_ONCE):
            yield asked[start : start + LISTS_AT_ONCE]


@torch.inference_mode()
def _forward(model: ServingModel, histories: Sequence[Sequence[HistoryEvent]]) -> Tensor:
    """Commit every event of many histories: -> (users, longest, S); what lies past a history's end is meaningless."""
    longest = max(1, *(len(history) for history in histories))
    items = np.zeros((len(histories), longest), np.int64)
    types, gaps = np.zeros_like(items), np.zeros(items.shape)
    values = np.zeros(items.shape, np.float32)
    for row, history in enumerate(histories):
        for t, event in enumerate(history):
            items[row, t] = model.catalogue.row(event.item_id)
            types[row, t] = model.catalogue.type_row(event.event_type)
            values[row, t] = model.catalogue.standardized(event.event_value)
            if t + 1 < len(history):
                gaps[row, t] = history[t + 1].timestamp - event.timestamp
    encoder = model.model.encoder
    given = encoder.spec.step_inputs(items, gaps, types, values)
    return encoder.forward(encoder.initial(len(histories)), given, torch.zeros(items.shape, dtype=torch.bool))


@torch.inference_mode()
def compare(model: ServingModel, asked: Sequence[Asked], rules: Sequence[MaskRule]) -> Iterator[tuple[Job, str]]:
    """Make lists of users with events again, under a model that looks at no signals; "" for those that are right."""
    catalogue, encoder = model.catalogue, model.model.encoder
    pending = [one.history[-1] for one in asked]
    given = encoder.spec.step_inputs(
        catalogue.rows([event.item_id for event in pending]),
        np.array([one.job.gap_s for one in asked]),
        [catalogue.type_row(event.event_type) for event in pending],
        [catalogue.standardized(event.event_value) for event in pending],
    )
    scores = model.model.scores(encoder.step(torch.stack([one.h for one in asked]), given))
    if not_had in rules:
        for row, one in enumerate(asked):
            scores[row, list(map(catalogue.row, seen(one.history)))] = -torch.inf
    mask_of(rules, batch_of([seen(one.history) for one in asked], ItemTable(catalogue))).hide(scores)
    for of_items, one in zip(scores.numpy(), asked, strict=True):
        yield one.job, _why_wrong(one.job, of_items, catalogue.rows(one.job.given.items))


def compare_alone(model: ServingModel, moment: Moment | None, one: Asked, rules: Sequence[MaskRule]) -> str:
    """Make one list again, with a moment's signals or for a user without events; "" if it is right."""
    scores = scores_for(model, one.h, one.retained, one.job.gap_s, moment, one.earlier, not_had in rules)
    items = ItemTable(model.catalogue) if moment is None else moment.items(model)
    mask_of(rules, batch_of([seen(one.history)], items)).hide(torch.from_numpy(scores[None]))
    rows = items.rows(one.job.given.items)
    if (rows >= len(scores)).any():
        return "names items that are newer than its signals"
    return _why_wrong(one.job, scores, rows)


def compare_by_recipe(
    recipe: Recipe, signals: SignalReading, job: Job, history: Sequence[HistoryEvent], rules: Sequence[MaskRule]
) -> str:
    """Make one list of a recipe that scores itself again, of a user with this history; "" if it is right."""
    assert recipe.scores is not None, "the model's own lists are not made by their recipe"
    given, items = job.given, ItemTable(None, signals.table)
    batch = batch_of([seen(history)], items)
    half_lives_s = [] if given.half_life_s is None else [given.half_life_s]
    scores = recipe.scores(RecipeInputs(batch, signals, half_lives_s))
    mask_of(rules, batch).hide(torch.from_numpy(scores))
    return _why_wrong(job, scores[0], items.rows(given.items))


def _why_wrong(job: Job, scores: Any, rows: Any) -> str:
    """Say how a list differs; items whose scores are equal within the tolerance may stand in either order."""
    given = job.given
    ranked = np.sort(scores)[::-1][: job.places]
    expected, named = ranked[ranked > -math.inf], scores[rows]
    if len(given.items) != len(expected):
        return f"{len(given.items)} items, not {len(expected)}"
    if len(set(given.items)) != len(given.items):
        return "an item stands in it twice"
    if not np.allclose(named, given.scores, atol=SCORE_TOLERANCE, rtol=SCORE_TOLERANCE):
        return f"scores are off by {np.nanmax(np.abs(named - given.scores)):.2g}"
    if not np.allclose(expected, given.scores, atol=SCORE_TOLERANCE, rtol=SCORE_TOLERANCE):
        return "better items are missing from it"
    return ""
