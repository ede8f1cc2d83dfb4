"""Workers' stores against the changelogs that they are copies of; the workers have to be stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import rocksdict

from stream.audit import signals, states
from stream.audit.reading import Log
from stream.audit.report import AuditReport
from stream.audit.states import merged

OFFSET_KEY = b"__faust\0offset__"
_STORE = re.compile(r"(users|items)-(\d+)\.db")
_APPLIED: Mapping[str, Callable[[bytes], int]] = {"users": states.applied_offset, "items": signals.applied_offset}


def stores_below(folders: Sequence[Path]) -> Iterator[tuple[str, int, Path]]:
    """Find the stores in workers' data folders -> table, partition, folder."""
    for folder in folders:
        for path in sorted(folder.rglob("*.db")):
            if found := _STORE.fullmatch(path.name):
                yield found[1], int(found[2]), path


def check_stores(
    folders: Sequence[Path],
    changelogs: Mapping[str, Log],
    committed: Mapping[str, Mapping[int, int]],
    report: AuditReport,
) -> None:
    """Compare each store with its changelog up to the offset that the store says to have.

    `committed` are, by table and partition, the offsets that the group has committed of the table's source topic: a
    store that is ahead of its changelog is right only if its events will be delivered again.
    """
    for table, partition, path in stores_below(folders):
        report.stores += 1
        try:
            held = _read(path)
        except Exception as error:
            report.wrong_stores += 1
            report.note(f"store {path} can't be read: {error}")
            continue
        offset = held.pop(OFFSET_KEY, None)
        if offset is None:
            if any(b"\0" not in key for key in held):
                report.wrong_stores += 1
                report.note(f"store {path} has values, and no offset of its changelog")
            continue
        if why := _why_wrong(
            held, int(offset), partition, changelogs[table], _APPLIED[table], committed[table].get(partition, 0), report
        ):
            report.wrong_stores += 1
            report.note(f"store {path}: {why}")


def _read(path: Path) -> dict[bytes, bytes]:
    options = rocksdict.Options(raw_mode=True)
    store = rocksdict.Rdict(str(path), options, access_type=rocksdict.AccessType.read_only())
    try:
        return {bytes(key): bytes(value) for key, value in store.items()}  # type: ignore[arg-type]
    finally:
        store.close()


def _why_wrong(
    held: Mapping[bytes, bytes],
    offset: int,
    partition: int,
    changelog: Log,
    applied_offset: Callable[[bytes], int],
    committed: int,
    report: AuditReport,
) -> str:
    if offset >= changelog.ends.get(partition, 0):
        return f"its offset {offset} is beyond its changelog's end"
    records = changelog.records[partition]
    wanted = merged([record for record in records if record.offset <= offset], applied_offset)
    newest = merged(records, applied_offset)
    later = merged([record for record in records if record.offset > offset], applied_offset)
    for key in {**wanted, **held}:
        value, right = held.get(key), wanted.get(key)
        if b"\0" in key or value == right:
            continue
        if value is None:
            return f"{key!r} is missing"
        if value == newest.get(key) or applied_offset(value) >= committed:
            continue  # put, and killed before the offset, or the changelog, had it: redelivery mends that
        if right is None and changelog.has_holes(partition) and newest.get(key) is not None:
            report.skip("stores", "compaction has taken the records of values that were written again since")
            continue
        if (following := later.get(key)) is not None and applied_offset(following) >= applied_offset(value):
            continue  # put, and then another worker had the partition: the next restore here replaces it
        return f"{key!r} has applied {applied_offset(value)}, and its changelog {applied_offset(right or b'')}"
    return ""
