"""What tests at every level share: one real Kafka, and names that no other test has."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from hypothesis import settings

from stream.demo.broker import LocalKafka

# how long an example takes says what else the machine is doing; what hangs ends by pytest's own timeout
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the option that has the dashboards drawn, of tests/system/test_prometheus.py."""
    parser.addoption("--pictures", default="", help="draw the dashboards into this folder")


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap address of a Kafka that serves for the whole test session."""
    with LocalKafka() as broker:
        yield broker.bootstrap


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that keeps this test's topics and groups apart from all others'."""
    return f"t{secrets.token_hex(4)}-"
