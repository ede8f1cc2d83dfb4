"""Read one column of a file of items or users."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from stream.files.bad_file import BadRow, explained, refuse_other_text
from stream.files.layout import Layout, table_of
from stream.files.rows import buffered, split_rows


def read_ids(source: BinaryIO, column: str, *, name: str, layout: Layout | None = None) -> Iterator[str]:
    """Read one column of a CSV file; raises Failure naming the file and the line that is wrong."""
    lines, line = buffered(source), 1
    with explained(name, lambda: line, lines):
        first = lines.readline()
        try:
            table = table_of(layout or Layout(), first, (column,))
        except BadRow as bad:
            raise BadRow(bad.line, bad.why, f"name the column of ids {column}; {bad.remedy}") from None
        rest = io.TextIOWrapper(lines, encoding="utf-8", errors="surrogateescape", newline="")
        texts = rest if table.has_header else chain([first.decode("utf-8-sig", "surrogateescape")], rest)
        for line, cells in split_rows(texts, table, first_line=2 if table.has_header else 1):
            if not (cell := cells.get(column, "")):
                raise BadRow(line, f"no {column}")
            refuse_other_text(line, [cell])
            yield cell
