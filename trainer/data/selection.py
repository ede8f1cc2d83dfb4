"""Select the sessions to train on: a time window and a sample of users, to limit memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

MACHINE_SHARE = 0.01
"""A sample leaves out users with more than this share of its events: one machine must not fill it."""

MACHINE_EVENTS = 100  # but never users with fewer events than a history has
HASHES = 1 << 32


@dataclass(frozen=True)
class Limits:
    """The limits of the settings; 0 means no limit."""

    window_s: float = 0.0
    max_events: int = 0


@dataclass(frozen=True)
class Selection:
    """The limits applied to the current copy."""

    since: float = -math.inf  # events at this time or before are too old
    hash_below: int = HASHES  # users whose hash is below are in the sample
    machines: frozenset[int] = frozenset()  # hashes of users with too many events for a sample
    n_users: int = 0  # in the window
    users_taken: int = 0

    def metrics(self) -> dict[str, float]:
        """Return the figures for a manifest."""
        share = self.users_taken / self.n_users if self.n_users else 1.0
        figures = {"users": float(self.users_taken), "users_share": share}
        return figures if math.isinf(self.since) else figures | {"trained_since": self.since}


EVERYTHING = Limits()
ALL = Selection()


def user_of_key(key: bytes) -> bytes:
    """Return the user of a session's key, before the last separator (see models.records.session_key)."""
    return key.rpartition(b"|")[0]


def user_hash(user_id: bytes) -> int:
    """Return a user's 32-bit hash, equal in every process and release, so that a sample keeps its users."""
    return int.from_bytes(hashlib.blake2b(user_id, digest_size=4).digest())


def sample(events_by_user: Iterable[tuple[int, int]], since: float, max_events: int) -> Selection:
    """Select users in the order of their hashes while their events fit; `events_by_user` is sorted by hash.

    The sample is stable: a user leaves it only when the others' events have grown.
    """
    counted = list(events_by_user)
    if not max_events or sum(events for _, events in counted) <= max_events:
        return Selection(since, n_users=len(counted), users_taken=len(counted))
    most = max(MACHINE_EVENTS, int(max_events * MACHINE_SHARE))
    machines = frozenset(hashed for hashed, events in counted if events > most)
    held = taken = 0
    hash_below = HASHES
    for hashed, events in counted:
        if hashed in machines:
            continue
        if held + events > max_events:
            hash_below = hashed
            break
        held += events
        taken += 1
    return Selection(since, hash_below, machines, len(counted), taken)
