from __future__ import annotations

import io

from rich.console import Console

from stream.demo.demo import fit_progress
from stream.demo.panel import NOTHING, Snapshot, _panel

FIT = "\n".join(
    f'{{"event": "epoch {number} of at most 12: loss 4.2, newest slice 5.1, {10.0 * number} s", "level": "info"}}'
    for number in range(1, 4)
)


def snapshot(**known: object) -> Snapshot:
    given: dict[str, object] = {
        "phase": "training, epoch 10 of at most 12, at most 60 s left",
        "events_per_s": 12_345.0,
        "answered": 99_999,
        "total": 100_000,
        "lag": 1_234,
        "latency_ms": None,
        "model_version": "20261121T193609Z-92255d85",
        "model_age_s": 4_711.0,
        "hit_rates": None,
        "lists": {"user-with-a-long-name": ["A title as long as films of the seventies had them"] * 5},
    }
    return Snapshot(**{**given, **known})  # type: ignore[arg-type]


def test_how_far_a_fit_is_comes_from_the_trainer_s_log() -> None:
    assert fit_progress("") == ""
    assert fit_progress(FIT) == "epoch 3 of at most 12, at most 90 s left"
    assert fit_progress(f'{FIT}\n{{"event": "published version=v1 bytes=1 chunks=1"}}') == ""


def test_what_is_not_measured_yet_is_a_dash_and_no_zero() -> None:
    lines = "\n".join(snapshot().lines())
    assert f"latency {NOTHING};" in lines
    assert f"hit-rate@10 {NOTHING} (popularity {NOTHING}, of 24 h {NOTHING})" in lines
    known = "\n".join(snapshot(latency_ms=(4.0, 25.0), hit_rates=(0.2, 0.1, 0.15)).lines())
    assert "p50 4 ms, p99 25 ms" in known
    assert "hit-rate@10 0.2000 (popularity 0.1000, of 24 h 0.1500)" in known


def test_everything_fits_80_columns() -> None:
    full = snapshot(latency_ms=(12_345.0, 99_999.0), hit_rates=(0.2, 0.1, 0.15))
    assert max(map(len, full.lines())) <= 80
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(_panel(full))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert "20261121T193609Z-92255d85" in "\n".join(lines)
    assert "0.1500" in "\n".join(lines)
