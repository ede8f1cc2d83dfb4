"""The rows by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.system.faults import brokers, crash_points, kills, logs, records, stores, trainers
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
    "broker-kill": Row(brokers.broker_kill, "the only broker killed and started again"),
    "broker-kill-rf3": Row(brokers.broker_kill_rf3, "each of three brokers killed in turn, three copies"),
    "broker-pause": Row(brokers.broker_pause, "the only broker frozen for longer than the session timeout"),
    "network-cut": Row(brokers.network_cut, "a worker cut off its broker, in one direction or both"),
    "disk-full": Row(stores.disk_full, "a worker's disk full for a while"),
    "corrupt-store": Row(stores.corrupt_store, "each kind of file of a store damaged"),
    "foreign-store": Row(stores.foreign_store, "another partition's store in place, then another deployment's"),
    "topic-recreated": Row(logs.topic_recreated, "the topic of events deleted and made again"),
    "truncated-log": Row(logs.truncated_log, "committed offsets beyond the end of the log"),
    "trainer-crash": Row(trainers.trainer_crash, "a trainer killed at each step of publishing"),
    "poison": Row(records.poison, "records of every codec and every kind of junk"),
    "transactions": Row(records.transactions, "a transactional producer that commits, aborts and falls silent"),
    "forged-origin": Row(records.forged_origin, "clients that send the header of forwarded events"),
}
