"""`hrnn watch`: show lists as they arrive."""

from __future__ import annotations

import csv
import io
import sys
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from models.records import Recommendation, decode_recommendation
from stream.commands.options import Bootstrap, Json, Prefix, note, results


def watch(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Show only this user's lists.")] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the existing lists.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after so many lists.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Show so many items of each list.")] = 5,
    titles: Annotated[str | None, typer.Option(help="CSV with ITEM_ID,TITLE: show titles instead of ids.")] = None,
    as_json: Json = False,
) -> None:
    """Show recommendations as they arrive, one per line, until Ctrl-C."""
    from stream.clients.reading import follow
    from stream.commands.environment import read_settings

    settings = read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    names = _titles(titles) if titles else {}
    shown = 0
    try:
        for record in follow(settings.kafka_bootstrap, settings.topics.recommendations, from_beginning=from_beginning):
            if record.value is None or (user is not None and record.key != user.encode()):
                continue
            if as_json:
                results(record.value.decode("utf-8", "replace"))
            else:
                _show(record, names, top)
            shown += 1
            if shown == limit:
                break
    except KeyboardInterrupt:
        note(f"{shown} lists")


def _show(record: object, names: dict[str, str], top: int) -> None:
    value = getattr(record, "value", b"")
    try:
        results(line(decode_recommendation(value), names, top))
    except msgspec.DecodeError as error:
        where = f"partition {getattr(record, 'partition', '?')} offset {getattr(record, 'offset', '?')}"
        note(f"not a list at {where}: {error}")


def line(recommendation: Recommendation, names: dict[str, str], top: int) -> str:
    """Return a list as one line: time, user, model or recipe, items."""
    clock = datetime.fromtimestamp(recommendation.generated_at).strftime("%H:%M:%S")
    items = " | ".join(names.get(item.item_id, item.item_id) for item in recommendation.items[:top])
    maker = recommendation.recipe or recommendation.model_version
    return f"{clock}  {recommendation.user_id}  [{maker}]  {items}"


def _titles(path: str) -> dict[str, str]:
    from stream.commands.failures import Failure
    from stream.files.opening import open_file

    with open_file(path, sys.stdin.buffer) as source:
        rows = csv.DictReader(io.StringIO(source.read().decode("utf-8-sig"), newline=""))
        if not {"ITEM_ID", "TITLE"} <= set(rows.fieldnames or ()):
            raise Failure(f"{path} has no columns ITEM_ID and TITLE", "name a CSV with both", exit_code=2)
        return {row["ITEM_ID"]: row["TITLE"] for row in rows}
