"""`hrnn dead-letters`: what was refused, why, and where it stood."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from stream.commands.options import Bootstrap, Json, Prefix, note, results

SHOWN_CHARS = 160  # of a value in a line; --json has all


def dead_letters(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those that come, until Ctrl-C.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Only those refused for this, such as late.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="End after so many.")] = None,
    as_json: Json = False,
) -> None:
    """Show refused records, a line each: when, why, where they stood, and how they begin.

    Those already there come first, oldest first; with --follow, then those that come. A table of reasons with their
    numbers ends the list. Nothing is consumed: they stay on the topic.
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
        said = ", ".join(f"{name} {count}" for name, count in found.most_common())
        note(f"{found.total()} dead letters{': ' + said if said else ''}")


def read_letter(record: Any) -> dict[str, Any]:
    """Read a dead letter; what is no text is shown with backslashes."""
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
    """Write a dead letter in one line."""
    value = letter["value"] or ""
    shown = value if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]}… ({len(value):,} characters)"
    place = f"{letter['topic']}/{letter['partition']}/{letter['offset']}"
    text = f"{letter['time']}  {letter['reason']}  {place}  {letter['detail']}  {shown}"
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
