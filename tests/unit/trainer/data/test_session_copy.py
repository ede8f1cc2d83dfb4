from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.records import encode
from tests.unit.trainer.made import session
from trainer.data.log_reader import LogReader
from trainer.data.session_copy import COPY_LIFE_S, SessionCopy


class Log(LogReader):
    """A topic in memory, read as LogReader reads one; `fetched` counts what was handed out."""

    def __init__(self, partitions: int = 2, topic: str = "sessions") -> None:
        self.topic = topic
        self.records: dict[int, list[tuple[bytes, bytes | None]]] = {n: [] for n in range(partitions)}
        self.fetched = 0
        self.id = "cluster/topic"

    def add(self, partition: int, key: bytes, value: object) -> None:
        raw = value if value is None or isinstance(value, bytes) else encode(value)
        self.records[partition].append((key, raw))

    def identity(self) -> str:
        return self.id

    def bounds(self) -> dict[int, tuple[int, int]]:
        return {n: (0, len(records)) for n, records in self.records.items()}

    def read(
        self, spans: Mapping[int, tuple[int, int]], stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[list[Any], dict[int, int]]]:
        for partition, (start, end) in spans.items():
            for at in range(start, end, 3):
                offsets = range(at, min(at + 3, end))
                if stopping():
                    return
                self.fetched += len(offsets)
                records = [
                    SimpleNamespace(topic=self.topic, partition=partition, offset=offset, key=key, value=value)
                    for offset in offsets
                    for key, value in [self.records[partition][offset]]
                ]
                yield records, {partition: offsets[-1] + 1}


def test_a_record_is_read_once_and_a_session_that_grew_replaces_itself() -> None:
    log, copy = Log(), SessionCopy()
    key, short = session("u", [("a", 1.0, None, None)])
    _, grown = session("u", [("a", 1.0, None, None), ("b", 2.0, None, None)])
    log.add(0, key, short)
    log.add(1, *session("v", [("a", 1.0, None, None)]))
    assert copy.update(log, now=0.0) == 2
    assert copy.events == 2
    log.add(0, key, grown)
    assert copy.update(log, now=1.0) == 1
    assert copy.update(log, now=2.0) == 0
    assert log.fetched == 3
    assert copy.events == 3
    assert dict(copy.sessions())[key] == grown
    assert copy.offsets == {0: 2, 1: 1}


def test_null_removes_a_session() -> None:
    log, copy = Log(), SessionCopy()
    key, record = session("u", [("a", 1.0, None, None)])
    log.add(0, key, record)
    copy.update(log, now=0.0)
    log.add(0, key, None)
    copy.update(log, now=1.0)
    assert list(copy.sessions()) == []


EVENTS = [(item, float(n), None, None) for n, item in enumerate("abcd", start=1)]


@pytest.mark.parametrize("updates", [1, 2])
def test_a_shorter_session_that_comes_later_is_an_older_one(updates: int) -> None:
    """As records of a worker that was cut off, which arrive after those of the partition's new owner."""
    log, copy = Log(), SessionCopy()
    key, longer = session("u", EVENTS[:3])
    log.add(0, key, longer)
    if updates == 2:
        copy.update(log, now=0.0)
    log.add(0, *session("u", EVENTS[:2]))
    copy.update(log, now=1.0)
    assert dict(copy.sessions()) == {key: longer}
    assert copy.events == 3
    _, whole = session("u", EVENTS)
    log.add(0, key, whole)
    copy.update(log, now=2.0)
    assert dict(copy.sessions()) == {key: whole}


@pytest.mark.parametrize("updates", [1, 2])
def test_of_two_sessions_of_as_many_events_the_later_is_kept(updates: int) -> None:
    log, copy = Log(), SessionCopy()
    key, first = session("u", EVENTS[:2])
    log.add(0, key, first)
    if updates == 2:
        copy.update(log, now=0.0)
    _, later = session("u", [EVENTS[0], ("other", 2.0, None, None)])
    log.add(0, key, later)
    copy.update(log, now=1.0)
    assert dict(copy.sessions()) == {key: later}


@pytest.mark.parametrize("updates", [1, 2])
def test_a_session_that_follows_a_null_may_be_shorter(updates: int) -> None:
    log, copy = Log(), SessionCopy()
    key, record = session("u", EVENTS[:3])
    log.add(0, key, record)
    if updates == 2:
        copy.update(log, now=0.0)
    _, begun = session("u", EVENTS[3:])
    log.add(0, key, None)
    log.add(0, key, begun)
    copy.update(log, now=1.0)
    assert dict(copy.sessions()) == {key: begun}


def test_what_holds_no_session_is_counted_and_leaves_the_one_before(caplog: pytest.LogCaptureFixture) -> None:
    log, copy = Log(), SessionCopy()
    key, record = session("u", [("a", 1.0, None, None)])
    log.add(0, key, record)
    copy.update(log, now=0.0)
    log.add(0, key, b"\xff{")
    log.add(0, b"other", b"{}")
    copy.update(log, now=1.0)
    assert copy.bad_records == 2
    assert dict(copy.sessions()) == {key: record}
    assert "partition=0 offset=1" in caplog.text


def test_a_file_is_gone_on_with_where_it_ended(tmp_path: Path) -> None:
    log, path = Log(), tmp_path / "made" / "sessions.sqlite"
    log.add(0, *session("u", [("a", 1.0, None, None)]))
    first = SessionCopy(path)
    first.update(log, now=0.0)
    first.close()
    again = SessionCopy(path)
    assert again.events == 1
    assert again.update(log, now=COPY_LIFE_S - 1) == 0


@pytest.mark.parametrize("reason", ["old", "shorter", "another"])
def test_a_copy_that_may_be_wrong_is_made_anew(reason: str) -> None:
    log, copy = Log(), SessionCopy()
    for n in range(4):
        log.add(0, *session(f"u{n}", [("a", 1.0, None, None)]))
    copy.update(log, now=0.0)
    other = Log(topic="sessions" if reason != "another" else "shop-sessions")
    other.records[0] = log.records[0][: 2 if reason == "shorter" else 4]
    copy.update(other, now=COPY_LIFE_S + 1 if reason == "old" else 1.0)
    assert other.fetched == copy.events == len(other.records[0])


def test_stopped_halfway_it_goes_on_later_with_what_is_missing() -> None:
    log, copy = Log(), SessionCopy()
    for n in range(9):
        log.add(0, *session(f"u{n}", [("a", 1.0, None, None)]))
    answers = iter([False, True, True, True])
    copy.update(log, now=0.0, stopping=lambda: next(answers))
    assert copy.events == 3
    copy.update(log, now=1.0)
    assert copy.events == log.fetched == 9


def test_the_lag_falls_while_a_topic_is_read() -> None:
    log, copy = Log(partitions=2), SessionCopy()
    for n in range(7):
        log.add(n % 2, *session(f"u{n}", [("a", 1.0, None, None)]))
    lags: list[int] = []

    def never() -> bool:
        lags.append(copy.lag)
        return False

    copy.update(log, now=0.0, stopping=never)
    assert lags[0] == 7
    assert lags == sorted(lags, reverse=True)
    assert copy.lag == 0
