"""Write the manifests that say again what is said elsewhere: `make manifests`, and a test that they are as written.

- components/strimzi/topics.yaml: the topics of stream/clients/topics.py;
- components/monitoring: the rules of docker/prometheus and the dashboards of docker/grafana. kustomize reads nothing
  outside a component's folder, so these are copies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from models.records import Topics
from stream.clients.topics import topic_table

K8S = Path(__file__).parent
DOCKER = K8S.parent / "docker"
NAMESPACE = "hrnn"
CLUSTER = "hrnn-kafka"
WRITTEN = "# Written by `make manifests`; what it says is said in {}.\n"


def base_settings(folder: Path = K8S) -> dict[str, str]:
    """Read the base's hrnn.env."""
    lines = (folder / "base" / "hrnn.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))  # type: ignore[misc]


def topics() -> str:
    """Give the topics as Strimzi's resources, with the partitions and copies of the base."""
    settings = base_settings()
    specs = topic_table(
        Topics(settings["HRNN_TOPIC_PREFIX"]),
        partitions=int(settings["HRNN_PARTITIONS"]),
        replication=int(settings["HRNN_REPLICATION"]),
    )
    return WRITTEN.format("stream/clients/topics.py") + _documents(
        {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": spec.name, "namespace": NAMESPACE, "labels": {"strimzi.io/cluster": CLUSTER}},
            "spec": {"partitions": spec.partitions, "replicas": spec.replication, "config": spec.configs},
        }
        for spec in specs
    )


def rules(folder: Path = DOCKER / "prometheus" / "rules") -> str:
    """Give Prometheus' rules as one resource of its operator."""
    groups = [
        group
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "hrnn",
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/name": "hrnn-stream", "app.kubernetes.io/part-of": "hrnn-stream"},
        },
        "spec": {"groups": groups},
    }
    return WRITTEN.format("docker/prometheus/rules") + _documents([resource])


def dashboards(folder: Path = DOCKER / "grafana" / "dashboards") -> dict[str, str]:
    """Give Grafana's dashboards by file name."""
    return {path.name: path.read_text() for path in sorted(folder.glob("*.json"))}


def monitoring(names: Iterable[str]) -> str:
    """Give the component's kustomization: a ConfigMap a dashboard, found by Grafana's sidecar by its label."""
    component: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": ["podmonitor.yaml", "rules.yaml"],
        "configMapGenerator": [
            {
                "name": f"hrnn-dashboard-{Path(name).stem.replace('_', '-')}",
                "namespace": NAMESPACE,
                "files": [f"dashboards/{name}"],
                "options": {"disableNameSuffixHash": True, "labels": {"grafana_dashboard": "1"}},
            }
            for name in names
        ],
    }
    return WRITTEN.format("k8s/manifests.py") + _documents([component])


def written() -> dict[str, str]:
    """Give every file that is written here, by its path below k8s/."""
    boards = dashboards()
    return {
        "components/strimzi/topics.yaml": topics(),
        "components/monitoring/kustomization.yaml": monitoring(boards),
        "components/monitoring/rules.yaml": rules(),
        **{f"components/monitoring/dashboards/{name}": text for name, text in boards.items()},
    }


def _documents(resources: Iterable[dict[str, Any]]) -> str:
    return "---\n".join(yaml.safe_dump(resource, sort_keys=False, width=120) for resource in resources)


def main() -> None:
    """Write them all, and remove the copies of dashboards that are no more."""
    files = written()
    for path in (K8S / "components" / "monitoring" / "dashboards").glob("*.json"):
        if str(path.relative_to(K8S)) not in files:
            path.unlink()
    for name, text in files.items():
        path = K8S / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stderr.write(f"wrote k8s/{name}\n")


if __name__ == "__main__":
    main()
