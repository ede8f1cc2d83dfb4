"""`hrnn produce`: a file of events into `interactions`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.commands.options import Bootstrap, Columns, Prefix, Separator, TimeUnitOption, note
from stream.files.layout import Format, Layout, parse_columns, parse_separator


def produce(
    file: Annotated[
        str, typer.Argument(help="CSV, JSON lines or parquet, plain, .xz, .gz, .bz2 or .zst; - for standard input.")
    ],
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Events a second; as fast as it goes without.")] = None,
    form: Annotated[Format, typer.Option("--format", help="auto looks at the first character.")] = "auto",
    columns: Columns = "",
    sep: Separator = ",",
    time_unit: TimeUnitOption = "s",
) -> None:
    """Send events: CSV with the columns USER_ID,ITEM_ID,TIMESTAMP[,EVENT_TYPE,EVENT_VALUE], or JSON lines.

    A file is checked whole before anything is sent; standard input is checked line by line. Further CSV columns
    go along as properties. Each event is keyed by its user; rows are sent as the file has them, in its order, twice if
    they are there twice.
    """
    from rich.console import Console
    from rich.progress import Progress

    from stream.clients.produce import send_events
    from stream.commands.environment import read_settings
    from stream.files.events import read_events
    from stream.files.opening import open_file

    settings = read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    layout = Layout(form, parse_columns(columns), parse_separator(sep), time_unit)
    name = "standard input" if file == "-" else file
    total: int | None = None
    if Path(file).is_file():
        with open_file(file, sys.stdin.buffer) as source:
            total = sum(1 for _ in read_events(source, name=name, layout=layout))
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sending", total=total)
        with open_file(file, sys.stdin.buffer) as source:
            sent = send_events(
                settings.kafka_bootstrap,
                settings.topics.interactions,
                read_events(source, name=name, layout=layout),
                rate=rate,
                progress=lambda count: bar.update(task, completed=count),
            )
    note(f"{sent} events sent to {settings.topics.interactions} at {settings.kafka_bootstrap}")
