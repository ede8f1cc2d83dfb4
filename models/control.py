"""The control signal: how long a silence was, as one of a few levels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

DEFAULT_BOUNDS_S: tuple[float, ...] = (60.0, 3600.0, 86400.0)
"""A minute (still browsing), an hour (same visit, distracted), a day (a new visit): the paper's §3."""


def level(gap_s: float, bounds_s: Sequence[float] = DEFAULT_BOUNDS_S) -> int:
    """Count the bounds that a gap has reached: a gap of exactly 60 s has reached the bound of 60 s."""
    return bisect_right(bounds_s, gap_s)


def levels(gaps_s: npt.NDArray[np.float64], bounds_s: Sequence[float] = DEFAULT_BOUNDS_S) -> npt.NDArray[np.int64]:
    """Map an array of gaps to levels, as `level` does one."""
    return np.searchsorted(np.asarray(bounds_s), gaps_s, side="right").astype(np.int64)
