"""What the doctor says of the codecs that this installation can read."""

from __future__ import annotations

import aiokafka.codec
import kafka.codec
import pytest

from stream.doctor.examine import CODEC_PACKAGES, missing_codecs


def test_this_installation_reads_every_codec() -> None:
    assert missing_codecs() == []


def test_a_missing_package_is_found_with_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiokafka.codec, "cramjam", None)
    monkeypatch.setattr(kafka.codec, "lz4", None)
    missing = missing_codecs()
    assert missing == [("aiokafka", "snappy"), ("aiokafka", "lz4"), ("aiokafka", "zstd"), ("kafka-python", "lz4")]
    assert {CODEC_PACKAGES[client][codec] for client, codec in missing} == {"cramjam", "lz4"}
