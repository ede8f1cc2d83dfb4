"""TLS and SASL from the environment: what clients are told, what is refused, and what nobody is shown."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path

import pytest

import stream.kafka_access
import trainer.kafka_access
from stream.app import make_app
from stream.commands.environment import load
from stream.commands.failures import Failure
from stream.kafka_access import KafkaAccess
from stream.settings import WorkerSettings
from tests.unit.logging_state import hrnn
from trainer.settings import TrainerSettings

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("HRNN_"):
            monkeypatch.delenv(name)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout '{key}' -out '{certificate}'",
        shell=True,
        check=True,
        capture_output=True,
    )
    return certificate, key


def environment(monkeypatch: pytest.MonkeyPatch, **given: object) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"HRNN_{name.upper()}", str(value))


def test_both_shells_read_the_same() -> None:
    """Neither shell imports the other, so the file is there twice."""
    first, second = (Path(module.__file__ or "").read_text() for module in (stream.kafka_access, trainer.kafka_access))
    assert first == second


def test_without_an_environment_it_is_plain_text() -> None:
    assert KafkaAccess().access_options() == {}
    assert set(WorkerSettings().client_options()) == {"bootstrap_servers", "client_id"}
    assert make_app(WorkerSettings()).conf.broker_credentials is None


def test_a_password_file_reaches_every_client(
    monkeypatch: pytest.MonkeyPatch, password_file: Path, tmp_path: Path
) -> None:
    environment(
        monkeypatch,
        security_protocol="SASL_PLAINTEXT",
        sasl_username="worker",
        sasl_password_file=password_file,
        data_dir=tmp_path,
    )
    expected = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "worker",
        "sasl_plain_password": PASSWORD,
    }
    for settings in (WorkerSettings(), TrainerSettings()):
        assert expected.items() <= settings.client_options().items()
    faust = make_app(WorkerSettings()).conf.broker_credentials
    assert (faust.username, faust.password, faust.mechanism.value) == ("worker", PASSWORD, "SCRAM-SHA-512")
    assert faust.protocol.value == "SASL_PLAINTEXT"


def test_certificates_become_a_context_that_checks_the_broker(
    monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    public, key = certificate
    environment(
        monkeypatch, security_protocol="SSL", ssl_cafile=public, ssl_certfile=public, ssl_keyfile=key, data_dir=tmp_path
    )
    settings = WorkerSettings()
    context = settings.client_options()["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    assert make_app(settings).conf.broker_credentials.protocol.value == "SSL"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"security_protocol": "SASL_SSL"}, "needs HRNN_SASL_USERNAME"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "u"}, "HRNN_SASL_PASSWORD_FILE or HRNN_SASL_PASSWORD"),
        ({"security_protocol": "TLS"}, "HRNN_SECURITY_PROTOCOL=TLS"),
        ({"sasl_password_file": "/nowhere"}, "HRNN_SASL_PASSWORD_FILE=/nowhere"),
        ({"ssl_certfile": __file__}, "HRNN_SSL_CERTFILE and HRNN_SSL_KEYFILE need each other"),
        ({"security_protocol": "SSL", "ssl_cafile": __file__}, "can't be read: "),
    ],
)
def test_what_can_not_work_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    environment(monkeypatch, **given)
    with pytest.raises(Failure, match=said) as failure:
        load(WorkerSettings)
    assert failure.value.exit_code == 2


def test_a_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch, password_file: Path) -> None:
    environment(monkeypatch, security_protocol="SASL_SSL", sasl_username="u", sasl_password=PASSWORD)
    assert PASSWORD not in repr(WorkerSettings()) + str(TrainerSettings())
    status, shown = hrnn("settings", "--json")
    assert status == 0
    assert PASSWORD not in shown
    values = {row["name"]: row["value"] for row in json.loads(shown)}
    assert (values["HRNN_SASL_PASSWORD"], values["HRNN_SASL_USERNAME"]) == ("(set)", "u")
    assert PASSWORD not in hrnn("settings")[1]
    environment(monkeypatch, sasl_password_file=password_file)  # both: refused, and not by showing them
    with pytest.raises(Failure) as failure:
        load(WorkerSettings)
    assert PASSWORD not in str(failure.value)
