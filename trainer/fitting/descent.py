"""The way down: AdamW at a rate of its time, and the mean of where it has been of late."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.model import Model

CLIP = 1.0  # gradients of chunks where a lane holds one long history are a few times the usual
RISE = 0.3  # of an epoch's steps the rate rises: Adam's first steps know little of how far to go
LEAST_RISE = 20  # steps, or a log of some thousand events is at the full rate before there is any mean to speak of
HASTE = 10.0  # of the signals' weights: a few numbers for all items, that every step tells the direction of
MEMORY = 0.5  # of an epoch's steps are averaged over; a whole one's stops an epoch later for as good a model


class Descent:
    """Follows gradients for a known number of epochs, its rate falling to nothing, or for as long as it is worth it.

    In the second case the rate stays, as nobody knows when it should fall, and the mean of the last weights is what is
    asked: it is about where a falling rate would lead to, at any time (Polyak & Juditsky 1992; Izmailov et al. 2018).
    """

    def __init__(
        self, model: Model, rate: float, epoch_steps: int, *, epochs: int = 0, weight_decay: float = 0.0
    ) -> None:
        """Begin; `epochs` of so many steps, 0 for nobody knows."""
        self._rate = rate
        self._rise = max(math.ceil(RISE * epoch_steps), LEAST_RISE)
        self._steps = epochs * epoch_steps
        self._memory = max(MEMORY * epoch_steps, 1.0)
        self._taken = 0
        named = dict(model.named_parameters())
        mixture = [name for name in named if name.startswith("mixture")]
        # of items and types nothing decays: those seen once would fade between their epochs
        shared = [name for name in _shared(model) if weight_decay and name not in mixture]
        others = [name for name in named if name not in (*mixture, *shared)]
        groups = [
            {"params": [named[name] for name in names], "share": share, "weight_decay": decay}
            for names, share, decay in ((others, 1.0, 0.0), (mixture, HASTE, 0.0), (shared, 1.0, weight_decay))
            if names
        ]
        self._weights: list[Tensor] = list(named.values())
        self._mean: list[Tensor] = [] if epochs else [weight.detach().clone() for weight in self._weights]
        self._optimizer = torch.optim.AdamW(groups, rate, fused=True)

    def step(self, loss: Tensor) -> None:
        """Follow one gradient."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * self._share() * group["share"]
        self._taken += 1
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights, CLIP)
        self._optimizer.step()
        if self._mean:
            with torch.no_grad():
                torch._foreach_lerp_(self._mean, self._weights, max(1 / self._taken, 1 / self._memory))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have the mean of its last weights, for as long as this lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, mean in zip(self._weights, self._mean, strict=True):
            held = weight.clone()
            weight.copy_(mean)
            mean.copy_(held)

    def _share(self) -> float:
        if self._taken < self._rise:
            return 0.04 + 0.96 * self._taken / self._rise
        if not self._steps:
            return 1.0
        done = min((self._taken - self._rise) / max(self._steps - self._rise, 1), 1.0)
        return max(0.5 + 0.5 * math.cos(math.pi * done), 0.001)


def _shared(model: Model) -> list[str]:
    """Name the matrices that all items and types share."""
    embedded = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    return [name for name, weight in model.named_parameters() if weight.ndim > 1 and name not in embedded]
