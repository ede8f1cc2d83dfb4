"""The rows by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.system.faults import crash_points, kills, records
from tests.system.faults.scene import Setup


class Row(NamedTuple):
    """One kind of harm."""

    run: Callable[[Setup], Awaitable[None]]
    summary: str


ROWS: dict[str, Row] = {
    "kill9": Row(kills.kill9, "three workers killed at random, hot and equal users together"),
    "crash-points": Row(crash_points.crash_points, "a worker killed at each marked point of a batch"),
    "hot-user": Row(kills.hot_user, "a worker killed while 700 events of one user are on their way"),
    "pause": Row(kills.pause, "a worker frozen for longer than the session timeout"),
    "new-hostname": Row(kills.new_hostname, "a restart under the same instance id on another host"),
    "two-instances": Row(kills.two_instances, "two workers under one instance id"),
    "poison": Row(records.poison, "records of every codec and every kind of junk"),
    "transactions": Row(records.transactions, "a transactional producer that commits, aborts and falls silent"),
    "forged-origin": Row(records.forged_origin, "clients that send the header of forwarded events"),
}
