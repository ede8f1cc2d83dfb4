from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.sessions import SessionRules
from stream.settings import KafkaSettings, WorkerSettings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("HRNN_"):
            monkeypatch.delenv(name)
    return


def test_without_an_environment_there_are_defaults() -> None:
    settings = WorkerSettings()
    assert settings.client_options()["bootstrap_servers"] == ["127.0.0.1:9092"]
    assert settings.topics.interactions == "interactions"
    assert settings.session_rules == SessionRules(), "the worker's rules and the core's are told apart by nobody"
    assert settings.metrics_bind == "127.0.0.1"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HRNN_KAFKA_BOOTSTRAP": "a:1,b:2",
        "HRNN_TOPIC_PREFIX": "shop.",
        "HRNN_DATA_DIR": "/var/lib/hrnn",
        "HRNN_GAP_S": "60",
        "HRNN_EXCLUDE_SEEN": "false",
        "HRNN_INSTANCE_ID": "worker-0",
    }.items():
        monkeypatch.setenv(name, value)
    settings = WorkerSettings()
    assert settings.client_options()["bootstrap_servers"] == ["a:1", "b:2"]
    assert settings.topics.user_states == "shop.hrnn-users-changelog"
    assert settings.data_dir == Path("/var/lib/hrnn")
    assert settings.session_rules.gap_s == 60.0
    assert not settings.exclude_seen
    assert settings.instance_id == "worker-0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HRNN_TOP_K", "0"),
        ("HRNN_TOP_K", "501"),
        ("HRNN_GAP_S", "0"),
        ("HRNN_GRACE_S", "-1"),
        ("HRNN_SESSION_TIMEOUT_S", "soon"),
        ("HRNN_METRICS_PORT", "70000"),
        ("HRNN_BLOCK_CACHE_BYTES", "1"),
        ("HRNN_STOP_TIMEOUT_S", "0"),
    ],
)
def test_what_can_not_be_meant_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        WorkerSettings()


def test_an_argument_that_is_no_setting_is_refused() -> None:
    with pytest.raises(ValidationError):
        WorkerSettings(top_n=10)  # type: ignore[call-arg]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        WorkerSettings().top_k = 5  # type: ignore[misc]


def test_every_setting_says_what_it_is_for() -> None:
    for settings in (KafkaSettings, WorkerSettings):
        for name, field in settings.model_fields.items():
            assert field.description, name


def test_a_heartbeat_fits_into_the_session_timeout() -> None:
    settings = WorkerSettings()
    assert settings.heartbeat_interval_s * 3 <= settings.session_timeout_s, "Kafka's own advice"
    assert settings.session_timeout_s < settings.rebalance_timeout_s


def test_the_key_that_origins_are_signed_by_is_a_file_or_a_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert KafkaSettings().signing_key is None
    monkeypatch.setenv("HRNN_ORIGIN_KEY", "0123456789abcdef")
    settings = KafkaSettings()
    assert settings.signing_key == b"0123456789abcdef"
    assert "0123456789abcdef" not in repr(settings)
    file = tmp_path / "key"
    file.write_bytes(b"of a mounted secret\r\n")
    monkeypatch.setenv("HRNN_ORIGIN_KEY_FILE", str(file))
    with pytest.raises(ValidationError, match="not both"):
        KafkaSettings()
    monkeypatch.delenv("HRNN_ORIGIN_KEY")
    assert KafkaSettings().signing_key == b"of a mounted secret"
    file.write_bytes(b"short\n")
    with pytest.raises(ValidationError, match="openssl rand"):
        KafkaSettings()
