"""Which version a rollback goes to when none is named."""

import pytest

from models.weights import Manifest
from stream.clients.published import version_before
from stream.commands.failures import Failure
from trainer.service.publishing import Listed


def listed(version: str) -> Listed:
    manifest = Manifest(
        version=version,
        sha256="",
        size_bytes=1,
        chunks=1,
        config={},
        vocabulary_hash="",
        metrics={},
        trained_at=0.0,
        data_watermark=0.0,
        data_offsets={},
    )
    return Listed(manifest, current=False)


def test_the_version_before_is_the_newest_older_one() -> None:
    versions = [listed("3"), listed("2"), listed("1")]
    assert version_before("3", versions) == "2"
    assert version_before("2", versions) == "1"  # also when a newer one was rolled back from
    assert version_before("9-not-whole", versions) == "3"
    with pytest.raises(Failure, match="no version older than 1"):
        version_before("1", versions)
