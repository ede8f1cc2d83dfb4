"""Tables on standard output: drawn at a terminal, tab-separated in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

PADDING = 3  # of each cell


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header. On a narrow terminal each row is printed as a list of its cells."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            typer.echo("\t".join(row))
        return
    draw(Console(), header, rows)


def draw(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw rows without breaking a word, so that words can be copied and searched."""
    widths = _widths(console.width - 1, [header, *rows])
    if widths is None:
        name_width = max(map(len, header))
        for row in rows:
            for name, cell in zip(header, row, strict=True):
                console.print(f"{name:<{name_width}}  {cell}", soft_wrap=True, highlight=False, markup=False)
            console.print()
        return
    drawn = Table(
        *(Column(Text(name), width=width) for name, width in zip(header, widths, strict=True)),
        box=SIMPLE,
        header_style="bold",
    )
    for row in rows:
        drawn.add_row(*(Text(" ".join(cell.split())) for cell in row))  # a leading space would break a long word
    console.print(drawn)


def _widths(room: int, lines: Sequence[Sequence[str]]) -> list[int] | None:
    """Return the columns' widths, each at least its longest word; None if the terminal is too narrow."""
    columns = list(zip(*lines, strict=True))
    widths = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    left = room - sum(widths) - PADDING * len(widths)
    if left < 0:
        return None
    needs = [max(map(len, column)) - width for column, width in zip(columns, widths, strict=True)]
    for place in sorted(range(len(widths)), key=needs.__getitem__):
        given = min(needs[place], left)
        widths[place] += given
        left -= given
    return widths
