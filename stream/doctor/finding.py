"""What `hrnn doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `remedy` says how to mend what is not well, or how to have it better."""

    subject: str
    well: bool
    detail: str
    remedy: str = ""
