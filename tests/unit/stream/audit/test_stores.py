"""Stores of stopped workers against the changelogs that they are copies of."""

from __future__ import annotations

from pathlib import Path

import pytest
import rocksdict

from models.users import state
from models.users.state import UserState
from stream.audit import AuditReport
from stream.audit.reading import Log
from stream.audit.stores import OFFSET_KEY, check_stores
from tests.unit.stream.audit.made_logs import record


def value_of(applied_offset: int, *emitted: str) -> bytes:
    return state.encode(UserState(applied_offset, {}, [], 0.0, 0, 0, b"", 0, "", list(emitted), 0))


# two users, the second one's state written twice
WRITTEN = [(b"u", value_of(0)), (b"v", value_of(1)), (b"v", value_of(2))]
COMMITTED: dict[str, dict[int, int]] = {"users": {0: 3}, "items": {}}


def audited(folder: Path, values: dict[bytes, bytes], *, taken: int = 0) -> AuditReport:
    """Compare a store of these values with the changelog, of which compaction has taken the first records."""
    path = folder / "v1" / "tables" / "users-0.db"
    path.parent.mkdir(parents=True)
    store = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    for key, value in values.items():
        store[key] = value
    store.close()
    (folder / "v1" / "tables" / "other.db").mkdir()
    records = [record("users", 0, n, key, value, 0.0) for n, (key, value) in enumerate(WRITTEN)][taken:]
    report = AuditReport()
    check_stores([folder], {"users": Log({0: records}, {0: 0}, {0: len(WRITTEN)}), "items": Log()}, COMMITTED, report)
    assert report.stores == 1
    return report


@pytest.mark.parametrize(
    "values",
    [
        {b"u": value_of(0), b"v": value_of(2), OFFSET_KEY: b"2", b"\0log": b"whose"},
        {b"u": value_of(0), b"v": value_of(1), OFFSET_KEY: b"1"},  # of a partition that has moved away
        {b"u": value_of(0), b"v": value_of(2), OFFSET_KEY: b"1"},  # killed before it wrote its offset
        {b"u": value_of(7), b"v": value_of(2), OFFSET_KEY: b"2"},  # killed before the changelog had it
        {b"u": value_of(0), b"v": value_of(1, "other"), OFFSET_KEY: b"0"},  # put, and the partition moved away
        {},
    ],
    ids=["equal", "behind", "before its offset", "before the changelog", "overtaken", "empty"],
)
def test_a_copy_is_right(values: dict[bytes, bytes], tmp_path: Path) -> None:
    report = audited(tmp_path, values)
    assert report.exit_status == 0, report.examples


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({b"v": value_of(2), OFFSET_KEY: b"2"}, "b'u' is missing"),
        ({b"u": value_of(0), b"v": value_of(1), OFFSET_KEY: b"2"}, "b'v' has applied 1"),
        ({b"u": value_of(0), b"v": value_of(2), b"w": value_of(0), OFFSET_KEY: b"2"}, "b'w'"),
        ({b"u": value_of(0), b"v": value_of(2), OFFSET_KEY: b"3"}, "beyond"),
        ({b"u": value_of(0)}, "no offset"),
    ],
)
def test_a_copy_that_is_wrong_is_found(values: dict[bytes, bytes], why: str, tmp_path: Path) -> None:
    report = audited(tmp_path, values)
    assert (report.wrong_stores, report.exit_status) == (1, 1), report
    assert why in report.examples[0]


def test_a_store_that_can_not_be_read_is_found(tmp_path: Path) -> None:
    (folder := tmp_path / "v1" / "tables" / "users-0.db").mkdir(parents=True)
    (folder / "CURRENT").write_bytes(b"junk")
    report = AuditReport()
    check_stores([tmp_path], {"users": Log(), "items": Log()}, COMMITTED, report)
    assert report.wrong_stores == 1


def test_what_compaction_has_taken_can_not_be_compared(tmp_path: Path) -> None:
    report = audited(tmp_path, {b"u": value_of(0), b"v": value_of(1), OFFSET_KEY: b"1"}, taken=2)
    assert (report.wrong_stores, report.exit_status) == (1, 1), "u is not on the changelog at all"
    folder = tmp_path / "other"
    report = audited(folder, {b"v": value_of(1), OFFSET_KEY: b"1"}, taken=2)
    assert (report.wrong_stores, report.exit_status) == (0, 2)
