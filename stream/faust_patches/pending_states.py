"""States that are decided but not stored yet. The next batch is decided from them while this one awaits its acks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from models.recommending.recommender import UserKey
from models.users.state import UserState
from stream.faust_patches.delivery import Batch


class PendingStates:
    """The new states of users in the batches in process, newest last.

    `valid` returns whether a batch may still be sent. States of a requeued batch or of an earlier assignment are
    ignored: the store then has the newest valid state.
    """

    def __init__(self, valid: Callable[[Batch], bool]) -> None:
        """Start empty."""
        self._valid = valid
        self._made: dict[UserKey, list[tuple[Batch, UserState]]] = {}

    def newest(self, key: UserKey) -> UserState | None:
        """Return a user's newest valid state that is not stored yet; None if the store has the newest."""
        for batch, state in reversed(self._made.get(key, [])):
            if self._valid(batch):
                return state
        return None

    def add(self, batch: Batch, states: Mapping[UserKey, UserState]) -> None:
        """Add a batch's new states."""
        for key, state in states.items():
            self._made[key] = [*self._made.get(key, ()), (batch, state)]

    def remove(self, batch: Batch, keys: Iterable[UserKey]) -> None:
        """Remove a batch: its states are stored, or will be decided again."""
        for key in keys:
            # a new list: the deciding thread may be reading the old one
            left = [made for made in self._made.get(key, ()) if made[0] is not batch]
            if left:
                self._made[key] = left
            else:
                self._made.pop(key, None)

    def __len__(self) -> int:
        """Count the users with a state that is not stored yet."""
        return len(self._made)
