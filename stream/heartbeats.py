"""When the group last heard from this worker: what tells a slow worker, which goes on, from one that was paused.

What it mends, and where aiokafka 0.14.0 has it: the time of the last answered heartbeat is a local variable of
`GroupCoordinator._heartbeat_routine` (consumer/group_coordinator.py); here it is kept with the coordinator.
"""

from __future__ import annotations

import time
from typing import Any, cast

from aiokafka.consumer.group_coordinator import GroupCoordinator

_coordinator: Any = GroupCoordinator
_do_heartbeat = _coordinator._do_heartbeat


async def _noted_heartbeat(self: Any) -> Any:
    answered = await _do_heartbeat(self)
    if answered:
        self.last_heartbeat_at = time.monotonic()
    return answered


_coordinator._do_heartbeat = _noted_heartbeat


def last_heartbeat_at(coordinator: object) -> float:
    """Give the time.monotonic() of the last heartbeat that the group answered; 0.0 before the first."""
    return cast(float, getattr(coordinator, "last_heartbeat_at", 0.0))
