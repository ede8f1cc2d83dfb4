"""The local copy of the compacted `sessions` topic: each record is read from Kafka once."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from models.contracts import SessionRecord, decode_session
from trainer.log_reader import LogReader
from trainer.terminal import progress

COPY_LIFE_S = 12 * 3600.0
"""An idle copy older than this is read anew: Kafka forgets a removal after delete.retention.ms (1 day by default)."""

_TABLES = """
CREATE TABLE IF NOT EXISTS sessions (key BLOB PRIMARY KEY, value BLOB NOT NULL, events INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value NOT NULL);
"""

log = logging.getLogger(__name__)


class SessionCopy:
    """What `sessions` holds, by key, and the offsets that it was read up to.

    In SQLite, because records and offsets must be written together or not at all, in memory or in a file.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the copy at a path, or one in memory that ends with the process."""
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        # the service's thread uses what the command line's thread has made
        self._database = sqlite3.connect(path or ":memory:", check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_TABLES)
        self.bad_records = 0
        self.lag = 0  # records that an update under way has yet to read

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def offsets(self) -> dict[int, int]:
        """Give partition -> the offset to go on from."""
        return dict(self._database.execute("SELECT partition, next_offset FROM positions ORDER BY partition"))

    @property
    def events(self) -> int:
        """Count the events of all sessions."""
        (count,) = self._database.execute("SELECT coalesce(sum(events), 0) FROM sessions").fetchone()
        return int(count)

    def update(self, reader: LogReader, now: float, stopping: Callable[[], bool] = lambda: False) -> int:
        """Read what came since the last time, up to the end as it is at the start -> records read.

        Stopped halfway, the copy is sound but short of that end, which a training run must not start from.
        """
        bounds = reader.bounds()
        if reason := self._stale(reader.topic, bounds, now):
            log.info("reading all of %s: %s", reader.topic, reason)
            self._clear()
            self._note(topic=reader.topic, read_at=now)  # already: a first read that is stopped is gone on with
        offsets = self.offsets
        spans = {n: (max(offsets.get(n, 0), first), end) for n, (first, end) in bounds.items()}
        self.lag = left = sum(end - start for start, end in spans.values())
        at = {n: start for n, (start, _) in spans.items()}
        records = 0
        with progress(f"reading {reader.topic}", left) as advance:
            for batch, positions in reader.read(spans, stopping):
                self._apply(batch, positions)
                records += len(batch)
                at.update(positions)
                self.lag = sum(end - at[n] for n, (_, end) in spans.items())
                advance(len(batch), "")
        if not stopping():
            self._apply([], {n: end for n, (_, end) in spans.items()})
            self.lag = 0
            self._note(topic=reader.topic, read_at=now)
        return records

    def sessions(self) -> Iterator[tuple[bytes, SessionRecord]]:
        """Give every session with its key, in the order of the keys' bytes."""
        for key, value in self._database.execute("SELECT key, value FROM sessions ORDER BY key"):
            yield key, decode_session(value)

    def _stale(self, topic: str, bounds: dict[int, tuple[int, int]], now: float) -> str:
        """Say why the copy can't be gone on with; empty if it can."""
        facts = dict(self._database.execute("SELECT name, value FROM facts"))
        if not facts:
            return "first time"
        if facts["topic"] != topic:
            return f"the copy is of {facts['topic']}"
        if now - facts["read_at"] > COPY_LIFE_S:
            return f"the copy is {(now - facts['read_at']) / 3600:.0f} h old and may hold what was erased since"
        if any(offset > bounds.get(n, (0, 0))[1] for n, offset in self.offsets.items()):
            return "the topic ends before the copy does, so it is another one"
        return ""

    def _clear(self) -> None:
        with self._database as transaction:
            for table in ("sessions", "positions", "facts"):
                transaction.execute(f"DELETE FROM {table}")

    def _note(self, **facts: str | float) -> None:
        with self._database as transaction:
            transaction.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def _apply(self, records: list[Any], positions: dict[int, int]) -> None:
        """Write records and the offsets after them, at once."""
        newest = {record.key: record for record in records}  # a session that grew comes many times: decode it once
        written: list[tuple[bytes, bytes, int]] = []
        removed: list[tuple[bytes]] = []
        for key, record in newest.items():
            if record.value is None:
                removed.append((key,))
                continue
            try:
                written.append((key, record.value, len(decode_session(record.value).events)))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self.bad_records += 1
                log.warning(
                    "no session topic=%s partition=%d offset=%d: %s",
                    record.topic,
                    record.partition,
                    record.offset,
                    error,
                )
        with self._database as transaction:
            transaction.executemany("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)", written)
            transaction.executemany("DELETE FROM sessions WHERE key = ?", removed)
            transaction.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", positions.items())
