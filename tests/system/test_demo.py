"""The demo, on few events: it ends well, with its line of figures, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIGURES = {
    "events", "applied", "dead_letters", "late", "recommendations", "lost", "wrong_states", "model_versions", "swaps",
    "hit_rate_at_10", "popularity_hit_rate_at_10", "recent_popularity_hit_rate_at_10", "events_per_s",
    "latency_p50_ms", "latency_p99_ms", "requests", "request_latency_p50_ms", "request_latency_p99_ms", "wrong_signals",
    "wrong_lists", "wrong_sessions", "lists_checked", "not_checked",
}  # fmt: skip


@pytest.mark.timeout(400)
def test_the_demo_ends_well_with_a_line_of_figures(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "HRNN_KAFKA_BOOTSTRAP"}
    demo = subprocess.run(
        [sys.executable, "-m", "stream.commands.main", "demo", "--events", "6000", "--workers", "2", "--json"],
        env={**environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    lines = demo.stdout.strip().splitlines()
    figures = json.loads(lines[-1])
    assert set(figures) == FIGURES
    assert figures["events"] == figures["applied"] == figures["recommendations"] == 6000
    assert figures["wrong_signals"] == figures["wrong_lists"] == figures["wrong_sessions"] == 0
    assert figures["lists_checked"] > 0
    assert figures["requests"] > 0
    assert figures["lost"] == figures["wrong_states"] == figures["late"] == figures["dead_letters"] == 0
    assert figures["swaps"] >= 1
    assert figures["model_versions"] >= 2
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p99_ms"]
    assert figures["events_per_s"] > 0
    assert all(0 <= figures[name] <= 1 for name in figures if name.endswith("hit_rate_at_10"))
    assert list(tmp_path.glob("hrnn-*")) == [], "the demo left something behind"
