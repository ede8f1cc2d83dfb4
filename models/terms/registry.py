"""All terms by name, and those of one model in the order of their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.items.signal_table import NEIGHBOUR_ITEMS, Floats, LookedUp, SignalTable
from models.terms.evicted import Evicted
from models.terms.neighbours import Neighbours
from models.terms.repeats import Repeats
from models.terms.successors import Successors
from models.terms.taste import Taste
from models.terms.term import ALL, DenseTerm, SparseTerm, Term, TermOptions, UserSignals
from models.terms.trends import Trends
from models.users.batch import UserBatch

TERMS: dict[str, Callable[[TermOptions], Term]] = {
    "taste": Taste,
    "trends": Trends,
    "successors": Successors,
    "neighbours": Neighbours,
    "repeats": Repeats,
    "evicted": Evicted,
}


class TermSet:
    """The terms of one model; the mixture has the weights of the dense ones first, then those of the sparse ones."""

    def __init__(self, names: Sequence[str], options: TermOptions) -> None:
        """Make the terms; raises ValueError for names that are unknown, occur twice, or have nothing to read."""
        unknown = [name for name in names if not isinstance(name, str) or name not in TERMS]
        if unknown or len({*names}) < len(names):
            raise ValueError(f"terms {list(names)!r}: unknown are {unknown}, known {list(TERMS)}, each at most once")
        terms = [TERMS[name](options) for name in names]
        self.taste = any(isinstance(term, Taste) for term in terms)
        self.dense = [term for term in terms if isinstance(term, DenseTerm)]
        self.sparse = [term for term in terms if isinstance(term, SparseTerm)]
        empty = [term.name for term in (*self.dense, *self.sparse) if not term.width]
        if empty:
            raise ValueError(f"the half-lives leave terms {empty} nothing to read")
        weighed: list[Term] = [*self.dense, *self.sparse]
        if [term.name for term in weighed] != [name for name in names if name != Taste.name]:
            raise ValueError(f"terms {list(names)!r}: dense ones come first, they are columns of one matrix")
        self.n_dense = sum(term.width for term in self.dense)
        self.n_sparse = sum(term.width for term in self.sparse)
        self.initial = [weight for term in weighed for weight in term.initial]
        self.reads_signals = any(term.reads_signals for term in self.sparse)

    @property
    def n_mixed(self) -> int:
        """Count the weights in the mixture: none where a score is taste alone."""
        return self.n_dense + self.n_sparse

    def dense_features(self, table: SignalTable, at: float, rows: slice | int = ALL) -> Floats:
        """Read the features of items at a time: (n_dense, rows), or (n_dense,) of one row."""
        found = [term.dense(table, at, rows) for term in self.dense]
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.zeros((0, table.n_rows), np.float32)[:, rows]

    def sparse_features(
        self, users: UserBatch, table: SignalTable, n_rows: int, looked_up: LookedUp | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Compute what the sparse terms say to B users -> for each term rows (B, S), values (B, S, width).

        Without `looked_up` the table is read as it is. Items of `n_rows` and beyond are left out: they are newer than
        the dense features.
        """
        signals = None
        if self.reads_signals:
            if looked_up is None:
                looked_up = table.look_up(users.last_rows(NEIGHBOUR_ITEMS), users.at.tolist())
            signals = UserSignals(table, looked_up)
        found = []
        for term in self.sparse:
            rows, values = term.sparse(users, signals if term.reads_signals else None)
            late = rows >= n_rows
            if late.any():
                rows, values = np.where(late, 0, rows), np.where(late[:, :, None], np.float32(0), values)
            found.append((torch.from_numpy(rows), torch.from_numpy(values)))
        return found


def in_order(names: Iterable[str], options: TermOptions) -> tuple[str, ...]:
    """Keep those of the names that have something to read, in the order of a model's weights: dense terms first."""
    terms = {name: TERMS[name](options) for name in names}
    used = [name for name, term in terms.items() if term.width or isinstance(term, Taste)]
    return tuple(sorted(used, key=lambda name: isinstance(terms[name], SparseTerm)))
