"""Durations as people write them: 30m, 3h, 1d12h."""

from __future__ import annotations

import math
import re

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def duration_s(text: str) -> float:
    """Read a duration such as 90s, 30m, 6h, 1d or 1d12h as seconds; raises ValueError, also for less than a second."""
    if not re.fullmatch(r"(\d+(\.\d+)?[smhdw])+", text, re.ASCII):
        raise ValueError(f"{text[:40]!r} is no duration such as 30m, 6h or 1d")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([smhdw])", text))
    if not 1 <= seconds < math.inf:
        raise ValueError(f"{text[:40]!r} is less than a second, or endless")
    return seconds
