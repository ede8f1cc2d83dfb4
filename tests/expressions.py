"""What PromQL expressions name, and the dashboards and rules that hold them."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
GRAFANA = ROOT / "docker/grafana"
RULES = sorted((ROOT / "docker/prometheus/rules").glob("*.yaml"))

_SELECTOR = re.compile(r"\b(?:rec_|process_|kafka_|kubelet_|job:|up\b|ALERTS\b)[\w:]*(?:\{[^}]*\})?")
_NAME = re.compile(r"[\w:]+")

# What neither worker nor trainer exports, and who does.
OTHERS = {
    "up": "Prometheus itself, of each target",
    "ALERTS": "Prometheus itself, while an alert is pending or firing",
    "kafka_consumergroup_lag": "kafka-exporter",
    "kubelet_volume_stats_used_bytes": "the kubelet",
    "kubelet_volume_stats_capacity_bytes": "the kubelet",
}


def selectors(expression: str) -> list[str]:
    """List the vector selectors of an expression, without their ranges."""
    return _SELECTOR.findall(expression)


def names(expression: str) -> set[str]:
    """Name the metrics of an expression."""
    found = (_NAME.match(selector) for selector in selectors(expression))
    return {match[0] for match in found if match}


def generator() -> ModuleType:
    """Import the dashboards' generator, which is a script in a folder of its own."""
    if str(GRAFANA) not in sys.path:
        sys.path.insert(0, str(GRAFANA))
    return importlib.import_module("dashboards")


@functools.cache
def rules() -> list[dict[str, Any]]:
    """Read all recording and alerting rules."""
    return [
        rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
    ]  # fmt: skip


def recorded() -> set[str]:
    """Name the series that recording rules make."""
    return {rule["record"] for rule in rules() if "record" in rule}
