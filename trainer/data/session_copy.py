"""The local copy of the compacted `sessions` topic: each record is read from Kafka once."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from models.records import SessionRecord, count_session_events, decode_session
from trainer.data.copy_file import DamagedCopy, delete_copy, is_damage, open_copy, why_unusable
from trainer.data.log_reader import LogReader
from trainer.data.selection import ALL, EVERYTHING, Limits, Selection, sample, user_hash, user_of_key
from trainer.data.session_check import BadSession, check_session
from trainer.terminal import progress

COPY_LIFE_S = 12 * 3600.0
"""An older copy is read again: Kafka drops tombstones after delete.retention.ms (1 day by default)."""

MOST_BAD_LOGGED = 100
"""Bad records that are logged; all are counted in rec_bad_session_records."""

# A session only grows: a later shorter record is an older version, of a worker that lost the partition.
_KEEP_LONGER = """
INSERT INTO sessions (user_hash, key, until, events, checksum, value) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (user_hash, key) DO UPDATE
SET until = excluded.until, events = excluded.events, checksum = excluded.checksum, value = excluded.value
WHERE excluded.events >= sessions.events
"""

log = logging.getLogger(__name__)


class SessionCopy:
    """A copy of `sessions`: the longest record of each key, and the next offsets.

    It is an SQLite database, in memory or in a file, because records and offsets must be written in one transaction. It
    is a cache: a damaged file is deleted, and the next update reads the topic again.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the copy at a path, or one in memory that ends with the process; raises CopyUnusable."""
        self._path = path
        self._database = self._opened()
        self.bad_records = 0
        self.lag = 0  # records that a running update has not read yet

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def offsets(self) -> dict[int, int]:
        """The next offset of each partition."""
        with self._healing():
            found = self._database.execute("SELECT partition, next_offset, checksum FROM positions ORDER BY partition")
            offsets = {}
            for partition, offset, checksum in found:
                if _position_checksum(partition, offset) != checksum:
                    raise DamagedCopy(f"the offset of partition {partition} is not what was written")
                offsets[partition] = offset
            return offsets

    @property
    def events(self) -> int:
        """The number of events in all sessions."""
        with self._healing():
            (count,) = self._database.execute("SELECT sum(events) FROM sessions INDEXED BY sizes").fetchone()
            return _integer(count or 0)

    def update(self, reader: LogReader, now: float, stopping: Callable[[], bool] = lambda: False) -> int:
        """Read the new records, up to the topic's end at the start; returns their number.

        After a stop the copy is valid but incomplete: a training run must not use it. Raises DamagedCopy if the file
        was damaged: it is deleted, and the next update reads the whole topic.
        """
        with self._healing():
            return self._update(reader, now, stopping)

    def _update(self, reader: LogReader, now: float, stopping: Callable[[], bool]) -> int:
        bounds, identity = reader.bounds(), reader.identity()
        if reason := self._stale(reader.topic, identity, bounds, now):
            log.info("reading all of %s: %s", reader.topic, reason)
            self._clear()
            # now, so that a stopped first read is continued
            self._note(topic=reader.topic, identity=identity, read_at=now)
        offsets = self.offsets
        spans = {n: (max(offsets.get(n, 0), first), end) for n, (first, end) in bounds.items()}
        self.lag = left = sum(end - start for start, end in spans.values())
        at = {n: start for n, (start, _) in spans.items()}
        records = 0
        with progress(f"reading {reader.topic}", left) as advance:
            for batch, positions in reader.read(spans, stopping):
                self._apply(batch, positions, now)
                records += len(batch)
                at.update(positions)
                self.lag = sum(end - at[n] for n, (_, end) in spans.items())
                advance(len(batch), "")
        if not stopping():
            self._apply([], {n: end for n, (_, end) in spans.items()}, now)
            self.lag = 0
            self._note(topic=reader.topic, identity=identity, read_at=now)
        return records

    def select(self, limits: Limits = EVERYTHING) -> Selection:
        """Return the selection of sessions to train on; raises DamagedCopy."""
        with self._healing():
            since = -math.inf
            if limits.window_s:
                (newest,) = self._database.execute("SELECT max(until) FROM sessions").fetchone()
                since = float(newest or 0.0) - limits.window_s
            by_user = self._database.execute(
                "SELECT user_hash, sum(events) FROM sessions INDEXED BY sizes WHERE until > ?"
                " GROUP BY user_hash ORDER BY user_hash",
                (since,),
            )
            return sample([(hashed, _integer(events)) for hashed, events in by_user], since, limits.max_events)

    def sessions(self, selection: Selection = ALL) -> Iterator[tuple[bytes, SessionRecord]]:
        """Yield the selected sessions with their keys, user by user; raises DamagedCopy.

        Values are checked against their checksums, and the totals against the index, which is a separate tree.
        """
        asked = (selection.since, selection.hash_below)
        with self._healing():
            expected = self._database.execute(
                "SELECT count(*), coalesce(sum(events), 0) FROM sessions INDEXED BY sizes"
                " WHERE until > ? AND user_hash < ?",
                asked,
            ).fetchone()
            found = counted = 0
            for user, key, checksum, events, value in self._database.execute(
                "SELECT user_hash, key, checksum, events, value FROM sessions NOT INDEXED"
                " WHERE until > ? AND user_hash < ?",
                asked,
            ):
                found += 1
                counted += events
                if crc32(value, crc32(key)) != checksum:
                    raise DamagedCopy(f"the session {key[:40]!r} is not what was written")
                if user not in selection.machines:
                    yield key, decode_session(value)
            if (found, counted) != expected:
                raise DamagedCopy(f"it has {(found, counted)} sessions and events where its index has {expected}")

    def _opened(self) -> sqlite3.Connection:
        """Open the file. A damaged one is deleted first."""
        try:
            try:
                return open_copy(self._path)
            except (sqlite3.Error, DamagedCopy) as error:
                if self._path is None or not is_damage(error):
                    raise
                log.warning("local copy damaged, deleted, reading it again: path=%s: %s", self._path, error)
                delete_copy(self._path)
                return open_copy(self._path)
        except sqlite3.Error as error:
            raise why_unusable(self._path, error) from None

    @contextmanager
    def _healing(self) -> Iterator[None]:
        """Replace the file by an empty one if an error inside shows damage, then raise DamagedCopy."""
        try:
            yield
        except (sqlite3.Error, DamagedCopy) as error:
            if self._path is None or not is_damage(error):
                raise
            log.warning("local copy damaged, deleted, reading it again: path=%s: %s", self._path, error)
            self._database.close()
            delete_copy(self._path)
            self._database = self._opened()
            raise DamagedCopy(f"{self._path} was damaged and is read again: {error}") from None

    def _stale(self, topic: str, identity: str, bounds: dict[int, tuple[int, int]], now: float) -> str:
        """Return why the copy can't be continued, "" if it can."""
        facts = dict(self._database.execute("SELECT name, value FROM facts"))
        if not facts.keys() >= {"topic", "identity", "read_at"} or not isinstance(facts["read_at"], float):
            return "there is no copy yet"
        if facts["topic"] != topic:
            return f"the copy is of {facts['topic']}"
        if identity and facts["identity"] and facts["identity"] != identity:
            return f"the topic was re-created or is another cluster's: {identity}, the copy is of {facts['identity']}"
        if not 0 <= now - facts["read_at"] <= COPY_LIFE_S:
            return f"the copy is {(now - facts['read_at']) / 3600:.0f} h old and may have sessions that were erased"
        if any(offset > bounds.get(n, (0, 0))[1] for n, offset in self.offsets.items()):
            return "the topic ends before the copy, so it is another one"
        return ""

    def _clear(self) -> None:
        with self._database as transaction:
            for table in ("sessions", "positions", "facts"):
                transaction.execute(f"DELETE FROM {table}")

    def _note(self, **facts: str | float) -> None:
        with self._database as transaction:
            transaction.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def _apply(self, records: list[Any], positions: dict[int, int], now: float) -> None:
        """Write records and the next offsets in one transaction."""
        of_keys: dict[bytes | None, list[Any]] = {}
        for record in records:
            of_keys.setdefault(record.key, []).append(record)
        written: list[tuple[int, bytes, float, int, int, bytes]] = []
        removed: list[tuple[int, bytes]] = []
        for key, of_key in of_keys.items():
            try:
                if key is None:
                    raise BadSession("it has no key")
                user = user_hash(user_of_key(key))
            except (UnicodeDecodeError, BadSession) as error:
                self._skip(of_key[-1], error)
                continue
            nulls = [n for n, record in enumerate(of_key) if record.value is None]
            if nulls:
                removed.append((user, key))
                of_key = of_key[nulls[-1] + 1 :]
            found = self._longest(of_key, now)
            if found is not None:
                session, value = found
                until = max(event[1] for event in session.events)
                written.append((user, key, until, len(session.events), crc32(value, crc32(key)), value))
        with self._database as transaction:
            # deletes first: a batch keeps only the records after a null
            transaction.executemany("DELETE FROM sessions WHERE user_hash = ? AND key = ?", removed)
            transaction.executemany(_KEEP_LONGER, written)
            transaction.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                [(n, offset, _position_checksum(n, offset)) for n, offset in positions.items()],
            )

    def _longest(self, records: list[Any], now: float) -> tuple[SessionRecord, bytes] | None:
        """Return the session with most events (the later one of equals) of one key's records, and its bytes.

        A growing session has many records: their events are counted, and only the longest is decoded.
        """
        counted: list[tuple[int, int, Any]] = []
        for number, record in enumerate(records):
            try:
                counted.append((count_session_events(record.value), number, record))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._skip(record, error)
        for _, _, record in sorted(counted, key=itemgetter(0, 1), reverse=True):
            try:
                session = decode_session(record.value)
                check_session(session, now)
            except (msgspec.DecodeError, UnicodeDecodeError, BadSession) as error:
                self._skip(record, error)
            else:
                return session, record.value
        return None

    def _skip(self, record: Any, error: Exception) -> None:
        """Count a bad record. Only the first ones are logged: a topic may be full of them."""
        self.bad_records += 1
        level = logging.WARNING if self.bad_records <= MOST_BAD_LOGGED else logging.DEBUG
        log.log(
            level,
            "bad session record skipped topic=%s partition=%d offset=%d: %s",
            record.topic,
            record.partition,
            record.offset,
            error,
        )


def _position_checksum(partition: object, offset: object) -> int:
    return crc32(f"{partition}:{offset}".encode())


def _integer(value: object) -> int:
    """Return an integer of SQLite; damage may have changed its type."""
    if not isinstance(value, int):
        raise DamagedCopy(f"a number of events is {value!r}")
    return value
