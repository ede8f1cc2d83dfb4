"""`hrnn demo` as a user runs it, on fewer events."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

KEYS = [
    *(
        "events",
        "applied",
        "dead_letters",
        "late",
        "recommendations",
        "lost",
        "wrong_states",
        "model_versions",
        "swaps",
    ),
    *("hit_rate_at_10", "popularity_hit_rate_at_10", "recent_popularity_hit_rate_at_10"),
    *("events_per_s", "latency_p50_ms", "latency_p99_ms"),
]


@pytest.mark.timeout(400)
def test_the_demo_swaps_a_model_and_loses_nothing(kafka: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli.main", "demo", "--events", "8000", "--workers", "2", "--json"],
        env={**os.environ, "HRNN_KAFKA_BOOTSTRAP": kafka},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == KEYS
    assert figures["events"] == figures["applied"] == figures["recommendations"] == 8000
    assert (figures["lost"], figures["wrong_states"]) == (0, 0)
    assert figures["model_versions"] >= 2
    assert figures["swaps"] >= 1
    assert figures["latency_p99_ms"] >= figures["latency_p50_ms"] > 0
