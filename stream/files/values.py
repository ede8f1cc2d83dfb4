"""Parse cells of a file as numbers and times."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from stream.files.bad_file import BadRow
from stream.files.layout import UNITS_A_SECOND, Layout

LATEST = 1e11  # the year 5138: a larger number is a time in milliseconds or finer


def time_s(line: int, column: str, cell: Any, layout: Layout) -> int | float:
    """Parse a time: a number in the layout's unit, or ISO 8601 (UTC without a time zone)."""
    if isinstance(cell, datetime):
        return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp()
    if isinstance(cell, str) and (moment := _iso(cell)) is not None:
        return moment
    number = number_of(line, column, cell, "; give Unix seconds, or ISO 8601 such as 2024-05-01T12:00:00Z")
    if layout.time_unit != "s":
        return number / UNITS_A_SECOND[layout.time_unit]
    if number >= LATEST:
        unit = "ms" if number < 1e14 else "us" if number < 1e17 else "ns"
        raise BadRow(
            line,
            f"{column.lower()} {number:.15g} is not a Unix time in seconds",
            f"if it is in {unit}: --time-unit {unit}; or divide milliseconds by 1000",
        )
    return number


def _iso(cell: str) -> float | None:
    """Parse a date or a time of ISO 8601 as Unix seconds; None for anything else, such as a plain number."""
    text = cell.strip()
    if len(text) < len("2024-05-01") or text[4:5] != "-":
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def number_of(line: int, column: str, cell: Any, hint: str = "") -> int | float:
    """Parse a finite number; raises BadRow with the column."""
    if isinstance(cell, (int, float)) and math.isfinite(cell):
        return cell
    try:
        return int(cell)
    except (ValueError, OverflowError):
        pass
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        shown = f"{cell!a}" if len(str(cell)) < 60 else f"{str(cell)[:60]!a}…"
        raise BadRow(line, f"{column} is {shown}, not a number", f"correct the line{hint}")
    return number
