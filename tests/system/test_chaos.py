"""A minute of kills, stops and pauses among three workers under load; `make chaos` runs longer ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.system.chaos import chaos

SECONDS, WORKERS = 60.0, 3
SEED = 7  # the same in every test run; `make chaos` draws another each time


@pytest.mark.timeout(420)
async def test_nothing_is_lost_or_wrong(kafka: str, tmp_path: Path) -> None:
    seed = SEED
    print(f"seed {seed}", file=sys.stderr)  # noqa: T201  pytest shows it with a failure

    def say(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201

    run = await chaos(kafka, tmp_path, seconds=SECONDS, workers=WORKERS, seed=seed, say=say)
    assert (run.lost, run.wrong_states, run.wrong_lists) == (0, 0, 0), run
    assert (run.wrong_sessions, run.wrong_signals, run.transitions_behind) == (0, 0, 0), run
    assert run.kills + run.terms + run.pauses > 0, run
    assert run.swaps > 0, run
    assert run.events > SECONDS * 300, run
    assert run.applied + run.dead_letters >= run.events, run  # what was sent on twice may be refused twice
