"""Record headers. Any client writes them: their size is limited, values may be null and names may not be UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from models.records import BadRecord

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

MAX_HEADERS_BYTES = 16 * 1024  # tracing needs about 200 bytes; forwarded and refused records carry them
HEADER_FRAME_BYTES = 10  # two lengths of at most five bytes each


def size_of(headers: Headers) -> int:
    """Return an upper bound of the headers' bytes in a record."""
    return sum(
        len(name.encode("utf-8", "surrogatepass")) + (0 if value is None else len(value)) + HEADER_FRAME_BYTES
        for name, value in headers
    )


def check_headers(headers: Headers) -> None:
    """Raise BadRecord for headers that exceed the limit."""
    if headers and (size := size_of(headers)) > MAX_HEADERS_BYTES:
        raise BadRecord("too_large", f"headers of {size} bytes; a record has at most {MAX_HEADERS_BYTES}")


def sendable(headers: Iterable[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """Return headers that a producer accepts: invalid UTF-8 in names is replaced."""
    return [(name.encode("utf-8", "replace").decode(), value) for name, value in headers]


def first_within(headers: Headers, most_bytes: int) -> list[tuple[str, bytes | None]]:
    """Return as many of the first headers as fit."""
    kept: list[tuple[str, bytes | None]] = []
    room = most_bytes
    for header in headers:
        room -= size_of([header])
        if room < 0:
            break
        kept.append(header)
    return kept
