"""`hrnn dead-letters`: show refused records with reason and source."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from stream.commands.options import Bootstrap, Json, Prefix, note, results

SHOWN_CHARS = 160  # of a value in a line; --json shows all


def dead_letters(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Then show new ones, until Ctrl-C.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Show only this reason, such as late.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after so many.")] = None,
    as_json: Json = False,
) -> None:
    """Show refused records, one per line: time, reason, source, detail and the start of the value.

    Existing ones come first, oldest first, then new ones with --follow. A count by reason ends the output. Nothing is
    consumed: the records stay on the topic.
    """
    from stream.clients.reading import follow as following
    from stream.clients.reading import read_to_end
    from stream.commands.environment import read_settings

    settings = read_settings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
    topic = settings.topics.dead_letters
    records = (
        following(settings.kafka_bootstrap, topic, from_beginning=True)
        if follow
        else sorted(read_to_end(settings.kafka_bootstrap, topic), key=lambda record: record.timestamp)
    )
    found: Counter[str] = Counter()
    try:
        for record in records:
            letter = read_letter(record)
            if reason is not None and letter["reason"] != reason:
                continue
            found[letter["reason"]] += 1
            results(json.dumps(letter) if as_json else line(letter))
            if found.total() == limit:
                break
    except KeyboardInterrupt:
        pass
    if not as_json:
        counts = ", ".join(f"{name} {count}" for name, count in found.most_common())
        note(f"{found.total()} dead letters{': ' + counts if counts else ''}")


def read_letter(record: Any) -> dict[str, Any]:
    """Return a dead letter's fields. Bytes that are not UTF-8 are shown with backslashes."""
    headers = {name: _text(value) for name, value in record.headers}
    return {
        "time": datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds"),
        "reason": headers.pop("reason", ""),
        "detail": headers.pop("detail", ""),
        "topic": headers.pop("source-topic", ""),
        "partition": headers.pop("source-partition", ""),
        "offset": headers.pop("source-offset", ""),
        "key": _text(record.key),
        "value": _text(record.value),
        "headers": headers,
    }


def line(letter: dict[str, Any]) -> str:
    """Return a dead letter as one line."""
    value = letter["value"] or ""
    shown = value if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]}… ({len(value):,} characters)"
    place = f"{letter['topic']}/{letter['partition']}/{letter['offset']}"
    text = f"{letter['time']}  {letter['reason']}  {place}  {letter['detail']}  {shown}"
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
