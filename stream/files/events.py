"""Rows of a file of events: CSV in Amazon Personalize's columns or as a Layout says, JSON lines, or parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any, BinaryIO, NamedTuple, cast

import msgspec

from models.records import BadRecord, Event, decode_event
from stream.commands.failures import Failure
from stream.files.bad_file import BAD_FILE, BadRow, explained, refuse_other_text
from stream.files.layout import UNITS_A_SECOND, Layout, Table, table_of
from stream.files.opening import PARQUET, open_file

LATEST = 1e11  # the year 5138: a greater number is a time in milliseconds or finer, not one in seconds
BOM = b"\xef\xbb\xbf"


class FileEvent(NamedTuple):
    """One row: where it stands, what it says, and the bytes that go out as the record's value."""

    line: int
    event: Event
    value: bytes


def read_events(source: BinaryIO, *, name: str, layout: Layout | None = None) -> Iterator[FileEvent]:
    """Read and check each row; raises Failure naming the file and the line of the first that is wrong.

    Without a format in the layout, a file whose first character is a brace is taken for JSON lines.
    """
    layout = layout or Layout()
    lines = source if isinstance(source, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, source))
    line = 1
    with explained(name, lambda: line, lines):
        for row in _rows(lines, layout):
            line = row.line
            yield row
            line += 1  # where an error that the reader itself raises next would be


def read_log(path: str, stdin: BinaryIO, layout: Layout | None = None) -> list[Event]:
    """Read all events of a file, or of `stdin` for "-"; raises Failure for one without any."""
    name = "standard input" if path == "-" else path
    with open_file(path, stdin) as source:
        events = [row.event for row in read_events(source, name=name, layout=layout)]
    if not events:
        raise Failure(f"{name} holds no events", "it needs rows under USER_ID,ITEM_ID,TIMESTAMP", exit_code=BAD_FILE)
    return events


def _rows(lines: io.BufferedReader, layout: Layout) -> Iterator[FileEvent]:
    head = lines.peek(64)[:64]
    if head.startswith(BOM):
        lines.read(len(BOM))
        head = head[len(BOM) :]
    if head.startswith(PARQUET):
        from stream.files.parquet import parquet_rows  # an extra: what it needs is not there for everyone

        return (_event_of(line, cells, layout) for line, cells in parquet_rows(lines, layout))
    first = head.lstrip()
    if layout.form == "jsonl" or (layout.form == "auto" and first.startswith((b"{", b"["))):
        return _json_lines(lines)
    return _csv_rows(lines, layout)


def _json_lines(lines: BinaryIO) -> Iterator[FileEvent]:
    for number, text in enumerate(lines, start=1):
        value = text.strip()
        if not value:
            continue
        if value.startswith(b"["):
            raise BadRow(number, "a JSON array, not one object a line", "write a line each: jq -c '.[]'")
        if value == b"{" or (number == 1 and not value.endswith(b"}") and value.startswith(b"{")):
            raise BadRow(number, "not_json: an object that goes on in the next line", "write a line each: jq -c .")
        yield _checked(number, value)


def _csv_rows(lines: io.BufferedReader, layout: Layout) -> Iterator[FileEvent]:
    first = lines.readline()
    if not first.strip():
        raise BadRow(1, "the file is empty", "it needs a header, USER_ID,ITEM_ID,TIMESTAMP, and rows")
    table = table_of(layout, first)
    rest = io.TextIOWrapper(lines, encoding="utf-8", errors="surrogateescape", newline="")
    texts = rest if table.has_header else chain([first.decode("utf-8-sig", "surrogateescape")], rest)
    for line, cells in split_rows(texts, table, first_line=2 if table.has_header else 1):
        yield _event_of(line, cells, layout)


def split_rows(texts: Any, table: Table, first_line: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Split lines into cells by column name, with the line that each row ends in; raises BadRow."""
    if len(table.separator) > 1:
        rows: Iterator[tuple[int, int, list[str]]] = (
            (n, n, text.rstrip("\r\n").split(table.separator) if text.strip() else [])
            for n, text in enumerate(texts, first_line)
        )
    else:
        rows = _quoted_rows(texts, table, first_line)
    for begin, end, row in rows:
        if not any(cell.strip() for cell in row):
            continue  # an empty line, or a spreadsheet's empty row
        beyond = [cell for cell in row[len(table.columns) :] if cell.strip()]
        if beyond or len(row) < table.needed:
            raise BadRow(end, f"{len(row)} columns where the header has {len(table.columns)}")
        if end > begin and any(_looks_like_rows(cell, table) for cell in row):
            raise BadRow(
                begin,
                f"a quote opens here and closes in line {end}, and what lies between looks like rows",
                "close the quote, or write it twice if it belongs to the text",
            )
        unnamed = [n for n, (name, cell) in enumerate(zip(table.columns, row, strict=False), 1) if cell and not name]
        if unnamed and table.has_header:
            raise BadRow(end, f"column {unnamed[0]} has a value and no name", "name the column in the header")
        yield end, {name: cell for name, cell in zip(table.columns, row, strict=False) if name}


def _quoted_rows(texts: Any, table: Table, first_line: int) -> Iterator[tuple[int, int, list[str]]]:
    """Read rows whose cells may be quoted: the line that each begins in, the one that it ends in, and its cells."""
    reader = csv.reader(texts, delimiter=table.separator, strict=True)
    begin = first_line
    try:
        for row in reader:
            end = first_line + reader.line_num - 1
            yield begin, end, row
            begin = end + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise BadRow(
                begin, "a quote opens here and is never closed", "close it, or write it twice if it belongs to the text"
            ) from None
        raise BadRow(begin, str(error)) from None


def _looks_like_rows(cell: str, table: Table) -> bool:
    """Return whether a cell of several lines has swallowed rows: a line in it has as many separators as a row."""
    inner = cell.splitlines()[1:]
    return any(text.count(table.separator) >= len(table.columns) - 1 > 0 for text in inner)


def _event_of(line: int, cells: dict[str, Any], layout: Layout) -> FileEvent:
    record: dict[str, Any] = {
        "user_id": str(cells.pop("USER_ID")),
        "item_id": str(cells.pop("ITEM_ID")),
        "timestamp": _time_s(line, cells.pop("TIMESTAMP"), layout),
    }
    if kind := cells.pop("EVENT_TYPE", ""):
        record["event_type"] = str(kind)
    strength = cells.pop("EVENT_VALUE", "")
    if strength not in ("", None):
        record["event_value"] = _number(line, "EVENT_VALUE", strength)
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
    """Read a record as the stream would; raises BadRow."""
    try:
        event = decode_event(value)
    except BadRecord as bad:
        raise BadRow(line, str(bad)) from None
    return FileEvent(line, event, value)


def _time_s(line: int, cell: Any, layout: Layout) -> int | float:
    """Read a time: a number in the layout's unit, or ISO 8601 (UTC if it names no zone)."""
    if isinstance(cell, datetime):
        return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp()
    if isinstance(cell, str) and (moment := _iso(cell)) is not None:
        return moment
    number = _number(line, "TIMESTAMP", cell, "; give Unix seconds, or ISO 8601 such as 2024-05-01T12:00:00Z")
    if layout.time_unit != "s":
        return number / UNITS_A_SECOND[layout.time_unit]
    if number >= LATEST:
        unit = "ms" if number < 1e14 else "us" if number < 1e17 else "ns"
        raise BadRow(
            line,
            f"timestamp {number:.15g} is no Unix time in seconds",
            f"if it is in {unit}: --time-unit {unit}; or divide milliseconds by 1000",
        )
    return number


def _iso(cell: str) -> float | None:
    """Read a date or a time of ISO 8601 as Unix seconds; None for anything else, a plain number among it."""
    text = cell.strip()
    if len(text) < len("2024-05-01") or text[4:5] != "-":
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(line: int, column: str, cell: Any, hint: str = "") -> int | float:
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
        raise BadRow(line, f"{column} is {shown}, which is no number", f"correct the line{hint}")
    return number
