"""The manifests: rendered, valid, as reviewed, and of the project that they deploy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
from prometheus_client import CollectorRegistry

from k8s.manifests import K8S, base_settings, written
from models.records import Topics
from stream.clients.topics import topic_table
from stream.commands.environment import all_variables
from stream.commands.main import app
from stream.settings import WorkerSettings
from stream.telemetry import Telemetry
from tests.unit.deploy.rendering import GOLDEN, OVERLAYS, ROOT, Manifest, golden_text, rendered, with_component
from trainer.settings import FittingSettings, TrainerSettings
from trainer.telemetry import Telemetry as TrainerTelemetry

KUBERNETES = "1.30"  # the oldest that has all fields used here: preStop's sleep
# What the operators' resource definitions require; kubernetes-validate has no schema of theirs.
REQUIRED = {
    "Kafka": ("kafka.listeners", "kafka.version", "entityOperator.topicOperator", "entityOperator.userOperator"),
    "KafkaNodePool": ("replicas", "roles", "storage.type"),
    "KafkaTopic": ("partitions", "replicas", "config"),
    "KafkaUser": ("authentication.type", "authorization.type", "authorization.acls"),
    "ScaledObject": ("scaleTargetRef.name", "triggers", "minReplicaCount", "maxReplicaCount"),
    "TriggerAuthentication": ("secretTargetRef",),
    "PodMonitor": ("selector", "podMetricsEndpoints"),
    "PrometheusRule": ("groups",),
}

overlay_by_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield every pod's template with the name of what makes it."""
    for manifest in of_kind(manifests, "StatefulSet", "Deployment", "Job", "CronJob"):
        spec = manifest["spec"]
        template = spec["jobTemplate"]["spec"]["template"] if manifest["kind"] == "CronJob" else spec["template"]
        yield manifest["metadata"]["name"], template


def at(manifest: Manifest, path: str) -> Any:
    found: Any = manifest["spec"]
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def settings_of(manifests: list[Manifest]) -> dict[str, str]:
    (settings,) = [m["data"] for m in of_kind(manifests, "ConfigMap") if "HRNN_KAFKA_BOOTSTRAP" in m["data"]]
    return dict(settings)


def environ_of(template: Manifest, settings: dict[str, str]) -> dict[str, str]:
    """Give a container's environment, a field of the pod by its path."""
    (container,) = template["spec"]["containers"]
    own = {
        e["name"]: e.get("value", e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")) for e in container["env"]
    }
    return settings | own


def test_there_are_the_overlays_that_the_runbook_names() -> None:
    assert {"dev", "prod", "own-kafka"} <= set(OVERLAYS)


def test_what_is_written_from_the_code_is_as_the_code_says() -> None:
    for name, text in written().items():
        path = K8S / name
        assert path.is_file(), f"k8s/{name} is missing: make manifests"
        assert path.read_text() == text, f"k8s/{name} is not what the code says: make manifests"
    copies = {str(path.relative_to(K8S)) for path in (K8S / "components/monitoring/dashboards").glob("*.json")}
    assert copies <= set(written()), "dashboards that are no more: make manifests"


@overlay_by_overlay
def test_an_overlay_is_as_reviewed(overlay: str) -> None:
    golden = GOLDEN / f"{overlay}.yaml"
    assert golden.is_file(), "make manifests"
    assert golden_text(rendered(overlay)) == golden.read_text(), "if this change is meant: make manifests"


@overlay_by_overlay
def test_every_resource_is_valid(overlay: str) -> None:
    for manifest in rendered(overlay):
        kind = manifest["kind"]
        if kind in REQUIRED:
            missing = [path for path in REQUIRED[kind] if at(manifest, path) is None]
            assert not missing, f"{kind} {manifest['metadata']['name']} lacks {missing}"
            continue
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES, strict=True)


@overlay_by_overlay
def test_all_is_in_the_namespace_and_is_named_once(overlay: str) -> None:
    manifests = rendered(overlay)
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(names) == len(set(names))
    assert {m["metadata"].get("namespace") for m in manifests if m["kind"] != "Namespace"} == {"hrnn"}


@overlay_by_overlay
def test_every_variable_exists_and_its_value_is_possible(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {variable.name for variable in all_variables()}
    manifests = rendered(overlay)
    settings = settings_of(manifests)
    templates = list(pods(manifests))
    assert len(templates) >= 3
    for name, template in templates:
        environ = environ_of(template, settings) if template["spec"]["containers"][0].get("env") else settings
        assert set(environ) <= known, name
        with monkeypatch.context() as context:
            for variable, value in environ.items():
                # files of the pod: any file, as they are read
                context.setenv(variable, __file__ if variable == "HRNN_SASL_PASSWORD_FILE" else value)
            context.delenv("HRNN_SSL_CAFILE", raising=False)
            WorkerSettings()
            TrainerSettings(fitting=FittingSettings())


def test_a_key_of_ones_own_reaches_those_who_sign_and_verify(tmp_path: Path) -> None:
    templates = dict(pods(with_component("prod", "origin-key", tmp_path)))
    for name in ("hrnn-worker", "hrnn-toolbox"):
        spec = templates[name]["spec"]
        (container,) = spec["containers"]
        (file,) = [e["value"] for e in container["env"] if e["name"] == "HRNN_ORIGIN_KEY_FILE"]
        (mount,) = [m for m in container["volumeMounts"] if file.startswith(m["mountPath"] + "/")]
        (volume,) = [v for v in spec["volumes"] if v["name"] == mount["name"]]
        assert volume["secret"]["secretName"] == "hrnn-origin"
        # merged, not replaced
        assert "HRNN_SASL_USERNAME" in {e["name"] for e in container["env"]}
        assert "/etc/hrnn/user" in {m["mountPath"] for m in container["volumeMounts"]}


@overlay_by_overlay
def test_every_command_exists(overlay: str) -> None:
    commands = typer.main.get_command(app)
    for name, template in pods(rendered(overlay)):
        (container,) = template["spec"]["containers"]
        if "command" in container:
            assert name == "hrnn-toolbox"
            continue
        command: Any = commands
        for word in container["args"]:
            if word.startswith("--"):
                assert any(word in option.opts for option in command.params), container["args"]
            else:
                command = command.commands[word]


@overlay_by_overlay
def test_the_ports_and_pages_are_the_processes_own(overlay: str) -> None:
    manifests = rendered(overlay)
    settings = settings_of(manifests)
    own_ports = {"hrnn-worker": WorkerSettings().metrics_port, "hrnn-trainer": TrainerSettings().metrics_port}
    for name, template in pods(manifests):
        (container,) = template["spec"]["containers"]
        named = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for port in named.values():
            assert str(port) == environ_of(template, settings)["HRNN_METRICS_PORT"] == str(own_ports[name])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                assert container[probe]["httpGet"]["port"] in named
                assert container[probe]["httpGet"]["path"] == ("/readyz" if probe == "readinessProbe" else "/healthz")
    for policy in of_kind(manifests, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            allowed = {port["port"] for port in rule["ports"]}
            assert allowed <= {*own_ports.values(), 9093}, policy["metadata"]["name"]
    for service in of_kind(manifests, "Service"):
        assert [port["port"] for port in service["spec"]["ports"]] == [own_ports["hrnn-worker"]]


@overlay_by_overlay
def test_a_pod_has_the_time_that_its_stop_takes(overlay: str) -> None:
    manifests = rendered(overlay)
    settings = settings_of(manifests)
    (worker,) = of_kind(manifests, "StatefulSet")
    pod = worker["spec"]["template"]["spec"]
    pause_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause_s + float(settings["HRNN_STOP_TIMEOUT_S"])
    assert float(settings["HRNN_SESSION_TIMEOUT_S"]) > float(settings["HRNN_STOP_TIMEOUT_S"]), (
        "a member that takes its time to stop must still be a member when it is back"
    )
    assert float(settings["HRNN_REBALANCE_TIMEOUT_S"]) > float(settings["HRNN_SESSION_TIMEOUT_S"])
    assert float(settings["HRNN_HEARTBEAT_INTERVAL_S"]) * 3 <= float(settings["HRNN_SESSION_TIMEOUT_S"])


@overlay_by_overlay
def test_every_pod_keeps_to_the_restricted_standard(overlay: str) -> None:
    manifests = rendered(overlay)
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    accounts = {a["metadata"]["name"] for a in of_kind(manifests, "ServiceAccount")}
    assert not any(a["automountServiceAccountToken"] for a in of_kind(manifests, "ServiceAccount"))
    for name, template in pods(manifests):
        pod = template["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == 10001, "the image's own user"
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert pod["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] in accounts
        assert "memory" in container["resources"]["limits"], name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert mounted - volumes <= {"data"}, name  # a stateful set's claim


@overlay_by_overlay
def test_nothing_is_let_in_or_out_by_default(overlay: str) -> None:
    denying = [p for p in of_kind(rendered(overlay), "NetworkPolicy") if p["metadata"]["name"] == "default-deny"]
    assert [policy["spec"] for policy in denying] == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]


@overlay_by_overlay
def test_the_topics_are_those_of_the_code(overlay: str) -> None:
    manifests = rendered(overlay)
    settings = settings_of(manifests)
    topics = Topics(settings["HRNN_TOPIC_PREFIX"])
    partitions = int(settings["HRNN_PARTITIONS"])
    made = {m["metadata"]["name"]: m["spec"] for m in of_kind(manifests, "KafkaTopic")}
    if not made:
        assert of_kind(manifests, "Job"), "who makes the topics?"
    else:
        assert not of_kind(manifests, "Job")
        wanted = topic_table(topics, partitions=partitions, replication=int(settings["HRNN_REPLICATION"]))
        assert made == {
            spec.name: {"partitions": spec.partitions, "replicas": spec.replication, "config": spec.configs}
            for spec in wanted
        }
    for scaled in of_kind(manifests, "ScaledObject"):
        assert scaled["spec"]["maxReplicaCount"] == partitions
        (trigger,) = scaled["spec"]["triggers"]
        assert trigger["metadata"]["topic"] == topics.interactions
        assert trigger["metadata"]["consumerGroup"] == topics.app_id


def test_only_the_trainer_may_write_models() -> None:
    users = {m["metadata"]["name"]: m["spec"]["authorization"]["acls"] for m in of_kind(rendered("prod"), "KafkaUser")}
    names = [spec.name for spec in topic_table(Topics(""))]

    def may(operation: str, topic: str) -> set[str]:
        return {
            user
            for user, acls in users.items()
            for acl in acls
            if acl["resource"]["type"] == "topic" and operation in acl["operations"] and covers(acl["resource"], topic)
        }

    def covers(resource: Manifest, topic: str) -> bool:
        named: str = resource["name"]
        return topic.startswith(named) if resource["patternType"] == "prefix" else topic == named

    assert may("Write", "models") == {"hrnn-trainer"}
    assert may("Write", "recommendations") == {"hrnn-worker"}
    assert may("Write", Topics("").user_states) == {"hrnn-worker"}
    assert may("Write", "interactions") == {"hrnn-worker", "hrnn-producer"}
    for acls in users.values():
        for acl in acls:
            resource = acl["resource"]
            if resource["type"] == "topic":
                assert any(covers(resource, name) for name in names), f"there is no topic {resource['name']}"
            else:
                assert resource["name"] in (Topics("").app_id, "hrnn-reader")


def exported_metrics() -> set[str]:
    registry = CollectorRegistry()
    TrainerTelemetry(registry)
    names = set()
    for metric in [*registry.collect(), *Telemetry().registry.collect()]:
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
        names |= {metric.name + suffix for suffix in suffixes}
    return names


@overlay_by_overlay
def test_every_metric_that_is_named_is_exported(overlay: str) -> None:
    exported = exported_metrics()
    for manifest in rendered(overlay):
        # no letter before, as in hrnn_…, and no colon after, as in a recording rule's name
        named = set(
            re.findall(r"(?<![\w:])rec_[a-z0-9_]+(?![\w:])", str(manifest.get("spec", manifest.get("data", ""))))
        )
        assert named <= exported, manifest["metadata"]["name"]


@overlay_by_overlay
def test_the_images_are_of_this_version(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {name: template["spec"]["containers"][0]["image"] for name, template in pods(rendered(overlay))}
    assert set(images.values()) <= {f"hrnn-stream:{version}", f"hrnn-stream-cuda:{version}"}
    assert ("cuda" in images["hrnn-trainer"]) == (overlay == "gpu")


def test_the_base_names_its_settings_once() -> None:
    lines = [line for line in (K8S / "base/hrnn.env").read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(base_settings())
