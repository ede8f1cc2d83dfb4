"""Users' histories as arrays."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from models.records import MAX_EVENT_TYPE_CHARS, Event, SessionRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)  # compared by identity, so that derived data can be cached by instance
class Histories:
    """All users' events, concatenated, N in all: user u has `bounds[u]:bounds[u + 1]`."""

    user_ids: list[str]  # (U), sorted, so that equal data give equal arrays
    bounds: Ints  # (U + 1)
    item_ids: list[str]  # sorted
    items: Ints  # (N), places in item_ids
    times: Floats  # (N), non-decreasing within a user
    event_types: list[str]  # sorted
    types: Ints  # (N), places in event_types, -1 for none
    values: Floats  # (N), NaN for none
    order: Ints  # (N), the events' places in time order; ties in the order of the file or the sessions
    offsets: Mapping[int, int]  # partition of `sessions` -> end offset of the read

    @property
    def n_events(self) -> int:
        """The number of events, N."""
        return len(self.items)

    @property
    def n_users(self) -> int:
        """The number of users, U."""
        return len(self.user_ids)

    @property
    def users(self) -> Ints:
        """Each event's user: (N), places in user_ids."""
        return np.repeat(np.arange(self.n_users), np.diff(self.bounds))

    @cached_property
    def next_same(self) -> Ints:
        """The user's next event with the same item, for each event: (N), N if there is none."""
        users, n = self.users, self.n_events
        order = np.lexsort((np.arange(n), self.items, users))
        following = np.full(n, n, np.int64)
        same = (np.diff(users[order]) == 0) & (np.diff(self.items[order]) == 0)
        following[order[:-1][same]] = order[1:][same]
        return following

    @cached_property
    def had_before(self) -> npt.NDArray[np.bool_]:
        """Whether the user's history before each event has its item (N)."""
        repeated = np.zeros(self.n_events + 1, bool)
        repeated[self.next_same] = True  # place N collects items without a later event
        return repeated[:-1]

    def before(self, events: Ints, most: int) -> tuple[Ints, Ints]:
        """Return the events before events (B) of the same users: places (B, S), lengths (B).

        At most the newest `most`, oldest first, padded with the events themselves.
        """
        begins = np.maximum(self.bounds[np.searchsorted(self.bounds, events, side="right") - 1], events - most)
        lengths = events - begins
        places = begins[:, None] + np.arange(int(lengths.max(initial=0)))
        return np.minimum(places, events[:, None]), lengths

    def part(self, events: Ints) -> Histories:
        """Return the histories of some events (places, in time order), without users and items that have none."""
        kept = np.sort(events)
        users, lengths = np.unique(self.users[kept], return_counts=True)
        item_numbers, items = np.unique(self.items[kept], return_inverse=True)
        place = np.empty(self.n_events, np.int64)
        place[kept] = np.arange(len(kept))
        return dataclasses.replace(
            self,
            user_ids=[self.user_ids[user] for user in users],
            bounds=np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths))),
            item_ids=[self.item_ids[item] for item in item_numbers],
            items=items.astype(np.int64),
            times=self.times[kept],
            types=self.types[kept],
            values=self.values[kept],
            order=place[events],
        )


def from_sessions(
    sessions: Iterable[tuple[bytes, SessionRecord]], offsets: Mapping[int, int], since: float = -math.inf
) -> Histories:
    """Join sessions with their keys, in any order, into histories. Events at `since` or before are left out."""
    columns = _Columns()
    pieces: list[tuple[str, float, int, int, int]] = []  # user, start, part, begin and length in the columns
    for key, record in sessions:
        begin = len(columns)
        for event in record.events:
            if event[1] > since:
                columns.add(*event)
        if len(columns) > begin:
            pieces.append((record.user_id, record.start, _part(key, record), begin, len(columns) - begin))
    pieces.sort()
    users: list[str] = []
    lengths: list[int] = []
    for user_id, _, _, _, length in pieces:
        if not users or users[-1] != user_id:
            users.append(user_id)
            lengths.append(0)
        lengths[-1] += length
    begins, counts = (np.array([piece[n] for piece in pieces], np.int64) for n in (3, 4))
    places = np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(len(columns))
    return columns.histories(users, lengths, places, offsets)


def from_events(events: Sequence[Event]) -> Histories:
    """Join events, in any order, into histories. Events of the same time keep their order."""
    in_time = sorted(range(len(events)), key=lambda number: events[number].timestamp)  # a stable sort
    by_user: dict[str, list[int]] = {}
    for number in in_time:
        by_user.setdefault(events[number].user_id, []).append(number)
    users = sorted(by_user)
    numbers = np.array([number for user in users for number in by_user[user]], np.int64)
    columns = _Columns()
    for event in events:
        columns.add(event.item_id, event.timestamp, event.event_type, event.event_value)
    place = np.empty(len(events), np.int64)  # of each event of the file, in the histories
    place[numbers] = np.arange(len(numbers))
    joined = columns.histories(users, [len(by_user[user]) for user in users], numbers, {})
    return dataclasses.replace(joined, order=place[np.array(in_time, np.int64)])


def _part(key: bytes, record: SessionRecord) -> int:
    """Return the part number of a long session, from the end of its key (see models.records.session_key)."""
    _, _, part = key[len(record.user_id.encode()) :].partition(b"#")
    return int(part) if part.isdigit() else 0


class _Columns:
    """Columns of events while they are read: 24 bytes per event, where a tuple takes 200."""

    def __init__(self) -> None:
        self._items: dict[str, int] = {}
        self._types: dict[str | None, int] = {}
        self._item_codes = array("i")
        self._type_codes = array("i")
        self._times = array("d")
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._times)

    def add(self, item_id: str, timestamp: float, event_type: str | None, event_value: float | None) -> None:
        if event_type is not None and len(event_type) > MAX_EVENT_TYPE_CHARS:
            event_type = None  # written by an older release without a limit: a model's vocabulary must stay small
        self._item_codes.append(self._items.setdefault(item_id, len(self._items)))
        self._type_codes.append(self._types.setdefault(event_type, len(self._types)))
        self._times.append(timestamp)
        self._values.append(math.nan if event_value is None else event_value)

    def histories(self, users: list[str], lengths: list[int], places: Ints, offsets: Mapping[int, int]) -> Histories:
        """Lay the events out as their users have them: `places` (N) are those in the columns."""
        bounds = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        times = _never_falling(np.array(self._times, np.float64)[places], bounds)
        item_ids, item_of_code = _sorted_names(self._items)
        event_types, type_of_code = _sorted_names(self._types)
        return Histories(
            user_ids=users,
            bounds=bounds,
            item_ids=item_ids,
            items=item_of_code[np.array(self._item_codes, np.int64)[places]],
            times=times,
            event_types=event_types,
            types=type_of_code[np.array(self._type_codes, np.int64)[places]],
            values=np.array(self._values, np.float64)[places],
            order=np.argsort(times, kind="stable"),
            offsets=dict(offsets),
        )


def _sorted_names(codes: Mapping[Any, int]) -> tuple[list[str], Ints]:
    """Sort the names and say where that of each code stands; -1 for None."""
    names = sorted(name for name in codes if name is not None)
    place = np.full(len(codes), -1, np.int64)
    place[[codes[name] for name in names]] = np.arange(len(names))
    return names, place


def _never_falling(times: Floats, bounds: Ints) -> Floats:
    """Raise each time to the latest before it, as a worker does with out-of-order events."""
    falls = np.flatnonzero(np.diff(times) < 0) + 1
    for user in np.unique(np.searchsorted(bounds, falls, side="right") - 1):
        own = slice(bounds[user], bounds[user + 1])
        times[own] = np.maximum.accumulate(times[own])
    return times
