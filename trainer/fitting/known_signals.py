"""What a model's terms say at some events: dense features of all items, and sparse ones of a few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.model import add_sparse
from trainer.data.histories import Ints


@dataclass(frozen=True)
class Among:
    """Some of the catalogue's columns, in place of all."""

    columns: Tensor  # (C,) int64, rising
    place: Tensor  # (V,) int64, each column's among them, -1 for the others

    @classmethod
    def of(cls, columns: Tensor, n_items: int) -> Among:
        """Look places up from the other side."""
        place = columns.new_full((n_items,), -1)
        place[columns] = torch.arange(len(columns), device=columns.device)
        return cls(columns, place)


class SinceSnapshots(NamedTuple):
    """What makes the dense features at B events of those of the snapshots before them."""

    snapshots: Tensor  # (B,) int64
    columns: Tensor  # (B, S) int64: of what occurred in between
    levels: Tensor  # (B, K, S): what the features were then, as if at the snapshot's moment; 0 where there is nothing
    faded: Tensor  # (B, K): what they have lost since


@dataclass(frozen=True)
class Moments:
    """The moments of B events: all but the dense features, which are many; none of it depends on weights."""

    events: int  # B
    since: SinceSnapshots | None  # None without dense terms
    sparse: list[tuple[Tensor, Tensor]]  # by term: columns (B, S) int64, values (B, S, width), 0 for nothing
    lengths: list[Ints]  # (B,) of each term: beyond, there is none for sure

    def __len__(self) -> int:
        """Count the events."""
        return self.events

    def part(self, begin: int, end: int) -> Moments:
        """Cut some out, no wider than they need: few users have had as much as one of them."""
        end = min(end, self.events)
        since = self.since and SinceSnapshots(*(table[begin:end] for table in self.since))
        lengths = [of_part[begin:end] for of_part in self.lengths]
        widths = [int(of_part.max(initial=0)) for of_part in lengths]
        sparse = [
            (columns[begin:end, :width], values[begin:end, :width])
            for (columns, values), width in zip(self.sparse, widths, strict=True)
        ]
        return Moments(end - begin, since, sparse, lengths)

    def within(self, among: Among) -> Moments:
        """Leave out what is said of columns that are not asked for, and name the others by their places."""
        sparse = []
        for columns, values in self.sparse:
            places = among.place[columns]
            sparse.append((places.clamp(min=0), values * (places >= 0).unsqueeze(2)))
        since = self.since
        if since is not None:
            places = among.place[since.columns]
            real = (places >= 0) & (since.levels.amax(1) > 0)
            # what is left goes to the front of each row: of a sample that is little
            front = torch.argsort(~real, stable=True)[:, : int(real.sum(1).amax())]
            real, places = real.gather(1, front), places.gather(1, front)
            levels = since.levels.gather(2, front.unsqueeze(1).expand(-1, since.levels.shape[1], -1))
            since = since._replace(columns=places.clamp(min=0), levels=levels * real.unsqueeze(1))
        return Moments(self.events, since, sparse, self.lengths)


@dataclass(frozen=True)
class Known:
    """The features at B events, over the catalogue's V columns (row 1 first)."""

    dense: Tensor  # (B, K, V)
    sparse: list[tuple[Tensor, Tensor]]  # by term: columns (B, S) int64, values (B, S, width), 0 for nothing

    def add_to(self, scores: Tensor, mixture: Tensor) -> None:
        """Add what the terms say to scores (B, V), weighed by mixture (B, n_mixed)."""
        n_dense = self.dense.shape[1]
        if n_dense:
            scores += torch.bmm(mixture[:, None, :n_dense], self.dense).squeeze(1)
        add_sparse(scores, self.sparse, mixture[:, n_dense:])

    def gradient(self, of_scores: Tensor) -> Tensor:
        """Turn a gradient of scores (B, V) into one of the mixture (B, n_mixed)."""
        # not dense @ column: that way round the product is 15 times slower on a processor
        parts = [torch.bmm(of_scores.unsqueeze(1), self.dense.transpose(1, 2)).squeeze(1)]
        parts += [(of_scores.gather(1, at).unsqueeze(2) * values).sum(1) for at, values in self.sparse]
        return torch.cat(parts, 1)
