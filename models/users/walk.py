"""One user's events of a batch, applied session by session; the hidden state is not computed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.items.signals import LAST_ITEMS, Transition, transitions
from models.records import Event, Request, SessionRecord, Source, session_key
from models.sessions import Piece, Placement, SessionRules, place
from models.users import earlier
from models.users.state import HistoryEvent, UserState

_NO_ROWS = np.zeros(0, np.int64)


class SourcedEvent(NamedTuple):
    """An event and where it stands."""

    event: Event
    partition: int  # the user's own, whose store holds the state
    offset: int  # its position in that partition, over all epochs of the log (see `contracts.position`)
    now: float  # the time that the broker took it at, Unix seconds
    origin: Source  # where it came in first: elsewhere only if another partition forwarded it


class SourcedRequest(NamedTuple):
    """A request and where it stands."""

    request: Request
    partition: int  # the user's own, whose store holds the state
    now: float  # the time that the broker took it at, Unix seconds
    origin: Source


class Ask(NamedTuple):
    """One list to be made, after `pending`; `walk.history[begin:end]` and `earlier` are not to be named in it.

    `end` is 0 for a request of a user without events: no step is taken, for there is nothing to take it with.
    """

    number: int  # of the event or request in the batch
    walk: Walk
    begin: int
    end: int
    earlier: Mapping[str, int]  # what fell out of the retained history before `begin`
    pending: HistoryEvent
    session_id: str
    opens_session: bool = False

    def transitions(self, sourced: SourcedEvent) -> list[tuple[str, Transition]]:
        """List what the event means to items."""
        pending, last = self.pending, self.walk.history[max(0, self.end - 1 - len(LAST_ITEMS)) : self.end - 1]
        # the offset that it was applied at: one that was sent on twice stands in the log twice
        return transitions(
            [event.item_id for event in last], pending.item_id, pending.timestamp, sourced.partition, pending.offset
        )


class Walk:
    """A user's state in the making; the given state stays as it is."""

    __slots__ = (
        "_begin",
        "_part",
        "_start",
        "_touched",
        "applied",
        "applied_offset",
        "earlier",
        "earlier_events",
        "emitted",
        "emitted_by",
        "events",
        "fallen",
        "first",
        "given",
        "h",
        "h_events",
        "history",
        "model_version",
        "origins",
        "redelivered",
        "rows",
        "sequence",
        "session_id",
        "state",
        "user_id",
    )

    def __init__(self, user_id: str, state: UserState | None) -> None:
        """Stand where the state (None: a new user) stands."""
        self.user_id = user_id
        self.state = state
        self.applied = 0  # events of this batch
        self.redelivered = False
        self._touched: dict[int, Piece] = {}  # by begin; an open piece ends at -1
        # filled in by the recommender, once the walk is done
        self.rows: npt.NDArray[np.int64] = _NO_ROWS  # of the whole history
        self.sequence = self.first = -1
        self.h, self.h_events, self.model_version = b"", 0, ""
        if state is None:
            self.history: list[HistoryEvent] = []  # not cut before the walk ends: the batch's lists need all of it
            self.applied_offset = -1
            self.origins: dict[int, int] = {}
            self.events = 0
            self.earlier: dict[str, int] = {}  # replaced, never changed: asks and states hold it
            self.earlier_events = 0
            self.emitted: list[str] = []
            self.emitted_by = ""  # the weights that made the list; "" for none
            self._start, self._part, self._begin = 0.0, 0, 0
        else:
            self.history = list(state.history)
            self.applied_offset = state.applied_offset
            self.origins = state.origins
            self.events = state.events
            self.earlier, self.earlier_events = state.earlier, state.earlier_events
            self.emitted = state.emitted
            self.emitted_by = state.model_version  # a state's weights are those of its last list
            self._start, self._part = state.session_start, state.session_part
            self._begin = len(self.history) - state.session_len
            if self._begin < 0:  # not ours: what is left of the session must not overwrite its whole record,
                self._begin = len(self.history)  # so the next event opens another part
        self.given = len(self.history)
        self.fallen = 0  # how many of the history are in `earlier`, too
        self.session_id = session_key(user_id, self._start, self._part)

    def has_applied(self, sourced: SourcedEvent) -> bool:
        """Tell whether an event has been here before, by its offset or by where it was forwarded from."""
        if sourced.offset <= self.applied_offset:
            return True
        origin = sourced.origin
        return origin.partition != sourced.partition and origin.position <= self.origins.get(origin.partition, -1)

    def apply(self, rules: SessionRules, sourced: SourcedEvent) -> Placement:
        """Take a new event in, unless it is late or from the future."""
        event, history = sourced.event, self.history
        timestamp = event.timestamp
        last = history[-1].timestamp if history else None
        placement = place(rules, last, timestamp, sourced.now)
        if placement is Placement.LATE or placement is Placement.FUTURE:
            return placement
        if last is not None and timestamp < last:
            timestamp = last
        if placement is Placement.NEW_SESSION:
            self._open(timestamp, 0)
        elif not 0 < len(history) - self._begin < rules.max_session_events:
            self._open(self._start, self._part + 1)
        self._touched[self._begin] = Piece(self._start, self._part, self._begin, -1)
        history.append(HistoryEvent(event.item_id, timestamp, event.event_type, event.event_value, sourced.offset))
        self.applied_offset = sourced.offset
        if sourced.origin.partition != sourced.partition:
            self.origins = {**self.origins, sourced.origin.partition: sourced.origin.position}
        self.applied += 1
        self.events += 1
        return placement

    def retain(self, history_events: int, earlier_items: int) -> int:
        """Let all but the newest events fall out of what is retained -> where these begin."""
        begin = max(0, len(self.history) - history_events)
        if begin > self.fallen:
            fallen = [event.item_id for event in self.history[self.fallen : begin]]
            self.earlier = earlier.fold(self.earlier, fallen, earlier_items)
            self.earlier_events += len(fallen)
            self.fallen = begin
        return begin

    def _open(self, start: float, part: int) -> None:
        if self._begin in self._touched:
            self._touched[self._begin] = self._touched[self._begin]._replace(end=len(self.history))
        self._start, self._part, self._begin = start, part, len(self.history)
        self.session_id = session_key(self.user_id, start, part)

    def records(self) -> Iterator[SessionRecord]:
        """Write the sessions that were touched, each as far as it has come."""
        history = self.history
        for piece in self._touched.values():
            events = history[piece.begin : piece.end if piece.end >= 0 else len(history)]
            yield SessionRecord(
                self.user_id,
                session_key(self.user_id, piece.start, piece.part),
                piece.start,
                events[-1].timestamp,
                [(e.item_id, e.timestamp, e.event_type, e.event_value) for e in events],
            )

    def state_after(self, history_events: int, earlier_items: int) -> UserState:
        """Write the state; one that no event was applied to is the given one itself."""
        if not self.applied and self.state is not None:
            return self.state
        begin = self.retain(history_events, earlier_items)
        return UserState(
            self.applied_offset,
            self.origins,
            self.history[begin:],
            self._start,
            self._part,
            len(self.history) - self._begin,
            self.h,
            self.h_events,
            self.model_version,
            self.emitted,
            self.events,
            self.earlier,
            self.earlier_events,
        )
