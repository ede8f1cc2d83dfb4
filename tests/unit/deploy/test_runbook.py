"""The runbook names what is there: commands, variables, metrics, files, objects."""

from __future__ import annotations

import re
from typing import Any

import typer.main
import yaml

from k8s.manifests import K8S
from models.records import Topics
from stream.commands.environment import all_variables
from stream.commands.main import app
from tests.unit.deploy.rendering import OVERLAYS, ROOT
from tests.unit.deploy.test_manifests import exported_metrics

RUNBOOK = (K8S / "README.md").read_text()
OBJECTS = {
    (manifest["kind"].lower(), manifest["metadata"]["name"])
    for path in sorted([*(K8S / "base").glob("*.yaml"), *(K8S / "components").rglob("*.yaml")])
    for manifest in yaml.safe_load_all(path.read_text())
    if manifest and "kind" in manifest and "metadata" in manifest
}
SHORT = {"deploy": "deployment", "sts": "statefulset"}


def test_every_variable_exists() -> None:
    assert set(re.findall(r"\bHRNN_[A-Z_]+[A-Z]", RUNBOOK)) <= {variable.name for variable in all_variables()}


def test_every_command_and_option_exists() -> None:
    commands: Any = typer.main.get_command(app)
    found = re.findall(r"(?<!-n )\bhrnn ((?:[a-z]+(?:-[a-z]+)* ?)+)((?:--[a-z-]+(?: \d+)? ?)*)", RUNBOOK)
    assert len(found) > 5
    for words, options in found:
        command = commands
        for word in words.split():
            if not hasattr(command, "commands"):
                break  # an argument
            command = command.commands[word]
        known = {name for option in command.params for name in option.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known, words


def test_every_object_exists() -> None:
    found = re.findall(r"\b(cronjob|deploy|deployment|sts|statefulset|job)[ /](hrnn-\w+)", RUNBOOK)
    assert len(found) > 5
    for kind, name in found:
        assert (SHORT.get(kind, kind), name) in OBJECTS, f"{kind}/{name}"


def test_every_file_and_folder_exists() -> None:
    below_k8s = re.findall(r"`((?:base|components|overlays)/[\w./-]+)`", RUNBOOK)
    elsewhere = re.findall(r"`((?:docker|tests|stream)/[\w./-]+)`", RUNBOOK)
    assert len(below_k8s) + len(elsewhere) > 4
    assert [path for path in below_k8s if not (K8S / path).exists()] == []
    assert [path for path in elsewhere if not (ROOT / path).exists()] == []
    assert set(re.findall(r"^\| `([\w-]+)` \| ", RUNBOOK, re.MULTILINE)) == set(OVERLAYS)
    (listed,) = re.findall(r"^components/ +(.+)$", RUNBOOK, re.MULTILINE)
    assert set(listed.split()) == {path.name for path in (K8S / "components").iterdir()}


def test_every_metric_and_topic_exists() -> None:
    exported = exported_metrics()
    for metric in re.findall(r"`(rec_\w+)`", RUNBOOK):
        assert exported & {metric, f"{metric}_bucket"}, metric
    topics = Topics("")
    named = {getattr(topics, name) for name in dir(topics) if not name.startswith("_") and name != "prefix"}
    assert set(re.findall(r"kcat .*-t ([a-z][a-z-]+)", RUNBOOK)) <= named


def test_what_alerts_mean_comes_last() -> None:
    headings = re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)
    assert headings[-1] == "Alerts"
    assert {"First deployment", "Sizing", "Upgrading", "Changing partitions", "Rolling back a model"} <= set(headings)
    assert {"Restoring a worker", "Erasing a user"} <= set(headings)
