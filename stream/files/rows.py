"""Split a file into rows: CSV and parquet cells by column name, or raw JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, cast

from stream.files.bad_file import BadRow
from stream.files.layout import REQUIRED, Layout, Table, table_of
from stream.files.opening import PARQUET

BOM = b"\xef\xbb\xbf"

Row = tuple[int, dict[str, Any] | bytes]
"""A row's last line, and its cells or its JSON."""


def buffered(source: BinaryIO) -> io.BufferedReader:
    """Return the source with `peek`."""
    return source if isinstance(source, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, source))


def rows_of(lines: io.BufferedReader, layout: Layout, required: tuple[str, ...] = REQUIRED) -> Iterator[Row]:
    """Split a file into rows; raises BadRow, also if a `required` column is missing.

    Without a format in the layout, a file whose first character is a brace is read as JSON lines.
    """
    head = lines.peek(64)[:64]
    if head.startswith(BOM):
        lines.read(len(BOM))
        head = head[len(BOM) :]
    if head.startswith(PARQUET):
        from stream.files.parquet import parquet_rows  # needs an extra, which may not be installed

        return parquet_rows(lines, layout, required)
    first = head.lstrip()
    if layout.form == "jsonl" or (layout.form == "auto" and first.startswith((b"{", b"["))):
        return _json_lines(lines)
    return _csv_rows(lines, layout, required)


def _json_lines(lines: BinaryIO) -> Iterator[Row]:
    for number, text in enumerate(lines, start=1):
        value = text.strip()
        if not value:
            continue
        if value.startswith(b"["):
            raise BadRow(number, "a JSON array, not JSON lines", "write one object per line: jq -c '.[]'")
        if value == b"{" or (number == 1 and not value.endswith(b"}") and value.startswith(b"{")):
            raise BadRow(number, "not_json: an object of several lines", "write one object per line: jq -c .")
        yield number, value


def _csv_rows(lines: io.BufferedReader, layout: Layout, required: tuple[str, ...]) -> Iterator[Row]:
    first = lines.readline()
    if not first.strip():
        raise BadRow(1, "the file is empty", f"it needs a header, {','.join(required)}, and rows")
    table = table_of(layout, first, required)
    rest = io.TextIOWrapper(lines, encoding="utf-8", errors="surrogateescape", newline="")
    texts = rest if table.has_header else chain([first.decode("utf-8-sig", "surrogateescape")], rest)
    yield from split_rows(texts, table, first_line=2 if table.has_header else 1)


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
    """Return whether a cell of several lines seems to contain rows: a line in it has as many separators as a row."""
    inner = cell.splitlines()[1:]
    return any(text.count(table.separator) >= len(table.columns) - 1 > 0 for text in inner)
