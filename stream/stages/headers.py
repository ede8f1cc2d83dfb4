"""Headers of records: anybody's, so their size is bounded, their values may be null and their names no UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from models.records import BadRecord

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

MAX_HEADERS_BYTES = 16 * 1024  # tracing takes some 200 bytes; they travel with what is forwarded and refused
HEADER_FRAME_BYTES = 10  # two lengths of at most five bytes each, so that empty headers count, too


def size_of(headers: Headers) -> int:
    """Count the bytes that headers take in a record, at the most."""
    return sum(
        len(name.encode("utf-8", "surrogatepass")) + (0 if value is None else len(value)) + HEADER_FRAME_BYTES
        for name, value in headers
    )


def check_headers(headers: Headers) -> None:
    """Raise BadRecord for headers that are too many or too long to be carried along."""
    if headers and (size := size_of(headers)) > MAX_HEADERS_BYTES:
        raise BadRecord("too_large", f"headers of {size} bytes; a record has at most {MAX_HEADERS_BYTES}")


def sendable(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """Return headers as a producer takes them: of a name that is no UTF-8 the odd characters are replaced."""
    return [(name.encode("utf-8", "replace").decode(), value) for name, value in headers]


def first_within(headers: Headers, most_bytes: int) -> list[tuple[str, bytes | None]]:
    """Keep as many of the first headers as fit."""
    kept: list[tuple[str, bytes | None]] = []
    room = most_bytes
    for header in headers:
        room -= size_of([header])
        if room < 0:
            break
        kept.append(header)
    return kept
