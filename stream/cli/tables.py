"""Tables on standard output: drawn at a terminal, tab-separated in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show rows under a header."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            typer.echo("\t".join(row))
        return
    drawn = Table(*(Column(name, overflow="fold") for name in header), box=SIMPLE, header_style="bold")
    for row in rows:
        drawn.add_row(*row)
    Console().print(drawn)
