"""A minute of kill -9, SIGTERM and SIGSTOP; `make chaos` runs longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.chaos import chaos

SEED = 20_260_101


@pytest.mark.timeout(600)
async def test_a_minute_of_faults_loses_nothing(kafka: str, tmp_path: Path) -> None:
    run = await chaos(kafka, tmp_path, seconds=60, workers=3, seed=SEED)
    assert run.kills + run.terms + run.pauses >= 3, "no fault was put in: the run says nothing"
    assert (run.lost, run.wrong_states, run.wrong_lists) == (0, 0, 0), run
    assert run.died == 0, "a worker ended by itself"
    assert run.applied > 20_000
