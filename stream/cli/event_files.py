"""Files of events: CSV in Amazon Personalize's columns, or JSON lines, plain or compressed."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import msgspec
import zstandard

from models.contracts import BadRecord, Event, decode_event
from stream.cli.failures import Failure

Format = Literal["auto", "csv", "jsonl"]

BAD_FILE = 2
"""The exit status of every failure here: what was asked, was asked of a file that can't answer it."""

LATEST = 1e11  # the year 5138: a greater number is a time in milliseconds or finer, not one in seconds
DAMAGE = (EOFError, OSError, lzma.LZMAError, zstandard.ZstdError)

REQUIRED = ("USER_ID", "ITEM_ID", "TIMESTAMP")
OPTIONAL = ("EVENT_TYPE", "EVENT_VALUE")


class FileEvent(NamedTuple):
    """One row: where it stands, what it says, and the bytes that go out as the record's value."""

    line: int
    event: Event
    value: bytes


def open_events(path: str, stdin: BinaryIO) -> BinaryIO:
    """Open a file, or `stdin` for "-", decompressed; its first bytes tell how it is compressed.

    Raises Failure for a file that is not there or can't be read, a folder among them.
    """
    if path == "-":
        raw: BinaryIO = stdin
    else:
        try:
            raw = Path(path).open("rb")  # noqa: SIM115 - the caller reads from it and closes it
        except OSError as error:
            raise Failure(
                f"can't read {path}: {error.strerror}", "name a file, or - for standard input", exit_code=BAD_FILE
            ) from None
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    head = buffered.peek(6)[:6]
    if head.startswith(b"\xfd7zXZ\x00"):
        return cast(BinaryIO, lzma.open(buffered))
    if head.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.open(buffered))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(BinaryIO, zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True))
    return buffered


def read_events(source: BinaryIO, *, name: str, form: Format = "auto") -> Iterator[FileEvent]:
    """Read and check each row; raises Failure naming the file and the line of the first that is wrong.

    "auto" takes a file whose first character is a brace for JSON lines.
    """
    lines = io.BufferedReader(cast(io.RawIOBase, source))
    line = 1
    try:
        if form == "auto":
            form = "jsonl" if lines.peek(64).lstrip().startswith(b"{") else "csv"
        for row in _json_lines(lines) if form == "jsonl" else _csv_rows(lines):
            line = row.line
            yield row
            line += 1  # where an error that the reader itself raises next would be
    except _BadRow as bad:
        raise Failure(f"{name}, line {bad.line}: {bad.why}", bad.remedy, exit_code=BAD_FILE) from None
    except DAMAGE as error:
        raise Failure(
            f"{name}, near line {line}: {error}", "the compressed file is damaged or cut off", exit_code=BAD_FILE
        ) from None


def read_log(path: str, stdin: BinaryIO) -> list[Event]:
    """Read all events of a file, or of `stdin` for "-"; raises Failure for one without any."""
    name = "standard input" if path == "-" else path
    with open_events(path, stdin) as source:
        events = [row.event for row in read_events(source, name=name)]
    if not events:
        raise Failure(f"{name} holds no events", "it needs rows under USER_ID,ITEM_ID,TIMESTAMP", exit_code=BAD_FILE)
    return events


def read_ids(source: BinaryIO, column: str, *, name: str) -> Iterator[str]:
    """Read one column of a CSV file of items or users; raises Failure naming the file and the line that is wrong."""
    reader = csv.reader(_text(source))
    try:
        header = [cell.strip().upper() for cell in next(reader, [])]
        if column not in header:
            raise _BadRow(1, f"the header has no {column}", f"name the column of ids {column}")
        place = header.index(column)
        for row in reader:
            if row and (len(row) <= place or not row[place]):
                raise _BadRow(reader.line_num, f"no {column}")
            if row:
                _refuse_other_text(reader.line_num, row[place : place + 1])
                yield row[place]
    except _BadRow as bad:
        raise Failure(f"{name}, line {bad.line}: {bad.why}", bad.remedy, exit_code=BAD_FILE) from None
    except csv.Error as error:
        raise Failure(f"{name}, line {reader.line_num}: {error}", "correct the line", exit_code=BAD_FILE) from None
    except DAMAGE as error:
        raise Failure(f"{name}: {error}", "the compressed file is damaged or cut off", exit_code=BAD_FILE) from None


def _text(source: BinaryIO) -> io.TextIOWrapper:
    """Read bytes as UTF-8, what is none passed on as surrogates: strictly, the error would name no line."""
    return io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _refuse_other_text(line: int, cells: list[str]) -> None:
    """Raise _BadRow for cells that were not UTF-8."""
    for cell in cells:
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            byte = ord(cell[error.start]) & 0xFF
            raise _BadRow(
                line, f"not UTF-8: byte 0x{byte:02x} in {cell[:40]!a}", "convert the file: iconv -t utf-8"
            ) from None


class _BadRow(Exception):
    def __init__(self, line: int, why: str, remedy: str = "correct the line") -> None:
        super().__init__(why)
        self.line = line
        self.why = why
        self.remedy = remedy


def _json_lines(lines: BinaryIO) -> Iterator[FileEvent]:
    for number, text in enumerate(lines, start=1):
        value = text.strip()
        if value:
            yield _checked(number, value)


def _csv_rows(lines: BinaryIO) -> Iterator[FileEvent]:
    reader = csv.reader(_text(lines))
    try:
        header = next(reader, None)
        if header is None:
            raise _BadRow(1, "the file is empty", "it needs a header, USER_ID,ITEM_ID,TIMESTAMP, and rows")
        columns = _columns(header)
        for row in reader:
            if row:
                yield _csv_event(reader.line_num, columns, row)
    except csv.Error as error:
        raise _BadRow(reader.line_num, str(error)) from None


def _columns(header: list[str]) -> list[str]:
    """Name each column, the known ones in capitals; raises _BadRow if a required one is missing."""
    known = {*REQUIRED, *OPTIONAL}
    _refuse_other_text(1, header)
    columns = [name.strip().upper() if name.strip().upper() in known else name.strip() for name in header]
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise _BadRow(
            1,
            f"the header has no {', '.join(missing)}",
            "the columns are USER_ID,ITEM_ID,TIMESTAMP and, if you like, EVENT_TYPE,EVENT_VALUE",
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise _BadRow(1, f"the header has {', '.join(twice)} twice")
    return columns


def _csv_event(line: int, columns: list[str], row: list[str]) -> FileEvent:
    if len(row) != len(columns):
        raise _BadRow(line, f"{len(row)} columns where the header has {len(columns)}")
    cells = dict(zip(columns, row, strict=True))
    record: dict[str, Any] = {
        "user_id": cells.pop("USER_ID"),
        "item_id": cells.pop("ITEM_ID"),
        "timestamp": _number(line, "TIMESTAMP", cells.pop("TIMESTAMP")),
    }
    if kind := cells.pop("EVENT_TYPE", ""):
        record["event_type"] = kind
    if strength := cells.pop("EVENT_VALUE", ""):
        record["event_value"] = _number(line, "EVENT_VALUE", strength)
    properties = {name: cell for name, cell in cells.items() if cell}
    if properties:
        record["properties"] = properties
    try:
        value = msgspec.json.encode(record)
    except UnicodeEncodeError:
        _refuse_other_text(line, row)
        raise
    return _checked(line, value)


def _checked(line: int, value: bytes) -> FileEvent:
    """Read a record as the stream would, and refuse times that are none in seconds; raises _BadRow."""
    try:
        event = decode_event(value)
    except BadRecord as bad:
        raise _BadRow(line, str(bad)) from None
    if event.timestamp >= LATEST:
        raise _BadRow(
            line, f"timestamp {event.timestamp:.15g} is no Unix time in seconds", "divide milliseconds by 1000"
        )
    return FileEvent(line, event, value)


def _number(line: int, column: str, cell: str) -> int | float:
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _BadRow(line, f"{column} is {cell!a}, which is no number")
    return number
