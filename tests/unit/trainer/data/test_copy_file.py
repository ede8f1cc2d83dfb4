"""The local copy is a cache: after any damage of its file it again has the sessions of the topic."""

import logging
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.trainer.data.test_session_copy import Log
from tests.unit.trainer.made import Row, session
from trainer.data.copy_file import CopyUnusable, DamagedCopy
from trainer.data.session_copy import SessionCopy

LOGGED = "local copy damaged, deleted, reading it again"


def full(sessions: int = 400) -> Log:
    log = Log(partitions=2)
    for n in range(sessions):
        events: list[Row] = [(f"item-{n + k}", 100.0 * k + n, "click", float(k)) for k in range(n % 12 + 1)]
        log.add(n % 2, *session(f"user-{n:04d}", events))
    return log


def expected(log: Log) -> dict[bytes, object]:
    copy = SessionCopy()
    copy.update(log, now=0.0)
    return dict(copy.sessions())


def written(path: Path, log: Log) -> None:
    copy = SessionCopy(path)
    copy.update(log, now=0.0)
    copy.close()


def healed(path: Path, log: Log) -> dict[bytes, object]:
    """Do as the service does: after damage, update and read once more."""
    copy = SessionCopy(path)
    try:
        for _ in range(3):
            try:
                copy.update(log, now=1.0)
                assert copy.events == sum(len(record.events) for _, record in copy.sessions())
                return dict(copy.sessions())
            except DamagedCopy:
                continue
        raise AssertionError("damaged for the third time")
    finally:
        copy.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"this is no database, but it is longer than a header of one hundred bytes" * 100)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def of_an_older_release(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE sessions (key BLOB PRIMARY KEY, value BLOB NOT NULL, events INTEGER NOT NULL)")


def of_other_tables(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE sessions RENAME COLUMN checksum TO other")


def an_empty_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


KINDS = [no_database, truncated, emptied, header_only, of_an_older_release, of_other_tables, an_empty_folder]


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_deleted_and_read_again(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, log = tmp_path / "sessions.sqlite", full()
    written(path, log)
    damage(path)
    assert healed(path, log) == expected(log)
    assert caplog.text.count(LOGGED) == (0 if damage in (emptied, an_empty_folder) else 1)
    assert healed(path, log) == expected(log), "and it stays sound"


def test_flipped_bytes_never_change_what_is_trained_on(tmp_path: Path) -> None:
    path, log = tmp_path / "sessions.sqlite", full(200)
    written(path, log)
    sound, right = path.read_bytes(), expected(log)
    for seed in range(60):
        rng, content = random.Random(seed), bytearray(sound)
        for _ in range(rng.choice((1, 1, 1, 20))):
            at = rng.randrange(len(content))
            content[at] ^= 1 << rng.randrange(8)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        path.write_bytes(content)
        assert healed(path, log) == right, seed


def test_damage_while_the_copy_is_open_is_healed_too(tmp_path: Path) -> None:
    path, log = tmp_path / "sessions.sqlite", full(4000)
    written(path, log)
    copy = SessionCopy(path)
    assert copy.events
    content = bytearray(path.read_bytes())
    content[8192:] = bytes(len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(DamagedCopy):
        list(copy.sessions())
    assert copy.update(log, now=1.0) == 4000
    assert len(list(copy.sessions())) == 4000


def test_another_process_lock_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.copy_file.LOCK_WAIT_S", 0.05)
    path, log = tmp_path / "sessions.sqlite", full(10)
    written(path, log)
    copy = SessionCopy(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    log.add(0, *session("new", [("a", 1.0, None, None)]))
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        copy.update(log, now=1.0)
    other.execute("ROLLBACK")
    assert copy.update(log, now=2.0) == 1, "only what is new: nothing was deleted"


def test_what_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CopyUnusable, match="HRNN_TRAINER_DIR must be a folder that can be written to"):
        SessionCopy(tmp_path / "file" / "sessions.sqlite")
    used = tmp_path / "used" / "sessions.sqlite"
    used.mkdir(parents=True)
    (used / "kept").write_text("somebody's")
    with pytest.raises(CopyUnusable, match="cannot be created"):
        SessionCopy(used)
    assert (used / "kept").exists()


def test_a_file_that_may_not_be_written_is_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sessions.sqlite"
    written(path, full(10))
    uri = f"file:{path}?immutable=1"  # what a read-only file system comes to, also for root
    connect = sqlite3.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda _, **given: connect(uri, uri=True, **given))
        with pytest.raises(CopyUnusable, match="HRNN_TRAINER_DIR must be a folder that can be written to"):
            SessionCopy(path)
    assert path.exists()
    assert LOGGED not in caplog.text
    assert logging.getLogger("trainer.data.session_copy").isEnabledFor(logging.WARNING)


def test_a_topic_created_again_is_read_from_its_beginning(caplog: pytest.LogCaptureFixture) -> None:
    log, copy = full(40), SessionCopy()
    copy.update(log, now=0.0)
    again = full(60)  # longer than the one before: its offsets tell nothing
    for records in again.records.values():
        records.reverse()
    again.id = "cluster/another-topic"
    with caplog.at_level(logging.INFO):
        assert copy.update(again, now=1.0) == 60
    assert "re-created" in caplog.text
    assert dict(copy.sessions()) == expected(again)
    again.id = ""  # brokers that do not tell the id
    assert copy.update(again, now=2.0) == 0
