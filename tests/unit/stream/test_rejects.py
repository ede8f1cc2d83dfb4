from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from models.contracts import BadRecord
from stream.rejects import headers_of, send_dead_letters


def record(**more: Any) -> Any:
    given = {"topic": "interactions", "partition": 3, "offset": 77, "timestamp": 1_700_000_000_123}
    return SimpleNamespace(**(given | {"key": b"k", "value": b"v", "headers": ()} | more))


class Producer:
    """Takes what is sent, and keeps it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    async def send(self, topic: str, **more: Any) -> asyncio.Future[object]:
        self.sent.append((topic, more))
        return asyncio.get_running_loop().create_future()


def test_headers_say_why_and_where() -> None:
    assert dict(headers_of(record(), BadRecord("late", "a day before ‘now’"))) == {
        "reason": b"late",
        "detail": "a day before ‘now’".encode(),
        "source-topic": b"interactions",
        "source-partition": b"3",
        "source-offset": b"77",
        "source-timestamp": b"1700000000123",
    }


def test_a_records_own_headers_are_kept_and_cannot_pass_for_ours() -> None:
    forged = (("trace", b"7"), ("reason", b"forged"), ("source-offset", b"0"))
    headers = headers_of(record(headers=forged), BadRecord("late", "x"))
    assert headers[:3] == list(forged)
    assert dict(headers)["reason"] == b"late", "readers take the last of a name"
    assert dict(headers)["source-offset"] == b"77"
    assert dict(headers)["trace"] == b"7"


def test_a_long_detail_is_cut() -> None:
    detail = dict(headers_of(record(), BadRecord("not_json", "x" * 5000)))["detail"]
    assert len(detail) == 1000


async def test_records_go_as_they_came() -> None:
    producer = Producer()
    rejects = [
        (record(), BadRecord("late", "")),
        (record(value=None), BadRecord("null_value", "")),
        (record(key=None), BadRecord("late", "")),
        (record(key=None, value=None), BadRecord("null_value", "")),
    ]
    futures = await send_dead_letters(producer, "dead", rejects)  # type: ignore[arg-type]
    assert len(futures) == len(rejects)
    assert [(topic, more["key"], more["value"]) for topic, more in producer.sent] == [
        ("dead", b"k", b"v"),
        ("dead", b"k", None),
        ("dead", None, b"v"),
        ("dead", None, b""),  # Kafka's clients send no record of nothing
    ]
