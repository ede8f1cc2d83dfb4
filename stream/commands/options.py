"""Options that several commands share, their parsing, and the output functions."""

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
Prefix = Annotated[str | None, typer.Option("--prefix", help="Prefix of the topics' names. \\[HRNN_TOPIC_PREFIX]")]
Columns = Annotated[
    str,
    typer.Option(
        metavar="ROLE=NAME,…",
        help="Roles of the columns: user=userId,item=movieId,time=timestamp[,type=…,value=rating]; "
        "numbers from 1 if there is no header.",
    ),
]
Separator = Annotated[str, typer.Option("--sep", help="Column separator: a character, tab, or '::'.")]
TimeUnitOption = Annotated[
    TimeUnit, typer.Option("--time-unit", help="Unit of numeric times. ISO 8601 times need none.")
]


def duration_s(text: str) -> float:
    """Return the seconds of a duration such as 30m or 1d12h; raises typer.BadParameter."""
    try:
        return durations.duration_s(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def png(text: str) -> Path:
    """Return the path of a PNG file after checking that it can be written; raises typer.BadParameter."""
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise typer.BadParameter(f"{text} does not end in .png")
    place = path if path.exists() else path.parent
    if path.is_dir() or not path.parent.is_dir() or not os.access(place, os.W_OK):
        raise typer.BadParameter(f"{text} can't be written")
    return path


Json = Annotated[bool, typer.Option("--json", help="Write results as JSON to standard output.")]


def results(line: str) -> None:
    """Write a result to standard output."""
    typer.echo(line)


def note(line: str) -> None:
    """Write a message to standard error, apart from the results."""
    typer.echo(line, file=sys.stderr)
