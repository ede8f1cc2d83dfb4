"""Read events from a file: CSV with Amazon Personalize's or a Layout's columns, JSON lines, or parquet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import msgspec

from models.records import BadRecord, Event, decode_event
from stream.commands.failures import Failure
from stream.files.bad_file import BAD_FILE, BadRow, explained, refuse_other_text
from stream.files.layout import Layout
from stream.files.opening import open_file
from stream.files.rows import buffered, rows_of
from stream.files.values import number_of, time_s


class FileEvent(NamedTuple):
    """One row: its line, its event, and the bytes of the record's value."""

    line: int
    event: Event
    value: bytes


def read_events(source: BinaryIO, *, name: str, layout: Layout | None = None) -> Iterator[FileEvent]:
    """Read and check each row; raises Failure with the file and the line of the first wrong row.

    Without a format in the layout, a file whose first character is a brace is read as JSON lines.
    """
    layout = layout or Layout()
    lines, line = buffered(source), 1
    rows = rows_of(lines, layout)  # kept: an unreferenced reader closes the file, whose end may show damage
    with explained(name, lambda: line, lines):
        for line, row in rows:
            yield _checked(line, row) if isinstance(row, bytes) else _event_of(line, row, layout)
            line += 1  # the line of the reader's next error


def read_log(path: str, stdin: BinaryIO, layout: Layout | None = None) -> list[Event]:
    """Read all events of a file, or of `stdin` for "-"; raises Failure if there are none."""
    name = "standard input" if path == "-" else path
    with open_file(path, stdin) as source:
        events = [row.event for row in read_events(source, name=name, layout=layout)]
    if not events:
        raise Failure(f"{name} has no events", "it needs rows under USER_ID,ITEM_ID,TIMESTAMP", exit_code=BAD_FILE)
    return events


def _event_of(line: int, cells: dict[str, Any], layout: Layout) -> FileEvent:
    record: dict[str, Any] = {
        "user_id": str(cells.pop("USER_ID")),
        "item_id": str(cells.pop("ITEM_ID")),
        "timestamp": time_s(line, "TIMESTAMP", cells.pop("TIMESTAMP"), layout),
    }
    if kind := cells.pop("EVENT_TYPE", ""):
        record["event_type"] = str(kind)
    strength = cells.pop("EVENT_VALUE", "")
    if strength not in ("", None):
        record["event_value"] = number_of(line, "EVENT_VALUE", strength)
    properties = {name: cell for name, cell in cells.items() if cell not in ("", None)}
    if properties:
        record["properties"] = properties
    try:
        value = msgspec.json.encode(record)
    except UnicodeEncodeError:
        refuse_other_text(line, [cell for cell in (*record.values(), *properties.values()) if isinstance(cell, str)])
        raise
    return _checked(line, value)


def _checked(line: int, value: bytes) -> FileEvent:
    """Decode a record as a worker does; raises BadRow."""
    try:
        event = decode_event(value)
    except BadRecord as bad:
        raise BadRow(line, str(bad)) from None
    return FileEvent(line, event, value)
