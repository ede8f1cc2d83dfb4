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
        parts += [(of_scores.gather(1, at).unsqueeze(2) * values).sum(1) for at, values in self.sparse]
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
            self._since = self._as_of_snapshots()

    def _of_catalogue(self, snapshots: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Lay the items' columns out as the catalogue's: (S, K, I) -> (S, K, V)."""
        if np.array_equal(self._column, np.arange(self._config.n_items)):
            return snapshots
        known = np.flatnonzero(self._column >= 0)
        laid_out = np.zeros((*snapshots.shape[:2], self._config.n_items), np.float32)
        laid_out[:, :, self._column[known]] = snapshots[:, :, known]
        return laid_out

    def _as_of_snapshots(self) -> npt.NDArray[np.float32]:
        """Say of each event in time what its item's trends are after it, as if at its snapshot's moment: (K, N)."""
        moments = self._times_in_order[np.arange(len(self._times)) // self._log.stride * self._log.stride]
        levels = self._log.after.T - moments * self._rates[:, None] - np.log(FLOOR)
        return np.ascontiguousarray(levels, np.float32)

    def room(self, events: int, among: Among | None = None) -> Tensor:
        """Make room for the trends at so many events, to be read into again and again."""
        width = self._config.n_items if among is None else len(among.columns)
        return torch.empty(events, self.n_trends, width, device=self._device)

    def read(self, events: Tensor, among: Among | None = None) -> Known:
        """Read the signals at events (B,), before they are counted themselves."""
        return Known(self.trends(events, self.room(len(events), among), among), self.sparse(events, among))

    def sparse(self, events: Tensor, among: Among | None = None) -> list[tuple[Tensor, Tensor]]:
        """Read what follows the last items at events (B,), and what their users' histories say, as models have them."""
        at = events.numpy(force=True)
        successors = [self._successors(at, among)] if self._config.successor_half_life_s else []
        return successors + ([self._repeats(at, among)] if self._config.repeats else [])

    def trends(self, events: Tensor, room: Tensor, among: Among | None = None) -> Tensor:
        """Read the trends at events (B,) into room (B or more, K, columns) -> (B, K, columns), of that room."""
        at, trends = events.numpy(force=True), room[: len(events)]
        if not self.n_trends:
            return trends
        place = self._position[at]
        snapshot = place // self._log.stride
        begin = snapshot * self._log.stride
        shown = torch.from_numpy(snapshot).to(self._device)
        if among is None:
            torch.index_select(self._snapshots, 0, shown, out=trends)  # (B, K, V)
        else:
            half_lives = torch.arange(self.n_trends, device=self._device)
            trends.copy_(self._snapshots[shown[:, None, None], half_lives[:, None], among.columns])
        width = int((place - begin).max(initial=0))
        if width:
            between = np.minimum(begin[:, None] + np.arange(width), len(self._times) - 1)  # (B, S)
            columns = self._columns_in_order.take(between)
            real = (between < place[:, None]) & (columns >= 0)
            if among is not None:
                columns, between, real = self._sampled(columns, between, real, among)
            since = self._on_device(self._since.take(between, axis=1) * real).transpose(0, 1)  # (B, K, S)
            index = torch.from_numpy(np.where(real, columns, 0)).to(self._device)
            # a count rises with each occurrence: the greatest level is the newest
            trends.scatter_reduce_(2, index[:, None].expand(-1, self.n_trends, -1), since, "amax")
        faded = (self._times[at] - self._times_in_order[begin])[:, None] * self._rates  # (B, K)
        return trends.sub_(self._on_device(faded).unsqueeze(2)).clamp_(min=0)

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
        columns = np.where(real, self._column.take(log.followers.take(index)), -1)
        values = torch.from_numpy(log.values.take(index, axis=1)).float().numpy()  # numpy takes 25 times as long
        return self._sparse(columns, among, successor_parts((values * real).transpose(1, 2, 0)))

    def _repeats(self, at: Ints, among: Among | None) -> tuple[Tensor, Tensor]:
        """Find what each event's user had, the last HISTORY_EVENTS of it, and what that says of it."""
        index, lengths = self._histories.before(at, HISTORY_EVENTS)
        columns = self._columns.take(index)
        newest = self._next_same.take(index) >= at[:, None]
        values = own_history.parts(columns + 1, lengths, self._times.take(index), self._times[at], newest)
        return self._sparse(columns, among, values)

    def _sparse(self, columns: Ints, among: Among | None, values: Floats) -> tuple[Tensor, Tensor]:
        """Leave out what has no column (-1), or none that is asked for: columns (B, S), values (B, S, parts)."""
        if among is not None:
            columns = np.where(columns >= 0, among.place[columns], -1)
        nowhere = columns < 0
        if nowhere.any():
            columns = np.maximum(columns, 0)
            values *= ~nowhere[:, :, None]
        return torch.from_numpy(columns).to(self._device), self._on_device(values)

    def _on_device(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32)).to(self._device)


def _next_same(histories: Histories) -> Ints:
    """Find when each event's user has the same item again: (N) events, N for never."""
    users, items, n = histories.users, histories.items, histories.n_events
    order = np.lexsort((np.arange(n), items, users))
    following = np.full(n, n, np.int64)
    same = (np.diff(users[order]) == 0) & (np.diff(items[order]) == 0)
    following[order[:-1][same]] = order[1:][same]
    return following
