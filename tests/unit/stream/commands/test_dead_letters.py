from __future__ import annotations

from types import SimpleNamespace

from stream.commands.dead_letters import SHOWN_CHARS, line, read_letter


def record(value: bytes | None, *more: tuple[str, bytes | None]) -> SimpleNamespace:
    headers = [
        ("reason", b"wrong_type"),
        ("detail", b"Expected `float`"),
        ("source-topic", b"interactions"),
        ("source-partition", b"3"),
        ("source-offset", b"17"),
        *more,
    ]
    return SimpleNamespace(timestamp=1_700_000_000_123, key=b"u", value=value, headers=headers)


def test_a_line_says_when_why_where_and_what() -> None:
    assert line(read_letter(record(b'{"user_id":"u"}'))) == (
        '2023-11-14T22:13:20.123+00:00  wrong_type  interactions/3/17  Expected `float`  {"user_id":"u"}'
    )


def test_what_is_no_text_and_what_is_long_stays_one_short_line() -> None:
    letter = read_letter(record(b"\xff\n" + b"x" * 5000, ("trace", None)))
    shown = line(letter)
    assert "\n" not in shown
    assert "\\xff\\n" in shown
    assert "(5,005 characters)" in shown
    assert len(shown) < SHOWN_CHARS + 200
    assert letter["headers"] == {"trace": None}


def test_a_null_value_is_shown_as_nothing() -> None:
    assert read_letter(record(None))["value"] is None
    assert line(read_letter(record(None))).endswith("Expected `float`  ")
