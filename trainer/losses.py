"""Cross entropy over the whole catalogue, without ever holding all scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

CELLS = {"cpu": 1 << 20, "cuda": 1 << 27}  # scores held at once: on a processor what fits a core's cache


class _Sum(NamedTuple):
    """The loss of some rows and its gradients."""

    loss: Tensor  # ()
    queries: Tensor  # (rows, H)
    matrix: Tensor  # (V, H)
    bias: Tensor  # (V,)


class CatalogueCrossEntropy:
    """The loss, on as many cores as `threads` says; the number of threads is part of how sums are rounded.

    Threads of our own, each with its half of the rows, rather than torch's: those wait for one another at every
    small operation, and where a core is shared with a broker and a worker that made a fit 13 times slower.
    """

    def __init__(self, threads: int) -> None:
        """Start the threads with the first loss; they end with this object."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "loss", initializer=lambda: torch.set_num_threads(1))

    def __call__(self, queries: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Sum weight x -log softmax(queries @ matrix.T + bias)[target]; differentiable in the first three.

        queries (B, H), matrix (V, H), bias (V,), targets (B,) int64, weights (B,) -> ()
        """
        summed = _sum_on_device if queries.is_cuda else self._sum_in_threads
        return cast(Tensor, _WithGradients.apply(summed, queries, matrix, bias, targets, weights))

    def _sum_in_threads(
        self, queries: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, weights: Tensor, gradients: bool
    ) -> _Sum:
        cuts = [len(queries) * part // self._threads for part in range(self._threads + 1)]
        futures = [
            self._pool.submit(_sum_on_device, queries[a:b], matrix, bias, targets[a:b], weights[a:b], gradients)
            for a, b in itertools.pairwise(cuts)
            if a < b
        ]
        sums = [future.result() for future in futures]
        first = sums[0]
        for other in sums[1:]:
            first.loss.add_(other.loss)
            first.matrix.add_(other.matrix)
            first.bias.add_(other.bias)
        return first._replace(queries=torch.cat([part.queries for part in sums]))


@torch.no_grad()
def _sum_on_device(
    queries: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, weights: Tensor, gradients: bool
) -> _Sum:
    """Make the gradients along with the loss, block by block: scores are written once and read in the cache.

    A third of the time of cross_entropy(queries @ matrix.T + bias) for 2,000 rows of 10,000 items.
    """
    total = _Sum(queries.new_zeros(()), torch.empty_like(queries), torch.zeros_like(matrix), torch.zeros_like(bias))
    block = max(16, CELLS[queries.device.type] // len(bias))
    held = queries.new_empty(min(block, len(queries)), len(bias))
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        at, weight = targets[rows, None], weights[rows, None]
        scores = torch.addmm(bias, queries[rows], matrix.T, out=held[: len(at)])
        scores -= scores.amax(1, keepdim=True)
        hit = scores.gather(1, at)
        scores.exp_()
        mass = scores.sum(1, keepdim=True)
        total.loss.add_(((mass.log() - hit) * weight).sum())
        if gradients:
            scores *= weight / mass
            scores.scatter_add_(1, at, -weight)
            torch.mm(scores, matrix, out=total.queries[rows])
            total.matrix.addmm_(scores.T, queries[rows])
            total.bias.add_(scores.sum(0))
    return total


class _WithGradients(torch.autograd.Function):
    """Hands autograd gradients that were made along with the loss."""

    @staticmethod
    def forward(ctx: Any, summed: Callable[..., _Sum], *inputs: Tensor) -> Tensor:
        made = summed(*inputs, any(ctx.needs_input_grad))
        ctx.save_for_backward(made.queries, made.matrix, made.bias)
        return made.loss

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor | None, ...]:
        queries, matrix, bias = ctx.saved_tensors
        return None, queries * outer[0], matrix * outer[0], bias * outer[0], None, None
