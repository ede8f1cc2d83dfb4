"""The short rows of the fault runs; `make faults` runs all of them, longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.faults.__main__ import run_row

SEED = 7  # the same in every test run; `make faults` draws another each time
SHORT = ["kill9", "hot-user", "crash-points", "poison", "transactions", "forged-origin", "truncated-log"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHORT)
async def test_nothing_is_lost_or_wrong(name: str, kafka: str, tmp_path: Path) -> None:
    result = await run_row(name, kafka, tmp_path, SEED, kills=6, short=True)
    assert result.clean, "\n".join([result.line(), *result.failures, *result.notes])
    assert result.faults > 0
