"""What ends a worker and what does not: its membership and tasks, never a broker that is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream.process.health import SILENT_S, UNASSIGNED_ROUNDS, Health


class Running:
    """A task that runs, or has ended."""

    def __init__(self) -> None:
        self.ended = False

    def done(self) -> bool:
        return self.ended


class World:
    """An app as far as its health is concerned, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.member = SimpleNamespace(ended="", is_joined=True, broker_answers=True)
        self.fetching, self.sending = Running(), Running()
        consumer = SimpleNamespace(_fetcher=SimpleNamespace(_fetch_task=self.fetching))
        self.thread = SimpleNamespace(member=self.member, crashed=False, crash_reason=None, _consumer=consumer)
        producer = SimpleNamespace(_sender=SimpleNamespace(sender_task=self.sending))
        self.app = SimpleNamespace(
            conf=SimpleNamespace(broker_rebalance_timeout=20.0),
            batch_consumer=SimpleNamespace(thread=self.thread),
            should_stop=False,
            kafka_producer=lambda: producer,
        )
        self.health = Health(cast(Any, self.app), lambda: self.now)

    def pass_time(self, seconds: float) -> str:
        for _ in range(int(seconds)):
            self.now += 1.0
            self.health.beat()
        return self.health.verdict()


@pytest.fixture
def world() -> World:
    return World()


def test_a_spare_worker_and_one_that_serves_are_well(world: World) -> None:
    assert world.pass_time(100_000) == ""


def test_a_broker_that_is_away_is_no_reason(world: World) -> None:
    world.member.is_joined, world.member.broker_answers = False, False
    assert world.pass_time(100_000) == ""
    world.thread.member = None  # it is waited for at the start
    assert world.pass_time(100_000) == ""


def test_nothing_assigned_for_long_is(world: World) -> None:
    world.member.is_joined = False
    assert world.pass_time(UNASSIGNED_ROUNDS * 20 - 1) == ""
    world.member.is_joined = True
    assert world.pass_time(1) == ""
    world.member.is_joined = False
    assert "nothing was assigned for 200 s" in world.pass_time(UNASSIGNED_ROUNDS * 20)


def test_what_only_a_new_process_mends(world: World) -> None:
    world.member.ended = "Fenced: another process"
    assert "Fenced" in world.pass_time(1)
    for name in ("fetching", "sending"):
        other = World()
        getattr(other, name).ended = True
        assert f"{name} has ended" in other.pass_time(1)
    crashed = World()
    crashed.thread.crashed, crashed.thread.crash_reason = True, RuntimeError("why")
    assert "why" in crashed.pass_time(1)


def test_a_stop_ends_tasks_too(world: World) -> None:
    world.app.should_stop = True
    world.fetching.ended = world.sending.ended = True
    assert world.pass_time(1) == ""


def test_a_loop_that_does_not_run_is_unwell(world: World) -> None:
    world.pass_time(1)
    world.now += SILENT_S
    assert "has not run for 60 s" in world.health.verdict()
