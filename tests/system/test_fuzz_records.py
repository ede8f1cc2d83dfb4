"""Some seconds of random records; `python -m tests.system.fuzz_records` runs longer ones."""

from __future__ import annotations

from pathlib import Path

from tests.system.fuzz_records import fuzz_records

SECONDS, SEED = 8.0, 3


async def test_no_record_ends_a_worker_and_none_is_lost(kafka: str, tmp_path: Path) -> None:
    fuzz = await fuzz_records(kafka, tmp_path, seconds=SECONDS, seed=SEED)
    assert fuzz.passed, fuzz
    assert fuzz.records > 100, fuzz
    assert fuzz.aborted > 0, fuzz
    assert fuzz.applied > 50, fuzz
    assert fuzz.dead_letters > 10, fuzz
