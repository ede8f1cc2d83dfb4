"""A library's line that repeats is written once, then counted; ours are written as they come."""

from __future__ import annotations

import io
import logging

import pytest

from stream.process import repeats
from stream.process.repeats import SUMMARY_EVERY_S, BoundedHandler


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handler(stream: io.StringIO, clock: Clock) -> BoundedHandler:
    return BoundedHandler(stream, clock)


def log(handler: BoundedHandler, name: str, message: str, *arguments: object) -> None:
    handler.handle(logging.LogRecord(name, logging.WARNING, "", 0, message, arguments, None))


def test_a_storm_is_its_first_line_and_a_count_each_half_minute(
    handler: BoundedHandler, stream: io.StringIO, clock: Clock
) -> None:
    for tenth in range(840):  # 84 s
        clock.now = tenth / 10
        for node in (1, 2, 3):
            log(handler, "aiokafka", "Unable connect to node with id %s", node)
            log(handler, "aiokafka.fetcher", f"Failed fetch from {node}")
    handler.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 * (1 + 3)
    assert lines[:2] == ["Unable connect to node with id 1", "Failed fetch from 1"]
    counts = [int(line.split("repeated=")[1].split()[0]) for line in lines if "repeated=" in line]
    assert sum(counts) == 2 * (840 * 3 - 1), "none is lost"


def test_what_stopped_is_written_at_once_when_it_comes_back(
    handler: BoundedHandler, stream: io.StringIO, clock: Clock
) -> None:
    for clock.now in (0.0, 1.0, 2.0):
        log(handler, "kafka.conn", "away")
    for clock.now in (SUMMARY_EVERY_S + 1, 2 * SUMMARY_EVERY_S + 2):  # a window with, and one without a repeat
        log(handler, "stream.app", "ready")
    log(handler, "kafka.conn", "away")
    assert stream.getvalue().splitlines() == ["away", "away repeated=2 in_s=31", "ready", "ready", "away"]


def test_lines_of_ours_and_of_other_kinds_are_all_written(handler: BoundedHandler, stream: io.StringIO) -> None:
    for _ in range(3):
        log(handler, "stream.app", "ready")
        log(handler, "aiokafkaesque", "other")
    log(handler, "mode.timers", "overlaps %s", 1)
    log(handler, "mode.timers", "sleeps %s", 1)
    handler.handle(logging.LogRecord("mode.timers", logging.ERROR, "", 0, "sleeps %s", (1,), None))
    assert len(stream.getvalue().splitlines()) == 9


def test_a_count_is_written_though_nothing_follows(
    stream: io.StringIO, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "SUMMARY_EVERY_S", 0.01)
    handler = BoundedHandler(stream, clock)
    log(handler, "kafka", "away")
    log(handler, "kafka", "away")
    timer = handler._timer
    assert timer is not None
    clock.now = 1.0
    timer.join(10.0)
    assert stream.getvalue().splitlines() == ["away", "away repeated=1 in_s=1"]


def test_the_memory_for_kinds_is_bounded(
    handler: BoundedHandler, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "MAX_KINDS", 2)
    for word in ("a", "b", "c", "c"):
        log(handler, "kafka", word)
    assert stream.getvalue().splitlines() == ["a", "b", "c", "c"]
    assert len(handler._kinds) == 2
