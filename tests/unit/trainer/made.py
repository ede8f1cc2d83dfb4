"""Small histories that the tests of the trainer share."""

from __future__ import annotations

import numpy as np
import torch

from models.model import Model
from models.records import SessionRecord, session_key
from models.weights import ServingModel, describe, pack, unpack
from trainer.data.histories import Histories, from_sessions
from trainer.fitting.warm_start import Learned
from trainer.settings import FittingSettings

torch.set_num_threads(1)

Row = tuple[str, float, str | None, float | None]


def session(user_id: str, events: list[Row], part: int = 0) -> tuple[bytes, SessionRecord]:
    start = events[0][1]
    record = SessionRecord(user_id, f"{user_id}@{start}", start, events[-1][1], events)
    return session_key(user_id, start, part).encode(), record


def circles(users: int = 60, items: int = 12, length: int = 12, seed: int = 0) -> Histories:
    """Users who walk round a circle of items, a step an event, from wherever they begin: what comes next is sure."""
    rng = np.random.default_rng(seed)
    sessions = []
    for user in range(users):
        first, begin = int(rng.integers(items)), float(rng.uniform(0, 1000))
        events: list[Row] = [
            (f"i{(first + n) % items:02d}", begin + 100.0 * n, "click", float(n % 3)) for n in range(length)
        ]
        sessions.append(session(f"u{user:03d}", events))
    return from_sessions(sessions, {0: users})


def quick(**given: object) -> FittingSettings:
    """Settings that learn the circles in a second, without signals."""
    usual: dict[str, object] = {
        "hidden_dimension": 16,
        "half_lives_s": (),
        "successor_half_life_s": 0.0,
        "repeats": False,
        "item_dropout": 0.0,
        "recency_mask": True,
        "tied": False,
        "dropout": 0.1,
        "epochs": 8,
        "lanes": 8,
        "bptt": 8,
        "learning_rate": 0.02,
        "train_threads": 1,
        "max_user_history_length_percentile": 1.0,
    }
    return FittingSettings.model_validate(usual | given)


def served(learned: Learned, watermark: float, version: str = "v1", **metrics: float) -> ServingModel:
    """Pack a model and unpack it as a worker does."""
    model: Model = learned.model
    blob = pack(model, learned.catalogue)
    manifest = describe(
        blob,
        version=version,
        config=model.config,
        catalogue=learned.catalogue,
        metrics=metrics,
        trained_at=1.0,
        data_watermark=watermark,
        data_offsets={},
    )
    return unpack(manifest, blob)
