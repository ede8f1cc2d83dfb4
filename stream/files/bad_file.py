"""What is wrong with a file: a row, or the whole of it, with what to do about it."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import zstandard

from stream.commands.failures import Failure

BAD_FILE = 2
"""The exit status where the command was given a file that it can't use as it is."""

DAMAGED_FILE = 1
"""The exit status where a file of the right kind is broken."""

DRAINED_BYTES = 2**20

DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


class BadRow(Exception):
    """A line that can't be used, why, and what to do about it."""

    def __init__(self, line: int, why: str, remedy: str = "correct the line") -> None:
        """Return the line, counted from 1."""
        super().__init__(why)
        self.line = line
        self.why = why
        self.remedy = remedy


@contextmanager
def explained(name: str, line: Callable[[], int], source: BinaryIO) -> Iterator[None]:
    """Turn what reading a file raises into Failure; `line` tells how far the reader has come.

    A wrong row may come of damage that a checksum at the end of a compressed file tells, so `source` is read to there.
    """
    try:
        try:
            yield
        except BadRow:
            with suppress(ValueError):  # closed by the text reader that found the row
                while source.read(DRAINED_BYTES):
                    pass
            raise
    except BadRow as bad:
        raise Failure(f"{name}, line {bad.line}: {bad.why}", bad.remedy, exit_code=BAD_FILE) from None
    except DAMAGE as error:
        raise Failure(
            f"{name}, near line {line()}: {error}",
            "the compressed file is damaged or cut off; fetch or compress it again",
            exit_code=DAMAGED_FILE,
        ) from None


def refuse_other_text(line: int, cells: list[str]) -> None:
    """Raise BadRow for cells that were not UTF-8."""
    for cell in cells:
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            byte = ord(cell[error.start]) & 0xFF
            raise BadRow(
                line, f"not UTF-8: byte 0x{byte:02x} in {cell[:40]!a}", "convert the file: iconv -t utf-8"
            ) from None
