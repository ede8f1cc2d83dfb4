"""How well a model foretells the next event, asked step by step with the code that serves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.encoders.encoder import StepInputs
from models.measures import mrr_at_k, ndcg_at_k, ranks, recall_at_k
from models.recommending.mask import ItemMask
from trainer.data.histories import Histories, Ints
from trainer.fitting.encoding import encode
from trainer.fitting.known_signals import Known
from trainer.fitting.signal_replay import SignalReplay
from trainer.fitting.warm_start import Learned

CELLS = 1 << 20  # scores held at once: what fits a core's cache, as when serving
UNKNOWN = 0
"""The rank of an item that the model does not know: it can't be in any list."""


@dataclass(frozen=True)
class Report:
    """The answers to a series of trials: which item comes next, given all before it?"""

    ranks: Ints  # (trials,) of the item that came, seen items left out, ties against us; UNKNOWN if not in the model
    log_likelihood: float  # mean over the known items; NaN without one, and for what gives no probabilities

    @property
    def trials(self) -> int:
        """Count the trials, those with items that the model does not know included."""
        return len(self.ranks)

    @property
    def unknown(self) -> int:
        """Count the trials that no list of the model could win."""
        return int((self.ranks == UNKNOWN).sum())

    def reciprocal_ranks(self, k: int = 20) -> npt.NDArray[np.float64]:
        """Give each trial's reciprocal rank, 0 beyond k and for unknown items."""
        listed = (self.ranks != UNKNOWN) & (self.ranks <= k)
        return np.where(listed, 1 / np.maximum(self.ranks, 1), 0.0)

    def measures(self) -> dict[str, float]:
        """Name the figures, none that isn't finite.

        Ranking is measured over the items that the model knows; in the hit-rate the others count as missed, so
        that models of different vocabularies can be compared.
        """
        known = self.ranks[self.ranks != UNKNOWN]
        figures = {"trials": float(self.trials), "unknown": float(self.unknown)}
        if len(known):
            figures |= {
                "hit_rate_at_10": float((known <= 10).sum() / self.trials),
                "recall_at_10": recall_at_k(known, 10),
                "ndcg_at_10": ndcg_at_k(known, 10),
                "mrr_at_20": mrr_at_k(known, 20),
                "perplexity": math.exp(min(-self.log_likelihood, 700.0)),
            }
        return {name: figure for name, figure in figures.items() if math.isfinite(figure)}


def trials(histories: Histories, after: float) -> Ints:
    """Name the events after which a list is asked for: those whose next event, of the same user, lies in the slice."""
    follows = np.append(histories.times[1:] > after, False)
    follows[histories.bounds[1:] - 1] = False
    return np.flatnonzero(follows)


def evaluate(learned: Learned, histories: Histories, asked: Ints, asking_gap_s: float | None) -> Report:
    """Ask for lists after the events `asked`; `asking_gap_s` after each, or at None when the next event comes.

    Waves of encoder steps carry all users along, as in serving: the event just seen is not committed until the next
    one tells the gap, and the list is made from a provisional step that is not kept.
    """
    model = learned.model
    spec = model.encoder.spec
    encoded = encode(histories, learned.catalogue, spec)
    with torch.inference_mode():
        h = states_before(learned, histories, encoded.inputs, asked)
        events = torch.from_numpy(asked)
        inputs = StepInputs(*(tensor[events] for tensor in encoded.inputs))
        if asking_gap_s is not None:
            level, opens_session = spec.of_gaps(np.full(len(asked), asking_gap_s))
            inputs = inputs._replace(level=level, opens_session=opens_session)
        h = model.encoder.step(h, inputs)
        target = encoded.target[events]
        known = target > 0
        all_ranks = np.full(len(asked), UNKNOWN, np.int64)
        asked_known = asked[known.numpy()]
        found, likelihood = _ranks(
            learned,
            h[known],
            target[known],
            _seen(histories, encoded.inputs.item_idx.numpy(), asked_known),
            _signals(learned, histories, asked_known),
        )
        all_ranks[known.numpy()] = found
    return Report(all_ranks, likelihood)


def evaluate_popularity(histories: Histories, asked: Ints) -> Report:
    """Rank the item that came by how often it had come before, at that moment: what any model has to beat.

    Seen items are left out and ties are against it, as for models.
    """
    counts = np.zeros(len(histories.item_ids), np.int64)
    user_of = histories.users
    is_asked = np.zeros(histories.n_events, bool)
    is_asked[asked] = True
    found = np.full(histories.n_events, UNKNOWN, np.int64)
    for event in np.argsort(histories.times, kind="stable"):
        item = histories.items[event]
        if event > 0 and is_asked[event - 1] and counts[item]:
            seen = np.unique(histories.items[histories.bounds[user_of[event]] : event])
            as_popular = counts >= counts[item]
            found[event - 1] = len(counts) if item in seen else as_popular.sum() - as_popular[seen].sum()
        counts[item] += 1
    return Report(found[asked], math.nan)


def states_before(learned: Learned, histories: Histories, inputs: StepInputs, asked: Ints) -> Tensor:
    """Walk the users that are asked about -> the state (asked, S) that each of these events found."""
    encoder = learned.model.encoder
    user_of = histories.users[asked]
    users = np.unique(user_of)
    last = np.full(histories.n_users, -1)
    np.maximum.at(last, user_of, asked)
    steps = last[users] - histories.bounds[users]  # to the state before the last one asked about
    order = np.argsort(-steps, kind="stable")
    users, steps = users[order], steps[order]
    place = np.full(histories.n_users, -1)
    place[users] = np.arange(len(users))
    depth = asked - histories.bounds[user_of]
    by_depth = np.argsort(depth, kind="stable")
    cuts = np.searchsorted(depth[by_depth], np.arange(int(depth.max(initial=-1)) + 2))
    found = torch.empty(len(asked), encoder.spec.state_width)
    h = encoder.initial(len(users))
    for wave in range(len(cuts) - 1):
        here = by_depth[cuts[wave] : cuts[wave + 1]]
        found[here] = h[place[user_of[here]]]
        going = int(np.searchsorted(-steps, -wave, side="left"))  # users with more than `wave` steps to take
        if going:
            at = torch.from_numpy(histories.bounds[users[:going]] + wave)
            h[:going] = encoder.step(h[:going], StepInputs(*(tensor[at] for tensor in inputs)))
    return found


def _seen(histories: Histories, rows: Ints, asked: Ints) -> ItemMask:
    """Leave out what each trial's user has had: a row for each event up to the one asked after."""
    first = histories.bounds[histories.users[asked]]
    lengths = asked - first + 1
    trial = np.repeat(np.arange(len(asked)), lengths)
    begins = np.cumsum(lengths) - lengths
    had = rows[np.arange(int(lengths.sum())) - np.repeat(begins - first, lengths)]
    return ItemMask(lists=trial, rows=had)


def _signals(learned: Learned, histories: Histories, asked: Ints) -> Callable[[int, int], Known] | None:
    """Have the signals at hand that the stream would have known when the events after `asked` came."""
    config = learned.model.config
    if not config.term_set.n_mixed or not len(asked):
        return None
    replayed = SignalReplay(histories, learned.catalogue, config, torch.device("cpu"))
    return lambda begin, end: replayed.read(torch.from_numpy(asked[begin:end] + 1))


def _ranks(
    learned: Learned,
    h: Tensor,
    target: Tensor,
    seen: ItemMask,
    signals: Callable[[int, int], Known] | None,
) -> tuple[Ints, float]:
    """Rank each target (trials,) among the unseen -> ranks, mean log likelihood among all."""
    found: list[Ints] = []
    likelihood = 0.0
    block = max(16, CELLS // (learned.model.config.n_items + 1))
    for start in range(0, len(h), block):
        at = target[start : start + block, None]
        scores = learned.model.scores(h[start : start + block])
        if signals is not None:
            known = signals(start, start + len(scores))
            known.add_to(scores[:, 1:], torch.cat(learned.model.mixture_of(h[start : start + block]), 1))
        likelihood += float(torch.log_softmax(scores, 1).gather(1, at).sum())
        low, high = np.searchsorted(seen.lists, (start, start + block))
        ItemMask(lists=seen.lists[low:high] - start, rows=seen.rows[low:high]).hide(scores)
        found.append(ranks(scores, at.squeeze(1)))
    return np.concatenate([*found, np.zeros(0, np.int64)]), likelihood / len(h) if len(h) else math.nan
