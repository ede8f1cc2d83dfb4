"""Merging a changelog into a store: RocksDB is real, the table around it stands in for Faust's."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rocksdict
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from models import state
from models.state import UserState
from stream.changelog import Changelog

OFFSET_KEY = b"__faust\0offset__"


class Store:
    """What a changelog uses of Faust's store, on RocksDB itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dbs: dict[int, rocksdict.Rdict] = {}

    def partition_path(self, partition: int) -> Path:
        return self._folder / f"users-{partition}.db"

    def _db_for_partition(self, partition: int) -> rocksdict.Rdict:
        if partition not in self._dbs:
            options = rocksdict.Options(raw_mode=True)
            options.create_if_missing(True)
            self._dbs[partition] = rocksdict.Rdict(str(self.partition_path(partition)), options)
        return self._dbs[partition]

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        self._db_for_partition(tp.partition).put(OFFSET_KEY, str(offset).encode())

    def persisted_offset(self, tp: TP) -> int:
        return int(self._db_for_partition(tp.partition)[OFFSET_KEY])

    def close(self) -> None:
        for db in self._dbs.values():
            db.close()


@pytest.fixture
def changelog(tmp_path: Path) -> Iterator[Changelog]:
    made = made_changelog(tmp_path)
    yield made
    made.table.data.close()


def made_changelog(folder: Path) -> Changelog:
    table = SimpleNamespace(changelog_topic_name="hrnn-users-changelog", data=Store(folder))
    return Changelog(table, state.applied_offset, {}, lambda records: None)


def value(applied: int, copy: int = 0) -> bytes:
    """A state of an applied offset; `copy` makes it differ from others of that offset, as a swap between does."""
    return state.encode(UserState(applied, {}, [], 0.0, 0, 0, b"", 0, f"v{copy}", [], 1))


def records(*pairs: tuple[bytes, bytes | None]) -> list[Any]:
    return [SimpleNamespace(key=key, value=value) for key, value in pairs]


KEYS = [b"ann", b"bob", b"cy"]
orders = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 6)), max_size=24)


@given(orders, st.lists(st.integers(1, 5), max_size=24))
@settings(deadline=None)  # it opens a store each time: a busy disk is no failure
def test_any_order_merges_to_the_highest_applied_offset(order: list[tuple[bytes, int]], sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        changelog = made_changelog(Path(folder))
        overwritten: dict[bytes, bytes] = {}
        rest = iter(records(*((key, value(applied)) for key, applied in order)))
        for size in itertools.chain(sizes, itertools.repeat(100)):  # as fetches cut it
            if not (fetched := list(itertools.islice(rest, size))):
                break
            changelog.merge(0, fetched, overwritten)
        highest: dict[bytes, int] = {}
        last: dict[bytes, int] = {}
        for key, applied in order:
            highest[key] = max(applied, highest.get(key, -1))
            last[key] = applied
        held = changelog.read(0, KEYS)
        assert held == [value(highest[key]) if key in highest else None for key in KEYS]
        # what compaction would leave of these keys is not the newest: they have to be written again
        assert overwritten == {key: value(highest[key]) for key in last if last[key] < highest[key]}
        changelog.table.data.close()


def test_what_the_store_has_already_counts_too(changelog: Changelog) -> None:
    changelog.merge(0, records((b"ann", value(9)), (b"bob", value(1))), {})
    overwritten: dict[bytes, bytes] = {}
    changelog.merge(0, records((b"ann", value(3)), (b"bob", value(2))), overwritten)
    assert changelog.read(0, [b"ann", b"bob"]) == [value(9), value(2)]
    assert overwritten == {b"ann": value(9)}


def test_of_two_of_one_offset_the_later_is_kept(changelog: Changelog) -> None:
    """Written twice after a redelivery: the same events, perhaps under newer weights."""
    overwritten: dict[bytes, bytes] = {}
    changelog.merge(0, records((b"ann", value(5, 1)), (b"ann", value(5, 2))), overwritten)
    assert changelog.read(0, [b"ann"]) == [value(5, 2)]
    assert overwritten == {}


def test_what_was_put_back_needs_no_putting_back(changelog: Changelog) -> None:
    overwritten: dict[bytes, bytes] = {}
    changelog.merge(0, records((b"ann", value(5)), (b"ann", value(2))), overwritten)
    assert overwritten == {b"ann": value(5)}
    changelog.merge(0, records((b"ann", value(5))), overwritten)
    assert overwritten == {}


def test_a_null_value_erases(changelog: Changelog) -> None:
    overwritten: dict[bytes, bytes] = {}
    changelog.merge(0, records((b"ann", value(5)), (b"ann", value(2)), (b"ann", None)), overwritten)
    assert changelog.read(0, [b"ann"]) == [None]
    assert overwritten == {}
    changelog.merge(0, records((b"ann", value(1))), overwritten)
    assert changelog.read(0, [b"ann"]) == [value(1)], "whoever comes back begins anew"


def test_partitions_have_stores_of_their_own(changelog: Changelog) -> None:
    changelog.merge(0, records((b"ann", value(5))), {})
    changelog.merge(1, records((b"ann", value(7))), {})
    assert changelog.read(0, [b"ann", b"bob"]) == [value(5), None]
    assert changelog.read(1, [b"ann"]) == [value(7)]


def test_how_far_a_store_reaches_is_remembered_in_it(changelog: Changelog) -> None:
    changelog.advance(2, 41)
    assert changelog.last_known == {2: 41}
    assert changelog.table.data.persisted_offset(TP("hrnn-users-changelog", 2)) == 41


def test_a_store_that_turns_out_damaged_is_deleted_but_not_opened_anew(tmp_path: Path) -> None:
    changelog = made_changelog(tmp_path)
    keys = [f"user-{n}".encode() for n in range(2000)]
    changelog.merge(0, records(*((key, value(n) + bytes(200)) for n, key in enumerate(keys))), {})
    store = changelog.table.data
    store._db_for_partition(0).flush()
    changelog.advance(0, 1999)
    store.close()
    table = max(store.partition_path(0).glob("*.sst"), key=lambda file: file.stat().st_size)
    content = table.read_bytes()
    table.write_bytes(bytes(len(content) // 2) + content[len(content) // 2 :])

    again = made_changelog(tmp_path)
    with pytest.raises(Exception, match="Corruption"):
        again.read(0, keys)
    assert not store.partition_path(0).exists()
    again.advance(0, 2000)  # a batch that was under way: it must not make an empty store that claims to be whole
    with pytest.raises(Exception, match="No such file"):
        again.table.data.close()
    assert not list(tmp_path.rglob("CURRENT"))


class Producer:
    """Gives the offsets that a test says, one for each append."""

    def __init__(self, *offsets: int) -> None:
        self.offsets = iter(offsets)
        self.sent: list[list[tuple[bytes, bytes]]] = []

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
        return _ready(SimpleNamespace(offset=next(self.offsets)))


async def _ready(result: object) -> object:
    return result


async def test_appends_that_follow_each_other_advance_the_offset(changelog: Changelog) -> None:
    producer: Any = Producer(10, 13)
    changelog.last_known[0] = 9
    states = {f"user-{n}".encode(): value(n) for n in range(5)}
    appends = await changelog.write(producer, 0, states)
    assert [sent.records for sent in appends] == [3, 2]
    assert [pair for batch in producer.sent for pair in batch] == list(states.items())
    assert changelog.read(0, list(states)) == list(states.values()), "stored before it is acked"
    assert changelog.last_known == {0: 9}
    await changelog.confirm(producer, appends)
    assert changelog.last_known == {0: 14}


async def test_what_lies_between_is_merged_and_what_it_hid_is_put_back(
    changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer: Any = Producer(12, 13)
    changelog.last_known[0] = 9

    async def foreign(partition: int, first: int, end: int) -> dict[bytes, bytes]:
        assert (partition, first, end) == (0, 10, 12)
        overwritten: dict[bytes, bytes] = {}
        changelog.merge(partition, records((b"ann", value(1)), (b"bob", value(8))), overwritten)
        return overwritten

    monkeypatch.setattr(changelog, "_merge_foreign", foreign)
    await changelog.confirm(producer, await changelog.write(producer, 0, {b"ann": value(5)}))
    assert producer.sent == [[(b"ann", value(5))], [(b"ann", value(5))]]
    assert changelog.read(0, [b"ann", b"bob"]) == [value(5), value(8)]
    assert changelog.last_known == {0: 13}


async def test_an_append_that_was_merged_with_what_surrounds_it_is_not_gone_back_to(
    changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours at 12 and 13, then what had to be put back at 14: reading up to that passes the one at 13."""
    producer: Any = Producer(12, 13, 14)
    changelog.last_known[0] = 9
    read: list[tuple[int, int]] = []

    async def foreign(partition: int, first: int, end: int) -> dict[bytes, bytes]:
        read.append((first, end))
        return {b"ann": value(5)} if first == 10 else {}

    monkeypatch.setattr(changelog, "_merge_foreign", foreign)
    first = await changelog.write(producer, 0, {b"ann": value(5)})
    second = await changelog.write(producer, 0, {b"bob": value(6)})
    await changelog.confirm(producer, first)
    assert changelog.last_known == {0: 14}
    await changelog.confirm(producer, second)
    assert changelog.last_known == {0: 14}
    assert read == [(10, 12), (13, 14)]
