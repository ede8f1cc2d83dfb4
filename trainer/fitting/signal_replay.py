"""What a model's terms would have said at each event of a log: never a bit of the future.

The dense features at an event are those of the last snapshot before it (see signal_log.py), made exact: their fall
since is a subtraction, and what has occurred since replaces what the snapshot said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.catalogue import Catalogue
from models.config import ModelConfig
from models.items.signals import SignalRules
from models.terms.term import CompactTerm, SparseFeatures, SparseTerm
from trainer.data.histories import Histories, Ints
from trainer.data.signal_log import Listed, signal_log
from trainer.data.user_batches import LoggedUsers
from trainer.fitting.known_signals import Among, Known, Moments, SinceSnapshots

Floats = npt.NDArray[np.floating[Any]]


class SignalReplay:
    """A log's signals as they were, to be read at any of its events."""

    def __init__(self, histories: Histories, catalogue: Catalogue, config: ModelConfig, device: torch.device) -> None:
        """Have the log counted, and name items as the catalogue does."""
        self._terms = config.term_set
        self.n_dense = self._terms.n_dense
        self._n_items = config.n_items
        self._device = device
        rows = catalogue.rows(histories.item_ids)  # (I), 0 for items that the catalogue does not have
        self._column = rows - 1
        self._users = LoggedUsers(histories, rows[histories.items])
        # looked up once: a check of a protocol is slow
        self._complete = {term.name: term.complete for term in self._terms.sparse if isinstance(term, CompactTerm)}
        self._times = histories.times
        self._position = np.empty(histories.n_events, np.int64)
        self._position[histories.order] = np.arange(histories.n_events)
        self._columns_in_order = self._column[histories.items[histories.order]]
        self._times_in_order = histories.times[histories.order]
        self._rates = np.array([rate for term in self._terms.dense for rate in term.rates])
        self._log = signal_log(histories, config.signal_rules or SignalRules(half_lives_s=()), self._terms)
        self._snapshots = torch.from_numpy(self._of_catalogue(self._log.snapshots)).to(device)
        self._since = self._as_of_snapshots()

    def _of_catalogue(self, snapshots: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Lay the items' columns out as the catalogue's: (S, K, I) -> (S, K, V)."""
        if np.array_equal(self._column, np.arange(self._n_items)):
            return snapshots
        known = np.flatnonzero(self._column >= 0)
        laid_out = np.zeros((*snapshots.shape[:2], self._n_items), np.float32)
        laid_out[:, :, self._column[known]] = snapshots[:, :, known]
        return laid_out

    def _as_of_snapshots(self) -> npt.NDArray[np.float32]:
        """Say of each event in time what its item's features are after it, as if at its snapshot's moment: (K, N)."""
        stride = self._log.stride
        passed = self._times_in_order - self._times_in_order[np.arange(len(self._times)) // stride * stride]
        return np.ascontiguousarray(self._log.after.T + passed * self._rates[:, None], np.float32)

    def room(self, events: int, among: Among | None = None) -> Tensor:
        """Make room for the dense features at so many events, to be read into again and again."""
        width = self._n_items if among is None else len(among.columns)
        return torch.empty(events, self.n_dense, width, device=self._device)

    def read(self, events: Tensor, among: Among | None = None) -> Known:
        """Read the signals at events (B,), before they are counted themselves."""
        moments = self.moments(events)
        moments = moments if among is None else moments.within(among)
        return Known(self.dense(moments, self.room(len(events), among), among), moments.sparse)

    def moments(self, events: Tensor) -> Moments:
        """Look up all but the dense features at events (B,): a fit does it ahead, beside other work."""
        at = events.numpy(force=True)
        users, sparse, lengths = None, [], []
        for term in self._terms.sparse:
            if term.reads_signals:
                features = self._listed(term, at)
            else:
                users = users or self._users.before(at)
                features = term.sparse(users, None)
            sparse.append(self._by_column(features))
            lengths.append(_lengths(features.rows))
        return Moments(len(at), self._since_snapshots(at) if self.n_dense else None, sparse, lengths)

    def dense(self, moments: Moments, room: Tensor, among: Among | None = None) -> Tensor:
        """Read the dense features at B moments into room (B or more, K, columns) -> (B, K, columns), of that room."""
        dense, since = room[: len(moments)], moments.since
        if since is None:
            return dense
        if among is None:
            torch.index_select(self._snapshots, 0, since.snapshots, out=dense)  # (B, K, V)
        elif dense.is_cpu:  # row by row in a sixth of the time that all at once takes
            for row, snapshot in zip(dense, since.snapshots.tolist(), strict=True):
                torch.index_select(self._snapshots[snapshot], 1, among.columns, out=row)
        else:
            features = torch.arange(self.n_dense, device=self._device)
            dense.copy_(self._snapshots[since.snapshots[:, None, None], features[:, None], among.columns])
        # a feature rises with each occurrence: the greatest is the newest
        dense.scatter_reduce_(2, since.columns[:, None].expand(-1, self.n_dense, -1), since.levels, "amax")
        return dense.sub_(since.faded.unsqueeze(2)).clamp_(min=0)

    def _since_snapshots(self, at: Ints) -> SinceSnapshots:
        place = self._position[at]
        snapshot = place // self._log.stride
        begin = snapshot * self._log.stride
        between = np.minimum(begin[:, None] + np.arange(int((place - begin).max(initial=0))), len(self._times) - 1)
        columns = self._columns_in_order.take(between)  # (B, S)
        real = (between < place[:, None]) & (columns >= 0)
        faded = (self._times[at] - self._times_in_order[begin])[:, None] * self._rates  # (B, K)
        return SinceSnapshots(
            torch.from_numpy(snapshot).to(self._device),
            torch.from_numpy(np.where(real, columns, 0)).to(self._device),
            self._on_device(self._since.take(between, axis=1) * real).transpose(0, 1),
            self._on_device(faded),
        )

    def _listed(self, term: SparseTerm, at: Ints) -> SparseFeatures:
        """Lay out what was kept of a term for events (B,)."""
        listed: Listed = self._log.listed[term.name]
        begins, lengths = listed.bounds[at], listed.lengths(at)
        places = np.arange(int(lengths.max(initial=0)))
        real = places < lengths[:, None]
        index = np.where(real, begins[:, None] + places, 0)
        rows = np.where(real, self._column.take(listed.items.take(index)) + 1, 0)
        kept = torch.from_numpy(listed.values.take(index, axis=1)).float().numpy()  # numpy takes 25 times as long
        values = (kept * real).transpose(1, 2, 0)
        if term.name in self._complete:
            values = self._complete[term.name](values)
        unknown = real & (rows == 0)
        if unknown.any():
            values *= ~unknown[:, :, None]
        return SparseFeatures(rows, values)

    def _by_column(self, features: SparseFeatures) -> tuple[Tensor, Tensor]:
        """Name the items by their columns; row 0 says nothing of the first one."""
        rows, values = features
        return torch.from_numpy(np.maximum(rows - 1, 0)).to(self._device), self._on_device(values)

    def _on_device(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32)).to(self._device)


def _lengths(rows: Ints) -> Ints:
    """Say up to where there may be anything in rows (B, S), of which 0 is nothing -> (B,)."""
    real = rows > 0
    if not real.shape[1]:
        return np.zeros(len(rows), np.int64)
    return np.where(real.any(1), real.shape[1] - real[:, ::-1].argmax(1), 0)
