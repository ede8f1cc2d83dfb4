"""Workers, trainer and commands on a Kafka with TLS, passwords and the ACLs that the manifests give each role."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.errors import TopicAuthorizationFailedError

from models.records import Topics
from stream.clients import topics as topic_table
from stream.clients.connection import administration
from stream.clients.produce import value_of
from stream.demo.broker import LocalKafka
from stream.demo.processes import Process, free_port
from tests.running import READY_S, made_events, wait_until

USERS = Path(__file__).parents[2] / "k8s" / "components" / "strimzi" / "users.yaml"
STORE_PASSWORD = "changeit"
PROTOCOLS = ("SASL_PLAINTEXT", "SASL_SSL")


class Guarded(NamedTuple):
    """A Kafka that lets nobody do more than their role."""

    bootstrap: str
    addresses: dict[str, str]
    folder: Path

    def environ(self, user: str, protocol: str = "SASL_SSL") -> dict[str, str]:
        """Give what a pod of that user's role would have."""
        return {
            "HRNN_KAFKA_BOOTSTRAP": self.addresses[protocol],
            "HRNN_SECURITY_PROTOCOL": protocol,
            "HRNN_SASL_USERNAME": user,
            "HRNN_SASL_PASSWORD_FILE": str(self.folder / user),
            "HRNN_SSL_CAFILE": str(self.folder / "ca.crt"),
        }

    def hrnn(self, user: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command as that user."""
        return subprocess.run(
            [sys.executable, "-m", "stream.commands.main", *arguments],
            env={**os.environ, **self.environ(user), **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A broker with the listeners, users and ACLs of components/strimzi; plain text is the super user's."""
    folder = tmp_path_factory.mktemp("guarded")
    store = folder / "broker.p12"
    keytool("-genkeypair", "-keyalg", "RSA", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", store=store)
    (folder / "ca.crt").write_text(keytool("-exportcert", "-rfc", store=store))
    settings = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": STORE_PASSWORD,
        "ssl.keystore.type": "PKCS12",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        **{
            f"listener.name.{protocol.lower()}.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            )
            for protocol in PROTOCOLS
        },
    }
    with LocalKafka(own=True, settings=settings, listeners=PROTOCOLS) as broker:
        users = list(yaml.safe_load_all(USERS.read_text()))
        with administration(broker.bootstrap) as admin:
            topic_table.create(admin, topic_table.topic_table(Topics(""), partitions=2))
            admit(admin, users, folder)
        yield Guarded(broker.bootstrap, broker.addresses, folder)


def keytool(*arguments: str, store: Path) -> str:
    """Run the JDK's key tool on the broker's store."""
    named = ["-alias", "broker", "-keystore", str(store), "-storepass", STORE_PASSWORD, "-storetype", "PKCS12"]
    return subprocess.run(["keytool", *arguments, *named], check=True, capture_output=True, text=True).stdout


def admit(admin: KafkaAdminClient, users: list[dict[str, Any]], folder: Path) -> None:
    """Make the users with their passwords, and their ACLs, as Strimzi's operator does."""
    names = [user["metadata"]["name"] for user in users]
    for name in names:
        (folder / name).write_text(f"secret-of-{name}\n")
    admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, f"secret-of-{name}") for name in names]
    )
    admin.create_acls(
        [
            ACL(
                principal=f"User:{user['metadata']['name']}",
                host="*",
                operation=ACLOperation[operation.upper()],
                permission_type=ACLPermissionType.ALLOW,
                resource_pattern=ResourcePattern(
                    ResourceType[acl["resource"]["type"].upper()],
                    acl["resource"]["name"],
                    ACLResourcePatternType["PREFIXED" if acl["resource"]["patternType"] == "prefix" else "LITERAL"],
                ),
            )
            for user in users
            for acl in user["spec"]["authorization"]["acls"]
            for operation in acl["operations"]
        ]
    )


@pytest.fixture
def worker(guarded: Guarded, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    environ = guarded.environ("hrnn-worker", getattr(request, "param", "SASL_SSL"))
    process = Process("worker", ["worker"], tmp_path, {**environ, "HRNN_DATA_DIR": str(tmp_path / "data")}, free_port())
    process.start()
    yield process
    process.kill()


@pytest.mark.parametrize("worker", PROTOCOLS, indirect=True)
def test_a_role_can_do_what_it_has_to(guarded: Guarded, worker: Process, tmp_path: Path) -> None:
    worker.wait_ready(READY_S)
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"\n".join(value_of(event) for event in made_events(400)))
    assert guarded.hrnn("hrnn-producer", "produce", str(events)).returncode == 0
    wait_until(lambda: worker.metric("rec_events_total") >= 400, 60.0)  # the second time they are late: refused
    swaps = worker.metric("rec_model_swaps_total", 'result="swapped"')
    trained = guarded.hrnn("hrnn-trainer", "trainer", "--once", HRNN_EPOCHS="1", HRNN_GATE_TOLERANCE="1")
    assert trained.returncode == 0, trained.stderr
    assert "published" in trained.stderr, trained.stderr
    wait_until(lambda: worker.metric("rec_model_swaps_total", 'result="swapped"') > swaps, 60.0)
    listed = guarded.hrnn("hrnn-trainer", "models", "list")
    assert "serving" in listed.stdout, listed.stderr
    read = guarded.hrnn("hrnn-reader", "watch", "--from-beginning", "-n", "5")
    assert len(read.stdout.splitlines()) == 5, read.stderr
    worker.stop()
    assert "secret-of-" not in worker.log_path.read_text() + trained.stderr


def test_only_the_trainer_may_write_models(guarded: Guarded) -> None:
    for user in ("hrnn-worker", "hrnn-producer", "hrnn-reader"):
        refused = guarded.hrnn(user, "models", "rollback")
        assert refused.returncode == 1
        producer = KafkaProducer(**options(guarded, user), max_block_ms=10_000)
        with pytest.raises(TopicAuthorizationFailedError):
            producer.send("models", key=b"current", value=b"{}").get(30)
        producer.close()


def test_nobody_else_may_write_lists_or_states(guarded: Guarded) -> None:
    for topic in ("recommendations", Topics("").user_states, "sessions"):
        producer = KafkaProducer(**options(guarded, "hrnn-trainer"), max_block_ms=10_000)
        with pytest.raises(TopicAuthorizationFailedError):
            producer.send(topic, key=b"u", value=b"{}").get(30)
        producer.close()


def test_a_wrong_password_is_said_and_not_shown(guarded: Guarded, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-password")
    for command in (["doctor"], ["worker"], ["trainer", "--once"]):
        said = guarded.hrnn(
            "hrnn-worker", *command, HRNN_SASL_PASSWORD_FILE=str(wrong), HRNN_DATA_DIR=str(tmp_path / "data")
        )
        assert said.returncode == 1, command
        explained = "uthentication" in said.stderr or "HRNN_SASL_USERNAME=hrnn-worker" in said.stdout + said.stderr
        assert explained, (command, said.stdout, said.stderr)
        assert "Traceback" not in said.stderr
        assert "not-the-password" not in said.stdout + said.stderr


def test_an_unknown_authority_is_not_trusted(guarded: Guarded) -> None:
    environ = {name: value for name, value in guarded.environ("hrnn-trainer").items() if name != "HRNN_SSL_CAFILE"}
    said = subprocess.run(
        [sys.executable, "-m", "stream.commands.main", "models", "list"],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 1
    assert "its listener must speak SASL_SSL" in said.stderr


def options(guarded: Guarded, user: str) -> dict[str, Any]:
    """Give what a client of that user is made with."""
    return {
        "bootstrap_servers": guarded.addresses["SASL_PLAINTEXT"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": f"secret-of-{user}",
    }
