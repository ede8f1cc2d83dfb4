"""Decompress record batches within a memory limit: a few KB may decompress to gigabytes."""

from __future__ import annotations

import io
import struct
import zlib

import cramjam
import zstandard

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}

ZSTD_WINDOW_BYTES = 2**27  # the limit of Java's decoder; a frame may request 2 GiB
_CHUNK = 2**20
_XERIAL = b"\x82SNAPPY\x00"
_LZ4_FRAME = struct.Struct("<IBB")
_LZ4_MAGIC = 0x184D2204
_LZ4_BLOCK_BYTES = {4: 2**16, 5: 2**18, 6: 2**20, 7: 2**22}


class CannotDecompress(ValueError):
    """Compressed data that is broken or exceeds the limit; the text says which."""


def decompress(codec: int, data: bytes, limit_bytes: int) -> bytes:
    """Decompress the records of a batch, to at most `limit_bytes`; raises CannotDecompress."""
    try:
        return _DECODERS[codec](data, limit_bytes)
    except KeyError:
        raise CannotDecompress(f"unknown codec {codec}") from None
    except CannotDecompress:
        raise
    except Exception as error:  # each library raises its own errors, some of them plain Exception
        raise CannotDecompress(f"broken {NAMES[codec]} data: {error}") from None


def _too_large(limit_bytes: int) -> CannotDecompress:
    return CannotDecompress(f"decompresses to more than {limit_bytes / 2**20:.0f} MiB")


def _gzip(data: bytes, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    left = limit_bytes
    while data:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        parts.append(member.decompress(data, left + 1))
        left -= len(parts[-1])
        if left < 0:
            raise _too_large(limit_bytes)
        if not member.eof:
            raise CannotDecompress("broken gzip data: it ends too soon")
        data = member.unused_data
    return b"".join(parts)


def _zstd(data: bytes, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    left = limit_bytes
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    with decompressor.stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        while part := reader.read(min(_CHUNK, left + 1)):
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise _too_large(limit_bytes)
    return b"".join(parts)


def _snappy(data: bytes, limit_bytes: int) -> bytes:
    # each block begins with its decompressed size, which the decoder allocates
    blocks = [data] if data[: len(_XERIAL)] != _XERIAL else _xerial_blocks(data)
    if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > limit_bytes:
        raise _too_large(limit_bytes)
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _xerial_blocks(data: bytes) -> list[bytes]:
    blocks: list[bytes] = []
    at = 16
    while at < len(data):
        (length,) = struct.unpack_from("!i", data, at)
        at += 4
        if length < 0 or at + length > len(data):
            raise CannotDecompress("broken snappy data: a block is longer than the batch")
        blocks.append(data[at : at + length])
        at += length
    return blocks


def _lz4(data: bytes, limit_bytes: int) -> bytes:
    if _lz4_at_most(data) <= limit_bytes:
        return bytes(cramjam.lz4.decompress(data))
    room = bytearray(limit_bytes)
    try:
        return bytes(room[: cramjam.lz4.decompress_into(data, room)])
    except cramjam.DecompressionError as error:
        if "whole buffer" in str(error):
            raise _too_large(limit_bytes) from None
        raise


def _lz4_at_most(data: bytes) -> int:
    """Return an upper bound of a frame's decompressed size: its blocks times the block size in its header."""
    magic, flags, descriptor = _LZ4_FRAME.unpack_from(data)
    block_bytes = _LZ4_BLOCK_BYTES.get(descriptor >> 4 & 7)
    if magic != _LZ4_MAGIC or block_bytes is None:
        raise CannotDecompress("broken lz4 data: not a frame header")
    at = _LZ4_FRAME.size + (8 if flags & 8 else 0) + (4 if flags & 1 else 0) + 1
    blocks = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if not length:
            break
        blocks += 1
        at += (length & 0x7FFFFFFF) + (4 if flags & 16 else 0)
    # another frame, or broken data: use the decoder that writes into a buffer of fixed size
    return blocks * block_bytes if at + (4 if flags & 4 else 0) >= len(data) else 2**62


_DECODERS = {GZIP: _gzip, SNAPPY: _snappy, LZ4: _lz4, ZSTD: _zstd}
