"""What the doctor says of topics that take too little, and of the key that forwarded records are signed by."""

from __future__ import annotations

import os

import pytest

from stream.commands.environment import CommandSettings
from stream.doctor.limits import NEEDED_BYTES, compared, origin_key


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("HRNN_"):
            monkeypatch.delenv(name)


def test_limits_of_kafkas_defaults_are_well() -> None:
    (finding,) = compared({"sessions": 1_048_588, "interactions": 4 * 2**20, "models": 2**20})
    assert finding.well
    assert not finding.remedy


def test_each_topic_that_takes_too_little_is_named_with_the_remedy() -> None:
    found = list(compared({"sessions": 1_048_588, "signals": NEEDED_BYTES - 1, "dead-letters": 1000}))
    assert [finding.detail.split()[0] for finding in found] == ["dead-letters", "signals"]
    assert all(not finding.well and "max.message.bytes=1048588" in finding.remedy for finding in found)


def test_a_derived_key_is_well_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = origin_key(CommandSettings())
    assert finding.well
    assert "HRNN_ORIGIN_KEY_FILE" in finding.remedy
    monkeypatch.setenv("HRNN_ORIGIN_KEY", "0123456789abcdef")
    finding = origin_key(CommandSettings())
    assert finding.well
    assert not finding.remedy
