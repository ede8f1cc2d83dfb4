"""Prometheus: configuration and rules are valid; each alert has a case that fires, a quiet one, and a runbook entry."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.expressions import GRAFANA, ROOT, RULES, rules

PROMETHEUS = ROOT / "docker/prometheus"
CASES = sorted((PROMETHEUS / "tests").glob("*.yaml"))
RUNBOOK = ROOT / "k8s/alerts.md"
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: str | Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus (Debian's package brings it along)")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_is_valid() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yaml")


def test_the_rules_are_valid() -> None:
    assert len(RULES) == 2
    promtool("check", "rules", *RULES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_the_alerts_fire_and_stay_quiet_as_their_cases_say(path: Path) -> None:
    promtool("test", "rules", path)


def test_a_case_that_does_not_hold_fails(tmp_path: Path) -> None:
    for folder in ("rules", "tests"):
        shutil.copytree(PROMETHEUS / folder, tmp_path / folder)
    changed = tmp_path / "rules/alerting.yaml"
    text = changed.read_text()
    assert "rec_consumer_lag_seconds) > 60" in text
    changed.write_text(text.replace("rec_consumer_lag_seconds) > 60", "rec_consumer_lag_seconds) > 6000"))
    with pytest.raises(AssertionError, match="LagRising"):
        promtool("test", "rules", tmp_path / "tests/stream.yaml")


@functools.cache
def alert_cases() -> list[dict[str, Any]]:
    tests = [test for path in CASES for test in yaml.safe_load(path.read_text())["tests"]]
    return [case for test in tests for case in test["alert_rule_test"]]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tried_both_ways(name: str) -> None:
    tried = [bool(case["exp_alerts"]) for case in alert_cases() if case["alertname"] == name]
    assert True in tried
    assert False in tried


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_where_to_look(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["labels"]["service"] == "hrnn-stream"
    assert "for" in alert
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook"] == f"k8s/alerts.md#{name.lower()}"
    uids = {json.loads(path.read_text())["uid"] for path in (GRAFANA / "dashboards").glob("*.json")}
    assert alert["annotations"]["dashboard"].removeprefix("d/") in uids


def sections() -> dict[str, str]:
    parts = re.split(r"^## (\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_runbook_has_an_entry_for_each_alert_and_no_other() -> None:
    assert sorted(sections()) == sorted(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_entry_says_what_it_means_where_to_look_and_what_to_do(name: str) -> None:
    entry = sections()[name]
    assert [word for word in ("**Means.**", "**Look.**", "**Do.**") if word not in entry] == []


def test_the_runbook_names_commands_and_settings_that_exist() -> None:
    from typer.main import get_command

    from stream.commands.environment import OWN_VARIABLES, CommandSettings
    from stream.commands.main import app
    from stream.settings import WorkerSettings
    from trainer.settings import FittingSettings, TrainerSettings

    text = RUNBOOK.read_text()
    commands: Any = get_command(app)
    for line in re.findall(r"`hrnn ([^`]*)`", text):
        group = commands
        for word in line.split():
            if not hasattr(group, "commands"):
                break
            assert word in group.commands, f"hrnn {line}"
            group = group.commands[word]
        options = {option for parameter in group.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= options, f"hrnn {line}"
    settings = (WorkerSettings, CommandSettings, TrainerSettings, FittingSettings)
    known = {f"HRNN_{field.upper()}" for kind in settings for field in kind.model_fields} | set(OWN_VARIABLES)
    assert set(re.findall(r"HRNN_[A-Z_]+", text)) <= known


def test_the_runbook_names_panels_and_log_lines_that_exist() -> None:
    text = " ".join(RUNBOOK.read_text().split())
    boards = [json.loads(path.read_text()) for path in (GRAFANA / "dashboards").glob("*.json")]
    titles = {panel["title"] for board in boards for panel in board["panels"]}
    named = set(re.findall(r'"([A-Z][^"]+)"', text))
    assert len(named) > 15
    assert named - titles == set()
    lines = {line for line in re.findall(r"`([a-z]+ [a-z =]+)`", text) if not line.startswith(("hrnn ", "kubectl "))}
    assert len(lines) > 5
    sources = "".join(path.read_text() for name in ("stream", "trainer") for path in (ROOT / name).rglob("*.py"))
    assert {line for line in lines if line not in sources} == set()
