from __future__ import annotations

import pytest

from models.records import encode
from models.weights import Pointer
from stream.feeds.models import _version


def test_a_pointer_names_its_version() -> None:
    assert _version(encode(Pointer("20260101T000000Z-1a2b", 1.0))) == "20260101T000000Z-1a2b"


@pytest.mark.parametrize(
    "value",
    [b"", b"null", b"v1", b'"v1"', b'{"version":5,"published_at":1}', b'{"published_at":1}', b"\xff\xfe", b"[" * 9999],
)
def test_a_pointer_that_can_not_be_read_changes_nothing(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert _version(value) is None
    assert "skipped" in caplog.text
