"""The SQLite file of the local copy: open it, detect damage, delete it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

SCHEMA = 2  # 1 had no user hashes and no checksums
LOCK_WAIT_S = 5.0  # long enough for a backup that reads the file

_TABLES = f"""
CREATE TABLE IF NOT EXISTS sessions (
    user_hash INTEGER NOT NULL, key BLOB NOT NULL, until REAL NOT NULL, events INTEGER NOT NULL,
    checksum INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (user_hash, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sizes ON sessions (user_hash, until, events);
CREATE TABLE IF NOT EXISTS positions (
    partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value NOT NULL);
PRAGMA user_version = {SCHEMA};
"""

# SQLITE_ERROR: a statement does not fit the tables. Ours are constant, so the tables are not ours
_DAMAGE = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_INTERNAL,
}
_DAMAGE_EXTENDED = {sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED}  # truncated, removed


class CopyUnusable(RuntimeError):
    """The copy's file cannot be used, and deleting it would not help."""


class DamagedCopy(RuntimeError):
    """The copy was damaged. It is deleted and read again from Kafka."""


def open_copy(path: Path | None) -> sqlite3.Connection:
    """Open the file, or a database in memory; raises sqlite3.Error, CopyUnusable.

    It does not run PRAGMA quick_check, which reads the whole file, a second per GiB, and finds no flipped byte of a
    value. A run detects damage when it reads: SQLite checks its pages, and each value has a checksum.
    """
    if path is not None:
        _prepare(path)
    # the service's thread uses the connection of the main thread
    database = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=LOCK_WAIT_S)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and version != SCHEMA:
            raise DamagedCopy(f"its tables have version {version}, not {SCHEMA}")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_TABLES)
        database.execute("SELECT user_hash, key, until, events, checksum, value FROM sessions LIMIT 1").fetchone()
        database.execute("SELECT partition, next_offset, checksum FROM positions LIMIT 1").fetchone()
        database.execute("SELECT name, value FROM facts LIMIT 1").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def is_damage(error: Exception) -> bool:
    """Return whether an error means wrong content, not a lock, a full disk or missing permissions."""
    if isinstance(error, DamagedCopy):
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the module itself, for example for invalid UTF-8
        return isinstance(error, sqlite3.OperationalError | sqlite3.DataError)
    return code & 0xFF in _DAMAGE or code in _DAMAGE_EXTENDED


def delete_copy(path: Path) -> None:
    """Delete the file and SQLite's files beside it; raises CopyUnusable."""
    try:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise CopyUnusable(f"{path} is damaged and cannot be deleted: {error}") from None


def why_unusable(path: Path | None, error: sqlite3.Error) -> CopyUnusable:
    """Return a readable reason why the file cannot be opened."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return CopyUnusable(f"{path} is locked by another process: each trainer needs its own HRNN_TRAINER_DIR")
    return CopyUnusable(f"{path} cannot be opened: {error}; HRNN_TRAINER_DIR must be a folder that can be written to")


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            path.rmdir()  # a container's mount leaves an empty folder if there was no file
    except OSError as error:
        raise CopyUnusable(
            f"{path} cannot be created: {error}; HRNN_TRAINER_DIR must be a folder that can be written to"
        ) from None
