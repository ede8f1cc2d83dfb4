"""What a load needs: the figures it starts from, and what they must lead to."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from stream.planning.trainer import Training
from stream.planning.worker import MEASURED_RATE, UTILISATION, Plan, changelog_bytes, worker_rate
from stream.planning.worker import plan as plan_with
from tests.unit.logging_state import hrnn

TRAINING = Training(hidden_dimension=64, window_s=0.0, max_events=0, max_s=1500.0, full_softmax_max_items=30_000)
RESULTS = (Path(__file__).parents[4] / "tests" / "benchmarks" / "RESULTS.md").read_text()


def plan(*, training: Training = TRAINING, **load: float) -> Plan:
    return plan_with(training=training, **load)  # type: ignore[arg-type]


def test_the_measured_rates_are_those_of_the_results() -> None:
    """New figures of `make bench` in RESULTS.md: then here too."""
    for items, rate in MEASURED_RATE.items():
        (line,) = [line for line in RESULTS.splitlines() if line.startswith(f"| {items:,} items")]
        assert f"| {rate:,.0f} |" in line


def test_the_line_goes_through_what_was_measured() -> None:
    for items, rate in MEASURED_RATE.items():
        assert worker_rate(items) == pytest.approx(rate)
    assert worker_rate(1_000_000) < worker_rate(100_000) / 5, "a large catalogue is what costs"


@pytest.mark.parametrize("events_per_s", [1.0, 500.0, 20_000.0, 1_000_000.0])
def test_the_workers_bear_the_peak_twice_and_the_loss_of_one(events_per_s: float) -> None:
    planned = plan(events_per_s=events_per_s, users=1_000_000, items=27_000)
    assert planned.workers >= 2
    assert planned.workers * planned.events_per_worker_s * UTILISATION >= events_per_s
    assert planned.partitions >= 4 * planned.workers
    assert planned.partitions % 12 == 0
    assert planned.catch_up_after_60_s <= 60.0 / (1 / UTILISATION - 1) + 1e-6


def test_more_users_need_more_room_and_the_others_bear_it() -> None:
    small, large = (plan(events_per_s=100.0, users=users, items=1000) for users in (10**5, 10**7))
    assert large.disk_per_worker_bytes == pytest.approx(100 * small.disk_per_worker_bytes, rel=0.05)
    assert large.disk_per_worker_bytes >= 10**7 * 500, "one of two workers may have to hold all"
    assert large.memory_per_worker_bytes == small.memory_per_worker_bytes, "states are on disk"
    assert large.restore_worker_s > small.restore_worker_s


def test_the_changelog_has_what_compaction_may_not_touch_yet() -> None:
    assert changelog_bytes(0.0, 700.0, 100.0) == pytest.approx(1000.0), "a dirty ratio of 0.3"
    assert changelog_bytes(1.0, 0.0, 100.0) == pytest.approx(3600 * 100.0), "an hour"


def test_the_command_says_it_for_a_person_and_for_a_program() -> None:
    asked = ["plan", "--events-per-s", "20000", "--users", "5000000", "--items", "27000"]
    status, shown = hrnn(*asked)
    assert status == 0
    said = json.loads(hrnn(*asked, "--json")[1])
    assert re.search(rf"^workers\s+{said['workers']}\b", shown, re.MULTILINE)
    assert said["workers"] == math.ceil(20_000 / (MEASURED_RATE[27_000] * UTILISATION))
    assert hrnn("plan", "--events-per-s", "0", "--users", "1", "--items", "1")[0] == 2


def test_the_trainer_needs_more_for_more_events_until_the_limits_hold() -> None:
    small, large = (plan(events_per_s=rate, users=1000, items=1000).trainer for rate in (0.1, 10.0))
    assert large.events == pytest.approx(100 * small.events, rel=0.01)
    assert large.disk_bytes == pytest.approx(100 * small.disk_bytes, rel=0.01)
    assert large.memory_bytes > 10 * small.memory_bytes
    assert large.fit_ends_early
    assert large.fit_s == TRAINING.max_s
    windowed = replace(TRAINING, window_s=86_400.0)
    sampled = replace(TRAINING, max_events=100_000)
    for limited in (windowed, sampled):
        bounded = plan(events_per_s=10.0, users=1000, items=1000, training=limited).trainer
        assert bounded.memory_bytes < large.memory_bytes / 10
        assert bounded.disk_bytes == large.disk_bytes, "the copy holds all, so that limits can be changed"
        assert not bounded.fit_ends_early
    assert plan(events_per_s=10.0, users=1000, items=1000, training=sampled).trainer.events_used == 100_000


def test_the_plan_is_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["plan", "--events-per-s", "100", "--users", "50000", "--items", "27000"]
    usual = json.loads(hrnn(*asked, "--json")[1])
    monkeypatch.setenv("HRNN_HIDDEN_DIMENSION", "128")
    monkeypatch.setenv("HRNN_TRAIN_MAX_EVENTS", "50000")
    said = json.loads(hrnn(*asked, "--json")[1])
    assert said["models_bytes"] == 2 * usual["models_bytes"]
    assert said["trainer"]["events_used"] == 50_000
    shown = hrnn(*asked)[1]
    assert "HRNN_HIDDEN_DIMENSION=128" in shown
    for row in ("memory of the trainer", "disk of the trainer", "a fit"):
        assert row in shown
