"""A dashboard drawn from a Prometheus by matplotlib, panel by panel: to be looked at where no Grafana is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.system.prometheus import Prometheus

COLUMNS, ROW_INCHES = 24, 0.32


def draw(
    board: Mapping[str, Any], values: Mapping[str, str], prometheus: Prometheus, time: tuple[float, float], path: Path
) -> None:
    """Draw all panels of a board, as large as they are, over a stretch of time, and save the picture."""
    mpl.use("Agg")
    panels = board["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(20, rows * ROW_INCHES + 0.5))
    for panel in panels:
        at = panel["gridPos"]
        if panel["type"] == "row":
            figure.text(0.01, 1 - (at["y"] + 0.8) / rows, panel["title"], weight="bold", size=12)
            continue
        left, width = at["x"] / COLUMNS + 0.035, at["w"] / COLUMNS - 0.05
        bottom, height = 1 - (at["y"] + at["h"] - 0.9) / rows, (at["h"] - 2.2) / rows
        axes = figure.add_axes((left, bottom, width, height))
        axes.set_title(panel["title"], size=9)
        _panel(axes, panel, values, prometheus, time)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)


def _panel(
    axes: Any, panel: Mapping[str, Any], values: Mapping[str, str], prometheus: Prometheus, time: tuple[float, float]
) -> None:
    begin, end = time
    unit = panel["fieldConfig"]["defaults"]["unit"]
    drawn = 0
    for target in panel["targets"]:
        expression = target["expr"]
        for name, value in values.items():
            expression = expression.replace(name, value)
        for series in prometheus.query_range(expression, begin, end, 1.0):
            points = [(float(t) - begin, float(value)) for t, value in series["values"]]
            label = re.sub(r"\{\{(\w+)\}\}", lambda m, of=series["metric"]: of.get(m[1], ""), target["legendFormat"])
            drawn += 1
            if panel["type"] == "stat":
                axes.text(0.5, 0.5, _shown(points[-1][1], unit), ha="center", va="center", size=18)
                continue
            axes.plot(*zip(*points, strict=True), label=f"{label} {_shown(points[-1][1], unit)}", linewidth=1)
    if panel["type"] == "stat":
        axes.axis("off")
    else:
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.set_xlim(0, end - begin)
        if "min" in panel["fieldConfig"]["defaults"]:
            axes.set_ylim(bottom=panel["fieldConfig"]["defaults"]["min"], top=axes.get_ylim()[1] * 1.25)
        if drawn:
            axes.legend(fontsize=7, loc="upper left")
    if not drawn:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="red", size=14, transform=axes.transAxes)


def _shown(value: float, unit: str) -> str:
    match unit:
        case "percentunit":
            return f"{value:.2%}"
        case "bytes":
            return f"{value / 2**20:.4g} MiB" if value >= 2**20 else f"{value:.4g} B"
        case "s":
            return f"{value:.3g} s"
        case "eps" | "cps" | "recps":
            return f"{value:.3g}/s"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
