"""Cross entropy over the whole catalogue, without ever holding all scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from trainer.fitting.known_signals import Among, Known, Moments
from trainer.fitting.signal_replay import SignalReplay

CELLS = {"cpu": 1 << 20, "cuda": 1 << 27}  # scores held at once: on a processor what fits a core's cache


class _Sum(NamedTuple):
    """The loss of some rows and its gradients."""

    loss: Tensor  # ()
    queries: Tensor  # (rows, H)
    mixture: Tensor  # (rows, n_mixed)
    matrix: Tensor  # (V, H)
    bias: Tensor  # (V,)


class Sample(NamedTuple):
    """Columns that stand for all, where all are too many."""

    among: Among
    correction: Tensor  # (C,) -log of the chance to be drawn; -inf for those that are there as right answers only


class Sampler:
    """Draws each item by a chance of its own, apart from the others; the frequent ones are always in.

    A drawn item stands for 1 / chance items (log-Q correction: Bengio & Senecal 2008), the right answer for itself. The
    sum over the sample is then what the sum over the catalogue would be, on average, and equal to it where every
    chance is 1. One sample serves a whole chunk, so that scores are products of matrices still.
    """

    def __init__(self, frequency: Tensor, items: int) -> None:
        """Give chances (V,) in proportion to `frequency` (V,) > 0, with about so many `items` drawn at a time."""
        chance = frequency / frequency.sum() * items
        for _ in range(_ROUNDS):  # what is cut off at 1 is given to the others
            certain = chance >= 1
            rest = items - float(certain.sum())
            if rest <= 0 or certain.all():
                break
            chance = torch.where(certain, 1.0, chance * (rest / chance[~certain].sum()))
        self._chance = chance.clamp(max=1.0)

    def draw(self, answers: Tensor) -> Sample:
        """Draw a sample with the right answers (B,) in it."""
        drawn = torch.rand_like(self._chance) < self._chance
        there = drawn.clone()
        there[answers] = True
        columns = there.nonzero().squeeze(1)
        correction = torch.where(drawn, -self._chance.log(), -math.inf)[columns]
        return Sample(Among.of(columns, len(self._chance)), correction)


_ROUNDS = 20  # each makes more chances certain; frequencies that differ by 10^6 took 5


class Asked(NamedTuple):
    """What is asked of B states, and what is known then."""

    columns: Tensor  # (B,) int64: the right answers, as rows of the matrix
    weights: Tensor  # (B,)
    signals: SignalReplay | None
    moments: Moments | None  # as many as states, where there are signals

    def among(self, sample: Sample) -> Asked:
        """Ask for the columns of a sample instead of all; right answers are among them."""
        columns = torch.searchsorted(sample.among.columns, self.columns)
        return self._replace(columns=columns, moments=self.moments and self.moments.within(sample.among))


class CatalogueCrossEntropy:
    """The loss, on as many cores as `threads` says; the number of threads is part of how sums are rounded.

    Threads of our own, each with its half of the rows, rather than torch's: those wait for one another at every
    small operation, and where a core is shared with a broker and a worker that made a fit 13 times slower.
    """

    def __init__(self, threads: int) -> None:
        """Keep torch itself to one thread; start ours with the first loss, they end with this object."""
        self._threads = threads
        torch.set_num_threads(1)  # of the whole process: what is left is small
        self._pool = ThreadPoolExecutor(threads, "loss", initializer=lambda: torch.set_num_threads(1))

    def prepare(
        self, columns: Tensor, weights: Tensor, events: Tensor, signals: SignalReplay | None
    ) -> Future[list[Asked]]:
        """Look up the signals at targets (B,), each thread's for itself.

        Our threads have nothing else to do from one loss to the next, while the recurrence goes back and forth.
        `columns` are the right answers, `events` the targets themselves.
        """
        cuts = [len(columns) * part // self._threads for part in range(self._threads + 1)]

        def look_up() -> list[Asked]:
            return [
                Asked(columns[a:b], weights[a:b], signals, None if signals is None else signals.moments(events[a:b]))
                for a, b in itertools.pairwise(cuts)
                if a < b
            ]

        if self._threads > 1:
            return self._pool.submit(look_up)
        done: Future[list[Asked]] = Future()  # who allows one core gets no more used
        done.set_result(look_up())
        return done

    def __call__(
        self,
        queries: Tensor,
        mixture: Tensor,
        matrix: Tensor,
        bias: Tensor,
        asked: Sequence[Asked],
        sample: Sample | None = None,
    ) -> Tensor:
        """Sum weight x -log softmax(scores)[target]; differentiable in the first four.

        scores are queries @ matrix.T + bias, and what the signals at each target add, weighed by `mixture`. With a
        sample, matrix and bias are those of its columns.
        queries (B, H), mixture (B, n_mixed), matrix (V, H), bias (V,) -> ()
        """
        return cast(Tensor, _WithGradients.apply(self._sum, queries, mixture, matrix, bias, asked, sample))

    def _sum(
        self,
        queries: Tensor,
        mixture: Tensor,
        matrix: Tensor,
        bias: Tensor,
        asked: Sequence[Asked],
        sample: Sample | None,
        gradients: bool,
    ) -> _Sum:
        lengths = [len(part.columns) for part in asked]
        rows = zip(torch.split(queries, lengths), torch.split(mixture, lengths), asked, strict=True)
        if queries.is_cuda:
            sums = [_sum_on_device(q, m, matrix, bias, part, sample, gradients) for q, m, part in rows]
        else:
            futures = [
                self._pool.submit(_sum_on_device, q, m, matrix, bias, part, sample, gradients) for q, m, part in rows
            ]
            sums = [future.result() for future in futures]
        first = sums[0]
        for other in sums[1:]:
            first.loss.add_(other.loss)
            first.matrix.add_(other.matrix)
            first.bias.add_(other.bias)
        return first._replace(
            queries=torch.cat([part.queries for part in sums]), mixture=torch.cat([part.mixture for part in sums])
        )


@torch.no_grad()
def _sum_on_device(
    queries: Tensor,
    mixture: Tensor,
    matrix: Tensor,
    bias: Tensor,
    asked: Asked,
    sample: Sample | None,
    gradients: bool,
) -> _Sum:
    """Make the gradients along with the loss, block by block: scores are written once and read in the cache.

    A third of the time of cross_entropy(queries @ matrix.T + bias) for 2,000 rows of 10,000 items.
    """
    total = _Sum(
        queries.new_zeros(()),
        torch.empty_like(queries),
        torch.empty_like(mixture),
        torch.zeros_like(matrix),
        torch.zeros_like(bias),
    )
    signals = asked.signals
    block = max(16, CELLS[queries.device.type] // len(bias) // (1 if signals is None else 1 + signals.n_dense))
    block = min(block, len(queries))
    # written again and again: fresh pages for each block took as long as what is written into them
    held = queries.new_empty(block, len(bias))
    among, moments = None, asked.moments
    if sample is not None:
        asked, among = asked.among(sample), sample.among
        moments = asked.moments
    room = signals.room(block, among) if signals is not None else queries.new_empty(0)
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        at, weight = asked.columns[rows, None], asked.weights[rows, None]
        scores = _product(queries[rows], matrix.T, held[: len(at)]).add_(bias)
        known = None
        if signals is not None and moments is not None:
            here = moments.part(start, start + block)  # cut out, not looked up: that is some dozens of small operations
            known = Known(signals.dense(here, room, among), here.sparse)
            known.add_to(scores, mixture[rows])
        if sample is not None:
            own = scores.gather(1, at)
            scores += sample.correction
            scores.scatter_(1, at, own)
        scores -= scores.amax(1, keepdim=True)
        hit = scores.gather(1, at)
        scores.exp_()
        mass = scores.sum(1, keepdim=True)
        total.loss.add_(((mass.log() - hit) * weight).sum())
        if gradients:
            scores *= weight / mass
            scores.scatter_add_(1, at, -weight)
            _product(scores, matrix, total.queries[rows])
            total.matrix.addmm_(scores.T, queries[rows])
            total.bias.add_(scores.sum(0))
            if known is not None:
                total.mixture[rows] = known.gradient(scores)
    return total


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Multiply into `out`; on CUDA of bf16, whose 8 bits are enough for scores that a softmax in float32 follows.

    They are summed and written in float32: rounded once more, gradients were about twice as far off.

    The matrix's gradient is a sum over thousands of rows and stays in float32.
    """
    if left.is_cuda:
        return torch.mm(left.bfloat16(), right.bfloat16(), out_dtype=torch.float32, out=out)
    return torch.mm(left, right, out=out)


class _WithGradients(torch.autograd.Function):
    """Hands autograd gradients that were made along with the loss."""

    @staticmethod
    def forward(ctx: Any, summed: Callable[..., _Sum], *inputs: Any) -> Tensor:
        made = summed(*inputs, any(ctx.needs_input_grad))
        ctx.save_for_backward(made.queries, made.mixture, made.matrix, made.bias)
        return made.loss

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor | None, ...]:
        return None, *(gradient * outer[0] for gradient in ctx.saved_tensors), None, None
