"""Decompressing to a bound: right below it, refused above it, whatever the codec."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc

import aiokafka.codec as codecs
import cramjam
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stream.source.decompression import GZIP, LZ4, NAMES, SNAPPY, ZSTD, CannotDecompress, decompress

LIMIT = 2**20
ENCODERS = {GZIP: codecs.gzip_encode, SNAPPY: codecs.snappy_encode, LZ4: codecs.lz4_encode, ZSTD: codecs.zstd_encode}
each_codec = pytest.mark.parametrize("codec", list(NAMES), ids=list(NAMES.values()))


@each_codec
@pytest.mark.parametrize("size", [0, 1, 100, 300_000, LIMIT])
def test_up_to_the_bound_all_is_given_back(codec: int, size: int) -> None:
    data = bytes(n * n % 251 for n in range(1000)) * (size // 1000 + 1)
    assert decompress(codec, ENCODERS[codec](data[:size]), LIMIT) == data[:size]


@each_codec
@pytest.mark.parametrize("size", [LIMIT + 1, 200 * LIMIT])
def test_above_the_bound_it_is_refused_without_the_memory(codec: int, size: int) -> None:
    bomb = ENCODERS[codec](bytes(size))
    tracemalloc.start()
    with pytest.raises(CannotDecompress, match="1 MiB"):
        decompress(codec, bomb, LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * LIMIT + len(bomb)


@each_codec
@given(data=st.binary(min_size=1, max_size=100))
def test_what_is_not_compressed_is_refused(codec: int, data: bytes) -> None:
    with contextlib.suppress(CannotDecompress):
        assert len(decompress(codec, data, LIMIT)) <= LIMIT


@each_codec
def test_what_ends_too_soon_is_refused_or_short(codec: int) -> None:
    data = bytes(n * n % 251 for n in range(50_000))
    made = ENCODERS[codec](data)
    with contextlib.suppress(CannotDecompress):
        assert decompress(codec, made[: len(made) // 2], LIMIT) != data


def test_what_other_clients_make_is_read() -> None:
    data = b"abc" * 1000
    assert decompress(GZIP, gzip.compress(data) + gzip.compress(data), LIMIT) == 2 * data
    assert decompress(SNAPPY, bytes(cramjam.snappy.compress_raw(data)), LIMIT) == data
    linked = cramjam.lz4.Compressor(level=1, content_checksum=True, block_linked=True)
    linked.compress(data)
    assert decompress(LZ4, bytes(linked.finish()), LIMIT) == data
    streamed = zstandard.ZstdCompressor(level=19).compressobj()  # its frame does not say how long it becomes
    assert decompress(ZSTD, streamed.compress(data) + streamed.flush(), LIMIT) == data


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(CannotDecompress, match="codec 7"):
        decompress(7, b"", LIMIT)
