"""Small models and events that the tests of the core share."""

from __future__ import annotations

from typing import Any

import torch

from models.catalogue import Catalogue
from models.config import ModelConfig
from models.encoders.hrnn import HRNNConfig
from models.model import Model
from models.records import Event, Request, Source
from models.terms.registry import TERMS
from models.users.state import HistoryEvent
from models.users.walk import SourcedEvent, SourcedRequest
from models.weights import ServingModel, describe, pack, unpack

torch.set_num_threads(1)


def serving(
    n_items: int = 30,
    *,
    version: str = "v1",
    hidden: int = 7,
    seed: int = 0,
    signals: bool = False,
    kind: type[ModelConfig] = HRNNConfig,
    **fields: Any,
) -> ServingModel:
    """A model with random weights, packed and unpacked as one that serves is."""
    shape: dict[str, Any] = {"half_lives_s": (3600.0,), "successor_half_life_s": 3600.0, "terms": tuple(TERMS)}
    catalogue = Catalogue([f"item-{n}" for n in range(n_items)], ["click", "buy"], 3.0, 2.0)
    config = kind(n_items, 2, hidden_dimension=hidden, **(shape if signals else {}), **fields)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Model(config)
        with torch.no_grad():
            model.bias.normal_()
            if signals:
                model.mixture.weight.normal_()
    blob = pack(model, catalogue)
    manifest = describe(
        blob,
        version=version,
        config=config,
        catalogue=catalogue,
        metrics={"ndcg_at_10": 0.1},
        trained_at=2.0,
        data_watermark=1.0,
        data_offsets={"0": 5},
    )
    return unpack(manifest, blob)


def sourced(
    offset: int,
    user_id: str = "u",
    item_id: str = "item-1",
    timestamp: float = 1000.0,
    *,
    event_type: str | None = None,
    event_value: float | None = None,
    now: float | None = None,
    partition: int = 0,
    origin: tuple[int, int] | None = None,
) -> SourcedEvent:
    """An event in its user's own partition; `origin` is the (partition, offset) that forwarded it."""
    event = Event(user_id, item_id, timestamp, event_type, event_value)
    first = Source("interactions", *(origin or (partition, offset)))
    return SourcedEvent(event, partition, offset, timestamp if now is None else now, first)


def asked(
    number: int, user_id: str = "u", at: float | None = None, *, k: int | None = None, now: float = 0.0
) -> SourcedRequest:
    """A request; its number is its offset."""
    return SourcedRequest(Request(f"r{number}", user_id, at, k), 0, now, Source("requests", 0, number))


def history(*timestamps: float) -> list[HistoryEvent]:
    """Events of these times, with items and offsets that count up."""
    return [HistoryEvent(f"item-{n}", t, None, None, n) for n, t in enumerate(timestamps)]
