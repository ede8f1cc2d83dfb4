"""Open a file by its first bytes: text, compressed text or parquet. Other known formats are refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import zstandard

from stream.commands.failures import Failure
from stream.files.bad_file import BAD_FILE, DAMAGE, DAMAGED_FILE

PARQUET = b"PAR1"
_PEEKED = 512  # a tar archive has its magic at byte 257


class _Kind(NamedTuple):
    starts: bytes
    what: str
    remedy: str


_UNPACK = "unpack it first, and name the file in it"
_TO_UTF8 = "convert it: iconv -f utf-16 -t utf-8"
_EXPORT = "export its table as CSV first"
_OTHER_KINDS = (
    _Kind(b"PK\x03\x04", "a zip archive, or a spreadsheet", f"{_UNPACK}; of a spreadsheet, export the table as CSV"),
    _Kind(b"PK\x05\x06", "an empty zip archive", _UNPACK),
    _Kind(b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    _Kind(b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    _Kind(b"\xd0\xcf\x11\xe0", "an old Excel file", _EXPORT),
    _Kind(b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    _Kind(b"\x80\x04\x95", "a Python pickle", "write it as CSV or parquet: a pickle can run code"),
    _Kind(b"ORC", "an ORC file", "write it as CSV or parquet"),
    _Kind(b"Obj\x01", "an Avro file", "write it as CSV or parquet"),
    _Kind(b"\xff\xfe", "UTF-16 text", _TO_UTF8),
    _Kind(b"\xfe\xff", "UTF-16 text", _TO_UTF8),
    _Kind(b"<!doctype html", "a web page", "download the file itself"),
    _Kind(b"<html", "a web page", "download the file itself"),
    _Kind(b"<?xml", "XML", "write it as CSV"),
    _Kind(b"version https://git-lfs", "a Git LFS pointer, not the file", "fetch the file: git lfs pull"),
)


def open_file(path: str, stdin: BinaryIO) -> io.BufferedReader:
    """Open a file, or `stdin` for "-", and decompress it by its first bytes.

    Raises Failure for a file that is missing, can't be read or has an unsupported format, and for a folder.
    """
    name = "standard input" if path == "-" else path
    if path == "-":
        raw: BinaryIO = stdin
    else:
        try:
            raw = Path(path).open("rb")  # noqa: SIM115 - the caller reads from it and closes it
        except OSError as error:
            raise Failure(
                f"can't read {path}: {error.strerror}", "name a file, or - for standard input", exit_code=BAD_FILE
            ) from None
    unpacked = _decompressed(_buffered(raw))
    try:
        head = unpacked.peek(_PEEKED)[:_PEEKED]
    except DAMAGE as error:
        raise Failure(
            f"{name}, near line 1: {error}",
            "the compressed file is damaged or cut off; fetch or compress it again",
            exit_code=DAMAGED_FILE,
        ) from None
    _refuse_other_kinds(name, head)
    return unpacked


def _buffered(raw: BinaryIO) -> io.BufferedReader:
    return raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))


def _decompressed(buffered: io.BufferedReader) -> io.BufferedReader:
    head = buffered.peek(6)[:6]
    if head.startswith(b"\xfd7zXZ\x00"):
        return _buffered(cast(BinaryIO, lzma.open(buffered)))
    if head.startswith(b"\x1f\x8b"):
        return _buffered(cast(BinaryIO, gzip.open(buffered)))
    if head.startswith(b"BZh"):
        return _buffered(cast(BinaryIO, bz2.open(buffered)))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        reader = zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
        return _buffered(cast(BinaryIO, reader))
    return buffered


def _refuse_other_kinds(name: str, head: bytes) -> None:
    for kind in _OTHER_KINDS:
        if head[: len(kind.starts)].lower() == kind.starts.lower():
            raise Failure(f"{name} is {kind.what}", kind.remedy, exit_code=BAD_FILE)
    if head[257:262] == b"ustar":
        raise Failure(f"{name} is a tar archive", _UNPACK, exit_code=BAD_FILE)
    if b"\x00" in head and not head.startswith(PARQUET):
        every_second = head[1::2].count(0) > len(head) // 4 or head[::2].count(0) > len(head) // 4
        what = "UTF-16 text without a byte order mark" if every_second else "binary data, not text"
        remedy = "convert it: iconv -f utf-16le -t utf-8" if every_second else "give CSV, JSON lines or parquet"
        raise Failure(f"{name} is {what}", remedy, exit_code=BAD_FILE)
