"""The RocksDB stores of a table: identity, damage, and a full disk.

Facts of RocksDB that this depends on (rocksdict 0.3.29, tests/unit/stream/faust_patches/test_stores.py):

- garbage in CURRENT or MANIFEST and a missing or truncated table file fail when a store is opened. One wrong byte in a
  table file opens without an error. Then `get` raises, and iteration ends early: only the iterator's status shows it;
- opening a store drops the last writes of a damaged log file (WAL). Writes are recovered in their order, so the
  persisted offset, written after its data, never exceeds the recovered data;
- after a failed write all further writes fail until the store is opened again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rocksdict

from stream.stages.sending import NotSent

log = logging.getLogger(__name__)

OFFSET_KEY = b"__faust\0offset__"  # Faust's key of the last changelog offset in a store
IDENTITY_KEY = b"\0store"


def is_of_user_or_item(key: bytes) -> bool:
    """Return whether a key is a user's or an item's: their ids contain no NUL."""
    return not key.startswith(b"\0") and key != OFFSET_KEY


# Errors of a store that may be intact: deleting it would not help.
NOT_DAMAGE = (
    *("/LOCK", "No space left on device", "Too many open files", "Permission denied", "Read-only file system"),
    *("Cannot allocate memory", "Disk quota exceeded"),
)


class StoreFailed(NotSent):
    """A store could not be read or written. Its partition must be restored before its events are read again."""

    kind: str

    def __init__(self, partition: int, text: str) -> None:
        super().__init__(text)
        self.partition = partition

    def again(self) -> StoreFailed:
        """Return this failure without its traceback, which would grow with every raise."""
        return type(self)(self.partition, str(self))


class StoreDamaged(StoreFailed):
    """A damaged store: it is deleted and restored."""

    kind = "damaged"


class StoreNotWritable(StoreFailed):
    """A failed write to a store that may be intact, as on a full disk: it must be opened again."""

    kind = "not_writable"


@dataclass(frozen=True)
class StoreIdentity:
    """The cluster, changelog and partition that a store is a copy of. An empty id is unknown."""

    cluster_id: str
    topic: str
    topic_id: str
    """Changes when a changelog is re-created."""
    partition: int

    def contradicts(self, other: StoreIdentity) -> bool:
        """Return whether any id known to both differs."""
        mine, theirs = asdict(self), asdict(other)
        return any(mine[name] != theirs[name] for name in mine if "" not in (mine[name], theirs[name]))

    def knows_less_than(self, other: StoreIdentity) -> bool:
        """Return whether the other knows an id that is unknown here."""
        return ("" in asdict(self).values()) and self != other


class TableStores:
    """A table's stores by partition, opened at first use. A failed store is not used until it is restored.

    No local variable holds a handle where RocksDB may raise: the traceback would keep a damaged store and its lock
    alive.
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        self.failed: dict[int, StoreFailed] = {}

    def get(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Read the values of many keys at once."""
        try:
            values: list[bytes | None] = self._open(partition).get(keys)
        except StoreFailed:
            raise
        except Exception as error:  # rocksdict raises plain Exception
            raise self._read_failed(partition, error) from error
        return values

    def values(self, partition: int) -> Iterator[bytes]:
        """Yield the value of every user or item."""
        iterator = self._open(partition).iter()
        iterator.seek_to_first()
        while iterator.valid():
            if is_of_user_or_item(iterator.key()):
                yield iterator.value()
            iterator.next()
        failure = None
        try:
            iterator.status()  # iteration over a damaged store just ends early
        except Exception as error:
            failure = error
        del iterator
        if failure is not None:
            raise self._read_failed(partition, failure) from failure

    def write(self, partition: int, batch: rocksdict.WriteBatch) -> None:
        """Write a batch atomically."""
        try:
            self._open(partition).write(batch)
        except StoreFailed:
            raise
        except Exception as error:
            raise self._write_failed(partition, error) from error

    def offset(self, partition: int) -> int | None:
        """Return the last changelog offset in a store."""
        (held,) = self.get(partition, [OFFSET_KEY])
        return None if held is None else int(held)

    def set_offset(self, partition: int, offset: int) -> None:
        """Set the last changelog offset in a store; called after writing the data, so that it never exceeds them."""
        self._put(partition, OFFSET_KEY, str(offset).encode())

    def identity(self, partition: int) -> StoreIdentity | None:
        """Return a store's identity; None for a new one and for one of an earlier release."""
        (held,) = self.get(partition, [IDENTITY_KEY])
        try:
            return None if held is None else StoreIdentity(**json.loads(held))
        except (ValueError, TypeError) as error:
            raise StoreDamaged(partition, f"the identity of a store can't be read: {error}") from None

    def set_identity(self, partition: int, identity: StoreIdentity) -> None:
        """Write a store's identity."""
        self._put(partition, IDENTITY_KEY, json.dumps(asdict(identity)).encode())

    def forget(self, partition: int) -> None:
        """Release a store that another worker may open now."""
        self.failed.pop(partition, None)
        self._table.data._dbs.pop(partition, None)

    def reopen(self, partition: int) -> None:
        """Close a store, so that its next use opens it again."""
        self.failed.pop(partition, None)
        db = self._table.data._dbs.pop(partition, None)
        if db is not None:
            with contextlib.suppress(Exception):  # it closes anyway; its unwritten data are in its WAL
                db.close()

    def delete(self, partition: int) -> None:
        """Close a store and delete its files."""
        self.reopen(partition)
        path: Path = self._table.data.partition_path(partition)
        # renamed first: a partly deleted store might open as an older one
        doomed = path.with_name(f"{path.name}.deleted")
        shutil.rmtree(doomed, ignore_errors=True)
        if path.exists():
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _put(self, partition: int, key: bytes, value: bytes) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.put(key, value)
        self.write(partition, batch)

    def _open(self, partition: int) -> Any:
        if partition in self.failed:
            raise self.failed[partition].again()
        try:
            return self._table.data._db_for_partition(partition)
        except Exception as error:
            raise self._read_failed(partition, error) from error

    def _read_failed(self, partition: int, error: Exception) -> Exception:
        # rocksdict raises plain Exception for errors of RocksDB; a lock means that another process has the store
        if type(error) is not Exception or "/LOCK" in str(error):
            return error
        if any(text in str(error) for text in NOT_DAMAGE):
            return self._failed(StoreNotWritable(partition, f"store failed partition={partition} error={error}"))
        return self._failed(StoreDamaged(partition, f"store is damaged partition={partition} error={error}"))

    def _write_failed(self, partition: int, error: Exception) -> StoreFailed:
        if str(error).startswith("Corruption"):
            return self._failed(StoreDamaged(partition, f"store is damaged partition={partition} error={error}"))
        return self._failed(StoreNotWritable(partition, f"store write failed partition={partition} error={error}"))

    def _failed(self, failure: StoreFailed) -> StoreFailed:
        self.failed[failure.partition] = failure.again()
        return failure
