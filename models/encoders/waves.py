"""Many users' steps as few products: the n-th steps of all users are one wave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.encoders.encoder import Gaps, Rows, StepInputs
from models.users.state import HistoryEvent
from models.weights import ServingModel


class Waves:
    """Collects the steps that a batch needs, takes them, and hands out the state after any of them.

    A sequence is one user's state and the history events to commit to it. Sequences stand in the order of their
    length, the longest first, so that each wave is a product of the first rows of a matrix and nothing is gathered.
    """

    def __init__(self, serving: ServingModel) -> None:
        """Begin without sequences."""
        self._serving = serving
        self._states: list[bytes] = []
        self._first_steps: list[int] = []
        self._counts: list[int] = []
        self._items: list[Rows] = []
        self._gaps: list[float] = []
        self._types: list[int] = []
        self._values: list[float] = []

    def add(self, h: bytes, history: Sequence[HistoryEvent], rows: Rows, first: int, count: int) -> int:
        """Add a sequence: commit `history[first : first + count]` to h (b"" for zeros); gives its number.

        `rows` are the items' rows of the whole history; `history[first + count]` must exist if count > 0.
        """
        self._states.append(h)
        self._first_steps.append(len(self._gaps))
        self._counts.append(count)
        if count:
            catalogue = self._serving.catalogue
            self._items.append(rows[first : first + count])
            for index in range(first, first + count):
                event = history[index]
                self._gaps.append(history[index + 1].timestamp - event.timestamp)
                self._types.append(catalogue.type_row(event.event_type))
                self._values.append(catalogue.standardized(event.event_value))
        return len(self._counts) - 1

    def take(self) -> None:
        """Take all steps; to be called once, when all sequences are there."""
        encoder = self._serving.model.encoder
        counts = np.array(self._counts, np.int64)
        order = np.argsort(-counts, kind="stable")
        self._places = np.empty_like(order)
        self._places[order] = np.arange(len(order))
        longest = int(counts.max(initial=0))
        sizes = len(counts) - np.searchsorted(counts[order[::-1]], np.arange(longest + 1))  # of the waves, 0 first
        self._begins = np.concatenate(([0], np.cumsum(sizes)))
        self._hs = torch.empty(int(self._begins[-1]), encoder.spec.state_width)
        self._hs[: len(counts)] = encoder.spec.decode([self._states[number] for number in order.tolist()])
        if longest == 0:
            return
        first_steps = np.array(self._first_steps, np.int64)[order]
        steps = np.concatenate([first_steps[:size] + wave for wave, size in enumerate(sizes[1:].tolist())])
        inputs = encoder.spec.step_inputs(
            np.concatenate(self._items)[steps],
            np.array(self._gaps)[steps],
            np.array(self._types, np.int64)[steps],
            np.array(self._values, np.float32)[steps],
        )
        done, begins = 0, self._begins.tolist()
        for wave, size in enumerate(sizes[1:].tolist(), 1):
            h = self._hs[begins[wave - 1] : begins[wave - 1] + size]
            given_now = StepInputs(*(given[done : done + size] for given in inputs))
            self._hs[begins[wave] : begins[wave] + size] = encoder.step(h, given_now)
            done += size

    def after(self, numbers: Sequence[int], depths: Sequence[int]) -> Tensor:
        """Gather states: sequences' numbers (N) and how many of their steps (N) -> (N, S)."""
        where = self._begins[np.array(depths, np.int64)] + self._places[np.array(numbers, np.int64)]
        return self._hs[torch.from_numpy(where)]

    def asked(self, h: Tensor, pending: Sequence[HistoryEvent], rows: Rows, gaps_s: Gaps) -> Tensor:
        """Take the provisional step: h (N, S), N pending events, their rows, the gaps assumed (N) -> (N, S)."""
        encoder, catalogue = self._serving.model.encoder, self._serving.catalogue
        types = [catalogue.type_row(event.event_type) for event in pending]
        values = [catalogue.standardized(event.event_value) for event in pending]
        return encoder.step(h, encoder.spec.step_inputs(rows, gaps_s, types, values))
