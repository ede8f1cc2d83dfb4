"""Users' histories as arrays, in the order that things happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from models.contracts import Event, SessionRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)  # each is itself alone, so that what was made of it can be kept beside it
class Histories:
    """All users' events one after the other, N in all: user u's are `bounds[u]:bounds[u + 1]`."""

    user_ids: list[str]  # (U), sorted, so that the same data always gives the same arrays
    bounds: Ints  # (U + 1)
    item_ids: list[str]  # sorted
    items: Ints  # (N), places in item_ids
    times: Floats  # (N), never falling within a user
    event_types: list[str]  # sorted
    types: Ints  # (N), places in event_types, -1 for none
    values: Floats  # (N), NaN for none
    order: Ints  # (N), the events' places as they happened: by time, then as the file or the sessions have them
    offsets: Mapping[int, int]  # partition of `sessions` -> offset that this was read up to

    @property
    def n_events(self) -> int:
        """Count the events, N."""
        return len(self.items)

    @property
    def n_users(self) -> int:
        """Count the users, U."""
        return len(self.user_ids)

    @property
    def users(self) -> Ints:
        """Name each event's user: (N), places in user_ids."""
        return np.repeat(np.arange(self.n_users), np.diff(self.bounds))

    @cached_property
    def next_same(self) -> Ints:
        """Find when each event's user has the same item again: (N) events, N for never."""
        users, n = self.users, self.n_events
        order = np.lexsort((np.arange(n), self.items, users))
        following = np.full(n, n, np.int64)
        same = (np.diff(users[order]) == 0) & (np.diff(self.items[order]) == 0)
        following[order[:-1][same]] = order[1:][same]
        return following

    @cached_property
    def had_before(self) -> npt.NDArray[np.bool_]:
        """Tell of each event whether its user has had its item before (N)."""
        repeated = np.zeros(self.n_events + 1, bool)
        repeated[self.next_same] = True  # the place N is where those go that are not had again
        return repeated[:-1]

    def before(self, events: Ints, most: int) -> tuple[Ints, Ints]:
        """Name what the users of events (B) had before them -> places (B, S), how many of these are real (B).

        At most the newest `most`, oldest first; filled up with the events themselves.
        """
        begins = np.maximum(self.bounds[np.searchsorted(self.bounds, events, side="right") - 1], events - most)
        lengths = events - begins
        places = begins[:, None] + np.arange(int(lengths.max(initial=0)))
        return np.minimum(places, events[:, None]), lengths

    def part(self, events: Ints) -> Histories:
        """Keep some events (their places, in the order that they happened): users and items without any are gone."""
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


def from_sessions(sessions: Iterable[tuple[bytes, SessionRecord]], offsets: Mapping[int, int]) -> Histories:
    """Join sessions, given with their keys, into histories."""
    ordered = sorted(
        ((record.user_id, record.start, _part(key, record), record) for key, record in sessions), key=_order
    )
    users: list[str] = []
    lengths: list[int] = []
    events: list[tuple[str, float, str | None, float | None]] = []
    for user_id, _, _, record in ordered:
        if not users or users[-1] != user_id:
            users.append(user_id)
            lengths.append(0)
        lengths[-1] += len(record.events)
        events.extend(record.events)
    return _histories(users, lengths, events, offsets)


def from_events(events: Sequence[Event]) -> Histories:
    """Join events, given in any order, into histories; those of the same second keep their order."""
    in_time = sorted(range(len(events)), key=lambda number: events[number].timestamp)  # a stable sort
    by_user: dict[str, list[int]] = {}
    for number in in_time:
        by_user.setdefault(events[number].user_id, []).append(number)
    users = sorted(by_user)
    numbers = [number for user in users for number in by_user[user]]
    columns = [(e.item_id, e.timestamp, e.event_type, e.event_value) for e in (events[n] for n in numbers)]
    place = np.empty(len(events), np.int64)  # of each event of the file, in the histories
    place[numbers] = np.arange(len(numbers))
    joined = _histories(users, [len(by_user[user]) for user in users], columns, {})
    return dataclasses.replace(joined, order=place[np.array(in_time, np.int64)])


def _order(session: tuple[str, float, int, SessionRecord]) -> tuple[str, float, int]:
    return session[:3]


def _part(key: bytes, record: SessionRecord) -> int:
    """Read which piece of a long session this is, from the end of its key (see contracts.session_key)."""
    _, _, part = key[len(record.user_id.encode()) :].partition(b"#")
    return int(part) if part.isdigit() else 0


def _histories(
    users: list[str],
    lengths: list[int],
    events: list[tuple[str, float, str | None, float | None]],
    offsets: Mapping[int, int],
) -> Histories:
    item_ids, items = _places([item_id for item_id, _, _, _ in events])
    event_types, types = _places([event_type for _, _, event_type, _ in events])
    bounds = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    times = _never_falling(np.array([time for _, time, _, _ in events], np.float64), bounds)
    return Histories(
        user_ids=users,
        bounds=bounds,
        item_ids=item_ids,
        items=items,
        times=times,
        event_types=event_types,
        types=types,
        values=np.array([value for _, _, _, value in events], np.float64),  # None becomes NaN
        order=np.argsort(times, kind="stable"),
        offsets=dict(offsets),
    )


def _places(names: Sequence[str | None]) -> tuple[list[str], Ints]:
    """Sort the distinct names and say where each stands; -1 for None."""
    distinct = sorted({name for name in names if name is not None})
    place: dict[str | None, int] = {name: number for number, name in enumerate(distinct)}
    place[None] = -1
    return distinct, np.fromiter(map(place.__getitem__, names), np.int64, len(names))


def _never_falling(times: Floats, bounds: Ints) -> Floats:
    """Raise each time to the latest before it, as the stream does with events that come out of order."""
    falls = np.flatnonzero(np.diff(times) < 0) + 1
    for user in np.unique(np.searchsorted(bounds, falls, side="right") - 1):
        own = slice(bounds[user], bounds[user + 1])
        times[own] = np.maximum.accumulate(times[own])
    return times
