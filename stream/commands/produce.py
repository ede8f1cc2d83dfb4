"""`hrnn produce`: files of events into `interactions`, of items into `items`, of users into `users`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from stream.commands.failures import Failure
from stream.commands.options import Bootstrap, Columns, Prefix, Separator, TimeUnitOption, note, results
from stream.files.layout import Format, Layout, parse_columns, parse_separator

if TYPE_CHECKING:
    from models.facts.schema import Kind, Schema

FORMS = "CSV, JSON lines or parquet, plain, .xz, .gz, .bz2 or .zst; - for standard input."


@dataclass(frozen=True)
class _Part:
    """One file to send to its topic."""

    what: str
    topic: str
    rows: Callable[[], Iterable[tuple[str, bytes]]]
    """Reads the file from its start: keys and values."""
    total: int | None
    """None for a file that can be read only once."""
    rate: float | None = None


def produce(
    file: Annotated[str | None, typer.Argument(help=f"Events: {FORMS}")] = None,
    items: Annotated[str | None, typer.Option(metavar="FILE", help="Facts of items: ITEM_ID,GENRES,…")] = None,
    users: Annotated[str | None, typer.Option(metavar="FILE", help="Facts of users: USER_ID,AGE,…")] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Events per second. Default: as fast as possible.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="auto: by the first character.")] = "auto",
    columns: Columns = "",
    sep: Separator = ",",
    time_unit: TimeUnitOption = "s",
) -> None:
    """Send events: CSV with the columns USER_ID,ITEM_ID,TIMESTAMP[,EVENT_TYPE,EVENT_VALUE], or JSON lines.

    A file is checked as a whole before anything is sent. Events from standard input are checked line by line. Other CSV
    columns become properties. Each event is keyed by its user. Rows are sent in the file's order, duplicates included.

    --items and --users send facts, before the events: CSV with ITEM_ID[,TITLE,CREATION_TIMESTAMP,AVAILABLE,…] or
    USER_ID[,…], or JSON lines. The schemas of HRNN_ITEMS_SCHEMA and HRNN_USERS_SCHEMA define the other columns. Without
    one, a schema is inferred and printed.
    """
    from stream.commands.environment import read_settings

    if not (file or items or users):
        raise Failure("nothing to send", "name a file of events, --items FILE or --users FILE", exit_code=2)
    if columns and sum(map(bool, (file, items, users))) > 1:
        raise Failure("--columns applies to one file only", "send one file at a time", exit_code=2)
    if [file, items, users].count("-") > 1:
        raise Failure("standard input can be only one of the files", "name the others", exit_code=2)
    settings = read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    layout = Layout(form, parse_columns(columns), parse_separator(sep), time_unit)
    parts: list[_Part] = []
    if items:
        parts.append(_facts(items, "items", settings.topics.items, layout, settings.schema_of("items")))
    if users:
        parts.append(_facts(users, "users", settings.topics.users, layout, settings.schema_of("users")))
    if file:
        parts.append(_events(file, settings.topics.interactions, layout, rate))
    for part in parts:
        _send(settings.kafka_bootstrap, part)


def _facts(path: str, kind: Kind, topic: str, layout: Layout, schema: Schema | None) -> _Part:
    """Check a file of facts; without a schema, infer one and print it."""
    from stream.files.facts import infer_schema, read_facts

    name = _named(path)
    held: bytes | None = None
    if _is_read_once(path):
        held = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    if schema is None:
        with _opened(path, held) as source:
            schema = infer_schema(source, kind, name=name, layout=layout)
        results(schema.written())
        note(f"schema of {name} inferred; save it in a file and set HRNN_{kind.upper()}_SCHEMA to that")

    def rows() -> Iterable[tuple[str, bytes]]:
        with _opened(path, held) as source:
            for row in read_facts(source, schema, name=name, layout=layout):
                yield row.key, row.value

    return _Part(kind, topic, rows, total=sum(1 for _ in rows()))


def _events(path: str, topic: str, layout: Layout, rate: float | None) -> _Part:
    """Check a file of events, unless it is standard input."""
    from stream.files.events import read_events

    def rows() -> Iterable[tuple[str, bytes]]:
        with _opened(path) as source:
            for row in read_events(source, name=_named(path), layout=layout):
                yield row.event.user_id, row.value

    total = None if _is_read_once(path) else sum(1 for _ in rows())
    return _Part("events", topic, rows, total, rate)


def _is_read_once(path: str) -> bool:
    return path == "-" or Path(path).is_fifo()


def _opened(path: str, held: bytes | None = None) -> io.BufferedReader:
    """Open a file, or its content that was read already."""
    from stream.files.opening import open_file

    return open_file(path, sys.stdin.buffer) if held is None else open_file("-", cast(BinaryIO, io.BytesIO(held)))


def _named(path: str) -> str:
    return "standard input" if path == "-" else path


def _send(bootstrap: str, part: _Part) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from stream.clients.produce import send_rows

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"sending {part.what}", total=part.total)
        sent = send_rows(
            bootstrap,
            part.topic,
            part.rows(),
            what=part.what,
            rate=part.rate,
            progress=lambda count: bar.update(task, completed=count),
        )
    note(f"{sent} {part.what} sent to {part.topic} at {bootstrap}")
