"""A real Prometheus on a real worker and trainer under load: all that panels and rules ask for is there.

    python -m pytest tests/system/test_prometheus.py --pictures FOLDER

also draws each dashboard from what Prometheus has.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from models.records import Event
from stream.demo.movietweetings import load_events
from stream.demo.processes import Process, free_port
from tests.expressions import GRAFANA, OTHERS, names, rules, selectors
from tests.made import junk_values
from tests.running import Deployment, wait_until
from tests.system.pictures import draw
from tests.system.prometheus import Prometheus

WORKER, TRAINER = "hrnn-worker", "hrnn-trainer"
RATE_INTERVAL = "10s"
HISTORY, LIVE_RATE, LIVE_S = 5000, 250.0, 14.0

# What has no series here, and why; a name that gets one must be taken out.
WITHOUT_DATA = {
    "kafka_consumergroup_lag",  # kafka-exporter's, which is not run here
    "kubelet_volume_stats_used_bytes",  # the kubelets', of which there are none here
    "kubelet_volume_stats_capacity_bytes",
    "ALERTS",  # there are such series only while an alert fires; panels ask for their number, which may be 0
}


class Running(NamedTuple):
    """What the tests look at."""

    prometheus: Prometheus
    began: float
    ended: float  # when the last list had come


@pytest.fixture(scope="module")
def running(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Real events through a worker and a trainer, with some junk, two models and a refused one, all scraped."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is missing: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with Deployment(kafka, f"prometheus-{random.randrange(10**9)}-", folder) as deployment:
        worker = deployment.ready_worker(
            HRNN_GAP_S="120",  # of events of 20 minutes: several sessions
            HRNN_SESSION_TIMEOUT_S="10",  # no fault is wanted here, and the machine may be busy
        )
        trainer = Process(
            "trainer",
            ["trainer"],
            folder,
            {
                "HRNN_KAFKA_BOOTSTRAP": kafka,
                "HRNN_TOPIC_PREFIX": deployment.topics.prefix,
                "HRNN_TRAIN_INTERVAL_S": "5",
                "HRNN_TRAIN_POLL_S": "0.5",
                "HRNN_TRAIN_MIN_NEW_EVENTS": "1500",
                "HRNN_EPOCHS": "1",
                "HRNN_TRAIN_MAX_S": "10",
            },
            free_port(),
        )
        deployment.workers.append(trainer)  # ends with the others
        targets = {WORKER: [f"127.0.0.1:{worker.port}"], TRAINER: [f"127.0.0.1:{trainer.port}"]}
        with Prometheus(folder, targets) as prometheus:
            began = time.time()
            trainer.start()
            asyncio.run(play(deployment, trainer))
            ended = time.time()
            wait_until(lambda: trainer.metric("rec_models_published_total") >= 2, 60.0)
            wait_until(prometheus.rules_are_evaluated)
            yield Running(prometheus, began, ended)
        assert worker.stop() == 0
        assert trainer.stop() == 0


async def play(deployment: Deployment, trainer: Process) -> None:
    """Send a history that a model is made from, then a live part at a steady pace, with junk between."""
    events = load_events()[: HISTORY + int(LIVE_RATE * LIVE_S)]
    async with deployment.client() as client:
        start = time.time() - 1200.0  # within the last hours: as if it all had happened just now
        await client.send(paced(events[:HISTORY], start, 1100.0))
        await asyncio.to_thread(wait_until, lambda: trainer.metric("rec_models_published_total") >= 1, 60.0)
        seconds = int(LIVE_S)
        for second in range(seconds):
            first = HISTORY + int(second * LIVE_RATE)
            await client.send(paced(events[first : first + int(LIVE_RATE)], time.time() - 1.0, 1.0), rate=LIVE_RATE)
            await asyncio.to_thread(deployment.request, f"r{second}", events[first].user_id)
            if second % 4 == 0:
                junk = list(junk_values().values())
                await asyncio.to_thread(deployment.produce, junk[second // 4 % 8], key=b"u")
            if second == seconds - 8:
                await asyncio.to_thread(deployment.publish, "19700101T000000Z-torn", tear=0)
        assert await client.drained(60.0), f"{client.outstanding} events have no list"


def paced(events: list[Event], begin: float, seconds: float) -> list[Event]:
    """Give events new times, evenly from `begin` on."""
    return [
        Event(e.user_id, e.item_id, round(begin + seconds * n / len(events), 3), e.event_type, e.event_value)
        for n, e in enumerate(events)
    ]


def boards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))]


def chosen(prometheus: Prometheus, board: dict[str, Any]) -> dict[str, str]:
    """Choose "All" in each variable, as Grafana does: every value that its query finds, as one regular expression."""
    values = {"$__rate_interval": RATE_INTERVAL}
    for variable in board["templating"]["list"][1:]:
        query = filled(variable["query"], values)
        found = prometheus.label_values(query)
        assert found, query
        values[f"${variable['name']}"] = "|".join(re.escape(value).replace("\\", "\\\\") for value in found)
    return values


def filled(expression: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def test_prometheus_reaches_both_processes(running: Running) -> None:
    up = {series["metric"]["job"]: series["value"][1] for series in running.prometheus.query("up")}
    assert up == {WORKER: "1", TRAINER: "1"}


def test_every_expression_of_every_panel_returns_data(running: Running) -> None:
    empty = []
    for board in boards():
        values = chosen(running.prometheus, board)
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                expression = filled(target["expr"], values)
                if not had_data(running, expression):
                    empty.append(f"{board['uid']}: {panel['title']}: {expression}")
    assert empty == []


def had_data(running: Running, expression: str) -> bool:
    """Tell whether an expression has had a value since the start: rates of trials end with the load."""
    found = running.prometheus.query_range(expression, running.began, time.time(), 1.0)
    return any(value != "NaN" for series in found for _, value in series["values"])


def test_every_rule_is_evaluated_without_error(running: Running) -> None:
    health = running.prometheus.rule_health()
    assert len(health) == len(rules())
    assert {name: error for name, error in health.items() if error} == {}


def test_every_recorded_series_is_there(running: Running) -> None:
    missing = [rule["record"] for rule in rules() if "record" in rule and not had_data(running, rule["record"])]
    assert missing == []


def test_every_selector_of_every_alert_finds_series(running: Running) -> None:
    """An alert that is quiet says nothing; what it looks at must be there all the same."""
    found = {
        selector: bool(running.prometheus.query(f"last_over_time({selector}[5m])"))
        for rule in rules()
        if "alert" in rule
        for selector in selectors(rule["expr"])
    }
    expected = {selector: not names(selector) & WITHOUT_DATA for selector in found}
    assert found == expected
    assert set(OTHERS) - {"up"} <= WITHOUT_DATA


def test_only_the_alert_that_was_provoked_fires(running: Running) -> None:
    wait_until(lambda: "ModelRefused" in running.prometheus.firing())
    assert running.prometheus.firing() == {"ModelRefused"}


def test_the_dashboards_can_be_drawn(running: Running, request: pytest.FixtureRequest) -> None:
    folder = request.config.getoption("--pictures")
    if not folder:
        pytest.skip("pictures are drawn with --pictures FOLDER")
    for board in boards():
        path = Path(folder) / f"{board['uid']}.png"
        draw(board, chosen(running.prometheus, board), running.prometheus, (running.began, running.ended), path)
        assert path.stat().st_size > 10_000
