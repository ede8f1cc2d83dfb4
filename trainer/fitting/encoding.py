"""Histories in a model's terms: rows, levels, standardized values, and the next item as the target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.catalogue import VALUE_LIMIT, Catalogue
from models.encoders.encoder import EncoderSpec, StepInputs
from models.records import MAX_EVENT_VALUE
from trainer.data.histories import Floats, Histories, Ints

MAX_EVENT_TYPES = 1000
"""A model has rows for this many event types, the most frequent: a type made up for each event would fill memory."""


@dataclass(frozen=True)
class Encoded:
    """N events as tensors (N,); event k's target is the row of event k + 1 of the same user."""

    inputs: StepInputs
    target: Tensor  # int64; 0: the user's last event, or a next item that the catalogue does not have
    has_next: Tensor  # bool: there is a next event, whatever it is


def encode(histories: Histories, catalogue: Catalogue, spec: EncoderSpec) -> Encoded:
    """Look everything up at once; the gap is that to the next event, 0 where there is none."""
    rows = catalogue.rows(histories.item_ids)[histories.items]
    type_rows = np.array([catalogue.type_row(name) for name in (*histories.event_types, None)], np.int64)
    last = np.zeros(histories.n_events, bool)
    last[histories.bounds[1:] - 1] = True
    gaps = np.where(last, 0.0, np.diff(histories.times, append=0.0))
    return Encoded(
        spec.step_inputs(
            rows,
            gaps,
            type_rows[histories.types],  # -1, none, is the last
            _standardized(histories.values, catalogue),
        ),
        target=torch.from_numpy(np.where(last, 0, np.append(rows[1:], 0))),
        has_next=torch.from_numpy(~last),
    )


def build_catalogue(histories: Histories, known: Ints) -> Catalogue:
    """Make the catalogue of the events at `known` (indices): items and types sorted, values' mean and deviation."""
    items, counts = np.unique(histories.items[known], return_counts=True)
    types, type_counts = np.unique(histories.types[known][histories.types[known] >= 0], return_counts=True)
    types = np.sort(types[np.argsort(-type_counts, kind="stable")[:MAX_EVENT_TYPES]])
    values = _bounded(histories.values[known])
    values = values[~np.isnan(values)]
    deviation = float(values.std()) if len(values) else 0.0
    return Catalogue(
        [histories.item_ids[item] for item in items],
        [histories.event_types[kind] for kind in types],
        float(values.mean()) if len(values) else 0.0,
        deviation if deviation > 0 else 1.0,  # all values alike: they say nothing, and nothing divides by 0
        counts.tolist(),
    )


def _standardized(values: Floats, catalogue: Catalogue) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Do as Catalogue.standardized does, for all at once."""
    with np.errstate(over="ignore"):  # a deviation near zero: what overflows is cut like the rest
        scaled = np.clip((_bounded(values) - catalogue.value_mean) / catalogue.value_std, -VALUE_LIMIT, VALUE_LIMIT)
    return np.nan_to_num(scaled, nan=0.0).astype(np.float32)


def _bounded(values: Floats) -> Floats:
    """Cut event values to what intake allows: logs of older releases hold any float. NaN stays NaN."""
    bounded: Floats = np.clip(values, -MAX_EVENT_VALUE, MAX_EVENT_VALUE)
    return bounded
