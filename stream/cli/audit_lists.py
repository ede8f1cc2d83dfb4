"""Every list against `forward`: the user's whole history under the list's own weights, then one look ahead."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.control import level, levels
from models.hrnn import StepInputs
from models.replay import Replay, fell_out
from models.state import HISTORY_EVENTS, HistoryEvent
from models.weights import ServingModel

SCORE_TOLERANCE = 1e-3  # scores travel with six digits, and float32 sums differ with the order of a product's terms
USERS_AT_ONCE, LISTS_AT_ONCE = 256, 256


@dataclass(frozen=True)
class Answer:
    """One list as it was emitted."""

    user_id: str
    partition: int  # the user's own
    offset: int  # in that partition, of the event that caused it
    version: str
    items: list[str]
    scores: npt.NDArray[np.float64]


class _Asked(NamedTuple):
    answer: Answer
    h: Tensor  # (LH,) before its event
    pending: HistoryEvent  # its event
    seen: set[str]  # what the user has had, as far as that is kept


def wrong_answers(
    model: ServingModel,
    replays: Mapping[int, Replay],
    answers: Sequence[Answer],
    top_k: int,
    asking_gap_s: float,
    exclude_seen: bool,
) -> Iterator[tuple[Answer, str]]:
    """Yield the lists that are not what the replayed histories lead to under a model, and how they differ."""
    by_user: dict[tuple[int, str], list[Answer]] = {}
    for answer in answers:
        by_user.setdefault((answer.partition, answer.user_id), []).append(answer)
    users = sorted(by_user, key=lambda user: len(replays[user[0]].histories.get(user[1], ())))
    for begin in range(0, len(users), USERS_AT_ONCE):
        asked: list[_Asked] = []
        some = users[begin : begin + USERS_AT_ONCE]
        chains = []
        for partition, user_id in some:
            history = replays[partition].histories.get(user_id, [])
            places = [_place_of(answer.offset, history) for answer in by_user[partition, user_id]]
            known = [place for place in places if place >= 0]
            # a state made anew under new weights begins with what was retained then
            first = max(0, min(known, default=0) - HISTORY_EVENTS)
            chains.append((history, first, places))
        hs = _forward(model, [history[first:] for history, first, _ in chains])
        for (partition, user_id), (history, first, places), of_user in zip(some, chains, hs, strict=True):
            for answer, place in zip(by_user[partition, user_id], places, strict=True):
                if place < 0:
                    yield answer, "its event was never applied"
                    continue
                before = of_user[place - first - 1] if place > first else model.model.initial(1)[0]
                asked.append(_Asked(answer, before, history[place], _seen(history[: place + 1])))
        for start in range(0, len(asked), LISTS_AT_ONCE):
            yield from _compare(model, asked[start : start + LISTS_AT_ONCE], top_k, asking_gap_s, exclude_seen)


def _seen(history: Sequence[HistoryEvent]) -> set[str]:
    """Name what a list after a user's whole history leaves out."""
    return {*(event.item_id for event in history[-HISTORY_EVENTS:]), *fell_out(history, HISTORY_EVENTS)}


def _place_of(offset: int, history: Sequence[HistoryEvent]) -> int:
    """Find which event of a history stands at an offset; -1 for none."""
    place = bisect_left(history, offset, key=lambda event: event.offset)
    return place if place < len(history) and history[place].offset == offset else -1


@torch.inference_mode()
def _forward(model: ServingModel, histories: Sequence[Sequence[HistoryEvent]]) -> Tensor:
    """Commit every event of many histories: -> (users, longest, H); what lies past a history's end is meaningless."""
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
    config = model.model.config
    given = StepInputs(
        torch.from_numpy(items),
        torch.from_numpy(levels(gaps, config.control_bounds_s)),
        torch.from_numpy(types),
        torch.from_numpy(values),
    )
    return model.model.forward(model.model.initial(len(histories)), given, torch.zeros(items.shape, dtype=torch.bool))


@torch.inference_mode()
def _compare(
    model: ServingModel,
    asked: Sequence[_Asked],
    top_k: int,
    asking_gap_s: float,
    exclude_seen: bool,
) -> Iterator[tuple[Answer, str]]:
    catalogue = model.catalogue
    pending = [one.pending for one in asked]
    given = StepInputs(
        torch.tensor([catalogue.row(event.item_id) for event in pending]),
        torch.full((len(pending),), level(asking_gap_s, model.model.config.control_bounds_s)),
        torch.tensor([catalogue.type_row(event.event_type) for event in pending]),
        torch.tensor([catalogue.standardized(event.event_value) for event in pending]),
    )
    if model.model.config.n_trends + model.model.config.n_sparse:
        for one in asked:
            if why := _why_misshapen(one.answer, one.seen if exclude_seen else set(), top_k):
                yield one.answer, why
        return
    scores = model.model.scores(model.model.step(torch.stack([one.h for one in asked]), given))
    if exclude_seen:
        for row, one in enumerate(asked):
            scores[row, list(map(catalogue.row, one.seen))] = -torch.inf
    best = torch.topk(scores, min(top_k, scores.shape[1]), 1).values.numpy()
    for row, (answer, *_) in enumerate(asked):
        expected = best[row][np.isfinite(best[row])]
        named = scores[row].numpy()[catalogue.rows(answer.items)]
        why = _why_wrong(answer, expected, named)
        if why:
            yield answer, why


def _why_misshapen(answer: Answer, seen: set[str], top_k: int) -> str:
    """Say what no list may be, whatever the signals said."""
    if not len(answer.items) <= top_k or len(set(answer.items)) != len(answer.items):
        return f"{len(answer.items)} items, {len(set(answer.items))} of them distinct"
    if not seen.isdisjoint(answer.items):
        return f"names what the user has had: {seen.intersection(answer.items)}"
    if not np.isfinite(answer.scores).all() or (np.diff(answer.scores) > 0).any():
        return "its scores are not finite, or do not fall"
    return ""


def _why_wrong(answer: Answer, expected: Any, named: Any) -> str:
    """Say how a list differs; items whose scores are equal within the tolerance may stand in either order."""
    if len(answer.items) != len(expected):
        return f"{len(answer.items)} items, not {len(expected)}"
    if len(set(answer.items)) != len(answer.items):
        return "an item stands in it twice"
    if not np.allclose(named, answer.scores, atol=SCORE_TOLERANCE, rtol=SCORE_TOLERANCE):
        return f"scores are off by {np.nanmax(np.abs(named - answer.scores)):.2g}"
    if not np.allclose(expected, answer.scores, atol=SCORE_TOLERANCE, rtol=SCORE_TOLERANCE):
        return "better items are missing from it"
    return ""
