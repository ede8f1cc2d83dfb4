"""Stores on RocksDB itself, with files damaged by hand."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rocksdict

from stream.faust_patches.stores import (
    IDENTITY_KEY,
    OFFSET_KEY,
    StoreDamaged,
    StoreFailed,
    StoreIdentity,
    StoreNotWritable,
    TableStores,
    is_of_user_or_item,
)
from tests.unit.stream.made import made_changelog, records, value

KEYS = [f"user-{n}".encode() for n in range(3000)]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[TableStores]:
    made = made_changelog(tmp_path).stores
    yield made
    made._table.data.close()


def write_all(stores: TableStores) -> None:
    """Write 3,000 states, the offset after each hundred."""
    for begin in range(0, len(KEYS), 100):
        batch = rocksdict.WriteBatch(raw_mode=True)
        for number, key in enumerate(KEYS[begin : begin + 100], begin):
            batch.put(key, value(number) + bytes(200))
        stores.write(0, batch)
        stores.set_offset(0, begin + 99)


def fill(stores: TableStores) -> Path:
    """Write all states and close the store: they lie in table files, most in a large one."""
    write_all(stores)
    table = stores._table.data
    table._db_for_partition(0).flush()
    table.close()
    path: Path = table.partition_path(0)
    return path


def largest(path: Path, pattern: str) -> Path:
    return max(path.glob(pattern), key=lambda file: file.stat().st_size)


def flip_in(file: Path, at: float = 0.4) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 0xFF
    file.write_bytes(content)


def truncate(file: Path, to: float = 0.5) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * to)])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "current": lambda path: (path / "CURRENT").write_bytes(b"\0not a manifest\xff"),
    "manifest": lambda path: flip_in(largest(path, "MANIFEST-*")),
    "table_flipped": lambda path: flip_in(largest(path, "*.sst")),
    "table_truncated": lambda path: truncate(largest(path, "*.sst")),
    "table_missing": lambda path: largest(path, "*.sst").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_a_new_store_takes_its_place(stores: TableStores, damage: str) -> None:
    DAMAGE[damage](fill(stores))
    with pytest.raises(StoreDamaged):
        stores.get(0, KEYS)
    with pytest.raises(StoreDamaged):
        stores.set_offset(0, 5000)  # of a batch that was under way: the store is not used until it is restored
    stores.delete(0)
    assert stores.get(0, KEYS[:5]) == [None] * 5
    assert stores.offset(0) is None
    stores.set_offset(0, 1)
    assert not list(stores._table.data.partition_path(0).parent.glob("*.deleted"))


def test_a_store_that_cannot_even_be_closed_lets_go_of_its_lock(stores: TableStores) -> None:
    DAMAGE["table_flipped"](fill(stores))
    with contextlib.suppress(StoreDamaged):
        write_all(stores)
        db = stores._table.data._db_for_partition(0)
        db.flush()
        db.compact_range(None, None)  # has to read what is damaged
        del db
    with pytest.raises(StoreDamaged) as kept:  # as by a log record, or by asyncio
        stores.set_offset(0, 5000)
    with pytest.raises(StoreDamaged) as kept_too:
        list(stores.values(0))
    stores.delete(0)
    stores.set_offset(0, 1)
    assert stores.offset(0) == 1
    assert kept.value.partition == kept_too.value.partition == 0


@pytest.mark.parametrize("damage", DAMAGE)
def test_values_of_a_damaged_store_do_not_end_early_without_a_word(stores: TableStores, damage: str) -> None:
    DAMAGE[damage](fill(stores))
    with pytest.raises(StoreDamaged):
        list(stores.values(0))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_shows_while_merging_too(tmp_path: Path, damage: str) -> None:
    changelog = made_changelog(tmp_path)
    DAMAGE[damage](fill(changelog.stores))
    with pytest.raises(StoreDamaged):
        changelog.merge(0, records(*((key, value(9999)) for key in KEYS)), {})
    changelog.stores.delete(0)
    changelog.table.data.close()


def test_values_leave_out_what_is_no_state(stores: TableStores) -> None:
    stores.set_identity(0, StoreIdentity("c", "t", "i", 0))
    fill(stores)
    assert len(list(stores.values(0))) == len(KEYS)
    assert not any(map(is_of_user_or_item, (OFFSET_KEY, IDENTITY_KEY)))


@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.95])
def test_what_a_damaged_log_has_lost_the_offset_does_not_cover(tmp_path: Path, how: str, at: float) -> None:
    """RocksDB opens it cleanly and drops the end: the restore then reads those records again."""
    running = made_changelog(tmp_path / "running", write_buffer_bytes=2**20).stores
    write_all(running)
    shutil.copytree(tmp_path / "running", tmp_path / "killed")  # close() would write a table file
    running._table.data.close()
    stores = made_changelog(tmp_path / "killed", write_buffer_bytes=2**20).stores
    log_file = largest(stores._table.data.partition_path(0), "*.log")
    assert log_file.stat().st_size > 100_000
    if how == "flip":
        flip_in(log_file, at)
    elif how == "truncate":
        truncate(log_file, at)
    else:
        log_file.unlink()
    offset, held = stores.offset(0), stores.get(0, KEYS)
    reach = -1 if offset is None else offset
    assert reach < len(KEYS) - 1
    assert all(found is not None for found in held[: reach + 1])
    stores._table.data.close()


def test_a_lock_is_no_damage(tmp_path: Path) -> None:
    one, other = made_changelog(tmp_path).stores, made_changelog(tmp_path).stores
    one.set_offset(0, 7)
    with pytest.raises(Exception, match="LOCK") as caught:
        other.offset(0)
    assert not isinstance(caught.value, StoreFailed)
    one._table.data.close()
    assert other.offset(0) == 7
    other._table.data.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_no_damage_and_ends_once_there_is_space(small_disk: Path) -> None:
    stores = made_changelog(small_disk, write_buffer_bytes=2**24).stores

    def write(number: int) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.put(f"user-{number}".encode(), value(number) + bytes(100_000))
        stores.write(0, batch)
        stores.set_offset(0, number)

    written = 0
    with contextlib.suppress(StoreNotWritable):
        while written < 100:
            write(written)
            written += 1
    assert 0 < written < 100
    assert "No space left on device" in str(stores.failed[0])
    with pytest.raises(StoreNotWritable):
        stores.set_offset(0, written)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    with pytest.raises(StoreNotWritable):
        stores.set_offset(0, written)  # its handle stays failed
    stores.reopen(0)
    assert stores.offset(0) == written - 1
    assert stores.get(0, [f"user-{written - 1}".encode()]) != [None]
    stores.set_offset(0, written)
    stores._table.data.close()


OURS = StoreIdentity("cluster", "hrnn-users-changelog", "id-1", 3)


def test_whose_a_store_is_is_kept_in_it(stores: TableStores) -> None:
    assert stores.identity(3) is None
    stores.set_identity(3, OURS)
    assert stores.identity(3) == OURS


@pytest.mark.parametrize(
    "other",
    [
        StoreIdentity("another", "hrnn-users-changelog", "id-1", 3),
        StoreIdentity("cluster", "hrnn-items-changelog", "id-1", 3),
        StoreIdentity("cluster", "hrnn-users-changelog", "id-2", 3),
        StoreIdentity("cluster", "hrnn-users-changelog", "id-1", 4),
    ],
)
def test_another_cluster_topic_or_partition_contradicts(other: StoreIdentity) -> None:
    assert OURS.contradicts(other)
    assert other.contradicts(OURS)
    assert not OURS.contradicts(OURS)


def test_an_id_that_is_not_known_contradicts_nothing() -> None:
    unknown = StoreIdentity("", "hrnn-users-changelog", "", 3)
    assert not OURS.contradicts(unknown)
    assert not unknown.contradicts(OURS)
    assert unknown.knows_less_than(OURS)
    assert not OURS.knows_less_than(unknown)
