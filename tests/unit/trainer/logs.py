"""Small logs that the trainer's tests share."""

from __future__ import annotations

import random

import torch

from models.records import Event

torch.set_num_threads(1)


def drawn(seed: int, n_events: int, *, users: int = 6, items: int = 12, step_s: float = 900.0) -> list[Event]:
    """Draw events in time order, some at the same second, some hours apart."""
    draw = random.Random(seed)
    t, events = 1e9, []
    for _ in range(n_events):
        t += draw.choice([0.0, 1.0, step_s, 20 * step_s])
        item = draw.randrange(items) if draw.random() < 0.5 else draw.randrange(3)
        events.append(Event(f"u{draw.randrange(users)}", f"i{item}", t, draw.choice([None, "click"]), None))
    return events
