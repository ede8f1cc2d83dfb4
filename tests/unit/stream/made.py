"""Stores, states and a producer for the tests of what a table keeps: RocksDB is real, the table is not Faust's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rocksdict

from models.users import state
from models.users.state import UserState
from stream.faust_patches.changelog import Changelog

TOPIC = "hrnn-users-changelog"


class Store:
    """What a changelog uses of Faust's store, on RocksDB itself."""

    def __init__(self, folder: Path, write_buffer_bytes: int = 64 * 1024) -> None:
        self._folder = folder
        self._write_buffer_bytes = write_buffer_bytes
        self._dbs: dict[int, rocksdict.Rdict] = {}

    def partition_path(self, partition: int) -> Path:
        return self._folder / f"users-{partition}.db"

    def _db_for_partition(self, partition: int) -> rocksdict.Rdict:
        if partition not in self._dbs:
            options = rocksdict.Options(raw_mode=True)
            options.create_if_missing(True)
            options.set_write_buffer_size(self._write_buffer_bytes)
            self._dbs[partition] = rocksdict.Rdict(str(self.partition_path(partition)), options)
        return self._dbs[partition]

    def close(self) -> None:
        for db in self._dbs.values():
            db.close()
        self._dbs.clear()


def made_changelog(folder: Path, on_foreign: Callable[[int], None] = lambda records: None, **store: Any) -> Changelog:
    table = SimpleNamespace(changelog_topic_name=TOPIC, data=Store(folder, **store))
    return Changelog(table, state.applied_offset, {}, on_foreign)


def value(applied: int, copy: int = 0) -> bytes:
    """A state of an applied offset; `copy` makes it differ from others of that offset, as a swap between does."""
    return state.encode(UserState(applied, {}, [], 0.0, 0, 0, b"", 0, f"v{copy}", [], 1))


def records(*pairs: tuple[bytes, bytes | None]) -> list[Any]:
    return [SimpleNamespace(key=key, value=value) for key, value in pairs]


class Producer:
    """Gives each append the next offset that a test names: a number, or an error; None: the ack is yet to come."""

    def __init__(self, *acks: int | Exception | None) -> None:
        self.acks = iter(acks)
        self.sent: list[list[tuple[bytes, bytes]]] = []
        self.futures: list[asyncio.Future[Any]] = []

    def create_batch(self) -> Any:
        pairs: list[tuple[bytes, bytes]] = []

        def add(*, key: bytes, value: bytes, timestamp: None) -> object | None:
            if len(pairs) == 3:  # as much as fits a batch
                return None
            pairs.append((key, value))
            return object()

        return SimpleNamespace(append=add, close=lambda: None, record_count=lambda: len(pairs), pairs=pairs)

    async def send_batch(self, builder: Any, topic: str, *, partition: int) -> Any:
        self.sent.append(builder.pairs)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        self.ack(future, next(self.acks))
        return future

    @staticmethod
    def ack(future: asyncio.Future[Any], ack: int | Exception | None) -> None:
        if isinstance(ack, Exception):
            future.set_exception(ack)
            future.exception()  # looked at: else asyncio warns where a test does not
        elif ack is not None:
            future.set_result(SimpleNamespace(offset=ack))
