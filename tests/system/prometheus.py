"""A real Prometheus for a test: on a free port, its data in a temporary folder, gone with the block."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from stream.demo.processes import free_port
from tests.expressions import RULES, rules
from tests.running import wait_until

SCRAPE_S = 1


class Prometheus:
    """Scrapes targets by job every second, with the project's own rules."""

    def __init__(self, folder: Path, targets: Mapping[str, list[str]]) -> None:
        """Write its configuration; it starts with the block."""
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        scrapes = [{"job_name": job, "static_configs": [{"targets": at}]} for job, at in targets.items()]
        every = f"{SCRAPE_S}s"
        (folder / "prometheus.yaml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path) for path in RULES],
            "scrape_configs": scrapes,
        }))  # fmt: skip

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        program = shutil.which("prometheus")
        assert program, "prometheus is missing: apt-get install prometheus"
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program, f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._is_ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask for an expression's value now; series that are NaN are no data."""
        found = self._get("query", query=expression)["result"]
        return [series for series in found if not math.isnan(float(series["value"][1]))]

    def query_range(self, expression: str, begin: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """Ask for an expression's values over a stretch of time."""
        found = self._get("query_range", query=expression, start=str(begin), end=str(end), step=str(step_s))
        return list(found["result"])

    def label_values(self, query: str) -> list[str]:
        """Answer a dashboard's label_values(selector, label)."""
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert match, query
        return list(self._get(f"label/{match[2]}/values", **{"match[]": match[1]}))

    def rule_health(self) -> dict[str, str]:
        """Give each rule's last error, "" for those that were evaluated without one."""
        groups = self._get("rules")["groups"]
        return {rule["name"]: rule.get("lastError", "") for group in groups for rule in group["rules"]}

    def rules_are_evaluated(self) -> bool:
        """Tell whether all rules have been evaluated."""
        groups = self._get("rules")["groups"]
        evaluated = [rule for group in groups for rule in group["rules"] if rule["health"] == "ok"]
        return len(evaluated) == len(rules())

    def firing(self) -> set[str]:
        """Name the alerts that fire."""
        return {a["labels"]["alertname"] for a in self._get("alerts")["alerts"] if a["state"] == "firing"}

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=2.0) as response:
                return int(response.status) == 200
        except OSError:
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        for _ in range(3):
            try:
                with urllib.request.urlopen(url, timeout=10.0) as response:
                    return json.load(response)["data"]
            except urllib.error.HTTPError as error:
                raise AssertionError(f"{url}: {error.read().decode()}") from None
            except TimeoutError:
                time.sleep(1.0)
        raise AssertionError(f"{url} was not answered")
