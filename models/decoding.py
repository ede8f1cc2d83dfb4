"""Reading records that others write: JSON of a known shape, ids, times, and the error that tells what is wrong."""

from __future__ import annotations

from typing import TypeVar

import msgspec

MAX_ID_CHARS = 256  # Amazon Personalize's own limit for USER_ID and ITEM_ID

# Times later than these can't be seconds: 1e11 s is the year 5138, but 1e11 ms is 1973. Earlier ones are times.
_FINER_UNITS = ((1e17, "nanoseconds", 1e9), (1e14, "microseconds", 1e6), (1e11, "milliseconds", 1e3))

T = TypeVar("T")


class BadRecord(ValueError):
    """A record that can't be applied: `reason` is one of a few words, `detail` is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        """Say what is wrong, for a header and for a person."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decoded(decoder: msgspec.json.Decoder[T], value: bytes | None, kind: str, most_bytes: int) -> T:
    """Read a record of some kind from its bytes; raises BadRecord with a reason that says what is wrong with it."""
    if value is None:
        raise BadRecord("null_value", f"{kind} can't be withdrawn by a null value")
    if len(value) > most_bytes:
        raise BadRecord("too_large", f"{len(value)} bytes; {kind} has at most {most_bytes}")
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        reason = "missing_field" if "missing required field" in str(error) else "wrong_type"
        detail = str(error)
        if detail.endswith(("`$.timestamp`", "`$.at`", "`$.created_at`")):
            detail += ": send a number, Unix seconds as in 1700000000.5, and no text"
        raise BadRecord(reason, detail) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord("not_json", str(error)) from None


def check_id(name: str, text: str) -> None:
    """Raise BadRecord for what is not an id of an item, a user or a request."""
    if not 0 < len(text) <= MAX_ID_CHARS:
        raise BadRecord("bad_id", f"{name} has {len(text)} characters; 1 to {MAX_ID_CHARS} are allowed")
    if "\0" in text:  # Faust keeps a record of its own beside the users', under a key with a NUL
        raise BadRecord("bad_id", f"{name} holds a NUL character")


def check_time(name: str, time_s: float) -> None:
    """Raise BadRecord for what is not a Unix time in seconds."""
    if not 0 <= time_s < 1e20:  # 1e20 ns are the year 5138; NaN is refused, too
        raise BadRecord("bad_timestamp", f"{name} {time_s:.15g} is no Unix time in seconds")
    for least, unit, divisor in _FINER_UNITS:
        if time_s >= least:
            raise BadRecord("bad_timestamp", f"{name} {time_s:.0f} looks like {unit}: divide by {divisor:.0f}")
