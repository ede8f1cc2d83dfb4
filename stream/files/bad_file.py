"""Errors of input files, with remedies."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import zstandard

from stream.commands.failures import Failure

BAD_FILE = 2
"""The exit status for a file that the command can't use."""

DAMAGED_FILE = 1
"""The exit status for a damaged file of the right kind."""

DRAINED_BYTES = 2**20

DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


class BadRow(Exception):
    """A wrong line, with the reason and the remedy."""

    def __init__(self, line: int, why: str, remedy: str = "correct the line") -> None:
        """`line` counts from 1."""
        super().__init__(why)
        self.line = line
        self.why = why
        self.remedy = remedy


@contextmanager
def explained(name: str, line: Callable[[], int], source: BinaryIO) -> Iterator[None]:
    """Turn errors of reading a file into Failure. `line` returns the current line.

    A wrong row may be caused by damage, which the checksum at the end of a compressed file shows: `source` is read to
    its end.
    """
    try:
        try:
            yield
        except BadRow:
            with suppress(ValueError):  # the text reader may have closed it
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
