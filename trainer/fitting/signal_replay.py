"""The signals that the stream would have known at each event, in a model's terms: never a bit of the future.

The trends at an event are those of the last snapshot before it (see signal_log.py), made exact: decay since is a
subtraction, and what has occurred since replaces what the snapshot said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.catalogue import Catalogue
from models.config import ModelConfig
from models.items.signal_table import FLOOR, successor_parts
from models.terms import repeats
from models.users import earlier
from models.users.earlier import EARLIER_ITEMS
from models.users.state import HISTORY_EVENTS
from trainer.data.earlier_log import EarlierLog
from trainer.data.histories import Histories, Ints
from trainer.data.signal_log import Listed, signal_log
from trainer.fitting.known_signals import Among, Known, Moments, SinceSnapshots

Floats = npt.NDArray[np.floating[Any]]


class SignalReplay:
    """A log's signals as they were, to be read at any of its events."""

    def __init__(self, histories: Histories, catalogue: Catalogue, config: ModelConfig, device: torch.device) -> None:
        """Have the log counted, and name items as the catalogue does."""
        self.n_trends = config.n_trends
        self._config = config
        self._histories = histories
        self._device = device
        rules = config.signal_rules
        assert rules is not None or config.repeats or config.earlier, "a model without signals has nothing to replay"
        self._column = catalogue.rows(histories.item_ids) - 1  # (I), -1 for items that the catalogue does not have
        self._columns = self._column[histories.items]  # (N)
        self._earlier_log = EarlierLog(histories, HISTORY_EVENTS, EARLIER_ITEMS) if config.earlier else None
        self._times = histories.times
        self._position = np.empty(histories.n_events, np.int64)
        self._position[histories.order] = np.arange(histories.n_events)
        self._columns_in_order = self._columns[histories.order]
        self._times_in_order = histories.times[histories.order]
        self._rates = np.log(2) / np.array(config.half_lives_s)
        if rules is not None:
            self._log = signal_log(
                histories, rules, follow=config.successor_half_life_s > 0, neighbours=config.neighbours
            )
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
        moments = self.moments(events)
        moments = moments if among is None else moments.within(among)
        return Known(self.trends(moments, self.room(len(events), among), among), moments.sparse)

    def moments(self, events: Tensor) -> Moments:
        """Look up all but the trends of the whole catalogue at events (B,): a fit does it ahead, beside other work."""
        at = events.numpy(force=True)
        sparse, lengths = [], []
        if self._config.successor_half_life_s:
            columns, scores = self._listed(self._log.followers, at)
            sparse.append(self._sparse(columns, successor_parts(scores)))
            lengths.append(self._log.followers.lengths(at))
        if self._config.neighbours:
            sparse.append(self._sparse(*self._listed(self._log.neighbours, at)))
            lengths.append(self._log.neighbours.lengths(at))
        if self._config.repeats:
            index, had = self._histories.before(at, HISTORY_EVENTS)
            sparse.append(self._repeats(at, index, had))
            lengths.append(had)
        if self._earlier_log is not None:
            places, counts = self._earlier_log.before(at)
            sparse.append(self._sparse(self._columns.take(places), earlier.parts(counts)))
            lengths.append(np.count_nonzero(counts, axis=1))
        return Moments(len(at), self._since_snapshots(at) if self.n_trends else None, sparse, lengths)

    def trends(self, moments: Moments, room: Tensor, among: Among | None = None) -> Tensor:
        """Read the trends at B moments into room (B or more, K, columns) -> (B, K, columns), of that room."""
        trends, since = room[: len(moments)], moments.since
        if since is None:
            return trends
        if among is None:
            torch.index_select(self._snapshots, 0, since.snapshots, out=trends)  # (B, K, V)
        elif trends.is_cpu:  # row by row in a sixth of the time that all at once takes
            for row, snapshot in zip(trends, since.snapshots.tolist(), strict=True):
                torch.index_select(self._snapshots[snapshot], 1, among.columns, out=row)
        else:
            half_lives = torch.arange(self.n_trends, device=self._device)
            trends.copy_(self._snapshots[since.snapshots[:, None, None], half_lives[:, None], among.columns])
        # a count rises with each occurrence: the greatest level is the newest
        trends.scatter_reduce_(2, since.columns[:, None].expand(-1, self.n_trends, -1), since.levels, "amax")
        return trends.sub_(since.faded.unsqueeze(2)).clamp_(min=0)

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

    def _listed(self, listed: Listed, at: Ints) -> tuple[Ints, Floats]:
        """Lay out what was listed for events (B,): columns (B, S), values (B, S, parts), without a column at 0."""
        begins, lengths = listed.bounds[at], listed.lengths(at)
        places = np.arange(int(lengths.max(initial=0)))
        real = places < lengths[:, None]
        index = np.where(real, begins[:, None] + places, 0)
        columns = np.where(real, self._column.take(listed.items.take(index)), -1)
        values = torch.from_numpy(listed.values.take(index, axis=1)).float().numpy()  # numpy takes 25 times as long
        return columns, (values * real).transpose(1, 2, 0)

    def _repeats(self, at: Ints, index: Ints, lengths: Ints) -> tuple[Tensor, Tensor]:
        """Read what each event's user had of late: so many events each, at their places (B, S)."""
        columns = self._columns.take(index)
        newest = self._histories.next_same.take(index) >= at[:, None]
        values = repeats.parts(columns + 1, lengths, self._times.take(index), self._times[at], newest)
        return self._sparse(columns, values)

    def _sparse(self, columns: Ints, values: Floats) -> tuple[Tensor, Tensor]:
        """Leave out what has no column (-1): columns (B, S), values (B, S, parts)."""
        nowhere = columns < 0
        if nowhere.any():
            columns = np.maximum(columns, 0)
            values *= ~nowhere[:, :, None]
        return torch.from_numpy(columns).to(self._device), self._on_device(values)

    def _on_device(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32)).to(self._device)
