"""States that are decided and not stored yet: the next batch is decided from them while this one awaits its acks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from models.recommending.recommender import UserKey
from models.users.state import UserState
from stream.faust_patches.delivery import Batch


class PendingStates:
    """What the batches in process have made of their users, newest last.

    `valid` tells whether a batch may still be sent. States of a batch that is read again, or of an assignment that is
    over, count for nothing: the store then has the newest state that is right.
    """

    def __init__(self, valid: Callable[[Batch], bool]) -> None:
        """Begin without any."""
        self._valid = valid
        self._made: dict[UserKey, list[tuple[Batch, UserState]]] = {}

    def newest(self, key: UserKey) -> UserState | None:
        """Give the newest valid state of a user that is not stored yet; None if the store's is the newest."""
        for batch, state in reversed(self._made.get(key, [])):
            if self._valid(batch):
                return state
        return None

    def add(self, batch: Batch, states: Mapping[UserKey, UserState]) -> None:
        """Take in what a batch has made of its users."""
        for key, state in states.items():
            self._made[key] = [*self._made.get(key, ()), (batch, state)]

    def remove(self, batch: Batch, keys: Iterable[UserKey]) -> None:
        """Forget a batch: its states are stored, or will be made again."""
        for key in keys:
            # replaced, never changed: the thread that decides may be reading the list
            left = [made for made in self._made.get(key, ()) if made[0] is not batch]
            if left:
                self._made[key] = left
            else:
                self._made.pop(key, None)

    def __len__(self) -> int:
        """Count the users with a state that is not stored yet."""
        return len(self._made)
