"""Rows, panels and dashboards as plain values, and what Grafana's own SDK makes of them.

In an expression `$where` stands for the job and instance that the dashboard's variables choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WHERE = 'job=~"$job",instance=~"$instance"'
TAG = "hrnn-stream"
GREEN, YELLOW, RED = "green", "yellow", "red"
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8


@dataclass(frozen=True)
class Panel:
    """One panel: queries are pairs of an expression and a legend.

    `steps` are thresholds, (from, colour) each, above green; `low` makes what lies below the first step red instead.
    """

    title: str
    about: str
    unit: str
    queries: Sequence[tuple[str, str]]
    steps: Sequence[tuple[float, str]] = ()
    low: bool = False
    width: int = 8
    at_least: float | None = 0.0
    at_most: float | None = None
    stacked: bool = False
    decimals: int | None = None  # 0 for what is counted: an increase over a stretch is extrapolated to its ends
    single: bool = False  # one number instead of a graph


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    """A dashboard; `anchor` is a metric that says which jobs and instances there are to choose from."""

    uid: str
    title: str
    about: str
    anchor: str
    rows: Sequence[Row] = field(default_factory=tuple)


def number(
    title: str, about: str, unit: str, expression: str, steps: Sequence[tuple[float, str]] = (), low: bool = False
) -> Panel:
    """Make a panel of one number."""
    return Panel(title, about, unit, ((expression, ""),), steps, low, width=4, single=True)


def expressions(board: Board) -> list[tuple[str, str]]:
    """List every expression of a dashboard with the title of its panel."""
    return [
        (panel.title, expression.replace("$where", WHERE))
        for row in board.rows
        for panel in row.panels
        for expression, _ in panel.queries
    ]


def built(board: Board) -> dashboard.Dashboard:
    """Hand a board to the SDK; Grafana itself numbers dashboard and versions, the uid alone is ours."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("job", f"label_values({board.anchor}, job)"))
        .with_variable(_choice("instance", f'label_values({board.anchor}{{job=~"$job"}}, instance)'))
        .link(
            dashboard.DashboardLink("Other dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(False)
            .keep_time(True)
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts firing")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(RED)
            .expr('ALERTS{service="hrnn-stream",alertstate="firing"}')
        )
    )
    numbers = iter(range(1, 1000))
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            made = made.with_panel(_panel(panel).id(next(numbers)))
    return made


def _choice(name: str, query: str) -> dashboard.QueryVariable:
    # without an all_value: "All" is then each job or instance that the query found, and not every other exporter
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(VariableOption(text="All", value="$__all", selected=True))
    )


def _panel(panel: Panel) -> Any:
    made: Any = _number(panel) if panel.single else _graph(panel)
    made = (
        made.title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .datasource(DATASOURCE)
        .span(panel.width)
        .height(STAT_HEIGHT if panel.single else GRAPH_HEIGHT)
        .thresholds(_thresholds(panel))
    )
    if panel.at_least is not None:
        made = made.min(panel.at_least)
    if panel.at_most is not None:
        made = made.max(panel.at_most)
    if panel.decimals is not None:
        made = made.decimals(panel.decimals)
    for letter, (expression, legend) in zip("ABCDEFGH", panel.queries, strict=False):
        query = prometheus.Dataquery().expr(expression.replace("$where", WHERE)).ref_id(letter).legend_format(legend)
        made = made.with_target(query.instant() if panel.single else query.range())
    return made


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color=RED if panel.low else GREEN)]
    steps += [Threshold(value=value, color=color) for value, color in panel.steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _number(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _graph(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 5)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
    )
    if panel.steps:
        line = common.GraphThresholdsStyleConfig().mode(common_models.GraphTresholdsStyleMode.DASHED)
        made = made.thresholds_style(line)
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    return made
