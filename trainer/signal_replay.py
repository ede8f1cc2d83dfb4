"""The signals that the stream would have known at each event, in a model's terms: never a bit of the future.

The trends at an event are those of the last snapshot before it (see signal_log.py), made exact: decay since is a
subtraction, and what has occurred since replaces what the snapshot said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models import own_history
from models.catalogue import Catalogue
from models.hrnn import HRNNConfig, add_sparse
from models.signal_table import FLOOR, successor_parts
from models.state import HISTORY_EVENTS
from trainer.histories import Histories, Ints
from trainer.signal_log import signal_log

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Known:
    """The signals at B events, over the catalogue's V columns (row 1 first)."""

    trends: Tensor  # (B, K, V)
    sparse: list[tuple[Tensor, Tensor]]  # columns (B, S) int64, values (B, S, parts): 0 where there is none

    def add_to(self, scores: Tensor, mixture: Tensor) -> None:
        """Add what the signals say to scores (B, V), weighed by mixture (B, K + sparse parts)."""
        n_trends = self.trends.shape[1]
        if n_trends:
            scores += torch.bmm(mixture[:, None, :n_trends], self.trends).squeeze(1)
        add_sparse(scores, self.sparse, mixture[:, n_trends:])

    def gradient(self, of_scores: Tensor) -> Tensor:
        """Turn a gradient of scores (B, V) into one of the mixture (B, K + sparse parts)."""
        # not trends @ column: that way round the product is 15 times slower on a processor
        parts = [torch.bmm(of_scores.unsqueeze(1), self.trends.transpose(1, 2)).squeeze(1)]
        parts += [torch.bmm(of_scores.gather(1, at).unsqueeze(1), values).squeeze(1) for at, values in self.sparse]
        return torch.cat(parts, 1)


@dataclass(frozen=True)
class Among:
    """Some of the catalogue's columns, in place of all."""

    columns: Tensor  # (C,) int64, rising
    place: Ints  # (V), each column's among them, -1 for the others

    @classmethod
    def of(cls, columns: Tensor, n_items: int) -> Among:
        """Look places up from the other side."""
        place = np.full(n_items, -1, np.int64)
        place[columns.numpy(force=True)] = np.arange(len(columns))
        return cls(columns, place)


class SignalReplay:
    """A log's signals as they were, to be read at any of its events."""

    def __init__(self, histories: Histories, catalogue: Catalogue, config: HRNNConfig, device: torch.device) -> None:
        """Have the log counted, and name items as the catalogue does."""
        self.n_trends = config.n_trends
        self._config = config
        self._histories = histories
        self._device = device
        rules = config.signal_rules
        assert rules is not None or config.repeats, "a model without signals has nothing to replay"
        self._column = catalogue.rows(histories.item_ids) - 1  # (I), -1 for items that the catalogue does not have
        self._columns = self._column[histories.items]  # (N)
        self._next_same = _next_same(histories) if config.repeats else self._columns
        self._times = histories.times
        self._position = np.empty(histories.n_events, np.int64)
        self._position[histories.order] = np.arange(histories.n_events)
        self._columns_in_order = self._columns[histories.order]
        self._times_in_order = histories.times[histories.order]
        self._rates = np.log(2) / np.array(config.half_lives_s)
        if rules is not None:
            self._log = signal_log(histories, rules, follow=config.successor_half_life_s > 0)
            self._snapshots = torch.from_numpy(self._of_catalogue(self._log.snapshots)).to(device)

    def _of_catalogue(self, snapshots: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Lay the items' columns out as the catalogue's: (S, K, I) -> (S, K, V)."""
        if np.array_equal(self._column, np.arange(self._config.n_items)):
            return snapshots
        known = np.flatnonzero(self._column >= 0)
        laid_out = np.zeros((*snapshots.shape[:2], self._config.n_items), np.float32)
        laid_out[:, :, self._column[known]] = snapshots[:, :, known]
        return laid_out

    def room(self, events: int, among: Among | None = None) -> Tensor:
        """Make room for the trends at so many events, to be read into again and again."""
        width = self._config.n_items if among is None else len(among.columns)
        return torch.empty(events, self.n_trends, width, device=self._device)

    def read(self, events: Tensor, room: Tensor | None = None, among: Among | None = None) -> Known:
        """Read the signals at events (B,), before they are counted themselves; the trends into `room` if there is."""
        at = events.numpy(force=True)
        sparse = []
        if self._config.successor_half_life_s:
            sparse.append(self._successors(at, among))
        if self._config.repeats:
            sparse.append(self._repeats(at, among))
        room = self.room(len(at), among) if room is None else room[: len(at)]
        return Known(self._trends(at, room, among) if self.n_trends else room, sparse)

    def _trends(self, at: Ints, trends: Tensor, among: Among | None) -> Tensor:
        place = self._position[at]
        snapshot = place // self._log.stride
        begin = snapshot * self._log.stride
        shown = torch.from_numpy(snapshot).to(self._device)
        if among is None:
            torch.index_select(self._snapshots, 0, shown, out=trends)  # (B, K, V)
        else:
            half_lives = torch.arange(self.n_trends, device=self._device)
            trends.copy_(self._snapshots[shown[:, None, None], half_lives[:, None], among.columns])
        faded = (self._times[at] - self._times_in_order[begin])[:, None] * self._rates  # (B, K)
        trends.sub_(self._on_device(faded).unsqueeze(2)).clamp_(min=0)
        width = int((place - begin).max(initial=0))
        if width:
            between = np.minimum(begin[:, None] + np.arange(width), len(self._times) - 1)  # (B, S)
            columns = self._columns_in_order[between]
            real = (between < place[:, None]) & (columns >= 0)
            if among is not None:
                columns, between, real = self._sampled(columns, between, real, among)
            levels = self._log.after[between] - (self._times[at][:, None] * self._rates + np.log(FLOOR))[:, None]
            values = np.where(real[:, :, None], levels, 0.0).transpose(0, 2, 1)  # (B, K, S)
            index = torch.from_numpy(np.where(real, columns, 0)).to(self._device)
            # a count rises with each occurrence: the greatest level is the newest
            trends.scatter_reduce_(2, index[:, None].expand(-1, self.n_trends, -1), self._on_device(values), "amax")
        return trends

    def _sampled(self, columns: Ints, between: Ints, real: Mask, among: Among) -> tuple[Ints, Ints, Mask]:
        """Move what lies among the columns that are asked for to the front of each row: (B, S) each -> (B, fewer)."""
        places = np.where(real, among.place[columns], -1)
        real = places >= 0
        front = np.argsort(~real, axis=1, kind="stable")[:, : int(real.sum(1).max(initial=0))]
        return tuple(np.take_along_axis(one, front, 1) for one in (places, between, real))  # type: ignore[return-value]

    def _successors(self, at: Ints, among: Among | None) -> tuple[Tensor, Tensor]:
        log = self._log
        begins, lengths = log.bounds[at], log.bounds[at + 1] - log.bounds[at]
        places = np.arange(int(lengths.max(initial=0)))
        real = places < lengths[:, None]
        index = np.where(real, begins[:, None] + places, 0)
        columns = self._column[log.followers[index]]
        values = np.where(real[:, :, None], log.values[index], np.float16(0)).astype(np.float32)
        return self._sparse(np.where(real, columns, -1), among, successor_parts(values))

    def _repeats(self, at: Ints, among: Among | None) -> tuple[Tensor, Tensor]:
        """Find what each event's user had, the last HISTORY_EVENTS of it, and what that says of it."""
        index, lengths = self._histories.before(at, HISTORY_EVENTS)
        columns = self._columns[index]
        newest = self._next_same[index] >= at[:, None]
        values = own_history.parts(columns + 1, lengths, self._times[index], self._times[at], newest)
        return self._sparse(columns, among, values)

    def _sparse(self, columns: Ints, among: Among | None, values: Floats) -> tuple[Tensor, Tensor]:
        """Leave out what has no column (-1), or none that is asked for: columns (B, S), values (B, S, parts)."""
        if among is not None:
            columns = np.where(columns >= 0, among.place[columns], -1)
        nowhere = columns < 0
        if nowhere.any():
            columns, values[nowhere] = np.where(nowhere, 0, columns), 0.0
        return torch.from_numpy(columns).to(self._device), self._on_device(values)

    def _on_device(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self._device)


def _next_same(histories: Histories) -> Ints:
    """Find when each event's user has the same item again: (N) events, N for never."""
    users, items, n = histories.users, histories.items, histories.n_events
    order = np.lexsort((np.arange(n), items, users))
    following = np.full(n, n, np.int64)
    same = (np.diff(users[order]) == 0) & (np.diff(items[order]) == 0)
    following[order[:-1][same]] = order[1:][same]
    return following
