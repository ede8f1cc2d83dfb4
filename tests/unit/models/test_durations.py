"""Durations; the options of commands are read by the same function (tests/unit/stream/commands/test_options.py)."""

from __future__ import annotations

import pytest

from models.durations import duration_s


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1d12h", 129600), ("0.5h", 1800)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "-6h", "6y", "0s", "0.5s", "1e3s", "9" * 400 + "d", "٣h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|less than a second"):
        duration_s(text)
