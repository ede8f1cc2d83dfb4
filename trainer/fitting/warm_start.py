"""Beginning where another model stands: what both vocabularies have keeps its weights."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.catalogue import Catalogue
from models.config import ModelConfig
from models.model import Model
from trainer.data.histories import Ints

_PER_ITEM = ("encoder.item.weight", "decoder.weight")
_PER_TYPE = ("encoder.event_type.weight",)


class Learned(Protocol):
    """Weights and the vocabulary that names their rows: a serving model, or a candidate."""

    @property
    def model(self) -> Model:
        """The weights."""

    @property
    def catalogue(self) -> Catalogue:
        """What their rows mean."""


def fits(old: Learned, config: ModelConfig) -> bool:
    """Whether a model of this shape can begin with the old weights: only the vocabulary may differ."""
    same_but = dataclasses.replace(
        old.model.config, n_items=config.n_items, n_event_types=config.n_event_types, dropout=config.dropout
    )
    return same_but == config


def copy_weights(old: Learned, model: Model, catalogue: Catalogue, shares: Tensor, before: Tensor) -> None:
    """Copy the old weights into `model`; items that are new begin as the average item, gone ones drop out.

    `shares` and `before`, (n_items + 1) each, are how often the items occur (logarithms) now and when the old
    weights were learned. Biases move by the difference: what is popular moves faster than what people are like.
    """
    items = _places(old.catalogue.rows(catalogue.item_ids))
    types = _places(np.array([old.catalogue.type_row(name) for name in catalogue.event_types], np.int64))
    given = old.model.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():  # the model's own memory, so that copies reach it
            if name == "bias":
                tensor.copy_(_biases(shares, before, given[name], items))
            elif name in _PER_ITEM:
                tensor.copy_(_rows(tensor, given[name], items))
            elif name in _PER_TYPE:
                tensor.copy_(_rows(tensor, given[name], types))
            else:
                tensor.copy_(given[name])


def _places(rows: Ints) -> Tensor:
    """Name each row's place in the old matrices, -1 for new ones: (n) -> (n + 1), row 0 stays row 0."""
    return torch.from_numpy(np.concatenate((np.zeros(1, np.int64), np.where(rows > 0, rows, -1))))


def _rows(fresh: Tensor, given: Tensor, places: Tensor) -> Tensor:
    kept = places >= 0
    rows = fresh.clone()
    rows[kept] = given[places[kept]]
    if kept[1:].any():
        rows[~kept] = rows[1:][kept[1:]].mean(0)
    return rows


def _biases(shares: Tensor, before: Tensor, given: Tensor, places: Tensor) -> Tensor:
    kept = places >= 0
    kept[0] = False
    learned = torch.zeros_like(shares)  # what the old model holds of an item beyond its share
    learned[kept] = given[places[kept]] - before[kept]
    if kept.any():
        # softmax does not mind a common shift of the learned biases: level the new ones with them
        learned[~kept] = learned[kept].median()
    return shares + learned
