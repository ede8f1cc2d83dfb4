"""What several commands have in common: options, and where output goes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", "-b", help="Kafka's host:port. \\[HRNN_KAFKA_BOOTSTRAP, else 127.0.0.1:9092]"),
]
Prefix = Annotated[
    str | None, typer.Option("--prefix", help="What the topics' names begin with. \\[HRNN_TOPIC_PREFIX]")
]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on standard output.")]


def results(line: str) -> None:
    """Write what was asked for, to standard output."""
    typer.echo(line)


def note(line: str) -> None:
    """Write what a person may want to know, to standard error, out of the way of results."""
    typer.echo(line, file=sys.stderr)
