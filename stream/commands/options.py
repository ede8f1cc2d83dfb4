"""What several commands have in common: options, what is read from them, and where output goes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from models import durations
from stream.files.layout import TimeUnit

Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", "-b", help="Kafka's host:port. \\[HRNN_KAFKA_BOOTSTRAP, else 127.0.0.1:9092]"),
]
Prefix = Annotated[
    str | None, typer.Option("--prefix", help="What the topics' names begin with. \\[HRNN_TOPIC_PREFIX]")
]
Columns = Annotated[
    str,
    typer.Option(
        metavar="ROLE=NAME,…",
        help="What the columns are: user=userId,item=movieId,time=timestamp[,type=…,value=rating]; "
        "by number from 1 if there is no header.",
    ),
]
Separator = Annotated[str, typer.Option("--sep", help="What separates columns: a character, tab, or '::'.")]
TimeUnitOption = Annotated[
    TimeUnit, typer.Option("--time-unit", help="Of numeric times; ISO 8601 is read without being told.")
]


def duration_s(text: str) -> float:
    """Read a duration such as 90s, 30m, 6h, 1d or 1d12h as seconds; raises typer.BadParameter."""
    try:
        return durations.duration_s(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def png(text: str) -> Path:
    """Take the name of a picture that can be written, before hours of work go into it; raises typer.BadParameter."""
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise typer.BadParameter(f"{text} does not end in .png, and pictures are PNG")
    place = path if path.exists() else path.parent
    if path.is_dir() or not path.parent.is_dir() or not os.access(place, os.W_OK):
        raise typer.BadParameter(f"{text} can't be written")
    return path


Json = Annotated[bool, typer.Option("--json", help="Results as JSON on standard output.")]


def results(line: str) -> None:
    """Write what was asked for, to standard output."""
    typer.echo(line)


def note(line: str) -> None:
    """Write what a person may want to know, to standard error, out of the way of results."""
    typer.echo(line, file=sys.stderr)
