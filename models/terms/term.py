"""What a term of a score is: features of items, which the user's state weighs.

score_j(user, t) = sum over terms of weights_term(h) . features_term(user, j, t). A term is one file, and one line of
`models/terms/registry.py`; training, serving, evaluation and audit then use it as they use all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from models.items.signal_table import Doubles, Floats, LookedUp, Rows, SignalTable
from models.users.batch import UserBatch

ALL = slice(None)


class TermOptions(Protocol):
    """What a model's config says of its terms; each term is made of it, and of nothing else."""

    @property
    def half_lives_s(self) -> tuple[float, ...]:
        """Of the counts of items."""

    @property
    def successor_half_life_s(self) -> float:
        """Of the counts of what follows what; 0: not counted."""


class SparseFeatures(NamedTuple):
    """Features of a few items for each of B users."""

    rows: Rows  # (B, S), 0 where there is none
    values: Floats  # (B, S, width), 0 in row 0


@dataclass(frozen=True)
class UserSignals:
    """What was counted of the last items of B users, as known at each user's time of asking."""

    table: SignalTable  # reads `looked_up`; in a replay its own counts may be newer than a user's time of asking
    looked_up: LookedUp


class Term(Protocol):
    """What all terms have."""

    name: str  # as manifests have it
    width: int  # features, hence weights in the mixture; 0 if the options leave it nothing to read
    initial: Sequence[float]  # (width,) the weights before training, the same for every state


@runtime_checkable
class DenseTerm(Term, Protocol):
    """A term with features of every item, the same for all users: columns of the decoder's matrix.

    Features are not below 0. They rise only when the item occurs, and otherwise fall by `rates`, to 0 at the least:
    so a replay of a log has them exactly at every event, from snapshots and from what occurred since.
    """

    rates: Doubles  # (width,) a second; 0 for features that stay

    def dense(self, table: SignalTable, at: float, rows: slice | int = ALL) -> Floats:
        """Read the features of items at a time: (width, rows), or (width,) of one row."""


@runtime_checkable
class SparseTerm(Term, Protocol):
    """A term with features of a few items for each user.

    One that reads signals is computed once for each event of a log, and kept: the table is not there any more when a
    fit comes back to the event. One that reads only the user is computed whenever it is needed.
    """

    reads_signals: bool

    def sparse(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        """Compute the features for B users; `signals` are there if the term reads them."""


@runtime_checkable
class CompactTerm(SparseTerm, Protocol):
    """A term that reads signals, and whose features are kept in fewer numbers."""

    kept: int  # numbers

    def compact(self, users: UserBatch, signals: UserSignals | None) -> SparseFeatures:
        """Compute what is kept: values (B, S, kept)."""

    def complete(self, values: Floats) -> Floats:
        """Make the features of what was kept: (B, S, kept) -> (B, S, width)."""
