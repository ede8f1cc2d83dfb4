"""A finding of `hrnn doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The result of one check. `remedy` says how to fix a problem, or how to improve."""

    subject: str
    well: bool
    detail: str
    remedy: str = ""
