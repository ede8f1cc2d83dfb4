"""The dashboards: committed as generated, in the shape that Grafana's linter asks for, of metrics there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream.telemetry import Telemetry as WorkerTelemetry
from tests.expressions import GRAFANA, OTHERS, generator, names, recorded, rules
from trainer.telemetry import Telemetry as TrainerTelemetry

FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
BOARDS: list[dict[str, Any]] = [json.loads(path.read_text()) for path in FILES]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
OF_NO_PANEL = {"process_virtual_memory_bytes", "process_start_time_seconds", "process_max_fds"}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for board in BOARDS:
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield f"{board['uid']}: {panel['title']}", panel


PANELS = dict(panels())


def exported() -> dict[str, str]:
    """Give each metric family that worker or trainer exports, with its type."""
    trainer = TrainerTelemetry(CollectorRegistry())
    pages = [generate_latest(registry).decode() for registry in (WorkerTelemetry().registry, trainer.registry)]
    families = [family for page in pages for family in text_string_to_metric_families(page)]
    return {family.name: family.type for family in families if not family.name.endswith("_created")}


def series() -> set[str]:
    return {name + suffix for name, kind in exported().items() for suffix in SUFFIXES[kind]}


def test_the_committed_json_is_what_the_generator_writes() -> None:
    texts = generator().texts()
    assert {path.name: path.read_text() for path in FILES} == texts, "run `make dashboards`"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_a_dashboard_can_be_provisioned_anywhere(board: dict[str, Any]) -> None:
    assert "id" not in board, "an id is the Grafana's that it is loaded into"
    assert re.fullmatch(r"hrnn-[a-z]+", board["uid"])
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "job", "instance"]
    assert board["templating"]["list"][0]["type"] == "datasource"
    for variable in board["templating"]["list"][1:]:
        assert variable["datasource"]["uid"] == "${datasource}"
        assert names(variable["query"].replace("label_values(", "")) <= series()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert board["editable"] is False


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_says_what_it_shows(name: str) -> None:
    panel = PANELS[name]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert panel["targets"]
    for target in panel["targets"]:
        expression = target["expr"]
        for window in re.findall(r"\[([^\]]*)\]", expression):
            assert window in ("$__rate_interval", "1h"), f"{window}: counters are read over $__rate_interval"
        for selector in re.findall(r"(?:rec_|process_|job:|up)[\w:]*\{[^}]*\}", expression):
            assert 'job=~"$job"' in selector, selector
        assert re.findall(r"(?<![\w:])(?:rec|process)_\w+\b(?![\w{:])", expression) == [], "a selector without a job"


def test_titles_are_one_of_a_kind() -> None:
    assert len(PANELS) == sum(panel["type"] != "row" for board in BOARDS for panel in board["panels"])


def test_what_panels_and_rules_name_is_exported() -> None:
    known = series() | recorded() | set(OTHERS)
    asked = {n for panel in PANELS.values() for target in panel["targets"] for n in names(target["expr"])}
    asked |= {n for rule in rules() for n in names(rule["expr"])}
    assert asked <= known


def test_what_is_exported_is_shown() -> None:
    shown = {n for panel in PANELS.values() for target in panel["targets"] for n in names(target["expr"])}
    for rule in rules():
        if rule.get("record") in shown:
            shown |= names(rule["expr"])
    hidden = {
        name for name, kind in exported().items() if not any(name + suffix in shown for suffix in SUFFIXES[kind])
    }  # fmt: skip
    assert hidden <= OF_NO_PANEL


def test_a_wrong_name_would_be_found() -> None:
    assert names('sum(rate(rec_evnts_total{job=~"$job"}[5m])) / up') == {"rec_evnts_total", "up"}
    assert not {"rec_evnts_total"} & series()
